//! Two mounts change one file. What both wrote is kept whole: theirs under the name, ours beside it, never a mixture; and
//! what is no change of content (`touch`, `chmod`) makes no conflict.

mod common;

use std::rc::Rc;

use common::*;
use filesystem::operations::{RenameFlags, SetAttributes, Time, XattrMode};
use filesystem::{Errno, Inode, Operations, Volume};

/// Two mounts of one volume, with the file that they meet at.
struct Story {
    first: Rc<Volume>,
    second: Rc<Volume>,
    store: Rc<TestStore>,
    file: Inode,
}

const NAME: &str = "report.odt";

impl Story {
    /// Both see `NAME` with `content`.
    fn begin(content: &[u8]) -> Story {
        let store = TestStore::new();
        let first = create(&store);
        let file = write_file(&first, ROOT, NAME, content);
        first.sync(None, false).unwrap();
        let second = open(&store, "second");
        Story { first, second, store, file }
    }

    /// The first's changes are in the volume before the second's; then both see all, and so does a third.
    fn settle(&self) -> Vec<(String, Vec<u8>)> {
        for volume in [&self.first, &self.second, &self.first, &self.second] {
            volume.set_attributes(ROOT, &SetAttributes::default()).unwrap();
            volume.sync(None, false).unwrap();
        }
        let found = contents(&self.first, ROOT);
        assert_eq!(contents(&self.second, ROOT), found);
        assert_eq!(contents(&open(&self.store, "third"), ROOT), found);
        found
    }
}

/// Returns the files of a directory by name, without the author and time of conflicts.
fn contents(volume: &Volume, directory: Inode) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = (names(volume, directory).into_iter())
        .map(|name| {
            let inode = volume.lookup(directory, name.as_bytes()).unwrap().inode;
            (plain(&name), read_file(volume, inode))
        })
        .collect();
    found.sort();
    found
}

/// "a (conflict, second, 2026-...).b" is "a (second).b".
fn plain(name: &str) -> String {
    let Some((stem, rest)) = name.split_once(" (conflict, ") else { return name.to_owned() };
    let (inner, extension) = rest.split_once(')').unwrap();
    format!("{stem} ({}){extension}", inner.split_once(", ").unwrap().0)
}

fn files(expected: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    expected.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect()
}

fn truncate(volume: &Volume, file: Inode, size: u64) {
    let changes = SetAttributes { size: Some(size), ..SetAttributes::default() };
    volume.set_attributes(file, &changes).unwrap();
}

const OURS: &str = "report (second).odt";

#[test]
fn two_edits_of_a_small_file_are_two_files() {
    reactor::run(|| {
        let story = Story::begin(b"milk");
        story.first.write(story.file, 4, b"\nA: bread", false).unwrap();
        story.second.write(story.file, 4, b"\nB: call mum", false).unwrap();
        let found = story.settle();
        assert_eq!(found, files(&[(OURS, b"milk\nB: call mum"), (NAME, b"milk\nA: bread")]));
    });
}

#[test]
fn two_rewrites_of_a_large_file_do_not_mix() {
    reactor::run(|| {
        let story = Story::begin(&[0; 200_000]);
        let (a, b) = (vec![b'A'; 90_000], vec![b'B'; 150_000]);
        for (volume, content) in [(&story.first, &a), (&story.second, &b)] {
            truncate(volume, story.file, 0);
            volume.write(story.file, 0, content, false).unwrap();
        }
        assert_eq!(story.settle(), files(&[(OURS, &b), (NAME, &a)]));
    });
}

#[test]
fn edits_of_different_places_do_not_mix_either() {
    reactor::run(|| {
        let story = Story::begin(&[0; 200_000]);
        story.first.write(story.file, 0, b"first", false).unwrap();
        story.second.write(story.file, 150_000, b"second", false).unwrap();
        let (mut a, mut b) = (vec![0; 200_000], vec![0; 200_000]);
        a[..5].copy_from_slice(b"first");
        b[150_000..150_006].copy_from_slice(b"second");
        assert_eq!(story.settle(), files(&[(OURS, &b), (NAME, &a)]), "what we did not touch is copied too");
    });
}

#[test]
fn a_truncation_and_an_extension_are_two_files() {
    reactor::run(|| {
        let story = Story::begin(&[7; 100_000]);
        story.first.write(story.file, 100_000, &[8; 50_000], false).unwrap();
        truncate(&story.second, story.file, 10);
        let long = [vec![7; 100_000], vec![8; 50_000]].concat();
        assert_eq!(story.settle(), files(&[(OURS, &[7; 10]), (NAME, &long)]));
    });
}

#[test]
fn touch_and_chmod_are_no_change_of_content() {
    reactor::run(|| {
        let story = Story::begin(&[7; 100_000]);
        truncate(&story.first, story.file, 0);
        story.first.write(story.file, 0, b"new", false).unwrap();
        let time = Time { seconds: 1_000_000_000, nanoseconds: 5 };
        let changes = SetAttributes { mtime: Some(time), mode: Some(0o600), ..SetAttributes::default() };
        story.second.set_attributes(story.file, &changes).unwrap();
        story.second.set_xattr(story.file, b"user.note", b"ours", XattrMode::Set).unwrap();
        assert_eq!(story.settle(), files(&[(NAME, b"new")]));
        let found = story.first.attributes(story.file).unwrap();
        assert_eq!((found.mtime, found.mode, found.size), (time, 0o600, 3));
        assert_eq!(&story.first.get_xattr(story.file, b"user.note").unwrap()[..], b"ours");
    });
}

#[test]
fn a_touch_by_the_winner_leaves_our_content_alone() {
    reactor::run(|| {
        let story = Story::begin(&[7; 100_000]);
        let changes = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
        story.first.set_attributes(story.file, &changes).unwrap();
        truncate(&story.second, story.file, 0);
        story.second.write(story.file, 0, b"new", false).unwrap();
        assert_eq!(story.settle(), files(&[(NAME, b"new")]));
        assert_eq!(story.first.attributes(story.file).unwrap().mode, 0o600);
    });
}

#[test]
fn a_file_that_was_written_is_not_removed() {
    reactor::run(|| {
        let story = Story::begin(b"old");
        story.first.write(story.file, 0, b"new", false).unwrap();
        story.second.unlink(ROOT, NAME.as_bytes()).unwrap();
        assert_eq!(story.settle(), files(&[(NAME, b"new")]));
        assert_eq!(story.second.attributes(story.file).unwrap().nlink, 1);
    });
}

#[test]
fn what_we_wrote_to_a_removed_file_comes_back_beside() {
    reactor::run(|| {
        let story = Story::begin(&[1; 40_000]);
        story.first.unlink(ROOT, NAME.as_bytes()).unwrap();
        story.second.write(story.file, 5, b"after all", false).unwrap();
        let mut content = vec![1; 40_000];
        content[5..14].copy_from_slice(b"after all");
        assert_eq!(story.settle(), files(&[(OURS, &content)]));
    });
}

/// How editors save: a new file, renamed over the old one.
fn save(volume: &Volume, content: &[u8]) {
    write_file(volume, ROOT, "report.odt~new", content);
    volume.rename(ROOT, b"report.odt~new", ROOT, NAME.as_bytes(), RenameFlags::default()).unwrap();
}

#[test]
fn saving_by_rename_meets_an_edit_in_place() {
    reactor::run(|| {
        let story = Story::begin(b"old");
        story.first.write(story.file, 0, b"edited in place", false).unwrap();
        save(&story.second, b"saved by rename");
        assert_eq!(story.settle(), files(&[(OURS, b"saved by rename"), (NAME, b"edited in place")]));

        let story = Story::begin(b"old");
        save(&story.first, b"saved by rename");
        story.second.write(story.file, 0, b"edited in place", false).unwrap();
        assert_eq!(story.settle(), files(&[(OURS, b"edited in place"), (NAME, b"saved by rename")]));

        let story = Story::begin(b"old");
        save(&story.first, b"first");
        save(&story.second, b"second");
        assert_eq!(story.settle(), files(&[(OURS, b"second"), (NAME, b"first")]));
    });
}

#[test]
fn a_directory_that_a_merge_puts_a_name_into_has_changed() {
    reactor::run(|| {
        // The edit is older than the save that the first mount, and whoever looks there, knows already.
        let story = Story::begin(b"old");
        story.second.write(story.file, 0, b"edited in place", false).unwrap();
        reactor::sleep(std::time::Duration::from_millis(20));
        save(&story.first, b"saved by rename");
        story.first.sync(None, false).unwrap();
        let seen = story.first.attributes(ROOT).unwrap();
        assert_eq!(story.settle(), files(&[(OURS, b"edited in place"), (NAME, b"saved by rename")]));
        let found = story.first.attributes(ROOT).unwrap();
        assert!(found.mtime > seen.mtime && found.ctime > seen.ctime, "{found:?} after {seen:?}");

        // So it is if both put names into it, whose is merged last.
        let story = Story::begin(b"old");
        write_file(&story.second, ROOT, "of the second", b"");
        reactor::sleep(std::time::Duration::from_millis(20));
        write_file(&story.first, ROOT, "of the first", b"");
        story.first.sync(None, false).unwrap();
        let seen = story.first.attributes(ROOT).unwrap();
        story.settle();
        let found = story.first.attributes(ROOT).unwrap();
        assert!(found.mtime > seen.mtime && found.ctime > seen.ctime, "{found:?} after {seen:?}");
    });
}

#[test]
fn a_file_that_both_renamed_has_one_name() {
    reactor::run(|| {
        let story = Story::begin(b"content");
        story.first.rename(ROOT, NAME.as_bytes(), ROOT, b"theirs", RenameFlags::default()).unwrap();
        story.second.rename(ROOT, NAME.as_bytes(), ROOT, b"ours", RenameFlags::default()).unwrap();
        assert_eq!(story.settle(), files(&[("theirs", b"content")]));
        assert_eq!(story.second.attributes(story.file).unwrap().nlink, 1);
        // What a rename that is undone had replaced is there again.
        let story = Story::begin(b"content");
        let target = write_file(&story.first, ROOT, "target", b"target");
        story.first.sync(None, false).unwrap();
        story.settle();
        story.first.rename(ROOT, NAME.as_bytes(), ROOT, b"theirs", RenameFlags::default()).unwrap();
        story.second.rename(ROOT, NAME.as_bytes(), ROOT, b"target", RenameFlags::default()).unwrap();
        assert_eq!(story.settle(), files(&[("target", b"target"), ("theirs", b"content")]));
        assert_eq!(story.first.attributes(target).unwrap().nlink, 1);
    });
}

#[test]
fn a_renamed_file_has_what_the_other_wrote() {
    reactor::run(|| {
        for renamer in 0..2 {
            let story = Story::begin(b"old");
            let (mover, writer) = match renamer {
                0 => (&story.first, &story.second),
                _ => (&story.second, &story.first),
            };
            mover.rename(ROOT, NAME.as_bytes(), ROOT, b"moved", RenameFlags::default()).unwrap();
            writer.write(story.file, 0, b"new", false).unwrap();
            assert_eq!(story.settle(), files(&[("moved", b"new")]));
        }
    });
}

#[test]
fn all_names_of_a_file_stay_with_theirs_and_ours_has_one() {
    reactor::run(|| {
        let story = Story::begin(b"old");
        story.first.link(story.file, ROOT, b"second name").unwrap();
        story.settle();
        story.first.write(story.file, 0, b"first", false).unwrap();
        story.second.write(story.file, 0, b"second", false).unwrap();
        let found = story.settle();
        assert_eq!(found.len(), 3, "{found:?}");
        let of = |name: &str| found.iter().filter(|(found, _)| found == name).map(|(_, c)| c.clone()).next();
        assert_eq!((of(NAME), of("second name")), (Some(b"first".to_vec()), Some(b"first".to_vec())));
        assert!(found.iter().any(|(_, content)| content == b"second"));
        let ours = names(&story.first, ROOT).into_iter().find(|name| name.contains("conflict")).unwrap();
        assert_eq!(story.first.lookup(ROOT, ours.as_bytes()).unwrap().nlink, 1);
        assert_eq!(story.first.lookup(ROOT, NAME.as_bytes()).unwrap().nlink, 2);
    });
}

#[test]
fn an_open_file_goes_on_with_what_was_written_here() {
    reactor::run(|| {
        let story = Story::begin(b"old");
        // As the kernel does for a program that has it open.
        story.second.remember(story.file);
        story.first.write(story.file, 0, b"first", false).unwrap();
        story.second.write(story.file, 0, b"second", false).unwrap();
        story.settle();
        assert_eq!(read_file(&story.second, story.file), b"second", "the open file is ours");
        story.second.write(story.file, 6, b", and more", false).unwrap();
        assert_eq!(story.settle(), files(&[(OURS, b"second, and more"), (NAME, b"first")]));
        let named = story.second.lookup(ROOT, NAME.as_bytes()).unwrap().inode;
        assert_ne!(named, story.file, "and the name leads to theirs");
        assert_eq!(read_file(&story.second, named), b"first");
        story.second.forget(story.file, 1);
        story.settle();
    });
}

#[test]
fn appends_of_both_are_all_there() {
    reactor::run(|| {
        for size in [0, 5, 32 * 1024, 100_000] {
            let story = Story::begin(&vec![b'.'; size]);
            for round in 0..5 {
                story.first.append(story.file, format!("first {round}\n").as_bytes(), false).unwrap();
                story.second.append(story.file, format!("second {round}\n").as_bytes(), false).unwrap();
                if round == 2 {
                    story.settle();
                }
            }
            story.second.append(story.file, &vec![b'-'; size], false).unwrap();
            let found = story.settle();
            let all = |author: &str, rounds: std::ops::Range<u8>| -> String {
                rounds.map(|round| format!("{author} {round}\n")).collect()
            };
            let lines =
                all("first", 0..3) + &all("second", 0..3) + &all("first", 3..5) + &all("second", 3..5);
            let content = [vec![b'.'; size], lines.into_bytes(), vec![b'-'; size]].concat();
            assert_eq!(found, files(&[(NAME, &content)]));
        }
    });
}

#[test]
fn an_append_follows_an_edit_but_an_edit_does_not_follow_an_append() {
    reactor::run(|| {
        let story = Story::begin(b"0123456789");
        truncate(&story.first, story.file, 3);
        story.second.append(story.file, b"end", false).unwrap();
        assert_eq!(story.settle(), files(&[(NAME, b"012end")]));

        let story = Story::begin(b"0123456789");
        story.first.append(story.file, b"end", false).unwrap();
        story.second.append(story.file, b"more", false).unwrap();
        story.second.write(story.file, 0, b"x", false).unwrap();
        assert_eq!(story.settle(), files(&[(OURS, b"x123456789more"), (NAME, b"0123456789end")]));
    });
}

#[test]
fn appends_are_merged_even_while_a_mount_closes() {
    reactor::run(|| {
        let story = Story::begin(b"begin\n");
        story.first.append(story.file, b"first\n", false).unwrap();
        story.second.append(story.file, b"second\n", false).unwrap();
        story.first.sync(None, false).unwrap();
        // It takes no new changes any more when it loses the race.
        story.second.close().stored().unwrap();
        let third = open(&story.store, "third");
        assert_eq!(contents(&third, ROOT), files(&[(NAME, b"begin\nfirst\nsecond\n")]));
    });
}

#[test]
fn appends_are_merged_even_after_the_store_was_full() {
    reactor::run(|| {
        let story = Story::begin(b"begin\n");
        story.second.append(story.file, b"second\n", false).unwrap();
        story.store.memory.set_capacity_bytes(0);
        assert_eq!(story.second.sync(None, false), Err(Errno::ENOSPC));
        story.store.memory.set_capacity_bytes(1 << 40);
        story.first.append(story.file, b"first\n", false).unwrap();
        // The second tries again by itself, and may be the first to store.
        let orders: [&[u8]; 2] = [b"begin\nfirst\nsecond\n", b"begin\nsecond\nfirst\n"];
        let found = story.settle();
        assert!(orders.iter().any(|order| found == files(&[(NAME, *order)])), "{found:?}");
    });
}

#[test]
fn new_directories_of_one_name_are_one() {
    reactor::run(|| {
        let story = Story::begin(b"");
        for (volume, who) in [(&story.first, "first"), (&story.second, "second")] {
            let docs = volume.make_directory(ROOT, b"docs", 0o755, &USER).unwrap().inode;
            let deep = volume.make_directory(docs, b"deep", 0o755, &USER).unwrap().inode;
            write_file(volume, docs, who, who.as_bytes());
            write_file(volume, deep, "both.txt", who.as_bytes());
            let only =
                volume.make_directory(deep, format!("only {who}").as_bytes(), 0o755, &USER).unwrap().inode;
            write_file(volume, only, "leaf", who.as_bytes());
        }
        let ours = story.second.lookup(ROOT, b"docs").unwrap().inode;
        story.second.remember(ours);
        for volume in [&story.first, &story.second, &story.first] {
            volume.set_attributes(ROOT, &SetAttributes::default()).unwrap();
            volume.sync(None, false).unwrap();
        }
        let third = open(&story.store, "third");
        for volume in [&story.first, &story.second, &third] {
            assert_eq!(names(volume, ROOT), ["docs", NAME]);
            let docs = volume.lookup(ROOT, b"docs").unwrap();
            assert_eq!(
                (docs.nlink, names(volume, docs.inode)),
                (3, vec!["deep".into(), "first".into(), "second".into()])
            );
            let deep = volume.lookup(docs.inode, b"deep").unwrap();
            assert_eq!(deep.nlink, 4);
            let found: Vec<String> = names(volume, deep.inode).iter().map(|name| plain(name)).collect();
            assert_eq!(found, ["both (second).txt", "both.txt", "only first", "only second"]);
            let only = volume.lookup(deep.inode, b"only second").unwrap().inode;
            assert_eq!(volume.lookup(only, b"..").unwrap().inode, deep.inode);
            assert_eq!(contents(volume, only), files(&[("leaf", b"second")]));
        }
        // A program whose working directory was ours is in the one that both have.
        assert_eq!(names(&story.second, ours), ["deep", "first", "second"]);
        write_file(&story.second, ours, "late", b"late");
        let docs = story.second.lookup(ROOT, b"docs").unwrap().inode;
        assert!(story.second.lookup(docs, b"late").is_ok());
        assert_eq!(story.first.lookup(ROOT, b"docs (conflict)"), Err(Errno::ENOENT));
    });
}
