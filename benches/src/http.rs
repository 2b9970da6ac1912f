//! HTTP under wrk: `src/bin/http.rs` in parts.
//!
//! [`servers`] knows who takes part, how each is started, and asks each whether it answers rightly before anything is
//! measured; [`wrk`] runs the load and reads what it printed; [`report`] prints.
//!
//! The rule of fairness: the same two bodies with their content type and length, everything else of the answer as
//! each server has it by itself; one thread, on one processor; wrk with one thread on another.

pub mod report;
pub mod servers;
pub mod wrk;
