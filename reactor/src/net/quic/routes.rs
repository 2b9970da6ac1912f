//! Where datagrams go, and whose they are, when peers are known by who they are and not by where.
//!
//! quinn-proto tells its peers apart by address, and takes a change of it for a move that the peer made. Where a peer is
//! reached over a relay now and directly then, it is shown one *virtual* address for each peer, which never changes; the
//! [`Routes`] say what stands for it at the moment. Virtual addresses are of 100::/64, which nothing real has: routers
//! discard what comes from there or goes there (RFC 6666).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const PREFIX: u64 = 0x0100 << 48;

/// Any that is not 0, which quinn-proto refuses.
const PORT: u16 = 1;

/// What stands between an endpoint's connections and its socket. Its methods are called in the middle of the endpoint's
/// work: they never suspend, and don't call it.
pub(crate) trait Routes {
    /// The virtual address of the peer that is at `from`, if one is known to be.
    fn arrival(&self, from: SocketAddr) -> Option<SocketAddr>;

    /// Datagrams of `segment` bytes (the last may be shorter) for a virtual address: the real one that they have to be sent
    /// to, or `None` where they have been given to a relay, or there is no way at all.
    fn departure(&self, to: SocketAddr, datagrams: &[u8], segment: usize) -> Option<SocketAddr>;

    /// A control packet has come to the socket, at that address of ours where it is known; whether it was one of ours.
    fn on_control(&self, from: SocketAddr, to: Option<IpAddr>, packet: &[u8]) -> bool;
}

/// The virtual address of that number.
pub(crate) fn virtual_address(number: u64) -> SocketAddr {
    let bits = u128::from(PREFIX) << 64 | u128::from(number);
    SocketAddr::new(Ipv6Addr::from_bits(bits).into(), PORT)
}

/// The number of a virtual address; `None` for any other.
pub(crate) fn virtual_number(ip: IpAddr) -> Option<u64> {
    let IpAddr::V6(ip) = ip else { return None };
    let bits = ip.to_bits();
    ((bits >> 64) as u64 == PREFIX).then_some(bits as u64)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read, Write};
    use std::rc::Rc;
    use std::time::Duration;

    use super::super::Endpoint;
    use super::*;
    use crate::cell::RefCell;
    use crate::crypto::Identity;
    use crate::net::tls::Expect;
    use crate::{sleep, spawn};

    /// Routes that keep all that departs, for whoever carries it on.
    #[derive(Default)]
    struct Kept(RefCell<Vec<Vec<u8>>>);

    impl Routes for Kept {
        fn arrival(&self, _: SocketAddr) -> Option<SocketAddr> {
            None
        }

        fn departure(&self, _: SocketAddr, datagrams: &[u8], segment: usize) -> Option<SocketAddr> {
            self.0.borrow_mut().extend(datagrams.chunks(segment.max(1)).map(<[u8]>::to_vec));
            None
        }

        fn on_control(&self, _: SocketAddr, _: Option<IpAddr>, _: &[u8]) -> bool {
            false
        }
    }

    #[test]
    fn what_is_handed_on_under_another_name_does_not_move_a_connection() {
        crate::run(|| {
            let [(one, from_one), (two, from_two)] = [1, 2].map(|number| {
                let identity = Rc::new(Identity::from_seed(&[number; 32]));
                let endpoint = Endpoint::bind("127.0.0.1:0".parse().unwrap(), &identity).unwrap();
                let kept = Rc::new(Kept::default());
                endpoint.set_routes(kept.clone());
                (endpoint, kept)
            });
            // The relay: under which name the acceptor gets what the dialler sends.
            let name = Rc::new(Cell::new(1));
            let carrying = {
                let (one, two, name) = (one.downgrade(), two.downgrade(), name.clone());
                spawn(move || {
                    loop {
                        for datagram in from_one.0.take() {
                            two.on_datagram(virtual_address(name.get()), &datagram);
                        }
                        for datagram in from_two.0.take() {
                            one.on_datagram(virtual_address(2), &datagram);
                        }
                        sleep(Duration::from_millis(1));
                    }
                })
            };
            let dialled = one.dial(virtual_address(2), Expect::Any).unwrap();
            let accepted = two.accept().unwrap();
            assert_eq!(accepted.remote_addr(), virtual_address(1));
            name.set(3);
            let mut stream = &dialled.open().unwrap();
            stream.write_all(b"said under another's name").unwrap();
            sleep(Duration::from_millis(300));
            assert_eq!(accepted.remote_addr(), virtual_address(1), "it has not moved");
            name.set(1);
            let mut said = [0; 25];
            (&accepted.accept().unwrap()).read_exact(&mut said).unwrap();
            assert_eq!(&said, b"said under another's name", "and nothing is lost");
            assert_eq!(accepted.remote_addr(), virtual_address(1));
            carrying.terminate();
        });
    }

    #[test]
    fn virtual_addresses_are_told_from_real_ones() {
        for number in [0, 1, u64::MAX] {
            let address = virtual_address(number);
            assert_eq!(virtual_number(address.ip()), Some(number));
        }
        assert_eq!(virtual_address(7).to_string(), "[100::7]:1");
        for real in ["192.0.2.1", "::1", "::ffff:192.0.2.1", "100:0:0:1::7", "fe80::1", "2001:db8::1"] {
            assert_eq!(virtual_number(real.parse().unwrap()), None, "{real}");
        }
    }
}
