//! Who takes part, how each is built, and one round of one.

use super::report::Round;
use crate::build::{self, Rebuild};
use crate::process::{Program, free_address, threads_cpu, wait_for_listener};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// An RPC system that takes part. Ours comes first: all ratios are to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Contender {
    /// Ours; each call is handled in a coroutine of its own.
    Ours,
    /// Ours, with a handler that is declared never to suspend.
    OursInline,
    /// gRPC over tonic, current thread.
    Tonic,
    /// tarpc with bincode, current thread.
    Tarpc,
    /// gRPC's C++ library with its callback API.
    Grpc,
}

impl Contender {
    /// Returns the name that stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursInline => "ours inline",
            Self::Tonic => "tonic",
            Self::Tarpc => "tarpc",
            Self::Grpc => "gRPC C++",
        }
    }

    /// Builds its program and returns the path.
    ///
    /// # Errors
    /// Fails when it cannot be built here, or shall not be; the message says what is missing.
    pub fn build(self, rebuild: Rebuild) -> io::Result<PathBuf> {
        match self {
            Self::Ours | Self::OursInline => std::env::current_exe(),
            Self::Tonic => build::peer_of("rpc-bench", "rpc_tonic", rebuild),
            Self::Tarpc => build::peer_of("rpc-bench", "rpc_tarpc", rebuild),
            Self::Grpc => build::grpc_program(),
        }
    }
}

/// What is asked of each.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Calls that wait at once.
    pub in_flight: usize,
    /// Bytes there, and back again.
    pub size_bytes: usize,
    /// Whether over TLS 1.3.
    pub encrypted: bool,
}

/// Where and for how long.
pub struct Setting {
    /// The server's processor.
    pub server_cpu: usize,
    /// The caller's.
    pub caller_cpu: usize,
    /// How long a round is measured.
    pub duration: Duration,
    /// Where the peers' certificate lies.
    pub certificates: PathBuf,
}

/// A contender whose program has been built.
pub struct Built {
    /// Which one it is.
    pub contender: Contender,
    /// Its program.
    pub program: PathBuf,
}

impl Built {
    /// Runs one round: a new server, a new caller.
    ///
    /// # Errors
    /// Fails when either does.
    pub fn round(&self, workload: &Workload, setting: &Setting) -> io::Result<Round> {
        let address = free_address()?;
        let ours = matches!(self.contender, Contender::Ours | Contender::OursInline);
        let at = address.to_string();
        let mut serve = Command::new(&self.program);
        serve.args(["serve", &at]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut call = Command::new(&self.program);
        let numbers = [workload.in_flight.to_string(), workload.size_bytes.to_string()];
        call.args(["call", &at]).args(numbers).arg(setting.duration.as_secs_f64().to_string());
        call.stdin(Stdio::null()).stdout(Stdio::piped());
        match (ours, workload.encrypted) {
            (false, false) => {}
            (false, true) => {
                serve.arg(&setting.certificates);
                call.arg(&setting.certificates);
            }
            (true, encrypted) => {
                let cipher = if encrypted { "encrypted" } else { "plain" };
                let handler = if self.contender == Contender::OursInline { "inline" } else { "task" };
                serve.arg(cipher);
                call.args([cipher, handler]);
            }
        }
        let mut server = Program::start(&mut serve, Some(setting.server_cpu))?;
        wait_for_listener(&mut server, address)?;
        let mut caller = Program::start(&mut call, Some(setting.caller_cpu))?;
        let mut lines = BufReader::new(caller.take_output().ok_or(ErrorKind::BrokenPipe)?).lines();
        let mut next = || lines.next().unwrap_or_else(|| Err(io::Error::other("the caller ended early")));
        expect_word(&next()?, "begin")?;
        let before = threads_cpu(server.id())?;
        let end = next()?;
        let server_cpu = threads_cpu(server.id())?.saturating_sub(before);
        expect_word(&end, "end")?;
        let figures: Vec<f64> = end.split(' ').skip(1).filter_map(|word| word.parse().ok()).collect();
        match figures[..] {
            [calls, seconds, caller_cpu] if calls > 0.0 => Ok(Round {
                calls_per_second: calls / seconds,
                server_us: server_cpu.as_secs_f64() * 1e6 / calls,
                caller_us: caller_cpu * 1e6 / calls,
            }),
            _ => Err(io::Error::other(format!("no calls were made: {end}"))),
        }
    }
}

fn expect_word(line: &str, word: &str) -> io::Result<()> {
    match line.split(' ').next() == Some(word) {
        true => Ok(()),
        false => Err(io::Error::other(format!("the caller said {line:?} where {word:?} was due"))),
    }
}
