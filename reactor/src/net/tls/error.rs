//! What can go wrong with TLS, in the words of this layer.

use std::io::{self, ErrorKind};

use rustls::{AlertDescription, CertificateError, Error};

/// The stream below ended without `close_notify`: the peer crashed or was careless, or somebody in between cut it.
///
/// It comes as the source of an `UnexpectedEof`. What was read before it is good, but may not be all: a body that
/// knows its own length need not care, one that ends with the connection must (RFC 8446, section 6.1).
///
/// # Examples
///
/// ```
/// # use reactor::net::tls::Truncated;
/// let error = std::io::Error::from(Truncated);
/// assert!(Truncated::is_cause_of(&error));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection was cut: it ended without TLS's close_notify, so bytes may be missing")]
pub struct Truncated;

impl Truncated {
    /// Whether this is what `error` is about.
    pub fn is_cause_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|source| source.is::<Truncated>())
    }
}

impl From<Truncated> for io::Error {
    fn from(truncated: Truncated) -> Self {
        io::Error::new(ErrorKind::UnexpectedEof, truncated)
    }
}

/// rustls's error in the words of this layer.
pub(in crate::net) fn tls_error(error: Error) -> io::Error {
    let reason = match &error {
        Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
            "the peer proved another key than the one that was dialled: its address is stale, or taken"
                .to_owned()
        }
        Error::InvalidCertificate(reason) => {
            format!("the server's certificate is not to be trusted: {reason}")
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) | Error::NoApplicationProtocol => {
            "the two sides have no application protocol in common (ALPN)".to_owned()
        }
        Error::AlertReceived(alert) => format!("the peer broke TLS off: {alert:?}"),
        Error::InvalidMessage(_) => {
            format!("the peer does not speak our TLS ({error}): check the port")
        }
        _ => format!("TLS: {error}"),
    };
    io::Error::new(ErrorKind::InvalidData, reason)
}
