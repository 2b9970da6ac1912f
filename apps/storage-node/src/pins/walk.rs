//! Walking a pinned path: how much it is, or reading all of it.

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
pub(super) fn find(volume: &dyn Operations, path: &str) -> Result<Attributes, Errno> {
    let mut found = volume.lookup(Inode::ROOT, b".")?;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        found = volume.lookup(found.inode, part.as_bytes())?;
    }
    Ok(found)
}

/// Visits a node and all below it, a directory before what is in it.
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
) -> Result<(), Errno> {
    let mut waiting = vec![start];
    while let Some(node) = waiting.pop() {
        visit(&node)?;
        if node.kind != FileKind::Directory {
            continue;
        }
        let mut cookie = 0;
        loop {
            let entries = volume.read_directory(node.inode, cookie, ENTRIES_AT_ONCE, true)?;
            let Some(last) = entries.last() else { break };
            cookie = last.cookie;
            // `.` and `..` have no attributes.
            waiting.extend(entries.into_iter().filter_map(|entry| entry.attributes));
        }
    }
    Ok(())
}

/// Returns how many files a path has, and their bytes; what is a hole takes none.
///
/// # Errors
/// As [`find`] and [`visit`].
///
/// # Suspends
/// While nodes of the tree are fetched.
pub(super) fn size(volume: &dyn Operations, path: &str) -> Result<(u64, u64), Errno> {
    let (mut files, mut bytes) = (0, 0);
    visit(volume, find(volume, path)?, &mut |node| {
        if node.kind != FileKind::Directory {
            files += 1;
            bytes += node.size.min(node.blocks_512.saturating_mul(512));
        }
        Ok(())
    })?;
    Ok((files, bytes))
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
