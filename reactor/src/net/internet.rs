//! Which addresses are of the internet, and which mean something only where they are used.
//!
//! What it is not: a promise that packets do come from anywhere. A firewall may be between.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether packets for an address may come from anywhere (IANA's registries of special addresses). Never suspends.
#[must_use]
pub fn is_of_the_internet(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_of_the_v4_internet(address),
        // All that is given out so far, but for what is kept for examples.
        IpAddr::V6(address) => {
            let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
            address.segments()[0] & 0xe000 == 0x2000
                && address.segments()[..2] != documentation.segments()[..2]
        }
    }
}

fn is_of_the_v4_internet(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        // A provider's own (RFC 6598), measuring (RFC 2544), and what is given to protocols (RFC 6890).
        || (first == 100 && second & 0xc0 == 64)
        || (first == 198 && second & 0xfe == 18)
        || (first, second, third) == (192, 0, 0);
    !is_special && (1..224).contains(&first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_shared_or_kept_for_a_purpose_is_not_of_the_internet() {
        for inside in [
            "10.0.0.1",
            "100.64.0.2",
            "100.127.255.255",
            "192.168.1.1",
            "0.0.0.0",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_of_the_internet(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["11.0.0.10", "100.63.255.255", "100.128.0.1", "2a01:4f8::1"] {
            assert!(is_of_the_internet(outside.parse().unwrap()), "{outside}");
        }
    }
}
