//! The nodes of the file system in memory, and what is asked of them again and again.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use filesystem::Errno;
use filesystem::operations::{Attributes, Inode, NAME_SIZE_MAX, Time};

pub(crate) struct Node {
    pub(crate) attributes: Attributes,
    pub(crate) references: u64,
    pub(crate) content: Content,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Bytes>,
}

pub(crate) enum Content {
    Frames(BTreeMap<u64, Bytes>),
    Names(Directory),
    Target(Bytes),
    Nothing,
}

pub(crate) struct Directory {
    pub(crate) parent: Inode,
    pub(crate) names: HashMap<Vec<u8>, (u64, Inode)>,
    pub(crate) by_cookie: BTreeMap<u64, (Bytes, Inode)>,
}

impl Content {
    pub(crate) fn names(parent: Inode) -> Content {
        Content::Names(Directory { parent, names: HashMap::new(), by_cookie: BTreeMap::new() })
    }
}

impl Directory {
    pub(crate) fn add(&mut self, cookie: u64, name: &[u8], inode: Inode) {
        self.names.insert(name.to_vec(), (cookie, inode));
        self.by_cookie.insert(cookie, (Bytes::copy_from_slice(name), inode));
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Inode> {
        let (cookie, inode) = self.names.remove(name)?;
        self.by_cookie.remove(&cookie);
        Some(inode)
    }
}

pub(crate) type Nodes = HashMap<Inode, Node>;

pub(crate) fn node(nodes: &mut Nodes, inode: Inode) -> Result<&mut Node, Errno> {
    nodes.get_mut(&inode).ok_or(Errno::ENOENT)
}

pub(crate) fn directory(nodes: &mut Nodes, inode: Inode) -> Result<&mut Directory, Errno> {
    match &mut node(nodes, inode)?.content {
        Content::Names(directory) => Ok(directory),
        _ => Err(Errno::ENOTDIR),
    }
}

pub(crate) fn frames(
    nodes: &mut Nodes,
    inode: Inode,
) -> Result<(&mut Attributes, &mut BTreeMap<u64, Bytes>), Errno> {
    let node = node(nodes, inode)?;
    match &mut node.content {
        Content::Frames(frames) => Ok((&mut node.attributes, frames)),
        Content::Names(_) => Err(Errno::EISDIR),
        _ => Err(Errno::EINVAL),
    }
}

pub(crate) fn find(nodes: &mut Nodes, parent: Inode, name: &[u8]) -> Result<Inode, Errno> {
    if name.len() > NAME_SIZE_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    directory(nodes, parent)?.names.get(name).map(|(_, inode)| *inode).ok_or(Errno::ENOENT)
}

pub(crate) fn touch(nodes: &mut Nodes, inode: Inode) -> Result<(), Errno> {
    let attributes = &mut node(nodes, inode)?.attributes;
    attributes.mtime = Time::now();
    attributes.ctime = attributes.mtime;
    Ok(())
}

pub(crate) fn bear_name(nodes: &mut Nodes, inode: Inode, difference: i32) -> Result<(), Errno> {
    let found = node(nodes, inode)?;
    found.attributes.nlink = found.attributes.nlink.saturating_add_signed(difference);
    found.attributes.ctime = Time::now();
    bury(nodes, inode);
    Ok(())
}

/// Removes what has neither names nor references.
pub(crate) fn bury(nodes: &mut Nodes, inode: Inode) {
    if let Some(found) = nodes.get(&inode)
        && found.attributes.nlink == 0
        && found.references == 0
    {
        nodes.remove(&inode);
    }
}
