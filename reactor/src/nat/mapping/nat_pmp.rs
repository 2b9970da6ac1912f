//! The NAT Port Mapping Protocol (RFC 6886), which older routers speak at the port of PCP. Pure.
//!
//! ```text
//! what is my address?   0 | 0                      answer  0 | 128 | result 2 | epoch 4 | address 4
//! map                   0 | 1 (UDP) or 2 (TCP) |   answer  0 | 129 or 130 | result 2 | epoch 4 | internal port 2 |
//!                       reserved 2 | internal              external port 2 | lifetime 4
//!                       port 2 | external port
//!                       2 | lifetime 4
//! ```
//!
//! Nothing in an answer says which question it is to, but the port: whoever sends from the router's address can make one up. So
//! the socket that asks has a port that nobody was told, and one question.

use std::net::Ipv4Addr;

use super::{Port, Transport};

const ADDRESS: u8 = 0;
const ANSWER: u8 = 128;

/// The question for the router's outside address.
pub const ADDRESS_REQUEST: [u8; 2] = [0, ADDRESS];

/// The longest answer.
pub const BYTES_MAX: usize = 16;

fn opcode(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 1,
        Transport::Tcp => 2,
    }
}

/// The request to map a port; `lifetime_s` 0 gives the mapping up, and then no outside port is named.
#[must_use]
pub fn map_request(port: Port, suggested: u16, lifetime_s: u32) -> [u8; 12] {
    let mut packet = [0; 12];
    packet[1] = opcode(port.transport);
    packet[4..6].copy_from_slice(&port.number.to_be_bytes());
    packet[6..8].copy_from_slice(&(if lifetime_s == 0 { 0 } else { suggested }).to_be_bytes());
    packet[8..12].copy_from_slice(&lifetime_s.to_be_bytes());
    packet
}

/// What a router says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0 for yes; else why not (RFC 6886, section 3.5).
    pub result: u16,
    /// Seconds since it last forgot all mappings.
    pub epoch_s: u32,
    /// What it tells, where the result is 0.
    pub body: Option<Body>,
}

/// What a router tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Its outside address.
    Address(Ipv4Addr),
    /// A mapping.
    Mapped {
        /// Of which port.
        port: Port,
        /// Under which outside port.
        external: u16,
        /// For how long.
        lifetime_s: u32,
    },
}

impl Answer {
    /// The answer that a packet is; `None` if it is none.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Answer> {
        let (header, rest) = packet.split_first_chunk::<8>()?;
        let [0, opcode, ..] = *header else { return None };
        let result = u16::from_be_bytes([header[2], header[3]]);
        let epoch_s = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let transport = match opcode.checked_sub(ANSWER)? {
            ADDRESS => None,
            1 => Some(Transport::Udp),
            2 => Some(Transport::Tcp),
            _ => return None,
        };
        let body = match (result, transport) {
            (0, None) => Some(Body::Address((*rest.first_chunk::<4>()?).into())),
            (0, Some(transport)) => {
                let [a, b, c, d, e, f, g, h] = *rest.first_chunk::<8>()?;
                Some(Body::Mapped {
                    port: Port { transport, number: u16::from_be_bytes([a, b]) },
                    external: u16::from_be_bytes([c, d]),
                    lifetime_s: u32::from_be_bytes([e, f, g, h]),
                })
            }
            _ => None,
        };
        Some(Answer { result, epoch_s, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: Port = Port { transport: Transport::Tcp, number: 4701 };

    #[test]
    fn a_request_is_as_the_standard_has_it() {
        assert_eq!(map_request(PORT, 4702, 3_600), [0, 2, 0, 0, 0x12, 0x5d, 0x12, 0x5e, 0, 0, 0x0e, 0x10]);
        assert_eq!(map_request(PORT, 4702, 0)[6..], [0; 6], "who gives up a mapping names no outside port");
    }

    #[test]
    fn answers_are_read_and_what_is_cut_off_is_none() {
        let address = [0, 128, 0, 0, 0, 0, 0, 9, 11, 0, 1, 2];
        let mapped = [0, 130, 0, 0, 0, 0, 0, 9, 0x12, 0x5d, 0x12, 0x5e, 0, 0, 0x0e, 0x10];
        let body = Some(Body::Address(Ipv4Addr::new(11, 0, 1, 2)));
        assert_eq!(Answer::parse(&address), Some(Answer { result: 0, epoch_s: 9, body }));
        let body = Some(Body::Mapped { port: PORT, external: 4702, lifetime_s: 3_600 });
        assert_eq!(Answer::parse(&mapped), Some(Answer { result: 0, epoch_s: 9, body }));
        for whole in [&address[..], &mapped] {
            assert!((0..whole.len()).all(|size| Answer::parse(&whole[..size]).is_none()));
        }
        let refused = Answer::parse(&[0, 129, 0, 3, 0, 0, 0, 9]).unwrap();
        assert_eq!((refused.result, refused.body), (3, None));
        for other in [[2, 128, 0, 0, 0, 0, 0, 9], [0, 1, 0, 0, 0, 0, 0, 9], [0, 131, 0, 0, 0, 0, 0, 9]] {
            assert_eq!(Answer::parse(&other), None);
        }
    }
}
