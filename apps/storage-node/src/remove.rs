//! `remove`: somebody is a member no more.
//!
//! Three steps, the most urgent first, and each can be done again: the owner signs a new list of the revoked and has it on
//! disk here; the nodes take it, and refuse who is on it from that moment, on open connections too; and the drive's root
//! gets a new key, which is sealed to those who stay. A node that does not answer learns it from the others when it is
//! back. What could not be done is said, and `up` goes on with it.
//!
//! Not here: how a list spreads (`overlay::revocation`).

use bytes::Bytes;
use filesystem::format::Shown;
use overlay::message::{Revoke, Revoked};
use overlay::{Contact, Node, Overlay, Revocations};
use reactor::crypto::PublicKey;

use std::time::Duration;

use crate::admitting::now;
use crate::cli::Remove;
use crate::client::{Client, Settings};
use crate::errors::Failure;
use crate::groups;
use crate::home::Home;
use crate::identity::{self, Member};
use crate::keeping;
use crate::leaving;
use crate::members::{Subject, age, resolve};
use crate::network::{Network, Role};
use crate::nodes::Nodes;
use crate::output::{self, say};
use crate::process;
use crate::roll::{LetIn, Roll, SpaceEntry};
use crate::sharing::{Intruder, Sharer, TakenOff};
use crate::space_lists::{self, Unsettled};

/// A node has to write the list down before it answers.
const KEEP_LIMIT: Duration = Duration::from_secs(10);

/// How often a list is made of all that there are, where another copy of this home removes somebody at the same time.
const TRIES_MAX: usize = 3;

/// Runs the command.
///
/// # Errors
/// `Failure::NotTheOwner`, `Failure::NoMember`, `Failure::Needed`, or `Failure::Removing` with what is not done yet.
pub(crate) fn remove(options: &Remove) -> Result<(), Failure> {
    let home = Home::locate(options.home.home.as_deref())?;
    let network = home.network()?;
    identity::owner(&home)?;
    let subject = resolve(&options.who, &Roll::read(&home)?, &home, &network)?;
    let settings = Settings::of_home(&home, network.clone());
    let known = home.revocations(&network)?;
    if let Some(off) = known.revoked().iter().find(|off| subject.keys().first() == Some(&off.key)) {
        let ago = age(now(), off.since);
        say(format_args!("{subject} was removed {ago} ago already; what that left undone is gone on with"));
    }
    if subject.is_node() {
        return leaving::turn_out(&settings, &home, &subject, options.now);
    }
    if options.now {
        let reason = "--now is for storage nodes, whose blocks are lost then; people and tickets are removed at once anyway";
        return Err(Failure::NotForPeople { who: subject.to_string(), reason });
    }
    turn_out(&home, &settings, &subject)
}

/// Has the nodes refuse somebody, and takes him off the drive if he is on it.
///
/// # Errors
/// `Failure::Removing` with what is not done yet, or those of the home's files.
pub(crate) fn turn_out(home: &Home, settings: &Settings, subject: &Subject) -> Result<(), Failure> {
    process::run(|| perform(home, &settings.network, settings, subject))
}

fn perform(home: &Home, network: &Network, settings: &Settings, subject: &Subject) -> Result<(), Failure> {
    // Without a node the list is made all the same: whoever comes up in this home hands it over.
    let client = Client::connect(settings);
    let keys = subject.keys();
    let nodes: Vec<Contact> = client.as_ref().map_or_else(
        |_| Vec::new(),
        |client| client.overlay().contacts().into_iter().map(|(contact, _)| contact).collect(),
    );
    let nodes: Vec<Contact> = nodes.into_iter().filter(|node| !keys.contains(&node.public_key)).collect();
    let client = match client {
        Ok(client) => client,
        Err(failure) => {
            sign(home, network, &keys, &[])?;
            let reason =
                format!("{subject} is on the list of the revoked, and no node knows it yet: {failure}");
            return Err(Failure::Removing { reason });
        }
    };
    let result = sign_and_spread(home, network, &client, &nodes, subject)
        .and_then(|list| put_off_the_drive(home, network, &client, &list, subject));
    keeping::once(settings, client.overlay());
    client.leave();
    result
}

/// The lists that the nodes have: this home may be an older copy, or there may be two of it.
pub(crate) fn lists_of(client: &Client, nodes: &[Contact], network: &Network) -> Vec<Revocations> {
    lists_from(client.overlay(), nodes, &network.owner_key())
}

/// As [`lists_of`], of the network with this owner.
pub(crate) fn lists_from(overlay: &Node, nodes: &[Contact], network: &PublicKey) -> Vec<Revocations> {
    let lists = on_each(overlay, nodes, |overlay, node| {
        let (list, _) = overlay.call::<Revoked>(node, &(), Bytes::new(), KEEP_LIMIT).ok()?;
        list.verify(network).ok().map(|()| list)
    });
    lists.into_iter().flatten().flatten().collect()
}

/// Signs the list that follows all of them, and has it on disk here before anybody hears of it.
pub(crate) fn sign(
    home: &Home,
    network: &Network,
    keys: &[PublicKey],
    theirs: &[Revocations],
) -> Result<Revocations, Failure> {
    Roll::change(home, |_| {
        let kept = home.revocations(network)?;
        if keys.iter().all(|key| kept.contains(key)) && theirs.iter().all(|list| is_below(list, &kept)) {
            return Ok(kept);
        }
        let owner = identity::owner(home)?;
        let lists = theirs.iter().chain([&kept]);
        let next = Revocations::following(lists, &owner, keys.iter().copied(), reactor::wall_clock());
        let next = next.map_err(|error| Failure::Removing { reason: error.to_string() })?;
        let path = home.revocations_file();
        next.save(&path).map_err(|error| Failure::file(&path, error))?;
        Ok(next)
    })
}

/// Has a list on disk here that another copy of this home signed, if it is newer than what lies here and loses nobody.
///
/// # Errors
/// Those of the home's files.
pub(crate) fn keep(home: &Home, network: &Network, list: &Revocations) -> Result<(), Failure> {
    Roll::change(home, |_| {
        let kept = home.revocations(network)?;
        if kept == *list || !is_below(&kept, list) {
            return Ok(());
        }
        let path = home.revocations_file();
        list.save(&path).map_err(|error| Failure::file(&path, error))
    })
}

/// Whether who has `list` takes `kept` for newer, and loses nobody by it.
pub(crate) fn is_below(list: &Revocations, kept: &Revocations) -> bool {
    list == kept
        || (list.version() < kept.version() && list.revoked().iter().all(|entry| kept.contains(&entry.key)))
}

/// Has the nodes take a list on which somebody is, and all who are on any of theirs.
fn sign_and_spread(
    home: &Home,
    network: &Network,
    client: &Client,
    nodes: &[Contact],
    subject: &Subject,
) -> Result<Revocations, Failure> {
    let keys = subject.keys();
    let (mut list, mut kept) = (Revocations::default(), Vec::new());
    for _ in 0..TRIES_MAX {
        let theirs = lists_of(client, nodes, network);
        list = sign(home, network, &keys, &theirs)?;
        let answers = on_each(client.overlay(), nodes, |overlay, node| {
            overlay.call::<Revoke>(node, &list, Bytes::new(), KEEP_LIMIT).map(|(hash, _)| hash == list.hash())
        });
        kept = answers
            .into_iter()
            .map(|answer| {
                answer.map_or(Err("interrupted".into()), |answer| answer.map_err(|e| e.to_string()))
            })
            .collect::<Vec<Result<bool, String>>>();
        // Lists of one number stay where they are: it takes one that follows both.
        if !kept.contains(&Ok(false)) {
            break;
        }
    }
    let count = kept.iter().filter(|answer| **answer == Ok(true)).count();
    for (node, answer) in nodes.iter().zip(&kept) {
        if let Err(error) = answer {
            output::warn(format_args!(
                "{node} has not taken the list ({error}); the others hand it over when it is back"
            ));
        }
    }
    if count == 0 {
        let reason = format!("{subject} is on the list of the revoked, and no node has taken that yet");
        return Err(Failure::Removing { reason });
    }
    if kept.contains(&Ok(false)) {
        let reason = format!(
            "{count} of {} nodes refuse {subject} from now on; the others have lists that another copy of this home made \
             meanwhile",
            nodes.len()
        );
        return Err(Failure::Removing { reason });
    }
    // Those that were not reached count as well.
    let mut known = Nodes::of_home(home, network)?;
    known.strike_off(&list);
    let met = nodes.iter().filter(|node| known.get(&node.id).is_none()).count();
    let all = known.present().count() + met;
    let others = if count < all { "; the others hear of it from those, once they answer" } else { "" };
    say(format_args!("{subject} is removed: {count} of {all} nodes refuse it from now on{others}"));
    Ok(list)
}

fn put_off_the_drive(
    home: &Home,
    network: &Network,
    client: &Client,
    list: &Revocations,
    subject: &Subject,
) -> Result<(), Failure> {
    let Subject::Member(member) = subject else { return Ok(()) };
    say("the ticket that it joined with is worth nothing any more either");
    if subject.is_node() {
        return Ok(());
    }
    // Whatever the roll said a moment ago: it may be on its way there.
    let user = Member::load(&home.user_key_file(), Role::User)?;
    let store = client.block_store();
    let sharer = Sharer { home, network, store: &store, user: &user };
    // What fails of one of these holds up none of the others, and `up` goes on with it.
    let of_drive = put_out(&sharer, list, std::slice::from_ref(member)).map_err(|failure| Failure::Removing {
        reason: format!("the nodes refuse {subject}, but what is written from now on is still sealed to it as well: {failure}"),
    });
    if of_drive.is_ok() {
        say("the drive has a new key, which is sealed to those who stay");
    }
    let of_groups = groups::forget(&sharer, list, space_lists::PATIENCE).map_err(|failure| Failure::Removing {
        reason: format!("the nodes refuse {subject}, and it may be in groups still, which counts for nothing: {failure}"),
    });
    let was_on = Roll::read(home).map(|roll| spaces_of(&roll, member)).unwrap_or_default();
    let of_spaces = space_lists::settle(&sharer, list, space_lists::PATIENCE).and_then(|unsettled| {
        let is_left = |path: &String| unsettled.iter().any(|space| space.path() == path.as_str());
        let off = off_in_words(&was_on, is_left);
        if !off.is_empty() {
            say(format_args!("as far as this home knows, it is taken off the spaces that it was on: {off}"));
        }
        tell_of_spaces(&unsettled, subject, member)
    });
    say(
        "what it could read until now it may have kept, and its machine's cache has some of it: change what passwords lay in the drive",
    );
    let roll = Roll::read(home).map(|roll| tell_what_is_left(&roll, member, list));
    all_of([of_drive, of_spaces, of_groups, roll])
}

/// Each of them, or why those are not done that failed: none hides another.
fn all_of<const COUNT: usize>(results: [Result<(), Failure>; COUNT]) -> Result<(), Failure> {
    let mut failures: Vec<Failure> = results.into_iter().filter_map(Result::err).collect();
    if failures.len() > 1 {
        let reason_of = |failure: Failure| match failure {
            Failure::Removing { reason } => reason,
            other => other.to_string(),
        };
        let reasons: Vec<String> = failures.drain(..).map(reason_of).collect();
        return Err(Failure::Removing { reason: reasons.join("; and ") });
    }
    failures.pop().map_or(Ok(()), Err)
}

/// Where the spaces are that somebody is on the list of, as far as this home knows.
fn spaces_of(roll: &Roll, member: &LetIn) -> Vec<String> {
    let has = |space: &&SpaceEntry| {
        // By his name, or by a group.
        space.people.iter().chain(&space.listed.people).any(|allowed| allowed.key == member.key)
    };
    let spaces = roll.spaces.iter().filter(|space| !space.is_given_up).filter(has);
    spaces.map(|space| space.path.clone()).collect()
}

/// Those that are not left, as people see them: what is left is told by the very path, which may have signs that are not shown.
fn off_in_words(was_on: &[String], is_left: impl Fn(&String) -> bool) -> String {
    let off = was_on.iter().filter(|path| !is_left(path)).map(|path| Shown::of(path).to_string());
    off.collect::<Vec<_>>().join(", ")
}

/// Says for which spaces it is not known that somebody who was removed is off.
///
/// # Errors
/// `Failure::Removing` if he is in one of them, as far as this home knows.
fn tell_of_spaces(unsettled: &[Unsettled], subject: &Subject, member: &LetIn) -> Result<(), Failure> {
    let (with, without): (Vec<_>, Vec<_>) = unsettled.iter().partition(|space| space.has(member));
    for space in without {
        output::warn(format_args!(
            "whether {subject} is in the space {} could not be looked at; as far as this home knows it is not: {}",
            space.path(),
            space.reason()
        ));
    }
    let told: Vec<String> =
        with.iter().map(|space| format!("{} ({})", space.path(), space.reason())).collect();
    if told.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "the nodes refuse {subject}, but what is written from now on to these spaces may still be sealed to it as well: {}",
        told.join(", ")
    );
    Err(Failure::Removing { reason })
}

/// Whoever was removed may have had other ways in: one person may have joined twice by one ticket, or been sent several.
fn tell_what_is_left(roll: &Roll, member: &LetIn, list: &Revocations) {
    let is_here = |other: &&LetIn| other.ticket == member.ticket && !list.contains(&other.public_key());
    let others: Vec<&str> = roll.members.iter().filter(is_here).map(|other| other.name.as_str()).collect();
    if !others.is_empty() {
        say(format_args!("by the same ticket came, and stay: {}", others.join(", ")));
    }
    match roll.open_tickets(list, now()).count() {
        0 => {}
        1 => say("one other ticket is good: `members` shows it, and `remove` takes it back"),
        open => say(format_args!(
            "{open} other tickets are good: `members` shows them, and `remove` takes them back"
        )),
    }
}

/// Takes members off the drive, and off the roll's account of who is on it.
///
/// # Errors
/// `Failure::Sharing`, or those of the home's files.
///
/// # Suspends
/// Until the drive's root says so.
pub(crate) fn put_out(sharer: &Sharer<'_>, revoked: &Revocations, members: &[LetIn]) -> Result<(), Failure> {
    match sharer.put_out(revoked)? {
        TakenOff::Intruders(intruders) => {
            tell_of(intruders.iter().filter(|intruder| !members.iter().any(|member| intruder.is(member))));
        }
        TakenOff::Unknown => output::warn(
            "another copy of this home let somebody in, whom this one's roll lacks: whether a writer shared the drive with \
             somebody on his own was not looked at; remove with the copy that let people in last",
        ),
    }
    let home = sharer.home;
    let (home, keys) = (home.clone(), members.iter().map(|member| member.key.clone()).collect::<Vec<_>>());
    reactor::offload(move || {
        Roll::change(&home, |roll| {
            keys.iter().for_each(|key| roll.on_drive(key, false));
            Ok(())
        })
    })
}

/// Says who was on the drive and should not have been.
pub(crate) fn tell_of<'a>(intruders: impl Iterator<Item = &'a Intruder>) {
    for intruder in intruders {
        output::warn(format_args!(
            "{intruder} could read the drive, by the doing of somebody who may write to it: the drive has a new key now, which that one does \
             not have"
        ));
    }
}

/// Asks every node at once; the answers are in the order of the nodes, `None` for a question that was cut short.
pub(crate) fn on_each<T>(
    overlay: &Node,
    nodes: &[Contact],
    ask: impl Fn(&Node, &Contact) -> T,
) -> Vec<Option<T>> {
    let ask = &ask;
    reactor::scope(|scope| {
        let asked: Vec<_> = nodes.iter().map(|node| scope.spawn(move || ask(overlay, node))).collect();
        asked.into_iter().map(|asking| asking.join().ok()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left was compared as it is, and this as it is shown: so somebody was said to be off where he was not.
    #[test]
    fn nobody_is_said_to_be_off_a_space_that_is_left_whatever_it_is_called() {
        let was_on = ["Müller & Söhne", "tax (2026)", "band"].map(String::from);
        let is_left = |path: &String| path == "Müller & Söhne";
        assert_eq!(off_in_words(&was_on, is_left), "tax (2026), band");
        assert_eq!(off_in_words(&was_on[..1], is_left), "");
    }
}
