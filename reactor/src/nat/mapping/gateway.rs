//! Which router packets for the internet leave by.
//!
//! The kernel's table of IPv4 routes is read as text, `/proc/net/route`: it is there wherever there are routes, costs no socket,
//! and its parsing is pure.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Where a router is asked for mappings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Where it is, in our own network.
    pub address: Ipv4Addr,
    /// Its port for PCP and NAT-PMP.
    pub control_port: u16,
    /// Where it is asked whether it speaks UPnP.
    pub ssdp: SocketAddrV4,
}

/// The port of PCP and NAT-PMP (RFC 6887, section 19).
const CONTROL_PORT: u16 = 5351;

/// The port of SSDP (UPnP Device Architecture 1.1, section 1).
const SSDP_PORT: u16 = 1900;

/// A table that is longer is read so far: a default route is among its first lines.
const TABLE_BYTES_MAX: u64 = 64 << 10;

impl Gateway {
    /// The router at that address, asked at the usual ports.
    #[must_use]
    pub fn at(address: Ipv4Addr) -> Gateway {
        let ssdp = SocketAddrV4::new(address, SSDP_PORT);
        Gateway { address, control_port: CONTROL_PORT, ssdp }
    }

    /// The one by which packets leave for everywhere; `None` if there is none.
    ///
    /// # Suspends
    /// While the table is read, on another thread.
    #[must_use]
    pub fn of_this_machine() -> Option<Gateway> {
        let read = || {
            let mut table = String::new();
            File::open("/proc/net/route").ok()?.take(TABLE_BYTES_MAX).read_to_string(&mut table).ok()?;
            default_route(&table)
        };
        crate::offload(read).map(Gateway::at)
    }
}

/// The gateway of the best default route in a table as `/proc/net/route` shows it: of those that are up, the one with the lowest
/// metric.
#[must_use]
pub fn default_route(table: &str) -> Option<Ipv4Addr> {
    /// The route can be used, and there is a router at its end.
    const UP_WITH_GATEWAY: u32 = 1 | 2;
    let route = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let [destination, gateway, flags] = [(); 3].map(|()| fields.next());
        // Behind them: references, uses, metric, mask.
        let (metric, mask) = (fields.nth(2)?.parse::<u32>().ok()?, fields.next()?);
        let number = |digits: Option<&str>| u32::from_str_radix(digits?, 16).ok();
        let is_default = number(destination)? == 0 && number(Some(mask))? == 0;
        let is_usable = number(flags)? & UP_WITH_GATEWAY == UP_WITH_GATEWAY;
        // The bytes are as in the packet, read as a number of this machine's.
        let gateway = Ipv4Addr::from(number(gateway)?.to_ne_bytes());
        (is_default && is_usable && !gateway.is_unspecified()).then_some((metric, gateway))
    };
    table.lines().filter_map(route).min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    fn number(address: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(address))
    }

    #[test]
    fn the_router_is_that_of_the_best_route_to_everywhere() {
        let (home, other, lan) = (number([192, 168, 1, 1]), number([10, 0, 0, 1]), number([192, 168, 1, 0]));
        let table = format!(
            "{HEADING}eth0\t00000000\t{home}\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             wlan0\t00000000\t{other}\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
             eth0\t{lan}\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        );
        assert_eq!(default_route(&table), Some(Ipv4Addr::new(192, 168, 1, 1)));
        assert_eq!(
            default_route(&table.replace("\t0003\t0\t0\t100", "\t0002\t0\t0\t100")),
            Some(Ipv4Addr::new(10, 0, 0, 1))
        );
    }

    #[test]
    fn without_one_or_in_what_is_no_table_there_is_none() {
        let through_a_device =
            format!("{HEADING}ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n");
        for table in ["", HEADING, &through_a_device, "eth0 0 0 zz", "\u{fffd} \u{fffd}"] {
            assert_eq!(default_route(table), None, "{table:?}");
        }
    }
}
