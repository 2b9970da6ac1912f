//! What can be done with a space that one of its writers has sealed to others than its owner: it is given up, at the price of what
//! is in it. Whoever has the key reads it as long as nothing is done, and may copy it out: so only who asks for it has it done.
//!
//! The price is that a root says for which value of the register it was made, and opens as no other. The owner can't make one anew,
//! since he can't open it, and the register's writers change with a value only. **All of them are taken off**: one who stayed could
//! put the root that there was before under its next number, and nothing is lost by taking him off as well.

use dht::block::mutable::{Genesis, Signed};
use dht::{BlockStore, SwapError};
use filesystem::access::{RootError, VolumeKeys, open_root};

use super::{Turn, keys};
use crate::errors::Failure;
use crate::roll::Roll;
use crate::sharing::Sharer;

/// How often a writer may be faster: a mount of his writes once a second.
const TRIES: usize = 64;

/// Why nothing can be changed in a space whose root does not open here.
pub(crate) fn sealed(error: &RootError) -> Failure {
    match error {
        RootError::NotAReader => Failure::Space {
            reason: "one of its writers has sealed it to others than its owner".into(),
            advice: "have whoever reads it copy out what is in it; `unshare --give-up` then takes all its writers off, and nobody opens \
                     what is in it any more",
        },
        other => Failure::Space {
            reason: format!(
                "what one of its writers has put into the place of its root does not open here: {other}"
            ),
            advice: "if a newer version of this program wrote it, use that; if not, have whoever reads it copy out what is in it: \
                     `unshare --give-up` then takes all its writers off, and nobody opens what is in it any more",
        },
    }
}

/// Gives a space up: the nodes take nothing more of anybody for it, and nobody opens what is in it.
///
/// # Errors
/// `Failure::Sharing`, or those of the home's files.
///
/// # Suspends
/// Until the register says so.
pub(crate) fn strike_off(sharer: &Sharer<'_>, _: &Turn, genesis: &Signed<Genesis>) -> Result<(), Failure> {
    let failed = |reason: String| Failure::Sharing { reason };
    let VolumeKeys { register, secret, .. } = keys(sharer, genesis)?;
    for _ in 0..TRIES {
        let record = sharer.store.read(&register).map_err(|error| failed(error.to_string()))?;
        let record = record.ok_or_else(|| failed("the nodes have nothing of the space".into()))?;
        if open_root(&record.payload, record.version, &secret).is_ok() {
            return Err(failed("it opens here again, and is not given up: say it without --give-up".into()));
        }
        let expected = Some(record.header_hash);
        match sharer.store.swap_with_writers(&register, expected, &record.payload, &|writers| writers.clear())
        {
            // If this is cut short here, the register says it.
            Ok(_) => {
                return Roll::change(sharer.home, |roll| {
                    roll.given_up(genesis);
                    Ok(())
                });
            }
            Err(SwapError::Lost(_)) => {}
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    Err(failed("its writers were faster each time: try again".into()))
}
