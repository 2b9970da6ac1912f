//! TLS without certificates: each side shows its bare Ed25519 key (RFC 7250) and signs the handshake with it.
//!
//! There is one rule of trust: the key shown is the key that was dialled. Names, issuers, dates and chains
//! have no part in it. A side that accepts takes any key, and learns which one it is; what that key may do is
//! decided above.
//!
//! Signing and verifying go through [`Identity`] and [`PublicKey`], so that a handshake accepts exactly the
//! signatures that everything else here accepts, and the secret is not copied into another library.
//!
//! What it is not: the record layer or the flow of a connection; those are rustls's and `stream.rs`'s.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};

use super::Expect;
use super::wall_clock::WallClock;
use crate::crypto::{Identity, PublicKey, Signature};

/// The DER of an Ed25519 SubjectPublicKeyInfo up to the key itself (RFC 8410, section 4): the lengths and the
/// algorithm never vary, so there is nothing to parse.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What runs inside where nothing else was asked for. It is said in the handshake, so that no other protocol's bytes can be
/// replayed at us (RFC 7301).
pub const PROTOCOL: &str = "hypha/1";

/// The key in a SubjectPublicKeyInfo.
///
/// # Errors
/// A TLS error if it is any other kind of key, or a certificate.
pub(in crate::net) fn decode_key(spki: &[u8]) -> Result<PublicKey, Error> {
    let key = spki.strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok());
    key.map(PublicKey::from_bytes).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

fn encode_key(key: &PublicKey) -> Vec<u8> {
    [&SPKI_PREFIX[..], key.as_bytes()].concat()
}

/// What a client is set up with: its own key, and whom it expects.
pub(in crate::net) fn client_config(identity: &Identity, expect: Expect) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(WallClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier { expect }))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(identity))));
    config.alpn_protocols = vec![PROTOCOL.into()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// What a server is set up with: its own key. It takes any client that proves one.
pub(in crate::net) fn server_config(identity: &Identity) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(WallClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(PeerVerifier { expect: Expect::Any }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(identity))));
    config.alpn_protocols = vec![PROTOCOL.into()];
    // Connections are long-lived, and a ticket is a secret more to keep.
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    use ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    Arc::new(CryptoProvider {
        // AES-128 first: the key exchange is of 128 bits' strength anyway, and it is a quarter faster.
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    })
}

fn certified(identity: &Identity) -> Arc<CertifiedKey> {
    let spki = CertificateDer::from(encode_key(&identity.public_key()));
    Arc::new(CertifiedKey::new(vec![spki], Arc::new(TlsKey(Arc::new(identity.clone())))))
}

/// Our identity as rustls wants to use it.
#[derive(Clone, Debug)]
struct TlsKey(Arc<Identity>);

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(encode_key(&self.0.public_key()).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        // TLS 1.3 puts 64 spaces and a context string before what is signed (RFC 8446, section 4.4.3), so no
        // signature of a handshake is one of anything else.
        Ok(self.0.sign(message).as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// The one verifier, for both sides.
#[derive(Debug)]
struct PeerVerifier {
    expect: Expect,
}

impl PeerVerifier {
    fn check(&self, spki: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), Error> {
        let key = decode_key(spki)?;
        let expected = match self.expect {
            Expect::Any => true,
            Expect::Key(expected) => expected == key,
            Expect::Fingerprint(expected) => expected == key.fingerprint(),
        };
        if !rest.is_empty() || !expected {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(())
    }

    fn check_signature(
        message: &[u8],
        spki: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let refused = Error::InvalidCertificate(CertificateError::BadSignature);
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(refused);
        }
        let Ok(signature) = signed.signature().try_into() else { return Err(refused) };
        match decode_key(spki)?.verify(message, &Signature::from_bytes(signature)) {
            Ok(()) => Ok(HandshakeSignatureValid::assertion()),
            Err(_) => Err(refused),
        }
    }
}

/// What the two verifier traits ask for alike: how a handshake is signed, and by what kind of key.
macro_rules! handshakes_are_signed_by_bare_keys {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _spki: &CertificateDer<'_>,
            _signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            // Not offered: RFC 7250 would allow it, but only TLS 1.3 hides who the client is.
            Err(Error::General("peers speak TLS 1.3 only".into()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            spki: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            PeerVerifier::check_signature(message, spki, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        spki: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(spki, rest).map(|()| ServerCertVerified::assertion())
    }

    handshakes_are_signed_by_bare_keys!();
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        spki: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(spki, rest).map(|()| ClientCertVerified::assertion())
    }

    handshakes_are_signed_by_bare_keys!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_der_and_nothing_else_reads() {
        let key = Identity::generate().public_key();
        let der = encode_key(&key);
        assert_eq!(der.len(), 44);
        assert_eq!(decode_key(&der), Ok(key));
        for cut in 0..der.len() {
            assert!(decode_key(&der[..cut]).is_err());
        }
        assert!(decode_key(&[&der[..], &[0]].concat()).is_err());
        let mut x25519 = der;
        x25519[8] = 0x6e; // id-X25519
        assert!(decode_key(&x25519).is_err());
    }

    #[test]
    fn only_the_expected_key_passes() {
        let key = Identity::generate().public_key();
        let spki = CertificateDer::from(encode_key(&key));
        let other = Identity::generate().public_key();
        let passes = |expect| PeerVerifier { expect }.check(&spki, &[]).is_ok();
        assert!(
            passes(Expect::Any) && passes(Expect::Key(key)) && passes(Expect::Fingerprint(key.fingerprint()))
        );
        assert!(!passes(Expect::Key(other)) && !passes(Expect::Fingerprint(other.fingerprint())));
        assert!(PeerVerifier { expect: Expect::Any }.check(&spki, std::slice::from_ref(&spki)).is_err());
    }
}
