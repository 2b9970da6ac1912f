//! How a session lives (see [`super::session`], which decides): it enters before the mount is served, looks at the register
//! about each second, and leaves with its last commit.
//!
//! What it has to say goes into commits, by the committer, with files' changes or without: only it changes the tree. What
//! it learns comes from roots that are taken over, and from looks. A holder whose commit takes long, on a slow line, cannot
//! take the newcomer's root over meanwhile; it *nods*: it swaps that root for one with the same tree and its own name in
//! it, which takes no reading and no writing.

use std::cell::Cell;
use std::time::{Duration, Instant};

use dht::{Reach, Record};
use reactor::cell::RefCell;
use reactor::sync::Signal;

use super::Volume;
use super::session::{Intent, LEASE, Present, Session};
use super::state::Change;
use crate::access::{Root, open_root};
use crate::errno::Errno;
use crate::format::{Key, Label, OBJECT_SIZE_MAX, Pointer};
use crate::operations::Time;

/// How long a mount, or an open, waits for another mount that says that it is still storing: what one may hold back, 128 MiB,
/// over a line of 2 Mbit/s. After that opens wait no more.
const ENTRY_PATIENCE: Duration = Duration::from_secs(600);
/// How often a newcomer looks whether it has to wait on.
const NEWCOMER_INTERVAL: Duration = Duration::from_millis(100);
/// Waiting longer than this is told; nodes that take nothing for longer are waited for no more, at the start as little as later:
/// a drive may be started from what is here.
pub(super) const LONG: Duration = Duration::from_secs(2);
/// For how long opens and closes wait once the session is to enter again while the mount is served, as when the machine slept.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2 * LEASE.as_secs());
/// How often a collector of garbage hears that a commit is under way that it waits for: a nod costs others a lost race.
const COLLECTOR_NOD_INTERVAL: Duration = Duration::from_secs(15);
/// How long a mount that ends tries to say so: everything is stored by then, and others find out.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);
/// In the place of a delta's number in a root's commit id: there is none.
pub(super) const NOD: u64 = u64::MAX;

/// Whether a root is a nod: its tree is the one before's, and nobody need wait for what follows.
pub(super) fn is_nod(root: &Root) -> bool {
    root.commit.last_chunk() == Some(&NOD.to_le_bytes())
}

/// A session, and who waits for it.
pub(super) struct Lease {
    pub(super) session: RefCell<Session>,
    /// The tree has other sessions than before, or we know more of them.
    pub(super) changed: Signal,
    /// It is noted beside the journal.
    is_noted: Cell<bool>,
    /// Another waited for us at the last look.
    was_waited_for: Cell<bool>,
    /// When a collector of garbage was last told that we are at work.
    nodded: Cell<Option<Instant>>,
    /// Since when it is not known that what others closed is to be seen.
    unsettled: Cell<Option<Instant>>,
}

impl Lease {
    pub(super) fn new(id: [u8; 8], device: u64, has_journal: bool, whose: (Label, [u8; 32])) -> Lease {
        Lease {
            session: RefCell::new(Session::new(id, device, Time::now().seconds, has_journal, whose)),
            changed: Signal::new(),
            is_noted: Cell::new(false),
            was_waited_for: Cell::new(false),
            nodded: Cell::new(None),
            unsettled: Cell::new(None),
        }
    }
}

/// Returns the time by which leases run: the reactor's, and that in which the machine slept.
///
/// The latter in whole seconds, which [`MARGIN`](super::session::MARGIN) covers.
pub(super) fn now() -> Instant {
    reactor::now() + reactor::slept()
}

impl Volume {
    /// Whether others can't be there, or this one never writes.
    fn is_silent(&self) -> bool {
        self.options.watch_interval.is_none() || self.options.read_only
    }

    /// Makes this a session beside those that the tree has, if it may write and others may be there: before anything is
    /// committed. Whoever may not write yet says nothing in the tree, and enters with its first commit once it may.
    ///
    /// # Suspends
    ///
    /// While it is noted beside the journal.
    pub(super) fn begin_session(&self, present: Present) {
        if self.is_silent() {
            return;
        }
        let over = self.journal.as_ref().map_or_else(Vec::new, |journal| journal.earlier_sessions());
        self.lease.session.borrow_mut().announce(&over);
        if !self.is_shut() {
            self.note_own_session();
        }
        self.on_sessions(present);
    }

    /// Notes this session beside the earlier ones, unless it is: before any of it can be in the tree. The others stay until it is,
    /// for that takes them out of it; so one that never enters leaves the note as it is, which has room for few.
    ///
    /// # Suspends
    ///
    /// While the note is written.
    pub(super) fn note_own_session(&self) {
        if !self.lease.session.borrow().is_announced() || self.lease.is_noted.replace(true) {
            return;
        }
        let Some(journal) = &self.journal else { return };
        let mut noted = journal.earlier_sessions();
        noted.push(self.session);
        journal.note_sessions(&noted);
    }

    /// Waits until the session is in the tree, and what others closed is to be seen.
    ///
    /// # Suspends
    ///
    /// Until then, for some seconds at most, or for as long as another mount takes to store what it has.
    pub(super) fn enter(&self) {
        // Whoever must not write enters when it may; the note stays as it is.
        if self.is_silent() || self.is_shut() {
            return;
        }
        self.work.notify_all();
        let begun = reactor::now();
        let mut is_told = false;
        while !self.is_settled() {
            let waited = reactor::now().saturating_duration_since(begun);
            if self.has_trouble_for(LONG) || waited > ENTRY_PATIENCE {
                tracing::warn!(
                    "it is not known whether another mount has the drive for itself: until that is settled, what that one \
                     closed may be seen here late, and what is closed here may be seen there late"
                );
                return;
            }
            if !is_told && waited > LONG {
                tracing::info!(
                    "waiting until this mount is announced and another that has the drive for itself has stored what it \
                     holds; one that is silent for {} seconds is waited for no more",
                    LEASE.as_secs()
                );
                is_told = true;
            }
            self.look_again();
        }
        let in_tree = {
            let session = self.lease.session.borrow();
            // Whoever must not write any more is in no tree, and the others stay where they are.
            if session.is_absent() {
                return;
            }
            [session.over(), vec![self.session]].concat()
        };
        let Some(journal) = &self.journal else { return };
        // The others stay in the note, and go first where it has no room: they are in the tree again when that is put back to
        // one in which they were.
        let mut noted = journal.earlier_sessions();
        noted.retain(|id| !in_tree.contains(id));
        noted.extend(in_tree);
        journal.note_sessions(&noted);
    }

    /// Whether the nodes have taken nothing for longer than `patience`. Full ones don't get emptier by waiting, and of those
    /// that are known to be away it is known that they have been for a while.
    pub(super) fn has_trouble_for(&self, patience: Duration) -> bool {
        if self.is_away() {
            return true;
        }
        let durability = &self.state.borrow().durability;
        durability.trouble().is_some_and(|trouble| trouble.errno == Errno::ENOSPC)
            || durability.trouble_age(reactor::now()).is_some_and(|age| age > patience)
    }

    /// Looks at the register, a moment later or when there is news.
    fn look_again(&self) {
        let _ = reactor::timeout(NEWCOMER_INTERVAL, || self.lease.changed.wait());
        self.look();
    }

    fn is_settled(&self) -> bool {
        // Whoever must not write to the volume any more cannot enter.
        let is_settled = self.lease.session.borrow().is_settled(now()) || !self.may_write();
        let since = if is_settled { None } else { self.lease.unsettled.get().or_else(|| Some(now())) };
        self.lease.unsettled.set(since);
        is_settled
    }

    fn may_write(&self) -> bool {
        let state = self.state.borrow();
        state.charter.features.unwritable() == 0 && state.shut.is_none()
    }

    /// Waits until what others closed is to be seen, where this is not known: after this session was struck out. Returns
    /// whether there was anything to wait for.
    ///
    /// # Suspends
    ///
    /// Until then, as long as the nodes take something; at most for a stated patience with the nodes, or with one that says
    /// that it is still storing.
    pub(super) fn wait_until_settled(&self) -> bool {
        // One failure is none yet: what was on its way while the machine slept fails.
        let is_away = || self.freshness.is_unreachable() || self.has_trouble_for(LONG);
        let mut has_waited = false;
        while !self.is_settled() && !is_away() {
            let patience = match self.lease.session.borrow().is_entering() {
                true => ENTRY_PATIENCE,
                false => SETTLE_PATIENCE,
            };
            // Once, and not at each open anew.
            let unsettled = self.lease.unsettled.get().map_or(Duration::ZERO, |since| now() - since);
            let Some(left) = patience.checked_sub(unsettled) else { break };
            has_waited = true;
            let _ = reactor::timeout(left, || self.look_again());
        }
        has_waited
    }

    /// The tree that we stand on has these sessions.
    pub(super) fn on_sessions(&self, present: Present) {
        self.lease.session.borrow_mut().on_tree(present, now());
        self.lease.changed.notify_all();
    }

    /// The session that published `root` is there.
    pub(super) fn on_heard_of(&self, root: &Root) {
        if let Some(id) = root.commit.first_chunk() {
            self.lease.session.borrow_mut().on_heard(*id, now());
        }
    }

    /// Returns what the next commit is to say of sessions; it is wanted for that alone.
    pub(super) fn session_intent(&self) -> Option<Intent> {
        // Whoever must not write to the volume any more says nothing more in it.
        self.lease.session.borrow().wants(now()).filter(|_| self.may_write())
    }

    /// Returns the sessions in a tree.
    ///
    /// # Suspends
    ///
    /// While it is read.
    pub(super) fn sessions_in(&self, tree: Option<Pointer>) -> Result<Present, Errno> {
        let mut present = Present::new();
        let Some(tree) = tree else { return Ok(present) };
        let (mut from, end) = (Key::Session(0), Key::Inode(1));
        while let Some((key, change)) = self.step(|state| state.next_in(&tree, &from, &end))? {
            from = key.successor();
            if let (Key::Session(id), Change::Session(record)) = (key, change) {
                present.insert(id, record);
            }
        }
        Ok(present)
    }

    /// Looks at the register now and then, and takes over what another writer published.
    pub(super) fn watch(&self, interval: Duration) {
        loop {
            reactor::sleep(interval);
            self.look();
        }
    }

    pub(super) fn look(&self) {
        let begun = now();
        if !self.state.borrow().has_changes() {
            // What a large commit needed is not kept for long.
            self.buffers.shrink(OBJECT_SIZE_MAX);
        }
        let _ = self.is_settled();
        let read = self.read_root();
        if read.is_err() && self.store.reach(&self.keys.register) != Reach::Quorum {
            self.freshness.note_unreachable();
        }
        if let Ok(Some(record)) = read {
            self.freshness.note_reachable();
            let is_committing = self.state.borrow().committing.is_some();
            if record.version <= self.version.get() {
                self.lease.session.borrow_mut().on_look(begun);
            } else if is_committing {
                self.look_ahead(&record);
            } else {
                self.offer(record.clone());
            }
            let is_waited_for = self.lease.session.borrow().is_waited_for();
            if self.lease.was_waited_for.replace(is_waited_for) && is_waited_for {
                self.nod(&record);
            } else if is_committing {
                self.nod_to_collector(&record);
            }
        }
        self.heed_collection();
        if self.session_intent().is_some() {
            self.work.notify_all();
        }
    }

    /// Looks whether a root that the committer can't take over yet, since it is at work, shows another session.
    fn look_ahead(&self, record: &Record) {
        let Ok(root) = self.open_newer(record) else { return };
        // Whoever waits for another may have much to store itself meanwhile.
        self.on_heard_of(&root);
        let Ok(present) = self.sessions_in(root.tree) else { return };
        self.lease.session.borrow_mut().on_ahead(&present);
    }

    /// Tells a collector that waits for us, if there is one, that we are there, and still storing.
    fn nod_to_collector(&self, record: &Record) {
        let is_soon = |nodded: Instant| now() < nodded + COLLECTOR_NOD_INTERVAL;
        if self.lease.nodded.get().is_some_and(is_soon) {
            return;
        }
        let Ok(root) = open_root(&record.payload, record.version, &self.keys.secret) else { return };
        let Some(collection) = root.charter.collection() else { return };
        if self.lease.session.borrow().is_to_clear(collection.version) {
            self.lease.nodded.set(Some(now()));
            self.nod(record);
        }
    }

    /// Tells who waits for us that we are there, and still storing; `record` is what the register has.
    fn nod(&self, record: &Record) {
        // One that takes nothing for long is not waited for: what it was told to store may never be.
        let trouble = self.state.borrow().durability.trouble_age(reactor::now());
        if trouble.is_some_and(|age| age > LEASE) {
            return;
        }
        let Ok(root) = open_root(&record.payload, record.version, &self.keys.secret) else { return };
        if root.charter.features.unwritable() != 0 || self.is_shut() {
            return;
        }
        let nod = Root {
            charter: self.charter_after(&root),
            version: record.version + 1,
            previous: Some(record.header_hash),
            commit: super::commit::commit_id(self.session, NOD),
            time: Time::now(),
            author: self.options.author.clone(),
            ..root
        };
        let payload = self.sealer.borrow_mut().seal(&nod);
        let nodded = self.store.compare_and_swap(&self.keys.register, Some(record.header_hash), payload);
        if let Err(error) = nodded {
            tracing::debug!(%error, "the newcomer is not told that we are still storing");
        }
    }

    /// Goes on from our own nod, if that is what `record` is: it has the tree that we stand on.
    pub(super) fn take_nod(&self, record: &Record) -> bool {
        let Ok(root) = open_root(&record.payload, record.version, &self.keys.secret) else { return false };
        let mut state = self.state.borrow_mut();
        let is_ours = root.commit == super::commit::commit_id(self.session, NOD)
            && root.tree == state.tree
            && root.charter == state.charter;
        if is_ours {
            state.header = Some(record.header_hash);
            self.stand_on(record);
        }
        is_ours
    }

    /// Takes this session out of the tree, if the nodes let it. Everything else is stored by now.
    ///
    /// # Suspends
    ///
    /// For a stated patience at most. Returns whether it is out, and the committer at rest.
    pub(super) fn leave(&self) -> bool {
        // What is in flight may yet put it there, and may take for ever.
        let is_idle = || self.state.borrow().committing.is_none() && self.gate.is_open();
        let has_left = || is_idle() && self.session_intent().is_none();
        let is_vain = || self.gives_up.get() || self.has_trouble_for(LEAVE_PATIENCE);
        let _ = reactor::timeout(LEAVE_PATIENCE, || {
            while !has_left() && !is_vain() {
                self.work.notify_all();
                self.lease.changed.wait();
            }
        });
        has_left()
    }
}
