//! Either end of each carrier, and the relay: this very program, with a command line of its own.

use super::bare_quic::BareQuic;
use super::work::{self, PIECE_BYTES};
use super::{Carrier, Workload};
use crate::rpc::ours::{Load, call_over, service};
use crate::tls::{self as bulk, accept_bare, client_config, connect_bare, server_config};
use reactor::crypto::Identity;
use reactor::nat::PeerId;
use reactor::nat::peers::{Path, Peers, RelayAt};
use reactor::nat::relay::{Quota, Relay, RelayLimits};
use reactor::net::quic::{self, Endpoint};
use reactor::net::tls::{self, Expect};
use reactor::net::{Duplex, TcpListener, TcpStream};
use reactor::rpc::{Config, Connection, Service};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How the relay's command line begins: `relay ADDRESS`.
pub const RELAY: &str = "relay";

/// That of who is asked: `serve CARRIER bulk|calls|rpc ADDRESS CERTIFICATES`.
pub const SERVE: &str = "serve";

/// That of who asks: `drive CARRIER bulk|calls|rpc ADDRESS CERTIFICATES IN_FLIGHT SECONDS`.
pub const DRIVE: &str = "drive";

/// What the relay, and who is asked, says when it can be reached.
pub const READY: &str = "ready";

/// Who is who, by the seeds of their keys.
const THE_RELAY: u8 = 0;
const ASKED: u8 = 1;
const ASKING: u8 = 2;

/// What is done on the stream.
#[derive(Clone, Copy)]
enum Task {
    Bulk,
    Calls,
    Rpc,
}

/// The words for what a contender is to do.
pub fn task(workload: Workload, is_rpc: bool) -> &'static str {
    match (workload, is_rpc) {
        (Workload::Bulk, _) => "bulk",
        (Workload::Calls(_), false) => "calls",
        (Workload::Calls(_), true) => "rpc",
    }
}

/// Where an end is, and what it has.
struct Place {
    carrier: Carrier,
    task: Task,
    /// Of who is asked; of the relay where there is one.
    address: SocketAddr,
    certificates: PathBuf,
}

/// Does what `words` say if they are an end's command line, and returns whether they were.
///
/// # Errors
/// Fails when the connection does.
pub fn run_as_end(words: &[String]) -> io::Result<bool> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [RELAY, address] => {
            let address = address.parse().map_err(io::Error::other)?;
            reactor::run(move || relay(address))?;
        }
        [SERVE, carrier, task, address, certificates] => {
            serve(place([carrier, task, address, certificates])?)?;
        }
        [DRIVE, carrier, task, address, certificates, in_flight, seconds] => {
            let load = Load {
                in_flight: in_flight.parse().map_err(io::Error::other)?,
                size_bytes: work::CALL_BYTES,
                duration: Duration::from_secs_f64(seconds.parse().map_err(io::Error::other)?),
                inline: true,
            };
            drive(place([carrier, task, address, certificates])?, load)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn place([carrier, task, address, certificates]: [&str; 4]) -> io::Result<Place> {
    let unknown = |word: &str| io::Error::other(format!("what is {word}?"));
    Ok(Place {
        carrier: Carrier::of_word(carrier).ok_or_else(|| unknown(carrier))?,
        task: match task {
            "bulk" => Task::Bulk,
            "calls" => Task::Calls,
            "rpc" => Task::Rpc,
            other => return Err(unknown(other)),
        },
        address: address.parse().map_err(io::Error::other)?,
        certificates: certificates.into(),
    })
}

fn say_ready() -> io::Result<()> {
    println!("{READY}");
    io::stdout().flush()
}

fn identity(seed: u8) -> Rc<Identity> {
    Rc::new(Identity::from_seed(&[seed; 32]))
}

fn id(seed: u8) -> PeerId {
    PeerId::from(identity(seed).public_key())
}

/// It has no quota of bytes: what it costs is asked, and not what it allows.
fn relay(address: SocketAddr) -> io::Result<()> {
    let quota = Quota {
        bytes_per_second: 1 << 40,
        burst_bytes: 1 << 40,
        bytes_per_second_in_all: 1 << 40,
        ..Quota::default()
    };
    let listener = TcpListener::bind(address)?;
    say_ready()?;
    let limits = RelayLimits { quota, ..RelayLimits::default() };
    Relay::new(&identity(THE_RELAY), |_: PeerId, _: &[u8]| true, limits).serve(&listener)
}

/// A peer who has a relay.
fn behind_a_relay(seed: u8, relay: SocketAddr) -> io::Result<Peers> {
    let peers = Peers::bind(SocketAddr::from(([0, 0, 0, 0], 0)), &identity(seed))?;
    peers.add_relay(RelayAt::new(relay, id(THE_RELAY)));
    peers.wait_relay(reactor::now() + Duration::from_secs(10))?;
    Ok(peers)
}

fn serve(place: Place) -> io::Result<()> {
    let Place { carrier, task, address, certificates } = place;
    match carrier {
        Carrier::BareTls => {
            let listener = std::net::TcpListener::bind(address)?;
            say_ready()?;
            serve_bare(accept_bare(&listener, server_config(&certificates, provider())?)?, task)
        }
        Carrier::BareQuic => {
            let waiting = BareQuic::listen(address, server_config(&certificates, provider())?)?;
            say_ready()?;
            serve_bare(waiting.accept()?, task)
        }
        Carrier::Tls => reactor::run(move || {
            let listener = TcpListener::bind(address)?;
            say_ready()?;
            serve_ours(tls::accept(listener.accept()?.0, &identity(ASKED))?, task)
        }),
        Carrier::Quic => reactor::run(move || {
            let endpoint = Endpoint::bind(address, &identity(ASKED))?;
            say_ready()?;
            serve_ours(endpoint.accept()?.accept()?, task)
        }),
        Carrier::Relayed => reactor::run(move || {
            let peers = behind_a_relay(ASKED, address)?;
            say_ready()?;
            // Who is not admitted is told nothing of where we are, and stays on the relay.
            serve_ours(peers.accept_stranger()?.accept()?, task)
        }),
    }
}

fn serve_bare(stream: impl Read + Write, task: Task) -> io::Result<()> {
    match task {
        Task::Bulk => bulk::receive(stream),
        Task::Calls | Task::Rpc => work::mirror(stream),
    }
}

fn serve_ours<S: Duplex + Read + Write>(stream: S, task: Task) -> io::Result<()> {
    match task {
        Task::Bulk | Task::Calls => serve_bare(stream, task),
        Task::Rpc => {
            Connection::start(stream, Rc::new(service()), Config::default()).wait_closed();
            Ok(())
        }
    }
}

fn drive(place: Place, load: Load) -> io::Result<()> {
    let Place { carrier, task, address, certificates } = place;
    match carrier {
        Carrier::BareTls => {
            drive_bare(connect_bare(address, client_config(&certificates, provider())?)?, task, load)
        }
        Carrier::BareQuic => {
            drive_bare(BareQuic::connect(address, client_config(&certificates, provider())?)?, task, load)
        }
        Carrier::Tls => reactor::run(move || {
            let stream = TcpStream::connect(address)?;
            let stream = tls::connect(stream, &identity(ASKING), Expect::Key(identity(ASKED).public_key()))?;
            drive_ours(stream, task, load)
        }),
        Carrier::Quic => reactor::run(move || {
            let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)), &identity(ASKING))?;
            let connection = endpoint.connect(address, Expect::Key(identity(ASKED).public_key()))?;
            drive_ours(connection.open()?, task, load)
        }),
        Carrier::Relayed => reactor::run(move || {
            let peers = behind_a_relay(ASKING, address)?;
            let stream = open_relayed(&peers)?;
            drive_ours(stream, task, load)
        }),
    }
}

fn open_relayed(peers: &Peers) -> io::Result<quic::Stream> {
    let connection = peers.connect(id(ASKED))?;
    match peers.path(id(ASKED)) {
        Some(Path::Relayed) => connection.open(),
        path => Err(io::Error::other(format!("it is to be relayed, and is reached by {path:?}"))),
    }
}

fn drive_bare(stream: impl Read + Write, task: Task, load: Load) -> io::Result<()> {
    match task {
        Task::Bulk => bulk::send(stream, &vec![7; PIECE_BYTES], load.duration),
        Task::Calls | Task::Rpc => work::ask(stream, load.in_flight, load.duration),
    }
}

fn drive_ours<S: Duplex + Read + Write>(stream: S, task: Task, load: Load) -> io::Result<()> {
    match task {
        Task::Bulk | Task::Calls => drive_bare(stream, task, load),
        Task::Rpc => {
            call_over(Connection::start(stream, Service::none(), Config::default()), load);
            Ok(())
        }
    }
}

/// With the one cipher that our peers agree on.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
    Arc::new(provider)
}
