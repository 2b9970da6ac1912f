//! [`crate::fs`] in a simulation: the machine's simulated disk behind the production interface.
//!
//! Reads and writes reach the page cache at once and return a moment later; a sync takes effect when it returns. At any
//! of them the power may go ([`super::Host::crash_at_disk_change`]).

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::Host;
use super::choices::Kind;
use super::disk::{Damage, Disk, Fate, Opening};
use super::host::Process;
use super::trace::What;
use super::world::Inner;
use crate::cell::RefCell;
use crate::coroutine;
use crate::fs::backend::{Disk as Backend, Durable, Listing, OpenFile};
use crate::fs::{DirEntry, FileKind, Metadata, OpenOptions, walk};

/// What a call that only meets the page cache takes at the most.
const CACHED_MAX: Duration = Duration::from_micros(50);

/// Entries of a directory that come at once, so that programs see more than one batch.
const LIST_BATCH: usize = 16;

/// What goes wrong with a machine's disk.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct DiskFaults {
    /// Bytes that fit; `None` for any number.
    pub capacity_bytes: Option<u64>,
    /// The share of reads that fails with EIO, from 0 to 1.
    pub read_error: f64,
    /// The share of writes that fails with EIO.
    pub write_error: f64,
    /// The share of syncs that fails with EIO. As with Linux, what such a sync should have written is never tried
    /// again: programs still read it, and a crash loses it.
    pub sync_error: f64,
}

/// A machine's disk, and who has it open.
pub(super) struct Drive {
    disk: RefCell<Disk>,
    faults: Cell<DiskFaults>,
    /// For each locked file, whose lock it is.
    locks: RefCell<BTreeMap<u64, u64>>,
    last_handle: Cell<u64>,
    /// How many changes the disk still takes before the power goes; `None` for any number.
    changes_left: Cell<Option<u32>>,
}

impl Drive {
    pub(super) fn new() -> Drive {
        Drive {
            disk: RefCell::new(Disk::new(std::time::SystemTime::UNIX_EPOCH)),
            faults: Cell::new(DiskFaults::default()),
            locks: RefCell::default(),
            last_handle: Cell::new(0),
            changes_left: Cell::new(None),
        }
    }

    pub(super) fn set_faults(&self, faults: DiskFaults) {
        self.faults.set(faults);
        self.disk.borrow_mut().capacity_bytes = faults.capacity_bytes;
    }

    pub(super) fn crash_at_change(&self, number: Option<u32>) {
        self.changes_left.set(number);
    }

    /// Counts a change; whether the power goes with it.
    fn is_last_change(&self) -> bool {
        let left = self.changes_left.get();
        self.changes_left.set(left.map(|left| left.saturating_sub(1)));
        left == Some(0)
    }

    /// The power goes.
    pub(super) fn crash(&self, world: &Inner) -> Damage {
        self.locks.borrow_mut().clear();
        self.changes_left.set(None);
        let choose =
            |count: usize| world.choose(Kind::Disk, u32::try_from(count).unwrap_or(u32::MAX)) as usize;
        // The plainest choice keeps everything: what is lost then is what a failure needs.
        let keep_names = |count: usize| count - choose(count + 1);
        let fate = |sectors: usize| match choose(3) {
            0 => Fate::Kept,
            1 => Fate::Lost,
            _ if sectors > 1 => Fate::Torn(1 + choose(sectors - 1)),
            _ => Fate::Lost,
        };
        self.disk.borrow_mut().crash(keep_names, fate)
    }
}

/// A process's view of its machine's disk.
pub(crate) struct Files {
    process: Rc<Process>,
}

struct OpenOnDisk {
    process: Rc<Process>,
    inode: u64,
    handle: u64,
    options: OpenOptions,
}

struct ListingOnDisk {
    process: Rc<Process>,
    inode: u64,
    entries: Option<VecDeque<DirEntry>>,
}

/// Refuses where a kernel's call could not suspend, or where nothing has an effect any more.
fn check(process: &Process) -> io::Result<()> {
    // Before anything is changed.
    coroutine::begin().over();
    if !coroutine::may_suspend() {
        return Err(io::Error::new(ErrorKind::WouldBlock, "a destructor may not wait while unwinding"));
    }
    if !process.is_alive() {
        return Err(io::Error::other("the simulated process has crashed"));
    }
    Ok(())
}

/// The disk is changed, or is about to be by a sync: the power may go here, and then this fails.
fn count_change(process: &Process) -> io::Result<()> {
    if process.host().drive().is_last_change() {
        Host::new(process.world(), process.host().clone()).crash();
        // Whoever may be interrupted gets no further.
        crate::yield_now();
    }
    check(process)
}

/// Lets some time pass, up to `most`.
fn pause(process: &Process, most: Duration) {
    let share = process.world().choose(Kind::Offload, 100);
    crate::sleep(most * share / 100);
}

fn fail_at_times(process: &Process, probability: f64) -> io::Result<()> {
    if process.world().chance(Kind::Disk, probability) {
        process.world().tell(|| format!("{}: the disk fails with EIO", process.host().name()));
        return Err(rustix::io::Errno::IO.into());
    }
    Ok(())
}

fn metadata(disk: &Disk, inode: u64) -> io::Result<Metadata> {
    let known = disk.known(inode)?;
    Ok(Metadata {
        kind: known.kind,
        len_bytes: known.len_bytes,
        mode: known.mode,
        modified: known.modified,
        inode,
        link_count: known.link_count,
    })
}

impl Files {
    pub(crate) fn new(process: Rc<Process>) -> Files {
        Files { process }
    }

    fn drive(&self) -> &Drive {
        self.process.host().drive()
    }

    /// Changes names, and lets a moment pass.
    fn change_names<T>(&self, f: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        check(&self.process)?;
        let result = f(&mut self.drive().disk.borrow_mut());
        count_change(&self.process)?;
        pause(&self.process, CACHED_MAX);
        result
    }

    /// Looks at names, and lets a moment pass.
    fn on_names<T>(&self, f: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        check(&self.process)?;
        let result = f(&mut self.drive().disk.borrow_mut());
        pause(&self.process, CACHED_MAX);
        result
    }
}

impl Backend for Files {
    fn open(&self, path: &Path, options: &OpenOptions) -> io::Result<Rc<dyn OpenFile>> {
        let writes = options.write || options.append;
        if !writes && (!options.read || options.create || options.create_new || options.truncate) {
            return Err(ErrorKind::InvalidInput.into());
        }
        check(&self.process)?;
        let how = Opening {
            create: options.create,
            create_new: options.create_new,
            truncate: options.truncate,
            writes,
            no_follow: options.no_follow,
            mode: options.mode,
        };
        let drive = self.drive();
        let inode = drive.disk.borrow_mut().open(path, how, crate::wall_clock())?;
        if how.create || how.create_new || how.truncate {
            count_change(&self.process)?;
        }
        drive.last_handle.set(drive.last_handle.get() + 1);
        let handle = drive.last_handle.get();
        let file = OpenOnDisk { process: self.process.clone(), inode, handle, options: options.clone() };
        pause(&self.process, CACHED_MAX);
        Ok(Rc::new(file))
    }

    fn metadata(&self, path: &Path, follow_symlink: bool) -> io::Result<Metadata> {
        self.on_names(|disk| metadata(disk, disk.resolve(path, follow_symlink)?))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change_names(|disk| disk.create_dir(path, crate::wall_clock()))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change_names(|disk| disk.remove_file(path, crate::wall_clock()))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.change_names(|disk| disk.remove_dir(path, crate::wall_clock()))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match self.metadata(path, false)?.kind {
            FileKind::Directory => {}
            FileKind::Symlink => return self.remove_file(path),
            _ => return Err(ErrorKind::NotADirectory.into()),
        }
        for entry in walk(path).contents_first(true) {
            let entry = entry?;
            match entry.kind {
                FileKind::Directory => self.remove_dir(&entry.path)?,
                _ => self.remove_file(&entry.path)?,
            }
        }
        self.remove_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change_names(|disk| disk.rename(from, to, crate::wall_clock()))
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        self.change_names(|disk| disk.hard_link(existing, new, crate::wall_clock()))
    }

    fn symlink(&self, target: &Path, new: &Path) -> io::Result<()> {
        self.change_names(|disk| disk.symlink(target, new, crate::wall_clock()))
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.on_names(|disk| disk.read_link(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        check(&self.process)?;
        pause(&self.process, self.process.world().config.offload_max);
        count_change(&self.process)?;
        fail_at_times(&self.process, self.drive().faults.get().sync_error)?;
        self.drive().disk.borrow_mut().sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Box<dyn Listing>> {
        let inode = self.on_names(|disk| {
            let inode = disk.resolve(path, true)?;
            disk.list(inode).map(|_| inode)
        })?;
        Ok(Box::new(ListingOnDisk { process: self.process.clone(), inode, entries: None }))
    }

    fn remove_file_later(&self, path: PathBuf) {
        // Where it fails nobody is told; a crashed process reaches no disk.
        if self.process.is_alive() {
            let _ = self.drive().disk.borrow_mut().remove_file(&path, crate::wall_clock());
        }
    }
}

impl OpenOnDisk {
    fn drive(&self) -> &Drive {
        self.process.host().drive()
    }
}

impl OpenFile for OpenOnDisk {
    fn read_at(&self, len: usize, offset: u64) -> io::Result<Vec<u8>> {
        check(&self.process)?;
        if !self.options.read {
            return Err(rustix::io::Errno::BADF.into());
        }
        pause(&self.process, CACHED_MAX);
        check(&self.process)?;
        fail_at_times(&self.process, self.drive().faults.get().read_error)?;
        self.drive().disk.borrow_mut().read(self.inode, offset, len)
    }

    fn write_at(&self, bytes: Bytes, offset: u64) -> io::Result<usize> {
        check(&self.process)?;
        if !(self.options.write || self.options.append) {
            return Err(rustix::io::Errno::BADF.into());
        }
        fail_at_times(&self.process, self.drive().faults.get().write_error)?;
        let offset = (!self.options.append).then_some(offset);
        let written = self.drive().disk.borrow_mut().write(self.inode, offset, &bytes, crate::wall_clock());
        self.process.world().note(What::Disk, self.inode, bytes.len() as u64);
        count_change(&self.process)?;
        pause(&self.process, CACHED_MAX);
        written
    }

    fn sync(&self, _: Durable) -> io::Result<()> {
        check(&self.process)?;
        pause(&self.process, self.process.world().config.offload_max);
        count_change(&self.process)?;
        let fails = fail_at_times(&self.process, self.drive().faults.get().sync_error).is_err();
        self.process.world().note(What::Disk, self.inode, u64::MAX);
        self.drive().disk.borrow_mut().sync(self.inode, fails)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        check(&self.process)?;
        let result = self.drive().disk.borrow_mut().set_len(self.inode, len, crate::wall_clock());
        count_change(&self.process)?;
        pause(&self.process, CACHED_MAX);
        result
    }

    fn take_permissions_of(&self, _: &Path, _: u32) -> io::Result<()> {
        // Nobody owns anything here, and modes pass no umask.
        Ok(())
    }

    fn metadata(&self) -> io::Result<Metadata> {
        metadata(&self.drive().disk.borrow(), self.inode)
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut locks = self.drive().locks.borrow_mut();
        Ok(*locks.entry(self.inode).or_insert(self.handle) == self.handle)
    }

    fn unlock(&self) -> io::Result<()> {
        let mut locks = self.drive().locks.borrow_mut();
        if locks.get(&self.inode) == Some(&self.handle) {
            locks.remove(&self.inode);
        }
        Ok(())
    }
}

impl Drop for OpenOnDisk {
    fn drop(&mut self) {
        // After a power cut nothing is open or locked any more; a killed process's kernel closes its files.
        if self.process.lost_power() {
            return;
        }
        let _ = self.unlock();
        self.drive().disk.borrow_mut().close(self.inode);
    }
}

impl Listing for ListingOnDisk {
    fn next_batch(&mut self) -> io::Result<Vec<DirEntry>> {
        check(&self.process)?;
        pause(&self.process, CACHED_MAX);
        if self.entries.is_none() {
            let listed = self.process.host().drive().disk.borrow().list(self.inode)?;
            self.entries = Some(listed.into_iter().map(|(name, _, kind)| DirEntry { name, kind }).collect());
        }
        let entries = self.entries.as_mut().map(|entries| entries.drain(..LIST_BATCH.min(entries.len())));
        Ok(entries.into_iter().flatten().collect())
    }

    fn open_child(&mut self, name: &OsStr) -> io::Result<Box<dyn Listing>> {
        check(&self.process)?;
        let disk = self.process.host().drive().disk.borrow();
        let child = disk.list(self.inode)?.into_iter().find(|(entry, ..)| entry == name);
        let (_, inode, _) = child.ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
        disk.list(inode)?;
        Ok(Box::new(ListingOnDisk { process: self.process.clone(), inode, entries: None }))
    }
}
