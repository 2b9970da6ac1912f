//! What a server gives a client at most.

use std::time::Duration;

use crate::http::{BodyLimits, HeadLimits};

/// What one client, and all of them, may take. Every one of these bounds memory or time that a stranger controls.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Size of a request's head.
    pub head: HeadLimits,
    /// Size of a request's body; a handler may allow less.
    pub body: BodyLimits,
    /// Connections at once; further clients are told 503 and let go.
    pub connections: usize,
    /// Connections from one address at once (one /64, with IPv6), so that one client does not keep all others out. Behind
    /// a proxy, from which all of them come, raise it to [`Limits::connections`].
    pub connections_per_address: usize,
    /// Connections at once whose handshake (TLS) is not done: they have shown nothing yet, not even that they are clients.
    pub handshakes: usize,
    /// Of these, from one address; to be raised with [`Limits::connections_per_address`].
    pub handshakes_per_address: usize,
    /// How long a connection may rest between two requests. 75 s: what browsers and proxies are used to.
    pub idle_time: Duration,
    /// How long a head may take from its first byte to its last, however it trickles.
    pub head_time: Duration,
    /// How long 64 KiB of a body (or its rest) may take to come: the slowest upload that is borne.
    pub body_time: Duration,
    /// How long 64 KiB of a response (or its rest) may take to leave: the slowest reader that is borne.
    pub write_time: Duration,
    /// How long a handler may take, if that is limited; then the client is told 503.
    pub handler_time: Option<Duration>,
    /// How long a client that has ended its own direction is waited for while nothing moves, neither of its request nor of
    /// its answer; then its handler is terminated, as it is at once where the connection is known to be broken.
    ///
    /// `None`, as at first, waits for ever: such a client may have said all that it wanted to say (`nc -N`), or be gone, and
    /// nobody can tell until something is written. A server for browsers and HTTP libraries, which never half-close, may
    /// say a few seconds. It is kept to a tick, of a second at the most.
    pub half_closed_time: Option<Duration>,
    /// How much of a body that the handler left unread is read and thrown away to keep the connection.
    pub unread_body_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head: HeadLimits::default(),
            body: BodyLimits::default(),
            connections: 10_000,
            connections_per_address: 5_000,
            handshakes: 1_024,
            handshakes_per_address: 256,
            idle_time: Duration::from_secs(75),
            head_time: Duration::from_secs(15),
            body_time: Duration::from_secs(30),
            write_time: Duration::from_secs(30),
            handler_time: None,
            half_closed_time: None,
            unread_body_bytes: 256 << 10,
        }
    }
}

impl Limits {
    /// How often the housekeeper looks: a tenth of the shortest time that a client's own doing is given, but a second at
    /// the most, which is also how often the `Date` changes.
    pub(super) fn tick(&self) -> Duration {
        let shortest = self.idle_time.min(self.head_time).min(self.body_time).min(self.write_time);
        (shortest / 10)
            .min(self.half_closed_time.unwrap_or(shortest) / 2)
            .clamp(Duration::from_millis(10), Duration::from_secs(1))
    }
}
