//! Who takes part, and how each is built and started.

use crate::build;
use crate::process::{Program, free_address, wait_for_listener};
use clap::ValueEnum;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// An echo server that takes part. Ours comes first: all ratios are to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Server {
    /// This project's `echo-server`, as a user would start it.
    Ours,
    /// may's own sockets and poller, one worker.
    May,
    /// Callbacks by hand over mio.
    Mio,
    /// tokio, current thread.
    Tokio,
    /// monoio: io_uring where the kernel has it.
    Monoio,
    /// C++ Asio, callbacks.
    Asio,
}

impl Server {
    /// Returns the name that stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::May => "may",
            Self::Mio => "mio callbacks",
            Self::Tokio => "tokio",
            Self::Monoio => "monoio",
            Self::Asio => "asio callbacks",
        }
    }

    /// Builds the server's program and returns its path.
    ///
    /// # Errors
    /// Fails when it cannot be built here; the message says what is missing.
    pub fn build(self) -> io::Result<PathBuf> {
        match self {
            Self::Ours => build::own_program("echo-server", "echo-server"),
            Self::May => build::peer_program("echo_may"),
            Self::Mio => build::peer_program("echo_mio"),
            Self::Tokio => build::peer_program("echo_tokio"),
            Self::Monoio => build::peer_program("echo_monoio"),
            Self::Asio => build::asio_program(),
        }
    }
}

/// A server that has been built.
pub struct Built {
    /// Which one it is.
    pub server: Server,
    /// Its program.
    pub program: PathBuf,
}

/// A server that accepts connections; it ends when this is dropped.
pub struct Running {
    /// Its process.
    pub process: Program,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Built {
    /// Starts the server on the processor `cpu` and waits until it accepts.
    ///
    /// # Errors
    /// Fails when it does not start, or ends or stays silent instead of listening.
    pub fn start(&self, cpu: usize) -> io::Result<Running> {
        self.start_at(Ipv4Addr::LOCALHOST, cpu)
    }

    /// As [`Built::start`], listening at `host`.
    ///
    /// # Errors
    /// As [`Built::start`].
    pub fn start_at(&self, host: Ipv4Addr, cpu: usize) -> io::Result<Running> {
        let address = SocketAddr::from((host, free_address()?.port()));
        let mut command = Command::new(&self.program);
        command.args(["--listen", &address.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Program::start(&mut command, Some(cpu))?;
        wait_for_listener(&mut process, address)?;
        Ok(Running { process, address })
    }
}
