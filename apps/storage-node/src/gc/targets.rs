//! What `gc` goes through: the drive, and each of its spaces that this home knows.
//!
//! A space is a volume of its own: its blocks carry a tag of its own, its register has a root, a mark and sessions of its own. So
//! what is proved of the drive (`docs/collection.md`) holds of each of them for itself, and one that has to wait, or can't be read,
//! holds up no other.
//!
//! The tag is what tells their blocks apart. It is made of the owner's key and a salt that is drawn for each register, so two
//! volumes with one salt would be each other's garbage: where the roll says so, nothing is touched.

use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use dht::agreement::Disagreement;
use dht::block::deletion::Speaker;
use dht::block::mutable::{Genesis, Signed};
use dht::{BlockStore, Client as Store, ReadError};
use filesystem::format::Shown;
use overlay::{Node, NodeId};
use reactor::crypto::PublicKey;

use super::failed;
use crate::cache::Cache;
use crate::client::Client;
use crate::client_directory::ClientDirectory;
use crate::errors::Failure;
use crate::home::Home;
use crate::nodes::Nodes;
use crate::roll::Roll;
use crate::sharing::Sharer;
use crate::spaces;
use crate::volume::{self, Keep, Opening, Watched};

/// One volume that may have garbage.
pub(super) struct Target<'a> {
    client: &'a Client,
    /// Of a space: what made it, and where it was put.
    space: Option<(Signed<Genesis>, String)>,
    /// It was removed, or given up: it has no root, and all is garbage.
    is_given_up: bool,
    store: Store<Rc<Node>>,
}

/// The paths of spaces of which it is not known what they are, and why.
type Damaged = Vec<(String, Failure)>;

/// All that there are, the drive first, and those spaces of which this home's list does not say what they are: their paths.
///
/// # Errors
/// `Failure::Garbage` if two of them would have the same blocks, or those of the roll.
pub(super) fn all<'a>(
    client: &'a Client,
    home: Option<&Home>,
) -> Result<(Vec<Target<'a>>, Damaged), Failure> {
    let network = client.network();
    let mut salts = BTreeSet::from([network.volume_salt.0]);
    let mut targets = vec![Target { client, space: None, is_given_up: false, store: client.block_store() }];
    let mut damaged = Vec::new();
    let home = home.cloned();
    let roll = reactor::offload(move || home.as_ref().map(Roll::read).transpose())?.unwrap_or_default();
    for space in roll.spaces {
        let genesis = match space.genesis() {
            Ok(genesis) => genesis,
            Err(failure) => {
                damaged.push((space.path, failure));
                continue;
            }
        };
        if targets.iter().any(|known| known.space.as_ref().is_some_and(|(known, _)| *known == genesis)) {
            continue;
        }
        if genesis.owner != network.volume_owner() || !salts.insert(genesis.salt) {
            return Err(failed(&format!(
                "the list of spaces in this home says of {} what can't be: its blocks would not be told from another's",
                Shown::of(&space.path)
            )));
        }
        let store = client.space_store(network, &genesis);
        let (is_given_up, space) = (space.is_given_up, Some((genesis, space.path)));
        targets.push(Target { client, space, is_given_up, store });
    }
    Ok((targets, damaged))
}

impl Target<'_> {
    /// Where it is, if it is a space.
    pub(super) fn path(&self) -> Option<&str> {
        self.space.as_ref().map(|(_, path)| &**path)
    }

    /// What made it and where it was, if it is a space that this home's list says was removed, or given up.
    pub(super) fn given_up(&self) -> Option<(&Signed<Genesis>, &str)> {
        self.space.as_ref().filter(|_| self.is_given_up).map(|(genesis, path)| (genesis, &**path))
    }

    /// What it takes to look at who may do what in it, as the home that made the network.
    pub(super) fn sharer<'b>(&'b self, home: &'b Home) -> Sharer<'b> {
        Sharer { home, network: self.client.network(), store: &self.store, user: self.client.user() }
    }

    /// Its blocks.
    pub(super) fn store(&self) -> &Store<Rc<Node>> {
        &self.store
    }

    /// Whoever may say what becomes of its blocks.
    ///
    /// # Errors
    /// `Failure::Volume` if this user does not own it.
    pub(super) fn speaker(&self) -> Result<Speaker<'_>, Failure> {
        let salt =
            self.space.as_ref().map_or(self.client.network().volume_salt.0, |(genesis, _)| genesis.salt);
        self.client.speaker(salt)
    }

    /// Refuses where an older root may pass for the newest one: what the newer ones need would be garbage. To be asked once it is open.
    ///
    /// # Errors
    /// `Failure::Garbage`.
    ///
    /// # Suspends
    /// Until all have answered who keep its root.
    pub(super) fn agree(&self) -> Result<(), Failure> {
        let Err(error) = self.store.all_agree(&self.genesis()?.register()) else { return Ok(()) };
        let names = |ids: &[NodeId]| Nodes::first(self.client.network()).names(ids);
        let why = match &error {
            Disagreement::Silent { silent, .. } => format!(
                "of {} it is not known: start what does not run (`status`), or have others keep the root (`node replace`), and run \
                 this again",
                names(silent)
            ),
            Disagreement::Older { node, shown, told } => format!(
                "{} shows version {shown} of it, and a quorum tells version {told}, which does not know of that: if it was away, it \
                 catches up by itself within minutes; if others were put back from a copy, do not write, and see what `past` lists",
                names(&[*node])
            ),
            Disagreement::Newer { node, shown, told } => format!(
                "{} shows version {shown} of it, and a quorum tells version {told}: if others were put back from a copy, do not write, \
                 and see what `past` lists",
                names(&[*node])
            ),
            other => other.to_string(),
        };
        Err(failed(&format!(
            "an older root may pass for the newest one where not all nodes that keep it agree; {why}"
        )))
    }

    fn genesis(&self) -> Result<Signed<Genesis>, Failure> {
        match &self.space {
            None => volume::genesis(self.client.network()),
            Some((genesis, _)) => Ok(genesis.clone()),
        }
    }

    /// Opens it, to look and to mark; `None` if it is a space whose making was cut short, which has nothing, or one that was given up.
    ///
    /// # Errors
    /// Those of [`volume::open`].
    ///
    /// # Suspends
    /// Until its root is known.
    pub(super) fn open(
        &self,
        directory: &ClientDirectory,
        seen_directory: &Path,
        cache: Option<&Cache>,
    ) -> Result<Option<Watched>, Failure> {
        self.open_by(&Opening {
            directory,
            seen_directory: Some(seen_directory),
            keep: Keep::Unchanged,
            accept_rollback: false,
            is_removed: false,
            cache,
        })
    }

    /// Opens it as a session, which has nothing to store.
    ///
    /// # Errors
    /// As [`Target::open`].
    ///
    /// # Suspends
    /// Until its root is known.
    pub(super) fn enter(
        &self,
        directory: &ClientDirectory,
        seen_directory: &Path,
    ) -> Result<Option<Watched>, Failure> {
        // Of the drive the root itself is kept for a start without nodes, and no mark may be ahead of that: this one would be.
        let seen_directory = self.space.is_some().then_some(seen_directory);
        self.with_store_of_its_own().open_by(&Opening {
            directory,
            seen_directory,
            keep: Keep::Nothing,
            accept_rollback: false,
            is_removed: false,
            cache: None,
        })
    }

    fn with_store_of_its_own(&self) -> Target<'_> {
        let (client, space, is_given_up) = (self.client, self.space.clone(), self.is_given_up);
        let store = match &space {
            None => client.block_store(),
            Some((genesis, _)) => client.space_store(client.network(), genesis),
        };
        Target { client, space, is_given_up, store }
    }

    fn open_by(&self, opening: &Opening<'_>) -> Result<Option<Watched>, Failure> {
        let user = self.client.user();
        match &self.space {
            _ if self.is_given_up => Ok(None),
            None => volume::open(&self.store, self.client.network(), user, opening).map(Some),
            Some((genesis, path)) => spaces::open_own(&self.store, genesis, path, user, opening),
        }
    }

    /// Who may write to it now, its owner first: by the nodes' own list, asked of a quorum, after which they take nothing from
    /// anybody else. To be asked once it is open.
    ///
    /// # Errors
    /// If no quorum tells.
    ///
    /// # Suspends
    /// Until it has.
    pub(super) fn writers(&self) -> Result<Vec<PublicKey>, Failure> {
        let genesis = self.genesis()?;
        let register = genesis.register();
        let failed = |error: ReadError| volume::failed(error.to_string());
        self.store.read(&register).map_err(failed)?;
        let mut writers = vec![genesis.owner];
        writers.extend(self.store.writers(&register).map_err(failed)?);
        Ok(writers)
    }
}
