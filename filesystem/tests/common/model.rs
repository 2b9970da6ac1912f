//! The simplest file system that could be right: maps and vectors, with errors as POSIX lists them.

use std::collections::BTreeMap;

use filesystem::operations::{FileKind, RenameFlags};
use filesystem::{Errno, Inode, Operations, Volume};

use super::{ROOT, read_file};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    File { content: Vec<u8>, nlink: u32 },
    Directory { entries: BTreeMap<String, u64>, parent: u64 },
}

/// Nodes are named by the volume's inode numbers, so that both can be asked the same question.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) nodes: BTreeMap<u64, Node>,
}

impl Model {
    pub(crate) fn new() -> Model {
        let root = Node::Directory { entries: BTreeMap::new(), parent: 1 };
        Model { nodes: BTreeMap::from([(1, root)]) }
    }

    pub(crate) fn directories(&self) -> Vec<u64> {
        self.nodes
            .iter()
            .filter(|(_, node)| matches!(node, Node::Directory { .. }))
            .map(|(id, _)| *id)
            .collect()
    }

    pub(crate) fn files(&self) -> Vec<u64> {
        self.nodes.iter().filter(|(_, node)| matches!(node, Node::File { .. })).map(|(id, _)| *id).collect()
    }

    fn entries(&mut self, directory: u64) -> &mut BTreeMap<String, u64> {
        match self.nodes.get_mut(&directory) {
            Some(Node::Directory { entries, .. }) => entries,
            _ => panic!("the test asks for directories only"),
        }
    }

    pub(crate) fn find(&self, directory: u64, name: &str) -> Option<u64> {
        match &self.nodes[&directory] {
            Node::Directory { entries, .. } => entries.get(name).copied(),
            Node::File { .. } => None,
        }
    }

    fn is_directory(&self, id: u64) -> bool {
        matches!(self.nodes[&id], Node::Directory { .. })
    }

    fn is_empty(&self, id: u64) -> bool {
        matches!(&self.nodes[&id], Node::Directory { entries, .. } if entries.is_empty())
    }

    pub(crate) fn can_make(&self, directory: u64, name: &str) -> Result<(), Errno> {
        if self.find(directory, name).is_some() { Err(Errno::EEXIST) } else { Ok(()) }
    }

    pub(crate) fn make(&mut self, directory: u64, name: &str, id: u64, kind: FileKind) {
        let node = match kind {
            FileKind::Directory => Node::Directory { entries: BTreeMap::new(), parent: directory },
            _ => Node::File { content: Vec::new(), nlink: 1 },
        };
        assert!(self.nodes.insert(id, node).is_none(), "an inode number was given out twice");
        self.entries(directory).insert(name.into(), id);
    }

    pub(crate) fn content(&mut self, file: u64) -> &mut Vec<u8> {
        match self.nodes.get_mut(&file) {
            Some(Node::File { content, .. }) => content,
            _ => panic!("the test asks for files only"),
        }
    }

    pub(crate) fn write(&mut self, file: u64, offset: usize, data: &[u8]) {
        let content = self.content(file);
        if content.len() < offset + data.len() {
            content.resize(offset + data.len(), 0);
        }
        content[offset..offset + data.len()].copy_from_slice(data);
    }

    pub(crate) fn link(&mut self, file: u64, directory: u64, name: &str) -> Result<(), Errno> {
        self.can_make(directory, name)?;
        if let Some(Node::File { nlink, .. }) = self.nodes.get_mut(&file) {
            *nlink += 1;
        }
        self.entries(directory).insert(name.into(), file);
        Ok(())
    }

    fn drop_link(&mut self, id: u64) {
        let gone = match self.nodes.get_mut(&id) {
            Some(Node::File { nlink, .. }) => {
                *nlink -= 1;
                *nlink == 0
            }
            _ => true,
        };
        if gone {
            self.nodes.remove(&id);
        }
    }

    pub(crate) fn unlink(&mut self, directory: u64, name: &str) -> Result<(), Errno> {
        let id = self.find(directory, name).ok_or(Errno::ENOENT)?;
        if self.is_directory(id) {
            return Err(Errno::EISDIR);
        }
        self.entries(directory).remove(name);
        self.drop_link(id);
        Ok(())
    }

    pub(crate) fn remove_directory(&mut self, directory: u64, name: &str) -> Result<(), Errno> {
        let id = self.find(directory, name).ok_or(Errno::ENOENT)?;
        if !self.is_directory(id) {
            return Err(Errno::ENOTDIR);
        }
        if !self.is_empty(id) {
            return Err(Errno::ENOTEMPTY);
        }
        self.entries(directory).remove(name);
        self.drop_link(id);
        Ok(())
    }

    fn is_inside(&self, mut at: u64, directory: u64) -> bool {
        loop {
            if at == directory {
                return true;
            }
            if at == 1 {
                return false;
            }
            let Node::Directory { parent, .. } = &self.nodes[&at] else { return false };
            at = *parent;
        }
    }

    pub(crate) fn rename(
        &mut self,
        from: u64,
        name: &str,
        to: u64,
        new: &str,
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let id = self.find(from, name).ok_or(Errno::ENOENT)?;
        let target = self.find(to, new);
        if self.is_directory(id) && from != to && self.is_inside(to, id) {
            return Err(Errno::EINVAL);
        }
        if flags.exchange {
            let target = target.ok_or(Errno::ENOENT)?;
            if self.is_directory(target) && from != to && self.is_inside(from, target) {
                return Err(Errno::EINVAL);
            }
            self.entries(from).insert(name.into(), target);
            self.entries(to).insert(new.into(), id);
            self.set_parent(target, from);
            self.set_parent(id, to);
            return Ok(());
        }
        if let Some(target) = target {
            if flags.no_replace {
                return Err(Errno::EEXIST);
            }
            if target == id {
                return Ok(());
            }
            match (self.is_directory(id), self.is_directory(target)) {
                (false, true) => return Err(Errno::EISDIR),
                (true, false) => return Err(Errno::ENOTDIR),
                (true, true) if !self.is_empty(target) => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
            self.drop_link(target);
        }
        self.entries(from).remove(name);
        self.entries(to).insert(new.into(), id);
        self.set_parent(id, to);
        Ok(())
    }

    fn set_parent(&mut self, id: u64, to: u64) {
        if let Some(Node::Directory { parent, .. }) = self.nodes.get_mut(&id) {
            *parent = to;
        }
    }

    /// Compares the whole volume with the model.
    pub(crate) fn check(&self, volume: &Volume, context: &str) {
        let mut seen = 0;
        let mut todo = vec![1];
        while let Some(id) = todo.pop() {
            seen += 1;
            let Node::Directory { entries, parent } = &self.nodes[&id] else { continue };
            let found = list(volume, Inode(id), context);
            assert_eq!(found, *entries, "{context}: directory {id}");
            assert_eq!(volume.lookup(Inode(id), b"..").unwrap().inode.0, *parent, "{context}");
            let subdirectories = entries.values().filter(|child| self.is_directory(**child)).count() as u32;
            assert_eq!(
                volume.attributes(Inode(id)).unwrap().nlink,
                2 + subdirectories,
                "{context}: nlink of {id}"
            );
            todo.extend(entries.values().filter(|child| self.is_directory(**child)));
        }
        for (id, node) in &self.nodes {
            if let Node::File { content, nlink } = node {
                let attributes =
                    volume.attributes(Inode(*id)).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_eq!(attributes.nlink, *nlink, "{context}: nlink of {id}");
                assert_eq!(attributes.size, content.len() as u64, "{context}: size of {id}");
                assert!(read_file(volume, Inode(*id)) == *content, "{context}: content of {id}");
            }
        }
        assert_eq!(seen, self.directories().len(), "{context}: all directories hang together");
        let _ = ROOT;
    }
}

fn list(volume: &Volume, directory: Inode, context: &str) -> BTreeMap<String, u64> {
    let mut entries = BTreeMap::new();
    let mut cookie = 0;
    loop {
        let page = volume
            .read_directory(directory, cookie, 5, true)
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        let Some(last) = page.last() else { return entries };
        cookie = last.cookie;
        for entry in page.iter().filter(|entry| !matches!(entry.name.as_ref(), b"." | b"..")) {
            assert_eq!(entry.attributes.unwrap().inode, entry.inode, "{context}");
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            assert!(entries.insert(name, entry.inode.0).is_none(), "{context}: a name is listed twice");
        }
    }
}
