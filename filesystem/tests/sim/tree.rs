//! What a mount shows, read whole: each path with whose content it holds.

use std::collections::BTreeMap;

use filesystem::operations::FileKind;
use filesystem::{Errno, Inode, Operations, Volume};

use super::contents::{Token, token_of};

/// What a path holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Held {
    Directory,
    /// A file that nobody has written to yet.
    Empty,
    Content(Token),
}

/// Every path of a volume below its root.
pub(crate) type Tree = BTreeMap<String, Held>;

/// Reads a file whole, which is smaller than this: between two reads another mount's commit may be taken over, and what
/// they bring together is nobody's.
pub(crate) fn read(volume: &Volume, file: Inode) -> Result<Vec<u8>, Errno> {
    let pieces = volume.read(file, 0, 1 << 20)?;
    Ok(pieces.iter().flat_map(|piece| piece.iter().copied()).collect())
}

/// Reads a file, which must be empty or hold what somebody wrote.
///
/// # Panics
///
/// If it holds anything else.
pub(crate) fn held(volume: &Volume, path: &str, file: Inode) -> Result<Held, Errno> {
    let content = loop {
        let version = volume.version();
        let content = read(volume, file)?;
        // Another machine's commit that comes between two reads shows the start of one content and the end of the next.
        if volume.version() == version {
            break content;
        }
    };
    if content.is_empty() {
        return Ok(Held::Empty);
    }
    match token_of(&content) {
        Some(token) => Ok(Held::Content(token)),
        None => panic!("{path} holds {} bytes that nobody wrote so", content.len()),
    }
}

/// Reads all.
pub(crate) fn read_all(volume: &Volume) -> Result<Tree, Errno> {
    let mut tree = Tree::new();
    let mut left = vec![(String::new(), Inode::ROOT)];
    while let Some((path, directory)) = left.pop() {
        let mut cookie = 0;
        loop {
            let entries = volume.read_directory(directory, cookie, 64, false)?;
            let Some(last) = entries.last() else { break };
            cookie = last.cookie;
            for entry in entries {
                let name = String::from_utf8_lossy(&entry.name).into_owned();
                if name == "." || name == ".." {
                    continue;
                }
                let path = format!("{path}/{name}");
                let held = match entry.kind {
                    FileKind::Directory => {
                        left.push((path.clone(), entry.inode));
                        Held::Directory
                    }
                    _ => held(volume, &path, entry.inode)?,
                };
                assert_eq!(tree.insert(path.clone(), held), None, "{path} is listed twice");
            }
        }
    }
    Ok(tree)
}
