//! Walking a pinned path: how much it is, or reading all of it.

use std::collections::HashSet;

use filesystem::Errno;
use filesystem::operations::{Attributes, FileKind, Inode, Operations, Whence};

/// Entries of a directory that are asked for at once.
const ENTRIES_AT_ONCE: usize = 1024;

/// Finds a path; the empty one is the drive itself.
///
/// # Errors
/// `ENOENT` and the like, or why the tree cannot be read.
///
/// # Suspends
/// While nodes of the tree are fetched.
pub(super) fn find(volume: &dyn Operations, path: &[u8]) -> Result<Attributes, Errno> {
    let mut found = volume.lookup(Inode::ROOT, b".")?;
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        found = volume.lookup(found.inode, part)?;
    }
    Ok(found)
}

/// Visits a node and all below it, a directory before what is in it. A directory is visited once: by the rules it has one
/// name, and whoever writes the tree may not keep to them. Returns how many names there are that lead out of it, to spaces.
///
/// # Errors
/// Those of `visit`, or why a directory cannot be read.
///
/// # Suspends
/// While nodes of the tree are fetched, and as `visit` does.
pub(super) fn visit(
    volume: &dyn Operations,
    start: Attributes,
    visit: &mut dyn FnMut(&Attributes) -> Result<(), Errno>,
) -> Result<u64, Errno> {
    let mut links = 0;
    let list = |directory: Inode, found: &mut Vec<Attributes>| {
        let mut cookie = 0;
        loop {
            let entries = volume.read_directory(directory, cookie, ENTRIES_AT_ONCE, true)?;
            let Some(last) = entries.last() else { return Ok(()) };
            cookie = last.cookie;
            links += entries.iter().filter(|entry| entry.kind == FileKind::Unknown).count() as u64;
            // `.` and `..` have no attributes.
            found.extend(entries.into_iter().filter_map(|entry| entry.attributes));
        }
    };
    visit_once(start, list, visit)?;
    Ok(links)
}

/// As [`visit`], with what lists a directory.
fn visit_once(
    start: Attributes,
    mut list: impl FnMut(Inode, &mut Vec<Attributes>) -> Result<(), Errno>,
    visit: &mut dyn FnMut(&Attributes) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut waiting = vec![start];
    let mut directories = HashSet::new();
    while let Some(node) = waiting.pop() {
        let is_directory = node.kind == FileKind::Directory;
        if is_directory && !directories.insert(node.inode) {
            continue;
        }
        visit(&node)?;
        if is_directory {
            list(node.inode, &mut waiting)?;
        }
    }
    Ok(())
}

/// Returns how many files a path has, and their bytes, where what is a hole takes none; and how many spaces are in it.
///
/// # Errors
/// As [`find`] and [`visit`].
///
/// # Suspends
/// While nodes of the tree are fetched.
pub(super) fn size(volume: &dyn Operations, path: &[u8]) -> Result<(u64, u64, u64), Errno> {
    let (mut files, mut bytes) = (0, 0);
    let spaces = visit(volume, find(volume, path)?, &mut |node| {
        if node.kind != FileKind::Directory {
            files += 1;
            bytes += content_bytes(node);
        }
        Ok(())
    })?;
    Ok((files, bytes, spaces))
}

/// How much content a file has, where what is a hole takes none.
pub(super) fn content_bytes(node: &Attributes) -> u64 {
    node.size.min(node.blocks_512.saturating_mul(512))
}

/// Looks at all of the tree that tells of a file, and passes on each part that is no hole.
///
/// # Errors
/// Those of `part`, or why the tree cannot be read.
///
/// # Suspends
/// While nodes of the tree are fetched, and as `part` does.
pub(super) fn parts(
    volume: &dyn Operations,
    inode: Inode,
    part: &mut dyn FnMut(u64, u64) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut end = 0;
    loop {
        let start = match volume.seek(inode, end, Whence::Data) {
            Ok(start) => start,
            // Nothing but a hole from here on, or the end.
            Err(Errno::ENXIO) => return Ok(()),
            Err(error) => return Err(error),
        };
        end = volume.seek(inode, start, Whence::Hole)?;
        part(start, end)?;
    }
}

#[cfg(test)]
mod tests {
    use filesystem::operations::Time;

    use super::*;

    fn node(inode: u64, kind: FileKind) -> Attributes {
        let none = Time { seconds: 0, nanoseconds: 0 };
        Attributes {
            inode: Inode(inode),
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            nlink: 1,
            size: 1,
            blocks_512: 1,
            atime: none,
            mtime: none,
            ctime: none,
            btime: none,
            rdev: 0,
        }
    }

    #[test]
    fn a_directory_that_has_itself_below_it_is_walked_once() {
        let (top, below) = (node(1, FileKind::Directory), node(2, FileKind::Directory));
        let file = node(3, FileKind::Regular);
        let list = |directory: Inode, found: &mut Vec<Attributes>| {
            found.extend(if directory == top.inode { [below, file] } else { [top, file] });
            Ok(())
        };
        let mut visited = Vec::new();
        visit_once(top, list, &mut |node| {
            visited.push(node.inode.0);
            if visited.len() > 9 { Err(Errno::EINVAL) } else { Ok(()) }
        })
        .unwrap();
        visited.sort_unstable();
        // A file may have two names.
        assert_eq!(visited, [1, 2, 3, 3]);
    }
}
