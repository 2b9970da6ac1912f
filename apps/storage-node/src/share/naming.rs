//! Whom a command means who says names, or the first digits of ids.
//!
//! Not here: who is a member (`members`).

use dht::block::mutable::{Genesis, Signed};
use filesystem::access::list::AccessList;
use overlay::NodeId;
use overlay::invitation::InvitedAs;
use reactor::crypto::PublicKey;

use super::refused;
use crate::cli::Share;
use crate::errors::Failure;
use crate::home::Home;
use crate::members::{Subject, resolve};
use crate::network::{Hex, Network};
use crate::roll::{Allowed, LetIn, Roll};

/// Fewer digits are too easily somebody else's.
const NAMING_DIGITS_MIN: usize = 4;

/// Whom the options name, who must be members that may do what they are to do.
pub(super) fn people(options: &Share, home: &Home, network: &Network) -> Result<Vec<Allowed>, Failure> {
    let (roll, revoked) = (Roll::read(home)?, home.revocations(network)?);
    let readers = options.read.iter().map(|who| (who, false));
    let writers = options.write.iter().map(|who| (who, true));
    let mut people: Vec<Allowed> = Vec::new();
    for (who, may_write) in readers.chain(writers) {
        let none = |reason: &str| Failure::NoMember { who: who.clone(), reason: reason.into() };
        let member: LetIn = match resolve(who, &roll, home, network)? {
            Subject::Member(member) if member.role != InvitedAs::Node => member,
            _ => return Err(none("a space is shared with members who read or write the drive")),
        };
        if revoked.contains(&member.public_key()) {
            return Err(none("it was removed"));
        }
        if may_write && member.role != InvitedAs::Writer {
            return Err(none(
                "it joined as a reader, whom the nodes let write nothing; a new ticket makes it a writer",
            ));
        }
        people.retain(|known| known.key != member.key);
        people.push(Allowed { key: member.key, may_write });
    }
    Ok(people)
}

/// Those whom `from` names, or all but the owner: of the list, and of the roll, which may have somebody whom no list has yet.
pub(super) fn whom(
    from: &[String],
    list: Option<&AccessList>,
    roll: &Roll,
    genesis: &Signed<Genesis>,
) -> Result<Vec<Hex<[u8; 32]>>, Failure> {
    let mut known: Vec<(Hex<[u8; 32]>, String)> = Vec::new();
    let listed = list.into_iter().flat_map(AccessList::present).filter(|change| change.key != genesis.owner);
    known.extend(listed.map(|change| (Hex(*change.key.as_bytes()), change.name.clone())));
    let bytes = genesis.to_bytes();
    let space = roll.spaces.iter().find(|space| space.genesis.0 == bytes);
    for allowed in space.into_iter().flat_map(|space| &space.people) {
        if known.iter().all(|(key, _)| *key != allowed.key) {
            let member = roll.members.iter().find(|member| member.key == allowed.key);
            known.push((allowed.key.clone(), member.map_or(String::new(), |member| member.name.clone())));
        }
    }
    if from.is_empty() {
        return Ok(known.into_iter().map(|(key, _)| key).collect());
    }
    let mut gone = Vec::new();
    for who in from {
        let digits = who.to_ascii_lowercase();
        let is_it = |(key, name): &&(Hex<[u8; 32]>, String)| {
            let id = NodeId::of(&PublicKey::from_bytes(key.0)).to_string();
            let is_named = id.starts_with(&digits) || key.to_string().starts_with(&digits);
            name == who || digits.len() >= NAMING_DIGITS_MIN && is_named
        };
        let none =
            |reason: &str| refused(format!("{who:?}: {reason}"), "`storage-node access DIR` lists them");
        match known.iter().filter(is_it).collect::<Vec<_>>()[..] {
            [(key, _)] => gone.push(key.clone()),
            [] => return Err(none("nobody on the list has that name, and no id begins so")),
            _ => return Err(none("several on the list are called so: give the first digits of one of them")),
        }
    }
    Ok(gone)
}
