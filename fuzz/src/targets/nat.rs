//! Parsers that packets from anywhere reach before anybody has proved who they are.

use std::net::{Ipv4Addr, SocketAddrV4};

use ::reactor::nat::PeerId;
use ::reactor::nat::mapping::{Port, Transport, default_route, igd, nat_pmp, pcp, ssdp};
use ::reactor::nat::peers::Message as PeerMessage;
use ::reactor::nat::relay::{Decoder, Frame, Refusal, Seat};
use ::reactor::nat::stun::{
    AMPLIFICATION_MAX, BINDING, Builder, Change, Class, HEADER_BYTES, Key, Kind, Message, Origins, Place,
    TransactionId, answer,
};
use ::reactor::net::{OWN_ADDRESSES_MAX, Told, addresses_told};

use crate::Target;

/// A STUN message into its attributes and back, and what a server says to it: never more than its factor.
pub const STUN: Target = Target {
    name: "stun",
    body: |data| {
        stun_message(data);
        // Few mutations leave the header's length as it was, and what is behind it would go unseen.
        let mut mended = data[..data.len() / 4 * 4].to_vec();
        if let Some((header, attributes)) = mended.split_at_mut_checked(HEADER_BYTES) {
            header[0] &= 3;
            header[2..4].copy_from_slice(&(attributes.len() as u16).to_be_bytes());
            header[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            stun_message(&mended);
        }
    },
    seeds: || {
        let request = || Builder::new(Class::Request, BINDING, TransactionId([7; 12]));
        let success = Builder::new(Class::Success, BINDING, TransactionId([8; 12]));
        let address = "192.0.2.1:32853".parse().expect("a constant");
        let signed =
            request().attribute(Kind::USERNAME, b"name").sign(&Key::sha1(b"key")).sign(&Key::sha256(b"key"));
        vec![
            request().finish(),
            request().change(Change::BOTH).fingerprint().finish(),
            signed.fingerprint().finish(),
            success.mapped_address(address).address(Kind::OTHER_ADDRESS, address).finish(),
            request().error(420, "Unknown Attribute").unknown_attributes(&[Kind(0x26), Kind(0x27)]).finish(),
        ]
    },
};

fn stun_message(data: &[u8]) {
    let ports = [3478, 3479];
    let v4 = Origins { addresses: [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()], ports };
    let v6 = Origins { addresses: [[1; 16].into(), [2; 16].into()], ports };
    for (from, at) in [
        ("203.0.113.7:5", None),
        ("203.0.113.7:5", Some((&v4, Place::ALL[1]))),
        ("[2001:db8::7]:5", Some((&v6, Place::ALL[2]))),
    ] {
        if let Some((bytes, _)) = answer(data, from.parse().expect("a constant"), at) {
            assert!(bytes.len() <= data.len() * AMPLIFICATION_MAX);
            let said = Message::parse(&bytes).expect("what we encode decodes");
            assert!(matches!(said.class(), Class::Success | Class::Error));
        }
    }
    let Ok(message) = Message::parse(data) else { return };
    let _ = (message.mapped_address(), message.error_code(), message.change());
    let _ = (message.is_signed_by(&Key::sha1(b"key")), message.is_signed_by(&Key::sha256(b"key")));
    let empty = Builder::new(message.class(), message.method(), message.transaction());
    let again = message.attributes().fold(empty, |builder, (kind, value)| builder.attribute(kind, value));
    let again = again.finish();
    assert!(again.len() <= data.len());
    let found = Message::parse(&again).expect("what we encode decodes");
    assert!(found.attributes().eq(message.attributes()));
}

/// What a relay's client or a stranger sends, cut anywhere: frames that encode to the very bytes they came from, or an end.
pub const RELAY: Target = Target {
    name: "relay",
    body: |data| {
        let whole = relay_frames(data, data.len().max(1));
        assert_eq!(whole, relay_frames(data, 1), "where it is cut makes no difference");
        assert!(data.starts_with(&whole));
    },
    seeds: || {
        let (seat, mut bytes) = (Seat { peer: PeerId([7; 32]), number: 9 }, Vec::new());
        let frames = [
            Frame::Hello { number: 9, credential: b"passport" },
            Frame::Welcome { seen: "192.0.2.1:443".parse().expect("a constant") },
            Frame::Refused(Refusal::Full),
            Frame::Datagram { seat, bytes: b"datagram" },
            Frame::Absent { seat },
            Frame::Ping,
            Frame::Pong,
        ];
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        vec![bytes]
    },
};

fn relay_frames(data: &[u8], size: usize) -> Vec<u8> {
    let (mut decoder, mut again) = (Decoder::default(), Vec::new());
    for part in data.chunks(size) {
        decoder.push(part);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frame.encode(&mut again),
                Ok(None) => break,
                Err(_) => return again,
            }
        }
    }
    again
}

/// What a peer says about ways, once it is opened: a message that encodes to the very bytes it came from, or none.
pub const PEER_MESSAGE: Target = Target {
    name: "peer_message",
    body: |data| {
        let Some(message) = PeerMessage::parse(data) else { return };
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(again, data);
    },
    seeds: || {
        let addresses = ["192.0.2.1:443", "[2001:db8::1]:443"].map(|text| text.parse().expect("a constant"));
        let messages = [
            PeerMessage::Ping { transaction: 7, padding: 3 },
            PeerMessage::Pong { transaction: 7, padding: 0 },
            PeerMessage::Candidates { has_heard: true, udp: addresses.to_vec(), tcp: addresses.to_vec() },
            PeerMessage::Guess { at: addresses[1], is_answer: true },
        ];
        let encode = |message: &PeerMessage| {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            bytes
        };
        messages.iter().map(encode).collect()
    },
};

/// What the kernel, or who passes for it, tells of this machine's addresses: no more than fit, and in the end nothing is left.
pub const OWN_ADDRESSES: Target = Target {
    name: "own_addresses",
    body: |data| {
        let mut found = Vec::new();
        let told = addresses_told(data, 7, &mut found);
        assert!(found.len() <= OWN_ADDRESSES_MAX.min(data.len() / 28));
        let usable = found.iter().filter(|own| own.is_usable());
        assert!(usable.clone().all(|own| !own.ip.is_loopback() && !own.ip.is_unspecified()));
        // What was told is told again in what begins with it, unless it has ended.
        if told == Told::More {
            let (count, mut again) = (found.len(), Vec::new());
            addresses_told(&[data, data].concat(), 7, &mut again);
            assert!(again.len() >= count && again[..count] == found);
        }
    },
    seeds: || {
        let message = |kind: u16, body: &[u8]| {
            let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&[0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend_from_slice(body);
            bytes
        };
        // An address of each family at the second interface, with its flags.
        let v4 = [
            &[2_u8, 24, 0x80, 0, 2, 0, 0, 0][..],
            &[8, 0, 1, 0, 192, 168, 1, 2],
            &[8, 0, 8, 0, 0x80, 0, 0, 0],
        ];
        let of_v6 = [&[20_u8, 0, 1, 0, 0x2a][..], &[0; 14], &[7]].concat();
        let v6 = [&[10_u8, 64, 1, 0, 2, 0, 0, 0][..], &of_v6, &[8, 0, 8, 0, 1, 3, 0, 0]];
        vec![[message(20, &v4.concat()), message(20, &v6.concat())].concat(), message(3, &[0; 4])]
    },
};

/// What a router, or who sends in its name, says by PCP and NAT-PMP: nothing is granted to a question but by its own answer.
pub const PORT_MAPPING: Target = Target {
    name: "port_mapping",
    body: |data| {
        let port = Port { transport: Transport::Udp, number: 4701 };
        let suggested = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 4701);
        let own = Ipv4Addr::new(192, 168, 1, 11);
        let asked = pcp::MapRequest { nonce: [7; 12], own, port, lifetime_s: 3_600, suggested };
        if let Some(answer) = pcp::Answer::parse(data) {
            assert!(data.len() <= pcp::BYTES_MAX);
            if let Some(Ok(mapped)) = asked.answered_by(&answer) {
                let (nonce, about, granted) = answer.map.expect("what is granted is told");
                assert_eq!((nonce, about, granted), ([7; 12], port, mapped));
                assert_eq!(data[24..36], [7; 12]);
            }
        }
        if let Some(answer) = nat_pmp::Answer::parse(data) {
            assert!(data[0] == 0 && data[1] >= 128);
            assert!(answer.body.is_none() || answer.result == 0);
        }
    },
    seeds: || {
        let mut mapped = vec![2, 0x81, 0, 0, 0, 0, 0x0e, 0x10, 0, 0, 0, 9];
        mapped.resize(24, 0);
        mapped.extend([7; 12]);
        mapped.extend([17, 0, 0, 0, 0x12, 0x5d, 0x12, 0x5d]);
        mapped.extend(Ipv4Addr::new(11, 0, 1, 2).to_ipv6_mapped().octets());
        vec![
            mapped,
            vec![0, 128, 0, 0, 0, 0, 0, 9, 11, 0, 1, 2],
            vec![0, 129, 0, 0, 0, 0, 0, 9, 0x12, 0x5d, 0x12, 0x5e, 0, 0, 0x0e, 0x10],
            vec![0, 128, 0, 1, 0, 0, 0, 9],
        ]
    },
};

/// What a router answers by UPnP, and the kernel's table of routes: whatever it names is at the router's own address.
pub const UPNP: Target = Target {
    name: "upnp",
    body: |data| {
        let router = Ipv4Addr::new(192, 168, 1, 1);
        let is_plain = |at: &ssdp::Location| {
            assert!(at.port != 0 && at.path.starts_with('/') && !at.path.starts_with("//"));
            assert!(at.path.bytes().all(|byte| byte.is_ascii_graphic()));
        };
        ssdp::location(data, router).iter().for_each(is_plain);
        let text = String::from_utf8_lossy(data);
        let at = ssdp::Location { port: 5000, path: "/upnp/root.xml".into() };
        let services = igd::services(&text, &at, router);
        assert!(services.len() <= 4);
        services.iter().for_each(|service| is_plain(&service.control));
        let _ = (igd::external_address(&text), igd::entry(&text), igd::error_code(&text));
        assert!(default_route(&text).is_none_or(|gateway| !gateway.is_unspecified()));
    },
    seeds: || {
        let texts = [
            "HTTP/1.1 200 OK\r\nST: x\r\nLOCATION: http://192.168.1.1:5000/root.xml\r\n\r\n",
            "<?xml version=\"1.0\"?><root><!-- x --><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1\
             </serviceType><controlURL>ctl?a=1&amp;b=2</controlURL></service></root>",
            "<s:Body><u:R><NewExternalIPAddress>11.0.1.2</NewExternalIPAddress><NewInternalPort>7</NewInternalPort>\
             <NewInternalClient><![CDATA[192.168.1.11]]></NewInternalClient><errorCode>718</errorCode><e/></u:R></s:Body>",
            "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n",
        ];
        texts.map(|text| text.as_bytes().to_vec()).to_vec()
    },
};
