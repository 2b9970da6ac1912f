//! Reads messages of later versions: fields appended to a struct are passed over.
//!
//! Structs are arrays without names (see [`crate::serialization`]), and its decoder takes an array that is longer than
//! the type for damage. In a message it is a newer peer's. So the decoder is wrapped all the way down, and whenever a
//! type has taken what it knows of an array, the rest is read and dropped.
//!
//! What it is not: laxer in anything else. Length, depth and trailing bytes are checked by the one decoder there.

use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, Visitor};

use crate::serialization::{self, DecodeError};

/// Decodes a value that fills `bytes`, passing over fields that `T` does not know: what every message is read with, also
/// one that is no call.
///
/// # Errors
/// [`DecodeError`], as for any other value.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    serialization::decode(bytes, |decoder| T::deserialize(Tolerant(decoder)))
}

/// Wraps a deserializer, a visitor, a seed or an access, and whatever those lead to.
struct Tolerant<T>(T);

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($argument,)* Tolerant(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Tolerant<D> {
    type Error = D::Error;

    forward! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! forward_visits {
    ($($method:ident($type:ty);)*) => {
        $(fn $method<E: de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Tolerant<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(formatter)
    }

    forward_visits! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Tolerant(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Tolerant(deserializer))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<V::Value, A::Error> {
        let value = self.0.visit_seq(Tolerant(&mut access))?;
        // Here is the point of it all.
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(value)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Tolerant(access))
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Tolerant(access))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Tolerant<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Tolerant(deserializer))
    }
}

impl<'de, A: de::SeqAccess<'de>> de::SeqAccess<'de> for Tolerant<&mut A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Tolerant(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: de::MapAccess<'de>> de::MapAccess<'de> for Tolerant<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(Tolerant(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Tolerant(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: de::EnumAccess<'de>> de::EnumAccess<'de> for Tolerant<A> {
    type Error = A::Error;
    type Variant = Tolerant<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.0.variant_seed(Tolerant(seed))?;
        Ok((value, Tolerant(variant)))
    }
}

impl<'de, A: de::VariantAccess<'de>> de::VariantAccess<'de> for Tolerant<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Tolerant(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Tolerant(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Tolerant(visitor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serialization::{DEPTH_MAX, to_bytes};
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Point,
        Named { name: String, content: Bytes, list: Vec<Option<u64>> },
        Pair(Box<(Shape, Shape)>),
        Map(BTreeMap<u16, String>),
        Two(u8, u8),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        name: String,
        inner: Vec<OldInner>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct OldInner(u8, Option<u8>);

    #[derive(Serialize)]
    struct New {
        name: String,
        inner: Vec<NewInner>,
        added: BTreeMap<u8, String>,
        more: Option<Vec<u8>>,
    }
    #[derive(Serialize)]
    struct NewInner(u8, Option<u8>, (u64, String));

    #[test]
    fn unknown_fields_are_passed_over_at_every_depth() {
        let new = New {
            name: "n".into(),
            inner: vec![NewInner(1, Some(2), (3, "x".into())), NewInner(4, None, (5, "y".into()))],
            added: BTreeMap::from([(1, "one".into())]),
            more: Some(vec![1, 2]),
        };
        let bytes = to_bytes(&new);
        assert!(serialization::from_bytes::<Old>(&bytes).is_err(), "else this file is not needed");
        let old = Old { name: "n".into(), inner: vec![OldInner(1, Some(2)), OldInner(4, None)] };
        assert_eq!(from_bytes::<Old>(&bytes), Ok(old));
    }

    #[test]
    fn what_is_missing_or_trailing_is_an_error_still() {
        assert!(from_bytes::<OldInner>(&to_bytes(&(1u8,))).is_err());
        let mut bytes = to_bytes(&7u32);
        bytes.push(0);
        assert_eq!(from_bytes::<u32>(&bytes), Err(DecodeError::Trailing { extra_bytes: 1 }));
    }

    #[test]
    fn depth_and_length_are_bounded_in_what_is_passed_over_too() {
        let mut deep = Shape::Point;
        for _ in 0..1_000 {
            deep = Shape::Pair(Box::new((Shape::Point, deep)));
        }
        assert!(from_bytes::<OldInner>(&to_bytes(&(1u8, None::<u8>, deep))).is_err());
        assert!(from_bytes::<OldInner>(&[0xdd, 0xff, 0xff, 0xff, 0xff, 1, 0xc0]).is_err());
    }

    /// A type with no end of its own, through variants that the decoder does not count.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Filter {
        Not(Box<Filter>),
        And(Vec<Filter>),
        Name(String),
    }

    #[test]
    fn a_type_that_contains_itself_cannot_be_nested_until_the_stack_ends() {
        let nested = |levels: usize, wrap: fn(Filter) -> Filter| {
            (0..levels).fold(Filter::Name("x".into()), |filter, _| wrap(filter))
        };
        let wraps: [fn(Filter) -> Filter; 2] =
            [|filter| Filter::Not(Box::new(filter)), |filter| Filter::And(vec![filter])];
        crate::run(move || {
            for wrap in wraps {
                let deepest = nested(DEPTH_MAX / 2 - 2, wrap);
                assert_eq!(from_bytes(&to_bytes(&deepest)), Ok(deepest));
                for levels in [DEPTH_MAX + 1, 200] {
                    let bytes = to_bytes(&nested(levels, wrap));
                    assert!(from_bytes::<Filter>(&bytes).is_err(), "{levels} levels");
                    assert_eq!(from_bytes::<Filter>(&bytes), serialization::from_bytes::<Filter>(&bytes));
                }
            }
            // More levels than any stack has.
            let bytes = [[0x81, 0xa3, b'N', b'o', b't'].repeat(100_000), vec![0xc0]].concat();
            assert_eq!(from_bytes::<Filter>(&bytes), Err(DecodeError::TooDeep));
        });
    }

    fn shape() -> impl Strategy<Value = Shape> {
        let leaf = prop_oneof![
            Just(Shape::Point),
            (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Shape::Two(a, b)),
            any::<BTreeMap<u16, String>>().prop_map(Shape::Map),
            (any::<String>(), any::<Vec<u8>>(), any::<Vec<Option<u64>>>())
                .prop_map(|(name, content, list)| Shape::Named { name, content: content.into(), list }),
        ];
        leaf.prop_recursive(3, 8, 2, |inner| {
            (inner.clone(), inner).prop_map(|pair| Shape::Pair(Box::new(pair)))
        })
    }

    proptest! {
        #[test]
        fn what_the_strict_decoder_reads_this_one_reads_as_the_same(shape in shape()) {
            prop_assert_eq!(from_bytes::<Shape>(&to_bytes(&shape)), Ok(shape));
        }

        #[test]
        fn random_bytes_never_panic_and_pass_wherever_the_strict_decoder_lets_them(bytes: Vec<u8>) {
            let (strict, tolerant) = (serialization::from_bytes::<Shape>(&bytes), from_bytes::<Shape>(&bytes));
            if strict.is_ok() { prop_assert_eq!(strict, tolerant); }
            let _ = from_bytes::<Vec<(String, Bytes)>>(&bytes);
        }
    }
}
