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
use reactor::crypto::{Identity, PublicKey};
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
use crate::remove::{is_below, lists_from, on_each};
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
    let Found { keepsake, belongings, nodes, mut revoked } = found;
    let (user, removed) = (belongings.user(), belongings.removed());
    let Belongings { mut network, mut roll, .. } = belongings;
    if user.public_key() != network.volume_owner() || owner.public_key() != network.owner_key() {
        return Err(not_recovered("what the nodes keep is of another network".into(), None));
    }
    files::save(&home.owner_key_file(), &KeyFile::plain(Role::Owner, owner, None))?;
    let user = identity::admit(owner, &user, Role::User, Rights::CLIENT);
    files::save(&home.user_key_file(), &user)?;
    // An older record may know a ticket and not who came by it: none is good twice. And whoever was removed may be on the drive
    // still, as far as it says: the removal may have come no further than its list. The first `up` or `mount` takes him off.
    roll.invitations.clear();
    Roll::change(home, |kept| {
        *kept = roll;
        Ok(())
    })?;
    // What is left of a home may know of a removal that no node has heard of.
    revoked.extend(home.revocations(&network));
    let path = home.revocations_file();
    let list = list_of_all(owner, &revoked, &removed);
    list.save(&path).map_err(|error| Failure::file(&path, error))?;
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

/// The newest list of who was removed, if it has all who are on any of them or in the record, else one that follows all: two
/// copies of the lost home may have signed one each, and whoever is taken for a member is signed a passport.
fn list_of_all(owner: &Identity, lists: &[Revocations], recorded: &[PublicKey]) -> Revocations {
    let newest = lists.iter().max_by_key(|list| list.version()).cloned().unwrap_or_default();
    let is_whole = lists.iter().all(|list| is_below(list, &newest));
    if is_whole && recorded.iter().all(|key| newest.contains(key)) {
        return newest;
    }
    let all = Revocations::following(lists, owner, recorded.iter().copied(), reactor::wall_clock());
    all.unwrap_or_else(|error| {
        output::warn(format_args!("not all who were removed are known here as removed: {error}"));
        newest
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use overlay::invitation::InvitedAs;

    use super::*;
    use crate::network::Hex;
    use crate::roll::LetIn;

    fn key(member: u8) -> PublicKey {
        Identity::from_seed(&[member; 32]).public_key()
    }

    fn list(owner: &Identity, members: &[u8]) -> Revocations {
        let keys = members.iter().map(|member| key(*member));
        Revocations::default().with(owner, keys, SystemTime::now()).unwrap()
    }

    /// Who has a passport, and who is still to be taken off the drive, in a home that came back: the members 1 to 4 were on it.
    /// `recorded` were removed as the record has it, the nodes have the lists `of_nodes`, and `known` is what was left of the home.
    fn recovered(recorded: &[u8], of_nodes: &[&[u8]], known: Option<&[u8]>) -> [Vec<u8>; 2] {
        let directory = tempfile::tempdir().unwrap();
        let [lost, home] =
            ["lost", "home"].map(|name| Home::locate(Some(&directory.path().join(name))).unwrap());
        std::fs::create_dir_all(lost.path()).unwrap();
        std::fs::create_dir_all(home.path()).unwrap();
        let (network, _) = lost.open_or_found(Some(1)).unwrap();
        let owner = identity::owner(&lost).unwrap();
        let user = keyring::load(&lost.user_key_file()).unwrap().identity;
        let member = |member: u8| LetIn {
            key: Hex(*key(member).as_bytes()),
            sealing_key: Hex([member; 32]),
            name: "somebody".into(),
            role: InvitedAs::Writer,
            since: 0,
            ticket: Hex([member; 32]),
            number: None,
            may_be_on_drive: true,
            passport: None,
        };
        let roll = Roll { members: (1..=4).map(member).collect(), ..Roll::default() };
        let belongings = Belongings::of(&network, &user, &roll, &list(&owner, recorded), 0);
        if let Some(known) = known {
            list(&owner, known).save(&home.revocations_file()).unwrap();
        }
        let keepsake = Keepsake::seal(&owner, 1, b"x").unwrap();
        let revoked = of_nodes.iter().map(|members| list(&owner, members)).collect();
        let found = Found { keepsake, belongings, nodes: Vec::new(), revoked };
        settle_in(&home, &owner, found).unwrap();
        let (network, now) = (home.network().unwrap(), SystemTime::now());
        let revoked = home.revocations(&network).unwrap();
        let roll = Roll::renewed(&home, &network, now).unwrap();
        let renewed = roll.passports(&revoked);
        let is_good = |member: &u8| renewed.iter().any(|passport| passport.holder() == key(*member));
        let left = roll.left_on_drive(&revoked);
        let is_left = |member: &u8| left.iter().any(|left| left.public_key() == key(*member));
        [(1..=4).filter(is_good).collect(), (1..=4).filter(is_left).collect()]
    }

    /// What went wrong: that somebody is on the list was taken for his being off the drive, and nobody took him off it any more.
    #[test]
    fn whom_a_removal_did_not_get_off_the_drive_the_recovered_home_takes_off_it() {
        assert_eq!(recovered(&[], &[&[1]], None), [vec![2, 3, 4], vec![1]]);
        assert_eq!(recovered(&[], &[], None), [vec![1, 2, 3, 4], vec![]]);
    }

    /// What went wrong: of two lists that do not follow each other one was taken, and who is on the other had a passport.
    #[test]
    fn whoever_is_on_any_list_that_the_nodes_have_is_no_member_of_the_recovered_home() {
        assert_eq!(recovered(&[], &[&[1], &[2]], None), [vec![3, 4], vec![1, 2]]);
    }

    /// What went wrong: nodes that were behind, or said so, made members of the removed.
    #[test]
    fn whoever_is_removed_as_the_record_has_it_stays_so_whatever_the_nodes_have() {
        assert_eq!(recovered(&[1, 3], &[&[1]], None), [vec![2, 4], vec![1, 3]]);
        assert_eq!(recovered(&[3], &[], None), [vec![1, 2, 4], vec![3]]);
        assert_eq!(recovered(&[], &[&[1]], Some(&[2])), [vec![3, 4], vec![1, 2]]);
        assert_eq!(recovered(&[], &[], Some(&[2])), [vec![1, 3, 4], vec![2]]);
    }
}
