//! Places for servers that others wrote: those listen where they are told, and can't be asked for a free port.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

/// A place in 127.0.0.0/8 that nobody else is told, and where nothing has listened before.
///
/// Not a port that was bound and let go: what another test starts in between holds a copy of the listener from its
/// fork to its exec. Until then that copy takes connections, and ends them with a reset; and the server that is to
/// have the port finds it taken.
pub(crate) fn own_place() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let ours = 100 + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
    // Below the ports that the kernel gives to connections, so that none comes from it.
    SocketAddr::from((Ipv4Addr::new(127, ours, high, low), 18_473))
}
