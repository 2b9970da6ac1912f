//! `group restore`: groups of which there are two registers, or whose register is lost.
//!
//! Two registers there are where a home that had not heard of the first made another, since somebody who may write to the drive had taken
//! away that its root says where they are. The one that the root names is gone on with, and gets what this home knows beside: groups are
//! told by their ids, so that none is taken for another. The other homes say the same, and come to the same register. Which of two states of
//! a group is the newer one no number says, as each register counts its own: nobody is in it by one of them alone, nor if the list of a
//! space that has the group has him off.
//!
//! A register is lost with the nodes that keep it. What this home knows of it goes into a new one then, if its owner says so: what was
//! changed since, this home can't know. But the lists of its spaces are read before, and say of newer states who was in them: nobody is in
//! a group again whom one of them does not have by it. Where one can't be read, nothing is made anew.
//!
//! Not here: finding out which of the two is so (`register`).

use dht::block::mutable::{Genesis, Signed};
use filesystem::access::groups::{Groups, LeftOut, ListedBy, new_salt};
use filesystem::access::list::{AccessChange, AccessList, ListedGroup};
use filesystem::format::{printable, printable_path};

use super::bringing;
use super::register::{Found, agree, entry, failed, read, swap, take_over};
use crate::errors::Failure;
use crate::output::say;
use crate::roll::Roll;
use crate::sharing::Sharer;
use crate::space_lists::{self, Turn, reason_of};

/// Runs it.
pub(super) fn restore(sharer: &Sharer<'_>, anew: bool) -> Result<(), Failure> {
    let turn = Turn::take(sharer.home)?;
    let named = sharer.groups_named()?;
    // A register in which nothing was seen is followed by another as well: it may be lost before anything is in it.
    let (own, mut known) = match (entry(sharer)?, &named) {
        (Some(entry), _) if anew || entry.version > 0 => (entry.genesis()?, entry.known()?),
        (None, Some(named)) if anew => (named.clone(), Groups::default()),
        _ => {
            return Err(Failure::Group {
                reason: "this home knows of no groups".into(),
                advice: "`group list` asks the nodes for them, and `group create NAME` makes one",
            });
        }
    };
    let other = named.clone().filter(|named| named.register() != own.register());
    let groups = match (other, anew) {
        (None, false) => {
            let found = read(sharer, &own)?;
            agree(sharer)?;
            say("the groups are there, and the drive's root says where: nothing is to be restored");
            found.groups
        }
        (Some(other), false) => {
            // What this home remembers of its own is no proof of who is in there still.
            let known = read(sharer, &own)?.groups;
            let found = read(sharer, &other)?;
            put_together(sharer, &other, found, &known, &lists(sharer, &turn)?)?
        }
        (other, true) => {
            // What can be had of either; what is newer in the one that this home knows counts whole.
            if let Ok(found) = read(sharer, &own) {
                known = found.groups;
            }
            let lists = lists(sharer, &turn)?;
            match other.as_ref().map(|other| read(sharer, other)) {
                Some(Ok(found)) => {
                    tell_left_out(known.take_in(&found.groups));
                    tell_left_out(known.narrow_by_all(&lists));
                }
                _ => tell_left_out(known.narrow(&lists)),
            }
            // Whoever goes by the lost one, or has it named again, makes no list any more that has a group of these.
            known.rise_far(&Groups::default());
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
                "the groups are what this home knew of them last, without whom newer lists of its spaces do not have by them; look whether \
                 that is so, with `group list`",
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
    lists: &[ListedBy],
) -> Result<Groups, Failure> {
    // Names are this home's: what had one once, and was deleted here, does not take it from what has it now.
    let mut groups = known.clone();
    let mut left_out = groups.take_in(&found.groups);
    left_out.extend(groups.narrow_by_all(lists));
    let record = swap(sharer, &found, &groups)?.ok_or_else(|| {
        failed("another machine of yours has just changed them, and nothing of this was done")
    })?;
    take_over(sharer, genesis, &record, &groups)?;
    let names: Vec<&str> = groups.all().iter().map(|group| group.name.as_str()).collect();
    say(format_args!("the groups are one again: {}", names.join(", ")));
    tell_left_out(left_out);
    let come = groups.all().iter().filter(|group| known.get(group.id).is_none());
    for group in come {
        say(format_args!(
            "the group {} is of the other register alone: it may be one that was deleted (`group delete {}`)",
            group.name, group.name
        ));
    }
    say(
        "in a group that was in both is who was in it in both, and on each list that has it by it: look who that is, with `group list`",
    );
    Ok(groups)
}

/// Who is not in a group that he was in by one of its states, once each.
fn tell_left_out(mut left_out: Vec<LeftOut>) {
    left_out.sort();
    left_out.dedup();
    for left_out in left_out {
        say(match left_out {
            LeftOut::Member { who, group } => {
                let (who, group) = (printable(&who), printable(&group));
                format!(
                    "{who} is not in {group}, as one of its states, or a list, has it: `group add {group} {who}` puts it in again"
                )
            }
            LeftOut::Group(name) => {
                format!(
                    "the group {} is left out: there is no room for it (`group delete` makes some)",
                    printable(&name)
                )
            }
            LeftOut::Space { path, group } => {
                let (path, group) = (printable_path(&path), printable(&group));
                format!(
                    "that {group} is on the space {path} is not noted, for which there is no room: say `share {path}` after each change"
                )
            }
        });
    }
}

/// Whom the spaces of this home have by which states of groups, as their lists say now. Those of a space that can't be read may have
/// anybody out whom this home has in a group.
fn lists(sharer: &Sharer<'_>, turn: &Turn) -> Result<Vec<ListedBy>, Failure> {
    let roll = Roll::read(sharer.home)?;
    let (mut lists, mut unread) = (Vec::new(), Vec::new());
    for space in &roll.spaces {
        match space_lists::newest(sharer, turn, space) {
            Ok(list) => lists.extend(list.iter().flat_map(of_list)),
            Err(failure) => {
                unread.push(format!("{} ({})", printable_path(&space.path), reason_of(&failure)));
            }
        }
    }
    if unread.is_empty() {
        return Ok(lists);
    }
    Err(Failure::Group {
        reason: format!(
            "whom the lists of these have cannot be read, and somebody may be off them whom this home has in a group; nothing was changed: {}",
            unread.join(", ")
        ),
        advice: "see that the nodes run (`status`), and say it again",
    })
}

/// Whom a list has by each of its groups.
fn of_list(list: &AccessList) -> Vec<ListedBy> {
    let of_group = |group: &ListedGroup| {
        let by = |change: &&AccessChange| change.by.contains(&group.id);
        let people = list.present().filter(by).map(|change| change.key).collect();
        ListedBy { id: group.id, epoch: group.epoch, people }
    };
    list.groups.iter().map(of_group).collect()
}
