//! What a service looks like from outside, as text that is kept with each release.
//!
//! One line a method, in the order of their numbers, so that a diff shows what changed:
//!
//! ```text
//! service calculator version 1
//! 0x0001 add (a: i64, b: i64) -> Result<i64, Never>
//! ```
//!
//! A released line must stay as it is: peers that speak it are out there. New lines may come. What the lines cannot
//! show is the inside of a named type; that is held by the rule for messages (fields are only ever appended, with a
//! default) and by golden files of encoded values.
//!
//! What it is not: a language from which code is generated. The trait is the definition.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io;
use std::path::Path;

/// A service's methods as its peers see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// What it is called in logs, and before the dot of a method's name.
    pub service: &'static str,
    /// Counts up when a released method is given up; see [`Schema::incompatibilities`].
    pub version: u32,
    /// In the order of the trait.
    pub methods: Vec<MethodSchema>,
}

/// A method as its peers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodSchema {
    /// What stands for it on the wire.
    pub id: u32,
    /// What it is called.
    pub name: &'static str,
    /// Names and types; streams and payloads by their types.
    pub arguments: &'static [(&'static str, &'static str)],
    /// The response's type.
    pub response: &'static str,
    /// The error's type.
    pub error: &'static str,
}

/// Type names as the compiler prints them may differ in their spaces only.
fn plain(type_name: &str) -> String {
    let dense: String = type_name.split_whitespace().collect();
    dense.replace("$crate::rpc::", "").replace(',', ", ")
}

impl Display for MethodSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x} {} (", self.id, self.name)?;
        for (at, (name, type_name)) in self.arguments.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            write!(f, "{comma}{name}: {}", plain(type_name))?;
        }
        write!(f, ") -> Result<{}, {}>", plain(self.response), plain(self.error))
    }
}

impl Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "service {} version {}", self.service, self.version)?;
        let methods: BTreeMap<u32, &MethodSchema> =
            self.methods.iter().map(|method| (method.id, method)).collect();
        methods.values().try_for_each(|method| writeln!(f, "{method}"))
    }
}

impl Schema {
    /// What a peer that knows the schema `released` would miss in this one, a line each; empty if nothing.
    ///
    /// A new version may drop methods, but never give their numbers to others.
    pub fn incompatibilities(&self, released: &str) -> Vec<String> {
        let mut lines = released.lines();
        let head = lines.next().unwrap_or_default();
        let version: Option<u32> = head
            .strip_prefix("service ")
            .and_then(|rest| rest.strip_prefix(self.service))
            .and_then(|rest| rest.strip_prefix(" version "))
            .and_then(|version| version.parse().ok());
        let Some(version) = version else {
            return vec![format!("{head:?} is not the head of a schema of {}", self.service)];
        };
        let mut found = Vec::new();
        if version > self.version {
            found.push(format!("version {} follows the released {version}", self.version));
        }
        let own: BTreeMap<String, String> =
            self.methods.iter().map(|method| (format!("{:#06x}", method.id), method.to_string())).collect();
        for line in lines.filter(|line| !line.is_empty()) {
            match own.get(line.split(' ').next().unwrap_or_default()) {
                Some(same) if same == line => {}
                Some(other) => found.push(format!("released as `{line}`, now `{other}`")),
                None if version < self.version => {}
                None => found.push(format!("released as `{line}`, now gone")),
            }
        }
        found
    }

    /// Compares with the released schema in the file at `path`, for a test to assert on. With `HYPHA_BLESS` set in the
    /// environment, the file is written instead: a release.
    ///
    /// # Errors
    /// When the file can't be read or written, or a peer of that release could not talk to this one; and when methods
    /// are missing in it, for then a later change of them would go unnoticed.
    pub fn compare_with_released(&self, path: impl AsRef<Path>) -> io::Result<()> {
        if std::env::var_os("HYPHA_BLESS").is_some() {
            return std::fs::write(path, self.to_string());
        }
        let released = std::fs::read_to_string(path)?;
        let mut found = self.incompatibilities(&released);
        if found.is_empty() && released != self.to_string() {
            found.push("there are new methods: run this test with HYPHA_BLESS=1 to record them".to_owned());
        }
        if found.is_empty() { Ok(()) } else { Err(io::Error::other(found.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: MethodSchema = MethodSchema {
        id: 1,
        name: "add",
        arguments: &[("a", "i64"), ("b", "Vec < i64 >")],
        response: "(i64, u8)",
        error: "Never",
    };

    fn schema(version: u32, methods: &[MethodSchema]) -> Schema {
        Schema { service: "calculator", version, methods: methods.to_vec() }
    }

    #[test]
    fn a_schema_is_a_line_a_method() {
        let expected =
            "service calculator version 1\n0x0001 add (a: i64, b: Vec<i64>) -> Result<(i64, u8), Never>\n";
        assert_eq!(schema(1, &[ADD]).to_string(), expected);
    }

    #[test]
    fn adding_a_method_is_compatible_and_changing_or_removing_one_is_not() {
        let released = schema(1, &[ADD]).to_string();
        let more = MethodSchema { id: 2, name: "more", ..ADD };
        assert!(schema(1, &[ADD, more.clone()]).incompatibilities(&released).is_empty());
        for changed in [
            MethodSchema { arguments: &[("a", "i32"), ("b", "Vec<i64>")], ..ADD },
            MethodSchema { error: "String", ..ADD },
            MethodSchema { name: "plus", ..ADD },
            more,
        ] {
            assert_eq!(schema(1, &[changed]).incompatibilities(&released).len(), 1);
        }
    }

    #[test]
    fn a_new_version_may_drop_a_method_but_not_reuse_its_number() {
        let released = schema(1, &[ADD]).to_string();
        assert!(schema(2, &[]).incompatibilities(&released).is_empty());
        assert_eq!(schema(2, &[MethodSchema { name: "other", ..ADD }]).incompatibilities(&released).len(), 1);
        assert_eq!(schema(0, &[ADD]).incompatibilities(&released).len(), 1, "versions only count up");
        assert_eq!(schema(1, &[ADD]).incompatibilities("service other version 1\n").len(), 1);
    }
}
