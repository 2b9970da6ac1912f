//! Finding members in one's own network, where nobody knows any more where they are: by packets to a group (`beacon.rs`).
//!
//! A storage node that listens to others says each minute that it is there, and more often after its start or while it has met
//! nobody. Who is a client asks, while it has met nobody, and those who are there answer it alone. Whoever hears of a member that
//! he is not in touch with goes there, and comes in as by any other way. So members find each other whose addresses have changed
//! since they met, without anything outside.
//!
//! What a network of strangers can do with it: learn that this program runs on this machine, since the packets go to a group and a
//! port of its own; not whose it is, nor by the packets themselves in which network. What it can make us do is bounded: [`READS_MAX`] packets a second
//! are looked at, [`VERDICTS_MAX`] of those that open have their signatures checked, one dial a member in [`DIAL_GAP`], of
//! [`DIALLED_MAX`] members at most. An answer is no longer than what asks for it, and goes where a member's packet came from. A
//! stranger may have recorded that and send it again, also as if from another address: so he learns who answers, which is which
//! machines belong together, and has them send a packet, or dial, there.
//!
//! What it is not: a way beyond one's own network (packets to the group are not passed on), or for IPv6.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::crypto::PublicKey;
use reactor::net::tls::Expect;
use reactor::net::{BindOptions, Interface, UdpSocket};

use crate::beacon::{BEACON_BYTES_MAX, Beacon};
use crate::dial::{self, Dialled};
use crate::node_id::NodeId;
use crate::peers::Role;
use crate::session::Session;
use crate::state::State;

/// The group: of those that are for one's own site (RFC 2365).
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 72, 121);

/// And its port.
const PORT: u16 = 4_700;

/// How often a node says that it is there, and who has met nobody asks, in the end: whoever missed the packets of a start meets it
/// within so long.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The pause behind the first packet, which doubles.
const SAY_FIRST: Duration = Duration::from_secs(2);

/// A client that reaches somebody by what it knows needs to ask nobody: that takes no longer than so.
const ASK_AFTER: Duration = Duration::from_millis(400);

/// The pause behind a failure: there may be no network yet.
const AGAIN: Duration = Duration::from_secs(30);

/// Packets that are looked at in a second, of any sender: opening one takes some 10 us.
const READS_MAX: u32 = 200;

/// Signatures of packets that are checked in a second.
const VERDICTS_MAX: u32 = 20;

/// Answers in a second.
const ANSWERS_MAX: u32 = 10;

/// Between two dials of one member.
const DIAL_GAP: Duration = Duration::from_secs(5);

/// Members that are remembered as dialled.
const DIALLED_MAX: usize = 64;

/// Takes part, as long as it is not terminated.
///
/// # Suspends
/// Always.
pub(crate) fn run(state: &Rc<State>) {
    loop {
        if let Err(error) = take_part(state) {
            tracing::debug!(%error, "members in this network are not looked for");
        }
        reactor::sleep(AGAIN);
    }
}

fn take_part(state: &Rc<State>) -> io::Result<()> {
    // Other programs of ours on this machine hear the group too.
    let options = BindOptions { reuse_address: true, ..BindOptions::default() };
    let ear = UdpSocket::bind_with(SocketAddr::from((GROUP, PORT)), &options)?;
    let mouth = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    let heard = RefCell::new(Heard::default());
    reactor::scope(|s| {
        let hearing = [&ear, &mouth].map(|socket| s.spawn(|| hear(state, socket, &mouth, &heard)));
        let said = say(state, &ear, &mouth);
        hearing.iter().for_each(|hearing| hearing.terminate());
        said
    })
}

/// Says what there is to be said, to each network that this machine is in.
fn say(state: &Rc<State>, ear: &UdpSocket, mouth: &UdpSocket) -> io::Result<()> {
    let port = port(state);
    if port.is_none() {
        reactor::sleep(ASK_AFTER);
    }
    let mut pause = SAY_FIRST;
    loop {
        let is_alone = state.table.borrow().live_count() == 0;
        let interfaces = Interface::all()?;
        for interface in &interfaces {
            // It may be in it already.
            let _ = ear.join_group(GROUP, *interface);
        }
        if port.is_some() || is_alone {
            let packet = packet(state, port);
            for interface in interfaces {
                let sent = mouth.set_group_interface(interface);
                if let Err(error) = sent.and_then(|()| mouth.try_send_to(&packet, (GROUP, PORT).into())) {
                    tracing::trace!(%error, ?interface, "this network is not told");
                }
            }
        }
        reactor::sleep(pause);
        pause = if is_alone && port.is_none() {
            (pause * 2).min(SAY_EVERY / 4)
        } else {
            (pause * 2).min(SAY_EVERY)
        };
    }
}

/// Where we listen to others, if we do.
fn port(state: &State) -> Option<u16> {
    let listening =
        state.credentials.addresses.first().filter(|_| state.credentials.role == Role::Storage)?;
    (listening.is_ipv4() && !listening.ip().is_loopback()).then(|| listening.port())
}

fn packet(state: &State, port: Option<u16>) -> Vec<u8> {
    let passport = state.credentials.newest_passport();
    Beacon { passport, port }.seal(&state.identity, &state.credentials.network)
}

/// Takes what comes to a socket.
fn hear(state: &Rc<State>, socket: &UdpSocket, mouth: &UdpSocket, heard: &RefCell<Heard>) {
    // One more, to tell a longer one.
    let mut buffer = [0; BEACON_BYTES_MAX + 1];
    loop {
        let Ok((size, from)) = socket.recv_from(&mut buffer) else {
            // An interface may have gone, and is back in a while.
            reactor::sleep(AGAIN);
            continue;
        };
        let now = reactor::now();
        let may = heard.borrow_mut().may_read(now);
        if let Err(until) = may {
            reactor::sleep_until(until);
            continue;
        }
        let network = &state.credentials.network;
        let may_be_checked = |heard: &mut Heard| heard.may_check(now);
        let Some(beacon) =
            Beacon::open_if(&buffer[..size], network, || may_be_checked(&mut heard.borrow_mut()))
        else {
            continue;
        };
        let key = beacon.passport.holder();
        let verdict = state.credentials.verdict(&beacon.passport, &key);
        let Ok((_, rights)) = verdict else { continue };
        if key == state.credentials.own || state.stopping.get() {
            continue;
        }
        match beacon.port {
            Some(their_port) if rights.store && !is_in_touch(state, &key) => {
                if heard.borrow_mut().may_dial(key, now) {
                    meet(state, key, SocketAddr::new(from.ip(), their_port));
                }
            }
            Some(_) => {}
            None => {
                let own = port(state).filter(|_| heard.borrow_mut().may_answer(now));
                if let Some(port) = own {
                    let _ = mouth.try_send_to(&packet(state, Some(port)), from);
                }
            }
        }
    }
}

fn is_in_touch(state: &State, key: &PublicKey) -> bool {
    let table = state.table.borrow();
    state.pool.is_connected(key) || table.get(&NodeId::of(key)).is_some_and(|entry| entry.is_live())
}

/// Goes to a member there, in the background, wherever else it is said to be.
fn meet(state: &Rc<State>, key: PublicKey, address: SocketAddr) {
    let state = state.clone();
    // At the limit of coroutines it is heard of again.
    let _ =
        reactor::Builder::new().spawn(move || match dial::dial_address(&state, Expect::Key(key), address) {
            Ok(Dialled { stream, admitted, whereabouts }) => {
                tracing::info!(%address, id = ?NodeId::of(&key), "a member was found in this network");
                Session::begin(&state, stream, admitted, whereabouts).watch();
            }
            Err(error) => tracing::debug!(%error, "heard of in this network, and not met"),
        });
}

/// How much was heard, and done about it. Pure.
#[derive(Default)]
struct Heard {
    second: Option<Instant>,
    reads: u32,
    verdicts: u32,
    answers: u32,
    dialled: BTreeMap<PublicKey, Instant>,
}

impl Heard {
    fn begin(&mut self, now: Instant) -> Instant {
        let second = match self.second.filter(|second| now < *second + Duration::from_secs(1)) {
            Some(second) => second,
            None => {
                (self.reads, self.verdicts, self.answers) = (0, 0, 0);
                now
            }
        };
        self.second = Some(second);
        second
    }

    /// Whether another packet may be looked at; else when.
    fn may_read(&mut self, now: Instant) -> Result<(), Instant> {
        let second = self.begin(now);
        self.reads += 1;
        if self.reads <= READS_MAX { Ok(()) } else { Err(second + Duration::from_secs(1)) }
    }

    fn may_check(&mut self, now: Instant) -> bool {
        self.begin(now);
        self.verdicts += 1;
        self.verdicts <= VERDICTS_MAX
    }

    fn may_answer(&mut self, now: Instant) -> bool {
        self.begin(now);
        self.answers += 1;
        self.answers <= ANSWERS_MAX
    }

    /// Whether that member may be dialled now, which is noted.
    fn may_dial(&mut self, key: PublicKey, now: Instant) -> bool {
        self.dialled.retain(|_, at| now < *at + DIAL_GAP);
        let may = self.dialled.len() < DIALLED_MAX && !self.dialled.contains_key(&key);
        if may {
            self.dialled.insert(key, now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_much_is_heard_little_is_done_about_it() {
        let (mut heard, start) = (Heard::default(), Instant::now());
        let key = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            PublicKey::from_bytes(bytes)
        };
        let (mut reads, mut verdicts, mut answers, mut dials) = (0, 0, 0, 0);
        for number in 0..10_000 {
            // A thousand a second.
            let now = start + Duration::from_millis(number.into());
            reads += u32::from(heard.may_read(now).is_ok());
            verdicts += u32::from(heard.may_check(now));
            answers += u32::from(heard.may_answer(now));
            dials += usize::from(heard.may_dial(key(number), now));
        }
        assert_eq!((reads, verdicts, answers), (10 * READS_MAX, 10 * VERDICTS_MAX, 10 * ANSWERS_MAX));
        assert_eq!(dials, 2 * DIALLED_MAX);
        let until = heard.may_read(start + Duration::from_millis(9_999)).unwrap_err();
        assert_eq!(until, start + Duration::from_secs(10));
    }

    #[test]
    fn one_member_is_dialled_now_and_then() {
        let (mut heard, start, key) = (Heard::default(), Instant::now(), PublicKey::from_bytes([7; 32]));
        let dials = |heard: &mut Heard, seconds: u64| {
            (0..seconds).filter(|second| heard.may_dial(key, start + Duration::from_secs(*second))).count()
        };
        assert_eq!(dials(&mut heard, 60), 12);
    }
}
