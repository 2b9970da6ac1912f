//! A node and a drive whose routers keep them apart, and whose one relay is reached by IPv4, meet by what else they have in common:
//! IPv6 through their firewalls, or another network that both are in.
//!
//! What went wrong: a member knew of itself that address only by which it reached its relay, and of the other families and
//! interfaces of its machine none. So two who had IPv6, or sat in one room, talked over a relay for ever.
//!
//! It takes root, `ip`, and `nft`.

mod common;
#[path = "../../../reactor/tests/nat_lab/mod.rs"]
mod nat_lab;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use overlay::NodeId;
use serde_json::Value;

use common::running::Running;
use common::{PROGRAM, Place, ended_within, fuse_is_usable, keys, text};
use nat_lab::{Kind, Lab, PUBLIC, Site};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(90);

fn on(lab: &Lab, place: &str, arguments: &[&str]) -> Command {
    let mut command = lab.on_the_network_of(place, PROGRAM);
    command.args(arguments);
    command
}

fn start(lab: &Lab, place: &str, arguments: &[&str], ready: &str) -> Running {
    Running::start_with(&mut on(lab, place, arguments), ready)
}

fn printed(lab: &Lab, place: &str, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = ended_within(SOON, &mut on(lab, place, arguments));
    assert!(status.success(), "{arguments:?} said {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn id_of(node: &Path) -> String {
    NodeId::of(&keys::identity(&node.join("node.key")).public_key()).to_string()
}

#[test]
fn two_whom_routers_keep_apart_meet_by_ipv6_or_by_another_network_that_both_are_in() {
    let story = "two_whom_routers_keep_apart_meet_by_ipv6_or_by_another_network_that_both_are_in";
    if !fuse_is_usable(story) || !nat_lab::is_usable(story) || !nat_lab::ipv6::is_here(story) {
        return;
    }
    let place = Place::new("other-ways");
    let lab = Lab::new("w", &[Kind::Symmetric; 4].map(Site::from));
    // Two have IPv6, and two sit in one room.
    for number in [0, 1] {
        lab.connect_by_ipv6(number);
    }
    let [by_ipv6, _] = [0, 1].map(|number| lab.give_ipv6(number));
    let [beside, _] = lab.join_networks(2, 3);

    let (home, outside) = (place.join("home"), place.join("outside"));
    let founded = ["up", "--home", text(&home), "--listen", PUBLIC[0], text(&outside)];
    let up = start(&lab, "pub", &founded, "it relays for members");
    let invite = |role| {
        let asked = ["invite", "--home", text(&home), "--role", role, "--uses", "3"];
        printed(&lab, "pub", &asked).trim().to_owned()
    };
    let (for_nodes, for_writers) = (invite("node"), invite("writer"));
    let nodes = ["n0", "n2", "fixed"].map(|name| place.join(name));
    let join_node = |at: &str, home: &Path, listen: &[&str]| {
        let words = [&["join", "--home", text(home), &for_nodes], listen].concat();
        start(&lab, at, &words, "listening on")
    };
    let mut running = vec![join_node("host0", &nodes[0], &[]), join_node("host2", &nodes[1], &[])];
    let homes = ["h1", "h3"].map(|name| place.join(name));
    for (at, home) in ["host1", "host3"].into_iter().zip(&homes) {
        printed(&lab, at, &["join", "--home", text(home), &for_writers]);
    }

    let netcheck = |at: &str, home: &Path, node: &Path, seconds: &str| -> Value {
        let to = id_of(node);
        let words = [
            "netcheck",
            "--json",
            "--no-port-mapping",
            "--home",
            text(home),
            "--to",
            &to,
            "--seconds",
            seconds,
        ];
        serde_json::from_str(&printed(&lab, at, &words)).unwrap()
    };
    let met = |at: &str, home: &Path, node: &Path| {
        let check = netcheck(at, home, node, "60");
        let found = &check["nodes"][0];
        (found["reached"] == "punched", found["address"].as_str().unwrap_or("nowhere").to_owned(), check)
    };
    let (is_met, address, check) = met("host1", &homes[0], &nodes[0]);
    assert!(is_met && address.starts_with(&format!("[{by_ipv6}]:")), "{check}");
    assert_eq!(check["ipv6"], "works");
    let (is_met, address, check) = met("host3", &homes[1], &nodes[1]);
    assert!(is_met && address.starts_with(&format!("{beside}:")), "{check}");
    assert_eq!(check["ipv6"], "none");

    // And who was told at which address to listen is nowhere else.
    let listen = ["--listen", "192.168.1.11"];
    running.push(join_node("host2", &nodes[2], &listen));
    let check = netcheck("host3", &homes[1], &nodes[2], "5");
    assert_eq!(check["nodes"][0]["reached"], "relayed", "{check}");
    running.push(up);
    for process in running {
        assert!(process.stop().success());
    }
}
