//! Replacing a small file, durably, whole or not at all.
//!
//! Several processes of one home may write the same file; the last one wins, and none sees half of another's.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process;

/// Writes `bytes` to `path`, in place of what is there. Blocks: call it through `reactor::offload`.
///
/// # Errors
/// If the directory can't be written to; the old file is then untouched.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    // Its own name for each process: two that write one file at a time would mix their bytes.
    temporary.push(format!(".{}.new", process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
