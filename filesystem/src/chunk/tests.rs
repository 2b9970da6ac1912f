//! What is sealed opens as it was, under its own key and binding only, and keeps nothing else alive.

use super::*;

const VOLUME: VolumeId = VolumeId([8; 16]);
const FRAME: Binding = Binding { kind: ChunkKind::Frame, volume: VOLUME };

/// A pointer to what lies alone in an object, sealed under a key of ones for version 5.
fn pointer(size: usize, tags: Tags) -> Pointer {
    let length = padded_size(size) as u32;
    Pointer { address: [0; 32], offset: 0, length, size: size as u32, birth: 5, key: [1; 32], tags }
}

fn opens(binding: &Binding, sealed: &[u8], pointer: Pointer) -> bool {
    open_in_place(binding, &mut sealed.to_vec(), &Piece::from(pointer)).is_ok()
}

#[test]
fn what_was_sealed_opens_under_its_key_and_binding_only() {
    for content in [&b"hello"[..], &[3; 10_000]] {
        let (mut whole, mut segmented) = (Vec::new(), Vec::new());
        let one = Tags::whole(seal_into(&mut whole, &FRAME, content, &[1; 32]));
        let several = seal_segments_into(&mut segmented, &FRAME, 5, content, &[1; 32]);
        for (sealed, tags) in [(whole, one), (segmented, several)] {
            assert_eq!(sealed.len(), padded_size(content.len()));
            let pointer = pointer(content.len(), tags);
            let mut right = sealed.clone();
            assert_eq!(open_in_place(&FRAME, &mut right, &pointer.into()), Ok(()));
            assert!(right.starts_with(content) && right[content.len()..].iter().all(|byte| *byte == 0));
            let node = Binding { kind: ChunkKind::Node, ..FRAME };
            let elsewhere = Binding { volume: VolumeId([9; 16]), ..FRAME };
            assert!(!opens(&node, &sealed, pointer) && !opens(&elsewhere, &sealed, pointer));
            assert!(!opens(&FRAME, &sealed, Pointer { key: [2; 32], ..pointer }));
            assert!(!opens(&FRAME, &sealed, Pointer { tags: Tags::whole([0; 16]), ..pointer }));
            for at in [0, sealed.len() / 2, sealed.len() - 1] {
                let mut flipped = sealed.clone();
                flipped[at] ^= 0x10;
                assert!(!opens(&FRAME, &flipped, pointer));
            }
        }
    }
}

#[test]
fn a_segment_opens_alone_and_in_no_other_place() {
    let content: Vec<u8> = (0..20_000u32).map(|at| (at / 7) as u8).collect();
    let mut sealed = Vec::new();
    let tags = seal_segments_into(&mut sealed, &FRAME, 5, &content, &[1; 32]);
    let pointer = pointer(content.len(), tags);
    let pieces: Vec<Piece> =
        [0, 4096, 16_384].iter().flat_map(|at| Piece::covering(&pointer, *at, at + 1)).collect();
    for piece in &pieces {
        let (start, length) = (piece.offset() as usize, piece.length() as usize);
        let part = &sealed[start..start + length];
        let opened = open_run(&FRAME, Bytes::copy_from_slice(part), piece.offset(), &[*piece]).unwrap();
        assert_eq!(opened[0], content[start..start + piece.size() as usize]);
        for other in pieces.iter().filter(|other| *other != piece) {
            assert_eq!(open_in_place(&FRAME, &mut part.to_vec(), other), Err(Damaged));
        }
        assert_eq!(open_in_place(&FRAME, &mut part[1..].to_vec(), piece), Err(Damaged));
    }
    // Nor for another version, nor as the end of something shorter.
    assert!(!opens(&FRAME, &sealed, Pointer { birth: 6, ..pointer }));
    let mut cut = Tags::of_segments(8192);
    tags.as_slice()[..2].iter().for_each(|tag| cut.push(*tag));
    assert!(!opens(&FRAME, &sealed[..8192], Pointer { length: 8192, size: 8192, tags: cut, ..pointer }));
}

#[test]
fn a_record_opens_as_it_was() {
    let mut sealed = Vec::new();
    seal_with_nonce_into(&mut sealed, &FRAME, b"hello", &[1; 32], &[3; 12]);
    assert_eq!(sealed.len(), sealed_size(5));
    let mut right = sealed.clone();
    assert_eq!(open_with_nonce_in_place(&FRAME, &mut right, &[1; 32], &[3; 12]), Ok(5));
    assert_eq!(&right[..5], b"hello");
    assert_eq!(open_with_nonce_in_place(&FRAME, &mut sealed, &[1; 32], &[4; 12]), Err(Damaged));
    assert_eq!(open_with_nonce_in_place(&FRAME, &mut [0; 7], &[1; 32], &[3; 12]), Err(Damaged));
}

#[test]
fn a_small_part_of_a_run_does_not_keep_the_run() {
    let mut packer = Packer::new(OwnerTag([3; 32]), VOLUME, 1);
    let locations = [packer.append(ChunkKind::Frame, &[1; 100]), packer.append(ChunkKind::Frame, &[2; 9000])];
    packer.close();
    let (_, object) = packer.take_ready().remove(0);
    let pointers = locations.map(|location| packer.pointer(&location).into());
    let whole = object.as_ptr_range();
    let opened = open_run(&FRAME, object, 0, &pointers).unwrap();
    assert_eq!((opened[0].as_ref(), opened[1].as_ref()), ([1; 100].as_slice(), [2; 9000].as_slice()));
    assert!(!whole.contains(&opened[0].as_ptr()), "the small one is a copy");
    assert!(whole.contains(&opened[1].as_ptr()), "the large one is not");
}

#[test]
fn what_is_sealed_in_a_buffer_that_was_used_before_is_as_in_a_new_one() {
    let buffers = Buffers::default();
    let mut opened = 0;
    for round in 1..30u8 {
        let mut packer = Packer::new(OwnerTag([3; 32]), VOLUME, 1).with_buffers(buffers.clone());
        // Small, then large, then small again, in objects of every size.
        let size = |number: usize| (number * 7919 * usize::from(round) + 1) % 32_768 + 1;
        let contents: Vec<Vec<u8>> = (0..usize::from(round % 7) * 12 + 1)
            .map(|number| vec![round ^ number as u8; size(number)])
            .collect();
        let places: Vec<_> =
            contents.iter().map(|content| packer.append(ChunkKind::Frame, content)).collect();
        packer.close();
        let objects = packer.take_ready();
        for (content, place) in contents.iter().zip(&places) {
            let pointer = packer.pointer(place);
            let (_, object) = objects.iter().find(|(address, _)| address.0 == pointer.address).unwrap();
            assert_eq!(object.len(), padded_size(object.len()));
            let end = (pointer.offset + pointer.length) as usize;
            let sealed = object.slice(pointer.offset as usize..end);
            let found = open_run(&FRAME, sealed, pointer.offset, &[pointer.into()]).unwrap();
            assert_eq!(found[0], content);
            opened += 1;
        }
    }
    assert!(opened > 900, "{opened}");
}

#[test]
fn a_segment_keeps_nothing_of_the_buffer_that_it_came_in() {
    let mut packer = Packer::new(OwnerTag([3; 32]), VOLUME, 1);
    let location = packer.append(ChunkKind::Frame, &[1; 32 * 1024]);
    packer.close();
    let (_, object) = packer.take_ready().remove(0);
    let segment = Piece::covering(&packer.pointer(&location), 4096, 8192).next().unwrap();
    // All that was asked for, in the piece of a cache's disk that has it.
    let from = segment.offset() as usize;
    let sealed = object.slice(from..from + segment.length() as usize);
    let whole = object.as_ptr_range();
    drop(object);
    let opened = open_run(&FRAME, sealed, segment.offset(), &[segment]).unwrap();
    assert_eq!(opened[0].as_ref(), [1; 4096].as_slice());
    assert!(!whole.contains(&opened[0].as_ptr()));
}

#[test]
fn what_is_sealed_under_a_version_beyond_what_a_pointer_says_opens_by_its_pointer() {
    let mut packer = Packer::new(OwnerTag([3; 32]), VOLUME, BIRTH_MAX + 6);
    let location = packer.append(ChunkKind::Frame, &[1; 9000]);
    packer.close();
    let (_, object) = packer.take_ready().remove(0);
    let pointer = packer.pointer(&location);
    let mut encoded = Vec::new();
    pointer.encode(false, &mut encoded);
    let read = Pointer::decode(&encoded, &[0; 32]).unwrap();
    assert_eq!(read.birth, BIRTH_MAX);
    assert_eq!(open_run(&FRAME, object, 0, &[read.into()]).unwrap()[0].as_ref(), [1; 9000].as_slice());
}

#[test]
fn a_full_frame_is_whole_groups_of_the_store() {
    let mut packer = Packer::new(OwnerTag([3; 32]), VOLUME, 1);
    for _ in 0..40 {
        let location = packer.append(ChunkKind::Frame, &[7; 32 * 1024]);
        let pointer = packer.pointer(&location);
        assert_eq!((pointer.offset % (32 * 1024), pointer.length, pointer.birth), (0, 32 * 1024, 1));
    }
}

#[test]
fn chunks_share_objects_and_large_runs_take_several() {
    let tag = OwnerTag([3; 32]);
    let mut packer = Packer::new(tag, VOLUME, 1);
    let content = vec![7u8; 32 * 1024];
    let locations: Vec<_> = (0..40).map(|_| packer.append(ChunkKind::Frame, &content)).collect();
    packer.close();
    let objects = packer.take_ready();
    assert_eq!(objects.len(), 2);
    for (address, object) in &objects {
        assert!(object.len() <= OBJECT_SIZE_MAX && address.names(&tag, object));
    }
    for location in &locations {
        let pointer = packer.pointer(location);
        let (_, object) = objects.iter().find(|(address, _)| address.0 == pointer.address).unwrap();
        let sealed = object.slice(pointer.offset as usize..(pointer.offset + pointer.length) as usize);
        let opened = open_run(&FRAME, sealed, pointer.offset, &[pointer.into()]).unwrap();
        assert_eq!(opened[0], content);
    }
    let mut keys: Vec<_> = locations.iter().map(|location| location.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 40);
}
