//! One space of a drive: its link, and its volume once that is open.
//!
//! It is opened by a coroutine of its own, once for all who ask meanwhile: whoever asks may be interrupted, and half a volume is
//! none. What was refused is not tried again at once, since a listing asks for each name several times.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::sync::Signal;

use super::SpaceOpener;
use crate::access::SpaceLink;
use crate::errno::Errno;
use crate::operations::{Inode, Operations, Sharing};
use crate::past::WithPast;

/// How long a refusal holds: whoever is let in sees it soon, and a program that looks again and again asks the nodes little.
const REFUSAL_LIFETIME: Duration = Duration::from_secs(1);
/// How long anything else holds: it was waited for.
const FAILURE_LIFETIME: Duration = Duration::from_secs(5);

/// See the file's header.
pub(super) struct Space {
    /// Of all spaces of a drive: the same on each machine.
    pub(super) number: u64,
    pub(super) link: SpaceLink,
    /// The directory that it was found in.
    pub(super) above: Cell<Inode>,
    /// What it was called there.
    pub(super) name: Bytes,
    /// Its volume, with its snapshots.
    volume: RefCell<Option<Rc<WithPast>>>,
    refused: Cell<Option<(Instant, Errno)>>,
    opening: RefCell<Option<Rc<JoinHandle<()>>>>,
    is_ending: Cell<bool>,
    opened: Signal,
}

impl Space {
    pub(super) fn new(number: u64, link: SpaceLink, above: Inode, name: &[u8]) -> Space {
        Space {
            number,
            link,
            above: Cell::new(above),
            name: Bytes::copy_from_slice(name),
            volume: RefCell::default(),
            refused: Cell::new(None),
            opening: RefCell::default(),
            is_ending: Cell::new(false),
            opened: Signal::new(),
        }
    }

    /// Its volume, if that is open.
    pub(super) fn opened(&self) -> Option<Rc<WithPast>> {
        self.volume.borrow().clone()
    }

    /// Whether others change it, if it is open.
    pub(super) fn sharing(&self) -> Option<Sharing> {
        self.volume.borrow().as_ref().map(|volume| volume.sharing())
    }

    /// Its volume, opened if it was not; `tell` is called with it when it has just been opened.
    ///
    /// # Errors
    ///
    /// As [`SpaceOpener::open`]; `EIO` once the drive ends.
    ///
    /// # Suspends
    ///
    /// Until it is open.
    pub(super) fn volume(
        self: &Rc<Self>,
        opener: &Rc<dyn SpaceOpener>,
        tell: impl Fn(&Rc<WithPast>) + Clone + 'static,
    ) -> Result<Rc<WithPast>, Errno> {
        let mut has_asked = false;
        loop {
            if let Some(volume) = self.opened() {
                return Ok(volume);
            }
            if self.is_ending.get() {
                return Err(Errno::EIO);
            }
            if self.opening.borrow().is_none() {
                if let Some((at, errno)) = self.refused.get() {
                    let lifetime = if errno == Errno::EACCES { REFUSAL_LIFETIME } else { FAILURE_LIFETIME };
                    if has_asked || reactor::now().saturating_duration_since(at) < lifetime {
                        return Err(errno);
                    }
                }
                self.begin(opener, tell.clone());
                has_asked = true;
                continue;
            }
            self.opened.wait();
            has_asked = true;
        }
    }

    fn begin(self: &Rc<Self>, opener: &Rc<dyn SpaceOpener>, tell: impl Fn(&Rc<WithPast>) + 'static) {
        self.refused.set(None);
        let (space, opener) = (self.clone(), opener.clone());
        let coroutine = reactor::spawn(move || {
            let opening = Opening(&space);
            match opener.open(&space.link, &space.name) {
                Ok(volume) => {
                    let volume = Rc::new(WithPast::new(volume));
                    tell(&volume);
                    *space.volume.borrow_mut() = Some(volume);
                }
                Err(errno) => space.refused.set(Some((reactor::now(), errno))),
            }
            drop(opening);
        });
        // Unless it ran as far as its end at once.
        if self.opened().is_none() && self.refused.get().is_none() {
            *self.opening.borrow_mut() = Some(Rc::new(coroutine));
        }
    }

    /// Whether somebody opens it just now.
    pub(super) fn is_opening(&self) -> bool {
        self.opening.borrow().is_some()
    }

    /// Ends an opening that is under way.
    pub(super) fn give_up(&self) {
        self.opening.borrow().iter().for_each(|opening| opening.terminate());
        self.opened().iter().for_each(|volume| volume.give_up());
    }

    /// Has nobody open it any more, and waits for who does.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub(super) fn end(&self) {
        self.is_ending.set(true);
        let opening = self.opening.borrow().clone();
        if let Some(opening) = opening {
            let _ = opening.join();
        }
        self.opened.notify_all();
    }
}

/// An opening that is under way: whoever waits for it goes on when it ends, however it does.
struct Opening<'a>(&'a Space);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let space = self.0;
        if space.volume.borrow().is_none() && space.refused.get().is_none() {
            space.refused.set(Some((reactor::now(), Errno::EIO)));
        }
        // Whoever ends the drive may have it already, and waits for it.
        drop(space.opening.borrow_mut().take());
        space.opened.notify_all();
    }
}
