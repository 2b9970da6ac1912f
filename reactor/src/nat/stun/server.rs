//! What a server answers: a function from a datagram and its sender to a datagram.
//!
//! A sender's address can be forged, so a server can be made to send to somebody who never asked. Three things bound the
//! harm: only requests are answered (so two servers can't be set upon each other), nothing is said twice, and an answer is
//! at most [`AMPLIFICATION_MAX`] times as long as its request. What would go beyond is left out, the least needed first.
//! What is not bounded is the rate: whoever forges addresses gets so much sent as long as he pays for a third of it.

use std::net::{IpAddr, SocketAddr};

use super::attribute::{Change, Kind, canonical, is_of_one_machine};
use super::build::Builder;
use super::message::{ATTRIBUTE_HEADER_BYTES, BINDING, Class, Message};

/// An answer is at most so many times as long as its request. The shortest request (20 bytes) then gets the address and,
/// over IPv4, the two of discovery; a factor of 3 is also what QUIC allows itself towards an unproved address (RFC 9000,
/// section 8.1).
pub const AMPLIFICATION_MAX: usize = 3;

/// The addresses and ports that a server of discovery answers from: two of each (RFC 5780, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origins {
    /// Two of the same family, as clients see them.
    pub addresses: [IpAddr; 2],
    /// Two ports, the same at both addresses.
    pub ports: [u16; 2],
}

/// One of the four places of a server of discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// At the second address.
    pub other_address: bool,
    /// At the second port.
    pub other_port: bool,
}

impl Place {
    /// All four.
    pub const ALL: [Place; 4] = [
        Place { other_address: false, other_port: false },
        Place { other_address: false, other_port: true },
        Place { other_address: true, other_port: false },
        Place { other_address: true, other_port: true },
    ];

    fn changed_by(self, change: Change) -> Place {
        Place {
            other_address: self.other_address ^ change.address,
            other_port: self.other_port ^ change.port,
        }
    }
}

impl Origins {
    /// The address of a place.
    pub fn at(&self, place: Place) -> SocketAddr {
        SocketAddr::new(
            self.addresses[usize::from(place.other_address)],
            self.ports[usize::from(place.other_port)],
        )
    }
}

/// What to answer to `datagram`, which `from` sent to the place `at`, and from where. `at` is `None` for a server with
/// one socket, which can't answer from elsewhere and does not say where it is.
///
/// `None` for what is no binding request: answers of others, other protocols, nonsense. Names and signatures are passed
/// over, since anyone may ask. Never suspends.
pub fn answer(
    datagram: &[u8],
    from: SocketAddr,
    at: Option<(&Origins, Place)>,
) -> Option<(Vec<u8>, Option<Place>)> {
    let request = Message::parse(datagram).ok()?;
    if request.class() != Class::Request || request.method() != BINDING || !is_of_one_machine(from) {
        return None;
    }
    let room = datagram.len() * AMPLIFICATION_MAX;
    let place = at.map(|(_, place)| place);
    let Some(change) = request.change() else {
        let error = Builder::new(Class::Error, BINDING, request.transaction()).error(400, "Bad Request");
        return Some((finish(error, room)?, place));
    };
    let mut unknown: Vec<Kind> = request
        .attributes()
        .map(|(kind, _)| kind)
        .filter(|kind| kind.is_required() && !kind.is_known())
        .collect();
    if at.is_none() && change != Change::NONE {
        // There is no other place to answer from (RFC 5780, section 6.1).
        unknown.push(Kind::CHANGE_REQUEST);
    }
    if !unknown.is_empty() {
        unknown.sort_unstable();
        unknown.dedup();
        let error = Builder::new(Class::Error, BINDING, request.transaction())
            .error(420, "Unknown Attribute")
            .unknown_attributes(&unknown);
        return Some((finish(error, room)?, place));
    }
    let mut success =
        Builder::new(Class::Success, BINDING, request.transaction()).mapped_address(canonical(from));
    let place = place.map(|place| place.changed_by(change));
    if let Some((origins, at)) = at {
        // What to ask next matters more than what can be seen from the packet's sender.
        let opposite = at.changed_by(Change::BOTH);
        success = add_if_room(success, Kind::OTHER_ADDRESS, origins.at(opposite), room);
        success = add_if_room(success, Kind::RESPONSE_ORIGIN, origins.at(at.changed_by(change)), room);
    }
    Some((finish(success, room)?, place))
}

fn add_if_room(message: Builder, kind: Kind, address: SocketAddr, room: usize) -> Builder {
    let value = if address.is_ipv4() { 8 } else { 20 };
    if message.size() + ATTRIBUTE_HEADER_BYTES + value <= room {
        message.address(kind, address)
    } else {
        message
    }
}

/// With the checksum, where there is room for it. `None` when even without it there is too little.
fn finish(message: Builder, room: usize) -> Option<Vec<u8>> {
    let checksum_bytes = ATTRIBUTE_HEADER_BYTES + 4;
    let message = if message.size() + checksum_bytes <= room { message.fingerprint() } else { message };
    (message.size() <= room).then(|| message.finish())
}

#[cfg(test)]
mod tests {
    use super::super::TransactionId;
    use super::*;

    const ID: TransactionId = TransactionId([4; 12]);

    fn origins() -> Origins {
        Origins {
            addresses: ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
            ports: [3478, 3479],
        }
    }

    fn client() -> SocketAddr {
        "203.0.113.7:50000".parse().unwrap()
    }

    fn request() -> Builder {
        Builder::new(Class::Request, BINDING, ID)
    }

    #[test]
    fn the_shortest_request_learns_its_address_and_the_servers_other_one() {
        let origins = origins();
        let (bytes, place) = answer(&request().finish(), client(), Some((&origins, Place::ALL[0]))).unwrap();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class(), message.transaction()), (Class::Success, ID));
        assert_eq!(message.mapped_address(), Some(client()));
        assert_eq!(message.address(Kind::OTHER_ADDRESS), Some("192.0.2.2:3479".parse().unwrap()));
        assert_eq!(message.address(Kind::RESPONSE_ORIGIN), Some("192.0.2.1:3478".parse().unwrap()));
        assert_eq!(place, Some(Place::ALL[0]));
    }

    #[test]
    fn every_change_from_every_place_leads_where_it_says() {
        let origins = origins();
        for at in Place::ALL {
            for change in [Change::NONE, Change::PORT, Change::BOTH, Change { address: true, port: false }] {
                let asked = request().change(change).finish();
                let (bytes, place) = answer(&asked, client(), Some((&origins, at))).unwrap();
                let place = place.unwrap();
                assert_eq!(place.other_address != at.other_address, change.address);
                assert_eq!(place.other_port != at.other_port, change.port);
                let message = Message::parse(&bytes).unwrap();
                assert_eq!(message.address(Kind::RESPONSE_ORIGIN), Some(origins.at(place)));
                let other = message.address(Kind::OTHER_ADDRESS).unwrap();
                assert!(other.ip() != origins.at(at).ip() && other.port() != origins.at(at).port());
            }
        }
    }

    #[test]
    fn a_server_with_one_socket_refuses_to_answer_from_elsewhere() {
        let (bytes, _) = answer(&request().change(Change::PORT).finish(), client(), None).unwrap();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class(), message.error_code()), (Class::Error, Some(420)));
        assert_eq!(message.find(Kind::UNKNOWN_ATTRIBUTES), Some(&[0, 3][..]));
        let (bytes, _) = answer(&request().change(Change::NONE).finish(), client(), None).unwrap();
        assert_eq!(Message::parse(&bytes).unwrap().mapped_address(), Some(client()));
    }

    #[test]
    fn attributes_that_must_be_understood_and_are_not_are_named_once_each() {
        let asked = request()
            .attribute(Kind(0x0027), &[0; 4])
            .attribute(Kind(0x0026), &[0; 4])
            .attribute(Kind(0x0027), &[0; 4])
            .attribute(Kind(0x9999), &[0; 4])
            .finish();
        let (bytes, _) = answer(&asked, client(), None).unwrap();
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.error_code(), Some(420));
        assert_eq!(message.find(Kind::UNKNOWN_ATTRIBUTES), Some(&[0, 0x26, 0, 0x27][..]));
    }

    #[test]
    fn attributes_that_are_known_and_not_expected_are_passed_over() {
        let asked = request().mapped_address(client()).error(420, "no").finish();
        let (bytes, _) = answer(&asked, client(), None).unwrap();
        assert_eq!(Message::parse(&bytes).unwrap().class(), Class::Success);
    }

    #[test]
    fn only_binding_requests_from_somewhere_are_answered() {
        for class in [Class::Success, Class::Error, Class::Indication] {
            assert_eq!(answer(&Builder::new(class, BINDING, ID).finish(), client(), None), None);
        }
        assert_eq!(answer(&Builder::new(Class::Request, 3, ID).finish(), client(), None), None);
        for from in ["0.0.0.0:5", "224.0.0.1:5", "203.0.113.7:0"] {
            assert_eq!(answer(&request().finish(), from.parse().unwrap(), None), None);
        }
        assert_eq!(answer(b"GET / HTTP/1.1\r\n\r\n", client(), None), None);
    }

    #[test]
    fn no_answer_is_longer_than_three_times_its_request() {
        let v6: Origins = Origins {
            addresses: ["2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap()],
            ports: [1, 2],
        };
        let (v4, from6) = (origins(), "[2001:db8::7]:9".parse().unwrap());
        let many = (0..50).fold(request(), |request, kind| request.attribute(Kind(0x100 + kind), &[]));
        for asked in [request(), request().fingerprint(), request().change(Change::BOTH), many] {
            let asked = asked.finish();
            for (from, origins) in [(client(), &v4), (from6, &v6)] {
                for at in [None, Some((origins, Place::ALL[0]))] {
                    let (bytes, _) = answer(&asked, from, at).unwrap();
                    assert!(
                        bytes.len() <= asked.len() * AMPLIFICATION_MAX,
                        "{} for {}",
                        bytes.len(),
                        asked.len()
                    );
                    assert!(Message::parse(&bytes).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_sender_on_a_socket_for_both_families_is_called_by_its_ipv4_address() {
        let from = "[::ffff:203.0.113.7]:50000".parse().unwrap();
        let (bytes, _) = answer(&request().finish(), from, None).unwrap();
        assert_eq!(Message::parse(&bytes).unwrap().mapped_address(), Some(client()));
    }
}
