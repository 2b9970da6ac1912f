//! `share`, `unshare` and `access`: a directory of the drive as a space of its own, and who may do what in it.
//!
//! A space is made in steps, each of which is on disk or on the nodes before the next: the record that makes its register goes into
//! the roll, then its first root is chosen, then its list is signed, and last its link is put into the drive. Said again after a
//! crash, `share` goes on where it was. Nobody sees the directory before everything behind it is there.
//!
//! Only the home that made the network shares: its user's key signs who may write, as for the drive.

mod naming;
mod removing;
mod showing;

use std::path::Path;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use dht::block::mutable::{Genesis, Signed};
use dht::{BlockStore, Record};
use filesystem::OpenError;
use filesystem::access::groups::GroupId;
use filesystem::access::list::{Access, AccessChange, AccessList, Found, PATH_SIZE_MAX};
use filesystem::access::{Root, RootError, SpaceLink, VolumeKeys, open_root};
use filesystem::format::Shown;
use filesystem::fuse::mount_table;
use filesystem::volume::{LinkError, Options, Place, Volume};
use overlay::{NodeId, Revocations};
use reactor::crypto::{PublicKey, random_bytes};

use crate::cli::{ClientOptions, Share, Unshare};
use crate::client::{self, Client};
use crate::client_directory;
use crate::errand::with_volume;
use crate::errors::Failure;
use crate::groups;
use crate::home::Home;
use crate::keeping;
use crate::mountpoint;
use crate::name::SpaceName;
use crate::network::{Hex, Network};
use crate::output::{say, warn};
use crate::roll::{Roll, SpaceEntry};
use crate::sharing::Sharer;
use crate::space_lists::{self, Seal, Turn, Wish, sealed};
use crate::spaces;
use crate::volume;
use naming::{guests, whom};
pub(crate) use showing::access;

/// As many as a mount shows.
const SPACES_MAX: usize = 64;
/// With those that were removed, which the roll remembers: some 600 bytes each of a file of at most 4 MiB.
const SPACES_EVER_MAX: usize = 512;
/// Mounts look for what others changed once a second.
const SHOWN_LIMIT: Duration = Duration::from_secs(5);
/// Hexadecimal digits of an id that are shown.
const SHOWN_DIGITS: usize = 12;

fn refused(reason: impl Into<String>, advice: &'static str) -> Failure {
    Failure::Space { reason: reason.into(), advice }
}

/// The home that shares, and its network.
fn owners_home(options: &ClientOptions) -> Result<(Home, Network), Failure> {
    let settings = client::settings(options)?;
    let home = settings.home.clone().filter(|_| {
        settings.user().is_ok_and(|user| user.identity.public_key() == settings.network.volume_owner())
    });
    let home = home.ok_or_else(|| {
        refused(
            "only the home that made the network shares parts of its drive",
            "say which that is with --home",
        )
    })?;
    Ok((home, settings.network))
}

/// Runs `share`.
///
/// # Errors
/// `Failure::Space`, `Failure::NoMember`, `Failure::Sharing`, or what keeps the volume from being opened.
pub(crate) fn share(options: &Share) -> Result<(), Failure> {
    let (home, network) = owners_home(&options.client)?;
    let name = SpaceName::of(&options.path, &options.client)?;
    // To commands that only look a slash at the front is the drive's top. What this makes stays, so it takes no other's path for one.
    let said = options.path.to_str().unwrap_or_default();
    if said.starts_with('/') && said.trim_matches('/') == name.text() {
        return Err(Failure::Name { name: said.into(), reason: "it lies in no mounted drive" });
    }
    if name.text().len() > PATH_SIZE_MAX {
        return Err(refused("the path is too long for a space", "put it less deep"));
    }
    let settings = client::settings(&options.client)?;
    let (is_new, told) = with_volume(&options.client, |client, volume| {
        let store = client.block_store();
        let sharer = Sharer { home: &home, network: &network, store: &store, user: client.user() };
        let turn = Turn::take(&home)?;
        if let Ok(Some((_, end))) = volume.link_on_the_way(name.text().as_bytes())
            && let Some(above) = name.text().get(..end).filter(|above| above.len() < name.text().len())
        {
            return Err(refused(
                format!("{} is a space, and a space lies in no other", Shown::of(above)),
                "share a directory that is in the drive itself; who may do what in a space, its list says for all that is in it",
            ));
        }
        let groups = groups::known(&sharer, options.read.iter().chain(&options.write))?;
        let guests = guests(options, &groups, &home, &network)?;
        let place = volume.look_at_place(name.text()).map_err(at_place)?;
        let begun = begun(&home, &name)?;
        let gone = begun.as_ref().filter(|space| space.is_linked && !leads_to(&place, space, &network));
        let (genesis, wish) = match (&place, gone) {
            (_, Some(space)) if options.put_back => {
                // With what was in it before: so nobody is let in by the way.
                if !guests.is_empty() {
                    return Err(refused(
                        format!("{name} is put back with what is in it, and for whom it was"),
                        "say it without names first, and look at it",
                    ));
                }
                let genesis = space.genesis()?;
                opens(space_lists::learn(&sharer, &turn, &genesis)?, &name)?;
                (genesis, Wish::AsItIs)
            }
            (_, None) if options.put_back && was_removed(&home, &name)? => {
                return Err(refused(
                    format!(
                        "the space {name} was removed, or given up, and is nothing to be put back as it is"
                    ),
                    "`past DIR` lists what it was: `rollback DIR --to ID` has it be that again, and then `share DIR --put-back` puts its name \
                     back",
                ));
            }
            (_, None) if options.put_back => {
                return Err(refused(
                    format!("no space that this home put at {name} is missing there"),
                    "`share DIR` without --put-back makes a new one, or changes who may do what",
                ));
            }
            (Place::Free(..), Some(_)) => {
                return Err(refused(
                    format!("{name} was a space, with what is in it, and its link is not there any more"),
                    "if you moved a directory above it, say `share NEW-PATH --moved`; if not, somebody who may write to the drive took \
                     it away: `share DIR --put-back` puts it there again",
                ));
            }
            (Place::Link(link), _) => {
                let genesis = of_link(link, &name, options.moved, &home, &network)?;
                let is_begun = is_begun(&home, &genesis)?;
                opens(space_lists::learn(&sharer, &turn, &genesis)?, &name)?;
                // Where it was put the roll may know only now.
                of_link(link, &name, options.moved, &home, &network)?;
                // A making that was cut short came as far as its link: whom it was to let in, this one does not.
                (genesis, if is_begun { Wish::Exactly(guests) } else { Wish::With(guests) })
            }
            (Place::Free(..), None) if options.moved => return Err(is_no_space(&name)),
            // Whom a making that was cut short was to let in, or did let in, this one does not.
            (Place::Free(uid, gid), None) => {
                let genesis = make(&sharer, client, &name, begun, (*uid, *gid))?;
                opens(space_lists::learn(&sharer, &turn, &genesis)?, &name)?;
                (genesis, Wish::Exactly(guests))
            }
        };
        let published = naming::publish(&sharer, &turn, &genesis, name.text(), &wish)?;
        let is_new = options.put_back || matches!(place, Place::Free(..));
        // Of a space that is put back nothing is changed, and whoever puts it back is to know for whom it is.
        let told: Vec<AccessChange> = match wish {
            Wish::AsItIs | Wish::Writers => {
                published.list.present().filter(|change| change.key != genesis.owner).cloned().collect()
            }
            Wish::With(_) | Wish::Exactly(_) => published.changed,
        };
        let told = (published.list, told);
        let own = SpaceLink::new(genesis.clone()).encode();
        match &place {
            Place::Free(..) => volume.make_link(name.text(), &own).map_err(at_place)?,
            Place::Link(link) if options.put_back => {
                volume.replace_link(name.text(), link, &own).map_err(at_place)?;
            }
            Place::Link(_) => {}
        }
        change_roll(&home, |roll| {
            let entry = roll.space_or_new(&genesis, name.text());
            (entry.is_linked, entry.path) = (true, name.text().into());
        })?;
        // Whoever brings this home back from its words knows of the space.
        keeping::once(&settings, client.overlay());
        Ok((is_new, told))
    })?;
    tell(name.text(), &told.0, &told.1);
    wait_until_shown(Path::new(&options.path));
    if is_new && options.put_back {
        say(format_args!("{name} is there again, with what was in it"));
    } else if is_new {
        say(format_args!("{name} is a space of its own: who is not on its list neither reads nor writes it"));
    }
    say(format_args!("`storage-node access {name}` says who may do what in it"));
    Ok(())
}

/// If the name was said through a mounted drive, whoever said it finds it there next.
fn wait_until_shown(path: &Path) {
    let Ok(whole) = std::path::absolute(path) else { return };
    let is_in_drive =
        mount_table::covering(&whole).ok().flatten().is_some_and(|entry| mountpoint::is_drive(&entry));
    let until = Instant::now() + SHOWN_LIMIT;
    while is_in_drive && !whole.exists() && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs `unshare`.
///
/// # Errors
/// As [`share`].
pub(crate) fn unshare(options: &Unshare) -> Result<(), Failure> {
    let (home, network) = owners_home(&options.client)?;
    let name = SpaceName::of(&options.path, &options.client)?;
    if options.remove {
        return removing::remove(options, &home, &network, &name);
    }
    let settings = client::settings(&options.client)?;
    let changed = with_volume(&options.client, |client, volume| {
        let link = match volume.look_at_place(name.text()) {
            Ok(Place::Link(link)) => Some(link),
            // Whoever may write to the drive can have taken its link away: that is no way to be spared.
            Err(LinkError::Occupied { .. }) if !options.give_up => return Err(is_no_space(&name)),
            Err(error) if !options.give_up => return Err(at_place(error)),
            _ => None,
        };
        let turn = Turn::take(&home)?;
        let of_place = || {
            let found = link.as_ref().map_or_else(
                || Err(is_no_space(&name)),
                |link| of_link(link, &name, options.moved, &home, &network),
            );
            match (found, begun(&home, &name)?) {
                (Err(_), Some(space)) if options.give_up => space.genesis(),
                (found, _) => found,
            }
        };
        let genesis = of_place()?;
        let store = client.block_store();
        let sharer = Sharer { home: &home, network: &network, store: &store, user: client.user() };
        let seal = space_lists::learn(&sharer, &turn, &genesis)?;
        // Where it was put the roll may know only now.
        if seal != Seal::GivenUp {
            of_place()?;
        }
        match seal {
            Seal::Ours => {}
            // Whoever is to be off it is so from the next list on, and the next one goes with what the space is put back to.
            Seal::Others(error) if !options.give_up => {
                let gone = whom(&options.from, None, &Roll::read(&home)?, &genesis)?;
                change_roll(&home, |roll| roll.take_off(&genesis, name.text(), &gone.people, &gone.groups))?;
                return Err(sealed(&error));
            }
            Seal::GivenUp if !options.give_up => return Err(is_given_up(&name)),
            Seal::Others(_) => {
                let may =
                    |_: &VolumeKeys, _: &Record, root: Option<&Root>| space_lists::refuse_what_opens(root);
                space_lists::strike_off(&sharer, &turn, &genesis, &may)?;
                keeping::once(&settings, client.overlay());
                return Ok(None);
            }
            Seal::GivenUp => return Ok(None),
        }
        let present = read_list(client, settings.seen_directory().as_deref(), &genesis).ok();
        // Another machine may have taken somebody out of one, or put somebody into it.
        groups::known(&sharer, None)?;
        let gone = whom(&options.from, present.as_ref(), &Roll::read(&home)?, &genesis)?;
        // First: if this is cut short, whoever runs `up` here goes on with it.
        change_roll(&home, |roll| roll.take_off(&genesis, name.text(), &gone.people, &gone.groups))?;
        let published =
            space_lists::publish(&sharer, &turn, &genesis, &Wish::AsItIs, &Revocations::default())?;
        let is_left =
            |key: &Hex<[u8; 32]>| published.list.access_of(&PublicKey::from_bytes(key.0)) != Access::None;
        let has_group = |id: &GroupId| published.list.groups.iter().any(|group| group.id == *id);
        if gone.people.iter().any(is_left) || gone.groups.iter().any(has_group) {
            let reason = format!("somebody is still on the list of {name} who was to be off it");
            return Err(refused(reason, "say it again"));
        }
        let changed = Some((published.list, published.changed));
        if !gone.groups.is_empty()
            && let Err(failure) = groups::unnote(&sharer, &turn, &genesis, &gone.groups)
        {
            warn(format_args!(
                "`group list` says still that a group is on {name}, where it is on no list any more: {failure}"
            ));
        }
        keeping::once(&settings, client.overlay());
        Ok(changed)
    })?;
    let Some(changed) = changed else {
        say(format_args!(
            "{name} is given up: the nodes take nothing more for it from anybody, and nobody opens what is in it any more"
        ));
        return Ok(());
    };
    let (list, changed) = changed;
    tell(name.text(), &list, &changed);
    if changed.is_empty() {
        say(format_args!("nobody was on the list of {name} whom that takes off"));
        return Ok(());
    }
    say(format_args!(
        "{name} has a key that none of those has whom it was taken from: they read nothing that is written to it from now on; what they \
         could read before, they may have kept"
    ));
    Ok(())
}

/// Says what the list of the space at `path` says from now on, of everybody of whom it said something else.
pub(crate) fn tell(path: &str, list: &AccessList, changed: &[AccessChange]) {
    for change in changed {
        let may = match change.access {
            Access::None => "may neither read nor write it any more",
            Access::Read => "may read it",
            Access::Write => "may read and write it",
        };
        say(format_args!(
            "{}: {} {may}{}",
            Shown::of(path),
            in_words(change),
            showing::by_groups(list, change)
        ));
    }
}

/// As `members` shows who it is.
fn in_words(change: &AccessChange) -> String {
    format!("{} ({})", Shown::of(&change.name), &NodeId::of(&change.key).to_string()[..SHOWN_DIGITS])
}

/// Whether what is at a place leads to a space that this home has.
fn leads_to(place: &Place, space: &SpaceEntry, network: &Network) -> bool {
    let Place::Link(link) = place else { return false };
    let link = SpaceLink::decode(link, &network.volume_owner());
    link.is_some_and(|link| link.genesis().to_bytes() == space.genesis.0)
}

/// Refuses what can't be changed by a list, since it does not open here.
fn opens(seal: Seal, name: &SpaceName) -> Result<(), Failure> {
    match seal {
        Seal::Ours => Ok(()),
        Seal::Others(error) => Err(sealed(&error)),
        Seal::GivenUp => Err(is_given_up(name)),
    }
}

fn is_given_up(name: &SpaceName) -> Failure {
    refused(
        format!("{name} was given up: nobody opens what is in it, and nobody may write there"),
        "share another name",
    )
}

/// Whether the making of a space that this home has began, and was not known to end.
fn is_begun(home: &Home, genesis: &Signed<Genesis>) -> Result<bool, Failure> {
    let bytes = genesis.to_bytes();
    Ok(Roll::read(home)?.spaces.iter().any(|space| space.genesis.0 == bytes && !space.is_linked))
}

fn is_no_space(name: &SpaceName) -> Failure {
    refused(
        format!("\"{name}\" is no space of its own"),
        "what the drive's members may do, each may there (`members`); `share DIR` makes a new directory that is a space",
    )
}

fn at_place(error: LinkError) -> Failure {
    let advice = match error {
        LinkError::Occupied { .. } => {
            "share a new name, and move what is to be in it there; an empty directory is removed first, with `rmdir`"
        }
        LinkError::Lost { .. } => "say it again",
        LinkError::NoDirectory { .. } => "names are paths within the drive; a space lies in none",
        _ => "see that the nodes run (`status`), and try again",
    };
    refused(error.to_string(), advice)
}

/// The record that made the space that a link at `name` leads to.
fn of_link(
    link: &[u8],
    name: &SpaceName,
    is_moved: bool,
    home: &Home,
    network: &Network,
) -> Result<Signed<Genesis>, Failure> {
    space_lists::led_to(link, name.text(), is_moved, &Roll::read(home)?, network)
        .map_err(|reason| refused(reason, "look at who may write to the drive, with `members`; if a space of yours was there, `share DIR --put-back` puts it back"))
}

/// The space that the roll has at `name`, but for what was given up.
fn begun(home: &Home, name: &SpaceName) -> Result<Option<SpaceEntry>, Failure> {
    let spaces = Roll::read(home)?.spaces;
    Ok(spaces.into_iter().rev().find(|space| space.path == name.text() && !space.is_given_up))
}

/// Whether a space that this home had at `name` was removed, or given up.
fn was_removed(home: &Home, name: &SpaceName) -> Result<bool, Failure> {
    Ok(Roll::read(home)?.spaces.iter().any(|space| space.path == name.text() && space.is_given_up))
}

/// On this thread: it is one small file, and nothing else waits in a command.
fn change_roll(home: &Home, change: impl FnOnce(&mut Roll)) -> Result<(), Failure> {
    Roll::change(home, |roll| {
        change(roll);
        Ok(())
    })
}

/// Makes a space's register and its first root, or goes on with one whose making was cut short.
fn make(
    sharer: &Sharer<'_>,
    client: &Client,
    name: &SpaceName,
    begun: Option<SpaceEntry>,
    owner: (u32, u32),
) -> Result<Signed<Genesis>, Failure> {
    let Sharer { home, network, .. } = *sharer;
    let genesis = match begun {
        Some(space) => space.genesis()?,
        None => {
            let spaces = Roll::read(home)?.spaces;
            if spaces.iter().filter(|space| !space.is_given_up).count() >= SPACES_MAX {
                return Err(refused(
                    format!("a drive has at most {SPACES_MAX} spaces"),
                    "use one that there is, or remove one (`unshare --remove`)",
                ));
            }
            if spaces.len() >= SPACES_EVER_MAX {
                return Err(refused(
                    format!("a drive has at most {SPACES_EVER_MAX} spaces, with those that were removed"),
                    "use one that there is",
                ));
            }
            let genesis = sharer.new_register(random_bytes())?;
            change_roll(home, |roll| {
                roll.space_or_new(&genesis, name.text());
            })?;
            genesis
        }
    };
    let store = client.space_store(network, &genesis);
    let register = store
        .open_register(spaces::membership(&genesis, Some(&client_directory::first(home.path())))?)
        .map_err(|error| volume::failed(error.to_string()))?;
    let keys = VolumeKeys { register, secret: client.user().identity.sealing_key(), readers: Vec::new() };
    let mut options = Options::default();
    options.author = client.user().author.clone();
    match Volume::create(Rc::new(store), keys, options, owner) {
        Ok(volume) => volume.close().stored().map_err(|ending| volume::failed(ending.to_string()))?,
        // A making that was cut short had come that far.
        Err(OpenError::Exists) => {}
        Err(error) => return Err(volume::failed(error.to_string())),
    }
    Ok(genesis)
}

/// The list in a space's root, if it is its owner's.
fn read_list(
    client: &Client,
    seen_directory: Option<&Path>,
    genesis: &Signed<Genesis>,
) -> Result<AccessList, Failure> {
    let store = client.block_store();
    let membership = spaces::membership(genesis, seen_directory)?;
    let register = store.open_register(membership).map_err(|error| volume::failed(error.to_string()))?;
    let record = store.read(&register).map_err(|error| volume::failed(error.to_string()))?;
    let record = record.ok_or_else(|| volume::failed("the nodes have nothing of the space".into()))?;
    let root = open_root(&record.payload, record.version, &client.user().identity.sealing_key());
    let root = root.map_err(|error| match error {
        RootError::NotAReader => refused(
            "it is not shared with this user, and who may do what in it is told to those only who are on its list",
            "ask the drive's owner",
        ),
        other => volume::failed(other.to_string()),
    })?;
    match root.charter.access_list(&genesis.owner, &register) {
        Found::List(list) => Ok((*list).clone()),
        Found::Nothing | Found::Forged => Err(refused(
            "the list in the space is not its owner's: somebody who may write there changed it",
            "`storage-node share DIR` with the home that made the network signs a new one",
        )),
    }
}
