//! A relay that drops, repeats, reorders, delays, changes and reflects what it is to pass on, in the simulator: calls go on, each is
//! done once, and nobody's route changes by it.
//!
//! What could go wrong: whoever relays sees each packet, and may do with them what it likes; all that is believed has to be
//! proved by the two at the ends.

mod peers_support;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use peers_support::callers::{Notes, start_called, start_callers};
use peers_support::{MS, PORT, SECOND, Town, identity, is_direct};
use reactor::cell::RefCell;
use reactor::nat::PeerId;
use reactor::nat::peers::Path;
use reactor::nat::relay::{Decoder, Frame, PROTOCOL, Seat};
use reactor::net::{TcpListener, TcpStream, quic, tls};
use reactor::sim::{self, Host, Latency, Link, SimConfig, World};
use reactor::sync::{Sender, channel};
use reactor::{random, sleep, spawn};

/// Packets that wait for a client that reads too slowly.
const QUEUED_MAX: usize = 4_096;
/// The longest that a packet is kept back.
const LATE: Duration = Duration::from_millis(300);

/// What a client is sent: frames.
type Outbox = Sender<Vec<u8>>;

#[derive(Default)]
struct Hostile {
    clients: RefCell<BTreeMap<Seat, Outbox>>,
    /// Kept back, for whoever they are.
    held: RefCell<VecDeque<(Seat, Vec<u8>)>>,
    /// How many were not passed on as they came.
    spoilt: Rc<Cell<u64>>,
}

impl Hostile {
    fn start(host: &Host) -> Rc<Cell<u64>> {
        let spoilt = Rc::new(Cell::new(0));
        let told = spoilt.clone();
        host.start(move || {
            let listener = TcpListener::bind("0.0.0.0:443").unwrap();
            let stun = quic::Endpoint::client("0.0.0.0:443".parse().unwrap(), &identity(0)).unwrap();
            stun.answer_stun();
            let relay = Rc::new(Hostile { spoilt, ..Hostile::default() });
            while let Ok((stream, _)) = listener.accept() {
                let relay = relay.clone();
                spawn(move || drop(relay.attend(stream)));
            }
        });
        told
    }

    fn attend(self: &Rc<Self>, stream: TcpStream) -> io::Result<()> {
        let seen = stream.peer_addr()?;
        let stream = Rc::new(tls::accept_speaking(stream, &identity(0), &[PROTOCOL])?);
        let (peer, mut decoder, mut bytes) =
            (PeerId::from(stream.peer()), Decoder::default(), vec![0; 8 << 10]);
        let (outbox, inbox) = channel::<Vec<u8>>(QUEUED_MAX);
        let writing = stream.clone();
        spawn(move || {
            while let Ok(frame) = inbox.recv() {
                if (&*writing).write_all(&frame).is_err() {
                    return;
                }
            }
        });
        let mut own = None;
        loop {
            let size = (&*stream).read(&mut bytes)?;
            if size == 0 {
                return Ok(());
            }
            decoder.push(&bytes[..size]);
            while let Ok(Some(frame)) = decoder.next_frame() {
                match frame {
                    Frame::Hello { number, .. } => {
                        let seat = Seat { peer, number };
                        own = Some(seat);
                        self.clients.borrow_mut().insert(seat, outbox.clone());
                        say(&outbox, &Frame::Welcome { seen });
                    }
                    Frame::Datagram { seat, bytes } => self.mistreat(own.unwrap(), seat, bytes),
                    Frame::Ping => say(&outbox, &Frame::Pong),
                    _ => {}
                }
            }
        }
    }

    /// Half of all is passed on as it came, behind what was kept back: the newest of that first.
    fn mistreat(self: &Rc<Self>, from: Seat, to: Seat, bytes: &[u8]) {
        let what = random::number() % 16;
        self.spoilt.set(self.spoilt.get() + u64::from(what < 8));
        match what {
            0 | 1 => {}
            2 => (0..3).for_each(|_| self.pass(from, to, bytes)),
            // Another comes before it, or several.
            3 | 4 => self.held.borrow_mut().push_back((to, datagram(from, bytes))),
            5 => {
                let (relay, bytes) = (self.clone(), bytes.to_vec());
                spawn(move || {
                    sleep(LATE);
                    relay.pass(from, to, &bytes);
                });
            }
            6 => {
                let mut changed = bytes.to_vec();
                let at = random::number() as usize % changed.len().max(1);
                changed.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
                self.pass(from, to, &changed);
            }
            // To who sent it, as if it were the other's.
            7 => self.pass(to, from, bytes),
            _ => {
                self.pass(from, to, bytes);
                while let Some((seat, frame)) = self.held.borrow_mut().pop_back() {
                    self.queue(seat, frame);
                }
            }
        }
    }

    fn pass(&self, from: Seat, to: Seat, bytes: &[u8]) {
        self.queue(to, datagram(from, bytes));
    }

    fn queue(&self, to: Seat, frame: Vec<u8>) {
        if let Some(outbox) = self.clients.borrow().get(&to) {
            let _ = outbox.try_send(frame);
        }
    }
}

fn datagram(from: Seat, bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    Frame::Datagram { seat: from, bytes }.encode(&mut frame);
    frame
}

fn say(outbox: &Outbox, frame: &Frame<'_>) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    let _ = outbox.try_send(bytes);
}

fn goes_on(world: &World) {
    world.link_all(Link::new(Latency::Uniform(5 * MS, 15 * MS)));
    let [relay, one, two] = ["relay", "one", "two"].map(|name| world.host(name));
    let spoilt = Hostile::start(&relay);
    let town = Town { world: world.clone(), relay, one, two };
    let (at, notes) = (town.relay_at(), Rc::new(Notes::default()));
    world.partition(&town.one, &town.two);
    start_called(&town, &at, &notes);
    sleep(SECOND);
    let calling = start_callers(&town, &at, 50 * MS, &notes);
    for _ in 0..20 {
        sleep(SECOND);
        assert!(!is_direct(notes.path()), "nobody else may carry anything");
    }
    let over_the_relay = notes.answered();
    // Two of five of its packets are lost, and each of those costs a timeout of QUIC's.
    assert!(over_the_relay > 10, "{over_the_relay} calls in 20 s");
    world.heal(&town.one, &town.two);
    notes.wait_path(is_direct, 65 * SECOND);
    let place = SocketAddr::new(town.two.address(), PORT);
    for _ in 0..200 {
        sleep(100 * MS);
        let Some(Path::Direct { address, .. }) = notes.path() else { panic!("it has lost its way") };
        assert_eq!(address, place);
    }
    notes.finish(&calling);
    // In some worlds it swallows all for the ten seconds after which RPC takes a peer for dead: the calls of one connection are told so.
    let (spoilt, given_up) = (spoilt.get(), notes.given_up.get());
    assert!(spoilt > 100 && given_up <= 4, "{spoilt} were spoilt, and {given_up} calls given up");
}

#[test]
fn calls_go_on_over_a_relay_that_does_what_it_likes_with_packets_and_routes_are_what_they_were() {
    for seed in 0..4 {
        sim::run(seed, SimConfig::default(), goes_on);
    }
}
