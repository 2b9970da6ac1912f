//! The volume's part in collecting garbage: what must not be deleted from the nodes.
//!
//! A collector lists what the nodes hold, *then* puts its mark into the root, and waits until every session that the tree has
//! has cleared the way. The root after the one of which that is true says for ever that the collection was let through; and
//! then goes what was listed, and neither the root with the mark nor the one that all had cleared the way in reaches, and
//! nobody has brought back meanwhile. The proof is in `docs/collection.md`; what the mounts do for it in [`super::fence`]
//! and [`super::doubt`].
//!
//! What can't be known is an error, and then nothing may be deleted: a root or a node that can't be read, or anything in the
//! volume that this version does not know, since it may point to objects.
//!
//! Not here: listing and deleting. It works in a volume that is opened for reading only, which is no session and waits for
//! nobody: a collector that is killed leaves nothing behind but its mark, which the next one replaces.

use std::collections::BTreeSet;
use std::time::Duration;

use dht::{Address, ReadError, SwapError};
use reactor::cell::RefCell;
use reactor::crypto::{PublicKey, random_bytes};

use super::Volume;
use super::fetch::CachedNodes;
use super::session::SILENCE;
use super::state::Change;
use crate::access::collection::{Collection, short};
use crate::access::{Features, Root, RootError, open_root};
use crate::errno::Errno;
use crate::format::{Key, Label, Pointer, SessionRecord, SessionState, WriterRecord};
use crate::operations::Time;
use crate::tree::reachable::{Unreached, reachable_objects};

/// A mark may lose to commits that were on their way; each try takes no reading and no writing, so more often something
/// else is wrong.
const MARK_TRIES: usize = 64;

/// How often it is looked whether sessions have answered.
const SESSIONS_INTERVAL: Duration = Duration::from_millis(200);

/// How long it may take beyond [`SILENCE`] to strike out sessions: a lease, and some commits.
const STRIKING_PATIENCE: Duration = Duration::from_secs(60);

/// Why it is not known what may be deleted. Nothing may be, then.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The register can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The register has no value.
    #[error("the volume has no root")]
    Missing,
    /// The root can't be read.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The volume uses what this version does not know.
    #[error("the volume uses features that this version does not know: use the newer version that wrote it")]
    Newer,
    /// A tree can't be walked to its end.
    #[error(transparent)]
    Tree(#[from] Unreached<Errno>),
    /// The collector's mark does not get into the root.
    #[error("the root does not take the mark of a collection: {0}")]
    Mark(SwapError),
    /// Others commit all the time.
    #[error(
        "others commit all the time, and the root does not take the mark of a collection: try again later"
    )]
    Contended,
    /// Another collection began meanwhile, or ended this one.
    #[error("another collection of garbage has begun meanwhile, or ended this one")]
    Replaced,
    /// The root was put back to before the last collection.
    #[error(
        "the root was put back to an earlier version than the last collection of garbage began with: try again once it has \
         gone on beyond that"
    )]
    RolledBack,
    /// More old things were brought back than a root can name.
    #[error("too much of what had been removed was brought back meanwhile: try again later")]
    Void,
}

/// The roots that are in use, and what else is.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    trees: Vec<Pointer>,
    kept: BTreeSet<[u8; 8]>,
}

impl Roots {
    /// What this root alone reaches.
    pub fn of(root: &Root) -> Roots {
        Roots { trees: root.tree.into_iter().collect(), kept: BTreeSet::new() }
    }

    /// Whether an object is in use although the trees may not reach it.
    pub fn keep(&self, address: &Address) -> bool {
        self.kept.contains(&short(&address.0))
    }
}

/// The mark of a collection, as it was put into a root.
#[derive(Debug, Clone)]
pub struct Fence {
    id: [u8; 16],
    version: u64,
    tree: Option<Pointer>,
}

/// A session that has yet to clear the way, or is lost and may be back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its number.
    pub session: u64,
    /// Its device's number.
    pub device: u64,
    /// Since when it is there, in seconds since 1970.
    pub since_seconds: i64,
    /// When it last published something, by its own clock, or entered, in seconds since 1970.
    pub heard_seconds: i64,
    /// Others have struck it out, for it gave no sign of life.
    pub is_lost: bool,
    /// It has a journal, so that what it has yet to publish may come back after its end.
    pub has_journal: bool,
    /// What people know it by.
    pub label: Label,
    /// The user whose mount it is, if it says so.
    pub member: Option<PublicKey>,
    /// All that it says.
    record: SessionRecord,
}

/// Whether everybody has cleared the way.
#[derive(Debug, Clone)]
pub enum Standing {
    /// These have not.
    Waits {
        /// Who.
        waiting: Vec<Waiting>,
        /// The version of the root that says so.
        version: u64,
        /// One of them published that root: it is there, and at work.
        is_heard: bool,
    },
    /// All have, and the root says that the collection was let through: what was listed before it began may go, unless these
    /// roots have it.
    Clear(Roots),
}

impl Volume {
    fn newest_root(&self) -> Result<(Root, dht::Record), CollectError> {
        let record = self.store.read(&self.keys.register)?.ok_or(CollectError::Missing)?;
        let root = open_root(&record.payload, record.version, &self.keys.secret)?;
        // A compatible feature or an extension need not be understood to read or write, but it may point to objects.
        let features = &root.charter.features;
        let unknown = features.unwritable() | (features.compatible & !Features::KNOWN.compatible);
        if unknown != 0 || root.charter.has_unknown_extension() {
            return Err(CollectError::Newer);
        }
        Ok((root, record))
    }

    /// Finds the roots that are in use now, as far as the newest one tells. That is enough to count by, and not to delete.
    ///
    /// # Errors
    ///
    /// [`CollectError`].
    ///
    /// # Suspends
    ///
    /// While the register is read.
    pub fn roots_in_use(&self) -> Result<Roots, CollectError> {
        let (root, _) = self.newest_root()?;
        Ok(Roots::of(&root))
    }

    /// Begins a collection: puts its mark into the root. Only what the nodes were seen to hold *before* may be deleted by it.
    ///
    /// # Errors
    ///
    /// [`CollectError`].
    ///
    /// # Suspends
    ///
    /// Until the register has it.
    pub fn begin_collection(&self) -> Result<Fence, CollectError> {
        self.mark(|root, version| {
            if root.charter.let_through() >= version {
                return Err(CollectError::RolledBack);
            }
            let id = random_bytes();
            root.charter.set_collection(Some(&Collection::new(id, version)));
            Ok(Some(Fence { id, version, tree: root.tree }))
        })?
        .ok_or(CollectError::Replaced)
    }

    /// Ends a collection that is not to be let through: takes its mark out of the root, if it is there still. Mounts do
    /// without it from then on.
    ///
    /// # Errors
    ///
    /// [`CollectError`]: the mark stays, at little cost, until the next collection.
    ///
    /// # Suspends
    ///
    /// Until it is out.
    pub fn end_collection(&self, fence: &Fence) -> Result<(), CollectError> {
        self.mark(|root, _| {
            let Some(_) = root.charter.collection().filter(|collection| collection.id == fence.id) else {
                return Ok(None);
            };
            root.charter.set_collection(None);
            Ok(Some(()))
        })
        .map(drop)
    }

    /// Publishes the newest root with another charter, which `change` makes for the given version; `None` if it makes none.
    fn mark<T>(
        &self,
        change: impl Fn(&mut Root, u64) -> Result<Option<T>, CollectError>,
    ) -> Result<Option<T>, CollectError> {
        for _ in 0..MARK_TRIES {
            let (mut root, newest) = self.newest_root()?;
            let version = newest.version + 1;
            let Some(made) = change(&mut root, version)? else { return Ok(None) };
            let marked = Root {
                version,
                previous: Some(newest.header_hash),
                commit: random_bytes(),
                time: Time::now(),
                author: self.options.author.clone(),
                ..root
            };
            let payload = self.sealer.borrow_mut().seal(&marked);
            let swap = || {
                let expected = Some(newest.header_hash);
                self.store.compare_and_swap(&self.keys.register, expected, payload.clone())
            };
            let is_ours = |record: &dht::Record| record.payload == payload;
            match swap() {
                Ok(_) => return Ok(Some(made)),
                Err(SwapError::Lost(Some(record))) if is_ours(&record) => return Ok(Some(made)),
                Err(SwapError::Lost(_)) => {}
                // It may be there, and may yet come. Whoever swaps the same again learns which. If another root follows ours,
                // ours was there: then the next round finds what `change` made in it, or that somebody changed that already.
                Err(SwapError::Unknown { .. }) => match swap() {
                    Ok(_) => return Ok(Some(made)),
                    Err(SwapError::Lost(Some(record))) if is_ours(&record) => return Ok(Some(made)),
                    Err(SwapError::Lost(_)) => {}
                    Err(error) => return Err(CollectError::Mark(error)),
                },
                Err(error) => return Err(CollectError::Mark(error)),
            }
        }
        Err(CollectError::Contended)
    }

    /// Looks whether everybody has cleared the way for a collection, and lets it through if so: by a swap on the very root that
    /// says that all have. Before the register has that, nothing may be deleted; afterwards the collection is over for the mounts.
    ///
    /// # Errors
    ///
    /// [`CollectError`]. After [`CollectError::Mark`] the register may yet say that it was let through: that costs nothing.
    ///
    /// # Suspends
    ///
    /// While the newest root is read, and who is in its tree; and until the register has the next.
    pub fn look_at_collection(&self, fence: &Fence) -> Result<Standing, CollectError> {
        let waits = RefCell::new(None);
        let clear = self.mark(|root, version| {
            let collection = root.charter.collection().filter(|collection| collection.id == fence.id);
            let collection = collection.ok_or(CollectError::Replaced)?;
            if collection.is_void {
                return Err(CollectError::Void);
            }
            let waiting = self.waiting(root.tree, fence.version)?;
            if !waiting.is_empty() {
                let by = root.commit.first_chunk().map(|session| u64::from_le_bytes(*session));
                let is_heard = waiting.iter().any(|waiting| Some(waiting.session) == by);
                *waits.borrow_mut() = Some(Standing::Waits { waiting, version: version - 1, is_heard });
                return Ok(None);
            }
            root.charter.let_collection_through(fence.version);
            // The newest tree reaches nothing of what was listed that the other does not, or it is kept: it is walked all the
            // same, as a mistake in that would be the worst there is.
            let trees = fence.tree.into_iter().chain(root.tree).collect();
            Ok(Some(Roots { trees, kept: collection.kept }))
        })?;
        clear.map(Standing::Clear).or_else(|| waits.into_inner()).ok_or(CollectError::Replaced)
    }

    /// The numbers of all sessions that the newest root knows of, the lost ones too.
    ///
    /// # Errors
    ///
    /// [`CollectError`].
    ///
    /// # Suspends
    ///
    /// While the newest root is read, and who is in its tree.
    pub fn session_numbers(&self) -> Result<Vec<u64>, CollectError> {
        let (root, _) = self.newest_root()?;
        let sessions = self.sessions_in(root.tree);
        let sessions = sessions.map_err(|errno| CollectError::Tree(Unreached::Node(errno)))?;
        Ok(sessions.into_keys().collect())
    }

    /// The sessions in `tree` that have not cleared the way for what began with `version`.
    fn waiting(&self, tree: Option<Pointer>, version: u64) -> Result<Vec<Waiting>, CollectError> {
        let unread = |errno| CollectError::Tree(Unreached::Node(errno));
        let sessions = self.sessions_in(tree).map_err(unread)?;
        let waits = |(session, record): (u64, SessionRecord)| -> Result<Waiting, Errno> {
            Ok(Waiting {
                session,
                device: record.device,
                since_seconds: record.since_seconds,
                heard_seconds: self.published_at(tree, session, record.device)?.max(record.since_seconds),
                is_lost: record.state == SessionState::Lost,
                has_journal: record.has_journal,
                label: record.label,
                member: (record.member != [0; 32]).then(|| PublicKey::from_bytes(record.member)),
                record,
            })
        };
        let waiting = sessions.into_iter().filter(|(_, record)| record.cleared < version);
        waiting.map(waits).collect::<Result<_, Errno>>().map_err(unread)
    }

    /// When a session last published something, in seconds since 1970; 0 if another of its device did since.
    fn published_at(&self, tree: Option<Pointer>, session: u64, device: u64) -> Result<i64, Errno> {
        let Some(tree) = tree else { return Ok(0) };
        match self.step(|state| state.get_in(&tree, &Key::Writer(device)))? {
            Some(Change::Writer(WriterRecord { session: writer, committed_seconds, .. }))
                if writer == session.to_le_bytes() =>
            {
                Ok(committed_seconds)
            }
            _ => Ok(0),
        }
    }

    /// Asks sessions for a sign of life, and has those struck out that give none: they are lost then, or gone if they have no
    /// journal. Returns those that answered.
    ///
    /// # Errors
    ///
    /// If the nodes do not take what has to be said within a stated patience.
    ///
    /// # Suspends
    ///
    /// Until each has answered or is struck out: about a minute.
    pub fn count_out(&self, sessions: &[u64]) -> Result<Vec<u64>, Errno> {
        self.lease.session.borrow_mut().count_out(sessions);
        let silent = || -> Vec<u64> {
            let session = self.lease.session.borrow();
            session.present_of(sessions).into_iter().filter(|id| !session.has_answered(*id)).collect()
        };
        self.until_sessions(SILENCE + STRIKING_PATIENCE, || silent().is_empty())?;
        Ok(self.lease.session.borrow().present_of(sessions))
    }

    /// Takes those of `sessions` that are lost out of the tree, for they never come back, and those that are `shut_out`, whose users
    /// may not write any more, whether or not they are lost, unless they have said something else since. What they have not
    /// published is lost.
    ///
    /// # Errors
    ///
    /// If the commit that says so is not published within the patience: it may still be.
    ///
    /// # Suspends
    ///
    /// Until it is.
    pub fn forget_sessions(&self, sessions: &[u64], shut_out: &[Waiting]) -> Result<(), Errno> {
        {
            let mut session = self.lease.session.borrow_mut();
            session.forget(sessions);
            session.shut_out(shut_out.iter().map(|waiting| (waiting.session, waiting.record)).collect());
        }
        self.until_sessions(self.options.sync_patience, || self.lease.session.borrow().has_forgotten())
    }

    /// Commits what there is to say of sessions until `is_done`.
    fn until_sessions(&self, patience: Duration, is_done: impl Fn() -> bool) -> Result<(), Errno> {
        let done = reactor::timeout(patience, || {
            while !is_done() {
                self.work.notify_all();
                let _ = reactor::timeout(SESSIONS_INTERVAL, || self.lease.changed.wait());
            }
        });
        done.map_err(|_| Errno::ETIMEDOUT)
    }

    /// Visits every object that one of `roots` reaches, some of them many times.
    ///
    /// # Errors
    ///
    /// [`CollectError`]: nothing may be deleted, for what was visited is not all.
    ///
    /// # Suspends
    ///
    /// While nodes are fetched.
    pub fn visit_reachable(
        &self,
        roots: &Roots,
        visit: &mut dyn FnMut(&Address),
    ) -> Result<(), CollectError> {
        let mut visit = |object: &[u8; 32]| visit(&Address(*object));
        reachable_objects(&roots.trees, &CachedNodes(self), &mut visit)?;
        Ok(())
    }
}
