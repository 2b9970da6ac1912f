//! `mount`: the drive from a process that stores nothing itself.
//!
//! All it needs is the network's description, the user's key and one running node. Its cache may be empty, and makes the next
//! start a warm one.

use std::path::Path;
use std::rc::Rc;

use filesystem::format::printable;
use filesystem::volume::Cause;

use crate::admitting::Admitting;
use crate::at;
use crate::cache::{Plan, Usual};
use crate::cli::Mount;
use crate::client::{self, Client, Settings};
use crate::client_directory::ClientDirectory;
use crate::drive::{self, Place};
use crate::errors::Failure;
use crate::mountpoint;
use crate::nodes::Nodes;
use crate::output::say;
use crate::owner::OwnerAway;
use crate::past::{self, Subject};
use crate::pins;
use crate::process;
use crate::progress;
use crate::removed;
use crate::replacing::Replacing;
use crate::replacing_spaces::ReplacingSpaces;
use crate::spaces::{self, Spaces};
use crate::stop::Stop;
use crate::volume::{Keep, Opening};
use crate::waits;

/// Runs the command.
///
/// # Errors
/// What keeps the drive from being usable.
pub(crate) fn mount(options: &Mount) -> Result<(), Failure> {
    let settings = client::settings(&options.client)?;
    // Before its directory is taken, which a process that was killed and hangs still has.
    mountpoint::free_of_killed(&options.drive)?;
    // A directory that was named has one drive and nothing else; in the others' place a free one is found.
    // The past needs no journal, and leaves alone what waits in others'.
    let (directory, others) = match (&options.directory, settings.clients.clone()) {
        (None, _) if options.at.is_some() => (ClientDirectory::scratch()?, None),
        (Some(directory), _) => (ClientDirectory::take(directory)?, None),
        (None, Some(clients)) => (ClientDirectory::take_in(&clients)?, Some(clients)),
        (None, None) => return Err(Failure::NoDirectory),
    };
    let shared = if options.at.is_some() { settings.clients.as_deref() } else { others.as_deref() };
    let base = shared.unwrap_or(directory.path()).to_owned();
    let plan = Plan::make(&base, Some(directory.path()), options.cache, Usual::ShareOfTheDisk)?;
    let seen_directory = settings.seen_directory().unwrap_or_else(|| directory.path().to_owned());
    let mountpoint = mountpoint::prepare(&options.drive)?;
    let (allow_other, owners) = (options.allow_other, options.owners.of_mount());
    let (at, mapping) = (options.at.clone(), options.mapping);
    let keep = if at.is_some() { Keep::Nothing } else { Keep::of(options.write_back) };
    let (accept_rollback, grace) = (options.accept_rollback, options.replace_after);
    // A state that nodes keep is had without the root, which may be lost.
    let state = match at.as_ref().filter(|at| past::is_name(at)) {
        Some(at) => match Subject::of(options.of.as_deref(), &options.client)? {
            Subject::Within => return Err(Failure::NoState),
            subject => Some((subject, at.clone())),
        },
        None if options.of.is_some() => return Err(Failure::NoState),
        None => None,
    };
    let nodes = Nodes::of(&settings)?;
    process::run(move || {
        let stop = Stop::on_signals()?;
        let spinner = progress::spinner("reaching the nodes");
        let cache = plan.open(&settings.user()?);
        let ready = stop.unless_open(|| {
            let may_be_offline = state.is_none() && cache.as_ref().is_some_and(|cache| cache.has_roots());
            let client = match may_be_offline {
                true => Client::connect_or_go_on(&settings)?,
                false => Client::connect_with_patience(&settings)?,
            };
            // Said first: the nodes are there, and it is in vain to look for them.
            let removed = removed::refuse(client.overlay(), removed::USER);
            if let Err(failure) = &removed {
                say_removed(failure, directory.path());
                cache.iter().for_each(|cache| cache.disk().on_removed());
            }
            let telling = progress::tell_if_long(
                "opening it takes a while: its root is asked for from the nodes that keep it, and what waits here in the journal is put in",
            );
            let view = state.as_ref().map(|(subject, name)| past::view(subject, &client, &settings, name));
            let view = view.transpose()?.flatten();
            let is_view = view.is_some();
            let opened = match view {
                Some(view) => (view, None),
                None => client.open_volume(&Opening {
                    directory: &directory,
                    seen_directory: Some(&seen_directory),
                    keep,
                    accept_rollback,
                    cache: cache.as_deref(),
                    is_removed: removed.is_err(),
                })?,
            };
            drop(telling);
            if let Some(others) = &others
                && cache.as_ref().is_none_or(|cache| cache.offline_for().is_none())
            {
                client.put_in_what_is_left(others);
            }
            let (volume, seen) = opened;
            let volume = match &at {
                Some(at) if !is_view => at::leave_for(&volume, at, &directory)?,
                _ => volume,
            };
            if at.is_some() {
                say_of_spaces(&settings)?;
            }
            let admitting = match &settings.home {
                Some(home) => {
                    if let Some(away) = OwnerAway::of(home, &settings.network) {
                        say(away.in_words());
                    }
                    let store = client.block_store();
                    Admitting::start(home, &settings.network, client.overlay(), &store, None)?
                }
                None => None,
            };
            Ok::<_, Failure>((client, (volume, seen), admitting, removed.is_err()))
        });
        spinner.finish_and_clear();
        let Some(ready) = ready else { return Ok(()) };
        let (client, (volume, seen), admitting, was_removed) = ready?;
        // Not before: whoever is stopped while it opens gives nothing back.
        client.map_ports(mapping);
        // A snapshot is looked at, and no more.
        let owned = seen.as_ref().filter(|_| at.is_none() && client.owns_the_root());
        let of_spaces = settings.home.as_ref().filter(|_| owned.is_some());
        let of_spaces =
            of_spaces.map(|home| ReplacingSpaces::start(home, &client.block_store(), &nodes, grace));
        let what = "the drive's root".to_owned();
        let replacing = owned.and_then(|seen| Replacing::start(seen, what, nodes, grace));
        let spaces = at.is_none().then(|| {
            Rc::new(Spaces {
                overlay: client.overlay().clone(),
                local: None,
                network: settings.network.clone(),
                user: client.user().clone(),
                directory: directory.path().to_owned(),
                seen_directory: Some(seen_directory.clone()),
                keep,
                accept_rollback,
                cache: cache.clone(),
                state: spaces::State::new(was_removed),
            })
        });
        // What is pinned is kept as it is, and not as it was.
        let keeper = cache.as_ref().zip(spaces.as_ref()).map(|(cache, spaces)| {
            cache.tell_of(&volume);
            pins::keep(cache.clone(), &base, &volume, spaces.clone())
        });
        let watching = removed::watch(client.overlay(), removed::USER, {
            let (volume, cache, directory) = (volume.clone(), cache.clone(), directory.path().to_owned());
            let spaces = spaces.clone();
            move |failure| {
                if !was_removed {
                    say_removed(&failure, &directory);
                }
                cache.iter().for_each(|cache| cache.disk().on_removed());
                volume.on_removed();
                reactor::offload(move || waits::note(&directory, Some(Cause::Removed)));
                spaces.iter().for_each(|spaces| spaces.on_removed());
            }
        });
        let source = settings.network.mark();
        let place = Place { mountpoint: &mountpoint, source, allow_other, owners, spaces };
        let result = drive::serve(volume, directory.path(), &place, &stop, || {
            say(format_args!("the drive is {}", mountpoint.display()));
            say(format_args!(
                "Ctrl-C here, or `storage-node umount {}` elsewhere, unmounts it",
                mountpoint.display()
            ));
        });
        replacing.into_iter().for_each(Replacing::stop);
        of_spaces.into_iter().for_each(ReplacingSpaces::stop);
        drop((admitting, watching));
        keeper.iter().for_each(|keeper| keeper.finish());
        cache.iter().for_each(|cache| cache.close());
        drop(seen);
        let removed = removed::refuse(client.overlay(), removed::USER);
        client.leave();
        if result.is_ok() && removed.is_ok() && at.is_none() {
            say("everything is stored");
        }
        result.and(removed)
    })
}

/// A state has what one volume was, and spaces are others: their names are in it, and that is all.
fn say_of_spaces(settings: &Settings) -> Result<(), Failure> {
    let known: Vec<String> = spaces::known(settings)?.into_iter().map(|(_, path)| printable(&path)).collect();
    if !known.is_empty() {
        say(format_args!(
            "what spaces had is not in it ({}): each has snapshots of its own, in its .snapshots where the drive is mounted \
             (`snapshots --of DIR` lists them), and a past of its own (`past DIR`)",
            known.join(", ")
        ));
    }
    Ok(())
}

/// Says that the user was removed, and what becomes of the drive with the client's directory `directory`.
fn say_removed(failure: &Failure, directory: &Path) {
    say(format_args!(
        "{failure}\nnothing is stored any more; what this machine has can be read and copied elsewhere, and what was written \
         and not stored stays in the journal of {}: {}, of the spaces too",
        directory.display(),
        waits::way_out(directory)
    ));
}
