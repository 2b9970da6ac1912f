//! How much a network can still take, from what its nodes say of theirs. Pure.
//!
//! A disk that several nodes share is counted once. A block takes its size on as many nodes as there are copies, each on
//! another: so what fits is not the sum of all that is free, divided by the copies, if one node has more than the
//! others could match.
//!
//! A node that has next to nothing left is done without, as one that is down is, as long as a quorum of the copies is kept by others: one
//! small disk is not to stop all the others. Whoever is told how the network is, is told of it by the same measure ([`is_full`]).

use std::collections::BTreeMap;

use crate::block_store::Usage;
use crate::message::NodeSpace;

/// Less than this is left where a node is full: what a drive keeps free for the commits that follow, and a few objects beside it. A drive
/// that may use all the space but this never comes to what the node would refuse.
pub const FULL_BYTES: u64 = 8 << 20;

/// Whether a node that may still take so many bytes is to be done without.
pub fn is_full(free_bytes: u64) -> bool {
    free_bytes < FULL_BYTES
}

/// What the nodes have together, one copy of each block counted.
pub(crate) fn together(nodes: &[NodeSpace], copies: usize) -> Usage {
    let copies = copies.clamp(1, nodes.len().max(1));
    let sum = |field: fn(&NodeSpace) -> u64| nodes.iter().map(field).fold(0, u64::saturating_add);
    let used_bytes = sum(|node| node.used_bytes) / copies as u64;
    let roomy: Vec<NodeSpace> = nodes.iter().copied().filter(|node| !is_full(node.free_bytes)).collect();
    let is_quorum = roomy.len() > copies / 2;
    let taking = if is_quorum { &roomy[..] } else { nodes };
    let free_bytes = fitting(taking, copies.min(taking.len()).max(1) as u64);
    Usage {
        used_bytes,
        total_bytes: used_bytes.saturating_add(free_bytes),
        block_count: sum(|node| node.block_count) / copies as u64,
    }
}

/// How many bytes of blocks fit, if each byte is kept on `copies` nodes.
fn fitting(nodes: &[NodeSpace], copies: u64) -> u64 {
    let mut devices: BTreeMap<_, (u64, Vec<u64>)> = BTreeMap::new();
    for node in nodes {
        let (free, of_nodes) = devices.entry(node.device).or_insert((u64::MAX, Vec::new()));
        *free = (*free).min(node.device_free_bytes);
        of_nodes.push(node.free_bytes);
    }
    // A node takes at most one copy of each byte: with `x` bytes in all, no more than `x`.
    let room = |x: u64| {
        devices.values().fold(0u64, |sum, (free, of_nodes)| {
            let of_nodes = of_nodes.iter().fold(0u64, |sum, free| sum.saturating_add(x.min(*free)));
            sum.saturating_add(of_nodes.min(*free))
        })
    };
    // The more is to fit, the less of it has room: halve the doubt until it is gone.
    let (mut fits, mut too_much) = (0, u64::MAX / copies);
    while fits + 1 < too_much {
        let x = fits + (too_much - fits) / 2;
        if room(x) >= x * copies { fits = x } else { too_much = x }
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::device::DeviceId;

    fn node(device: u8, device_free_bytes: u64, free_bytes: u64) -> NodeSpace {
        NodeSpace {
            used_bytes: 30,
            free_bytes,
            block_count: 3,
            device: DeviceId([device; 16]),
            device_free_bytes,
        }
    }

    #[test]
    fn three_nodes_on_one_disk_have_one_disk() {
        let usage = together(&[node(1, 90, 90), node(1, 90, 90), node(1, 90, 90)], 3);
        assert_eq!(usage, Usage { used_bytes: 30, total_bytes: 60, block_count: 3 });
    }

    #[test]
    fn a_node_that_is_nearly_full_stops_no_other_while_a_quorum_has_room() {
        let large = |device| node(device, FULL_BYTES * 10, FULL_BYTES * 10);
        let nearly_full = |device| node(device, FULL_BYTES - 1, FULL_BYTES - 1);
        let free = |nodes: &[NodeSpace]| {
            let Usage { total_bytes, used_bytes, .. } = together(nodes, 3);
            total_bytes - used_bytes
        };
        assert_eq!(free(&[large(1), large(2), nearly_full(3)]), FULL_BYTES * 10);
        assert_eq!(free(&[large(1), nearly_full(2), nearly_full(3)]), FULL_BYTES - 1);
        assert_eq!(free(&[large(1), large(2), large(3), nearly_full(4)]), FULL_BYTES * 10);
    }

    #[test]
    fn the_smallest_of_as_many_disks_as_copies_decides() {
        assert_eq!(fitting(&[node(1, 90, 90), node(2, 20, 20), node(3, 500, 500)], 3), 20);
        assert_eq!(fitting(&[node(1, 90, 90), node(2, 20, 20), node(3, 500, 500)], 1), 610);
    }

    #[test]
    fn more_disks_than_copies_share_the_blocks() {
        let equal: Vec<_> = (0..6).map(|n| node(n, 100, 100)).collect();
        assert_eq!(fitting(&equal, 3), 200);
        let one_large = [node(1, 1000, 1000), node(2, 100, 100), node(3, 100, 100), node(4, 100, 100)];
        assert_eq!(fitting(&one_large, 3), 150, "the large one takes one copy of each byte, no more");
    }

    #[test]
    fn capacities_count_beside_disks() {
        assert_eq!(fitting(&[node(1, 1000, 50), node(1, 1000, 70), node(2, 1000, 60)], 3), 50);
        assert_eq!(fitting(&[node(1, u64::MAX, u64::MAX)], 1), u64::MAX - 1);
        assert_eq!(fitting(&[], 1), 0);
    }
}
