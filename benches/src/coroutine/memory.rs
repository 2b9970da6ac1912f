//! What a parked coroutine keeps resident.
//!
//! Read from /proc/self before and with all of them parked: their stacks' touched pages, the heap beside them, and
//! the kernel's page tables, which a stack of its own address range needs too. Not counted: the kernel's own
//! description of each mapping, some 200 bytes that no file of /proc attributes to a process.

use super::with_parked;
use std::fs;

/// Returns the resident bytes per coroutine with `count` of them parked.
///
/// Only the first measurement of a process means something: later ones find memory that was used before.
///
/// # Panics
/// Panics where /proc/self/smaps_rollup and /proc/self/status cannot be read.
pub fn bytes_per_parked(count: u64) -> f64 {
    // So that what the first coroutine of a process costs once is not counted.
    with_parked(1, || ());
    let before = resident_bytes();
    let with = with_parked(count, resident_bytes);
    with.saturating_sub(before) as f64 / count as f64
}

/// Returns the resident memory of this process and its page tables.
fn resident_bytes() -> u64 {
    field_bytes("/proc/self/smaps_rollup", "Rss:") + field_bytes("/proc/self/status", "VmPTE:")
}

fn field_bytes(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel knows this field");
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number of kB");
    kibibytes * 1024
}
