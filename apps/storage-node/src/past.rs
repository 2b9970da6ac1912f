//! `past`: what the drive was, or one of its spaces, by the word of the nodes.
//!
//! For when snapshots are of no use, since whoever had a writer's key dropped them, wrote over everything, or sealed the drive to
//! himself: what its root was the nodes keep for the retention (`dht::node::past`), and the blocks as well, whoever had them deleted.
//!
//! Not here: which states the nodes keep; having it be one of them again (`rollback`); which volume is meant (`subject`);
//! that it stays when a node goes (`staying`).

pub(crate) mod staying;
mod subject;
mod view;
mod which;

use dht::past::{Past as Value, Values};
use filesystem::calendar::Civil;
use reactor::crypto::PublicKey;
use serde::Serialize;

use crate::cli::Past;
use crate::client::{self, Client, Settings};
use crate::errors::Failure;
use crate::identity::Member;
use crate::members::OWNER;
use crate::name::shown_of;
use crate::output;
use crate::process;
use crate::replaced::{self, Replaced};
use crate::roll::Roll;
pub(crate) use subject::{Subject, Target};
pub(crate) use view::view;
use which::Names;
pub(crate) use which::{To, find, is_name, not_kept, tell_left_out, unread, when};

/// Of a state's name, the digits that are shown: of ten thousand, two begin alike by a chance of one in eighty.
const SHOWN_DIGITS: usize = 8;

/// A state as it is listed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Listed {
    id: String,
    /// Since when, at the latest.
    since: String,
    since_seconds: u64,
    /// And at the earliest, if nodes do not agree or have set their clocks.
    perhaps_since_seconds: u64,
    /// Both in words.
    #[serde(skip)]
    since_text: String,
    version: u64,
    writer: String,
    /// How many nodes show it.
    nodes: usize,
}

/// What it is now.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Newest {
    id: String,
    /// If a node says it.
    since: Option<String>,
    version: u64,
    writer: String,
}

/// What a rollback took the place of, kept in this home.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Undone {
    id: String,
    replaced: String,
    replaced_seconds: u64,
    version: u64,
    writer: String,
}

/// All that `past` lists.
#[derive(Debug, Serialize)]
struct Listing {
    past: Vec<Listed>,
    newest: Option<Newest>,
    replaced: Vec<Undone>,
    /// How many nodes answered.
    nodes: usize,
}

/// What a state is called.
pub(crate) fn id_of(header_hash: &[u8; 32]) -> String {
    header_hash[..SHOWN_DIGITS / 2].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// When that is.
pub(crate) fn civil(seconds: u64) -> Civil {
    Civil::of(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// Runs `past`.
///
/// # Errors
/// `Failure::Past`, or what keeps the nodes from being asked.
pub(crate) fn past(options: &Past) -> Result<(), Failure> {
    let subject = Subject::of(options.directory.as_deref(), &options.client)?;
    if subject == Subject::Within {
        return Err(Failure::Space {
            reason: format!(
                "{:?} is no space of its own: nodes keep what whole volumes were",
                shown_of(options.directory.as_deref().unwrap_or_default())
            ),
            advice: "`storage-node past` lists what the drive was; `snapshots` and `history FILE` show what snapshots have",
        });
    }
    let settings = client::settings(&options.client)?;
    let roll = settings.home.as_ref().map(Roll::read).transpose()?.unwrap_or_default();
    let (listing, what) = process::run(|| {
        let client = Client::connect(&settings)?;
        let target = Target::open(&subject, &client, &settings)?;
        let (store, register) = (&target.store, target.keys.register);
        let found = store.past(&register).map_err(|error| unknown(&target.what(), &error));
        client.leave();
        let found = found?;
        which::tell_left_out(&found);
        let Values { values, newest, answers: nodes, .. } = found;
        let newest = newest.ok().flatten();
        let user = settings.user()?;
        let name = |key: &PublicKey| name_of(key, &settings, &roll, &user);
        let is_newest =
            |value: &&Value| newest.as_ref().is_some_and(|newest| newest.header_hash == value.header_hash);
        let directory = settings.seen_directory();
        let replaced = directory.map(|directory| replaced::of(&directory, &register)).transpose()?;
        let kept = values.iter().map(|value| value.header_hash.0);
        let here = replaced.iter().flatten().map(|root| root.header_hash.0);
        let names = Names::of(kept.chain(here));
        let listed = |value: &Value| Listed {
            id: names.id(&value.header_hash.0),
            since: civil(value.since_seconds).to_string(),
            since_seconds: value.since_seconds,
            perhaps_since_seconds: value.perhaps_since_seconds,
            since_text: which::since(value),
            version: value.version,
            writer: name(&value.writer),
            nodes: value.node_count(),
        };
        // One that was not, after all, as something kept it from being.
        let was_replaced = |root: &&Replaced| {
            newest.as_ref().is_none_or(|newest| newest.header_hash.0 != root.header_hash.0)
        };
        let undone = |root: &Replaced| Undone {
            id: names.id(&root.header_hash.0),
            replaced: civil(root.replaced_seconds).to_string(),
            replaced_seconds: root.replaced_seconds,
            version: root.version,
            writer: name(&root.writer()),
        };
        let listing = Listing {
            past: values.iter().filter(|value| !is_newest(value)).map(listed).collect(),
            replaced: replaced.unwrap_or_default().iter().filter(was_replaced).map(undone).collect(),
            nodes,
            newest: newest.as_ref().map(|newest| Newest {
                id: names.id(&newest.header_hash.0),
                since: values
                    .iter()
                    .find(|value| is_newest(value) && value.node_count() > 0)
                    .map(|value| civil(value.since_seconds).to_string()),
                version: newest.version,
                writer: name(&newest.writer),
            }),
        };
        Ok::<_, Failure>((listing, target.what()))
    })?;
    if options.json {
        return output::print_json(&listing);
    }
    output::print(&table(&listing, &what))
}

/// That what `what` was can't be told.
pub(crate) fn unknown(what: &str, error: &impl std::fmt::Display) -> Failure {
    Failure::Past { reason: format!("what {what} was is not known: {error}") }
}

/// Who that is, for people.
fn name_of(key: &PublicKey, settings: &Settings, roll: &Roll, user: &Member) -> String {
    if *key == settings.network.volume_owner() {
        return OWNER.into();
    }
    // Of whom this home is, no roll tells it.
    if user.identity.public_key() == *key {
        return user.author.clone();
    }
    let member = roll.members.iter().find(|member| member.public_key() == *key);
    member.map_or_else(|| key.to_string(), |member| member.name.clone())
}

/// The oldest first, so that the newest is next to the prompt.
fn table(listing: &Listing, what: &str) -> String {
    let Listing { past, newest, replaced, nodes: answers } = listing;
    let mut text = String::new();
    if past.is_empty() {
        text += &format!(
            "the nodes keep nothing of what {what} was: it has not been written for long enough, or there is no retention\n"
        );
    }
    for Listed { id, since_text, version, writer, nodes, .. } in past {
        text += &format!("{id}  {since_text}  version {version}  by {writer}  {nodes} of {answers} nodes\n");
    }
    for Undone { id, replaced, version, writer, .. } in replaced {
        text +=
            &format!("{id}  until {replaced}  version {version}  by {writer}  this home, since a rollback\n");
    }
    if let Some(Newest { id, since, version, writer }) = newest {
        let since =
            since.as_ref().map_or("since when is not known".to_owned(), |since| format!("since {since}"));
        text += &format!("{id}  {since:25}  version {version}  by {writer}  what it is now\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_line_for_each() {
        let listed = Listed {
            id: "3f9a0c44".into(),
            since: "2026-11-26 09:30:00".into(),
            since_seconds: 1,
            perhaps_since_seconds: 1,
            since_text: "since 2026-11-26 09:30:00".into(),
            version: 7,
            writer: "bob".into(),
            nodes: 2,
        };
        let newest = Newest {
            id: "0c443f9a".into(),
            since: Some("2026-11-26 09:40:00".into()),
            version: 9,
            writer: "ann".into(),
        };
        let undone = Undone {
            id: "443f9a0c".into(),
            replaced: "2026-11-26 09:40:00".into(),
            replaced_seconds: 2,
            version: 8,
            writer: "ann".into(),
        };
        let mut listing =
            Listing { past: vec![listed], newest: Some(newest), replaced: vec![undone], nodes: 3 };
        assert_eq!(
            table(&listing, "the drive"),
            "3f9a0c44  since 2026-11-26 09:30:00  version 7  by bob  2 of 3 nodes\n\
             443f9a0c  until 2026-11-26 09:40:00  version 8  by ann  this home, since a rollback\n\
             0c443f9a  since 2026-11-26 09:40:00  version 9  by ann  what it is now\n"
        );
        listing.past.clear();
        assert!(table(&listing, "the drive").contains("keep nothing"));
    }
}
