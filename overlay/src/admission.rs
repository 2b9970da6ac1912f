//! Admission: the exchange of passports on a fresh TLS connection, before any method is served on it.
//!
//! ```text
//! dialler                                acceptor
//!    |---- Hello ------------------------->|   verifies the passport against the key that TLS proved
//!    |<--- Welcome(Hello) or Refused(why) -|   or Removed(list): the owner's word that it is a member no more
//!    |---- Accepted or Refused(why) ------>|   so that both learn a reason; calls may follow at once
//!
//! stranger
//!    |---- Letter ------------------------>|   who has no passport yet leaves a letter for the owner
//!    |<--- Answer -------------------------|   and is turned away, until there is a reply
//! ```
//!
//! One round trip. A hello says which versions of the protocol its sender speaks, and the newest of both is spoken; which
//! features it has that others may do without; how new its list of the revoked is; which renewed passports it has; and what
//! a node says of itself. The versions come first and stay there, so that two that have none in common hear that from each
//! other, whatever else has changed; what a later release appends is passed over.
//!
//! A passport is no secret, so the newest counts that either side has of whoever proved the key: an expired one is as good as
//! its renewal, if that is known here.
//!
//! That a member was removed it believes on the owner's signature alone: any node may refuse it, and none can make it think
//! that it has no business here any more.
//!
//! It stands outside RPC on purpose: a peer that has not been admitted has no connection object, so no handler can forget to
//! check. Each message has a bound, [`HELLO_BYTES_MAX`] for all that an acceptor reads, and is preceded by its length in two
//! bytes; a longer one closes the connection unread.

mod wire;

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use reactor::crypto::PublicKey;
use serde::{Deserialize, Serialize};

use crate::contact::{ADDRESSES_MAX, Contact};
use crate::invitation::{self, Declined, Letter, NOTES_BYTES_MAX};
use crate::passport::{PASSPORT_BYTES_MAX, Passport, PassportError, Rights};
use crate::peers::{Peer, Peers, Role, TurnedAway};
use crate::record::RECORD_BYTES_MAX;
use crate::records::{Records, Standing};
use crate::renewal::Renewals;
use crate::revocation::Revocations;
use wire::{Answer, Hello, Opening, Verdict, receive, receive_opening, send};

/// The versions of everything spoken on a connection that this program speaks. A peer with none of them is refused.
pub const PROTOCOL_VERSIONS: Versions = Versions { oldest: 6, newest: 6 };

/// Takes lists of the revoked, and keeps the newest.
pub const FEATURE_REVOCATIONS: u64 = 1;

/// What this program has beyond the protocol's version. A bit that a peer does not know means nothing to it.
pub const FEATURES: u64 = FEATURE_REVOCATIONS;

/// Most bytes of a message of the exchange: a passport, a record, some addresses, and room to grow.
pub const HELLO_BYTES_MAX: usize = PASSPORT_BYTES_MAX + RECORD_BYTES_MAX + 1024;

/// Most bytes of the answer to a hello, which may be a list of the revoked: 42 KiB, and room to grow.
pub const WELCOME_BYTES_MAX: usize = 48 * 1024;

/// Most bytes of the answer to a letter, which brings a passport and a network's description.
pub const ANSWER_BYTES_MAX: usize = PASSPORT_BYTES_MAX + NOTES_BYTES_MAX + 1024;

/// Versions of the protocol, from the oldest to the newest that somebody speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

impl Versions {
    /// The newest that both speak.
    fn common(self, other: Versions) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

/// Who we are, as we say it to every peer.
#[derive(Clone)]
pub struct Credentials {
    /// The owner of the network.
    pub network: PublicKey,
    /// Our key.
    pub own: PublicKey,
    /// Our passport.
    pub passport: Passport,
    /// What we are in the network.
    pub role: Role,
    /// Where we listen.
    pub addresses: Vec<SocketAddr>,
    /// The book that says who was revoked.
    pub peers: Peers,
    /// The book of renewed passports, our own among them.
    pub renewals: Renewals,
    /// The book of what nodes say of themselves, ourselves among them.
    pub records: Records,
}

/// An admitted peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Who it is, where it listens, and its newest record that is known here; nothing of these for a client.
    pub contact: Contact,
    /// What it may do.
    pub peer: Peer,
    /// By what: the newest of its passports that it or we know.
    pub passport: Passport,
    /// Whether it showed an older one.
    pub is_renewed: bool,
    /// The version of the protocol that both speak.
    pub version: u32,
    /// Where it dialled from, or was dialled at; `None` where it was reached by its id.
    pub address: Option<SocketAddr>,
    /// The number of the list of the revoked that it has; `None` if it takes none.
    pub revocations: Option<u64>,
    /// What tells its book of renewed passports from ours.
    pub renewals: [u8; 8],
    /// Whether what it said of itself is older than what is known here.
    pub is_record_stale: bool,
}

/// Who came to the door.
#[derive(Debug)]
pub enum Visitor {
    /// A member.
    Member(Box<Admitted>),
    /// A stranger with a letter that is good in this network; it waits for an [`answer`].
    Stranger(Box<Letter>),
}

/// Why a peer was refused. Travels to it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// Its passport opens nothing here.
    #[error(transparent)]
    Passport(PassportError),
    /// It speaks another version.
    #[error(
        "protocol versions {} to {} are spoken there, and {} to {} here: update the older program",
        theirs.oldest, theirs.newest, ours.oldest, ours.newest
    )]
    Version {
        /// Of the side that refuses.
        ours: Versions,
        /// Of the side that is refused.
        theirs: Versions,
    },
    /// Both ends hold the same key.
    #[error("the peer has our own key: a node must not dial itself, nor two nodes share an identity")]
    SameKey,
}

/// Why no connection came of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// The stream failed or ended.
    #[error("the connection broke before the passports were exchanged: {0}")]
    Io(#[from] io::Error),
    /// The peer refused us.
    #[error("the peer refused us: {0}")]
    Refused(Refusal),
    /// We refused the peer.
    #[error("we refused the peer: {0}")]
    Unwelcome(Refusal),
    /// It says that the owner removed us, or whom we have our passport from, and does not show it.
    #[error(
        "the peer says that we were removed from the network, without the owner's word for it: it lies, or is broken"
    )]
    Unproven,
    /// It brought a letter that is not passed on, and was told so.
    #[error("somebody with a ticket was turned away: {0}")]
    Declined(Declined),
    /// It does not speak this protocol.
    #[error("the peer does not speak this protocol: is another program listening there?")]
    Malformed,
}

/// The dialler's side, over a stream whose other end holds `peer_key` and lives at `peer_address`, where it was dialled by that.
///
/// # Errors
/// Why no admission came of it; close the stream then.
///
/// # Suspends
/// For one round trip; put a timeout around it.
pub fn dialler(
    stream: &mut (impl Read + Write),
    ours: &Credentials,
    peer_key: PublicKey,
    peer_address: impl Into<Option<SocketAddr>>,
) -> Result<Admitted, AdmissionError> {
    let admitted = meet(stream, ours, peer_key, peer_address);
    match &admitted {
        Ok(_) => ours.peers.on_admitted(&peer_key),
        Err(AdmissionError::Refused(why)) => ours.peers.on_turned_away(peer_key, TurnedAway::Us(why.clone())),
        Err(AdmissionError::Unwelcome(why)) => {
            ours.peers.on_turned_away(peer_key, TurnedAway::Them(why.clone()));
        }
        // That says nothing of passports.
        Err(_) => {}
    }
    admitted
}

fn meet(
    stream: &mut (impl Read + Write),
    ours: &Credentials,
    peer_key: PublicKey,
    peer_address: impl Into<Option<SocketAddr>>,
) -> Result<Admitted, AdmissionError> {
    send(stream, &Opening::Hello(ours.hello()), HELLO_BYTES_MAX)?;
    match receive::<Answer>(stream, WELCOME_BYTES_MAX)? {
        Answer::Refused(Refusal::Passport(PassportError::Revoked { .. })) => Err(AdmissionError::Unproven),
        Answer::Refused(refusal) => Err(AdmissionError::Refused(refusal)),
        Answer::Removed(list) => Err(ours.removed_by(list)),
        Answer::Welcome(hello) => match ours.judge(*hello, peer_key, peer_address.into()) {
            Ok(admitted) => {
                send(stream, &Verdict::Accepted, HELLO_BYTES_MAX)?;
                Ok(admitted)
            }
            Err(refusal) => {
                send(stream, &Verdict::Refused(refusal.clone()), HELLO_BYTES_MAX)?;
                Err(AdmissionError::Unwelcome(refusal))
            }
        },
    }
}

/// The acceptor's side, over a stream whose other end holds `peer_key` and dialled from `peer_address`, where that says anything.
///
/// # Errors
/// Why no admission came of it; close the stream then.
///
/// # Suspends
/// For one round trip; put a timeout around it.
pub fn acceptor(
    stream: &mut (impl Read + Write),
    ours: &Credentials,
    peer_key: PublicKey,
    peer_address: impl Into<Option<SocketAddr>>,
) -> Result<Visitor, AdmissionError> {
    let hello = match receive_opening(stream)? {
        Ok(Opening::Hello(hello)) => hello,
        Err(refusal) => {
            send(stream, &Answer::Refused(refusal.clone()), WELCOME_BYTES_MAX)?;
            return Err(AdmissionError::Unwelcome(refusal));
        }
        Ok(Opening::Letter(letter)) => {
            return match ours.judge_letter(&letter, &peer_key) {
                Ok(()) => Ok(Visitor::Stranger(letter)),
                Err(why) => {
                    answer(stream, &invitation::Answer::Declined(why))?;
                    Err(AdmissionError::Declined(why))
                }
            };
        }
    };
    match ours.judge(*hello, peer_key, peer_address.into()) {
        Ok(admitted) => {
            send(stream, &Answer::Welcome(ours.hello()), HELLO_BYTES_MAX)?;
            match receive::<Verdict>(stream, HELLO_BYTES_MAX)? {
                Verdict::Accepted => Ok(Visitor::Member(Box::new(admitted))),
                Verdict::Refused(refusal) => Err(AdmissionError::Refused(refusal)),
            }
        }
        Err(refusal) => {
            let answer = match &refusal {
                Refusal::Passport(PassportError::Revoked { .. }) => Answer::Removed(ours.peers.revocations()),
                other => Answer::Refused(other.clone()),
            };
            send(stream, &answer, WELCOME_BYTES_MAX)?;
            Err(AdmissionError::Unwelcome(refusal))
        }
    }
}

/// The stranger's side: leaves `letter`, and hears whether there is a reply.
///
/// # Errors
/// If the stream breaks, or no node is at its other end.
///
/// # Suspends
/// For one round trip; put a timeout around it.
pub fn stranger(
    stream: &mut (impl Read + Write),
    letter: &Letter,
) -> Result<invitation::Answer, AdmissionError> {
    send(stream, &Opening::Letter(Box::new(letter.clone())), HELLO_BYTES_MAX)?;
    receive(stream, ANSWER_BYTES_MAX)
}

/// Answers a stranger; close the stream then.
///
/// # Errors
/// If the stream breaks.
///
/// # Suspends
/// Until it is sent.
pub fn answer(stream: &mut impl Write, answer: &invitation::Answer) -> io::Result<()> {
    send(stream, answer, ANSWER_BYTES_MAX)
}

impl Credentials {
    /// What lets us in now.
    pub(crate) fn newest_passport(&self) -> Passport {
        self.renewals.newest(&self.passport, reactor::wall_clock())
    }

    fn hello(&self) -> Box<Hello> {
        Box::new(Hello {
            versions: PROTOCOL_VERSIONS,
            features: FEATURES,
            passport: self.newest_passport(),
            role: self.role,
            addresses: self.addresses.clone(),
            revocations: self.peers.revocations().version(),
            renewals: self.renewals.digest(),
            record: self.records.own().map(|record| record.signed().clone()),
        })
    }

    /// What a list means that a peer gives as its reason to refuse us. If the owner says so, it is in force here too.
    fn removed_by(&self, list: Revocations) -> AdmissionError {
        let verdict = list.verify(&self.network).map(|()| list.admit(&self.passport));
        match verdict {
            Ok(Err(error)) => {
                self.peers.revoke(list);
                AdmissionError::Refused(Refusal::Passport(error))
            }
            _ => AdmissionError::Unproven,
        }
    }

    fn judge_letter(&self, letter: &Letter, key: &PublicKey) -> Result<(), Declined> {
        letter.verify(&self.network, reactor::wall_clock())?;
        if letter.holder != *key {
            return Err(Declined::Forged);
        }
        let is_revoked =
            [letter.invitation.ticket, letter.holder].iter().any(|key| self.peers.is_revoked(key));
        if is_revoked { Err(Declined::Revoked) } else { Ok(()) }
    }

    /// What whoever proved `key` and shows this passport may do, and by which passport: the newest that is known of it.
    pub(crate) fn verdict(
        &self,
        shown: &Passport,
        key: &PublicKey,
    ) -> Result<(Passport, Rights), PassportError> {
        // What it shows names it, whatever else we know of that key.
        let now = reactor::wall_clock();
        let passport = if shown.holder() == *key { self.renewals.newest(shown, now) } else { shown.clone() };
        let verdict = passport.verify(&self.network, key, now);
        // Who was removed hears that, and not that its passport has expired meanwhile.
        if matches!(verdict, Ok(_) | Err(PassportError::Expired { .. })) {
            self.peers.admit(&passport)?;
        }
        verdict.map(|rights| (passport, rights))
    }

    /// Whether a passport that was verified when it was shown, or the newest of its holder's, still opens anything. No signature
    /// is checked anew: it is asked for a thousand in one go.
    pub(crate) fn still_opens(&self, shown: &Passport) -> bool {
        let now = reactor::wall_clock();
        let passport = self.renewals.newest(shown, now);
        let rights = passport.rights();
        passport.is_open(now) && self.peers.admit(&passport).is_ok() && (rights.read || rights.store)
    }

    fn judge(&self, hello: Hello, key: PublicKey, address: Option<SocketAddr>) -> Result<Admitted, Refusal> {
        let Some(version) = PROTOCOL_VERSIONS.common(hello.versions) else {
            return Err(Refusal::Version { ours: PROTOCOL_VERSIONS, theirs: hello.versions });
        };
        if key == self.own {
            return Err(Refusal::SameKey);
        }
        let shown = hello.passport;
        let (passport, rights) = self.verdict(&shown, &key).map_err(Refusal::Passport)?;
        let needed = match hello.role {
            Role::Storage => Rights { store: true, ..Rights::default() },
            Role::Client => Rights { read: true, ..Rights::default() },
        };
        if !rights.include(needed) {
            return Err(Refusal::Passport(PassportError::MissingRight { has: rights, needed }));
        }
        let addresses = hello.addresses.into_iter().take(ADDRESSES_MAX).map(|mut listening| {
            // "Any address" says nothing to others; the one it dials from or was dialled at does, if it is one of those.
            if listening.ip().is_unspecified()
                && let Some(address) = address
                && (listening.is_ipv6() || address.ip().to_canonical().is_ipv4())
            {
                listening.set_ip(address.ip());
            }
            listening
        });
        let is_of_use =
            |listening: &SocketAddr| hello.role == Role::Storage && !listening.ip().is_unspecified();
        let addresses = addresses.filter(is_of_use);
        let peer = Peer { role: hello.role, rights, expires: passport.opens_until() };
        let revocations = (hello.features & FEATURE_REVOCATIONS != 0).then_some(hello.revocations);
        let mut contact = Contact::new(key, addresses);
        let mut is_record_stale = false;
        if let Some(said) = hello.record.filter(|_| hello.role == Role::Storage) {
            match self.records.take(&key, &said) {
                Ok((_, standing)) => is_record_stale = standing == Standing::Stale,
                // Its passport lets it in; nothing that it says of itself counts.
                Err(error) => tracing::warn!(%contact, %error, "a node's record of itself is refused"),
            }
        }
        if hello.role == Role::Storage {
            contact = self.records.newest(contact);
        }
        let (is_renewed, renewals) = (passport != shown, hello.renewals);
        let admitted = Admitted {
            contact,
            peer,
            passport,
            is_renewed,
            version,
            address,
            revocations,
            renewals,
            is_record_stale,
        };
        Ok(admitted)
    }
}

#[cfg(test)]
mod tests;
