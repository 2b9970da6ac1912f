//! Sockets that suspend the coroutine where the standard library's block the thread.
//!
//! All implement `Read` and `Write` for shared references too, so that one coroutine may read a connection
//! while another writes it.

mod accept;
mod backing;
mod descriptor;
mod destination;
mod draining;
mod duplex;
mod gate;
mod happy_eyeballs;
mod internet;
mod line_reader;
mod multicast;
mod own_addresses;
mod pipe;
#[cfg(feature = "quic")]
pub mod quic;
mod resolve;
pub(crate) mod route_changes;
mod selectable;
mod socket_options;
#[cfg(any(feature = "http", feature = "rpc"))]
mod taken;
mod tcp;
#[cfg(feature = "tls")]
pub mod tls;
mod udp;
mod unix;

pub use descriptor::Descriptor;
pub(crate) use descriptor::Readiness;
pub use destination::{Destination, IntoDestination};
pub use draining::Draining;
pub use duplex::{Duplex, PeerWatch, Presence, WriteOnce};
pub use gate::{Gate, GateLimits, Guest};
pub use happy_eyeballs::{ATTEMPT_DELAY, RESOLUTION_DELAY};
pub use internet::is_of_the_internet;
pub use line_reader::LineReader;
pub use multicast::{Interface, LocalNetwork};
pub use own_addresses::{
    OWN_ADDRESSES_MAX, OwnAddress, Told, addresses_told, all_addresses, own_addresses, source_towards,
};
pub use pipe::{Pipe, pipe};
pub use resolve::{ADDRESSES_TTL, NO_SUCH_NAME_TTL, resolve};
pub(crate) use resolve::{Family, Resolver};
pub use socket_options::{BindOptions, Keepalive, PeerCredentials};
#[cfg(any(feature = "http", feature = "rpc"))]
pub(crate) use taken::Taken;
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixDatagram, UnixListener, UnixStream};
