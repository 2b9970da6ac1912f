//! Who keeps a register, and putting others in the place of those that are gone.
//!
//! The register's owner decides that, at a terminal or with a program that runs for long ([`Client::keep_members`]): a node
//! that only restarts, or is cut off for a while, costs nothing, since two of three members suffice; one that is gone for
//! longer than a grace is replaced, so that the next one that dies does not make it one too many.
//!
//! The next members are those of the present ones that stay, and the nodes nearest to the register's place: there a client
//! that was away for long looks for them.
//!
//! Not here: how a register is moved ([`crate::register`]).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overlay::{NodeId, Overlay};
use reactor::sync::channel;

use crate::block::configuration::Membership;
use crate::block::mutable::Genesis;
use crate::block_store::{BlockStore, ReadError, RegisterAddress};
use crate::client::Client;
use crate::links::Failure;
use crate::message::ReadRegister;
use crate::register::{MoveError, Operation};

/// How far nodes are looked for that could keep a register.
const CANDIDATES: usize = 16;

/// A member that takes longer than this to say that it is there is asked again at the next look.
const PRESENCE_TIMEOUT: Duration = Duration::from_secs(4);

/// How a register's members are kept whole.
#[derive(Clone, Copy, Debug)]
pub struct KeepMembers {
    /// For how long a member has to be away before another takes its place.
    pub grace: Duration,
    /// How often they are looked at.
    pub interval: Duration,
}

impl Default for KeepMembers {
    fn default() -> KeepMembers {
        // Restarts and cut cables take minutes; two members dying within a quarter of an hour is another matter than
        // within years.
        KeepMembers { grace: Duration::from_secs(15 * 60), interval: Duration::from_secs(30) }
    }
}

/// What a member of a register is good for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// It has the register.
    Keeps,
    /// It is there, and has yet to be given the register, or to learn again what it lost.
    Lacks,
    /// It does not answer.
    Away,
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
                let contact = || {
                    let found = || links.closest(id.0, 1).into_iter().find(|contact| contact.id == id);
                    found().or_else(|| links.last_known(&id))
                };
                let view = match links.local(&id) {
                    Some(node) => node.read_register(&register).map_err(Failure::Refused),
                    None => match contact() {
                        Some(contact) => links
                            .call::<ReadRegister>(&contact, &register, Bytes::new(), PRESENCE_TIMEOUT)
                            .map(|(view, _)| view),
                        None => Err(Failure::Unreachable("nobody knows where it is".into())),
                    },
                };
                let presence = match view {
                    // One that knows of later members is one that we were to follow.
                    Ok(Some(view)) if view.membership.epoch() >= epoch => Presence::Keeps,
                    Ok(_) | Err(Failure::Refused(_) | Failure::Lied(_)) => Presence::Lacks,
                    Err(Failure::Unreachable(_)) => Presence::Away,
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

    /// Puts other nodes in the place of those members of a register that are among `gone`. Returns who keeps it then.
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
        let mut unfit = gone.to_vec();
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
            let next = self.next_members(&from, gone, &unfit)?;
            match self.move_register(&from, &next) {
                // What the overlay took to be there is not: the next nearest then.
                Err(MoveError::Away(id)) if unfit.len() < gone.len() + CANDIDATES => unfit.push(id),
                Err(error) => return Err(error),
                // By us, or by somebody else, who may have had another reason.
                Ok(_) => {}
            }
        }
    }

    /// The present members that are not `gone`, and the nearest nodes that are not `unfit`.
    fn next_members(
        &self,
        from: &Membership,
        gone: &[NodeId],
        unfit: &[NodeId],
    ) -> Result<Vec<NodeId>, MoveError> {
        let needed = from.members().len();
        let place = Genesis::place(&from.genesis.owner, &from.genesis.salt);
        let near = self.links().closest(place.0, CANDIDATES);
        let stay = from.members().iter().copied().filter(|member| !gone.contains(member));
        let mut next: Vec<NodeId> = stay.collect();
        for id in near.iter().map(|contact| contact.id).filter(|id| !unfit.contains(id)) {
            if next.len() < needed && !next.contains(&id) {
                next.push(id);
            }
        }
        if next.len() < needed {
            return Err(MoveError::NotEnoughNodes { known: next.len(), needed });
        }
        Ok(next)
    }

    /// Looks after a register's members for as long as this runs: one that is away for longer than the grace is replaced.
    ///
    /// For its owner only. It never moves a register because of the state of this machine's own lines: without a quorum of
    /// the members nothing can be moved.
    ///
    /// # Suspends
    /// For ever.
    pub fn keep_members(&self, register: &RegisterAddress, keep: KeepMembers) {
        let mut away = Away::default();
        let mut told = None;
        loop {
            reactor::sleep(keep.interval);
            let Ok(presence) = self.presence(register) else { return };
            let gone = away.on_seen(&presence, reactor::now(), keep.grace);
            if gone.is_empty() {
                continue;
            }
            match self.replace_members(register, &gone) {
                Ok(membership) => {
                    let (gone, epoch) = (gone.len(), membership.epoch());
                    tracing::warn!(%register, gone, epoch, "others keep the register in the place of nodes that are gone");
                }
                // As long as there is no other node, that is so at every look.
                Err(error) if told.as_ref() == Some(&error) => {}
                Err(error) => {
                    tracing::warn!(%register, "a node that keeps the register is gone and can't be replaced: {error}");
                    told = Some(error);
                }
            }
        }
    }
}

/// Since when members have been away, or without the register, which they would have by then if they could. Pure.
#[derive(Default)]
struct Away {
    since: HashMap<NodeId, Instant>,
}

impl Away {
    /// Takes it who is there at `now`; returns who has been away for `grace`.
    fn on_seen(&mut self, presence: &[(NodeId, Presence)], now: Instant, grace: Duration) -> Vec<NodeId> {
        let is_away =
            |id: &NodeId| presence.iter().any(|(seen, presence)| seen == id && *presence != Presence::Keeps);
        self.since.retain(|id, _| is_away(id));
        for (id, _) in presence.iter().filter(|(_, presence)| *presence != Presence::Keeps) {
            self.since.entry(*id).or_insert(now);
        }
        let is_gone = |since: &Instant| now.saturating_duration_since(*since) >= grace;
        self.since.iter().filter(|(_, since)| is_gone(since)).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_gone_once_it_was_away_for_the_whole_grace_without_a_break() {
        let (one, two, grace) = (NodeId([1; 32]), NodeId([2; 32]), Duration::from_secs(60));
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut away = Away::default();
        assert!(away.on_seen(&[(one, Presence::Away), (two, Presence::Keeps)], start, grace).is_empty());
        assert!(away.on_seen(&[(one, Presence::Keeps), (two, Presence::Away)], after(59), grace).is_empty());
        assert!(away.on_seen(&[(one, Presence::Away), (two, Presence::Away)], after(60), grace).is_empty());
        assert_eq!(away.on_seen(&[(one, Presence::Away), (two, Presence::Away)], after(119), grace), [two]);
        // Who is no member any more is nobody to wait for.
        assert_eq!(away.on_seen(&[(one, Presence::Lacks)], after(120), grace), [one]);
    }
}
