//! What `status` says of a drive whose nodes are away: what of it waits on this machine, and how safe that is.
//!
//! The drive tells it every two seconds, in a file of its own; nothing is asked of its process.

use std::fmt;

use filesystem::Pending;
use serde::{Deserialize, Serialize};

use crate::progress::{files_in_words, human_bytes};

/// A drive that is offline says so every two seconds; a loaded machine takes longer.
const AGE_MAX_S: u64 = 20;

/// A drive whose nodes do not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offline {
    /// For how long, when this was written.
    for_s: u64,
    /// What was written and is on this machine alone.
    waiting_bytes: u64,
    waiting_files: u64,
    /// How much of that is in memory only, and not in the journal either.
    memory_bytes: u64,
    memory_files: u64,
    /// When this was written, in seconds since 1970.
    told_s: u64,
}

impl Offline {
    /// As it is now, after `for_s` seconds.
    pub(super) fn new(for_s: u64, pending: Pending, told_s: u64) -> Offline {
        Offline {
            for_s,
            waiting_bytes: pending.bytes,
            waiting_files: pending.file_count,
            memory_bytes: pending.memory_bytes,
            memory_files: pending.memory_file_count,
            told_s,
        }
    }

    /// Whether it was told a moment ago, by a drive that runs.
    pub(super) fn is_of_now(&self, now_s: u64) -> bool {
        now_s.saturating_sub(self.told_s) < AGE_MAX_S
    }
}

impl fmt::Display for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amount = |bytes, files| format!("{} of {}", human_bytes(bytes), files_in_words(files));
        write!(f, "drive offline for {} s; ", self.for_s)?;
        if self.waiting_bytes == 0 {
            return write!(f, "nothing waits to be stored");
        }
        let waiting = amount(self.waiting_bytes, self.waiting_files);
        match self.memory_bytes {
            0 => write!(f, "{waiting} wait in the journal on this machine"),
            memory => {
                let memory = amount(memory, self.memory_files);
                write!(
                    f,
                    "{waiting} wait on this machine: {memory} in memory only, lost if it is killed; the rest in the journal"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_only_is_not_said_to_be_in_the_journal() {
        let mut pending = Pending::default();
        let said = |pending: Pending| Offline::new(7, pending, 0).to_string();
        assert_eq!(said(pending), "drive offline for 7 s; nothing waits to be stored");
        (pending.bytes, pending.file_count) = (2048, 2);
        let journaled =
            "drive offline for 7 s; 2.0 KiB of 2 files and directories wait in the journal on this machine";
        assert_eq!(said(pending), journaled);
        (pending.memory_bytes, pending.memory_file_count) = (512, 1);
        let said = said(pending);
        assert!(
            said.contains("512 B of 1 file in memory only") && !said.contains("wait in the journal"),
            "{said}"
        );
    }
}
