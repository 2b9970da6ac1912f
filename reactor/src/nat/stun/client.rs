//! Asking a server: a loop that sends, waits, and sends again.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::attribute::{Change, Kind, canonical, is_of_one_machine};
use super::build::Builder;
use super::message::{BINDING, Class, Message, TransactionId};
use super::retransmission::Timing;
use crate::clock::now;
use crate::net::UdpSocket;

/// Room for an answer: what fits into a packet of Ethernet.
const ANSWER_BYTES_MAX: usize = 1500;

/// Datagrams that are looked at beyond the time, where they are there already.
const LATE_READS_MAX: usize = 64;

/// Named in our requests. It makes them long enough (40 bytes) for the answer over IPv6 to hold all of discovery's
/// addresses within the server's factor of amplification.
const SOFTWARE: &[u8] = b"reactor";

/// Something that carries datagrams: a socket, or the share of one that several protocols use.
pub trait Datagrams {
    /// Sends one, and does not wait for room: what finds none is lost.
    ///
    /// # Errors
    /// Those of the socket: no route, no room, too long.
    ///
    /// # Suspends
    /// Never.
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
        self.try_send_to(datagram, to).map(drop)
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
    /// How long that took; `None` where the request was sent more than once, since then nobody knows which was answered
    /// (Karn's rule, RFC 8489, section 6.2.1).
    pub round_trip: Option<Duration>,
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
    let mut unsent = None;
    for (number, wait) in timing.waits().enumerate() {
        let deadline = now().checked_add(wait).unwrap_or_else(|| now() + Duration::from_secs(3600));
        match socket.send(&request, question.server) {
            Ok(()) => {}
            Err(error) if will_never_do(&error) => return Err(error.into()),
            // A route that is coming back, a full line: the next try may get out, and an earlier one be answered.
            Err(error) => unsent = Some(error),
        }
        // After a stall of ours the answer may lie behind others' packets; who floods us makes us read no more than that.
        let mut late_count = 0;
        while late_count < LATE_READS_MAX {
            match socket.receive(&mut buffer, deadline) {
                Ok((size, from)) => {
                    if let Some(verdict) = judge(&buffer[..size], from, question, transaction) {
                        let round_trip = (number == 0).then(|| now() - begun);
                        return verdict.map(|(mapped, other)| Answer { mapped, other, round_trip });
                    }
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => break,
                Err(error) => return Err(error.into()),
            }
            late_count += usize::from(now() >= deadline);
        }
    }
    Err(unsent.map_or(AskError::Silence, AskError::Socket))
}

/// Whether sending fails for what is sent, or where to: trying again is of no use.
fn will_never_do(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lasting = [Errno::MSGSIZE, Errno::INVAL, Errno::AFNOSUPPORT, Errno::BADF, Errno::NOTCONN];
    lasting.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
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
    // What has to be understood and is not makes an answer none (RFC 8489, sections 6.3.3 and 6.3.4).
    let is_understood = message.attributes().all(|(kind, _)| kind.is_known() || !kind.is_required());
    match message.class() {
        Class::Success if is_same(from, question.answered_from) => {
            let mapped =
                message.mapped_address().filter(|mapped| is_understood && is_of_one_machine(*mapped));
            let other = message.address(Kind::OTHER_ADDRESS).filter(|other| is_of_one_machine(*other));
            Some(mapped.map(|mapped| (mapped, other)).ok_or(AskError::Useless))
        }
        // A refusal comes from where the request went to, since nothing was changed.
        Class::Error if is_same(from, question.server) => {
            let code = message.error_code().filter(|_| is_understood);
            Some(Err(code.map_or(AskError::Useless, AskError::Refused)))
        }
        _ => None,
    }
}

/// The same place, also where one is told as a socket for both families sees it.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    canonical(one) == canonical(other)
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
        let unknown = Builder::new(Class::Success, BINDING, ID)
            .mapped_address("203.0.113.7:5".parse().unwrap())
            .attribute(Kind(0x7fff), b"must be understood");
        assert_eq!(judged(&unknown.finish(), server()), Some(Err("Useless".into())));
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
