//! Passports: who may enter a closed network, and to do what.
//!
//! A network is named by its owner's public key. A passport is a chain of links, each saying "this key has these
//! rights until then": the first is signed by the owner, each further one by the holder of the link before it, who
//! must have been given the right to invite and can only pass on rights of its own. The holder of the last link is the
//! holder of the passport; a passport with no link at all is the owner's own.
//! Every link's signature covers the one before it, so links can't be rearranged into another chain.
//!
//! A passport is no secret: it is worth nothing without the holder's key, which the TLS handshake proves.
//! Who is a member no more stands in a list that the nodes give each other: see [`crate::revocation`].

use std::time::{Duration, SystemTime};

use reactor::crypto::{Identity, PublicKey, Signature, hash::sha3_256, random_bytes};
use reactor::serialization::{from_bytes, to_bytes};
use serde::{Deserialize, Serialize};

pub use crate::rights::Rights;

/// Most links in a chain: the owner, and three levels of delegates below. Bounds the signatures that a stranger can
/// make us verify before we know whether to talk to it.
pub const LINKS_MAX: usize = 4;

/// Most bytes of an encoded passport: four links of some 160 bytes each, with room to spare.
pub const PASSPORT_BYTES_MAX: usize = 1024;

/// Clocks of honest machines may differ by this much: a passport opens as long after its end, and before its beginning, by
/// the clock of whoever looks at it. An hour: what a wrong time zone or summer time costs a clock that is set by hand.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(3600);

/// One signed sentence: `holder` has `rights` from `not_before` until `expires`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Link {
    holder: PublicKey,
    rights: Rights,
    /// Random: tells two passports of one holder apart.
    serial: u64,
    /// Seconds since 1970; 0 for ever since.
    not_before: u64,
    /// Seconds since 1970; `u64::MAX` for never.
    expires: u64,
    signature: Signature,
}

/// Proof that a key belongs to a network, and what it may do there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Passport {
    network: PublicKey,
    links: Vec<Link>,
}

/// Why a passport opens nothing. Travels to the refused peer, so that its user learns what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PassportError {
    /// It is for another network.
    #[error(
        "the passport is for network {found}, but this is network {expected}: check which network you join"
    )]
    WrongNetwork {
        /// The network that was asked for.
        expected: PublicKey,
        /// The network that the passport names.
        found: PublicKey,
    },
    /// Its last link names another key.
    #[error(
        "the passport was issued to {found}, but the peer's key is {expected}: ask for one for your own key"
    )]
    WrongHolder {
        /// The key that the handshake proved.
        expected: PublicKey,
        /// The key that the passport names.
        found: PublicKey,
    },
    /// A signature does not verify.
    #[error(
        "a signature in the passport is wrong (link {link}): it was forged or damaged, ask for a new one"
    )]
    Forged {
        /// Which link, counted from the owner's.
        link: u32,
    },
    /// A link has expired.
    #[error(
        "the passport expired (link {link}), and no node that was asked has a newer one: it is renewed as soon as `up` or \
         `mount` runs with the home that gave it"
    )]
    Expired {
        /// Which link, counted from the owner's.
        link: u32,
    },
    /// A link is not valid yet.
    #[error("the passport is not valid yet (link {link}): check this machine's clock, and the peer's")]
    NotYetValid {
        /// Which link, counted from the owner's.
        link: u32,
    },
    /// The owner took it back.
    #[error("the passport was revoked (link {link}): its holder, or who invited him, is no member any more")]
    Revoked {
        /// Which link, counted from the owner's.
        link: u32,
    },
    /// A delegate passed on what it did not have.
    #[error(
        "a delegate gave rights that it does not have itself (link {link}): ask the owner for a passport"
    )]
    NotEntitled {
        /// Which link, counted from the owner's.
        link: u32,
    },
    /// Too many delegates.
    #[error("the passport has more than {LINKS_MAX} links: ask somebody nearer to the owner for one")]
    TooLong,
    /// It does not decode.
    #[error("this is not a passport: it is damaged, or of another version")]
    Malformed,
    /// The holder lacks a right that is needed.
    #[error("the passport gives the right to {has}, but {needed} is needed")]
    MissingRight {
        /// What it gives.
        has: Rights,
        /// What was asked for.
        needed: Rights,
    },
}

impl Passport {
    /// The passport of the owner of a network: it needs no signature, since the owner's key names the network.
    pub fn of_owner(owner: PublicKey) -> Passport {
        Passport { network: owner, links: Vec::new() }
    }

    /// A passport signed by the owner. `expires` of `None` means never.
    pub fn issue(
        owner: &Identity,
        holder: PublicKey,
        rights: Rights,
        expires: Option<SystemTime>,
    ) -> Passport {
        Passport::issue_from(owner, holder, rights, SystemTime::UNIX_EPOCH, expires)
    }

    /// As [`issue`](Passport::issue), for a passport that is worth nothing before `not_before`.
    pub fn issue_from(
        owner: &Identity,
        holder: PublicKey,
        rights: Rights,
        not_before: SystemTime,
        expires: Option<SystemTime>,
    ) -> Passport {
        let network = owner.public_key();
        let link = Link::sign(owner, chain_start(&network), holder, rights, (not_before, expires));
        Passport { network, links: vec![link] }
    }

    /// A passport for `holder`, signed by `delegate`, who holds this one.
    ///
    /// # Errors
    /// `WrongHolder` if `delegate` does not hold this passport; `NotEntitled` if it lacks the right to invite or one
    /// of `rights`; `TooLong` if the chain has its full length.
    pub fn delegate(
        &self,
        delegate: &Identity,
        holder: PublicKey,
        rights: Rights,
        expires: Option<SystemTime>,
    ) -> Result<Passport, PassportError> {
        if delegate.public_key() != self.holder() {
            return Err(PassportError::WrongHolder { expected: delegate.public_key(), found: self.holder() });
        }
        if self.links.len() >= LINKS_MAX {
            return Err(PassportError::TooLong);
        }
        if !self.rights().invite || !self.rights().include(rights) {
            return Err(PassportError::NotEntitled { link: self.links.len() as u32 });
        }
        let before = self.links.iter().fold(chain_start(&self.network), |before, link| link.digest(&before));
        let link = Link::sign(delegate, before, holder, rights, (SystemTime::UNIX_EPOCH, expires));
        let mut passport = self.clone();
        passport.links.push(link);
        Ok(passport)
    }

    /// The owner's key, which names the network.
    pub fn network(&self) -> PublicKey {
        self.network
    }

    /// Whom it was issued to.
    pub fn holder(&self) -> PublicKey {
        self.links.last().map_or(self.network, |link| link.holder)
    }

    /// The holder of each link, the owner's delegate first and the passport's own holder last.
    pub fn holders(&self) -> impl Iterator<Item = PublicKey> {
        self.links.iter().map(|link| link.holder)
    }

    /// What it says the holder may do; worth something only after [`verify`](Passport::verify).
    pub fn rights(&self) -> Rights {
        self.links.last().map_or(Rights::ALL, |link| link.rights)
    }

    /// When its first link expires; `None` for never. It opens for [`CLOCK_SKEW_MAX`] longer.
    pub fn expires(&self) -> Option<SystemTime> {
        let seconds = Some(self.expires_seconds()).filter(|&seconds| seconds != u64::MAX)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }

    /// When it stops opening anything, as `verify` sees it.
    pub fn opens_until(&self) -> Option<SystemTime> {
        self.expires()?.checked_add(CLOCK_SKEW_MAX)
    }

    /// When it was signed for: from then on it is good.
    pub fn not_before(&self) -> SystemTime {
        let seconds = self.links.iter().map(|link| link.not_before).max().unwrap_or_default();
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Whether it is good at `now` as far as its times go, as `verify` sees them.
    pub fn is_open(&self, now: SystemTime) -> bool {
        let earliest = now.checked_add(CLOCK_SKEW_MAX).unwrap_or(now);
        self.opens_until().is_none_or(|until| now < until) && self.not_before() <= earliest
    }

    fn expires_seconds(&self) -> u64 {
        self.links.iter().map(|link| link.expires).min().unwrap_or(u64::MAX)
    }

    /// Whether it is good for longer than `other`, which is of the same holder. Of two that end together, either way, but
    /// everybody agrees.
    pub fn is_newer_than(&self, other: &Passport) -> bool {
        let order = |passport: &Passport| (passport.expires_seconds(), passport.fingerprint());
        order(self) > order(other)
    }

    /// Whether the owner himself signed it, for somebody else.
    pub fn is_the_owners_word(&self) -> bool {
        self.links.len() == 1
    }

    /// What tells it from the holder's others: the serials of its links.
    pub(crate) fn fingerprint(&self) -> Vec<u8> {
        self.links.iter().flat_map(|link| link.serial.to_be_bytes()).collect()
    }

    /// What `holder`, whose key a handshake has proved, may do in `network` at `now`.
    ///
    /// # Errors
    /// Why this passport gives it nothing.
    pub fn verify(
        &self,
        network: &PublicKey,
        holder: &PublicKey,
        now: SystemTime,
    ) -> Result<Rights, PassportError> {
        if self.network != *network {
            return Err(PassportError::WrongNetwork { expected: *network, found: self.network });
        }
        if self.links.len() > LINKS_MAX {
            return Err(PassportError::TooLong);
        }
        if self.holder() != *holder {
            return Err(PassportError::WrongHolder { expected: *holder, found: self.holder() });
        }
        let latest = seconds_since_1970(now.checked_sub(CLOCK_SKEW_MAX).unwrap_or(SystemTime::UNIX_EPOCH));
        let earliest = seconds_since_1970(now.checked_add(CLOCK_SKEW_MAX).unwrap_or(now));
        let (mut issuer, mut rights, mut before) = (*network, Rights::ALL, chain_start(network));
        for (index, link) in self.links.iter().enumerate() {
            let index = index as u32;
            if !rights.invite || !rights.include(link.rights) {
                return Err(PassportError::NotEntitled { link: index });
            }
            let digest = link.digest(&before);
            if issuer.verify(&digest, &link.signature).is_err() {
                return Err(PassportError::Forged { link: index });
            }
            if link.expires <= latest {
                return Err(PassportError::Expired { link: index });
            }
            if link.not_before > earliest {
                return Err(PassportError::NotYetValid { link: index });
            }
            (issuer, rights, before) = (link.holder, link.rights, digest);
        }
        Ok(rights)
    }

    /// The passport as bytes, to be stored or sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_bytes(self)
    }

    /// Reads what [`to_bytes`](Passport::to_bytes) wrote. Verifies nothing.
    ///
    /// # Errors
    /// `Malformed` or `TooLong`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Passport, PassportError> {
        if bytes.len() > PASSPORT_BYTES_MAX {
            return Err(PassportError::TooLong);
        }
        from_bytes(bytes).map_err(|_| PassportError::Malformed)
    }
}

impl Link {
    fn sign(
        issuer: &Identity,
        before: [u8; 32],
        holder: PublicKey,
        rights: Rights,
        (not_before, expires): (SystemTime, Option<SystemTime>),
    ) -> Link {
        let not_before = seconds_since_1970(not_before);
        let expires = expires.map_or(u64::MAX, seconds_since_1970);
        let serial = u64::from_be_bytes(random_bytes());
        // The signature is not part of the digest, so any will do until the real one is known.
        let mut link = Link { holder, rights, serial, not_before, expires, signature: issuer.sign(&[]) };
        link.signature = issuer.sign(&link.digest(&before));
        link
    }

    /// What the signature covers: this link and, by the digest before it, the whole chain up to it.
    fn digest(&self, before: &[u8; 32]) -> [u8; 32] {
        sha3_256(&[
            b"hypha passport link 2",
            before,
            self.holder.as_bytes(),
            &[u8::from(self.rights)],
            &self.serial.to_be_bytes(),
            &self.not_before.to_be_bytes(),
            &self.expires.to_be_bytes(),
        ])
    }
}

/// Whole seconds, as signed statements count them; what is before 1970 is 0.
pub(crate) fn seconds_since_1970(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What stands for the link before the first: the network.
fn chain_start(network: &PublicKey) -> [u8; 32] {
    sha3_256(&[b"hypha passport 1", network.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const FOR_EVER: (SystemTime, Option<SystemTime>) = (SystemTime::UNIX_EPOCH, None);

    fn owner_and_holder() -> (Identity, Identity) {
        (Identity::generate(), Identity::generate())
    }

    #[test]
    fn the_owners_signature_opens_the_network_to_the_holder() {
        let (owner, holder) = owner_and_holder();
        let passport = Passport::issue(&owner, holder.public_key(), Rights::NODE, None);
        let read = Passport::from_bytes(&passport.to_bytes()).unwrap();
        let rights = read.verify(&owner.public_key(), &holder.public_key(), SystemTime::now());
        assert_eq!(rights, Ok(Rights::NODE));
    }

    #[test]
    fn the_owner_needs_no_signature() {
        let (owner, other) = owner_and_holder();
        let passport = Passport::of_owner(owner.public_key());
        let verify =
            |key: &Identity| passport.verify(&owner.public_key(), &key.public_key(), SystemTime::now());
        assert_eq!(verify(&owner), Ok(Rights::ALL));
        assert!(matches!(verify(&other), Err(PassportError::WrongHolder { .. })));
    }

    #[test]
    fn another_network_or_another_holder_is_refused() {
        let (owner, holder) = owner_and_holder();
        let other = Identity::generate();
        let passport = Passport::issue(&owner, holder.public_key(), Rights::NODE, None);
        let now = SystemTime::now();
        let refused = passport.verify(&other.public_key(), &holder.public_key(), now);
        assert!(matches!(refused, Err(PassportError::WrongNetwork { .. })));
        let refused = passport.verify(&owner.public_key(), &other.public_key(), now);
        assert!(matches!(refused, Err(PassportError::WrongHolder { .. })));
    }

    #[test]
    fn it_expires_a_minute_late_for_wrong_clocks() {
        let (owner, holder) = owner_and_holder();
        let now = SystemTime::now();
        let passport = Passport::issue(&owner, holder.public_key(), Rights::CLIENT, Some(now + DAY));
        let verify = |at| passport.verify(&owner.public_key(), &holder.public_key(), at);
        assert_eq!(verify(now + DAY), Ok(Rights::CLIENT));
        assert_eq!(verify(now + DAY + 2 * CLOCK_SKEW_MAX), Err(PassportError::Expired { link: 0 }));
    }

    #[test]
    fn it_opens_nothing_before_its_time() {
        let (owner, holder) = owner_and_holder();
        let now = SystemTime::now();
        let passport = Passport::issue_from(&owner, holder.public_key(), Rights::CLIENT, now + DAY, None);
        let verify = |at| passport.verify(&owner.public_key(), &holder.public_key(), at);
        assert_eq!(verify(now), Err(PassportError::NotYetValid { link: 0 }));
        assert_eq!(verify(now + DAY), Ok(Rights::CLIENT));
    }

    #[test]
    fn more_rights_than_were_signed_are_a_forgery() {
        let (owner, holder) = owner_and_holder();
        let mut passport = Passport::issue(&owner, holder.public_key(), Rights::CLIENT, None);
        passport.links[0].rights = Rights::ALL;
        let refused = passport.verify(&owner.public_key(), &holder.public_key(), SystemTime::now());
        assert_eq!(refused, Err(PassportError::Forged { link: 0 }));
    }

    #[test]
    fn a_delegate_passes_on_no_more_than_its_own_rights() {
        let (owner, delegate) = owner_and_holder();
        let holder = Identity::generate();
        let inviter = Rights { invite: true, ..Rights::CLIENT };
        let passport = Passport::issue(&owner, delegate.public_key(), inviter, None);
        let given = passport.delegate(&delegate, holder.public_key(), Rights::CLIENT, None).unwrap();
        let now = SystemTime::now();
        assert_eq!(given.verify(&owner.public_key(), &holder.public_key(), now), Ok(Rights::CLIENT));
        let refused = passport.delegate(&delegate, holder.public_key(), Rights::NODE, None);
        assert!(matches!(refused, Err(PassportError::NotEntitled { .. })));
        // Nor by signing what `delegate` would refuse to.
        let mut forged = passport.clone();
        let (network, key) = (passport.network, holder.public_key());
        let before = forged.links[0].digest(&chain_start(&network));
        forged.links.push(Link::sign(&delegate, before, key, Rights::NODE, FOR_EVER));
        assert_eq!(forged.verify(&network, &key, now), Err(PassportError::NotEntitled { link: 1 }));
        // Nor can a guest invite.
        let refused = given.delegate(&holder, delegate.public_key(), Rights::CLIENT, None);
        assert!(matches!(refused, Err(PassportError::NotEntitled { .. })));
    }

    #[test]
    fn a_link_cannot_be_moved_into_another_chain() {
        let (owner, delegate) = owner_and_holder();
        let holder = Identity::generate().public_key();
        let now = SystemTime::now();
        let first = Passport::issue(&owner, delegate.public_key(), Rights::ALL, Some(now + DAY));
        let second = Passport::issue(&owner, delegate.public_key(), Rights::ALL, Some(now + 300 * DAY));
        let mut moved = first.delegate(&delegate, holder, Rights::NODE, None).unwrap();
        moved.links[0] = second.links[0].clone();
        assert_eq!(moved.verify(&owner.public_key(), &holder, now), Err(PassportError::Forged { link: 1 }));
    }

    #[test]
    fn the_longest_chain_fits_its_bound_and_a_longer_one_is_refused() {
        let owner = Identity::generate();
        let mut holder = Identity::generate();
        let mut passport = Passport::issue(&owner, holder.public_key(), Rights::ALL, None);
        for _ in 1..LINKS_MAX {
            let next = Identity::generate();
            passport = passport.delegate(&holder, next.public_key(), Rights::ALL, None).unwrap();
            holder = next;
        }
        assert!(passport.to_bytes().len() <= PASSPORT_BYTES_MAX);
        let next = Identity::generate().public_key();
        assert_eq!(passport.delegate(&holder, next, Rights::ALL, None), Err(PassportError::TooLong));
        let before =
            passport.links.iter().fold(chain_start(&passport.network), |before, link| link.digest(&before));
        passport.links.push(Link::sign(&holder, before, next, Rights::ALL, FOR_EVER));
        let refused = passport.verify(&owner.public_key(), &next, SystemTime::now());
        assert_eq!(refused, Err(PassportError::TooLong));
    }

    #[test]
    fn garbage_is_not_a_passport() {
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length).map(|index| (index * 73 + length) as u8).collect();
            assert!(Passport::from_bytes(&bytes).is_err());
        }
        assert_eq!(Passport::from_bytes(&vec![0; PASSPORT_BYTES_MAX + 1]), Err(PassportError::TooLong));
    }
}
