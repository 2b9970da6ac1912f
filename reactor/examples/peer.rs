//! Two people who talk by each other's id, wherever they are: over a relay at once, and directly as soon as there is a way.
//!
//! On a machine that both can reach: `cargo run --example peer -- relay 0.0.0.0:4433`. It prints its id. Then each runs
//! `peer listen RELAY_ADDRESS RELAY_ID` or, with what the other's printed, `peer call RELAY_ADDRESS RELAY_ID PEER_ID`, which
//! tells when it has a first answer, and when and where it has found a direct way; it looks for one for 15 s, or for as many
//! as are said at the end.
//!
//! A relay of members would look at who asks to be let in; this one takes everybody.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::crypto::Identity;
use reactor::nat::PeerId;
use reactor::nat::peers::{Path, Peers, RelayAt};
use reactor::nat::relay::{Relay, RelayLimits};
use reactor::net::quic::{Connection, Endpoint};
use reactor::net::{Duplex, TcpListener, all_addresses};
use reactor::{now, sleep, try_spawn};

/// How long `call` looks for a direct way: a few rounds of tries.
const LOOK_FOR: Duration = Duration::from_secs(15);

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = || {
        let words = "usage: peer relay ADDRESS | listen RELAY_ADDRESS RELAY_ID | call RELAY_ADDRESS RELAY_ID PEER_ID [SECONDS]";
        io::Error::new(ErrorKind::InvalidInput, words)
    };
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let address = |text: &str| text.parse::<SocketAddr>().map_err(|_| usage());
    let id = |text: &str| text.parse::<PeerId>().map_err(|_| usage());
    match words[..] {
        ["relay", at] => {
            let at = address(at)?;
            reactor::run(move || relay(at))
        }
        ["listen", at, relay] => {
            let at = RelayAt::new(address(at)?, id(relay)?);
            reactor::run(move || listen(at))
        }
        ["call", at, relay, peer, ref seconds @ ..] if seconds.len() <= 1 => {
            let (at, peer) = (RelayAt::new(address(at)?, id(relay)?), id(peer)?);
            let seconds = seconds.first().map(|text| text.parse().map_err(|_| usage())).transpose()?;
            let look_for = seconds.map_or(LOOK_FOR, Duration::from_secs);
            reactor::run(move || call(at, peer, look_for))
        }
        _ => Err(usage()),
    }
}

/// Passes on for everybody, and tells everybody where their packets come from, at the UDP port of the same number.
fn relay(at: SocketAddr) -> io::Result<()> {
    let identity = Rc::new(Identity::generate());
    let listener = TcpListener::bind(at)?;
    let at = listener.local_addr()?;
    let stun = Endpoint::client(at, &identity)?;
    stun.answer_stun();
    println!("relay {} at {at}", PeerId::from(identity.public_key()));
    Relay::new(&identity, |_: PeerId, _: &[u8]| true, RelayLimits::default()).serve(&listener)
}

fn join(at: RelayAt, identity: &Rc<Identity>) -> io::Result<Peers> {
    let peers = Peers::bind(all_addresses(0), identity)?;
    peers.add_relay(at);
    peers.wait_relay(now() + LOOK_FOR)?;
    Ok(peers)
}

/// Sends back what it is sent.
fn listen(at: RelayAt) -> io::Result<()> {
    let identity = Rc::new(Identity::generate());
    let peers = join(at, &identity)?;
    println!("listening as {}", PeerId::from(identity.public_key()));
    loop {
        let connection = peers.accept()?;
        println!("called by {}", PeerId::from(connection.peer()));
        // Where there is no memory for another coroutine, this peer is turned away.
        let _ = try_spawn(move || answer(&connection));
    }
}

fn answer(connection: &Connection) {
    while let Ok(stream) = connection.accept() {
        let begun = try_spawn(move || {
            let mut buffer = [0; 4 << 10];
            while let Ok(size @ 1..) = stream.read_some(&mut buffer) {
                if stream.write_slices(&mut [io::IoSlice::new(&buffer[..size])]).is_err() {
                    break;
                }
            }
        });
        if begun.is_err() {
            break;
        }
    }
}

/// Asks again and again; says how the peer is reached.
fn call(at: RelayAt, peer: PeerId, look_for: Duration) -> io::Result<()> {
    let peers = join(at, &Rc::new(Identity::generate()))?;
    let begun = now();
    let connection = peers.connect(peer)?;
    let stream = connection.open()?;
    let ask = || {
        let begun = now();
        stream.write_slices(&mut [io::IoSlice::new(b"?")])?;
        stream.read_some(&mut [0]).map(|_| now() - begun)
    };
    ask()?;
    println!("first answer after {:?}", now() - begun);
    let is_direct = |path: Option<Path>| matches!(path, Some(Path::Direct { .. }));
    match peers.wait_path(peer, now() + look_for, is_direct) {
        Ok(Some(Path::Direct { transport, address, .. })) => {
            println!("direct to {address} by {transport:?} after {:?}", now() - begun);
        }
        _ => println!("over the relay"),
    }
    // What the new way takes has been learnt by then.
    (0..5).try_for_each(|_| ask().map(|_| sleep(Duration::from_millis(10))))?;
    println!("an answer takes {:?}", ask()?);
    Ok(())
}
