//! Parsers of the DHT: what lies on a node's disk, and what others sign.

use ::bytes::Bytes;
use ::dht::address::{GroupHash, address_and_groups, prove_range, verify_range};
use ::dht::block::deletion::{DeletionGrant, OwnersWord, Speaker, Verdict};
use ::dht::block::immutable;
use ::dht::block::mutable::{AccessList, Genesis, Signed, SignedRecord};
use ::dht::block::proposal::Proposed;
use ::dht::paxos::Ballot;
use ::dht::store::format::{self, Place, RecordHeader, SegmentHeader, Shape};
use ::dht::store::scan::Durable;
use ::dht::store::{Key, Kind, checkpoint, scan};
use ::dht::{Address, OwnerTag};
use ::overlay::NodeId;
use ::reactor::crypto::Identity;
use ::reactor::serialization::{from_bytes, to_bytes};

use crate::Target;

const SALT: u64 = 0x1234_5678;

/// A segment of two records, as the store would write it.
fn segment() -> Vec<u8> {
    let mut segment =
        format::encode_segment_header(&SegmentHeader { segment: 1, salt: SALT, previous: None }).to_vec();
    for (sequence, value) in [(1u64, &b"first"[..]), (2, &[7; 40_000])] {
        let place = Place { salt: SALT, segment: 1, offset: segment.len() as u32 };
        let length = value.len() as u32;
        let (check, table) = format::checksums(length, [value]);
        let key = Key { kind: Kind(1), address: [sequence as u8; 32] };
        let header = RecordHeader {
            shape: Shape::Value,
            key,
            flags: 0,
            owner: 0,
            sequence,
            length,
            watermark: 0,
            check,
        };
        segment.extend_from_slice(&format::encode_record_header(place, &header));
        segment.extend_from_slice(&table);
        segment.extend_from_slice(value);
        segment.resize(place.offset as usize + format::record_bytes(length), 0);
    }
    segment
}

/// A whole segment, read as at a node's start; damage must be found, never believed.
pub const STORE_SEGMENT: Target = Target {
    name: "store_segment",
    body: |data| {
        for durable in [Durable::Unknown, Durable::Whole, Durable::UpTo(1000), Durable::AtLeast(1000)] {
            let _ = scan::scan(data, SALT, 1, durable);
        }
        let _ = format::decode_segment_header(data);
        let _ = format::decode_flipped_segment_header(data);
        let place = Place { salt: SALT, segment: 1, offset: 64 };
        if let Some(header) = format::decode_record_header(place, data) {
            let _ = format::verify_body(&header, &data[data.len() / 2..]);
        }
        let _ = format::decode_flipped_record_header(place, data);
    },
    seeds: || vec![segment()],
};

/// The index of a sealed segment.
pub const STORE_CHECKPOINT: Target = Target {
    name: "store_checkpoint",
    body: |data| {
        if let Some(listing) = checkpoint::decode(1, SALT, data) {
            let again = checkpoint::decode(1, SALT, &checkpoint::encode(1, SALT, &listing));
            assert_eq!(again, Some(listing));
        }
    },
    seeds: || {
        let scanned =
            scan::scan(&segment()[..], SALT, 1, Durable::Unknown).expect("memory is read without errors");
        vec![checkpoint::encode(1, SALT, &scanned.into())]
    },
};

/// A stored block, and what a node answers who is asked for a range of one.
pub const BLOCK: Target = Target {
    name: "block",
    body: |data| {
        let _ = immutable::decode_trailer(data);
        let _ = immutable::decode_tail(data);
        let _ = immutable::decode(&Address([1; 32]), Bytes::copy_from_slice(data));
        if let Ok(length) = u32::try_from(data.len()) {
            let _ = immutable::content_length(length);
        }
        verify_answer(data);
    },
    seeds: || {
        let tag = OwnerTag([9; 32]);
        let answer = {
            let content = vec![5; 70_000];
            let (address, hashes) = address_and_groups(&tag, &content);
            let covered = 36_864..40_960;
            let proof = prove_range(&tag, 70_000, &covered, &content[32_768..65_536], &hashes);
            let numbers = [70_000u32, 40_000, 40_001].map(u32::to_le_bytes);
            let proof: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
            [&[proof.len() as u8 / 32][..], &address.0, numbers.as_flattened(), &proof, &content[..4096]]
                .concat()
        };
        [100, 70_000]
            .map(|length| {
                let content = vec![5; length];
                [&content[..], &immutable::trailer(&tag, &content, 7).1].concat()
            })
            .into_iter()
            .chain([answer])
            .collect()
    },
};

/// Reads an answer from bytes: how many hashes prove it, address, length, range, the hashes, the slices.
fn verify_answer(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let Some((address, rest)) = rest.split_first_chunk::<32>() else { return };
    let Some((numbers, rest)) = rest.split_first_chunk::<12>() else { return };
    let [length, start, end] = [0, 4, 8]
        .map(|at| u32::from_le_bytes([numbers[at], numbers[at + 1], numbers[at + 2], numbers[at + 3]]));
    let Some((proof, slices)) = rest.split_at_checked(usize::from(*count) * 32) else { return };
    let proof: Vec<GroupHash> = proof.as_chunks().0.iter().map(|hash| GroupHash(*hash)).collect();
    let tag = OwnerTag([9; 32]);
    if let Ok(within) = verify_range(&Address(*address), &tag, length, &(start..end), slices, &proof) {
        assert_eq!(slices[within].len() as u32, end - start);
    }
}

/// A register's signed value and its genesis record.
pub const REGISTER: Target = Target {
    name: "register",
    body: |data| {
        let Ok((genesis, proposed)) = from_bytes::<(Signed<Genesis>, Proposed)>(data) else { return };
        if genesis.verify().is_ok() && proposed.verify(&genesis, None).is_ok() {
            let _ = proposed.record.to_record();
            // Each of the two proves itself alone.
            assert_eq!(proposed.proposal.verify_by(&proposed.proposal.writer), Ok(()));
            assert_eq!(proposed.record.verify(&genesis, None), Ok(()));
            let pair = (genesis, proposed);
            assert_eq!(from_bytes(&to_bytes(&pair)), Ok(pair));
        }
    },
    seeds: || {
        let owner = Identity::from_seed(&[1; 32]);
        let members = [2, 3, 4].map(|number| NodeId([number; 32])).to_vec();
        let genesis = Genesis::sign(&owner, [8; 32], members, vec![]);
        let access = Some(AccessList::sign(&owner, genesis.register(), 1, vec![owner.public_key()]));
        let payload = Bytes::from_static(b"the root");
        let record = SignedRecord::sign(&owner, genesis.register(), None, access, payload);
        let proposed = Proposed::sign(&owner, Ballot::ZERO, record, None);
        let (header, proposal) = Signed::sign_together(&owner, (*proposed.record.header).clone(), |_| {
            (*proposed.proposal).clone()
        });
        let record = SignedRecord { header, ..proposed.record.clone() };
        let together = Proposed { proposal, record, ..proposed.clone() };
        vec![to_bytes(&(genesis.clone(), proposed)), to_bytes(&(genesis, together))]
    },
};

/// An owner's word that a block may go, and the grant of a writer who says so.
pub const DELETION: Target = Target {
    name: "deletion",
    body: |data| {
        let Ok(word) = from_bytes::<OwnersWord>(data) else { return };
        if word.verify().is_ok() {
            assert_eq!(from_bytes::<OwnersWord>(&to_bytes(&word)).as_ref(), Ok(&word));
        }
    },
    seeds: || {
        let (owner, writer) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let salt = [8; 32];
        let content = DeletionGrant {
            owner: owner.public_key(),
            salt,
            writer: writer.public_key(),
            until_seconds: 100,
            retention_seconds_min: 5,
        };
        let grant = Some(Signed::sign(&owner, content));
        let delete = Verdict::Delete { put_before_seconds: 9, retention_seconds: 5 };
        let by = |identity, grant, verdict| {
            let speaker = Speaker { identity, owner: owner.public_key(), salt, grant };
            to_bytes(&speaker.say(Address([3; 32]), 7, verdict))
        };
        vec![by(&owner, None, Verdict::Keep), by(&writer, grant, delete)]
    },
};
