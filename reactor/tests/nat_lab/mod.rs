//! Routers of the kinds that homes and providers have, made of network namespaces and the kernel's own translation.
//!
//! ```text
//!   host (inside) -- router of some kind --+
//!   host (inside) -- router of some kind --+-- internet -- public (11.0.0.10 to .12)
//! ```
//!
//! A site may have a second host on its network, `beside` and its number, and be a customer of another site's provider, whose
//! router both share then.
//!
//! Sites may have IPv6 too, or another network in common (`ipv6.rs`), and cables that take their time (`delay.rs`).
//!
//! Nothing leaves the namespaces, and a lab takes its namespaces along when it is dropped. The addresses look public,
//! since a client tells those of its own network apart.

#![allow(dead_code, reason = "each story uses its part, and storage-node's stories another")]

mod changes;
pub(crate) mod delay;
pub(crate) mod ipv6;
mod lan;
pub(crate) mod upnp;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The addresses of the machine outside.
pub(crate) const PUBLIC: [&str; 3] = ["11.0.0.10", "11.0.0.11", "11.0.0.12"];

/// What stands between a host and the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Nothing.
    Public,
    /// A firewall that lets answers in.
    Firewall,
    /// One outside port, everybody is let in.
    FullCone,
    /// One outside port, those are let in whose address was sent to.
    Restricted,
    /// A home router of Linux: one outside port, those are let in whose address and port were sent to.
    PortRestricted,
    /// A random outside port for each destination.
    Symmetric,
    /// The same, and few ports to choose from: a provider's that many share.
    SymmetricBlock,
    /// A home router behind a provider's that is one too.
    Carrier,
    /// A home router behind a provider's with a block of ports and a random one for each destination.
    CarrierSymmetric,
    /// No UDP at all.
    NoUdp,
    /// Only what the web needs: TCP to two ports.
    Web,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Kind; 11] = [
        Kind::Public,
        Kind::Firewall,
        Kind::FullCone,
        Kind::Restricted,
        Kind::PortRestricted,
        Kind::Carrier,
        Kind::Symmetric,
        Kind::SymmetricBlock,
        Kind::CarrierSymmetric,
        Kind::NoUdp,
        Kind::Web,
    ];

    /// What the router of a home of this kind does, and what that of its provider does if there is one.
    fn routers(self) -> (Kind, Option<Kind>) {
        match self {
            Kind::Carrier => (Kind::PortRestricted, Some(Kind::PortRestricted)),
            Kind::CarrierSymmetric => (Kind::PortRestricted, Some(Kind::SymmetricBlock)),
            kind => (kind, None),
        }
    }
}

/// A router, and what it does besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) kind: Kind,
    /// Whether it turns round what is sent to its own outside address.
    pub(crate) hairpin: bool,
    /// Whether it answers for itself what nobody inside has asked for: a packet that comes too early then costs the port.
    pub(crate) open: bool,
    /// Whether there is a second host on the inside.
    pub(crate) has_neighbour: bool,
    /// The site whose provider's router this one is behind too; both are of the same kind, a carrier's.
    pub(crate) shares_with: Option<usize>,
}

impl From<Kind> for Site {
    fn from(kind: Kind) -> Site {
        Site { kind, hairpin: false, open: false, has_neighbour: false, shares_with: None }
    }
}

pub(crate) struct Lab {
    name: String,
    namespaces: Vec<String>,
}

/// Writes through the test harness, so that nobody takes a skipped story for one that passed.
pub(crate) fn loud(words: &str) {
    let _ = writeln!(std::io::stderr(), "{words}");
}

/// Whether namespaces and routers can be made here; says loudly why not.
pub(crate) fn is_usable(story: &str) -> bool {
    let has = |program| {
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
            .any(|directory| directory.join(program).exists())
    };
    let reason = if !has("ip") {
        "ip is missing (apt install iproute2)".to_owned()
    } else if !has("nft") {
        "nft is missing (apt install nftables)".to_owned()
    } else {
        // Some containers are root and may not make a namespace, or have no table for translation.
        static TRIED: AtomicUsize = AtomicUsize::new(0);
        let name = format!("hytry{}-{}", std::process::id(), TRIED.fetch_add(1, Ordering::Relaxed));
        let tried = command(&["ip", "netns", "add", &name], "").and_then(|()| {
            command(
                &["ip", "netns", "exec", &name, "nft", "-f", "-"],
                "table ip t {\nchain c {\ntype nat hook postrouting priority srcnat\nmasquerade\n}\n}\n",
            )
        });
        let _ = command(&["ip", "netns", "del", &name], "");
        match tried {
            Ok(()) => return true,
            Err(error) => format!("{error} (it takes root)"),
        }
    };
    loud(&format!("SKIPPED: {story}: {reason}"));
    false
}

fn command(words: &[&str], input: &str) -> Result<(), String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", words[0]))?;
    child.stdin.take().expect("piped").write_all(input.as_bytes()).map_err(|error| error.to_string())?;
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim())),
    }
}

impl Lab {
    /// Builds the internet, the machine outside, and a site for each entry. `name` tells labs of one process apart.
    pub(crate) fn new(name: &str, sites: &[Site]) -> Lab {
        let mut lab = Lab { name: format!("hy{}{name}", std::process::id()), namespaces: Vec::new() };
        lab.namespace("net", true);
        lab.namespace("pub", false);
        lab.cable("net", "to-pub", "pub", "eth0");
        lab.ip("net", "addr add 11.0.0.1/24 dev to-pub");
        for address in PUBLIC {
            lab.ip("pub", &format!("addr add {address}/24 dev eth0"));
        }
        lab.ip("pub", "route add default via 11.0.0.1");
        for (number, site) in sites.iter().enumerate() {
            lab.site(number, *site);
        }
        lab
    }

    /// A command to run in the namespace `place`: `pub`, or `host0` and on.
    pub(crate) fn within(&self, place: &str, program: &str) -> Command {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.full(place), program]).env("PATH", path);
        command
    }

    /// As [`Lab::within`], with the network of that place and all else as it is here, mounts among it.
    pub(crate) fn on_the_network_of(&self, place: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.full(place))).arg(program);
        command
    }

    fn full(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    fn namespace(&mut self, place: &str, forwards: bool) {
        let full = self.full(place);
        command(&["ip", "netns", "add", &full], "").unwrap();
        self.namespaces.push(full);
        self.ip(place, "link set lo up");
        if forwards {
            let settings = "net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
                net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0";
            self.exec(place, &format!("sysctl -qw {settings}"), "");
        }
    }

    fn exec(&self, place: &str, words: &str, input: &str) {
        let full = self.full(place);
        let words: Vec<&str> =
            ["ip", "netns", "exec", &full].into_iter().chain(words.split_whitespace()).collect();
        command(&words, input).unwrap();
    }

    fn ip(&self, place: &str, words: &str) {
        let full = self.full(place);
        let words: Vec<&str> = ["ip", "-n", &full].into_iter().chain(words.split_whitespace()).collect();
        command(&words, "").unwrap();
    }

    fn cable(&self, one: &str, device: &str, other: &str, other_device: &str) {
        self.ip(
            one,
            &format!("link add {device} type veth peer name {other_device} netns {}", self.full(other)),
        );
        self.ip(one, &format!("link set {device} up"));
        self.ip(other, &format!("link set {other_device} up"));
    }

    /// A router between `up`, which reaches it as `gateway`, and its inside.
    fn router(&mut self, place: &str, up: (&str, &str), gateway: &str, address: &str) {
        self.namespace(place, true);
        self.cable(up.0, up.1, place, "wan");
        self.ip(up.0, &format!("addr add {gateway}/24 dev {}", up.1));
        self.ip(place, &format!("addr add {address}/24 dev wan"));
        self.ip(place, &format!("route add default via {gateway}"));
    }

    /// The inside of a router, to which several may be joined.
    fn bridge(&self, router: &str, address: &str) {
        // Where the kernel has rules looked at for what it bridges, what comes back inside would be bridged, and is to be routed.
        self.exec(router, "sysctl -e -qw net.bridge.bridge-nf-call-iptables=0", "");
        self.ip(router, "link add lan type bridge");
        self.ip(router, "link set lan up");
        self.ip(router, &format!("addr add {address}/24 dev lan"));
    }

    /// A cable from the inside of a router to another machine.
    fn join(&self, router: &str, other: &str, device: &str) {
        self.cable(router, &format!("to-{other}"), other, device);
        self.ip(router, &format!("link set to-{other} master lan"));
    }

    fn site(&mut self, number: usize, site: Site) {
        let (router, host) = (format!("router{number}"), format!("host{number}"));
        let outside = format!("11.0.{}", number + 1);
        let up = format!("to-{number}");
        let (gateway, address) = (format!("{outside}.1"), format!("{outside}.2"));
        let (kind, carriers_kind) = site.kind.routers();
        let customer = format!("100.64.0.{}", number + 2);
        if let Some(kind) = carriers_kind {
            let carrier = format!("isp{}", site.shares_with.unwrap_or(number));
            if site.shares_with.is_none() {
                self.router(&carrier, ("net", &up), &gateway, &address);
                self.bridge(&carrier, "100.64.0.1");
                // Its customers' routers turn nothing round that is for it.
                self.translate(&carrier, Site { kind, ..site }, &address);
            }
            self.namespace(&router, true);
            self.join(&carrier, &router, "wan");
            self.ip(&router, &format!("addr add {customer}/24 dev wan"));
            self.ip(&router, "route add default via 100.64.0.1");
        } else {
            self.router(&router, ("net", &up), &gateway, &address);
        }
        // Public ones have an address of their own, which the internet knows the way to.
        let is_translated = !matches!(site.kind, Kind::Public | Kind::Firewall);
        let inside = if is_translated { "192.168.1".to_owned() } else { format!("11.1.{}", number + 1) };
        self.bridge(&router, &format!("{inside}.1"));
        let hosts = [(host, 11), (format!("beside{number}"), 21)];
        for (host, last) in &hosts[..if site.has_neighbour { 2 } else { 1 }] {
            self.namespace(host, false);
            self.join(&router, host, "eth0");
            self.ip(host, &format!("addr add {inside}.{last}/24 dev eth0"));
            self.ip(host, &format!("route add default via {inside}.1"));
        }
        if !is_translated {
            self.ip("net", &format!("route add {inside}.0/24 via {address}"));
        }
        match site.kind {
            Kind::Public => {}
            Kind::Firewall => {
                self.exec(
                    &router,
                    "nft -f -",
                    &format!("table ip nat {{\n{}\n}}\n", FILTER.replace("OWN", "drop")),
                );
            }
            _ => {
                let (wan, hairpin) = match carriers_kind {
                    Some(_) => (&customer, false),
                    None => (&address, site.hairpin),
                };
                self.translate(&router, Site { hairpin, kind, ..site }, wan);
            }
        }
    }

    /// The rules of one router, whose outside address is `wan`.
    fn translate(&self, router: &str, site: Site, wan: &str) {
        let outward = match site.kind {
            Kind::Symmetric => "oifname wan masquerade fully-random".to_owned(),
            Kind::SymmetricBlock => format!(
                "oifname wan meta l4proto {{ tcp, udp }} snat to {wan}:40000-41023 fully-random\noifname wan snat to {wan}"
            ),
            _ => "oifname wan masquerade".to_owned(),
        };
        let mut before = String::new();
        let to_inside = "dnat to udp dport map @outside";
        match site.kind {
            Kind::FullCone => writeln!(before, "iifname wan ip daddr {wan} {to_inside}").unwrap(),
            Kind::Restricted => {
                writeln!(before, "iifname wan ip daddr {wan} ip saddr . udp dport @peers {to_inside}")
                    .unwrap();
            }
            _ => {}
        }
        let mut after = String::new();
        if site.hairpin {
            writeln!(before, "iifname lan ip daddr {wan} {to_inside}").unwrap();
            writeln!(after, "iifname lan oifname lan ct status dnat snat to {wan}").unwrap();
        }
        let block = match site.kind {
            Kind::NoUdp => "iifname lan meta l4proto udp drop",
            Kind::Web => "iifname lan tcp dport != { 80, 443 } drop\niifname lan meta l4proto != tcp drop",
            _ => "",
        };
        let own = if site.open { "accept" } else { "drop" };
        let rules = format!(
            "table ip nat {{
                map outside {{ type inet_service : ipv4_addr; size 65535; flags dynamic,timeout; timeout 60s; }}
                set peers {{ type ipv4_addr . inet_service; size 65535; flags dynamic,timeout; timeout 60s; }}
                chain learn {{
                    type filter hook forward priority -10; policy accept;
                    iifname lan oifname wan meta l4proto udp update @outside {{ udp sport : ip saddr }}
                    iifname lan oifname wan meta l4proto udp update @peers {{ ip daddr . udp sport }}
                }}
                chain before {{ type nat hook prerouting priority dstnat; policy accept
{before}
 }}
                chain after {{
                    type nat hook postrouting priority srcnat; policy accept;
                    {after}
                    {outward}
                }}
                chain block {{ type filter hook forward priority -5; policy accept
{block}
 }}
                {}
            }}\n",
            FILTER.replace("OWN", own)
        );
        self.exec(router, "nft -f -", &rules);
    }
}

/// Answers come in, and what was translated to the inside; nothing else, and OWN says what the router itself does.
const FILTER: &str = "
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname lan accept
        ct status dnat accept
    }
    chain input {
        type filter hook input priority 0; policy OWN;
        iifname { lo, lan } accept
        ct state established,related accept
        icmp type echo-request accept
    }";

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.namespaces {
            let pids = Command::new("ip").args(["netns", "pids", name]).output();
            for pid in pids.iter().flat_map(|output| {
                String::from_utf8_lossy(&output.stdout)
                    .into_owned()
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            }) {
                // Whatever runs in a namespace of ours was started by the test.
                if fs::exists(format!("/proc/{pid}")).unwrap_or(false) {
                    let _ = Command::new("kill").args(["-9", &pid]).status();
                }
            }
            let _ = command(&["ip", "netns", "del", name], "");
        }
    }
}
