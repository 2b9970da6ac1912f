//! The same echo work against several servers: `src/bin/echo.rs` in parts.
//!
//! [`servers`] knows who takes part and starts them, [`verify`] asks each whether it really echoes before anything
//! is measured, [`load`] is the generator, [`syscalls`] counts system calls in a run apart, [`report`] prints.
//!
//! The rule of fairness: every server reads until a newline and writes that line back, with `TCP_NODELAY` and a
//! buffer per connection of 8 KiB, on one processor of its own; the generator has another. Ours has such a buffer while
//! there is something in it, and none while it waits ([`reactor::net::LineReader`]).

pub mod load;
pub mod report;
pub mod servers;
pub mod syscalls;
pub mod verify;
