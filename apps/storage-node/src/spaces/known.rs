//! What a home knows of spaces without the drive: which there are, who keeps their roots, and how one of this user's own is opened.
//!
//! Not here: those of a mounted drive ([`super`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use dht::block::configuration::Membership;
use dht::block::mutable::{Genesis, Signed};
use dht::{BlockStore, RegisterAddress};
use filesystem::access::{SpaceLink, VolumeKeys};
use filesystem::disk_cache::CachedStore;
use filesystem::format::Shown;
use filesystem::volume::Volume;
use overlay::Node;

use super::{MEMORY_BYTES, SpaceFile};
use crate::client;
use crate::client_directory::{self, ClientDirectory};
use crate::errors::Failure;
use crate::files;
use crate::home::Home;
use crate::identity::Member;
use crate::roll::Roll;
use crate::seen::{self, Seen};
use crate::volume::{Opening, Watched};

/// The spaces that a home knows, each with where it was put, or what it is called where only that is known: those that the owner made
/// there, and those that were opened on this machine. Blocks.
///
/// # Errors
/// Those of the roll, and of what is known of the opened ones.
pub(crate) fn known(settings: &client::Settings) -> Result<Vec<(SpaceLink, String)>, Failure> {
    let mut known: BTreeMap<RegisterAddress, (SpaceLink, String)> = BTreeMap::new();
    for client in settings.clients.iter().flat_map(|base| ClientDirectory::all(base)) {
        let directories = std::fs::read_dir(client.join("spaces")).into_iter().flatten().flatten();
        for file in directories.map(|entry| entry.path().join("space.json")).filter(|file| file.exists()) {
            let (link, name) = read_space_file(&file)?;
            known.insert(link.register(), (link, name));
        }
    }
    let roll = settings.home.as_ref().map(Roll::read).transpose()?.unwrap_or_default();
    for space in roll.spaces.into_iter().filter(|space| space.is_linked) {
        let link = SpaceLink::new(space.genesis()?);
        match space.is_given_up {
            true => known.remove(&link.register()),
            false => known.insert(link.register(), (link, space.path)),
        };
    }
    Ok(known.into_values().collect())
}

/// Forgets what clients of this machine kept of a space that there is no more, but for what waits in their journals, or is kept of
/// damaged ones: returns where that is. Blocks.
pub(crate) fn forget(clients: &Path, register: &RegisterAddress) -> Vec<PathBuf> {
    let mut kept = Vec::new();
    for client in ClientDirectory::all(clients) {
        let path = client_directory::of_space(&client, register);
        if !path.is_dir() {
            continue;
        }
        // A drive that has it open forgets nothing, and finds it gone when it looks again.
        let Ok(directory) = ClientDirectory::take(&path) else { continue };
        // Not before: who has had it open until now may have left something.
        if directory.has_work() {
            kept.push(directory.journal());
            continue;
        }
        let forgotten = std::fs::remove_dir_all(&path);
        drop(directory);
        if let Err(error) = forgotten {
            tracing::debug!(%error, "what was kept of a space that was removed stays");
        }
    }
    kept
}

pub(super) fn read_space_file(file: &Path) -> Result<(SpaceLink, String), Failure> {
    let SpaceFile { genesis, name } = files::load(file)?;
    let genesis = Signed::<Genesis>::from_bytes(&genesis.0).map_err(|error| Failure::damaged(file, error))?;
    Ok((SpaceLink::new(genesis), name))
}

/// Opens a space of this user's own, by what made it; `None` if its making was cut short, and it has no root. What is returned beside
/// it is to be dropped after the volume is closed: it keeps what was seen of it.
///
/// # Errors
/// `Failure::Space`, `Failure::Volume`, or those of what was seen.
///
/// # Suspends
/// Until its root is known.
pub(crate) fn open_own(
    store: &dht::Client<Rc<Node>>,
    genesis: &Signed<Genesis>,
    path: &str,
    user: &Member,
    opening: &Opening<'_>,
) -> Result<Option<Watched>, Failure> {
    let failed = |reason: String| Failure::Space {
        reason: format!("the space {} cannot be opened: {reason}", Shown::of(path)),
        advice: "`status` shows which nodes answer, `access DIR` who may do what in it",
    };
    let membership = membership(genesis, opening.seen_directory)?;
    let register = store.open_register(membership).map_err(|error| failed(error.to_string()))?;
    let kept = opening.cache.map(|cache| cache.root(&register, format!("the space {}", Shown::of(path))));
    let recall = |directory| Seen::recall(store, register, directory, opening.accept_rollback, kept.clone());
    let seen = opening.seen_directory.map(recall).transpose()?;
    if store.read(&register).map_err(|error| failed(error.to_string()))?.is_none() {
        return Ok(None);
    }
    let mut options = opening.options(user, true);
    (options.cache_bytes, options.dirty_bytes_max) = (MEMORY_BYTES, MEMORY_BYTES);
    let keys = VolumeKeys { register, secret: user.identity.sealing_key(), readers: Vec::new() };
    let blocks: Rc<dyn BlockStore> = match kept {
        Some(root) => Rc::new(CachedStore::new(Rc::new(store.clone()), root, None)),
        None => Rc::new(store.clone()),
    };
    let volume = Volume::open(blocks, keys, options).map_err(|error| failed(error.to_string()))?;
    if let Some(Err(failure)) = seen.as_ref().map(Seen::remember_keepers) {
        let _ = volume.close();
        return Err(failure);
    }
    Ok(Some((volume, seen)))
}

/// Who keeps a space's root, or the register of the groups: those whom the genesis record names, or, if this machine has seen that since, whoever was put in
/// their place.
///
/// # Errors
/// `Failure::Volume`, or those of what was seen.
pub(crate) fn membership(
    genesis: &Signed<Genesis>,
    seen_directory: Option<&Path>,
) -> Result<Membership, Failure> {
    let register = genesis.register();
    let (mut seen, mut described) = (None, None);
    if let Some(directory) = seen_directory {
        seen = seen::configuration(directory, &register)?;
        if let Some(home) = Home::around(directory) {
            let Roll { spaces, groups, .. } = Roll::read(&home)?;
            let is_it = |known: Result<Signed<Genesis>, Failure>| {
                known.is_ok_and(|known| known.register() == register)
            };
            let space = spaces.iter().find(|space| is_it(space.genesis()));
            let groups = groups.filter(|groups| is_it(groups.genesis()));
            described = match groups {
                Some(groups) => groups.configuration()?,
                None => space.map(|space| space.configuration()).transpose()?.flatten(),
            };
        }
    }
    let membership = match [seen, described].into_iter().flatten().max_by_key(|newest| newest.epoch) {
        Some(newest) => Membership::from(genesis.clone()).followed_by(newest),
        None => genesis.clone().into(),
    };
    membership.verify().map_err(|error| crate::volume::failed(error.to_string()))?;
    Ok(membership)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_space_that_is_gone_all_is_forgotten_but_work_that_is_nowhere_else() {
        let clients = tempfile::tempdir().unwrap();
        let register = RegisterAddress([7; 32]);
        let of = |client: &str| client_directory::of_space(&clients.path().join(client), &register);
        for (client, file) in [
            ("client", "sessions"),
            ("client-2", "journal-0000000000000001"),
            ("client-3", "damaged-0000000000000001-0"),
        ] {
            let directory = ClientDirectory::take(&of(client)).unwrap();
            std::fs::create_dir(directory.journal()).unwrap();
            std::fs::write(directory.journal().join(file), "x").unwrap();
        }
        // Whoever has it open may leave something yet.
        let open = ClientDirectory::take(&of("client-4")).unwrap();
        let kept = forget(clients.path(), &register);
        assert_eq!(kept, ["client-2", "client-3"].map(|client| of(client).join("journal")));
        assert!(!of("client").exists() && open.path().is_dir());
        assert!(of("client-2").join("journal/journal-0000000000000001").is_file());
        assert!(of("client-3").join("journal/damaged-0000000000000001-0").is_file());
    }
}
