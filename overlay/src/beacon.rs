//! What members say to their own network: "a node of ours is here", and "is there any?". Pure.
//!
//! ```text
//! packet    salt 16 | sealed | tag 16
//! sealed    version 1 | port 2 | address 4 | time 8 | length of the passport 2 | passport | signature 64; numbers big-endian
//! ```
//!
//! The key is SHA3-256("hypha beacon key 1", network, salt): whoever knows the network's key opens it, and to everybody else no two
//! packets have anything in common but their length. The signature is that of the passport's holder, over SHA3-256("hypha beacon 1",
//! network, salt, and what is before it): nobody can say it for another. The port is that at which the holder listens, by TCP, or 0
//! from one who asks.
//!
//! The address is that from which the holder sends it, and the time the holder's own, in milliseconds since 1970: whoever records a
//! packet can send it again from there alone, and not to who has heard anything newer from there (`heard.rs`). What is
//! left is a hint and no more: whoever goes there has a handshake prove that it is the holder.
//!
//! Not here: sockets, and whose passport is good ([`crate::admission`]).

use std::net::Ipv4Addr;

use reactor::crypto::aead::{self, Key, OVERHEAD_BYTES};
use reactor::crypto::hash::sha3_256;
use reactor::crypto::{Identity, PublicKey, Signature, random_bytes};

use crate::passport::{PASSPORT_BYTES_MAX, Passport};

/// 2: address and time.
const VERSION: u8 = 2;
const SALT_BYTES: usize = 16;
const SIGNATURE_BYTES: usize = 64;
const HEADER_BYTES: usize = 17;

/// The longest packet: one of Ethernet takes it.
pub const BEACON_BYTES_MAX: usize =
    SALT_BYTES + HEADER_BYTES + PASSPORT_BYTES_MAX + SIGNATURE_BYTES + OVERHEAD_BYTES;

/// What a member says. Whoever holds one has had its signature verified, and nothing else of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beacon {
    /// Who says it, and by what right it is one.
    pub passport: Passport,
    /// Where it listens; `None` if it asks who does.
    pub port: Option<u16>,
    /// From where it says so.
    pub address: Ipv4Addr,
    /// When, by its clock, in milliseconds since 1970.
    pub at_ms: u64,
}

impl Beacon {
    /// The packet in which the holder of `identity`, and of the passport, says it in `network`. No two are alike.
    #[must_use]
    pub fn seal(&self, identity: &Identity, network: &PublicKey) -> Vec<u8> {
        let salt: [u8; SALT_BYTES] = random_bytes();
        let mut body = vec![VERSION];
        let passport = self.passport.to_bytes();
        body.extend_from_slice(&self.port.unwrap_or(0).to_be_bytes());
        body.extend_from_slice(&self.address.octets());
        body.extend_from_slice(&self.at_ms.to_be_bytes());
        body.extend_from_slice(&u16::try_from(passport.len()).expect("a passport is short").to_be_bytes());
        body.extend_from_slice(&passport);
        let signature = identity.sign(&digest(network, &salt, &body));
        body.extend_from_slice(signature.as_bytes());
        aead::encrypt_in_place(&key(network, &salt), &[0; 12], &[], &mut body);
        [&salt[..], &body].concat()
    }

    /// What a packet says in `network`; `None` if that is nothing, or its holder did not say it.
    #[must_use]
    pub fn open(packet: &[u8], network: &PublicKey) -> Option<Beacon> {
        Beacon::open_if(packet, network, |_| true)
    }

    /// As [`Beacon::open`], and the signature of what opens is looked at only if what it says `may_be_checked`: whoever knows the
    /// network's key could have us check signatures.
    pub(crate) fn open_if(
        packet: &[u8],
        network: &PublicKey,
        may_be_checked: impl FnOnce(&Beacon) -> bool,
    ) -> Option<Beacon> {
        if packet.len() > BEACON_BYTES_MAX {
            return None;
        }
        let (salt, sealed) = packet.split_first_chunk::<SALT_BYTES>()?;
        let mut body = sealed.to_vec();
        aead::decrypt_in_place(&key(network, salt), &[0; 12], &[], &mut body).ok()?;
        Beacon::parse(&body, salt, network, may_be_checked)
    }

    /// What is in a packet that was sealed with that salt.
    fn parse(
        body: &[u8],
        salt: &[u8; SALT_BYTES],
        network: &PublicKey,
        may_be_checked: impl FnOnce(&Beacon) -> bool,
    ) -> Option<Beacon> {
        let (said, signature) = body.split_last_chunk::<SIGNATURE_BYTES>()?;
        let (header, passport) = said.split_first_chunk::<HEADER_BYTES>()?;
        let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        if header[0] != VERSION || passport.len() != usize::from(number(15)) {
            return None;
        }
        let passport = Passport::from_bytes(passport).ok()?;
        let port = Some(number(1)).filter(|port| *port != 0);
        let address = Ipv4Addr::new(header[3], header[4], header[5], header[6]);
        let at_ms = u64::from_be_bytes(header[7..15].try_into().expect("eight bytes"));
        let beacon = Beacon { passport, port, address, at_ms };
        if !may_be_checked(&beacon) {
            return None;
        }
        let signature = Signature::from_bytes(*signature);
        beacon.passport.holder().verify(&digest(network, salt, said), &signature).ok()?;
        Some(beacon)
    }
}

/// What a packet's plain text says, as far as it is read; for fuzzing.
#[doc(hidden)]
pub fn parse_body(body: &[u8], network: &PublicKey) -> Option<Beacon> {
    Beacon::parse(body, &[0; SALT_BYTES], network, |_| true)
}

/// One key for each packet, so that no nonce is used twice.
fn key(network: &PublicKey, salt: &[u8; SALT_BYTES]) -> Key {
    Key::from_bytes(sha3_256(&[b"hypha beacon key 1", network.as_bytes(), salt]))
}

fn digest(network: &PublicKey, salt: &[u8; SALT_BYTES], said: &[u8]) -> [u8; 32] {
    sha3_256(&[b"hypha beacon 1", network.as_bytes(), salt, said])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rights::Rights;

    fn identity(number: u8) -> Identity {
        Identity::from_seed(&[number; 32])
    }

    fn beacon(holder: u8, port: Option<u16>) -> Beacon {
        let rights = Rights { store: true, ..Rights::default() };
        let passport = Passport::issue(&identity(1), identity(holder).public_key(), rights, None);
        Beacon { passport, port, address: Ipv4Addr::new(192, 168, 1, 11), at_ms: 1_800_000_000_000 }
    }

    #[test]
    fn members_read_what_one_says_and_who_does_not_know_the_network_reads_nothing() {
        let network = identity(1).public_key();
        for port in [None, Some(1), Some(u16::MAX)] {
            let said = beacon(2, port);
            let packet = said.seal(&identity(2), &network);
            assert_eq!(Beacon::open(&packet, &network), Some(said));
            assert_eq!(Beacon::open(&packet, &identity(3).public_key()), None, "another network's");
            let shown =
                |what: &[u8]| packet.windows(8).any(|window| what.windows(8).any(|other| other == window));
            assert!(!shown(network.as_bytes()) && !shown(identity(2).public_key().as_bytes()));
        }
    }

    #[test]
    fn a_signature_is_looked_at_only_if_what_it_is_for_is_of_use() {
        let (network, said) = (identity(1).public_key(), beacon(2, Some(7)));
        let packet = said.seal(&identity(2), &network);
        let shown = |is_of_use| {
            let mut shown = None;
            let opened = Beacon::open_if(&packet, &network, |beacon| {
                shown = Some(beacon.clone());
                is_of_use
            });
            (shown, opened)
        };
        assert_eq!(shown(true), (Some(said.clone()), Some(said.clone())));
        assert_eq!(shown(false), (Some(said), None));
    }

    #[test]
    fn nothing_tells_two_packets_of_one_member_apart_from_those_of_two() {
        let network = identity(1).public_key();
        let telling = beacon(2, Some(4701));
        let [one, two] = [(); 2].map(|()| telling.seal(&identity(2), &network));
        let asking = Beacon { port: None, ..telling }.seal(&identity(2), &network);
        assert!(one.len() == two.len() && one.len() == asking.len());
        let same = one.iter().zip(&two).filter(|(one, two)| one == two).count();
        assert!(same < one.len() / 8, "{same} of {} bytes are the same", one.len());
    }

    #[test]
    fn nobody_speaks_for_another_and_what_is_changed_says_nothing() {
        let network = identity(1).public_key();
        assert_eq!(Beacon::open(&beacon(2, Some(7)).seal(&identity(3), &network), &network), None);
        let packet = beacon(2, Some(7)).seal(&identity(2), &network);
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            assert_eq!(Beacon::open(&changed, &network), None, "byte {at}");
            assert_eq!(Beacon::open(&packet[..at], &network), None, "{at} bytes");
        }
        assert_eq!(Beacon::open(&vec![0; BEACON_BYTES_MAX + 1], &network), None);
    }

    proptest! {
        #[test]
        fn garbage_is_nothing(body: Vec<u8>) {
            let network = identity(1).public_key();
            prop_assert_eq!(parse_body(&body, &network), None);
            prop_assert_eq!(Beacon::open(&body, &network), None);
        }
    }
}
