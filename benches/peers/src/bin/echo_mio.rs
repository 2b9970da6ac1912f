//! The echo server written by hand with callbacks over `mio`: what our reactor promises not to be slower than.
//!
//! The loop calls `on_readable` or `on_writable` of the connection that became ready; what a coroutine would keep
//! on its stack (how far the line was read, how much of the reply is still to be written) is kept in fields, and
//! every place where the work may stop half-way is a return. It is as lean as we know how: edge-triggered,
//! registered once, one `recv` and one `send` per request, for a short read proves that the socket is drained.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use peers::{BUFFER_SIZE_BYTES, LINE_SIZE_BYTES_MAX, listen_address};
use std::io::{self, ErrorKind, Read, Write};

const LISTENER: Token = Token(usize::MAX);

/// What becomes of a connection after a callback.
#[derive(PartialEq)]
enum Next {
    Keep,
    Close,
}

struct Connection {
    stream: TcpStream,
    /// Bytes received and not yet written back: `buffer[sent..received]`.
    buffer: Vec<u8>,
    received: usize,
    /// Where the search for a newline goes on.
    searched: usize,
    /// The end of the last whole line; what is before it may be sent.
    line_end: usize,
    sent: usize,
    /// A write would have blocked: nothing is read until it goes on, so that a client that does not read
    /// cannot make us hold more than one buffer.
    writing: bool,
    /// The peer's closing has been reported; a short read then does not prove that the socket is drained.
    closing: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let buffer = vec![0; BUFFER_SIZE_BYTES];
        let (received, searched, line_end, sent) = (0, 0, 0, 0);
        Self { stream, buffer, received, searched, line_end, sent, writing: false, closing: false }
    }

    fn on_readable(&mut self) -> Next {
        while !self.writing {
            if self.received == self.buffer.len() {
                if self.buffer.len() > LINE_SIZE_BYTES_MAX {
                    return Next::Close;
                }
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            let room = self.buffer.len() - self.received;
            match self.stream.read(&mut self.buffer[self.received..]) {
                Ok(0) => return Next::Close,
                Ok(count) => {
                    self.received += count;
                    if self.reply() == Next::Close {
                        return Next::Close;
                    }
                    if count < room && !self.closing {
                        return Next::Keep;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Keep,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Next::Close,
            }
        }
        Next::Keep
    }

    fn on_writable(&mut self) -> Next {
        if !self.writing {
            return Next::Keep;
        }
        self.writing = false;
        match self.send() {
            // What arrived while the reply waited had its edge already: read on.
            Next::Keep => self.on_readable(),
            Next::Close => Next::Close,
        }
    }

    /// Looks for whole lines in what has been received, and sends them.
    fn reply(&mut self) -> Next {
        let unsearched = &self.buffer[self.searched..self.received];
        if let Some(position) = unsearched.iter().rposition(|&byte| byte == b'\n') {
            self.line_end = self.searched + position + 1;
        }
        self.searched = self.received;
        self.send()
    }

    fn send(&mut self) -> Next {
        while self.sent < self.line_end {
            match self.stream.write(&self.buffer[self.sent..self.line_end]) {
                Ok(0) => return Next::Close,
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writing = true;
                    return Next::Keep;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Next::Close,
            }
        }
        self.buffer.copy_within(self.sent..self.received, 0);
        self.received -= self.sent;
        (self.searched, self.line_end, self.sent) = (self.received, 0, 0);
        Next::Keep
    }
}

fn main() -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen_address())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                on_acceptable(&listener, &poll, &mut connections, &mut free)?;
                continue;
            }
            let index = event.token().0;
            let Some(connection) = connections[index].as_mut() else { continue };
            connection.closing |= event.is_read_closed() || event.is_error();
            let mut next = Next::Keep;
            if event.is_writable() {
                next = connection.on_writable();
            }
            if next == Next::Keep && event.is_readable() {
                next = connection.on_readable();
            }
            if next == Next::Close {
                connections[index] = None;
                free.push(index);
            }
        }
    }
}

fn on_acceptable(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Vec<Option<Connection>>,
    free: &mut Vec<usize>,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                stream.set_nodelay(true)?;
                let index = free.pop().unwrap_or_else(|| {
                    connections.push(None);
                    connections.len() - 1
                });
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut stream, Token(index), interest)?;
                connections[index] = Some(Connection::new(stream));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
