//! Positions in the identifier space, and the XOR distance between them.
//!
//! A node's position is the SHA3-256 of its public key, so nobody chooses where to stand without making keys until
//! one fits. Blocks and registers have positions in the same space: any 256-bit value is one.
//! XOR is the metric because it is symmetric and because, for a given point and distance, exactly one other point lies
//! that far: all lookups for one key therefore converge along the same path (Maymounkov & Mazieres 2002, section 2.1).
//!
//! Not here: who is at a position and how to reach them (`contact.rs`).

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use reactor::crypto::PublicKey;
use serde::{Deserialize, Serialize};

/// Bits in a position, and so the most buckets a routing table can have.
pub const ID_BITS: usize = 256;

/// A position in the 256-bit space: of a node (SHA3-256 of its public key), or of anything stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// How far two positions lie apart: their XOR, read as a big-endian number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Distance([u8; 32]);

/// The text was not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node id is written as 64 hexadecimal digits")]
pub struct BadNodeId;

impl NodeId {
    /// The position of the node that holds `key`.
    pub fn of(key: &PublicKey) -> NodeId {
        NodeId(key.fingerprint())
    }

    /// The XOR distance to `other`.
    pub fn distance(&self, other: &NodeId) -> Distance {
        let mut xor = [0; 32];
        for (byte, (a, b)) in xor.iter_mut().zip(self.0.iter().zip(&other.0)) {
            *byte = a ^ b;
        }
        Distance(xor)
    }

    /// How many leading bits the two positions share: 256 if they are equal.
    pub fn common_prefix_bits(&self, other: &NodeId) -> usize {
        self.distance(other).leading_zeros()
    }

    /// A position that shares exactly `prefix_bits` leading bits with this one and takes the rest from `random`.
    ///
    /// # Panics
    /// If `prefix_bits` is 256 or more: there is no such position.
    pub fn with_common_prefix(&self, prefix_bits: usize, random: [u8; 32]) -> NodeId {
        assert!(prefix_bits < ID_BITS, "no other position shares {prefix_bits} bits");
        let mut id = random;
        let whole = prefix_bits / 8;
        id[..whole].copy_from_slice(&self.0[..whole]);
        // Of the byte in which they part: the shared bits from us, then the opposite of our bit, then random ones.
        let part = 0x80u8 >> (prefix_bits % 8);
        let shared = !(part | (part - 1));
        id[whole] = (self.0[whole] & shared) | (!self.0[whole] & part) | (random[whole] & (part - 1));
        NodeId(id)
    }
}

impl Distance {
    /// Leading zero bits: the longer the shared prefix, the nearer.
    pub fn leading_zeros(&self) -> usize {
        match self.0.iter().position(|&byte| byte != 0) {
            Some(index) => index * 8 + self.0[index].leading_zeros() as usize,
            None => ID_BITS,
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for NodeId {
    /// Eight digits: enough to tell nodes apart in a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0[..4]))
    }
}

impl FromStr for NodeId {
    type Err = BadNodeId;

    fn from_str(text: &str) -> Result<NodeId, BadNodeId> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| BadNodeId)?;
        bytes.try_into().map(NodeId).map_err(|_| BadNodeId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_reads_back_as_the_same_id() {
        let id = NodeId(std::array::from_fn(|index| index as u8 * 7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("00".parse::<NodeId>(), Err(BadNodeId));
        assert_eq!("zz".repeat(32).parse::<NodeId>(), Err(BadNodeId));
    }

    #[test]
    fn an_id_travels_as_34_bytes() {
        let id = NodeId([0xfe; 32]);
        let bytes = reactor::serialization::to_bytes(&id);
        assert_eq!(bytes.len(), 34);
        assert_eq!(reactor::serialization::from_bytes::<NodeId>(&bytes).unwrap(), id);
    }

    proptest! {
        #[test]
        fn distance_is_a_symmetric_metric(a: [u8; 32], b: [u8; 32]) {
            let (a, b) = (NodeId(a), NodeId(b));
            prop_assert_eq!(a.distance(&b), b.distance(&a));
            prop_assert_eq!(a.distance(&a).leading_zeros(), ID_BITS);
        }

        #[test]
        fn a_made_up_neighbour_shares_exactly_the_prefix(id: [u8; 32], random: [u8; 32], bits in 0usize..256) {
            let id = NodeId(id);
            prop_assert_eq!(id.common_prefix_bits(&id.with_common_prefix(bits, random)), bits);
        }
    }
}
