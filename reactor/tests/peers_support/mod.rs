//! What the stories of peers need: a simulated relay, and two peers who use it.

#![allow(dead_code, reason = "each story uses its part")]

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use reactor::crypto::Identity;
use reactor::nat::PeerId;
use reactor::nat::peers::{Path, Peers, RelayAt};
use reactor::nat::relay::{Relay, RelayLimits};
use reactor::net::{Duplex, TcpListener, quic};
use reactor::sim::{Host, World};
use reactor::{now, sleep, spawn};

pub(crate) mod callers;

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const PORT: u16 = 4_433;

pub(crate) fn identity(number: u8) -> Rc<Identity> {
    Rc::new(Identity::from_seed(&[number; 32]))
}

pub(crate) fn id(number: u8) -> PeerId {
    PeerId::from(identity(number).public_key())
}

pub(crate) fn deadline_after(duration: Duration) -> std::time::Instant {
    now() + duration
}

/// A relay that also says where one is, and two peers.
pub(crate) struct Town {
    pub(crate) world: World,
    pub(crate) relay: Host,
    pub(crate) one: Host,
    pub(crate) two: Host,
}

impl Town {
    pub(crate) fn new(world: &World) -> Town {
        let [relay, one, two] = ["relay", "one", "two"].map(|name| world.host(name));
        start_relay(&relay);
        Town { world: world.clone(), relay, one, two }
    }

    pub(crate) fn relay_at(&self) -> RelayAt {
        RelayAt::new(SocketAddr::new(self.relay.address(), 443), id(0))
    }

    /// Two sends back what it is sent, on every stream of every connection.
    pub(crate) fn start_echo(&self) {
        let at = self.relay_at();
        self.two.start(move || {
            let peers = peers(2, &at);
            while let Ok(connection) = peers.accept() {
                spawn(move || {
                    while let Ok(stream) = connection.accept() {
                        spawn(move || echo(&stream));
                    }
                });
            }
        });
    }
}

pub(crate) fn echo(stream: &quic::Stream) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(size) = stream.read_some(&mut buffer) {
        let mut stream = stream;
        if size == 0 || stream.write_all(&buffer[..size]).is_err() {
            let _ = stream.end();
            return;
        }
    }
}

pub(crate) fn start_relay(host: &Host) {
    host.start(|| {
        let listener = TcpListener::bind("0.0.0.0:443").unwrap();
        let stun = quic::Endpoint::client("0.0.0.0:443".parse().unwrap(), &identity(0)).unwrap();
        stun.answer_stun();
        Relay::new(&identity(0), |_: PeerId, _: &[u8]| true, RelayLimits::default())
            .serve(&listener)
            .unwrap();
    });
}

pub(crate) fn peers(number: u8, at: &RelayAt) -> Peers {
    let peers = Peers::bind(SocketAddr::new([0, 0, 0, 0].into(), PORT), &identity(number)).unwrap();
    peers.add_relay(at.clone());
    peers
}

/// Connects, once the other is there.
pub(crate) fn connect(peers: &Peers, number: u8) -> quic::Connection {
    loop {
        match peers.connect(id(number)) {
            Err(error) if error.kind() == ErrorKind::NotFound => sleep(20 * MS),
            connected => return connected.unwrap(),
        }
    }
}

/// Asks and is answered; how long it took.
pub(crate) fn ask(stream: &quic::Stream, number: u64) -> Duration {
    let (begun, mut stream) = (now(), stream);
    stream.write_all(&number.to_be_bytes()).unwrap();
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(u64::from_be_bytes(answer), number, "in order, each once");
    now() - begun
}

pub(crate) fn is_direct(path: Option<Path>) -> bool {
    matches!(path, Some(Path::Direct { .. }))
}

pub(crate) fn wait_for(peers: &Peers, wanted: impl Fn(Option<Path>) -> bool, within: Duration) {
    let came = peers.wait_path(id(2), deadline_after(within), wanted);
    assert!(came.is_ok(), "it is reached by {:?}", peers.path(id(2)));
}
