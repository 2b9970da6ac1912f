//! Two who share a router, or a provider's router, or of whom one has a router that maps ports: one calls the other, and the table
//! says by which address it is reached.
//!
//! Two who have IPv6, or another network in common, need neither: their routers show each another port.
//!
//! In one network it is the address there, whatever the router does. Behind one provider's router they are strangers to each
//! other, and meet where that one turns round what is for its own outside address. A router that maps ports lets in whoever is
//! told of them, though it shows each another port; one that is itself behind a provider's has none to map, and nobody may be told
//! of any.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use benches::table::Table;
use serde_json::Value;

use crate::nat_lab::{Kind, Lab, Site};
use crate::network::{Network, text};
use crate::{Arguments, demands};

/// How two stand to each other.
pub(crate) struct Setting {
    name: &'static str,
    sites: Vec<Site>,
    /// Where the caller is; the node is the first host.
    caller: &'static str,
    /// What the two have in common besides.
    in_common: Option<fn(&Lab)>,
    /// The site whose router maps ports.
    maps: Option<usize>,
    asked: Asked,
}

/// What is asked of the call.
#[derive(Clone, Copy)]
enum Asked {
    /// It is direct, to an address that begins so, within that.
    At(&'static str, Duration),
    /// It is relayed.
    Relay,
    /// Nothing is mapped, and the caller is told so.
    NothingMapped,
}

impl Setting {
    /// Two who have nothing in common but the sites, where no router maps ports.
    fn new(name: &'static str, sites: Vec<Site>, caller: &'static str, asked: Asked) -> Setting {
        Setting { name, sites, caller, in_common: None, maps: None, asked }
    }
}

/// Of two who share a router, or more.
pub(crate) fn settings() -> Vec<Setting> {
    let lan = |kind: Kind| vec![Site { has_neighbour: true, ..Site::from(kind) }];
    let carrier = |hairpin| {
        let first = Site { hairpin, ..Site::from(Kind::Carrier) };
        vec![first, Site { shares_with: Some(0), ..first }]
    };
    let symmetric = || vec![Kind::Symmetric.into(); 2];
    let at = |address| Asked::At(address, demands::SHARED);
    let near = at("192.168.1.11:");
    vec![
        Setting::new("one home network", lan(Kind::PortRestricted), "beside0", near),
        Setting::new("one behind symmetric", lan(Kind::Symmetric), "beside0", near),
        Setting::new("one without UDP outside", lan(Kind::NoUdp), "beside0", near),
        Setting::new("one carrier", carrier(false), "host1", Asked::Relay),
        Setting::new("one carrier that turns round", carrier(true), "host1", at("11.0.1.2:")),
        Setting {
            in_common: Some(|lab| {
                for number in [0, 1] {
                    lab.connect_by_ipv6(number);
                    lab.give_ipv6(number);
                }
            }),
            ..Setting::new("IPv6, a firewall each", symmetric(), "host1", at("[2a00:0:1:1::11]:"))
        },
        Setting {
            in_common: Some(|lab| drop(lab.join_networks(0, 1))),
            ..Setting::new("another network", symmetric(), "host1", at("10.77.0.1:"))
        },
    ]
}

/// Of two behind routers of their own, of which one maps ports.
pub(crate) fn mapped() -> Vec<Setting> {
    // The address of the node's router: that is where it is reached, whichever of the two maps.
    let direct = Asked::At("11.0.1.2:", demands::MAPPED);
    let of = |name, [node, caller]: [Kind; 2], maps, asked| {
        let sites = vec![Site::from(node), Site::from(caller)];
        Setting { maps: Some(maps), ..Setting::new(name, sites, "host1", asked) }
    };
    let (symmetric, home) = (Kind::Symmetric, Kind::PortRestricted);
    vec![
        of("symmetric to symmetric+upnp", [symmetric, symmetric], 0, direct),
        of("symmetric+upnp to symmetric", [symmetric, symmetric], 1, direct),
        of("symmetric to port-restricted+upnp", [home, symmetric], 0, direct),
        of("port-restricted+upnp to symmetric", [symmetric, home], 1, direct),
        of("carrier+upnp to symmetric", [symmetric, Kind::Carrier], 1, Asked::NothingMapped),
    ]
}

/// Tries each setting and prints the table; whether everybody was reached, as is asked.
pub(crate) fn run(program: &Path, settings: Vec<Setting>, arguments: &Arguments) -> io::Result<bool> {
    let mut table = Table::new(&["setting", "how", "at", "first reply ms", "direct ms", "asked", "met"]);
    let mut all_met = true;
    for Setting { name, sites, caller, in_common, maps, asked } in settings {
        let lab = Lab::new("n", &sites);
        in_common.into_iter().for_each(|share| share(&lab));
        // Ends before the lab, whose namespaces it lives in.
        let _daemon = maps.map(|site| lab.map_ports(site, false));
        let mut network = Network::found(&lab, program, 1, true)?;
        network.add_node("host0", "called", None)?;
        if maps == Some(0) {
            wait_mapped(&lab, 0)?;
        }
        network.add_writer(caller, "caller", None)?;
        let ids = network.ids()?;
        let id = ids.iter().find(|(name, _)| name == "called").map(|(_, id)| id.as_str());
        let id = id.ok_or_else(|| io::Error::other(format!("the node is no member: there are {ids:?}")))?;
        for _ in 0..arguments.runs {
            let (home, seconds) = (network.path("caller"), arguments.seconds.to_string());
            let words = ["netcheck", "--json", "--home", text(&home), "--to", id, "--seconds", &seconds];
            let said: Value = serde_json::from_str(&network.printed(caller, &words)?)?;
            let node = &said["nodes"][0];
            let at = node["address"].as_str().unwrap_or("-");
            let time = |key: &str| node[key].as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
            let is_within = |limit: Duration| {
                node["direct_after_ms"].as_f64().is_some_and(|ms| ms <= limit.as_secs_f64() * 1e3)
            };
            let is_unmapped = || {
                let said = &said["port_mapping"];
                said["works"] == false && said["external"].is_null()
            };
            // Times are told, and only the strict fail by them.
            let (is_so, is_soon) = match asked {
                Asked::At(address, within) => (at.starts_with(address), is_within(within)),
                Asked::Relay => (node["first_reply_ms"].is_number(), node["reached"] == "relayed"),
                Asked::NothingMapped => {
                    let none = maps.is_none_or(|site| lab.ports_mapped(site).is_empty());
                    (none && is_unmapped() && node["first_reply_ms"].is_number(), true)
                }
            };
            all_met &= is_so && (is_soon || !arguments.strict);
            table.row(vec![
                name.to_owned(),
                node["reached"].as_str().unwrap_or("nothing").to_owned(),
                at.to_owned(),
                time("first_reply_ms"),
                time("direct_after_ms"),
                match asked {
                    Asked::At(address, within) => format!("{address} in {} s", within.as_secs()),
                    Asked::Relay => "relay".to_owned(),
                    Asked::NothingMapped => "nothing mapped".to_owned(),
                },
                if is_so && is_soon { "yes" } else { "NO" }.to_owned(),
            ]);
        }
    }
    println!("{table}");
    Ok(all_met)
}

/// Until the router maps the node's port of TCP and that of UDP.
fn wait_mapped(lab: &Lab, site: usize) -> io::Result<()> {
    let begun = Instant::now();
    while lab.ports_mapped(site).len() < 2 {
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::other("the router maps nothing for the node"));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A node has its ports mapped within so long, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(90);
