//! A process that stores nothing itself: how it finds its network, proves who it is, and opens the volume.
//!
//! It needs two small files and one living node. From that node it learns of the others.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use dht::block::deletion::Speaker;
use dht::block::genesis::Genesis;
use dht::block::signed::Signed;
use dht::owner_tag;
use overlay::admission::Refusal;
use overlay::{Bootstrap, Config, JoinError, Node, PassportError};
use overlay::{Peers, Role as OverlayRole};
use reactor::crypto::Identity;
use reactor::rpc::Service;

use crate::cli::{ClientOptions, DiscoveryOption, MappingOption};
use crate::client_directory;
use crate::clocks;
use crate::errors::Failure;
use crate::files;
use crate::groups;
use crate::home::Home;
use crate::identity::{self, Member};
use crate::network::{Network, Role};
use crate::output::{self, say};
use crate::progress;
use crate::removed;
use crate::roll::Roll;
use crate::sharing::Sharer;
use crate::volume::{self, Opening, Root};

/// Remembered nodes that are tried at a start: as many as any node knows to be near it.
const REMEMBERED_MAX: usize = overlay::K;

/// Where no way leads to anybody, those who answer in this machine's own network are waited for so long: a question, and a
/// dial of a machine that has much else to do.
const FOUND_WITHIN: Duration = Duration::from_secs(3);

/// A node that was started at the same time, as scripts and the start of a machine do, listens within a second or two.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// What a client needs to know before it connects. Plain data, so that it can go where the reactor runs.
pub(crate) struct Settings {
    /// The network.
    pub(crate) network: Network,
    key_file: PathBuf,
    /// Whose key that is.
    role: Role,
    /// Where to look for nodes.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Where the directories of this machine's clients are by default; `None` if nothing says where that is.
    pub(crate) clients: Option<PathBuf>,
    /// Whose network it is, if it has a home here.
    pub(crate) home: Option<Home>,
    /// Whether somebody said where to look, and nowhere else.
    is_told: bool,
    /// Whether nodes are looked for in this machine's network too.
    discovery: DiscoveryOption,
}

/// Reads the settings that the options point at.
///
/// # Errors
/// `Failure::NotAHome`, those of [`files::load`], or `Failure::NoNode` if no address is known.
pub(crate) fn settings(options: &ClientOptions) -> Result<Settings, Failure> {
    let mut settings = match (&options.network, &options.key) {
        (Some(network), Some(key)) => {
            let network = files::load::<Network>(network)?;
            // Without a home: in the usual one, apart from what else is there.
            let usual = Home::locate(None).ok();
            let clients = usual.map(|home| home.clients_of_other(&network));
            let addresses = network.addresses();
            let key_file = key.clone();
            let discovery = options.discovery;
            let (role, is_told) = (Role::User, false);
            Settings { addresses, network, key_file, role, clients, home: None, is_told, discovery }
        }
        _ => {
            let home = Home::locate(options.home.home.as_deref())?;
            let network = home.network()?;
            Settings { discovery: options.discovery, ..Settings::of_home(&home, network) }
        }
    };
    if !options.nodes.is_empty() {
        settings.addresses = options.nodes.clone();
        settings.is_told = true;
    }
    // The nodes that the network began with may be gone for good.
    let remembers = || settings.home.as_ref().is_some_and(|home| !home.met().is_empty());
    if settings.addresses.is_empty() && !remembers() {
        return Err(Failure::NoNode { reason: "the network has never been started".into() });
    }
    Ok(settings)
}

impl Settings {
    /// Those of the user whose home it is.
    pub(crate) fn of_home(home: &Home, network: Network) -> Settings {
        Settings {
            addresses: network.addresses(),
            network,
            key_file: home.user_key_file(),
            role: Role::User,
            clients: Some(home.path().to_owned()),
            home: Some(home.clone()),
            is_told: false,
            discovery: DiscoveryOption::default(),
        }
    }

    /// Those of whom a home is for that joined, a user or a node.
    pub(crate) fn of_joined(home: &Home, network: Network) -> Settings {
        let settings = Settings::of_home(home, network);
        let node_key = home.as_node().key_file();
        match node_key.exists() {
            true => Settings { key_file: node_key, role: Role::Node, ..settings },
            false => settings,
        }
    }

    /// Whether the key is there.
    pub(crate) fn has_key(&self) -> bool {
        self.key_file.exists()
    }

    /// Who the user is.
    ///
    /// # Errors
    /// Those of [`files::load`].
    pub(crate) fn user(&self) -> Result<Member, Failure> {
        Member::load(&self.key_file, self.role)
    }

    /// Where it is remembered what was seen of the volume: one place for all clients of a network on this machine.
    pub(crate) fn seen_directory(&self) -> Option<PathBuf> {
        self.clients.as_deref().map(client_directory::first)
    }
}

/// The network's blocks, as seen by a member; with its own node's at hand if this process is one.
pub(crate) fn block_store(
    overlay: Rc<Node>,
    local: Option<Rc<dht::Node>>,
    network: &Network,
    user: &Member,
) -> dht::Client<Rc<Node>> {
    let config = dht::client::Config {
        identity: user.identity.clone(),
        tag: owner_tag(&network.volume_owner(), &network.volume_salt.0),
        replicas: usize::from(network.replicas),
    };
    dht::Client::new(overlay, local, config)
}

/// The blocks of one of the drive's spaces, as seen by a member; with its own node's at hand if this process is one.
pub(crate) fn space_store(
    overlay: Rc<Node>,
    local: Option<Rc<dht::Node>>,
    network: &Network,
    user: &Member,
    genesis: &Genesis,
) -> dht::Client<Rc<Node>> {
    let config = dht::client::Config {
        identity: user.identity.clone(),
        tag: owner_tag(&genesis.owner, &genesis.salt),
        replicas: usize::from(network.replicas),
    };
    dht::Client::new(overlay, local, config)
}

/// Signs the passports that are due, and has `overlay` know them, where the owner's key is: before the first dial, since a member
/// whose passport is over is refused by all and refuses nobody less, and may be all that is left of those who keep the root.
/// That it fails keeps nobody else from being reached.
///
/// # Suspends
/// Until they are on disk.
pub(crate) fn renew_members(home: &Home, network: &Network, overlay: &Node) {
    if !identity::has_owner(home) {
        return;
    }
    let renew = || {
        let (roll_home, of, now) = (home.clone(), network.clone(), reactor::wall_clock());
        let passports = reactor::offload(move || {
            Ok::<_, Failure>(Roll::renewed(&roll_home, &of, now)?.passports(&roll_home.revocations(&of)?))
        })?;
        overlay.renew(passports).map_err(|error| Failure::Renewing { reason: error.to_string() })
    };
    if let Err(failure) = renew() {
        output::warn(format_args!("{failure}; members that were away for long may be refused"));
    }
}

/// Whether a way leads to another machine than this one.
fn leads_elsewhere(way: &Bootstrap) -> bool {
    let is_elsewhere = |address: &SocketAddr| !address.ip().is_loopback();
    match way {
        Bootstrap::Address(address) => is_elsewhere(address),
        Bootstrap::Contact(contact) => contact.addresses.iter().any(is_elsewhere),
    }
}

fn is_expired(error: &JoinError) -> bool {
    matches!(error, JoinError::Refused(Refusal::Passport(PassportError::Expired { .. })))
}

/// Why nobody let us in. That a passport is over may be said of the other's, too: of ours our own clock tells.
fn refused(overlay: &Node, user: &Member, network: &Network, error: &JoinError) -> Failure {
    let own = user.identity.public_key();
    let verdict = || overlay.passport().verify(&network.owner_key(), &own, reactor::wall_clock());
    if is_expired(error) && matches!(verdict(), Err(PassportError::Expired { .. })) {
        return Failure::Expired;
    }
    if let Some(reason) = clocks::kept_out(overlay, user, network) {
        return Failure::Clocks { reason };
    }
    Failure::NoNode { reason: error.to_string() }
}

/// A connected client.
pub(crate) struct Client {
    network: Network,
    user: Member,
    overlay: Rc<Node>,
}

impl Client {
    /// Connects to the network.
    ///
    /// # Errors
    /// `Failure::NoNode` if nobody answers or lets us in.
    ///
    /// # Suspends
    /// Until one node at least is reached.
    pub(crate) fn connect(settings: &Settings) -> Result<Client, Failure> {
        Client::enter(settings, false)
    }

    /// As [`Client::connect`], for who stays for a while: nodes that were started a moment ago are tried again for some seconds.
    ///
    /// # Errors
    /// As [`Client::connect`].
    ///
    /// # Suspends
    /// As [`Client::connect`], and for so long.
    pub(crate) fn connect_with_patience(settings: &Settings) -> Result<Client, Failure> {
        let until = reactor::now() + PATIENCE;
        loop {
            match Client::connect(settings) {
                Err(Failure::NoNode { .. }) if reactor::now() < until => reactor::sleep(RETRY_INTERVAL),
                other => return other,
            }
        }
    }

    /// As [`Client::connect`]; but where nobody can be reached, the nodes are tried again and again meanwhile.
    ///
    /// # Errors
    /// `Failure::NoNode` if nobody lets us in.
    ///
    /// # Suspends
    /// Until one node is reached, or none is.
    pub(crate) fn connect_or_go_on(settings: &Settings) -> Result<Client, Failure> {
        Client::enter(settings, true)
    }

    fn enter(settings: &Settings, goes_on: bool) -> Result<Client, Failure> {
        let user = settings.user()?;
        let config = Config {
            identity: (*user.identity).clone(),
            network: settings.network.owner_key(),
            passport: user.passport.clone(),
            role: OverlayRole::Client,
            listen: None,
            bootstrap: Vec::new(),
            contacts_file: settings.home.as_ref().map(Home::contacts_file),
            revocations_file: settings.home.as_ref().map(Home::revocations_file),
            renewals_file: settings.home.as_ref().map(Home::renewals_file),
            statement: Default::default(),
            record_file: None,
            peers: Peers::new(),
        };
        let overlay =
            Node::start(config, Service::new()).map_err(|error| Failure::Internal(error.to_string()))?;
        overlay.set_founding_nodes(settings.network.founding_nodes());
        if let Some(home) = &settings.home {
            renew_members(home, &settings.network, &overlay);
        }
        let mut ways: Vec<Bootstrap> = settings.addresses.iter().copied().map(Into::into).collect();
        if !settings.is_told {
            // Those that it met last, wherever they are now: the description is as old as the home.
            ways.extend(overlay.remembered().into_iter().take(REMEMBERED_MAX).map(Bootstrap::Contact));
        }
        let discovers = !settings.is_told && settings.discovery.is_on() && ways.iter().any(leads_elsewhere);
        if discovers {
            overlay.discover();
        }
        let telling = progress::tell_if_long("no node has answered yet: they are tried on");
        let mut joined = overlay.join(&ways);
        let is_lost = matches!(joined, Err(JoinError::Unreachable { .. }));
        if discovers && is_lost && overlay.wait_for_anybody(FOUND_WITHIN) {
            joined = overlay.join(&ways);
        }
        drop(telling);
        if let Err(error) = joined {
            let failure = match removed::refuse(&overlay, removed::USER) {
                Err(removed) => removed,
                Ok(()) => refused(&overlay, &user, &settings.network, &error),
            };
            // That it was removed, whoever goes on says.
            let may_go_on = matches!(failure, Failure::Removed { .. })
                || is_expired(&error)
                || matches!(error, JoinError::Unreachable { .. });
            if !(goes_on && may_go_on) {
                overlay.stop();
                return Err(failure);
            }
            if matches!(failure, Failure::Expired) {
                say(format_args!("{failure}: what is here is shown, and the nodes are tried on"));
            }
        }
        Ok(Client { network: settings.network.clone(), user, overlay })
    }

    /// Has the router let members in, if it may be asked: for who stays for a while. Never suspends.
    pub(crate) fn map_ports(&self, mapping: MappingOption) {
        if mapping.is_on() {
            self.overlay.map_ports();
        }
    }

    /// Its place in the overlay.
    pub(crate) fn overlay(&self) -> &Rc<Node> {
        &self.overlay
    }

    /// Which network it is in.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Who the user is.
    pub(crate) fn user(&self) -> &Member {
        &self.user
    }

    /// Whether the drive's root is this user's, to say who keeps it.
    pub(crate) fn owns_the_root(&self) -> bool {
        self.user.identity.public_key() == self.network.volume_owner()
    }

    /// Opens the network's volume.
    ///
    /// # Errors
    /// `Failure::Volume`.
    ///
    /// # Suspends
    /// Until its root is known and the journal of the last run is replayed.
    pub(crate) fn open_volume(&self, opening: &Opening<'_>) -> Result<volume::Watched, Failure> {
        volume::open(&self.block_store(), &self.network, &self.user, opening)
    }

    /// Opens the register of the network's volume, and those of its spaces that `home`'s roll has; nothing of what is in them. The
    /// volume's is the first. Returns with them why those of some spaces can't be opened.
    ///
    /// # Errors
    /// As [`Client::open_volume`], or those of the roll.
    ///
    /// # Suspends
    /// Until their newest values are known.
    pub(crate) fn open_roots(
        &self,
        home: Option<&Home>,
        seen_directory: Option<&Path>,
    ) -> Result<(Vec<Root>, Result<(), Failure>), Failure> {
        let mut roots =
            vec![volume::open_root(self.block_store(), &self.network, &self.user, seen_directory)?];
        let mut all = Ok(());
        let roll = home.map(Roll::read).transpose()?.unwrap_or_default();
        if let Some(home) = home.filter(|_| self.owns_the_root()) {
            // Also if the drive's root alone says where it is: this home may not have heard of it.
            let store = self.block_store();
            let opened =
                groups::find(&Sharer { home, network: &self.network, store: &store, user: &self.user });
            let opened = opened.and_then(|found| {
                let open = |genesis: Signed<Genesis>| {
                    let store = self.space_store(&self.network, &genesis);
                    volume::open_root_of(store, &genesis, groups::WHAT.into(), seen_directory)
                };
                found.map_or(Ok(None), open)
            });
            match opened {
                Ok(root) => roots.extend(root),
                Err(failure) if roll.groups.is_some() => all = Err(failure),
                // As far as this home knows there are none, and what one of its writers has sealed says nothing.
                Err(failure) => output::warn(format_args!(
                    "whether the drive has groups, whose register is kept as its root is, cannot be read: {failure}"
                )),
            }
        }
        // Of those that were given up, too: as long as nodes tell that, they can be brought back.
        for space in roll.spaces {
            let opened = space.genesis().and_then(|genesis| {
                let store = self.space_store(&self.network, &genesis);
                volume::open_root_of_space(store, &genesis, &space.path, seen_directory)
            });
            match opened {
                Ok(root) => roots.extend(root),
                Err(failure) => all = all.and(Err(failure)),
            }
        }
        Ok((roots, all))
    }

    /// The register of the volume's root, not read yet.
    ///
    /// # Errors
    /// As [`volume::root_unread`].
    pub(crate) fn root_unread(&self, seen_directory: Option<&Path>) -> Result<Root, Failure> {
        volume::root_unread(self.block_store(), &self.network, &self.user, seen_directory)
    }

    /// Puts in what clients in `base` that are gone left behind.
    ///
    /// # Suspends
    /// Until then.
    pub(crate) fn put_in_what_is_left(&self, base: &Path) {
        volume::put_in_what_is_left(&self.block_store(), &self.network, &self.user, base, &self.overlay);
    }

    /// The network's blocks.
    pub(crate) fn block_store(&self) -> dht::Client<Rc<Node>> {
        block_store(self.overlay.clone(), None, &self.network, &self.user)
    }

    /// The blocks of the space that `genesis` made.
    pub(crate) fn space_store(&self, network: &Network, genesis: &Genesis) -> dht::Client<Rc<Node>> {
        space_store(self.overlay.clone(), None, network, &self.user, genesis)
    }

    /// Whoever may say what becomes of the blocks of the volume with that salt, the drive's or one of its spaces'.
    ///
    /// # Errors
    /// `Failure::Volume` if this user does not own the drive.
    pub(crate) fn speaker(&self, salt: [u8; 32]) -> Result<Speaker<'_>, Failure> {
        volume::refuse_unless_owner(&self.network, &self.user)?;
        let identity: &Identity = &self.user.identity;
        Ok(Speaker { identity, owner: identity.public_key(), salt, grant: None })
    }

    /// Closes its connections.
    ///
    /// # Suspends
    /// Until then.
    pub(crate) fn leave(self) {
        self.overlay.stop();
    }
}

#[cfg(test)]
mod tests {
    use overlay::Passport;
    use overlay::invitation::InvitedAs;
    use reactor::crypto::Identity;

    use super::*;
    use crate::network::Hex;
    use crate::roll::LetIn;

    const DAY: Duration = Duration::from_secs(86_400);

    /// What went wrong: passports were renewed once the drive was open, and it could not be opened, since those that kept its
    /// root were refused; and the owner was told that his own passport was over.
    #[test]
    fn an_owner_who_was_away_until_all_passports_were_over_lets_the_members_in_again() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(directory.path())).unwrap();
        let (network, _) = home.open_or_found(Some(1)).unwrap();
        let (owner, key) = (identity::owner(&home).unwrap(), Identity::from_seed(&[7; 32]));
        reactor::run(move || {
            let now = reactor::wall_clock();
            let role = InvitedAs::Node;
            let (from, until) = (now - DAY * 200, Some(now - DAY * 20));
            let passport = Passport::issue_from(&owner, key.public_key(), role.rights(), from, until);
            let member = LetIn {
                key: Hex(*key.public_key().as_bytes()),
                sealing_key: Hex([1; 32]),
                name: "all that is left".into(),
                role,
                since: 0,
                ticket: Hex([2; 32]),
                number: Some(2),
                may_be_on_drive: false,
                passport: Some(Hex(passport.to_bytes())),
            };
            let config = Config {
                identity: key,
                network: network.owner_key(),
                passport: passport.clone(),
                role: OverlayRole::Storage,
                listen: Some("127.0.0.1:0".parse().unwrap()),
                bootstrap: Vec::new(),
                contacts_file: None,
                revocations_file: None,
                renewals_file: None,
                statement: Default::default(),
                record_file: None,
                peers: Peers::new(),
            };
            let node = Node::start(config, Service::new()).unwrap();
            let mut settings = Settings::of_home(&home, network);
            settings.addresses = vec![node.listen_address().unwrap()];
            match Client::connect(&settings) {
                Err(Failure::NoNode { reason }) => assert!(reason.contains("expired"), "{reason}"),
                Err(other) => panic!("it is not the owner's that is over: {other}"),
                Ok(_) => panic!("nobody renewed it"),
            }
            Roll::change(&home, |roll| {
                roll.members.push(member);
                Ok(())
            })
            .unwrap();
            Client::connect(&settings).unwrap().leave();
            node.stop();
        });
    }
}
