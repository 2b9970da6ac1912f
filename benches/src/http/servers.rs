//! Who takes part, how each is built and started, and whether it answers rightly.

use crate::build::{self, Rebuild};
use crate::process::{Program, free_address, wait_for_listener};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// An HTTP server that takes part. Ours comes first: all ratios are to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Server {
    /// `reactor/examples/http_plaintext.rs`.
    Ours,
    /// may_minihttp, one worker.
    MayMinihttp,
    /// hyper 1 on tokio's current-thread runtime.
    Hyper,
    /// nginx, one process, `return 200`.
    Nginx,
}

impl Server {
    /// Returns the name that stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::MayMinihttp => "may_minihttp",
            Self::Hyper => "hyper",
            Self::Nginx => "nginx",
        }
    }

    /// Builds or finds its program and returns the path.
    ///
    /// # Errors
    /// Fails when it cannot be had here; the message says what is missing.
    pub fn build(self, rebuild: Rebuild) -> io::Result<PathBuf> {
        match self {
            Self::Ours => build::own_example("reactor", "http_plaintext"),
            Self::MayMinihttp => build::peer_of("http-bench", "http_may_minihttp", rebuild),
            Self::Hyper => build::peer_of("http-bench", "http_hyper", rebuild),
            Self::Nginx => build::find_program("nginx")
                .or_else(|| Some(PathBuf::from("/usr/sbin/nginx")).filter(|path| path.is_file()))
                .ok_or_else(|| io::Error::other("no nginx found (Debian: apt install nginx-light)")),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// A fixed body.
    Plaintext,
    /// An object, serialised for each request (nginx's is fixed too).
    Json,
}

impl Page {
    /// Both.
    pub const ALL: [Page; 2] = [Page::Plaintext, Page::Json];

    /// Returns its path.
    pub fn path(self) -> &'static str {
        match self {
            Self::Plaintext => "/plaintext",
            Self::Json => "/json",
        }
    }

    fn expected(self) -> (&'static str, &'static str) {
        match self {
            Self::Plaintext => ("text/plain", "Hello, World!"),
            Self::Json => ("application/json", r#"{"message":"Hello, World!"}"#),
        }
    }
}

/// A server whose program is there.
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
    /// Starts the server on the processor `cpu` and waits until it accepts. `scratch` is a directory for its files.
    ///
    /// # Errors
    /// Fails when it does not start, or ends or stays silent instead of listening.
    pub fn start(&self, cpu: usize, scratch: &Path) -> io::Result<Running> {
        let address = free_address()?;
        let mut command = Command::new(&self.program);
        match self.server {
            Server::Ours => {
                command.arg(address.port().to_string());
            }
            Server::Nginx => {
                let path = scratch.join("nginx.conf");
                std::fs::write(&path, nginx_configuration(address, scratch))?;
                command.arg("-c").arg(path).arg("-p").arg(scratch).arg("-e").arg(scratch.join("nginx.log"));
            }
            Server::MayMinihttp | Server::Hyper => {
                command.args(["--listen", &address.to_string()]);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Program::start(&mut command, Some(cpu))?;
        wait_for_listener(&mut process, address)?;
        Ok(Running { process, address })
    }
}

/// One process that serves by itself, logs nothing, and never closes a connection for its age.
fn nginx_configuration(address: SocketAddr, scratch: &Path) -> String {
    let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("  {name}_temp_path {}/{name};\n", scratch.display()))
        .collect();
    let pages: String = Page::ALL
        .into_iter()
        .map(|page| {
            let (kind, body) = page.expected();
            format!("    location = {} {{ default_type {kind}; return 200 '{body}'; }}\n", page.path())
        })
        .collect();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {0}/nginx.pid;\nerror_log {0}/nginx.log crit;\n\
         events {{ worker_connections 2048; }}\n\
         http {{\n  access_log off;\n  tcp_nodelay on;\n  keepalive_requests 1000000000;\n{places}  server {{\n    \
         listen {address};\n{pages}  }}\n}}\n",
        scratch.display()
    )
}

/// Asks a server for both pages, one connection, and compares the answers.
///
/// # Errors
/// Fails when an answer is not what it should be.
pub fn verify(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    for page in Page::ALL {
        let (kind, body) = page.expected();
        write!(stream, "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", page.path())?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(body.as_bytes()) {
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => answer.extend_from_slice(&buffer[..count]),
                _ => break,
            }
        }
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        let right = text.starts_with("http/1.1 200 ")
            && text.contains(&format!("content-type: {kind}"))
            && text.contains(&format!("content-length: {}\r\n", body.len()))
            && text.ends_with(&format!("\r\n\r\n{}", body.to_lowercase()));
        if !right {
            return Err(io::Error::other(format!("{} was answered with {text:?}", page.path())));
        }
    }
    Ok(())
}
