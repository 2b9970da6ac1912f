//! Sockets that suspend the coroutine where the standard library's block the thread.
//!
//! All implement `Read` and `Write` for shared references too, so that one coroutine may read a connection
//! while another writes it.

mod descriptor;
mod duplex;
mod pipe;
mod raw_public_key;
mod tcp;
pub mod tls;
mod udp;
mod unix;

pub use descriptor::Descriptor;
pub(crate) use descriptor::Readiness;
pub use duplex::{Duplex, WriteOnce};
pub use pipe::{Pipe, pipe};
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixDatagram, UnixListener, UnixStream};
