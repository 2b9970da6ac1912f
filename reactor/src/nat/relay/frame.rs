//! The bytes between a relay and its clients: frames in a TLS stream. Pure.
//!
//! ```text
//! offset  size
//!      0     2  bytes that follow, big-endian
//!      2     1  kind
//!      3        body
//!
//! kind               body                            who says it
//! 1  Hello           number 8, credential up to 4 KiB   the client, once and first: which of its seats it takes
//! 2  Welcome         address 7 or 19                 the relay: the client can be reached from now on, and is seen there
//! 3  Refused         1 byte: why                     the relay, last
//! 4  Datagram        seat 40, datagram up to 1,500   the client: for that seat; the relay: from that seat
//! 5  Absent          seat 40                         the relay: what was for that seat went nowhere
//! 6  Ping                                            the client; between two peers, either
//! 7  Pong                                            the relay; between two peers, the other
//! ```
//!
//! A seat is the peer's id, 32 bytes, and a number, 8 bytes ([`Seat`]). An address is written as in `nat/address.rs`. Two peers
//! who have met by TCP send each other datagrams in the same frames, and pings, from the start.
//!
//! What it is not: a check of who sends what. TLS proves who the client is, and the relay writes that into what it
//! passes on; a client can't claim to be another, since there is no place to say so.

use std::net::SocketAddr;

use super::seat::Seat;
use crate::nat::PeerId;
use crate::nat::address::{put_address, take_address};

/// The longest datagram: what an Ethernet carries, and so more than QUIC ever finds a path to take.
pub const DATAGRAM_BYTES_MAX: usize = 1_500;

/// The longest credential: a passport with its signatures is a few hundred bytes.
pub const CREDENTIAL_BYTES_MAX: usize = 4 << 10;

const LENGTH_BYTES: usize = 2;
const NUMBER_BYTES: usize = 8;

/// The longest body with its kind: a `Hello`.
const CONTENT_BYTES_MAX: usize = 1 + NUMBER_BYTES + CREDENTIAL_BYTES_MAX;

/// Why a relay does not take a client, or takes it no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It takes others only: its members, say.
    NotAdmitted,
    /// It has as many clients as it takes.
    Full,
    /// The same identity has taken that seat anew.
    Replaced,
}

impl Refusal {
    const ALL: [Refusal; 3] = [Refusal::NotAdmitted, Refusal::Full, Refusal::Replaced];

    fn number(self) -> u8 {
        match self {
            Refusal::NotAdmitted => 1,
            Refusal::Full => 2,
            Refusal::Replaced => 3,
        }
    }
}

/// A frame; see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the module's table says it")]
pub enum Frame<'a> {
    Hello { number: u64, credential: &'a [u8] },
    Welcome { seen: SocketAddr },
    Refused(Refusal),
    Datagram { seat: Seat, bytes: &'a [u8] },
    Absent { seat: Seat },
    Ping,
    Pong,
}

/// The stream is of no relay or of no client: what follows can't be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is longer than any frame may be.
    #[error("a frame of {0} bytes: it speaks another protocol than a relay's")]
    TooLong(usize),
    /// Its kind is none, or its body is not of that kind.
    #[error("a frame of kind {kind} with {bytes} bytes: it speaks another protocol, or a later version")]
    Malformed {
        /// Its first byte; 0 where there is none.
        kind: u8,
        /// The size of its body.
        bytes: usize,
    },
}

impl Frame<'_> {
    /// Appends the frame to `out`.
    ///
    /// # Panics
    /// If its credential or datagram is longer than the limit.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut address = Vec::new();
        let (kind, peer, number, rest): (u8, Option<PeerId>, Option<u64>, &[u8]) = match self {
            Frame::Hello { number, credential } => (1, None, Some(*number), credential),
            Frame::Welcome { seen } => {
                put_address(&mut address, *seen, 0);
                (2, None, None, &address)
            }
            Frame::Refused(refusal) => (3, None, None, &[refusal.number()]),
            Frame::Datagram { seat, bytes } => (4, Some(seat.peer), Some(seat.number), bytes),
            Frame::Absent { seat } => (5, Some(seat.peer), Some(seat.number), &[]),
            Frame::Ping => (6, None, None, &[]),
            Frame::Pong => (7, None, None, &[]),
        };
        let most = if kind == 1 { CREDENTIAL_BYTES_MAX } else { DATAGRAM_BYTES_MAX };
        assert!(rest.len() <= most, "a frame of {} bytes, and {most} is the most", rest.len());
        let size = 1 + peer.map_or(0, |peer| peer.0.len()) + number.map_or(0, |_| NUMBER_BYTES) + rest.len();
        out.extend_from_slice(&(size as u16).to_be_bytes());
        out.push(kind);
        peer.iter().for_each(|peer| out.extend_from_slice(&peer.0));
        number.iter().for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
        out.extend_from_slice(rest);
    }

    fn parse(content: &[u8]) -> Result<Frame<'_>, FrameError> {
        let (&kind, body) = content.split_first().ok_or(FrameError::Malformed { kind: 0, bytes: 0 })?;
        let frame = match (kind, body, take_seat(body)) {
            (1, body, _) => match body.split_first_chunk() {
                Some((number, credential)) if credential.len() <= CREDENTIAL_BYTES_MAX => {
                    Some(Frame::Hello { number: u64::from_be_bytes(*number), credential })
                }
                _ => None,
            },
            (2, mut body, _) => match take_address(&mut body, 0) {
                Some(seen) if body.is_empty() => Some(Frame::Welcome { seen }),
                _ => None,
            },
            (3, [number], _) => {
                Refusal::ALL.into_iter().find(|refusal| refusal.number() == *number).map(Frame::Refused)
            }
            (4, _, Some((seat, bytes))) if bytes.len() <= DATAGRAM_BYTES_MAX => {
                Some(Frame::Datagram { seat, bytes })
            }
            (5, _, Some((seat, []))) => Some(Frame::Absent { seat }),
            (6, [], _) => Some(Frame::Ping),
            (7, [], _) => Some(Frame::Pong),
            _ => None,
        };
        frame.ok_or(FrameError::Malformed { kind, bytes: body.len() })
    }
}

fn take_seat(body: &[u8]) -> Option<(Seat, &[u8])> {
    let (peer, rest) = body.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    Some((Seat { peer: PeerId(*peer), number: u64::from_be_bytes(*number) }, rest))
}

/// Cuts a stream into frames. Holds what was pushed and not taken: one who takes all before pushing more holds less than
/// one frame.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    taken: usize,
}

impl Decoder {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..std::mem::take(&mut self.taken));
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, if all of it is there.
    ///
    /// # Errors
    /// When the stream is none of ours; it has to be given up.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let rest = &self.buffer[self.taken..];
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let size = usize::from(u16::from_be_bytes(*length));
        if size > CONTENT_BYTES_MAX {
            return Err(FrameError::TooLong(size));
        }
        let Some(content) = rest.get(..size) else { return Ok(None) };
        self.taken += LENGTH_BYTES + size;
        Frame::parse(content).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEAT: Seat = Seat { peer: PeerId([7; 32]), number: 9 };

    fn welcome(seen: &str) -> Frame<'static> {
        Frame::Welcome { seen: seen.parse().unwrap() }
    }

    fn all() -> Vec<Frame<'static>> {
        let mut all = vec![
            Frame::Hello { number: 0, credential: b"passport" },
            Frame::Hello { number: u64::MAX, credential: &[1; CREDENTIAL_BYTES_MAX] },
            welcome("192.0.2.1:443"),
            welcome("[2001:db8::1]:65535"),
            Frame::Datagram { seat: SEAT, bytes: b"" },
            Frame::Datagram { seat: SEAT, bytes: &[3; DATAGRAM_BYTES_MAX] },
            Frame::Absent { seat: SEAT },
            Frame::Ping,
            Frame::Pong,
        ];
        all.extend(Refusal::ALL.map(Frame::Refused));
        all
    }

    #[test]
    fn what_was_encoded_comes_back_however_it_is_cut() {
        let mut bytes = Vec::new();
        all().iter().for_each(|frame| frame.encode(&mut bytes));
        for size in [1, 2, 33, 1_000, bytes.len()] {
            let (mut decoder, mut came) = (Decoder::default(), 0);
            for part in bytes.chunks(size) {
                decoder.push(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    assert_eq!(frame, all()[came]);
                    came += 1;
                }
            }
            assert_eq!(came, all().len());
            assert_eq!(decoder.buffer.len(), decoder.taken, "nothing is left");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_waited_for() {
        let of = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.next_frame().map(|frame| frame.is_some())
        };
        assert_eq!(of(&[0xff, 0xff]), Err(FrameError::TooLong(0xffff)));
        assert_eq!(of(&[0, 0]), Err(FrameError::Malformed { kind: 0, bytes: 0 }));
        for kind in [0, 1, 8, 255] {
            assert_eq!(of(&[0, 1, kind]), Err(FrameError::Malformed { kind, bytes: 0 }));
        }
        assert_eq!(of(&[0, 2, 2, 0]), Err(FrameError::Malformed { kind: 2, bytes: 1 }));
        assert_eq!(of(&[0, 1, 2]), Err(FrameError::Malformed { kind: 2, bytes: 0 }));
        assert_eq!(of(&[0, 9, 2, 4, 1, 2, 3, 4, 5, 6, 7]), Err(FrameError::Malformed { kind: 2, bytes: 8 }));
        assert_eq!(of(&[0, 2, 3, 9]), Err(FrameError::Malformed { kind: 3, bytes: 1 }));
        let mut short = vec![0, 40, 4];
        short.extend([0; 39]);
        assert_eq!(of(&short), Err(FrameError::Malformed { kind: 4, bytes: 39 }));
        let most = 32 + NUMBER_BYTES + DATAGRAM_BYTES_MAX;
        let mut long = (1 + most as u16 + 1).to_be_bytes().to_vec();
        long.resize(2 + 1 + most + 1, 4);
        assert_eq!(of(&long), Err(FrameError::Malformed { kind: 4, bytes: most + 1 }));
        assert_eq!(of(&[0, 5, 1]), Ok(false), "the rest is on its way");
    }
}
