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

/// Interfaces that are looked at: a machine with containers has many, and a person's network is among the first.
const INTERFACES_MAX: usize = 16;

/// A table that is longer is read so far.
const TABLE_BYTES_MAX: u64 = 64 << 10;

/// An interface of this machine, by the number that the kernel has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface(u32);

impl Interface {
    /// Those by which this machine is in a network with others, over IPv4.
    ///
    /// # Errors
    /// When the kernel's table of routes can't be read.
    ///
    /// # Suspends
    /// While it is read, on another thread.
    pub fn all() -> io::Result<Vec<Interface>> {
        crate::offload(|| {
            let mut table = String::new();
            File::open("/proc/net/route")?.take(TABLE_BYTES_MAX).read_to_string(&mut table)?;
            let socket = std::net::UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
            // One that has gone since is none.
            let index = |name: &&str| name_to_index(&socket, name).ok().map(Interface);
            Ok(on_link(&table).iter().filter_map(index).collect())
        })
    }
}

/// The names of the interfaces at which there is a network, in a table as `/proc/net/route` shows it, each once.
fn on_link(table: &str) -> Vec<&str> {
    /// The route can be used.
    const UP: u32 = 1;
    let mut names = Vec::new();
    for line in table.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(name), Some(_), Some(gateway), Some(flags)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let number = |digits: &str| u32::from_str_radix(digits, 16).ok();
        let is_network = number(gateway) == Some(0) && number(flags).is_some_and(|flags| flags & UP != 0);
        if is_network && name != "lo" && !names.contains(&name) && names.len() < INTERFACES_MAX {
            names.push(name);
        }
    }
    names
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
    fn an_interface_with_a_network_is_listed_once_and_one_that_only_leads_on_is_not() {
        let table = "Iface\tDestination\tGateway\tFlags\n\
            eth0\t00000000\t0101A8C0\t0003\t0\n\
            eth0\t0001A8C0\t00000000\t0001\t0\n\
            eth0\t0002A8C0\t00000000\t0001\t0\n\
            wlan0\t0003A8C0\t00000000\t0000\t0\n\
            lo\t0000007F\t00000000\t0001\t0\n\
            br0\t0004A8C0\t00000000\t0001\t0\n";
        assert_eq!(on_link(table), ["eth0", "br0"]);
        assert_eq!(on_link("eth0\n\u{fffd} a b c\n"), Vec::<&str>::new());
        let many: String = (0..100).map(|number| format!("i{number}\t0\t0\t1\n")).collect();
        assert_eq!(on_link(&many).len(), INTERFACES_MAX);
    }
}
