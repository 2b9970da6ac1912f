//! Reading up to a delimiter, over anything that reads.

use std::io::{self, BufRead, ErrorKind, Read as _};

/// Reads up to and including `delimiter` and returns it all; nothing at the end of the stream.
///
/// At most `limit_bytes` are taken in: a peer that never sends the delimiter costs no more than that. What
/// follows the delimiter stays in `reader`'s buffer for the next call. The last bytes of a stream that ends
/// without a delimiter are returned as they are.
///
/// # Errors
///
/// `InvalidData` when `limit_bytes` came without a delimiter; those of `reader`.
///
/// # Suspends
///
/// As `reader` does.
///
/// # Examples
///
/// ```
/// let mut reader = std::io::BufReader::new(&b"one\ntwo"[..]);
/// assert_eq!(reactor::read_until(&mut reader, b'\n', 100).unwrap(), b"one\n");
/// assert_eq!(reactor::read_until(&mut reader, b'\n', 100).unwrap(), b"two");
/// assert!(reactor::read_until(&mut reader, b'\n', 100).unwrap().is_empty());
/// ```
pub fn read_until(reader: &mut impl BufRead, delimiter: u8, limit_bytes: usize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    // The standard library's search is by machine words; ours would look at each byte.
    io::Read::by_ref(reader).take(limit_bytes as u64).read_until(delimiter, &mut line)?;
    if line.len() == limit_bytes && line.last() != Some(&delimiter) {
        let message = format!("no delimiter within {limit_bytes} bytes");
        return Err(io::Error::new(ErrorKind::InvalidData, message));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_never_ends_its_line_is_cut_off_at_the_limit() {
        let mut endless = io::BufReader::new(io::repeat(b'a'));
        let error = read_until(&mut endless, b'\n', 10_000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}
