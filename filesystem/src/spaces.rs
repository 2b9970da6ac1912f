//! A drive with its spaces: what lies behind a link to another volume shows as a directory, to programs that know of nothing else.
//!
//! It lies between the mount and the drive. What is the drive's is passed on as it came; what lies in a space is told by its number
//! (see `numbers`) and answered by the space's volume, which is opened when its name is first looked up: so a space appears
//! wherever its link does. To programs its border is that of another file system: what is renamed or linked across it is copied
//! instead (`EXDEV`), and the name of a space can't be removed or changed, as that of a mountpoint can't (`EBUSY`).
//!
//! A space that can't be opened is a directory of mode 0, in which everything is the error that says why: `EACCES` for who is not on
//! its list. It is tried again when somebody asks again.
//!
//! A space has its snapshots in a `.snapshots` of its own, in its directory (see `past`). It knows no spaces within it, nor does the
//! drive's past but for the snapshots of them that were taken along with it (`then`). Who opens volumes, and closes them, is the
//! application ([`SpaceOpener`]).

mod news;
mod operations;
mod table;
#[cfg(test)]
mod tests;
mod then;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::crypto::PublicKey;

use crate::access::SpaceLink;
use crate::errno::Errno;
use crate::numbers::{Node, Numbers, PAST, SPACES};
use crate::operations::{Attributes, Inode, Operations, Sharing};
use crate::past::WithPast;
use crate::volume::Volume;
use news::News;
use table::Space;
use then::Then;

/// As many spaces as a mount shows: each that is opened takes memory for a cache of its own.
const SPACE_COUNT_MAX: usize = 64;
/// At so many names one is looked for at a time: it has one, and the others are somebody's nonsense.
const NAME_COUNT_MAX: usize = 8;

/// Opens the volumes that links lead to.
pub trait SpaceOpener {
    /// Whose volumes are opened: a link to anybody else's is none.
    fn owner(&self) -> PublicKey;

    /// Opens the volume that `link` leads to, which is called `name` where it was found. It stays the opener's to close, once nothing is asked of it any more.
    ///
    /// Whoever writes the drive can put a link at any name: the opener looks whether it is the one that the owner gave it.
    ///
    /// # Errors
    ///
    /// `EACCES` if this user may not read it, or if it is not to be followed, or not at this name; `EHOSTUNREACH` while the nodes are away; `EIO`.
    ///
    /// # Suspends
    ///
    /// Until it is open.
    fn open(&self, link: &SpaceLink, name: &[u8]) -> Result<Rc<Volume>, Errno>;
}

/// A drive, and the spaces in it; see the file's header.
pub struct WithSpaces {
    drive: Rc<Volume>,
    /// The drive as it is shown, its past with it.
    base: Rc<dyn Operations>,
    /// Its past, where that is shown.
    past: Option<Rc<WithPast>>,
    opener: Rc<dyn SpaceOpener>,
    numbers: Rc<RefCell<Numbers>>,
    spaces: RefCell<BTreeMap<u64, Rc<Space>>>,
    /// Those in snapshots of the drive.
    thens: RefCell<BTreeMap<u64, Rc<Then>>>,
    is_given_up: Cell<bool>,
    news: Rc<News>,
    /// Those that pass on what volumes tell the kernel.
    tellers: Rc<RefCell<Vec<JoinHandle<()>>>>,
}

/// Something in a space that is open.
struct Found {
    /// The space's number, or that of what it was in a snapshot of the drive.
    tree: u64,
    space: Rc<Space>,
    volume: Rc<WithPast>,
    /// By the number that the volume has for it.
    inode: Inode,
}

impl WithSpaces {
    /// Shows the spaces whose links are in the drive, and what they were in its past.
    pub fn new(drive: Rc<Volume>, past: Rc<WithPast>, opener: Rc<dyn SpaceOpener>) -> Rc<WithSpaces> {
        WithSpaces::over(drive, past.clone(), Some(past), opener)
    }

    /// As [`WithSpaces::new`], over a drive that is shown as `base`.
    fn over(
        drive: Rc<Volume>,
        base: Rc<dyn Operations>,
        past: Option<Rc<WithPast>>,
        opener: Rc<dyn SpaceOpener>,
    ) -> Rc<WithSpaces> {
        let news = Rc::new(News::default());
        let teller = news::pass_on(news.clone(), base.clone(), None);
        Rc::new(WithSpaces {
            drive,
            base,
            past,
            opener,
            numbers: Rc::new(RefCell::new(Numbers::new(SPACES))),
            spaces: RefCell::default(),
            thens: RefCell::default(),
            is_given_up: Cell::new(false),
            news,
            tellers: Rc::new(RefCell::new(vec![teller])),
        })
    }

    /// Opens a space before anybody has looked it up: something of it waits here.
    ///
    /// # Errors
    ///
    /// As [`SpaceOpener::open`].
    ///
    /// # Suspends
    ///
    /// Until it is open.
    pub fn open_space(&self, link: &SpaceLink, name: &[u8]) -> Result<(), Errno> {
        let space = self.space(link.clone(), Inode::ROOT, name)?;
        self.volume_of(&space).map(drop)
    }

    /// Opens nothing any more, and waits for nothing that is being opened. Nothing was written there yet.
    pub fn give_up(&self) {
        self.is_given_up.set(true);
        self.spaces.borrow().values().for_each(|space| space.give_up());
    }

    /// To be called when the kernel asks for nothing more, and before the spaces' volumes are closed: none is opened from now on, and
    /// what is being opened is open, or not.
    ///
    /// # Suspends
    ///
    /// Until then.
    pub fn end(&self) {
        self.news.end();
        let spaces: Vec<Rc<Space>> = self.spaces.borrow().values().cloned().collect();
        spaces.iter().for_each(|space| space.end());
        let tellers = self.tellers.take();
        for teller in tellers {
            teller.terminate();
            let _ = teller.join();
        }
    }

    /// The space that `name` in `parent` is a link to, if it is one.
    fn linked(&self, parent: Inode, name: &[u8]) -> Result<Option<Rc<Space>>, Errno> {
        if PAST.has(parent) || SPACES.has(parent) {
            return Ok(None);
        }
        let Some(bytes) = self.drive.link_at(parent, name)? else { return Ok(None) };
        // One that this version can't follow, or that leads to somebody else's, is like any other name of a kind that it does
        // not know.
        SpaceLink::decode(&bytes, &self.opener.owner()).map(|link| self.space(link, parent, name)).transpose()
    }

    /// The space that a link leads to, which was found as `name` in `above`.
    ///
    /// A link says no name, and whoever writes the drive can put it at any. So a link at another name is another space here, of
    /// which at most one can be opened: the one at the name that the owner gave it ([`SpaceOpener::open`]). Once that is open
    /// no other name leads to it.
    fn space(&self, link: SpaceLink, above: Inode, name: &[u8]) -> Result<Rc<Space>, Errno> {
        let number = number_of(&link, name);
        let mut spaces = self.spaces.borrow_mut();
        let is_same = |known: &&Rc<Space>| known.link.register() == link.register();
        let same: Vec<Rc<Space>> = spaces.values().filter(is_same).cloned().collect();
        if same.iter().any(|known| known.opened().is_some() && known.name != name) {
            return Err(Errno::EACCES);
        }
        if let Some(known) = spaces.get(&number) {
            // Two of which the numbers are alike: nobody makes them by accident.
            let is_it = known.link.register() == link.register() && known.name == name;
            return if is_it { Ok(known.clone()) } else { Err(Errno::EIO) };
        }
        if same.is_empty() {
            let others: BTreeSet<_> = spaces.values().map(|known| known.link.register()).collect();
            if others.len() >= SPACE_COUNT_MAX {
                tracing::warn!("more than {SPACE_COUNT_MAX} spaces in one drive: the others are not shown");
                return Err(Errno::ENFILE);
            }
        } else if same.len() >= NAME_COUNT_MAX {
            // Whatever was refused there is asked for anew.
            let idle = same.iter().find(|known| !known.is_opening()).ok_or(Errno::EBUSY)?;
            spaces.remove(&idle.number);
        }
        let space = Rc::new(Space::new(number, link, above, name));
        spaces.insert(number, space.clone());
        Ok(space)
    }

    /// The volume of a space, opened if it was not.
    fn volume_of(&self, space: &Rc<Space>) -> Result<Rc<WithPast>, Errno> {
        if self.is_given_up.get() {
            return space.opened().ok_or(Errno::EIO);
        }
        let (numbers, news, tellers, tree) =
            (self.numbers.clone(), self.news.clone(), self.tellers.clone(), space.number);
        let tell = move |volume: &Rc<WithPast>| {
            let numbers = numbers.clone();
            let number_of = move |inode| numbers.borrow().of(Node { tree, inode });
            let teller = news::pass_on(news.clone(), volume.clone(), Some(Box::new(number_of)));
            tellers.borrow_mut().push(teller);
        };
        space.volume(&self.opener, tell)
    }

    /// What the kernel means by a number, if it lies in a space.
    fn find(&self, number: Inode) -> Result<Option<Found>, Errno> {
        if !SPACES.has(number) {
            return Ok(None);
        }
        let (tree, space, inode) = self.node(number)?;
        let volume = self.volume_of(&space)?;
        Ok(Some(Found { tree, space, volume, inode }))
    }

    /// The tree, its space, and the number that the space has for what is meant.
    fn node(&self, number: Inode) -> Result<(u64, Rc<Space>, Inode), Errno> {
        let node = self.numbers.borrow().node(number).ok_or(Errno::ESTALE)?;
        let spaces = self.spaces.borrow();
        let is_known =
            |space: &Rc<Space>| spaces.get(&space.number).is_some_and(|known| Rc::ptr_eq(known, space));
        // Of one that is known no more another is opened, if it is looked up again.
        let then = || self.thens.borrow().get(&node.tree).map(|then| then.space.clone()).filter(is_known);
        let space = spaces.get(&node.tree).cloned().or_else(then).ok_or(Errno::ESTALE)?;
        Ok((node.tree, space, node.inode))
    }

    /// Whether a number is a space's own directory, and it can't be opened.
    fn is_shut(&self, number: Inode) -> bool {
        let is_root = |(_, _, inode): &(u64, Rc<Space>, Inode)| *inode == Inode::ROOT;
        SPACES.has(number)
            && self
                .node(number)
                .ok()
                .filter(is_root)
                .is_some_and(|(_, space, _)| self.volume_of(&space).is_err())
    }

    /// Shows the kernel something of a space.
    fn show(&self, tree: u64, attributes: Attributes) -> Attributes {
        let mut numbers = self.numbers.borrow_mut();
        numbers.begin_answer();
        let inode = numbers.show(Node { tree, inode: attributes.inode });
        Attributes { inode, ..attributes }
    }

    /// Shows a space's own directory, open or shut.
    fn show_space(&self, space: &Rc<Space>) -> Result<Attributes, Errno> {
        let found = match self.volume_of(space) {
            Ok(volume) => volume.attributes(Inode::ROOT)?,
            Err(_) => {
                let above = self.base.attributes(space.above.get())?;
                Attributes { inode: Inode::ROOT, mode: 0, nlink: 2, size: 0, blocks_512: 0, rdev: 0, ..above }
            }
        };
        Ok(self.show(space.number, found))
    }

    /// The volumes of all spaces that are open.
    fn open_volumes(&self) -> Vec<Rc<WithPast>> {
        self.spaces.borrow().values().filter_map(|space| space.opened()).collect()
    }

    /// As for a directory that something is mounted on, if what was refused is the name of a space.
    fn explain<T>(&self, result: Result<T, Errno>, names: &[(Inode, &[u8])]) -> Result<T, Errno> {
        if !matches!(result, Err(Errno::EOPNOTSUPP)) {
            return result;
        }
        for (parent, name) in names {
            if self.linked(*parent, name)?.is_some() {
                return Err(Errno::EBUSY);
            }
        }
        result
    }

    /// Whether others change any of what is shown: what holds of one is not said of the others.
    fn shared_most(&self) -> Sharing {
        let spaces = self.spaces.borrow();
        let open = spaces.values().filter_map(|space| space.sharing());
        open.fold(self.base.sharing(), |one, other| match (one, other) {
            (Sharing::WithOthers, _) | (_, Sharing::WithOthers) => Sharing::WithOthers,
            (Sharing::Leased, _) | (_, Sharing::Leased) => Sharing::Leased,
            (Sharing::Alone, Sharing::Alone) => Sharing::Alone,
        })
    }
}

/// What a space is known by here: the same on each machine, and another one for a link at another name.
fn number_of(link: &SpaceLink, name: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&link.register().0).update(name);
    let hash = hasher.finalize();
    let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
