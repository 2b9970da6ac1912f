//! Files with the bytes of released versions, which must be readable for ever: help for tests.
//!
//! A type's files lie in one directory, `TYPE-NAME.vVERSION.hex`, in hexadecimal: a diff shows what changed.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use data_encoding::HEXLOWER;

use super::{Versioned, from_envelope, to_envelope, view};

/// Holds a type to the files of all its released versions in `directory`.
///
/// `example` must encode to exactly the bytes in the file of the present version; it and every older version's file
/// must decode, to a value that `check` accepts along with the version it was written by.
///
/// With `HYPHA_GOLDEN=write` in the environment, the present version's file is made if it is not there. It is never
/// overwritten: a change of the form takes a new version.
///
/// # Panics
///
/// When the type breaks its promise, with what to do.
pub fn check<T: Versioned + Debug>(directory: impl AsRef<Path>, example: &T, check: impl Fn(u32, T)) {
    let directory = directory.as_ref();
    let prefix = format!("{}.v", T::TYPE_NAME.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    let path = directory.join(format!("{prefix}{}.hex", T::VERSION));
    let bytes = to_envelope(example);
    if !path.exists() {
        assert!(
            std::env::var("HYPHA_GOLDEN").is_ok_and(|wish| wish == "write"),
            "{} is missing: run the test with HYPHA_GOLDEN=write once version {} is final",
            path.display(),
            T::VERSION
        );
        let mut lines = String::new();
        for line in bytes.chunks(40) {
            lines += &HEXLOWER.encode(line);
            lines.push('\n');
        }
        fs::write(&path, lines).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let mut versions = Vec::new();
    for entry in fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let path = entry.expect("a directory that was opened can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(version) = name.strip_prefix(&prefix).and_then(|name| name.strip_suffix(".hex")) else {
            continue;
        };
        let version: u32 = version.parse().unwrap_or_else(|_| panic!("{name} names no version"));
        let text: String = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .split_whitespace()
            .collect();
        let released = HEXLOWER.decode(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        if version == T::VERSION {
            assert!(
                released == bytes,
                "`{}` is no longer written as version {version} was released:\nreleased {}\nnow      {}\nGive the \
                 changed form a new version, and upgrade from this one.",
                T::TYPE_NAME,
                view(&released),
                view(&bytes)
            );
        }
        match from_envelope(&released) {
            Ok(value) => check(version, value),
            Err(error) => {
                panic!(
                    "version {version} of `{}` was released and can no longer be read: {error}",
                    T::TYPE_NAME
                )
            }
        }
        versions.push(version);
    }
    assert!(versions.contains(&T::VERSION), "just made or found");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serialization::{Content, EnvelopeError};
    use serde::{Deserialize, Serialize};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct First {
        count: u32,
    }
    impl Versioned for First {
        const TYPE_NAME: &'static str = "golden test";
        const VERSION: u32 = 1;
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Second {
        counts: Vec<u32>,
    }
    impl Versioned for Second {
        const TYPE_NAME: &'static str = "golden test";
        const VERSION: u32 = 2;

        fn upgrade(_: u32, content: Content<'_>) -> Result<Second, EnvelopeError> {
            Ok(Second { counts: vec![content.decode::<First>()?.count] })
        }
    }

    /// Changed without a new version, and without an upgrade.
    #[derive(Debug, Serialize, Deserialize)]
    struct Careless {
        counts: Vec<u64>,
        more: bool,
    }
    impl Versioned for Careless {
        const TYPE_NAME: &'static str = "golden test";
        const VERSION: u32 = 2;
    }

    fn directory() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/serialization")
    }

    #[test]
    fn released_bytes_are_read_for_ever_and_written_the_same() {
        let seen = crate::cell::RefCell::new(Vec::new());
        check(directory(), &Second { counts: vec![7] }, |version, value| {
            assert_eq!(value, Second { counts: vec![7] });
            seen.borrow_mut().push(version);
        });
        let mut seen = seen.into_inner();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
    }

    #[test]
    fn a_form_changed_without_a_new_version_fails() {
        let scratch = tempfile::tempdir().unwrap();
        let name = "golden-test.v2.hex";
        fs::copy(directory().join(name), scratch.path().join(name)).unwrap();
        let careless = || check(scratch.path(), &Careless { counts: vec![7], more: true }, |_, _| ());
        let message = *catch_unwind(AssertUnwindSafe(careless)).unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("the changed form a new version"), "{message}");
    }

    #[test]
    fn a_released_version_that_can_no_longer_be_read_fails() {
        let scratch = tempfile::tempdir().unwrap();
        fs::copy(directory().join("golden-test.v1.hex"), scratch.path().join("golden-test.v1.hex")).unwrap();
        let careless = Careless { counts: vec![], more: true };
        fs::write(scratch.path().join("golden-test.v2.hex"), HEXLOWER.encode(&to_envelope(&careless)))
            .unwrap();
        let forgetful = || check(scratch.path(), &careless, |_, _| ());
        let message = *catch_unwind(AssertUnwindSafe(forgetful)).unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("version 1 of `golden test` was released"), "{message}");
    }
}
