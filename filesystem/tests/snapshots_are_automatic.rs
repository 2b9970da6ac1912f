//! Snapshots that a policy wants are taken once, wherever the drive is mounted, and go again; no others do.

mod common;

use common::*;
use filesystem::format::SnapshotOrigin;
use filesystem::operations::XattrMode;
use filesystem::volume::SnapshotPolicy;
use filesystem::{Errno, Operations, Volume};

const HOUR: i64 = 3600;
/// 2026-11-27 02:00:00
const BEGIN: i64 = 1_795_744_800;

fn names_of(volume: &Volume) -> Vec<String> {
    volume.snapshots().unwrap().into_iter().map(|snapshot| snapshot.record.name).collect()
}

fn keep(volume: &Volume, policy: &str) {
    let policy: SnapshotPolicy = policy.parse().unwrap();
    volume.set_snapshot_policy(Some(&policy)).unwrap();
    assert_eq!(volume.snapshot_policy().unwrap(), Some(policy));
}

#[test]
fn a_drive_that_changes_has_one_of_each_hour() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        write_file(&volume, ROOT, "file", b"1");
        assert_eq!(volume.look_for_due(BEGIN, true), Ok(false), "nobody asked for it");
        keep(&volume, "24h,7d");
        assert_eq!(volume.look_for_due(BEGIN, true), Ok(true));
        assert_eq!(names_of(&volume), ["hour-2026-11-27T02Z"]);
        assert_eq!(volume.snapshots().unwrap()[0].record.origin, SnapshotOrigin::Policy);
        write_file(&volume, ROOT, "more", b"1");
        assert_eq!(volume.look_for_due(BEGIN + HOUR - 1, true), Ok(false), "there is one of this hour");
        assert_eq!(volume.look_for_due(BEGIN + HOUR, false), Ok(false), "the others get their turn");
        assert_eq!(volume.look_for_due(BEGIN + HOUR + 60, false), Ok(true));
        let swaps = store.swaps.get();
        assert_eq!(volume.look_for_due(BEGIN + 2 * HOUR, true), Ok(false), "nothing has changed");
        assert_eq!(store.swaps.get(), swaps);
        write_file(&volume, ROOT, "not stored yet", b"1");
        assert_eq!(volume.look_for_due(BEGIN + 2 * HOUR, true), Ok(true));
        // A clock that was put back.
        write_file(&volume, ROOT, "still more", b"1");
        assert_eq!(volume.look_for_due(BEGIN, true), Ok(false));
        volume.close().stored().unwrap();

        // Any mount goes by it, and it can be taken back.
        let volume = open(&store, "second");
        assert_eq!(volume.look_for_due(BEGIN + 3 * HOUR, true), Ok(true));
        let all =
            ["hour-2026-11-27T02Z", "hour-2026-11-27T03Z", "hour-2026-11-27T04Z", "hour-2026-11-27T05Z"];
        assert_eq!(names_of(&volume), all);
        volume.set_snapshot_policy(None).unwrap();
        volume.set_snapshot_policy(None).unwrap();
        write_file(&volume, ROOT, "last", b"1");
        assert_eq!(volume.look_for_due(BEGIN + 4 * HOUR, true), Ok(false));
        assert_eq!(names_of(&volume), all);
        let refused = volume.set_xattr(ROOT, b"user.hypha.snapshots", b"24x", XattrMode::Set);
        assert_eq!(refused, Err(Errno::EINVAL));
        volume.close().stored().unwrap();
    });
}

#[test]
fn only_what_a_policy_took_goes_by_it() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let mine = volume.take_snapshot(Some("hour-of-mine"), SnapshotOrigin::Asked).unwrap();
        keep(&volume, "1h");
        for hour in 0..3 {
            write_file(&volume, ROOT, &format!("file {hour}"), b"1");
            assert_eq!(volume.look_for_due(BEGIN + hour * HOUR, true), Ok(true));
            let newest = format!("hour-2026-11-27T{:02}Z", 2 + hour);
            assert_eq!(names_of(&volume), ["hour-of-mine".into(), newest]);
        }
        // One that somebody has taken by that name is nobody else's.
        volume.take_snapshot(Some("hour-2026-11-27T05Z"), SnapshotOrigin::Asked).unwrap();
        write_file(&volume, ROOT, "more", b"1");
        assert_eq!(volume.look_for_due(BEGIN + 3 * HOUR, true), Ok(false));
        assert_eq!(volume.look_for_due(BEGIN + 4 * HOUR, true), Ok(true));
        assert_eq!(names_of(&volume), ["hour-of-mine", "hour-2026-11-27T05Z", "hour-2026-11-27T06Z"]);
        assert_eq!(volume.snapshots().unwrap()[0], mine);
        volume.close().stored().unwrap();
    });
}

#[test]
fn two_mounts_that_take_one_at_once_have_one() {
    reactor::run(|| {
        let store = TestStore::new();
        let first = create(&store);
        keep(&first, "24h");
        let second = open(&store, "second");
        write_file(&first, ROOT, "of the first", b"1");
        write_file(&second, ROOT, "of the second", b"1");
        // Neither has heard of the other's.
        assert_eq!(first.look_for_due(BEGIN, true), Ok(true));
        assert_eq!(second.look_for_due(BEGIN + 5, true), Ok(true));
        assert_eq!(names_of(&second), ["hour-2026-11-27T02Z"]);
        first.close().stored().unwrap();
        second.close().stored().unwrap();
        let third = open(&store, "third");
        assert_eq!(names_of(&third), ["hour-2026-11-27T02Z"]);
        assert_eq!(names(&third, ROOT), ["of the first", "of the second"]);
        third.close().stored().unwrap();
    });
}
