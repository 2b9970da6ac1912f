//! A delta's frames on their way into the store: sealed into objects, which are put as they fill.
//!
//! A bounded number is on its way at a time. What is stored stays stored: the delta names it by pointer from then on,
//! whatever becomes of the commit. What it points to already and is in doubt ([`super::doubt`]) is stored anew. The tree is
//! none of this file's business.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use dht::address::GROUP_SIZE_BYTES;
use dht::{Address, PutError};
use reactor::JoinHandle;
use reactor::sync::Semaphore;

use super::Volume;
use super::commit::BackOff;
use super::state::{Change, Delta};
use crate::cache::Cached;
use crate::chunk::{ChunkKind, Location, Packer};
use crate::errno::Errno;
use crate::format::{INLINE_SIZE_MAX, Key, Pointer, padded_size};

/// Objects on their way at once: 16 MiB, enough for a long fat line.
const PUTS_IN_FLIGHT_MAX: usize = 16;

/// Objects being put in the background.
struct Puts {
    places: Rc<Semaphore>,
    failure: Rc<Cell<Option<Errno>>>,
    /// By the packer's number of the object.
    handles: Vec<(u32, JoinHandle<Option<Address>>)>,
}

impl Drop for Puts {
    fn drop(&mut self) {
        for (_, handle) in &self.handles {
            handle.terminate();
        }
    }
}

impl Volume {
    /// Seals the delta's frames, and those that it points to and that are in doubt. Those in full objects are stored when this
    /// returns, and the delta points to them, even if others failed; the rest, less than an object, are with their places
    /// in the one that is open.
    #[expect(clippy::type_complexity, reason = "a pair that is taken apart at once")]
    pub(super) fn store_frames(
        self: &Rc<Self>,
        delta: Rc<Delta>,
        packer: &mut Packer,
    ) -> Result<(Rc<Delta>, Vec<(Key, Location)>), Errno> {
        let mut puts = Puts::new();
        let mut sealed = Vec::new();
        packer.defer_names(true);
        let mut frames = self.frames_to_store(&delta);
        // What is aligned most goes first: so a whole frame, of any size, lies in one group of the store.
        frames.sort_by_key(|(_, frame)| std::cmp::Reverse(alignment(frame.size())));
        for (key, frame) in frames {
            if puts.failure.get().is_some() {
                break;
            }
            // One at a time: they may be far more than memory holds.
            let bytes = match frame {
                Frame::Here(bytes) => bytes,
                Frame::InDoubt(pointer) => match self.content_in_doubt(key, &pointer) {
                    Ok(Some(bytes)) => bytes,
                    // It is lost, and pointed to as it was.
                    Ok(None) => continue,
                    Err(errno) => {
                        puts.failure.set(Some(errno));
                        break;
                    }
                },
            };
            sealed.push((key.clone(), packer.append(ChunkKind::Frame, &bytes)));
            for object in packer.take_closed() {
                puts.start(self, object);
            }
        }
        packer.defer_names(false);
        let result = puts.wait(packer);
        drop(delta);
        sealed.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut last = Vec::new();
        let mut state = self.state.borrow_mut();
        let Some(delta) = state.committing.take() else { return Err(Errno::EIO) };
        let mut delta = Rc::unwrap_or_clone(delta);
        for (key, location) in sealed {
            if packer.is_open(&location) {
                last.push((key, location));
            } else if packer.is_named(&location) {
                let pointer = packer.pointer(&location);
                if let Some(Change::Frame(bytes)) = delta.remove(&key) {
                    state.cache.insert(pointer, Cached::Frame(bytes));
                }
                delta.insert(key, Change::Stored(pointer));
            }
        }
        let delta = Rc::new(delta);
        state.committing = Some(delta.clone());
        result.map(|()| (delta, last))
    }

    fn frames_to_store<'a>(&self, delta: &'a Delta) -> Vec<(&'a Key, Frame)> {
        let state = self.state.borrow();
        let frames = delta.changes.iter().filter_map(|(key, change)| match change {
            Change::Frame(bytes) if bytes.len() > INLINE_SIZE_MAX => Some((key, Frame::Here(bytes.clone()))),
            change => state.doubt.of(change).map(|pointer| (key, Frame::InDoubt(pointer))),
        });
        frames.collect()
    }
}

/// A frame that is to be stored.
enum Frame {
    Here(Bytes),
    /// It lies where it may be deleted.
    InDoubt(Pointer),
}

impl Frame {
    fn size(&self) -> usize {
        match self {
            Frame::Here(bytes) => bytes.len(),
            Frame::InDoubt(pointer) => pointer.size as usize,
        }
    }
}

/// Returns how many low bits of the sealed size are zero, as far as groups of the store go.
fn alignment(size: usize) -> u32 {
    (padded_size(size) | GROUP_SIZE_BYTES).trailing_zeros()
}

impl Puts {
    fn new() -> Puts {
        Puts {
            places: Rc::new(Semaphore::new(PUTS_IN_FLIGHT_MAX)),
            failure: Rc::new(Cell::new(None)),
            handles: Vec::new(),
        }
    }

    /// Sends one object off, once there is a place.
    fn start(&mut self, volume: &Rc<Volume>, (number, object): (u32, Bytes)) {
        self.places.acquire().forget();
        let (volume, places, failure) = (volume.clone(), self.places.clone(), self.failure.clone());
        let handle = reactor::spawn(move || {
            let mut back_off = BackOff::new();
            let result = loop {
                match volume.store.put(object.clone()) {
                    // The others are on their way: soon there will be nodes for all of them, or for none.
                    Err(error @ PutError::NoQuorum { .. }) => {
                        volume.on_store_failed(&error, put_errno(&error));
                        back_off.pause();
                    }
                    result => break result,
                }
            };
            places.release(1);
            match &result {
                Ok(_) => {
                    volume.space.on_put(object.len());
                    volume.on_stored();
                }
                Err(error) => {
                    volume.on_store_failed(error, put_errno(error));
                    failure.set(Some(put_errno(error)));
                }
            }
            result.ok()
        });
        self.handles.push((number, handle));
        // Sealing a large commit takes a while: others get their turn after each object.
        reactor::yield_now();
    }

    /// Waits for all of them, and tells the packer what the store calls those that it took.
    fn wait(mut self, packer: &mut Packer) -> Result<(), Errno> {
        for (number, handle) in std::mem::take(&mut self.handles) {
            if let Some(address) = handle.join().map_err(|_| Errno::EINTR)? {
                packer.set_name(number, address);
            }
        }
        self.failure.get().map_or(Ok(()), Err)
    }
}

pub(super) fn put_errno(error: &PutError) -> Errno {
    match error {
        PutError::Full { .. } => Errno::ENOSPC,
        PutError::NoQuorum { .. } => Errno::ETIMEDOUT,
        PutError::Refused(_) => Errno::EACCES,
        _ => Errno::EIO,
    }
}
