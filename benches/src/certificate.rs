//! A certificate of `localhost` for the programs that measure TLS: made anew, signed by itself, P-256.

use std::fs;
use std::io;
use std::path::Path;

/// The name in the certificate.
pub const NAME: &str = "localhost";

/// The files that [`write()`] makes: the certificate, and its key.
pub const FILES: [&str; 2] = ["certificate.pem", "key.pem"];

/// Writes a certificate and its key into `directory`, which is made if it is missing.
///
/// # Errors
/// Fails when a file cannot be written.
pub fn write(directory: &Path) -> io::Result<()> {
    let made = rcgen::generate_simple_self_signed([NAME.to_string()]).map_err(io::Error::other)?;
    let write = || {
        fs::create_dir_all(directory)?;
        fs::write(directory.join(FILES[0]), made.cert.pem())?;
        fs::write(directory.join(FILES[1]), made.signing_key.serialize_pem())
    };
    write().map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", directory.display())))
}
