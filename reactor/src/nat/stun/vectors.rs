//! The test vectors of RFC 5769: messages that others made, down to signature and checksum.

use super::{BINDING, Builder, Class, Key, Kind, Message, ParseError, TransactionId};

/// Of the short-term examples.
const PASSWORD: Key<'_> = Key::sha1(b"VOkJxbRl1RmTxUk/WvJxBt");

/// Section 2.1: a request.
const REQUEST: &str = "00010058 2112a442 b7e7a701bc34d686fa87dfae \
    80220010 5354554e207465737420636c69656e74 \
    00240004 6e0001ff \
    80290008 932ff9b151263b36 \
    00060009 6576746a3a68367659202020 \
    00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 \
    80280004 e57a3bcf";

/// Section 2.2: the answer over IPv4.
const IPV4_RESPONSE: &str = "0101003c 2112a442 b7e7a701bc34d686fa87dfae \
    8022000b 7465737420766563746f7220 \
    00200008 0001a147e112a643 \
    00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7 \
    80280004 c07d4c96";

/// Section 2.3: the answer over IPv6.
const IPV6_RESPONSE: &str = "01010048 2112a442 b7e7a701bc34d686fa87dfae \
    8022000b 7465737420766563746f7220 \
    00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9 \
    00080014 a382954e4be67bf11784c97c8292c275bfe3ed41 \
    80280004 c8fb0b4c";

/// Section 2.4: a request with long-term credentials.
const LONG_TERM_REQUEST: &str = "00010060 2112a442 78ad3433c6ad72c029da412e \
    00060012 e3839ee38388e383aae38383e382afe382b90000 \
    0015001c 662f2f3439396b3935346436 4f4c33346f4c394653547679363473 41 \
    0014000b 6578616d706c652e6f726700 \
    00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666";

fn bytes(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()
}

fn value_of(message: &Message<'_>, kind: Kind) -> String {
    String::from_utf8(message.find(kind).unwrap().to_vec()).unwrap()
}

#[test]
fn the_sample_request_is_read_and_its_signature_holds() {
    let datagram = bytes(REQUEST);
    let message = Message::parse(&datagram).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, BINDING));
    assert_eq!(value_of(&message, Kind::SOFTWARE), "STUN test client");
    assert_eq!(value_of(&message, Kind::USERNAME), "evtj:h6vY");
    assert!(message.is_signed_by(&PASSWORD));
    assert!(!message.is_signed_by(&Key::sha1(b"VOkJxbRl1RmTxUk/WvJxBT")));
}

#[test]
fn the_sample_responses_tell_the_addresses() {
    for (hex, address) in
        [(IPV4_RESPONSE, "192.0.2.1:32853"), (IPV6_RESPONSE, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
    {
        let datagram = bytes(hex);
        let message = Message::parse(&datagram).unwrap();
        assert_eq!(message.class(), Class::Success);
        assert_eq!(value_of(&message, Kind::SOFTWARE), "test vector");
        assert_eq!(message.mapped_address(), Some(address.parse().unwrap()));
        assert!(message.is_signed_by(&PASSWORD));
    }
}

#[test]
fn the_long_term_request_is_signed_by_the_md5_of_name_realm_and_password() {
    let datagram = bytes(LONG_TERM_REQUEST);
    let message = Message::parse(&datagram).unwrap();
    assert_eq!(value_of(&message, Kind::USERNAME), "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}");
    // MD5("\u{30DE}...\u{30B9}:example.org:TheMatrIX"), made with another program.
    assert!(message.is_signed_by(&Key::sha1(&bytes("e8ca7ad59d5eb0518e312911d2dab2a9"))));
}

#[test]
fn a_flipped_bit_breaks_the_signature_or_the_checksum() {
    let datagram = bytes(IPV4_RESPONSE);
    for bit in 0..datagram.len() * 8 {
        let mut broken = datagram.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        let holds = Message::parse(&broken).is_ok_and(|message| message.is_signed_by(&PASSWORD));
        // The checksum, renamed or changed, follows the signature and is not under it.
        let of_the_checksum = bit >= (datagram.len() - 8) * 8;
        assert!(!holds || of_the_checksum, "bit {bit}");
    }
    let mut checksum = datagram;
    *checksum.last_mut().unwrap() ^= 1;
    assert_eq!(Message::parse(&checksum).unwrap_err(), ParseError::Fingerprint);
}

#[test]
fn what_we_make_is_the_sample_response_but_for_its_padding() {
    let made = Builder::new(
        Class::Success,
        BINDING,
        TransactionId(bytes("b7e7a701bc34d686fa87dfae").try_into().unwrap()),
    )
    // The RFC pads with spaces, we with zeros; as part of the value they are the same bytes.
    .attribute(Kind::SOFTWARE, b"test vector ")
    .mapped_address("192.0.2.1:32853".parse().unwrap())
    .finish();
    let sample = bytes(IPV4_RESPONSE);
    assert_eq!(made[24..], sample[24..made.len()]);
    let signed = Builder::new(Class::Success, BINDING, TransactionId([5; 12]))
        .sign(&PASSWORD)
        .sign(&Key::sha256(b"another"))
        .fingerprint()
        .finish();
    let message = Message::parse(&signed).unwrap();
    assert!(message.is_signed_by(&PASSWORD) && message.is_signed_by(&Key::sha256(b"another")));
}
