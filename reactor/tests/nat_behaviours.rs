//! Routers of every kind are told apart, and coturn's client says the same of them.
//!
//! The routers are the kernel's, in network namespaces; what each does is known by how it was made (`nat_lab`). It takes
//! root, `ip` and `nft`; coturn's `turnutils_natdiscovery` is a second opinion on our server, where it is installed.

mod nat_lab;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nat_lab::{Kind, Lab, PUBLIC, Site, is_usable, loud};

const INDEPENDENT: &str = "endpoint independent";
const ADDRESS: &str = "address dependent";
const PORT: &str = "address and port dependent";

/// A site, and what must be said of it: mapping, filtering, hairpin. `None` where there is no answer.
type Expected = (Site, Option<(&'static str, &'static str, &'static str)>);

fn expected() -> Vec<Expected> {
    let plain = Site::from;
    let turns_round = |kind| Site { hairpin: true, ..Site::from(kind) };
    vec![
        (plain(Kind::Public), Some((INDEPENDENT, INDEPENDENT, "none needed"))),
        (plain(Kind::Firewall), Some((INDEPENDENT, PORT, "none needed"))),
        (plain(Kind::FullCone), Some((INDEPENDENT, INDEPENDENT, "no"))),
        (turns_round(Kind::FullCone), Some((INDEPENDENT, INDEPENDENT, "yes"))),
        (plain(Kind::Restricted), Some((INDEPENDENT, ADDRESS, "no"))),
        (plain(Kind::PortRestricted), Some((INDEPENDENT, PORT, "no"))),
        (turns_round(Kind::PortRestricted), Some((INDEPENDENT, PORT, "yes"))),
        (plain(Kind::Symmetric), Some((PORT, PORT, "no"))),
        (plain(Kind::SymmetricBlock), Some((PORT, PORT, "no"))),
        (plain(Kind::Carrier), Some((INDEPENDENT, PORT, "no"))),
        (plain(Kind::CarrierSymmetric), Some((PORT, PORT, "no"))),
        (plain(Kind::NoUdp), None),
    ]
}

/// The example, which `cargo test` puts beside the directory of the tests' executables.
fn example() -> String {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join("examples/nat_behaviour");
    assert!(path.exists(), "{}: `cargo test -p reactor` builds the examples", path.display());
    path.to_str().unwrap().to_owned()
}

/// Killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Running {
    Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// What the process has said when it has ended, on both outputs.
fn said(mut running: Running) -> String {
    let stdout = std::io::read_to_string(running.0.stdout.take().unwrap()).unwrap();
    let stderr = std::io::read_to_string(running.0.stderr.take().unwrap()).unwrap();
    running.0.wait().unwrap();
    stdout + &stderr
}

fn has_coturn() -> bool {
    Command::new("turnutils_natdiscovery").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

#[test]
fn routers_of_every_kind_are_told_apart_and_another_client_agrees() {
    if !is_usable("nat_behaviours") {
        return;
    }
    let program = example();
    let expected = expected();
    let sites: Vec<Site> = expected.iter().map(|(site, _)| *site).collect();
    let lab = Lab::new("b", &sites);
    let mut server = start(lab.within("pub", &program).arg("serve").args(&PUBLIC[..2]));
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with(":3478\n"), "{line:?}");

    let place = |number| format!("host{number}");
    let asked: Vec<Running> = (0..sites.len())
        .map(|number| start(lab.within(&place(number), &program).arg(format!("{}:3478", PUBLIC[0]))))
        .collect();
    // At the same time, for silence takes long: nobody's sockets are another's.
    let opinions = if has_coturn() { second_opinions(&lab, &expected) } else { Vec::new() };
    let mut wrong = Vec::new();
    for ((site, expected), running) in expected.iter().zip(asked) {
        let text = said(running);
        let as_expected = match expected {
            Some((mapping, filtering, hairpin)) => {
                text.contains(&format!("mapping: {mapping}; filtering: {filtering}; hairpin: {hairpin};"))
            }
            None => text.contains("no answer"),
        };
        if !as_expected {
            wrong.push(format!("{site:?}: {text}"));
        }
    }
    if opinions.is_empty() {
        loud(
            "SKIPPED: nat_behaviours' second opinion: turnutils_natdiscovery is missing (apt install coturn)",
        );
    }
    for (site, verdict, running) in opinions {
        let text = said(running).to_lowercase();
        // "NAT with Address and Port Dependent Filtering!", or "No NAT! (Endpoint Independent Mapping)".
        if !text.contains(&format!("with {verdict}")) && !text.contains(&format!("({verdict})")) {
            wrong.push(format!("{site:?}: coturn's client does not say {verdict:?}: {text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Asks coturn's client at each site that has an answer, and says what it has to find.
fn second_opinions(lab: &Lab, expected: &[Expected]) -> Vec<(Site, String, Running)> {
    let mut asked = Vec::new();
    for (number, (site, expected)) in expected.iter().enumerate() {
        let Some((mapping, filtering, _)) = expected else { continue };
        for (question, verdict) in
            [("-m", format!("{mapping} mapping")), ("-f", format!("{filtering} filtering"))]
        {
            let mut command = lab.within(&format!("host{number}"), "turnutils_natdiscovery");
            asked.push((*site, verdict, start(command.args([question, PUBLIC[0]]))));
        }
    }
    asked
}
