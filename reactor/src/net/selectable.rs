//! Sockets among the things that [`crate::select`] waits for: each is ready when it is readable.
//!
//! "As far as is known" is not enough there, since the caller reads next and would suspend. So what the poller told
//! earlier is asked again of the kernel: one system call for each socket that may be ready.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};

use super::backing::Backing;
use super::{Descriptor, TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixListener, UnixStream};
use crate::select::{Selectable, source::Source};
use crate::sync::WaitList;

/// Ready when it is readable.
impl Source for Descriptor {
    fn is_ready(&self) -> bool {
        if !self.is_told_readable() {
            return false;
        }
        let mut asked = [PollFd::from_borrowed_fd(self.as_fd(), PollFlags::IN)];
        let readable = match poll(&mut asked, Some(&rustix::event::Timespec::default())) {
            Ok(count) => count > 0,
            // Whoever reads learns what is the matter.
            Err(_) => true,
        };
        if !readable {
            self.forget_readable();
        }
        readable
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        row(self.readers());
    }
}

impl<S: Source> Source for Backing<S> {
    fn is_ready(&self) -> bool {
        match self {
            Backing::Kernel(socket) => socket.is_ready(),
            Backing::Simulated(socket) => socket.is_ready(),
        }
    }

    fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
        match self {
            Backing::Kernel(socket) => socket.rows(row),
            Backing::Simulated(socket) => socket.rows(row),
        }
    }
}

impl Selectable for Descriptor {}

macro_rules! select_by {
    ($($socket:ty, $part:ident: $ready:literal;)*) => {$(
        #[doc = concat!("Ready when ", $ready, ".")]
        impl Source for $socket {
            fn is_ready(&self) -> bool {
                self.$part.is_ready()
            }

            fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList)) {
                self.$part.rows(row);
            }
        }

        impl Selectable for $socket {}
    )*};
}

select_by! {
    TcpListener, socket: "a connection waits to be accepted";
    TcpStream, socket: "there is something to read, be it the end or an error";
    UdpSocket, socket: "a datagram waits";
    UnixListener, descriptor: "a connection waits to be accepted";
    UnixStream, descriptor: "there is something to read, be it the end or an error";
    UnixDatagram, descriptor: "a datagram waits";
}
