//! The bytes that a connection has read and not yet used, and bodies read out of them.
//!
//! One buffer per connection serves heads and bodies. It is small while the peer sends little, and grows while one
//! reading after another fills it, so that an idle connection costs little and an upload few system calls.

use std::io::{self, BufRead, Read};

use super::body::{BodyDecoder, Part};
use super::headers::Headers;
use crate::net::Duplex;

/// What a connection reads at once to begin with: 20 pipelined small requests, or one browser's head.
const SIZE_BYTES_MIN: usize = 4 << 10;
/// What it reads at once when bytes come in a stream.
const SIZE_BYTES_MAX: usize = 64 << 10;

/// Bytes that were read and not yet used.
#[derive(Default)]
pub struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// Where an [`Input`] reads from: a [`Duplex`], or something that does more before it reads.
pub trait Source {
    /// Reads some bytes; 0 at the end of the stream.
    ///
    /// # Errors
    ///
    /// When the stream is broken.
    ///
    /// # Suspends
    ///
    /// Until there are some.
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl<D: Duplex + ?Sized> Source for &D {
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Duplex::read_some(*self, buffer)
    }
}

impl Input {
    /// An empty one; it allocates when it is first filled.
    pub const fn new() -> Input {
        Input { buffer: Vec::new(), start: 0, end: 0 }
    }

    /// What is there.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Marks the first `count` bytes as used.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        assert!(self.start <= self.end, "only what is there can be used");
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads more behind what is there; false at the end of the stream.
    ///
    /// The caller bounds what it lets gather here: [`super::HeadLimits`] and [`super::BodyLimits`] do.
    ///
    /// # Errors
    ///
    /// Those of `source`.
    ///
    /// # Suspends
    ///
    /// Until something comes.
    pub fn fill(&mut self, mut source: impl Source) -> io::Result<bool> {
        if self.end == self.buffer.len() {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                let size = (self.buffer.len() * 2).max(SIZE_BYTES_MIN);
                self.buffer.resize(size, 0);
            }
        }
        let count = source.read_some(&mut self.buffer[self.end..])?;
        let filled = self.start == 0 && self.end == 0 && count == self.buffer.len();
        self.end += count;
        if filled && count < SIZE_BYTES_MAX {
            // As much came as was asked for: ask for more next time.
            self.buffer.resize(count * 2, 0);
        }
        Ok(count > 0)
    }

    /// Gives memory back that only a busy connection needs; call it when nothing is there.
    pub fn shrink(&mut self) {
        if self.start == self.end && self.buffer.len() > SIZE_BYTES_MIN {
            *self = Input::new();
        }
    }

    /// Gives away what is there, for whoever takes the connection over.
    pub fn take(&mut self) -> Vec<u8> {
        let bytes = self.bytes().to_vec();
        *self = Input::new();
        bytes
    }
}

/// Reads a body: the data, without its framing. It ends where the body does.
///
/// # Suspends
///
/// Its `read` and `fill_buf` do, until data comes.
pub struct BodyReader<'a, S> {
    source: S,
    input: &'a mut Input,
    decoder: &'a mut BodyDecoder,
}

impl<'a, S: Source> BodyReader<'a, S> {
    /// Reads the body that `decoder` knows, through `input`.
    pub fn new(source: S, input: &'a mut Input, decoder: &'a mut BodyDecoder) -> BodyReader<'a, S> {
        BodyReader { source, input, decoder }
    }

    /// How much is still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        self.decoder.remaining()
    }

    /// The fields after a chunked body; empty until it has been read to its end.
    pub fn trailers(&self) -> &Headers {
        self.decoder.trailers()
    }

    /// Makes data available, as [`BufRead::fill_buf`]; how much, and 0 at the end.
    fn advance(&mut self) -> io::Result<usize> {
        loop {
            match self.decoder.decode(self.input.bytes())? {
                Part::Framing(count) => self.input.consume(count),
                Part::Data(count) => return Ok(count),
                Part::End => return Ok(0),
                Part::NeedMore => {
                    if !self.input.fill(&mut self.source)? {
                        self.decoder.on_end_of_stream()?;
                    }
                }
            }
        }
    }
}

impl<S: Source + ?Sized> Source for &mut S {
    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read_some(buffer)
    }
}

impl<S: Source> BufRead for BodyReader<'_, S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let count = self.advance()?;
        Ok(&self.input.bytes()[..count])
    }

    fn consume(&mut self, count: usize) {
        self.decoder.consume(count);
        self.input.consume(count);
    }
}

impl<S: Source> Read for BodyReader<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let data = self.fill_buf()?;
        let count = data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&data[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{BodyLimits, Framing};
    use crate::net::pipe;
    use std::io::IoSlice;

    #[test]
    fn a_body_is_read_as_it_comes_and_what_follows_stays() {
        crate::run(|| {
            let (near, far) = pipe(700);
            let data: Vec<u8> = (0..100_000_u32).map(|at| (at ^ at >> 8) as u8).collect();
            let sent = data.clone();
            let writer = crate::spawn(move || {
                let mut wire = Vec::new();
                for piece in sent.chunks(7_777) {
                    super::super::body::write_chunk_size(&mut wire, piece.len());
                    wire.extend_from_slice(piece);
                    wire.extend_from_slice(b"\r\n");
                }
                wire.extend_from_slice(b"0\r\nSum: 1\r\n\r\nnext");
                near.write_slices(&mut [IoSlice::new(&wire)]).unwrap();
                near
            });
            let mut input = Input::new();
            let mut decoder = BodyDecoder::new(Framing::Chunked, BodyLimits::default());
            let mut reader = BodyReader::new(&far, &mut input, &mut decoder);
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            assert!(all == data);
            assert_eq!(reader.trailers().get("sum"), Some(&b"1"[..]));
            while input.bytes().len() < 4 {
                assert!(input.fill(&far).unwrap());
            }
            assert_eq!(input.bytes(), b"next");
            drop(writer.join().unwrap());
        });
    }

    #[test]
    fn a_body_until_close_ends_with_the_stream_and_one_of_known_length_must_not() {
        crate::run(|| {
            for (framing, whole) in [(Framing::UntilClose, true), (Framing::Length(9), false)] {
                let (near, far) = pipe(700);
                near.write_slices(&mut [IoSlice::new(b"12345678")]).unwrap();
                near.end().unwrap();
                let mut input = Input::new();
                let mut decoder = BodyDecoder::new(framing, BodyLimits::default());
                let read = BodyReader::new(&far, &mut input, &mut decoder).read_to_end(&mut Vec::new());
                assert_eq!(read.map_err(|error| error.kind()).ok(), whole.then_some(8));
            }
        });
    }
}
