//! Which journals there are on this machine, and what each is of.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use dht::block::mutable::{Genesis, Signed};
use dht::owner_tag;
use filesystem::access::VolumeKeys;
use filesystem::disk_cache::CachedStore;
use filesystem::format::{Shown, printable};
use filesystem::nowhere::Nowhere;
use filesystem::volume::LeftBehind;

use super::Store;
use crate::cache::Cache;
use crate::client::{Client, Settings};
use crate::client_directory::{self, ClientDirectory};
use crate::errors::Failure;
use crate::home::Lock;
use crate::identity::Member;
use crate::network::Network;
use crate::spaces;

/// One journal.
pub(super) struct Place {
    /// "the drive", or which space.
    pub(super) name: String,
    /// What the paths in it begin with, as people say them.
    pub(super) prefix: Vec<String>,
    /// Where its files go in an export.
    pub(super) target: PathBuf,
    /// The directory that its journal is in.
    pub(super) directory: PathBuf,
    genesis: Signed<Genesis>,
}

/// Those of the clients of these settings in which something waits, or of the one with this directory.
pub(super) fn all(settings: &Settings, directory: Option<&Path>) -> Vec<Result<Place, Failure>> {
    clients(settings, directory).iter().flat_map(|client| of_client(settings, client)).collect()
}

/// Files of journals that could not be read to their end, which nothing puts in, of the clients of these settings or of the one with this
/// directory.
pub(super) fn damaged(settings: &Settings, directory: Option<&Path>) -> Vec<PathBuf> {
    let files_in = |directory: PathBuf| {
        std::fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect::<Vec<_>>()
    };
    let journals = |client: PathBuf| {
        let spaces = files_in(client_directory::spaces_of(&client));
        [vec![client], spaces]
            .concat()
            .into_iter()
            .map(|of| client_directory::journal_of(&of))
            .collect::<Vec<_>>()
    };
    let mut found: Vec<PathBuf> =
        clients(settings, directory).into_iter().flat_map(journals).flat_map(files_in).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("damaged-")));
    found.sort();
    found
}

fn clients(settings: &Settings, directory: Option<&Path>) -> Vec<PathBuf> {
    match (directory, &settings.clients) {
        (Some(directory), _) => vec![directory.into()],
        (None, Some(base)) => ClientDirectory::all(base).collect(),
        (None, None) => Vec::new(),
    }
}

fn of_client(settings: &Settings, client: &Path) -> Vec<Result<Place, Failure>> {
    // A second client's are told apart by its number.
    let number =
        client.file_name().and_then(|name| name.to_str()?.strip_prefix("client-")).unwrap_or_default();
    let told_apart = |name: &str| match number {
        "" => name.to_owned(),
        number => format!("{name}-{number}"),
    };
    let mut places = Vec::new();
    if client_directory::has_left(client) {
        places.push(crate::volume::genesis(&settings.network).map(|genesis| Place {
            name: format!("the drive, in {}", client.display()),
            prefix: Vec::new(),
            target: told_apart("drive").into(),
            directory: client.into(),
            genesis,
        }));
    }
    places.extend(spaces::left_in(client).map(|(directory, found)| {
        found.map(|(link, name)| Place {
            name: format!("the space {}, in {}", Shown::of(&name), directory.display()),
            prefix: vec![Shown::of(&name).to_string()],
            target: Path::new(&told_apart("spaces")).join(place_name(&printable(&name), &directory)),
            genesis: link.genesis().clone(),
            directory,
        })
    }));
    places
}

/// The name of a space as that of a directory: two may have one name, in different directories of the drive.
fn place_name(name: &str, directory: &Path) -> String {
    let id = directory.file_name().unwrap_or_default().to_string_lossy();
    format!("{} {}", name.trim_start_matches('.'), id.get(..8).unwrap_or(&id))
}

impl Place {
    /// Whether a drive uses it now.
    pub(super) fn is_in_use(&self) -> bool {
        matches!(Lock::take(&self.directory), Err(Failure::Locked { .. }))
    }

    /// Opens what waits in it; `None` if nothing does.
    ///
    /// # Errors
    /// `Failure::Journal`.
    ///
    /// # Suspends
    /// While it is read.
    pub(super) fn open(
        &self,
        network: &Network,
        user: &Member,
        client: Option<&Client>,
        cache: Option<&Cache>,
    ) -> Result<Option<LeftBehind>, Failure> {
        let store: Store = match client {
            Some(client) => Rc::new(client.space_store(network, &self.genesis)),
            None => Rc::new(Nowhere { tag: owner_tag(&self.genesis.owner, &self.genesis.salt) }),
        };
        let register = self.genesis.register();
        let store = match cache {
            Some(cache) => Rc::new(CachedStore::new(store, cache.root(&register, &*self.name), None)),
            None => store,
        };
        let keys = VolumeKeys { register, secret: user.identity.sealing_key(), readers: Vec::new() };
        LeftBehind::open(store, keys, &client_directory::journal_of(&self.directory))
            .map_err(|error| Failure::Journal { reason: format!("{}: {error}", self.name) })
    }
}
