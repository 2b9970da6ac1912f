//! Certificates with their keys, and which of them a client gets: by the name it asks for.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::error::tls_error;
use crate::offload::offload;

/// A PEM file is some kilobytes; one beyond this is the wrong file.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// A certificate with its chain and private key, as a server shows it.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl Certificate {
    /// Reads the chain (the server's own certificate first) and its key (PKCS#8, PKCS#1 or SEC1) from PEM text.
    ///
    /// # Errors
    /// `InvalidData` when either can't be read, or the key is not the certificate's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> io::Result<Certificate> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(bad_pem)?;
        let Some(leaf) = chain.first() else {
            return Err(invalid("there is no certificate in the PEM text"));
        };
        let end_entity = webpki::EndEntityCert::try_from(leaf);
        let end_entity =
            end_entity.map_err(|error| invalid(&format!("the certificate can't be read: {error}")))?;
        let names = end_entity.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(bad_pem)?;
        let provider = ring::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(tls_error)?;
        Ok(Certificate { key: Arc::new(key), names })
    }

    /// As [`Certificate::from_pem`], from two files, which may be the same one.
    ///
    /// # Errors
    /// As [`Certificate::from_pem`], and those of reading; the message names the file.
    ///
    /// # Suspends
    /// While the files are read, on another thread.
    pub fn from_pem_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<Certificate> {
        let (chain, key) = (chain.as_ref().to_owned(), key.as_ref().to_owned());
        offload(move || {
            let in_file = |path: &Path, error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            };
            let read = |path: &Path| read_bounded(path).map_err(|error| in_file(path, error));
            Certificate::from_pem(&read(&chain)?, &read(&key)?).map_err(|error| in_file(&chain, error))
        })
    }

    /// The names that it is for, in lower case; `*.example.org` stands for one label.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(invalid("it is too large for a PEM file"));
    }
    Ok(bytes)
}

pub(super) fn bad_pem(error: rustls::pki_types::pem::Error) -> io::Error {
    invalid(&format!("what should be PEM is not: {error}"))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}

/// All of a server's certificates, by name. Pure.
#[derive(Debug)]
struct Table {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl Table {
    fn new(certificates: &[Certificate]) -> io::Result<Table> {
        let first = certificates.first();
        let first =
            first.ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "a server needs a certificate"))?;
        let mut by_name = HashMap::new();
        for certificate in certificates {
            for name in &certificate.names {
                // Of two certificates for one name, the first given wins.
                by_name.entry(name.clone()).or_insert_with(|| certificate.key.clone());
            }
        }
        Ok(Table { by_name, default: first.key.clone() })
    }

    fn choose(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let known = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            self.by_name.get(&name).or_else(|| {
                // A wildcard stands for exactly one label (RFC 9525, section 6.3).
                let (_, parent) = name.split_once('.')?;
                self.by_name.get(&format!("*.{parent}"))
            })
        });
        known.unwrap_or(&self.default)
    }
}

/// Gives each handshake the certificate for its name; can be replaced between two handshakes.
#[derive(Debug)]
pub(super) struct Certificates(RwLock<Arc<Table>>);

impl Certificates {
    pub(super) fn new(certificates: &[Certificate]) -> io::Result<Certificates> {
        Ok(Certificates(RwLock::new(Arc::new(Table::new(certificates)?))))
    }

    pub(super) fn replace(&self, certificates: &[Certificate]) -> io::Result<()> {
        let table = Arc::new(Table::new(certificates)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(table.choose(hello.server_name()).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Certificate::from_pem(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes())
            .unwrap()
    }

    #[test]
    fn a_name_gets_its_certificate_and_an_unknown_one_the_first() {
        let [a, b, wild] = [
            certificate(&["A.example"]),
            certificate(&["b.example", "c.example"]),
            certificate(&["*.w.example"]),
        ];
        assert_eq!(a.names(), ["a.example"]);
        let table = Table::new(&[a.clone(), b.clone(), wild.clone()]).unwrap();
        let chosen = |name, certificate: &Certificate| Arc::ptr_eq(table.choose(name), &certificate.key);
        assert!(chosen(Some("a.example"), &a) && chosen(Some("C.EXAMPLE"), &b));
        assert!(chosen(Some("x.w.example"), &wild));
        assert!(chosen(Some("x.y.w.example"), &a), "a wildcard stands for one label");
        assert!(chosen(Some("w.example"), &a) && chosen(Some("other"), &a) && chosen(None, &a));
    }

    #[test]
    fn a_key_that_is_not_the_certificates_is_refused_and_so_is_what_is_no_pem() {
        let [one, other] = [0; 2].map(|_| rcgen::generate_simple_self_signed(vec!["a".into()]).unwrap());
        let (chain, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let foreign = other.signing_key.serialize_pem();
        assert!(Certificate::from_pem(chain.as_bytes(), foreign.as_bytes()).is_err());
        assert!(Certificate::from_pem(key.as_bytes(), key.as_bytes()).is_err(), "no certificate in it");
        assert!(Certificate::from_pem(chain.as_bytes(), chain.as_bytes()).is_err(), "no key in it");
        assert!(Certificate::from_pem(b"", b"").is_err());
        let both = format!("{chain}{key}");
        assert!(Certificate::from_pem(both.as_bytes(), both.as_bytes()).is_ok());
    }
}
