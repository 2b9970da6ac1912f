//! What can be done with a space that one of its writers has sealed to others than its owner, if nodes keep nothing of what it was
//! before (`rollback`): it is given up, at the price of what is in it. Whoever has the key reads it as long as nothing is done, and may copy it out: so only who asks for it has it done.
//!
//! The price is that the register's writers change with a value only, and the owner can't make a root anew that he can't open. What he
//! puts in its place is a word of his own and no root: a writer may have made the one that is there so that it opens under the next
//! number. **All of them are taken off**: one who stayed could put the former root back, and nothing is lost by taking him off as well.

use bytes::Bytes;
use dht::block::mutable::{Genesis, Signed};
use dht::{BlockStore, Record, SwapError};
use filesystem::access::{GIVEN_UP, Root, RootError, VolumeKeys, open_root};
use reactor::crypto::PublicKey;

use super::{Turn, keys};
use crate::errors::Failure;
use crate::roll::Roll;
use crate::sharing::Sharer;

/// Whether what stands there may go: its keys, the value, and the root if it opens.
type May<'a> = &'a dyn Fn(&VolumeKeys, &Record, Option<&Root>) -> Result<(), Failure>;

/// How often a writer may be faster: a mount of his writes once a second.
const TRIES: usize = 64;

/// Why nothing can be changed in a space whose root does not open here.
pub(crate) fn sealed(error: &RootError) -> Failure {
    match error {
        RootError::NotAReader => Failure::Space {
            reason: "one of its writers has sealed it to others than its owner".into(),
            advice: "`unshare DIR --from WHO` notes who is to be off it; `past DIR` lists what it was before, and `rollback DIR` has it be that \
                     again, without them; `unshare --give-up` takes all its writers off, and nobody opens what is in it any more",
        },
        other => Failure::Space {
            reason: format!(
                "what one of its writers has put into the place of its root does not open here: {other}"
            ),
            advice: "if a newer version of this program wrote it, use that; if not, `unshare DIR --from WHO` notes who is to be off it, `past \
                     DIR` lists what it was before, and `rollback DIR` has it be that again, without them; `unshare --give-up` takes all its writers off, and nobody opens what is in it any more",
        },
    }
}

/// Whether it is the owner's word that the space was given up.
pub(super) fn says_given_up(record: &Record, owner: &PublicKey) -> bool {
    record.writer == *owner && record.payload == GIVEN_UP
}

/// Gives a space up: the nodes take nothing more of anybody for it, and nobody opens what is in it. `may` is shown what stands in its
/// place now, with the root if it opens, and nothing is done if it fails.
///
/// # Errors
/// `Failure::Sharing`, that of `may`, or those of the home's files.
///
/// # Suspends
/// Until the register says so.
pub(crate) fn strike_off(
    sharer: &Sharer<'_>,
    _: &Turn,
    genesis: &Signed<Genesis>,
    may: May<'_>,
) -> Result<(), Failure> {
    let failed = |reason: String| Failure::Sharing { reason };
    let keys = keys(sharer, genesis)?;
    for _ in 0..TRIES {
        let record = sharer.store.read(&keys.register).map_err(|error| failed(error.to_string()))?;
        let record = record.ok_or_else(|| failed("the nodes have nothing of the space".into()))?;
        let root = open_root(&record.payload, record.version, &keys.secret).ok();
        may(&keys, &record, root.as_ref())?;
        let expected = Some(record.header_hash);
        let payload = Bytes::from_static(GIVEN_UP);
        match sharer.store.swap_with_writers(&keys.register, expected, &payload, &|writers| writers.clear()) {
            // If this is cut short here, the register says it.
            Ok(_) => {
                return Roll::change(sharer.home, |roll| {
                    roll.given_up(genesis, true);
                    Ok(())
                });
            }
            Err(SwapError::Lost(_)) => {}
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    Err(failed("its writers were faster each time: try again".into()))
}

/// That only what does not open is given up so.
///
/// # Errors
/// `Failure::Sharing` if it does.
pub(crate) fn refuse_what_opens(root: Option<&Root>) -> Result<(), Failure> {
    match root {
        None => Ok(()),
        Some(_) => Err(Failure::Sharing {
            reason: "it opens here again, and is not given up: say it without --give-up".into(),
        }),
    }
}
