//! Bulk over one TLS connection: ours, and rustls alone on a blocking socket.
//!
//! Either is two processes, a sender and a receiver, each on its own processor. The sender writes pieces of a given
//! size as long as it is asked to; the receiver reads into a buffer of [`READ_SIZE_BYTES`] and says how much came.
//! Both sides of the comparison read the socket up to 256 KiB at a time, which is what our streams grow to, use the
//! same cipher (AES-256-GCM, TLS 1.3) and the same certificate, and have `TCP_NODELAY`.

use crate::certificate::{FILES, NAME};
use reactor::net::tls::{Certificate, Client, Server};
use reactor::net::{TcpListener, TcpStream};
use rustix::time::{ClockId, clock_gettime};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a receiver reads at once, from TLS and below it.
pub const READ_SIZE_BYTES: usize = 256 << 10;

/// How the sender's command line names itself: `send-bulk ours|bare ADDRESS PIECE SECONDS CERTIFICATES`.
pub const SEND: &str = "send-bulk";

/// The receiver: `receive-bulk ours|bare ADDRESS CERTIFICATES`.
pub const RECEIVE: &str = "receive-bulk";

/// Does what `words` say if they are a sender's or a receiver's command line, and returns whether they were.
///
/// # Errors
/// Fails when the connection does.
pub fn run_as_end(words: &[String]) -> io::Result<bool> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let address = |text: &str| text.parse::<SocketAddr>().map_err(io::Error::other);
    match words[..] {
        [SEND, who, at, piece, seconds, certificates] => {
            let address = address(at)?;
            let piece = vec![7u8; piece.parse().map_err(io::Error::other)?];
            let seconds = Duration::from_secs_f64(seconds.parse().map_err(io::Error::other)?);
            let certificates = PathBuf::from(certificates);
            match who {
                "ours" => reactor::run(move || {
                    let root = fs::read(certificates.join(FILES[0]))?;
                    let stream = Client::with_roots(&root)?.connect(TcpStream::connect(address)?, NAME)?;
                    send(&stream, &piece, seconds)
                })?,
                _ => {
                    send(connect_bare(address, client_config(&certificates, provider())?)?, &piece, seconds)?
                }
            }
        }
        [RECEIVE, who, at, certificates] => {
            let address = address(at)?;
            let certificates = PathBuf::from(certificates);
            match who {
                "ours" => reactor::run(move || {
                    let [chain, key] = FILES.map(|name| certificates.join(name));
                    let server = Server::new(&[Certificate::from_pem_files(chain, key)?])?;
                    let listener = TcpListener::bind(address)?;
                    loop {
                        let (stream, _) = listener.accept()?;
                        // Who only looks whether we listen sends no greeting.
                        if let Ok(stream) = server.accept(stream) {
                            return receive(&stream);
                        }
                    }
                })?,
                _ => {
                    let listener = std::net::TcpListener::bind(address)?;
                    receive(accept_bare(&listener, server_config(&certificates, provider())?)?)?;
                }
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Sends for a quarter of `duration` to warm up, then for `duration`, prints its processor time for a gigabyte, and ends the
/// process.
///
/// # Errors
/// Those of the stream.
pub fn send(mut stream: impl Write, piece: &[u8], duration: Duration) -> io::Result<()> {
    let mut run = |duration: Duration| {
        let (begin, cpu) = (Instant::now(), processor_time());
        let mut sent = 0u64;
        while begin.elapsed() < duration {
            stream.write_all(piece)?;
            stream.flush()?;
            sent += piece.len() as u64;
        }
        io::Result::Ok((begin.elapsed(), processor_time() - cpu, sent))
    };
    run(duration / 4)?;
    println!("begin");
    let (elapsed, cpu, sent) = run(duration)?;
    println!("end {sent} {} {}", elapsed.as_secs_f64(), cpu.as_secs_f64());
    io::stdout().flush()?;
    std::process::exit(0);
}

/// Reads until the sender is gone.
///
/// # Errors
/// None: that is how it ends.
pub fn receive(mut stream: impl Read) -> io::Result<()> {
    let mut buffer = vec![0; READ_SIZE_BYTES];
    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    Ok(())
}

/// What a bare client is set up with: it believes the certificate in that directory.
///
/// # Errors
/// When there is none.
pub fn client_config(certificates: &Path, provider: Arc<CryptoProvider>) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(certificates)?).map_err(io::Error::other)?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// What a bare server is set up with: it has the certificate in that directory.
///
/// # Errors
/// When there is none.
pub fn server_config(certificates: &Path, provider: Arc<CryptoProvider>) -> io::Result<ServerConfig> {
    let key = PrivateKeyDer::from_pem_file(certificates.join(FILES[1])).map_err(io::Error::other)?;
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate(certificates)?], key)
        .map_err(io::Error::other)
}

/// Connects with rustls alone. It reads the socket as the other side does.
///
/// # Errors
/// When nobody listens there.
pub fn connect_bare(address: SocketAddr, config: ClientConfig) -> io::Result<impl Read + Write> {
    let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(rustls::StreamOwned::new(connection, Buffered(BufReader::with_capacity(READ_SIZE_BYTES, stream))))
}

/// Accepts with rustls alone the first who speaks TLS.
///
/// # Errors
/// Those of the listener.
pub fn accept_bare(listener: &std::net::TcpListener, config: ServerConfig) -> io::Result<impl Read + Write> {
    let config = Arc::new(config);
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut connection = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        let mut socket = Buffered(BufReader::with_capacity(READ_SIZE_BYTES, stream));
        // Who only looks whether we listen sends no greeting.
        if connection.complete_io(&mut socket).is_ok() {
            return Ok(rustls::StreamOwned::new(connection, socket));
        }
    }
}

/// A socket that is read 256 KiB at a time: rustls asks for 4 KiB.
struct Buffered(BufReader<std::net::TcpStream>);

impl Read for Buffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn certificate(directory: &Path) -> io::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(directory.join(FILES[0])).map_err(io::Error::other)
}

/// As our streams with certificates have it; AES-256-GCM is its first choice.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The processor time of this process.
///
/// # Panics
/// Never.
pub fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).expect("it is not negative")
}
