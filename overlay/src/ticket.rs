//! A ticket: an invitation in one line of letters and digits, to be sent as one would send a password.
//!
//! ```text
//! hypha1 base32(network 32, ticket seed 32, role u8, uses u16, expires u64, owner's signature 64,
//!               count u8, (node key 32, 4 or 6 u8, IP address, port u16) for each way in, checksum 4)
//! ```
//!
//! Numbers big-endian; the checksum is the start of a SHA3-256 over all before it, so that a slip of the pen is told from
//! a ticket that somebody changed, whose signature is wrong. The secret in it is the seed of the ticket's own key, which
//! is good for naming a member and for nothing else; no member's key is ever in a ticket.
//! A way in names the node's key beside its address: nobody else can pose as it. The ways are not signed, since the owner
//! need not be asked where its nodes are now: who changes them on the way can keep the holder out, as by losing the
//! ticket, and learns its name and address; it can neither use the ticket nor answer for the owner.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use reactor::crypto::hash::sha3_256;
use reactor::crypto::{Identity, PublicKey, Signature};

use crate::contact::Contact;
use crate::invitation::{Invitation, InvitedAs, Letter};

/// What a ticket begins with; the digit is the version of what follows.
const PREFIX: &str = "hypha1";
/// What a ticket of any version begins with.
const FAMILY: &str = "hypha";
/// Ways in that a ticket names. Four: one node may be down, and another behind an address that has changed.
pub const WAYS_MAX: usize = 4;
/// More characters are no ticket: the longest of today's has some 650.
const TEXT_BYTES_MAX: usize = 2048;
const CHECKSUM_BYTES: usize = 4;

/// What whoever is invited is given. Showing it ([`fmt::Display`]) shows the secret.
pub struct Ticket {
    secret: Identity,
    invitation: Invitation,
    ways: Vec<Contact>,
}

/// Why a text is no ticket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It does not begin like one.
    #[error("this is no ticket: one begins with {PREFIX}")]
    NotATicket,
    /// It is of a later version.
    #[error("the ticket is of another version: use the newer storage-node that made it")]
    Newer,
    /// The checksum does not fit.
    #[error("the ticket is mistyped or cut short: copy the whole line once more")]
    Mistyped,
    /// What it says is not what the network's owner signed.
    #[error(
        "the ticket was tampered with: it does not say what the network's owner signed; ask for it anew, over another way"
    )]
    Tampered,
}

impl Ticket {
    /// A ticket with the secret of `invitation`, and the first [`WAYS_MAX`] ways in: the first address of each contact.
    pub fn new(secret: Identity, invitation: Invitation, ways: impl IntoIterator<Item = Contact>) -> Ticket {
        let first = |way: Contact| Contact::new(way.public_key, way.addresses.first().copied());
        let ways = ways.into_iter().filter(|way| !way.addresses.is_empty()).take(WAYS_MAX).map(first);
        Ticket { secret, invitation, ways: ways.collect() }
    }

    /// What the owner signed.
    pub fn invitation(&self) -> &Invitation {
        &self.invitation
    }

    /// The nodes to go to.
    pub fn ways(&self) -> &[Contact] {
        &self.ways
    }

    /// Names `holder` as the member.
    pub fn letter(&self, holder: &Identity, name: &str) -> Letter {
        Letter::sign(&self.secret, self.invitation.clone(), holder, name)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let Invitation { network, role, uses, expires, signature, .. } = &self.invitation;
        let mut bytes = network.as_bytes().to_vec();
        bytes.extend_from_slice(&*self.secret.seed());
        bytes.push(role.code());
        bytes.extend_from_slice(&uses.to_be_bytes());
        bytes.extend_from_slice(&expires.to_be_bytes());
        bytes.extend_from_slice(signature.as_bytes());
        bytes.push(self.ways.len() as u8);
        for way in &self.ways {
            bytes.extend_from_slice(way.public_key.as_bytes());
            match way.addresses[0].ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&way.addresses[0].port().to_be_bytes());
        }
        bytes.extend_from_slice(&checksum(&bytes));
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Ticket> {
        let mut reader = Reader(bytes);
        let network = PublicKey::from_bytes(reader.array()?);
        let secret = Identity::from_seed(&reader.array()?);
        let [role] = reader.array()?;
        let role = InvitedAs::from_code(role)?;
        let uses = u16::from_be_bytes(reader.array()?);
        let expires = u64::from_be_bytes(reader.array()?);
        let signature = Signature::from_bytes(reader.array()?);
        let invitation = Invitation { network, ticket: secret.public_key(), role, uses, expires, signature };
        let [count] = reader.array()?;
        if usize::from(count) > WAYS_MAX {
            return None;
        }
        let ways = (0..count).map(|_| reader.way()).collect::<Option<Vec<_>>>()?;
        reader.0.is_empty().then_some(Ticket { secret, invitation, ways })
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = sha3_256(&[b"hypha ticket 1", bytes]);
    [a, b, c, d]
}

/// Takes fields from the front of bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn way(&mut self) -> Option<Contact> {
        let key = PublicKey::from_bytes(self.array()?);
        let ip = match self.array()? {
            [4] => IpAddr::from(self.array::<4>()?),
            [6] => IpAddr::from(self.array::<16>()?),
            _ => return None,
        };
        let port = u16::from_be_bytes(self.array()?);
        Some(Contact::new(key, [SocketAddr::new(ip, port)]))
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&self.to_bytes()).to_ascii_lowercase())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("invitation", &self.invitation).finish_non_exhaustive()
    }
}

/// Reads a ticket, and checks that the owner signed what it says; whether it has expired, it does not. Capitals and
/// the line breaks of a mail do not matter.
impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Ticket, TicketError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TicketError::NotATicket);
        }
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_lowercase();
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            let is_newer = text
                .strip_prefix(FAMILY)
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
            return Err(if is_newer { TicketError::Newer } else { TicketError::NotATicket });
        };
        let bytes =
            BASE32_NOPAD.decode(encoded.to_uppercase().as_bytes()).map_err(|_| TicketError::Mistyped)?;
        let (said, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TicketError::Mistyped)?;
        if checksum(said) != *sum {
            return Err(TicketError::Mistyped);
        }
        let ticket = Ticket::from_bytes(said).ok_or(TicketError::Tampered)?;
        // Long before any expiry: that is for whoever asks to be told by.
        let signed = ticket.invitation.verify(std::time::SystemTime::UNIX_EPOCH);
        signed.map_err(|_| TicketError::Tampered).map(|()| ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn ticket() -> Ticket {
        let (owner, secret) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let invitation = Invitation::sign(&owner, secret.public_key(), InvitedAs::Writer, 3, expires);
        let way = |seed, address: &str| {
            Contact::new(Identity::from_seed(&[seed; 32]).public_key(), [address.parse().unwrap()])
        };
        Ticket::new(secret, invitation, [way(3, "192.0.2.7:4701"), way(4, "[2001:db8::7]:4702")])
    }

    #[test]
    fn a_ticket_survives_a_mail() {
        let ticket = ticket();
        let text = ticket.to_string();
        assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
        let mailed = format!("  {}\r\n  {}\n", text[..70].to_uppercase(), &text[70..]);
        let read: Ticket = mailed.parse().unwrap();
        assert_eq!(read.invitation(), ticket.invitation());
        assert_eq!(read.ways(), ticket.ways());
        assert_eq!(read.to_string(), text);
        let holder = Identity::from_seed(&[5; 32]);
        assert_eq!(read.letter(&holder, "x"), ticket.letter(&holder, "x"));
        assert!(!format!("{ticket:?}").contains("0202"), "the secret is shown by Display alone");
    }

    #[test]
    fn a_slip_is_told_from_a_forgery() {
        let text = ticket().to_string();
        for at in PREFIX.len()..text.len() {
            let mut slipped = text.clone().into_bytes();
            slipped[at] = if slipped[at] == b'a' { b'b' } else { b'a' };
            let slipped = String::from_utf8(slipped).unwrap();
            assert_eq!(slipped.parse::<Ticket>().unwrap_err(), TicketError::Mistyped, "{at}");
            assert_eq!(text[..at].parse::<Ticket>().unwrap_err(), TicketError::Mistyped, "{at}");
        }
        // Somebody who makes himself a writer for ever, and mends the checksum.
        let changes: [fn(&mut Invitation); 3] = [
            |invitation| invitation.role = InvitedAs::Node,
            |invitation| invitation.uses = u16::MAX,
            |invitation| invitation.expires = u64::MAX,
        ];
        for change in changes {
            let mut forged = ticket();
            change(&mut forged.invitation);
            assert_eq!(forged.to_string().parse::<Ticket>().unwrap_err(), TicketError::Tampered);
        }
    }

    #[test]
    fn what_is_no_ticket_says_so() {
        for text in ["", "x", "hypha", "hyphae are threads", &"hypha1".repeat(1000)] {
            assert_eq!(text.parse::<Ticket>().unwrap_err(), TicketError::NotATicket, "{text}");
        }
        assert_eq!("hypha2aaaa".parse::<Ticket>().unwrap_err(), TicketError::Newer);
        assert_eq!("hypha1".parse::<Ticket>().unwrap_err(), TicketError::Mistyped);
    }
}
