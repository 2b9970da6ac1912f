//! The layout, the limits, and bytes that are no frames.

use super::*;
use proptest::prelude::*;

fn any_header() -> impl Strategy<Value = Header> {
    let metadata = || prop_oneof![Just(0), 0..=BLOCK_SIZE_BYTES_MAX as u16];
    let message = 0..=MESSAGE_SIZE_BYTES_MAX as u32;
    let payload = 0..=PAYLOAD_SIZE_BYTES_MAX as u32;
    let part = 1..=PART_SIZE_BYTES_MAX as u32;
    prop_oneof![
        (any::<[u32; 3]>(), metadata(), message.clone(), payload.clone(), 0..3usize).prop_map(
            |([call, method, timeout_ms], metadata_size, message_size, payload_size, priority)| {
                Header::Request {
                    call,
                    method,
                    timeout_ms,
                    metadata_size,
                    message_size,
                    payload_size,
                    priority: Priority::ALL[priority],
                }
            }
        ),
        (any::<[u32; 3]>(), metadata(), message.clone(), 0..3usize).prop_map(
            |([call, method, timeout_ms], metadata_size, message_size, priority)| Header::Open {
                call,
                method,
                timeout_ms,
                metadata_size,
                message_size,
                priority: Priority::ALL[priority],
            }
        ),
        (0..2usize, any::<u32>(), 0..=ITEM_SIZE_BYTES_MAX as u32)
            .prop_map(|(side, call, size)| Header::Item { side: Side::ALL[side], call, size }),
        (0..2usize, any::<u32>(), any::<u32>()).prop_map(|(side, call, bytes)| Header::Credit {
            side: Side::ALL[side],
            call,
            bytes
        }),
        (0..2usize, any::<u32>()).prop_map(|(side, call)| Header::Stop { side: Side::ALL[side], call }),
        any::<u32>().prop_map(|call| Header::End { call }),
        (0..=HELLO_SIZE_BYTES_MAX as u32).prop_map(|message_size| Header::Hello { message_size }),
        (OPTIONAL_KIND_MIN.., message.clone())
            .prop_map(|(kind, message_size)| Header::Optional { kind, message_size }),
        (any::<u32>(), metadata(), message.clone(), payload).prop_map(
            |(call, metadata_size, message_size, payload_size)| {
                let status = Status::Response;
                Header::Response { call, status, metadata_size, message_size, payload_size }
            }
        ),
        (any::<u32>(), 1..11usize, metadata(), message).prop_map(
            |(call, status, metadata_size, message_size)| {
                let status = Status::ALL[status];
                Header::Response { call, status, metadata_size, message_size, payload_size: 0 }
            }
        ),
        (any::<u32>(), part.clone()).prop_map(|(call, size)| Header::RequestPart { call, size }),
        (any::<u32>(), 0..=PART_SIZE_BYTES_MAX as u32)
            .prop_map(|(call, size)| Header::ResponsePart { call, size }),
        any::<u32>().prop_map(|call| Header::Cancel { call }),
        Just(Header::Drain),
        Just(Header::Ping),
        Just(Header::Pong),
        Just(Header::Goodbye),
    ]
}

#[test]
fn the_layout_is_as_documented() {
    let header = Header::Request {
        call: 0x0403_0201,
        method: 0x0807_0605,
        timeout_ms: 0x100f_0e0d,
        metadata_size: 0x0102,
        message_size: 0x000b_0a09,
        payload_size: 0x000e_0d0c,
        priority: Priority::Low,
    };
    let expected = [1, 2, 2, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 12, 13, 14, 0, 13, 14, 15, 16];
    assert_eq!(header.encode(), expected);
    assert_eq!(Status::ALL.map(|status| status as u8), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn sizes_just_above_the_limits_are_refused() {
    let limits = [
        (1, 12, MESSAGE_SIZE_BYTES_MAX),
        (2, 16, PAYLOAD_SIZE_BYTES_MAX),
        (4, 16, PART_SIZE_BYTES_MAX),
        (9, 12, MESSAGE_SIZE_BYTES_MAX),
        (10, 12, ITEM_SIZE_BYTES_MAX),
        (16, 12, HELLO_SIZE_BYTES_MAX),
        (200, 12, MESSAGE_SIZE_BYTES_MAX),
    ];
    for (kind, at, max) in limits {
        let mut bytes = [0; HEADER_SIZE_BYTES];
        bytes[0] = kind;
        bytes[at..at + 4].copy_from_slice(&(max as u32).to_le_bytes());
        assert!(Header::decode(&bytes).is_ok());
        bytes[at..at + 4].copy_from_slice(&(max as u32 + 1).to_le_bytes());
        let refused = FrameError::TooLarge { kind, size_bytes: max as u32 + 1 };
        assert_eq!(Header::decode(&bytes), Err(refused));
    }
    for kind in [1, 2, 9] {
        let mut bytes = [0; HEADER_SIZE_BYTES];
        bytes[0] = kind;
        bytes[2..4].copy_from_slice(&(BLOCK_SIZE_BYTES_MAX as u16).to_le_bytes());
        assert_eq!(Header::decode(&bytes).unwrap().metadata_size(), BLOCK_SIZE_BYTES_MAX);
        bytes[2..4].copy_from_slice(&(BLOCK_SIZE_BYTES_MAX as u16 + 1).to_le_bytes());
        let refused = FrameError::TooLarge { kind, size_bytes: BLOCK_SIZE_BYTES_MAX as u32 + 1 };
        assert_eq!(Header::decode(&bytes), Err(refused));
    }
    // Nothing else has metadata.
    for kind in (0..OPTIONAL_KIND_MIN).filter(|kind| ![1, 2, 9].contains(kind)) {
        let mut bytes = [0; HEADER_SIZE_BYTES];
        (bytes[0], bytes[2]) = (kind, 1);
        assert!(Header::decode(&bytes).is_err(), "{kind}");
    }
}

#[test]
fn text_of_another_protocol_is_no_frame() {
    assert!(decode(b"GET / HTTP/1.1\r\nHost: example\r\n").is_err());
    assert!(decode(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3").is_err());
    assert!(decode(&[0x16; 64]).is_err());
}

proptest! {
    #[test]
    fn a_header_reads_back_as_it_was(header in any_header()) {
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn whatever_decodes_encodes_to_the_same_bytes(bytes: [u8; HEADER_SIZE_BYTES], kind in 0u8..18, holes: u32) {
        // Random bytes never pass, so some are zeroed and the kind is a likely one.
        let mut bytes = bytes;
        bytes[0] = kind;
        for (at, byte) in bytes.iter_mut().enumerate().skip(1) {
            if holes & (1 << at) != 0 { *byte = 0; }
        }
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let _ = decode(&bytes);
    }

    #[test]
    fn a_frame_that_is_cut_is_waited_for(
        header in any_header(), fill: u8, cut: prop::sample::Index, extra in 0usize..40,
    ) {
        let body = header.metadata_size() + header.message_size() + header.part_size();
        let mut bytes = header.encode().to_vec();
        bytes.resize(HEADER_SIZE_BYTES + body, fill);
        prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), Ok(None));
        let whole = bytes.len();
        bytes.resize(whole + extra, 0xee);
        let (frame, length) = decode(&bytes).unwrap().unwrap();
        prop_assert_eq!((frame.header, length), (header, whole));
        let sizes = (frame.metadata.len(), frame.message.len(), frame.part.len());
        prop_assert_eq!(sizes, (header.metadata_size(), header.message_size(), header.part_size()));
    }
}

#[test]
fn a_frame_of_a_later_version_is_passed_over_whatever_its_header_says() {
    let mut bytes = [0xff; HEADER_SIZE_BYTES];
    bytes[0] = 129;
    bytes[12..16].copy_from_slice(&5u32.to_le_bytes());
    let header = Header::decode(&bytes).unwrap();
    assert_eq!((header.message_size(), header.part_size()), (5, 0));
}
