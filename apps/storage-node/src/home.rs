//! The directory where everything about one network is remembered.
//!
//! ```text
//! HOME/
//!   network.json       public: owner, replicas, who keeps the volume's root, nodes and their addresses
//!   owner.key          signs passports; needed again only to admit and remove members
//!   owner.json         in its place while it is elsewhere: since when, and where
//!   user.key           reads and writes the drive
//!   passphrase.key     the key under which the two are sealed, under a passphrase; not there if they are not
//!   keepsake           what nodes keep for the owner, as this home sealed it last
//!   members/           in the home that holds the owner's key: who was invited and let in
//!   revoked            who is a member no more, as far as this home knows
//!   renewals           this home's newest passport; in a node's home, those of all members
//!   contacts           where nodes were met last
//!   lock               held by `up` while it runs
//!   client/            a drive's journal, lock and number, and what was seen; client-2/, ... for more drives at once
//!   networks/          the same for networks that have no home here
//!   removed-1/         the home of who was removed from the network before this home joined it again
//!   nodes/1/           node.key, node.json, network.json, contacts, record, revoked, renewals, keepsake, store/, lock; nodes/2/ ...
//! ```
//!
//! Every file is written atomically; `network.json` comes last when a home is made, so that a home without it is
//! one whose making was cut short, and is made again. Not here: what the keys and addresses are used for.

mod lock;
mod node_home;

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use data_encoding::HEXLOWER;
use overlay::contact::Introduction;
use overlay::{Revocations, contacts_file};
use reactor::crypto::PublicKey;

use crate::cli::{ListenAt, NodeSays};
use crate::client_directory::ClientDirectory;
use crate::errors::Failure;
use crate::files;
use crate::identity::Founding;
use crate::network::{Network, NodeEntry, NodeSettings};
pub(crate) use lock::Lock;
pub(crate) use node_home::NodeHome;

/// What a home that was set aside is called, before its number.
const ASIDE: &str = "removed-";

/// A network's home.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    path: PathBuf,
}

/// A path without `..`, as far as there is what it leads through.
fn plain(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)))
}

impl Home {
    /// The home that `--home` names, or the usual one.
    ///
    /// # Errors
    /// `Failure::NoHome` if the environment doesn't say where that is.
    pub(crate) fn locate(option: Option<&Path>) -> Result<Home, Failure> {
        let path = match option {
            Some(path) => path.to_owned(),
            None => usual(env::var_os("XDG_DATA_HOME").map(Into::into), env::var_os("HOME").map(Into::into))
                .ok_or(Failure::NoHome)?,
        };
        // Children start with the same working directory, and yet an absolute path reads better in what we print.
        let mut path = std::path::absolute(&path).map_err(|error| Failure::file(&path, error))?;
        // What `..` leaves depends on links: only the file system knows.
        if path.components().any(|part| part == Component::ParentDir) {
            path = plain(&path).unwrap_or(path);
        }
        Ok(Home { path })
    }

    /// The home that a client's directory is in, if it is one: that of a client whose network has no home here is elsewhere.
    pub(crate) fn around(client_directory: &Path) -> Option<Home> {
        let path = client_directory.parent()?.to_owned();
        path.join("network.json").exists().then_some(Home { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its `network.json`.
    pub(crate) fn network_file(&self) -> PathBuf {
        self.path.join("network.json")
    }

    /// The user's key and passport.
    pub(crate) fn user_key_file(&self) -> PathBuf {
        self.path.join("user.key")
    }

    /// The owner's key.
    pub(crate) fn owner_key_file(&self) -> PathBuf {
        self.path.join("owner.key")
    }

    /// That the owner's key was taken out of this home.
    pub(crate) fn owner_away_file(&self) -> PathBuf {
        self.path.join("owner.json")
    }

    /// Whether it is the owner's home, wherever his key is.
    pub(crate) fn is_owners(&self) -> bool {
        self.owner_key_file().exists() || self.owner_away_file().exists()
    }

    /// The keys that a passphrase is for: a node's opens nothing that its own disk does not lie open to.
    pub(crate) fn sealable_keys(&self) -> [PathBuf; 2] {
        [self.owner_key_file(), self.user_key_file()]
    }

    /// What nodes keep for the owner, as this home sealed it last.
    pub(crate) fn keepsake_file(&self) -> PathBuf {
        self.path.join("keepsake")
    }

    /// Who is a member no more.
    pub(crate) fn revocations_file(&self) -> PathBuf {
        self.path.join("revoked")
    }

    /// Passports that the owner renewed.
    pub(crate) fn renewals_file(&self) -> PathBuf {
        self.path.join("renewals")
    }

    /// Where nodes were met last.
    pub(crate) fn contacts_file(&self) -> PathBuf {
        self.path.join("contacts")
    }

    /// The nodes that this home's commands and drives met last.
    pub(crate) fn met(&self) -> Vec<Introduction> {
        contacts_file::load(&self.contacts_file()).map(|loaded| loaded.contacts).unwrap_or_default()
    }

    /// The newest list of the revoked that this home knows. Blocks.
    ///
    /// # Errors
    /// If it can't be read, or is not the owner's.
    pub(crate) fn revocations(&self, network: &Network) -> Result<Revocations, Failure> {
        let path = self.revocations_file();
        Revocations::load(&path, &network.owner_key()).map_err(|error| Failure::file(&path, error))
    }

    /// The key of a machine that has asked to join, until it has.
    pub(crate) fn joining_key_file(&self) -> PathBuf {
        self.path.join("joining.key")
    }

    /// The same directory as the home of a node that joined: it has one of its own, and no drive.
    pub(crate) fn as_node(&self) -> NodeHome {
        NodeHome { path: self.path.clone() }
    }

    /// Where it is remembered who was invited and let in.
    pub(crate) fn members_directory(&self) -> PathBuf {
        self.path.join("members")
    }

    /// Where the directories of clients of a network are whose own home is elsewhere.
    pub(crate) fn clients_of_other(&self, network: &Network) -> PathBuf {
        self.path.join("networks").join(HEXLOWER.encode(&network.volume_salt.0[..8]))
    }

    /// The home of its node `number`.
    pub(crate) fn node(&self, number: u16) -> NodeHome {
        NodeHome { path: self.path.join("nodes").join(number.to_string()) }
    }

    /// Reads the network, saying so if there is none.
    ///
    /// # Errors
    /// `Failure::NotAHome`, or those of [`files::load`].
    pub(crate) fn network(&self) -> Result<Network, Failure> {
        match files::load(&self.network_file()) {
            Err(Failure::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                if self.path.join("node.json").exists() {
                    return Err(Failure::NotAHome {
                        path: self.path.clone(),
                        missing: "network.json (it is a node's)",
                    });
                }
                Err(Failure::NotAHome { path: self.path.clone(), missing: "network.json" })
            }
            other => other,
        }
    }

    /// Takes the home for this process until the result is dropped.
    ///
    /// # Errors
    /// `Failure::Locked` if another process has it.
    pub(crate) fn lock(&self) -> Result<Lock, Failure> {
        files::private_directory(&self.path)?;
        Lock::take(&self.path)
    }

    /// Reads the network, or founds one of `nodes` nodes if this is a new home. Says whether it is new.
    ///
    /// # Errors
    /// `Failure::OtherNodeCount` if the network has another number of nodes, `Failure::HomeOccupied` if the
    /// directory has something else in it, or those of the file system.
    pub(crate) fn open_or_found(&self, nodes: Option<u16>) -> Result<(Network, bool), Failure> {
        match self.network() {
            Ok(network) => {
                // It was finished, and the process ended just then.
                let _ = fs::remove_file(self.founding_mark());
                let remembered = network.nodes.len() as u16;
                match nodes {
                    Some(asked) if asked != remembered => {
                        Err(Failure::OtherNodeCount { path: self.path.clone(), remembered, asked })
                    }
                    _ => Ok((network, false)),
                }
            }
            Err(Failure::NotAHome { .. }) => {
                self.refuse_if_occupied()?;
                self.refuse_lonely_keys(&self.founding_mark())?;
                self.found(nodes.unwrap_or(1)).map(|network| (network, true))
            }
            Err(other) => Err(other),
        }
    }

    /// A home that was cut short while it was made has our own files only; anything else is somebody's data.
    fn refuse_if_occupied(&self) -> Result<(), Failure> {
        let ours = [
            "lock",
            "founding",
            "owner.key",
            "owner.json",
            "user.key",
            "passphrase.key",
            "keepsake",
            "nodes",
            "client",
            "networks",
            "members",
            "revoked",
            "renewals",
            "contacts",
            "joining.key",
            "node.key",
            "node.json",
        ];
        for entry in fs::read_dir(&self.path).map_err(|error| Failure::file(&self.path, error))? {
            let name = entry.map_err(|error| Failure::file(&self.path, error))?.file_name();
            let name = name.to_string_lossy();
            let is_ours =
                ours.contains(&&*name) || ["client-", ASIDE].iter().any(|kind| name.starts_with(kind));
            if !is_ours && !name.ends_with(".new") {
                return Err(Failure::HomeOccupied { path: self.path.clone() });
            }
        }
        Ok(())
    }

    /// Whoever finds `mark` may go on with what was cut short. Without it keys are somebody's, perhaps the only copies: put
    /// back from a backup, or left by the loss of the description beside them.
    fn refuse_lonely_keys(&self, mark: &Path) -> Result<(), Failure> {
        let keys = ["owner.key", "user.key", "node.key"];
        match keys.iter().any(|key| self.path.join(key).exists()) && !mark.exists() {
            true => Err(Failure::LonelyKeys { path: self.path.clone() }),
            false => Ok(()),
        }
    }

    /// Only an empty directory becomes a home again, or one in which that was cut short: then the owner's key is there, and the
    /// caller sees whose it is.
    ///
    /// # Errors
    /// `Failure::NotRecovered`, `Failure::LonelyKeys`, or `Failure::HomeOccupied` if the directory has something else in it.
    pub(crate) fn refuse_to_recover(&self) -> Result<(), Failure> {
        if self.network_file().exists() || self.path.join("nodes").exists() {
            let reason = format!("{} is the home of a network already", self.path.display());
            return Err(Failure::NotRecovered {
                reason,
                advice: Some("give an empty or a new directory as --home"),
            });
        }
        if self.path.exists() {
            self.refuse_if_occupied()?;
        }
        self.refuse_lonely_keys(&self.owner_key_file())
    }

    /// There while a network is being made.
    fn founding_mark(&self) -> PathBuf {
        self.path.join("founding")
    }

    /// The home of a machine that joined has no nodes that `up` could start.
    ///
    /// # Errors
    /// `Failure::NoNodesHere`.
    pub(crate) fn refuse_without_nodes(&self) -> Result<(), Failure> {
        if self.network_file().exists() && !self.path.join("nodes").exists() {
            return Err(Failure::NoNodesHere {
                path: self.path.clone(),
                // Who joined never had it.
                was_recovered: self.owner_key_file().exists(),
            });
        }
        Ok(())
    }

    /// A home belongs to one network; the one that made it does not join it. Returns the network that it joined already.
    ///
    /// # Errors
    /// `Failure::OtherNetwork` or `Failure::AlreadyJoined`, or `Failure::HomeOccupied` if the directory has something
    /// else in it.
    pub(crate) fn refuse_to_join(&self, network: &PublicKey) -> Result<Option<Network>, Failure> {
        if !self.network_file().exists() {
            if self.path.exists() {
                self.refuse_if_occupied()?;
            }
            self.refuse_lonely_keys(&self.joining_key_file())?;
            return Ok(None);
        }
        let known: Network = files::load(&self.network_file())?;
        if known.owner_key() != *network {
            return Err(Failure::OtherNetwork { path: self.path.clone() });
        }
        if self.is_owners() || self.path.join("nodes").exists() {
            return Err(Failure::AlreadyJoined { path: self.path.clone() });
        }
        Ok(Some(known))
    }

    /// Moves all that belongs to who was removed into a home of its own in here, where it can be looked at, and returns that.
    /// One that was cut short is finished by the next. The caller has the home's lock.
    ///
    /// # Errors
    /// `Failure::Locked` if a drive of this home is mounted, or those of the file system.
    pub(crate) fn set_aside(&self) -> Result<PathBuf, Failure> {
        let taken: Result<Vec<ClientDirectory>, Failure> =
            ClientDirectory::all(&self.path).map(|path| ClientDirectory::take(&path)).collect();
        let taken = taken?;
        let aside = (1..).map(|number: u32| self.path.join(format!("{ASIDE}{number}")));
        let aside =
            aside.into_iter().find(|path| !path.join("network.json").exists()).expect("numbers go on");
        files::private_directory(&aside)?;
        let stays = |name: &str| ["lock", "joining.key"].contains(&name) || name.starts_with(ASIDE);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|error| Failure::file(&self.path, error))? {
            let name = entry.map_err(|error| Failure::file(&self.path, error))?.file_name();
            if !stays(&name.to_string_lossy()) {
                names.push(name);
            }
        }
        // Last what says that there is a home: until then it is here.
        // Before it what opens the keys.
        names.sort_by_key(|name| (name == "network.json", name == "passphrase.key"));
        for name in names {
            let path = self.path.join(&name);
            fs::rename(&path, aside.join(&name)).map_err(|error| Failure::file(&path, error))?;
        }
        drop(taken);
        Ok(aside)
    }

    fn found(&self, nodes: u16) -> Result<Network, Failure> {
        let mark = self.founding_mark();
        fs::write(&mark, b"").map_err(|error| Failure::file(&mark, error))?;
        let founding = Founding::new();
        files::save(&self.owner_key_file(), &founding.owner_key())?;
        files::save(&self.user_key_file(), &founding.user_key())?;
        let mut entries = Vec::new();
        for number in 1..=nodes {
            let home = self.node(number);
            files::private_directory(&home.path)?;
            let (key, public_key) = founding.node_key();
            files::save(&home.key_file(), &key)?;
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            home.save_settings(&NodeSettings::new(number, listen))?;
            entries.push(NodeEntry { number, public_key, address: None });
        }
        let network = founding.network(entries);
        self.save_network(&network)?;
        fs::remove_file(&mark).map_err(|error| Failure::file(&mark, error))?;
        Ok(network)
    }

    /// Writes the network here and into the home of each node, which may be moved to another machine.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn save_network(&self, network: &Network) -> Result<(), Failure> {
        // Those that have moved to another machine have their own.
        for home in
            network.nodes.iter().map(|entry| self.node(entry.number)).filter(|home| home.path.is_dir())
        {
            files::save(&home.network_file(), network)?;
        }
        files::save(&self.network_file(), network)
    }
}

impl Home {
    /// Has every node that is still here listen on an address of this machine, if one is given, and say of itself what is
    /// given; each keeps its port, unless one is given too.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn settle_nodes(
        &self,
        ours: &[u16],
        listen: Option<ListenAt>,
        says: &NodeSays,
    ) -> Result<(), Failure> {
        let mut settled = Vec::new();
        for number in ours {
            let home = self.node(*number);
            if !home.is_here() {
                continue; // Moved to another machine.
            }
            let before = home.settings()?;
            let mut settings = before.clone();
            match listen {
                Some(listen) if listen.has_port() => settings.listen = listen.of(*number)?,
                Some(listen) => settings.listen.set_ip(listen.ip),
                None => {}
            }
            settings.listen_was_found &= listen.is_none();
            settings.take(says);
            if settings != before {
                settled.push((home, settings));
            }
        }
        // All of them, or none.
        for (home, settings) in settled {
            home.save_settings(&settings)?;
        }
        Ok(())
    }
}

/// $XDG_DATA_HOME/hypha, or ~/.local/share/hypha. The XDG specification says to ignore a relative path.
fn usual(xdg_data_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    xdg_data_home
        .filter(|path| path.is_absolute())
        .or_else(|| home.filter(|path| path.is_absolute()).map(|path| path.join(".local/share")))
        .map(|path| path.join("hypha"))
}

#[cfg(test)]
mod tests;
