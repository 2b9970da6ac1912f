//! What `reactor::fs` says of files, pressed: a tree is removed and nothing else, a replaced file keeps its permissions,
//! and a file whose length nobody tells is read all the same.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use reactor::fs::{read, remove_dir_all, write_atomically};
use reactor::run;

#[test]
fn removing_a_tree_by_a_link_removes_the_link_and_leaves_what_it_points_to() {
    run(|| {
        let directory = tempfile::tempdir().unwrap();
        let (outside, link) = (directory.path().join("outside"), directory.path().join("link"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), b"content").unwrap();
        symlink(&outside, &link).unwrap();
        remove_dir_all(&link).unwrap();
        assert!(fs::symlink_metadata(&link).is_err());
        assert_eq!(fs::read(outside.join("precious")).unwrap(), b"content");
    });
}

#[test]
fn a_link_that_takes_a_directorys_place_meanwhile_leads_nowhere() {
    // Another swaps a directory for a link, and back, for as long as the tree is being removed.
    for _ in 0..20 {
        let directory = tempfile::tempdir().unwrap();
        let (outside, tree) = (directory.path().join("outside"), directory.path().join("tree"));
        let (inner, aside) = (tree.join("inner"), directory.path().join("aside"));
        for place in [&outside, &inner] {
            fs::create_dir_all(place).unwrap();
            (0..50).for_each(|n| fs::write(place.join(n.to_string()), b"x").unwrap());
        }
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = fs::rename(&inner, &aside);
                    let _ = symlink(&outside, &inner);
                    let _ = fs::remove_file(&inner);
                    let _ = fs::rename(&aside, &inner);
                }
            });
            run(|| drop(remove_dir_all(&tree)));
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 50);
    }
}

#[test]
fn a_file_that_is_replaced_keeps_its_permissions_whatever_the_umask() {
    run(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for mode in [0o664, 0o777, 0o600, 0o440] {
            fs::write(&path, b"old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            write_atomically(&path, b"new", 0o600).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
            fs::remove_file(&path).unwrap();
        }
    });
}

#[test]
fn a_file_whose_length_the_kernel_does_not_tell_is_read_to_its_end() {
    run(|| {
        // Some hundred kilobytes of one's own maps, in pieces of a page.
        let mappings: Vec<_> = (0..500).map(|_| std::fs::File::open("/proc/self/maps").unwrap()).collect();
        let ours = read("/proc/self/smaps", 64 << 20).unwrap();
        assert!(ours.len() > 4096 && ours.ends_with(b"\n"), "{} bytes", ours.len());
        let text = String::from_utf8(ours).unwrap();
        assert!(text.contains("[stack]") && text.trim_end().lines().last().unwrap().contains("VmFlags"));
        drop(mappings);
        assert!(read("/proc/self/smaps", 100).is_err(), "longer than allowed");
    });
}
