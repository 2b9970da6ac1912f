//! POSIX access control lists: what `setfacl` sets, as two extended attributes hold it. Pure.
//!
//! The kernel enforces them (`FUSE_POSIX_ACL` with `default_permissions`). What it leaves to a file system is here: a list
//! and the mode show the same permissions, so each follows the other; and a directory's default list takes the place of
//! the umask for what is made in it. Not here: whom an identifier means, for the kernel has mapped it.
//!
//! # Source
//!
//! Linux `include/uapi/linux/posix_acl_xattr.h` and `fs/posix_acl.c`; IEEE 1003.1e draft 17.

use smallvec::SmallVec;

/// The attribute that holds a node's own list.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute that holds what a directory gives to what is made in it.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The only version of the attributes' layout.
const VERSION: u32 = 2;
/// Bytes of the layout's head, and of an entry.
const HEAD_SIZE: usize = 4;
const ENTRY_SIZE: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A list, in the order of its tags.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Acl(SmallVec<[Entry; 8]>);

impl Acl {
    /// Reads an attribute's value; `None` if it is no list, or one that says nothing of the owner, the group or others.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Acl> {
        let (head, rest) = bytes.split_at_checked(HEAD_SIZE)?;
        if head != VERSION.to_le_bytes() || rest.len() % ENTRY_SIZE != 0 {
            return None;
        }
        let entries: SmallVec<[Entry; 8]> = rest
            .chunks_exact(ENTRY_SIZE)
            .map(|entry| Entry {
                tag: u16::from_le_bytes([entry[0], entry[1]]),
                permissions: u16::from_le_bytes([entry[2], entry[3]]),
                id: u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
            })
            .collect();
        let count = |tag| entries.iter().filter(|entry| entry.tag == tag).count();
        let is_sound = entries.iter().all(|entry| {
            entry.permissions <= 7 && [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER].contains(&entry.tag)
        });
        let is_ordered = entries.is_sorted_by_key(|entry| entry.tag);
        let needs_mask = count(USER) + count(GROUP) > 0;
        let is_whole = count(USER_OBJ) == 1
            && count(GROUP_OBJ) == 1
            && count(OTHER) == 1
            && count(MASK) <= 1
            && (count(MASK) == 1 || !needs_mask);
        (is_sound && is_ordered && is_whole).then_some(Acl(entries))
    }

    /// Returns the attribute's value.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend_from_slice(&entry.tag.to_le_bytes());
            bytes.extend_from_slice(&entry.permissions.to_le_bytes());
            bytes.extend_from_slice(&entry.id.to_le_bytes());
        }
        bytes
    }

    fn permissions(&self, tag: u16) -> Option<u32> {
        self.0.iter().find(|entry| entry.tag == tag).map(|entry| u32::from(entry.permissions))
    }

    /// The tag that the group's bits of the mode show.
    fn group_tag(&self) -> u16 {
        if self.permissions(MASK).is_some() { MASK } else { GROUP_OBJ }
    }

    /// Returns the permission bits of the mode (`0o777`) that show this list.
    pub(crate) fn mode(&self) -> u32 {
        let of = |tag| self.permissions(tag).unwrap_or(0);
        of(USER_OBJ) << 6 | of(self.group_tag()) << 3 | of(OTHER)
    }

    /// Whether the mode says all that this list does.
    pub(crate) fn is_mode_only(&self) -> bool {
        self.0.len() == 3
    }

    /// Returns the list after a `chmod`.
    pub(crate) fn with_mode(&self, mode: u32) -> Acl {
        let mut changed = self.clone();
        let group_tag = self.group_tag();
        for entry in &mut changed.0 {
            let bits = match entry.tag {
                USER_OBJ => mode >> 6,
                OTHER => mode,
                tag if tag == group_tag => mode >> 3,
                _ => continue,
            };
            entry.permissions = (bits & 7) as u16;
        }
        changed
    }

    /// Returns the list of something that is made with `mode` below a directory whose default list this is: no more than
    /// either allows. The umask has no say.
    pub(crate) fn for_new(&self, mode: u32) -> Acl {
        self.with_mode(self.mode() & mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Nobody's identifier, where a tag needs none.
    const NONE: u32 = u32::MAX;

    fn list(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries.iter().map(|&(tag, permissions, id)| Entry { tag, permissions, id }).collect())
    }

    fn named() -> Acl {
        list(&[(USER_OBJ, 7, NONE), (USER, 6, 1000), (GROUP_OBJ, 5, NONE), (MASK, 6, NONE), (OTHER, 0, NONE)])
    }

    #[test]
    fn a_list_survives_encoding() {
        assert_eq!(Acl::decode(&named().encode()), Some(named()));
    }

    #[test]
    fn the_groups_bits_of_the_mode_are_the_mask() {
        assert_eq!(named().mode(), 0o760);
        assert!(!named().is_mode_only());
        let plain = list(&[(USER_OBJ, 6, NONE), (GROUP_OBJ, 4, NONE), (OTHER, 4, NONE)]);
        assert_eq!((plain.mode(), plain.is_mode_only()), (0o644, true));
    }

    #[test]
    fn a_chmod_changes_the_mask_and_leaves_the_group() {
        let expected = list(&[
            (USER_OBJ, 6, NONE),
            (USER, 6, 1000),
            (GROUP_OBJ, 5, NONE),
            (MASK, 4, NONE),
            (OTHER, 1, NONE),
        ]);
        assert_eq!(named().with_mode(0o641), expected);
    }

    #[test]
    fn what_is_new_gets_no_more_than_the_mode_or_the_default_allows() {
        assert_eq!(named().for_new(0o666).mode(), 0o660);
        assert_eq!(named().for_new(0o400).mode(), 0o400);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert_eq!(Acl::decode(b""), None);
        assert_eq!(Acl::decode(&1u32.to_le_bytes()), None);
        for broken in [
            // Without others; a named user without a mask; out of order; nine permissions.
            list(&[(USER_OBJ, 7, NONE), (GROUP_OBJ, 5, NONE)]),
            list(&[(USER_OBJ, 7, NONE), (USER, 7, 1), (GROUP_OBJ, 5, NONE), (OTHER, 0, NONE)]),
            list(&[(OTHER, 0, NONE), (USER_OBJ, 7, NONE), (GROUP_OBJ, 5, NONE)]),
            list(&[(USER_OBJ, 9, NONE), (GROUP_OBJ, 5, NONE), (OTHER, 0, NONE)]),
        ] {
            assert_eq!(Acl::decode(&broken.encode()), None, "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(list) = Acl::decode(&bytes) {
                prop_assert_eq!(list.encode(), bytes);
            }
        }
    }
}
