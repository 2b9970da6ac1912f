//! `node drain` and `node remove`: doing without a storage node.
//!
//! The root is moved to another node, if this one keeps it; then each block is copied until as many of the others have it
//! as there are to be copies, and they are asked whether they do; and those who keep the root learn what it was before. Only then is the node turned out, so that all of the
//! network refuse it and nothing counts on it any more; and then the blocks are gone over once more, since some may have been
//! put on it meanwhile. Each step can be done again, and who was cut short says it again.
//!
//! A node that is gone is done without in the same way: what it had, the others have, or nobody has.
//!
//! Not here: how copies are made (`dht::spread`), and how others learn who is refused (`remove`).

use dht::keepers::Presence;
use dht::spread::{Spread, SpreadError};
use overlay::NodeId;

use crate::client::{Client, Settings};
use crate::errors::Failure;
use crate::home::Home;
use crate::identity;
use crate::keepers::{By, Moved, internal, move_root, with_roots};
use crate::members::Subject;
use crate::nodes::Nodes;
use crate::output::{self, say};
use crate::past::staying::Stays;
use crate::process;
use crate::progress;
use crate::remove;
use crate::roll::Roll;
use crate::volume::{self, Root};

/// Runs `node drain`.
///
/// # Errors
/// `Failure::NoSuchNode`, `Failure::NotMoved`, `Failure::Needed`, or what keeps the root from being read.
pub(crate) fn drain(settings: &Settings, name: &str) -> Result<(), Failure> {
    let nodes = nodes_by_now(settings)?;
    let node = named(settings, &nodes, name)?;
    let (spread, stays) = empty(settings, &nodes, &node, true)?;
    let name = nodes.names(&[node]);
    if !spread.was_asked {
        let reason = "it does not answer, and what only it has cannot be copied; start it, or, if it is gone for good, \
                      `node remove` it";
        return Err(Failure::Needed { who: name, reason: reason.into() });
    }
    say(format_args!(
        "{name} is drained: as many others as there are copies have each of {} ({} were copied)",
        blocks(&spread),
        spread.copied
    ));
    stays.summary().into_iter().for_each(say);
    say("what is written from now on goes to it as well, until `node remove` turns it out");
    Ok(())
}

/// Runs `node remove`.
///
/// # Errors
/// As [`drain`], `Failure::NotTheOwner`, or `Failure::Removing`.
pub(crate) fn remove(settings: &Settings, name: &str, now: bool) -> Result<(), Failure> {
    let Some(home) = &settings.home else {
        let reason = "only the home that made the network removes nodes: say it with its --home".into();
        return Err(Failure::Needed { who: name.into(), reason });
    };
    let nodes = nodes_by_now(settings)?;
    let id = named(settings, &nodes, name)?;
    let unknown = || Failure::NoSuchNode { name: name.into() };
    let listed = nodes.get(&id).ok_or_else(unknown)?;
    let joined = Roll::read(home)?.members.into_iter().find(|member| member.public_key() == listed.key);
    let subject = joined.map_or_else(|| Subject::FirstNode(listed.clone()), Subject::Member);
    turn_out(settings, home, &subject, now)
}

/// Turns a node out, once it can be done without; or `now`, if enough of those that keep the root answer without it.
///
/// # Errors
/// As [`remove()`].
pub(crate) fn turn_out(
    settings: &Settings,
    home: &Home,
    subject: &Subject,
    now: bool,
) -> Result<(), Failure> {
    identity::owner(home)?;
    let nodes = nodes_by_now(settings)?;
    let Some(id) = subject.keys().first().map(NodeId::of) else { return Ok(()) };
    refuse_if_a_drive_runs_on_it(home, &nodes, &id)?;
    if now {
        let is_keeper = refuse_to_lose_the_root(settings, &nodes, &id)?;
        remove::turn_out(home, settings, subject)?;
        if is_keeper {
            say("it keeps the drive's root: `node replace` has another one keep that in its place");
        }
        say("the others copy what it had, as far as any of them has it");
        return Ok(());
    }
    // Who was removed before, and is cut short and said again, answers nobody any more.
    let was_removed = nodes.get(&id).is_some_and(|node| node.is_removed);
    let (spread, stays) = empty(settings, &nodes, &id, true)?;
    if !spread.was_asked && !was_removed {
        output::warn(format_args!(
            "{subject} does not answer: what it alone had, if anything, is lost with it"
        ));
    }
    remove::turn_out(home, settings, subject)?;
    // What was put on it meanwhile is on others, too; as soon as it is on enough of them, nothing is missing. Nor does it keep the
    // root: before it was refused, a drive that is up may have had it do so in the place of another one.
    let (spread, _) = empty(settings, &nodes, &id, false).map_err(|failure| {
        let reason = format!("{subject} is refused from now on; what was put on it meanwhile may have too few copies yet: {failure}");
        Failure::Removing { reason }
    })?;
    say(format_args!("as many others as there are copies have each of {}", blocks(&spread)));
    stays.summary().into_iter().for_each(say);
    say("it counts no more, and may be switched off, disk and all");
    Ok(())
}

/// What there are copies of, in words.
fn blocks(spread: &Spread) -> String {
    match spread.kept {
        0 => format!("{} blocks", spread.blocks),
        kept => format!("{} blocks, and of {kept} that were deleted and are kept yet", spread.blocks),
    }
}

/// The network's nodes, without those of whom only the nodes know that they were removed: another copy of this home may have done
/// that. One that was removed says nothing to anybody, and is not waited for.
fn nodes_by_now(settings: &Settings) -> Result<Nodes, Failure> {
    let mut nodes = Nodes::of(settings)?;
    let lists = process::run(|| {
        let client = Client::connect(settings)?;
        let contacts: Vec<_> = client.overlay().contacts().into_iter().map(|(contact, _)| contact).collect();
        let lists = remove::lists_of(&client, &contacts, &settings.network);
        client.leave();
        Ok::<_, Failure>(lists)
    })?;
    lists.iter().for_each(|list| nodes.strike_off(list));
    Ok(nodes)
}

/// The drive of `up` is the client of the node in the same process: all the others would refuse it, too.
fn refuse_if_a_drive_runs_on_it(home: &Home, nodes: &Nodes, id: &NodeId) -> Result<(), Failure> {
    let Some(number) = nodes.get(id).and_then(|node| node.number) else { return Ok(()) };
    match (home.lock(), home.node(number).lock()) {
        (Err(Failure::Locked { holder: up, .. }), Err(Failure::Locked { holder: node, .. }))
            if up == node =>
        {
            let reason = "it runs in the process of `up`, with the drive: stop that, `run` the other nodes, and say it again";
            Err(Failure::Needed { who: nodes.names(&[*id]), reason: reason.into() })
        }
        _ => Ok(()),
    }
}

/// Who keeps the root may be known by its id only.
fn named(settings: &Settings, nodes: &Nodes, name: &str) -> Result<NodeId, Failure> {
    let keepers = volume::keepers(&settings.network, settings.seen_directory().as_deref())?;
    nodes.named(keepers.members(), name)
}

/// Has others get all that a node has, of the drive and of its spaces; and what these were, if that is to be waited for.
fn empty(
    settings: &Settings,
    nodes: &Nodes,
    id: &NodeId,
    waits_for_past: bool,
) -> Result<(Spread, Stays), Failure> {
    // A member's home has no spaces in its roll, though the drive may have some.
    let is_owner = settings.user()?.identity.public_key() == settings.network.volume_owner();
    if settings.home.is_none() || !is_owner {
        let reason =
            "only the home that made the network knows of all that the node may have: say it with its --home";
        return Err(Failure::Needed { who: nodes.names(&[*id]), reason: reason.into() });
    }
    with_roots(settings, |roots| {
        let (mut sum, mut stays): (Option<Spread>, _) = (None, Stays::default());
        for root in roots {
            let keepers = root.store.membership(&root.register).map_err(internal)?;
            if keepers.index_of(id).is_some()
                && let Moved::To { keepers: names, .. } = move_root(root, nodes, id, By::Any { last: &[] })?
            {
                say(format_args!("{names} keep {} now", root.what));
            }
            let spread = spread(&root.store, nodes, id)?;
            if waits_for_past {
                stays.wait(root, nodes, id);
            }
            sum = Some(match sum {
                None => spread,
                Some(sum) => Spread {
                    blocks: sum.blocks + spread.blocks,
                    kept: sum.kept + spread.kept,
                    copied: sum.copied + spread.copied,
                    was_asked: sum.was_asked && spread.was_asked,
                },
            });
        }
        let sum = sum.ok_or_else(|| Failure::Internal("there is no root".into()))?;
        Ok((sum, stays))
    })
}

fn spread(
    store: &dht::Client<std::rc::Rc<overlay::Node>>,
    nodes: &Nodes,
    id: &NodeId,
) -> Result<Spread, Failure> {
    let staying: Vec<NodeId> = nodes.present().map(|node| node.id()).filter(|other| other != id).collect();
    let spinner = progress::spinner("looking for blocks");
    let telling =
        progress::tell_if_long("each block is looked for on the other nodes, and copied where they lack it");
    let spread = store.spread_without(id, &staying, |spread| {
        spinner.set_message(format!("{} blocks looked at, {} copied", spread.blocks, spread.copied));
    });
    spinner.finish_and_clear();
    drop(telling);
    spread.map_err(|error| {
        let reason = match error {
            SpreadError::Silent(other) => {
                let other = nodes.names(&[other]);
                format!("{other} does not answer, and what it holds is not known; if it is gone for good, too, that one goes first, with --now")
            }
            other => other.to_string(),
        };
        Failure::Needed { who: nodes.names(&[*id]), reason }
    })
}

/// Whether the node keeps the root; an error if too few would be left of those who keep it and answer, since nobody could read
/// or move it then. They are asked: what this machine saw last is no evidence of who keeps it now, nor of who is still there.
fn refuse_to_lose_the_root(settings: &Settings, nodes: &Nodes, id: &NodeId) -> Result<bool, Failure> {
    if volume::keepers(&settings.network, settings.seen_directory().as_deref())?.needed() == 0 {
        return Ok(false); // There is no root yet.
    }
    let asked = with_roots(settings, |roots| {
        let ask = |root: &Root| {
            let keepers = root.store.membership(&root.register).map_err(internal)?;
            let presence = root.store.presence(&root.register).map_err(internal)?;
            Ok((root.what.clone(), keepers.members().to_vec(), keepers.quorum().needed, presence))
        };
        roots.iter().map(ask).collect::<Result<Vec<_>, Failure>>()
    });
    let needs = |reason| Failure::Needed { who: nodes.names(&[*id]), reason };
    let asked = asked.map_err(|failure| {
        needs(format!("whether the drive's root can be read without it is not known: {failure}"))
    })?;
    let mut is_keeper = false;
    for (what, keepers, needed, presence) in asked {
        if !keepers.contains(id) {
            continue;
        }
        is_keeper = true;
        let is_removed = |keeper: &NodeId| nodes.get(keeper).is_some_and(|node| node.is_removed);
        let stays = |(keeper, presence): &&(NodeId, Presence)| {
            keeper != id && *presence == Presence::Keeps && !is_removed(keeper)
        };
        let left = presence.iter().filter(stays).count();
        if left < needed {
            return Err(needs(format!(
                "of {}, which keep {what}, {needed} must be there, and {left} that answer would be left: `node replace` first",
                nodes.names(&keepers)
            )));
        }
        if left == needed {
            output::warn(format_args!("no further one of those that keep {what} may be missing then"));
        }
    }
    Ok(is_keeper)
}
