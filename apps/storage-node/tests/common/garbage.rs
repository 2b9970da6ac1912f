//! Files that make garbage, `gc`, and a disk small enough that it shows whether the space came back.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use super::{loud, storage_node, text};

/// Some objects each.
pub const FILE_BYTES: usize = 3 << 20;

/// A disk of its own, a tmpfs, on which stores keep small segments.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it, which needs root: without, this says so.
    pub fn mount(path: PathBuf, size_bytes: u64) -> Option<SmallDisk> {
        fs::create_dir(&path).unwrap();
        let options = CString::new(format!("size={size_bytes}")).unwrap();
        match rustix::mount::mount("tmpfs", &path, "tmpfs", MountFlags::empty(), Some(&*options)) {
            Ok(()) => Some(SmallDisk(path)),
            Err(error) => {
                loud(&format!("SKIPPED: a disk of its own needs root, to mount a small tmpfs ({error})"));
                None
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Gives it another size, not below what is used.
    pub fn resize(&self, size_bytes: u64) {
        let options = CString::new(format!("size={size_bytes}")).unwrap();
        rustix::mount::mount_remount(&self.0, MountFlags::empty(), &*options).unwrap();
    }

    /// How much of it is used.
    pub fn used_bytes(&self) -> u64 {
        let state = rustix::fs::statvfs(&self.0).unwrap();
        (state.f_blocks - state.f_bfree) * state.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// What is in a file, by its seed.
pub fn content(seed: u64) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).take(FILE_BYTES / 8).flatten().collect()
}

/// Writes a file, and has it stored.
pub fn write(path: PathBuf, seed: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(&content(seed)).unwrap();
    file.sync_all().unwrap();
}

/// Runs `gc` without grace; whether it succeeded, and what it said.
pub fn gc(home: &Path, more: &[&str]) -> (bool, String) {
    let output = storage_node(&[&["gc", "--home", text(home), "--grace", "0s"], more].concat());
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    (output.status.success(), said)
}
