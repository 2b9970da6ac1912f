//! Where nodes listen is written down where clients look: what `--listen` says outlives the process.

mod common;

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::path::Path;

use common::running::Running;
use common::{Place, fuse_is_usable, storage_node, text};

fn address_in(file: &Path) -> String {
    addresses_in(file).remove(0)
}

fn addresses_in(file: &Path) -> Vec<String> {
    let network: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let nodes = network["nodes"].as_array().unwrap().iter();
    nodes.map(|node| node["address"].as_str().unwrap().to_owned()).collect()
}

/// Where nothing has listened: a port that was bound and let go is taken as long as a process that another test just
/// started has not begun its own program.
fn own_place(number: u8) -> String {
    format!("{}:18473", own_address(number))
}

fn own_address(number: u8) -> String {
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("127.{number}.{high}.{low}")
}

#[test]
fn an_address_that_was_asked_for_is_remembered() {
    if !fuse_is_usable("an_address_that_was_asked_for_is_remembered") {
        return;
    }
    let place = Place::new("listen");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let (network, node) = (home.join("network.json"), home.join("nodes/1"));
    // All of 127.0.0.0/8 is this machine.
    let up =
        Running::start(&["up", "--listen", "127.0.0.9", "--home", text(&home), text(&drive)], "the drive is");
    fs::write(drive.join("file"), "kept").unwrap();
    assert!(address_in(&network).starts_with("127.0.0.9:"), "{}", address_in(&network));
    assert!(up.stop().success());
    let before = address_in(&network);
    // An address of nobody here (RFC 5737), mistyped say: refused, and forgotten.
    let other = ["up", "--listen", "192.0.2.99", "--home", text(&home), text(&drive)];
    assert!(!storage_node(&other).status.success());
    let up = Running::up(&home, &drive, 1);
    assert_eq!(address_in(&network), before, "it stays so");
    assert!(up.stop().success());

    // The node alone, by hand, at another port: who has only the home finds it.
    let free = own_place(10);
    let run = Running::start(&["run", "--home", text(&node), "--listen", &free], "Ctrl-C stops it");
    assert_eq!(address_in(&network), free);
    assert_eq!(address_in(&node.join("network.json")), free);
    let got = storage_node(&["get", "file", "--home", text(&home)]);
    assert_eq!(got.stdout, b"kept", "{}", String::from_utf8_lossy(&got.stderr));
    assert!(run.stop().success());

    let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    for (all, is_of_both) in [("0.0.0.0:", false), ("[::]:", true)] {
        if is_of_both && !has_ipv6 {
            eprintln!("SKIPPED: this machine has no IPv6");
            continue;
        }
        // What nobody can dial does not take the place of what they can. The router of whoever runs this is left alone.
        let asked = format!("{all}0");
        let everywhere = ["run", "--home", text(&node), "--listen", &asked, "--no-port-mapping"];
        let run = Running::start(&[&everywhere[..], &["--no-discovery"]].concat(), "Ctrl-C stops it");
        assert_eq!(address_in(&network), free);
        let said = run.seen.iter().find_map(|line| line.split_once(all));
        let port = said.map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        let port: u16 = port.expect("it says where it listens").parse().unwrap();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(), "{all}");
        assert_eq!(TcpStream::connect((Ipv6Addr::LOCALHOST, port)).is_ok(), is_of_both, "{all}");
        assert!(run.stop().success());
    }
}

/// Whoever mistyped it ends what seems to hang; from then on no `up` could listen.
#[test]
fn an_address_that_nobody_looked_at_is_not_remembered() {
    if !fuse_is_usable("an_address_that_nobody_looked_at_is_not_remembered") {
        return;
    }
    let place = Place::new("listen_cut_short");
    let (home, drive) = (place.join("home"), place.join("drive"));
    assert!(Running::up(&home, &drive, 1).stop().success());
    let node = home.join("nodes/1");
    let listens = || -> String {
        let settings: serde_json::Value =
            serde_json::from_slice(&fs::read(node.join("node.json")).unwrap()).unwrap();
        settings["listen"].as_str().unwrap().to_owned()
    };
    let before = listens();
    // It holds the node's lock, which is waited for.
    let run = Running::start(&["run", "--home", text(&node)], "Ctrl-C stops it");
    let up = Running::start(
        &["up", "--listen", "192.0.2.99:443", "--home", text(&home), text(&drive)],
        "found the network",
    );
    // So that it waits by now; had it not begun to, all is well as well.
    std::thread::sleep(std::time::Duration::from_secs(2));
    up.stop();
    assert_eq!(listens(), before);
    assert!(run.stop().success());
}

#[test]
fn a_node_that_was_moved_away_keeps_no_address_from_being_written_down() {
    if !fuse_is_usable("a_node_that_was_moved_away_keeps_no_address_from_being_written_down") {
        return;
    }
    let place = Place::new("moved");
    let (home, drive) = (place.join("home"), place.join("drive"));
    assert!(Running::up(&home, &drive, 2).stop().success());
    fs::rename(home.join("nodes/2"), place.join("elsewhere")).unwrap();
    let free = own_place(11);
    let node = home.join("nodes/1");
    let run = Running::start(&["run", "--home", text(&node), "--listen", &free], "Ctrl-C stops it");
    assert_eq!(address_in(&home.join("network.json")), free);
    assert!(run.stop().success());
}

#[test]
fn a_port_that_was_asked_for_is_the_first_nodes_and_the_others_have_the_next_ones_or_none_starts() {
    let story =
        "a_port_that_was_asked_for_is_the_first_nodes_and_the_others_have_the_next_ones_or_none_starts";
    if !fuse_is_usable(story) {
        return;
    }
    let place = Place::new("port");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let network = home.join("network.json");
    let asked = ["up", "--nodes", "2", "--home", text(&home), "--listen", &own_place(12), text(&drive)];
    let up = Running::start(&asked, "the drive is");
    let expected = [18_473, 18_474].map(|port| format!("{}:{port}", own_address(12)));
    assert_eq!(addresses_in(&network), expected);

    // A node that joins, likewise; where it could not listen the ticket is not used up.
    let ticket = storage_node(&["invite", "--role", "node", "--home", text(&home)]).stdout;
    let (ticket, member) = (String::from_utf8(ticket).unwrap(), place.join("member"));
    let squatter = TcpListener::bind(format!("{}:18473", own_address(13))).unwrap();
    let (there, here) = (own_place(13), own_place(14));
    let join = |at| ["join", "--home", text(&member), "--listen", at, ticket.trim()];
    let refused = |arguments: &[&str], address: &str| {
        let output = storage_node(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(&format!("cannot listen on {address}")), "{said}");
    };
    refused(&join(&there), &there);
    let joined = Running::start(&join(&here), &format!("listening on {here}"));
    assert!(joined.stop().success());
    assert!(up.stop().success());

    // One of them is taken: none is moved, and it is said which.
    let second = TcpListener::bind(format!("{}:18474", own_address(15))).unwrap();
    refused(
        &["up", "--home", text(&home), "--listen", &own_place(15), text(&drive)],
        &second.local_addr().unwrap().to_string(),
    );
    drop((second, squatter));
    let up = Running::up(&home, &drive, 2);
    assert_eq!(addresses_in(&network), expected, "they stay so");
    assert!(up.stop().success());
}
