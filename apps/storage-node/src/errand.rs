//! Commands that open the volume for one thing, as clients of their own: a drive that is mounted goes on meanwhile.
//!
//! Not here: which volume it is where a path leads into a space (`place`).

mod place;

use std::path::Path;
use std::rc::Rc;

use filesystem::volume::Volume;

use crate::cache::{Cache, Plan, Usual};
use crate::cli::ClientOptions;
use crate::client::{self, Client};
use crate::client_directory::ClientDirectory;
use crate::errors::Failure;
use crate::outcome::Outcome;
use crate::process;
use crate::removed;
use crate::volume::{Keep, Opening};
pub(crate) use place::{Need, with_client_at, with_place, with_place_or_all, with_spaces_too};

/// What a command has open.
struct Opened<'a> {
    client: &'a Client,
    volume: &'a Volume,
    /// The command's own.
    directory: &'a ClientDirectory,
    seen_directory: Option<&'a Path>,
    cache: Option<&'a Rc<Cache>>,
}

/// Opens the volume, does `work`, and closes it.
///
/// # Errors
/// What keeps the volume from being opened, that of `work`, or `Failure::NotStored`.
pub(crate) fn with_volume<T: Send>(
    options: &ClientOptions,
    work: impl FnOnce(&Client, &Volume) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    with_opened(options, |opened| work(opened.client, opened.volume))
}

fn with_opened<T: Send>(
    options: &ClientOptions,
    work: impl FnOnce(&Opened<'_>) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let settings = client::settings(options)?;
    // A journal of its own: a mounted drive of this home keeps using its own meanwhile.
    let directory = ClientDirectory::scratch()?;
    let seen_directory = settings.seen_directory();
    // What a command has seen, a mount must not be older than: where mounts keep a cache it keeps the root there, as they do.
    let base = settings.clients.as_deref();
    let plan = base.map(|base| Plan::make(base, None, None, Usual::AsBefore)).transpose()?;
    process::run(|| {
        let user = settings.user()?;
        let cache = plan.as_ref().and_then(|plan| plan.open(&user));
        let client = Client::connect(&settings)?;
        let (volume, seen) = client.open_volume(&Opening {
            directory: &directory,
            seen_directory: seen_directory.as_deref(),
            keep: Keep::Nothing,
            accept_rollback: false,
            cache: cache.as_deref(),
            is_removed: false,
        })?;
        let watching = removed::watch(client.overlay(), removed::USER, {
            let volume = volume.clone();
            move |_| volume.on_removed()
        });
        let opened = Opened {
            client: &client,
            volume: &volume,
            directory: &directory,
            seen_directory: seen_directory.as_deref(),
            cache: cache.as_ref(),
        };
        let result = work(&opened);
        drop(watching);
        let closed = Outcome::of(volume.close(), directory.path()).into_result();
        cache.iter().for_each(|cache| cache.close());
        drop(seen);
        let removed = removed::refuse(client.overlay(), removed::USER);
        client.leave();
        // Whatever failed, failed for that.
        let value = result.or_else(|failure| removed.and(Err(failure)))?;
        closed.map(|()| value)
    })
}
