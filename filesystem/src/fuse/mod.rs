//! FUSE straight over `/dev/fuse`: no libfuse, no threads of its own, no callbacks.
//!
//! Bytes become typed requests in one place ([`mod@parse`]), typed replies become bytes in another ([`reply`]), between
//! them plain code calls the file system ([`dispatch`]), and two files do I/O: [`session`] and the pool of coroutines
//! that serve it. The first three are pure.
//!
//! The kernel holds the other half of this design, its caches: names, also those that are missing, attributes, pages. What
//! is not asked costs nothing; how much may stay unasked follows from who else writes
//! ([`Sharing`](crate::operations::Sharing)). What was written is never kept there.

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
mod signals;
mod spin;

pub use notify::Notifier;
pub use session::{Session, SessionError};
