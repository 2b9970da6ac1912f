//! A user from whom nothing is taken any more: removed from the network, taken off a space's list, or only a reader of it now.
//!
//! Nobody waits for it or is told that it was stored. What was written before and no quorum has goes to the journal and stays
//! there; what is on this machine stays readable, and may be copied elsewhere. Who may only read goes on reading what others
//! write, and is a writer again as soon as the list says so.
//!
//! That a user was removed from the network is for whoever opened the volume to know, and not only that the nodes are silent:
//! it is for good. What the list of a space says is in its root, signed by its owner ([`crate::access::list`]): each root that
//! comes is looked at.

use dht::Record;

use super::{Cause, Volume};
use crate::access::list::{Access, Found};
use crate::access::{Charter, Root, RootError, open_root};
use crate::errno::Errno;

impl Volume {
    /// This user is no member any more. From here on each change, and each wait for the nodes, fails with `EKEYREVOKED` at
    /// once.
    pub fn on_removed(&self) {
        self.shut(Cause::Removed);
    }

    /// Why nothing is taken from this user any more, if so.
    pub fn shut_for(&self) -> Option<Cause> {
        self.state.borrow().shut
    }

    /// Whether anything is taken from this user here.
    pub fn may_change(&self) -> bool {
        !self.options.read_only && !self.is_shut()
    }

    fn shut(&self, cause: Cause) {
        {
            let mut state = self.state.borrow_mut();
            // Nobody waits for the nodes any more after these, so that nothing milder takes their place.
            let stays = match state.shut {
                Some(Cause::TakenOff) => cause != Cause::Removed,
                known => known == Some(cause) || known == Some(Cause::Removed),
            };
            if stays {
                return;
            }
            state.shut = Some(cause);
            state.durability.on_failed(cause.errno(), reactor::now());
        }
        if cause != Cause::ReadsOnly {
            // Nor is there anything to read from the nodes.
            self.give_up();
        }
        self.lease.changed.notify_all();
        self.progress.notify_all();
        self.work.notify_all();
    }

    /// Opens a root that another writer published, and goes by what it says of this user: where the volume's list decides, one
    /// that does not open says that he was taken off it.
    ///
    /// # Errors
    ///
    /// [`RootError`].
    pub(super) fn open_newer(&self, record: &Record) -> Result<Root, RootError> {
        let opened = open_root(&record.payload, record.version, &self.keys.secret);
        match &opened {
            // The same list was looked at, and its signature costs time.
            Ok(root) if root.charter.extensions == self.state.borrow().charter.extensions => {}
            Ok(root) => self.obey_list(root),
            Err(RootError::NotAReader | RootError::GivenUp) if self.options.list_of.is_some() => {
                self.shut(Cause::TakenOff);
            }
            Err(error) => tracing::warn!(%error, "another writer's root does not open"),
        }
        opened
    }

    /// Goes by what a root's list says of this user.
    pub(super) fn obey_list(&self, root: &Root) {
        let Some(owner) = &self.options.list_of else { return };
        // What its owner did not sign says nothing: one of its writers put it there.
        let Found::List(list) = root.charter.access_list(owner, &self.keys.register) else { return };
        // Nor does one that says less than what its owner said since: one of its writers put it back.
        if list.number < self.list_number.get() {
            return;
        }
        self.list_number.set(list.number);
        match list.access_by(&self.keys.secret.public()) {
            Access::Write => self.reopen(),
            Access::Read if self.options.read_only => {}
            Access::Read => self.shut(Cause::ReadsOnly),
            Access::None => self.shut(Cause::TakenOff),
        }
    }

    /// The charter to go on with from `root`. If its list is older than ours, or none of the owner's, one of the writers put it there: ours
    /// stays, and the next commit says it again, so that nobody signs in good faith what takes the owner's word back.
    pub(super) fn charter_after(&self, root: &Root) -> Charter {
        let mut charter = root.charter.clone();
        let state = self.state.borrow();
        if let Some(owner) = self.options.list_of.filter(|_| charter.extensions != state.charter.extensions) {
            let number = |charter: &Charter| match charter.access_list(&owner, &self.keys.register) {
                Found::List(list) => Some(list.number),
                Found::Nothing | Found::Forged => None,
            };
            if number(&charter) < number(&state.charter) {
                charter.take_access_of(&state.charter);
            }
        }
        charter
    }

    /// Who could only read may write again: what waits goes to the nodes.
    fn reopen(&self) {
        let mut state = self.state.borrow_mut();
        if state.shut != Some(Cause::ReadsOnly) {
            return;
        }
        state.shut = None;
        let newest = state.durability.newest();
        state.durability.want(newest);
        drop(state);
        self.work.notify_all();
        self.reclaim.notify_all();
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut_for().is_some()
    }

    /// Refuses a change before anything is waited for.
    ///
    /// # Errors
    ///
    /// That of the cause, if nothing is taken from this user any more.
    pub(super) fn refuse_change_if_shut(&self) -> Result<(), Errno> {
        self.shut_for().map_or(Ok(()), |cause| Err(cause.errno()))
    }

    /// Refuses to say that changes up to `number` are safe, and keeps them in the journal.
    ///
    /// # Errors
    ///
    /// That of the cause, if nothing is taken from this user any more, and there are such changes.
    ///
    /// # Suspends
    ///
    /// While the journal is written.
    pub(super) fn refuse_if_shut(&self, number: u64) -> Result<(), Errno> {
        let Some(cause) = self.shut_for() else { return Ok(()) };
        if self.state.borrow().durability.is_committed(number) || self.waits_for_nothing() {
            return Ok(());
        }
        // What is said is worse.
        let _ = self.sync_to_journal(number);
        Err(cause.errno())
    }
}
