//! Whether all who keep a register agree that its value is the newest.
//!
//! A quorum that was put back from a copy tells an older value, and tells it as one. Whoever has seen a newer one refuses it
//! ([`Client::expect_at_least`]); whoever has seen none since, as he was away or has been set up anew, has nothing to refuse it by:
//! where one member is away and a second missed the newest values, it takes one that was put back. A value that was chosen is at a
//! quorum, so if fewer than that were put back or lost it, one of the members has it still: then it is enough to ask all of them,
//! and to take no silence for an answer. Who does what can't be undone asks so, each time.
//!
//! What a member shows is believed for its writer's signature, and has to be proved to come before what a quorum tells, by the hashes
//! that this remembers: one that shows what is older than that may be of another line, which the others left when they were put
//! back. One that says nothing, that has yet to be given the register or to learn again what it lost (or has learned it, and
//! its word does not count yet), is no witness.

use std::time::Duration;

use overlay::{NodeId, Overlay};
use reactor::sync::channel;

use crate::block::mutable::SignedRecord;
use crate::block_store::{ReadError, RegisterAddress};
use crate::client::Client;
use crate::keepers::ask_member;
use crate::message::RegisterView;
use crate::register::Operation;

/// How often they are asked again: a value that is on its way is at some of them only, for some round trips.
const TRIES: usize = 10;
/// How often, where some say nothing: they are told of a move meanwhile, or given what they missed, or are away.
const TRIES_OF_SILENT: usize = 3;
/// The pause between two tries: together some seconds, within which a member that misses a value is given it with the next.
const PAUSE: Duration = Duration::from_millis(300);

/// Why it is not known that a register's value is the newest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Disagreement {
    /// It can't be read at all.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Not all say what they have of it.
    #[error("{} of {members} nodes that keep it do not say what they have of it", .silent.len())]
    Silent {
        /// Who does not.
        silent: Vec<NodeId>,
        /// How many keep it.
        members: usize,
    },
    /// A node shows what is not known to come before the value that a quorum tells: it missed many values, or there are two lines.
    #[error(
        "a node that keeps it shows version {shown}, of which version {told} that a quorum of them tells does not know"
    )]
    Older {
        /// Which node.
        node: NodeId,
        /// The version that it shows.
        shown: u64,
        /// The version that a quorum tells.
        told: u64,
    },
    /// A node shows what does not come before the value that a quorum tells.
    #[error("a node that keeps it shows version {shown}, where a quorum of them tells version {told}")]
    Newer {
        /// Which node.
        node: NodeId,
        /// The version that it shows.
        shown: u64,
        /// The version that a quorum tells.
        told: u64,
    },
}

/// Whether what one member shows is the value that was chosen, or came before it; `None`: that is not known.
fn is_followed(shown: &SignedRecord, chosen: &SignedRecord) -> Option<bool> {
    match chosen.hash_of(shown.header.version) {
        Some(of_line) => Some(of_line == shown.hash()),
        // So far back the value does not remember.
        None if shown.header.version < chosen.header.version => None,
        None => Some(false),
    }
}

impl<O: Overlay + 'static> Client<O> {
    /// Asks all who keep a register, and a quorum of them after that, whose value is the newest then.
    ///
    /// # Errors
    /// [`Disagreement`].
    ///
    /// # Suspends
    /// Until all have answered and agree, or for some seconds.
    pub fn all_agree(&self, register: &RegisterAddress) -> Result<(), Disagreement> {
        let mut tries = 1;
        loop {
            match self.compare_all(register) {
                Err(Disagreement::Newer { .. } | Disagreement::Older { .. }) if tries < TRIES => {}
                Err(Disagreement::Silent { .. }) if tries < TRIES_OF_SILENT => {}
                other => return other,
            }
            tries += 1;
            reactor::sleep(PAUSE);
        }
    }

    fn compare_all(&self, register: &RegisterAddress) -> Result<(), Disagreement> {
        let membership = self.membership(register)?;
        let shown = self.shown_by_all(register, membership.members());
        let state = self.state(register)?;
        // One of them may know of a move of which a quorum that was put back knows nothing.
        for configuration in
            shown.iter().filter_map(|(_, view)| view.as_ref()?.membership.configuration.as_ref())
        {
            if let Err(invalid) = state.lock().follow(configuration) {
                tracing::warn!(%register, "a node names members that the owner did not: {invalid}");
            }
        }
        // After they have answered: what was chosen by then is no newer than this.
        let chosen = Operation::new(self.links(), self.identity(), &mut state.lock()).read_signed()?;
        let newest = self.membership(register)?;
        let (told, mut silent) = (chosen.as_ref().map_or(0, |chosen| chosen.header.version), Vec::new());
        let mut has_learned = false;
        for (id, view) in shown {
            has_learned |= view.as_ref().is_some_and(|view| view.learned.is_some());
            let view = view.filter(|view| view.learned.is_none());
            // Who has yet to hear of a move is asked again, and so are those who keep it since.
            let view = view.filter(|view| view.membership.epoch() == newest.epoch());
            let record = view.and_then(|view| view.accepted).map(|accepted| accepted.record);
            let record = record.filter(|record| record.verify(&newest.genesis, None).is_ok());
            let Some(record) = record else {
                silent.push(id);
                continue;
            };
            let (node, shown) = (id, record.header.version);
            match chosen.as_ref().map_or(Some(false), |chosen| is_followed(&record, chosen)) {
                Some(true) => {}
                Some(false) => return Err(Disagreement::Newer { node, shown, told }),
                None => return Err(Disagreement::Older { node, shown, told }),
            }
        }
        let members = newest.members().len();
        if silent.is_empty() {
            return Ok(());
        }
        // Where nobody writes it would stay so: once it has accepted the value, it is a witness when it is asked again.
        if has_learned {
            Operation::new(self.links(), self.identity(), &mut state.lock()).write_back()?;
        }
        Err(Disagreement::Silent { silent, members })
    }

    /// What each of `members` shows of a register; `None`: nothing.
    fn shown_by_all(
        &self,
        register: &RegisterAddress,
        members: &[NodeId],
    ) -> Vec<(NodeId, Option<RegisterView>)> {
        let (sender, answers) = channel(members.len().max(1));
        for (index, id) in members.iter().copied().enumerate() {
            let (links, register, sender) = (self.links().clone(), *register, sender.clone());
            drop(reactor::spawn(move || {
                let view = ask_member(&links, &register, &id).1.ok().flatten();
                drop(sender.try_send((index, view)));
            }));
        }
        drop(sender);
        let mut shown: Vec<_> = members.iter().map(|id| (*id, None)).collect();
        while let Ok((index, view)) = answers.recv() {
            shown[index].1 = view;
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use bytes::Bytes;
    use overlay::NodeId;
    use reactor::crypto::Identity;
    use reactor::rpc::Service;
    use reactor::sim::{self, SimConfig};

    use super::*;
    use crate::BlockStore;
    use crate::store::{Key, Kind};
    use crate::testing::{FakeNetwork, FakeNode, FakeOverlay, Mood, repair_of};

    struct World {
        network: Rc<FakeNetwork>,
        owner: Rc<Identity>,
        client: Client<FakeOverlay>,
        register: RegisterAddress,
        members: Vec<NodeId>,
    }

    impl World {
        /// Four nodes, and a register on three of them that has the value 1.
        fn new() -> World {
            let network = FakeNetwork::new(4, 3, 1);
            let owner = Rc::new(Identity::from_seed(&[1; 32]));
            let client = network.client(&owner);
            let genesis = client.create_register([1; 32], vec![]).unwrap();
            let register = genesis.register();
            client.compare_and_swap(&register, None, Bytes::from_static(b"1")).unwrap();
            // A quorum has it; the third has it a moment later.
            reactor::sleep(Duration::from_secs(1));
            World { network, owner, client, register, members: genesis.members.clone() }
        }

        fn node(&self, id: &NodeId) -> &FakeNode {
            self.network.nodes.iter().find(|fake| fake.contact.id == *id).unwrap()
        }

        fn write(&self, value: &'static str) {
            self.write_by(&self.client, value);
        }

        fn write_by(&self, client: &Client<FakeOverlay>, value: &'static str) {
            let newest = client.read(&self.register).unwrap().unwrap();
            let payload = Bytes::from_static(value.as_bytes());
            client.compare_and_swap(&self.register, Some(newest.header_hash), payload).unwrap();
        }

        /// Has a node be what it is in another world.
        fn put_back(&self, id: &NodeId, yesterday: &World) {
            let index = self.network.nodes.iter().position(|fake| fake.contact.id == *id).unwrap();
            let mut service = Service::new();
            yesterday.node(id).node().serve(&mut service);
            self.network.replace_service(index, service);
        }

        /// A client of a machine that has seen nothing.
        fn newcomer(&self) -> Client<FakeOverlay> {
            let genesis = self.client.membership(&self.register).unwrap().genesis;
            self.network.client(&self.owner).opened(&genesis)
        }
    }

    #[test]
    fn a_quorum_that_was_put_back_is_not_believed_by_who_asks_all() {
        sim::run(1, SimConfig::default(), |_| {
            let world = World::new();
            let [a, b, c] = world.members[..] else { panic!("three members") };
            assert_eq!(world.newcomer().all_agree(&world.register), Ok(()));
            // What two of them are put back to: they miss what comes, as if it had never been.
            let yesterday = World::new();
            assert_eq!(yesterday.register, world.register);
            world.write("2");
            world.write("3");
            assert_eq!(world.newcomer().all_agree(&world.register), Ok(()));
            [a, b].iter().for_each(|id| world.put_back(id, &yesterday));
            world.node(&c).mood.set(Mood::Dead);
            let newcomer = world.newcomer();
            assert_eq!(newcomer.read(&world.register).unwrap().unwrap().payload, "1", "a quorum says so");
            let silent = Disagreement::Silent { silent: vec![c], members: 3 };
            assert_eq!(newcomer.all_agree(&world.register), Err(silent));
            world.node(&c).mood.set(Mood::Well);
            // Whoever reads hears the two first.
            world.node(&c).delay.set(Duration::from_millis(200));
            let newer = Disagreement::Newer { node: c, shown: 3, told: 1 };
            assert_eq!(newcomer.all_agree(&world.register), Err(newer));
            // If he hears it with one of the others first, he has the third given what it has.
            world.node(&c).delay.set(Duration::ZERO);
            world.node(&a).delay.set(Duration::from_millis(200));
            assert_eq!(newcomer.all_agree(&world.register), Ok(()));
            assert_eq!(newcomer.read(&world.register).unwrap().unwrap().payload, "3");
        });
    }

    #[test]
    fn one_that_was_put_back_is_not_believed_by_who_has_seen_something_long_ago() {
        sim::run(1, SimConfig::default(), |_| {
            let world = World::new();
            let [a, b, c] = world.members[..] else { panic!("three members") };
            let (seen, hash) = world.client.seen(&world.register).unwrap();
            // While he is away, and one of them, the others go on; then one of those is put back to midway, and the other is off.
            let yesterday = World::new();
            for world in [&yesterday, &world] {
                world.node(&a).mood.set(Mood::Dead);
                (0..20).for_each(|_| world.write("midway"));
            }
            (0..20).for_each(|_| world.write("newest"));
            // What was on its way to the one that is away has come to nothing.
            reactor::sleep(Duration::from_secs(60));
            world.put_back(&b, &yesterday);
            world.node(&a).mood.set(Mood::Well);
            world.node(&c).mood.set(Mood::Dead);
            let owner = world.newcomer();
            owner.expect_at_least(&world.register, seen, hash).unwrap();
            assert_eq!(owner.read(&world.register).unwrap().unwrap().payload, "midway", "a quorum says so");
            let silent = Disagreement::Silent { silent: vec![c], members: 3 };
            assert_eq!(owner.all_agree(&world.register), Err(silent));
        });
    }

    #[test]
    fn a_line_that_was_left_for_another_is_not_taken_for_what_came_before_it() {
        sim::run(1, SimConfig::default(), |_| {
            let world = World::new();
            let [a, b, c] = world.members[..] else { panic!("three members") };
            let yesterday = World::new();
            (0..5).for_each(|_| world.write("of the first line"));
            reactor::sleep(Duration::from_secs(1));
            [a, b].iter().for_each(|id| world.put_back(id, &yesterday));
            world.node(&c).mood.set(Mood::Dead);
            let newcomer = world.newcomer();
            for count in [2, 20] {
                world.node(&c).mood.set(Mood::Dead);
                (0..count).for_each(|_| world.write_by(&newcomer, "of the second"));
                world.node(&c).mood.set(Mood::Well);
                let disagreement = newcomer.all_agree(&world.register).unwrap_err();
                let is_of = |node: NodeId, shown| node == c && shown == 6;
                match (count, disagreement) {
                    (2, Disagreement::Newer { node, shown, told: 3 }) => assert!(is_of(node, shown)),
                    (20, Disagreement::Older { node, shown, told: 23 }) => assert!(is_of(node, shown)),
                    other => panic!("{other:?}"),
                }
            }
        });
    }

    #[test]
    fn who_kept_it_before_a_move_and_was_put_back_is_not_believed_either() {
        sim::run(1, SimConfig::default(), |_| {
            let world = World::new();
            let [a, b, c] = world.members[..] else { panic!("three members") };
            let yesterday = World::new();
            world.client.replace_members(&world.register, &[a]).unwrap();
            world.write("2");
            [a, b].iter().for_each(|id| world.put_back(id, &yesterday));
            let newcomer = world.newcomer();
            // Of its new members one has yet to hear that it is one.
            let silent = Disagreement::Silent { silent: vec![b], members: 3 };
            assert_eq!(newcomer.all_agree(&world.register), Err(silent));
            assert_eq!(newcomer.membership(&world.register).unwrap().epoch(), 1);
            world.node(&c).mood.set(Mood::Dead);
            assert!(world.newcomer().all_agree(&world.register).is_err());
        });
    }

    #[test]
    fn a_member_that_does_not_answer_or_lost_what_it_knew_is_no_witness() {
        sim::run(1, SimConfig::default(), |_| {
            let world = World::new();
            let silent = |id: NodeId| Err(Disagreement::Silent { silent: vec![id], members: 3 });
            let [a, b, _] = world.members[..] else { panic!("three members") };
            world.node(&a).mood.set(Mood::Dead);
            assert_eq!(world.newcomer().all_agree(&world.register), silent(a));
            world.node(&a).mood.set(Mood::Well);
            assert_eq!(world.newcomer().all_agree(&world.register), Ok(()));
            // Of what it has yet to learn again it says nothing.
            let index = world.network.nodes.iter().position(|fake| fake.contact.id == b).unwrap();
            world.node(&b).store.remove(&Key::new(Kind::REGISTER, world.register.0)).unwrap();
            world.network.restart(index);
            world.node(&b).node().set_amnesiac();
            assert_eq!(world.newcomer().all_agree(&world.register), silent(b));
            let membership = world.client.membership(&world.register).unwrap();
            assert!(repair_of(&world.network, index).relearn(&membership));
            assert_eq!(world.newcomer().all_agree(&world.register), Ok(()));
        });
    }

    #[test]
    fn one_that_learned_it_again_from_too_few_is_a_witness_once_somebody_has_asked() {
        sim::run(1, SimConfig::default(), |_| {
            let world = World::new();
            let [_, b, c] = world.members[..] else { panic!("three members") };
            let index = |id| world.network.nodes.iter().position(|fake| fake.contact.id == id).unwrap();
            let shown = |id: &NodeId| {
                let node = world.node(id).node();
                let view = node.read_register(&world.register).unwrap().unwrap();
                (view.learned.is_some(), view.accepted.unwrap().record.payload)
            };
            world.node(&c).mood.set(Mood::Dead);
            world.write("2");
            // What was on its way to it has come to nothing.
            reactor::sleep(Duration::from_secs(60));
            world.node(&c).mood.set(Mood::Well);
            // One of the two that have it loses its store, and has it from the other alone; then the third is given it.
            world.node(&b).store.remove(&Key::new(Kind::REGISTER, world.register.0)).unwrap();
            world.network.restart(index(b));
            world.node(&b).node().set_amnesiac();
            let membership = world.client.membership(&world.register).unwrap();
            assert!(repair_of(&world.network, index(b)).relearn(&membership));
            repair_of(&world.network, index(c)).round();
            assert_eq!((shown(&b), shown(&c)), ((true, "2".into()), (false, "2".into())));
            // Nobody writes, and gc asks.
            assert_eq!(world.newcomer().all_agree(&world.register), Ok(()));
            assert_eq!(shown(&b), (false, "2".into()));
        });
    }

    #[test]
    fn one_that_missed_what_is_newer_agrees_and_so_do_those_that_took_its_place() {
        sim::run(1, SimConfig::default(), |_| {
            let world = World::new();
            world.node(&world.members[0]).mood.set(Mood::Dead);
            world.write("2");
            world.node(&world.members[0]).mood.set(Mood::Well);
            assert_eq!(world.newcomer().all_agree(&world.register), Ok(()));
            world.client.replace_members(&world.register, &world.members[..1]).unwrap();
            // By those of before it is told who keeps it since.
            assert_eq!(world.newcomer().all_agree(&world.register), Ok(()));
        });
    }
}
