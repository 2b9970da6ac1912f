//! Two states of a volume are told apart by path, and what a path was is known of each: of what changed nothing is left out,
//! and what did not is not fetched.

mod common;

use common::*;
use filesystem::format::SnapshotOrigin;
use filesystem::operations::{RenameFlags, SetAttributes, XattrMode};
use filesystem::volume::{FileState, PathChange, PathState, Snapshot};
use filesystem::{Inode, Operations, Volume};

fn take(volume: &Volume, name: &str) -> Snapshot {
    volume.take_snapshot(Some(name), SnapshotOrigin::Asked).expect("a snapshot is taken")
}

fn make_directory(volume: &Volume, parent: Inode, name: &str) -> Inode {
    volume.make_directory(parent, name.as_bytes(), 0o755, &USER).expect("a directory is made").inode
}

fn rename(volume: &Volume, (from, name): (Inode, &str), (to, new_name): (Inode, &str)) {
    let flags = RenameFlags::default();
    volume.rename(from, name.as_bytes(), to, new_name.as_bytes(), flags).expect("it is renamed");
}

fn in_words(change: &PathChange) -> String {
    let path = |state: &PathState| format!("{}:{}", String::from_utf8_lossy(&state.path), state.size);
    let mut words = match (&change.before, &change.after) {
        (None, Some(after)) => format!("+ {}", path(after)),
        (Some(before), None) => format!("- {}", path(before)),
        (Some(before), Some(after)) if before == after => path(after),
        (Some(before), Some(after)) => format!("{} -> {}", path(before), path(after)),
        (None, None) => panic!("nothing changed"),
    };
    for (is_so, word) in [
        (change.is_renamed, " renamed"),
        (change.is_content_changed, " content"),
        (change.are_attributes_changed, " attributes"),
    ] {
        words += if is_so { word } else { "" };
    }
    words
}

fn changes(volume: &Volume, before: Option<&Snapshot>, after: Option<&Snapshot>) -> Vec<String> {
    volume.changes_between(before, after).expect("they are compared").iter().map(in_words).collect()
}

#[test]
fn each_change_is_told_by_its_path() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let outer = make_directory(&volume, ROOT, "outer");
        let inner = make_directory(&volume, outer, "inner");
        let (again, far) = (make_directory(&volume, ROOT, "again"), make_directory(&volume, ROOT, "far"));
        let edited = write_file(&volume, inner, "edited", &[1; 5000]);
        let mode = write_file(&volume, inner, "mode", b"12");
        let tagged = write_file(&volume, inner, "tagged", b"12");
        let linked = write_file(&volume, inner, "linked", b"123");
        volume.link(linked, far, b"link").unwrap();
        // The directory that its record names is not where it still is.
        let left = write_file(&volume, far, "left", b"1234");
        volume.link(left, inner, b"gone link").unwrap();
        for name in ["removed", "renamed", "saved", "untouched", "over"] {
            write_file(&volume, inner, name, name.as_bytes());
        }
        let below = make_directory(&volume, ROOT, "moved");
        let deep = make_directory(&volume, below, "deep");
        let carried = write_file(&volume, deep, "carried", b"1");
        write_file(&volume, deep, "carried along", b"1");
        write_file(&volume, again, "a", b"1");
        write_file(&volume, again, "b", b"12");
        let before = take(&volume, "before");
        assert_eq!(changes(&volume, Some(&before), None), [""; 0]);

        volume.write(edited, 5000, &[2; 1000], false).unwrap();
        let mode_only = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
        volume.set_attributes(mode, &mode_only).unwrap();
        volume
            .set_attributes(ROOT, &SetAttributes { mode: Some(0o700), ..SetAttributes::default() })
            .unwrap();
        volume.set_xattr(tagged, b"user.tag", b"red", XattrMode::Set).unwrap();
        volume.write(linked, 3, b"4", false).unwrap();
        volume.unlink(inner, b"gone link").unwrap();
        volume.write(left, 4, b"5", false).unwrap();
        volume.unlink(inner, b"removed").unwrap();
        rename(&volume, (inner, "renamed"), (far, "new name"));
        write_file(&volume, inner, "saved.tmp", b"saved again");
        rename(&volume, (inner, "saved.tmp"), (inner, "saved"));
        rename(&volume, (inner, "over"), (inner, "untouched"));
        volume.write(carried, 1, b"2", false).unwrap();
        rename(&volume, (ROOT, "moved"), (outer, "elsewhere"));
        // As a program that writes a whole directory anew.
        for name in [b"a", b"b"] {
            volume.unlink(again, name).unwrap();
        }
        volume.remove_directory(ROOT, b"again").unwrap();
        let again = make_directory(&volume, ROOT, "again");
        write_file(&volume, again, "a", b"other");
        write_file(&volume, again, "c", b"123");
        let after = take(&volume, "after");
        let expected = [
            ":0 attributes",
            "again/a:1 -> again/a:5 content",
            "- again/b:2 content",
            "+ again/c:3 content",
            "far/left:4 -> far/left:5 content",
            "far/link:3 -> far/link:4 content",
            "outer/inner/renamed:7 -> far/new name:7 renamed",
            "moved:0 -> outer/elsewhere:0 renamed",
            "moved/deep/carried:1 -> outer/elsewhere/deep/carried:2 content",
            "outer/inner/edited:5000 -> outer/inner/edited:6000 content",
            "- outer/inner/gone link:4 content",
            "outer/inner/linked:3 -> outer/inner/linked:4 content",
            "outer/inner/mode:2 attributes",
            "- outer/inner/over:4 content",
            "- outer/inner/removed:7 content",
            "outer/inner/saved:5 -> outer/inner/saved:11 content",
            "outer/inner/tagged:2 attributes",
            "outer/inner/untouched:9 -> outer/inner/untouched:4 content",
        ];
        assert_eq!(changes(&volume, Some(&before), Some(&after)), expected);
        assert_eq!(changes(&volume, Some(&before), None), expected, "what is now");
        assert_eq!(changes(&volume, Some(&after), Some(&before)).len(), expected.len(), "backwards");
        volume.close().stored().unwrap();
        // What the background removed, or left, is none of it.
        let volume = open(&store, "second");
        assert_eq!(changes(&volume, Some(&before), None), expected);
        volume.close().stored().unwrap();
    });
}

#[test]
fn a_comparison_fetches_what_changed() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let directories: Vec<Inode> = (0..40)
            .map(|number| {
                let directory = make_directory(&volume, ROOT, &format!("directory {number}"));
                for number in 0..50 {
                    write_file(&volume, directory, &format!("file {number}"), &[number; 1500]);
                }
                directory
            })
            .collect();
        let before = take(&volume, "before");
        let changed = volume.lookup(directories[20], b"file 7").unwrap().inode;
        volume.write(changed, 0, b"changed", false).unwrap();
        write_file(&volume, directories[30], "new", b"1");
        let after = take(&volume, "after");
        volume.close().stored().unwrap();

        let bytes_of = |compare: &dyn Fn(&Volume) -> usize| {
            let volume = open(&store, "second");
            let (gets, bytes) = (store.gets.get(), store.got_bytes.get());
            let count = compare(&volume);
            let cost = (store.gets.get() - gets, store.got_bytes.get() - bytes);
            volume.close().stored().unwrap();
            (count, cost)
        };
        let (count, all) = bytes_of(&|volume| {
            let view = volume.view(&after).unwrap();
            directories
                .iter()
                .map(|directory| view.read_directory(*directory, 0, 1000, true).unwrap().len())
                .sum()
        });
        assert_eq!(count, 40 * 52 + 1);
        let (count, some) = bytes_of(&|volume| changes(volume, Some(&before), Some(&after)).len());
        assert_eq!(count, 2);
        assert!(some.0 <= 24 && some.1 * 10 < all.1, "{some:?} of {all:?}");
        let (count, none) = bytes_of(&|volume| changes(volume, Some(&after), Some(&after)).len());
        assert_eq!((count, none), (0, (0, 0)), "of what is the same nothing is looked at");
    });
}

#[test]
fn what_a_path_was_is_known_of_each_snapshot() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let directory = make_directory(&volume, ROOT, "notes");
        let file = write_file(&volume, directory, "today", b"1");
        let first = take(&volume, "first");
        let touched = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
        volume.set_attributes(file, &touched).unwrap();
        let second = take(&volume, "second");
        volume.write(file, 1, b"2", false).unwrap();
        let third = take(&volume, "third");
        volume.unlink(directory, b"today").unwrap();
        volume.sync(None, false).unwrap();

        let state = |snapshot: Option<&Snapshot>| volume.state_of(b"notes/today", snapshot).unwrap();
        let taken = third.clone();
        let [first, second, third] = [first, second, third].map(|snapshot| state(Some(&snapshot)).unwrap());
        let is_one = |one: &FileState, other: &FileState| volume.is_one_content(one, other).unwrap();
        assert!(is_one(&first, &second) && !is_one(&second, &third));
        assert_eq!((first.attributes.mode, second.attributes.mode), (0o644, 0o600));
        assert_eq!((second.attributes.size, third.attributes.size), (1, 2));
        assert_eq!(state(None), None);
        assert_eq!(volume.state_of(b"notes/today/below", None).unwrap(), None);
        // What was restored is the same version; what was written anew is not, whatever is in it.
        volume.restore(&taken, b"notes/today", None).unwrap();
        assert!(is_one(&third, &state(None).unwrap()));
        volume.unlink(directory, b"today").unwrap();
        write_file(&volume, directory, "today", b"12");
        volume.sync(None, false).unwrap();
        assert!(!is_one(&third, &state(None).unwrap()));
        assert_eq!(volume.state_of(b"", None).unwrap().unwrap().attributes.inode, ROOT);
        volume.close().stored().unwrap();
    });
}
