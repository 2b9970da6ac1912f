//! Where writers of a register take turns: which of the values there are kept beside the last of a slot. Pure.
//!
//! An attack comes from some key, and what is wanted back is what was there right before, of another. So where another writer's value
//! follows, that before it and that after it are kept, both: whoever has a state back knows which of his own were stored before a
//! stranger's, and which by a program of his that went on from what the stranger had done.
//!
//! - Of each writer his first turn in a slot: nobody else can use that up. A mount takes one as it enters, so it says little of
//!   an attack.
//! - Of the turns that others take after the register's *owner*: [`QUICK_MAX`] of a slot wherever they are, and then the first of each
//!   *part* of it, an eighth. Earlier ones win, so whoever goes on taking turns takes none away that is kept, and what the owner stored
//!   is kept but for the part before he is interrupted for the ninth time.
//!
//! Parts and slots lie where the clock says and not from the last turn on, so that nodes keep the same: what one alone has moves to
//! no other.

use reactor::crypto::PublicKey;
use serde::{Deserialize, Serialize};

use crate::block::mutable::SignedRecord;

/// So many of a slot are kept wherever they are: a mount answers what others commit, and takes three turns before its user has done
/// more than look and remove two files.
pub(super) const QUICK_MAX: u8 = 8;

/// Into how many parts a slot is cut: of one of ten minutes each has 75 seconds.
pub(super) const PARTS: u64 = 8;

/// Of how many writers the first turn in a slot is kept; there are no more to tell apart.
pub(super) const WRITERS_MAX: usize = 5;

/// Of one slot, how many turns are kept at most, and how many values: the last one beside two for each.
const TURNS_MAX: usize = QUICK_MAX as usize + PARTS as usize + 1 + WRITERS_MAX;
pub(super) const IN_SLOT_MAX: usize = 2 * TURNS_MAX + 1;

/// A value that follows another's is kept for that if it has no more bytes, or is the first of its writer in the slot: a root has some
/// two thousand, and whoever pads his makes nodes keep little of it.
const SMALL_BYTES_MAX: usize = 8 << 10;

/// What decides which turns are kept: of the slot in which a register's value was accepted.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Turns {
    /// When it began.
    slot_seconds: u64,
    /// Who wrote in it, as far as that is told apart.
    writers: Vec<PublicKey>,
    /// How many turns after the owner's are kept of it.
    count: u8,
    /// In which part the last of these was.
    last_part: u64,
    /// Whether the value is to be kept, as the first after another's.
    pub(super) is_first: bool,
}

impl Turns {
    /// Notes that `next` takes the place of `before` at `now`, and says whether `before` is to be kept for that.
    pub(super) fn take(
        &mut self,
        before: &SignedRecord,
        next: &SignedRecord,
        owner: &PublicKey,
        now_seconds: u64,
        slot_length: u64,
    ) -> bool {
        let slot_seconds = now_seconds - now_seconds % slot_length;
        if self.slot_seconds != slot_seconds {
            *self = Turns { slot_seconds, is_first: self.is_first, ..Turns::default() };
        }
        let was_first = std::mem::take(&mut self.is_first);
        let (from, to) = (before.header.writer, next.header.writer);
        let is_new = !self.writers.contains(&to) && self.writers.len() < WRITERS_MAX;
        if is_new {
            self.writers.push(to);
        }
        if from == to {
            return was_first;
        }
        let part = now_seconds / slot_length.div_ceil(PARTS);
        let is_in_time = self.count < QUICK_MAX || part != self.last_part;
        let is_owners = from == *owner && is_in_time;
        if is_owners {
            (self.count, self.last_part) = (self.count.saturating_add(1), part);
        }
        self.is_first = is_new || (is_owners && next.payload.len() <= SMALL_BYTES_MAX);
        was_first || is_new || is_owners
    }
}

#[cfg(test)]
mod tests {
    use reactor::crypto::Identity;

    use super::*;
    use crate::block_store::RegisterAddress;

    /// Short slots had up to fifteen parts, so more was kept than was to be.
    #[test]
    fn of_a_slot_of_any_length_no_more_is_kept_than_is_to_be_whatever_writers_do() {
        let writers: Vec<Identity> =
            (1..=WRITERS_MAX as u8 + 1).map(|number| Identity::from_seed(&[number; 32])).collect();
        let sign = |writer: &Identity| {
            let register = RegisterAddress([1; 32]);
            SignedRecord::sign(writer, register, None, None, bytes::Bytes::new())
        };
        let records: Vec<SignedRecord> = writers.iter().map(sign).collect();
        let owner = writers[0].public_key();
        for slot_length in (1..200).chain([600, 2572, 7715]) {
            let begin = 1000 * slot_length;
            // All others enter, and then one takes turns with the owner: at once, and in each second.
            let entering = (1..records.len()).map(|index| (begin, index));
            let quick = (0..2 * QUICK_MAX as usize).map(|turn| (begin, turn % 2));
            let on = (begin..begin + slot_length).flat_map(|now| [(now, 0), (now, 1)]);
            let (mut turns, mut kept, mut before) = (Turns::default(), 0, 1);
            for (now, writer) in entering.chain(quick).chain(on) {
                kept += usize::from(turns.take(&records[before], &records[writer], &owner, now, slot_length));
                before = writer;
            }
            assert!(kept < IN_SLOT_MAX, "{kept} of {slot_length} s, beside the last");
        }
    }
}
