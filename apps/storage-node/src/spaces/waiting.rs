//! What waits in the journals of spaces: put in by the next start, counted at the end, found by whoever lists it.
//!
//! Not here: how it is listed and written out (`journal`).

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use dht::owner_tag;
use filesystem::access::{SpaceLink, VolumeKeys};
use filesystem::format::Shown;
use filesystem::nowhere::Nowhere;
use filesystem::spaces::{SpaceOpener, WithSpaces};
use filesystem::volume::{Cause, Ending, LeftBehind};
use overlay::Node;

use super::{Opened, Spaces, State, read_space_file};
use crate::client_directory;
use crate::errors::Failure;
use crate::identity::Member;
use crate::network::Network;
use crate::outcome::Outcome;
use crate::output::say;
use crate::volume::Keep;
use crate::waits;

/// How often it is tried to put in what waits for a space that can't be opened.
const INTERVAL: Duration = Duration::from_secs(30);

/// The directories of a client's spaces in whose journals something waits, with the space and its name.
pub(crate) fn left_in(
    client: &Path,
) -> impl Iterator<Item = (PathBuf, Result<(SpaceLink, String), Failure>)> + use<> {
    client_directory::spaces_left_in(client).map(|path| {
        let found = read_space_file(&path.join("space.json"));
        (path, found)
    })
}

impl Spaces {
    /// Opens those spaces for which something waits in the journal of an earlier run, in the drive that shows them. What
    /// can't be put in stays there, is told, and is tried again.
    ///
    /// # Suspends
    /// Until they are open.
    pub(crate) fn open_what_waits(&self, drive: &WithSpaces) {
        loop {
            let is_left = Cell::new(false);
            self.each_that_waits(|link, name, path| {
                if let Err(errno) = drive.open_space(link, name.as_bytes()) {
                    is_left.set(true);
                    let name = Shown::of(name);
                    let cause = self.refused(link, errno);
                    waits::note(path, Some(cause));
                    let place = path.display();
                    let way_out = match cause.is_final() {
                        true => waits::way_out(&self.directory),
                        false => "it is tried again".into(),
                    };
                    self.tell(
                        link,
                        format!("what was written to the space {name} waits in {place}: {cause}; {way_out}"),
                    );
                }
            });
            if !is_left.get() {
                return;
            }
            reactor::sleep(INTERVAL);
        }
    }

    fn each_that_waits(&self, work: impl Fn(&SpaceLink, &str, &Path)) {
        for (path, found) in left_in(&self.directory) {
            match found {
                Ok((link, name)) => work(&link, &name, &path),
                Err(failure) => say(format_args!("what waits in {}: {failure}", path.display())),
            }
        }
    }

    fn refused(&self, link: &SpaceLink, errno: filesystem::Errno) -> Cause {
        self.state.refused.borrow().get(&link.register()).copied().unwrap_or(Cause::of(errno))
    }

    /// Closes all that was opened, and says how that went. Nothing is asked of any of them any more.
    ///
    /// # Suspends
    /// Until everything is stored, or it is known that it can't be.
    pub(crate) fn close(&self) -> Outcome {
        let volumes = self.volumes();
        let ended = reactor::scope(|scope| {
            let closing: Vec<_> = volumes.iter().map(|volume| scope.spawn(|| volume.close())).collect();
            closing.into_iter().map(|closing| closing.join().ok()).collect::<Vec<_>>()
        });
        // Before the marks that say what was seen: with one that is ahead of it a start without nodes shows less than was seen.
        self.cache.iter().for_each(|cache| cache.disk().keep_roots());
        let opened = self.state.opened.take();
        let outcome = ended.into_iter().zip(&opened).fold(Outcome::Stored, |outcome, (ending, opened)| {
            outcome.with(match ending {
                Some(ending) => {
                    note_ending(opened, &ending);
                    Outcome::of(ending, &self.directory)
                }
                None => Outcome::CutOff { reason: "the end of a space was cut short".into() },
            })
        });
        // What an earlier run left, and this one could not open, or not for writing.
        let is_ours =
            |path: &PathBuf| opened.iter().any(|opened| !opened.waits && opened.directory.path() == path);
        let left = left_in(&self.directory).filter(|(path, _)| !is_ours(path));
        left.fold(outcome, |outcome, (path, found)| {
            let is_read = opened.iter().any(|opened| opened.directory.path() == path);
            outcome.with(self.left_behind(&path, found, is_read))
        })
    }

    /// What waits in the journal of a space that could not be opened, or could be read and no more.
    fn left_behind(
        &self,
        path: &Path,
        found: Result<(SpaceLink, String), Failure>,
        is_read: bool,
    ) -> Outcome {
        let link = found.ok().map(|(link, _)| link);
        let why = match &link {
            _ if self.state.is_removed.get() => Cause::Removed,
            _ if is_read => Cause::ReadsOnly,
            Some(link) => self.refused(link, filesystem::Errno::ETIMEDOUT),
            None => Cause::of(filesystem::Errno::EIO),
        };
        waits::note(path, Some(why));
        let left = link.and_then(|link| {
            let keys = VolumeKeys {
                register: link.register(),
                secret: self.user.identity.sealing_key(),
                readers: Vec::new(),
            };
            let store = Rc::new(Nowhere { tag: owner_tag(&link.owner(), &link.genesis().salt) });
            LeftBehind::open(store, keys, &client_directory::journal_of(path)).ok().flatten()
        });
        let (bytes, file_count) = left.as_ref().map_or((0, 1), LeftBehind::amount);
        Outcome::InJournal {
            bytes,
            file_count,
            causes: vec![why],
            directory: self.directory.clone(),
            cut_off: None,
        }
    }
}

fn note_ending(opened: &Opened, ending: &Ending) {
    // Of what waits there and was not to be written it says nothing.
    if !opened.waits {
        waits::note(opened.directory.path(), ending.cause());
    }
}

/// Puts in what the client in `directory`, which is gone, left in the journals of its spaces. What can't be put in stays there
/// for the next start, and is told.
///
/// # Suspends
/// Until all of it is on the nodes, or it is known that it can't be.
pub(crate) fn put_in_what_is_left(
    overlay: &Rc<Node>,
    network: &Network,
    user: &Member,
    directory: &Path,
    seen_directory: PathBuf,
) {
    if client_directory::spaces_left_in(directory).next().is_none() {
        return;
    }
    let spaces = Spaces {
        overlay: overlay.clone(),
        local: None,
        network: network.clone(),
        user: user.clone(),
        directory: directory.into(),
        seen_directory: Some(seen_directory),
        keep: Keep::Rest,
        accept_rollback: false,
        cache: None,
        state: State::default(),
    };
    spaces.each_that_waits(|link, name, _| drop(spaces.open(link, name.as_bytes())));
    match spaces.close() {
        Outcome::Stored => {
            say(format_args!("what a killed drive had left for spaces in {} is stored", directory.display()))
        }
        other => tracing::warn!("{other}"),
    }
}
