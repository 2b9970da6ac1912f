//! Two who share a router, or a provider's router: one calls the other, and the table says by which address it is reached.
//!
//! Two who have IPv6, or another network in common, need neither: their routers show each another port.
//!
//! In one network it is the address there, whatever the router does. Behind one provider's router they are strangers to each
//! other, and meet where that one turns round what is for its own outside address.

use std::io;
use std::path::Path;
use std::time::Duration;

use benches::table::Table;
use serde_json::Value;

use crate::Arguments;
use crate::nat_lab::{Kind, Lab, Site};
use crate::network::{Network, text};

/// How two stand to each other.
struct Setting {
    name: &'static str,
    sites: Vec<Site>,
    /// Where the caller is; the node is the first host.
    caller: &'static str,
    /// How the node's address begins, where it is to be reached directly.
    address: Option<&'static str>,
    /// What the two have in common besides.
    in_common: Option<fn(&Lab)>,
}

fn settings() -> Vec<Setting> {
    let lan = |kind: Kind| vec![Site { has_neighbour: true, ..Site::from(kind) }];
    let carrier = |hairpin| {
        let first = Site { hairpin, ..Site::from(Kind::Carrier) };
        vec![first, Site { shares_with: Some(0), ..first }]
    };
    let near = Some("192.168.1.11:");
    vec![
        Setting {
            name: "one home network",
            sites: lan(Kind::PortRestricted),
            caller: "beside0",
            address: near,
            in_common: None,
        },
        Setting {
            name: "one behind symmetric",
            sites: lan(Kind::Symmetric),
            caller: "beside0",
            address: near,
            in_common: None,
        },
        Setting {
            name: "one without UDP outside",
            sites: lan(Kind::NoUdp),
            caller: "beside0",
            address: near,
            in_common: None,
        },
        Setting {
            name: "one carrier",
            sites: carrier(false),
            caller: "host1",
            address: None,
            in_common: None,
        },
        Setting {
            name: "one carrier that turns round",
            sites: carrier(true),
            caller: "host1",
            address: Some("11.0.1.2:"),
            in_common: None,
        },
        Setting {
            name: "IPv6, a firewall each",
            sites: vec![Kind::Symmetric.into(); 2],
            caller: "host1",
            address: Some("[2a00:0:1:1::11]:"),
            in_common: Some(|lab| {
                for number in [0, 1] {
                    lab.connect_by_ipv6(number);
                    lab.give_ipv6(number);
                }
            }),
        },
        Setting {
            name: "another network",
            sites: vec![Kind::Symmetric.into(); 2],
            caller: "host1",
            address: Some("10.77.0.1:"),
            in_common: Some(|lab| drop(lab.join_networks(0, 1))),
        },
    ]
}

/// Tries each setting and prints the table; whether everybody was reached, at the address that is asked.
pub(crate) fn run(program: &Path, arguments: &Arguments) -> io::Result<bool> {
    let mut table = Table::new(&["setting", "how", "at", "first reply ms", "direct ms", "asked", "met"]);
    let mut all_met = true;
    for Setting { name, sites, caller, address, in_common } in settings() {
        let lab = Lab::new("n", &sites);
        in_common.into_iter().for_each(|share| share(&lab));
        let mut network = Network::found(&lab, program, 1, true)?;
        network.add_node("host0", "called", None)?;
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
            let is_soon = node["direct_after_ms"].as_f64().is_some_and(|ms| ms <= WITHIN.as_secs_f64() * 1e3);
            let is_met = match address {
                Some(address) => is_soon && at.starts_with(address),
                None => node["reached"] == "relayed",
            };
            // Times are told, and nothing fails by them.
            all_met &= match address {
                Some(address) => at.starts_with(address),
                None => node["first_reply_ms"].is_number(),
            };
            table.row(vec![
                name.to_owned(),
                node["reached"].as_str().unwrap_or("nothing").to_owned(),
                at.to_owned(),
                time("first_reply_ms"),
                time("direct_after_ms"),
                address.map_or_else(|| "relay".to_owned(), |address| format!("{address} in 1 s")),
                if is_met { "yes" } else { "NO" }.to_owned(),
            ]);
        }
    }
    println!("{table}");
    Ok(all_met)
}

/// Who is reached directly is so within that.
const WITHIN: Duration = Duration::from_secs(1);
