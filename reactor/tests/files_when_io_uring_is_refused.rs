//! Where the kernel refuses io_uring, or somebody decided against it, files go through the pool and nothing else
//! changes.
//!
//! A refusal holds for a whole process. So the test runs itself again as a child: under a filter of system calls, as a
//! container would set it, or with the variable set.

use reactor::fs::{self, Backend};
use reactor::process::{Command, Output};

/// Set in the child: what its files must go through.
const EXPECTED: &str = "HYPHA_TEST_EXPECTED_BACKEND";

/// Denies `io_uring_setup` (425 on every architecture) to itself and to the program it then becomes.
const UNDER_FILTER: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x50000 | int(sys.argv[1])), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(steps), ctypes.addressof(code))
libc.prctl(38, 1, 0, 0, 0)
if libc.prctl(22, 2, ctypes.byref(program), 0, 0) != 0:
    sys.exit("seccomp: " + os.strerror(ctypes.get_errno()))
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// The child's part.
fn use_files(expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    reactor::run(|| {
        fs::write_atomically(&path, vec![7; 300_000], 0o600).unwrap();
        assert_eq!(fs::read(&path, 300_000).unwrap(), vec![7; 300_000]);
        assert_eq!(fs::backend().to_string(), expected);
        if std::env::var_os("HYPHA_FS").is_none() {
            assert!(fs::choose_backend(Backend::IoUring).is_err());
            assert_eq!(fs::backend(), Backend::Pool, "a refusal changes nothing");
        }
    });
}

fn assert_passed(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "the child ran no test: {}", text(&output.stdout));
}

#[test]
fn files_go_through_the_pool_where_the_kernel_refuses_io_uring() {
    if let Ok(expected) = std::env::var(EXPECTED) {
        return use_files(&expected);
    }
    let this = std::env::current_exe().unwrap();
    reactor::run(|| {
        // EPERM, as containers answer; ENOSYS, as a kernel without it does.
        for errno in ["1", "38"] {
            let child = Command::new("python3").args(["-c", UNDER_FILTER, errno]).arg(&this);
            let child =
                child.args(["--exact", "files_go_through_the_pool_where_the_kernel_refuses_io_uring"]);
            match child.env(EXPECTED, "pool").env_remove("HYPHA_FS").output(1 << 20) {
                Ok(output) => assert_passed(&output),
                Err(error) => eprintln!("SKIPPED: no python3 to set the filter: {error}"),
            }
        }
    });
}

#[test]
fn the_environment_decides_what_files_go_through() {
    if let Ok(expected) = std::env::var(EXPECTED) {
        return use_files(&expected);
    }
    let this = std::env::current_exe().unwrap();
    reactor::run(|| {
        for backend in ["pool", "io_uring"] {
            if backend == "io_uring" && fs::choose_backend(Backend::IoUring).is_err() {
                eprintln!("SKIPPED: the kernel refuses io_uring");
                continue;
            }
            let child =
                Command::new(&this).args(["--exact", "the_environment_decides_what_files_go_through"]);
            assert_passed(&child.env(EXPECTED, backend).env("HYPHA_FS", backend).output(1 << 20).unwrap());
        }
    });
}
