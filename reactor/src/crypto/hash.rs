//! SHA3-256, the hash of identities and of addresses made from keys.
//!
//! Two forms, on purpose. [`sha3_256_plain`] is the bare function, for a single value that needs no frame
//! (a public key's fingerprint). [`sha3_256`] hashes a *list*: without the lengths, `("ab", "c")` and
//! `("a", "bc")` would be one input, and an attacker who chooses where one part ends could make two
//! different lists share an address.
//!
//! What it is not: the hash of bulk content. That is BLAKE3, ten times faster, and lives in the DHT.

use sha3::{Digest, Sha3_256};

/// SHA3-256 of a list of parts, each preceded by its length as eight little-endian bytes.
///
/// The lengths make the encoding injective for lists: equal hashes mean equal lists. Put a constant that
/// names the purpose first (`b"hypha register v1"`), and lists of different purposes never collide.
///
/// `sha3_256(&[x])` is therefore *not* [`sha3_256_plain`] of `x`.
pub fn sha3_256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha3_256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// SHA3-256 of exactly these bytes.
///
/// # Source
/// FIPS 202.
pub fn sha3_256_plain(bytes: &[u8]) -> [u8; 32] {
    Sha3_256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;

    #[test]
    fn the_plain_form_gives_the_vectors_of_fips_202() {
        let expect = |input: &[u8], hex: &str| assert_eq!(HEXLOWER.encode(&sha3_256_plain(input)), hex);
        expect(b"", "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a");
        expect(b"abc", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532");
    }

    #[test]
    fn moving_a_boundary_between_parts_changes_the_hash() {
        assert_ne!(sha3_256(&[b"ab", b"c"]), sha3_256(&[b"a", b"bc"]));
        assert_ne!(sha3_256(&[b"abc"]), sha3_256(&[b"abc", b""]));
        assert_ne!(sha3_256(&[b"abc"]), sha3_256_plain(b"abc"));
    }

    #[test]
    fn the_list_form_is_the_plain_hash_of_lengths_and_parts() {
        let mut framed = Vec::new();
        for part in [&b"one"[..], b"", b"three"] {
            framed.extend_from_slice(&(part.len() as u64).to_le_bytes());
            framed.extend_from_slice(part);
        }
        assert_eq!(sha3_256(&[b"one", b"", b"three"]), sha3_256_plain(&framed));
    }
}
