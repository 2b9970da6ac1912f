//! The Port Control Protocol (RFC 6887), as far as a client needs it: MAP, and ANNOUNCE to ask whether the router has
//! forgotten. Pure.
//!
//! ```text
//! request   version 2 | opcode | reserved 2 | lifetime 4 | client's address 16
//! answer    version 2 | opcode + 0x80 | reserved 1 | result | lifetime 4 | epoch 4 | reserved 12
//! MAP       nonce 12 | transport | reserved 3 | internal port 2 | external port 2 | external address 16
//! ```
//!
//! A router proves nothing. What is taken for its answer has the nonce of the question, which nobody saw who is not on the way to
//! it, and comes from its address, which whoever receives it has to look at.
//!
//! What it is not: PEER, THIRD_PARTY, FILTER or any option: none is sent, and those of an answer are passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

use super::{Port, Transport};

const VERSION: u8 = 2;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
const ANSWER: u8 = 0x80;

const HEADER_BYTES: usize = 24;
const MAP_BYTES: usize = 36;

/// No message is longer (RFC 6887, section 7).
pub const BYTES_MAX: usize = 1_100;

/// "This version is not spoken here", which NAT-PMP says by the same number.
pub const UNSUPPORTED_VERSION: u8 = 1;

/// What tells a question of ours from everybody else's.
pub type Nonce = [u8; 12];

/// A request to map a port; `lifetime_s` 0 gives the mapping up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// Says which mapping it is about: the same at each renewal.
    pub nonce: Nonce,
    /// From where it is sent, and what is mapped.
    pub own: Ipv4Addr,
    /// What is mapped.
    pub port: Port,
    /// For how long.
    pub lifetime_s: u32,
    /// Which outside port would be best.
    pub suggested: SocketAddrV4,
}

impl MapRequest {
    /// The packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut packet = header(MAP, self.lifetime_s, self.own);
        packet.extend_from_slice(&self.nonce);
        packet.extend_from_slice(&[self.port.transport.number(), 0, 0, 0]);
        packet.extend_from_slice(&self.port.number.to_be_bytes());
        packet.extend_from_slice(&self.suggested.port().to_be_bytes());
        packet.extend_from_slice(&self.suggested.ip().to_ipv6_mapped().octets());
        packet
    }

    /// What an answer says to it; `None` if it answers something else.
    #[must_use]
    pub fn answered_by(&self, answer: &Answer) -> Option<Result<Mapped, u8>> {
        let Answer { result, map, .. } = answer;
        match map {
            Some((nonce, port, mapped)) if *nonce == self.nonce && *port == self.port => {
                Some(if *result == 0 { Ok(*mapped) } else { Err(*result) })
            }
            // A router that does not speak this has no more to say than that.
            None if *result == UNSUPPORTED_VERSION => Some(Err(UNSUPPORTED_VERSION)),
            _ => None,
        }
    }
}

/// "Are you the one that you were?"
#[must_use]
pub fn announce(own: Ipv4Addr) -> Vec<u8> {
    header(ANNOUNCE, 0, own)
}

fn header(opcode: u8, lifetime_s: u32, own: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![VERSION, opcode, 0, 0];
    packet.extend_from_slice(&lifetime_s.to_be_bytes());
    packet.extend_from_slice(&own.to_ipv6_mapped().octets());
    packet
}

/// A mapping that a router grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// What others dial.
    pub external: SocketAddrV4,
    /// For how long it is granted.
    pub lifetime_s: u32,
}

/// What a router says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0 for yes; else why not (RFC 6887, section 7.4).
    pub result: u8,
    /// Seconds since it last forgot all mappings; `None` from one that speaks another version, whose header ends before that.
    pub epoch_s: Option<u32>,
    /// To whose question about which port, and what is mapped.
    pub map: Option<(Nonce, Port, Mapped)>,
}

impl Answer {
    /// The answer that a packet is; `None` if it is none.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Answer> {
        let [version, opcode, _, result, ..] = *packet else { return None };
        if packet.len() > BYTES_MAX || opcode & ANSWER == 0 {
            return None;
        }
        if version != VERSION {
            // NAT-PMP's word for it: version 0, and the result in the next two bytes (RFC 6886, section 3.5).
            let is_refusal = version == 0 && result == UNSUPPORTED_VERSION && packet.len() >= 8;
            return is_refusal.then_some(Answer { result, epoch_s: None, map: None });
        }
        if packet.len() < HEADER_BYTES || !packet.len().is_multiple_of(4) {
            return None;
        }
        let word = |at: usize| u32::from_be_bytes(packet[at..at + 4].try_into().expect("four bytes"));
        let epoch_s = Some(word(8));
        let map = match opcode & !ANSWER {
            MAP if packet.len() >= HEADER_BYTES + MAP_BYTES => {
                Some(parse_map(&packet[HEADER_BYTES..], word(4))?)
            }
            MAP if result == 0 => return None,
            MAP | ANNOUNCE => None,
            _ => return None,
        };
        Some(Answer { result, epoch_s, map })
    }
}

fn parse_map(body: &[u8], lifetime_s: u32) -> Option<(Nonce, Port, Mapped)> {
    let nonce = body[..12].try_into().expect("so many bytes");
    let transport = Transport::of(body[12])?;
    let number = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let address: [u8; 16] = body[20..36].try_into().expect("so many bytes");
    let IpAddr::V4(external) = IpAddr::V6(Ipv6Addr::from(address)).to_canonical() else { return None };
    let external = SocketAddrV4::new(external, number(18));
    Some((nonce, Port { transport, number: number(16) }, Mapped { external, lifetime_s }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: MapRequest = MapRequest {
        nonce: [7; 12],
        own: Ipv4Addr::new(192, 168, 1, 11),
        port: Port { transport: Transport::Udp, number: 4701 },
        lifetime_s: 3_600,
        suggested: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 4701),
    };

    /// What a router grants to [`REQUEST`].
    fn granted() -> Vec<u8> {
        let mut packet = REQUEST.encode();
        packet[1] |= ANSWER;
        packet[4..8].copy_from_slice(&1_800_u32.to_be_bytes());
        packet[8..12].copy_from_slice(&99_u32.to_be_bytes());
        packet[12..24].fill(0);
        packet[42..44].copy_from_slice(&50_000_u16.to_be_bytes());
        packet[44..60].copy_from_slice(&Ipv4Addr::new(11, 0, 1, 2).to_ipv6_mapped().octets());
        packet
    }

    #[test]
    fn a_request_is_as_the_standard_has_it() {
        let packet = REQUEST.encode();
        assert_eq!(packet.len(), HEADER_BYTES + MAP_BYTES);
        assert_eq!(packet[..8], [2, 1, 0, 0, 0, 0, 0x0e, 0x10]);
        assert_eq!(packet[18..24], [0xff, 0xff, 192, 168, 1, 11]);
        assert_eq!(packet[36..44], [17, 0, 0, 0, 0x12, 0x5d, 0x12, 0x5d]);
        assert_eq!(packet[54..60], [0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(announce(REQUEST.own).len(), HEADER_BYTES);
    }

    #[test]
    fn what_is_granted_is_read_and_only_as_an_answer_to_what_was_asked() {
        let answer = Answer::parse(&granted()).unwrap();
        let mapped = Mapped { external: "11.0.1.2:50000".parse().unwrap(), lifetime_s: 1_800 };
        assert_eq!((answer.epoch_s, REQUEST.answered_by(&answer)), (Some(99), Some(Ok(mapped))));
        let others = [
            MapRequest { nonce: [8; 12], ..REQUEST },
            MapRequest { port: Port { number: 4702, ..REQUEST.port }, ..REQUEST },
            MapRequest { port: Port { transport: Transport::Tcp, ..REQUEST.port }, ..REQUEST },
        ];
        assert!(others.iter().all(|other| other.answered_by(&answer).is_none()));
        let mut refused = granted();
        refused[3] = 8;
        assert_eq!(REQUEST.answered_by(&Answer::parse(&refused).unwrap()), Some(Err(8)));
    }

    #[test]
    fn an_older_router_says_that_it_speaks_another_version() {
        let answer = Answer::parse(&[0, 0x80, 0, 1, 0, 0, 0, 9]).unwrap();
        assert_eq!(REQUEST.answered_by(&answer), Some(Err(UNSUPPORTED_VERSION)));
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        let packet = granted();
        for size in 0..packet.len() {
            assert_eq!(Answer::parse(&packet[..size]), None, "{size} bytes");
        }
        assert_eq!(Answer::parse(&REQUEST.encode()), None, "a question is none");
        let mut long = packet.clone();
        long.resize(BYTES_MAX + 4, 0);
        assert_eq!(Answer::parse(&long), None);
        let mut v6 = packet;
        v6[44] = 0x20;
        assert_eq!(Answer::parse(&v6), None, "we have asked for an IPv4 address");
    }
}
