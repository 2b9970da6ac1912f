//! Everything a node does unasked, in one coroutine: pings, relays, refreshes, rejoining, saving contacts.
//!
//! A tick every half second looks at what is due; an idle node's tick costs microseconds. In a network small enough to
//! be known whole, one contact is asked every [`GOSSIP_SMALL`] whom it knows around us, so that two nodes that missed
//! each other (both joined at once, or a link was down) meet within seconds; in a larger one our neighbourhood is looked
//! up every [`GOSSIP_LARGE`], and each bucket once an hour. Whoever no contact knows is sought by the ways in.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reactor::crypto::{PublicKey, random_bytes};

use crate::contact::{Contact, Introduction};
use crate::contacts_file::{self, SAVED_MAX};
use crate::join;
use crate::k_bucket::K;
use crate::lookup::{Transport, lookup};
use crate::message::Leave;
use crate::node_id::NodeId;
use crate::peers::Role;
use crate::state::{Live, PING_TIMEOUT, State};

/// How often the upkeep looks at what is due.
const TICK: Duration = Duration::from_millis(500);
/// How often one contact is asked for our neighbours while everyone fits the table.
pub(crate) const GOSSIP_SMALL: Duration = Duration::from_secs(3);
/// How often our neighbourhood is looked up in a larger network.
pub(crate) const GOSSIP_LARGE: Duration = Duration::from_secs(60);
/// How often a node that reaches nobody tries its ways in again.
const REJOIN: Duration = Duration::from_secs(1);
/// How often, at most, one that reaches somebody tries a way in that leads to nobody yet.
const TRY_WAY: Duration = Duration::from_secs(10);
/// Contacts are saved at most this often.
const SAVE: Duration = Duration::from_secs(5);
/// And at most this often because some are found over other relays than before: nobody who says so again and again is to have
/// us write all the time.
const SAVE_RELAYS: Duration = Duration::from_secs(15);
/// Contacts of earlier runs that a client keeps behind those of this one.
const OTHERS_MAX: usize = 2 * K;
/// Pings begun in one tick: a table of dead contacts must not become a burst.
const PINGS_PER_TICK: usize = 16;
/// Bucket refreshes in one tick.
const REFRESHES_PER_TICK: usize = 2;

/// What the upkeep coroutine remembers.
pub(crate) struct Upkeep {
    state: Rc<State>,
    contacts_file: Option<PathBuf>,
    saved_version: u64,
    /// Who relays, and who is found over whom, as it was saved.
    saved_relays: Vec<(bool, Vec<PublicKey>)>,
    next_save: Instant,
    next_relays_save: Instant,
    next_gossip: Instant,
    next_rejoin: Instant,
    next_way: Instant,
}

impl Upkeep {
    pub(crate) fn new(state: &Rc<State>, contacts_file: Option<PathBuf>) -> Upkeep {
        let now = reactor::now();
        Upkeep {
            state: state.clone(),
            contacts_file,
            saved_version: 0,
            saved_relays: Vec::new(),
            next_save: now,
            next_relays_save: now,
            next_gossip: now + GOSSIP_SMALL,
            next_rejoin: now + REJOIN,
            next_way: now + TRY_WAY,
        }
    }

    /// Runs until terminated.
    ///
    /// # Suspends
    /// Always.
    pub(crate) fn run(&mut self) {
        loop {
            reactor::sleep(TICK);
            self.ping();
            self.state.reach.tend(&self.state);
            self.rejoin();
            self.try_way();
            self.gossip();
            self.refresh();
            self.save();
        }
    }

    fn ping(&self) {
        let due = self.state.table.borrow().due_pings(reactor::now());
        for contact in due.iter().take(PINGS_PER_TICK) {
            self.state.probe(contact);
        }
    }

    /// Tries the ways in again while nobody is reachable; a first node counts as joined once somebody found it.
    fn rejoin(&mut self) {
        if reactor::now() < self.next_rejoin {
            return;
        }
        let is_alone = self.state.table.borrow().live_count() == 0;
        let ways = self.state.ways.borrow().all();
        if is_alone && !ways.is_empty() {
            if let Err(error) = join::join(&self.state, &ways) {
                tracing::debug!(%error, "not joined yet");
            }
        } else if !is_alone && !self.state.joined.get() {
            join::look_up_ourselves(&self.state);
        } else {
            return;
        }
        self.next_rejoin = reactor::now() + REJOIN;
    }

    /// Looks for somebody whom those that we know may have missed.
    fn try_way(&mut self) {
        let now = reactor::now();
        if now < self.next_way {
            return;
        }
        self.next_way = now + TRY_WAY;
        let unmet = {
            let table = self.state.table.borrow();
            // In a large network the table need not hold whom we are connected to.
            let is_in_touch = |key: &PublicKey| {
                *key == self.state.credentials.own
                    || self.state.pool.is_connected(key)
                    || table.get(&NodeId::of(key)).is_some_and(|entry| entry.is_live())
            };
            self.state.ways.borrow_mut().next_unmet(now, is_in_touch)
        };
        if let Some(way) = unmet {
            join::try_way(&self.state, way);
        }
    }

    fn gossip(&mut self) {
        let now = reactor::now();
        if now < self.next_gossip {
            return;
        }
        let (is_small, live) = {
            let table = self.state.table.borrow();
            (table.holds_everyone(), table.closest(&self.state.own_id, K))
        };
        if !is_small {
            join::look_up_ourselves(&self.state);
        } else if !live.is_empty() {
            let [random] = random_bytes::<1>();
            let asked = &live[usize::from(random) % live.len()];
            let answer = Live::of(&self.state, K).find_node(asked, &self.state.own_id).unwrap_or_default();
            let is_news = {
                let table = self.state.table.borrow();
                // Also a contact that we think dead at an address we have not tried.
                let is_known = |contact: &Contact| {
                    let entry = table.get(&contact.id);
                    entry.is_some_and(|entry| entry.is_live() || entry.contact.addresses == contact.addresses)
                };
                answer.iter().any(|contact| contact.id != self.state.own_id && !is_known(contact))
            };
            if is_news {
                let seeds = live.into_iter().chain(answer).collect();
                lookup(&Live::of(&self.state, K), self.state.own_id, self.state.own_id, K, seeds);
            }
        }
        self.next_gossip = reactor::now() + if is_small { GOSSIP_SMALL } else { GOSSIP_LARGE };
    }

    fn refresh(&self) {
        if self.state.table.borrow().holds_everyone() {
            return;
        }
        let due = self.state.table.borrow().due_refreshes(reactor::now(), random_bytes);
        for target in due.into_iter().take(REFRESHES_PER_TICK) {
            let seeds = self.state.table.borrow().closest(&target, K);
            lookup(&Live::of(&self.state, K), self.state.own_id, target, K, seeds);
            self.state.change_table(|table, now| table.on_looked_up(&target, now));
        }
    }

    fn save(&mut self) {
        let (now, version) = (reactor::now(), self.state.table.borrow().version());
        let Some(path) = &self.contacts_file else { return };
        let is_due = version != self.saved_version || now >= self.next_relays_save;
        if !is_due || now < self.next_save {
            return;
        }
        let relays = self.relays();
        if version != self.saved_version || relays != self.saved_relays {
            save_contacts(&self.state, path);
            self.next_save = now + SAVE;
        }
        (self.saved_version, self.saved_relays) = (version, relays);
        self.next_relays_save = now + SAVE_RELAYS;
    }

    /// Which contacts relay, and over which relays they are found.
    fn relays(&self) -> Vec<(bool, Vec<PublicKey>)> {
        let table = self.state.table.borrow();
        let contacts = table.entries().map(|entry| &entry.contact);
        contacts.map(|contact| (contact.as_relay().is_some(), contact.relays().to_vec())).collect()
    }
}

/// Saves the table's contacts: the live ones, or if there are none, whoever is remembered. A client, which may have been here
/// for a moment and met few, or be one of several of its home, leaves those that are in the file behind them.
///
/// # Suspends
/// Until the file is durable.
pub(crate) fn save_contacts(state: &Rc<State>, path: &Path) {
    let contacts = {
        let table = state.table.borrow();
        let mut entries: Vec<_> = table.entries().collect();
        entries.sort_by_key(|entry| (entry.failures, entry.contact.id.distance(&state.own_id)));
        let contacts = entries.iter().take(SAVED_MAX).map(|entry| Introduction::from(&entry.contact));
        contacts.collect::<Vec<_>>()
    };
    // An empty table says nothing against the contacts of the last run.
    if contacts.is_empty() {
        return;
    }
    let owned = path.to_owned();
    let adds = state.credentials.role == Role::Client;
    let save = move || {
        let mut contacts = contacts;
        if adds {
            let known = contacts_file::load(&owned)?.contacts;
            let is_new =
                |old: &Introduction| contacts.iter().all(|contact| contact.public_key != old.public_key);
            let others: Vec<Introduction> = known.into_iter().filter(is_new).collect();
            contacts.extend(others.into_iter().take(OTHERS_MAX));
        }
        contacts_file::save(&owned, &contacts)
    };
    if let Err(error) = reactor::offload(save) {
        tracing::warn!(path = %path.display(), %error, "the contacts could not be saved");
    }
}

/// Tells every live contact that we leave for good.
///
/// # Suspends
/// At most for a ping's timeout.
pub(crate) fn say_goodbye(state: &Rc<State>) {
    let contacts = state.table.borrow().closest(&state.own_id, SAVED_MAX);
    reactor::scope(|s| {
        for contact in contacts.iter().filter(|contact| state.pool.is_connected(&contact.public_key)) {
            s.spawn(move || {
                let _ = state.call::<Leave>(contact, &(), Bytes::new(), PING_TIMEOUT);
            });
        }
    });
}
