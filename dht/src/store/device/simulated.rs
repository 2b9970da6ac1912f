//! The disk of a simulated world ([`reactor::sim`]), through [`reactor::fs`].
//!
//! The reactor's files belong to their thread, and the store hands its files to other threads. In a simulation these
//! threads are coroutines of the one thread, so a file is known to the store by a number, and kept in a table of the
//! thread.

use super::{DeviceId, Disk, DiskFile, Opening, Waiting};
use reactor::cell::RefCell;
use reactor::fs::{self, File, OpenOptions};
use std::{
    cell::Cell,
    collections::BTreeMap,
    io::{self, IoSlice},
    ops::Range,
    path::Path,
    rc::Rc,
    sync::Arc,
};

thread_local! {
    static FILES: RefCell<BTreeMap<u64, Rc<File>>> = const { RefCell::new(BTreeMap::new()) };
    static LAST: Cell<u64> = const { Cell::new(0) };
}

/// The disk of the simulated machine that the calling coroutine runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimulatedDisk;

#[derive(Debug)]
struct SimulatedFile(u64);

impl SimulatedFile {
    fn file(&self) -> io::Result<Rc<File>> {
        let file = FILES.with(|files| files.borrow().get(&self.0).cloned());
        file.ok_or_else(|| io::Error::other("a simulated file was taken to another thread"))
    }
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        // After the end of its thread there is no table.
        let _ = FILES.try_with(|files| files.borrow_mut().remove(&self.0));
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path, how: Opening) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != Opening::Read);
        options.create(how == Opening::Create).create_new(how == Opening::New);
        let file = Rc::new(options.open(path)?);
        let number = LAST.get() + 1;
        LAST.set(number);
        FILES.with(|files| files.borrow_mut().insert(number, file));
        Ok(Arc::new(SimulatedFile(number)))
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        if fs::metadata(path).is_ok_and(|known| known.is_dir()) {
            return Ok(());
        }
        fs::create_dir_all(path)?;
        path.parent().map_or(Ok(()), fs::sync_dir)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(path)?.filter_map(|entry| entry.map(|e| e.name.into_string().ok()).transpose());
        names.collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        fs::sync_dir(path)
    }

    fn free_bytes(&self, _: &Path) -> Option<u64> {
        None
    }

    fn device(&self, _: &Path) -> DeviceId {
        DeviceId::default()
    }

    fn waiting(&self) -> Waiting {
        Waiting::Coroutine
    }
}

impl DiskFile for SimulatedFile {
    fn length_bytes(&self) -> io::Result<u64> {
        Ok(self.file()?.metadata()?.len_bytes)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file()?.read_exact_at(buffer, offset)
    }

    fn read_cached_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn write_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.file()?.write_at(&joined, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file()?.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file()?.sync_all()
    }

    fn set_length(&self, length_bytes: u64) -> io::Result<()> {
        self.file()?.set_len(length_bytes)
    }

    fn allocate(&self, length_bytes: u64) -> io::Result<()> {
        self.file()?.write_all_at(&vec![0; length_bytes as usize], 0)?;
        self.file()?.sync_all()
    }

    fn punch(&self, bytes: Range<u64>) -> io::Result<()> {
        self.file()?.write_all_at(&vec![0; (bytes.end - bytes.start) as usize], bytes.start)
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file()?.try_lock()
    }

    fn unlock(&self) {
        // It cannot fail on a file that we locked ourselves.
        let _ = self.file().and_then(|file| file.unlock());
    }
}
