//! Writes a self-signed certificate of `localhost` and its key into a directory: `certificate.pem`, `key.pem`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = PathBuf::from(std::env::args().nth(1).ok_or("usage: rpc_certificates DIRECTORY")?);
    let made = rcgen::generate_simple_self_signed(["localhost".to_string()])?;
    std::fs::write(directory.join("certificate.pem"), made.cert.pem())?;
    std::fs::write(directory.join("key.pem"), made.signing_key.serialize_pem())?;
    Ok(())
}
