//! Two ends of a stream in memory, for tests and simulated networks.
//!
//! What it is not: a pipe of the kernel. It needs no descriptor, and its ends live in one process.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::rc::Rc;

use super::Duplex;
use super::duplex::{PeerWatch, Presence, WriteOnce};
use crate::cell::RefCell;
use crate::coroutine::{begin, spend_bytes};
use crate::sync::Signal;

/// One direction.
struct Flow {
    bytes: RefCell<VecDeque<u8>>,
    capacity_bytes: usize,
    ended: Cell<bool>,
    broken: Cell<bool>,
    filled: Signal,
    drained: Signal,
}

/// One end of a stream in memory; see [`pipe`]. Dropping it breaks the stream off.
pub struct Pipe {
    incoming: Rc<Flow>,
    outgoing: Rc<Flow>,
}

/// Makes a stream in memory that holds up to `capacity_bytes` in each direction before writers wait.
pub fn pipe(capacity_bytes: usize) -> (Pipe, Pipe) {
    let flow = || {
        Rc::new(Flow {
            bytes: RefCell::default(),
            capacity_bytes,
            ended: Cell::new(false),
            broken: Cell::new(false),
            filled: Signal::new(),
            drained: Signal::new(),
        })
    };
    let (there, back) = (flow(), flow());
    (Pipe { incoming: back.clone(), outgoing: there.clone() }, Pipe { incoming: there, outgoing: back })
}

impl Flow {
    fn abort(&self) {
        self.broken.set(true);
        self.filled.notify_all();
        self.drained.notify_all();
    }
}

impl Write for &Flow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.broken.get() || self.ended.get() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let mut queue = self.bytes.borrow_mut();
        let room = self.capacity_bytes - queue.len();
        if room == 0 && !bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = room.min(bytes.len());
        queue.extend(&bytes[..count]);
        drop(queue);
        self.filled.notify_all();
        Ok(count)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut count = 0;
        for slice in slices {
            match self.write(slice) {
                Ok(written) => count += written,
                Err(_) if count > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Both flows, which outlive the end that watches.
struct Flows {
    incoming: Rc<Flow>,
    outgoing: Rc<Flow>,
}

impl PeerWatch for Flows {
    fn presence(&self) -> Presence {
        let is_gone = self.outgoing.broken.get() || self.incoming.broken.get();
        match (is_gone, self.incoming.ended.get()) {
            (true, _) => Presence::Gone,
            (false, true) => Presence::HalfClosed,
            (false, false) => Presence::Here,
        }
    }
}

impl Duplex for Pipe {
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let call = begin();
        let flow = &*self.incoming;
        while flow.bytes.borrow().is_empty() {
            if flow.broken.get() {
                return Err(ErrorKind::ConnectionReset.into());
            }
            if flow.ended.get() {
                return Ok(0);
            }
            flow.filled.wait();
        }
        let count = flow.bytes.borrow_mut().read(buffer)?;
        flow.drained.notify_all();
        spend_bytes(count);
        call.needed_no_wait();
        Ok(count)
    }

    fn write_with(&self, write: &mut WriteOnce<'_>) -> io::Result<usize> {
        let call = begin();
        loop {
            match write(&mut &*self.outgoing) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.outgoing.drained.wait(),
                result => {
                    spend_bytes(*result.as_ref().unwrap_or(&0));
                    call.needed_no_wait();
                    return result;
                }
            }
        }
    }

    fn end(&self) -> io::Result<()> {
        self.outgoing.ended.set(true);
        self.outgoing.filled.notify_all();
        Ok(())
    }

    fn abort(&self) {
        self.incoming.abort();
        self.outgoing.abort();
    }

    fn watch_peer(&self) -> Option<Rc<dyn PeerWatch>> {
        Some(Rc::new(Flows { incoming: self.incoming.clone(), outgoing: self.outgoing.clone() }))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // What was written before a proper end can still be read.
        if !self.outgoing.ended.get() {
            self.outgoing.abort();
        }
        self.incoming.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_waits_for_room_and_a_reader_for_bytes() {
        crate::run(|| {
            let (left, right) = pipe(10);
            let writer = crate::spawn(move || {
                left.write_slices(&mut [IoSlice::new(&[1; 25]), IoSlice::new(&[]), IoSlice::new(&[2; 25])])?;
                left.end()
            });
            let mut all = Vec::new();
            loop {
                let mut buffer = [0; 7];
                let count = right.read_some(&mut buffer).unwrap();
                if count == 0 {
                    break;
                }
                all.extend_from_slice(&buffer[..count]);
            }
            assert_eq!(all, [[1; 25], [2; 25]].concat());
            writer.join().unwrap().unwrap();
        });
    }

    #[test]
    fn breaking_off_wakes_both_sides() {
        crate::run(|| {
            let (left, right) = pipe(10);
            let reader = crate::spawn(move || right.read_some(&mut [0]));
            left.abort();
            assert_eq!(reader.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
        });
    }
}
