//! FUSE straight over `/dev/fuse`: no libfuse, no threads of its own, no callbacks.
//!
//! Bytes become typed requests in one place ([`mod@parse`]), typed replies become bytes in another ([`reply`]), between
//! them plain code calls the file system ([`dispatch`]), and two files do I/O: [`session`] and the pool of coroutines
//! that serve it. The first three are pure.
//!
//! The kernel holds the other half of this design, its caches. Long timeouts, write-back, names that are remembered
//! as missing, opens that are never sent: what is not asked costs nothing, and it is our only writer for now.

mod abi;
pub mod dispatch;
pub mod mount_table;
pub mod negotiate;
mod notify;
pub mod parse;
mod pool;
pub mod reply;
pub mod request;
pub mod session;
mod spin;

pub use notify::Notifier;
pub use session::{Session, SessionError};
