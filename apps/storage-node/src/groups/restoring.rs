//! `group restore`: groups of which there are two registers, or whose register is lost.
//!
//! Two registers there are where a home that had not heard of the first made another, since somebody who may write to the drive had taken
//! away that its root says where they are. The one that the root names is gone on with, and gets what this home knows beside: groups are
//! told by their ids, so that none is taken for another. The other homes say the same, and come to the same register.
//!
//! A register is lost with the nodes that keep it. What this home knows of it goes into a new one then, if its owner says so: what was
//! changed since, this home can't know. But what lists say that it knows: nobody is in a group again whom the list of a newer state does
//! not have.
//!
//! Not here: finding out which of the two is so (`register`).

use dht::block::mutable::{Genesis, Signed};
use filesystem::access::groups::{Groups, new_salt};
use reactor::crypto::PublicKey;

use super::bringing;
use super::register::{Found, agree, entry, failed, read, refused, swap, take_over};
use crate::errors::Failure;
use crate::output::say;
use crate::roll::{Roll, SpaceEntry};
use crate::sharing::Sharer;
use crate::space_lists::Turn;

/// Runs it.
pub(super) fn restore(sharer: &Sharer<'_>, anew: bool) -> Result<(), Failure> {
    let turn = Turn::take(sharer.home)?;
    let entry = entry(sharer)?.filter(|entry| entry.version > 0).ok_or_else(|| Failure::Group {
        reason: "this home knows of no groups".into(),
        advice: "`group list` asks the nodes for them, and `group create NAME` makes one",
    })?;
    let (own, mut known) = (entry.genesis()?, entry.known()?);
    let named = sharer.groups_named()?;
    let other = named.clone().filter(|named| named.register() != own.register());
    let groups = match (other, anew) {
        (None, false) => {
            let found = read(sharer, &own)?;
            agree(sharer)?;
            say("the groups are there, and the drive's root says where: nothing is to be restored");
            found.groups
        }
        (Some(other), false) => {
            let found = read(sharer, &other)?;
            put_together(sharer, &other, found, &known)?
        }
        (other, true) => {
            // What can be had of either.
            for genesis in [Some(&own), other.as_ref()].into_iter().flatten() {
                if let Ok(found) = read(sharer, genesis) {
                    known.take_in(&found.groups).map_err(|error| refused(&error))?;
                }
            }
            let roll = Roll::read(sharer.home)?;
            roll.spaces.iter().for_each(|space| narrow(&mut known, space));
            let genesis = sharer.new_register(new_salt(&sharer.network.volume_salt.0))?;
            let found = read(sharer, &genesis)?;
            let record = swap(sharer, &found, &known)?
                .ok_or_else(|| failed("something else came into the new register"))?;
            let instead_of = named.as_ref().map(|named| named.register());
            if sharer.name_groups(&genesis, instead_of)?.register() != genesis.register() {
                return Err(failed("another machine of yours has just said where the groups are"));
            }
            take_over(sharer, &genesis, &record, &known)?;
            say(
                "the groups are what this home knew of them last, and newer lists of its spaces; look whether that is so, with `group list`",
            );
            say("other copies of this home say `group restore` before they change any");
            known
        }
    };
    drop(turn);
    let roll = Roll::read(sharer.home)?;
    // Of other copies' spaces nothing is changed, but which register says who is in which group.
    let is_here = |register: &[u8; 32]| {
        roll.spaces.iter().any(|space| space.genesis().is_ok_and(|genesis| genesis.register().0 == *register))
    };
    let reached = groups.all().iter().flat_map(|group| bringing::reached(&roll, &groups, group.id));
    bringing::bring(sharer, &reached.filter(|(register, _)| is_here(register)).collect())
}

/// Has the register that the drive's root names have what this home knows as well.
fn put_together(
    sharer: &Sharer<'_>,
    genesis: &Signed<Genesis>,
    found: Found,
    known: &Groups,
) -> Result<Groups, Failure> {
    let mut groups = found.groups.clone();
    groups.take_in(known).map_err(|error| refused(&error))?;
    let record = swap(sharer, &found, &groups)?.ok_or_else(|| {
        failed("another machine of yours has just changed them, and nothing of this was done")
    })?;
    take_over(sharer, genesis, &record, &groups)?;
    let names: Vec<&str> = groups.all().iter().map(|group| group.name.as_str()).collect();
    say(format_args!("the groups are one again: {}", names.join(", ")));
    say(
        "of a group that was in both, the state counts that was changed more often: look who is in it, with `group list`",
    );
    Ok(groups)
}

/// Whom a space's list has by a state of a group that is not known here.
fn narrow(groups: &mut Groups, space: &SpaceEntry) {
    for (id, epoch) in &space.listed.groups {
        let on_it = |key: &PublicKey| space.listed.people.iter().any(|on_it| on_it.key.0 == *key.as_bytes());
        groups.narrow(*id, *epoch, on_it);
    }
}
