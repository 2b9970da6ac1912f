//! What only the kernel's files have: pipes among them, content made up as it is read, descriptors.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reactor::fs::{self, Backend, File, FileKind, OpenOptions};
use reactor::{sleep, spawn, yield_now};

use super::with_files;

/// Runs `story` in a directory of its own, with files that go through `backend`.
pub(super) fn with_backend(backend: Backend, story: impl FnOnce(&Path) + Send) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    reactor::run(move || match fs::choose_backend(backend) {
        Ok(()) => {
            assert_eq!(fs::backend(), backend);
            story(&path);
        }
        Err(error) => eprintln!("SKIPPED: the kernel refuses {backend}: {error}"),
    });
}

/// Drops the page cache's copy, so that the next read has to wait for the disk.
pub(super) fn make_cold(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn a_file_that_is_made_up_as_it_is_read_is_read_to_its_end() {
    with_files(|_| {
        // The kernel makes these as they are read, and gives no length.
        let made_up = fs::read("/proc/self/status", 1 << 20).unwrap();
        assert!(made_up.starts_with(b"Name:"));
        assert!(fs::read("/proc/self/status", 10).is_err());
    });
}

#[test]
fn a_path_with_a_zero_byte_names_nothing() {
    with_files(|_| {
        let path = Path::new("a\0b");
        assert_eq!(File::open(path).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(fs::rename(path, "c").unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_named_pipe_opens_without_waiting_for_its_other_end() {
    with_files(|directory| {
        let path = directory.join("pipe");
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        assert!(OpenOptions::new().write(true).open(&path).is_err(), "nobody reads");
        let pipe = File::open(&path).unwrap();
        assert_eq!(pipe.metadata().unwrap().kind, FileKind::Other);
        assert!(pipe.read_at(&mut [0], 0).is_err(), "a pipe knows no positions");
    });
}

#[test]
fn a_coroutine_terminated_while_it_opens_a_file_leaves_no_descriptor_behind() {
    with_files(|directory| {
        let mut cut_count = 0;
        for n in 0..200 {
            let path = directory.join(n.to_string());
            let opening = spawn(move || File::create(path).map(drop));
            for _ in 0..n % 3 {
                yield_now();
            }
            opening.terminate();
            cut_count += u32::from(opening.join().is_err());
        }
        assert!(cut_count > 0, "none was terminated while opening");
        let deadline = Instant::now() + Duration::from_secs(60);
        while fs::operations_in_flight() > 0 {
            assert!(Instant::now() < deadline, "{} operations never ended", fs::operations_in_flight());
            sleep(Duration::from_millis(1));
        }
        let open: Vec<PathBuf> = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .filter(|target| target.starts_with(directory))
            .collect();
        assert_eq!(open, [] as [PathBuf; 0]);
    });
}
