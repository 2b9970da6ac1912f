//! Two behind routers call each other by id: the kernel's own routers, in network namespaces, between real processes.
//!
//! Where one of the two routers keeps its outside port the same for everybody there is a direct way, and it is found, if need be
//! by a search for a port of the other's; where UDP is blocked, both connect by TCP at once; and where neither leads anywhere, the call
//! goes over the relay. It takes root, `ip` and `nft`.

mod nat_lab;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nat_lab::{Kind, Lab, PUBLIC, Site, is_usable};

/// Killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The example, which `cargo test` puts beside the directory of the tests' executables.
fn example() -> String {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples/peer");
    assert!(path.exists(), "{}: `cargo test -p reactor` builds the examples", path.display());
    path.to_str().unwrap().to_owned()
}

fn start(command: &mut Command) -> Running {
    Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Starts it and gives the words of its first line.
fn start_and_hear(command: &mut Command) -> (Running, Vec<String>) {
    let mut running = start(command);
    let mut line = String::new();
    BufReader::new(running.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (running, line.split_whitespace().map(str::to_owned).collect())
}

/// What the process has said when it has ended, on both outputs.
fn said(mut running: Running) -> String {
    let stdout = std::io::read_to_string(running.0.stdout.take().unwrap()).unwrap();
    let stderr = std::io::read_to_string(running.0.stderr.take().unwrap()).unwrap();
    running.0.wait().unwrap();
    stdout + &stderr
}

#[test]
fn who_can_be_reached_directly_is_and_everybody_over_the_relay() {
    use Kind::{Carrier, Firewall, FullCone, NoUdp, PortRestricted, Public, Restricted, Symmetric};
    if !is_usable("peers_behind_routers") {
        return;
    }
    let program = example();
    let kinds = [
        Public,
        Firewall,
        FullCone,
        Restricted,
        PortRestricted,
        Carrier,
        PortRestricted,
        Symmetric,
        Symmetric,
        NoUdp,
    ];
    let sites = kinds.map(Site::from);
    let lab = Lab::new("p", &sites);
    let at = format!("{}:4433", PUBLIC[0]);
    let (_relay, words) = start_and_hear(lab.within("pub", &program).args(["relay", &at]));
    let relay = words[1].clone();

    let place = |number| format!("host{number}");
    let listeners: Vec<(Running, Vec<String>)> = (0..kinds.len())
        .map(|number| start_and_hear(lab.within(&place(number), &program).args(["listen", &at, &relay])))
        .collect();
    let is_alike_for_all = |kind| kind != Symmetric;
    let mut calls = Vec::new();
    for near in 0..kinds.len() {
        for far in near + 1..kinds.len() {
            let (one, other) = (kinds[near], kinds[far]);
            let has_udp = one != NoUdp && other != NoUdp;
            let meets = match has_udp {
                true => is_alike_for_all(one) || is_alike_for_all(other),
                // Ports are not searched for by TCP.
                false => one != Symmetric && other != Symmetric,
            };
            // In one direction each, and not the same one.
            let (from, to) = if (near + far) % 2 == 0 { (near, far) } else { (far, near) };
            let patience = if meets { "60" } else { "8" };
            let arguments = ["call", &at, &relay, &listeners[to].1[2], patience];
            calls.push((
                kinds[from],
                kinds[to],
                (meets, has_udp),
                start(lab.within(&place(from), &program).args(arguments)),
            ));
        }
    }
    let mut wrong = Vec::new();
    for (from, to, (meets, has_udp), running) in calls {
        let text = said(running);
        let expected = if meets { "direct to" } else { "over the relay" };
        let carrier = match (meets, has_udp) {
            (true, false) => "by Tcp",
            // On a busy machine TCP may be there first, and UDP replaces it.
            _ => "",
        };
        let is_as_expected = [expected, carrier, "first answer", "an answer takes"];
        if !is_as_expected.iter().all(|words| text.contains(words)) {
            wrong.push(format!("{from:?} calls {to:?}, {expected}: {text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What arrives at such a router before its own host has sent anything there is answered by the router itself, and the port is
/// lost to the host for as long as the other goes on. So nothing may arrive too early, whichever side is first.
#[test]
fn routers_that_answer_for_themselves_are_not_reached_too_early() {
    if !is_usable("peers_behind_routers") {
        return;
    }
    let program = example();
    let open = Site { open: true, ..Site::from(Kind::PortRestricted) };
    let lab = Lab::new("o", &[open, open, Kind::PortRestricted.into()]);
    let at = format!("{}:4433", PUBLIC[0]);
    let (_relay, words) = start_and_hear(lab.within("pub", &program).args(["relay", &at]));
    let relay = words[1].clone();
    for (from, to) in [("host0", "host1"), ("host1", "host2"), ("host2", "host0")] {
        let (_listening, words) = start_and_hear(lab.within(to, &program).args(["listen", &at, &relay]));
        let text = said(start(lab.within(from, &program).args(["call", &at, &relay, &words[2], "60"])));
        assert!(text.contains("by Udp"), "{from} calls {to}: {text}");
    }
}

/// It keeps a connection to its relay from an address that it has no more, and nothing that is sent there arrives.
#[test]
fn who_has_another_address_is_found_by_its_id_before_anybody_gives_up() {
    if !is_usable("peers_behind_routers") {
        return;
    }
    let program = example();
    let lab = Lab::new("m", &[Kind::PortRestricted, Kind::PortRestricted].map(Site::from));
    let at = format!("{}:4433", PUBLIC[0]);
    let (_relay, words) = start_and_hear(lab.within("pub", &program).args(["relay", &at]));
    let relay = words[1].clone();
    let (_listening, words) = start_and_hear(lab.within("host0", &program).args(["listen", &at, &relay]));
    lab.readdress(0);
    // Who dials waits for 10 s, and the relay for 40 s before it takes a client for gone.
    let text = said(start(lab.within("host1", &program).args(["call", &at, &relay, &words[2], "60"])));
    assert!(text.contains("by Udp"), "{text}");
}

/// They are strangers to each other inside, and each sees the other outside only.
#[test]
fn two_behind_one_providers_router_meet_where_it_turns_round_what_is_for_itself() {
    if !is_usable("peers_behind_routers") {
        return;
    }
    let program = example();
    let first = Site { hairpin: true, ..Site::from(Kind::Carrier) };
    let lab = Lab::new("c", &[first, Site { shares_with: Some(0), ..first }]);
    let at = format!("{}:4433", PUBLIC[0]);
    let (_relay, words) = start_and_hear(lab.within("pub", &program).args(["relay", &at]));
    let relay = words[1].clone();
    let (_listening, words) = start_and_hear(lab.within("host0", &program).args(["listen", &at, &relay]));
    let text = said(start(lab.within("host1", &program).args(["call", &at, &relay, &words[2], "60"])));
    assert!(text.contains("direct to 11.0.1.2:"), "{text}");
}

/// Two routers that show each another port, and a relay that has no IPv6: over IPv4 there is no way, and they get IPv6 only while
/// they talk.
#[test]
fn who_gets_an_address_of_ipv6_meanwhile_is_met_by_it_though_the_relay_has_none() {
    let story = "who_gets_an_address_of_ipv6_meanwhile_is_met_by_it_though_the_relay_has_none";
    if !is_usable(story) || !nat_lab::ipv6::is_here(story) {
        return;
    }
    let program = example();
    let lab = Lab::new("6", &[Kind::Symmetric, Kind::Symmetric].map(Site::from));
    for number in [0, 1] {
        lab.connect_by_ipv6(number);
    }
    let at = format!("{}:4433", PUBLIC[0]);
    let (_relay, words) = start_and_hear(lab.within("pub", &program).args(["relay", &at]));
    let relay = words[1].clone();
    let (_listening, words) = start_and_hear(lab.within("host0", &program).args(["listen", &at, &relay]));
    let (mut calling, first) =
        start_and_hear(lab.within("host1", &program).args(["call", &at, &relay, &words[2], "60"]));
    assert_eq!(first[..2], ["first", "answer"], "over the relay");
    let listener = lab.give_ipv6(0);
    lab.give_ipv6(1);
    let said = std::io::read_to_string(calling.0.stdout.take().unwrap()).unwrap();
    assert!(said.contains(&format!("direct to [{listener}]:")) && said.contains("by Udp"), "{said}");
}

/// The relay is reached by one interface, and the two are beside each other by another.
#[test]
fn two_in_one_network_meet_there_though_another_interface_leads_to_the_relay() {
    if !is_usable("two_in_one_network_meet_there_though_another_interface_leads_to_the_relay") {
        return;
    }
    let program = example();
    let lab = Lab::new("i", &[Kind::Symmetric, Kind::NoUdp].map(Site::from));
    let [listener, _] = lab.join_networks(0, 1);
    let at = format!("{}:4433", PUBLIC[0]);
    let (_relay, words) = start_and_hear(lab.within("pub", &program).args(["relay", &at]));
    let relay = words[1].clone();
    let (_listening, words) = start_and_hear(lab.within("host0", &program).args(["listen", &at, &relay]));
    let text = said(start(lab.within("host1", &program).args(["call", &at, &relay, &words[2], "60"])));
    assert!(text.contains(&format!("direct to {listener}:")) && text.contains("by Udp"), "{text}");
}
