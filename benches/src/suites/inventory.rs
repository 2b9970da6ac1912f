//! What is in a directory, down to the bytes: to be compared with what is there after a remount.
//!
//! Times of access are left out, as reading moves them on some file systems, and times of change, which an unmount moves
//! where it gives the last dirty pages their time.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::Hasher;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What is at a path, in words that differ where it does.
pub type Inventory = BTreeMap<PathBuf, String>;

/// Takes down all that is below `directory`.
///
/// # Errors
/// Fails when something can't be read.
pub fn take(directory: &Path) -> io::Result<Inventory> {
    let mut inventory = Inventory::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(parent) = directories.pop() {
        for entry in fs::read_dir(&parent)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            let kind = metadata.file_type();
            let content = if kind.is_dir() {
                directories.push(path.clone());
                String::new()
            } else if kind.is_file() {
                format!("{} bytes, hash {:016x}", metadata.len(), hash(&path)?)
            } else if kind.is_symlink() {
                format!("to {}", fs::read_link(&path)?.display())
            } else {
                format!("device {}", metadata.rdev())
            };
            let (mode, uid, gid) = (metadata.permissions().mode(), metadata.uid(), metadata.gid());
            inventory
                .insert(path, format!("mode {mode:o}, {} names, {uid}:{gid}, {content}", metadata.nlink()));
        }
    }
    Ok(inventory)
}

/// Returns what differs, as lines for a reader.
pub fn differences(before: &Inventory, after: &Inventory) -> Vec<String> {
    let gone = before.iter().filter_map(|(path, old)| match after.get(path) {
        Some(new) if new == old => None,
        Some(new) => Some(format!("{}: was {old}; is {new}", path.display())),
        None => Some(format!("{}: was {old}; is gone", path.display())),
    });
    let come = after.iter().filter(|(path, _)| !before.contains_key(*path));
    gone.chain(come.map(|(path, new)| format!("{}: was not there; is {new}", path.display()))).collect()
}

fn hash(path: &Path) -> io::Result<u64> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
    let mut hasher = DefaultHasher::new();
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            length => hasher.write(&buffer[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_a_mode_a_name_and_a_file_that_came_or_went_are_differences() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("d")).expect("made");
        for name in ["same", "byte", "mode", "gone", "d/linked"] {
            fs::write(path(name), "content").expect("written");
        }
        let before = take(directory.path()).expect("taken");
        assert!(differences(&before, &take(directory.path()).expect("taken")).is_empty());
        fs::write(path("byte"), "contend").expect("written");
        fs::set_permissions(path("mode"), fs::Permissions::from_mode(0o600)).expect("changed");
        fs::remove_file(path("gone")).expect("removed");
        fs::hard_link(path("d/linked"), path("come")).expect("linked");
        let found = differences(&before, &take(directory.path()).expect("taken"));
        let names = |name: &str| {
            let begin = format!("{}:", path(name).display());
            found.iter().filter(|line| line.starts_with(&begin)).count()
        };
        assert_eq!(found.len(), 5, "{found:?}");
        for name in ["byte", "mode", "gone", "come", "d/linked"] {
            assert_eq!(names(name), 1, "{name}: {found:?}");
        }
    }
}
