//! `group list`: who is in which group, and which spaces name it.

use std::fmt::Write;

use dht::block::mutable::{Genesis, Signed};
use filesystem::access::groups::{Group, Groups, Named};
use filesystem::format::{printable, printable_path};
use overlay::{NodeId, Revocations};
use reactor::crypto::PublicKey;

use super::learn;
use super::register::agree;
use crate::client::{Client, Settings};
use crate::errors::Failure;
use crate::home::Home;
use crate::output;
use crate::process;
use crate::roll::{LetIn, Roll, SpaceEntry};
use crate::sharing::Sharer;

/// Hexadecimal digits of an id that are shown.
const SHOWN_DIGITS: usize = 12;

/// Shows them as the nodes have them; where these do not say it, as this home knew them last.
pub(super) fn list(home: &Home, settings: &Settings) -> Result<(), Failure> {
    let asked = process::run(|| {
        let client = Client::connect(settings)?;
        let (store, user) = (client.block_store(), settings.user()?);
        let sharer = Sharer { home, network: &settings.network, store: &store, user: &user };
        let groups = learn(&sharer).and_then(|groups| agree(&sharer).map(|()| groups));
        client.leave();
        groups
    });
    let (roll, revoked) = (Roll::read(home)?, home.revocations(&settings.network)?);
    let (groups, why_not) = match asked {
        Ok(groups) => (groups, None),
        Err(failure) => (roll.groups_known()?, Some(failure)),
    };
    if let Some(failure) = why_not {
        output::warn(format_args!("this is what this home knew last: {failure}"));
    }
    output::print(&render(&groups, &roll, &revoked))
}

fn render(groups: &Groups, roll: &Roll, revoked: &Revocations) -> String {
    let mut text = String::new();
    if groups.all().is_empty() {
        text += "there is no group; `storage-node group create NAME` makes one\n";
    }
    for group in groups.all() {
        let people = groups.people_of(group.id).len();
        let _ = writeln!(
            text,
            "{}  {people} {}, changed {} times",
            group.name,
            if people == 1 { "person" } else { "people" },
            group.epoch.saturating_sub(1)
        );
        for key in &group.people {
            let _ = writeln!(text, "  {}", in_words(key, groups, roll, revoked));
        }
        for inner in group.groups.iter().filter_map(|inner| groups.get(*inner)) {
            let _ = writeln!(text, "  the group {}", inner.name);
        }
        for space in &group.spaces {
            let _ = writeln!(text, "  on {}: {}", printable_path(&space.path), state(group, space, roll));
        }
    }
    text
}

fn in_words(key: &PublicKey, groups: &Groups, roll: &Roll, revoked: &Revocations) -> String {
    let id = &NodeId::of(key).to_string()[..SHOWN_DIGITS];
    let is_it = |member: &&LetIn| member.public_key() == *key;
    match roll.members.iter().find(is_it) {
        Some(member) if revoked.contains(key) => {
            format!("{} ({id}), who was removed", printable(&member.name))
        }
        Some(member) => format!("{} ({id})", printable(&member.name)),
        None => {
            let name = groups.person(key).map_or("", |person| person.name.as_str());
            format!("{} ({id}), whom another copy of this home let in", printable(name))
        }
    }
}

/// What a space's list says of a group, as far as this home knows.
fn state(group: &Group, space: &Named, roll: &Roll) -> &'static str {
    let is_it = |known: &&SpaceEntry| {
        known.genesis().is_ok_and(|genesis: Signed<Genesis>| genesis.register().0 == space.register)
    };
    let Some(known) = roll.spaces.iter().find(is_it) else {
        return "a space of another copy of this home";
    };
    if known.is_given_up {
        return "which was removed, and nobody reads it";
    }
    let listed = known.listed.groups.iter().find(|(id, _)| *id == group.id);
    match (known.groups.iter().find(|allowed| allowed.id == group.id), listed) {
        (None, None) => "its list does not name it",
        (None, Some(_)) => "is to be off its list, and is not yet",
        (Some(_), None) => "is to be on its list, and is not yet",
        (Some(_), Some((_, epoch))) if *epoch < group.epoch => "its list has yet to say what was changed",
        (Some(allowed), Some(_)) if allowed.may_write => "reads and writes",
        (Some(_), Some(_)) => "reads",
    }
}
