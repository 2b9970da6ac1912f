//! What a call carries beside its message: pairs of keys and values, and the name of the service that it is for. Pure.
//!
//! Request ids, trace contexts, tokens: what belongs to the call and not to the method. The caller's pairs come to the
//! handler, and the handler's own go back with whatever it answers, errors too.
//!
//! On the wire it is a block before the message, of the size that the header says. All integers are little-endian:
//!
//! ```text
//! size
//!    1  size of the service's name; 0 for the connection's own service, and in a response
//!       name
//!       and then, until the block ends, for each pair:
//!    1  size of the key
//!    2  size of the value
//!       key
//!       value
//! ```
//!
//! Keys ascend strictly: none comes twice, so that two readers of one block never take two values from it, and a block has
//! one form. What has neither name nor pairs is no block but nothing. Metadata is held as it travels: what it takes in
//! memory is what it takes on the line.
//!
//! What it is not: a place for content. It is bounded to a few kilobytes, and read at once.

use std::fmt;
use std::rc::Rc;

mod reply;

pub use reply::ReplyMetadata;

/// What all pairs of a call may take in one direction, encoded: some ids and a token. It is weighed with each call for the
/// answer, whatever that then has.
pub const METADATA_SIZE_BYTES_MAX: usize = 4 << 10;

/// The longest key, and the longest name of a service.
pub const NAME_SIZE_BYTES_MAX: usize = 64;

/// The longest block.
pub const BLOCK_SIZE_BYTES_MAX: usize = 1 + NAME_SIZE_BYTES_MAX + METADATA_SIZE_BYTES_MAX;

/// What a pair takes beside its key and its value.
const PAIR_HEAD_SIZE_BYTES: usize = 3;

/// Why something cannot be metadata.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// The key, or the name of a service.
    #[error(
        "{0:?} is no key and no service's name: those have 1 to {NAME_SIZE_BYTES_MAX} of a-z, 0-9, '.', '_' and '-'"
    )]
    BadName(String),
    /// All pairs together. Nothing was changed.
    #[error(
        "metadata takes {size_bytes} bytes, more than the {METADATA_SIZE_BYTES_MAX} that a call may carry"
    )]
    TooLarge {
        /// What it would take.
        size_bytes: usize,
    },
    /// A block that is cut short, has a key twice or out of order, or says nothing.
    #[error("a block of metadata has not the form that it must have")]
    BadBlock,
}

fn is_name(name: &[u8]) -> bool {
    let fits = (1..=NAME_SIZE_BYTES_MAX).contains(&name.len());
    fits && name.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

/// Text that was checked to be a name.
fn text(name: &[u8]) -> &str {
    std::str::from_utf8(name).unwrap_or_default()
}

/// Bytes that are shared, or nothing: most calls have none, and pass by without a look.
type Octets = Option<Rc<[u8]>>;

fn octets(bytes: &[u8]) -> Octets {
    (!bytes.is_empty()).then(|| Rc::from(bytes))
}

/// A service's name among those that share a connection; the default is the connection's own service.
///
/// # Examples
/// ```
/// use reactor::rpc::ServiceName;
/// assert_eq!(ServiceName::new("calculator").unwrap().as_str(), "calculator");
/// assert!(ServiceName::new("Not a name").is_err());
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct ServiceName(Octets);

impl ServiceName {
    /// A name of 1 to 64 of the characters a to z, 0 to 9, `.`, `_` and `-`.
    ///
    /// # Errors
    /// [`MetadataError::BadName`] if it is none.
    pub fn new(name: &str) -> Result<ServiceName, MetadataError> {
        match is_name(name.as_bytes()) {
            true => Ok(ServiceName(octets(name.as_bytes()))),
            false => Err(MetadataError::BadName(name.to_owned())),
        }
    }

    /// As [`ServiceName::new`], of a name that stands in the program.
    ///
    /// # Panics
    /// If it is none.
    pub fn from_static(name: &'static str) -> ServiceName {
        assert!(is_name(name.as_bytes()), "{name:?} is no service's name: use a-z, 0-9, '.', '_' and '-'");
        ServiceName(octets(name.as_bytes()))
    }

    /// The name; empty for the connection's own service.
    pub fn as_str(&self) -> &str {
        text(self.bytes())
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether it stands for the connection's own service.
    pub fn is_own(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Pairs of keys and values that a call carries, at most [`METADATA_SIZE_BYTES_MAX`] of them. Clones share their bytes.
///
/// Shown for debugging it tells keys and sizes, for values may be secrets.
///
/// # Examples
/// ```
/// use reactor::rpc::{METADATA_SIZE_BYTES_MAX, Metadata, MetadataError};
///
/// let mut metadata = Metadata::new();
/// metadata.set("request-id", "17")?;
/// metadata.set("token", [0xff, 0x00])?;
/// assert_eq!(metadata.get_text("request-id"), Some("17"));
/// assert_eq!(metadata.get("token"), Some(&[0xff, 0x00][..]));
/// let too_much = metadata.set("more", vec![0; METADATA_SIZE_BYTES_MAX]);
/// assert!(matches!(too_much, Err(MetadataError::TooLarge { .. })));
/// # Ok::<(), MetadataError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata(Octets);

impl Metadata {
    /// Without pairs.
    pub const fn new() -> Metadata {
        Metadata(None)
    }

    /// Sets a key's value, in place of the one that it had. Keys are as [`ServiceName`]s are.
    ///
    /// # Errors
    /// [`MetadataError`] if the key is none, or all would take too much; nothing is changed then.
    pub fn set(&mut self, key: &str, value: impl AsRef<[u8]>) -> Result<(), MetadataError> {
        let value = value.as_ref();
        if !is_name(key.as_bytes()) {
            return Err(MetadataError::BadName(key.to_owned()));
        }
        let others = || self.iter().filter(|(other, _)| *other != key);
        let size = |key: &str, value: &[u8]| PAIR_HEAD_SIZE_BYTES + key.len() + value.len();
        let size_bytes = others().map(|(key, value)| size(key, value)).sum::<usize>() + size(key, value);
        if size_bytes > METADATA_SIZE_BYTES_MAX {
            return Err(MetadataError::TooLarge { size_bytes });
        }
        let mut bytes = Vec::with_capacity(size_bytes);
        let mut put = |key: &str, value: &[u8]| {
            bytes.push(key.len() as u8);
            bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(value);
        };
        others().filter(|(other, _)| *other < key).for_each(|(key, value)| put(key, value));
        put(key, value);
        others().filter(|(other, _)| *other > key).for_each(|(key, value)| put(key, value));
        self.0 = Some(bytes.into());
        Ok(())
    }

    /// The same with one pair more; see [`Metadata::set`].
    ///
    /// # Errors
    /// As there.
    pub fn with(mut self, key: &str, value: impl AsRef<[u8]>) -> Result<Metadata, MetadataError> {
        self.set(key, value)?;
        Ok(self)
    }

    /// A key's value.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.iter().find(|(own, _)| *own == key).map(|(_, value)| value)
    }

    /// A key's value, if that is text.
    pub fn get_text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All pairs, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = self.bytes();
        std::iter::from_fn(move || {
            let (key, value, behind) = first_pair(rest)?;
            rest = behind;
            Some((text(key), value))
        })
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// What it takes on the line.
    pub fn size_bytes(&self) -> usize {
        self.bytes().len()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self.iter().map(|(key, value)| (key, format!("{} bytes", value.len())));
        f.debug_map().entries(sizes).finish()
    }
}

/// Key and value at the start of encoded pairs, and what is behind them.
fn first_pair(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&[key_size, low, high], rest) = bytes.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(key_size.into())?;
    let (value, rest) = rest.split_at_checked(u16::from_le_bytes([low, high]).into())?;
    Some((key, value, rest))
}

/// All that stands before a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Whom a request is for.
    pub service: ServiceName,
    /// The pairs.
    pub metadata: Metadata,
}

impl Block {
    /// Its bytes; none if it says nothing.
    pub fn encode(service: &ServiceName, metadata: &Metadata) -> Vec<u8> {
        match service.is_own() && metadata.is_empty() {
            true => Vec::new(),
            false => [&[service.bytes().len() as u8][..], service.bytes(), metadata.bytes()].concat(),
        }
    }

    /// Reads one; no bytes say nothing.
    ///
    /// # Errors
    /// [`MetadataError`] if they are no block.
    pub fn decode(bytes: &[u8]) -> Result<Block, MetadataError> {
        let Some((&name_size, rest)) = bytes.split_first() else { return Ok(Block::default()) };
        let (service, pairs) = rest.split_at_checked(name_size.into()).ok_or(MetadataError::BadBlock)?;
        if rest.is_empty() {
            return Err(MetadataError::BadBlock);
        }
        if !service.is_empty() && !is_name(service) {
            return Err(MetadataError::BadName(service.escape_ascii().to_string()));
        }
        if pairs.len() > METADATA_SIZE_BYTES_MAX {
            return Err(MetadataError::TooLarge { size_bytes: pairs.len() });
        }
        let (mut rest, mut before) = (pairs, &[][..]);
        while !rest.is_empty() {
            let (key, _, behind) = first_pair(rest).ok_or(MetadataError::BadBlock)?;
            if !is_name(key) {
                return Err(MetadataError::BadName(key.escape_ascii().to_string()));
            }
            // No key is empty, so the first one is greater than nothing.
            if key <= before {
                return Err(MetadataError::BadBlock);
            }
            (rest, before) = (behind, key);
        }
        Ok(Block { service: ServiceName(octets(service)), metadata: Metadata(octets(pairs)) })
    }
}

#[cfg(test)]
mod tests;
