//! Who keeps a register, and putting others in the place of those that are gone.
//!
//! The register's owner decides that: a node that only restarts, or is cut off for a while, costs nothing, since two of three
//! members suffice; one that is gone for good is replaced, so that the next one that dies does not make it one too many.
//!
//! The next members are those of the present ones that stay, and nodes near the register's place, where a client that was
//! away for long looks for them: the first in the order of that place, in other zones than those that stay if there are such.
//!
//! Not here: how a register is moved ([`crate::register`]).

use std::time::Duration;

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};
use reactor::rpc::CallError;
use reactor::sync::channel;

use crate::block::configuration::Membership;
use crate::block::mutable::Genesis;
use crate::block_store::{BlockStore, ReadError, RegisterAddress};
use crate::client::Client;
use crate::links::Links;
use crate::message::{CanKeep, ReadRegister, Refusal, RegisterView};
use crate::placement::{self, Candidate, WIDTH};
use crate::register::{MoveError, Operation};

/// A member that takes longer than this to say that it is there is asked again at the next look.
const PRESENCE_TIMEOUT: Duration = Duration::from_secs(4);

/// What a member of a register is good for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// It has the register.
    Keeps,
    /// It is there, and has yet to be given the register, or to learn again what it lost.
    Lacks,
    /// It is there, and its store has failed: it votes no more before it is started again, on a disk that works.
    Broken,
    /// It does not answer.
    Away,
}

/// Asks a node what it has of a register, wherever it is; returns with it how it was reached, unless it is our own.
pub(crate) fn ask_member<O: Overlay>(
    links: &Links<O>,
    register: &RegisterAddress,
    id: &NodeId,
) -> (Option<Contact>, Result<Option<RegisterView>, CallError<Refusal>>) {
    if let Some(node) = links.local(id) {
        return (None, node.read_register(register).map_err(CallError::Remote));
    }
    let found = || links.closest(id.0, 1).into_iter().find(|contact| contact.id == *id);
    let Some(contact) = found().or_else(|| links.last_known(id)) else {
        return (None, Err(CallError::NotSent));
    };
    let asked = links.overlay.call::<ReadRegister>(&contact, register, Bytes::new(), PRESENCE_TIMEOUT);
    (Some(contact), asked.map(|(view, _)| view))
}

impl<O: Overlay + 'static> Client<O> {
    /// The members of a register, and what each is good for now.
    ///
    /// # Errors
    /// [`ReadError::NotOpen`].
    ///
    /// # Suspends
    /// Until all have answered, at most for some seconds.
    pub fn presence(&self, register: &RegisterAddress) -> Result<Vec<(NodeId, Presence)>, ReadError> {
        let membership = self.membership(register)?;
        let epoch = membership.epoch();
        let (sender, answers) = channel(membership.members().len());
        for (index, id) in membership.members().iter().copied().enumerate() {
            let (links, register, sender) = (self.links().clone(), *register, sender.clone());
            drop(reactor::spawn(move || {
                let (contact, view) = ask_member(&links, &register, &id);
                // What it has it may show although it can take nothing more.
                let can_keep = || match (links.local(&id), &contact) {
                    (Some(node), _) => node.can_keep(&register).map_err(CallError::Remote),
                    (None, Some(contact)) => links
                        .overlay
                        .call::<CanKeep>(contact, &register, Bytes::new(), PRESENCE_TIMEOUT)
                        .map(drop),
                    (None, None) => Err(CallError::NotSent),
                };
                let presence = match view {
                    Err(CallError::Remote(Refusal::Store(_))) => Presence::Broken,
                    // One that knows of later members is one that we were to follow.
                    Ok(Some(view)) if view.membership.epoch() >= epoch => match can_keep() {
                        Err(CallError::Remote(Refusal::Store(_))) => Presence::Broken,
                        _ => Presence::Keeps,
                    },
                    // One that has too much to do is there.
                    Ok(_) | Err(CallError::Remote(_) | CallError::Overloaded) => Presence::Lacks,
                    Err(_) => Presence::Away,
                };
                drop(sender.try_send((index, presence)));
            }));
        }
        drop(sender);
        let mut presence: Vec<_> = membership.members().iter().map(|id| (*id, Presence::Away)).collect();
        while let Ok((index, answer)) = answers.recv() {
            presence[index].1 = answer;
        }
        Ok(presence)
    }

    /// Moves a register to `members`, from where `from` says that it is. Returns who keeps it then: others, if somebody has
    /// moved it since `from` was true.
    ///
    /// # Errors
    /// [`MoveError`].
    ///
    /// # Suspends
    /// Until a quorum of the next members has the register's value, or up to
    /// [`OPERATION_TIMEOUT`](crate::register::OPERATION_TIMEOUT).
    pub fn move_register(&self, from: &Membership, members: &[NodeId]) -> Result<Membership, MoveError> {
        let state = self.state(&from.register())?;
        let mut state = state.lock();
        Operation::new(self.links(), self.identity(), &mut state).move_to(from, members)
    }

    /// Puts other nodes in the place of those members of a register that are among `gone`. Returns who keeps it then. Whoever is
    /// terminated meanwhile ends once a move that has begun has ended.
    ///
    /// # Errors
    /// [`MoveError`].
    ///
    /// # Suspends
    /// As [`Client::move_register`].
    pub fn replace_members(
        &self,
        register: &RegisterAddress,
        gone: &[NodeId],
    ) -> Result<Membership, MoveError> {
        self.replace_members_rather(register, gone, &[])
    }

    /// The same, by nodes that are among `last` only where no others can.
    ///
    /// # Errors
    /// [`MoveError`].
    ///
    /// # Suspends
    /// As [`Client::move_register`].
    pub fn replace_members_rather(
        &self,
        register: &RegisterAddress,
        gone: &[NodeId],
        last: &[NodeId],
    ) -> Result<Membership, MoveError> {
        let mut unfit = gone.to_vec();
        let mut reason = "there is no other node that could take its place".to_owned();
        loop {
            let from = self.membership(register)?;
            if !from.members().iter().any(|member| gone.contains(member)) {
                // Perhaps by hearsay: it is so once a quorum of them has the value.
                self.read(register)?;
                let now = self.membership(register)?;
                if now == from {
                    return Ok(now);
                }
                continue;
            }
            let next = self.next_members(&from, gone, last, &unfit, &reason)?;
            // What was sealed and not installed waits for the owner's next operation: a move that has begun is let end.
            match reactor::uninterruptible(|| self.move_register(&from, &next)) {
                // What the overlay took to be there is not, or is of no use: the next nearest then.
                Err(error @ (MoveError::Away(id) | MoveError::Unfit { node: id, .. }))
                    if unfit.len() < gone.len() + WIDTH && !unfit.contains(&id) =>
                {
                    reason = error.to_string();
                    unfit.push(id);
                }
                Err(error) => return Err(error),
                // By us, or by somebody else, who may have had another reason.
                Ok(_) => {}
            }
        }
    }

    /// Puts `by` in the place of `gone`, and nobody else, if that is a member of the register. Returns who keeps it then. Whoever is
    /// terminated meanwhile ends once a move that has begun has ended.
    ///
    /// # Errors
    /// [`MoveError`].
    ///
    /// # Suspends
    /// As [`Client::move_register`].
    pub fn replace_member_by(
        &self,
        register: &RegisterAddress,
        gone: &NodeId,
        by: NodeId,
    ) -> Result<Membership, MoveError> {
        loop {
            let from = self.membership(register)?;
            if from.index_of(gone).is_none() {
                self.read(register)?;
                let now = self.membership(register)?;
                if now == from {
                    return Ok(now);
                }
                continue;
            }
            let next: Vec<NodeId> =
                from.members().iter().map(|member| if member == gone { by } else { *member }).collect();
            reactor::uninterruptible(|| self.move_register(&from, &next))?;
        }
    }

    /// The present members that are not `gone`, and the nearest nodes that are not `unfit`, those that are not `last` before the
    /// others; `reason` says why the last of the unfit is.
    fn next_members(
        &self,
        from: &Membership,
        gone: &[NodeId],
        last: &[NodeId],
        unfit: &[NodeId],
        reason: &str,
    ) -> Result<Vec<NodeId>, MoveError> {
        let needed = from.members().len();
        let place = Genesis::place(&from.genesis.owner, &from.genesis.salt);
        let mut near = self.links().closest(place.0, WIDTH + 1);
        let is_everybody = placement::is_everybody(near.len());
        let mut next: Vec<NodeId> =
            from.members().iter().copied().filter(|member| !gone.contains(member)).collect();
        let kept: Vec<Candidate> = next.iter().map(|id| self.candidate(id, &near)).collect();
        near.retain(|contact| !next.contains(&contact.id) && !unfit.contains(&contact.id));
        if is_everybody {
            near = placement::order_beside(&NodeId(place.0), &kept, &near);
        }
        near.sort_by_key(|contact| last.contains(&contact.id));
        for contact in &near {
            if next.len() < needed {
                next.push(contact.id);
            }
        }
        if next.len() < needed {
            return Err(MoveError::NotEnoughNodes { known: next.len(), needed, reason: reason.into() });
        }
        Ok(next)
    }

    /// What is known of a node that may be `near`, or was met elsewhere.
    fn candidate(&self, id: &NodeId, near: &[Contact]) -> Candidate {
        let known = near.iter().find(|contact| contact.id == *id).cloned();
        let known = known.or_else(|| self.links().last_known(id));
        known.map_or_else(|| Candidate::unknown(*id), |contact| Candidate::from(&contact))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use reactor::crypto::Identity;

    use super::*;
    use crate::repair::Repair;
    use crate::testing::{FakeNetwork, FakeNode, FakeOverlay, Mood};

    /// Four nodes, a register on three of them, and the spare.
    struct World {
        network: Rc<FakeNetwork>,
        client: Client<FakeOverlay>,
        register: RegisterAddress,
        members: Vec<NodeId>,
        spare: usize,
    }

    impl World {
        fn new() -> World {
            let network = FakeNetwork::new(4, 3, 1);
            let client = network.client(&Rc::new(Identity::from_seed(&[1; 32])));
            let genesis = client.create_register([1; 32], vec![]).unwrap();
            let register = genesis.register();
            client.compare_and_swap(&register, None, Bytes::from_static(b"1")).unwrap();
            let is_spare = |fake: &FakeNode| genesis.index_of(&fake.contact.id).is_none();
            let spare = network.nodes.iter().position(is_spare).unwrap();
            World { network, client, register, members: genesis.members.clone(), spare }
        }

        fn spare(&self) -> &FakeNode {
            &self.network.nodes[self.spare]
        }

        fn node(&self, id: &NodeId) -> &FakeNode {
            self.network.nodes.iter().find(|fake| fake.contact.id == *id).unwrap()
        }

        fn replace(&self, gone: &NodeId) -> Result<Membership, MoveError> {
            self.client.replace_members(&self.register, &[*gone])
        }
    }

    /// It used to be told that there were too few nodes, and there was no way but to start another one.
    #[test]
    fn a_spare_that_lost_its_store_once_takes_part_when_it_has_learned_the_register() {
        reactor::run(|| {
            let world = World::new();
            let [a, b, c] = world.members[..] else { panic!("three members") };
            world.spare().node().set_amnesiac();
            world.node(&a).mood.set(Mood::Dead);
            let spare = world.spare().contact.id;
            let membership = world.replace(&a).unwrap();
            assert!(membership.index_of(&spare).is_some());
            // Nothing of this register was ever its to forget, and it is not believed that: it asks the others.
            let node = world.spare().node();
            assert_eq!(node.read_register(&world.register).unwrap_err(), Refusal::Amnesiac);
            assert!(
                Repair::new(world.network.overlay_at(world.spare), node, Default::default())
                    .relearn(&membership)
            );
            let presence = world.client.presence(&world.register).unwrap();
            assert!(presence.iter().all(|(_, presence)| *presence == Presence::Keeps), "{presence:?}");
            // And then one death more is survived.
            world.node(&b).mood.set(Mood::Dead);
            assert_eq!(world.client.read(&world.register).unwrap().unwrap().payload, "1");
            assert!(world.replace(&c).is_err(), "nobody is left");
        });
    }

    /// Nobody but the owner could go on: a drive that ended in the middle of it left the others without the register.
    #[test]
    fn a_move_that_has_begun_is_let_end() {
        reactor::run(|| {
            let world = World::new();
            // Cut off while the seal is on its way to the second of them, it would be chosen, and nobody would install.
            world.members[1..].iter().for_each(|id| world.node(id).delay.set(Duration::from_millis(100)));
            let (client, register, gone) = (world.client.clone(), world.register, world.members[0]);
            let genesis = client.membership(&register).unwrap().genesis;
            let mover = reactor::spawn(move || drop(client.replace_members(&register, &[gone])));
            let is_sealed = |id: &NodeId| {
                let node = world.node(id).node();
                let accepted = node.read_register(&register).unwrap().and_then(|view| view.accepted);
                accepted.is_some_and(|accepted| accepted.seal.is_some())
            };
            while !world.members.iter().any(is_sealed) {
                reactor::sleep(Duration::from_millis(1));
            }
            mover.terminate();
            let _ = mover.join();
            let stranger = world.network.client(&Rc::new(Identity::from_seed(&[9; 32]))).opened(&genesis);
            assert_eq!(stranger.read(&register).unwrap().unwrap().payload, "1");
            assert_eq!(stranger.membership(&register).unwrap().epoch(), 1);
        });
    }

    #[test]
    fn a_register_is_not_sealed_towards_who_cannot_keep_it_and_the_reason_is_told() {
        reactor::run(|| {
            let world = World::new();
            let [a, b, _] = world.members[..] else { panic!("three members") };
            let spare = world.spare().contact.id;
            let refused_for = |words: &str| {
                let error = world.replace(&a).unwrap_err();
                assert!(matches!(error, MoveError::NotEnoughNodes { known: 2, needed: 3, .. }), "{error}");
                assert!(error.to_string().contains(words), "{error}");
                // As before: sealed, it would wait for a node that is of no use.
                assert_eq!(world.client.membership(&world.register).unwrap().epoch(), 0);
                assert_eq!(world.client.read(&world.register).unwrap().unwrap().payload, "1");
            };
            world.spare().memory.fail_after(Some(0));
            refused_for("full");
            world.spare().memory.fail_after(None);
            world.spare().mood.set(Mood::Dead);
            refused_for("does not answer");
            world.spare().mood.set(Mood::Well);
            // It would need both of the others, and one of them is away: the other two would be stuck with it.
            world.spare().node().set_amnesiac();
            world.node(&b).mood.set(Mood::Dead);
            refused_for("lost its store");
            world.node(&b).mood.set(Mood::Well);
            assert!(world.replace(&a).unwrap().index_of(&spare).is_some());
        });
    }
}
