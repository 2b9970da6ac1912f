//! Public test vectors, against what this module builds on and what it makes of it.
//!
//! The files are in `reactor/testdata/crypto/`; their first lines name their sources.

use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::aead::{self, Key};
use super::{PublicKey, Signature, derive, hash, random_bytes};

/// The fields of each line that is no comment; "-" stands for nothing.
fn lines(text: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    let fields =
        |line: &'static str| line.split(' ').map(|field| if field == "-" { "" } else { field }).collect();
    text.lines().filter(|line| !line.starts_with('#')).map(fields)
}

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap_or_else(|bytes: Vec<u8>| panic!("{} bytes, not {N}", bytes.len()))
}

/// Our cipher and the other implementation must both hold a case, so that neither is taken at its word.
fn check_aes_gcm(name: &str, valid: bool, fields: &[&str]) {
    let &[key, nonce, aad, plain, cipher, tag] = fields else { panic!("{name}: {fields:?}") };
    let (key_bytes, nonce, aad) = (array::<32>(key), array::<12>(nonce), hex(aad));
    let key = Key::from_bytes(key_bytes);
    let sealed = [hex(cipher), hex(tag)].concat();

    let mut opened = sealed.clone();
    let ours = aead::decrypt_in_place(&key, &nonce, &aad, &mut opened);
    assert_eq!(ours.is_ok(), valid, "{name}");
    let theirs = other::open(&key_bytes, &nonce, &aad, &sealed);
    assert_eq!(theirs.is_some(), valid, "{name}");
    if valid {
        assert_eq!(opened, hex(plain), "{name}");
        assert_eq!(theirs.unwrap(), hex(plain), "{name}");
        aead::encrypt_in_place(&key, &nonce, &aad, &mut opened);
        assert_eq!(opened, sealed, "{name}");
    }
}

/// The `aes-gcm` crate: another implementation of the same cipher.
mod other {
    use aes_gcm::aead::{Aead, Payload};
    use aes_gcm::{Aes256Gcm, KeyInit};

    pub(super) fn open(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        Aes256Gcm::new(key.into()).decrypt(nonce.into(), Payload { msg: sealed, aad }).ok()
    }

    pub(super) fn seal(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], plain: &[u8]) -> Vec<u8> {
        Aes256Gcm::new(key.into()).encrypt(nonce.into(), Payload { msg: plain, aad }).unwrap()
    }
}

#[test]
fn aes_256_gcm_holds_the_vectors_of_wycheproof() {
    let mut count = 0;
    for fields in lines(include_str!("../../testdata/crypto/wycheproof-aes-256-gcm.txt")) {
        check_aes_gcm(fields[0], fields[1] == "valid", &fields[2..]);
        count += 1;
    }
    assert_eq!(count, 66);
}

#[test]
fn aes_256_gcm_holds_the_vectors_of_nist() {
    let mut count = 0;
    for fields in lines(include_str!("../../testdata/crypto/nist-aes-256-gcm.txt")) {
        // NIST names no plaintext where the tag is wrong.
        check_aes_gcm(fields[6], fields[0] == "valid", &fields[1..]);
        count += 1;
    }
    assert_eq!(count, 150);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_implementations_of_aes_256_gcm_open_what_either_sealed(
        plain in prop::collection::vec(any::<u8>(), 0..2000), aad: Vec<u8>,
    ) {
        let (key, nonce) = (random_bytes(), random_bytes());
        let mut ours = plain.clone();
        aead::encrypt_in_place(&Key::from_bytes(key), &nonce, &aad, &mut ours);
        prop_assert_eq!(&other::seal(&key, &nonce, &aad, &plain), &ours);
        prop_assert_eq!(other::open(&key, &nonce, &aad, &ours), Some(plain.clone()));
        aead::decrypt_in_place(&Key::from_bytes(key), &nonce, &aad, &mut ours).unwrap();
        prop_assert_eq!(ours, plain);
    }
}

#[test]
fn x25519_holds_the_vectors_of_wycheproof() {
    let mut count = 0;
    for fields in lines(include_str!("../../testdata/crypto/wycheproof-x25519.txt")) {
        let [id, result, private, public, shared] = fields[..] else { panic!("{fields:?}") };
        let secret = x25519_dalek::StaticSecret::from(array::<32>(private));
        let found = secret.diffie_hellman(&x25519_dalek::PublicKey::from(array::<32>(public)));
        // "Acceptable" ones have odd public keys, which RFC 7748 says to use all the same.
        assert!(matches!(result, "valid" | "acceptable"), "{id}");
        assert_eq!(HEXLOWER.encode(found.as_bytes()), shared, "{id}");
        // What `seal::open` refuses: a shared secret that everyone knows.
        assert_eq!(found.was_contributory(), array::<32>(shared) != [0; 32], "{id}");
        count += 1;
    }
    assert_eq!(count, 518);
}

#[test]
fn x25519_a_thousand_times_over_gives_what_rfc_7748_says() {
    // Section 5.2.
    let mut base = [0; 32];
    base[0] = 9;
    let (mut k, mut u) = (base, base);
    for round in 1..=1000 {
        (k, u) = (x25519_dalek::x25519(k, u), k);
        match round {
            1 => assert_eq!(k, array("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079")),
            1000 => assert_eq!(k, array("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51")),
            _ => {}
        }
    }
}

#[test]
fn ed25519_holds_the_vectors_of_wycheproof() {
    let mut count = 0;
    for fields in lines(include_str!("../../testdata/crypto/wycheproof-ed25519.txt")) {
        let [id, result, key, message, signature] = fields[..] else { panic!("{fields:?}") };
        let verified = match <[u8; 64]>::try_from(hex(signature)) {
            Ok(bytes) => {
                PublicKey::from_bytes(array(key)).verify(&hex(message), &Signature::from_bytes(bytes)).is_ok()
            }
            // One of another length is not a signature to begin with.
            Err(_) => false,
        };
        assert_eq!(verified, result == "valid", "{id}");
        count += 1;
    }
    assert_eq!(count, 151);
}

#[test]
fn hkdf_sha256_holds_the_vectors_of_wycheproof() {
    let mut count = 0;
    for fields in lines(include_str!("../../testdata/crypto/wycheproof-hkdf-sha256.txt")) {
        let [id, result, secret, salt, info, size, expected] = fields[..] else { panic!("{fields:?}") };
        let mut output = vec![0; size.parse().unwrap()];
        let derived = derive::expand(&hex(secret), &hex(salt), &[&hex(info)], &mut output);
        assert_eq!(derived.is_some(), result == "valid", "{id}");
        assert!(derived.is_none() || output == hex(expected), "{id}");
        count += 1;
    }
    assert_eq!(count, 86);
}

#[test]
fn sha3_256_holds_the_short_and_long_messages_of_nist() {
    let mut count = 0;
    for fields in lines(include_str!("../../testdata/crypto/nist-sha3-256.txt")) {
        let [message, digest] = fields[..] else { panic!("{fields:?}") };
        assert_eq!(
            HEXLOWER.encode(&hash::sha3_256_plain(&hex(message))),
            digest,
            "{} bytes",
            message.len() / 2
        );
        count += 1;
    }
    assert!(count > 137, "{count}");
}

#[test]
fn sha3_256_a_hundred_thousand_times_over_gives_what_nist_says() {
    // The SHA-3 Validation System, section 6.2.3.
    let mut expected = lines(include_str!("../../testdata/crypto/nist-sha3-256-monte-carlo.txt"));
    let mut digest: [u8; 32] = array(expected.next().unwrap()[0]);
    let mut count = 0;
    for fields in expected {
        for _ in 0..1000 {
            digest = hash::sha3_256_plain(&digest);
        }
        assert_eq!(HEXLOWER.encode(&digest), fields[0]);
        count += 1;
    }
    assert_eq!(count, 100);
}
