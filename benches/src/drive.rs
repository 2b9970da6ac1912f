//! A drive under everyday work, beside other file systems: `src/bin/drive.rs` in parts.
//!
//! [`backend`] knows who takes part and how each is created and mounted, [`mounted`] is one of them while it is
//! used, [`inputs`] prepares what is unpacked and cloned, [`work`] does the work, [`report`] prints.
//!
//! Where the processes run changes figures of a file system in user space four- to sevenfold, hence two set-ups:
//! everything on one processor over memory, which compares what the programs cost, and unpinned over the disk,
//! which is what a user sees.

pub mod backend;
pub mod inputs;
pub mod mounted;
pub mod report;
pub mod work;
