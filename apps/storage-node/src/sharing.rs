//! Who may read and write the drive, beside the user whose it is.
//!
//! Two lists say so, and one swap of the drive's root changes both: the root names its readers and is sealed to them
//! (`filesystem::access::sharing`), and the register's access list names its writers, whom the nodes obey. Only the owner of
//! the volume signs that list, so only his home shares the drive.
//!
//! Not here: what anybody may do on the nodes, which passports say.

use std::path::Path;
use std::rc::Rc;

use dht::Client;
use filesystem::access::sharing::{ReadersChange, change_readers};
use overlay::Node;
use overlay::invitation::InvitedAs;
use reactor::crypto::{PublicKey, X25519Public};

use crate::errors::Failure;
use crate::identity::Member;
use crate::network::{Hex, Network};
use crate::roll::LetIn;
use crate::volume;

/// Lets `member` read the drive, and write to it if it is a writer.
///
/// # Errors
/// `Failure::Sharing`, or those of the network's description.
///
/// # Suspends
/// Until the drive's root says so.
pub(crate) fn let_in(
    store: &Client<Rc<Node>>,
    seen: &Path,
    network: &Network,
    user: &Member,
    member: &LetIn,
) -> Result<(), Failure> {
    let (key, sealing_key) = keys_of(member);
    let may_write = member.role == InvitedAs::Writer;
    let read = |readers: &mut Vec<X25519Public>| enter(readers, sealing_key);
    let write = |writers: &mut Vec<PublicKey>| {
        if may_write {
            enter(writers, key);
        }
    };
    change(store, seen, network, user, (&read, false), &write)
}

/// Takes `members` off both lists: what is written from now on they can't read.
///
/// # Errors
/// As [`let_in`].
///
/// # Suspends
/// Until the drive's root says so.
pub(crate) fn put_out(
    store: &Client<Rc<Node>>,
    seen: &Path,
    network: &Network,
    user: &Member,
    members: &[LetIn],
) -> Result<(), Failure> {
    let (keys, sealing_keys): (Vec<PublicKey>, Vec<X25519Public>) = members.iter().map(keys_of).unzip();
    let read = |readers: &mut Vec<X25519Public>| readers.retain(|reader| !sealing_keys.contains(reader));
    let write = |writers: &mut Vec<PublicKey>| writers.retain(|writer| !keys.contains(writer));
    // In any case: a swap that let one of them in may be undecided yet, and a newer value decides it.
    change(store, seen, network, user, (&read, true), &write)
}

fn keys_of(member: &LetIn) -> (PublicKey, X25519Public) {
    let Hex(sealing_key) = member.sealing_key;
    (member.public_key(), X25519Public::from_bytes(sealing_key))
}

fn enter<T: PartialEq>(list: &mut Vec<T>, one: T) {
    if !list.contains(&one) {
        list.push(one);
    }
}

fn change(
    store: &Client<Rc<Node>>,
    seen: &Path,
    network: &Network,
    user: &Member,
    (read, anyway): (ReadersChange<'_>, bool),
    write: &dyn Fn(&mut Vec<PublicKey>),
) -> Result<(), Failure> {
    let failed = |reason: String| Failure::Sharing { reason };
    let keys = volume::keys(store, &volume::keepers(network, Some(seen))?, user)?;
    // Read first: the list of writers is that of the value that was seen last.
    dht::BlockStore::read(store, &keys.register).map_err(|error| failed(error.to_string()))?;
    let before = store.writers(&keys.register).map_err(|error| failed(error.to_string()))?;
    let mut after = before.clone();
    write(&mut after);
    let swap = |expected, payload| store.swap_with_writers(&keys.register, Some(expected), &payload, write);
    change_readers(store, &keys, &volume::author(), (read, anyway || before != after), &swap)
        .map_err(|error| failed(error.to_string()))
}
