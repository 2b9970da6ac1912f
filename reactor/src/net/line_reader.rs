//! Lines of a stream, lent from the buffer that they came into.
//!
//! A connection that waits for its next line holds no buffer: it waits first, and takes one from those that its thread
//! keeps when there is something to put into it. So ten thousand idle connections take none, and a busy thousand share
//! a few that stay in the processor's cache.
//!
//! What it is not: for other things than lines of bounded length. [`std::io::BufReader`] works over every stream here.

use std::io::{self, BufRead as _, ErrorKind};

use super::Duplex;
use crate::cell::RefCell;
use crate::coroutine;

/// Size of a buffer at first: what `std::io::BufReader` has too.
const BUFFER_SIZE_BYTES: usize = 8 * 1024;

/// Buffers that a thread keeps: more are in use at once only where so many lines have come in parts.
const SPARE_MAX: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Reads the lines of a stream, and lends each: nothing is copied, or allocated for it.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use reactor::net::{LineReader, UnixStream};
///
/// reactor::run(|| {
///     let (mut near, far) = UnixStream::pair().unwrap();
///     near.write_all(b"one\ntwo\nthr").unwrap();
///     drop(near);
///     let mut lines = LineReader::new(&far, 100);
///     assert_eq!(lines.next_line().unwrap(), Some(&b"one\n"[..]));
///     assert_eq!(lines.next_line().unwrap(), Some(&b"two\n"[..]));
///     assert_eq!(lines.next_line().unwrap(), Some(&b"thr"[..])); // the stream ended without a line end
///     assert_eq!(lines.next_line().unwrap(), None);
/// });
/// ```
pub struct LineReader<'a, D: Duplex + ?Sized> {
    stream: &'a D,
    limit_bytes: usize,
    /// Empty while nothing of the stream is held.
    buffer: Vec<u8>,
    /// What was received and has not been lent: `buffer[begin..end]`.
    begin: usize,
    end: usize,
}

impl<'a, D: Duplex + ?Sized> LineReader<'a, D> {
    /// Lines of at most `limit_bytes`, their ends included. A peer that never ends its line costs twice that at most.
    pub fn new(stream: &'a D, limit_bytes: usize) -> LineReader<'a, D> {
        LineReader { stream, limit_bytes, buffer: Vec::new(), begin: 0, end: 0 }
    }

    /// The next line with its end, `\n`; at the end of the stream what came after the last one, and then `None`.
    ///
    /// # Errors
    ///
    /// `InvalidData` when a line is longer than allowed; those of the stream.
    ///
    /// # Suspends
    ///
    /// Until the line has come.
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        let call = coroutine::begin();
        let (mut searched, mut has_come) = (self.begin, true);
        loop {
            let mut line_end = searched + until_newline(&self.buffer[searched..self.end]);
            let is_whole = line_end > searched && self.buffer[line_end - 1] == b'\n';
            if line_end - self.begin > self.limit_bytes
                || !is_whole && line_end - self.begin == self.limit_bytes
            {
                let message = format!("no line's end within {} bytes", self.limit_bytes);
                return Err(io::Error::new(ErrorKind::InvalidData, message));
            }
            if !is_whole {
                let held = self.end - self.begin;
                has_come = false;
                if self.receive()? {
                    searched = self.begin + held;
                    continue;
                }
                if held == 0 {
                    return Ok(None);
                }
                // It may have been moved in the buffer.
                line_end = self.end;
            }
            if has_come {
                // One more call that needs no wait: bare newlines must not hold the thread.
                call.needed_no_wait();
            }
            let begin = std::mem::replace(&mut self.begin, line_end);
            return Ok(Some(&self.buffer[begin..line_end]));
        }
    }

    /// Receives more behind what is held; false at the end of the stream.
    fn receive(&mut self) -> io::Result<bool> {
        if self.begin == self.end {
            return self.receive_first();
        }
        if self.end == self.buffer.len() {
            if self.begin > 0 {
                self.buffer.copy_within(self.begin..self.end, 0);
                (self.begin, self.end) = (0, self.end - self.begin);
            } else {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        let count = self.stream.read_some(&mut self.buffer[self.end..])?;
        self.end += count;
        Ok(count > 0)
    }

    /// Receives where nothing is held, and holds no buffer while it waits.
    fn receive_first(&mut self) -> io::Result<bool> {
        loop {
            self.give_back();
            self.stream.wait_readable()?;
            self.buffer =
                SPARE.with(|spare| spare.borrow_mut().pop()).unwrap_or_else(|| vec![0; BUFFER_SIZE_BYTES]);
            if let Some(received) = self.stream.try_read_some(&mut self.buffer) {
                self.end = received?;
                return Ok(self.end > 0);
            }
        }
    }

    fn give_back(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        (self.begin, self.end) = (0, 0);
        if buffer.len() == BUFFER_SIZE_BYTES {
            // Without the thread's store it is at its end.
            let _ = SPARE.try_with(|spare| {
                let mut spare = spare.borrow_mut();
                if spare.len() < SPARE_MAX {
                    spare.push(buffer);
                }
            });
        }
    }
}

impl<D: Duplex + ?Sized> Drop for LineReader<'_, D> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Bytes up to the first line end and with it; all of them where there is none.
fn until_newline(mut bytes: &[u8]) -> usize {
    // The standard library's search, which is the C library's. A slice has no errors.
    bytes.skip_until(b'\n').unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{UnixStream, pipe};
    use crate::{run, spawn, yield_now};
    use std::io::{BufReader, Write};

    #[test]
    fn lines_are_the_same_however_they_come_and_however_long_they_are() {
        run(|| {
            let mut state = 7_u64;
            let mut choose = |count: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % count
            };
            let mut text = Vec::new();
            for _ in 0..400 {
                let long = if choose(20) == 0 { 40_000 } else { 60 };
                text.extend((0..choose(long)).map(|n| b'a' + (n % 26) as u8));
                text.push(b'\n');
            }
            text.extend(b"the last has no end");
            let (near, far) = pipe(5_000);
            let mut pieces = Vec::new();
            let mut rest = &text[..];
            while !rest.is_empty() {
                let (piece, more) = rest.split_at((1 + choose(9_000) as usize).min(rest.len()));
                pieces.push(piece.to_vec());
                rest = more;
            }
            let writer = spawn(move || {
                for piece in pieces {
                    near.write_slices(&mut [io::IoSlice::new(&piece)]).unwrap();
                }
                near.end().unwrap();
                near
            });
            let (mut lines, mut expected) = (LineReader::new(&far, 50_000), BufReader::new(&text[..]));
            loop {
                let line = lines.next_line().unwrap().unwrap_or_default();
                assert!(line == crate::read_until(&mut expected, b'\n', 50_000).unwrap());
                if line.is_empty() {
                    break;
                }
            }
            drop(writer.join());
        });
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_says_and_not_a_byte_longer() {
        run(|| {
            for (sent, good) in
                [(&b"1234\n"[..], true), (b"12345\n", false), (b"12345", false), (b"1234", true)]
            {
                let (near, far) = pipe(100);
                near.write_slices(&mut [io::IoSlice::new(sent)]).unwrap();
                near.end().unwrap();
                let mut lines = LineReader::new(&far, 5);
                match lines.next_line() {
                    Ok(line) => assert!(good && line == Some(sent), "{}", sent.escape_ascii()),
                    Err(error) => {
                        assert!(!good && error.kind() == ErrorKind::InvalidData, "{}", sent.escape_ascii())
                    }
                }
            }
        });
    }

    #[test]
    fn what_comes_after_the_last_line_is_whole_though_the_buffer_was_full() {
        run(|| {
            let (near, far) = pipe(BUFFER_SIZE_BYTES);
            let rest = [b'b'; BUFFER_SIZE_BYTES - 2];
            near.write_slices(&mut [io::IoSlice::new(b"a\n"), io::IoSlice::new(&rest)]).unwrap();
            near.end().unwrap();
            let mut lines = LineReader::new(&far, 2 * BUFFER_SIZE_BYTES);
            assert_eq!(lines.next_line().unwrap(), Some(&b"a\n"[..]));
            assert!(lines.next_line().unwrap() == Some(&rest[..]));
            assert_eq!(lines.next_line().unwrap(), None);
        });
    }

    #[test]
    fn who_waits_for_a_line_holds_no_buffer() {
        run(|| {
            let (mut near, far) = UnixStream::pair().unwrap();
            let spare_count = || SPARE.with(|spare| spare.borrow().len());
            SPARE.with(RefCell::take);
            near.write_all(b"one\nand a half").unwrap();
            let reader = spawn(move || {
                let mut lines = LineReader::new(&far, 100);
                while lines.next_line().unwrap().is_some() {}
            });
            yield_now();
            assert_eq!(spare_count(), 0, "it holds a part of a line");
            near.write_all(b"\n").unwrap();
            while spare_count() == 0 {
                yield_now();
            }
            assert!(!reader.is_finished(), "it waits for the next");
            drop(near);
            reader.join().unwrap();
            assert_eq!(spare_count(), 1);
        });
    }
}
