//! The owner's word about a block: that it may go, or that it is to stay after all.
//!
//! A block carries its owner's tag, which is the hash of the owner's key and a salt. So whoever shows the two proves
//! which key may speak about it, to a node that knows nothing but the block. The owner may let others speak, by a
//! [`DeletionGrant`]; but only the owner takes a deletion back.
//!
//! One statement for one block: a node keeps it as the block's *tombstone*, and it has to prove itself to any other node
//! that was away. It is signed once and checked once a node, some 60 us each.
//!
//! A statement says how old a copy must be for it to *cover* that one. What was put later, be it the same bytes again, is a
//! block that somebody relies on, and stays.
//!
//! Not here: what a node does by it ([`crate::node`]), and what may be deleted, which only the owner knows.

use reactor::crypto::{Identity, PublicKey};
use reactor::serialization::Versioned;
use serde::{Deserialize, Serialize};

use super::mutable::Invalid;
use super::signed::Signed;
use crate::address::{Address, OwnerTag, owner_tag};

/// The longest time that a node may be told to keep a deleted block: 90 days.
pub const RETENTION_SECONDS_MAX: u32 = 90 * 24 * 3600;

/// A copy that is no older than this when it is put again is not written again: its time stands for one that may be so
/// much later, and a deletion allows for that.
pub const FRESH_SECONDS: u64 = 10;

/// The longest statement, and the longest grant, in bytes: four times as long as they are, so that later versions may add to
/// them, and short enough that a message carries [`WORDS_MAX`](crate::message::WORDS_MAX).
const ENCODED_BYTES_MAX: usize = 1024;

/// How long a statement means anything: what a node knows of deletions it may forget then. A node that was away for
/// longer brings back blocks that nobody needs, for the owner to delete again.
pub const LIFETIME_SECONDS: u64 = 180 * 24 * 3600;

/// Whom the owner lets delete the blocks of one tag.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeletionGrant {
    /// Who signs this; with the salt, whose blocks.
    pub owner: PublicKey,
    /// The tag's salt.
    #[serde(with = "serde_bytes")]
    pub salt: [u8; 32],
    /// Who may delete.
    pub writer: PublicKey,
    /// Until when, in seconds since 1970, by the clock of whichever node hears it from the writer. A node that hears it from
    /// another node goes by when the writer says to have spoken.
    pub until_seconds: u64,
    /// For how long deleted blocks are kept at least, in seconds: what a stolen writer's key deletes, the owner takes
    /// back within that time. Their copies are not repaired meanwhile.
    pub retention_seconds_min: u32,
}

impl Versioned for DeletionGrant {
    const TYPE_NAME: &'static str = "hypha deletion grant";
    const VERSION: u32 = 1;
}

/// What is to become of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Verdict {
    /// It goes.
    Delete {
        /// Only a copy that was put before this, in seconds since 1970 by the clock of the node that has it.
        put_before_seconds: u64,
        /// For how long its bytes are kept all the same.
        retention_seconds: u32,
    },
    /// It stays, whatever was said before.
    Keep,
}

impl Verdict {
    /// Whether a copy that was put then is to go.
    pub fn covers(&self, put_seconds: u64) -> bool {
        match self {
            Verdict::Delete { put_before_seconds, .. } => {
                put_seconds.saturating_add(FRESH_SECONDS) < *put_before_seconds
            }
            Verdict::Keep => false,
        }
    }
}

/// See the [module](self).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Deletion {
    /// The block.
    pub address: Address,
    /// With the salt, the block's tag.
    pub owner: PublicKey,
    /// The tag's salt.
    #[serde(with = "serde_bytes")]
    pub salt: [u8; 32],
    /// Who signs this: the owner, or a writer with a grant.
    pub signer: PublicKey,
    /// When it was said, in milliseconds since 1970. Of two statements about a block the later one holds.
    pub said_ms: u64,
    /// What is said.
    pub verdict: Verdict,
}

impl Versioned for Deletion {
    const TYPE_NAME: &'static str = "hypha deletion";
    const VERSION: u32 = 1;
}

/// A statement with all that proves it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnersWord {
    /// What is said.
    pub deletion: Signed<Deletion>,
    /// Why its signer may say so, unless that is the owner.
    pub grant: Option<Signed<DeletionGrant>>,
}

impl OwnersWord {
    /// The tag of the block that it is about.
    pub fn tag(&self) -> OwnerTag {
        owner_tag(&self.deletion.owner, &self.deletion.salt)
    }

    /// Checks everything that can be checked without the block and without a clock.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn verify(&self) -> Result<(), Invalid> {
        let deletion = &self.deletion;
        let grant_bytes = self.grant.as_ref().map_or(0, |grant| grant.encoded().len());
        if deletion.encoded().len().max(grant_bytes) > ENCODED_BYTES_MAX {
            return Err(Invalid::TooLong);
        }
        let retention = match deletion.verdict {
            // What nobody could have put yet, nobody can mean.
            Verdict::Delete { put_before_seconds, .. } if put_before_seconds > deletion.said_ms / 1000 => {
                return Err(Invalid::Time);
            }
            Verdict::Delete { retention_seconds, .. } => retention_seconds,
            Verdict::Keep => 0,
        };
        if retention > RETENTION_SECONDS_MAX {
            return Err(Invalid::Retention);
        }
        if deletion.signer == deletion.owner {
            if self.grant.is_some() {
                return Err(Invalid::NotGranted);
            }
        } else {
            let grant = self.grant.as_ref().ok_or(Invalid::NotGranted)?;
            let is_for_this = grant.owner == deletion.owner
                && grant.salt == deletion.salt
                && grant.writer == deletion.signer
                && deletion.said_ms / 1000 <= grant.until_seconds;
            if !is_for_this || deletion.verdict == Verdict::Keep {
                return Err(Invalid::NotGranted);
            }
            if retention < grant.retention_seconds_min {
                return Err(Invalid::Retention);
            }
            grant.verify_by(&grant.owner)?;
        }
        deletion.verify_by(&deletion.signer)
    }
}

/// Whoever may speak about the blocks of one tag.
#[derive(Debug)]
pub struct Speaker<'a> {
    /// Who signs.
    pub identity: &'a Identity,
    /// Whose blocks.
    pub owner: PublicKey,
    /// The tag's salt.
    pub salt: [u8; 32],
    /// Why the identity may, unless it is the owner.
    pub grant: Option<Signed<DeletionGrant>>,
}

impl Speaker<'_> {
    /// Says what is to become of the block `address`.
    pub fn say(&self, address: Address, said_ms: u64, verdict: Verdict) -> OwnersWord {
        let signer = self.identity.public_key();
        let (owner, salt) = (self.owner, self.salt);
        let deletion =
            Signed::sign(self.identity, Deletion { address, owner, salt, signer, said_ms, verdict });
        OwnersWord { deletion, grant: self.grant.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELETE: Verdict = Verdict::Delete { put_before_seconds: 0, retention_seconds: 60 };

    fn identity(number: u8) -> Identity {
        Identity::from_seed(&[number; 32])
    }

    fn grant(owner: &Identity, writer: &Identity) -> Signed<DeletionGrant> {
        let (salt, writer) = ([7; 32], writer.public_key());
        let content = DeletionGrant {
            owner: owner.public_key(),
            salt,
            writer,
            until_seconds: 2000,
            retention_seconds_min: 60,
        };
        Signed::sign(owner, content)
    }

    fn say(
        identity: &Identity,
        grant: Option<Signed<DeletionGrant>>,
        said_ms: u64,
        verdict: Verdict,
    ) -> OwnersWord {
        let owner = self::identity(1).public_key();
        Speaker { identity, owner, salt: [7; 32], grant }.say(Address([9; 32]), said_ms, verdict)
    }

    #[test]
    fn the_owner_deletes_and_takes_it_back() {
        let owner = identity(1);
        for verdict in [DELETE, Verdict::Keep] {
            let word = say(&owner, None, 5, verdict);
            assert_eq!(word.verify(), Ok(()));
            assert_eq!(word.tag(), owner_tag(&owner.public_key(), &[7; 32]));
        }
    }

    #[test]
    fn a_stranger_and_a_writer_without_a_grant_are_refused() {
        let (owner, writer, stranger) = (identity(1), identity(2), identity(3));
        assert_eq!(say(&writer, None, 5, DELETE).verify(), Err(Invalid::NotGranted));
        assert_eq!(
            say(&stranger, Some(grant(&owner, &writer)), 5, DELETE).verify(),
            Err(Invalid::NotGranted)
        );
        let forged = Signed::sign(&stranger, (*grant(&owner, &stranger)).clone());
        assert_eq!(say(&stranger, Some(forged), 5, DELETE).verify(), Err(Invalid::Signature));
        let mut claims = (*say(&stranger, None, 5, DELETE).deletion).clone();
        claims.signer = owner.public_key();
        let word = OwnersWord { deletion: Signed::sign(&stranger, claims), grant: None };
        assert_eq!(word.verify(), Err(Invalid::Signature));
    }

    #[test]
    fn what_nobody_can_have_put_yet_is_not_covered_and_a_moments_doubt_is_allowed_for() {
        let delete = |put_before_seconds| Verdict::Delete { put_before_seconds, retention_seconds: 0 };
        assert_eq!(say(&identity(1), None, 999_999, delete(1000)).verify(), Err(Invalid::Time));
        let word = say(&identity(1), None, 1_000_000, delete(1000));
        assert_eq!(word.verify(), Ok(()));
        assert!(delete(1000).covers(1000 - FRESH_SECONDS - 1) && !delete(1000).covers(1000 - FRESH_SECONDS));
    }

    #[test]
    fn what_is_padded_is_refused() {
        #[derive(Serialize, Deserialize)]
        struct Padded {
            address: Address,
            owner: PublicKey,
            #[serde(with = "serde_bytes")]
            salt: [u8; 32],
            signer: PublicKey,
            said_ms: u64,
            verdict: Verdict,
            more: Vec<u8>,
        }
        impl Versioned for Padded {
            const TYPE_NAME: &'static str = "hypha deletion";
            const VERSION: u32 = 1;
        }
        let owner = identity(1);
        let key = owner.public_key();
        for (size, verified) in [(100, Ok(())), (2000, Err(Invalid::TooLong))] {
            let padded = Padded {
                address: Address([9; 32]),
                owner: key,
                salt: [7; 32],
                signer: key,
                said_ms: 5,
                verdict: Verdict::Keep,
                more: vec![0; size],
            };
            let bytes = Signed::sign(&owner, padded).to_bytes();
            let deletion = Signed::from_bytes(&bytes).unwrap();
            assert_eq!(OwnersWord { deletion, grant: None }.verify(), verified);
        }
        let needless =
            OwnersWord { grant: Some(grant(&owner, &owner)), ..say(&owner, None, 5, Verdict::Keep) };
        assert_eq!(needless.verify(), Err(Invalid::NotGranted));
    }

    #[test]
    fn a_granted_writer_deletes_until_the_grant_ends_and_never_takes_back() {
        let (owner, writer) = (identity(1), identity(2));
        let grant = grant(&owner, &writer);
        let verify = |said_ms, verdict| say(&writer, Some(grant.clone()), said_ms, verdict).verify();
        assert_eq!(verify(2_000_999, DELETE), Ok(()));
        assert_eq!(verify(2_001_000, DELETE), Err(Invalid::NotGranted));
        assert_eq!(verify(5, Verdict::Keep), Err(Invalid::NotGranted));
        let hasty = Verdict::Delete { put_before_seconds: 0, retention_seconds: 59 };
        assert_eq!(verify(5, hasty), Err(Invalid::Retention));
    }
}
