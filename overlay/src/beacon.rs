//! What members say to their own network: "a node of ours is here", and "is there any?". Pure.
//!
//! ```text
//! packet    salt 16 | sealed | tag 16
//! sealed    version 1 | port 2 | length of the passport 2 | passport | signature 64; numbers big-endian
//! ```
//!
//! The key is SHA3-256("hypha beacon key 1", network, salt): whoever knows the network's key opens it, and to everybody else no two
//! packets have anything in common but their length. The signature is that of the passport's holder, over SHA3-256("hypha beacon 1",
//! network, salt, and what is before it): nobody can say it for another. The port is that at which the holder listens, by TCP, or 0
//! from one who asks.
//!
//! It says neither when nor where: the address is that of the packet, which anybody may send again from his own. So it is a hint and
//! no more: whoever goes there has a handshake prove that it is the holder.
//!
//! Not here: sockets, and whose passport is good ([`crate::admission`]).

use reactor::crypto::aead::{self, Key, OVERHEAD_BYTES};
use reactor::crypto::hash::sha3_256;
use reactor::crypto::{Identity, PublicKey, Signature, random_bytes};

use crate::passport::{PASSPORT_BYTES_MAX, Passport};

const VERSION: u8 = 1;
const SALT_BYTES: usize = 16;
const SIGNATURE_BYTES: usize = 64;
const HEADER_BYTES: usize = 5;

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
}

impl Beacon {
    /// The packet in which the holder of `identity`, and of the passport, says it in `network`. No two are alike.
    #[must_use]
    pub fn seal(&self, identity: &Identity, network: &PublicKey) -> Vec<u8> {
        let salt: [u8; SALT_BYTES] = random_bytes();
        let mut body = vec![VERSION];
        let passport = self.passport.to_bytes();
        body.extend_from_slice(&self.port.unwrap_or(0).to_be_bytes());
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
        Beacon::open_if(packet, network, || true)
    }

    /// As [`Beacon::open`], and what opens is looked at only if `may_be_checked`: whoever knows the network's key could have us
    /// check signatures.
    pub(crate) fn open_if(
        packet: &[u8],
        network: &PublicKey,
        may_be_checked: impl FnOnce() -> bool,
    ) -> Option<Beacon> {
        if packet.len() > BEACON_BYTES_MAX {
            return None;
        }
        let (salt, sealed) = packet.split_first_chunk::<SALT_BYTES>()?;
        let mut body = sealed.to_vec();
        aead::decrypt_in_place(&key(network, salt), &[0; 12], &[], &mut body).ok()?;
        may_be_checked().then(|| Beacon::parse(&body, salt, network)).flatten()
    }

    /// What is in a packet that was sealed with that salt.
    fn parse(body: &[u8], salt: &[u8; SALT_BYTES], network: &PublicKey) -> Option<Beacon> {
        let (said, signature) = body.split_last_chunk::<SIGNATURE_BYTES>()?;
        let (&[version, port_high, port_low, length_high, length_low], passport) =
            said.split_first_chunk::<HEADER_BYTES>()?;
        let length = usize::from(u16::from_be_bytes([length_high, length_low]));
        if version != VERSION || passport.len() != length {
            return None;
        }
        let passport = Passport::from_bytes(passport).ok()?;
        let signature = Signature::from_bytes(*signature);
        passport.holder().verify(&digest(network, salt, said), &signature).ok()?;
        let port = u16::from_be_bytes([port_high, port_low]);
        Some(Beacon { passport, port: (port != 0).then_some(port) })
    }
}

/// What a packet's plain text says, as far as it is read; for fuzzing.
#[doc(hidden)]
pub fn parse_body(body: &[u8], network: &PublicKey) -> Option<Beacon> {
    Beacon::parse(body, &[0; SALT_BYTES], network)
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
        Beacon { passport: Passport::issue(&identity(1), identity(holder).public_key(), rights, None), port }
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
