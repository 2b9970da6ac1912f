//! One question by UDP to a router: sent again until it is answered.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::clock::now;
use crate::net::UdpSocket;

/// The first at 250 ms, and each twice as long (RFC 6886, section 3.1), three times: a router that is there answers the first in
/// a millisecond, and whoever waits for a mapping has the relay meanwhile.
pub(super) const WAITS: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_millis(1_000)];

/// Packets that are looked at for each time the question is sent: who floods us makes us read no more.
const READS_MAX: usize = 64;

/// Room for the longest answer.
const BYTES_MAX: usize = 1_500;

/// The address of ours from which packets for `router` leave; `None` if none can. Sends nothing, and never suspends.
pub(super) fn own_address_towards(router: SocketAddr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).ok()?;
    socket.connect(router).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(own) if !own.ip().is_unspecified() => Some(*own.ip()),
        _ => None,
    }
}

/// Asks `router` from `own`, by a socket of its own whose port nobody was told; `None` where nothing comes that `judge` takes
/// for an answer.
///
/// # Suspends
/// For the sum of [`WAITS`] at most.
pub(super) fn ask<T>(
    own: Ipv4Addr,
    router: SocketAddr,
    question: &[u8],
    judge: impl Fn(&[u8]) -> Option<T>,
) -> Option<T> {
    let socket = UdpSocket::bind(SocketAddr::from((own, 0))).ok()?;
    // Only the router's packets are taken then.
    socket.connect(router).ok()?;
    let mut buffer = [0; BYTES_MAX];
    for wait in WAITS {
        // One that can't be sent is as good as lost.
        let _ = socket.send(question);
        socket.set_read_deadline(Some(now() + wait));
        for _ in 0..READS_MAX {
            match socket.recv(&mut buffer) {
                Ok(size) => {
                    if let Some(answer) = judge(&buffer[..size]) {
                        return Some(answer);
                    }
                }
                // The router's kernel says that nobody listens there.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return None,
                Err(_) => break,
            }
        }
    }
    None
}
