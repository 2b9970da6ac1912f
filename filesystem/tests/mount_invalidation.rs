//! The kernel caches names, attributes and pages for as long as it likes; what another writer changes must still be seen.

mod support;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use filesystem::mount::MountOptions;
use filesystem::{Inode, Operations, Volume};
use support::common::{self, TestStore};
use support::mount_or_skip;

/// Waits until `look` sees what it should, for 10 s at most.
fn soon(what: &str, look: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !look() {
        assert!(Instant::now() < deadline, "{what} was never seen");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn another_writers_changes_are_seen_under_the_kernels_caches() {
    let directory = tempfile::tempdir().unwrap();
    reactor::run(|| {
        let store = TestStore::new();
        let first = common::create(&store);
        let file = common::write_file(&first, Inode::ROOT, "file", b"old");
        common::write_file(&first, Inode::ROOT, "doomed", b"old");
        first.close().stored().unwrap();

        let mut options = common::options("reader");
        options.watch_interval = Some(Duration::from_millis(50));
        options.commit_interval = Duration::from_millis(50);
        let mounted = Volume::open(store.clone(), common::keys(&store), options).unwrap();
        let mount_options = MountOptions { fs_name: "test".into(), ..MountOptions::default() };
        let Some(mount) = mount_or_skip(directory.path(), &mount_options) else { return };
        reactor::scope(|scope| {
            let served = scope.spawn(|| mount.serve(mounted.clone()));
            let root = mount.mountpoint().to_owned();
            let look = |root: &Path| {
                assert_eq!(fs::read(root.join("file")).unwrap(), b"old");
                assert_eq!(fs::metadata(root.join("file")).unwrap().len(), 3);
                assert!(root.join("doomed").exists());
                assert!(!root.join("new").exists(), "and the kernel remembers that");
                assert_eq!(fs::read_dir(root).unwrap().count(), 2);
            };
            reactor::offload({
                let root = root.clone();
                move || look(&root)
            });
            let other = common::open(&store, "writer");
            other.write(file, 0, b"brand new", false).unwrap();
            other.unlink(Inode::ROOT, b"doomed").unwrap();
            common::write_file(&other, Inode::ROOT, "new", b"here");
            other.close().stored().unwrap();
            reactor::offload(move || {
                soon("new content", || fs::read(root.join("file")).unwrap() == b"brand new");
                soon("a new size", || fs::metadata(root.join("file")).unwrap().len() == 9);
                soon("a new name", || fs::read(root.join("new")).is_ok_and(|content| content == b"here"));
                soon("a removal", || !root.join("doomed").exists());
                assert_eq!(fs::read_dir(&root).unwrap().count(), 2);
            });
            mount.unmount().unwrap();
            served.join().unwrap().unwrap();
        });
        mounted.close().stored().unwrap();
    });
}
