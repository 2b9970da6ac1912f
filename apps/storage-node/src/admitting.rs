//! Letting in whom the owner invited, and off the drive whom he removed, for as long as a drive of the owner's home is up.
//!
//! Strangers leave their letters with the nodes. Once a second this process asks the nodes whether there are any, if a
//! ticket is about at all; enters who may come in the roll; lets readers and writers onto the drive; and only then hands the
//! owner's signed reply to the nodes that had the letter. Each step is on disk before the next, and can be done twice: a
//! crash in between is made good by the stranger, who asks again.
//!
//! It also renews the members' passports, long before they end, and gives the new ones to the nodes, which keep them for
//! their holders; and it has the nodes keep what the words of recovery bring back (`keeping`).
//!
//! Not here: what a letter is worth (`roll`).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dht::Client;
use overlay::invitation::{Declined, InvitedAs, Letter, NOTES_BYTES_MAX, Reply, Verdict};
use overlay::letterbox::LETTERS_MAX;
use overlay::message::{Letters, Replied};
use overlay::{Contact, Node, Overlay, Passport, Revocations};
use reactor::JoinHandle;
use reactor::cell::RefCell;
use serde::{Deserialize, Serialize};

use crate::errors::Failure;
use crate::home::Home;
use crate::identity::{self, Member};
use crate::keeping::Keeping;
use crate::network::{Network, RelayEntry};
use crate::output::say;
use crate::remove;
use crate::roll::{LetIn, Roll};
use crate::sharing::Sharer;
use crate::shelf::Shelf;
use crate::space_lists::Settling;

/// How often the nodes are asked while a ticket is about.
const INTERVAL: Duration = Duration::from_secs(1);
/// A node that takes longer is asked again a second later.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// How many rounds pass before the nodes are asked once more which list of the revoked they have: up to 42 KiB from each.
const ROUNDS_PER_LOOK: u64 = 60;

/// Replies that are remembered: a few nodes' letter boxes. Each takes some KiB.
const REPLIES_MAX: usize = 4 * LETTERS_MAX;

/// What a newcomer is told beside its passport.
#[derive(Serialize, Deserialize)]
pub(crate) struct Notes {
    pub(crate) network: Network,
    /// Its number, if it is a node.
    pub(crate) number: Option<u16>,
    /// What it is called: another may have had the name that it gave itself.
    pub(crate) name: String,
}

/// Goes on until it is dropped.
pub(crate) struct Admitting {
    coroutine: JoinHandle<()>,
}

struct Host {
    home: Home,
    network: Network,
    overlay: Rc<Node>,
    store: Client<Rc<Node>>,
    user: Member,
    keeping: Keeping,
    shelf: Option<Rc<Shelf>>,
    /// Whether a failure was told already: it comes back every second.
    has_told: Cell<bool>,
    /// The members' passports that the nodes were given last.
    given: RefCell<Vec<Passport>>,
    /// What was replied in this run, by letter: a node may offer one again and again.
    replied: RefCell<BTreeMap<[u8; 32], Reply>>,
    /// The list of the revoked that those replies are by.
    replied_by: Cell<u64>,
    rounds: Cell<u64>,
    settling: Settling,
}

impl Admitting {
    /// Begins, if the owner's key is at hand. `shelf` is that of the node in this process.
    ///
    /// # Errors
    /// Those of the user's key file.
    pub(crate) fn start(
        home: &Home,
        network: &Network,
        overlay: &Rc<Node>,
        store: &Client<Rc<Node>>,
        shelf: Option<Rc<Shelf>>,
    ) -> Result<Option<Admitting>, Failure> {
        if !identity::has_owner(home) {
            return Ok(None);
        }
        let user = Member::load(&home.user_key_file(), crate::network::Role::User)?;
        let host = Host {
            keeping: Keeping::new(home, network, &user),
            shelf,
            home: home.clone(),
            network: network.clone(),
            overlay: overlay.clone(),
            store: store.clone(),
            user,
            has_told: Cell::new(false),
            given: RefCell::default(),
            replied: RefCell::default(),
            replied_by: Cell::new(0),
            rounds: Cell::new(0),
            settling: Settling::default(),
        };
        let coroutine = reactor::spawn(move || host.run());
        Ok(Some(Admitting { coroutine }))
    }
}

impl Drop for Admitting {
    fn drop(&mut self) {
        self.coroutine.terminate();
    }
}

impl Host {
    fn run(&self) {
        loop {
            reactor::sleep(INTERVAL);
            match self.round() {
                Ok(()) => self.has_told.set(false),
                Err(failure) => {
                    if !self.has_told.replace(true) {
                        say(format_args!("who was invited or removed has to wait: {failure}; trying on"));
                    }
                }
            }
        }
    }

    fn round(&self) -> Result<(), Failure> {
        let (home, network) = (self.home.clone(), self.network.clone());
        let (roll, kept) =
            reactor::offload(move || Ok::<_, Failure>((Roll::read(&home)?, home.revocations(&network)?)))?;
        // What one step fails for keeps none of the others back, least of all the passports: without these there may be no quorum
        // for the rest.
        let mut handed_on = Ok(());
        // What `remove` could tell no node; and the nodes that run in this home had lists of their own.
        match self.list_to_hand_on(kept.clone()) {
            Ok(None) => {}
            Ok(Some(list)) => {
                // In force from here on, though it may fail to be kept.
                let taken = self.overlay.revoke(list);
                handed_on = taken.map(drop).map_err(|error| Failure::Removing { reason: error.to_string() });
            }
            Err(failure) => handed_on = Err(failure),
        }
        let revoked = self.overlay.peers().revocations();
        let kept = self.keep(&kept, &revoked);
        let renewed = self.renew(&revoked);
        let put_out = self.put_out(&roll, &revoked);
        let settled = self.settling.go_on(&self.sharer());
        let answered = self.answer_letters(&roll, &revoked);
        self.keeping.go_on(&self.overlay, self.shelf.as_deref());
        handed_on.and(kept).and(renewed).and(put_out).and(settled).and(answered)
    }

    /// The list of the revoked that the nodes are to have: what this home kept, or, where that and theirs are such that neither
    /// is taken for the newer one with nobody lost, one that follows all of them. A home that was put back from a copy may have
    /// signed one of a number that they are beyond, and two copies one each.
    fn list_to_hand_on(&self, kept: Revocations) -> Result<Option<Revocations>, Failure> {
        let own = self.overlay.peers().revocations();
        let mut lists = vec![own.clone()];
        if self.rounds.replace(self.rounds.get() + 1).is_multiple_of(ROUNDS_PER_LOOK) {
            let live = self.overlay.contacts().into_iter().filter(|(_, is_live)| *is_live);
            let nodes: Vec<Contact> = live.map(|(contact, _)| contact).collect();
            lists.extend(remove::lists_from(&self.overlay, &nodes, &self.network.owner_key()));
        }
        lists.push(kept);
        let newest = lists.iter().max_by_key(|list| list.version()).cloned().unwrap_or_default();
        if lists.iter().all(|list| remove::is_below(list, &newest)) {
            return Ok(if own == newest { None } else { Some(newest) });
        }
        let (home, network) = (self.home.clone(), self.network.clone());
        reactor::offload(move || remove::sign(&home, &network, &[], &lists)).map(Some)
    }

    /// Has the list that is in force here lie here, too, if another copy of this home removed somebody: who may do what goes by it.
    fn keep(&self, kept: &Revocations, list: &Revocations) -> Result<(), Failure> {
        if kept == list {
            return Ok(());
        }
        // They are off the spaces next.
        self.settling.at_once();
        let (home, network, list) = (self.home.clone(), self.network.clone(), list.clone());
        reactor::offload(move || remove::keep(&home, &network, &list))
    }

    /// Takes off the drive whom `remove` could not.
    fn put_out(&self, roll: &Roll, revoked: &Revocations) -> Result<(), Failure> {
        let left = roll.left_on_drive(revoked);
        if left.is_empty() {
            return Ok(());
        }
        remove::put_out(&self.sharer(), revoked, &left)?;
        // They are off the spaces next.
        self.settling.at_once();
        Ok(())
    }

    fn answer_letters(&self, roll: &Roll, revoked: &Revocations) -> Result<(), Failure> {
        if !roll.expects_somebody(now()) {
            return Ok(());
        }
        if self.replied_by.replace(revoked.version()) != revoked.version()
            || self.replied.borrow().len() >= REPLIES_MAX
        {
            self.replied.borrow_mut().clear();
        }
        let mut result = Ok(());
        for (letter, from) in self.letters(roll) {
            let known = self.replied.borrow().get(&letter.digest()).cloned();
            let new = || {
                let reply = self.answer(&letter)?;
                // First, as far as nodes take it: whoever was let in is not to be lost with this home.
                self.keeping.go_on(&self.overlay, self.shelf.as_deref());
                Ok(reply)
            };
            match known.map_or_else(new, Ok) {
                Ok(reply) => {
                    self.deliver(&reply, &from);
                    self.replied.borrow_mut().insert(letter.digest(), reply);
                }
                Err(failure) => result = Err(failure),
            }
        }
        result
    }

    fn sharer(&self) -> Sharer<'_> {
        Sharer { home: &self.home, network: &self.network, store: &self.store, user: &self.user }
    }

    /// Signs the passports that are due, and gives the nodes what is new to them.
    fn renew(&self, revoked: &Revocations) -> Result<(), Failure> {
        let (home, network, now) = (self.home.clone(), self.network.clone(), reactor::wall_clock());
        let roll = reactor::offload(move || Roll::renewed(&home, &network, now))?;
        let passports = roll.passports(revoked);
        if *self.given.borrow() != passports {
            let taken = self.overlay.renew(passports.clone());
            taken.map_err(|error| Failure::Renewing { reason: error.to_string() })?;
            self.given.replace(passports);
            // Those that were replied with may be older.
            self.replied.borrow_mut().clear();
        }
        Ok(())
    }

    /// The letters that wait, each with the nodes that have it.
    fn letters(&self, roll: &Roll) -> Vec<(Letter, Vec<Contact>)> {
        let mut letters: Vec<(Letter, Vec<Contact>)> =
            self.overlay.letters().into_iter().map(|letter| (letter, Vec::new())).collect();
        let live = self.overlay.contacts().into_iter().filter(|(_, is_live)| *is_live);
        let nodes: Vec<Contact> = live.map(|(contact, _)| contact).collect();
        let answers: Vec<Vec<Letter>> = reactor::scope(|scope| {
            let asked: Vec<_> = nodes
                .iter()
                .map(|node| {
                    scope.spawn(|| {
                        let answer = self.overlay.call::<Letters>(node, &(), Bytes::new(), ANSWER_LIMIT);
                        answer.map_or_else(|_| Vec::new(), |(letters, _)| letters)
                    })
                })
                .collect();
            asked.into_iter().map(|asking| asking.join().unwrap_or_default()).collect()
        });
        for (node, answer) in nodes.into_iter().zip(answers) {
            // A node may say anything, and as much of it as it likes.
            for letter in answer.into_iter().take(LETTERS_MAX) {
                if !roll.knows(&letter.invitation.ticket)
                    || letter.verify(&self.network.owner_key(), reactor::wall_clock()).is_err()
                {
                    continue;
                }
                match letters.iter_mut().find(|(known, _)| *known == letter) {
                    Some((_, from)) => from.push(node.clone()),
                    None => letters.push((letter, vec![node.clone()])),
                }
            }
        }
        letters
    }

    fn answer(&self, letter: &Letter) -> Result<Reply, Failure> {
        let (home, network) = (self.home.clone(), self.network.clone());
        let (asked, now) = (letter.clone(), now());
        let (owner, decided) = reactor::offload(move || {
            let owner = identity::owner(&home)?;
            let decided = Roll::change(&home, |roll| {
                // `remove` writes it under the same lock: who was removed a moment ago is not let in by what we knew then.
                let revoked = home.revocations(&network)?;
                let member = match roll.admit(&asked, &network, &revoked, now) {
                    Ok(member) => member,
                    Err(why) => return Ok(Err(why)),
                };
                if member.role != InvitedAs::Node {
                    // Before it is put there: whatever becomes of the swap, a removal takes it off.
                    roll.on_drive(&member.key, true);
                }
                roll.renew_passports(&owner, &revoked, reactor::wall_clock());
                let entered = roll.members.iter().find(|entry| entry.key == member.key);
                let passport = entered.and_then(LetIn::passport);
                let missing = || Failure::Internal("a member has no passport".into());
                Ok(Ok((member, passport.ok_or_else(missing)?)))
            })?;
            Ok::<_, Failure>((owner, decided))
        })?;
        let (member, passport) = match decided {
            Ok(decided) => decided,
            Err(why) => return Ok(Reply::sign(&owner, letter, Verdict::Declined(why))),
        };
        if member.role != InvitedAs::Node {
            self.sharer().let_in(&member)?;
            // It may have been removed meanwhile, and taken off just before it was put on.
            let (home, network, key) = (self.home.clone(), self.network.clone(), member.key.clone());
            let revoked = reactor::offload(move || {
                Roll::change(&home, |roll| {
                    roll.on_drive(&key, true);
                    home.revocations(&network)
                })
            })?;
            if revoked.contains(&member.public_key()) {
                return Ok(Reply::sign(&owner, letter, Verdict::Declined(Declined::Revoked)));
            }
        }
        // As it is now: it says who keeps the root since that was moved.
        let home = self.home.clone();
        let mut network = reactor::offload(move || home.network())?;
        let relays = RelayEntry::told_by(&self.overlay);
        if !relays.is_empty() {
            network.relays = relays;
        }
        let notes = Notes { network, number: member.number, name: member.name.clone() };
        let notes = serde_json::to_vec(&notes).map_err(|error| Failure::Internal(error.to_string()))?;
        if notes.len() > NOTES_BYTES_MAX {
            return Err(Failure::Internal("the network's description is too long for a reply".into()));
        }
        say(format_args!("{} joins as a {}", member.name, member.role));
        Ok(Reply::sign(&owner, letter, Verdict::Welcome { passport, notes: notes.into() }))
    }

    /// A reply that does not arrive is asked for again by the letter, which its node still has.
    fn deliver(&self, reply: &Reply, to: &[Contact]) {
        self.overlay.reply(reply);
        for node in to {
            if let Err(error) = self.overlay.call::<Replied>(node, reply, Bytes::new(), ANSWER_LIMIT) {
                tracing::debug!(%node, %error, "a reply was not delivered");
            }
        }
    }
}

/// The time in seconds since 1970.
pub(crate) fn now() -> u64 {
    seconds(reactor::wall_clock())
}

/// Seconds since 1970.
pub(crate) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use overlay::{Config, Peers, Role};
    use reactor::crypto::Identity;
    use reactor::rpc::Service;

    use super::*;
    use crate::client;
    use crate::network::Hex;

    fn member(number: u8) -> LetIn {
        LetIn {
            key: Hex(*Identity::from_seed(&[number; 32]).public_key().as_bytes()),
            sealing_key: Hex([number; 32]),
            name: "somebody".into(),
            role: InvitedAs::Reader,
            since: 0,
            ticket: Hex([number; 32]),
            number: None,
            may_be_on_drive: true,
            passport: None,
        }
    }

    /// What lets in and turns out in a home's process, connected to the node at `way`, if there is one.
    fn host(home: Home, network: Network, way: Option<SocketAddr>) -> Host {
        let user = Member::load(&home.user_key_file(), crate::network::Role::User).unwrap();
        let config = Config {
            identity: (*user.identity).clone(),
            network: network.owner_key(),
            passport: user.passport.clone(),
            role: Role::Client,
            listen: None,
            bootstrap: Vec::new(),
            contacts_file: None,
            revocations_file: None,
            renewals_file: None,
            statement: Default::default(),
            record_file: None,
            peers: Peers::new(),
        };
        let overlay = Node::start(config, Service::new()).unwrap();
        if let Some(way) = way {
            overlay.join(&[way.into()]).unwrap();
        }
        Host {
            keeping: Keeping::new(&home, &network, &user),
            shelf: None,
            store: client::block_store(overlay.clone(), None, &network, &user),
            home,
            network,
            overlay,
            user,
            has_told: Cell::new(false),
            given: RefCell::default(),
            replied: RefCell::default(),
            replied_by: Cell::new(0),
            rounds: Cell::new(0),
            settling: Settling::default(),
        }
    }

    #[test]
    fn passports_are_renewed_although_somebody_cannot_be_taken_off_the_drive() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(directory.path())).unwrap();
        // Nobody has founded the drive, so nobody is taken off it.
        let (network, _) = home.open_or_found(Some(1)).unwrap();
        let (stays, goes) = (member(7), member(8));
        let (owner, key) = (identity::owner(&home).unwrap(), goes.public_key());
        let list = Revocations::default().with(&owner, [key], SystemTime::now()).unwrap();
        list.save(&home.revocations_file()).unwrap();
        let members = vec![stays.clone(), goes];
        Roll::change(&home, |roll| {
            roll.members = members;
            Ok(())
        })
        .unwrap();
        reactor::run(move || {
            let host = host(home, network, None);
            assert!(host.round().is_err(), "somebody is on the drive who was removed");
            let given: Vec<_> = host.given.borrow().iter().map(Passport::holder).collect();
            assert_eq!(given, [stays.public_key()]);
            host.overlay.stop();
        });
    }

    /// A home that was put back from a copy, or two copies of it at once, had lists that no node took for newer than its own.
    #[test]
    fn lists_of_the_revoked_that_do_not_follow_each_other_become_one_that_follows_all() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(directory.path())).unwrap();
        let (network, _) = home.open_or_found(Some(1)).unwrap();
        let owner = identity::owner(&home).unwrap();
        let key = |number: u8| member(number).public_key();
        let list = |keys: &[u8]| {
            let mut list = Revocations::default();
            for number in keys {
                list = list.with(&owner, [key(*number)], SystemTime::now()).unwrap();
            }
            list
        };
        // Here one was removed while no node answered; two others had been, by another copy.
        list(&[7]).save(&home.revocations_file()).unwrap();
        let (theirs, others) = (list(&[8, 9]), list(&[8, 10]));
        let node_key = Identity::from_seed(&[30; 32]);
        let passport = Passport::issue(&owner, node_key.public_key(), InvitedAs::Node.rights(), None);
        reactor::run(move || {
            let node = Node::start(
                Config {
                    identity: node_key,
                    network: network.owner_key(),
                    passport,
                    role: Role::Storage,
                    listen: Some("127.0.0.1:0".parse().unwrap()),
                    bootstrap: Vec::new(),
                    contacts_file: None,
                    revocations_file: None,
                    renewals_file: None,
                    statement: Default::default(),
                    record_file: None,
                    peers: Peers::new(),
                },
                Service::new(),
            )
            .unwrap();
            let host = host(home.clone(), network.clone(), node.listen_address());
            host.overlay.revoke(theirs).unwrap();
            node.revoke(others).unwrap();
            let _ = host.round();
            for number in 7..=10 {
                assert!(host.overlay.peers().is_revoked(&key(number)), "{number} at ours");
            }
            let kept = home.revocations(&network).unwrap();
            assert_eq!((kept.version(), kept.revoked().len()), (3, 4));
            // A newer one goes from node to node by itself.
            while node.peers().revocations() != kept {
                reactor::sleep(Duration::from_millis(5));
            }
            let _ = host.round();
            assert_eq!(home.revocations(&network).unwrap(), kept, "nothing is left to be done");
            // Another copy removes somebody, and the nodes have said so: what is decided here goes by it from now on.
            let later = kept.with(&owner, [key(11)], SystemTime::now()).unwrap();
            host.overlay.revoke(later.clone()).unwrap();
            let _ = host.round();
            assert_eq!(home.revocations(&network).unwrap(), later);
            host.overlay.stop();
            node.stop();
        });
    }
}
