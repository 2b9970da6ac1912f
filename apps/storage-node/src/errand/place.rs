//! Which volume a path lies in: the drive, or the space that it leads into.
//!
//! A command works in one volume. Where its path goes through a link, it is the space's, opened as a mount opens it: by its owner's
//! list, under the name that he gave it, for reading only where the list says so. What can't be done there is said in these words, and
//! nothing is done to the drive instead.

use std::ffi::OsStr;
use std::rc::Rc;

use filesystem::access::SpaceLink;
use filesystem::format::Shown;
use filesystem::volume::Volume;

use super::{Opened, with_opened};
use crate::cli::ClientOptions;
use crate::client::{self, Client};
use crate::errors::Failure;
use crate::name::Name;
use crate::outcome::Outcome;
use crate::spaces::{self, Spaces};
use crate::volume::Keep;

/// What a command is to do where it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Look.
    Read,
    /// Change something.
    Write,
}

/// Opens the volume that `name` lies in, does `work` with it and with the name within it, and closes it.
///
/// # Errors
/// As [`super::with_volume`]; `Failure::Reader`, or `Failure::Space` if it is a space itself, or lies in one that can't be opened.
pub(crate) fn with_place<T: Send>(
    options: &ClientOptions,
    name: &Name,
    need: Need,
    work: impl FnOnce(&Volume, &Name) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    with_place_or_all(options, name.path(), need, |volume, above, rest| match Name::below(above, rest) {
        Some(name) => work(volume, &name),
        None => Err(Failure::Space {
            reason: format!("{} is a space of its own, and not a file or a directory in one", name.shown()),
            advice: "say a path within it; `diff` takes it as a whole, and its own `.snapshots` show it as it was",
        }),
    })
}

/// As [`with_place`], where the path may be a space itself, or the drive: `work` gets with the volume what of the path leads to it, with
/// a slash at its end unless it is the drive, and the rest.
///
/// # Errors
/// As [`with_place`].
pub(crate) fn with_place_or_all<T: Send>(
    options: &ClientOptions,
    path: &[u8],
    need: Need,
    work: impl FnOnce(&Volume, &[u8], &[u8]) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    with_client_at(options, path, need, |_, volume, _, above, rest| work(volume, above, rest))
}

/// As [`with_place_or_all`]; `work` gets the client as well, and what made the space, unless it is the drive.
///
/// # Errors
/// As [`with_place`].
pub(crate) fn with_client_at<T: Send>(
    options: &ClientOptions,
    path: &[u8],
    need: Need,
    work: impl FnOnce(&Client, &Volume, Option<&SpaceLink>, &[u8], &[u8]) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    with_opened(options, |opened| {
        let unread = |errno| Failure::Value {
            name: Shown::of(path),
            reason: format!("the drive cannot be read: {errno}"),
        };
        let Some((link, end)) = opened.volume.link_on_the_way(path).map_err(unread)? else {
            if need == Need::Write && !opened.volume.may_change() {
                return Err(Failure::Reader { of: "the drive".into() });
            }
            return work(opened.client, opened.volume, None, b"", path);
        };
        let (space, rest) = path.split_at(end);
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        opened.in_space(&link, space, |volume| {
            if need == Need::Write && !volume.may_change() {
                return Err(Failure::Reader { of: format!("the space {}", Shown::of(space)) });
            }
            let link = SpaceLink::decode(&link, &opened.client.network().volume_owner());
            work(opened.client, volume, link.as_ref(), &[space, b"/"].concat(), rest)
        })
    })
}

/// Opens the drive, or the space at `of` if one is named, and does `work` with it; with the drive, `each` is done with each space in it that
/// this home knows as well, and gets why one can't be opened, or not be changed though it is to be.
///
/// # Errors
/// As [`with_place`]; `Failure::Space` if there is no space at `of`.
pub(crate) fn with_spaces_too<T: Send>(
    options: &ClientOptions,
    of: Option<&OsStr>,
    need: Need,
    work: impl FnOnce(&Volume) -> Result<T, Failure> + Send,
    mut each: impl FnMut(&T, &str, Result<&Volume, Failure>) + Send,
) -> Result<T, Failure> {
    if let Some(of) = of {
        let name = Name::of(of, options)?;
        return with_place_or_all(options, name.path(), need, |volume, above, rest| match (above, rest) {
            (above, b"") if !above.is_empty() => work(volume),
            _ => Err(Failure::Space {
                reason: format!("{} is no space of its own", name.shown()),
                advice: "snapshots are of the whole drive, or of a whole space: say which without a path in it",
            }),
        });
    }
    let settings = client::settings(options)?;
    // As bytes: the command runs on a thread of its own.
    let known = spaces::known(&settings)?.into_iter().map(|(link, path)| (link.encode(), path));
    let known: Vec<(Vec<u8>, String)> = known.collect();
    let clients = settings.clients;
    with_opened(options, move |opened| {
        if need == Need::Write && !opened.volume.may_change() {
            return Err(Failure::Reader { of: "the drive".into() });
        }
        let done = work(opened.volume)?;
        let mut gone = Vec::new();
        for (link, path) in &known {
            let tried = opened.in_space(link, path.as_bytes(), |volume| {
                if need == Need::Write && !volume.may_change() {
                    return Err(Failure::Reader { of: format!("the space {}", Shown::of(path)) });
                }
                each(&done, path, Ok(volume));
                Ok(())
            });
            match tried {
                Ok(()) => {}
                Err(Failure::SpaceGone { .. }) => gone.push(link),
                Err(failure) => each(&done, path, Err(failure)),
            }
        }
        let owner = opened.client.network().volume_owner();
        let gone: Vec<SpaceLink> =
            gone.into_iter().filter_map(|link| SpaceLink::decode(link, &owner)).collect();
        if let Some(clients) = clients.filter(|_| !gone.is_empty()) {
            // A journal that waits there the drive tells at its start; what was kept of a damaged one stays, and `journal` shows it.
            gone.iter().for_each(|link| drop(spaces::forget(&clients, &link.register())));
        }
        Ok(done)
    })
}

impl Opened<'_> {
    /// Opens the space that a link at `path` leads to, does `work` with it, and closes it.
    fn in_space<T>(
        &self,
        link: &[u8],
        path: &[u8],
        work: impl FnOnce(&Volume) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let network = self.client.network();
        let link = SpaceLink::decode(link, &network.volume_owner()).ok_or_else(|| Failure::Space {
            reason: format!(
                "{} leads to no space of this drive's, by a link that this version follows",
                Shown::of(path)
            ),
            advice: "somebody who may write to the drive put it there, or a newer version of this program",
        })?;
        let spaces = Rc::new(Spaces {
            overlay: self.client.overlay().clone(),
            local: None,
            network: network.clone(),
            user: self.client.user().clone(),
            directory: self.directory.path().to_owned(),
            seen_directory: self.seen_directory.map(Into::into),
            keep: Keep::Nothing,
            accept_rollback: false,
            cache: self.cache.cloned(),
            state: spaces::State::default(),
        });
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let result = spaces.open_for_command(&link, name, path).and_then(|volume| work(&volume));
        let closed: Outcome = spaces.close();
        let value = result?;
        closed.into_result().map(|()| value)
    }
}
