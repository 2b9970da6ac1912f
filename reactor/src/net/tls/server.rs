//! The server's side with certificates: which it shows, what it speaks, and how they are replaced.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::server::ProducesTickets;
use rustls::{ServerConfig, ServerConnection};

use super::certificate::{Certificate, Certificates};
use super::error::tls_error;
use super::stream::{ByCertificate, CertifiedStream, shake_hands};
use super::wall_clock::WallClock;
use crate::net::Duplex;

/// Shakes hands with clients. Cheap to clone; clones share the certificates and [`Server::reload`].
///
/// Sessions are resumed by tickets, encrypted under a key of this server that changes every six hours and at each
/// [`Server::reload`]; the server keeps nothing for them.
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    tickets: Arc<Tickets>,
}

/// Seals tickets under keys that can be forgotten.
#[derive(Debug)]
struct Tickets(RwLock<Arc<dyn ProducesTickets>>);

impl Tickets {
    fn new() -> io::Result<Tickets> {
        Ok(Tickets(RwLock::new(ring::Ticketer::new().map_err(tls_error)?)))
    }

    /// Those that were given are worth nothing from now on.
    fn forget(&self) -> io::Result<()> {
        let keys = ring::Ticketer::new().map_err(tls_error)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn keys(&self) -> Arc<dyn ProducesTickets> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.keys().enabled()
    }

    fn lifetime(&self) -> u32 {
        self.keys().lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys().encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.keys().decrypt(cipher)
    }
}

impl Server {
    /// Shows the certificate that is for the name which the client asks for (SNI); the first one where it asks for
    /// none, or for one that is unknown.
    ///
    /// # Errors
    /// `InvalidInput` when the list is empty.
    pub fn new(certificates: &[Certificate]) -> io::Result<Server> {
        let certificates = Arc::new(Certificates::new(certificates)?);
        let mut config =
            ServerConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(WallClock))
                .with_safe_default_protocol_versions()
                .map_err(tls_error)?
                .with_no_client_auth()
                .with_cert_resolver(certificates.clone());
        let tickets = Arc::new(Tickets::new()?);
        config.ticketer = tickets.clone();
        Ok(Server { config: Arc::new(config), certificates, tickets })
    }

    /// The protocols spoken inside, the preferred one first. A client that offers others only is refused; one that
    /// offers none is let in.
    ///
    /// # Source
    /// RFC 7301.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Server {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// Shows other certificates from the next handshake on, to every client: sessions that began with the old ones are
    /// resumed no more. Connections that stand are not touched. Never suspends.
    ///
    /// # Errors
    /// As [`Server::new`]; the old ones then stay.
    pub fn reload(&self, certificates: &[Certificate]) -> io::Result<()> {
        self.certificates.replace(certificates)?;
        self.tickets.forget()
    }

    /// Shakes hands with the client on `stream`.
    ///
    /// # Errors
    /// `InvalidData` when the client speaks no TLS that we do, or no protocol that we do; `TimedOut` after
    /// [`super::HANDSHAKE_TIMEOUT`]; `UnexpectedEof` when it hangs up, as one does that does not trust us.
    ///
    /// # Suspends
    /// For a round trip (TLS 1.3) or two (TLS 1.2).
    pub fn accept<S: Duplex>(&self, stream: S) -> io::Result<CertifiedStream<S>> {
        let tls = ServerConnection::new(self.config.clone()).map_err(tls_error)?;
        shake_hands(stream, tls.into(), |_| Ok(ByCertificate))
    }
}
