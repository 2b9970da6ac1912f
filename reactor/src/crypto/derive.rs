//! Keys from other secrets: HKDF-SHA256.
//!
//! One secret, many keys: each purpose names itself in `info`, and knowing one key says nothing of another, nor of the
//! secret.
//!
//! What it is not: for passwords. They are guessed by the billion unless each guess is made costly, which is
//! [`super::key_file`]'s work.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// The most that one derivation gives (RFC 5869: 255 blocks).
const OUTPUT_BYTES_MAX: usize = 255 * 32;

/// Derives `N` bytes from `secret`, which must have as much randomness as the result should. Never suspends.
///
/// `salt` may be public, and empty. The parts of `info` are put together without a mark between them: begin with a
/// constant that names the purpose, and let the rest be of fixed lengths.
///
/// # Source
///
/// RFC 5869.
///
/// # Examples
///
/// ```
/// use reactor::crypto::derive::derive;
/// let master = [7; 32];
/// let for_blocks = derive::<32>(&master, b"", &[b"example: blocks"]);
/// let for_names = derive::<32>(&master, b"", &[b"example: names"]);
/// assert_ne!(for_blocks, for_names);
/// ```
pub fn derive<const N: usize>(secret: &[u8], salt: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= OUTPUT_BYTES_MAX, "HKDF-SHA256 gives up to 8,160 bytes") };
    let mut output = Zeroizing::new([0; N]);
    expand(secret, salt, info, &mut *output).expect("its length was checked");
    output
}

pub(super) fn expand(secret: &[u8], salt: &[u8], info: &[&[u8]], output: &mut [u8]) -> Option<()> {
    Hkdf::<Sha256>::new(Some(salt), secret).expand_multi_info(info, output).ok()
}
