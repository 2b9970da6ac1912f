//! `replaced-*.json` of a home: what `rollback` took the place of, so that it can be undone; a file for the drive, and for each space.
//!
//! Nodes keep the last of each thousandth of the retention (`dht::node::past`), and a state that lasted for seconds may be none of
//! them. Whoever goes back to the wrong one loses no more than the time. The root is kept as its writer sealed it; what it reaches
//! the nodes have until `gc` deletes it, and for the retention after that. The file is durable before the drive's root is replaced.
//!
//! The home is trusted as its keys are, which lie beside it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use dht::{Record, RegisterAddress};
use reactor::crypto::PublicKey;
use serde::{Deserialize, Serialize};

use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::network::Hex;
use crate::output;

/// How many bytes of roots of one volume are kept, the last: a drive's root has some 2 KiB, and twice as much in the file.
const KEPT_BYTES_MAX: usize = 384 << 10;

/// A root that a rollback took the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replaced {
    register: Hex<[u8; 32]>,
    /// Its number.
    pub(crate) version: u64,
    /// What tells it from another of that number.
    pub(crate) header_hash: Hex<[u8; 32]>,
    writer: Hex<[u8; 32]>,
    /// When that was done, in seconds since 1970, by this machine's clock.
    pub(crate) replaced_seconds: u64,
    /// As it was sealed.
    pub(crate) payload: Hex<Vec<u8>>,
}

impl Replaced {
    /// Who signed it.
    pub(crate) fn writer(&self) -> PublicKey {
        PublicKey::from_bytes(self.writer.0)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    roots: Vec<Replaced>,
}

impl Kind for Content {
    const KIND: &'static str = "hypha replaced roots";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
}

fn path(client: &Path, register: &RegisterAddress) -> PathBuf {
    client.join(format!("replaced-{}.json", HEXLOWER.encode(&register.0[..16])))
}

/// So that of two processes that replace the root of one register neither takes away what the other kept. It is had for two
/// writes to the disk. Blocks until it is free, or dropped.
fn lock(client: &Path) -> Result<File, Failure> {
    let path = client.join("replaced.lock");
    let file = files::open_own(&path)?;
    file.lock().map_err(|error| Failure::file(&path, error))?;
    Ok(file)
}

/// A damaged file keeps nobody from going back: it is put aside, beside those that were before.
fn load(client: &Path, register: &RegisterAddress, _: &File) -> Result<Content, Failure> {
    let path = path(client, register);
    match files::load(&path) {
        Err(Failure::File { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Content::default()),
        Err(Failure::Damaged { reason, .. }) => {
            let aside = (1..).map(|number| path.with_extension(format!("damaged-{number}")));
            let aside = aside.into_iter().find(|aside| !aside.exists()).unwrap_or_else(|| path.clone());
            std::fs::rename(&path, &aside).map_err(|error| Failure::file(&path, error))?;
            output::warn(format_args!(
                "what earlier rollbacks replaced is not known, and is kept in {}: {reason}",
                aside.display()
            ));
            Ok(Content::default())
        }
        content => content,
    }
}

/// What is kept of a register in a client's directory, the oldest first.
///
/// # Errors
/// If the file can't be read.
pub(crate) fn of(client: &Path, register: &RegisterAddress) -> Result<Vec<Replaced>, Failure> {
    // A file is replaced whole, so to look at one takes no lock: nobody waits for a process that is stopped.
    let mut roots = match files::load::<Content>(&path(client, register)) {
        Err(Failure::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(Failure::Damaged { .. }) => load(client, register, &lock(client)?)?.roots,
        content => content?.roots,
    };
    roots.retain(|root| root.register.0 == register.0);
    Ok(roots)
}

/// Keeps what is about to be replaced at `now_seconds`, durably, in the place of `before`, which was not replaced; the oldest give way.
///
/// # Errors
/// If the file can't be read or written.
pub(crate) fn keep(
    client: &Path,
    register: &RegisterAddress,
    newest: &Record,
    before: Option<&Record>,
    now_seconds: u64,
) -> Result<(), Failure> {
    // A home that came back from its words, or another copy of it, may have had no client yet.
    files::private_directory(client)?;
    let lock = lock(client)?;
    let mut content = load(client, register, &lock)?;
    let goes = |hash: &[u8; 32]| {
        [Some(newest), before].into_iter().flatten().any(|record| record.header_hash.0 == *hash)
    };
    content.roots.retain(|root| !goes(&root.header_hash.0));
    content.roots.push(Replaced {
        register: Hex(register.0),
        version: newest.version,
        header_hash: Hex(newest.header_hash.0),
        writer: Hex(*newest.writer.as_bytes()),
        replaced_seconds: now_seconds,
        payload: Hex(newest.payload.to_vec()),
    });
    let mut bytes: usize = content.roots.iter().map(|root| root.payload.0.len()).sum();
    while bytes > KEPT_BYTES_MAX {
        bytes -= content.roots.remove(0).payload.0.len();
    }
    files::save(&path(client, register), &content)?;
    drop(lock);
    Ok(())
}

#[cfg(test)]
mod tests {
    use dht::HeaderHash;

    use super::*;

    fn record(version: u64) -> Record {
        let payload = vec![version as u8; dht::block_store::PAYLOAD_SIZE_BYTES_MAX].into();
        Record {
            version,
            payload,
            header_hash: HeaderHash([version as u8; 32]),
            writer: PublicKey::from_bytes([3; 32]),
        }
    }

    #[test]
    fn the_last_few_are_kept_however_large_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let (register, other) = (RegisterAddress([1; 32]), RegisterAddress([2; 32]));
        assert_eq!(of(directory.path(), &register).unwrap(), []);
        for version in 1..=6 {
            keep(directory.path(), &register, &record(version), None, version).unwrap();
        }
        keep(directory.path(), &register, &record(5), None, 7).unwrap();
        keep(directory.path(), &register, &record(7), None, 8).unwrap();
        // It was newer by the time.
        keep(directory.path(), &register, &record(8), Some(&record(7)), 8).unwrap();
        let kept = of(directory.path(), &register).unwrap();
        let versions: Vec<u64> = kept.iter().map(|root| root.version).collect();
        assert_eq!(versions, [2, 3, 4, 6, 5, 8]);
        assert_eq!((kept[4].replaced_seconds, kept[4].writer()), (7, PublicKey::from_bytes([3; 32])));
        assert_eq!(kept[4].payload.0, record(5).payload);
        assert_eq!(of(directory.path(), &other).unwrap(), []);
        // However much somebody has a space roll back, what the drive was is kept.
        keep(directory.path(), &other, &record(1), None, 9).unwrap();
        assert_eq!(of(directory.path(), &register).unwrap(), kept);
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_keeps_nobody_from_going_back() {
        let directory = tempfile::tempdir().unwrap();
        let register = RegisterAddress([1; 32]);
        for (number, content) in [(1, "half a fi"), (2, "another")] {
            std::fs::write(path(directory.path(), &register), content).unwrap();
            keep(directory.path(), &register, &record(1), None, 1).unwrap();
            assert_eq!(of(directory.path(), &register).unwrap().len(), 1);
            let aside = path(directory.path(), &register).with_extension(format!("damaged-{number}"));
            assert_eq!(std::fs::read_to_string(aside).unwrap(), content);
        }
        let first = path(directory.path(), &register).with_extension("damaged-1");
        assert_eq!(std::fs::read(first).unwrap(), b"half a fi", "nor does the next one take its place");
    }

    #[test]
    fn of_several_that_replace_a_root_at_once_none_takes_away_what_another_kept() {
        let directory = tempfile::tempdir().unwrap();
        let register = RegisterAddress([1; 32]);
        std::thread::scope(|scope| {
            for version in 1..=8 {
                let small = Record { payload: vec![version as u8; 9].into(), ..record(version) };
                let directory = directory.path();
                scope.spawn(move || keep(directory, &register, &small, None, version).unwrap());
            }
        });
        let kept = of(directory.path(), &register).unwrap();
        let mut versions: Vec<u64> = kept.iter().map(|root| root.version).collect();
        versions.sort_unstable();
        assert_eq!(versions, (1..=8).collect::<Vec<_>>());
    }
}
