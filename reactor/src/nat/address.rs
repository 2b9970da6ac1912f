//! Addresses in our own messages. Pure.
//!
//! ```text
//! family 1: 4 or 6 | address 4 or 16 | port 2, big-endian
//! ```
//!
//! A message that has addresses of two transports adds a mark to the family of one of them.
//!
//! What it is not: STUN's way to write them, which hides them from routers that change what looks like an address; ours are
//! sealed.

use std::net::{IpAddr, SocketAddr};

/// Appends the address to `out`, its family with `mark`.
pub(super) fn put_address(out: &mut Vec<u8>, address: SocketAddr, mark: u8) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4 | mark);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6 | mark);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

/// Takes an address whose family has `mark` off the front of `rest`; `None`, with nothing taken, if none is there.
pub(super) fn take_address(rest: &mut &[u8], mark: u8) -> Option<SocketAddr> {
    let (&family, after) = rest.split_first()?;
    let (ip, after): (IpAddr, &[u8]) = match family ^ mark {
        4 => after.split_first_chunk::<4>().map(|(ip, after)| ((*ip).into(), after))?,
        6 => after.split_first_chunk::<16>().map(|(ip, after)| ((*ip).into(), after))?,
        _ => return None,
    };
    let (port, after) = after.split_first_chunk()?;
    *rest = after;
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}
