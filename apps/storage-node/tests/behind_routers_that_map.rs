//! Machines behind routers that map ports when they are asked to: members reach each other directly that only a relay could
//! join otherwise, and at the end nothing is left open.
//!
//! What went wrong: two machines whose routers show each peer another port talked over the relay for good, though one of the
//! routers would have let the other in, had anybody asked it.
//!
//! It takes root, `ip`, `nft`, FUSE, and miniupnpd.

mod common;
#[path = "../../../reactor/tests/nat_lab/mod.rs"]
mod nat_lab;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use overlay::{NodeId, contacts_file};
use reactor::net::is_of_the_internet;
use serde_json::Value;

use common::running::Running;
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, keys, loud, text};
use nat_lab::upnp::{self, MapsPorts};
use nat_lab::{Kind, Lab, PUBLIC, Site};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(90);

/// A node behind each of the first three, of which the second's router, and the third's, have no address of the internet or map
/// nothing; a member who calls behind the others.
const KINDS: [Kind; 6] =
    [Kind::Symmetric, Kind::Carrier, Kind::Symmetric, Kind::Symmetric, Kind::PortRestricted, Kind::Carrier];
/// Whose routers map ports, and whether by UPnP alone.
const MAPPED: [(usize, bool); 4] = [(0, false), (1, false), (4, true), (5, true)];

struct Town {
    place: Place,
    // Before the lab, whose namespaces it lives in.
    _maps: Vec<MapsPorts>,
    lab: Lab,
}

impl Town {
    fn on(&self, at: &str, arguments: &[&str]) -> Command {
        let mut command = self.lab.on_the_network_of(at, PROGRAM);
        command.args(arguments);
        command
    }

    fn start(&self, at: &str, arguments: &[&str], ready: &str) -> Running {
        Running::start_with(&mut self.on(at, arguments), ready)
    }

    fn printed(&self, at: &str, arguments: &[&str]) -> String {
        let output = ended_within(SOON, &mut self.on(at, arguments));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?} said {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn home(&self, number: usize) -> PathBuf {
        self.place.join(&format!("h{number}"))
    }

    /// What `netcheck` says at a host.
    fn netcheck(&self, number: usize, options: &[&str]) -> Value {
        let home = self.home(number);
        let arguments = [&["netcheck", "--json", "--home", text(&home)], options].concat();
        serde_json::from_str(&self.printed(&format!("host{number}"), &arguments)).unwrap()
    }
}

fn node_id(home: &Path) -> String {
    NodeId::of(&keys::identity(&home.join("node.key")).public_key()).to_string()
}

/// Where the nodes say that they are, by what a member remembers of them: their addresses of the internet.
fn outside_addresses(town: &Town, member: usize) -> Vec<(String, SocketAddr)> {
    let network = keys::identity(&town.place.join("home/owner.key")).public_key();
    let known = contacts_file::load(&town.home(member).join("contacts")).unwrap();
    let mut outside = Vec::new();
    for contact in known.contacts {
        let record = contact.record.unwrap().verify(&contact.public_key, &network).unwrap();
        let id = NodeId::of(&contact.public_key).to_string();
        let addresses =
            record.statement().addresses.iter().filter(|address| is_of_the_internet(address.ip()));
        outside.extend(addresses.map(|address| (id.clone(), *address)));
    }
    outside
}

fn reached(check: &Value) -> &str {
    check["nodes"][0]["reached"].as_str().unwrap_or("nothing")
}

fn is_direct(check: &Value) -> bool {
    ["direct", "punched"].contains(&reached(check))
}

#[test]
fn who_has_a_router_that_maps_ports_is_reached_directly_and_leaves_none_open() {
    let story = "who_has_a_router_that_maps_ports_is_reached_directly_and_leaves_none_open";
    if !fuse_is_usable(story) || !nat_lab::is_usable(story) || !upnp::is_here(story) {
        return;
    }
    let place = Place::new("mapped");
    let lab = Lab::new("m", &KINDS.map(Site::from));
    let maps = MAPPED.iter().map(|(number, by_upnp_alone)| lab.map_ports(*number, *by_upnp_alone)).collect();
    let town = Town { place, _maps: maps, lab };
    let (home, drive) = (town.place.join("home"), town.place.join("drive"));
    let up = town.start(
        "pub",
        &["up", "--home", text(&home), "--listen", PUBLIC[0], text(&drive)],
        "it relays for members",
    );
    let invite = |role| {
        let asked = ["invite", "--home", text(&home), "--role", role, "--uses", "5"];
        town.printed("pub", &asked).trim().to_owned()
    };
    let (for_nodes, for_writers) = (invite("node"), invite("writer"));
    let join_node = |at: usize| {
        let home = town.home(at);
        town.start(&format!("host{at}"), &["join", "--home", text(&home), &for_nodes], "listening on")
    };
    let mut running: Vec<Running> = [0, 1, 2].map(join_node).into();
    for at in [3, 4, 5] {
        town.printed(&format!("host{at}"), &["join", "--home", text(&town.home(at)), &for_writers]);
    }
    let ids = [0, 1, 2].map(|at| node_id(&town.home(at)));

    // TCP and UDP of the node, at its own router.
    eventually("the router maps both ports", SOON, || town.lab.ports_mapped(0).len() == 2);
    let says = |member: usize, at: usize| {
        let said = outside_addresses(&town, member).into_iter().filter(|(id, _)| *id == ids[at]);
        said.map(|(_, address)| address.ip().to_string()).collect::<Vec<_>>()
    };

    // Neither of the two would reach the other without that.
    let direct = town.netcheck(3, &["--to", &ids[0], "--seconds", "30"]);
    loud(&format!("symmetric to symmetric that maps: {}", direct["nodes"][0]));
    assert!(is_direct(&direct), "{direct}");
    // It says so itself, for whoever dials it.
    eventually("the node says where its router lets others in", SOON, || {
        town.netcheck(3, &["--seconds", "1"]);
        says(3, 0) == ["11.0.1.2"]
    });
    // The router of the caller maps its socket, and that of the node shows each another port.
    let direct = town.netcheck(4, &["--to", &ids[2], "--seconds", "30"]);
    loud(&format!("port-restricted that maps to symmetric: {}", direct["nodes"][0]));
    assert!(is_direct(&direct), "{direct}");
    let check = &direct["port_mapping"];
    assert!(check["works"] == true && check["protocol"] == "UPnP" && check["lifetime_s"].is_u64(), "{check}");
    assert!(check["external"].as_str().unwrap().starts_with("11.0.5.2:"), "{check}");
    eventually("what netcheck mapped is given back", SOON, || town.lab.ports_mapped(4).is_empty());

    // Also where it is stopped, or was asked for nobody.
    let member = town.home(4);
    let looks = ["netcheck", "--home", text(&member), "--to", &ids[1], "--seconds", "60"];
    let mut looking = town.on("host4", &looks).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the router maps for netcheck", SOON, || !town.lab.ports_mapped(4).is_empty());
    let interrupted = Command::new("kill").args(["-INT", &looking.id().to_string()]).status().unwrap();
    assert!(interrupted.success() && !looking.wait().unwrap().success());
    assert_eq!(town.lab.ports_mapped(4), Vec::<String>::new(), "what it mapped is given back at Ctrl-C");
    let nobody = ["netcheck", "--home", text(&member), "--to", "00000000", "--seconds", "8"];
    assert!(!ended_within(SOON, &mut town.on("host4", &nobody)).status.success());
    assert_eq!(town.lab.ports_mapped(4), Vec::<String>::new(), "nor is any left where nobody is found");

    // Behind a provider's router nothing is mapped, and nobody is told that anything were.
    let inner = town.netcheck(5, &["--to", &ids[0], "--seconds", "1"]);
    assert_eq!([1, 5].map(|at| town.lab.ports_mapped(at)), [Vec::<String>::new(), Vec::new()]);
    assert_eq!([1, 2].map(|at| says(3, at)), [Vec::<String>::new(), Vec::new()]);
    let relayed = town.netcheck(3, &["--to", &ids[2], "--seconds", "2"]);
    assert_eq!(reached(&relayed), "relayed", "neither router maps anything: {relayed}");
    let why = |check: &Value| check["port_mapping"]["why"].as_str().unwrap().to_owned();
    loud(&format!("behind a provider's router: {}", why(&inner)));
    assert!(why(&inner).contains("no address of the internet itself"), "{inner}");
    assert!(why(&relayed).contains("neither PCP, NAT-PMP nor UPnP"), "{relayed}");

    // A node that is stopped leaves no port open, and one that may not ask has none opened.
    let stopped = running.remove(0);
    assert!(stopped.stop().success());
    assert_eq!(town.lab.ports_mapped(0), Vec::<String>::new(), "it was given back at the end");
    let quiet = ["run", "--no-port-mapping", "--home", text(&town.home(0))].map(str::to_owned);
    let quiet: Vec<&str> = quiet.iter().map(String::as_str).collect();
    running.push(town.start("host0", &quiet, "listening on"));
    let relayed = town.netcheck(3, &["--to", &ids[0], "--seconds", "2", "--no-port-mapping"]);
    assert_eq!(reached(&relayed), "relayed", "{relayed}");
    assert!(why(&relayed).contains("--no-port-mapping"), "{relayed}");
    assert_eq!(town.lab.ports_mapped(0), Vec::<String>::new());

    assert_eq!(says(3, 0), Vec::<String>::new(), "it says so no more");

    // The drive ends while its nodes are there.
    running.insert(0, up);
    for process in running {
        assert!(process.stop().success());
    }
}
