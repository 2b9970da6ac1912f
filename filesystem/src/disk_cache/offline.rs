//! What a volume needs where no node answers: its newest root, kept; and whether those that keep it answer. Each volume that is
//! opened through a cache has its own, the drive and each space in it: their roots lie with other nodes.
//!
//! A root that was only seen is worth little without its tree, which is fetched a moment later, or never, if the line is cut in that
//! moment. So the last one that the volume went on from is kept beside a newer one that was seen.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use dht::block_store::{Outage, Record, RegisterAddress};
use reactor::cell::RefCell;
use reactor::sync::Mutex;

use super::{DiskCache, roots};
use crate::silence::{RESTART_MAX, Silence};

/// Roots that are remembered between the moment in which they are seen and that in which they are taken over.
const SEEN_MAX: usize = 8;
/// What the names of clients' files end with that have the one beside the newest.
const BESIDE: &str = ".before";

/// The newest root of one volume that this machine has seen, and the silence of the nodes that keep it.
pub struct KeptRoot {
    cache: Rc<DiskCache>,
    register: RegisterAddress,
    /// "the drive", or which space, for the log.
    what: String,
    /// The last that were seen, the newest at the end.
    seen: RefCell<VecDeque<Record>>,
    /// The last that the volume went on from: its tree is here, as far as that was needed.
    taken_over: RefCell<Option<Record>>,
    /// Held while files are written: of two that do it at once the older might be the last.
    turn: Mutex<()>,
    /// What keeps the root of each commit, once there was one: no commit waits while files are made durable.
    newest: Mutex<Option<roots::Newest>>,
    /// The newest that it was told.
    published_version: Cell<u64>,
    /// The newest that is on the disk, whoever kept it.
    saved_version: Cell<u64>,
    /// The one in this client's file beside it.
    saved_beside: Cell<u64>,
    /// What this machine has seen of it, or what it was tried to open it by without the nodes.
    known: Cell<Option<u64>>,
    silence: RefCell<Silence>,
    /// How long this machine had slept when the silence was told.
    slept_before: Cell<Duration>,
}

impl DiskCache {
    /// Begins to keep the newest root of the volume with this register, which people know as `what`.
    pub fn root(self: &Rc<DiskCache>, register: &RegisterAddress, what: impl Into<String>) -> Rc<KeptRoot> {
        let root = Rc::new(KeptRoot {
            cache: self.clone(),
            register: *register,
            what: what.into(),
            seen: RefCell::default(),
            taken_over: RefCell::new(None),
            turn: Mutex::new(()),
            newest: Mutex::new(None),
            published_version: Cell::new(0),
            saved_version: Cell::new(0),
            saved_beside: Cell::new(0),
            known: Cell::new(None),
            silence: RefCell::default(),
            slept_before: Cell::default(),
        });
        if self.is_removed.get() {
            root.note_opened_without();
        }
        let mut roots = self.roots.borrow_mut();
        roots.retain(|root| root.strong_count() > 0);
        roots.push(Rc::downgrade(&root));
        drop(roots);
        root
    }

    fn live_roots(&self) -> Vec<Rc<KeptRoot>> {
        self.roots.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Has the newest roots that were seen of all open volumes on the disk.
    ///
    /// # Suspends
    ///
    /// Until they are durable.
    pub fn keep_roots(&self) {
        for root in self.live_roots() {
            root.keep(0);
        }
    }

    /// Removes every root that was kept of a volume: an older state of it was accepted.
    ///
    /// # Suspends
    ///
    /// Until they are gone.
    pub fn forget_roots(&self, register: &RegisterAddress) {
        if let Err(error) = roots::forget(&self.directory, register) {
            self.fail(&error);
        }
        for root in self.live_roots().iter().filter(|root| root.register == *register) {
            root.saved_version.set(0);
            root.saved_beside.set(0);
            root.published_version.set(0);
            root.newest.lock().take();
        }
    }

    /// The nodes serve this user no more: nobody asks them before it is offline, or says again that it is.
    pub fn on_removed(&self) {
        self.is_removed.set(true);
        for root in self.live_roots() {
            root.note_opened_without();
        }
    }
}

impl KeptRoot {
    /// Whose root it is.
    pub fn register(&self) -> &RegisterAddress {
        &self.register
    }

    /// Returns the roots of the volume that clients of this cache have kept, the newest first.
    ///
    /// # Suspends
    ///
    /// While the files are read.
    pub fn kept(&self) -> Vec<Record> {
        let (directory, key) = (&self.cache.directory, &self.cache.key);
        let Ok(kept) = roots::kept(directory, key, &self.register) else { return Vec::new() };
        self.saved_version.set(self.saved_version.get().max(kept.durable_version));
        let beside = roots::version_in(directory, &self.file_beside(), key, &self.register);
        self.saved_beside.set(self.saved_beside.get().max(beside));
        kept.records
    }

    fn file_beside(&self) -> String {
        format!("{}{BESIDE}", self.cache.client)
    }

    /// Makes the newest root that was seen durable here, unless a newer one is, and says whether one as new as `version` is. It is to
    /// be so before that version is written down as seen: a start without the nodes is told to be older than that otherwise.
    ///
    /// # Suspends
    ///
    /// Until it is durable.
    pub fn keep(&self, version: u64) -> bool {
        let _turn = self.turn.lock();
        let newest = self.seen.borrow().back().cloned();
        let Some(record) = newest.filter(|record| record.version >= version) else {
            return version > 0 && self.saved_version.get() >= version;
        };
        let cache = &self.cache;
        if record.version > self.saved_version.get() && !cache.is_off.get() {
            let save = |client: &str, record: &Record| {
                roots::save(&cache.directory, client, &cache.key, &self.register, record)
            };
            // First what the newer one takes the place of, if not all of that is here yet.
            let beside = self.taken_over.borrow().clone();
            let beside =
                beside.filter(|old| old.version < record.version && old.version > self.saved_beside.get());
            let saved = beside.iter().try_for_each(|old| {
                save(&self.file_beside(), old)?;
                self.saved_beside.set(old.version);
                Ok(())
            });
            match saved.and_then(|()| save(&cache.client, &record)) {
                Ok(()) => self.saved_version.set(record.version),
                Err(error) => cache.fail(&error),
            }
        }
        true
    }

    /// Keeps the root of a commit whose blocks are here, so that a start after the end of this process, however sudden, shows what was
    /// answered; a power cut may take it. What is kept for good is [`KeptRoot::keep`]'s.
    ///
    /// # Suspends
    ///
    /// Until the kernel has it.
    pub(super) fn keep_published(&self, record: &Record) {
        let cache = &self.cache;
        let mut newest = self.newest.lock();
        if cache.is_off.get() || record.version <= self.published_version.get() {
            return;
        }
        let written = (|| {
            let (directory, client, key) = (&cache.directory, &cache.client, &cache.key);
            let mut opened = match newest.take() {
                Some(opened) => opened,
                None => roots::Newest::open(directory, client, key, &self.register)?,
            };
            opened.write(key, &self.register, record)?;
            *newest = Some(opened);
            Ok(())
        })();
        match written {
            Ok(()) => self.published_version.set(record.version),
            Err(error) => cache.fail(&error),
        }
    }

    /// This machine has seen that version of it: what is opened without the nodes is told to be older, if it is.
    pub fn note_known(&self, version: u64) {
        self.known.set(self.known.get().max(Some(version)));
    }

    /// Returns for how long no quorum of the volume's nodes has answered, if that is long enough to be called offline: by the clock
    /// on the wall, for people. What is decided by it counts waking time only, see `silence.rs`.
    pub fn offline_for(&self) -> Option<Duration> {
        let since = self.silence.borrow().offline_since()?;
        Some(self.told_since(since))
    }

    pub(super) fn cache(&self) -> &Rc<DiskCache> {
        &self.cache
    }

    fn told_since(&self, since: Instant) -> Duration {
        let slept = reactor::slept().saturating_sub(self.slept_before.get());
        reactor::now().saturating_duration_since(since) + slept
    }

    pub(super) fn outage(&self) -> Option<Outage> {
        let silence = self.silence.borrow();
        let is_long = silence.is_long(reactor::now());
        silence.offline_since().map(|since| Outage { since, is_long })
    }

    /// Whether it has been offline for longer than a restart takes.
    pub(super) fn is_long_offline(&self) -> bool {
        self.silence.borrow().is_long(reactor::now())
    }

    /// Whether a question may go to the nodes.
    pub(super) fn may_ask(&self) -> bool {
        self.silence.borrow_mut().may_ask(reactor::now())
    }

    /// No node answers, and the volume goes on without them.
    pub(super) fn note_opened_without(&self) {
        self.silence.borrow_mut().on_opened_without(reactor::now());
        self.slept_before.set(reactor::slept());
    }

    /// The volume is opened as this machine saw it last, or as it was before.
    pub(super) fn tell_opened_without(&self, start: &Record) {
        let (what, version) = (&self.what, start.version);
        let known = self.known.get().max(Some(version));
        self.known.set(known);
        if known > Some(version) {
            tracing::warn!(
                version,
                "the cache lacks some of what this machine saw last of {what}: it is opened as it was before, until the nodes answer"
            );
        } else if self.offline_for().is_none() {
            // Of a user who was removed that has been said, and is not the nodes' fault.
            tracing::warn!(
                version,
                "the nodes that keep the root of {what} do not answer: it is opened as this machine saw it last"
            );
        }
        self.note_opened_without();
        *self.seen.borrow_mut() = VecDeque::from([start.clone()]);
    }

    pub(super) fn note_root(&self, register: &RegisterAddress, record: &Record) {
        debug_assert_eq!(*register, self.register, "one volume's store is asked for another's root");
        let mut seen = self.seen.borrow_mut();
        if seen.back().is_none_or(|known| known.version < record.version) {
            if seen.len() == SEEN_MAX {
                seen.pop_front();
            }
            seen.push_back(record.clone());
        }
    }

    /// The volume goes on from that version of its root.
    pub(super) fn note_taken_over(&self, version: u64) {
        let found = self.seen.borrow().iter().find(|record| record.version == version).cloned();
        if found.is_some() {
            *self.taken_over.borrow_mut() = found;
        }
    }

    pub(super) fn note_answer(&self) {
        if let Some(since) = self.silence.borrow_mut().on_answer() {
            let (what, seconds) = (&self.what, self.told_since(since).as_secs());
            tracing::warn!(
                "nodes of {what} answer again, after {seconds} s: what was written meanwhile goes to them"
            );
        }
    }

    /// Somebody took something.
    pub(super) fn note_taken(&self) {
        self.silence.borrow_mut().on_taken();
    }

    /// Somebody looked whether a quorum can be reached.
    pub(super) fn note_look(&self, is_quorum: bool) {
        let becomes = self.silence.borrow_mut().on_look(is_quorum, reactor::now());
        self.tell_offline(becomes);
    }

    /// A question for the root had no answer, from anybody.
    pub(super) fn note_unanswered(&self) {
        let becomes = self.silence.borrow_mut().on_unanswered(reactor::now());
        self.tell_offline(becomes);
    }

    fn tell_offline(&self, becomes: bool) {
        if becomes {
            self.slept_before.set(reactor::slept());
            let what = &self.what;
            tracing::warn!(
                "too few of the nodes that keep {what} answer, or they do not serve this user: {what} is offline; what its \
                 cache has is readable, as new as it was seen last, what it has not is waited for until they have been away for {} s, \
                 since they may be restarting, and what is written waits on this machine",
                RESTART_MAX.as_secs()
            );
        }
    }
}
