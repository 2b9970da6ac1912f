//! `journal`: what was written here and the nodes have not taken, listed, and written out as files.
//!
//! It is for whom nothing is taken from any more as much as for who waits until nodes are back, so it asks nobody for anything that
//! is on this machine: the journals are read as they are, beside a mount that uses them, and the cache is looked into. Only for
//! what is not here does `export` ask nodes, if they let it.
//!
//! Not here: how a journal is read (`filesystem::volume::LeftBehind`), and how files are made of it (`export`).

mod export;
mod places;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use filesystem::calendar::Civil;
use filesystem::format::Shown;
use filesystem::operations::FileKind;
use filesystem::volume::{Left, LeftBehind, LeftPath};

use crate::cache::{Cache, Plan, Usual};
use crate::cli::{Journal, JournalAction};
use crate::client::{self, Client, Settings};
use crate::client_directory;
use crate::errors::Failure;
use crate::output::{self, say};
use crate::process;
use crate::progress::{amount_in_words, human_bytes};
use crate::removed;
use crate::waits::Waits;
use places::Place;

/// Runs the command.
///
/// # Errors
/// `Failure::Journal` if not all that waits could be listed or written out, or what keeps this from being looked at.
pub(crate) fn journal(options: &Journal) -> Result<(), Failure> {
    let settings = client::settings(&options.place().client)?;
    let directory = options.place().directory.clone();
    if let Some(directory) =
        directory.as_deref().filter(|directory| !client_directory::journal_of(directory).is_dir())
    {
        let reason = format!(
            "{} has no journal: no drive was mounted with it as its --directory",
            directory.display()
        );
        return Err(Failure::Journal { reason });
    }
    // One of the home's own has its cache there, in which the names are.
    let is_of_home = |directory: &PathBuf| {
        let clients = settings.clients.as_deref().and_then(|clients| clients.canonicalize().ok());
        clients.is_some()
            && directory.canonicalize().ok().as_deref().and_then(Path::parent) == clients.as_deref()
    };
    let base =
        directory.clone().filter(|directory| !is_of_home(directory)).or_else(|| settings.clients.clone());
    let plan = base.as_ref().map(|base| Plan::make(base, None, None, Usual::AsBefore)).transpose()?;
    let into = match &options.action {
        Some(JournalAction::Export { into, .. }) => {
            export::refuse_unless_empty(into)?;
            Some(into.clone())
        }
        None => None,
    };
    process::run(move || {
        let user = settings.user()?;
        let cache = plan.as_ref().and_then(|plan| plan.open(&user));
        let client = into.as_ref().and_then(|_| connect(&settings));
        let mut unread = Vec::new();
        let mut found = Vec::new();
        for place in places::all(&settings, directory.as_deref()) {
            let opened = place.and_then(|place| {
                let left = place.open(&settings.network, &user, client.as_ref(), cache.as_deref())?;
                Ok(left.map(|left| (place, left)))
            });
            match opened {
                Ok(left) => found.extend(left),
                Err(failure) => unread.push(failure.to_string()),
            }
        }
        for kept in places::damaged(&settings, directory.as_deref()) {
            output::warn(format_args!(
                "{} is of a journal that was damaged: what could not be read of it was not stored, and is not shown here",
                kept.display()
            ));
        }
        let result = match &into {
            None => list(&found, base.as_deref()),
            Some(_) if found.is_empty() => {
                say(nothing(base.as_deref()));
                Ok(())
            }
            Some(into) => export::export(&found, into),
        };
        drop(found);
        cache.as_deref().iter().for_each(|cache: &&Cache| cache.close());
        client.into_iter().for_each(Client::leave);
        let unread = match unread.is_empty() {
            true => Ok(()),
            false => Err(Failure::Journal { reason: unread.join("\n") }),
        };
        match (result, unread) {
            (Err(failure), Err(unread)) => {
                output::warn(format_args!("error: {unread}"));
                Err(failure)
            }
            (result, unread) => result.and(unread),
        }
    })
}

/// The nodes, if they let this user in. Without them there is what this machine has.
fn connect(settings: &Settings) -> Option<Client> {
    let connected =
        Client::connect(settings).and_then(|client| match removed::refuse(client.overlay(), removed::USER) {
            Ok(()) => Ok(client),
            Err(removed) => {
                client.leave();
                Err(removed)
            }
        });
    connected.inspect_err(|failure| say(format_args!("{failure}: what this machine has is written out"))).ok()
}

fn list(found: &[(Place, LeftBehind)], base: Option<&Path>) -> Result<(), Failure> {
    if found.is_empty() {
        return output::print(&format!("{}\n", nothing(base)));
    }
    let (mut text, mut unread) = (String::new(), Vec::new());
    for (place, left) in found {
        text += &format!("{}: {}\n", place.name, state_of(place, left));
        for one in &left.all {
            let paths = match one.paths.is_empty() {
                true => "(its name is not on this machine)".into(),
                false => one.paths.iter().map(|path| shown(place, path)).collect::<Vec<_>>().join(" and "),
            };
            let end = if one.kind == FileKind::Directory { "/" } else { "" };
            let size = human_bytes(one.size_bytes);
            text += &format!("  {}  {size:>9}  {paths}{end}\n", Civil::of(one.changed.seconds));
        }
        if left.unread > 0 {
            unread.push(format!("{}: {} parts of it cannot be read: it is damaged", place.name, left.unread));
        }
        for path in &left.gone {
            text += &format!("  {:19}  {:>9}  {}\n", "", "removed", shown(place, path));
        }
    }
    text += "sizes are of whole files, of which only what was changed waits; times are of the last change, in UTC; `storage-node journal export DIR` writes the files out\n";
    output::print(&text)?;
    match unread.is_empty() {
        true => Ok(()),
        false => Err(Failure::Journal { reason: unread.join("\n") }),
    }
}

/// That nothing waits there, and where else something may.
fn nothing(base: Option<&Path>) -> String {
    let Some(base) = base else { return "nothing waits".into() };
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    let aside = entries.map(|entry| entry.path()).filter(|path| {
        let is_aside = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("removed-"));
        is_aside && path.join("network.json").exists()
    });
    let aside = aside.map(|home| format!("; a home that was set aside: --home {}", home.display()));
    format!(
        "nothing waits in {} (of a drive that was mounted with a directory of its own, --directory says where){}",
        base.display(),
        aside.collect::<String>()
    )
}

/// How much waits, and why.
fn state_of(place: &Place, left: &LeftBehind) -> String {
    let why = match (place.is_in_use(), Waits::read(&place.directory)) {
        (_, Some(waits)) if waits.cause.is_final() => {
            format!("{}, as is known here since {} UTC", waits.cause, Civil::of(waits.since_s as i64))
        }
        (true, _) => "a drive that runs has it, and stores it once the nodes take it".into(),
        (false, Some(waits)) => {
            format!("{}, when its drive ended; the next `up` or `mount` stores it", waits.cause)
        }
        (false, None) => "its drive was killed, or has not said why; the next `up` or `mount` stores it if the nodes take it".into(),
    };
    let (bytes, file_count) = left.amount();
    format!("{} wait{} ({why})", amount_in_words(bytes, file_count), if file_count == 1 { "s" } else { "" })
}

/// What is written out of these: whole files.
fn written_in_words(all: &[Left]) -> String {
    amount_in_words(all.iter().map(|one| one.size_bytes).sum(), all.len() as u64)
}

/// A path as people read it: whoever writes a volume names what is in it.
fn shown(place: &Place, path: &LeftPath) -> String {
    let above = if path.is_whole { place.prefix.clone() } else { vec!["(somewhere)".into()] };
    let names = path.names.iter().map(|name| Shown::of(name).to_string());
    above.into_iter().chain(names).collect::<Vec<_>>().join("/")
}

/// What a place's blocks are read from, beside the cache.
type Store = Rc<dyn dht::BlockStore>;
