//! Founding and opening the network's one volume: from settings files to something that can be mounted.
//!
//! The volume's root is a register of the user's. It is made once, by the first `up`, which writes down beforehand
//! which nodes are to keep it; from then on it is only ever opened. Not here: what a volume is (`filesystem::volume`).

use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use dht::block::configuration::{Configuration, Membership};
use dht::block::mutable::{Genesis, Signed};
use dht::{BlockStore, Client, HeaderHash, ReadError, RegisterAddress};
use filesystem::access::VolumeKeys;
use filesystem::volume::{OpenError, Options, Volume};
use overlay::{Node, NodeId};
use serde::Serialize;

use crate::cache::{self, Cache};
use crate::client_directory::{self, ClientDirectory};
use crate::clocks;
use crate::errors::Failure;
use crate::home::Home;
use crate::identity::Member;
use crate::network::{Hex, Network, VolumeEntry};
use crate::nodes::Nodes;
use crate::outcome::Outcome;
use crate::output::say;
use crate::seen::{self, Seen};
use crate::spaces;

/// How often another writer's commits are looked for. A second is soon enough for files that somebody else put
/// there, and one small question a second is nothing.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// What the local journal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing, for nothing is changed: the volume is only read, and its mounts hear nothing of it.
    Unchanged,
    /// Nothing: the directory goes with the command.
    Nothing,
    /// What the nodes did not take when the drive ends.
    Rest,
    /// Every change that `fsync` acknowledged.
    WriteBack,
}

impl Keep {
    /// For a drive, mounted with or without `--write-back`.
    pub(crate) fn of(write_back: bool) -> Keep {
        if write_back { Keep::WriteBack } else { Keep::Rest }
    }
}

/// The nodes that keep the volume's root: those whom the genesis record names, or others since.
pub(crate) struct Keepers {
    membership: Option<Membership>,
    /// "nodes 1, 4 and 6", or their ids where the network's description doesn't number them.
    names: String,
    /// The newest that this machine has seen of it.
    seen: Option<(u64, HeaderHash)>,
    older: Option<Older>,
}

/// The nodes hold another state of the root than this machine has seen, that does not follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Older {
    /// The version that was seen.
    pub(crate) seen: u64,
    /// The version that they hold.
    pub(crate) found: u64,
}

impl Keepers {
    /// How many of them are among `live`.
    pub(crate) fn count_among(&self, live: &[NodeId]) -> usize {
        self.members().iter().filter(|member| live.contains(member)).count()
    }

    /// How many of them must be there for the root to be read; before there is a root, none.
    pub(crate) fn needed(&self) -> usize {
        self.membership.as_ref().map_or(0, |membership| membership.quorum().needed)
    }

    /// How often others were put in the place of some of them.
    pub(crate) fn moved_count(&self) -> u64 {
        self.membership.as_ref().map_or(0, Membership::epoch)
    }

    /// Follows the root to whoever keeps it by now, as far as the nodes tell that within `limit`.
    ///
    /// # Suspends
    /// Until then.
    pub(crate) fn follow(&mut self, store: &Client<Rc<Node>>, limit: Duration) {
        let Some(membership) = &self.membership else { return };
        let Ok(register) = store.open_register(membership.clone()) else { return };
        if let Some((version, hash)) = self.seen {
            let _ = store.expect_at_least(&register, version, hash);
        }
        // Whoever reads it is told who keeps it, and whether that is what was seen.
        let read = reactor::timeout(limit, || store.read(&register));
        if let Ok(Err(ReadError::RolledBack { seen, found, .. } | ReadError::Forked { seen, found, .. })) =
            read
        {
            self.older = Some(Older { seen, found });
        }
        if let Ok(newest) = store.membership(&register) {
            self.membership = Some(newest);
        }
    }

    /// What the nodes hold, if it is not what this machine has seen; known once they were followed.
    pub(crate) fn older(&self) -> Option<Older> {
        self.older
    }

    /// The nodes themselves.
    pub(crate) fn members(&self) -> &[NodeId] {
        self.membership.as_ref().map_or(&[], Membership::members)
    }
}

impl fmt::Display for Keepers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names)
    }
}

/// The record that made the register of the network's volume.
///
/// # Errors
/// `Failure::NoVolume`, or `Failure::Volume` if the network's description is damaged there.
pub(crate) fn genesis(network: &Network) -> Result<Signed<Genesis>, Failure> {
    match &network.volume {
        VolumeEntry::Unfounded => Err(Failure::NoVolume { reason: "nobody has founded it" }),
        VolumeEntry::Creating { genesis } | VolumeEntry::Created { genesis, .. } => {
            Signed::<Genesis>::from_bytes(&genesis.0).map_err(damaged)
        }
    }
}

/// Who keeps the root of the network's volume: as the network's description says, or, if this machine has seen that since,
/// whoever was put in their place.
///
/// # Errors
/// `Failure::Volume` if the network's description is damaged there, or those of what was seen.
pub(crate) fn keepers(network: &Network, seen_directory: Option<&Path>) -> Result<Keepers, Failure> {
    let encoded = match &network.volume {
        VolumeEntry::Unfounded => {
            return Ok(Keepers { membership: None, names: "no node".into(), seen: None, older: None });
        }
        VolumeEntry::Creating { genesis } | VolumeEntry::Created { genesis, .. } => genesis,
    };
    let genesis = Signed::<Genesis>::from_bytes(&encoded.0).map_err(damaged)?;
    let (seen, newest) = match seen_directory {
        Some(directory) => {
            let register = genesis.register();
            (seen::configuration(directory, &register)?, seen::newest(directory, &register)?)
        }
        None => (None, None),
    };
    let described = described_configuration(network)?;
    let membership = match [seen, described].into_iter().flatten().max_by_key(|newest| newest.epoch) {
        Some(newest) => Membership::from(genesis).followed_by(newest),
        None => genesis.into(),
    };
    // Never those whom the owner replaced because the file that says so is damaged.
    membership.verify().map_err(damaged)?;
    let names = Nodes::first(network).names(membership.members());
    Ok(Keepers { membership: Some(membership), names, seen: newest, older: None })
}

/// Who keeps the root since it was moved, as the network's description says.
fn described_configuration(network: &Network) -> Result<Option<Signed<Configuration>>, Failure> {
    match &network.volume {
        VolumeEntry::Created { configuration: Some(bytes), .. } => {
            Signed::from_bytes(&bytes.0).map(Some).map_err(damaged)
        }
        _ => Ok(None),
    }
}

/// Has the network's description say who keeps the root, if it is this root and news; says whether it is.
///
/// # Errors
/// `Failure::Volume` if the description is damaged there.
pub(crate) fn describe(network: &mut Network, newest: &Signed<Configuration>) -> Result<bool, Failure> {
    let described = described_configuration(network)?;
    let VolumeEntry::Created { genesis, configuration } = &mut network.volume else { return Ok(false) };
    let register = Signed::<Genesis>::from_bytes(&genesis.0).map_err(damaged)?.register();
    let is_news = register == newest.register && described.is_none_or(|known| known.epoch < newest.epoch);
    if is_news {
        *configuration = Some(Hex(newest.to_bytes()));
    }
    Ok(is_news)
}

/// Makes the network's volume unless it was made before: the act of the first `up`, and of nobody else.
///
/// Three steps, each on disk before the next. The genesis record goes into the home's settings before any node hears
/// of the register; then the first root is chosen; then the settings say that it was. A crash in between is resumed:
/// nothing can be in a volume whose founding is not recorded as done, for the drive is mounted after that.
///
/// # Errors
/// `Failure::NoNode` if there are too few nodes, `Failure::Volume`, `Failure::RootAway`, or those of the home.
///
/// # Suspends
/// Until the first root is on its quorum.
pub(crate) fn found(
    client: &Client<Rc<Node>>,
    home: &Home,
    network: &mut Network,
    user: &Member,
) -> Result<(), Failure> {
    refuse_unless_owner(network, user)?;
    if let VolumeEntry::Unfounded = network.volume {
        let genesis = client
            .create_register(network.volume_salt.0, Vec::new())
            .map_err(|error| Failure::NoNode { reason: error.to_string() })?;
        network.volume = VolumeEntry::Creating { genesis: Hex(genesis.to_bytes()) };
        home.save_network(network)?;
    }
    let VolumeEntry::Creating { genesis } = &network.volume else { return Ok(()) };
    let genesis = genesis.clone();
    let keepers = keepers(network, None)?;
    let keys = keys(client, &keepers, user)?;
    let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut options = Options::default();
    options.author = user.author.clone();
    match Volume::create(Rc::new(client.clone()), keys, options, owner) {
        Ok(volume) => volume.close().stored().map_err(|ending| failed(ending.to_string()))?,
        // A founding that was cut short had come that far.
        Err(OpenError::Exists) => {}
        Err(error) => return Err(not_open(error, &keepers, (client, network, user))),
    }
    network.volume = VolumeEntry::Created { genesis, configuration: None };
    home.save_network(network)
}

/// How a volume is opened.
pub(crate) struct Opening<'a> {
    /// This client's own: where its journal is, and its number.
    pub(crate) directory: &'a ClientDirectory,
    /// Where it is remembered what was seen of the volume; `None` for a client without a home.
    pub(crate) seen_directory: Option<&'a Path>,
    /// What the journal in it is for.
    pub(crate) keep: Keep,
    /// Whether an older root than was seen before is taken.
    pub(crate) accept_rollback: bool,
    /// What stands before the nodes.
    pub(crate) cache: Option<&'a Cache>,
    /// Whether the user is no member any more.
    pub(crate) is_removed: bool,
}

impl Opening<'_> {
    /// How a volume is opened that `user` may write to, or only read.
    pub(crate) fn options(&self, user: &Member, may_write: bool) -> Options {
        let mut options = Options::default();
        options.member = Some(user.identity.public_key());
        options.author = user.author.clone();
        options.place = match self.keep {
            Keep::Rest | Keep::WriteBack => {
                format!("with its journal in {}", self.directory.path().display())
            }
            _ => "by a command".into(),
        };
        options.device = self.directory.device();
        options.watch_interval = Some(WATCH_INTERVAL);
        let has_journal = matches!(self.keep, Keep::Rest | Keep::WriteBack);
        options.journal_directory = has_journal.then(|| self.directory.journal());
        options.write_back = self.keep == Keep::WriteBack;
        options.accept_older = self.accept_rollback;
        options.read_only = self.keep == Keep::Unchanged || !may_write;
        options.removed = self.is_removed;
        options
    }
}

/// A volume that is open, and what keeps what is seen of it: to be dropped once the volume is closed.
pub(crate) type Watched = (Rc<Volume>, Option<Seen>);

/// Opens the volume of `network`. Makes nothing: a root that is not there is an error. What is returned beside it is to
/// be dropped after the volume is closed: it keeps what was seen of it.
///
/// # Errors
/// `Failure::NoVolume`, `Failure::RootAway`, `Failure::RootGone`, `Failure::RolledBack`, `Failure::Forked`, `Failure::Volume`, or those of
/// the directories.
///
/// # Suspends
/// Until its root is known and the journal of the last run is replayed.
pub(crate) fn open(
    client: &Client<Rc<Node>>,
    network: &Network,
    user: &Member,
    opening: &Opening<'_>,
) -> Result<Watched, Failure> {
    match &network.volume {
        VolumeEntry::Unfounded => return Err(Failure::NoVolume { reason: "it was never started by `up`" }),
        VolumeEntry::Creating { .. } => {
            return Err(Failure::NoVolume { reason: "its founding was cut short, and `up` resumes it" });
        }
        VolumeEntry::Created { .. } => {}
    }
    let keepers = keepers(network, opening.seen_directory)?;
    let keys = keys(client, &keepers, user)?;
    let root = opening.cache.map(|cache| cache.root(&keys.register, "the drive"));
    let recall =
        |directory| Seen::recall(client, keys.register, directory, opening.accept_rollback, root.clone());
    let seen = opening.seen_directory.map(recall).transpose()?;
    let store: Rc<dyn BlockStore> = Rc::new(client.clone());
    let options = opening.options(user, user.passport.rights().write);
    let opened = match opening.cache.zip(root) {
        Some((cache, root)) => {
            let starts = cache.starts(client, &root, opening.accept_rollback)?;
            cache::open_by(client, &root, starts, false, |store| {
                cache.is_drives(root.clone(), store.clone(), &keys);
                Volume::open(store, keys.clone(), options.clone())
            })
        }
        None => Volume::open(store, keys, options),
    };
    let volume = opened.map_err(|error| not_open(error, &keepers, (client, network, user)))?;
    if let Some(seen) = &seen
        && let Err(failure) = seen.remember_keepers()
    {
        // Nothing was written yet.
        let _ = volume.close();
        return Err(failure);
    }
    Ok((volume, seen))
}

/// The register of the root of the volume, or of one of its spaces, or of the groups, open. What was seen of it is written down when this is
/// dropped.
pub(crate) struct Root {
    pub(crate) store: Client<Rc<Node>>,
    pub(crate) register: RegisterAddress,
    /// "the drive's root", or what else it is.
    pub(crate) what: String,
    seen: Option<Seen>,
}

impl Root {
    /// Has it on disk who keeps the root, as far as that is known.
    ///
    /// # Errors
    /// As [`Seen::remember_keepers`].
    pub(crate) fn remember_keepers(&self) -> Result<(), Failure> {
        self.seen.as_ref().map_or(Ok(()), Seen::remember_keepers)
    }
}

/// Opens the register of the volume's root, and nothing of what is in it.
///
/// # Errors
/// As [`open`].
///
/// # Suspends
/// Until its newest value is known.
pub(crate) fn open_root(
    store: Client<Rc<Node>>,
    network: &Network,
    user: &Member,
    seen_directory: Option<&Path>,
) -> Result<Root, Failure> {
    let keepers = keepers(network, seen_directory)?;
    let root = root_unread(store, network, user, seen_directory)?;
    let not_read = |error| not_open(OpenError::Read(error), &keepers, (&root.store, network, user));
    root.store.read(&root.register).map_err(not_read)?;
    root.remember_keepers()?;
    Ok(root)
}

/// As [`open_root`], without asking anybody for its value: too few may be left that could tell.
///
/// # Errors
/// As [`open`].
pub(crate) fn root_unread(
    store: Client<Rc<Node>>,
    network: &Network,
    user: &Member,
    seen_directory: Option<&Path>,
) -> Result<Root, Failure> {
    refuse_unless_owner(network, user)?;
    let register = keys(&store, &keepers(network, seen_directory)?, user)?.register;
    let recall = |directory| Seen::recall(&store, register, directory, false, None);
    let seen = seen_directory.map(recall).transpose()?;
    Ok(Root { store, register, what: "the drive's root".into(), seen })
}

/// As [`open_root`], of the space that `genesis` made, which is at `path`; `None` if its making was cut short, and it has no root.
///
/// # Errors
/// As there.
///
/// # Suspends
/// As there.
pub(crate) fn open_root_of_space(
    store: Client<Rc<Node>>,
    genesis: &Signed<Genesis>,
    path: &str,
    seen_directory: Option<&Path>,
) -> Result<Option<Root>, Failure> {
    open_root_of(store, genesis, format!("the root of the space {path}"), seen_directory)
}

/// As [`open_root_of_space`], of any register of the owner's, which people call `what`.
///
/// # Errors
/// As there.
///
/// # Suspends
/// As there.
pub(crate) fn open_root_of(
    store: Client<Rc<Node>>,
    genesis: &Signed<Genesis>,
    what: String,
    seen_directory: Option<&Path>,
) -> Result<Option<Root>, Failure> {
    let membership = spaces::membership(genesis, seen_directory)?;
    let register = store.open_register(membership).map_err(damaged)?;
    let recall = |directory| Seen::recall(&store, register, directory, false, None);
    let seen = seen_directory.map(recall).transpose()?;
    let found = store.read(&register).map_err(|error| failed(format!("{what} cannot be read: {error}")))?;
    if found.is_none() {
        return Ok(None);
    }
    let root = Root { store, register, what, seen };
    root.remember_keepers()?;
    Ok(Some(root))
}

/// Puts in what clients in `base` that are gone left in their journals, and nobody took over. What can't be put in
/// stays there for the next start, and is told.
///
/// # Suspends
/// Until all of it is on the nodes, or it is known that it can't be.
pub(crate) fn put_in_what_is_left(
    client: &Client<Rc<Node>>,
    network: &Network,
    user: &Member,
    base: &Path,
    overlay: &Rc<Node>,
) {
    for directory in ClientDirectory::left_behind(base) {
        let seen = client_directory::first(base);
        spaces::put_in_what_is_left(overlay, network, user, directory.path(), seen);
        if !directory.has_journal() {
            continue;
        }
        let place = directory.path().display();
        let opening = Opening {
            directory: &directory,
            seen_directory: None,
            keep: Keep::Rest,
            accept_rollback: false,
            cache: None,
            is_removed: false,
        };
        match open(client, network, user, &opening) {
            Ok((volume, _)) => match Outcome::of(volume.close(), directory.path()) {
                Outcome::Stored => say(format_args!("what a killed drive had left in {place} is stored")),
                other => tracing::warn!("{other}"),
            },
            Err(failure) => tracing::warn!("what a killed drive left in {place} waits there: {failure}"),
        }
    }
}

pub(crate) fn refuse_unless_owner(network: &Network, user: &Member) -> Result<(), Failure> {
    if network.volume_owner.0 == *user.identity.public_key().as_bytes() {
        return Ok(());
    }
    Err(Failure::NotOwner)
}

/// What it takes to read the volume as `user`.
///
/// # Errors
/// `Failure::NoVolume`, or `Failure::Volume` if the network's description is damaged there.
pub(crate) fn keys(
    client: &Client<Rc<Node>>,
    keepers: &Keepers,
    user: &Member,
) -> Result<VolumeKeys, Failure> {
    let membership =
        keepers.membership.clone().ok_or(Failure::NoVolume { reason: "nobody has founded it" })?;
    Ok(VolumeKeys {
        register: client.open_register(membership).map_err(damaged)?,
        secret: user.identity.sealing_key(),
        readers: Vec::new(),
    })
}

pub(crate) fn failed(reason: String) -> Failure {
    Failure::Volume { reason }
}

fn damaged(reason: impl fmt::Display) -> Failure {
    failed(format!("its settings do not say who keeps its root: {reason}"))
}

/// Why it is not open, for a user who asked those who are reached by this client.
fn not_open(
    error: OpenError,
    keepers: &Keepers,
    (client, network, user): (&Client<Rc<Node>>, &Network, &Member),
) -> Failure {
    match error {
        OpenError::Missing | OpenError::Read(ReadError::RolledBack { found: 0, .. }) => {
            Failure::RootGone { keepers: keepers.to_string() }
        }
        OpenError::Read(ReadError::NoQuorum { needed, reason, .. }) => {
            // Who is reached and lets nobody in is not away.
            if let Some(kept_out) = clocks::kept_out(client.overlay(), user, network) {
                let reason = format!("{needed} of {keepers} must answer to open the drive, and {kept_out}");
                return Failure::Clocks { reason };
            }
            Failure::RootAway { keepers: keepers.to_string(), needed, reason }
        }
        OpenError::Read(ReadError::RolledBack { seen, found, .. }) => Failure::RolledBack { seen, found },
        OpenError::Read(ReadError::Forked { seen, found, .. }) => Failure::Forked { seen, found },
        other => failed(other.to_string()),
    }
}
