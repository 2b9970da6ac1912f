//! Groups of machines in one's own networks, who get what is sent to the group's address (RFC 1112).
//!
//! A packet to a group leaves by one interface, which has to be named, and goes no further than that network, since its time to
//! live is 1 unless changed. In a simulation there are no groups, and the methods do nothing.
//!
//! What it is not: IPv6, whose networks have other groups.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};

use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt;

use super::UdpSocket;

/// Interfaces and networks that are looked at: a machine with containers has many, and a person's network is among the first.
const INTERFACES_MAX: usize = 16;
const NETWORKS_MAX: usize = 64;

/// A network with fewer bits is a way to everywhere, and not one's own.
const BITS_MIN: u32 = 8;

/// A table that is longer is read so far.
const TABLE_BYTES_MAX: u64 = 64 << 10;

/// An interface of this machine, by the number that the kernel has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface(u32);

/// A network that this machine is in with others, over IPv4: they are reached without a router between, and have groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalNetwork {
    /// By which it is in it.
    pub interface: Interface,
    address: Ipv4Addr,
    mask: Ipv4Addr,
}

impl LocalNetwork {
    /// Those that there are now.
    ///
    /// # Errors
    /// When the kernel's table of routes can't be read.
    ///
    /// # Suspends
    /// While it is read, on another thread.
    pub fn all() -> io::Result<Vec<LocalNetwork>> {
        crate::offload(|| {
            let mut table = String::new();
            File::open("/proc/net/route")?.take(TABLE_BYTES_MAX).read_to_string(&mut table)?;
            let socket = std::net::UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
            let network = |&(name, address, mask): &(&str, Ipv4Addr, Ipv4Addr)| {
                // One that has gone since is none.
                let interface = name_to_index(&socket, name).ok().map(Interface)?;
                has_groups(name).then_some(LocalNetwork { interface, address, mask })
            };
            Ok(on_link(&table).iter().filter_map(network).collect())
        })
    }

    /// Whether that address is in it. Never suspends.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address & self.mask == self.address & self.mask
    }
}

/// Whether packets for a group may leave by that interface, as far as the kernel says: to a tunnel they would go to each peer.
fn has_groups(name: &str) -> bool {
    /// `IFF_MULTICAST` (Linux's `if.h`).
    const MULTICAST: u32 = 0x1000;
    let flags = std::fs::read_to_string(format!("/sys/class/net/{name}/flags")).ok();
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).ok());
    flags.is_none_or(|flags| flags & MULTICAST != 0)
}

/// The networks in a table as `/proc/net/route` shows it: the name of the interface, the address, and the mask.
fn on_link(table: &str) -> Vec<(&str, Ipv4Addr, Ipv4Addr)> {
    /// The route can be used.
    const UP: u32 = 1;
    let mut names = Vec::new();
    let mut networks = Vec::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(8).collect();
        // Between flags and mask: references, uses, metric.
        let &[name, address, gateway, flags, _, _, _, mask] = &fields[..] else { continue };
        let number = |digits: &str| u32::from_str_radix(digits, 16).ok();
        // The bytes are as in the packet, read as a number of this machine's.
        let address_of = |digits: &str| number(digits).map(|number| Ipv4Addr::from(number.to_ne_bytes()));
        let (Some(address), Some(mask)) = (address_of(address), address_of(mask)) else { continue };
        let is_network = number(gateway) == Some(0) && number(flags).is_some_and(|flags| flags & UP != 0);
        // A name of the kernel's has neither slashes nor dots alone.
        let is_name = name != "lo" && !name.contains('/') && !name.starts_with('.');
        if !is_network || !is_name || mask.to_bits().leading_ones() < BITS_MIN {
            continue;
        }
        if !names.contains(&name) {
            names.push(name);
        }
        if names.len() <= INTERFACES_MAX && networks.len() < NETWORKS_MAX {
            networks.push((name, address, mask));
        }
    }
    networks
}

impl UdpSocket {
    /// Takes what is sent to the group by that interface, from now on. Never suspends.
    ///
    /// # Errors
    /// `AddrInUse` if it does already; when the interface is gone.
    pub fn join_group(&self, group: Ipv4Addr, interface: Interface) -> io::Result<()> {
        if self.simulated().is_some() {
            return Ok(());
        }
        let any = Ipv4Addr::UNSPECIFIED;
        Ok(sockopt::set_ip_add_membership_with_ifindex(self.descriptor(), &group, &any, interface.0)?)
    }

    /// Sends what goes to groups by that interface, from now on. Never suspends.
    ///
    /// # Errors
    /// When the interface is gone.
    pub fn set_group_interface(&self, interface: Interface) -> io::Result<()> {
        if self.simulated().is_some() {
            return Ok(());
        }
        let any = Ipv4Addr::UNSPECIFIED;
        Ok(sockopt::set_ip_multicast_if_with_ifindex(self.descriptor(), &any, &any, interface.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_what_lies_at_an_interface_and_no_way_that_leads_on() {
        let number = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line = |name: &str, address: [u8; 4], gateway: [u8; 4], flags: &str, mask: [u8; 4]| {
            let [address, gateway, mask] = [address, gateway, mask].map(number);
            format!("{name}\t{address}\t{gateway}\t{flags}\t0\t0\t100\t{mask}\t0\t0\t0\n")
        };
        let (none, lan) = ([0; 4], [255, 255, 255, 0]);
        let table = [
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n",
            &line("eth0", none, [192, 168, 1, 1], "0003", none),
            &line("eth0", [192, 168, 1, 0], none, "0001", lan),
            &line("eth0", [192, 168, 2, 0], none, "0001", lan),
            &line("wlan0", [192, 168, 3, 0], none, "0000", lan),
            &line("lo", [127, 0, 0, 0], none, "0001", [255, 0, 0, 0]),
            // Everything, or half of it, through a tunnel.
            &line("ppp0", none, none, "0001", none),
            &line("tun0", [128, 0, 0, 0], none, "0001", [128, 0, 0, 0]),
            &line("br0", [10, 0, 0, 0], none, "0001", [255, 0, 0, 0]),
        ]
        .concat();
        let found = on_link(&table);
        let shown: Vec<String> =
            found.iter().map(|(name, address, mask)| format!("{name} {address} {mask}")).collect();
        assert_eq!(
            shown,
            ["eth0 192.168.1.0 255.255.255.0", "eth0 192.168.2.0 255.255.255.0", "br0 10.0.0.0 255.0.0.0"]
        );
        let (_, address, mask) = found[0];
        let network = LocalNetwork { interface: Interface(1), address, mask };
        assert!(network.contains(Ipv4Addr::new(192, 168, 1, 77)));
        for elsewhere in [[192, 168, 2, 77], [127, 0, 0, 1], [11, 0, 0, 10]] {
            assert!(!network.contains(elsewhere.into()), "{elsewhere:?}");
        }
    }

    #[test]
    fn of_a_table_that_is_none_nothing_is_read_and_of_a_long_one_not_all() {
        assert_eq!(on_link("eth0\n\u{fffd} a b c d e f g\n../x 0 0 1 0 0 0 00FFFFFF\n"), []);
        let line = |name: u32| format!("i{name} 0 0 1 0 0 0 FFFFFFFF\n");
        assert_eq!(on_link(&(0..100).map(line).collect::<String>()).len(), INTERFACES_MAX);
        assert_eq!(on_link(&(0..100).map(|_| line(1)).collect::<String>()).len(), NETWORKS_MAX);
    }
}
