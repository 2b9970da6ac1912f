//! What an endpoint is set up with: whom it is and believes, and what it may use.
//!
//! Time and randomness come from the reactor, so that an endpoint in a simulation does the same at each run.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, NoneTokenStore, ServerConfig,
    TimeSource, TransportConfig, VarInt,
};
use ring::{hkdf, hmac};

use super::progress::Watching;
use crate::crypto::Identity;
use crate::crypto::derive::derive;
use crate::net::tls::Expect;
use crate::net::tls::error::tls_error;
use crate::net::tls::raw_public_key::{client_config, server_config};
use crate::random;

/// Bidirectional streams that the peer may have open at once: as many calls as a busy RPC peer has in flight.
const STREAMS_MAX: u32 = 256;

/// What a peer may have sent on one stream that was not read: 40 ms of a gigabit, the round trip of a continent.
const STREAM_WINDOW_BYTES: u32 = 5 << 20;

/// The same over all its streams: what one connection can cost.
pub(super) const RECEIVE_WINDOW_BYTES: u32 = 8 << 20;

/// The same of a connection that nobody has accepted yet: the first request of a client, and little for a stranger.
const PENDING_WINDOW_BYTES: u32 = 256 << 10;

/// What may wait to be acknowledged, over all streams of a connection; who writes more is suspended.
pub(super) const SEND_WINDOW_BYTES: u64 = 8 << 20;

/// A connection that heard nothing for so long is gone. Two keep-alives, so that one may be lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(32);

/// Linux forgets an unreplied UDP flow at 30 s, and other routers at 20 s: half of that, with some to spare.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Bytes of a connection's id: what is as good as never drawn twice.
const CONNECTION_ID_BYTES: usize = 8;

/// Connection ids from the reactor's randomness.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        connection_id()
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn connection_id() -> ConnectionId {
    ConnectionId::new(&secret::<CONNECTION_ID_BYTES>())
}

/// The calendar of the reactor, for how old a token is.
struct WallClock;

impl TimeSource for WallClock {
    fn now(&self) -> SystemTime {
        crate::wall_clock()
    }
}

pub(super) fn secret<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    random::fill(&mut bytes);
    bytes
}

fn transport(receive_window: u32) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(receive_window.into())
        .send_window(SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(IDLE_TIMEOUT.try_into().expect("seconds fit")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .congestion_controller_factory(Arc::new(Watching))
        // A bit that shows the round trip time to everybody on the path.
        .allow_spin(false);
    Arc::new(config)
}

pub(super) fn endpoint(identity: &Identity) -> Arc<EndpointConfig> {
    // The same after a restart: so peers are told at once that the old connections are gone (RFC 9000, section 10.3).
    let reset_key = derive::<32>(&*identity.seed(), b"", &[b"reactor: QUIC stateless reset"]);
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &*reset_key)));
    // A greased bit would make our packets look like STUN's (RFC 9443), to routers and to ourselves.
    config.grease_quic_bit(false).cid_generator(|| Box::new(RandomIds));
    Arc::new(config)
}

/// Lets any peer in that proves a key.
pub(super) fn server(identity: &Identity) -> io::Result<Arc<ServerConfig>> {
    let tls = server_config(identity).map_err(tls_error)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret::<32>());
    let mut config = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
    config
        .transport_config(transport(PENDING_WINDOW_BYTES))
        .time_source(Arc::new(WallClock))
        .max_incoming(super::PENDING_MAX);
    Ok(Arc::new(config))
}

pub(super) fn client(identity: &Identity, expect: Expect, to: SocketAddr) -> io::Result<ClientConfig> {
    if to.port() == 0 || to.ip().is_unspecified() || to.ip().is_multicast() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{to} is no address of one peer")));
    }
    let tls = client_config(identity, expect).map_err(tls_error)?;
    let crypto = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    // Tokens are remembered by a server's name, and ours have none.
    config
        .transport_config(transport(RECEIVE_WINDOW_BYTES))
        .token_store(Arc::new(NoneTokenStore))
        .initial_dst_cid_provider(Arc::new(connection_id));
    Ok(config)
}
