//! A link to another volume, as it lies in a directory: where that is, and nothing that opens it.
//!
//! `1, genesis size u16, genesis`, and what later versions add. The genesis is that of the other volume's register, signed by its
//! owner, so that whoever follows the link knows whose the volume is before he opens it, and which nodes keep it. Who may read it is
//! told to nobody here: everybody who sees the directory sees the link.

use dht::RegisterAddress;
use dht::block::mutable::Genesis;
use dht::block::signed::Signed;
use reactor::crypto::PublicKey;

const VERSION: u8 = 1;
/// The longest link that is followed: a genesis names at most 16 nodes, and this version's names no writers.
pub const LINK_SIZE_MAX: usize = 4096;

/// See the file's header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpaceLink {
    genesis: Signed<Genesis>,
}

impl SpaceLink {
    /// The link to the volume in the register that `genesis` makes.
    pub fn new(genesis: Signed<Genesis>) -> SpaceLink {
        SpaceLink { genesis }
    }

    /// Writes it.
    pub fn encode(&self) -> Vec<u8> {
        let genesis = self.genesis.to_bytes();
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&(genesis.len() as u16).to_le_bytes());
        bytes.extend_from_slice(&genesis);
        bytes
    }

    /// Reads what anybody wrote who may write to the directory; `None` if it is no link that this version can follow, or one
    /// that leads to a volume of somebody else than `owner`: that is known before a signature is looked at.
    pub fn decode(bytes: &[u8], owner: &PublicKey) -> Option<SpaceLink> {
        if bytes.len() > LINK_SIZE_MAX || bytes.first() != Some(&VERSION) {
            return None;
        }
        let (size, rest) = bytes[1..].split_first_chunk::<2>()?;
        let genesis = rest.get(..usize::from(u16::from_le_bytes(*size)))?;
        let genesis = Signed::<Genesis>::from_bytes(genesis).ok()?;
        if genesis.owner != *owner {
            return None;
        }
        genesis.verify().ok()?;
        Some(SpaceLink { genesis })
    }

    /// The record that made the other volume's register.
    pub fn genesis(&self) -> &Signed<Genesis> {
        &self.genesis
    }

    /// The other volume's register.
    pub fn register(&self) -> RegisterAddress {
        self.genesis.register()
    }

    /// Whose volume it is.
    pub fn owner(&self) -> PublicKey {
        self.genesis.owner
    }
}

#[cfg(test)]
mod tests {
    use overlay::NodeId;
    use reactor::crypto::Identity;

    use super::*;

    fn owner() -> Identity {
        Identity::from_seed(&[1; 32])
    }

    fn link() -> SpaceLink {
        SpaceLink::new(Genesis::sign(&owner(), [2; 32], vec![NodeId([3; 32])], Vec::new()))
    }

    fn decode(bytes: &[u8]) -> Option<SpaceLink> {
        SpaceLink::decode(bytes, &owner().public_key())
    }

    #[test]
    fn a_link_is_read_as_it_was_written_also_if_a_later_version_added_to_it() {
        let mut bytes = link().encode();
        assert_eq!(decode(&bytes), Some(link()));
        bytes.extend_from_slice(b"of later years");
        assert_eq!(decode(&bytes), Some(link()));
    }

    #[test]
    fn what_somebody_changed_or_cut_or_made_for_himself_is_no_link() {
        let bytes = link().encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_ne!(decode(&changed), Some(link()), "byte {at}");
            assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
        }
        assert_eq!(decode(&[VERSION; LINK_SIZE_MAX + 1]), None);
        let other = Identity::from_seed(&[2; 32]);
        let genesis = Genesis::sign(&other, [2; 32], vec![NodeId([3; 32])], Vec::new());
        assert_eq!(decode(&SpaceLink::new(genesis).encode()), None);
    }
}
