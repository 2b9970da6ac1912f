//! Founding a network: who signs whom.
//!
//! Three kinds of key. The *owner* admits members by signing their passports, and is needed for nothing else. The
//! *user* owns the volume: its root is a register of the user's, and only the user's key opens it. A *node* stores
//! what it cannot read. All come from the operating system's randomness, at once, before anything listens.
//!
//! Not here: where the keys are kept (`home`), and what a passport is (`overlay::passport`).

use std::io;
use std::path::Path;
use std::rc::Rc;

use overlay::{Passport, Rights};
use reactor::crypto::{Identity, PublicKey, random_bytes};
use reactor::serialization::{from_bytes, to_bytes};

use crate::author;
use crate::errors::Failure;
use crate::home::Home;
use crate::keyring;
use crate::network::{Hex, KeyFile, Network, NodeEntry, Role, VolumeEntry};
use crate::owner;

/// The keys of a network that is being made.
pub(crate) struct Founding {
    owner: Identity,
    user: Identity,
}

impl Founding {
    /// Draws the owner's and the user's keys.
    pub(crate) fn new() -> Founding {
        Founding { owner: Identity::generate(), user: Identity::generate() }
    }

    /// The owner's key file.
    pub(crate) fn owner_key(&self) -> KeyFile {
        KeyFile::plain(Role::Owner, &self.owner, None)
    }

    /// The user's key file, with a passport to read and write.
    pub(crate) fn user_key(&self) -> KeyFile {
        self.admit(&self.user, Role::User, Rights::CLIENT)
    }

    /// A new node's key file, with a passport to store, and its public key.
    pub(crate) fn node_key(&self) -> (KeyFile, Hex<[u8; 32]>) {
        let node = Identity::generate();
        let public_key = Hex(*node.public_key().as_bytes());
        (self.admit(&node, Role::Node, Rights::NODE), public_key)
    }

    /// The description of the network with these nodes.
    pub(crate) fn network(&self, nodes: Vec<NodeEntry>) -> Network {
        Network {
            owner: Hex(*self.owner.public_key().as_bytes()),
            // Three copies outlive any one node and keep a majority; with fewer nodes, each has a copy.
            replicas: nodes.len().min(3) as u8,
            volume_owner: Hex(*self.user.public_key().as_bytes()),
            volume_salt: Hex(random_bytes()),
            volume: VolumeEntry::Unfounded,
            nodes,
            relays: Vec::new(),
        }
    }

    fn admit(&self, member: &Identity, role: Role, rights: Rights) -> KeyFile {
        admit(&self.owner, member, role, rights)
    }
}

/// The key file of a member that `owner` admits for ever.
pub(crate) fn admit(owner: &Identity, member: &Identity, role: Role, rights: Rights) -> KeyFile {
    let passport = Passport::issue(owner, member.public_key(), rights, None);
    KeyFile::plain(role, member, Some(Hex(to_bytes(&passport))))
}

/// The key that admits members, read for as long as something is signed with it; or the one that this process was given
/// beside the home.
///
/// # Errors
/// `Failure::NotTheOwner` or `Failure::OwnerAway` if it is not in this home, `Failure::OwnerOfAnother` if what was given is another network's; those of
/// [`keyring::load`].
pub(crate) fn owner(home: &Home) -> Result<Identity, Failure> {
    if let Some(given) = keyring::owner() {
        if home.network()?.owner_key() != given.public_key() {
            return Err(Failure::OwnerOfAnother { path: home.path().into() });
        }
        return Ok(given);
    }
    let path = home.owner_key_file();
    let key = match keyring::load(&path) {
        Err(Failure::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(no_owner(home));
        }
        other => other?,
    };
    if key.role != Role::Owner {
        return Err(Failure::damaged(&path, "it is not the key of an owner"));
    }
    Ok(key.identity)
}

/// That the owner's key is not in a home: it was taken out of it, or never was there.
pub(crate) fn no_owner(home: &Home) -> Failure {
    match owner::away_in(home) {
        Some(file) => Failure::OwnerAway { file },
        None => Failure::NotTheOwner { path: home.path().into() },
    }
}

/// Whether the owner's key is at hand: in this home, or given to this process.
pub(crate) fn has_owner(home: &Home) -> bool {
    keyring::owner().is_some() || home.owner_key_file().exists()
}

/// A member that can prove who it is and that it was admitted.
#[derive(Clone)]
pub(crate) struct Member {
    /// Its key pair.
    pub(crate) identity: Rc<Identity>,
    /// Why it is let in.
    pub(crate) passport: Passport,
    /// What it is called where others read it.
    pub(crate) author: String,
}

impl Member {
    /// Reads a key file that must be of this role.
    ///
    /// # Errors
    /// Those of [`keyring::load`]; `Failure::Damaged` if it is another role's key or its passport doesn't decode.
    pub(crate) fn load(path: &Path, role: Role) -> Result<Member, Failure> {
        let key = match keyring::load(path) {
            Err(Failure::File { path, source }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::NoKey { path });
            }
            key => key?,
        };
        if key.role != role {
            return Err(Failure::damaged(
                path,
                format!("it is the key of a {:?}, and that of a {role:?} is needed", key.role),
            ));
        }
        let passport = key.passport.ok_or_else(|| Failure::damaged(path, "it has no passport"))?;
        let passport: Passport =
            from_bytes(&passport.0).map_err(|error| Failure::damaged(path, format!("passport: {error}")))?;
        Ok(Member { identity: Rc::new(key.identity), passport, author: author::of(path) })
    }
}

impl Network {
    /// The key that admits members.
    pub(crate) fn owner_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.owner.0)
    }

    /// The user whose volume it is, and who says who else may write to it.
    pub(crate) fn volume_owner(&self) -> PublicKey {
        PublicKey::from_bytes(self.volume_owner.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::files;

    #[test]
    fn every_member_of_a_new_network_is_let_in_with_its_own_rights() {
        let directory = tempfile::tempdir().unwrap();
        let founding = Founding::new();
        let network = founding.network(Vec::new());
        for (key, role, rights) in [
            (founding.user_key(), Role::User, Rights::CLIENT),
            (founding.node_key().0, Role::Node, Rights::NODE),
        ] {
            let path = directory.path().join("a.key");
            files::save(&path, &key).unwrap();
            let member = Member::load(&path, role).unwrap();
            let holder = member.identity.public_key();
            assert_eq!(member.passport.verify(&network.owner_key(), &holder, SystemTime::now()), Ok(rights));
        }
    }

    #[test]
    fn one_roles_key_is_not_taken_for_anothers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        files::save(&path, &Founding::new().user_key()).unwrap();
        assert!(matches!(Member::load(&path, Role::Node), Err(Failure::Damaged { .. })));
    }
}
