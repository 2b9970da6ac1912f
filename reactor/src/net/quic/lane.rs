//! Other protocols' share of an endpoint's socket: STUN and our own control packets.
//!
//! A mapping in a router belongs to one port, so what is learnt about it and what keeps it open have to use the very
//! socket that QUIC does. The first byte tells the protocols apart (RFC 9443): STUN 0 to 3, ours 4 to 15, QUIC 64 and up.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::endpoint::Shared;
use crate::cell::RefCell;
use crate::nat::stun::{Class, Datagrams, Message};
use crate::sync::Waiters;

/// Datagrams that wait in a lane; of more the oldest are dropped, for who floods it should not keep the next ones out.
const WAITING_MAX: usize = 64;

/// Which datagrams a lane gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// STUN's answers: for [`stun::ask`](crate::nat::stun::ask).
    StunAnswers,
    /// Those that begin with a byte from 4 to 15.
    Control,
}

/// What a datagram is by its first byte; `None` for what nobody here speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Lane(Share),
    StunRequest,
    Quic,
}

/// Tells the protocols apart; of STUN, the questions from the answers. An indication is nothing that we use.
pub(super) fn protocol_of(datagram: &[u8]) -> Option<Protocol> {
    match *datagram.first()? {
        0..=3 => match Message::parse(datagram).ok()?.class() {
            Class::Request => Some(Protocol::StunRequest),
            Class::Success | Class::Error => Some(Protocol::Lane(Share::StunAnswers)),
            Class::Indication => None,
        },
        4..=15 => Some(Protocol::Lane(Share::Control)),
        64.. => Some(Protocol::Quic),
        _ => None,
    }
}

/// What of one lane the endpoint sees.
pub(super) struct Inbox {
    share: Share,
    waiting: RefCell<VecDeque<(SocketAddr, Rc<[u8]>)>>,
    readers: Waiters,
}

impl Inbox {
    pub(super) fn wake_all(&self) {
        self.readers.wake_all();
    }
}

/// Gives the datagram to every lane of its share.
pub(super) fn deliver(inboxes: &[std::rc::Weak<Inbox>], share: Share, from: SocketAddr, datagram: &[u8]) {
    let mut shared: Option<Rc<[u8]>> = None;
    for inbox in inboxes.iter().filter_map(std::rc::Weak::upgrade).filter(|inbox| inbox.share == share) {
        let mut waiting = inbox.waiting.borrow_mut();
        if waiting.len() == WAITING_MAX {
            waiting.pop_front();
        }
        waiting.push_back((from, shared.get_or_insert_with(|| datagram.into()).clone()));
        inbox.readers.wake_all();
    }
}

/// A share of the socket of an [`Endpoint`](super::Endpoint). Several lanes of one share each get every datagram.
pub struct Lane {
    endpoint: Rc<Shared>,
    inbox: Rc<Inbox>,
}

impl Lane {
    pub(super) fn new(endpoint: Rc<Shared>, share: Share) -> Lane {
        let readers = Waiters::new(&"a datagram of a QUIC socket's other protocols");
        let inbox = Rc::new(Inbox { share, waiting: RefCell::default(), readers });
        endpoint.add_inbox(Rc::downgrade(&inbox));
        Lane { endpoint, inbox }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // The coroutine may have waited for us alone.
        self.endpoint.tell();
    }
}

/// # Errors
/// Of sending: those of the socket. Of receiving: `TimedOut`, and `NotConnected` when the endpoint has ended.
impl Datagrams for Lane {
    fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.endpoint.socket().try_send_to(datagram, to).map(drop)
    }

    fn receive(&self, buffer: &mut [u8], deadline: Instant) -> io::Result<(usize, SocketAddr)> {
        let (from, datagram) = self.inbox.readers.wait(Some(deadline), || {
            let next = self.inbox.waiting.borrow_mut().pop_front();
            next.map(Ok).or_else(|| self.endpoint.failure().map(Err))
        })??;
        let size = datagram.len().min(buffer.len());
        buffer[..size].copy_from_slice(&datagram[..size]);
        Ok((size, from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::stun::{BINDING, Builder, TransactionId};

    #[test]
    fn the_first_byte_tells_the_protocols_apart() {
        let stun = |class| Builder::new(class, BINDING, TransactionId([1; 12])).finish();
        for (class, expected) in [
            (Class::Request, Some(Protocol::StunRequest)),
            (Class::Indication, None),
            (Class::Success, Some(Protocol::Lane(Share::StunAnswers))),
            (Class::Error, Some(Protocol::Lane(Share::StunAnswers))),
        ] {
            assert_eq!(protocol_of(&stun(class)), expected);
        }
        for first in 0..=u8::MAX {
            let expected = match first {
                4..=15 => Some(Protocol::Lane(Share::Control)),
                64.. => Some(Protocol::Quic),
                _ => None, // STUN without its cookie, TURN's channels, DTLS: nobody's here.
            };
            assert_eq!(protocol_of(&[first, 0, 0, 0]), expected, "{first}");
        }
        assert_eq!(protocol_of(&[]), None);
    }
}
