//! `storage-node`: storage nodes, an encrypted drive, or both, from one command line.
//!
//! This file only chooses the command and prints how it ended: 0 if it did what was asked, 1 if not (with the reason
//! and the next step on standard error), 2 for a command line that makes no sense. Each command has a file of its own.

#![forbid(unsafe_code)]

mod admitting;
mod at;
mod author;
mod belongings;
mod cache;
mod children;
mod cli;
mod client;
mod client_directory;
mod clocks;
mod copies;
mod diff;
mod drive;
mod errand;
mod errors;
mod files;
mod gc;
mod groups;
mod guard;
mod history;
mod home;
mod identity;
mod invite;
mod join;
mod journal;
mod keepers;
mod keeping;
mod keyring;
mod leaving;
mod log_file;
mod member_name;
mod members;
mod mount;
mod mountpoint;
mod name;
mod netcheck;
mod network;
mod node;
mod nodes;
mod outcome;
mod output;
mod owner;
mod passphrase;
mod past;
mod pins;
mod process;
mod progress;
mod qr;
mod recover;
mod recovery;
mod remove;
mod removed;
mod replaced;
mod replacing;
mod replacing_spaces;
mod report;
mod restore;
mod retention;
mod roll;
mod rollback;
mod run;
mod scratch;
mod secrets;
mod seen;
mod share;
mod sharing;
mod shelf;
mod snapshot;
mod space_lists;
mod spaces;
mod status;
mod stop;
mod umount;
mod undelete;
mod up;
mod values;
mod volume;
mod waits;
mod words;

use std::io::IsTerminal;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use cli::{Cli, Command, SecretOptions};
use errors::Failure;

fn main() -> ExitCode {
    process::prepare();
    let (command, secrets) = Cli::command_of_this_process();
    // Warnings only, lest the few lines that a command prints drown; and nodes that are not up yet are no news to the
    // overlay of a network that is just starting. HYPHA_LOG=debug shows what happens. A dump was asked for.
    let filter =
        EnvFilter::try_from_env("HYPHA_LOG").unwrap_or_else(|_| EnvFilter::new("warn,overlay=error"));
    let filter = filter.add_directive("reactor::dump=info".parse().expect("it is a directive"));
    // What a person reads at a terminal are lines among those that the command prints; a log has times.
    let is_asked = std::env::var_os("HYPHA_LOG").is_some();
    let is_read = std::io::stderr().is_terminal() && !is_asked;
    // Its own complaints about a log that can't be written would go to standard error, and panic there.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(output::Log)
        .log_internal_errors(false)
        .with_target(true);
    if is_read {
        log.with_ansi(false).event_format(output::PlainEvents).init();
    } else {
        log.init();
    }
    output::tell_panics();
    let result =
        keyring::unlock(&command.key_files(), &secrets.given()).and_then(|()| perform(command, &secrets));
    output::settle();
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure @ Failure::ReaderGone) => ExitCode::from(failure.exit_code()),
        Err(failure) => {
            output::warn(format_args!("error: {failure}"));
            if let Some(advice) = failure.advice() {
                output::warn(format_args!("  try: {advice}"));
            }
            ExitCode::from(failure.exit_code())
        }
    };
    output::settle();
    code
}

fn perform(command: Command, secrets: &SecretOptions) -> Result<(), Failure> {
    match command {
        Command::Up(options) => up::up(&options),
        Command::Run(options) => run::run(&options),
        Command::Mount(options) => mount::mount(&options),
        Command::Umount(options) => umount::umount(&options),
        Command::Status(options) => status::status(&options),
        Command::Netcheck(options) => netcheck::netcheck(&options),
        Command::Put(options) => values::put(&options),
        Command::Get(options) => values::get(&options),
        Command::Gc(options) => gc::gc(&options),
        Command::Journal(options) => journal::journal(&options),
        Command::Pin(options) => pins::pin(&options),
        Command::Unpin(options) => pins::unpin(&options),
        Command::Pins(options) => pins::pins(&options),
        Command::Snapshot(options) => snapshot::snapshot(&options),
        Command::Snapshots(options) => snapshot::snapshots(&options),
        Command::Diff(options) => diff::diff(&options),
        Command::History(options) => history::history(&options),
        Command::Restore(options) => restore::restore(&options),
        Command::Undelete(options) => undelete::undelete(&options),
        Command::Past(options) => past::past(&options),
        Command::Rollback(options) => rollback::rollback(&options),
        Command::Retention(options) => retention::retention(&options),
        Command::Node(options) => keepers::node(&options),
        Command::Invite(options) => invite::invite(&options),
        Command::Join(options) => join::join(&options),
        Command::Members(options) => members::members(&options),
        Command::Remove(options) => remove::remove(&options),
        Command::Share(options) => share::share(&options),
        Command::Unshare(options) => share::unshare(&options),
        Command::Access(options) => share::access(&options),
        Command::Group(options) => groups::group(&options),
        Command::Recovery(options) => recovery::recovery(&options),
        Command::Recover(options) => recover::recover(&options),
        Command::Passphrase(options) => passphrase::passphrase(&options, &secrets.passphrase()),
        Command::Owner(options) => owner::owner(&options, &secrets.owner_passphrase()),
    }
}
