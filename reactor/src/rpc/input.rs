//! Bytes in the sizes that frames need, from a stream that gives them in sizes of its own.
//!
//! Small frames are cut out of one buffer, many to a read. The body of a large one is read straight into the
//! memory it will live in; only what had been read ahead is copied.
//!
//! What it is not: `BufReader`, which wants `&mut` and cannot read past its buffer into the target with the
//! rest still buffered.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::time::Instant;

use crate::net::Duplex;

/// The buffer of a connection that has little to say.
const BUFFER_SIZE_BYTES_MIN: usize = 8 << 10;

/// The buffer of a busy one: a full part of a payload fits.
const BUFFER_SIZE_BYTES_MAX: usize = 64 << 10;

/// A buffered view of a stream's incoming half.
pub(super) struct Input<'a> {
    stream: &'a dyn Duplex,
    /// Set to the time of every successful read: the peer lives.
    heard: &'a Cell<Instant>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(stream: &'a dyn Duplex, heard: &'a Cell<Instant>) -> Input<'a> {
        Input { stream, heard, buffer: vec![0; BUFFER_SIZE_BYTES_MIN], start: 0, end: 0 }
    }

    /// The next `N` bytes, or `None` if the stream ends before the first of them.
    ///
    /// # Suspends
    /// Until they are there.
    pub(super) fn array<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        while self.end - self.start < N {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            let count = self.stream.read_some(&mut self.buffer[self.end..])?;
            if count == 0 {
                return if self.end == 0 { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
            self.heard.set(crate::now());
            self.end += count;
            if self.end == self.buffer.len() && self.end < BUFFER_SIZE_BYTES_MAX {
                self.buffer.resize(BUFFER_SIZE_BYTES_MAX, 0);
            }
        }
        let bytes = self.buffer[self.start..self.start + N].try_into().expect("the range is N long");
        self.start += N;
        Ok(Some(bytes))
    }

    /// The next `target.len()` bytes.
    ///
    /// # Suspends
    /// Until they are there.
    pub(super) fn fill(&mut self, target: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        loop {
            let count = (self.end - self.start).min(target.len() - filled);
            target[filled..filled + count].copy_from_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
            filled += count;
            if filled == target.len() {
                return Ok(());
            }
            // The buffer is empty here. What is missing goes to its place directly, unless it is little: then
            // the read may bring the next frames too.
            let rest = &mut target[filled..];
            let direct = rest.len() >= self.buffer.len() / 2;
            let read = self.stream.read_some(if direct { rest } else { &mut self.buffer })?;
            if read == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.heard.set(crate::now());
            if direct {
                filled += read;
            } else {
                (self.start, self.end) = (0, read);
            }
        }
    }

    /// The next `size` bytes in memory of their own. The caller bounds `size`.
    ///
    /// # Suspends
    /// Until they are there.
    pub(super) fn take(&mut self, size: usize) -> io::Result<Vec<u8>> {
        if size <= self.end - self.start {
            let bytes = self.buffer[self.start..self.start + size].to_vec();
            self.start += size;
            return Ok(bytes);
        }
        let mut bytes = vec![0; size];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Passes over the next `size` bytes.
    ///
    /// # Suspends
    /// Until they are there.
    pub(super) fn skip(&mut self, mut size: usize) -> io::Result<()> {
        while size > 0 {
            if self.start == self.end {
                self.start = 0;
                self.end = self.stream.read_some(&mut self.buffer)?;
                if self.end == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                self.heard.set(crate::now());
            }
            let count = size.min(self.end - self.start);
            self.start += count;
            size -= count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pipe;
    use std::io::IoSlice;

    #[test]
    fn pieces_of_any_size_come_out_as_they_went_in() {
        crate::run(|| {
            let (near, far) = pipe(1000);
            let sizes = [1, 7, 8, 100, 5_000, 8_192, 20_000, 65_537, 3, 200_000, 0, 24];
            let all: Vec<u8> =
                (0..sizes.iter().sum::<usize>()).map(|at| at as u8 ^ (at >> 8) as u8).collect();
            let sent = all.clone();
            let writer = crate::spawn(move || {
                near.write_slices(&mut [IoSlice::new(&sent)]).unwrap();
                near.end().unwrap();
            });
            let heard = Cell::new(crate::now());
            let mut input = Input::new(&far, &heard);
            let mut at = 0;
            for (round, size) in sizes.into_iter().enumerate() {
                match round % 3 {
                    _ if size == 8 => assert_eq!(input.array::<8>().unwrap().unwrap(), all[at..at + 8]),
                    1 => input.skip(size).unwrap(),
                    _ => assert!(input.take(size).unwrap() == all[at..at + size]),
                }
                at += size;
            }
            assert_eq!(input.array::<8>().unwrap(), None);
            writer.join().unwrap();
        });
    }

    #[test]
    fn an_end_amid_a_piece_is_an_error() {
        crate::run(|| {
            let (near, far) = pipe(1000);
            near.write_slices(&mut [IoSlice::new(&[1, 2, 3])]).unwrap();
            near.end().unwrap();
            let heard = Cell::new(crate::now());
            let error = Input::new(&far, &heard).array::<8>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        });
    }
}
