//! Numbered calls from one peer to another, for as long as a story lasts: which were answered, how long that took, and how
//! often each was done.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reactor::cell::RefCell;
use reactor::nat::peers::{Path, Peers, RelayAt};
use reactor::rpc::{CallError, CallOptions, Caller, Config, Connection, Method, Reconnecting, Service};
use reactor::sim::Running;
use reactor::{now, sleep, spawn};

use super::{MS, SECOND, Town, connect, id, peers};

/// Calls at once.
const CALLERS: u64 = 4;
/// Longer than everything that may hold up a call.
const PATIENCE: Duration = Duration::from_secs(120);

/// Does something that must not be done twice, and gives the number back.
struct Apply;

impl Method for Apply {
    const ID: u32 = 1;
    const NAME: &'static str = "Apply";
    type Request = u64;
    type Response = u64;
    type Error = String;
}

/// What the callers and the called have noted.
#[derive(Default)]
pub(crate) struct Notes {
    /// How often each number was done.
    applied: RefCell<BTreeMap<u64, u32>>,
    answered: Cell<u64>,
    /// Calls of which the caller was told that they may not have been done.
    pub(crate) given_up: Cell<u64>,
    /// The first call, with the connection that it takes.
    pub(crate) first: Cell<Duration>,
    longest: Cell<Duration>,
    last_number: Cell<u64>,
    stop: Cell<bool>,
    pub(crate) peers: RefCell<Option<Rc<Peers>>>,
}

impl Notes {
    /// The longest that a call has taken since this was last asked.
    pub(crate) fn take_longest(&self) -> Duration {
        self.longest.take()
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.get()
    }

    /// How the caller reaches the called.
    pub(crate) fn path(&self) -> Option<Path> {
        self.peers.borrow().as_ref().and_then(|peers| peers.path(id(2)))
    }

    /// Waits until it is as `wanted`; how long that took.
    pub(crate) fn wait_path(&self, wanted: impl Fn(Option<Path>) -> bool, within: Duration) -> Duration {
        let begun = now();
        while !wanted(self.path()) {
            let waited = now() - begun;
            assert!(waited < within, "after {waited:?} it is reached by {:?}", self.path());
            sleep(20 * MS);
        }
        now() - begun
    }

    /// Ends the calls, and looks at what became of them.
    pub(crate) fn finish(&self, calling: &Running) {
        self.stop.set(true);
        calling.wait();
        let applied = self.applied.borrow();
        assert!(applied.values().all(|times| *times == 1), "something was done twice");
        let (done, told) = (applied.len() as u64, self.answered.get());
        assert!(
            told <= done
                && done <= told + self.given_up.get()
                && told + self.given_up.get() == self.last_number.get(),
            "{done} were done, {told} answered, and {} given up of {}",
            self.given_up.get(),
            self.last_number.get()
        );
    }
}

/// Has the second peer of a town do what it is called for.
pub(crate) fn start_called(town: &Town, at: &RelayAt, notes: &Rc<Notes>) {
    let (at, notes) = (at.clone(), notes.clone());
    town.two.start(move || {
        let peers = peers(2, &at);
        while let Ok(connection) = peers.accept() {
            let notes = notes.clone();
            spawn(move || {
                while let Ok(stream) = connection.accept() {
                    let (notes, mut service) = (notes.clone(), Service::new());
                    service.on::<Apply>(move |_, number, payload| {
                        *notes.applied.borrow_mut().entry(number).or_default() += 1;
                        Ok((number, payload))
                    });
                    spawn(move || {
                        Connection::start(stream, Rc::new(service), Config::default()).wait_closed()
                    });
                }
            });
        }
    });
}

/// Has the first peer call it, `pause` between one answer and the next call of each caller, until the notes are finished.
pub(crate) fn start_callers(town: &Town, at: &RelayAt, pause: Duration, notes: &Rc<Notes>) -> Running {
    let (at, notes) = (at.clone(), notes.clone());
    town.one.start(move || {
        let peers = Rc::new(peers(1, &at));
        peers.wait_relay(now() + 10 * SECOND).unwrap();
        notes.peers.replace(Some(peers.clone()));
        let begun = now();
        let client = Reconnecting::start(move || {
            let stream = connect(&peers, 2).open()?;
            Ok(Connection::start(stream, Service::none(), Config::default()))
        });
        call(&client, &notes);
        notes.first.set(now() - begun);
        reactor::scope(|s| {
            for _ in 0..CALLERS {
                s.spawn(|| {
                    while !notes.stop.get() {
                        sleep(pause);
                        call(&client, &notes);
                    }
                });
            }
        });
        notes.peers.take();
    })
}

fn call(client: &Reconnecting, notes: &Notes) {
    let (begun, number) = (now(), notes.last_number.get() + 1);
    notes.last_number.set(number);
    let options = CallOptions { timeout: Some(PATIENCE), ..CallOptions::default() };
    match client.call_with::<Apply>(&number, Bytes::new(), &options) {
        Ok((answer, _)) => {
            assert_eq!(answer, number);
            notes.answered.set(notes.answered.get() + 1);
        }
        Err(CallError::Disconnected) => notes.given_up.set(notes.given_up.get() + 1),
        Err(error) => panic!("call {number}: {error}"),
    }
    notes.longest.set(notes.longest.get().max(now() - begun));
}
