//! What a mount shows: files past the kernel's cache, and everything below a drive.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, OFlags, StatxFlags};

use crate::common::history::Content;

/// Mode, links and content, by path.
pub(crate) type Tree = BTreeMap<String, (u32, u64, Content)>;

/// What a program is told when another was there first, or the name is of another kind.
pub(crate) fn is_harmless(error: &io::Error) -> bool {
    use rustix::io::Errno as E;
    let errnos = [E::NOENT, E::EXIST, E::NOTEMPTY, E::ISDIR, E::NOTDIR, E::STALE, E::PERM, E::INVAL]
        .map(E::raw_os_error);
    error.raw_os_error().is_some_and(|errno| errnos.contains(&errno))
}

pub(crate) fn is_file(mode: u32) -> bool {
    mode & 0o170_000 == 0o100_000
}

/// All that a file holds, past the kernel's cache: what a merge brought in, and no page from before it.
pub(crate) fn read(file: &File) -> io::Result<Content> {
    // A read past the cache believes the size that the kernel knows.
    now(file)?;
    let flags = rustix::fs::fcntl_getfl(file)?;
    rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT)?;
    let mut content = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let size = file.read_at(&mut piece, content.len() as u64)?;
        if size == 0 {
            break;
        }
        content.extend_from_slice(&piece[..size]);
    }
    rustix::fs::fcntl_setfl(file, flags)?;
    Ok(content)
}

/// How many names a file has, and when that or anything else of it last changed; asked of the mount, not of the kernel.
pub(crate) fn now(file: &File) -> io::Result<(u32, (i64, i64))> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    let found = rustix::fs::statx(file, "", flags, StatxFlags::BASIC_STATS)?;
    Ok((found.stx_nlink, (found.stx_ctime.tv_sec, i64::from(found.stx_ctime.tv_nsec))))
}

pub(crate) fn write_at(old: &Content, offset: usize, data: &[u8]) -> Content {
    let mut new = old.clone();
    new.resize(new.len().max(offset + data.len()), 0);
    new[offset..offset + data.len()].copy_from_slice(data);
    new
}

/// Everything below a drive: mode, links, content. How many names each file has is counted, and compared.
pub(crate) fn tree(drive: &Path) -> io::Result<Tree> {
    let mut found = Tree::new();
    let mut names: HashMap<u64, (u64, u64, String)> = HashMap::new();
    let mut todo = vec![(drive.to_owned(), String::new())];
    while let Some((directory, path)) = todo.pop() {
        let mut directory_count = 0;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let path = format!("{path}{}", entry.file_name().to_string_lossy());
            let metadata = fs::symlink_metadata(entry.path())?;
            let content = match metadata.is_file() {
                true => fs::read(entry.path())?,
                false => Content::new(),
            };
            if metadata.is_dir() {
                directory_count += 1;
                todo.push((entry.path(), format!("{path}/")));
            } else {
                names.entry(metadata.ino()).or_insert((metadata.nlink(), 0, path.clone())).1 += 1;
            }
            found.insert(path, (metadata.mode(), metadata.nlink(), content));
        }
        let links = fs::symlink_metadata(&directory)?.nlink();
        if links != 2 + directory_count {
            return Err(io::Error::other(format!(
                "{path:?} has {links} links and {directory_count} directories"
            )));
        }
    }
    match names.into_values().find(|(links, names, _)| links != names) {
        Some((links, names, path)) => {
            Err(io::Error::other(format!("{path} has {links} links and {names} names")))
        }
        None => Ok(found),
    }
}
