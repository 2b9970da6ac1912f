//! The file of saved contacts, from which a restarted node rejoins when its bootstrap addresses are gone.
//!
//! One line per contact, public key, addresses and what the node says of itself, so that a person can read it and mend it:
//!
//! ```text
//! hypha contacts 2
//! 3b6a...29 192.0.2.7:7001 [2001:db8::7]:7001 record:92c4...
//! ```
//!
//! It is written to a temporary file that is made durable and then renamed over the old one: a crash leaves one or the
//! other. Contacts are only candidates, and a record is verified by whoever loads it, so a damaged line is reported and skipped
//! and costs nobody anything; the file is never worth refusing to start for.
//!
//! The functions here block: call them through `reactor::offload`.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;

use data_encoding::HEXLOWER;
use reactor::crypto::PublicKey;
use reactor::serialization::{from_bytes, to_bytes};

use crate::contact::{ADDRESSES_MAX, Addresses, Introduction};
use crate::files;
use crate::record::SignedRecord;

/// First line of the file; the number is the version.
const HEADER: &str = "hypha contacts 2";

/// The first line that an earlier program wrote.
const HEADER_1: &str = "hypha contacts 1";

/// What the word begins with that is the node's record.
const RECORD: &str = "record:";

/// Contacts kept. The nearest and the longest-lived of any table are among them; ten would do to rejoin.
pub const SAVED_MAX: usize = 256;

/// Most bytes that are read of the file: `SAVED_MAX` lines of 64 digits, four IPv6 addresses and a record are 480 KiB.
const FILE_BYTES_MAX: u64 = 512 * 1024;

/// What a contacts file said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The readable contacts.
    pub contacts: Vec<Introduction>,
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
pub fn save(path: &Path, contacts: &[Introduction]) -> io::Result<()> {
    files::replace(path, format(contacts).as_bytes())
}

fn format(contacts: &[Introduction]) -> String {
    let mut text = format!("{HEADER}\n");
    for contact in contacts.iter().take(SAVED_MAX) {
        text += &contact.public_key.to_string();
        for address in &contact.addresses {
            text += &format!(" {address}");
        }
        if let Some(record) = &contact.record {
            text += &format!(" {RECORD}{}", HEXLOWER.encode(&to_bytes(record)));
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
        // The earlier one's lines have no record.
        Some(HEADER | HEADER_1) => {}
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

fn parse_line(line: &str) -> Option<Introduction> {
    let mut words = line.split_whitespace();
    let public_key: PublicKey = words.next()?.parse().ok()?;
    let (mut addresses, mut record) = (Addresses::new(), None);
    for word in words {
        match word.strip_prefix(RECORD) {
            Some(digits) => record = Some(parse_record(digits)?),
            None => addresses.push(word.parse::<SocketAddr>().ok()?),
        }
    }
    addresses.truncate(ADDRESSES_MAX);
    let says_where = !addresses.is_empty() || record.is_some();
    says_where.then_some(Introduction { public_key, addresses, record })
}

fn parse_record(digits: &str) -> Option<SignedRecord> {
    from_bytes(&HEXLOWER.decode(digits.as_bytes()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RECORD_BYTES_MAX;
    use crate::testing::contact_with_record;
    use proptest::prelude::*;
    use reactor::crypto::Signature;

    /// The first with a record, the others without.
    fn contacts(count: u8) -> Vec<Introduction> {
        let contact = |number: u8| {
            let with = Introduction::from(&contact_with_record(
                number,
                7,
                &format!("127.0.0.1:{}", 7000 + u16::from(number)),
            ));
            Introduction { record: with.record.clone().filter(|_| number == 0), ..with }
        };
        (0..count).map(contact).collect()
    }

    #[test]
    fn the_longest_lines_fit() {
        let [body, life] = [RECORD_BYTES_MAX / 2; 2].map(|half| bytes::Bytes::from(vec![0; half]));
        let signature = Signature::from_bytes([0xff; 64]);
        let record: SignedRecord = from_bytes(&to_bytes(&(body, life, signature))).unwrap();
        let addresses = (0..ADDRESSES_MAX as u16).map(|port| {
            format!("[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:{}", 60_000 + port).parse().unwrap()
        });
        let longest = Introduction {
            public_key: PublicKey::from_bytes([0xff; 32]),
            addresses: addresses.collect(),
            record: Some(record),
        };
        let text = format(&vec![longest; SAVED_MAX]);
        assert!(text.len() as u64 <= FILE_BYTES_MAX, "{}", text.len());
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
        let text = format(&contacts(3)).replace("record:", "record:0");
        let loaded = parse(text.as_bytes());
        assert_eq!(
            (loaded.contacts.len(), &loaded.damage[..]),
            (2, &["line 2 is no contact".to_owned()][..])
        );
    }

    #[test]
    fn the_file_of_an_earlier_program_is_read() {
        let text = format(&contacts(3)[1..]).replace(HEADER, HEADER_1);
        assert_eq!(parse(text.as_bytes()), Loaded { contacts: contacts(3)[1..].to_vec(), damage: vec![] });
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
