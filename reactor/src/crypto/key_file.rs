//! A secret in a file, under a password: Argon2id makes a key of the password, AES-256-GCM seals the secret.
//!
//! Argon2id makes each guess cost what opening costs: by default 64 MiB of memory and a tenth of a second. The cost is
//! in the file, so it may be raised for new files while old ones still open; it is bounded when read, since a file may
//! come from anyone.
//!
//! The file is an envelope ([`crate::serialization::Versioned`]) that names its fields, and ends in a checksum that
//! needs no password. So a damaged file and a wrong password are told apart, except for damage made on purpose with a
//! checksum to match: that looks like a wrong password.
//!
//! What it is not: advice on passwords. Four words drawn by dice are good; a name and a year are guessed at any cost.

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::aead::{self, Key};
use super::hash::sha3_256;
use super::random_bytes;
use crate::offload::offload;
use crate::serialization::{EnvelopeError, Versioned, from_envelope, to_envelope};
use crate::sync::Semaphore;

/// The longest secret that fits: a file of keys, not of content.
pub const SECRET_BYTES_MAX: usize = 64 << 10;

/// The most memory that opening a file may take, whatever it says: what a phone has to spare.
pub const MEMORY_KIB_MAX: u32 = 1 << 20;

/// The most work, in passes over a KiB, that opening a file may take: some ten seconds.
pub const WORK_KIB_MAX: u64 = 4 << 20;

/// The most lanes, which are worked through one by one here.
pub const LANES_MAX: u32 = 64;

const SALT_SIZE_BYTES: usize = 16;

/// Each key seals once, the salt being new: so the nonce may be constant.
const NONCE: [u8; 12] = [0; 12];

/// What opening costs, and so what each guess at the password does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// Parts that could be computed at the same time.
    pub lanes: u32,
}

impl Default for Cost {
    /// 64 MiB, three passes, four lanes: the second choice of RFC 9106, section 4, for machines that cannot spare the
    /// first choice's 2 GiB.
    fn default() -> Self {
        Cost { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

impl Cost {
    /// Little enough for tests, and for nothing else.
    pub const LOWEST: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn params(self) -> Option<Params> {
        let work = u64::from(self.memory_kib) * u64::from(self.passes);
        let bounded = self.memory_kib <= MEMORY_KIB_MAX && work <= WORK_KIB_MAX && self.lanes <= LANES_MAX;
        if bounded { Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).ok() } else { None }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB, {} passes, {} lanes", self.memory_kib, self.passes, self.lanes)
    }
}

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
struct KeyFile {
    cost: Cost,
    salt: Bytes,
    sealed: Bytes,
    checksum: Bytes,
}

impl Versioned for KeyFile {
    const TYPE_NAME: &'static str = "hypha key file";
    const VERSION: u32 = 1;
}

impl KeyFile {
    /// What stands open in the file and must not be changed.
    fn associated_data(&self) -> [u8; 32] {
        let cost = [self.cost.memory_kib, self.cost.passes, self.cost.lanes].map(u32::to_le_bytes);
        sha3_256(&[b"hypha key file: argon2id 0x13, aes-256-gcm, v1", cost.as_flattened(), &self.salt])
    }

    fn checksum(&self) -> Bytes {
        let of = sha3_256(&[b"hypha key file: checksum, v1", &self.associated_data(), &self.sealed]);
        Bytes::copy_from_slice(&of[..8])
    }
}

/// Why a key file was not opened.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The file is whole, and the password is not its.
    #[error("the password is wrong")]
    WrongPassword,
    /// It is a key file, and some of its bytes have changed.
    #[error("the key file is damaged: take a copy of it")]
    Damaged,
    /// It asks for more than [`MEMORY_KIB_MAX`], [`WORK_KIB_MAX`] or [`LANES_MAX`] allow, or for what makes no sense.
    #[error("the key file asks for {0} to be opened, which is beyond all reason: it is not one of ours")]
    Cost(Cost),
    /// It is no key file, or of a later version.
    #[error(transparent)]
    Unreadable(EnvelopeError),
}

/// Seals `secret` under `password`: the content of a key file, for [`crate::fs::write_atomically`] with mode 0600.
///
/// The password's bytes are taken as they are: the same letters in another encoding are another password.
///
/// # Panics
///
/// When the secret is longer than [`SECRET_BYTES_MAX`], or `cost` is beyond what [`open`] would accept. Outside
/// [`crate::run`].
///
/// # Suspends
///
/// For a tenth of a second or what `cost` takes, off the thread. One at a time: they take memory.
///
/// # Examples
///
/// ```
/// use reactor::crypto::{Identity, key_file};
/// # use key_file::Cost;
/// # let cost = Cost::LOWEST;
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("identity.key");
/// reactor::run(|| {
///     let me = Identity::generate();
///     // In earnest with `Cost::default()`.
///     let sealed = key_file::seal(&*me.seed(), b"correct horse battery staple", cost);
///     reactor::fs::write_atomically(&path, sealed, 0o600).unwrap();
///
///     let sealed = reactor::fs::read(&path, 100_000).unwrap();
///     let seed = key_file::open(&sealed, b"correct horse battery staple").unwrap();
///     let again = Identity::from_seed(seed[..].try_into().unwrap());
///     assert_eq!(again.public_key(), me.public_key());
/// });
/// ```
pub fn seal(secret: &[u8], password: &[u8], cost: Cost) -> Vec<u8> {
    assert!(secret.len() <= SECRET_BYTES_MAX, "a key file holds at most {SECRET_BYTES_MAX} bytes");
    let params = cost.params().unwrap_or_else(|| panic!("{cost}: nobody would open that"));
    let salt = Bytes::copy_from_slice(&random_bytes::<SALT_SIZE_BYTES>());
    let mut file = KeyFile { cost, salt, sealed: Bytes::new(), checksum: Bytes::new() };
    let key = password_key(password, &file.salt, params);
    let mut sealed = Vec::with_capacity(secret.len() + aead::OVERHEAD_BYTES);
    sealed.extend_from_slice(secret);
    aead::encrypt_in_place(&key, &NONCE, &file.associated_data(), &mut sealed);
    file.sealed = sealed.into();
    file.checksum = file.checksum();
    to_envelope(&file)
}

/// Opens what [`seal`] made. The result is wiped when dropped.
///
/// # Errors
///
/// [`KeyFileError`].
///
/// # Panics
///
/// Outside [`crate::run`].
///
/// # Suspends
///
/// For as long as the file's cost takes, off the thread; some ten seconds and [`MEMORY_KIB_MAX`] at worst. One at a
/// time.
pub fn open(bytes: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let (file, params) = parse(bytes)?;
    let key = password_key(password, &file.salt, params);
    let mut secret = Zeroizing::new(file.sealed.to_vec());
    aead::decrypt_in_place(&key, &NONCE, &file.associated_data(), &mut secret)
        .map_err(|_| KeyFileError::WrongPassword)?;
    Ok(secret)
}

/// What opening a key file will cost, without its password: also tells whether it is whole. Never suspends.
///
/// # Errors
///
/// [`KeyFileError`], but not that the password is wrong.
pub fn cost(bytes: &[u8]) -> Result<Cost, KeyFileError> {
    Ok(parse(bytes)?.0.cost)
}

fn parse(bytes: &[u8]) -> Result<(KeyFile, Params), KeyFileError> {
    let file: KeyFile = from_envelope(bytes).map_err(|error| match error {
        EnvelopeError::Header | EnvelopeError::Content(_) => KeyFileError::Damaged,
        error => KeyFileError::Unreadable(error),
    })?;
    let whole = file.checksum == file.checksum()
        && file.salt.len() == SALT_SIZE_BYTES
        && (aead::OVERHEAD_BYTES..=aead::OVERHEAD_BYTES + SECRET_BYTES_MAX).contains(&file.sealed.len());
    if !whole {
        return Err(KeyFileError::Damaged);
    }
    let params = file.cost.params().ok_or(KeyFileError::Cost(file.cost))?;
    Ok((file, params))
}

fn password_key(password: &[u8], salt: &[u8], params: Params) -> Key {
    thread_local! {
        /// Leaked, since a permit borrows it.
        static PLACE: &'static Semaphore = Box::leak(Box::new(Semaphore::new(1)));
    }
    let place: &'static Semaphore = PLACE.with(|place| *place);
    let _place = place.acquire();
    let (password, salt) = (Zeroizing::new(password.to_vec()), salt.to_vec());
    let key = offload(move || {
        let mut key = Zeroizing::new([0; 32]);
        // Filled from the password: wiped afterwards, as a swap file might keep it.
        let mut memory = vec![Block::default(); params.block_count()];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2
            .hash_password_into_with_memory(&password, &salt, &mut *key, &mut memory)
            .expect("salt, output and memory are of the sizes that it takes");
        memory.iter_mut().for_each(Zeroize::zeroize);
        key
    });
    Key::from_bytes(*key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    const PASSWORD: &[u8] = b"correct horse";

    fn sealed() -> Vec<u8> {
        seal(b"the secret", PASSWORD, Cost::LOWEST)
    }

    #[test]
    fn only_the_password_opens_a_key_file() {
        crate::run(|| {
            let file = sealed();
            assert_eq!(&**open(&file, PASSWORD).unwrap(), b"the secret");
            for wrong in [&b"correct hors"[..], b"correct horse ", b""] {
                assert_eq!(open(&file, wrong).unwrap_err(), KeyFileError::WrongPassword);
            }
            assert_eq!(&**open(&seal(b"", b"", Cost::LOWEST), b"").unwrap(), b"");
        });
    }

    #[test]
    fn a_damaged_file_is_told_from_a_wrong_password() {
        crate::run(|| {
            let file = sealed();
            for at in 0..file.len() {
                if at == 20 {
                    continue; // the oldest version that may read it: one more changes nothing
                }
                let mut damaged = file.clone();
                damaged[at] ^= 1;
                let error = open(&damaged, PASSWORD).unwrap_err();
                assert_ne!(error, KeyFileError::WrongPassword, "byte {at}");
                // Within magic, name and versions it may look like something else altogether.
                assert!(at < 25 || error == KeyFileError::Damaged, "byte {at}: {error}");
                assert!(open(&file[..at], PASSWORD).is_err());
            }
            let other = crate::serialization::to_bytes("something else");
            let none = KeyFileError::Unreadable(EnvelopeError::NoEnvelope);
            assert_eq!(open(&other, PASSWORD).unwrap_err(), none);
        });
    }

    #[test]
    fn a_file_changed_on_purpose_does_not_open() {
        crate::run(|| {
            let mut file: KeyFile = from_envelope(&sealed()).unwrap();
            file.cost.passes = 2;
            file.checksum = file.checksum();
            assert_eq!(open(&to_envelope(&file), PASSWORD).unwrap_err(), KeyFileError::WrongPassword);
        });
    }

    #[test]
    fn a_file_that_asks_for_too_much_is_refused_before_any_work() {
        crate::run(|| {
            let costs = [
                Cost { memory_kib: u32::MAX, passes: 1, lanes: 1 },
                Cost { memory_kib: MEMORY_KIB_MAX, passes: 5, lanes: 1 },
                Cost { memory_kib: 8, passes: u32::MAX, lanes: 1 },
                Cost { memory_kib: MEMORY_KIB_MAX, passes: 1, lanes: LANES_MAX + 1 },
                Cost { memory_kib: 8, passes: 1, lanes: 2 },
                Cost { memory_kib: 0, passes: 0, lanes: 0 },
            ];
            for cost in costs {
                let mut file: KeyFile = from_envelope(&sealed()).unwrap();
                file.cost = cost;
                file.checksum = file.checksum();
                assert_eq!(open(&to_envelope(&file), PASSWORD).unwrap_err(), KeyFileError::Cost(cost));
            }
        });
    }

    #[test]
    fn what_opening_costs_is_in_the_file() {
        crate::run(|| {
            let cost_of_ours = Cost { memory_kib: 64, passes: 2, lanes: 2 };
            let file = seal(b"x", PASSWORD, cost_of_ours);
            assert_eq!(cost(&file), Ok(cost_of_ours));
            assert_eq!(&**open(&file, PASSWORD).unwrap(), b"x");
            assert!(Cost::default().params().is_some());
        });
    }

    #[test]
    fn the_same_secret_sealed_twice_looks_different() {
        crate::run(|| assert_ne!(sealed(), sealed()));
    }

    #[test]
    fn a_released_key_file_opens_for_ever() {
        // Made by version 1 of the format. Never to be changed: people have such files.
        let file = include_str!("../../testdata/serialization/hypha-key-file.v1.hex").replace('\n', "");
        let file = HEXLOWER.decode(file.as_bytes()).unwrap();
        crate::run(move || {
            assert_eq!(&**open(&file, PASSWORD).unwrap(), b"the secret");
            // The default cost, once, for its time and memory.
            let default = seal(b"the secret", PASSWORD, Cost::default());
            assert_eq!(&**open(&default, PASSWORD).unwrap(), b"the secret");
        });
    }

    #[test]
    fn argon2id_gives_the_vector_of_rfc_9106() {
        // Section 5.3.
        let mut params = argon2::ParamsBuilder::new();
        params.m_cost(32).t_cost(3).p_cost(4).output_len(32);
        params.data(argon2::AssociatedData::new(&[4; 12]).unwrap());
        let secret = [3; 8];
        let argon2 =
            Argon2::new_with_secret(&secret, Algorithm::Argon2id, Version::V0x13, params.build().unwrap());
        let mut tag = [0; 32];
        argon2.unwrap().hash_password_into(&[1; 32], &[2; 16], &mut tag).unwrap();
        let expected = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659";
        assert_eq!(HEXLOWER.encode(&tag), expected);
    }
}
