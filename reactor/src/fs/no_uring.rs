//! Stands in for the ring where the feature `fs-uring` is off: there is none, so nothing can be asked of it.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};

use super::backend::Durable;

/// There is none.
pub(super) enum Ring {}

/// What a turn of the ring would be.
pub(crate) fn turn() {}

/// What the end of a run would be to the ring.
pub(super) fn end() {}

impl Ring {
    pub(super) fn existing() -> Option<Rc<Ring>> {
        None
    }

    pub(super) fn get() -> io::Result<Rc<Ring>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "built without the reactor's feature `fs-uring`"))
    }

    pub(super) fn in_flight(&self) -> usize {
        match *self {}
    }

    pub(super) fn open(&self, _: CString, _: OFlags, _: Mode) -> io::Result<OwnedFd> {
        match *self {}
    }

    pub(super) fn read(&self, _: Arc<OwnedFd>, _: usize, _: u64) -> io::Result<Vec<u8>> {
        match *self {}
    }

    pub(super) fn write(&self, _: Arc<OwnedFd>, _: Bytes, _: u64) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn sync(&self, _: Arc<OwnedFd>, _: Durable) -> io::Result<()> {
        match *self {}
    }
}
