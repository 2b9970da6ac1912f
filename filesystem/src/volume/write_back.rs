//! Write-back: `sync` into the local journal, and what a crash left in it brought back at the next opening.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::state::{Change, decode_raw, encode_value};
use super::{OpenError, Volume};
use crate::access::Root;
use crate::errno::Errno;
use crate::format::{FRAME_SIZE, Key};
use crate::journal::{Item, Journal, Replay};

/// More than this goes to the quorum directly: writing it twice would cost more than waiting once.
const JOURNAL_GROUP_SIZE_MAX: usize = 16 * 1024 * 1024;

/// Returns the commit id that a root carries: whose it is, and which delta it holds.
pub(super) fn commit_id(session: [u8; 8], number: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&session);
    id[8..].copy_from_slice(&number.to_le_bytes());
    id
}

impl Volume {
    /// Makes all changes durable: in the journal if there is one, else on the quorum.
    ///
    /// # Suspends
    ///
    /// Until they are.
    pub(super) fn sync_changes(&self, number: u64) -> Result<(), Errno> {
        let Some(journal) = &self.journal else { return self.sync_to(number) };
        let turn = journal.turn.lock();
        if journal.broken.get() {
            drop(turn);
            return self.sync_to(number);
        }
        let Some((number, items)) = self.take_unjournaled(journal) else { return Ok(()) };
        let size: usize =
            items.iter().map(|item| if let Item::Set(_, value) = item { value.len() } else { 0 }).sum();
        if size > JOURNAL_GROUP_SIZE_MAX {
            drop(turn);
            return self.sync_to(number);
        }
        match journal.append(number, &items) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(%error, "the journal fails; syncing goes to the nodes from now on");
                journal.broken.set(true);
                drop(turn);
                self.sync_to(number)
            }
        }
    }

    /// Takes what the journal does not hold yet, and the delta whose file it goes to.
    fn take_unjournaled(&self, journal: &Journal) -> Option<(u64, Vec<Item>)> {
        let mut state = self.state.borrow_mut();
        let unjournaled = state.unjournaled.as_mut()?;
        let mut keys = std::mem::take(&mut unjournaled.committing);
        keys.append(&mut unjournaled.active);
        if keys.is_empty() {
            return None;
        }
        let base_moved = std::mem::replace(&mut unjournaled.base_moved, false);
        let number = state.active.number;
        let mut items = Vec::with_capacity(keys.len() + 2);
        if journal.starts_file(number) {
            items.push(Item::Identity { session: self.session, number, register: self.keys.register });
        }
        if (base_moved || journal.starts_file(number))
            && let Some(header) = state.header
        {
            items.push(Item::Base { header, tree: state.tree });
        }
        for key in keys {
            let change = state.active.changes.get(&key);
            let change =
                change.or_else(|| state.committing.as_ref().and_then(|delta| delta.changes.get(&key)));
            match change {
                Some(Change::Removed) => items.push(Item::Removed(key)),
                Some(change) => {
                    let mut value = Vec::new();
                    encode_value(change, &mut value);
                    items.push(Item::Set(key, Bytes::from(value)));
                }
                // Committed meanwhile.
                None => {}
            }
        }
        Some((number, items))
    }

    /// Puts back what a crash left in the journal; `root` is what the register names now.
    ///
    /// # Suspends
    ///
    /// While the journal and, if another writer went on, both trees are read.
    pub(super) fn replay_journal(&self, root: &Root) -> Result<(), OpenError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let (replays, highest) = journal.read()?;
        let is_committed =
            |replay: &Replay| root.commit[..8] == replay.session && root_number(root) >= replay.number;
        let own_root = |replay: &Replay| root.commit[..8] == replay.session;
        let left: Vec<Replay> = replays.into_iter().filter(|replay| !is_committed(replay)).collect();
        {
            let mut state = self.state.borrow_mut();
            state.active.number = highest + 1;
            state.committed = highest;
        }
        let Some(first) = left.first() else {
            journal.truncate(highest);
            return Ok(());
        };
        let (base, based_on_root) = (first.base, own_root(first));
        let mut changes: BTreeMap<Key, Option<Bytes>> = BTreeMap::new();
        for replay in left {
            changes.extend(replay.changes);
        }
        tracing::info!(count = changes.len(), "replaying the journal of a mount that did not end well");
        let current = {
            let mut state = self.state.borrow_mut();
            let current = state.header;
            if let Some((header, tree)) = base.filter(|_| !based_on_root) {
                state.header = Some(header);
                state.tree = tree;
            }
            for (key, value) in changes {
                let change = match value {
                    None => Some(Change::Removed),
                    Some(value) => decode_raw(&key, &value, &[0; 32]).filter(is_sane),
                };
                match change {
                    Some(change) => state.set(key, change),
                    None => tracing::error!(?key, "a journal entry is malformed and left out"),
                }
            }
            current
        };
        if let Some(current) = current.filter(|current| self.header() != Some(*current)) {
            self.rebase(root, current).map_err(OpenError::Tree)?;
        }
        // One new file with everything, and only then the old ones go.
        let _turn = journal.turn.lock();
        if let Some((number, items)) = self.take_unjournaled(journal) {
            journal.append(number, &items)?;
        }
        journal.truncate(highest);
        Ok(())
    }
}

fn root_number(root: &Root) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = root.commit;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn is_sane(change: &Change) -> bool {
    !matches!(change, Change::Frame(bytes) if bytes.len() > FRAME_SIZE)
}
