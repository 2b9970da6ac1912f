//! What a node keeps for the network's owner, so that nothing but his key is needed to find everything again.
//!
//! One sealed record for the network (`overlay::keepsake`): each node has the newest that it was given, on disk before it says
//! so. The owner's `up` or `mount` gives it to every node that it meets (`keeping`); and once a minute a node asks one of the
//! others whether it has a newer one, so that one that was away has it soon after, whether or not the owner is there. Any member
//! may fetch it, and nobody but the owner opens it. It is never collected: there is one, and it is small.
//!
//! Two methods beside the overlay's and the DHT's. Not here: what is in it (`belongings`).

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use overlay::keepsake::{KEEPSAKE_BYTES_MAX, Stamp};
use overlay::{Contact, Keepsake, Node, Overlay, Peers, Rights};
use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::crypto::PublicKey;
use reactor::rpc::{Method, Service};
use reactor::sync::Mutex;
use serde::{Deserialize, Serialize};

use crate::errors::Failure;
use crate::files;

/// A node that starts has met others by then.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// How often one other node is asked. A node that was away for a week can wait for a minute.
const INTERVAL: Duration = Duration::from_secs(60);
/// Some KiB over a slow line, and a flush of a disk. A node that is frozen is not waited for any longer: it gets it later.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

const READ: Rights = Rights { store: false, read: true, write: false, invite: false };

/// "Keep this for the owner", which is the payload. Answered by the stamp of what is kept then, once that is on disk.
pub(crate) struct KeepMethod;

/// "What do you keep for the owner?" Tells its stamp, with the thing itself as payload if it is newer than the asker's.
pub(crate) struct KeptMethod;

/// Why nothing is kept or told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShelfRefused(String);

impl fmt::Display for ShelfRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ShelfRefused {
    fn because(error: impl fmt::Display) -> ShelfRefused {
        ShelfRefused(error.to_string())
    }
}

impl Method for KeepMethod {
    const ID: u32 = 0x0310;
    const NAME: &'static str = "keep";
    const IDEMPOTENT: bool = true;
    type Request = ();
    type Response = Stamp;
    type Error = ShelfRefused;
}

impl Method for KeptMethod {
    const ID: u32 = 0x0311;
    const NAME: &'static str = "kept";
    const IDEMPOTENT: bool = true;
    const REPLY_SIZE_BYTES_MAX: usize = KEEPSAKE_BYTES_MAX + 1024;
    type Request = Stamp;
    type Response = Stamp;
    type Error = ShelfRefused;
}

/// What one node keeps.
pub(crate) struct Shelf {
    path: PathBuf,
    network: PublicKey,
    kept: RefCell<Option<Rc<Keepsake>>>,
    /// One is written at a time, and the newest: who waited may find that it is there.
    writing: Mutex<()>,
}

impl Shelf {
    /// What the file at `path` has. One that is damaged counts as none, since the others have it. Blocks.
    pub(crate) fn open(path: PathBuf, network: PublicKey) -> Rc<Shelf> {
        let kept = match read(&path, &network) {
            Ok(kept) => kept.map(Rc::new),
            Err(failure) => {
                tracing::warn!("what is kept for the owner is asked for again: {failure}");
                None
            }
        };
        Rc::new(Shelf { path, network, kept: RefCell::new(kept), writing: Mutex::new(()) })
    }

    /// Enters the methods into `service`.
    pub(crate) fn serve(self: &Rc<Self>, service: &mut Service, peers: &Peers) {
        let (shelf, members) = (self.clone(), peers.clone());
        service.on::<KeepMethod>(move |context, (), payload| {
            members.check(context.peer.as_ref(), READ).map_err(ShelfRefused::because)?;
            let given = Keepsake::from_bytes(&payload).map_err(ShelfRefused::because)?;
            shelf.take(given).map(|stamp| (stamp, Bytes::new()))
        });
        let (shelf, members) = (self.clone(), peers.clone());
        service.on::<KeptMethod>(move |context, have, _| {
            members.check(context.peer.as_ref(), READ).map_err(ShelfRefused::because)?;
            let newest = shelf.newest();
            let payload = newest.filter(|kept| kept.stamp() > have).map(|kept| kept.to_bytes().into());
            Ok((shelf.stamp(), payload.unwrap_or_default()))
        });
    }

    /// Keeps what somebody brought, if it is the owner's and newer; returns the stamp of what is kept then.
    ///
    /// # Errors
    /// If it is not the owner's, or can't be written down; what was kept is kept still.
    ///
    /// # Suspends
    /// Until it is on disk.
    pub(crate) fn take(&self, given: Keepsake) -> Result<Stamp, ShelfRefused> {
        let stamp = given.stamp();
        // What is known is not verified again: it is offered at every meeting.
        if stamp <= self.stamp() {
            return Ok(self.stamp());
        }
        given.verify(&self.network).map_err(ShelfRefused::because)?;
        let _turn = self.writing.lock();
        if stamp > self.stamp() {
            let (path, bytes) = (self.path.clone(), given.to_bytes());
            let written = reactor::offload(move || files::write_atomically(&path, &bytes, 0o600));
            written.map_err(ShelfRefused::because)?;
            self.kept.replace(Some(Rc::new(given)));
        }
        Ok(self.stamp())
    }

    /// What is kept.
    pub(crate) fn newest(&self) -> Option<Rc<Keepsake>> {
        self.kept.borrow().clone()
    }

    fn stamp(&self) -> Stamp {
        self.kept.borrow().as_ref().map_or_else(Stamp::default, |kept| kept.stamp())
    }

    /// Asks the others for a newer one, one at a time, until the result is terminated.
    pub(crate) fn catch_up(self: &Rc<Self>, overlay: &Rc<Node>) -> JoinHandle<()> {
        let (shelf, overlay) = (self.clone(), overlay.clone());
        reactor::spawn(move || {
            let mut turn: usize = 0;
            let mut pause = FIRST_PAUSE;
            loop {
                reactor::sleep(pause);
                let live = live_nodes(&overlay);
                if live.is_empty() {
                    continue;
                }
                pause = INTERVAL;
                shelf.ask_one(&overlay, &live[turn % live.len()]);
                turn = turn.wrapping_add(1);
            }
        })
    }

    fn ask_one(&self, overlay: &Node, node: &Contact) {
        let taken = ask(overlay, node, self.stamp()).and_then(|newer| match newer {
            Some(newer) => self.take(newer).map(drop).map_err(|error| error.to_string()),
            None => Ok(()),
        });
        if let Err(error) = taken {
            tracing::debug!(%node, error, "nothing newer for the owner");
        }
    }
}

/// What the file at `path` holds for the owner of `network`; `None` if there is no file. Blocks.
///
/// # Errors
/// Those of [`files::read_bounded`]; `Failure::Damaged` if it is nothing of the owner's.
pub(crate) fn read(path: &std::path::Path, network: &PublicKey) -> Result<Option<Keepsake>, Failure> {
    let bytes = match files::read_bounded(path) {
        Err(Failure::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        other => other?,
    };
    let kept = Keepsake::from_bytes(&bytes).and_then(|kept| kept.verify(network).map(|()| kept));
    kept.map(Some).map_err(|error| Failure::damaged(path, error))
}

/// The nodes that are thought to be alive.
pub(crate) fn live_nodes(overlay: &Node) -> Vec<Contact> {
    overlay.contacts().into_iter().filter(|(_, is_live)| *is_live).map(|(contact, _)| contact).collect()
}

/// What a node keeps, if it is newer than what the caller has. Nothing is verified yet.
///
/// # Errors
/// Why it told nothing, in words.
///
/// # Suspends
/// Until it answers, for [`ANSWER_LIMIT`] at most.
pub(crate) fn ask(overlay: &Node, node: &Contact, have: Stamp) -> Result<Option<Keepsake>, String> {
    let answer = overlay.call::<KeptMethod>(node, &have, Bytes::new(), ANSWER_LIMIT);
    let (_, payload) = answer.map_err(|error| error.to_string())?;
    if payload.is_empty() {
        return Ok(None);
    }
    Keepsake::from_bytes(&payload).map(Some).map_err(|error| error.to_string())
}

/// Has a node keep this; returns the stamp of what it keeps then.
///
/// # Errors
/// Why it does not, in words.
///
/// # Suspends
/// Until it is on the node's disk, for [`ANSWER_LIMIT`] at most.
pub(crate) fn give(overlay: &Node, node: &Contact, kept: &Keepsake) -> Result<Stamp, String> {
    let payload = Bytes::from(kept.to_bytes());
    let answer = overlay.call::<KeepMethod>(node, &(), payload, ANSWER_LIMIT);
    answer.map(|(stamp, _)| stamp).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use overlay::{Config, Passport, Role, Statement};
    use reactor::crypto::Identity;

    use super::*;

    fn owner() -> Identity {
        Identity::from_seed(&[1; 32])
    }

    fn seal(version: u64) -> Keepsake {
        Keepsake::seal(&owner(), version, b"all that he has").unwrap()
    }

    #[test]
    fn a_node_keeps_the_newest_of_its_owner_and_has_it_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keepsake");
        let network = owner().public_key();
        reactor::run(|| {
            let shelf = Shelf::open(path.clone(), network);
            assert_eq!(shelf.stamp(), Stamp::default());
            let newest = seal(2);
            assert_eq!(shelf.take(newest.clone()).unwrap(), newest.stamp());
            assert_eq!(shelf.take(seal(1)).unwrap(), newest.stamp(), "an older one");
            let foreign = Keepsake::seal(&Identity::from_seed(&[2; 32]), 9, b"x").unwrap();
            assert!(shelf.take(foreign).is_err());
            assert_eq!(Shelf::open(path.clone(), network).newest().as_deref(), Some(&newest));
            // A disk that takes nothing: what is kept is kept still.
            std::fs::remove_dir_all(directory.path()).unwrap();
            assert!(shelf.take(seal(3)).is_err());
            assert_eq!(shelf.stamp(), newest.stamp());
        });
    }

    #[test]
    fn a_damaged_one_counts_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keepsake");
        std::fs::write(&path, "nothing of ours").unwrap();
        reactor::run(|| {
            let shelf = Shelf::open(path, owner().public_key());
            assert!(shelf.newest().is_none() && shelf.take(seal(1)).is_ok());
        });
    }

    /// What went wrong without it: a node that was away when the owner came by had nothing for him who came with the words.
    #[test]
    fn a_node_that_was_away_gets_it_from_another_one_without_the_owner() {
        let directory = tempfile::tempdir().unwrap();
        reactor::run(|| {
            let start = |name: &str, ways: Vec<overlay::Bootstrap>| {
                let identity = Identity::generate();
                let (peers, mut service) = (Peers::new(), Service::new());
                let shelf = Shelf::open(directory.path().join(name), owner().public_key());
                shelf.serve(&mut service, &peers);
                let config = Config {
                    passport: Passport::issue(&owner(), identity.public_key(), Rights::NODE, None),
                    identity,
                    network: owner().public_key(),
                    role: Role::Storage,
                    listen: Some("127.0.0.1:0".parse().unwrap()),
                    bootstrap: ways,
                    contacts_file: None,
                    revocations_file: None,
                    renewals_file: None,
                    statement: Statement::default(),
                    record_file: None,
                    peers,
                };
                (shelf, Node::start(config, service).unwrap())
            };
            let (has, first) = start("first", vec![]);
            let newest = seal(7);
            has.take(newest.clone()).unwrap();
            let (lacks, second) = start("second", vec![first.listen_address().unwrap().into()]);
            let asking = lacks.catch_up(&second);
            while lacks.newest().is_none() {
                reactor::sleep(Duration::from_millis(20));
            }
            assert_eq!(lacks.newest().as_deref(), Some(&newest));
            // It has nothing newer to tell, and takes nothing older.
            let [node] = live_nodes(&second).try_into().unwrap();
            assert_eq!(ask(&second, &node, newest.stamp()), Ok(None));
            assert_eq!(give(&second, &node, &seal(6)), Ok(newest.stamp()));
            asking.terminate();
            second.stop();
            first.stop();
        });
    }
}
