//! What two peers say beside their connection, about the ways between them. Pure.
//!
//! ```text
//! packet:  4 | session 8 | sequence 8 | sealed message | tag 16
//!
//! message             body
//! 1  Ping             transaction 8, then zeros
//! 2  Pong             transaction 8, then zeros: as many as the ping had
//! 3  Candidates       1 if we have heard the other's, count 1, then each as in `nat/address.rs`
//! 4  Guess            1 if it answers the other's, then an address
//! ```
//!
//! Addresses for UDP come first; behind them those for TCP, whose family is marked by 16 more. The latter are named by who is about to
//! connect from there (`opening.rs`), and by nobody else.
//!
//! Keys come out of the connection itself, one for each direction: whoever can seal a packet is the peer, and a packet that
//! is sent back to who made it opens for nobody. A sequence number is the nonce; each is taken once, so that a packet which
//! is repeated says nothing.
//!
//! A ping may be as long as the smallest full packet of QUIC, and its pong is as long: what passes then will carry more
//! than small talk. Nothing that is sent is longer than what it answers.

use std::net::SocketAddr;

use zeroize::Zeroizing;

use crate::crypto::aead::{self, Key, OVERHEAD_BYTES};
use crate::nat::address::{put_address, take_address};

/// The first byte: of our share of the socket (4 to 15).
const FIRST: u8 = 4;
const TAG_BYTES: usize = 8;
const HEADER_BYTES: usize = 1 + TAG_BYTES + 8;

/// A packet with a small ping or pong.
pub(super) const SMALL_BYTES: usize = HEADER_BYTES + 1 + 8 + OVERHEAD_BYTES;

/// QUIC's smallest full packet, which every path that carries it must take (RFC 9000, section 14).
pub(super) const FULL_BYTES: usize = 1_200;

/// Addresses that a peer may name at once: two families on some interfaces, and what is outside.
pub const CANDIDATES_MAX: usize = 8;

/// Addresses that a peer may name for TCP: its own and what is outside, of two families.
pub const TCP_CANDIDATES_MAX: usize = 4;

/// Of the family of an address for TCP.
const TCP_MARK: u8 = 0x10;

/// A message; see the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// "Are you there?"
    Ping {
        /// Says which question an answer is to.
        transaction: u64,
        /// Bytes of zeros behind it.
        padding: usize,
    },
    /// "I am."
    Pong {
        /// The ping's.
        transaction: u64,
        /// The ping's.
        padding: usize,
    },
    /// "I may be reached there; try now, as I do."
    Candidates {
        /// Whether the other's have come, over this connection or an earlier one: it need not name them again.
        has_heard: bool,
        /// Where it takes datagrams.
        udp: Vec<SocketAddr>,
        /// From where it connects by TCP, now.
        tcp: Vec<SocketAddr>,
    },
    /// "I expect to be seen there by whom I ask next: ask me there, out of many ports, as I do."
    Guess {
        /// Where.
        at: SocketAddr,
        /// Whether the other has named such an address, and need not be asked for one.
        is_answer: bool,
    },
}

impl Message {
    /// Appends the message to `out`.
    ///
    /// # Panics
    /// With more than [`CANDIDATES_MAX`] addresses for UDP, or [`TCP_CANDIDATES_MAX`] for TCP.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Ping { transaction, padding } | Message::Pong { transaction, padding } => {
                out.push(if matches!(self, Message::Ping { .. }) { 1 } else { 2 });
                out.extend_from_slice(&transaction.to_be_bytes());
                out.resize(out.len() + padding, 0);
            }
            Message::Candidates { has_heard, udp, tcp } => {
                assert!(udp.len() <= CANDIDATES_MAX, "{} candidates", udp.len());
                assert!(tcp.len() <= TCP_CANDIDATES_MAX, "{} candidates for TCP", tcp.len());
                out.extend_from_slice(&[3, u8::from(*has_heard), (udp.len() + tcp.len()) as u8]);
                udp.iter().for_each(|address| put_address(out, *address, 0));
                tcp.iter().for_each(|address| put_address(out, *address, TCP_MARK));
            }
            Message::Guess { at, is_answer } => {
                out.extend_from_slice(&[4, u8::from(*is_answer)]);
                put_address(out, *at, 0);
            }
        }
    }

    /// The message that these bytes are; `None` if they are none.
    pub fn parse(bytes: &[u8]) -> Option<Message> {
        let (&kind, body) = bytes.split_first()?;
        match kind {
            1 | 2 => {
                let (transaction, zeros) = body.split_first_chunk()?;
                let (transaction, padding) = (u64::from_be_bytes(*transaction), zeros.len());
                let is_padding = zeros.iter().all(|byte| *byte == 0);
                is_padding.then_some(if kind == 1 {
                    Message::Ping { transaction, padding }
                } else {
                    Message::Pong { transaction, padding }
                })
            }
            3 => {
                let (&[has_heard, count], mut rest) = body.split_first_chunk()?;
                let (mut udp, mut tcp) = (Vec::new(), Vec::new());
                while udp.len() < CANDIDATES_MAX
                    && let Some(address) = take_address(&mut rest, 0)
                {
                    udp.push(address);
                }
                while tcp.len() < TCP_CANDIDATES_MAX
                    && let Some(address) = take_address(&mut rest, TCP_MARK)
                {
                    tcp.push(address);
                }
                let is_whole =
                    rest.is_empty() && udp.len() + tcp.len() == usize::from(count) && has_heard <= 1;
                is_whole.then_some(Message::Candidates { has_heard: has_heard == 1, udp, tcp })
            }
            4 => {
                let (&is_answer, mut rest) = body.split_first()?;
                let at = take_address(&mut rest, 0)?;
                (rest.is_empty() && is_answer <= 1)
                    .then_some(Message::Guess { at, is_answer: is_answer == 1 })
            }
            _ => None,
        }
    }
}

/// Which session a packet is of: says where to look for its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionTag([u8; TAG_BYTES]);

impl SessionTag {
    /// What a packet names, if it is long enough and not too long.
    pub(super) fn of(packet: &[u8]) -> Option<SessionTag> {
        let is_ours = packet.first() == Some(&FIRST)
            && (HEADER_BYTES + OVERHEAD_BYTES..=FULL_BYTES).contains(&packet.len());
        is_ours.then(|| SessionTag(packet[1..=TAG_BYTES].try_into().expect("so many bytes")))
    }
}

/// The keys of one connection.
pub(super) struct Session {
    tag: SessionTag,
    sealing: Key,
    opening: Key,
    next_sequence: u64,
    seen: Seen,
}

/// What a connection has to export for a session.
pub(super) const MATERIAL_BYTES: usize = TAG_BYTES + 64;

impl Session {
    /// Both ends have the same `material`, and are told apart by who dialled.
    pub(super) fn new(material: &Zeroizing<[u8; MATERIAL_BYTES]>, is_dialler: bool) -> Session {
        let part =
            |at: usize| Zeroizing::new(<[u8; 32]>::try_from(&material[at..at + 32]).expect("32 bytes"));
        let [of_dialler, of_other] = [part(TAG_BYTES), part(TAG_BYTES + 32)].map(|key| Key::from_bytes(*key));
        let (sealing, opening) = if is_dialler { (of_dialler, of_other) } else { (of_other, of_dialler) };
        let tag = SessionTag(material[..TAG_BYTES].try_into().expect("so many bytes"));
        Session { tag, sealing, opening, next_sequence: 0, seen: Seen::default() }
    }

    pub(super) fn tag(&self) -> SessionTag {
        self.tag
    }

    /// The packet that carries a message.
    pub(super) fn seal(&mut self, message: &Message) -> Vec<u8> {
        let mut header = [0; HEADER_BYTES];
        header[0] = FIRST;
        header[1..=TAG_BYTES].copy_from_slice(&self.tag.0);
        header[1 + TAG_BYTES..].copy_from_slice(&self.next_sequence.to_be_bytes());
        let mut sealed = Vec::new();
        message.encode(&mut sealed);
        aead::encrypt_in_place(&self.sealing, &nonce(self.next_sequence), &header, &mut sealed);
        self.next_sequence += 1;
        [&header[..], &sealed].concat()
    }

    /// The message in a packet of the peer's, which nobody can have made but the peer; `None` for anything else, and the
    /// second time.
    pub(super) fn open(&mut self, packet: &[u8]) -> Option<Message> {
        let (header, sealed) = packet.split_at_checked(HEADER_BYTES)?;
        let sequence = u64::from_be_bytes(*header.last_chunk()?);
        if !self.seen.is_new(sequence) {
            return None;
        }
        let mut message = sealed.to_vec();
        aead::decrypt_in_place(&self.opening, &nonce(sequence), header, &mut message).ok()?;
        // Only what the peer sealed may move the window.
        self.seen.note(sequence);
        Message::parse(&message)
    }
}

fn nonce(sequence: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&sequence.to_be_bytes());
    nonce
}

/// Which sequence numbers have been seen: the newest, and of the 64 before it each by a bit. Older ones count as seen.
#[derive(Default)]
struct Seen {
    /// One beyond the newest.
    end: u64,
    bits: u64,
}

impl Seen {
    fn is_new(&self, sequence: u64) -> bool {
        match self.end.checked_sub(sequence) {
            // The last one of all could not be noted.
            None | Some(0) => sequence < u64::MAX,
            Some(back) => back <= 64 && self.bits >> (back - 1) & 1 == 0,
        }
    }

    fn note(&mut self, sequence: u64) {
        if sequence >= self.end {
            let ahead = sequence - self.end + 1;
            self.bits = if ahead >= 64 { 0 } else { self.bits << ahead };
            self.end = sequence + 1;
        }
        let back = self.end - sequence;
        if (1..=64).contains(&back) {
            self.bits |= 1 << (back - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn pair() -> (Session, Session) {
        let material = Zeroizing::new(std::array::from_fn(|at| at as u8));
        (Session::new(&material, true), Session::new(&material, false))
    }

    const PING: Message = Message::Ping { transaction: 7, padding: 0 };

    fn all() -> Vec<Message> {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let both = vec![address("192.0.2.1:443"), address("[2001:db8::1]:65535")];
        vec![
            PING,
            Message::Ping { transaction: u64::MAX, padding: FULL_BYTES - SMALL_BYTES },
            Message::Pong { transaction: 0, padding: 3 },
            Message::Candidates { has_heard: false, udp: vec![], tcp: vec![] },
            Message::Candidates { has_heard: true, udp: both.clone(), tcp: vec![] },
            Message::Candidates { has_heard: true, udp: both.clone(), tcp: both.clone() },
            Message::Candidates { has_heard: false, udp: vec![], tcp: both.clone() },
            Message::Guess { at: both[0], is_answer: false },
            Message::Guess { at: both[1], is_answer: true },
        ]
    }

    #[test]
    fn messages_arrive_as_they_were_and_only_once() {
        let (mut dialler, mut other) = pair();
        for message in all() {
            let packet = dialler.seal(&message);
            assert_eq!(SessionTag::of(&packet), Some(dialler.tag()));
            assert_eq!(other.open(&packet), Some(message));
            assert_eq!(other.open(&packet), None, "a packet that is repeated says nothing");
        }
        assert_eq!(dialler.seal(&PING).len(), SMALL_BYTES);
        assert_eq!(dialler.seal(&all()[1]).len(), FULL_BYTES);
    }

    #[test]
    fn what_is_reflected_forged_or_changed_says_nothing() {
        let (mut dialler, mut other) = pair();
        let packet = dialler.seal(&PING);
        assert_eq!(dialler.open(&packet), None, "its own, sent back");
        for at in 0..packet.len() {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            assert_eq!(other.open(&changed), None, "byte {at}");
        }
        for size in 0..packet.len() {
            assert_eq!(other.open(&packet[..size]), None);
        }
        // None of these has moved the window.
        assert_eq!(other.open(&packet), Some(PING));
        let stranger = Session::new(&Zeroizing::new([9; MATERIAL_BYTES]), true).seal(&PING);
        assert_eq!(other.open(&stranger), None);
    }

    #[test]
    fn what_is_no_message_is_none() {
        for bytes in [
            &[][..],
            &[0],
            &[1, 0],
            &[2, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[3],
            &[3, 1],
            &[3, 0, 0, 0],
            &[3, 2, 0],
            &[3, 0, 1, 5],
            &[4],
            &[4, 0],
            &[4, 2, 4, 192, 0, 2, 1, 0, 80],
            &[4, 0, 4, 192, 0, 2, 1, 0, 80, 0],
        ] {
            assert_eq!(Message::parse(bytes), None, "{bytes:?}");
        }
        for (family, most) in [(4, CANDIDATES_MAX), (4 | TCP_MARK, TCP_CANDIDATES_MAX)] {
            let mut many = vec![3, 0, most as u8 + 1];
            many.extend([family, 192, 0, 2, 1, 0, 80].repeat(most + 1));
            assert_eq!(Message::parse(&many), None);
        }
        // One way to write it: those for UDP come first.
        let mixed = [&[3, 0, 2][..], &[4 | TCP_MARK, 1, 2, 3, 4, 0, 80], &[4, 1, 2, 3, 4, 0, 80]].concat();
        assert_eq!(Message::parse(&mixed), None);
        for message in all() {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(Message::parse(&bytes), Some(message));
        }
    }

    proptest! {
        #[test]
        fn a_sequence_number_is_new_once_and_old_ones_are_never(numbers in prop::collection::vec(0..300_u64, 0..200)) {
            let (mut seen, mut model, mut newest) = (Seen::default(), BTreeSet::new(), None);
            for number in numbers {
                let is_recent = newest.is_none_or(|newest: u64| number + 64 > newest);
                prop_assert_eq!(seen.is_new(number), is_recent && !model.contains(&number));
                if seen.is_new(number) {
                    seen.note(number);
                    model.insert(number);
                    newest = newest.max(Some(number));
                }
            }
        }
    }
}
