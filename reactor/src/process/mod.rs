//! Child processes: started, talked to over pipes, waited for and ended, without a thread each.
//!
//! ```
//! use std::io::{Read, Write};
//! use reactor::process::{Command, Stdio};
//!
//! reactor::run(|| {
//!     let mut child = Command::new("tr").args(["a-z", "A-Z"]).stdin(Stdio::Piped).stdout(Stdio::Piped).spawn().unwrap();
//!     child.stdin.take().unwrap().write_all(b"hello").unwrap(); // and closed, as it is dropped
//!     let mut answer = String::new();
//!     child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
//!     assert_eq!(answer, "HELLO");
//!     assert!(child.wait().unwrap().success());
//! });
//! ```
//!
//! **What becomes of a child.** Dropping a [`Child`] kills it, by SIGKILL, unless [`Command::leave_running`] was
//! said. So a coroutine that is terminated, or cut short by a timeout, leaves no process behind. Killed or left, it is
//! reaped when it ends: no zombie stays. If our own process dies by a signal, its children run on.
//!
//! The kernel tells of a child's end through a descriptor (`pidfd_open(2)`, Linux 5.4), which also names the process
//! when it is signalled: never another one that has been given its number since.
//!
//! What it is not: a shell, a terminal, or a sandbox.

mod child;
mod command;
mod pipe;
mod reaper;

pub use child::{Child, Output};
pub use command::{Command, Stdio};
pub use pipe::{PipeReader, PipeWriter};
