//! `mount`: the drive from a process that stores nothing itself.
//!
//! All it needs is the network's description, the user's key and one running node. Its cache may be empty.

use crate::cli::Mount;
use crate::client::{self, Client};
use crate::drive;
use crate::errors::Failure;
use crate::files;
use crate::home::Lock;
use crate::mountpoint;
use crate::output::say;
use crate::process;
use crate::progress;
use crate::stop::Stop;
use crate::volume::{Keep, Opening};

/// Runs the command.
///
/// # Errors
/// What keeps the drive from being usable.
pub(crate) fn mount(options: &Mount) -> Result<(), Failure> {
    let settings = client::settings(&options.client)?;
    let directory = options.cache.clone().or_else(|| settings.directory.clone()).ok_or(Failure::NoHome)?;
    files::private_directory(&directory)?;
    let _lock = Lock::take(&directory)?;
    let mountpoint = mountpoint::prepare(&options.drive)?;
    let (keep, accept_rollback) = (Keep::of(options.write_back), options.accept_rollback);
    process::run(move || {
        let stop = Stop::on_signals()?;
        let spinner = progress::spinner("reaching the nodes");
        let ready = stop.unless_open(|| {
            let client = Client::connect(&settings)?;
            let opened = client.open_volume(&Opening {
                directory: &directory,
                seen_directory: Some(&directory),
                keep,
                accept_rollback,
            })?;
            Ok::<_, Failure>((client, opened))
        });
        spinner.finish_and_clear();
        let Some(ready) = ready else { return Ok(()) };
        let (client, (volume, seen)) = ready?;
        let result = drive::serve(volume, &mountpoint, &stop, || {
            say(format_args!("the drive is {}", mountpoint.display()));
            say(format_args!(
                "Ctrl-C here, or `storage-node umount {}` elsewhere, unmounts it",
                mountpoint.display()
            ));
        });
        drop(seen);
        client.leave();
        if result.is_ok() {
            say("everything is stored");
        }
        result
    })
}
