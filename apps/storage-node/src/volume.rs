//! Opening the network's one volume: from settings files to something that can be mounted.
//!
//! The volume is a register of the user's. Whoever comes first makes it; two that come first at once are told apart
//! by the register itself, and the loser opens the winner's. Not here: what a volume is (`filesystem::volume`).

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use dht::BlockStore;
use filesystem::access::VolumeKeys;
use filesystem::volume::{OpenError, Options, Volume};
use reactor::crypto::random_bytes;
use serde::{Deserialize, Serialize};

use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::identity::Member;
use crate::network::Network;

/// How often another writer's commits are looked for. A second is soon enough for files that somebody else put
/// there, and one small question a second is nothing.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// `device.json` of a client's directory: what tells this machine's crashed mounts from another's.
#[derive(Serialize, Deserialize)]
struct Device {
    number: u64,
}

impl Kind for Device {
    const KIND: &'static str = "hypha device";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
}

/// Opens the volume of `network`, or makes it. `directory` holds the journal.
///
/// # Errors
/// `Failure::Volume`, or those of the directory.
///
/// # Suspends
/// Until its root is known and the journal of the last run is replayed.
pub(crate) fn open(
    store: Rc<dyn BlockStore>,
    network: &Network,
    user: &Member,
    directory: &Path,
    write_back: bool,
) -> Result<Rc<Volume>, Failure> {
    let writer = user.identity.public_key();
    if network.volume_owner.0 != *writer.as_bytes() {
        return Err(Failure::Volume {
            reason: "this key is not the one that owns the network's volume".into(),
        });
    }
    files::private_directory(directory)?;
    let mut options = Options::default();
    options.author = author();
    options.device = device(directory)?;
    options.watch_interval = Some(WATCH_INTERVAL);
    let keys = VolumeKeys {
        register: store.new_register(network.volume_salt.0, vec![writer]),
        secret: user.identity.sealing_key(),
        readers: Vec::new(),
    };
    let journal = directory.join("journal");
    if write_back {
        options.journal_directory = Some(journal);
    } else if journal.exists() {
        // The last run was with --write-back: what it acknowledged goes to the nodes first.
        options.journal_directory = Some(journal.clone());
        let failed = |reason: String| Failure::Volume { reason };
        let volume = Volume::open(store.clone(), keys.clone(), options.clone())
            .map_err(|error| failed(error.to_string()))?;
        volume
            .close()
            .map_err(|errno| failed(format!("the journal of the last run could not be stored: {errno}")))?;
        std::fs::remove_dir_all(&journal).map_err(|error| Failure::file(&journal, error))?;
        options.journal_directory = None;
    }
    let opened = match Volume::open(store.clone(), keys.clone(), options.clone()) {
        Err(OpenError::Missing) => {
            let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            match Volume::create(store.clone(), keys.clone(), options.clone(), owner) {
                Err(OpenError::Exists) => Volume::open(store, keys, options),
                other => other,
            }
        }
        other => other,
    };
    opened.map_err(|error| Failure::Volume { reason: error.to_string() })
}

fn device(directory: &Path) -> Result<u64, Failure> {
    let path = directory.join("device.json");
    match files::load::<Device>(&path) {
        Ok(device) => Ok(device.number),
        Err(Failure::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let device = Device { number: u64::from_le_bytes(random_bytes()) };
            files::save(&path, &device)?;
            Ok(device.number)
        }
        Err(other) => Err(other),
    }
}

/// Who we are in the name of a conflicting file: user@host.
fn author() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| rustix::process::geteuid().as_raw().to_string());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_keeps_its_number() {
        let directory = tempfile::tempdir().unwrap();
        let first = device(directory.path()).unwrap();
        assert_eq!(device(directory.path()).unwrap(), first);
    }
}
