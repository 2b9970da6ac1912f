//! IPv6 beside what the lab has, and networks that two sites have in common: ways that lead past the routers that translate.
//!
//! A site with IPv6 has a network of addresses of the internet, and before it a firewall that lets answers in, as homes have. Its
//! router for IPv4 stays as it is. The machine outside has none.

use super::Lab;

/// What a home's router does with IPv6: answers come in, and what the protocol itself needs.
const FIREWALL: &str = "table ip6 firewall {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname lan accept
    }
    chain input {
        type filter hook input priority 0; policy drop;
        iifname { lo, lan } accept
        ct state established,related accept
        meta l4proto icmpv6 accept
    }
}
";

impl Lab {
    /// Has the site connected by IPv6, up to its host: that one gets its address with [`Lab::give_ipv6`]. For sites without a
    /// provider's router.
    pub(crate) fn connect_by_ipv6(&self, number: usize) {
        let (router, up) = (format!("router{number}"), format!("to-{number}"));
        let (outside, inside) = (format!("2a00:0:0:{}", number + 1), network(number));
        for place in ["net", &router] {
            self.exec(place, "sysctl -qw net.ipv6.conf.all.forwarding=1", "");
        }
        // Nobody else has these: they are there at once.
        self.ip("net", &format!("addr add {outside}::1/64 dev {up} nodad"));
        self.ip(&router, &format!("addr add {outside}::2/64 dev wan nodad"));
        self.ip(&router, &format!("route add default via {outside}::1"));
        self.ip(&router, &format!("addr add {inside}::1/64 dev lan nodad"));
        self.ip("net", &format!("route add {inside}::/64 via {outside}::2"));
        self.exec(&router, "nft -f -", FIREWALL);
    }

    /// The host of such a site has its address by IPv6 from now on; which one.
    pub(crate) fn give_ipv6(&self, number: usize) -> String {
        let (host, address) = (format!("host{number}"), format!("{}::11", network(number)));
        self.ip(&host, &format!("addr add {address}/64 dev eth0 nodad"));
        self.ip(&host, &format!("route add default via {}::1", network(number)));
        address
    }

    /// The hosts of two sites are in one more network together, by an interface that leads nowhere else: at which addresses.
    pub(crate) fn join_networks(&self, one: usize, other: usize) -> [String; 2] {
        let hosts = [one, other].map(|number| format!("host{number}"));
        let (device, addresses) =
            (format!("beside{one}{other}"), [1, 2].map(|last| format!("10.77.0.{last}")));
        self.cable(&hosts[0], &device, &hosts[1], &device);
        for (host, address) in hosts.iter().zip(&addresses) {
            self.ip(host, &format!("addr add {address}/24 dev {device}"));
        }
        addresses
    }
}

/// The network of a site, inside.
fn network(number: usize) -> String {
    format!("2a00:0:1:{}", number + 1)
}

/// Whether the kernel has IPv6 in namespaces; says loudly if it has not.
pub(crate) fn is_here(story: &str) -> bool {
    let is_here = std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6")
        .is_ok_and(|disabled| disabled.trim() == "0");
    if !is_here {
        super::loud(&format!("SKIPPED: {story}: there is no IPv6 here"));
    }
    is_here
}
