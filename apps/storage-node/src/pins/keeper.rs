//! The mount's part: keeping what is pinned here, and current.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use dht::{BlockStore, RegisterAddress};
use filesystem::Errno;
use filesystem::access::SpaceLink;
use filesystem::disk_cache::{Noted, PinFailure, PinningStore};
use filesystem::operations::{Attributes, FileKind, Operations, Time};
use filesystem::spaces::SpaceOpener;
use filesystem::volume::Volume;
use reactor::JoinHandle;
use reactor::cell::RefCell;

use super::{Kept, KeptPin, Pin, Pins, load, walk};
use crate::cache::{Cache, now_s, view_of};
use crate::errors::Failure;
use crate::files;
use crate::spaces::{Cached, Spaces};

/// How often it is looked whether pins or the drive have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// After a look that took long, as many times as long until the next: a drive that changes all the time must not be read
/// all the time.
const REST: u32 = 4;
/// How long to wait after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// How long an end waits for a last look; one at what has changed takes a moment.
const FINISH_LIMIT: Duration = Duration::from_secs(10);
/// How much of a file is read at once.
const READ_SIZE: u32 = 1 << 20;
/// How old the word that all is kept may be while that is so.
const TELL_INTERVAL_S: u64 = 60;
/// Files between two words about progress.
const TELL_FILE_COUNT: u64 = 100;

/// What tells that a file's content may be another one.
type Stamp = (Time, Time, u64);

/// The space that something is in; none for the drive.
type Where = Option<RegisterAddress>;

/// What looks have read: what the next one need not read again, and what the pins of a space need whose nodes are away by then.
#[derive(Default)]
struct Known {
    /// The entries of files, by inode and what they are in.
    files: HashMap<(Where, u64), (Stamp, Noted)>,
    /// All entries of what is pinned in a space, when it was read to its end last.
    spaces: HashMap<RegisterAddress, Noted>,
}

impl Known {
    /// Takes over what is known of `space`, which can't be looked at now, and returns all that it needs; `None` if it never was read
    /// to its end.
    fn keep(&mut self, space: RegisterAddress, before: &Known) -> Option<Noted> {
        let needed = before.spaces.get(&space)?;
        for (file, read) in before.files.iter().filter(|((at, _), _)| *at == Some(space)) {
            // What was read of it just now is newer.
            self.files.entry(*file).or_insert_with(|| read.clone());
        }
        self.spaces.entry(space).or_default().extend(needed);
        Some(needed.clone())
    }
}

/// What there was when all that is pinned was here: the pins, the versions of the volumes that they are in, and how many entries of the
/// cache were lost.
type Done = (Vec<Pin>, Vec<u64>, u64);

/// Keeps what `pins.json` in `base` says, from now on.
pub(crate) fn keep(cache: Rc<Cache>, base: &Path, volume: &Rc<Volume>, spaces: Rc<Spaces>) -> Keeping {
    let keeper = Rc::new(Keeper {
        cache,
        base: base.to_owned(),
        volume: volume.clone(),
        spaces,
        opened: RefCell::default(),
        places: RefCell::default(),
        known: RefCell::default(),
        done: RefCell::default(),
        told: RefCell::default(),
    });
    let running = keeper.clone();
    Keeping { keeper, running: reactor::spawn(move || running.run()) }
}

/// Pins that are being kept.
pub(crate) struct Keeping {
    keeper: Rc<Keeper>,
    running: JoinHandle<()>,
}

impl Keeping {
    /// Ends it, with a last look: what the drive's last commits wrote is what a start without the nodes begins with.
    ///
    /// # Suspends
    /// While that takes, up to a stated limit.
    pub(crate) fn finish(&self) {
        self.running.terminate();
        if reactor::timeout(FINISH_LIMIT, || self.keeper.look_if_due()).is_err() {
            tracing::warn!("the end did not wait until all that is pinned was looked at once more");
        }
    }
}

struct Keeper {
    cache: Rc<Cache>,
    base: PathBuf,
    volume: Rc<Volume>,
    spaces: Rc<Spaces>,
    /// Those that pins are in, also once the drive has closed them.
    opened: RefCell<BTreeMap<RegisterAddress, Cached>>,
    /// Which of these each pin is in that is in one.
    places: RefCell<BTreeMap<Vec<u8>, RegisterAddress>>,
    known: RefCell<Rc<Known>>,
    done: RefCell<Option<Done>>,
    told: RefCell<Kept>,
}

impl Keeper {
    fn run(&self) {
        let mut pause = LOOK_INTERVAL;
        loop {
            reactor::sleep(pause);
            let begun = reactor::now();
            pause = if self.look_if_due() { LOOK_INTERVAL } else { RETRY_INTERVAL };
            pause = pause.max(reactor::now().saturating_duration_since(begun) * REST);
        }
    }

    /// Looks, if anything has changed since all was kept; `false` if it is not kept now.
    fn look_if_due(&self) -> bool {
        let disk = self.cache.disk();
        if !disk.keeps_pins() || self.cache.offline_for().is_some() {
            return true; // Nothing to be done about it; soon there may be.
        }
        let file = self.base.join("pins.json");
        let pins = match reactor::offload(move || load::<Pins>(&file)) {
            Ok(pins) => pins.pins,
            Err(error) => {
                tracing::warn!("what is pinned cannot be read, and is left as it is: {error}");
                return false;
            }
        };
        let now = (pins, self.versions(), disk.pins_lost());
        let is_done = self.done.borrow().as_ref() == Some(&now);
        if is_done {
            self.tell_again();
            return true;
        }
        if now.0.is_empty() && disk.pinned_bytes() == 0 {
            return true;
        }
        let looked = self.cache.open_view().and_then(|(view, store)| {
            let looked = self.look(&now.0, &view, &store);
            // It has changed nothing.
            let _ = view.close();
            looked
        });
        match looked {
            Ok(true) => {
                *self.done.borrow_mut() = Some(now);
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::debug!(%error, "what is pinned could not be read");
                false
            }
        }
    }

    /// Of the drive, and of those spaces that pins are in.
    fn versions(&self) -> Vec<u64> {
        let opened = self.opened.borrow();
        let spaces = opened.values().map(|cached| cached.volume.version());
        [self.volume.version()].into_iter().chain(spaces).collect()
    }

    /// Reads all that is pinned; whether all of it is here then.
    fn look(&self, pins: &[Pin], volume: &Volume, store: &PinningStore) -> Result<bool, Failure> {
        let before = self.known.borrow().clone();
        let told_before = self.told.borrow().clone();
        let mut look = Look {
            keeper: self,
            drive: Viewed { at: None, volume, store },
            told_before,
            before: &before,
            now: Known::default(),
            needed: store.take_noted(),
            kept: Kept::default(),
            is_read_through: true,
            is_pinned: true,
        };
        let mut is_complete = true;
        for pin in pins {
            is_complete &= look.pin(pin);
        }
        let Look { now, needed, kept, is_read_through, is_pinned, .. } = look;
        if is_read_through {
            // Also where not all of it fits: what no pin needs any more makes room for what is yet to come.
            self.cache.disk().unpin_others(&needed).map_err(|error| Failure::file(&self.base, error))?;
        }
        if is_read_through && is_pinned {
            *self.known.borrow_mut() = Rc::new(now);
        }
        self.tell(&kept);
        Ok(is_complete)
    }

    /// Says now and then that all is kept as it was told last, and current.
    fn tell_again(&self) {
        let mut kept = self.told.borrow().clone();
        let opened = self.opened.borrow();
        // What others do in a space whose nodes are away, or that is not this user's any more, is not known.
        let is_known = |pin: &&mut KeptPin| {
            let place =
                self.places.borrow().get(&pin.path.0).and_then(|register| opened.get(register).cloned());
            place.is_none_or(|cached| !cached.store.is_offline() && cached.volume.shut_for().is_none())
        };
        let mut is_due = false;
        for pin in kept.pins.iter_mut().filter(is_known) {
            is_due |= now_s().saturating_sub(pin.looked_s) >= TELL_INTERVAL_S;
            pin.looked_s = now_s();
        }
        drop(opened);
        if is_due {
            self.tell(&kept);
        }
    }

    fn tell(&self, kept: &Kept) {
        self.told.replace(kept.clone());
        let (file, kept) = (self.base.join("pins-kept.json"), kept.clone());
        if let Err(error) = reactor::offload(move || files::save(&file, &kept)) {
            tracing::debug!(%error, "how far the pins are could not be written down");
        }
    }
}

/// One look at all pins.
struct Look<'a> {
    keeper: &'a Keeper,
    drive: Viewed<'a>,
    /// What was said when it began.
    told_before: Kept,
    before: &'a Known,
    now: Known,
    needed: Noted,
    kept: Kept,
    /// Whether all that is pinned was read, or is known from when it was: what is needed is known then.
    is_read_through: bool,
    /// Whether all that was read could be pinned: what is known of files is the whole of them then.
    is_pinned: bool,
}

/// A volume that is looked at.
#[derive(Clone, Copy)]
struct Viewed<'a> {
    at: Where,
    volume: &'a Volume,
    store: &'a PinningStore,
}

/// Why what is pinned could not be read to its end.
enum Unread {
    /// There is no such thing any more.
    Gone,
    /// The nodes of the space that it is in are away: what is here of it stays.
    Away,
    Failed(String),
}

fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR)
}

impl From<Errno> for Unread {
    fn from(errno: Errno) -> Unread {
        match errno {
            errno if is_gone(errno) => Unread::Gone,
            errno => Unread::Failed(format!("it cannot be read ({errno})")),
        }
    }
}

/// Why something is not kept.
fn in_words(failure: PinFailure) -> &'static str {
    match failure {
        PinFailure::NoRoom => {
            "there is no room for all of it: `unpin` something, or give `mount` a larger --cache"
        }
        PinFailure::DiskFull => {
            "this machine's disk has too little free: the cache leaves the last 512 MiB to others"
        }
        PinFailure::Disk => {
            "this machine's disk failed (the log says how): nothing is kept until the next `mount`"
        }
    }
}

impl Look<'_> {
    fn pin(&mut self, pin: &Pin) -> bool {
        let path = pin.path.clone();
        self.kept.pins.push(KeptPin {
            path,
            files: 0,
            bytes: 0,
            is_complete: false,
            looked_s: now_s(),
            trouble: None,
        });
        let read = self.place_of(&pin.path.0).and_then(|place| match place {
            None => self.read(self.drive, &pin.path.0),
            Some((cached, rest)) => self.read_in(cached, rest),
        });
        let is_gone = matches!(read, Err(Unread::Gone));
        self.is_read_through &= read.is_ok() || is_gone || self.stays(&pin.path.0);
        let trouble = match read {
            Ok(failure) => failure.map(|failure| in_words(failure).to_owned()),
            Err(Unread::Gone) => Some("it is not in the drive".to_owned()),
            Err(Unread::Failed(why)) => Some(why),
            Err(Unread::Away) => {
                let before = self.told_before.pins.iter().find(|kept| kept.path == pin.path).cloned();
                if let (Some(kept), Some(before)) = (self.kept.pins.last_mut(), before) {
                    *kept = before;
                    return false;
                }
                Some("the nodes that keep the space that it is in do not answer".to_owned())
            }
        };
        if let Some(kept) = self.kept.pins.last_mut() {
            (kept.is_complete, kept.trouble) = (trouble.is_none(), trouble);
            return kept.is_complete || is_gone;
        }
        false
    }

    /// The space that a path leads into, with the rest of the path; `None` for one in the drive itself.
    fn place_of<'p>(&mut self, path: &'p [u8]) -> Result<Option<(Cached, &'p [u8])>, Unread> {
        let link = self.drive.volume.link_on_the_way(path);
        // Then what leads there in the drive is not known either.
        self.is_read_through &= !link.as_ref().is_err_and(|errno| !is_gone(*errno));
        let Some((link, end)) = link? else {
            self.keeper.places.borrow_mut().remove(path);
            return Ok(None);
        };
        let spaces = &self.keeper.spaces;
        let link = SpaceLink::decode(&link, &spaces.owner()).ok_or(Errno::EACCES)?;
        let (space, rest) = path.split_at(end);
        let known = self.keeper.opened.borrow().get(&link.register()).cloned();
        let cached = match known {
            Some(cached) => cached,
            None => {
                let name = space.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                // What a space is called is text.
                let name = std::str::from_utf8(name).map_err(|_| Errno::EACCES)?;
                let cached = spaces.cached(&link, name);
                let not_open =
                    || Unread::Failed("the space that it is in is not open on this machine".into());
                let cached = cached.ok_or_else(not_open)?;
                self.keeper.opened.borrow_mut().insert(link.register(), cached.clone());
                cached
            }
        };
        self.keeper.places.borrow_mut().insert(path.to_owned(), link.register());
        Ok(Some((cached, rest.strip_prefix(b"/").unwrap_or(rest))))
    }

    /// Has all stay that was pinned in the space that `path` leads into, which can't be read now; `false` if that is not known.
    fn stays(&mut self, path: &[u8]) -> bool {
        let Some(space) = self.keeper.places.borrow().get(path).copied() else { return false };
        let needed = self.now.keep(space, self.before);
        self.needed.extend(needed.as_ref().unwrap_or(&Noted::default()));
        needed.is_some()
    }

    fn need(&mut self, at: Where, noted: &Noted) {
        self.needed.extend(noted);
        if let Some(space) = at {
            self.now.spaces.entry(space).or_default().extend(noted);
        }
    }

    /// As [`read`](Look::read), in a space.
    fn read_in(&mut self, cached: Cached, path: &[u8]) -> Result<Option<PinFailure>, Unread> {
        if cached.store.is_offline() {
            return Err(Unread::Away);
        }
        let at = Some(cached.keys.register);
        let viewed = view_of(cached.store, cached.keys);
        let (view, store) = viewed.map_err(|failure| Unread::Failed(failure.to_string()))?;
        let read = self.read(Viewed { at, volume: &view, store: &store }, path);
        // It has changed nothing.
        let _ = view.close();
        read
    }

    /// Reads all at `path` in a volume; why it could not be pinned, if so.
    fn read(&mut self, of: Viewed<'_>, path: &[u8]) -> Result<Option<PinFailure>, Unread> {
        self.need(of.at, &of.store.take_noted());
        let read = walk::find(of.volume, path)
            .and_then(|start| walk::visit(of.volume, start, &mut |node| self.node(of, node)));
        self.need(of.at, &of.store.take_noted());
        let failure = of.store.take_failure();
        self.is_pinned &= failure.is_none();
        read?;
        Ok(failure)
    }

    fn node(&mut self, of: Viewed<'_>, node: &Attributes) -> Result<(), Errno> {
        let view = of.volume;
        for name in view.list_xattr(node.inode)? {
            view.get_xattr(node.inode, &name)?;
        }
        match node.kind {
            FileKind::Regular => self.file(of, node)?,
            FileKind::Symlink => drop(view.read_symlink(node.inode)?),
            _ => return Ok(()),
        }
        if let Some(kept) = self.kept.pins.last_mut() {
            kept.files += 1;
            kept.bytes += walk::content_bytes(node);
            if kept.files % TELL_FILE_COUNT == 1 {
                self.keeper.tell(&self.kept);
            }
        }
        Ok(())
    }

    fn file(&mut self, of: Viewed<'_>, node: &Attributes) -> Result<(), Errno> {
        self.need(of.at, &of.store.take_noted());
        let stamp = (node.mtime, node.ctime, node.size);
        let held = self
            .before
            .files
            .get(&(of.at, node.inode.0))
            .filter(|(known, noted)| *known == stamp && self.keeper.cache.disk().has_pinned(noted));
        let view = of.volume;
        let read = |start: u64, end: u64| {
            let mut offset = start;
            while offset < end {
                view.read(node.inode, offset, READ_SIZE.min((end - offset).try_into().unwrap_or(READ_SIZE)))?;
                offset += u64::from(READ_SIZE);
            }
            Ok(())
        };
        walk::parts(view, node.inode, &mut |start, end| {
            if held.is_some() { Ok(()) } else { read(start, end) }
        })?;
        let noted = of.store.take_noted();
        self.need(of.at, &noted);
        // Of a file that did not change, what its reading noted: with each look's nodes of the tree it would only grow.
        let noted = held.map_or(noted, |(_, held)| held.clone());
        self.need(of.at, &noted);
        self.now.files.insert((of.at, node.inode.0), (stamp, noted));
        Ok(())
    }
}
