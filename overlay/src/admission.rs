//! Admission: the exchange of passports on a fresh TLS connection, before any method is served on it.
//!
//! ```text
//! dialler                                acceptor
//!    |---- Hello ------------------------->|   verifies the passport against the key that TLS proved
//!    |<--- Welcome(Hello) or Refused(why) -|
//!    |---- Accepted or Refused(why) ------>|   so that both learn a reason; calls may follow at once
//! ```
//!
//! One round trip. It stands outside RPC on purpose: a peer that has not been admitted has no connection object, so no
//! handler can forget to check. Each message is at most [`HELLO_BYTES_MAX`] long and is preceded by its length in two
//! bytes; a longer one closes the connection unread.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use reactor::crypto::PublicKey;
use reactor::serialization::{from_bytes, to_bytes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::contact::{ADDRESSES_MAX, Contact};
use crate::passport::{PASSPORT_BYTES_MAX, Passport, PassportError, Rights};
use crate::peers::{Peer, Role};

/// The version of everything spoken on a connection. A peer with another one is refused.
pub const PROTOCOL_VERSION: u32 = 1;

/// Most bytes of a message of the exchange: a passport, some addresses, and room to grow.
pub const HELLO_BYTES_MAX: usize = PASSPORT_BYTES_MAX + 1024;

/// Who we are, as we say it to every peer.
#[derive(Clone, Debug)]
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
}

/// An admitted peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Who it is and where it listens; no addresses for a client.
    pub contact: Contact,
    /// What it may do.
    pub peer: Peer,
}

/// Why a peer was refused. Travels to it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// Its passport opens nothing here.
    #[error(transparent)]
    Passport(PassportError),
    /// It speaks another version.
    #[error("protocol version {theirs} is spoken there and {ours} here: update the older program")]
    Version {
        /// Of the side that refuses.
        ours: u32,
        /// Of the side that is refused.
        theirs: u32,
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
    /// It does not speak this protocol.
    #[error("the peer does not speak this protocol: is another program listening there?")]
    Malformed,
}

#[derive(Serialize, Deserialize)]
struct Hello {
    version: u32,
    passport: Passport,
    role: Role,
    addresses: Vec<SocketAddr>,
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Welcome(Hello),
    Refused(Refusal),
}

#[derive(Serialize, Deserialize)]
enum Verdict {
    Accepted,
    Refused(Refusal),
}

/// The dialler's side, over a stream whose other end holds `peer_key` and lives at `peer_address`.
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
    peer_address: SocketAddr,
) -> Result<Admitted, AdmissionError> {
    send(stream, &ours.hello())?;
    match receive::<Answer>(stream)? {
        Answer::Refused(refusal) => Err(AdmissionError::Refused(refusal)),
        Answer::Welcome(hello) => match ours.judge(hello, peer_key, peer_address) {
            Ok(admitted) => {
                send(stream, &Verdict::Accepted)?;
                Ok(admitted)
            }
            Err(refusal) => {
                send(stream, &Verdict::Refused(refusal.clone()))?;
                Err(AdmissionError::Unwelcome(refusal))
            }
        },
    }
}

/// The acceptor's side, over a stream whose other end holds `peer_key` and dialled from `peer_address`.
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
    peer_address: SocketAddr,
) -> Result<Admitted, AdmissionError> {
    let hello = receive::<Hello>(stream)?;
    match ours.judge(hello, peer_key, peer_address) {
        Ok(admitted) => {
            send(stream, &Answer::Welcome(ours.hello()))?;
            match receive::<Verdict>(stream)? {
                Verdict::Accepted => Ok(admitted),
                Verdict::Refused(refusal) => Err(AdmissionError::Refused(refusal)),
            }
        }
        Err(refusal) => {
            send(stream, &Answer::Refused(refusal.clone()))?;
            Err(AdmissionError::Unwelcome(refusal))
        }
    }
}

impl Credentials {
    fn hello(&self) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            passport: self.passport.clone(),
            role: self.role,
            addresses: self.addresses.clone(),
        }
    }

    fn judge(&self, hello: Hello, key: PublicKey, address: SocketAddr) -> Result<Admitted, Refusal> {
        if hello.version != PROTOCOL_VERSION {
            return Err(Refusal::Version { ours: PROTOCOL_VERSION, theirs: hello.version });
        }
        if key == self.own {
            return Err(Refusal::SameKey);
        }
        let rights =
            hello.passport.verify(&self.network, &key, reactor::wall_clock()).map_err(Refusal::Passport)?;
        let needed = match hello.role {
            Role::Storage => Rights { store: true, ..Rights::default() },
            Role::Client => Rights { read: true, ..Rights::default() },
        };
        if !rights.include(needed) {
            return Err(Refusal::Passport(PassportError::MissingRight { has: rights, needed }));
        }
        let addresses = hello.addresses.into_iter().take(ADDRESSES_MAX).map(|mut listening| {
            // "Any address" says nothing to others; the one it dials from or was dialled at does.
            if listening.ip().is_unspecified() {
                listening.set_ip(address.ip());
            }
            listening
        });
        let addresses = addresses.filter(|_| hello.role == Role::Storage);
        let peer = Peer { role: hello.role, rights, expires: hello.passport.expires() };
        Ok(Admitted { contact: Contact::new(key, addresses), peer })
    }
}

fn send(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = to_bytes(message);
    assert!(body.len() <= HELLO_BYTES_MAX, "our own hello is {} bytes long", body.len());
    // One write, one TLS record.
    let mut bytes = (body.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes)?;
    stream.flush()
}

fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T, AdmissionError> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > HELLO_BYTES_MAX {
        return Err(AdmissionError::Malformed);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    from_bytes(&body).map_err(|_| AdmissionError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use reactor::crypto::Identity;

    /// A stream that plays a recording and records what is written.
    #[derive(Default)]
    struct Script {
        input: io::Cursor<Vec<u8>>,
        output: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.input.read(buffer)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.output.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn address() -> SocketAddr {
        "192.0.2.7:50000".parse().unwrap()
    }

    fn credentials(owner: &Identity, role: Role, rights: Rights) -> Credentials {
        let own = Identity::generate().public_key();
        Credentials {
            network: owner.public_key(),
            own,
            passport: Passport::issue(owner, own, rights, None),
            role,
            addresses: vec!["0.0.0.0:7001".parse().unwrap()],
        }
    }

    /// What the acceptor makes of `caller`'s hello, and what it sends back.
    fn knock(caller: &Credentials, acceptor_is: &Credentials) -> (Result<Admitted, AdmissionError>, Vec<u8>) {
        let mut script = Script::default();
        send(&mut script, &caller.hello()).unwrap();
        send(&mut script, &Verdict::Accepted).unwrap();
        let mut script = Script { input: io::Cursor::new(script.output), output: Vec::new() };
        (acceptor(&mut script, acceptor_is, caller.own, address()), script.output)
    }

    #[test]
    fn a_node_is_admitted_at_the_address_it_dialled_from_if_it_names_none() {
        let owner = Identity::generate();
        let (caller, node) = (
            credentials(&owner, Role::Storage, Rights::NODE),
            credentials(&owner, Role::Storage, Rights::NODE),
        );
        let admitted = knock(&caller, &node).0.unwrap();
        assert_eq!(admitted.contact, Contact::new(caller.own, ["192.0.2.7:7001".parse().unwrap()]));
        assert_eq!(admitted.peer.rights, Rights::NODE);
    }

    #[test]
    fn a_client_is_admitted_without_addresses() {
        let owner = Identity::generate();
        let (caller, node) = (
            credentials(&owner, Role::Client, Rights::CLIENT),
            credentials(&owner, Role::Storage, Rights::NODE),
        );
        assert!(knock(&caller, &node).0.unwrap().contact.addresses.is_empty());
    }

    #[test]
    fn the_refused_side_learns_why() {
        let (owner, other) = (Identity::generate(), Identity::generate());
        let node = credentials(&owner, Role::Storage, Rights::NODE);
        let stranger = credentials(&other, Role::Storage, Rights::NODE);
        let intruder = credentials(&owner, Role::Storage, Rights::CLIENT);
        for caller in [stranger, intruder, node.clone()] {
            let (result, sent) = knock(&caller, &node);
            let Err(AdmissionError::Unwelcome(why)) = result else { panic!("{result:?}") };
            let mut caller_side = Script { input: io::Cursor::new(sent), output: Vec::new() };
            let result = dialler(&mut caller_side, &caller, node.own, address());
            let Err(AdmissionError::Refused(told)) = result else { panic!("{result:?}") };
            assert_eq!(told, why);
        }
    }

    #[test]
    fn the_dialler_refuses_a_false_node_and_says_so() {
        let (owner, other) = (Identity::generate(), Identity::generate());
        let caller = credentials(&owner, Role::Client, Rights::CLIENT);
        let false_node = credentials(&other, Role::Storage, Rights::NODE);
        let mut script = Script::default();
        send(&mut script, &Answer::Welcome(false_node.hello())).unwrap();
        let mut script = Script { input: io::Cursor::new(script.output), output: Vec::new() };
        let result = dialler(&mut script, &caller, false_node.own, address());
        assert!(matches!(result, Err(AdmissionError::Unwelcome(Refusal::Passport(_)))));
        let mut sent = io::Cursor::new(script.output);
        receive::<Hello>(&mut sent).unwrap();
        assert!(matches!(receive::<Verdict>(&mut sent), Ok(Verdict::Refused(_))));
    }

    proptest! {
        #[test]
        fn garbage_is_an_error(bytes: Vec<u8>) {
            let node = credentials(&Identity::from_seed(&[1; 32]), Role::Storage, Rights::NODE);
            let mut script = Script { input: io::Cursor::new(bytes), output: Vec::new() };
            prop_assert!(acceptor(&mut script, &node, node.network, address()).is_err());
        }
    }
}
