//! Catching up: what a node lacks of what it is responsible for, it fetches from its neighbours.
//!
//! In a round, the node and each neighbour compare digests of the keys for which both are responsible, one digest for
//! each first byte of an address. Where they differ the neighbour lists its keys, and what is missing is fetched:
//! blocks from any replica, verified; registers by delivering the accepted record again, as the accept message that
//! this node missed. Paxos allows that at any time, since it is only a late duplicate. What owners said of blocks comes
//! first, so that nobody brings back what is gone (`deletions`).
//!
//! What the node holds and is not responsible for (any more, or because a put met dead nodes), it hands over: it offers
//! it to those who are, and gives it to those who lack it. Without that, a block whose holders all stop being responsible
//! at once, as when many nodes join, would be looked for where it never comes. (`handover`)
//!
//! Rounds run at the start, when the overlay sees somebody come, go or move, when somebody asks how it is, and now and then; who comes
//! and goes all the time wakes nobody all the time (`early`), nor does who asks. What is fetched is fetched at a bounded rate, so that users are served meanwhile.
//! Blocks that were found damaged are fetched at once, and a scrub rereads all of them from time to time.
//!
//! Not here: replacing a register's member that is gone for good, which takes a new epoch and its owner's word.

mod compare;
mod deletions;
mod early;
mod handover;
mod past;
mod registers;
mod relearn;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use overlay::{Contact, NodeId, Overlay};
use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::sync::Mutex;

use crate::address::Address;
use crate::block_store::GetError;
use crate::links::Links;
use crate::message::{ListedKey, PutBlockRequest, Refusal};
use crate::node::Node;
use crate::placement::WIDTH;
use crate::placement::steady::Steady;
use crate::replicate::fetch;
use crate::store::{Key, Kind};

use early::EarlyRounds;
use handover::HandedOver;

/// Counting a million keys takes a second or two, beside serving users.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(30);

/// Nodes that a round sees, this one included: in a network whose nodes all know each other, all of them. In a larger one the
/// replicas of our keys are among them, with room for a few that are down.
const NEIGHBOURS: usize = WIDTH + 2;

/// How soon a round follows one that left something missing.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// How soon a round that somebody asks for may follow the last one, and how many times as long as that took: asking costs one message.
const ASKED_PAUSE: Duration = Duration::from_secs(1);
const ASKED_REST: u32 = 1;

/// How rarely a node whose store is full tries to fetch what it lacks.
const FULL_PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Pages of one neighbour's list that are taken in a row, each of some thousand keys: what is left comes in a later round. A
/// neighbour that names one key a page must not keep the others from being compared.
const PAGES_MAX: usize = 256;

/// Blocks fetched at once.
const FETCHES_AT_ONCE: usize = 4;

/// How repair paces itself.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two rounds when nothing happens.
    pub period: Duration,
    /// After a change of who is near, before a round: changes come in groups.
    pub settle: Duration,
    /// Between two scrubs of all blocks.
    pub scrub_period: Duration,
    /// What fetching and scrubbing may read a second.
    pub bytes_per_second: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            period: Duration::from_secs(60),
            settle: Duration::from_secs(1),
            scrub_period: Duration::from_secs(7 * 24 * 3600),
            bytes_per_second: 64 << 20,
        }
    }
}

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Neighbours compared with.
    pub compared: usize,
    /// Neighbours that did not answer.
    pub silent: usize,
    /// Blocks fetched.
    pub blocks: usize,
    /// Registers brought up to date.
    pub registers: usize,
    /// Words of owners learned.
    pub words: usize,
    /// Blocks given to nodes that are responsible for them and lacked them.
    pub handed_over: usize,
    /// Blocks or registers that are still missing, of each neighbour that lists them.
    pub missing: usize,
    /// The local store is full: what is missing has no room.
    pub is_full: bool,
    /// Where zones count: neighbours of which it is not known yet that nothing would go with them alone.
    pub unsettled: usize,
}

/// What came of fetching a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fetched {
    Stored,
    /// Nobody has it, or not now.
    Missing,
    /// It was deleted, and whoever had it has yet to hear so.
    Dead,
    /// There is no room for it here.
    Full,
}

fn key_of(address: &Address) -> Key {
    Key::new(Kind::BLOCK, address.0)
}

/// Repairs one node. Dropping a clone does nothing; [`Repair::start`] runs it in the background.
pub struct Repair<O> {
    links: Rc<Links<O>>,
    node: Rc<Node>,
    pace: Pace,
    /// What those responsible are known to have, while the same nodes are near.
    handed_over: Rc<RefCell<HandedOver>>,
    /// What nodes say of themselves, as far as it counts.
    steady: Rc<RefCell<Steady>>,
    /// Held by a round.
    turn: Rc<Mutex<()>>,
}

impl<O> Clone for Repair<O> {
    fn clone(&self) -> Self {
        Repair {
            links: self.links.clone(),
            node: self.node.clone(),
            pace: self.pace,
            handed_over: self.handed_over.clone(),
            steady: self.steady.clone(),
            turn: self.turn.clone(),
        }
    }
}

/// Repair in the background; dropping this ends it.
pub struct Running {
    coroutines: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.coroutines.iter().for_each(JoinHandle::terminate);
    }
}

impl<O: Overlay + 'static> Repair<O> {
    /// Repairs `node` with what its neighbours on `overlay` have.
    pub fn new(overlay: O, node: Rc<Node>, pace: Pace) -> Repair<O> {
        let links = Links::new(overlay, Some(node.clone()), node.replicas());
        let (handed_over, steady) = (Rc::default(), Rc::default());
        Repair { links: Rc::new(links), node, pace, handed_over, steady, turn: Rc::new(Mutex::new(())) }
    }

    /// Runs rounds, fetches of damaged blocks, and scrubs until the returned value is dropped.
    pub fn start(&self) -> Running {
        let (rounds, wanted, scrubs, removals) = (self.clone(), self.clone(), self.clone(), self.clone());
        let (views, asked, pasts) = (self.clone(), self.clone(), self.clone());
        let coroutines = vec![
            reactor::spawn(move || rounds.run_rounds()),
            reactor::spawn(move || views.follow_changes()),
            reactor::spawn(move || asked.run_asked_rounds()),
            reactor::spawn(move || {
                loop {
                    wanted.node.wait_for_wanted();
                    for membership in wanted.node.take_wanted_registers() {
                        wanted.relearn_in_time(&membership);
                    }
                    wanted.fetch_wanted();
                }
            }),
            reactor::spawn(move || {
                loop {
                    reactor::sleep(scrubs.pace.scrub_period);
                    scrubs.scrub();
                }
            }),
            reactor::spawn(move || removals.remove_deleted()),
            reactor::spawn(move || pasts.learn_pasts()),
        ];
        Running { coroutines }
    }

    fn run_rounds(&self) {
        let mut watch = self.links.overlay.watch();
        let (mut full_pause, mut retry_pause) = (self.pace.period, RETRY_PAUSE);
        let mut early = EarlyRounds::new(self.pace.period, reactor::now());
        loop {
            let report = self.round();
            let done = report.blocks + report.registers + report.words + report.handed_over;
            if done + report.missing > 0 {
                tracing::info!(?report, "caught up with the neighbours");
            }
            full_pause = if report.is_full { (full_pause * 2).min(FULL_PAUSE_MAX) } else { self.pace.period };
            // What failed is tried again soon, ever more rarely where trying brings nothing; and a full store does not grow room
            // by being asked for it.
            let open = report.missing + report.unsettled;
            let brought_something = done > 0 || open == 0;
            retry_pause = if brought_something { RETRY_PAUSE } else { (retry_pause * 2).min(FULL_PAUSE_MAX) };
            let pause = match open {
                0 => self.pace.period,
                _ if report.is_full => full_pause,
                _ => self.pace.period.min(retry_pause),
            };
            let until = reactor::now() + pause;
            if reactor::timeout(pause, || watch.wait()).is_ok() {
                if early.take(reactor::now()) {
                    retry_pause = RETRY_PAUSE;
                    reactor::sleep(self.pace.settle);
                } else {
                    reactor::sleep(until.saturating_duration_since(reactor::now()));
                }
            }
        }
    }

    /// Runs a round for whoever asks how it is, and no more than a part of the time.
    fn run_asked_rounds(&self) {
        loop {
            self.node.wait_until_asked();
            let began = reactor::now();
            self.round();
            let took = reactor::now().saturating_duration_since(began);
            // One that fetched for an hour is no reason to know nothing for four: rounds come with each period anyhow.
            reactor::sleep((took * ASKED_REST).min(self.pace.period).max(ASKED_PAUSE));
        }
    }

    /// Has the node act by who is near now, though a round goes on that began by another view.
    fn follow_changes(&self) {
        let mut watch = self.links.overlay.watch();
        loop {
            watch.wait();
            reactor::sleep(self.pace.settle);
            // In a larger network that takes a lookup, and the next round will do.
            if self.links.overlay.known_count() <= WIDTH {
                self.look_around();
            }
        }
    }

    /// Who is near, and the mark of the view that this is.
    fn look_around(&self) -> (Vec<Contact>, u64) {
        let neighbours = self.links.closest(self.node.own().0, NEIGHBOURS);
        let view = self.steady.borrow_mut().around(self.node.own(), &neighbours, reactor::now());
        let mark = view.mark();
        self.node.set_neighbourhood(view);
        (neighbours, mark)
    }

    /// Compares with every neighbour once and fetches what is missing, after whoever does so now.
    ///
    /// # Suspends
    /// For as long as that takes.
    pub fn round(&self) -> Report {
        let _turn = self.turn.lock();
        let mut report = Report::default();
        let (neighbours, view) = self.look_around();
        let ids: Vec<NodeId> = neighbours.iter().map(|contact| contact.id).collect();
        self.node.begin_comparing(&ids);
        self.want_damaged();
        let mut full = BTreeSet::new();
        for contact in neighbours.iter().filter(|contact| contact.id != self.node.own()) {
            let (missing_before, began) = (report.missing, reactor::now());
            match self.compare(contact, &mut report) {
                Ok(theirs) => {
                    report.compared += 1;
                    if theirs.is_full {
                        full.insert(contact.id);
                    }
                    let has_all = report.missing == missing_before;
                    if !has_all || theirs.is_needed {
                        self.node.fall_behind(&contact.id);
                    }
                    // By no view: not all was listed, or who is near changed meanwhile.
                    if has_all && theirs.view != 0 {
                        self.node.note_compared(contact.id, began);
                    }
                    if has_all && theirs.view == view && theirs.has_handed_over {
                        self.node.catch_up_with(contact.id, view);
                    } else if has_all && self.node.has_zones() {
                        report.unsettled += 1;
                    }
                }
                Err(failure) => {
                    tracing::debug!(node = %contact, "can't compare: {failure}");
                    report.silent += 1;
                    if report.missing > missing_before {
                        self.node.fall_behind(&contact.id);
                    }
                }
            }
        }
        self.node.end_comparing();
        self.hand_over(&neighbours, view, full, &mut report);
        report
    }

    fn fetch_blocks(&self, contact: &Contact, keys: &[ListedKey], report: &mut Report) {
        // What is fetched into a full store is fetched in vain, from every neighbour that has it.
        let is_full = Cell::new(report.is_full);
        let lacking: Vec<Address> = keys
            .iter()
            .map(|key| Address(key.address))
            .filter(|address| !self.node.has_block(address) && self.node.is_responsible(&NodeId(address.0)))
            .collect();
        if !lacking.is_empty() {
            // At once, and not when it has been tried: that may take hours, and he may be gone by then.
            self.node.fall_behind(&contact.id);
            self.node.note_lacking(lacking.iter().map(key_of));
        }
        let next = Cell::new(0);
        let (fetched, dead) = (Cell::new(0), Cell::new(0));
        reactor::scope(|scope| {
            for _ in 0..FETCHES_AT_ONCE.min(lacking.len()) {
                scope.spawn(|| {
                    while next.get() < lacking.len() && !is_full.get() {
                        let address = lacking[next.replace(next.get() + 1)];
                        match self.fetch_block(&address) {
                            Fetched::Stored => {
                                fetched.set(fetched.get() + 1);
                                self.node.note_fetched(&key_of(&address));
                            }
                            Fetched::Full => is_full.set(true),
                            Fetched::Dead => {
                                dead.set(dead.get() + 1);
                                self.node.note_fetched(&key_of(&address));
                            }
                            Fetched::Missing => {}
                        }
                    }
                });
            }
        });
        report.is_full = is_full.get();
        report.blocks += fetched.get();
        report.missing += lacking.len() - fetched.get() - dead.get();
    }

    /// Fetches one block and stores it; pauses so long that the rate is kept.
    fn fetch_block(&self, address: &Address) -> Fetched {
        let (proof, content) = match fetch(&self.links, None, address, None) {
            Ok(found) => found,
            Err(GetError::NotFound(_)) => return Fetched::Missing,
            Err(error) => {
                tracing::warn!(%address, "can't fetch a missing block: {error}");
                return Fetched::Missing;
            }
        };
        let length = content.len();
        let put_seconds = Some(proof.put_seconds);
        let request = PutBlockRequest { put_seconds, ..PutBlockRequest::new(*address, proof.tag) };
        let stored = self.node.put_block_of(&request, &content);
        if stored == Err(Refusal::Deleted) {
            return Fetched::Dead;
        }
        if let Err(refusal) = &stored {
            tracing::warn!(%address, "can't store a fetched block: {refusal}");
        }
        self.rest(length);
        match stored {
            Ok(()) => Fetched::Stored,
            Err(Refusal::Full) => Fetched::Full,
            Err(_) => Fetched::Missing,
        }
    }

    fn rest(&self, bytes: usize) {
        let seconds = (bytes * FETCHES_AT_ONCE) as f64 / self.pace.bytes_per_second.max(1) as f64;
        reactor::sleep(Duration::from_secs_f64(seconds));
    }

    /// Asks for what the local store knows to be damaged.
    fn want_damaged(&self) {
        for damage in self.node.store().damaged() {
            if let Some(key) = damage.key
                && key.kind == Kind::BLOCK
            {
                self.node.want(Address(key.address));
            }
        }
    }

    /// Fetches the blocks that were found damaged; what can't be had is left to the next round.
    fn fetch_wanted(&self) {
        for address in self.node.take_wanted() {
            if !self.node.has_block(&address) && self.fetch_block(&address) == Fetched::Missing {
                tracing::warn!(%address, "a damaged block has no intact replica within reach");
            }
        }
    }

    /// Rereads every block and checks it against its address. Returns how many were damaged; those are fetched.
    ///
    /// # Suspends
    /// At the pace's rate: a long time.
    pub fn scrub(&self) -> usize {
        let mut damaged = 0;
        let mut from = Some(Key::first(Kind::BLOCK));
        while let Some(start) = from {
            let keys = self.node.store().keys(&start, 256);
            for key in keys.iter().filter(|key| key.kind == Kind::BLOCK) {
                let length = self.node.store().length(key).unwrap_or(0);
                if self.node.suspect_block(&Address(key.address)) == Ok(true) {
                    damaged += 1;
                }
                self.rest(length as usize);
            }
            from = keys.last().and_then(Key::next).filter(|key| key.kind == Kind::BLOCK);
        }
        self.want_damaged();
        if let Err(refusal) = self.node.forget_old_words() {
            tracing::warn!("can't forget old deletions: {refusal}");
        }
        if let Err(refusal) = self.node.forget_past() {
            tracing::warn!("can't forget what registers were for long: {refusal}");
        }
        damaged
    }
}

#[cfg(test)]
mod tests;
