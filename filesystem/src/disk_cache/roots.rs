//! The newest state of each volume that this machine has seen: its register's value, kept so that a mount can start where no
//! node answers.
//!
//! Each client writes a file of its own for each, so that none overwrites a newer one of another's; the newest counts. The value is
//! what nodes hold, signed and sealed, and it was verified when it came; the keyed hash behind it says that it was we who
//! kept it. Which of them a mount may begin with the application decides, by the mark of what was seen that it keeps: one that is
//! older than that is told to be so.
//!
//! These are made durable, which takes milliseconds, and so are written now and then. The root of each commit is written, too, before
//! the commit is answered ([`Newest`]): the end of the process leaves that, though a power cut may not.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use dht::block_store::{PAYLOAD_SIZE_BYTES_MAX, Record, RegisterAddress};
use dht::{HeaderHash, PublicKey};
use reactor::fs::{self, File, OpenOptions};

const PREFIX: &str = "root-";
/// How much of a register's address its files are named by.
const NAMED_BY: usize = 8;
const HEAD_SIZE: usize = 8 + 32 + 32;
const PROOF_SIZE: usize = 32;
/// What a client's name is followed by in the name of its [`Newest`].
const NEWEST: &str = ".newest";
/// A slot of one: a length, and what a file holds otherwise.
const SLOT_SIZE: usize = (4 + HEAD_SIZE + PAYLOAD_SIZE_BYTES_MAX + PROOF_SIZE).next_multiple_of(4096);

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

/// The newest root that a client's volume has published, as the end of the process leaves it. It is written in place, by turns in two
/// slots: whoever is killed while he writes one leaves the other.
pub(super) struct Newest {
    file: File,
    /// The slot that is written next.
    slot: u64,
}

impl Newest {
    /// Opens, or makes, `client`'s of this register.
    ///
    /// # Suspends
    ///
    /// While it is read.
    pub(super) fn open(
        directory: &Path,
        client: &str,
        key: &[u8; 32],
        register: &RegisterAddress,
    ) -> io::Result<Newest> {
        let path = directory.join(format!("{PREFIX}{client}{NEWEST}{}", suffix(register)));
        let [first, second] = slots(&path, key, register);
        let is_second_older = second.map(|record| record.version) < first.map(|record| record.version);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).mode(0o600).open(path)?;
        Ok(Newest { file, slot: u64::from(is_second_older) })
    }

    /// Writes a root, in place of the one before the last.
    ///
    /// # Suspends
    ///
    /// Until the kernel has it.
    pub(super) fn write(
        &mut self,
        key: &[u8; 32],
        register: &RegisterAddress,
        record: &Record,
    ) -> io::Result<()> {
        let encoded = encode(key, register, record);
        let bytes = [&(encoded.len() as u32).to_le_bytes(), &encoded[..]].concat();
        self.file.write_chunk_at(bytes.into(), self.slot * SLOT_SIZE as u64)?;
        self.slot ^= 1;
        Ok(())
    }
}

/// What the slots of a [`Newest`] hold, where they are whole.
fn slots(path: &Path, key: &[u8; 32], register: &RegisterAddress) -> [Option<Record>; 2] {
    let bytes = fs::read(path, 2 * SLOT_SIZE).unwrap_or_default();
    [0, SLOT_SIZE].map(|start| {
        let (size, rest) = bytes.get(start..)?.split_first_chunk::<4>()?;
        decode(key, register, rest.get(..u32::from_le_bytes(*size) as usize)?)
    })
}

/// What clients kept of a register, each once, the newest first.
pub(super) struct Kept {
    pub(super) records: Vec<Record>,
    /// The newest that a power cut leaves; 0 if there is none.
    pub(super) durable_version: u64,
}

/// Returns what clients kept of this register.
///
/// # Suspends
///
/// While the files are read.
pub(super) fn kept(directory: &Path, key: &[u8; 32], register: &RegisterAddress) -> io::Result<Kept> {
    let mut records: Vec<Record> = Vec::new();
    let mut durable_version = 0;
    for path in paths(directory, register)? {
        // One that is damaged is as good as none: another's may be whole.
        if is_newest(&path, register) {
            records.extend(slots(&path, key, register).into_iter().flatten());
            continue;
        }
        let limit = HEAD_SIZE + PAYLOAD_SIZE_BYTES_MAX + PROOF_SIZE;
        let Ok(bytes) = fs::read(path, limit) else { continue };
        let record = decode(key, register, &bytes);
        durable_version = durable_version.max(record.as_ref().map_or(0, |record| record.version));
        records.extend(record);
    }
    // Two of one version are two values: which of them counts, the mark says.
    records.sort_by_key(|record| std::cmp::Reverse((record.version, record.header_hash.0)));
    records.dedup_by_key(|record| (record.version, record.header_hash.0));
    Ok(Kept { records, durable_version })
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

/// Removes all of this register: an older state was accepted, and none of them is to come back. A [`Newest`] is emptied and stays: a
/// process that has it open goes on writing into it.
///
/// # Suspends
///
/// Until they are gone.
pub(super) fn forget(directory: &Path, register: &RegisterAddress) -> io::Result<()> {
    for path in paths(directory, register)? {
        let removed = match is_newest(&path, register) {
            true => OpenOptions::new().write(true).open(path).and_then(|file| {
                file.set_len(0)?;
                file.sync_all()
            }),
            false => fs::remove_file(path),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::sync_dir(directory)
}

fn is_newest(path: &Path, register: &RegisterAddress) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(&format!("{NEWEST}{}", suffix(register)))
}

fn paths(directory: &Path, register: &RegisterAddress) -> io::Result<Vec<PathBuf>> {
    let suffix = suffix(register);
    let is_of = |name: &String| name.starts_with(PREFIX) && name.ends_with(&suffix);
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.name.into_string().ok().filter(is_of);
        paths.extend(name.map(|name| directory.join(name)));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(directory: &Path, key: &[u8; 32], register: &RegisterAddress) -> io::Result<Option<Record>> {
        kept(directory, key, register).map(|kept| kept.records.into_iter().next())
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
            assert_eq!(kept(path, &key, &register).unwrap().records, [record(7), record(5)]);
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

    #[test]
    fn whoever_is_killed_while_a_commit_is_kept_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let (key, register) = ([1; 32], RegisterAddress([2; 32]));
        let file = path.join("root-client.newest-0202020202020202");
        reactor::run(|| {
            save(path, "client", &key, &register, &record(4)).unwrap();
            // Each version by a process of its own, which is killed at any byte of it.
            for version in 5..9 {
                let open = || Newest::open(path, "client", &key, &register).unwrap();
                open().write(&key, &register, &record(version)).unwrap();
                let kept = kept(path, &key, &register).unwrap();
                assert_eq!((kept.records[0].version, kept.durable_version), (version, 4));
                let whole = std::fs::read(&file).unwrap();
                open().write(&key, &register, &record(version + 1)).unwrap();
                let newer = std::fs::read(&file).unwrap();
                let differs = |at: &usize| whole.get(*at) != newer.get(*at);
                let changed: Vec<usize> = (0..newer.len()).filter(differs).collect();
                for cut in changed.iter().step_by(61) {
                    let torn = [&newer[..*cut], whole.get(*cut..).unwrap_or_default()].concat();
                    std::fs::write(&file, torn).unwrap();
                    assert_eq!(newest(path, &key, &register).unwrap(), Some(record(version)), "cut at {cut}");
                }
                std::fs::write(&file, whole).unwrap();
            }
            // One that has it open meanwhile goes on.
            let mut open = Newest::open(path, "client", &key, &register).unwrap();
            forget(path, &register).unwrap();
            assert_eq!(newest(path, &key, &register).unwrap(), None);
            for version in [3, 4, 5] {
                open.write(&key, &register, &record(version)).unwrap();
                assert_eq!(newest(path, &key, &register).unwrap(), Some(record(version)));
            }
        });
    }
}
