//! Making changes durable, and waiting until they are: on a quorum, or in write-back mode in the local journal.
//!
//! Whoever waits names a number (see [`super::durability`]); what writes the journal or commits raises a watermark. A wait
//! goes on as long as the store takes something, and ends with an error once it has taken nothing for the patience, or once
//! the nodes are known to be away (see [`super::away`]), unless the volume is mounted hard. A close turns to the journal
//! then, which has no promise to break; `fsync` promises a quorum, and says that there is none.

use std::cell::Cell;

use bytes::Bytes;

use super::state::{Attempt, Change, Delta, State};
use super::values::encode_value;
use super::{Cause, Volume};
use crate::errno::Errno;
use crate::format::Key;
use crate::journal::{Files, Group, Item, Journal, JournalError};

impl Volume {
    /// Makes all changes up to `number` as durable as the mode promises. Once the nodes are away it waits no longer, unless
    /// mounted hard.
    ///
    /// # Errors
    ///
    /// As [`Volume::sync_to_near`].
    ///
    /// # Suspends
    ///
    /// Until they are.
    pub(super) fn sync_changes(&self, number: u64) -> Result<(), Errno> {
        self.refuse_if_shut(number)?;
        let journal = self.journal.as_ref().filter(|_| self.options.write_back);
        if let Some(journal) = journal {
            let mut files = journal.turn();
            if self.state.borrow().durability.is_durable(number) {
                return Ok(());
            }
            match self.write_group(journal, &mut files) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::error!(%error, "the journal fails: syncing waits for the nodes instead")
                }
            }
        }
        if self.options.hard { self.sync_to(number) } else { self.sync_to_near(number) }
    }

    /// As [`Volume::sync_changes`]; but once the nodes are away, the changes go to the journal, and it is said that no quorum
    /// has them.
    ///
    /// # Errors
    ///
    /// As [`Volume::sync_while_near`].
    ///
    /// # Suspends
    ///
    /// Until they are durable, or that is known.
    pub(super) fn sync_or_say_that_nobody_answers(&self, number: u64) -> Result<(), Errno> {
        self.refuse_if_shut(number)?;
        if self.options.hard {
            return self.sync_changes(number);
        }
        let synced = self.sync_while_near(number);
        if synced.is_err() {
            self.refuse_if_shut(number)?;
            if self.is_away() {
                // What was said is what no quorum has; what fails besides, the log tells.
                let _ = self.sync_to_journal(number);
            }
        }
        synced
    }

    /// Makes what was closed while others are mounted as safe as it can be: a quorum has it, or, where that takes nothing, the
    /// journal.
    ///
    /// # Errors
    ///
    /// Why the store refuses it; `ENOSPC` or `EIO` of the journal's disk, if neither has it.
    ///
    /// # Suspends
    ///
    /// Until it is, or the nodes are away, or have taken nothing for the patience.
    pub(super) fn sync_closed(&self, number: u64) -> Result<(), Errno> {
        let Err(errno) = self.sync_while_near(number) else { return Ok(()) };
        self.refuse_if_shut(number)?;
        // Nodes that refuse it are there, and whoever closes a file should know.
        let is_silence = matches!(errno, Errno::ETIMEDOUT | Errno::EHOSTUNREACH);
        if !is_silence || self.journal.is_none() {
            return Err(errno);
        }
        match self.sync_to_journal(number) {
            Err(_) if self.options.hard => self.sync_changes(number),
            kept => kept,
        }
    }

    /// As [`Volume::sync_changes`], but waits no longer once the nodes are away.
    ///
    /// # Errors
    ///
    /// As [`Volume::sync_to`]; `ETIMEDOUT` then, or that of the cause if nothing is taken from this user any more.
    ///
    /// # Suspends
    ///
    /// Until they are durable, or that is known.
    fn sync_while_near(&self, number: u64) -> Result<(), Errno> {
        match self.options.write_back {
            true => self.sync_changes(number),
            false => self.sync_to_near(number),
        }
    }

    /// Writes all changes up to `number` to the journal, whatever the mode, so that a power cut leaves them.
    ///
    /// # Errors
    ///
    /// `ENOSPC` or `EIO` of its disk; without a journal, why the store takes nothing.
    ///
    /// # Suspends
    ///
    /// Until they are there.
    pub(super) fn sync_to_journal(&self, number: u64) -> Result<(), Errno> {
        let Some(journal) = &self.journal else { return Err(self.trouble()) };
        let mut files = journal.turn();
        // Whoever had the turn before may have written them.
        if self.state.borrow().durability.is_kept(number) {
            return Ok(());
        }
        let written = self.write_group(journal, &mut files);
        drop(files);
        self.note_journal(written.as_ref().err().map(|error| error as &dyn std::fmt::Display));
        written.map_err(|error| error.errno())
    }

    /// Writes what is closed while nobody else is there to the journal, so that it outlives this process, though not
    /// a power cut: the next start puts it in. Without a journal, or where that fails, the nodes have to take it.
    ///
    /// # Errors
    ///
    /// As [`Volume::sync_closed`].
    ///
    /// # Suspends
    ///
    /// While it is written.
    pub(super) fn note_closed(&self, number: u64) -> Result<(), Errno> {
        self.refuse_if_shut(number)?;
        match self.journal.as_ref().filter(|_| !self.options.write_back) {
            Some(journal) => self.note(journal, number),
            None => self.sync_changes(number),
        }
    }

    /// As [`Volume::note_closed`], what was changed and has no close, with all that was changed before it: what a program was
    /// told is done must not be undone by the end of this process, nor outlive what it did first. In write-back mode too,
    /// where a close waits for the disk. Without a journal nothing is kept.
    ///
    /// # Errors
    ///
    /// As [`Volume::sync_closed`].
    ///
    /// # Suspends
    ///
    /// As [`Volume::note_closed`]; as a rule not at all, since the page cache takes it at once.
    pub(super) fn note_changes(&self) -> Result<(), Errno> {
        let number = self.state.borrow().durability.newest_change();
        self.refuse_if_shut(number)?;
        self.journal.as_ref().map_or(Ok(()), |journal| self.note(journal, number))
    }

    fn note(&self, journal: &Journal, number: u64) -> Result<(), Errno> {
        let mut files = journal.turn();
        // Whoever had the turn before may have written it: those who waited share one group.
        if self.state.borrow().durability.is_noted(number) {
            return Ok(());
        }
        let written = self.write_group_as(journal, &mut files, false);
        drop(files);
        self.note_journal(written.as_ref().err().map(|error| error as &dyn std::fmt::Display));
        written.or_else(|_| self.sync_closed(number))
    }

    /// Writes what the journal lacks, or all that is not committed where that is to take the place of what it has.
    ///
    /// # Suspends
    ///
    /// Until it is durable.
    pub(super) fn write_group(&self, journal: &Journal, files: &mut Files) -> Result<(), JournalError> {
        self.write_group_as(journal, files, true)
    }

    fn write_group_as(
        &self,
        journal: &Journal,
        files: &mut Files,
        durably: bool,
    ) -> Result<(), JournalError> {
        let (head, changes, group) = {
            let mut state = self.state.borrow_mut();
            let newest = state.durability.newest();
            state.durability.on_journaling(newest);
            // Of whoever is shut out an older file may have content that he has nowhere else: none is replaced for its length.
            let snapshot = match state.shut.is_some() {
                true => journal.needs_snapshot(files),
                false => journal.wants_snapshot(files, state.dirty_bytes() as u64),
            };
            let mut head = Vec::new();
            if snapshot {
                let (device, volume) = (self.options.device, state.charter.volume);
                head.push(Item::Snapshot { session: self.session, device, volume });
            }
            let version = self.version.get();
            let changes = uncommitted(&state, snapshot);
            let delta = changes.iter().filter(|part| !part.is_empty()).map(|part| part.number).max();
            // A name is a few hundred bytes: what they stand on is said once, and not with each. If what is being published goes
            // through, the newer changes stand on that, and it is said behind the other.
            let base = Item::Base { number: state.durability.committed(), version, tree: state.tree };
            if snapshot || state.attempt.is_some() || delta.is_none() || journal.lacks_base(files, &base) {
                head.push(base.clone());
            }
            let announced = |Attempt { number, tree }| Item::Base { number, version: version + 1, tree };
            head.extend(state.attempt.map(announced));
            // Without the nodes the drive can be opened by that one, and by none before it.
            if snapshot || journal.lacks_root(files, version) {
                head.extend(self.stands_on.borrow().clone().map(Item::Root));
            }
            // What takes the place of what a power cut would leave is left by it too.
            let durably = durably || (snapshot && state.durability.keeps_more());
            let through = state.durability.newest();
            let writer = (self.session, self.options.device);
            (head, changes, Group { snapshot, durably, through, base, root_version: version, writer, delta })
        };
        let is_given = Cell::new(true);
        let is_given = self.is_shut().then_some(&is_given);
        let items = changes.into_iter().filter(|part| !part.is_empty()).flat_map(|part| {
            let Part { number, born, changes } = part;
            let changes = changes.into_iter().map(move |(key, change)| match is_given {
                Some(is_given) => item((key, self.with_content(change, is_given))),
                None => item((key, change)),
            });
            [Item::Delta(number)].into_iter().chain(born).chain(changes)
        });
        let Group { through, durably, .. } = group;
        let is_whole = || is_given.is_none_or(Cell::get);
        if let Some(kept) = journal.append_group(files, group, head.into_iter().chain(items), is_whole)? {
            tracing::error!(
                kept = %kept.display(),
                "the nodes give nothing back of what waited here and had been sent to them: what an earlier mount's journal has of it is kept \
                 under that name and the like"
            );
            self.damaged_journal.borrow_mut().get_or_insert(kept);
        }
        self.state.borrow_mut().durability.on_journaled(through, durably);
        Ok(())
    }

    /// Puts content in the place of where nodes have it, of what they took for a commit that no root will ever be of: they may give
    /// it up, and whoever is shut out has it nowhere else. What can't be had stays as it is, and of nodes that do not give one
    /// nobody waits for the next (`is_given`). One at a time: all of it may be more than there is memory.
    ///
    /// # Suspends
    ///
    /// While it is read.
    fn with_content(&self, change: Change, is_given: &Cell<bool>) -> Change {
        let Change::Stored(pointer) = &change else { return change };
        let here = self.state.borrow_mut().cache.frame(pointer);
        let content = here.or_else(|| {
            let fetched = if is_given.get() { self.fetch_frame(pointer) } else { return None };
            is_given.set(fetched.is_ok());
            fetched.ok()
        });
        content.map_or(change, Change::Frame)
    }

    /// Tells the journal the root that is about to be published, if it holds changes on top of that.
    ///
    /// # Suspends
    ///
    /// Until it is durable.
    pub(super) fn announce(&self, attempt: Attempt) -> Result<(), Errno> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let mut files = journal.turn();
        if files.through() <= attempt.number {
            return Ok(());
        }
        self.write_group(journal, &mut files).map_err(|error| {
            tracing::error!(%error, "the journal fails: the commit waits for it");
            Errno::EIO
        })
    }

    /// Waits until a quorum has all changes made so far.
    ///
    /// # Errors
    ///
    /// As [`Volume::sync_to`].
    ///
    /// # Suspends
    ///
    /// Until they are.
    pub(super) fn sync_all(&self) -> Result<(), Errno> {
        let newest = self.state.borrow().durability.newest();
        self.sync_to(newest)
    }

    /// Waits until a quorum has all changes up to `number`.
    ///
    /// # Errors
    ///
    /// Why the store takes nothing, once it has done so for the patience. The changes are kept and tried again.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub(super) fn sync_to(&self, number: u64) -> Result<(), Errno> {
        self.want(number);
        self.wait_until(|state| is_stored(state, number).then_some(Ok(())))
    }

    /// As [`Volume::sync_to`], but waits no longer once the nodes are away.
    ///
    /// # Errors
    ///
    /// As [`Volume::sync_to`]; `ETIMEDOUT` then, or that of the cause if nothing is taken from this user any more.
    ///
    /// # Suspends
    ///
    /// Until then, or that is known.
    pub(super) fn sync_to_near(&self, number: u64) -> Result<(), Errno> {
        self.want(number);
        self.wait_until(|state| match is_stored(state, number) {
            true => Some(Ok(())),
            false => self.is_away().then_some(Err(state.shut.map_or(Errno::ETIMEDOUT, Cause::errno))),
        })
    }

    fn want(&self, number: u64) {
        if self.state.borrow_mut().durability.want(number) {
            self.work.notify_all();
        }
    }

    /// Waits until `done` says something.
    ///
    /// # Errors
    ///
    /// Those of `done`, or why the store takes nothing, once it has taken nothing for the patience.
    pub(super) fn wait_until(&self, done: impl Fn(&State) -> Option<Result<(), Errno>>) -> Result<(), Errno> {
        let look = || done(&self.state.borrow());
        if let Some(result) = look() {
            return result;
        }
        loop {
            let before = self.state.borrow().durability.successes();
            let waited = reactor::timeout(self.options.sync_patience, || {
                loop {
                    if let Some(result) = look() {
                        return result;
                    }
                    if self.gives_up.get() || self.is_shut() {
                        return Err(self.trouble());
                    }
                    self.progress.wait();
                }
            });
            if let Ok(result) = waited {
                return result;
            }
            if let Some(result) = look() {
                return result;
            }
            let is_stuck = self.state.borrow().durability.successes() == before;
            if is_stuck && !self.options.hard {
                return Err(self.trouble());
            }
        }
    }

    /// Why the store takes nothing.
    pub(super) fn trouble(&self) -> Errno {
        if let Some(cause) = self.shut_for() {
            return cause.errno();
        }
        self.state.borrow().durability.trouble().map_or(Errno::ETIMEDOUT, |trouble| trouble.errno)
    }
}

/// Whether a quorum has all changes up to `number`.
fn is_stored(state: &State, number: u64) -> bool {
    // A session's own words have numbers too; no change of anybody's is in them.
    state.durability.is_committed(number) || !state.has_changes()
}

/// What the journal takes of one delta.
struct Part {
    number: u64,
    /// [`Item::Born`].
    born: Vec<Item>,
    changes: Vec<(Key, Change)>,
}

impl Part {
    /// What is made in it may have all its changes in a later delta.
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.born.is_empty()
    }
}

/// What is not committed, by the delta that it is in: all of it, or what the journal lacks, and not what is swept, which the
/// next start does anew. Taken as it is now; the contents are shared.
fn uncommitted(state: &State, everything: bool) -> Vec<Part> {
    let committing = state.committing.as_deref();
    let copy = |(key, change): (&Key, &Change)| (key.clone(), change.clone());
    let part = |number: u64, delta: &Delta, changes: Vec<(Key, Change)>| {
        let born = delta.born.runs().cloned().map(Item::Born).collect::<Vec<_>>();
        Part { number, born, changes }
    };
    let newest = state.durability.newest();
    let mut deltas = Vec::new();
    if everything {
        let is_wanted = |(key, _): &(&Key, &Change)| !state.is_swept(key);
        let whole = |number, delta: &Delta| {
            part(number, delta, delta.changes.iter().filter(is_wanted).map(copy).collect())
        };
        deltas.extend(committing.map(|delta| whole(delta.number, delta)));
        deltas.push(whole(newest, &state.active));
        return deltas;
    }
    let mut older = Vec::new();
    let mut newer = Vec::new();
    for key in state.durability.lacking().filter(|key| !state.is_swept(key)) {
        if let Some(found) = state.active.changes.get_key_value(key) {
            newer.push(copy(found));
        } else if let Some(found) = committing.and_then(|delta| delta.changes.get_key_value(key)) {
            older.push(copy(found));
        }
    }
    deltas.extend(committing.map(|delta| part(delta.number, delta, older)));
    deltas.push(part(newest, &state.active, newer));
    deltas
}

fn item((key, change): (Key, Change)) -> Item {
    if matches!(change, Change::Removed) {
        return Item::Removed(key);
    }
    let mut value = Vec::new();
    encode_value(&change, &mut value);
    Item::Set(key, Bytes::from(value))
}
