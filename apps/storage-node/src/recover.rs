//! `recover`: a home again, on a machine that has nothing, from the 24 words and the address of one node.
//!
//! The words are the owner's key. With it this signs a passport for a key made for the moment, enters the network through that
//! node, and asks every node that it meets for what is kept for the owner; the newest counts. Nobody but the owner can have
//! sealed it, so what opens is true; that a newer one is held back by all who answer is the one thing that it can't tell.
//! The home is written with its `network.json` last, and the same command goes on with one that was cut short.
//!
//! What comes back is the owner's key, the user's, the network and the roll. The nodes that ran in the lost home are not:
//! their blocks are on the others, as far as there are others.

use std::net::SocketAddr;

use overlay::admission::Refusal;
use overlay::contact::Introduction;
use overlay::keepsake::Stamp;
use overlay::{Bootstrap, Config, Contact, JoinError, Keepsake, Node, PassportError, Peers};
use overlay::{Passport, Revocations, Rights, Role as OverlayRole, Statement, contacts_file};
use reactor::crypto::Identity;
use reactor::rpc::Service;

use crate::belongings::Belongings;
use crate::cli::Recover;
use crate::errors::Failure;
use crate::files;
use crate::home::Home;
use crate::identity;
use crate::keyring;
use crate::network::{KeyFile, Role};
use crate::output::{self, say};
use crate::process;
use crate::progress;
use crate::remove::{lists_from, on_each};
use crate::roll::Roll;
use crate::secrets::Source;
use crate::shelf;
use crate::words;

/// Runs the command.
///
/// # Errors
/// `Failure::Words`, `Failure::NotGiven`, `Failure::NotRecovered`, or those of the home's files.
pub(crate) fn recover(options: &Recover) -> Result<(), Failure> {
    let home = Home::locate(options.home.home.as_deref())?;
    // Before anybody types 24 words.
    home.refuse_to_recover()?;
    let source = Source { descriptor: options.words_fd, credential: None, what: "the 24 words" };
    let owner = Identity::from_seed(&*words::parse(&source.ask_words()?)?);
    let _lock = home.lock()?;
    home.refuse_to_recover()?;
    refuse_another_owner(&home, &owner)?;
    let found = process::run(|| fetch(&owner, &options.nodes))?;
    if found.revoked.len() < found.nodes.len() {
        output::warn(
            "not every node said who was removed: look at `members` before you let anybody in or remove anybody",
        );
    }
    let nodes = found.nodes.len();
    let members = found.belongings.roll.members.len();
    settle_in(&home, &owner, found)?;
    say(format_args!(
        "{} is the owner's home again: {} of its nodes can be reached, and {members} members are on the roll",
        home.path().display(),
        nodes
    ));
    say(format_args!(
        "storage-node mount --home {} DRIVE mounts the drive, if the nodes that keep its root answer",
        home.path().display()
    ));
    say(
        "tickets that were given out are good no more, and the keys of this home are under no passphrase (`passphrase` sets one)",
    );
    say(
        "if another copy of this home may be in wrong hands, make a new network: its owner's and user's keys are these",
    );
    Ok(())
}

/// A recovery that was cut short left the key; somebody else's key is not written over.
fn refuse_another_owner(home: &Home, owner: &Identity) -> Result<(), Failure> {
    let path = home.owner_key_file();
    if path.exists() && keyring::load(&path)?.identity.public_key() != owner.public_key() {
        return Err(Failure::LonelyKeys { path: home.path().into() });
    }
    Ok(())
}

/// What the nodes gave back.
struct Found {
    keepsake: Keepsake,
    belongings: Belongings,
    nodes: Vec<Contact>,
    revoked: Vec<Revocations>,
}

/// Enters the network as its owner, and has the nodes give back what they keep for him.
fn fetch(owner: &Identity, addresses: &[SocketAddr]) -> Result<Found, Failure> {
    let network = owner.public_key();
    // Of no use to anybody once this process has ended, and so without an end that a wrong clock could bring.
    let identity = Identity::generate();
    let passport = Passport::issue(owner, identity.public_key(), Rights::READER, None);
    let config = Config {
        identity,
        network,
        passport,
        role: OverlayRole::Client,
        listen: None,
        bootstrap: Vec::new(),
        contacts_file: None,
        revocations_file: None,
        renewals_file: None,
        statement: Statement::default(),
        record_file: None,
        peers: Peers::new(),
    };
    let overlay =
        Node::start(config, Service::new()).map_err(|error| Failure::Internal(error.to_string()))?;
    let spinner = progress::spinner("asking the nodes what they keep for the owner");
    let ways: Vec<Bootstrap> = addresses.iter().copied().map(Into::into).collect();
    let found = overlay.join(&ways).map_err(|error| not_let_in(&error, addresses)).and_then(|_| {
        let nodes = shelf::live_nodes(&overlay);
        let newest = newest(&overlay, &nodes, owner)?;
        let content = newest.open(owner).map_err(|error| not_recovered(error.to_string(), None))?;
        let belongings = Belongings::from_bytes(&content).map_err(|reason| {
            not_recovered(format!("what the nodes keep is not understood: {reason}"), None)
        })?;
        let revoked = lists_from(&overlay, &nodes, &network);
        Ok(Found { keepsake: newest, belongings, nodes, revoked })
    });
    spinner.finish_and_clear();
    overlay.stop();
    found
}

/// The newest of what the nodes keep that is this owner's.
fn newest(overlay: &Node, nodes: &[Contact], owner: &Identity) -> Result<Keepsake, Failure> {
    let answers = on_each(overlay, nodes, |overlay, node| shelf::ask(overlay, node, Stamp::default()));
    let kept = answers.into_iter().flatten().flatten().flatten();
    let own = kept.filter(|kept| kept.verify(&owner.public_key()).is_ok());
    own.max_by_key(Keepsake::stamp).ok_or_else(|| {
        not_recovered(
            format!("the words are this network's, and none of {} nodes keeps what goes with them", nodes.len()),
            Some("give the address of another node; nodes get it from `up`, `mount` or `recovery` of the owner's home"),
        )
    })
}

fn not_let_in(error: &JoinError, addresses: &[SocketAddr]) -> Failure {
    let shown: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let shown = shown.join(", ");
    match error {
        JoinError::Refused(Refusal::Passport(PassportError::WrongNetwork { .. })) => not_recovered(
            format!("the node at {shown} is of another network than these words"),
            Some("see which page the words are on, and give the address of a node of that network"),
        ),
        JoinError::Unreachable { .. } => not_recovered(
            format!("no node can be reached at {shown}"),
            Some("see that one runs there (`run`, or `up` with --listen IP), or give another --node"),
        ),
        other => not_recovered(format!("the node at {shown} lets nobody in: {other}"), None),
    }
}

fn not_recovered(reason: String, advice: Option<&'static str>) -> Failure {
    Failure::NotRecovered { reason, advice }
}

/// Writes the home, what says that it is one last.
fn settle_in(home: &Home, owner: &Identity, found: Found) -> Result<(), Failure> {
    let Found { keepsake, belongings, nodes, revoked } = found;
    let user = belongings.user();
    let Belongings { mut network, mut roll, .. } = belongings;
    if user.public_key() != network.volume_owner() || owner.public_key() != network.owner_key() {
        return Err(not_recovered("what the nodes keep is of another network".into(), None));
    }
    files::save(&home.owner_key_file(), &KeyFile::plain(Role::Owner, owner, None))?;
    let user = identity::admit(owner, &user, Role::User, Rights::CLIENT);
    files::save(&home.user_key_file(), &user)?;
    let newest = revoked.into_iter().max_by_key(Revocations::version);
    // An older record may know a ticket and not who came by it: none is good twice.
    roll.invitations.clear();
    for member in &mut roll.members {
        let is_revoked = newest.as_ref().is_some_and(|list| list.contains(&member.public_key()));
        member.may_be_on_drive &= !is_revoked;
    }
    Roll::change(home, |kept| {
        *kept = roll;
        Ok(())
    })?;
    if let Some(newest) = newest {
        let path = home.revocations_file();
        newest.save(&path).map_err(|error| Failure::file(&path, error))?;
    }
    let path = home.contacts_file();
    let met: Vec<Introduction> = nodes.iter().map(Introduction::from).collect();
    contacts_file::save(&path, &met).map_err(|error| Failure::file(&path, error))?;
    let path = home.keepsake_file();
    files::write_atomically(&path, &keepsake.to_bytes(), 0o600)
        .map_err(|error| Failure::file(&path, error))?;
    for entry in &mut network.nodes {
        let met = nodes.iter().find(|node| node.public_key.as_bytes() == &entry.public_key.0);
        entry.address = met.and_then(|node| node.addresses.first().copied());
    }
    files::save(&home.network_file(), &network)
}
