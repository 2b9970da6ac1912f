//! What newer system calls ask of a file system: files without names, whiteouts, birth times, handles.

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, openat, renameat_with};
use support::{have, shell, with_volume};

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_without_a_name_gets_one_or_goes() {
    with_volume(|root| {
        let unnamed = || -> File {
            openat(CWD, &root, OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o600)).unwrap().into()
        };
        let mut file = unnamed();
        file.write_all(b"content").unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        assert!(names(&root).is_empty());
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        linkat(CWD, &link, CWD, root.join("named"), AtFlags::SYMLINK_FOLLOW).unwrap();
        assert_eq!(fs::read(root.join("named")).unwrap(), b"content");
        assert_eq!(fs::metadata(root.join("named")).unwrap().nlink(), 1);
        let mut other = unnamed();
        other.write_all(&[7; 100_000]).unwrap();
        drop(other);
        assert_eq!(names(&root), ["named"]);
    });
}

#[test]
fn a_rename_can_leave_a_whiteout() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("\n*** SKIPPED: only root may make whiteouts\n");
        return;
    }
    with_volume(|root| {
        fs::write(root.join("old"), b"content").unwrap();
        fs::write(root.join("taken"), b"other").unwrap();
        let rename = |from, to, flags| renameat_with(CWD, root.join(from), CWD, root.join(to), flags);
        rename("old", "taken", RenameFlags::WHITEOUT).unwrap();
        assert_eq!(fs::read(root.join("taken")).unwrap(), b"content");
        let whiteout = fs::symlink_metadata(root.join("old")).unwrap();
        assert!(whiteout.file_type().is_char_device());
        assert_eq!((whiteout.rdev(), whiteout.mode() & 0o7777), (0, 0));
        fs::remove_file(root.join("old")).unwrap();

        // What whiteouts are for.
        fs::remove_file(root.join("taken")).unwrap();
        let lower = tempfile::tempdir().unwrap();
        fs::create_dir(lower.path().join("lower")).unwrap();
        fs::create_dir(lower.path().join("all")).unwrap();
        fs::write(lower.path().join("lower/below"), b"below").unwrap();
        shell(
            lower.path(),
            &format!(
                r#"
                drive={}
                mkdir $drive/upper $drive/work
                mount -t overlay overlay -o lowerdir=lower,upperdir=$drive/upper,workdir=$drive/work all
                trap 'umount all' EXIT
                echo above > all/above
                mv all/below all/moved
                rm all/moved
                echo again > all/below
                mkdir all/directory; mv all/directory all/other
                test "$(ls all | tr '\n' ' ')" = "above below other "
                test "$(cat all/below)" = again
                "#,
                root.display()
            ),
        );
        assert_eq!(names(&root.join("upper")), ["above", "below", "other"]);
        fs::remove_dir_all(root.join("upper")).unwrap();
        fs::remove_dir_all(root.join("work")).unwrap();
    });
}

#[test]
fn a_birth_time_stays() {
    with_volume(|root| {
        let path = root.join("file");
        fs::write(&path, b"1").unwrap();
        let born = fs::metadata(&path).unwrap().created().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, b"2").unwrap();
        shell(&root, "touch -d '2001-02-03 04:05:06' file");
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.created().unwrap(), born);
        assert!(metadata.modified().unwrap() < born);
    });
}

/// Takes handles of a file and a directory, has the kernel forget both, and opens them by their handles.
const HANDLES: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('data', ctypes.c_ubyte * 128)]
def handle(path):
    taken, mount = Handle(bytes=128), ctypes.c_int()
    if libc.name_to_handle_at(-100, path, ctypes.byref(taken), ctypes.byref(mount), 0):
        raise OSError(ctypes.get_errno(), 'name_to_handle_at')
    return taken
def reopen(taken):
    fd = libc.open_by_handle_at(mountpoint, ctypes.byref(taken), os.O_RDONLY)
    if fd < 0:
        raise OSError(ctypes.get_errno(), 'open_by_handle_at')
    return fd
mountpoint = os.open('.', os.O_RDONLY)
file, directory = handle(b'directory/file'), handle(b'directory')
os.sync()
with open('/proc/sys/vm/drop_caches', 'w') as drop:
    drop.write('2')
opened = reopen(file)
assert os.read(opened, 100) == b'content'
os.close(opened)
assert os.listdir(reopen(directory)) == ['file']
os.unlink('directory/file')
try:
    reopen(file)
    raise SystemExit('a removed file was opened')
except OSError as error:
    assert error.errno == 116, error
"#;

#[test]
fn a_handle_outlives_the_kernels_memory() {
    if !rustix::process::geteuid().is_root() || !have("python3") {
        return;
    }
    with_volume(|root| {
        fs::create_dir(root.join("directory")).unwrap();
        fs::write(root.join("directory/file"), b"content").unwrap();
        shell(&root, &format!("python3 - <<'END'\n{HANDLES}\nEND\n"));
    });
}

#[test]
fn the_mount_says_that_reads_leave_no_trace() {
    with_volume(|root| {
        let mut table = String::new();
        File::open("/proc/self/mountinfo").unwrap().read_to_string(&mut table).unwrap();
        let ours = format!(" {} ", root.display());
        let line = table.lines().find(|line| line.contains(&ours)).unwrap();
        assert!(line.contains("noatime"), "{line}");
    });
}
