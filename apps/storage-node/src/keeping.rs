//! Having the nodes keep what brings an owner's home back: sealed anew whenever it changes, and given to every node.
//!
//! The owner's `up` or `mount` does this for as long as it runs, and commands that change who keeps the drive's root do it
//! once. What nodes or an earlier run have is put together with what this home has, so that another copy of the home takes
//! nothing back; and the same things are not sealed twice. It takes the owner's key, and does not happen where that is away.
//!
//! Not here: what is kept (`belongings`), how nodes keep it (`shelf`), and how it is had again (`recover`).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use overlay::keepsake::Stamp;
use overlay::{Contact, Keepsake, Node};
use reactor::cell::RefCell;
use reactor::crypto::hash::sha3_256;
use reactor::crypto::{Identity, PublicKey};

use crate::admitting::now;
use crate::belongings::Belongings;
use crate::client::Settings;
use crate::errors::Failure;
use crate::files;
use crate::home::Home;
use crate::identity::{self, Member};
use crate::network::{Network, VolumeEntry};
use crate::output;
use crate::remove::on_each;
use crate::roll::Roll;
use crate::shelf::{self, Shelf};

/// When a node is asked again that did not keep it: it may be full, or of another version.
const AGAIN: Duration = Duration::from_secs(60);

/// How many nodes have what was sealed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) by: usize,
    /// How many can be reached.
    pub(crate) of: usize,
}

/// What was sealed last.
struct Sealed {
    /// What tells whether the home has changed since.
    digest: [u8; 32],
    keepsake: Rc<Keepsake>,
}

/// What came of giving it to a node.
struct Given {
    stamp: Stamp,
    is_kept: bool,
    /// A node that did not keep it is asked again then.
    again_at: Instant,
}

/// Keeps the nodes' copies new.
pub(crate) struct Keeping {
    home: Home,
    network: PublicKey,
    user: Rc<Identity>,
    sealed: RefCell<Option<Sealed>>,
    given: RefCell<BTreeMap<PublicKey, Given>>,
    /// Whether a failure was told already: it comes back every second.
    has_told: Cell<bool>,
}

impl Keeping {
    /// For the home of the owner of `network`, whose user is `user`.
    pub(crate) fn new(home: &Home, network: &Network, user: &Member) -> Keeping {
        Keeping {
            home: home.clone(),
            network: network.owner_key(),
            user: user.identity.clone(),
            sealed: RefCell::default(),
            given: RefCell::default(),
            has_told: Cell::new(false),
        }
    }

    /// One of many rounds: what fails is told once, and tried again in the next.
    ///
    /// # Suspends
    /// As [`Keeping::round`].
    pub(crate) fn go_on(&self, overlay: &Node, own: Option<&Shelf>) {
        match self.round(overlay, own) {
            Ok(_) => self.has_told.set(false),
            Err(failure) => {
                if !self.has_told.replace(true) {
                    output::warn(format_args!(
                        "the words of `recovery` bring back an earlier state of this home: {failure}; trying on"
                    ));
                }
            }
        }
    }

    /// Seals what the home has, if that is news, and gives it to those nodes that do not have it; `own` is the shelf of the node
    /// in this process. Before there is a drive there is nothing to keep.
    ///
    /// # Errors
    /// `Failure::Keeping`, also if of those that are reached none takes it; `Failure::NotTheOwner`, or those of the home's files.
    /// That some do not take it is none.
    ///
    /// # Suspends
    /// Until every node that is reached has it, or did not answer in time.
    pub(crate) fn round(&self, overlay: &Node, own: Option<&Shelf>) -> Result<Kept, Failure> {
        let (home, user) = (self.home.clone(), (*self.user).clone());
        let ours = reactor::offload(move || {
            let network = home.network()?;
            let roll = Roll::read(&home)?;
            let is_there = matches!(network.volume, VolumeEntry::Created { .. });
            let revoked = home.revocations(&network)?;
            Ok::<_, Failure>(is_there.then(|| Belongings::of(&network, &user, &roll, &revoked, now())))
        })?;
        let Some(ours) = ours else { return Ok(Kept { by: 0, of: 0 }) };
        let digest = sha3_256(&[b"hypha belongings", &ours.to_bytes()?]);
        let is_known = self.sealed.borrow().as_ref().is_some_and(|sealed| sealed.digest == digest);
        if !is_known {
            let keepsake = Rc::new(self.seal(ours, overlay, own)?);
            self.sealed.replace(Some(Sealed { digest, keepsake }));
        }
        let keepsake = self.sealed.borrow().as_ref().map(|sealed| sealed.keepsake.clone());
        let keepsake = keepsake.ok_or_else(|| Failure::Internal("nothing was sealed".into()))?;
        let kept = self.give(&keepsake, overlay, own);
        if kept.is_none() {
            // Another copy of this home has sealed something meanwhile: that is put together with ours in the next round.
            self.sealed.replace(None);
        }
        match kept {
            Some(Kept { by: 0, of: 1.. }) => Err(Failure::Keeping { reason: "no node has taken it".into() }),
            Some(kept) => Ok(kept),
            None => Err(Failure::Keeping { reason: "another copy of this home was faster".into() }),
        }
    }

    /// What the home has and what is kept already, sealed; what is kept already, if that is the same.
    fn seal(&self, ours: Belongings, overlay: &Node, own: Option<&Shelf>) -> Result<Keepsake, Failure> {
        let home = self.home.clone();
        let (owner, written) = reactor::offload(move || {
            let owner = identity::owner(&home)?;
            // A damaged one is no loss: the nodes have it.
            let written = shelf::read(&home.keepsake_file(), &owner.public_key()).ok().flatten();
            Ok::<_, Failure>((owner, written))
        })?;
        let mut newest = written;
        let mut meet = |other: Keepsake| {
            let is_newer = newest.as_ref().is_none_or(|known| known.stamp() < other.stamp());
            if is_newer && other.verify(&owner.public_key()).is_ok() {
                newest = Some(other);
            }
        };
        if let Some(kept) = own.and_then(Shelf::newest) {
            meet((*kept).clone());
        }
        let nodes = shelf::live_nodes(overlay);
        let theirs = on_each(overlay, &nodes, |overlay, node| shelf::ask(overlay, node, Stamp::default()));
        theirs.into_iter().flatten().flatten().flatten().for_each(&mut meet);

        let not_kept = |reason: String| Failure::Keeping { reason };
        let (bytes, version) = match &newest {
            Some(kept) => {
                let before = kept.open(&owner).map_err(|error| not_kept(error.to_string()))?;
                let theirs = Belongings::from_bytes(&before).map_err(not_kept)?;
                let bytes = ours.with(theirs, now())?.to_bytes()?;
                if *bytes == before {
                    return Ok(kept.clone());
                }
                (bytes, kept.stamp().version)
            }
            None => (ours.to_bytes()?, 0),
        };
        let next = version.checked_add(1).ok_or_else(|| not_kept("there are no numbers left".into()))?;
        let sealed = Keepsake::seal(&owner, next, &bytes).map_err(|error| not_kept(error.to_string()))?;
        // Here first: what this home sealed under a number it never seals again.
        let (path, text) = (self.home.keepsake_file(), sealed.to_bytes());
        reactor::offload(move || {
            files::write_atomically(&path, &text, 0o600).map_err(|error| Failure::file(&path, error))
        })?;
        Ok(sealed)
    }

    /// Gives it to the nodes that do not have it; `None` if one shows something newer.
    fn give(&self, keepsake: &Keepsake, overlay: &Node, own: Option<&Shelf>) -> Option<Kept> {
        let stamp = keepsake.stamp();
        let nodes = shelf::live_nodes(overlay);
        let lacking: Vec<Contact> =
            nodes.iter().filter(|node| self.is_due(&node.public_key, stamp)).cloned().collect();
        let answers = on_each(overlay, &lacking, |overlay, node| {
            let kept = shelf::give(overlay, node, keepsake)?;
            // What it only says of itself must not keep the others from theirs.
            let newer = if kept > stamp { shelf::ask(overlay, node, stamp)? } else { None };
            Ok::<_, String>((kept, newer.is_some_and(|newer| self.is_newer(&newer, stamp))))
        });
        let mut is_newest = true;
        for (node, answer) in lacking.iter().zip(answers) {
            let is_kept = matches!(answer, Some(Ok((kept, _))) if kept == stamp);
            is_newest &= !matches!(answer, Some(Ok((_, true))));
            if !is_kept {
                tracing::debug!(%node, ?answer, "it does not keep this for the owner");
            }
            let given = Given { stamp, is_kept, again_at: reactor::now() + AGAIN };
            self.given.borrow_mut().insert(node.public_key, given);
        }
        let own_keeps_it = own.is_some_and(|own| match own.take(keepsake.clone()) {
            Ok(kept) => {
                is_newest &= kept <= stamp;
                kept == stamp
            }
            Err(error) => {
                tracing::debug!(%error, "nothing is kept here for the owner");
                false
            }
        });
        let by = nodes.iter().filter(|node| self.keeps(&node.public_key, stamp)).count();
        let kept = Kept { by: by + usize::from(own_keeps_it), of: nodes.len() + usize::from(own.is_some()) };
        is_newest.then_some(kept)
    }

    /// Who keeps what was sealed last, this process's node aside.
    pub(crate) fn keepers(&self) -> Vec<PublicKey> {
        self.given.borrow().iter().filter(|(_, given)| given.is_kept).map(|(key, _)| *key).collect()
    }

    fn is_newer(&self, other: &Keepsake, stamp: Stamp) -> bool {
        other.stamp() > stamp && other.verify(&self.network).is_ok()
    }

    fn keeps(&self, node: &PublicKey, stamp: Stamp) -> bool {
        self.given.borrow().get(node).is_some_and(|given| given.stamp == stamp && given.is_kept)
    }

    fn is_due(&self, node: &PublicKey, stamp: Stamp) -> bool {
        let now = reactor::now();
        let given = self.given.borrow();
        given.get(node).is_none_or(|given| given.stamp != stamp || (!given.is_kept && given.again_at <= now))
    }
}

/// One round for a command that changed something, where the owner's key is at hand.
///
/// # Suspends
/// As [`Keeping::round`].
pub(crate) fn once(settings: &Settings, overlay: &Node) {
    let Some(home) = &settings.home else { return };
    let Ok(user) = settings.user() else { return };
    if !is_possible(home, &settings.network, &user) {
        return;
    }
    let keeping = Keeping::new(home, &settings.network, &user);
    // The second puts together what another copy of this home was faster with.
    if let Err(failure) = keeping.round(overlay, None).or_else(|_| keeping.round(overlay, None)) {
        output::warn(format_args!(
            "the words of `recovery` bring back what was before this: {failure}; `up` or `mount` goes on with it"
        ));
    }
}

/// Whether this is the owner's home, with his key at hand.
pub(crate) fn is_possible(home: &Home, network: &Network, user: &Member) -> bool {
    identity::has_owner(home) && user.identity.public_key() == network.volume_owner()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use overlay::invitation::InvitedAs;
    use overlay::{Bootstrap, Config, Passport, Peers, Rights, Role, Statement};
    use reactor::rpc::Service;

    use super::*;
    use crate::network::Hex;
    use crate::roll::LetIn;
    use crate::shelf::{KeepMethod, KeptMethod};

    fn start(owner: &Identity, role: Role, service: Service, peers: Peers) -> Rc<Node> {
        let identity = Identity::generate();
        let config = Config {
            passport: Passport::issue(owner, identity.public_key(), Rights::NODE, None),
            identity,
            network: owner.public_key(),
            role,
            listen: (role == Role::Storage).then(|| "127.0.0.1:0".parse().unwrap()),
            bootstrap: Vec::new(),
            contacts_file: None,
            revocations_file: None,
            renewals_file: None,
            statement: Statement::default(),
            record_file: None,
            peers,
        };
        Node::start(config, service).unwrap()
    }

    /// A home of this network that let `member` in.
    fn let_in(home: &Home, member: u8) {
        let key = Hex(*Identity::from_seed(&[member; 32]).public_key().as_bytes());
        let member = LetIn {
            key,
            sealing_key: Hex([member; 32]),
            name: "ann".into(),
            role: InvitedAs::Writer,
            since: u64::from(member),
            ticket: Hex([member; 32]),
            number: None,
            may_be_on_drive: true,
            passport: None,
        };
        Roll::change(home, |roll| {
            roll.members.push(member);
            Ok(())
        })
        .unwrap();
    }

    /// Two copies of one owner's home, and a node that says of itself what is not so.
    #[test]
    fn no_copy_of_a_home_takes_back_what_another_said_and_no_node_keeps_others_from_theirs() {
        let directory = tempfile::tempdir().unwrap();
        let homes = ["here", "there"].map(|name| Home::locate(Some(&directory.path().join(name))).unwrap());
        std::fs::create_dir_all(homes[0].path()).unwrap();
        std::fs::create_dir_all(homes[1].path()).unwrap();
        let (mut network, _) = homes[0].open_or_found(Some(1)).unwrap();
        network.volume = VolumeEntry::Created { genesis: Hex(Vec::new()), configuration: None };
        for name in ["owner.key", "user.key"] {
            std::fs::copy(homes[0].path().join(name), homes[1].path().join(name)).unwrap();
        }
        files::save(&homes[1].network_file(), &network).unwrap();
        reactor::run(move || {
            let owner = identity::owner(&homes[0]).unwrap();
            let user = Member::load(&homes[0].user_key_file(), crate::network::Role::User).unwrap();
            let (peers, mut service) = (Peers::new(), Service::new());
            let shelf = Shelf::open(directory.path().join("shelf"), owner.public_key());
            shelf.serve(&mut service, &peers);
            let honest = start(&owner, Role::Storage, service, peers);
            let foreign = Keepsake::seal(&Identity::generate(), u64::MAX, b"x").unwrap();
            let (stamp, mut service) = (foreign.stamp(), Service::new());
            service.on::<KeepMethod>(move |_, (), _| Ok((stamp, Bytes::new())));
            service.on::<KeptMethod>(move |_, _, _| Ok((stamp, foreign.to_bytes().into())));
            let liar = start(&owner, Role::Storage, service, Peers::new());
            let client = start(&owner, Role::Client, Service::new(), Peers::new());
            let ways: Vec<Bootstrap> =
                [&honest, &liar].iter().map(|node| node.listen_address().unwrap().into()).collect();
            client.join(&ways).unwrap();
            while shelf::live_nodes(&client).len() < 2 {
                reactor::sleep(Duration::from_millis(10));
            }
            let [here, there] = [0, 1].map(|at: usize| Keeping::new(&homes[at], &network, &user));
            // Before there is a drive there is nothing.
            assert_eq!(here.round(&client, None).unwrap(), Kept { by: 0, of: 0 });
            homes[0].save_network(&network).unwrap();

            let members = || {
                let kept = shelf.newest().unwrap();
                let belongings = Belongings::from_bytes(&kept.open(&owner).unwrap()).unwrap();
                let keys: Vec<u64> = belongings.roll.members.iter().map(|member| member.since).collect();
                (kept.stamp().version, keys)
            };
            let_in(&homes[0], 1);
            assert_eq!(here.round(&client, None).unwrap(), Kept { by: 1, of: 2 });
            assert_eq!(members(), (1, vec![1]));
            let_in(&homes[1], 2);
            assert_eq!(there.round(&client, None).unwrap(), Kept { by: 1, of: 2 });
            assert_eq!(members(), (2, vec![1, 2]));
            let_in(&homes[0], 3);
            here.round(&client, None).unwrap();
            assert_eq!(members(), (3, vec![1, 2, 3]));
            // What is the same is not sealed again, by either, nor after a restart.
            let again = Keeping::new(&homes[0], &network, &user);
            for keeping in [&here, &there, &again, &here] {
                keeping.round(&client, None).unwrap();
            }
            assert_eq!(members(), (3, vec![1, 2, 3]));
            // Whoever is left takes nothing: that is no success.
            honest.stop();
            let_in(&homes[0], 4);
            assert!(matches!(here.round(&client, None), Err(Failure::Keeping { .. })));
            for node in [client, liar] {
                node.stop();
            }
        });
    }
}
