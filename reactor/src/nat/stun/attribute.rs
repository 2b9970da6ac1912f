//! What a message carries: attributes of a kind and a value, and the values that we read and write.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::message::{MAGIC_COOKIE, TransactionId};

/// What an attribute is about. Kinds below 0x8000 must be understood by who reads them; the others may be passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u16);

impl Kind {
    /// The sender's address, in the clear: what servers of RFC 3489 answer with.
    pub const MAPPED_ADDRESS: Kind = Kind(0x0001);
    /// From where the answer is to come (RFC 5780): a [`Change`].
    pub const CHANGE_REQUEST: Kind = Kind(0x0003);
    /// Who signs the message.
    pub const USERNAME: Kind = Kind(0x0006);
    /// The signature by HMAC-SHA1, over all before it.
    pub const MESSAGE_INTEGRITY: Kind = Kind(0x0008);
    /// What was wrong with a request: a code and a text.
    pub const ERROR_CODE: Kind = Kind(0x0009);
    /// Which kinds the server did not understand.
    pub const UNKNOWN_ATTRIBUTES: Kind = Kind(0x000a);
    /// The signature by HMAC-SHA256.
    pub const MESSAGE_INTEGRITY_SHA256: Kind = Kind(0x001c);
    /// The sender's address, XORed with the cookie and the transaction.
    pub const XOR_MAPPED_ADDRESS: Kind = Kind(0x0020);
    /// The program that made the message.
    pub const SOFTWARE: Kind = Kind(0x8022);
    /// A checksum that tells STUN from what else comes to the port.
    pub const FINGERPRINT: Kind = Kind(0x8028);
    /// From where the answer was sent (RFC 5780).
    pub const RESPONSE_ORIGIN: Kind = Kind(0x802b);
    /// The server's other address and port (RFC 5780).
    pub const OTHER_ADDRESS: Kind = Kind(0x802c);

    /// Whether who does not know the kind has to refuse the message.
    pub fn is_required(self) -> bool {
        self.0 < 0x8000
    }

    /// Whether it is one of those above. Where one is not expected it is passed over (RFC 8489, section 6.3).
    pub fn is_known(self) -> bool {
        const KNOWN: [Kind; 12] = [
            Kind::MAPPED_ADDRESS,
            Kind::CHANGE_REQUEST,
            Kind::USERNAME,
            Kind::MESSAGE_INTEGRITY,
            Kind::ERROR_CODE,
            Kind::UNKNOWN_ATTRIBUTES,
            Kind::MESSAGE_INTEGRITY_SHA256,
            Kind::XOR_MAPPED_ADDRESS,
            Kind::SOFTWARE,
            Kind::FINGERPRINT,
            Kind::RESPONSE_ORIGIN,
            Kind::OTHER_ADDRESS,
        ];
        KNOWN.contains(&self)
    }
}

/// From where a server is asked to answer: the value of [`Kind::CHANGE_REQUEST`] (RFC 5780, section 7.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// From its other address.
    pub address: bool,
    /// From its other port.
    pub port: bool,
}

impl Change {
    /// Where the packet came to.
    pub const NONE: Change = Change { address: false, port: false };
    /// From the same address, but the other port.
    pub const PORT: Change = Change { address: false, port: true };
    /// From the other address and the other port.
    pub const BOTH: Change = Change { address: true, port: true };

    pub(super) fn encode(self) -> [u8; 4] {
        (u32::from(self.address) << 2 | u32::from(self.port) << 1).to_be_bytes()
    }

    /// `None` when the value has another size. Bits that mean nothing are ignored, as the RFC says.
    pub(super) fn decode(value: &[u8]) -> Option<Change> {
        let bits = u32::from_be_bytes(value.try_into().ok()?);
        Some(Change { address: bits & 4 != 0, port: bits & 2 != 0 })
    }
}

/// The family's number in an address (RFC 8489, section 14.1).
const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// The value of an address attribute: a zero, the family, the port, the address.
pub(super) fn encode_address(address: SocketAddr) -> Vec<u8> {
    let mut value = vec![0, if address.is_ipv4() { IPV4 } else { IPV6 }];
    value.extend(address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => value.extend(ip.octets()),
        IpAddr::V6(ip) => value.extend(ip.octets()),
    }
    value
}

/// The address in a value; `None` when it is none.
pub(super) fn decode_address(value: &[u8]) -> Option<SocketAddr> {
    let (&[_, family, high, low], address) = value.split_first_chunk::<4>()?;
    let ip = match family {
        IPV4 => Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into(),
        IPV6 => Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
}

/// The address by which its owner calls itself: a socket for both families sees IPv4 as `::ffff:a.b.c.d`.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether an address can be one machine's at all.
pub(crate) fn is_of_one_machine(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let is_many = ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    address.port() != 0 && !ip.is_unspecified() && !is_many
}

/// The same address with port and address XORed by the cookie and the transaction: there and back again.
pub(super) fn mask(address: SocketAddr, transaction: &TransactionId) -> SocketAddr {
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = match address.ip() {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) ^ MAGIC_COOKIE).into(),
        IpAddr::V6(ip) => {
            let mut pad = [0; 16];
            pad[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
            pad[4..].copy_from_slice(&transaction.0);
            Ipv6Addr::from(u128::from(ip) ^ u128::from_be_bytes(pad)).into()
        }
    };
    SocketAddr::new(ip, port)
}

/// The value of an error: 21 bits of zeros, the hundreds, the rest, and a text for people.
pub(super) fn encode_error(code: u16, reason: &str) -> Vec<u8> {
    let mut value = vec![0, 0, (code / 100) as u8, (code % 100) as u8];
    value.extend(reason.as_bytes());
    value
}

/// The code in an error's value, 300 to 699; `None` when it is none.
pub(super) fn decode_error(value: &[u8]) -> Option<u16> {
    let (&[_, _, class, number], _) = value.split_first_chunk::<4>()?;
    let class = class & 7;
    ((3..=6).contains(&class) && number < 100).then(|| u16::from(class) * 100 + u16::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_come_back() {
        let transaction = TransactionId([7; 12]);
        for address in ["192.0.2.1:32853", "0.0.0.0:0", "[2001:db8::1]:65535"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(decode_address(&encode_address(address)), Some(address));
            assert_ne!(mask(address, &transaction), address);
            assert_eq!(mask(mask(address, &transaction), &transaction), address);
        }
    }

    #[test]
    fn an_address_of_another_family_or_size_is_none() {
        for value in [
            &[][..],
            &[0, 1, 0, 0],
            &[0, 1, 0, 0, 1, 2, 3],
            &[0, 2, 0, 0, 1, 2, 3, 4],
            &[0, 3, 0, 0, 1, 2, 3, 4],
        ] {
            assert_eq!(decode_address(value), None, "{value:?}");
        }
    }

    #[test]
    fn an_address_of_nobody_or_of_many_is_of_no_machine() {
        for address in [
            "203.0.113.7:0",
            "0.0.0.0:5",
            "224.0.0.1:5",
            "255.255.255.255:5",
            "[::]:5",
            "[ff02::1]:5",
            "[::ffff:0.0.0.0]:5",
            "[::ffff:224.0.0.1]:5",
        ] {
            assert!(!is_of_one_machine(address.parse().unwrap()), "{address}");
        }
        assert!(is_of_one_machine("203.0.113.7:5".parse().unwrap()));
        let mapped = "[::ffff:203.0.113.7]:5".parse().unwrap();
        assert_eq!(canonical(mapped), "203.0.113.7:5".parse().unwrap());
    }

    #[test]
    fn a_code_outside_of_300_to_699_is_no_error() {
        assert_eq!(decode_error(&encode_error(420, "Unknown Attribute")), Some(420));
        assert_eq!(decode_error(&[0, 0, 2, 0]), None);
        assert_eq!(decode_error(&[0, 0, 7, 0]), None);
        assert_eq!(decode_error(&[0, 0, 4, 100]), None);
        assert_eq!(decode_error(&[0, 0, 4]), None);
    }

    #[test]
    fn a_change_comes_back_whatever_its_other_bits_say() {
        for change in [Change::NONE, Change::PORT, Change::BOTH, Change { address: true, port: false }] {
            assert_eq!(Change::decode(&change.encode()), Some(change));
        }
        assert_eq!(Change::decode(&[0xff, 0xff, 0xff, 0xf9]), Some(Change::NONE));
        assert_eq!(Change::decode(&[0, 0, 6]), None);
    }
}
