//! What a process holds: descriptors, memory, mappings, coroutines; and whether it holds more than it did.

use std::fmt;
use std::fs;
use std::io;

/// What the process held at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Open descriptors.
    pub descriptors: usize,
    /// Memory mappings: stacks have two each.
    pub mappings: usize,
    /// Resident memory.
    pub resident_kib: u64,
    /// Coroutines, the reactor's own included.
    pub coroutines: usize,
}

impl Sample {
    /// Takes a sample of this process, of which `coroutines` is known.
    ///
    /// # Errors
    /// Fails where /proc is not as Linux has it.
    pub fn take(coroutines: usize) -> io::Result<Self> {
        // The listing itself needs one, and so it does each time.
        let descriptors = fs::read_dir("/proc/self/fd")?.count();
        let mappings = fs::read_to_string("/proc/self/maps")?.lines().count();
        let status = fs::read_to_string("/proc/self/status")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).map(str::trim);
        let resident_kib = resident.and_then(|text| text.trim_end_matches(" kB").parse().ok());
        let resident_kib = resident_kib.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { descriptors, mappings, resident_kib, coroutines })
    }

    /// Returns what this sample, taken when all was quiet, has too much of beside `before`, taken likewise.
    ///
    /// Descriptors and coroutines must be the same to the last one. Memory and mappings may have grown by what the
    /// allocator and the pool of stacks keep for the next time, which depends on chance: a tenth and a little more.
    pub fn leaks_since(&self, before: &Sample) -> Vec<String> {
        let mut leaks = Vec::new();
        let mut check = |what: &str, now: f64, limit: f64| {
            if now > limit {
                leaks.push(format!("{what}: {now} where {limit:.0} is the most"));
            }
        };
        check("descriptors", self.descriptors as f64, before.descriptors as f64);
        check("coroutines", self.coroutines as f64, before.coroutines as f64);
        check("mappings", self.mappings as f64, before.mappings as f64 * 1.1 + 64.0);
        check("resident KiB", self.resident_kib as f64, before.resident_kib as f64 * 1.1 + 4096.0);
        leaks
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:>11} {:>10} {:>8} {:>9}",
            self.descriptors, self.coroutines, self.mappings, self.resident_kib
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_descriptor_too_many_is_a_leak() {
        let before = Sample::take(0).unwrap();
        let _held = fs::File::open("/dev/null").unwrap();
        let after = Sample { descriptors: before.descriptors + 1, ..before };
        assert_eq!(after.leaks_since(&before).len(), 1);
        assert!(before.leaks_since(&before).is_empty());
    }

    #[test]
    fn a_sample_sees_what_the_process_holds() {
        let before = Sample::take(0).unwrap();
        let held: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        // Other tests open and close theirs meanwhile, a few.
        assert!(Sample::take(0).unwrap().descriptors >= before.descriptors + 50);
        drop(held);
    }
}
