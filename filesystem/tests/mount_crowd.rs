//! Many programs at once, and directories that change while they are listed.

mod support;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use support::memory::{Gate, MemoryFs};
use support::{with_fs, with_mount};

#[test]
fn a_directory_of_thousands_is_listed_once_each_while_others_are_deleted() {
    with_mount(|root| {
        const COUNT: usize = 5000;
        for index in 0..COUNT {
            File::create(root.join(format!("file-{index}"))).unwrap();
        }
        assert_eq!(fs::read_dir(&root).unwrap().count(), COUNT);
        // rm -r's way: delete while listing. And another thread deletes behind the listing's back.
        let behind = root.clone();
        let deleter = thread::spawn(move || {
            for index in (0..COUNT).step_by(5) {
                let _ = fs::remove_file(behind.join(format!("file-{index}")));
            }
        });
        let mut seen = HashSet::new();
        for (position, entry) in fs::read_dir(&root).unwrap().enumerate() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if position % 3 == 0 {
                let _ = fs::remove_file(root.join(&name));
            }
            assert!(seen.insert(name), "listed twice");
        }
        deleter.join().unwrap();
        // What was never deleted must have been seen.
        for entry in fs::read_dir(&root).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(seen.contains(&name), "{name} was missed");
        }
        fs::remove_dir_all(root.join("..").canonicalize().unwrap().join("no such")).unwrap_err();
    });
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    with_mount(|root| {
        let path = root.join("file");
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all_at(b"still here", 0).unwrap();
        file.sync_all().unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"another").unwrap();
        let _ = fs::write("/proc/sys/vm/drop_caches", "1");
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "still here");
        file.write_all_at(&[1; 100_000], 50).unwrap();
        file.sync_all().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 100_050);
        // Replaced by a rename, too.
        let replaced = File::open(&path).unwrap();
        fs::write(root.join("new"), b"new").unwrap();
        fs::rename(root.join("new"), &path).unwrap();
        let mut old = [0; 7];
        replaced.read_exact_at(&mut old, 0).unwrap();
        assert_eq!(&old, b"another");
    });
}

#[test]
fn eight_threads_make_a_mess_and_none_loses_a_byte() {
    with_mount(|root| {
        let threads: Vec<_> = (0..8u8)
            .map(|thread| {
                let root = root.clone();
                thread::spawn(move || {
                    let own = root.join(format!("own-{thread}"));
                    fs::create_dir(&own).unwrap();
                    for round in 0..100usize {
                        let path = own.join(format!("{round}"));
                        let content = vec![thread; round * 977];
                        fs::write(&path, &content).unwrap();
                        let moved = root.join(format!("{thread}-{round}"));
                        fs::rename(&path, &moved).unwrap();
                        assert!(fs::read(&moved).unwrap() == content);
                        if round % 2 == 0 {
                            fs::remove_file(&moved).unwrap();
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(fs::read_dir(&root).unwrap().count(), 8 + 8 * 50);
    });
}

#[test]
fn a_request_that_waits_holds_up_no_other() {
    /// How many the kernel lets wait at once is 32.
    const TOGETHER: usize = 20;
    let gate: Arc<Gate> = Arc::default();
    let seen = gate.clone();
    let fs = || {
        let mut fs = MemoryFs::default();
        fs.gate = gate;
        fs
    };
    with_fs(fs, move |root| {
        for index in 0..100 {
            fs::write(root.join(format!("{index}")), [1; 4096]).unwrap();
        }
        rustix::fs::sync();
        if fs::write("/proc/sys/vm/drop_caches", "1").is_err() {
            eprintln!("*** SKIPPED: caches can't be dropped here, so nothing waits");
            return;
        }
        // As if the content came from far away.
        seen.is_closed.store(true, Ordering::SeqCst);
        let readers: Vec<_> = (0..100)
            .map(|index| {
                let path = root.join(format!("{index}"));
                thread::spawn(move || fs::read(path).unwrap().len())
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(120);
        while seen.waiting_count.load(Ordering::SeqCst) < TOGETHER {
            assert!(Instant::now() < until, "reads wait for one another");
            thread::sleep(Duration::from_millis(5));
        }
        // All the while names can be made and looked at.
        for index in 0..50 {
            fs::create_dir(root.join(format!("dir-{index}"))).unwrap();
            assert!(fs::metadata(root.join(format!("dir-{index}"))).unwrap().is_dir());
        }
        // Not all of them: a page that the kernel has in use stays in its cache, and its reader asks nobody.
        let unfinished_count = readers.iter().filter(|reader| !reader.is_finished()).count();
        assert!(unfinished_count >= TOGETHER, "{unfinished_count} readers wait while names are made");
        seen.is_closed.store(false, Ordering::SeqCst);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 4096);
        }
    });
}
