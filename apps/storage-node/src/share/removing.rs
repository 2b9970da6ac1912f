//! `unshare --remove`: a space that is to be none any more.
//!
//! First the nodes take nothing more for it, and nobody opens it; then its link goes from the drive. Whoever kills this in between and
//! says it again has it gone on with. Between the look whether it is empty and that word nobody writes there unseen: the word takes the
//! place of the very root that was looked at. That one is kept in the home, so that `rollback` finds it; its blocks the nodes have
//! until `gc` deletes them, and for the retention after that.

use std::path::Path;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use dht::Record;
use dht::block::mutable::{Genesis, Signed};
use filesystem::access::{Root, SpaceLink, VolumeKeys};
use filesystem::operations::{Inode, Operations};
use filesystem::volume::{LinkError, Options, Place, Volume};

use super::{at_place, begun, is_no_space, of_link, refused};
use crate::author;
use crate::cli::Unshare;
use crate::client::{self, Client};
use crate::client_directory;
use crate::errand::with_volume;
use crate::errors::Failure;
use crate::home::Home;
use crate::keeping;
use crate::name::SpaceName;
use crate::network::Network;
use crate::output::{say, warn};
use crate::replaced;
use crate::sharing::Sharer;
use crate::space_lists::{self, Seal, Turn, sealed};
use crate::spaces;

/// A state that can be gone back to.
struct Kept {
    id: String,
}

/// Runs `unshare --remove`.
///
/// # Errors
/// As `unshare`; `Failure::Space` if there is something in it that is to stay.
pub(super) fn remove(
    options: &Unshare,
    home: &Home,
    network: &Network,
    name: &SpaceName,
) -> Result<(), Failure> {
    let settings = client::settings(&options.client)?;
    let (kept, link) = with_volume(&options.client, |client, volume| {
        let link = match volume.look_at_place(name.text()) {
            Ok(Place::Link(link)) => Some(link),
            // Somebody who may write to the drive may have taken it away.
            Ok(Place::Free(..)) | Err(LinkError::Occupied { .. } | LinkError::NoDirectory { .. }) => None,
            Err(error) => return Err(at_place(error)),
        };
        let turn = Turn::take(home)?;
        let find = || match &link {
            Some(link) => of_link(link, name, options.moved, home, network),
            None => begun(home, name)?.ok_or_else(|| is_no_space(name))?.genesis(),
        };
        let genesis = find()?;
        let store = client.block_store();
        let sharer = Sharer { home, network, store: &store, user: client.user() };
        let seal = space_lists::learn(&sharer, &turn, &genesis)?;
        // Where it was put the roll may know only now.
        if link.is_some() {
            find()?;
        }
        let kept = match seal {
            Seal::Ours => Some(strike_off(&sharer, &turn, client, &genesis, name, options.with_content)?),
            Seal::Others(error) => return Err(sealed(&error)),
            // This was cut short, or it was given up before.
            Seal::GivenUp => None,
        };
        if let Some(link) = &link {
            volume.remove_link(name.text(), link).map_err(at_place)?;
        }
        keeping::once(&settings, client.overlay());
        Ok((kept, SpaceLink::new(genesis).encode()))
    })?;
    let left = match (&settings.clients, SpaceLink::decode(&link, &network.volume_owner())) {
        (Some(clients), Some(link)) => spaces::forget(clients, &link.register()),
        _ => Vec::new(),
    };
    let path = name;
    say(format_args!(
        "{path} is removed: its name is not in the drive any more, nobody opens what was in it, and the nodes take nothing more for it"
    ));
    if let Some(Kept { id }) = kept {
        say(format_args!(
            "what it held the nodes have until `gc` deletes it, and for the retention after that: until then `rollback {path} --to {id}` \
             brings it back"
        ));
    }
    for journal in left {
        warn(format_args!(
            "what was written to {path} on this machine and could not be stored, or read again, is kept in {}",
            journal.display()
        ));
    }
    Ok(())
}

/// Gives it up as it is now, and keeps what that was.
fn strike_off(
    sharer: &Sharer<'_>,
    turn: &Turn,
    client: &Client,
    genesis: &Signed<Genesis>,
    name: &SpaceName,
    with_content: bool,
) -> Result<Kept, Failure> {
    let directory = client_directory::first(sharer.home.path());
    let store = client.space_store(sharer.network, genesis);
    let kept = reactor::cell::RefCell::new(None::<Record>);
    let may = |keys: &VolumeKeys, record: &Record, root: Option<&Root>| {
        let root = root.ok_or_else(|| {
            refused("somebody who may write there has just sealed it to others", "say it again")
        })?;
        if !with_content && !is_empty(&store, keys, genesis, &directory, root)? {
            return Err(refused(
                format!("{name} is not empty"),
                "remove what is in it first, or say --with-content",
            ));
        }
        let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = kept.replace(Some(record.clone()));
        replaced::keep(&directory, &keys.register, record, before.as_ref(), now.as_secs())
    };
    space_lists::strike_off(sharer, turn, genesis, &may)?;
    let kept = kept.into_inner().ok_or_else(|| Failure::Internal("a space was removed unseen".into()))?;
    Ok(Kept { id: crate::past::id_of(&kept.header_hash.0) })
}

fn is_empty(
    store: &dht::Client<Rc<overlay::Node>>,
    keys: &VolumeKeys,
    genesis: &Signed<Genesis>,
    seen_directory: &Path,
    root: &Root,
) -> Result<bool, Failure> {
    if root.tree.is_none() {
        return Ok(true);
    }
    let register = store
        .open_register(spaces::membership(genesis, Some(seen_directory))?)
        .map_err(|error| crate::volume::failed(error.to_string()))?;
    let unread = |errno: filesystem::Errno| {
        refused(
            format!("what is in it cannot be read: {errno}"),
            "see that the nodes run (`status`), and try again",
        )
    };
    let mut options = Options::default();
    options.author = author::author();
    let view = Volume::as_of(Rc::new(store.clone()), VolumeKeys { register, ..keys.clone() }, &options, root)
        .map_err(unread)?;
    let entries = view.read_directory(Inode::ROOT, 0, 8, false).map_err(unread)?;
    let _ = view.close();
    Ok(entries.iter().all(|entry| matches!(&*entry.name, b"." | b"..")))
}
