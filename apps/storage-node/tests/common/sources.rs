//! Thousands of real source files to copy.
//!
//! Whoever builds this project has the sources of its dependencies at hand, in Cargo's registry: that is where they
//! are taken from. Where there are too few, the rest is generated, and the story says so.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::random::Random;

/// Makes `target` a tree of at least `count` regular files, and returns how many there are.
pub fn gather(target: &Path, count: usize) -> usize {
    let mut gathered = 0;
    for package in packages() {
        if gathered >= count {
            break;
        }
        gathered += copy(&package, &target.join(package.file_name().unwrap()));
    }
    if gathered < count {
        super::loud(&format!("only {gathered} source files at hand: generating {} more", count - gathered));
        generate(&target.join("generated"), count - gathered);
        gathered = count;
    }
    gathered
}

/// The packages in Cargo's registry, in an order that does not depend on the disk; bindings to other systems, which
/// are few and huge files, stay out of it.
fn packages() -> Vec<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .unwrap_or_default();
    let mut packages = BTreeMap::new();
    for index in read_directory(&cargo_home.join("registry/src")) {
        for package in read_directory(&index) {
            let name = package.file_name().unwrap().to_string_lossy().into_owned();
            if package.is_dir() && !name.starts_with("win") {
                packages.insert(name, package);
            }
        }
    }
    packages.into_values().collect()
}

fn read_directory(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// 256 KiB: sources are smaller; what is larger is a table or an archive, and slows the story without telling more.
const FILE_SIZE_BYTES_MAX: u64 = 256 * 1024;

fn copy(from: &Path, to: &Path) -> usize {
    fs::create_dir_all(to).unwrap();
    let mut count = 0;
    for path in read_directory(from) {
        let name = path.file_name().unwrap();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            count += copy(&path, &to.join(name));
        } else if metadata.is_file() && metadata.len() <= FILE_SIZE_BYTES_MAX {
            fs::copy(&path, to.join(name)).unwrap();
            count += 1;
        } else if metadata.is_symlink() {
            let _ = symlink(fs::read_link(&path).unwrap(), to.join(name));
        }
    }
    count
}

fn generate(target: &Path, count: usize) {
    let mut random = Random::from_seed(1);
    for number in 0..count {
        let directory = target.join(format!("module_{:03}", number / 40));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("source_{number:05}.rs"));
        let mut text = format!("//! Generated file {number}.\n");
        for line in 0..random.below(200) {
            text.push_str(&format!("pub const VALUE_{line}: u64 = {};\n", random.next()));
        }
        fs::write(&path, text).unwrap();
        let mode = if random.one_in(10) { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}
