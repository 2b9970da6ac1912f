//! The journal alone: groups over real files, torn, damaged, foreign, rotated.

use bytes::Bytes;

use super::*;
use crate::format::Key;

fn keys(secret: u8, register: u8) -> VolumeKeys {
    VolumeKeys {
        register: RegisterAddress([register; 32]),
        secret: X25519Secret::from_bytes(&[secret; 32]),
        readers: Vec::new(),
    }
}

fn journal(directory: &Path) -> Journal {
    Journal::open(directory.into(), &keys(3, 1)).unwrap()
}

impl Journal {
    fn append(
        &self,
        files: &mut Files,
        snapshot: bool,
        through: u64,
        items: impl Iterator<Item = Item>,
    ) -> Result<(), JournalError> {
        let writer = ([7; 8], 9);
        let base = Item::Base { number: 0, version: 0, tree: None };
        let delta = Some(through);
        let group = Group { snapshot, durably: true, through, base, root_version: 0, writer, delta };
        self.append_group(files, group, items, || true).map(drop)
    }
}

fn snapshot() -> Item {
    Item::Snapshot { session: [7; 8], device: 9, volume: crate::format::VolumeId([5; 16]) }
}

fn group(number: u8) -> impl Iterator<Item = Item> {
    let value = Bytes::from(vec![number; 30_000]);
    let items =
        [Item::Set(Key::Extent(1, u64::from(number)), value), Item::Removed(Key::Inode(u64::from(number)))];
    items.into_iter()
}

fn begin(journal: &Journal) {
    let items = std::iter::once(snapshot()).chain(group(1));
    journal.append(&mut journal.turn(), true, 1, items).unwrap();
}

fn items(journal: &Journal) -> Result<Vec<Item>, JournalError> {
    let mut all = Vec::new();
    journal.replay(|items| {
        all.extend(items);
        Ok::<_, JournalError>(())
    })?;
    Ok(all)
}

#[test]
fn groups_come_back_and_a_torn_end_loses_only_the_last() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        {
            let journal = journal(directory.path());
            begin(&journal);
            journal.append(&mut journal.turn(), false, 2, group(2)).unwrap();
        }
        let path = path_of(directory.path(), 1);
        let whole = std::fs::read(&path).unwrap();
        assert!(!whole.windows(40).any(|window| window == [1; 40] || window == [2; 40]), "encrypted at rest");
        assert_eq!(items(&journal(directory.path())).unwrap().len(), 5);
        for cut in [0, 5, 9, 60, 200, whole.len() / 2 + 300, whole.len() - 1] {
            for zeros in [0, 5000] {
                let mut torn = whole[..cut].to_vec();
                torn.resize(cut + zeros, 0);
                std::fs::write(&path, torn).unwrap();
                let expected = if cut > whole.len() / 2 + 200 { 3 } else { 0 };
                let found = items(&journal(directory.path())).unwrap().len();
                assert_eq!(found, expected, "cut at {cut}, {zeros} zeros follow");
            }
        }
        for at in 0..whole.len() / 200 {
            let mut flipped = whole.clone();
            flipped[at * 200 + 199] ^= 4;
            std::fs::write(&path, flipped).unwrap();
            assert!(items(&journal(directory.path())).map_or(0, |items| items.len()) < 5);
        }
    });
}

#[test]
fn a_group_of_many_records_counts_as_a_whole_or_not_at_all() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        {
            let journal = journal(directory.path());
            begin(&journal);
            let large = (1..=200u8).flat_map(group);
            journal.append(&mut journal.turn(), false, 2, large).unwrap();
        }
        assert_eq!(items(&journal(directory.path())).unwrap().len(), 3 + 400);
        let path = path_of(directory.path(), 1);
        let whole = std::fs::read(&path).unwrap();
        assert!(whole.len() > 4 * RECORD_SIZE);
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(items(&journal(directory.path())).unwrap().len(), 3);
    });
}

#[test]
fn files_go_when_all_in_them_is_committed_and_a_snapshot_replaces_them() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let journal = journal(directory.path());
        let wants_snapshot = || journal.wants_snapshot(&journal.turn(), 0);
        assert!(wants_snapshot(), "there is no file yet");
        begin(&journal);
        assert!(!wants_snapshot());
        journal.append(&mut journal.turn(), false, 5, group(2)).unwrap();
        journal.on_committed(&mut journal.turn(), 4);
        assert_eq!((numbers(directory.path()).unwrap(), journal.turn().through()), (vec![1], 5));
        journal.on_rebased();
        assert!(wants_snapshot(), "what the file stands on is gone");
        journal.append(&mut journal.turn(), true, 6, std::iter::once(snapshot())).unwrap();
        assert_eq!(numbers(directory.path()).unwrap(), [2]);
        journal.on_committed(&mut journal.turn(), 6);
        assert_eq!((numbers(directory.path()).unwrap(), journal.turn().through()), (vec![], 0));
        assert!(wants_snapshot());
    });
}

#[test]
fn anothers_journal_is_neither_replayed_nor_shared() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let open = |secret, register| Journal::open(directory.path().into(), &keys(secret, register));
        let first = open(3, 1).unwrap();
        assert!(first.refuse_leftovers().is_ok());
        begin(&first);
        assert!(matches!(open(3, 1), Err(JournalError::InUse(_))), "one process at a time");
        drop(first);
        assert!(matches!(open(3, 1).unwrap().refuse_leftovers(), Err(JournalError::Unstored(_))));
        for (secret, register) in [(4, 1), (3, 2)] {
            assert!(matches!(items(&open(secret, register).unwrap()), Err(JournalError::Foreign(_))));
        }
        std::fs::write(path_of(directory.path(), 1), b"hyphaj1\nof an older version").unwrap();
        assert!(matches!(items(&open(3, 1).unwrap()), Err(JournalError::OtherVersion(_))));
    });
}

#[test]
fn a_write_that_fails_leaves_what_was_acknowledged_and_the_next_begins_a_file() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        {
            let journal = journal(directory.path());
            begin(&journal);
            {
                // The file is open for reading only from here on: writing to it fails.
                let mut files = journal.turn();
                let path = path_of(directory.path(), 1);
                files.open.as_mut().unwrap().file = File::open(path).unwrap();
                assert!(journal.append(&mut files, false, 2, group(2)).is_err());
                assert!(journal.wants_snapshot(&files, 0));
            }
            assert_eq!(journal.turn().through(), 1);
        }
        let journal = journal(directory.path());
        assert_eq!(items(&journal).unwrap().len(), 3);
        let all = std::iter::once(snapshot()).chain(group(1)).chain(group(2));
        journal.append(&mut journal.turn(), true, 2, all).unwrap();
        assert_eq!(numbers(directory.path()).unwrap(), [2]);
    });
}

#[test]
fn a_snapshot_that_cannot_be_begun_is_not_made_up_for_by_a_group_in_the_old_file() {
    reactor::run(|| {
        let parent = tempfile::tempdir().unwrap();
        let (directory, moved) = (parent.path().join("journal"), parent.path().join("moved"));
        let journal = journal(&directory);
        begin(&journal);
        // What the old file stands on was left, and the disk takes no new one.
        journal.on_rebased();
        std::fs::rename(&directory, &moved).unwrap();
        {
            let mut files = journal.turn();
            assert!(journal.wants_snapshot(&files, 0));
            let all = std::iter::once(snapshot()).chain(group(1)).chain(group(2));
            assert!(journal.append(&mut files, true, 2, all).is_err());
            assert!(journal.wants_snapshot(&files, 0), "the old file would take the next group");
            assert_eq!(files.through(), 1);
        }
        std::fs::rename(&moved, &directory).unwrap();
        let all = std::iter::once(snapshot()).chain(group(1)).chain(group(2));
        journal.append(&mut journal.turn(), true, 2, all).unwrap();
        assert_eq!(numbers(&directory).unwrap(), [3]);
    });
}

#[test]
fn a_file_that_cannot_be_removed_never_outranks_a_later_one() {
    reactor::run(|| {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("above").join("journal");
        begin(&journal(&directory));
        let journal = journal(&directory);
        // The first file is superseded and gone, so that its number is free.
        begin(&journal);
        assert_eq!(numbers(&directory).unwrap(), [2]);
        // Nobody removes a directory as a file.
        std::fs::remove_file(path_of(&directory, 2)).unwrap();
        std::fs::create_dir(path_of(&directory, 2)).unwrap();
        journal.on_committed(&mut journal.turn(), 1);
        begin(&journal);
        assert_eq!(numbers(&directory).unwrap(), [2, 3], "what is written now must be replayed last");
        journal.on_committed(&mut journal.turn(), 1);
        assert_eq!(numbers(&directory).unwrap(), [2, 3], "what it supersedes must not outlive it");
        std::fs::remove_dir(path_of(&directory, 2)).unwrap();
        begin(&journal);
        assert_eq!(numbers(&directory).unwrap(), [4], "and goes once it can");
    });
}

#[test]
fn what_earlier_mounts_left_is_gone_before_anything_is_committed_or_that_is_refused() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        begin(&journal(directory.path()));
        let journal = journal(directory.path());
        std::fs::remove_file(path_of(directory.path(), 1)).unwrap();
        std::fs::create_dir(path_of(directory.path(), 1)).unwrap();
        assert!(matches!(journal.remove_found(&mut journal.turn()), Err(JournalError::Io(..))));
        std::fs::remove_dir(path_of(directory.path(), 1)).unwrap();
        assert!(journal.remove_found(&mut journal.turn()).is_ok());
    });
}

#[test]
fn a_note_that_was_half_written_goes_with_the_next_one() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let journal = journal(directory.path());
        std::fs::write(directory.path().join(".sessions.0123456789abcdef.tmp"), b"half").unwrap();
        journal.note_sessions(&[[1; 8], [2; 8]]);
        assert_eq!(journal.earlier_sessions(), [[1; 8], [2; 8]]);
        let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!names.into_iter().any(|name| name.to_string_lossy().ends_with(".tmp")));
    });
}

#[test]
fn what_earlier_mounts_left_stays_as_it_lies_until_all_of_it_is_committed_or_a_snapshot_takes_its_place() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        for is_committed in [true, false] {
            begin(&journal(directory.path()));
            let before = numbers(directory.path()).unwrap();
            let left = std::fs::read(path_of(directory.path(), before[0])).unwrap();
            let journal = journal(directory.path());
            assert!(journal.keep_found(&mut journal.turn(), 7));
            assert_eq!(journal.turn().through(), 7);
            journal.on_committed(&mut journal.turn(), 6);
            assert_eq!(numbers(directory.path()).unwrap(), before);
            assert!(
                std::fs::read(path_of(directory.path(), before[0])).unwrap() == left,
                "nothing is written"
            );
            match is_committed {
                true => journal.on_committed(&mut journal.turn(), 7),
                false => begin(&journal),
            }
            let after = numbers(directory.path()).unwrap();
            assert!(after.len() == usize::from(!is_committed) && !after.contains(&before[0]));
        }
    });
}

#[test]
fn damaged_files_are_kept_once_however_often_a_start_is_killed() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        begin(&journal(directory.path()));
        let path = path_of(directory.path(), 1);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let keep = || {
            let journal = journal(directory.path());
            items(&journal).unwrap();
            let kept = journal.keep_damaged(&journal.turn()).unwrap();
            kept.unwrap().file_name().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!([keep(), keep()], ["damaged-0000000000000001-0"; 2]);
        // Another of that number.
        std::fs::remove_file(&path).unwrap();
        begin(&journal(directory.path()));
        std::fs::write(&path, [7; 5000]).unwrap();
        assert_eq!([keep(), keep()], ["damaged-0000000000000001-1"; 2]);
    });
}
