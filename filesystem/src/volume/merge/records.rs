//! What a merge decides from records and names alone: whose content a file keeps, its attributes, a conflict's name.
//! Pure.

use crate::calendar::Civil;
use crate::format::{ContentVersion, InodeRecord};
use crate::operations::{FileKind, NAME_SIZE_MAX, Time};

/// What is longer is no extension but a name with a dot in it.
const EXTENSION_SIZE_MAX: usize = 16;

/// Whose content a file has after a merge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// Only we changed it.
    Ours,
    /// They changed it, or nobody did.
    Theirs,
    /// Both changed it: it is two files from now on.
    Both,
}

impl Content {
    /// Decides by content versions. What is `None` does not exist on that side.
    pub(super) fn of(
        ours: Option<&InodeRecord>,
        base: Option<&InodeRecord>,
        theirs: Option<&InodeRecord>,
    ) -> Content {
        let Some(ours) = ours else { return Content::Theirs };
        let changed = |record: &InodeRecord| base.is_none_or(|base| base.content != record.content);
        if !changed(ours) {
            return Content::Theirs;
        }
        match theirs {
            // It is there already: we published it, and the answer was lost.
            Some(theirs) if theirs.content == ours.content => Content::Theirs,
            // So is what we had on the way to it.
            Some(theirs) if is_before(theirs.content, ours.content) => Content::Ours,
            Some(theirs) if changed(theirs) => Content::Both,
            _ => Content::Ours,
        }
    }
}

/// Whether who wrote `later` wrote `earlier` on the way to it. A session's changes are one line; those of a device are not, since it may
/// begin anew at a root that lacks what it published last.
fn is_before(earlier: ContentVersion, later: ContentVersion) -> bool {
    earlier.writer == later.writer && earlier.counter < later.counter
}

/// Whether they changed a file's content since the base.
pub(super) fn is_content_changed(base: Option<&InodeRecord>, theirs: &InodeRecord) -> bool {
    base.is_none_or(|base| base.content != theirs.content)
}

/// Merges two changes of one record: what we changed is ours, the rest theirs; what tells of the content goes with it.
pub(super) fn merge_records(
    ours: &InodeRecord,
    base: &InodeRecord,
    theirs: &InodeRecord,
    content: Content,
) -> InodeRecord {
    fn choose<T: PartialEq>(ours: T, base: T, theirs: T) -> T {
        if ours == base { theirs } else { ours }
    }
    let of_content = if content == Content::Ours { ours } else { theirs };
    InodeRecord {
        kind: theirs.kind,
        mode: choose(ours.mode, base.mode, theirs.mode),
        uid: choose(ours.uid, base.uid, theirs.uid),
        gid: choose(ours.gid, base.gid, theirs.gid),
        nlink: theirs.nlink,
        rdev: theirs.rdev,
        flags: choose(ours.flags, base.flags, theirs.flags),
        project: choose(ours.project, base.project, theirs.project),
        size: of_content.size,
        frames: of_content.frames,
        content: of_content.content,
        frame_exponent: of_content.frame_exponent,
        parent: choose(ours.parent, base.parent, theirs.parent),
        atime: ours.atime.max(theirs.atime),
        mtime: choose(ours.mtime, base.mtime, theirs.mtime),
        ctime: ours.ctime.max(theirs.ctime),
        btime: theirs.btime,
        tail: theirs.tail.clone(),
    }
}

/// What a conflict's suffix begins with.
const CONFLICT: &[u8] = b" (conflict, ";
/// Of a conflict's suffix the characters of its time, and what ends it.
const TIME: &[u8] = b", 0000-00-00 00.00.00)";

/// Returns " (conflict, author, time)".
pub(super) fn conflict_suffix(author: &str, now: Time) -> String {
    format!(" (conflict, {author}, {})", civil(now))
}

/// Returns `name` without the suffix of a conflict, if it has one: what is in conflict with a conflict's copy is a copy of the same.
pub(super) fn without_conflict(name: &[u8]) -> Vec<u8> {
    let is_time = |bytes: &[u8]| {
        let is_alike = |(found, wanted): (&u8, &u8)| match wanted {
            b'0' => found.is_ascii_digit(),
            wanted => found == wanted,
        };
        bytes.len() == TIME.len() && bytes.iter().zip(TIME).all(is_alike)
    };
    let begins = name.windows(CONFLICT.len()).rposition(|window| window == CONFLICT);
    let ends = name.windows(TIME.len()).rposition(is_time).map(|at| at + TIME.len());
    let (Some(begins), Some(ends)) = (begins.filter(|begins| *begins > 0), ends) else {
        return name.to_vec();
    };
    if ends < begins {
        return name.to_vec();
    }
    // The number of one of several.
    let rest = &name[ends..];
    let digits = rest
        .strip_prefix(b" ")
        .map_or(0, |rest| rest.iter().take_while(|byte| byte.is_ascii_digit()).count());
    let rest = if digits > 0 { &rest[1 + digits..] } else { rest };
    // Whatever else follows was made of it by somebody.
    if rest.first().is_some_and(|byte| *byte != b'.') {
        return name.to_vec();
    }
    [&name[..begins], rest].concat()
}

/// Returns `name` with `suffix` before its extension, so that programs still know what kind of file it is; `number`
/// tells several of one second apart. It is cut to what a name may have.
pub(in crate::volume) fn conflict_name(name: &[u8], kind: FileKind, suffix: &str, number: u32) -> Vec<u8> {
    let split = if kind == FileKind::Directory { name.len() } else { extension_start(name) };
    let (stem, extension) = name.split_at(split);
    let mut suffix = match number {
        1 => suffix.to_owned(),
        number => format!("{suffix} {number}"),
    };
    suffix.retain(|character| character != '/' && character != '\0');
    let suffix = cut(suffix.as_bytes(), NAME_SIZE_MAX / 2);
    let stem = cut(stem, NAME_SIZE_MAX - suffix.len() - extension.len());
    [stem, suffix, extension].concat()
}

/// Cuts bytes off, but not within a character.
fn cut(bytes: &[u8], size_max: usize) -> &[u8] {
    if bytes.len() <= size_max {
        return bytes;
    }
    let is_within = |at: usize| bytes[at] & 0b1100_0000 == 0b1000_0000;
    let end = (0..=size_max).rev().take(4).find(|at| !is_within(*at)).unwrap_or(size_max);
    &bytes[..end]
}

/// Returns where the extension begins, with its dot; the end if there is none.
fn extension_start(name: &[u8]) -> usize {
    let last_dot = |name: &[u8]| {
        // A name that begins with its only dot is a hidden file without an extension.
        let dot = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0)?;
        let is_one = dot + 1 < name.len() && name.len() - dot <= EXTENSION_SIZE_MAX && !name.ends_with(b")");
        is_one.then_some(dot)
    };
    match last_dot(name) {
        None => name.len(),
        Some(dot) if name[..dot].ends_with(b".tar") && dot > 4 => dot - 4,
        Some(dot) => dot,
    }
}

/// Writes a time as people do, in UTC, and as a name allows.
pub(in crate::volume) fn civil(time: Time) -> String {
    let Civil { year, month, day, hour, minute, second } = Civil::of(time.seconds);
    format!("{year:04}-{month:02}-{day:02} {hour:02}.{minute:02}.{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_do() {
        let at = |seconds| civil(Time { seconds, nanoseconds: 0 });
        assert_eq!(at(0), "1970-01-01 00.00.00");
        assert_eq!(at(951_827_696), "2000-02-29 12.34.56");
        assert_eq!(at(1_795_355_999), "2026-11-22 13.59.59");
    }

    #[test]
    fn a_conflict_keeps_the_extension_and_fits() {
        let name = |name: &str, kind, number| {
            String::from_utf8(conflict_name(name.as_bytes(), kind, " (c)", number)).unwrap()
        };
        let file = |text: &str| name(text, FileKind::Regular, 1);
        assert_eq!(file("report.odt"), "report (c).odt");
        assert_eq!(file("data.tar.gz"), "data (c).tar.gz");
        assert_eq!(file("Makefile"), "Makefile (c)");
        assert_eq!(file(".profile"), ".profile (c)");
        assert_eq!(file(".tar.gz"), ".tar (c).gz");
        assert_eq!(file("ends."), "ends. (c)");
        assert_eq!(file("v1.a sentence and no extension"), "v1.a sentence and no extension (c)");
        assert_eq!(name("conf.d", FileKind::Directory, 1), "conf.d (c)");
        assert_eq!(name("report.odt", FileKind::Regular, 3), "report (c) 3.odt");
        assert_eq!(file("seen (at 12.30)"), "seen (at 12.30) (c)");
        let long = format!("{}.txt", "ä".repeat(125));
        let cut = file(&long);
        assert!(cut.len() <= NAME_SIZE_MAX && cut.len() > NAME_SIZE_MAX - 4 && cut.ends_with("ä (c).txt"));
        let wild = conflict_name(&[b'x'; 255], FileKind::Regular, &" (a/b, \u{1f600})".repeat(40), 1);
        assert!(wild.len() <= NAME_SIZE_MAX && !wild.contains(&b'/'));
    }

    #[test]
    fn a_conflict_of_a_conflicts_copy_is_named_as_one_of_the_same() {
        let first = conflict_suffix("bob", Time { seconds: 951_827_696, nanoseconds: 0 });
        for (name, kind) in [
            ("report.odt", FileKind::Regular),
            ("ren3", FileKind::Regular),
            ("data.tar.gz", FileKind::Regular),
            ("conf.d", FileKind::Directory),
            ("a (conflict, or not)", FileKind::Regular),
        ] {
            for number in [1, 2, 14] {
                let copy = conflict_name(name.as_bytes(), kind, &first, number);
                assert_ne!(copy, name.as_bytes());
                assert_eq!(String::from_utf8(without_conflict(&copy)).unwrap(), name);
            }
        }
        let copy = String::from_utf8(conflict_name(b"a.txt", FileKind::Regular, &first, 1)).unwrap();
        for other in
            [copy.replace(')', ") of mine"), copy.replace("12.34", "12:34"), copy.replace("a (", "(")]
        {
            assert_eq!(without_conflict(other.as_bytes()), other.as_bytes());
        }
    }

    #[test]
    fn whose_content_stays_is_decided_by_its_version() {
        let at = |writer, counter| InodeRecord {
            content: ContentVersion { writer, counter },
            ..InodeRecord::new(FileKind::Regular, Time::default())
        };
        let (base, half, ours, theirs) = (at(9, 3), at(1, 4), at(1, 5), at(2, 4));
        let of = |ours, base, theirs| Content::of(ours, base, theirs);
        assert_eq!(of(Some(&ours), Some(&base), Some(&base)), Content::Ours);
        assert_eq!(of(Some(&base), Some(&base), Some(&theirs)), Content::Theirs);
        assert_eq!(of(Some(&ours), Some(&base), Some(&theirs)), Content::Both);
        assert_eq!(of(Some(&ours), Some(&base), None), Content::Ours);
        assert_eq!(of(None, Some(&base), Some(&theirs)), Content::Theirs);
        assert_eq!(of(Some(&ours), None, None), Content::Ours);
        assert_eq!(of(Some(&ours), Some(&base), Some(&half)), Content::Ours, "half of ours is there");
        assert_eq!(of(Some(&ours), Some(&base), Some(&ours)), Content::Theirs, "all of ours is there");
        assert_eq!(of(Some(&ours), None, Some(&theirs)), Content::Both);
        let empty = at(0, 0);
        assert_eq!(of(Some(&empty), None, Some(&empty)), Content::Theirs, "created, and never written");
    }
}
