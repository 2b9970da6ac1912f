//! The record of a snapshot: a tree that was the volume's once, under a name.
//!
//! `1, tree 100, version u64, taken seconds i64, taken nanoseconds u32, origin u8, author size u8, author, name size u8,
//! name`; what is longer was written by a later version, and its known part is read. The tree is a pointer with its
//! address, for a record moves from object to object with the node that it lies in.
//!
//! The tree of a snapshot has records of snapshots too, those that were there when it was the newest. They mean nothing:
//! which snapshots there are says the newest tree alone.

use super::{POINTER_SIZE, Pointer};
use crate::operations::Time;

const VERSION: u8 = 1;
/// A snapshot's name is a directory's, and room is left for what tells two of one name apart.
pub const SNAPSHOT_NAME_SIZE_MAX: usize = 100;
/// Bytes of an author's name that are kept.
const AUTHOR_SIZE_MAX: usize = 64;

/// How long after the drive's a command may come to its last space: each is opened for it, and nodes may be slow. What comes later, as it
/// was cut short and said again, is of another time.
const ALONG_SECONDS: i64 = 60 * 60;

/// What people call the volume as it is, where a snapshot's name may stand: no snapshot is called so.
pub const NOW: &str = "now";

/// Who wanted a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SnapshotOrigin {
    /// Somebody who will delete it, too; and what a later version means.
    #[default]
    Asked,
    /// A policy, which thins out what it has made.
    Policy,
}

/// A snapshot as the tree has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotRecord {
    /// What the volume's tree was.
    pub tree: Pointer,
    /// The version of the root that it was taken after: of nothing that came later.
    pub version: u64,
    /// When it was taken.
    pub taken: Time,
    /// Who wanted it.
    pub origin: SnapshotOrigin,
    /// Who took it.
    pub author: String,
    /// Its name, which no other snapshot of the volume has.
    pub name: String,
}

/// Says why `name` can't be a snapshot's: it has to be a directory's name that needs no quotes' help to be told apart.
///
/// # Errors
///
/// What is wrong with it, as the end of a sentence.
pub fn check_snapshot_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("it is empty"),
        NOW => Err("it means the drive as it is"),
        _ if name.len() > SNAPSHOT_NAME_SIZE_MAX => Err("it is longer than 100 bytes"),
        _ if name.starts_with(['.', '-']) => Err("it begins with a dot or a dash"),
        _ if name.contains('/') => Err("it has a slash"),
        _ if name.chars().any(char::is_control) => Err("it has a control character"),
        _ if name.trim() != name => Err("it begins or ends with a blank"),
        _ => Ok(()),
    }
}

impl SnapshotRecord {
    /// Whether this one of a space was taken along with `of_drive`, the drive's of the same name. A name alone does not say that: anybody may
    /// have given it to one of the space's for another reason; and those of policies are taken when something first changes in their hour,
    /// day, week or month, which may be weeks later in a space.
    pub fn is_along_with(&self, of_drive: &SnapshotRecord) -> bool {
        // The drive's comes first.
        let latest = of_drive.taken.seconds.saturating_add(ALONG_SECONDS);
        self.taken >= of_drive.taken && self.taken.seconds <= latest
    }

    /// Writes the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        self.tree.encode(false, out);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.taken.seconds.to_le_bytes());
        out.extend_from_slice(&self.taken.nanoseconds.to_le_bytes());
        out.push(match self.origin {
            SnapshotOrigin::Asked => 0,
            SnapshotOrigin::Policy => 1,
        });
        for (text, size_max) in [(&self.author, AUTHOR_SIZE_MAX), (&self.name, SNAPSHOT_NAME_SIZE_MAX)] {
            let text = &text.as_bytes()[..text.floor_char_boundary(size_max)];
            out.push(text.len() as u8);
            out.extend_from_slice(text);
        }
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Option<SnapshotRecord> {
        let (tree, rest) = bytes.strip_prefix(&[VERSION])?.split_at_checked(POINTER_SIZE)?;
        let tree = Pointer::decode(tree, &[0; 32])?;
        let (version, rest) = rest.split_first_chunk()?;
        let (seconds, rest) = rest.split_first_chunk()?;
        let (nanoseconds, rest) = rest.split_first_chunk()?;
        let (origin, rest) = rest.split_first()?;
        let (author, rest) = split_text(rest)?;
        let (name, _) = split_text(rest)?;
        check_snapshot_name(&name).ok()?;
        Some(SnapshotRecord {
            tree,
            version: u64::from_le_bytes(*version),
            taken: Time {
                seconds: i64::from_le_bytes(*seconds),
                nanoseconds: u32::from_le_bytes(*nanoseconds).min(999_999_999),
            },
            origin: if *origin == 1 { SnapshotOrigin::Policy } else { SnapshotOrigin::Asked },
            author: printable(&author),
            name,
        })
    }
}

/// A name as it goes to a terminal or a log, beside others that it should not pass for: whoever chose it may mean no good.
pub fn printable(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "@._- ".contains(c);
    name.chars().map(|c| if is_plain(c) { c } else { '?' }).collect()
}

/// The same of a path, which keeps its slashes.
pub fn printable_path(path: &str) -> String {
    path.split('/').map(printable).collect::<Vec<_>>().join("/")
}

/// Takes a text off that begins with its size.
fn split_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (size, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*size))?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_keeps_its_slashes_and_nothing_else_that_a_name_may_not_have() {
        assert_eq!(printable_path("our band/in\u{1b}[2Jside"), "our band/in??2Jside");
        assert_eq!(printable("our band/inside"), "our band?inside");
    }

    fn example() -> SnapshotRecord {
        SnapshotRecord {
            tree: Pointer::example([1; 32], 2, 320),
            version: 7,
            taken: Time { seconds: -8, nanoseconds: 9 },
            origin: SnapshotOrigin::Policy,
            author: "äuthor".into(),
            name: "before the move".into(),
        }
    }

    #[test]
    fn a_record_survives_encoding_and_a_longer_tail() {
        let mut bytes = Vec::new();
        example().encode(&mut bytes);
        for tail in [&b""[..], b"later"] {
            bytes.extend_from_slice(tail);
            assert_eq!(SnapshotRecord::decode(&bytes), Some(example()));
        }
    }

    #[test]
    fn a_name_alone_makes_two_snapshots_none_of_one_time() {
        let at =
            |seconds, origin| SnapshotRecord { taken: Time { seconds, nanoseconds: 0 }, origin, ..example() };
        let (asked, policy) = (SnapshotOrigin::Asked, SnapshotOrigin::Policy);
        let is_along = |seconds, origin, of_drive| at(seconds, origin).is_along_with(&at(10_000, of_drive));
        assert!(is_along(10_000, asked, asked) && is_along(10_000 + ALONG_SECONDS, asked, asked));
        assert!(!is_along(9_999, asked, asked) && !is_along(10_001 + ALONG_SECONDS, asked, asked));
        assert!(is_along(10_005, policy, policy) && !is_along(9_000, policy, policy));
        assert!(!is_along(10_001 + ALONG_SECONDS, policy, policy), "of the same month, and weeks later");
    }

    #[test]
    fn no_part_of_a_record_is_one() {
        let mut bytes = Vec::new();
        example().encode(&mut bytes);
        for size in 0..bytes.len() {
            assert_eq!(SnapshotRecord::decode(&bytes[..size]), None, "{size}");
        }
    }

    #[test]
    fn a_tree_has_its_address() {
        let mut bytes = vec![VERSION];
        example().tree.encode(true, &mut bytes);
        bytes.extend_from_slice(&[0; 100]);
        assert_eq!(SnapshotRecord::decode(&bytes), None);
    }

    #[test]
    fn who_took_it_can_be_shown_on_a_terminal_whatever_he_calls_himself() {
        let mut bytes = Vec::new();
        SnapshotRecord { author: "a\u{1b}[2Jb\u{202e}".into(), ..example() }.encode(&mut bytes);
        assert_eq!(SnapshotRecord::decode(&bytes).unwrap().author, "a??2Jb?");
    }

    #[test]
    fn names_are_those_of_visible_directories() {
        for good in ["a", "before the move", "2026-11-26T22.15.03Z", "v1.2-rc", "Überblick"] {
            assert_eq!(check_snapshot_name(good), Ok(()), "{good:?}");
        }
        let long = "x".repeat(SNAPSHOT_NAME_SIZE_MAX + 1);
        for bad in ["", "now", ".", "..", ".hidden", "-d", "a/b", "a\nb", "a\0b", " a", "a ", &long] {
            assert!(check_snapshot_name(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = SnapshotRecord::decode(&bytes);
            let mut begun = Vec::new();
            example().encode(&mut begun);
            begun.truncate(begun.len() - bytes.len().min(60));
            begun.extend_from_slice(&bytes);
            if let Some(record) = SnapshotRecord::decode(&begun) {
                prop_assert_eq!(check_snapshot_name(&record.name), Ok(()));
            }
        }
    }
}
