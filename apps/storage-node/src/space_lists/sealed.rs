//! What can be done with a space that one of its writers has sealed to others than its owner: its writers are taken off, at the
//! price of what is in it. Whoever has the key reads it as long as nothing is done, and may copy it out: so only who asks for it
//! has it done.
//!
//! The price is that a root says for which value of the register it was made, and opens as no other. The owner can't make one anew,
//! since he can't open it, and the register's writers change with a value only.

use dht::BlockStore;
use dht::block::mutable::{Genesis, Signed};
use overlay::Revocations;
use reactor::crypto::PublicKey;

use super::{Turn, access_of, keys, read_roll};
use crate::errors::Failure;
use crate::roll::Allowed;
use crate::sharing::Sharer;
use filesystem::access::list::Access;

/// Has the nodes take nothing more of those who write to such a space and are not to by the roll. Says whether there was anybody:
/// nobody opens it any more then. Nobody is let in by it, however old this copy of the home is.
///
/// # Errors
/// `Failure::Sharing`, or those of the home's files.
///
/// # Suspends
/// Until the register says so.
pub(crate) fn strike_off(
    sharer: &Sharer<'_>,
    _: &Turn,
    genesis: &Signed<Genesis>,
    revoked: &Revocations,
) -> Result<bool, Failure> {
    let failed = |reason: String| Failure::Sharing { reason };
    let (roll, kept) = read_roll(sharer)?;
    let (register, bytes) = (keys(sharer, genesis)?.register, genesis.to_bytes());
    let entry = roll.spaces.iter().find(|space| space.genesis.0 == bytes);
    let entry = entry.ok_or_else(|| failed("the roll of this home does not have the space".into()))?;
    let record = sharer.store.read(&register).map_err(|error| failed(error.to_string()))?;
    let record = record.ok_or_else(|| failed("the nodes have nothing of the space".into()))?;
    let writers = sharer.store.writers(&register).map_err(|error| failed(error.to_string()))?;
    let is_revoked = |key: &PublicKey| kept.contains(key) || revoked.contains(key);
    if those_who_stay(&writers, &entry.people, is_revoked) == writers {
        return Ok(false);
    }
    let write = |writers: &mut Vec<PublicKey>| *writers = those_who_stay(writers, &entry.people, is_revoked);
    let expected = Some(record.header_hash);
    let swapped = sharer.store.swap_with_writers(&register, expected, &record.payload, &write);
    swapped.map(|_| true).map_err(|error| failed(error.to_string()))
}

/// Those of a register's writers who may write by the roll.
fn those_who_stay(
    writers: &[PublicKey],
    people: &[Allowed],
    is_revoked: impl Fn(&PublicKey) -> bool,
) -> Vec<PublicKey> {
    let stays = |key: &&PublicKey| access_of(people, key) == Access::Write && !is_revoked(key);
    writers.iter().filter(stays).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{key, people};
    use super::*;

    #[test]
    fn taking_writers_off_lets_nobody_in() {
        let writers = [key(2), key(3), key(4)];
        let by = people(&[(2, true), (3, false), (4, true), (5, true)]);
        assert_eq!(those_who_stay(&writers, &by, |key_| *key_ == key(4)), [key(2)]);
        assert_eq!(
            those_who_stay(&writers[..1], &by, |_| false),
            writers[..1],
            "there is nobody to take off"
        );
    }
}
