//! The file of saved contacts, from which a restarted node rejoins when its bootstrap addresses are gone.
//!
//! One line per contact, public key and addresses, so that a person can read it and mend it:
//!
//! ```text
//! hypha contacts 1
//! 3b6a...29 192.0.2.7:7001 [2001:db8::7]:7001
//! ```
//!
//! It is written to a temporary file that is made durable and then renamed over the old one: a crash leaves one or the
//! other. Contacts are only candidates, so a damaged line is reported and skipped and costs nobody anything; the file
//! is never worth refusing to start for.
//!
//! The functions here block: call them through `reactor::offload`.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;

use reactor::crypto::PublicKey;

use crate::contact::Contact;
use crate::files;

/// First line of the file; the number is the version.
const HEADER: &str = "hypha contacts 1";

/// Contacts kept. The nearest and the longest-lived of any table are among them; ten would do to rejoin.
pub const SAVED_MAX: usize = 256;

/// Most bytes that are read of the file: `SAVED_MAX` lines of 64 digits and four IPv6 addresses are 60 KiB.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// What a contacts file said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The readable contacts.
    pub contacts: Vec<Contact>,
    /// What is wrong with the rest, for the log.
    pub damage: Vec<String>,
}

/// Reads the file at `path`. That there is none is no error: it means no contacts.
///
/// # Errors
/// If it exists and can't be read.
pub fn load(path: &Path) -> io::Result<Loaded> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::default()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(parse(&bytes))
}

/// Replaces the file at `path`, whole or not at all.
///
/// # Errors
/// If the directory can't be written to; the old file is then untouched.
pub fn save(path: &Path, contacts: &[Contact]) -> io::Result<()> {
    files::replace(path, format(contacts).as_bytes())
}

fn format(contacts: &[Contact]) -> String {
    let mut text = format!("{HEADER}\n");
    for contact in contacts.iter().take(SAVED_MAX) {
        text += &contact.public_key.to_string();
        for address in &contact.addresses {
            text += &format!(" {address}");
        }
        text.push('\n');
    }
    text
}

/// Reads the file's content; any bytes will do.
///
/// # Suspends
/// Never.
pub fn parse(bytes: &[u8]) -> Loaded {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let mut loaded = Loaded::default();
    match lines.next() {
        Some(HEADER) => {}
        other => {
            let found: String = other.unwrap_or("nothing").chars().take(40).collect();
            loaded.damage.push(format!("its first line is {found:?}, not {HEADER:?}: ignored as a whole"));
            return loaded;
        }
    }
    for (index, line) in lines.enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match parse_line(line) {
            Some(contact) if loaded.contacts.len() < SAVED_MAX => loaded.contacts.push(contact),
            Some(_) => break,
            None => loaded.damage.push(format!("line {} is no contact", index + 2)),
        }
    }
    loaded
}

fn parse_line(line: &str) -> Option<Contact> {
    let mut words = line.split_whitespace();
    let key: PublicKey = words.next()?.parse().ok()?;
    let addresses: Vec<SocketAddr> = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
    (!addresses.is_empty()).then(|| Contact::new(key, addresses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contacts(count: u8) -> Vec<Contact> {
        let contact = |number: u8| {
            let key = PublicKey::from_bytes([number; 32]);
            Contact::new(
                key,
                [SocketAddr::from(([127, 0, 0, 1], 7000 + u16::from(number))), "[::1]:1".parse().unwrap()],
            )
        };
        (0..count).map(contact).collect()
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("contacts");
        assert_eq!(load(&path).unwrap(), Loaded::default());
        for count in [3, 2] {
            save(&path, &contacts(count)).unwrap();
            assert_eq!(load(&path).unwrap(), Loaded { contacts: contacts(count), damage: vec![] });
        }
    }

    #[test]
    fn a_damaged_line_is_reported_and_the_rest_is_used() {
        let text = format(&contacts(3)).replace("127.0.0.1:7001", "nowhere");
        let loaded = parse(text.as_bytes());
        assert_eq!(loaded.contacts, [contacts(3)[0].clone(), contacts(3)[2].clone()]);
        assert_eq!(loaded.damage, ["line 3 is no contact"]);
    }

    #[test]
    fn another_kind_of_file_is_ignored_as_a_whole() {
        let loaded = parse(b"\x7fELF\x00\x01");
        assert!(loaded.contacts.is_empty() && loaded.damage.len() == 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            parse(&bytes);
            let mut text = format!("{HEADER}\n").into_bytes();
            text.extend(bytes);
            parse(&text);
        }
    }
}
