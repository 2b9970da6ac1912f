//! `past` and `rollback`: what the drive was, by the word of the nodes, and having it be that again.
//!
//! For when snapshots are of no use, since whoever had a writer's key dropped them, wrote over everything, or sealed the drive to
//! himself: what its root was the nodes keep for the retention (`dht::node::past`), and the blocks as well, whoever had them deleted.
//! So nothing hangs on whether the newest root opens.
//!
//! In this order: what was deleted of what the old root reaches is taken back, or else nothing is done; the newest root is kept in the
//! home (`replaced`), so that this can be undone; the old tree takes its place, in a swap; and it is looked once more, since somebody
//! may have deleted something meanwhile.
//!
//! Not here: which states the nodes keep, and how the drive's root is replaced (`filesystem::access::sharing`).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use dht::past::Past as Value;
use dht::{Address, BlockStore, Record};
use filesystem::access::{Root, VolumeKeys, open_root};
use filesystem::calendar::Civil;
use filesystem::volume::{Options, Roots, Volume};
use reactor::crypto::PublicKey;
use serde::Serialize;

use crate::at;
use crate::author;
use crate::cli::{Past, Rollback};
use crate::client::{self, Client, Settings};
use crate::client_directory;
use crate::errors::Failure;
use crate::gc;
use crate::home::Home;
use crate::output::{self, say};
use crate::process;
use crate::progress;
use crate::replaced::{self, Replaced};
use crate::roll::Roll;
use crate::seen::Seen;
use crate::sharing::{Sharer, TakenOff};
use crate::volume::{self, refuse_unless_owner};

/// Of a state's name, the digits that are shown: of ten thousand, two begin alike by a chance of one in eighty.
const SHOWN_DIGITS: usize = 8;

/// A state as it is listed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Listed {
    id: String,
    since: String,
    since_seconds: u64,
    version: u64,
    writer: String,
    /// How many nodes show it.
    nodes: usize,
}

/// What the drive is now.
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

fn id_of(header_hash: &[u8; 32]) -> String {
    header_hash[..SHOWN_DIGITS / 2].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn civil(seconds: u64) -> Civil {
    Civil::of(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// Runs `past`.
///
/// # Errors
/// `Failure::Past`, or what keeps the nodes from being asked.
pub(crate) fn past(options: &Past) -> Result<(), Failure> {
    let settings = client::settings(&options.client)?;
    let roll = settings.home.as_ref().map(Roll::read).transpose()?.unwrap_or_default();
    let listing = process::run(|| {
        let client = Client::connect(&settings)?;
        let store = client.block_store();
        let keepers = volume::keepers(&settings.network, settings.seen_directory().as_deref())?;
        let register = volume::keys(&store, &keepers, client.user())?.register;
        let found = store.past(&register).map_err(|error| unknown(&error));
        let newest = store.read(&register).ok().flatten();
        client.leave();
        let (values, nodes) = found?;
        let name = |key: &PublicKey| name_of(key, &settings, &roll);
        let is_newest =
            |value: &&Value| newest.as_ref().is_some_and(|newest| newest.header_hash == value.header_hash);
        let listed = |value: &Value| Listed {
            id: id_of(&value.header_hash.0),
            since: civil(value.since_seconds).to_string(),
            since_seconds: value.since_seconds,
            version: value.version,
            writer: name(&value.writer),
            nodes: value.node_count(),
        };
        let directory = settings.seen_directory();
        let replaced = directory.map(|directory| replaced::of(&directory, &register)).transpose()?;
        // One that was not, after all, as something kept it from being.
        let was_replaced = |root: &&Replaced| {
            newest.as_ref().is_none_or(|newest| newest.header_hash.0 != root.header_hash.0)
        };
        let undone = |root: &Replaced| Undone {
            id: id_of(&root.header_hash.0),
            replaced: civil(root.replaced_seconds).to_string(),
            replaced_seconds: root.replaced_seconds,
            version: root.version,
            writer: name(&root.writer()),
        };
        Ok::<_, Failure>(Listing {
            past: values.iter().filter(|value| !is_newest(value)).map(listed).collect(),
            replaced: replaced.unwrap_or_default().iter().filter(was_replaced).map(undone).collect(),
            nodes,
            newest: newest.as_ref().map(|newest| Newest {
                id: id_of(&newest.header_hash.0),
                since: values.iter().find(is_newest).map(|value| civil(value.since_seconds).to_string()),
                version: newest.version,
                writer: name(&newest.writer),
            }),
        })
    })?;
    if options.json {
        let text =
            serde_json::to_string_pretty(&listing).map_err(|error| Failure::Internal(error.to_string()))?;
        return output::print(&format!("{text}\n"));
    }
    output::print(&table(&listing))
}

fn unknown(error: &impl std::fmt::Display) -> Failure {
    Failure::Past { reason: format!("what the drive was is not known: {error}") }
}

/// Who that is, for people.
fn name_of(key: &PublicKey, settings: &Settings, roll: &Roll) -> String {
    if *key == settings.network.volume_owner() {
        return "the home that made the network".into();
    }
    let member = roll.members.iter().find(|member| member.public_key() == *key);
    member.map_or_else(|| key.to_string(), |member| member.name.clone())
}

/// The oldest first, so that the newest is next to the prompt.
fn table(listing: &Listing) -> String {
    let Listing { past, newest, replaced, nodes: answers } = listing;
    let mut text = String::new();
    if past.is_empty() {
        text += "the nodes keep nothing of what the drive was: it has not been written for long enough, or there is no retention\n";
    }
    for Listed { id, since, version, writer, nodes, .. } in past {
        text += &format!("{id}  since {since}  version {version}  by {writer}  {nodes} of {answers} nodes\n");
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

/// What is asked for.
#[derive(Debug)]
enum To<'a> {
    /// A state that nodes keep.
    Kept(&'a Value),
    /// One that this home keeps.
    Replaced(&'a Replaced),
}

/// Finds the state that is meant, by its name or a time. What the drive is now is among `values`: it may be that since before then.
fn find<'a>(values: &'a [Value], replaced: &'a [Replaced], text: &str) -> Result<To<'a>, Failure> {
    let failed = |reason: String| Failure::Past { reason };
    let is_name = text.len() == SHOWN_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_name {
        let is_it = |header_hash: &[u8; 32]| id_of(header_hash).eq_ignore_ascii_case(text);
        let found: Vec<&Value> = values.iter().filter(|value| is_it(&value.header_hash.0)).collect();
        let here = replaced.iter().find(|root| is_it(&root.header_hash.0));
        return match (&found[..], here) {
            ([one], _) => Ok(To::Kept(one)),
            ([], Some(root)) => Ok(To::Replaced(root)),
            ([], None) => Err(failed(format!(
                "neither a node that answers nor this home keeps a state {text} of the drive"
            ))),
            _ => Err(failed(format!("several states of the drive are called {text}: give a time"))),
        };
    }
    let latest = at::last_second(text)
        .ok_or_else(|| failed(format!("{text:?} is no state as `past` calls them, and no time")))?;
    let is_before = |value: &&Value| i64::try_from(value.since_seconds).is_ok_and(|since| since <= latest);
    let found = values.iter().filter(is_before).max_by_key(|value| (value.since_seconds, value.version));
    found
        .map(To::Kept)
        .ok_or_else(|| failed(format!("the nodes keep nothing from before {} (UTC)", Civil::of(latest))))
}

/// The versions between `value` and the next one that is kept: what the drive was then, nobody can tell.
fn not_kept(values: &[Value], value: &Value) -> Option<RangeInclusive<u64>> {
    let next = values.iter().map(|other| other.version).filter(|version| *version > value.version).min()?;
    let between = value.version + 1..=next - 1;
    (!between.is_empty()).then_some(between)
}

/// Runs `rollback`.
///
/// # Errors
/// `Failure::Past` or `Failure::Garbage` if the drive stays as it is; `Failure::Sharing` if it may.
pub(crate) fn rollback(options: &Rollback) -> Result<(), Failure> {
    let home = Home::locate(options.home.home.as_deref())?;
    let settings = Settings::of_home(&home, home.network()?);
    process::run(|| {
        let client = Client::connect(&settings)?;
        let result = go_back(&home, &settings, &client, options);
        client.leave();
        result
    })
}

fn go_back(home: &Home, settings: &Settings, client: &Client, options: &Rollback) -> Result<(), Failure> {
    let (network, user, store) = (&settings.network, client.user(), client.block_store());
    refuse_unless_owner(network, user)?;
    let sharer = Sharer { home, network, store: &store, user };
    let keys = sharer.keys()?;
    // Kept until the new root is there: from then on it is what this home has seen.
    let directory = client_directory::first(home.path());
    let _seen = Seen::recall(&store, keys.register, &directory, options.accept_rollback, None)?;
    let (values, _) = store.past(&keys.register).map_err(|error| unknown(&error))?;
    let kept = replaced::of(&directory, &keys.register)?;
    let to = find(&values, &kept, &options.to)?;
    let newest = store.read(&keys.register).map_err(|error| unknown(&error))?;
    let newest = newest.ok_or_else(|| unknown(&"its root is missing"))?;
    let (version, payload, header_hash, when) = match to {
        To::Kept(value) => {
            let when = format!("at {} (UTC)", civil(value.since_seconds));
            if value.header_hash == newest.header_hash {
                return Err(Failure::Past {
                    reason: format!("the drive is what it was {when}, and nothing is to be done"),
                });
            }
            let record = store.read_past(&keys.register, value).map_err(|error| unknown(&error))?;
            (record.version, record.payload, record.header_hash.0, when)
        }
        To::Replaced(root) => {
            let when = format!("until {} (UTC)", civil(root.replaced_seconds));
            (root.version, root.payload.0.clone().into(), root.header_hash.0, when)
        }
    };
    let root = open_root(&payload, version, &keys.secret).map_err(|error| Failure::Past {
        reason: format!("the state {} does not open: {error}", id_of(&header_hash)),
    })?;
    let bar = progress::spinner("looking for what it needs");
    // Mounts may put newer ones until the swap: it is the last that is kept which was replaced.
    let replaced = RefCell::new(None::<Record>);
    let keep = |newest: &Record| {
        let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = replaced.replace(Some(newest.clone()));
        replaced::keep(&directory, &keys.register, newest, before.as_ref(), now.as_secs())
    };
    let result = put_back(&sharer, client, &keys, &root, &keep, &bar);
    bar.finish_and_clear();
    let (taken_off, missing) = result?;
    say(format_args!("the drive is what it was {when}, version {version} by then"));
    if let To::Kept(value) = to
        && let Some(between) = not_kept(&values, value)
    {
        say(format_args!(
            "what it was after that, in versions {} to {}, no node that answers keeps",
            between.start(),
            between.end()
        ));
    }
    let id = replaced.into_inner().map_or_else(String::new, |replaced| id_of(&replaced.header_hash.0));
    say(format_args!(
        "what it was until now is {id}: `rollback --to {id}` undoes this, as long as nodes keep what only that needs"
    ));
    if let TakenOff::Intruders(intruders) = taken_off {
        crate::remove::tell_of(intruders.iter());
    }
    match missing.len() {
        0 => Ok(()),
        count => Err(Failure::Past {
            reason: format!(
                "but {count} blocks of it were deleted meanwhile: run `gc`, which takes them back, and see that nobody else does"
            ),
        }),
    }
}

fn put_back(
    sharer: &Sharer<'_>,
    client: &Client,
    keys: &VolumeKeys,
    root: &Root,
    keep: &dyn Fn(&Record) -> Result<(), Failure>,
    bar: &indicatif::ProgressBar,
) -> Result<(TakenOff, BTreeSet<Address>), Failure> {
    let mut options = Options::default();
    options.author = author::author();
    let view = Volume::as_of(Rc::new(sharer.store.clone()), keys.clone(), &options, root)
        .map_err(|errno| Failure::Past { reason: format!("its tree cannot be read: {errno}") })?;
    let (roots, salt) = (Roots::of(root), sharer.network.volume_salt.0);
    let take_back = || gc::take_back(sharer.store, client.speaker(salt)?, &view, &roots, bar);
    let missing = take_back()?;
    if !missing.is_empty() {
        return Err(Failure::Past {
            reason: format!(
                "the drive stays as it is, for {} blocks of that state are on no node that answers",
                missing.len()
            ),
        });
    }
    bar.set_message("putting the root back");
    let taken_off = sharer.put_back(root, keep, &sharer.home.revocations(sharer.network)?)?;
    bar.set_message("looking once more for what it needs");
    Ok((taken_off, take_back()?))
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
            table(&listing),
            "3f9a0c44  since 2026-11-26 09:30:00  version 7  by bob  2 of 3 nodes\n\
             443f9a0c  until 2026-11-26 09:40:00  version 8  by ann  this home, since a rollback\n\
             0c443f9a  since 2026-11-26 09:40:00  version 9  by ann  what it is now\n"
        );
        listing.past.clear();
        assert!(table(&listing).contains("keep nothing"));
    }
}
