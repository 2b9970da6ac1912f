//! Whoever brings on its way what TLS has sealed, where nobody writes any more whom it would go with.
//!
//! A record that was sealed has to leave: those behind it can't be read without it, and the peer may wait for just that one. But a
//! write or an end can be broken off at its wait for room, by a timeout around it, say; and a reader, in whom what was read
//! has asked for an answer, must not wait for room, since the peer may wait for it to read. So what they leave goes to a coroutine of
//! the stream's own, the *flusher*: one at the most, there only while something is owed, and gone with the stream. Whether
//! anybody reads meanwhile, did so before, or ever will, is nothing to it.
//!
//! A write that comes meanwhile writes too, under its own deadline; what it is given leaves behind what is owed, whoever of the two
//! writes which record.
//!
//! A deadline for writes on the stream below (`set_write_deadline`) is the flusher's too: once that is over, what is owed stays
//! until somebody writes under a later one, and a peer that waits for it gets nothing from one who only reads.
//!
//! What it is not: a buffer for writers, who wait for room as they always did; nor an end that goes on without its stream: one
//! that is dropped has broken off.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::ops::Deref;
use std::rc::Rc;

use super::stream::State;
use crate::cell::RefCell;
use crate::coroutine::{self, Builder, JoinHandle};
use crate::net::Duplex;

/// A stream's connection and what has become of it: it is shared with the flusher alone.
pub(super) struct Inner<S: Duplex> {
    pub(super) stream: S,
    pub(super) state: RefCell<State>,
    /// How far our direction has come to its end.
    end: Cell<End>,
    /// Bytes of records that the stream below has taken.
    pub(super) taken: Rc<Cell<u64>>,
    /// Coroutines that are writing records out, and will write whatever is added meanwhile.
    flushing: Cell<usize>,
    flusher: RefCell<Option<JoinHandle<()>>>,
    /// The stream below takes nothing any more, or nobody has us any more: nothing is owed.
    is_lost: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// `close_notify` is sealed: nothing may follow it.
    Said,
    /// And the stream below has ended behind it.
    Below,
}

/// A stream's own hold of its connection.
pub(super) struct Owner<S: Duplex>(Rc<Inner<S>>);

impl<S: Duplex> Deref for Owner<S> {
    type Target = Inner<S>;

    fn deref(&self) -> &Inner<S> {
        &self.0
    }
}

impl<S: Duplex> Drop for Owner<S> {
    fn drop(&mut self) {
        self.is_lost.set(true);
        let flusher = self.flusher.take();
        flusher.iter().for_each(JoinHandle::terminate);
    }
}

impl<S: Duplex> Inner<S> {
    /// Whether our direction was ended.
    pub(super) fn has_ended(&self) -> bool {
        self.end.get() != End::Open
    }

    /// Whether something is left for which nobody waits for room.
    pub(super) fn owes(&self) -> bool {
        let is_left = match self.end.get() {
            End::Open => self.state.borrow().tls.wants_write(),
            End::Said => true,
            End::Below => false,
        };
        is_left && self.flushing.get() == 0 && !self.is_lost.get()
    }

    /// Writes out all records that are ready, and the end behind them if we have ended.
    fn write_out(&self) -> io::Result<()> {
        while self.state.borrow().tls.wants_write() {
            // Another may have written the last of them as we waited, and one more may be sealed before we are back here.
            let had_any = Cell::new(true);
            let count = self.stream.write_with(&mut |writer| {
                let tls = &mut self.state.borrow_mut().tls;
                had_any.set(tls.wants_write());
                tls.write_tls(writer)
            });
            match count {
                Ok(0) if had_any.get() => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.taken.set(self.taken.get() + count as u64),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.end.get() == End::Said {
            self.stream.end()?;
            self.end.set(End::Below);
        }
        Ok(())
    }
}

impl<S: Duplex> Owner<S> {
    pub(super) fn new(stream: S, state: State) -> Owner<S> {
        Owner(Rc::new(Inner {
            stream,
            state: RefCell::new(state),
            end: Cell::new(End::Open),
            taken: Rc::default(),
            flushing: Cell::new(0),
            flusher: RefCell::default(),
            is_lost: Cell::new(false),
        }))
    }

    /// Seals our end, once.
    pub(super) fn say_end(&self) {
        if self.end.get() == End::Open {
            self.state.borrow_mut().tls.send_close_notify();
            self.end.set(End::Said);
        }
    }

    /// Writes out what is ready. Broken off, it leaves the rest to the flusher.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.flushing.set(self.flushing.get() + 1);
        let _flushing = Flushing(self);
        let result = self.write_out();
        // Not so where we came too late, by a deadline or in a destructor: then the rest may leave yet.
        if let Err(error) = &result
            && !matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
        {
            self.is_lost.set(true);
        }
        result
    }

    /// Has what is owed brought on its way, as soon as there is room. Never suspends.
    pub(super) fn see_off(&self) {
        if !self.owes() || !coroutine::is_inside() {
            return;
        }
        let inner = self.0.clone();
        inner.flushing.set(inner.flushing.get() + 1);
        let flushing = Flusher(inner);
        let flusher = Builder::new().name("TLS flusher").span(tracing::Span::none()).spawn(move || {
            if let Err(error) = flushing.0.write_out() {
                tracing::debug!("TLS records could not leave: {error}");
                // Where a deadline is over, whoever reads or writes next tries anew.
                flushing.0.is_lost.set(error.kind() != ErrorKind::TimedOut || flushing.0.is_lost.get());
            }
        });
        // Where there is no stack for it, that is so too.
        let earlier = match flusher {
            Ok(flusher) => self.flusher.replace(Some(flusher)),
            Err(_) => None,
        };
        drop(earlier);
    }
}

/// Somebody flushes, who may be broken off.
struct Flushing<'a, S: Duplex>(&'a Owner<S>);

impl<S: Duplex> Drop for Flushing<'_, S> {
    fn drop(&mut self) {
        self.0.flushing.set(self.0.flushing.get() - 1);
        self.0.see_off();
    }
}

/// The flusher does, whom nobody follows.
struct Flusher<S: Duplex>(Rc<Inner<S>>);

impl<S: Duplex> Drop for Flusher<S> {
    fn drop(&mut self) {
        self.0.flushing.set(self.0.flushing.get() - 1);
    }
}
