//! `netcheck`: what this machine's network lets through, and how each node is reached from here, and why not better.
//!
//! The nodes are reached as a drive reaches them, by the same code. What the router does, it learns by asking relays where its
//! packets come from, from one socket: who sees the same port at two relays has a router through which others may be reached.
//!
//! Whether the router lets members in (`netcheck/port_mapping.rs`) is tried beside that; what was reached by IPv6 says whether that
//! works (`netcheck/ipv6.rs`).
//!
//! Not here: whether the nodes are well (`status`), or who may come in (`members`).

mod ipv6;
mod port_mapping;

use std::cell::OnceCell;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overlay::message::{CONTACTS_MAX, Ping};
use overlay::record::Relay;
use overlay::{Contact, How, Node, NodeId, Overlay};
use reactor::nat::stun::{self, Timing};
use reactor::net::{BindOptions, UdpSocket, all_addresses};
use serde::Serialize;

use self::ipv6::Ipv6;
use self::port_mapping::{MappingCheck, Trial};
use crate::cli::{MappingOption, Netcheck};
use crate::client::{self, Client, Settings};
use crate::errors::Failure;
use crate::network::Hex;
use crate::nodes::{ID_DIGITS_MIN, Listed, Nodes};
use crate::output;
use crate::process;
use crate::remove::on_each;
use crate::stop::Stop;

/// One call's time: a dial over a relay is three round trips.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// A relay that takes longer to say where our packets come from does not, or UDP does not get there.
const STUN_LIMIT: Duration = Duration::from_secs(1);
/// How often it is looked whether there is a direct way.
const INTERVAL: Duration = Duration::from_millis(20);
/// How often it is looked for a node that nobody has heard of yet.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Calls of which the fastest counts.
const PINGS: usize = 5;
/// Relays that are asked: one more than it takes to tell routers apart, and one that may be down.
const RELAYS_MAX: usize = 4;

/// What was found.
#[derive(Debug, Serialize)]
struct Overview {
    /// Whether UDP gets out and back; none if there is no relay to ask.
    udp: Option<bool>,
    ipv6: Ipv6,
    router: Option<Router>,
    port_mapping: MappingCheck,
    /// Where the relays see this machine, each address once.
    seen_as: Vec<SocketAddr>,
    relays: Vec<RelayCheck>,
    nodes: Vec<NodeCheck>,
}

/// What a router does with the address of a machine behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Router {
    /// There is none that changes it.
    None,
    /// Everybody outside sees the same.
    SameForAll,
    /// Each sees another.
    OtherForEach,
    /// It changes it, and there are not two relays to compare.
    Unknown,
}

#[derive(Debug, Serialize)]
struct RelayCheck {
    id: Hex<[u8; 32]>,
    address: SocketAddr,
    /// To there and back, by UDP; none if nothing came.
    round_trip_ms: Option<f64>,
    seen_as: Option<SocketAddr>,
}

#[derive(Debug, Serialize)]
struct NodeCheck {
    number: Option<u16>,
    id: Hex<[u8; 32]>,
    /// `direct`, `punched`, `punched-tcp` or `relayed`; none if it does not answer.
    reached: Option<How>,
    /// Where it is, as seen from here; none where only a relay sees it.
    address: Option<SocketAddr>,
    /// Since this command began to look for the network.
    first_reply_ms: Option<f64>,
    /// The same, until it was reached without a relay.
    direct_after_ms: Option<f64>,
    round_trip_ms: Option<f64>,
}

/// Runs the command.
///
/// # Errors
/// Those of the settings' files, or `Failure::NoNode` if no node can be reached, or not the one that is asked for;
/// `Failure::NotMet` if that was not even heard of; `Failure::CutShort` at Ctrl-C.
pub(crate) fn netcheck(options: &Netcheck) -> Result<(), Failure> {
    let settings = client::settings(&options.client)?;
    let limit = Duration::from_secs(options.seconds.into());
    let overview = process::run(|| ask(&settings, options.to.as_deref(), limit, options.mapping))?;
    match options.json {
        true => output::print_json(&overview)?,
        false => output::print(&render(&overview))?,
    }
    match &options.to {
        Some(name) if overview.nodes.iter().all(|node| node.reached.is_none()) => {
            Err(Failure::NoNode { reason: format!("{name} was not reached within {limit:?}") })
        }
        _ => Ok(()),
    }
}

fn ask(
    settings: &Settings,
    to: Option<&str>,
    limit: Duration,
    mapping: MappingOption,
) -> Result<Overview, Failure> {
    let began = reactor::now();
    let nodes = Nodes::of(settings)?;
    // What the router maps is given back also at Ctrl-C.
    let stop = Stop::on_signals()?;
    let client = stop.unless_open(|| Client::connect(settings)).ok_or(Failure::CutShort)??;
    let trial = OnceCell::new();
    let look = || {
        let overlay = client.overlay();
        let ids_of =
            |contacts: &[Contact]| contacts.iter().map(|contact| contact.id).collect::<Vec<NodeId>>();
        // Joining has just looked for our neighbours: who is asked for is mostly among them, and each lookup is a round trip to the
        // farthest of them.
        let mut contacts = known(overlay, &nodes);
        let is_met = |id: NodeId| overlay.contacts().iter().any(|(contact, _)| contact.id == id);
        if to.is_none_or(|name| !nodes.named(&ids_of(&contacts), name).is_ok_and(is_met)) {
            contacts = all_of(overlay, &nodes);
        }
        if let Some(name) = to {
            let wanted = loop {
                match nodes.named(&ids_of(&contacts), name) {
                    // It may be met over a relay only, or have just come.
                    Err(Failure::NoSuchNode { .. }) if reactor::now() < began + limit => {
                        reactor::sleep(LOOK_EVERY);
                    }
                    // Whom nobody has met in time may be a node all the same.
                    Err(Failure::NoSuchNode { .. }) if name.len() >= ID_DIGITS_MIN => {
                        return Err(Failure::NotMet { name: name.into(), within: limit });
                    }
                    named => break named?,
                }
                contacts = all_of(overlay, &nodes);
                contacts.extend(sought(overlay, name, &contacts));
            };
            contacts.retain(|contact| contact.id == wanted);
        }
        client.map_ports(mapping);
        let all = known(overlay, &nodes);
        let relays = relays_of(&all);
        let trial = trial.get_or_init(|| Trial::begin(mapping, all.iter().any(is_elsewhere)));
        let mut found = (Vec::new(), Vec::new());
        reactor::scope(|scope| {
            let asking = scope.spawn(|| ask_relays(&relays));
            let trying = scope.spawn(|| trial.iter().for_each(|trial| trial.wait(began)));
            let answers = on_each(overlay, &contacts, |overlay, contact| {
                let number = nodes.get(&contact.id).and_then(|node| node.number);
                check(overlay, number, contact, began, limit)
            });
            found = (answers.into_iter().flatten().collect(), asking.join().unwrap_or_default());
            let _ = trying.join();
        });
        Ok::<(Vec<NodeCheck>, Vec<RelayCheck>), Failure>(found)
    };
    let found = stop.unless_open(look).unwrap_or(Err(Failure::CutShort));
    let seen_as = |asked: &[RelayCheck]| {
        let mut seen_as: Vec<SocketAddr> = asked.iter().filter_map(|relay| relay.seen_as).collect();
        seen_as.dedup();
        seen_as
    };
    let seen_as = found.as_ref().map_or_else(|_| Vec::new(), |(_, asked)| seen_as(asked));
    let trial = trial.into_inner().unwrap_or_else(|| Err("it was cut short".into()));
    let port_mapping = port_mapping::outcome(trial, &seen_as);
    client.leave();
    let (mut checks, asked) = found?;
    checks.sort_by_key(|check| (check.number.unwrap_or(u16::MAX), check.id.0));
    Ok(Overview {
        udp: (!asked.is_empty()).then_some(!seen_as.is_empty()),
        ipv6: Ipv6::found(
            own_address_towards(Ipv6::SOMEBODY).is_some(),
            asked.iter().map(|relay| (relay.address, relay.seen_as.is_some())),
            checks.iter().filter_map(|check| check.address),
        ),
        router: router(&asked),
        port_mapping,
        seen_as,
        relays: asked,
        nodes: checks,
    })
}

/// Whether a node may be on another machine, by what is known of where it is.
fn is_elsewhere(contact: &Contact) -> bool {
    let mut addresses = contact.addresses.iter().peekable();
    addresses.peek().is_none() || addresses.any(|address| !address.ip().is_loopback())
}

/// The nodes that a lookup finds, and those that are known of and don't answer: that is what is to be seen.
fn all_of(overlay: &Node, nodes: &Nodes) -> Vec<Contact> {
    overlay.lookup(&overlay.id(), CONTACTS_MAX);
    known(overlay, nodes)
}

/// The nodes that have been met by now, and those that are known of and were not.
fn known(overlay: &Node, nodes: &Nodes) -> Vec<Contact> {
    let mut contacts: Vec<Contact> = overlay.contacts().into_iter().map(|(contact, _)| contact).collect();
    let is_met = |node: &Listed| contacts.iter().any(|contact| contact.id == node.id());
    let unmet: Vec<Contact> = nodes.present().filter(|node| !is_met(node)).map(Listed::contact).collect();
    contacts.extend(unmet);
    contacts
}

/// The node of that id, where the lookup of our own neighbours does not come to it: in a large network, or over relays of its own.
fn sought(overlay: &Node, id: &str, met: &[Contact]) -> Option<Contact> {
    let id: NodeId = id.to_lowercase().parse().ok()?;
    let is_unknown = met.iter().all(|contact| contact.id != id);
    let found = is_unknown.then(|| overlay.lookup(&id, 1).closest)?;
    found.into_iter().find(|contact| contact.id == id)
}

/// The nodes that relay.
fn relays_of(contacts: &[Contact]) -> Vec<Relay> {
    contacts.iter().filter_map(Contact::as_relay).take(RELAYS_MAX).collect()
}

/// Calls a node until it answers, and then looks for a direct way for as long as it may.
fn check(
    overlay: &Node,
    number: Option<u16>,
    contact: &Contact,
    began: Instant,
    limit: Duration,
) -> NodeCheck {
    let until = began + limit;
    let ping = || overlay.call::<Ping>(contact, &(), Bytes::new(), ANSWER_LIMIT).is_ok();
    let mut answers = ping();
    while !answers && reactor::now() < until {
        reactor::sleep(INTERVAL);
        answers = ping();
    }
    let how = || overlay.peers().how(&contact.public_key);
    let first_reply_ms = answers.then(|| milliseconds(reactor::now() - began));
    while answers && how() == Some(How::Relayed) && reactor::now() < until {
        reactor::sleep(INTERVAL);
    }
    let is_direct = answers && matches!(how(), Some(How::Direct | How::Punched | How::PunchedTcp));
    let direct_after_ms = is_direct.then(|| milliseconds(reactor::now() - began));
    let round_trip = if answers { round_trip(overlay, contact) } else { None };
    NodeCheck {
        number,
        id: Hex(contact.id.0),
        reached: how().filter(|_| answers),
        address: overlay.peers().place(&contact.public_key).and_then(|(_, address)| address),
        first_reply_ms,
        direct_after_ms,
        round_trip_ms: round_trip.map(milliseconds),
    }
}

/// How long a call of a node takes that does nothing, to there and back: the fastest of some.
///
/// # Suspends
/// For those.
pub(crate) fn round_trip(overlay: &Node, contact: &Contact) -> Option<Duration> {
    let pings = (0..PINGS).map_while(|_| {
        let begun = reactor::now();
        let answer = overlay.call::<Ping>(contact, &(), Bytes::new(), ANSWER_LIMIT);
        answer.is_ok().then(|| reactor::now() - begun)
    });
    pings.min()
}

/// Asks each relay where our packets come from, all from one socket.
fn ask_relays(relays: &[Relay]) -> Vec<RelayCheck> {
    let both = BindOptions { only_v6: Some(false), ..BindOptions::default() };
    let socket = UdpSocket::bind_with(all_addresses(0), &both).ok();
    let check = |relay: &Relay| {
        let asked = socket.as_ref().and_then(|socket| {
            let begun = reactor::now();
            let answer = reactor::timeout(STUN_LIMIT, || stun::ask(socket, relay.address, Timing::default()));
            Some((answer.ok()?.ok()?.mapped, reactor::now() - begun))
        });
        RelayCheck {
            id: Hex(NodeId::of(&relay.public_key).0),
            address: relay.address,
            round_trip_ms: asked.map(|(_, took)| milliseconds(took)),
            seen_as: asked.map(|(mapped, _)| SocketAddr::new(mapped.ip().to_canonical(), mapped.port())),
        }
    };
    relays.iter().map(check).collect()
}

/// What the answers of relays say of the router.
fn router(asked: &[RelayCheck]) -> Option<Router> {
    let seen = || asked.iter().filter_map(|relay| Some((relay, relay.seen_as?)));
    // By IPv6 hardly any router changes addresses, and what one family shows says nothing of the other.
    let is_by_v4 = seen().any(|(_, seen)| seen.is_ipv4());
    let seen: Vec<(&RelayCheck, SocketAddr)> =
        seen().filter(|(_, seen)| seen.is_ipv4() == is_by_v4).collect();
    let (relay, first) = *seen.first()?;
    let own = own_address_towards(relay.address).map(|own| own.ip());
    Some(match &seen[..] {
        _ if own == Some(first.ip()) => Router::None,
        [_] => Router::Unknown,
        all if all.iter().all(|(_, seen)| *seen == first) => Router::SameForAll,
        _ => Router::OtherForEach,
    })
}

/// The address of this machine from which packets for there would leave; sends nothing.
fn own_address_towards(there: SocketAddr) -> Option<SocketAddr> {
    let any = if there.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(there).ok()?;
    socket.local_addr().ok()
}

pub(crate) fn milliseconds(span: Duration) -> f64 {
    // To the microsecond: more says nothing.
    (span.as_secs_f64() * 1e6).round() / 1e3
}

fn render(overview: &Overview) -> String {
    let udp = match overview.udp {
        Some(true) => "UDP gets out and back",
        Some(false) => "no relay answers by UDP: it may be blocked here, or at the relays",
        None => "no node relays, so there is nobody to ask about UDP",
    };
    let router = match overview.router {
        Some(Router::None) => "; no router changes its address",
        Some(Router::SameForAll) => {
            "; its router shows everybody outside the same port: others can get through to it"
        }
        Some(Router::OtherForEach) => {
            "; its router shows each destination another port: finding a direct way takes a search of some seconds, and there is \
             hardly one to those whose router does the same"
        }
        Some(Router::Unknown) => {
            "; a router changes its address (it takes two relays to tell how, and fewer have answered)"
        }
        None => "",
    };
    let mut text = format!("this machine: {udp}{router}; {}\n", overview.ipv6.in_words());
    let _ = writeln!(text, "  port mapping: {}", overview.port_mapping.in_words());
    for seen in &overview.seen_as {
        let _ = writeln!(text, "  seen as {seen}");
    }
    if !overview.relays.is_empty() {
        let _ = writeln!(text, "\nrelays");
    }
    for relay in &overview.relays {
        let took = relay.round_trip_ms.map_or("no answer by UDP".into(), |took| format!("{took} ms"));
        let _ = writeln!(text, "  {:<10}{:<24}{took}", short(&relay.id), relay.address.to_string());
    }
    let _ = writeln!(text, "\nnodes");
    for node in &overview.nodes {
        let number = node.number.map_or("-".into(), |number| number.to_string());
        let _ = write!(text, "  {number:<6}{:<10}", short(&node.id));
        let (Some(how), Some(first)) = (node.reached, node.first_reply_ms) else {
            let _ = writeln!(text, "does not answer, directly or over a relay");
            continue;
        };
        let _ = write!(text, "{:<28}first reply after {first} ms", how.to_string());
        if let Some(after) = node.direct_after_ms.filter(|_| matches!(how, How::Punched | How::PunchedTcp)) {
            let _ = write!(text, ", direct after {after} ms");
        }
        if let Some(took) = node.round_trip_ms {
            let _ = write!(text, ", now {took} ms");
        }
        let _ = writeln!(text, "{}", if how == How::Relayed { why_relayed(overview) } else { "" });
    }
    text
}

/// Why no direct way was found, as far as this side knows.
fn why_relayed(overview: &Overview) -> &'static str {
    match (overview.udp, overview.router) {
        (Some(false), _) => {
            "; no direct way was found: no relay answers by UDP here, and connections by TCP from both sides did not meet"
        }
        (_, Some(Router::OtherForEach)) => {
            "; no direct way was found: this machine's router shows the node another port than it shows the relay"
        }
        _ => {
            "; no direct way was found: none of its packets has come through, or none of ours (routers let in only what they expect)"
        }
    }
}

fn short(id: &Hex<[u8; 32]>) -> String {
    id.to_string()[..ID_DIGITS_MIN].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(port: u16, seen_as: Option<&str>) -> RelayCheck {
        RelayCheck {
            id: Hex([7; 32]),
            address: ([127, 0, 0, 1], port).into(),
            round_trip_ms: seen_as.map(|_| 1.5),
            seen_as: seen_as.map(|address| address.parse().unwrap()),
        }
    }

    #[test]
    fn what_two_relays_see_tells_what_the_router_does() {
        let (here, outside, other) = ("127.0.0.1:9", "192.0.2.1:9", "192.0.2.1:10");
        for (seen, expected) in [
            (&[][..], None),
            (&[None, None], None),
            (&[Some(here), None], Some(Router::None)),
            (&[None, Some(outside)], Some(Router::Unknown)),
            (&[Some(outside), None, Some(outside)], Some(Router::SameForAll)),
            (&[Some(outside), Some(other)], Some(Router::OtherForEach)),
            (&[Some("[2a00::1]:9"), Some(outside), Some(outside)], Some(Router::SameForAll)),
            (&[Some("[2a00::1]:9"), Some("[2a00::1]:9")], Some(Router::SameForAll)),
        ] {
            let asked: Vec<RelayCheck> =
                seen.iter().enumerate().map(|(port, seen)| relay(1 + port as u16, *seen)).collect();
            assert_eq!(router(&asked), expected, "{seen:?}");
        }
    }

    #[test]
    fn each_node_has_its_line_and_who_is_relayed_the_reason() {
        let node = |number, reached: Option<How>| NodeCheck {
            number: Some(number),
            id: Hex([number as u8; 32]),
            reached,
            first_reply_ms: reached.map(|_| 12.5),
            address: None,
            direct_after_ms: reached.filter(|how| *how != How::Relayed).map(|_| 250.0),
            round_trip_ms: reached.map(|_| 0.25),
        };
        let overview = Overview {
            udp: Some(true),
            ipv6: Ipv6::None,
            router: Some(Router::OtherForEach),
            port_mapping: port_mapping::outcome(Err("the router is not asked".into()), &[]),
            seen_as: vec!["192.0.2.1:9".parse().unwrap()],
            relays: vec![relay(1, Some("192.0.2.1:9")), relay(2, None)],
            nodes: vec![
                node(1, Some(How::Direct)),
                node(2, Some(How::Punched)),
                node(3, Some(How::Relayed)),
                node(4, None),
            ],
        };
        let text = render(&overview);
        let line =
            |start: &str| text.lines().find(|line| line.trim_start().starts_with(start)).unwrap().to_owned();
        assert!(line("1 ").contains("directly") && !line("1 ").contains("direct after"), "{text}");
        assert!(
            line("2 ").contains("through its router") && line("2 ").contains("direct after 250 ms"),
            "{text}"
        );
        assert!(
            line("3 ").contains("over a relay") && line("3 ").contains("no direct way was found"),
            "{text}"
        );
        assert!(text.contains("shows each destination another port"), "{text}");
        assert!(line("4 ").contains("does not answer") && text.contains("no answer by UDP"), "{text}");
    }
}
