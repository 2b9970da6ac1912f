//! The directory of one storage node: its key, its settings, its store, and what it remembers of others.
//!
//! It lies in the home of the network that made it, or wherever it was moved to; a node that joined has a home of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Home, Lock};
use crate::errors::Failure;
use crate::files;
use crate::network::{Network, NodeSettings};

/// One node's home.
#[derive(Debug, Clone)]
pub(crate) struct NodeHome {
    pub(super) path: PathBuf,
}

impl NodeHome {
    /// A node's home that must exist.
    ///
    /// # Errors
    /// `Failure::NetworkHomeForNode` or `Failure::NotAHome` if it is something else.
    pub(crate) fn open(path: &Path) -> Result<NodeHome, Failure> {
        let path = std::path::absolute(path).map_err(|error| Failure::file(path, error))?;
        if path.join("nodes").is_dir() {
            return Err(Failure::NetworkHomeForNode { path });
        }
        if !path.join("node.json").exists() {
            return Err(Failure::NotAHome { path, missing: "node.json" });
        }
        Ok(NodeHome { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its key and passport.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.path.join("node.key")
    }

    pub(super) fn network_file(&self) -> PathBuf {
        self.path.join("network.json")
    }

    /// Where its blocks are.
    pub(crate) fn store_directory(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Where it remembers other nodes.
    pub(crate) fn contacts_file(&self) -> PathBuf {
        self.path.join("contacts")
    }

    /// Who is a member no more.
    pub(crate) fn revocations_file(&self) -> PathBuf {
        self.path.join("revoked")
    }

    /// Passports that the owner renewed.
    pub(crate) fn renewals_file(&self) -> PathBuf {
        self.path.join("renewals")
    }

    /// What it said of itself last.
    pub(crate) fn record_file(&self) -> PathBuf {
        self.path.join("record")
    }

    /// What it keeps for the network's owner.
    pub(crate) fn keepsake_file(&self) -> PathBuf {
        self.path.join("keepsake")
    }

    /// What it prints when `up` runs it.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The network it belongs to.
    ///
    /// # Errors
    /// Those of [`files::load`].
    pub(crate) fn network(&self) -> Result<Network, Failure> {
        files::load(&self.network_file())
    }

    /// Whether there is such a node, and was not moved to another machine.
    pub(crate) fn is_here(&self) -> bool {
        self.path.join("node.json").exists()
    }

    /// Its number, address and store.
    ///
    /// # Errors
    /// Those of [`files::load`].
    pub(crate) fn settings(&self) -> Result<NodeSettings, Failure> {
        files::load(&self.path.join("node.json"))
    }

    /// Remembers its number, address and store.
    ///
    /// # Errors
    /// Those of [`files::save`].
    pub(crate) fn save_settings(&self, settings: &NodeSettings) -> Result<(), Failure> {
        files::save(&self.path.join("node.json"), settings)
    }

    /// Writes down where node `number`, which this is, listens: here, and in the home that made it, which clients read, if
    /// this is still in there. "All addresses" is none that anybody could dial, and not written down.
    ///
    /// # Errors
    /// Those of the file system; `Failure::Locked` if an `up` has that home.
    pub(crate) fn note_address(&self, number: u16, address: SocketAddr) -> Result<(), Failure> {
        if address.ip().is_unspecified() {
            return Ok(());
        }
        let mut network = self.network()?;
        let Some(entry) = network.nodes.iter_mut().find(|entry| entry.number == number) else {
            return Ok(());
        };
        let key = entry.public_key.clone();
        if entry.address.replace(address) != Some(address) {
            files::save(&self.network_file(), &network)?;
        }
        let Some(path) = self.path.parent().and_then(Path::parent) else { return Ok(()) };
        if !path.join("network.json").exists() {
            return Ok(());
        }
        let home = Home::locate(Some(path))?;
        let is_there = |network: &Network| {
            let mut entries = network.nodes.iter();
            entries.any(|entry| entry.public_key == key && entry.address == Some(address))
        };
        // Others may be starting, and have the lock for a moment.
        if is_there(&home.network()?) {
            return Ok(());
        }
        let _lock = home.lock()?;
        let mut network = home.network()?;
        let entry = network.nodes.iter_mut().find(|entry| entry.public_key == key);
        match entry.map(|entry| entry.address.replace(address)) {
            Some(before) if before != Some(address) => home.save_network(&network),
            _ => Ok(()),
        }
    }

    /// Takes the node for this process until the result is dropped.
    ///
    /// # Errors
    /// `Failure::Locked` if another process runs it.
    pub(crate) fn lock(&self) -> Result<Lock, Failure> {
        Lock::take(&self.path)
    }
}
