//! Listing a directory, a part at a time. One step over the [`State`], as in `names`.
//!
//! A cookie says where the next part begins. It is made of the name's hash, which entries are ordered by, so it stays good
//! whatever is added and removed meanwhile.
//!
//! What nobody could look up is left out: an entry under a name that is none, or under another hash than its name's. Only a
//! writer that keeps to no rules leaves such entries, and the kernel would give up the whole directory for one of them.

use bytes::Bytes;

use super::state::{Change, State, Step, entry_range};
use crate::errno::Errno;
use crate::format::Key;
use crate::operations::{DirectoryEntry, FileKind, Inode};

/// Cookies of `.` and `..` are 1 and 2; those of names follow.
const FIRST_NAME_COOKIE: u64 = 3;
/// Names whose hashes are equal are told apart by this many bits of a cookie.
const COLLISION_BITS: u32 = 6;

impl State {
    /// Lists names from after `cookie`, without attributes.
    pub(crate) fn list(&mut self, inode: u64, cookie: u64, count_max: usize) -> Step<Vec<DirectoryEntry>> {
        let directory = self.record(inode)?;
        if directory.kind != FileKind::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        let mut entries = Vec::with_capacity(count_max.min(256));
        let special = |name: &'static [u8], inode: u64, cookie: u64| DirectoryEntry {
            name: Bytes::from_static(name),
            inode: Inode(inode),
            kind: FileKind::Directory,
            cookie,
            attributes: None,
        };
        if cookie < 1 && count_max > 0 {
            entries.push(special(b".", inode, 1));
        }
        if cookie < 2 && entries.len() < count_max {
            entries.push(special(b"..", directory.parent, 2));
        }
        let (mut from, end) = entry_range(inode);
        // Names with equal hashes are counted; those up to `skip` were listed before.
        let (mut hash_before, mut skip, mut seen) = (u64::MAX, 0, 0);
        if cookie >= FIRST_NAME_COOKIE {
            let position = cookie - FIRST_NAME_COOKIE;
            hash_before = position >> COLLISION_BITS;
            skip = (position & ((1 << COLLISION_BITS) - 1)) + 1;
            from = Key::Entry(inode, hash_before, Bytes::new());
        }
        while entries.len() < count_max {
            let Some((key, change)) = self.next(&from, &end)? else { break };
            from = key.successor();
            let (Key::Entry(_, hash, name), Change::Entry(entry)) = (key, change) else {
                return Err(Errno::EIO.into());
            };
            let lawful = self.entry_key(inode, &name);
            if !lawful.is_ok_and(|lawful| lawful == Key::Entry(inode, hash, name.clone())) {
                tracing::debug!(directory = inode, "an entry under no possible name is left out");
                continue;
            }
            if hash == hash_before {
                seen += 1;
                if seen <= skip {
                    continue;
                }
            } else {
                hash_before = hash;
                seen = 1;
                skip = 0;
            }
            // More than 64 names with one hash need a broken hash: then the last of them are listed twice.
            let index = (seen - 1).min((1 << COLLISION_BITS) - 1);
            entries.push(DirectoryEntry {
                name,
                inode: Inode(entry.inode),
                kind: entry.kind,
                cookie: FIRST_NAME_COOKIE + (hash << COLLISION_BITS | index),
                attributes: None,
            });
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use dht::MemoryBlockStore;
    use reactor::crypto::X25519Secret;

    use super::*;
    use crate::VolumeKeys;
    use crate::operations::{Credentials, Operations};
    use crate::volume::{Options, Volume};

    #[test]
    fn what_no_name_could_find_is_left_out_and_the_others_are_listed_once() {
        reactor::run(|| {
            let store = Rc::new(MemoryBlockStore::new());
            let register = store.new_register([1; 32]);
            let keys = VolumeKeys { register, secret: X25519Secret::generate(), readers: Vec::new() };
            let volume = Volume::create(store, keys, Options::default(), (0, 0)).unwrap();
            let (root, credentials) = (Inode::ROOT, Credentials { uid: 0, gid: 0, umask: 0 });
            for name in [b"one", b"two", b"six"] {
                volume.make_directory(root, name, 0o755, &credentials).unwrap();
            }
            {
                let mut state = volume.state.borrow_mut();
                let key = state.entry_key(root.0, b"one").unwrap();
                let Ok(Some(entry)) = state.entry(&key) else { panic!("no entry") };
                let mut plant = |hash, name: &[u8]| {
                    let key = Key::Entry(root.0, hash, Bytes::copy_from_slice(name));
                    state.set(key, Change::Entry(entry.clone()));
                };
                for (hash, name) in [(1, &b"a/b"[..]), (2, b".."), (3, b"."), (4, b"nul\0")] {
                    plant(hash, name);
                }
                // More names under one hash than cookies tell apart: listing them would begin again and again.
                (0..200u8).for_each(|number| plant(5, &[b'x', number | 1, number]));
            }
            let (mut names, mut cookie) = (Vec::new(), 0);
            while let Some(entry) = volume.read_directory(root, cookie, 1, false).unwrap().pop() {
                cookie = entry.cookie;
                names.push(entry.name);
                assert!(names.len() <= 5, "{names:?}");
            }
            names.sort();
            assert_eq!(names, [&b"."[..], b"..", b"one", b"six", b"two"]);
        });
    }
}
