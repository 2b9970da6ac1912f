//! The layout, the bounds, and bytes that are no blocks.

use super::*;
use proptest::prelude::*;

fn key() -> impl Strategy<Value = String> {
    "[a-z0-9._-]{1,12}"
}

#[test]
fn the_layout_is_as_documented() {
    let metadata = Metadata::new().with("b", "xyz").unwrap().with("a", "").unwrap();
    let block = Block::encode(&ServiceName::from_static("log"), &metadata);
    assert_eq!(block, b"\x03log\x01\x00\x00a\x01\x03\x00bxyz");
    assert_eq!(Block::encode(&ServiceName::default(), &Metadata::new()), b"");
}

#[test]
fn what_is_beyond_the_bound_is_refused_and_changes_nothing() {
    let mut metadata = Metadata::new().with("a", "1").unwrap();
    let room = METADATA_SIZE_BYTES_MAX - metadata.size_bytes() - PAIR_HEAD_SIZE_BYTES - 1;
    let refused = metadata.set("b", vec![0; room + 1]);
    assert_eq!(refused, Err(MetadataError::TooLarge { size_bytes: METADATA_SIZE_BYTES_MAX + 1 }));
    assert_eq!((metadata.get("b"), metadata.get("a")), (None, Some(&b"1"[..])));
    metadata.set("b", vec![0; room]).unwrap();
    assert_eq!(metadata.size_bytes(), METADATA_SIZE_BYTES_MAX);
    // What replaces something takes its place.
    assert_eq!(metadata.set("b", vec![1; room]), Ok(()));
    for bad in ["", "Upper", "a b", "a\0", "ü", &"x".repeat(65)] {
        assert!(matches!(metadata.set(bad, ""), Err(MetadataError::BadName(_))), "{bad:?}");
        assert!(ServiceName::new(bad).is_err());
    }
}

#[test]
fn a_block_has_one_form() {
    let cases: [&[u8]; 8] = [
        b"\x00",
        b"\x03lo",
        b"\x03LOG",
        b"\x00\x00\x00\x00",
        b"\x00\x01\x01\x00a",
        b"\x00\x01\x00\x00a\x01",
        // Twice, and out of order.
        b"\x00\x01\x00\x00a\x01\x00\x00a",
        b"\x00\x01\x00\x00b\x01\x00\x00a",
    ];
    for case in cases {
        assert!(Block::decode(case).is_err(), "{}", case.escape_ascii());
    }
    assert_eq!(Block::decode(b""), Ok(Block::default()));
}

#[test]
fn values_are_not_shown() {
    let metadata = Metadata::new().with("token", "secret").unwrap();
    let shown = format!("{metadata:?}");
    assert!(shown.contains("token") && !shown.contains("secret"), "{shown}");
}

#[test]
fn a_handler_and_a_clone_of_its_context_answer_in_one_place() {
    let place = ReplyMetadata::new();
    place.set("a", "1").unwrap();
    let clone = place.clone();
    clone.set("b", "2").unwrap();
    place.set("c", "3").unwrap();
    assert_eq!(place.get(), clone.get());
    assert_eq!(place.get().iter().count(), 3);
}

proptest! {
    #[test]
    fn what_is_set_is_found_behind_the_line(
        pairs in prop::collection::vec((key(), prop::collection::vec(any::<u8>(), 0..60)), 0..20),
        name in prop::option::of(key()),
    ) {
        let service = name.map_or(ServiceName::default(), |name| ServiceName::new(&name).unwrap());
        let mut metadata = Metadata::new();
        let mut model = std::collections::BTreeMap::new();
        for (key, value) in pairs {
            metadata.set(&key, &value).unwrap();
            model.insert(key, value);
        }
        let read = Block::decode(&Block::encode(&service, &metadata)).unwrap();
        prop_assert_eq!(&read.service, &service);
        let found: Vec<_> = read.metadata.iter().map(|(key, value)| (key.to_owned(), value.to_vec())).collect();
        prop_assert_eq!(found, model.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(
        bytes in prop::collection::vec(prop_oneof![0u8..4, Just(b'a'), Just(b'b'), any::<u8>()], 0..40),
    ) {
        if let Ok(block) = Block::decode(&bytes) {
            prop_assert_eq!(Block::encode(&block.service, &block.metadata), bytes);
        }
    }
}
