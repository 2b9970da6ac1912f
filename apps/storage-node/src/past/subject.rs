//! What `past` and `rollback` are of: the drive, or one of its spaces.
//!
//! A space is found by this home's list of spaces first, and only then by its link: whoever may write to the drive can have taken
//! that away, or put another's there, which is what is to be undone. Where the list has one that was given up, what is there now
//! counts for more.

use std::ffi::OsStr;
use std::rc::Rc;

use dht::block::mutable::{Genesis, Signed};
use filesystem::access::{SpaceLink, VolumeKeys};
use filesystem::format::Shown;
use filesystem::volume::{LinkError, Place};
use overlay::Node;

use crate::cli::ClientOptions;
use crate::client::{self, Client, Settings};
use crate::errand::with_volume;
use crate::errors::Failure;
use crate::name;
use crate::roll::Roll;
use crate::spaces;
use crate::volume;

/// What somebody said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The drive.
    Drive,
    /// What made a space, as bytes of `Signed<Genesis>`, and where it is.
    Space { genesis: Vec<u8>, path: String },
    /// Something in the drive or in a space, or nothing yet.
    Within,
}

/// What is at a path of the drive.
enum There {
    Link(Vec<u8>),
    Something,
    Nothing,
}

impl Subject {
    /// What is meant by a path; without one it is the drive.
    ///
    /// # Errors
    /// `Failure::Name`, those of the roll, or what keeps the drive from being opened.
    pub(crate) fn of(path: Option<&OsStr>, options: &ClientOptions) -> Result<Subject, Failure> {
        let Some(text) = path else { return Ok(Subject::Drive) };
        let settings = client::settings(options)?;
        let path = name::within(text, &settings.network)?;
        if path.is_empty() {
            return Ok(Subject::Drive);
        }
        let roll = settings.home.as_ref().map(Roll::read).transpose()?.unwrap_or_default();
        let known = |is_given_up: bool| {
            let mut spaces = roll.spaces.iter().rev();
            let entry =
                spaces.find(|space| space.path.as_bytes() == path && space.is_given_up == is_given_up)?;
            Some(Subject::Space { genesis: entry.genesis.0.clone(), path: entry.path.clone() })
        };
        if let Some(space) = known(false) {
            return Ok(space);
        }
        match there(&path, options)? {
            There::Link(link) => {
                let link = SpaceLink::decode(&link, &settings.network.volume_owner());
                // What a space is called is text: what else leads to one, its owner did not put there.
                let found = link.zip(String::from_utf8(path.clone()).ok());
                let (link, path) = found.ok_or_else(|| Failure::Space {
                    reason: format!(
                        "{} leads to no space of this drive's, by a link that this version follows",
                        Shown::of(&path)
                    ),
                    advice: "somebody who may write to the drive put it there, or a newer version of this program",
                })?;
                Ok(Subject::Space { genesis: link.genesis().to_bytes(), path })
            }
            There::Something => Ok(Subject::Within),
            There::Nothing => Ok(known(true).unwrap_or(Subject::Within)),
        }
    }
}

fn there(path: &[u8], options: &ClientOptions) -> Result<There, Failure> {
    with_volume(options, |_, volume| {
        let unread = |reason: String| Failure::Value { name: Shown::of(path), reason };
        let link = volume
            .link_on_the_way(path)
            .map_err(|errno| unread(format!("the drive cannot be read: {errno}")))?;
        match link {
            Some((link, end)) if end == path.len() => return Ok(There::Link(link.to_vec())),
            Some(_) => return Ok(There::Something),
            None => {}
        }
        let Ok(text) = std::str::from_utf8(path) else { return Ok(There::Something) };
        match volume.look_at_place(text) {
            Ok(Place::Free(..)) | Err(LinkError::NoDirectory { .. }) => Ok(There::Nothing),
            Ok(Place::Link(link)) => Ok(There::Link(link.to_vec())),
            Err(LinkError::Occupied { .. }) => Ok(There::Something),
            Err(error) => Err(unread(error.to_string())),
        }
    })
}

/// The register of its root, open.
pub(crate) struct Target {
    pub(crate) store: dht::Client<Rc<Node>>,
    pub(crate) keys: VolumeKeys,
    /// That of its blocks' tag.
    pub(crate) salt: [u8; 32],
    /// Of a space: what made it, and where it is.
    pub(crate) space: Option<(Signed<Genesis>, String)>,
}

impl Target {
    /// Opens the register; nothing of what it has is read. That there is one is `Subject::of`'s to say: [`Subject::Within`] is none.
    ///
    /// # Errors
    /// `Failure::Volume`, or those of what was seen.
    pub(crate) fn open(subject: &Subject, client: &Client, settings: &Settings) -> Result<Target, Failure> {
        let (network, seen) = (&settings.network, settings.seen_directory());
        let damaged = |error: &dyn std::fmt::Display| volume::failed(error.to_string());
        match subject {
            Subject::Space { genesis, path } => {
                let genesis = Signed::<Genesis>::from_bytes(genesis).map_err(|error| damaged(&error))?;
                let store = client.space_store(network, &genesis);
                let membership = spaces::membership(&genesis, seen.as_deref())?;
                let register = store.open_register(membership).map_err(|error| damaged(&error))?;
                let secret = client.user().identity.sealing_key();
                let keys = VolumeKeys { register, secret, readers: Vec::new() };
                Ok(Target { store, keys, salt: genesis.salt, space: Some((genesis, path.clone())) })
            }
            Subject::Drive | Subject::Within => {
                let store = client.block_store();
                let keepers = volume::keepers(network, seen.as_deref())?;
                let keys = volume::keys(&store, &keepers, client.user())?;
                Ok(Target { store, keys, salt: network.volume_salt.0, space: None })
            }
        }
    }

    /// What it is, for people.
    pub(crate) fn what(&self) -> String {
        match &self.space {
            None => "the drive".into(),
            Some((_, path)) => format!("the space {}", Shown::of(path)),
        }
    }

    /// How a command names it, after a blank.
    pub(crate) fn argument(&self) -> String {
        self.space.as_ref().map_or(String::new(), |(_, path)| format!(" {}", Shown::of(path)))
    }
}
