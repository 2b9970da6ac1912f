//! What programs do with files all day, through a real mount, by plain `std::fs`.

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use support::{shell, with_mount, with_volume};

#[test]
fn what_is_written_is_read() {
    with_mount(|root| {
        let path = root.join("file");
        fs::write(&path, b"first").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b" and more").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first and more");
        // O_TRUNC comes without an OPEN that could carry it.
        fs::write(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::metadata(&path).unwrap().len(), 1);
        let pattern: Vec<u8> = (0..5_000_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        fs::write(&path, &pattern).unwrap();
        shell(&root, "sync file; echo 1 > /proc/sys/vm/drop_caches || true");
        assert!(fs::read(&path).unwrap() == pattern);
        let file = File::open(&path).unwrap();
        let mut part = [0; 100];
        file.read_exact_at(&mut part, 32_768 - 50).unwrap();
        assert_eq!(part[..], pattern[32_718..32_818]);
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        File::open(&root).unwrap().sync_all().unwrap();
    });
}

#[test]
fn names_appear_move_and_disappear() {
    with_mount(|root| {
        let at = |name: &str| root.join(name);
        fs::create_dir(at("a")).unwrap();
        fs::create_dir_all(at("b/c/d")).unwrap();
        fs::write(at("a/file"), b"x").unwrap();
        assert_eq!(fs::create_dir(at("a")).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::remove_dir(at("a")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
        assert_eq!(fs::read(at("nothing")).unwrap_err().kind(), ErrorKind::NotFound);
        fs::rename(at("a/file"), at("b/c/file")).unwrap();
        assert_eq!(fs::read(at("a/file")).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(at("over"), b"old").unwrap();
        fs::rename(at("b/c/file"), at("over")).unwrap();
        assert_eq!(fs::read(at("over")).unwrap(), b"x");
        fs::rename(at("b/c"), at("a/c")).unwrap();
        assert!(at("a/c/d").is_dir());
        assert_eq!((fs::metadata(at("a")).unwrap().nlink(), fs::metadata(at("b")).unwrap().nlink()), (3, 2));
        assert_eq!(fs::rename(at("a"), at("a/c/d/e")).unwrap_err().kind(), ErrorKind::InvalidInput);
        // A name remembered as missing must be found once it exists.
        assert!(!at("later").exists());
        fs::write(at("later"), b"now").unwrap();
        assert!(at("later").exists());
        let long = "n".repeat(256);
        assert_eq!(fs::write(at(&long), b"").unwrap_err().kind(), ErrorKind::InvalidFilename);
        fs::write(at(&long[..255]), b"").unwrap();
        fs::remove_dir_all(at("a")).unwrap();
        fs::remove_dir_all(at("b")).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().len()).collect();
        left.sort_unstable();
        assert_eq!(left, [4, 5, 255]);
    });
}

#[test]
fn links_share_an_inode_and_symlinks_name_a_path() {
    with_mount(|root| {
        let at = |name: &str| root.join(name);
        fs::write(at("one"), b"content").unwrap();
        fs::hard_link(at("one"), at("two")).unwrap();
        let (one, two) = (fs::metadata(at("one")).unwrap(), fs::metadata(at("two")).unwrap());
        assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
        fs::write(at("two"), b"changed").unwrap();
        assert_eq!(fs::read(at("one")).unwrap(), b"changed");
        fs::remove_file(at("one")).unwrap();
        assert_eq!(fs::metadata(at("two")).unwrap().nlink(), 1);
        symlink("two", at("symlink")).unwrap();
        symlink("/no/where", at("dangling")).unwrap();
        assert_eq!(fs::read(at("symlink")).unwrap(), b"changed");
        assert_eq!(fs::read_link(at("dangling")).unwrap().to_str(), Some("/no/where"));
        assert_eq!(fs::symlink_metadata(at("dangling")).unwrap().len(), 9);
        assert_eq!(fs::hard_link(&root, at("dir-link")).unwrap_err().kind(), ErrorKind::PermissionDenied);
    });
}

#[test]
fn files_have_holes_and_change_size() {
    with_mount(|root| {
        let path = root.join("sparse");
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all(b"start").unwrap();
        file.seek(SeekFrom::Start(1 << 30)).unwrap();
        file.write_all(b"end").unwrap();
        file.sync_all().unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), (1 << 30) + 3);
        assert!(metadata.blocks() < 1000, "a hole takes no room: {}", metadata.blocks());
        let seek = |from| rustix::fs::seek(&file, from).unwrap();
        assert_eq!(seek(rustix::fs::SeekFrom::Data(1 << 20)), 1 << 30);
        assert!(seek(rustix::fs::SeekFrom::Hole(0)) <= 1 << 20);
        let mut middle = [1; 10];
        file.read_exact_at(&mut middle, 1 << 29).unwrap();
        assert_eq!(middle, [0; 10]);
        file.set_len(3).unwrap();
        file.set_len(10).unwrap();
        let mut all = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"sta\0\0\0\0\0\0\0", "what was cut off stays cut off");
        use rustix::fs::FallocateFlags as Flags;
        rustix::fs::fallocate(&file, Flags::empty(), 0, 100_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100_000);
        file.write_all_at(&[7; 100_000], 0).unwrap();
        rustix::fs::fallocate(&file, Flags::PUNCH_HOLE | Flags::KEEP_SIZE, 10, 70_000).unwrap();
        let content = fs::read(&path).unwrap();
        assert!(content[..10].iter().chain(&content[70_010..]).all(|&byte| byte == 7));
        assert!(content[10..70_010].iter().all(|&byte| byte == 0));
        // Of a `fallocate` kernel and server each note the time: the kernel's is set here.
        file.set_modified(SystemTime::now()).unwrap();
    });
}

#[test]
fn owners_modes_and_times_stay_as_set() {
    with_mount(|root| {
        let path = root.join("file");
        let file = File::create(&path).unwrap();
        for mode in [0o600, 0o4755, 0o1777, 0o000, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode(), 0o100_000 | mode);
        }
        let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_007, 123_456_789);
        file.set_times(fs::FileTimes::new().set_modified(long_ago).set_accessed(long_ago)).unwrap();
        drop(file);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.modified().unwrap(), metadata.accessed().unwrap()), (long_ago, long_ago));
        // What write-back has not passed on yet must not come after the times.
        fs::write(&path, b"new").unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(long_ago).unwrap();
        drop(file);
        shell(&root, "sync; echo 3 > /proc/sys/vm/drop_caches || true");
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), long_ago);
        if rustix::process::geteuid().is_root() {
            shell(&root, "chown 1234:5678 file; test $(stat -c %u:%g file) = 1234:5678");
            // A chown and a write by an ordinary user end setuid.
            shell(&root, "chmod 6755 file; chown 1:1 file; test $(stat -c %a file) = 755");
        }
    });
}

#[test]
fn extended_attributes_are_kept() {
    with_mount(|root| {
        let path = root.join("file");
        fs::write(&path, b"").unwrap();
        let set =
            |name, value: &[u8]| rustix::fs::setxattr(&path, name, value, rustix::fs::XattrFlags::empty());
        set("user.one", b"1").unwrap();
        set("user.two", &[2; 5000]).unwrap();
        let mut value = vec![0u8; 6000];
        assert_eq!(rustix::fs::getxattr(&path, "user.two", &mut value).unwrap(), 5000);
        assert_eq!(
            rustix::fs::getxattr(&path, "user.two", &mut value[..10]).unwrap_err(),
            rustix::io::Errno::RANGE
        );
        let size = rustix::fs::listxattr(&path, &mut value).unwrap();
        assert_eq!(&value[..size], b"user.one\0user.two\0");
        rustix::fs::removexattr(&path, "user.one").unwrap();
        assert_eq!(
            rustix::fs::getxattr(&path, "user.one", &mut value).unwrap_err(),
            rustix::io::Errno::NODATA
        );
    });
}

#[test]
fn renames_can_swap_and_can_refuse_to_replace() {
    with_mount(|root| {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let (a, b) = (root.join("a"), root.join("b"));
        fs::write(&a, b"a").unwrap();
        fs::write(&b, b"b").unwrap();
        let refused = renameat_with(CWD, &a, CWD, &b, RenameFlags::NOREPLACE);
        assert_eq!(refused, Err(rustix::io::Errno::EXIST));
        renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
        assert_eq!((fs::read(&a).unwrap(), fs::read(&b).unwrap()), (b"b".to_vec(), b"a".to_vec()));
    });
}

#[test]
fn df_and_special_files_and_locks_work() {
    with_mount(|root| {
        assert!(shell(&root, "df -h . && df -i .").contains("test"));
        shell(&root, "mkfifo fifo; (echo through > fifo &); test \"$(cat fifo)\" = through");
        shell(&root, "exec 9> lock; flock -n 9; ! flock -n lock true");
        if rustix::process::geteuid().is_root() {
            shell(&root, "mknod null c 1 3; test \"$(stat -c %t:%T null)\" = 1:3");
        }
        shell(
            &root,
            "umask 077; touch private; mkdir privy; test $(stat -c %a private privy | tr -d '\\n') = 600700",
        );
    });
}

#[test]
fn ordinary_users_meet_permissions_and_end_setuid_by_writing() {
    if !rustix::process::geteuid().is_root() || !support::have("setpriv") {
        return;
    }
    with_mount(|root| {
        shell(
            &root,
            r#"
            nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
            echo secret > mine; chmod 600 mine
            ! $nobody cat mine 2> /dev/null
            ! $nobody touch new 2> /dev/null
            mkdir -m 1777 shared; $nobody sh -c 'echo theirs > shared/theirs'
            test $(stat -c %u shared/theirs) = 65534
            echo x > setuid; chown 65534 setuid; chmod 6777 setuid
            $nobody sh -c 'echo y >> setuid'; test $(stat -c %a setuid) = 777
            chmod 6777 setuid; $nobody truncate -s 0 setuid; test $(stat -c %a setuid) = 777
            chmod 6777 setuid; echo z >> setuid; test $(stat -c %a setuid) = 6777 # root may
            mkdir -m 2775 group; chgrp 1234 group; touch group/file; mkdir group/dir
            test "$(stat -c %g:%a group/file group/dir | tr '\n' ' ')" = "1234:644 1234:2755 "
            "#,
        );
    });
}

#[test]
fn what_happens_later_never_looks_older() {
    with_mount(|root| {
        let path = root.join("file");
        fs::write(&path, [b'.'; 8192]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut latest = (0, 0);
        for turn in 0..200 {
            // Each way to change it has its own clock on some file system.
            match turn % 4 {
                0 => file.write_all_at(b"x", 10).unwrap(),
                1 => file.set_len(8192 + turn).unwrap(),
                2 => rustix::fs::futimens(&file, &now()).unwrap(),
                _ => fs::write(root.join("other"), b"").unwrap(),
            }
            let at = if turn % 4 == 3 { root.join("other") } else { path.clone() };
            let metadata = fs::metadata(at).unwrap();
            let time = (metadata.mtime(), metadata.mtime_nsec());
            assert!(time >= latest, "turn {turn}: {time:?} after {latest:?}");
            latest = time;
        }
    });
}

/// What `touch` asks for.
fn now() -> rustix::fs::Timestamps {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    rustix::fs::Timestamps { last_access: now, last_modification: now }
}

#[test]
fn what_a_set_id_bit_stands_for_ends_with_a_new_owner_and_with_allocation() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("\n*** SKIPPED: only root can try what others may do\n");
        return;
    }
    with_volume(|root| {
        shell(
            &root,
            r#"
            chmod 777 .
            mkfifo pipe; mknod device c 1 3; echo x > file
            chown 65534:65534 pipe file
            for node in pipe device file; do chmod 6755 $node; chown 65534:65534 $node; done
            test "$(stat -c %a pipe device file | sort -u)" = 755
            chmod 6755 file
            setpriv --reuid=65534 --regid=65534 --clear-groups fallocate -l 100 file
            test "$(stat -c %a file)" = 755
            chmod 6755 file; fallocate -l 200 file
            test "$(stat -c %a file)" = 6755
            "#,
        );
    });
}

#[test]
fn attributes_have_name_spaces_and_a_list_that_can_be_read() {
    with_volume(|root| {
        use rustix::fs::{XattrFlags, listxattr, removexattr, setxattr};
        let file = root.join("file");
        fs::write(&file, b"").unwrap();
        for name in ["system.anything", "nonsense.name"] {
            assert_eq!(setxattr(&file, name, b"", XattrFlags::empty()), Err(rustix::io::Errno::OPNOTSUPP));
        }
        let mut names = Vec::new();
        let refused = loop {
            assert!(names.len() < 10_000, "no end");
            let name = format!("user.{:0>200}", names.len());
            match setxattr(&file, &name, b"", XattrFlags::empty()) {
                Ok(()) => names.push(name),
                Err(errno) => break errno,
            }
        };
        assert_eq!(refused, rustix::io::Errno::NOSPC);
        let mut list = vec![0; 64 * 1024];
        let size = listxattr(&file, &mut list[..]).unwrap();
        assert_eq!(list[..size].iter().filter(|byte| **byte == 0).count(), names.len());
        for name in &names {
            removexattr(&file, name).unwrap();
        }
    });
}
