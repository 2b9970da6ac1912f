//! Values that outlive the program that wrote them: each says what it is and of which version.
//!
//! An envelope is
//!
//! ```text
//! c1 'H' 'y' 01 | type name (text) | version (number) | readable since (number) | content
//! ```
//!
//! The first byte is the one that no MessagePack value begins with, so an envelope is never taken for a bare value;
//! the fourth is the version of the envelope itself. The rest are MessagePack values. The content names its fields, as
//! bare values do not: it takes more room, and can lose fields and gain them, and be read without its type
//! ([`super::view`]).
//!
//! **Newer than the reader.** A writer states the oldest version whose programs may read what it wrote. If all that
//! changed since are fields that were added, they may: they skip what they don't know. If not, they refuse it, and say
//! which version it takes.
//!
//! **Older than the reader.** [`Versioned::upgrade`] turns the content of each older version into today's. A file with
//! a released version's bytes, kept for ever beside the tests ([`super::golden`]), shows that it still does.
//!
//! What it is not: protection. Whoever can write the bytes can write any version, so seal or sign them where that
//! counts.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{DecodeError, SIZE_BYTES_MAX, from_bytes, scan};

/// What an envelope begins with; the last byte is the version of the envelope's own form.
pub const MAGIC: [u8; 4] = [0xc1, b'H', b'y', 1];

/// The longest name of a type.
pub const TYPE_NAME_BYTES_MAX: usize = 100;

/// A type whose values are stored, and read by later versions of the program.
///
/// # Examples
///
/// ```
/// use reactor::serialization::{Content, EnvelopeError, Versioned, from_envelope, to_envelope};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct SettingsV1 {
///     cache_megabytes: u32,
/// }
/// # impl Versioned for SettingsV1 {
/// #     const TYPE_NAME: &'static str = "settings";
/// #     const VERSION: u32 = 1;
/// # }
///
/// #[derive(Serialize, Deserialize, PartialEq, Debug)]
/// struct Settings {
///     cache_bytes: u64,
/// }
///
/// impl Versioned for Settings {
///     const TYPE_NAME: &'static str = "settings";
///     const VERSION: u32 = 2;
///
///     fn upgrade(version: u32, content: Content<'_>) -> Result<Settings, EnvelopeError> {
///         match version {
///             1 => Ok(Settings { cache_bytes: u64::from(content.decode::<SettingsV1>()?.cache_megabytes) << 20 }),
///             _ => Err(content.too_old()),
///         }
///     }
/// }
///
/// let stored = to_envelope(&SettingsV1 { cache_megabytes: 2 });
/// assert_eq!(from_envelope::<Settings>(&stored).unwrap(), Settings { cache_bytes: 2 << 20 });
/// ```
pub trait Versioned: Serialize + DeserializeOwned {
    /// The type's name in its envelopes: at most [`TYPE_NAME_BYTES_MAX`], and never changed.
    const TYPE_NAME: &'static str;

    /// Counted up with every change of the fields.
    const VERSION: u32;

    /// The oldest version whose programs may read what this one writes: those that skip the fields they don't know and
    /// are right to.
    const READABLE_SINCE: u32 = Self::VERSION;

    /// Turns the content of an older version into today's. By default there is none.
    ///
    /// # Errors
    ///
    /// [`Content::too_old`] for a version that is not known any more, and those of [`Content::decode`].
    fn upgrade(version: u32, content: Content<'_>) -> Result<Self, EnvelopeError> {
        let _ = version;
        Err(content.too_old())
    }
}

/// What an envelope says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header<'a> {
    /// The content's type.
    pub type_name: &'a str,
    /// The version that wrote it.
    pub version: u32,
    /// The oldest version that may read it.
    pub readable_since: u32,
}

/// The content of an envelope of an older version.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    header: Header<'a>,
    oldest_name: &'static str,
    bytes: &'a [u8],
}

impl Content<'_> {
    /// Decodes it as the type that it was.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError::Content`].
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, EnvelopeError> {
        Ok(from_bytes(self.bytes)?)
    }

    /// The error for a version that is not known any more.
    pub fn too_old(self) -> EnvelopeError {
        EnvelopeError::TooOld { type_name: self.oldest_name, version: self.header.version }
    }
}

/// Why bytes are not an envelope that can be read here.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// It does not begin as one.
    #[error("this is no envelope: it was written by another program, or before its type had versions")]
    NoEnvelope,
    /// It begins as one, and its header is damaged or of a later form.
    #[error("the envelope's header is damaged, or of a later form than this program knows")]
    Header,
    /// It holds another type.
    #[error("this holds a `{found}`, where a `{expected}` should be")]
    OtherType {
        /// What should be there.
        expected: &'static str,
        /// What is.
        found: String,
    },
    /// A later program wrote it, and says that this one must not read it.
    #[error(
        "this `{type_name}` is of version {version} and can be read since version {readable_since}, while this \
         program knows {known}: use a newer one"
    )]
    TooNew {
        /// The type.
        type_name: &'static str,
        /// The version that wrote it.
        version: u32,
        /// The oldest version that may read it.
        readable_since: u32,
        /// This program's.
        known: u32,
    },
    /// An earlier program wrote it, and this one no longer knows how to read it.
    #[error(
        "this `{type_name}` is of version {version}, which is too old for this program: upgrade by one between"
    )]
    TooOld {
        /// The type.
        type_name: &'static str,
        /// The version that wrote it.
        version: u32,
    },
    /// The header is fine, and the content is not.
    #[error(transparent)]
    Content(#[from] DecodeError),
}

/// Encodes `value` in an envelope.
///
/// # Panics
///
/// As [`super::to_bytes`]; if the type's constants contradict each other.
pub fn to_envelope<T: Versioned>(value: &T) -> Vec<u8> {
    const {
        assert!(T::TYPE_NAME.len() <= TYPE_NAME_BYTES_MAX, "the type's name is too long");
        assert!(T::READABLE_SINCE <= T::VERSION, "a type can be read by its own version at least");
    }
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(&MAGIC);
    super::append(&mut bytes, T::TYPE_NAME);
    super::append(&mut bytes, &T::VERSION);
    super::append(&mut bytes, &T::READABLE_SINCE);
    if let Err(error) = rmp_serde::encode::write_named(&mut bytes, value) {
        panic!("{} cannot be written as MessagePack: {error}", std::any::type_name::<T>());
    }
    bytes
}

/// Decodes a value from its envelope, of this version, of an older one by [`Versioned::upgrade`], or of a newer one
/// that allows it.
///
/// # Errors
///
/// [`EnvelopeError`].
pub fn from_envelope<T: Versioned>(bytes: &[u8]) -> Result<T, EnvelopeError> {
    if bytes.len() > SIZE_BYTES_MAX {
        return Err(DecodeError::TooLong { length_bytes: bytes.len() }.into());
    }
    let (header, content) = split(bytes).ok_or(EnvelopeError::NoEnvelope)??;
    if header.type_name != T::TYPE_NAME {
        return Err(EnvelopeError::OtherType { expected: T::TYPE_NAME, found: header.type_name.to_owned() });
    }
    if header.readable_since > T::VERSION {
        return Err(EnvelopeError::TooNew {
            type_name: T::TYPE_NAME,
            version: header.version,
            readable_since: header.readable_since,
            known: T::VERSION,
        });
    }
    if header.version < T::VERSION {
        return T::upgrade(header.version, Content { header, oldest_name: T::TYPE_NAME, bytes: content });
    }
    Ok(from_bytes(content)?)
}

/// What an envelope says of its content, whose type need not be known here.
///
/// # Errors
///
/// [`EnvelopeError::NoEnvelope`], [`EnvelopeError::Header`].
pub fn envelope_header(bytes: &[u8]) -> Result<Header<'_>, EnvelopeError> {
    Ok(split(bytes).ok_or(EnvelopeError::NoEnvelope)??.0)
}

/// Parts header and content; `None` if it does not begin as an envelope.
pub(super) fn split(bytes: &[u8]) -> Option<Result<(Header<'_>, &[u8]), EnvelopeError>> {
    // The form's version is left to the header's reading, for the sake of a better error.
    let mut rest = bytes.strip_prefix(&MAGIC[..3])?;
    let mut parts = || {
        rest = rest.strip_prefix(&MAGIC[3..])?;
        let header = Header {
            type_name: match scan::next(&mut rest).ok()? {
                scan::Token::Text(name) if name.len() <= TYPE_NAME_BYTES_MAX => {
                    std::str::from_utf8(name).ok()?
                }
                _ => return None,
            },
            version: version(&mut rest)?,
            readable_since: version(&mut rest)?,
        };
        (header.readable_since <= header.version).then_some((header, rest))
    };
    Some(parts().ok_or(EnvelopeError::Header))
}

fn version(rest: &mut &[u8]) -> Option<u32> {
    match scan::next(rest).ok()? {
        scan::Token::Unsigned(version) => version.try_into().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serialization::view;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct V1 {
        name: String,
        megabytes: u32,
    }
    impl Versioned for V1 {
        const TYPE_NAME: &'static str = "test settings";
        const VERSION: u32 = 1;
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct V2 {
        name: String,
        bytes: u64,
    }
    impl Versioned for V2 {
        const TYPE_NAME: &'static str = "test settings";
        const VERSION: u32 = 2;

        fn upgrade(version: u32, content: Content<'_>) -> Result<V2, EnvelopeError> {
            match version {
                1 => {
                    let old: V1 = content.decode()?;
                    Ok(V2 { name: old.name, bytes: u64::from(old.megabytes) << 20 })
                }
                _ => Err(content.too_old()),
            }
        }
    }

    /// Adds a field, which readers of version 2 may skip.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct V3 {
        extra: Vec<u8>,
        name: String,
        bytes: u64,
    }
    impl Versioned for V3 {
        const TYPE_NAME: &'static str = "test settings";
        const VERSION: u32 = 3;
        const READABLE_SINCE: u32 = 2;
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Other {}
    impl Versioned for Other {
        const TYPE_NAME: &'static str = "something else";
        const VERSION: u32 = 9;
    }

    fn v1() -> Vec<u8> {
        to_envelope(&V1 { name: "n".into(), megabytes: 3 })
    }

    fn v2() -> V2 {
        V2 { name: "n".into(), bytes: 3 << 20 }
    }

    #[test]
    fn an_older_version_is_upgraded() {
        assert_eq!(from_envelope::<V2>(&v1()), Ok(v2()));
        assert_eq!(from_envelope::<V1>(&v1()).unwrap().megabytes, 3);
    }

    #[test]
    fn a_newer_version_that_only_added_fields_is_read_without_them() {
        let newer = to_envelope(&V3 { extra: vec![1], name: "n".into(), bytes: 3 << 20 });
        assert_eq!(from_envelope::<V2>(&newer), Ok(v2()));
    }

    #[test]
    fn a_newer_version_that_changed_more_is_refused_with_the_version_it_takes() {
        let error = from_envelope::<V1>(&to_envelope(&v2())).unwrap_err();
        let type_name = V1::TYPE_NAME;
        assert_eq!(error, EnvelopeError::TooNew { type_name, version: 2, readable_since: 2, known: 1 });
        assert!(error.to_string().contains("use a newer one"));
    }

    #[test]
    fn a_version_that_nobody_upgrades_is_refused_as_too_old() {
        let error = from_envelope::<V3>(&v1()).unwrap_err();
        assert_eq!(error, EnvelopeError::TooOld { type_name: V3::TYPE_NAME, version: 1 });
    }

    #[test]
    fn another_type_a_bare_value_and_a_damaged_header_are_told_apart() {
        let other = EnvelopeError::OtherType { expected: "test settings", found: "something else".into() };
        assert_eq!(from_envelope::<V1>(&to_envelope(&Other {})), Err(other));
        let bare = crate::serialization::to_bytes(&v2());
        assert_eq!(from_envelope::<V2>(&bare), Err(EnvelopeError::NoEnvelope));
        assert_eq!(from_envelope::<V2>(b""), Err(EnvelopeError::NoEnvelope));
        let mut later_form = v1();
        later_form[3] = 2;
        assert_eq!(from_envelope::<V1>(&later_form), Err(EnvelopeError::Header));
        assert_eq!(from_envelope::<V1>(&v1()[..10]), Err(EnvelopeError::Header));
        let cut = v1();
        assert!(matches!(from_envelope::<V1>(&cut[..cut.len() - 1]), Err(EnvelopeError::Content(_))));
        assert_eq!(envelope_header(&v1()).unwrap().version, 1);
    }

    #[test]
    fn an_envelope_shows_its_type_its_version_and_the_names_of_its_fields() {
        assert_eq!(view(&v1()).to_string(), r#"test settings v1 {"name": "n", "megabytes": 3}"#);
    }

    #[test]
    fn an_oversized_envelope_is_refused_unread() {
        let mut bytes = v1();
        bytes.resize(SIZE_BYTES_MAX + 1, 0);
        let too_long = DecodeError::TooLong { length_bytes: SIZE_BYTES_MAX + 1 };
        assert_eq!(from_envelope::<V1>(&bytes), Err(too_long.into()));
    }

    proptest! {
        #[test]
        fn any_byte_changed_or_cut_off_never_panics(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut bytes = v1();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = from_envelope::<V2>(&bytes);
            let _ = view(&bytes).to_string();
            prop_assert!(from_envelope::<V2>(&v1()[..cut.index(v1().len())]).is_err());
        }
    }
}
