//! How much a network can still take, from what its nodes say of theirs. Pure.
//!
//! A disk that several nodes share is counted once. A block takes its size on as many nodes as there are copies, each on
//! another: so what fits is not the sum of all that is free, divided by the copies, if one node has more than the
//! others could match.

use std::collections::BTreeMap;

use crate::block_store::Usage;
use crate::message::NodeSpace;

/// What the nodes have together, one copy of each block counted.
pub(crate) fn together(nodes: &[NodeSpace], copies: usize) -> Usage {
    let copies = copies.clamp(1, nodes.len().max(1)) as u64;
    let sum = |field: fn(&NodeSpace) -> u64| nodes.iter().map(field).fold(0, u64::saturating_add);
    let used_bytes = sum(|node| node.used_bytes) / copies;
    let free_bytes = fitting(nodes, copies);
    Usage {
        used_bytes,
        total_bytes: used_bytes.saturating_add(free_bytes),
        block_count: sum(|node| node.block_count) / copies,
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
