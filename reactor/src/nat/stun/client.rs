//! Asking a server: a loop that sends, waits, and sends again.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::attribute::{Change, Kind};
use super::build::Builder;
use super::message::{BINDING, Class, Message, TransactionId};
use super::retransmission::Timing;
use crate::clock::now;
use crate::net::UdpSocket;

/// Room for an answer: what fits into a packet of Ethernet.
const ANSWER_BYTES_MAX: usize = 1500;

/// Named in our requests. It makes them long enough (40 bytes) for the answer over IPv6 to hold all of discovery's
/// addresses within the server's factor of amplification.
const SOFTWARE: &[u8] = b"reactor";

/// Something that carries datagrams: a socket, or the share of one that several protocols use.
pub trait Datagrams {
    /// Sends one.
    ///
    /// # Errors
    /// Those of the socket: no route, too long.
    ///
    /// # Suspends
    /// While the socket's buffer is full.
    fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()>;

    /// Receives the next one, whoever sent it: its size and its sender. What does not fit is lost.
    ///
    /// # Errors
    /// `TimedOut` at `deadline`; those of the socket.
    ///
    /// # Suspends
    /// Until one comes, or `deadline`.
    fn receive(&self, buffer: &mut [u8], deadline: Instant) -> io::Result<(usize, SocketAddr)>;
}

/// The read deadline is taken over meanwhile, and none is set afterwards.
impl Datagrams for UdpSocket {
    fn send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.send_to(datagram, to).map(drop)
    }

    fn receive(&self, buffer: &mut [u8], deadline: Instant) -> io::Result<(usize, SocketAddr)> {
        /// In a destructor, since a termination may unwind from the wait.
        struct Restore<'a>(&'a UdpSocket);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.set_read_deadline(None);
            }
        }
        self.set_read_deadline(Some(deadline));
        let _restore = Restore(self);
        self.recv_from(buffer)
    }
}

/// What is asked, and of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Where the request goes.
    pub server: SocketAddr,
    /// From where the server is to answer.
    pub change: Change,
    /// Which address that is; answers from any other do not count.
    pub answered_from: SocketAddr,
}

impl Question {
    /// Asks `server` to answer from where it is asked.
    pub fn plain(server: SocketAddr) -> Question {
        Question { server, change: Change::NONE, answered_from: server }
    }
}

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// From where the request came to it.
    pub mapped: SocketAddr,
    /// Its other address and port, if it has any.
    pub other: Option<SocketAddr>,
    /// How long it took since the first request: the round trip time, or more if one was lost.
    pub elapsed: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nothing came back: UDP is blocked, the server is down, or would have had to answer from where nothing gets in.
    #[error("no answer: check that UDP gets out, or ask another server")]
    Silence,
    /// The server refused, by a code as HTTP has them; ask another server, or something else.
    #[error("the STUN server refused with code {0}: ask another one")]
    Refused(u16),
    /// The server answered what is no answer; ask another one.
    #[error("the STUN server's answer has no usable address in it: ask another one")]
    Useless,
    /// The datagram could not be sent or received.
    #[error("asking the STUN server: {0}")]
    Socket(#[from] io::Error),
}

/// Asks `server` from where our packets come to it. What else comes to the socket meanwhile is dropped.
///
/// # Errors
/// See [`AskError`].
///
/// # Suspends
/// Until the answer, or as long as `timing` says.
pub fn ask(socket: &impl Datagrams, server: SocketAddr, timing: Timing) -> Result<Answer, AskError> {
    ask_for(socket, Question::plain(server), timing)
}

/// As [`ask`], with the answer from another place of the server's.
///
/// # Errors
/// See [`AskError`].
///
/// # Suspends
/// Until the answer, or as long as `timing` says.
pub fn ask_for(socket: &impl Datagrams, question: Question, timing: Timing) -> Result<Answer, AskError> {
    let transaction = TransactionId::random();
    let request = encode(question, transaction);
    let mut buffer = [0; ANSWER_BYTES_MAX];
    let begun = now();
    for wait in timing.waits() {
        let deadline = now().checked_add(wait).unwrap_or_else(|| now() + Duration::from_secs(3600));
        socket.send(&request, question.server)?;
        // Others' packets do not make us wait longer.
        while now() < deadline {
            match socket.receive(&mut buffer, deadline) {
                Ok((size, from)) => {
                    if let Some(verdict) = judge(&buffer[..size], from, question, transaction) {
                        return verdict.map(|(mapped, other)| Answer {
                            mapped,
                            other,
                            elapsed: now() - begun,
                        });
                    }
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Err(AskError::Silence)
}

fn encode(question: Question, transaction: TransactionId) -> Vec<u8> {
    let request = Builder::new(Class::Request, BINDING, transaction).attribute(Kind::SOFTWARE, SOFTWARE);
    // Servers that know nothing of changes refuse a request that has one, even if it asks for none.
    let request = if question.change == Change::NONE { request } else { request.change(question.change) };
    request.fingerprint().finish()
}

/// Whether the datagram answers the question; `None` if it is anything else.
fn judge(
    datagram: &[u8],
    from: SocketAddr,
    question: Question,
    transaction: TransactionId,
) -> Option<Result<(SocketAddr, Option<SocketAddr>), AskError>> {
    let message = Message::parse(datagram).ok()?;
    if message.method() != BINDING || message.transaction() != transaction {
        return None;
    }
    match message.class() {
        Class::Success if is_same(from, question.answered_from) => Some(match message.mapped_address() {
            Some(mapped) if is_usable(mapped) => Ok((mapped, message.address(Kind::OTHER_ADDRESS))),
            _ => Err(AskError::Useless),
        }),
        // A refusal comes from where the request went to, since nothing was changed.
        Class::Error if is_same(from, question.server) => {
            Some(Err(message.error_code().map_or(AskError::Useless, AskError::Refused)))
        }
        _ => None,
    }
}

/// The same place, also where one is told as a socket for both families sees it.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
}

fn is_usable(address: SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TransactionId = TransactionId([6; 12]);

    fn server() -> SocketAddr {
        "192.0.2.1:3478".parse().unwrap()
    }

    fn success(mapped: &str) -> Vec<u8> {
        Builder::new(Class::Success, BINDING, ID).mapped_address(mapped.parse().unwrap()).finish()
    }

    fn judged(datagram: &[u8], from: SocketAddr) -> Option<Result<SocketAddr, String>> {
        let verdict = judge(datagram, from, Question::plain(server()), ID)?;
        Some(verdict.map(|(mapped, _)| mapped).map_err(|error| format!("{error:?}")))
    }

    #[test]
    fn an_answer_counts_only_from_the_server_and_with_the_requests_bits() {
        let mapped = "203.0.113.7:50000".parse().unwrap();
        assert_eq!(judged(&success("203.0.113.7:50000"), server()), Some(Ok(mapped)));
        assert_eq!(judged(&success("203.0.113.7:50000"), "192.0.2.1:3479".parse().unwrap()), None);
        assert_eq!(judged(&success("203.0.113.7:50000"), "192.0.2.9:3478".parse().unwrap()), None);
        let mapped_server = "[::ffff:192.0.2.1]:3478".parse().unwrap();
        assert_eq!(judged(&success("203.0.113.7:50000"), mapped_server), Some(Ok(mapped)));
        let other =
            Builder::new(Class::Success, BINDING, TransactionId([7; 12])).mapped_address(mapped).finish();
        assert_eq!(judged(&other, server()), None);
        // Our own request, sent back.
        assert_eq!(judged(&encode(Question::plain(server()), ID), server()), None);
    }

    #[test]
    fn an_answer_without_a_usable_address_is_useless() {
        for address in ["0.0.0.0:5", "224.0.0.1:5", "203.0.113.7:0"] {
            assert_eq!(judged(&success(address), server()), Some(Err("Useless".into())), "{address}");
        }
        let none = Builder::new(Class::Success, BINDING, ID).finish();
        assert_eq!(judged(&none, server()), Some(Err("Useless".into())));
    }

    #[test]
    fn a_refusal_counts_from_where_the_request_went_even_if_the_answer_was_wanted_from_elsewhere() {
        let refusal = Builder::new(Class::Error, BINDING, ID).error(420, "no").finish();
        let elsewhere = "192.0.2.2:3479".parse().unwrap();
        let question = Question { server: server(), change: Change::BOTH, answered_from: elsewhere };
        assert!(matches!(judge(&refusal, server(), question, ID), Some(Err(AskError::Refused(420)))));
        assert!(judge(&refusal, elsewhere, question, ID).is_none());
        let success = success("203.0.113.7:5");
        assert!(judge(&success, server(), question, ID).is_none());
        assert!(judge(&success, elsewhere, question, ID).is_some());
    }

    #[test]
    fn a_request_is_long_enough_for_all_that_a_server_may_say_over_ipv6() {
        // Header 20, checksum 8, and three addresses of 24 each.
        assert!(encode(Question::plain(server()), ID).len() * super::super::AMPLIFICATION_MAX >= 100);
    }
}
