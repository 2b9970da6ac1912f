//! What befalls networks in use: routers that forget, addresses that change, lines that fail, lose, or carry only a part.
//!
//! What it is not: how the lab is made, in the module above.

use super::Lab;

impl Lab {
    /// The site gets another address outside, as from a provider over night: what its router had lent anybody is gone.
    pub(crate) fn move_site(&self, number: usize) {
        let (router, outside) = (self.edge(number), format!("11.0.{}", number + 1));
        self.ip(&router, &format!("addr del {outside}.2/24 dev wan"));
        self.ip(&router, &format!("addr add {outside}.3/24 dev wan"));
        self.ip(&router, &format!("route add default via {outside}.1"));
    }

    /// The host behind a router that translates gets another address there, as from a lease that was not renewed.
    pub(crate) fn readdress(&self, number: usize) {
        let host = format!("host{number}");
        self.ip(&host, "addr del 192.168.1.11/24 dev eth0");
        self.ip(&host, "addr add 192.168.1.12/24 dev eth0");
        self.ip(&host, "route add default via 192.168.1.1");
    }

    /// Unplugs the machine outside, or plugs it in again.
    pub(crate) fn plug_public(&self, is_in: bool) {
        self.ip("net", &format!("link set to-pub {}", if is_in { "up" } else { "down" }));
    }

    /// Everything that the site's router lent is forgotten, as when it is switched off and on. One that lets in whoever was sent to
    /// forgets that too.
    pub(crate) fn flush(&self, number: usize) {
        let (router, outside) = (self.edge(number), format!("11.0.{}", number + 1));
        // The kernel forgets what it translated by a device that goes down.
        self.ip(&router, "link set wan down");
        self.ip(&router, "link set wan up");
        self.ip(&router, &format!("route add default via {outside}.1"));
        self.exec(&router, "nft -f -", "flush map ip nat outside\nflush set ip nat peers\n");
    }

    /// Cuts the site off without a word, or no more.
    pub(crate) fn cut(&self, number: usize, is_cut: bool) {
        let rules = format!("iifname to-{number} drop\noifname to-{number} drop");
        self.passes(&format!("cut{number}"), is_cut.then_some(&rules));
    }

    /// The same for one of the addresses of the machine outside.
    pub(crate) fn silence(&self, address: &str, is_silent: bool) {
        let rules = format!("ip daddr {address} drop\nip saddr {address} drop");
        self.passes("silence", is_silent.then_some(&rules));
    }

    /// No UDP gets to the site or from there any more, or it does again.
    pub(crate) fn block_udp(&self, number: usize, is_blocked: bool) {
        let rules = ["iifname", "oifname"].map(|side| format!("{side} to-{number} meta l4proto udp drop"));
        self.passes(&format!("udp{number}"), is_blocked.then_some(&rules.join("\n")));
    }

    /// Of the packets of the site so many in a hundred are lost, each way.
    pub(crate) fn lose(&self, number: usize, percent: u32) {
        let rules = ["iifname", "oifname"]
            .map(|side| format!("{side} to-{number} numgen random mod 100 < {percent} drop"));
        self.passes(&format!("loss{number}"), (percent > 0).then_some(&rules.join("\n")));
    }

    /// Between two sites only small UDP packets pass: the way answers who asks whether it is there, and carries nothing.
    pub(crate) fn pass_small_only(&self, one: usize, other: usize, is_so: bool) {
        let rules = [(one, other), (other, one)]
            .map(|(from, to)| format!("iifname to-{from} oifname to-{to} udp length > 100 drop"));
        self.passes(&format!("small{one}-{other}"), is_so.then_some(&rules.join("\n")));
    }

    /// The router by which a site is on the internet.
    fn edge(&self, number: usize) -> String {
        let carrier = format!("isp{number}");
        let has_carrier = self.namespaces.contains(&self.full(&carrier));
        if has_carrier { carrier } else { format!("router{number}") }
    }

    /// The rules of that name for what passes the internet; none takes them away.
    fn passes(&self, name: &str, rules: Option<&String>) {
        let mut input = format!("table ip {name} {{}}\ndelete table ip {name}\n");
        if let Some(rules) = rules {
            input += &format!(
                "table ip {name} {{\nchain c {{\ntype filter hook forward priority 0; policy accept\n{rules}\n}}\n}}\n"
            );
        }
        self.exec("net", "nft -f -", &input);
    }
}
