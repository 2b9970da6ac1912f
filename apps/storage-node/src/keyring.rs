//! The keys of this process: read from a home's key files, opened with the passphrase if they are sealed under one.
//!
//! A home has one passphrase at most. It opens `passphrase.key`, which holds the *home's key*, drawn by chance; under that each
//! key file's seed is sealed. So another passphrase is one small file replaced in one step, and until that step the old one is
//! good. It costs whoever guesses 64 MiB and three passes of Argon2id for each guess (`reactor::crypto::key_file`).
//!
//! What a command needs is asked for once, before it begins, and stays here until the process ends: there is one ring for a
//! process, as there is one home. Beside the home's key the ring may have the owner's, from a file that `owner export` wrote.
//!
//! Not here: where a passphrase comes from (`secrets`), and how one is set (`passphrase`).

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use reactor::crypto::aead::{self, Key};
use reactor::crypto::key_file::{self, KeyFileError};
use reactor::crypto::{Identity, random_bytes};
use zeroize::Zeroizing;

use crate::errors::Failure;
use crate::files;
use crate::home::Home;
use crate::network::{Hex, KeyFile, Role, Secret};
use crate::output;
use crate::secrets::Source;

/// Beside the key files that are sealed: the home's key under the passphrase.
const PASSPHRASE_FILE: &str = "passphrase.key";
/// Of a sealed seed: nonce, 32 bytes, tag.
const SEALED_BYTES: usize = aead::NONCE_SIZE_BYTES + 32 + aead::OVERHEAD_BYTES;

static RING: OnceLock<Ring> = OnceLock::new();

/// What this process was given.
struct Ring {
    /// The key of the home in this directory.
    home: Option<(PathBuf, Key)>,
    owner: Option<Identity>,
}

/// A key that can be used.
pub(crate) struct OpenKey {
    pub(crate) role: Role,
    pub(crate) identity: Identity,
    pub(crate) passport: Option<Hex<Vec<u8>>>,
}

/// What a command may be given beside its home.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) passphrase: Source<'a>,
    /// A file that `owner export` wrote, and its passphrase.
    pub(crate) owner: Option<(&'a Path, Source<'a>)>,
}

/// Has what this process needs at hand: the home's key if one of `key_files`, which lie beside each other, is sealed; and the
/// owner's, if it was given. To be called once. Blocks until it is told the passphrases that it needs.
///
/// # Errors
/// `Failure::WrongPassphrase`, `Failure::NotGiven`, or those of the files.
pub(crate) fn unlock(key_files: &[PathBuf], given: &Given<'_>) -> Result<(), Failure> {
    // Whoever loads one that can't be read is told so.
    let (sealed, plain): (Vec<&PathBuf>, Vec<&PathBuf>) =
        there(key_files).partition(|path| is_sealed(path).unwrap_or(false));
    let home = match sealed.first() {
        Some(path) => {
            let directory = directory_of(path);
            let key = open_home_key(&directory, &given.passphrase.ask()?)?;
            for path in plain {
                output::warn(format_args!(
                    "{} is not sealed: `storage-node passphrase` was cut short, and goes on with it",
                    path.display()
                ));
            }
            Some((directory, key))
        }
        None => None,
    };
    let owner = match given.owner {
        Some((path, source)) => Some(open_exported(path, &source.ask()?)?),
        None => None,
    };
    RING.set(Ring { home, owner }).map_err(|_| Failure::Internal("keys are unlocked twice".into()))
}

/// The owner's key, if this process was given it.
pub(crate) fn owner() -> Option<Identity> {
    RING.get()?.owner.clone()
}

/// Reads a key file, and opens it if it is sealed.
///
/// # Errors
/// Those of [`files::load`]; `Failure::Damaged` if it is sealed under another key than its home's.
pub(crate) fn load(path: &Path) -> Result<OpenKey, Failure> {
    let file: KeyFile = files::load(path)?;
    let home = RING.get().and_then(|ring| ring.home.as_ref());
    open(path, file, home.filter(|(directory, _)| *directory == directory_of(path)).map(|(_, key)| key))
}

/// Writes a key file into its home: sealed, if that has a passphrase which this process was told.
///
/// # Errors
/// Those of [`files::save`]; `Failure::Sealed` if it has one that was not told.
pub(crate) fn save(path: &Path, file: KeyFile) -> Result<(), Failure> {
    let home = RING.get().and_then(|ring| ring.home.as_ref());
    match home.filter(|(directory, _)| *directory == directory_of(path)) {
        Some((_, key)) => files::save(path, &seal(file, key)),
        None if passphrase_file(&directory_of(path)).exists() => Err(Failure::Sealed { path: path.into() }),
        None => files::save(path, &file),
    }
}

/// Those of `key_files` that there are: also one that can't be looked at just now, or whose link leads nowhere.
pub(crate) fn there(key_files: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    let is_missing =
        |path: &PathBuf| fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    key_files.iter().filter(move |path| !is_missing(path))
}

/// Whether it takes a passphrase to use the key.
///
/// # Errors
/// Those of [`files::load`]: what can't be read is not known to be plain.
pub(crate) fn is_sealed(path: &Path) -> Result<bool, Failure> {
    files::load::<KeyFile>(path).map(|file| file.is_sealed())
}

/// Where the home's key is kept under a passphrase.
pub(crate) fn passphrase_file(directory: &Path) -> PathBuf {
    directory.join(PASSPHRASE_FILE)
}

/// The key file with its seed under the home's key.
pub(crate) fn seal(file: KeyFile, key: &Key) -> KeyFile {
    let Secret::Plain { seed } = &file.secret else { return file };
    let nonce = random_bytes::<{ aead::NONCE_SIZE_BYTES }>();
    let mut content = Vec::with_capacity(32 + aead::OVERHEAD_BYTES);
    content.extend_from_slice(&seed.0);
    aead::encrypt_in_place(key, &nonce, associated_data(file.role), &mut content);
    KeyFile { secret: Secret::Sealed { sealed: Hex([&nonce[..], &content].concat()) }, ..file }
}

/// What a key file holds; a sealed one opens with its home's key.
///
/// # Errors
/// `Failure::Damaged` if it does not.
pub(crate) fn open(path: &Path, file: KeyFile, key: Option<&Key>) -> Result<OpenKey, Failure> {
    let KeyFile { role, secret, passport } = file;
    let seed = match secret {
        Secret::Plain { seed } => Zeroizing::new(seed.0),
        Secret::Sealed { sealed } => {
            let key = key.ok_or_else(|| Failure::Sealed { path: path.into() })?;
            unseal(role, &sealed.0, key).ok_or_else(|| {
                Failure::damaged(
                    path,
                    format!("it is not sealed under what is in {PASSPHRASE_FILE} beside it"),
                )
            })?
        }
    };
    Ok(OpenKey { role, identity: Identity::from_seed(&seed), passport })
}

fn unseal(role: Role, sealed: &[u8], key: &Key) -> Option<Zeroizing<[u8; 32]>> {
    if sealed.len() != SEALED_BYTES {
        return None;
    }
    let (nonce, content) = sealed.split_first_chunk()?;
    let mut content = Zeroizing::new(content.to_vec());
    aead::decrypt_in_place(key, nonce, associated_data(role), &mut content).ok()?;
    content[..].try_into().ok().map(Zeroizing::new)
}

/// One role's key does not pass for another's.
fn associated_data(role: Role) -> &'static [u8] {
    match role {
        Role::Owner => b"hypha sealed key 1: owner",
        Role::User => b"hypha sealed key 1: user",
        Role::Node => b"hypha sealed key 1: node",
    }
}

/// The home's key, by its passphrase. Blocks; not for a coroutine.
///
/// # Errors
/// `Failure::WrongPassphrase`, or those of the file.
pub(crate) fn open_home_key(directory: &Path, passphrase: &[u8]) -> Result<Key, Failure> {
    let path = passphrase_file(directory);
    let key = open_file(&path, passphrase, || {
        lost(Home::locate(Some(directory)).is_ok_and(|home| home.is_owners()))
    })?;
    let key: [u8; 32] = key[..].try_into().map_err(|_| Failure::damaged(&path, "it holds no key"))?;
    Ok(Key::from_bytes(key))
}

/// The owner's key, from a file that `owner export` wrote.
///
/// # Errors
/// As [`open_home_key`], but `Failure::File` if there is no such file: no home's keys are sealed under it.
pub(crate) fn open_exported(path: &Path, passphrase: &[u8]) -> Result<Identity, Failure> {
    let of_file = || "the 24 words of `recovery` are the same key (`owner import`); without both nobody is ever let in again";
    let seed = open_file(path, passphrase, of_file).map_err(|failure| match failure {
        Failure::NoPassphraseFile { path } => {
            Failure::File { path, source: io::Error::from(ErrorKind::NotFound) }
        }
        other => other,
    })?;
    let seed: Zeroizing<[u8; 32]> =
        Zeroizing::new(seed[..].try_into().map_err(|_| Failure::damaged(path, "it holds no key"))?);
    Ok(Identity::from_seed(&seed))
}

/// Replaces `path` by a secret of 32 bytes under a passphrase, in one step. Blocks; not for a coroutine.
///
/// # Errors
/// Those of the file system; what was there before is there still.
pub(crate) fn write_file(path: &Path, secret: &[u8; 32], passphrase: &[u8]) -> Result<(), Failure> {
    let sealed = reactor::run(|| key_file::seal(secret, passphrase, key_file::Cost::default()));
    files::write_atomically(path, &sealed, 0o600).map_err(|error| Failure::file(path, error))
}

/// What is left to whoever has lost the passphrase of a home.
pub(crate) fn lost(is_owners: bool) -> &'static str {
    match is_owners {
        true => {
            "`recover` makes the home anew elsewhere from the 24 words of `recovery`, and without them nobody does"
        }
        false => {
            "nobody brings this home back: the owner removes this member and invites it anew; what waits in the journal here is lost"
        }
    }
}

fn open_file(
    path: &Path,
    passphrase: &[u8],
    lost: impl FnOnce() -> &'static str,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let sealed = match files::read_bounded(path) {
        Err(Failure::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Err(Failure::NoPassphraseFile { path: path.into() });
        }
        other => other?,
    };
    // Whoever else may read it: it is sealed, and may lie on a stick whose file system knows no modes.
    reactor::run(|| key_file::open(&sealed, passphrase)).map_err(|error| match error {
        KeyFileError::WrongPassword => Failure::WrongPassphrase { path: path.into(), lost: lost() },
        other => Failure::damaged(path, other),
    })
}

/// The directory that a key file lies in.
pub(crate) fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_file() -> KeyFile {
        KeyFile::plain(Role::User, &Identity::from_seed(&[7; 32]), Some(Hex(vec![1, 2, 3])))
    }

    #[test]
    fn a_sealed_key_opens_with_its_homes_key_and_with_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("user.key");
        let key = Key::from_bytes([1; 32]);
        files::save(&path, &seal(key_file(), &key)).unwrap();
        assert!(is_sealed(&path).unwrap() && !std::fs::read_to_string(&path).unwrap().contains("0707"));
        let stored = || files::load::<KeyFile>(&path).unwrap();
        let opened = open(&path, stored(), Some(&key)).unwrap();
        assert_eq!(*opened.identity.seed(), [7; 32]);
        assert_eq!(opened.passport, Some(Hex(vec![1, 2, 3])));
        assert!(matches!(open(&path, stored(), None), Err(Failure::Sealed { .. })));
        let other = Key::from_bytes([2; 32]);
        assert!(matches!(open(&path, stored(), Some(&other)), Err(Failure::Damaged { .. })));
        // The role says what the key may be used for.
        let renamed = KeyFile { role: Role::Owner, ..stored() };
        assert!(matches!(open(&path, renamed, Some(&key)), Err(Failure::Damaged { .. })));
        assert!(matches!(load(&path), Err(Failure::Sealed { .. })), "this process was told no passphrase");
    }

    #[test]
    fn no_byte_of_a_sealed_key_can_be_changed() {
        let key = Key::from_bytes([1; 32]);
        let Secret::Sealed { sealed } = seal(key_file(), &key).secret else { panic!("it is sealed") };
        for at in 0..sealed.0.len() {
            let mut changed = sealed.0.clone();
            changed[at] ^= 1;
            assert!(unseal(Role::User, &changed, &key).is_none(), "byte {at}");
            assert!(unseal(Role::User, &sealed.0[..at], &key).is_none());
        }
    }

    #[test]
    fn only_the_passphrase_opens_the_homes_key() {
        let directory = tempfile::tempdir().unwrap();
        let wrong = |passphrase: &[u8]| open_home_key(directory.path(), passphrase);
        assert!(matches!(wrong(b"right"), Err(Failure::NoPassphraseFile { .. })));
        let exported = open_exported(&passphrase_file(directory.path()), b"right");
        assert!(matches!(exported, Err(Failure::File { .. })), "no key is sealed under what `--owner` names");
        write_file(&passphrase_file(directory.path()), &[5; 32], b"right").unwrap();
        assert_eq!(open_home_key(directory.path(), b"right").unwrap().as_bytes(), &[5; 32]);
        assert!(matches!(wrong(b"left"), Err(Failure::WrongPassphrase { .. })));
        std::fs::write(passphrase_file(directory.path()), "nothing of ours").unwrap();
        assert!(matches!(wrong(b"right"), Err(Failure::Damaged { .. })));
    }
}
