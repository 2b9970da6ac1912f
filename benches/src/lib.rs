//! Programs that run the same work on this stack and on its peers, side by side.
//!
//! - `cargo run --release -p benches --bin echo`: our echo server beside those of may, mio, tokio, monoio and Asio.
//! - `cargo run --release -p benches --bin coroutine`: what a switch, a spawn or a message costs, beside may and tokio.
//! - `cargo run --release -p benches --bin drive`: our drive beside other file systems in user space.
//! - `cargo run --release -p benches --bin carry`: what carries bytes between two of our peers, beside rustls and quinn-proto alone.
//! - `cargo run -p benches --bin suites`: suites of tests that others wrote, on our drive and on the local file system.
//! - `cargo run -p benches --bin compare`: which figures have moved by more than noise since the last record.
//! - `cargo bench -p benches`: the same figures of ours alone, by Criterion; `cargo test --benches` runs them small.
//!
//! Each prints the workload that it ran. Rounds are interleaved, so that a slow minute of the machine hits everyone;
//! what is printed are medians over the rounds, and ratios to ours. The peers are compiled in a workspace of their
//! own (`benches/peers`), by these programs, and never by building the project.
//!
//! This library holds what the programs share. It is no API for anyone else.

#![forbid(unsafe_code)]

pub mod build;
pub mod carry;
pub mod certificate;
pub mod compare;
pub mod coroutine;
pub mod drive;
pub mod echo;
pub mod http;
pub mod idle;
pub mod plot;
pub mod process;
pub mod random;
pub mod results;
pub mod rpc;
pub mod soak;
pub mod statistics;
pub mod suites;
pub mod table;
pub mod tls;
