//! Buffers in which objects are sealed, used again when their objects are stored and let go.
//!
//! The allocator gives a freed buffer of 1 MiB back to the system, and has the next one from there page by page, each
//! cleared before it is written. Writing a large file, faults on these pages were 15 of 100 samples of the daemon, and
//! sealing itself 5. So whoever holds an object last gives its buffer back to those whose next object needs one, on
//! whichever thread that is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::format::OBJECT_SIZE_MAX;

/// Bytes of buffers that are kept for the next objects: as many as may be on their way at once.
const KEPT_BYTES_MAX: usize = 16 * OBJECT_SIZE_MAX;
/// Buffers have few sizes, each so many times the one before: what comes back fits who asks next. Whoever holds an object
/// counts its bytes, and its buffer is no larger than this many times that.
const STEP: usize = 4;
/// The smallest: a small commit's frames and nodes.
const SIZE_MIN: usize = OBJECT_SIZE_MAX / STEP / STEP;

/// See the file's header. Clones share the buffers.
#[derive(Clone, Debug, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

/// An object in a buffer that is given back.
struct Lent {
    buffer: Vec<u8>,
    buffers: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.buffers.give_back(std::mem::take(&mut self.buffer));
    }
}

impl Buffers {
    /// Returns an empty buffer with room for `needed` bytes.
    pub(super) fn take(&self, needed: usize) -> Vec<u8> {
        let sizes = std::iter::successors(Some(SIZE_MIN), |size| Some(size * STEP));
        let mut of_objects = sizes.take_while(|size| *size <= OBJECT_SIZE_MAX);
        let size = of_objects.find(|size| *size >= needed).unwrap_or(needed);
        let mut kept = self.kept();
        // The last one that came back is likely to be in the processor's cache yet.
        let found = kept.iter().rposition(|buffer| buffer.capacity() == size).map(|at| kept.remove(at));
        drop(kept);
        found.unwrap_or_else(|| Vec::with_capacity(size))
    }

    /// Returns what `buffer` holds; the buffer comes back when nobody holds that any more.
    pub(super) fn lend(&self, buffer: Vec<u8>) -> Bytes {
        if buffer.len() * STEP < buffer.capacity() {
            let small = Bytes::copy_from_slice(&buffer);
            self.give_back(buffer);
            return small;
        }
        Bytes::from_owner(Lent { buffer, buffers: self.clone() })
    }

    /// Keeps no more than `bytes` of buffers from the last commits.
    pub(crate) fn shrink(&self, bytes: usize) {
        let mut kept = self.kept();
        let mut total: usize = kept.iter().map(Vec::capacity).sum();
        while total > bytes && !kept.is_empty() {
            total -= kept.remove(0).capacity();
        }
    }

    /// Keeps a buffer for the next object, in the place of the oldest if there are enough.
    pub(super) fn give_back(&self, mut buffer: Vec<u8>) {
        if !(SIZE_MIN..=OBJECT_SIZE_MAX).contains(&buffer.capacity()) {
            return;
        }
        self.shrink(KEPT_BYTES_MAX - buffer.capacity());
        buffer.clear();
        self.kept().push(buffer);
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Whatever panicked while it had them, they are buffers still.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(buffers: &Buffers) -> usize {
        buffers.kept().iter().map(Vec::capacity).sum()
    }

    #[test]
    fn a_buffer_comes_back_when_the_last_who_holds_its_object_lets_go() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take(1000);
        buffer.extend_from_slice(&[7; 60_000]);
        let at = buffer.as_ptr();
        let object = buffers.lend(buffer);
        let part = object.slice(100..200);
        drop(object);
        let other = buffers.take(1000);
        assert_ne!(other.as_ptr(), at, "the first is in use");
        drop(other);
        assert_eq!(part, [7; 100][..]);
        std::thread::spawn(move || drop(part)).join().unwrap();
        let again = buffers.take(60_000);
        assert_eq!((again.as_ptr(), again.len()), (at, 0));
    }

    #[test]
    fn buffers_have_few_sizes_and_a_small_object_holds_no_large_one() {
        let buffers = Buffers::default();
        let sizes =
            [1, 65_536, 65_537, 300_000, 1 << 20, 1_100_000].map(|size| buffers.take(size).capacity());
        assert_eq!(sizes, [65_536, 65_536, 262_144, 1 << 20, 1 << 20, 1_100_000]);
        let mut large = buffers.take(300_000);
        large.extend_from_slice(&[2; 20_000]);
        let object = buffers.lend(large);
        assert_eq!((&object[..], kept(&buffers)), (&[2; 20_000][..], 1 << 20), "it is copied");
        drop(buffers.lend(vec![1; 1_100_000]));
        assert_eq!(kept(&buffers), 1 << 20, "nobody would ask for that");
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_go_first() {
        let buffers = Buffers::default();
        let objects: Vec<Bytes> = (0..40).map(|_| buffers.lend(vec![1; OBJECT_SIZE_MAX])).collect();
        drop(objects);
        assert_eq!(kept(&buffers), KEPT_BYTES_MAX);
        drop(buffers.lend(vec![1; SIZE_MIN]));
        assert_eq!(kept(&buffers), KEPT_BYTES_MAX - OBJECT_SIZE_MAX + SIZE_MIN);
        buffers.shrink(OBJECT_SIZE_MAX);
        assert_eq!(kept(&buffers), SIZE_MIN, "the newest");
        buffers.shrink(0);
        assert_eq!(kept(&buffers), 0);
    }
}
