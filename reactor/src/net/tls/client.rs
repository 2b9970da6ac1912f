//! The client's side with certificates: whom it trusts, and what it asks for.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::certificate::{bad_pem, read_bounded};
use super::error::tls_error;
use super::stream::{ByCertificate, CertifiedStream, shake_hands};
use super::wall_clock::WallClock;
use crate::net::Duplex;
use crate::offload::offload;

/// Connects to servers whose certificates lead to a root that it trusts. Cheap to clone; clones share their sessions.
///
/// The last 256 servers' sessions are remembered, so that another connection to one of them shakes hands faster.
#[derive(Clone, Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    /// Trusts the roots that the platform does: its certificate bundle, or where `SSL_CERT_FILE` and `SSL_CERT_DIR`
    /// point to.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    ///
    /// # Suspends
    /// While they are read, on another thread.
    pub fn with_platform_roots() -> io::Result<Client> {
        offload(|| {
            let found = rustls_native_certs::load_native_certs();
            let mut roots = RootCertStore::empty();
            // Bundles hold some that nobody could use; those are passed over.
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let reason = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
                let message = format!("this machine has no root certificates{reason}");
                return Err(io::Error::new(ErrorKind::NotFound, message));
            }
            Client::with(roots)
        })
    }

    /// Trusts the certificates in PEM text as roots, and no others.
    ///
    /// # Errors
    /// `InvalidData` when there is none, or one can't be read.
    pub fn with_roots(pem: &[u8]) -> io::Result<Client> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate.map_err(bad_pem)?).map_err(tls_error)?;
        }
        if roots.is_empty() {
            return Err(io::Error::new(ErrorKind::InvalidData, "there is no certificate in the PEM text"));
        }
        Client::with(roots)
    }

    /// As [`Client::with_roots`], from a file.
    ///
    /// # Errors
    /// As [`Client::with_roots`], and those of reading.
    ///
    /// # Suspends
    /// While it is read, on another thread.
    pub fn with_roots_file(path: impl AsRef<Path>) -> io::Result<Client> {
        let path = path.as_ref().to_owned();
        Client::with_roots(&offload(move || read_bounded(&path))?)
    }

    fn with(roots: RootCertStore) -> io::Result<Client> {
        let config =
            ClientConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(WallClock))
                .with_safe_default_protocol_versions()
                .map_err(tls_error)?
                .with_root_certificates(roots)
                .with_no_client_auth();
        Ok(Client { config: Arc::new(config) })
    }

    /// The protocols to offer inside, the preferred one first: `["h2", "http/1.1"]`. What the server chose is
    /// [`super::TlsStream::alpn`]; a server that knows of none chooses none.
    ///
    /// # Source
    /// RFC 7301.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Client {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// Shakes hands over `stream` with the server called `name`: a DNS name or an IP address, which its certificate
    /// must be for.
    ///
    /// # Errors
    /// `InvalidInput` when `name` can't be one; `InvalidData` when the certificate is not to be trusted (unknown
    /// issuer, other name, expired), or there is no protocol in common; `TimedOut` after
    /// [`super::HANDSHAKE_TIMEOUT`]; `UnexpectedEof` when the server hangs up.
    ///
    /// # Suspends
    /// For a round trip (TLS 1.3) or two (TLS 1.2).
    pub fn connect<S: Duplex>(&self, stream: S, name: &str) -> io::Result<CertifiedStream<S>> {
        // A dot at the end says that the name is complete; certificates leave it out.
        let name = ServerName::try_from(name.strip_suffix('.').unwrap_or(name).to_owned());
        let name = name.map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        let tls = ClientConnection::new(self.config.clone(), name).map_err(tls_error)?;
        shake_hands(stream, tls.into(), |_| Ok(ByCertificate))
    }
}
