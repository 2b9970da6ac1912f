//! How an immutable block lies in the local store.
//!
//! ```text
//! content                 length bytes
//! group hashes            32 bytes for each 32 KiB begun; none if there is only one group
//! put                      8 bytes: when, in seconds since 1970 by this node's clock
//! owner tag               32 bytes
//! form                     1 byte: 1, or 2 if the group hashes were left out as zeros
//! ```
//!
//! The content comes first, so that a range of it is the same range of the value and is read from disk without
//! knowing more than the value's length, which follows from the content's. The group hashes are kept because
//! computing them for a ranged read would hash the whole block. In a network of one node nobody else reads, and the
//! writer has named the block already: there, form 2 saves hashing it a second time.
//!
//! When it was put is how a deletion tells an old copy from one that somebody has just stored again. A copy that a node
//! fetches from another has the other's time.
//!
//! Not here: a checksum. The local store has one for every record.

use bytes::Bytes;

use crate::address::{
    Address, BLOCK_SIZE_BYTES_MAX, GROUP_SIZE_BYTES, GroupHash, OwnerTag, address_and_groups,
};

/// The last byte of a stored block with its group hashes.
pub const FORM: u8 = 1;

/// The last byte of a stored block without: in their place are zeros.
pub const FORM_BARE: u8 = 2;

const TAIL_BYTES: usize = 8 + 32 + 1;

/// What lies behind the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailer {
    /// When the block was put, in seconds since 1970.
    pub put_seconds: u64,
    /// Whose it is.
    pub tag: OwnerTag,
    /// The group hashes, `None` if they were left out.
    pub hashes: Option<Vec<GroupHash>>,
}

/// The stored bytes are not a block of this form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a stored block has a form that this program does not know; it was written by another version, or damaged"
)]
pub struct UnknownForm;

/// How many bytes follow the content.
fn trailer_size_bytes(content_length: usize) -> usize {
    let groups = content_length.div_ceil(GROUP_SIZE_BYTES);
    TAIL_BYTES + if groups > 1 { groups * 32 } else { 0 }
}

/// The address of `content`, and what is stored behind it.
pub fn trailer(tag: &OwnerTag, content: &[u8], put_seconds: u64) -> (Address, Bytes) {
    let (address, hashes) = address_and_groups(tag, content);
    let mut trailer = Vec::with_capacity(trailer_size_bytes(content.len()));
    hashes.iter().for_each(|hash| trailer.extend_from_slice(&hash.0));
    trailer.extend_from_slice(&put_seconds.to_le_bytes());
    trailer.extend_from_slice(&tag.0);
    trailer.push(FORM);
    (address, trailer.into())
}

/// What is stored behind a content of `length` bytes whose name is known, without hashing it.
pub fn bare_trailer(tag: &OwnerTag, length: usize, put_seconds: u64) -> Bytes {
    let size = trailer_size_bytes(length);
    let mut trailer = Vec::with_capacity(size);
    trailer.resize(size - TAIL_BYTES, 0);
    trailer.extend_from_slice(&put_seconds.to_le_bytes());
    trailer.extend_from_slice(&tag.0);
    trailer.push(FORM_BARE);
    trailer.into()
}

/// Where the part of a stored value begins that [`decode_tail`] reads.
pub fn tail_start(stored_length: u32) -> u32 {
    stored_length.saturating_sub(TAIL_BYTES as u32)
}

/// Reads the last bytes of a stored value, without the group hashes before them: when it was put, and whose it is.
///
/// # Errors
/// [`UnknownForm`].
pub fn decode_tail(tail: &[u8]) -> Result<(u64, OwnerTag), UnknownForm> {
    let (rest, form) = tail.split_last_chunk::<1>().ok_or(UnknownForm)?;
    let (rest, tag) = rest.split_last_chunk::<32>().ok_or(UnknownForm)?;
    let (_, put) = rest.split_last_chunk::<8>().ok_or(UnknownForm)?;
    match form[0] {
        FORM | FORM_BARE => Ok((u64::from_le_bytes(*put), OwnerTag(*tag))),
        _ => Err(UnknownForm),
    }
}

/// The content's length in a value of `stored_length` bytes.
///
/// # Errors
/// [`UnknownForm`] if no content has that length when stored.
pub fn content_length(stored_length: u32) -> Result<u32, UnknownForm> {
    let stored = stored_length as usize;
    // Each further group adds its size and one hash, so the count follows from the length, give or take one.
    let guess = stored / (GROUP_SIZE_BYTES + 32);
    for groups in guess.saturating_sub(1).max(1)..=guess + 1 {
        let hashes = if groups > 1 { groups * 32 } else { 0 };
        let Some(content) = stored.checked_sub(TAIL_BYTES + hashes) else { continue };
        if content > 0 && content <= BLOCK_SIZE_BYTES_MAX && content.div_ceil(GROUP_SIZE_BYTES) == groups {
            return Ok(content as u32);
        }
    }
    Err(UnknownForm)
}

/// Reads what lies behind the content.
///
/// # Errors
/// [`UnknownForm`].
pub fn decode_trailer(trailer: &[u8]) -> Result<Trailer, UnknownForm> {
    let (put_seconds, tag) = decode_tail(trailer)?;
    let (hashes, tail) = trailer.split_at(trailer.len() - TAIL_BYTES);
    let form = tail[TAIL_BYTES - 1];
    let (hashes, remainder) = hashes.as_chunks::<32>();
    if !remainder.is_empty() {
        return Err(UnknownForm);
    }
    let hashes = (form == FORM).then(|| hashes.iter().map(|hash| GroupHash(*hash)).collect());
    Ok(Trailer { put_seconds, tag, hashes })
}

/// Takes a whole stored value apart and checks it against `address`: for the scrubber.
///
/// # Errors
/// [`UnknownForm`] if it is not the block that it should be.
pub fn decode(address: &Address, stored: Bytes) -> Result<(OwnerTag, Bytes), UnknownForm> {
    let length = content_length(u32::try_from(stored.len()).map_err(|_| UnknownForm)?)? as usize;
    let tag = decode_trailer(&stored[length..])?.tag;
    let content = stored.slice(..length);
    if address.names(&tag, &content) { Ok((tag, content)) } else { Err(UnknownForm) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: OwnerTag = OwnerTag([3; 32]);

    #[test]
    fn every_length_is_found_again_from_the_stored_one() {
        let group = GROUP_SIZE_BYTES;
        let edges =
            [1, group - 1, group, group + 1, 2 * group, 2 * group + 1, 33 * group, BLOCK_SIZE_BYTES_MAX];
        for length in edges.into_iter().chain((1..BLOCK_SIZE_BYTES_MAX).step_by(997)) {
            let stored = (length + trailer_size_bytes(length)) as u32;
            assert_eq!(content_length(stored), Ok(length as u32));
        }
        assert_eq!(content_length(0), Err(UnknownForm));
        assert_eq!(content_length(41), Err(UnknownForm));
        assert_eq!(content_length(u32::MAX), Err(UnknownForm));
    }

    #[test]
    fn a_block_comes_back_and_a_flipped_bit_does_not() {
        for length in [1, GROUP_SIZE_BYTES, GROUP_SIZE_BYTES + 1, 3 * GROUP_SIZE_BYTES] {
            let content: Vec<u8> = (0..length).map(|i| (i / 7) as u8).collect();
            let address = Address::of(&TAG, &content);
            let mut stored = content.clone();
            let (named, trailer) = trailer(&TAG, &content, 5);
            assert_eq!(named, address);
            stored.extend_from_slice(&trailer);
            assert_eq!(decode(&address, stored.clone().into()), Ok((TAG, content.into())));
            stored[length / 2] ^= 4;
            assert_eq!(decode(&address, stored.into()), Err(UnknownForm));
        }
    }

    #[test]
    fn a_trailer_holds_the_hashes_of_all_groups() {
        let content = vec![9; 2 * GROUP_SIZE_BYTES + 1];
        let whole = trailer(&TAG, &content, 5).1;
        let hashes = Some(crate::address::group_hashes(&TAG, &content));
        assert_eq!(decode_trailer(&whole), Ok(Trailer { put_seconds: 5, tag: TAG, hashes }));
        let bare = bare_trailer(&TAG, content.len(), 6);
        assert_eq!(bare.len(), whole.len());
        assert_eq!(decode_trailer(&bare), Ok(Trailer { put_seconds: 6, tag: TAG, hashes: None }));
        let tail = tail_start((content.len() + whole.len()) as u32) as usize - content.len();
        assert_eq!(decode_tail(&whole[tail..]), Ok((5, TAG)));
    }
}
