//! The newest state of each volume that this machine has seen: its register's value, kept so that a mount can start where no
//! node answers.
//!
//! Each client writes a file of its own for each, so that none overwrites a newer one of another's; the newest counts. The value is
//! what nodes hold, signed and sealed, and it was verified when it came; the keyed hash behind it says that it was we who
//! kept it. Which of them a mount may begin with the application decides, by the mark of what was seen that it keeps: one that is
//! older than that is told to be so.

use std::io::{self, ErrorKind};
use std::path::Path;

use dht::block_store::{PAYLOAD_SIZE_BYTES_MAX, Record, RegisterAddress};
use dht::{HeaderHash, PublicKey};
use reactor::fs;

const PREFIX: &str = "root-";
/// How much of a register's address its files are named by.
const NAMED_BY: usize = 8;
const HEAD_SIZE: usize = 8 + 32 + 32;
const PROOF_SIZE: usize = 32;

fn proof(key: &[u8; 32], register: &RegisterAddress, body: &[u8]) -> [u8; PROOF_SIZE] {
    // Entries' hashes begin with an address and go on with numbers; the word keeps the two kinds apart.
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(b"root").update(&register.0).update(body);
    *hasher.finalize().as_bytes()
}

fn encode(key: &[u8; 32], register: &RegisterAddress, record: &Record) -> Vec<u8> {
    let mut bytes = record.version.to_le_bytes().to_vec();
    bytes.extend_from_slice(&record.header_hash.0);
    bytes.extend_from_slice(record.writer.as_bytes());
    bytes.extend_from_slice(&record.payload);
    let proof = proof(key, register, &bytes);
    bytes.extend_from_slice(&proof);
    bytes
}

fn decode(key: &[u8; 32], register: &RegisterAddress, bytes: &[u8]) -> Option<Record> {
    let (body, proved) = bytes.split_last_chunk::<PROOF_SIZE>()?;
    if proof(key, register, body) != *proved {
        return None;
    }
    let (version, rest) = body.split_first_chunk::<8>()?;
    let (header_hash, rest) = rest.split_first_chunk::<32>()?;
    let (writer, payload) = rest.split_first_chunk::<32>()?;
    Some(Record {
        version: u64::from_le_bytes(*version),
        payload: payload.to_vec().into(),
        header_hash: HeaderHash(*header_hash),
        writer: PublicKey::from_bytes(*writer),
    })
}

/// What the names of all files of a register end with.
fn suffix(register: &RegisterAddress) -> String {
    register.0[..NAMED_BY].iter().fold("-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// Writes `client`'s file of this register, in place of what it held.
///
/// # Suspends
///
/// Until it is durable.
pub(super) fn save(
    directory: &Path,
    client: &str,
    key: &[u8; 32],
    register: &RegisterAddress,
    record: &Record,
) -> io::Result<()> {
    let name = format!("{PREFIX}{client}{}", suffix(register));
    fs::write_atomically(directory.join(name), encode(key, register, record), 0o600)
}

/// Returns what clients kept of this register, the newest first, each once.
///
/// # Suspends
///
/// While the files are read.
pub(super) fn kept(directory: &Path, key: &[u8; 32], register: &RegisterAddress) -> io::Result<Vec<Record>> {
    let mut kept: Vec<Record> = Vec::new();
    for name in names(directory, register)? {
        let limit = HEAD_SIZE + PAYLOAD_SIZE_BYTES_MAX + PROOF_SIZE;
        // One that is damaged is as good as none: another's may be whole.
        let Ok(bytes) = fs::read(directory.join(name), limit) else { continue };
        kept.extend(decode(key, register, &bytes));
    }
    // Two of one version are two values: which of them counts, the mark says.
    kept.sort_by_key(|record| std::cmp::Reverse((record.version, record.header_hash.0)));
    kept.dedup_by_key(|record| (record.version, record.header_hash.0));
    Ok(kept)
}

/// The version of what `client`'s file of this register holds; 0 if there is none that is whole.
///
/// # Suspends
///
/// While the file is read.
pub(super) fn version_in(directory: &Path, client: &str, key: &[u8; 32], register: &RegisterAddress) -> u64 {
    let path = directory.join(format!("{PREFIX}{client}{}", suffix(register)));
    let bytes = fs::read(path, HEAD_SIZE + PAYLOAD_SIZE_BYTES_MAX + PROOF_SIZE).unwrap_or_default();
    decode(key, register, &bytes).map_or(0, |record| record.version)
}

/// Removes all of this register: an older state was accepted, and none of them is to come back.
///
/// # Suspends
///
/// Until they are gone.
pub(super) fn forget(directory: &Path, register: &RegisterAddress) -> io::Result<()> {
    for name in names(directory, register)? {
        match fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::sync_dir(directory)
}

fn names(directory: &Path, register: &RegisterAddress) -> io::Result<Vec<String>> {
    let suffix = suffix(register);
    let is_of = |name: &String| name.starts_with(PREFIX) && name.ends_with(&suffix);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.extend(entry?.name.into_string().ok().filter(is_of));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(directory: &Path, key: &[u8; 32], register: &RegisterAddress) -> io::Result<Option<Record>> {
        kept(directory, key, register).map(|kept| kept.into_iter().next())
    }

    fn record(version: u64) -> Record {
        Record {
            version,
            payload: vec![version as u8; 300].into(),
            header_hash: HeaderHash([version as u8; 32]),
            writer: PublicKey::from_bytes([9; 32]),
        }
    }

    #[test]
    fn the_newest_that_is_whole_is_found_and_nobody_elses() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let (key, register) = ([1; 32], RegisterAddress([2; 32]));
        reactor::run(|| {
            assert_eq!(newest(path, &key, &register).unwrap(), None);
            save(path, "client", &key, &register, &record(7)).unwrap();
            save(path, "client-2", &key, &register, &record(5)).unwrap();
            assert_eq!(kept(path, &key, &register).unwrap(), [record(7), record(5)]);
            assert_eq!(newest(path, &[3; 32], &register).unwrap(), None);
            assert_eq!(newest(path, &key, &RegisterAddress([4; 32])).unwrap(), None);
            let file = path.join("root-client-0202020202020202");
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[100] ^= 1;
            std::fs::write(&file, bytes).unwrap();
            assert_eq!(newest(path, &key, &register).unwrap(), Some(record(5)));
            std::fs::write(&file, b"").unwrap();
            assert_eq!(newest(path, &key, &register).unwrap(), Some(record(5)));
            let other = RegisterAddress([4; 32]);
            save(path, "client", &key, &other, &record(3)).unwrap();
            forget(path, &register).unwrap();
            assert_eq!(newest(path, &key, &register).unwrap(), None);
            assert_eq!(newest(path, &key, &other).unwrap(), Some(record(3)), "each volume's is its own");
        });
    }
}
