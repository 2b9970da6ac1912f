//! Reach among real nodes of this process: which relays count, who may come by our id, and what a removal takes.

use std::cell::Cell;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;

use reactor::crypto::Identity;
use reactor::nat::relay::Event;
use reactor::nat::stun::{self, Timing};
use reactor::net::tls::Expect;
use reactor::rpc::Service;

use super::*;
use crate::Overlay;
use crate::contact::Introduction;
use crate::node::{Config, Node};
use crate::passport::{CLOCK_SKEW_MAX, Passport, Rights};
use crate::peers::Peers;
use crate::record::{NodeRecord, Statement};
use crate::revocation::Revocations;
use crate::revoking;

struct Network {
    owner: Identity,
}

impl Network {
    fn passport(&self, of: &Identity, expires: Option<std::time::SystemTime>) -> Passport {
        Passport::issue(&self.owner, of.public_key(), Rights::NODE, expires)
    }

    fn node(&self, identity: Identity, through: &[SocketAddr]) -> Rc<Node> {
        self.node_with(identity, through, None)
    }

    fn node_with(&self, identity: Identity, through: &[SocketAddr], list: Option<PathBuf>) -> Rc<Node> {
        let passport = self.passport(&identity, None);
        let config = Config {
            identity,
            network: self.owner.public_key(),
            passport,
            role: Role::Storage,
            listen: Some(([127, 0, 0, 1], 0).into()),
            bootstrap: through.iter().copied().map(Bootstrap::Address).collect(),
            contacts_file: None,
            revocations_file: list,
            renewals_file: None,
            statement: Statement::default(),
            record_file: None,
            peers: Peers::new(),
        };
        Node::start(config, Service::new()).unwrap()
    }

    fn removed(&self, key: PublicKey) -> Revocations {
        Revocations::default().with(&self.owner, [key], reactor::wall_clock()).unwrap()
    }
}

fn identity(number: u8) -> Identity {
    Identity::from_seed(&[number; 32])
}

fn address(node: &Node) -> SocketAddr {
    node.listen_address().unwrap()
}

fn key(node: &Node) -> PublicKey {
    node.own().unwrap().public_key
}

/// A network whose first node relays, and another node that is found over it.
fn two() -> (Network, Rc<Node>, Rc<Node>) {
    let network = Network { owner: identity(1) };
    let relay = network.node(identity(2), &[]);
    relay.relay().unwrap();
    let other = network.node(identity(3), &[address(&relay)]);
    let names = |node: &Node| node.record().unwrap().statement().relays.clone();
    until(|| names(&other) == [key(&relay)] && clients(&relay) == 2);
    (network, relay, other)
}

fn clients(relay: &Node) -> usize {
    relay.state().relaying.get().unwrap().relay().client_count()
}

fn until(condition: impl Fn() -> bool) {
    let begun = reactor::now();
    while !condition() {
        assert!(reactor::now() - begun < Duration::from_secs(60), "it never comes to that");
        reactor::sleep(Duration::from_millis(10));
    }
}

/// Whoever took the machine that relays, and has it go on as if nothing were: it does not even hear that it was removed.
#[test]
fn a_relay_that_is_removed_is_left_at_once_and_named_no_more_though_there_is_no_other() {
    reactor::run(|| {
        let (network, relay, other) = two();
        other.revoke(network.removed(key(&relay))).unwrap();
        assert!(other.record().unwrap().statement().relays.is_empty());
        until(|| clients(&relay) < 2);
        // Nor does it come back, for whomever that names it.
        let state = other.state();
        let named = Places { relays: vec![key(&relay)], ..Places::default() };
        assert!(state.reach.dial(state, &identity(9).public_key(), &named).is_err());
        state.reach.tend(state);
        assert!(known(state).is_empty() && state.reach.begun.borrow().as_ref().unwrap().kept.is_empty());
        assert!(clients(&relay) < 2);
        other.stop();
        relay.stop();
    });
}

/// Of whoever brings the list, the call ends while we are about to say that the relay is none of ours any more.
#[test]
fn a_list_that_was_taken_is_on_disk_though_whoever_brought_it_gives_up() {
    reactor::run(|| {
        let (network, relay, _other) = two();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked");
        let third = network.node_with(identity(4), &[address(&relay)], Some(path.clone()));
        until(|| third.record().unwrap().statement().relays == [key(&relay)]);
        let (state, list) = (third.state().clone(), network.removed(key(&relay)));
        // Something else is being said of ourselves, which takes its time.
        let turn = state.stating.lock();
        let taking = reactor::spawn({
            let state = state.clone();
            move || revoking::take(&state, list).map(drop)
        });
        until(|| path.exists());
        taking.terminate();
        let _ = taking.join();
        drop(turn);
        let kept = Revocations::load(&path, &network.owner.public_key()).unwrap();
        assert!(kept.contains(&key(&relay)));
        third.stop();
    });
}

#[test]
fn a_relay_whose_socket_failed_tells_again_where_others_are_seen() {
    reactor::run(|| {
        let (_network, relay, other) = two();
        let asked = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            stun::ask(&socket, address(&relay), Timing::default()).is_ok()
        };
        assert!(asked());
        let reach = &relay.state().reach;
        let failed = {
            let begun = reach.begun.borrow();
            let begun = begun.as_ref().unwrap();
            begun.accepting.as_ref().unwrap().terminate();
            begun.carrier.clone()
        };
        let is_anew =
            || reach.begun.borrow().as_ref().is_some_and(|begun| !Rc::ptr_eq(&begun.carrier, &failed));
        until(is_anew);
        drop(failed);
        until(asked);
        other.stop();
        relay.stop();
    });
}

#[test]
fn nobody_waits_for_a_relay_that_has_been_tried_for_long() {
    reactor::run(|| {
        let (_network, relay, other) = two();
        relay.stop();
        let state = other.state();
        until(|| !is_up(state, &key(&relay)));
        let long_ago = reactor::now() - DIAL_TIMEOUT;
        if let Some(begun) = state.reach.begun.borrow_mut().as_mut() {
            begun.kept.iter_mut().for_each(|kept| kept.added_at = long_ago);
        }
        let places = Places { relays: vec![key(&relay)], ..Places::default() };
        // Whatever waits here is cut off.
        let dialled = reactor::timeout(Duration::from_millis(1), || {
            state.reach.dial(state, &identity(9).public_key(), &places).map(drop)
        });
        assert_eq!(dialled.expect("it says so at once").unwrap_err().kind(), ErrorKind::NotConnected);
        other.stop();
    });
}

#[test]
fn a_member_is_found_at_a_relay_that_is_still_being_connected() {
    reactor::run(|| {
        let (network, relay, other) = two();
        let second = network.node(identity(5), &[address(&relay)]);
        second.relay().unwrap();
        let state = other.state();
        until(|| known(state).len() == 2);
        // Who is at the second one only.
        let far = Rc::new(identity(30));
        let passport = network.passport(&far, None).to_bytes();
        let carrier = Carrier::bind(([127, 0, 0, 1], 0).into(), &far).unwrap();
        let at = RelayAt::new(address(&second), key(&second).into());
        carrier.add_relay(RelayAt { credential: passport, ..at });
        carrier.wait_relay(reactor::now() + Duration::from_secs(60)).unwrap();
        let accepting = reactor::spawn(move || while carrier.accept().is_ok() {});
        // The first is up, and says at once that it does not know it.
        let of_second = |kept: &Kept| kept.relay.public_key == key(&second);
        until(|| is_up(state, &key(&relay)));
        if let Some(begun) = state.reach.begun.borrow_mut().as_mut() {
            let gone: Vec<Kept> = begun.kept.extract_if(.., |kept| of_second(kept)).collect();
            gone.iter().for_each(|kept| begun.carrier.remove_relay(kept.key));
        }
        let places = Places { relays: vec![key(&relay), key(&second)], ..Places::default() };
        let dialled = state.reach.dial(state, &far.public_key(), &places);
        assert!(dialled.is_ok(), "{:?}", dialled.map(drop));
        accepting.terminate();
        other.stop();
        second.stop();
        relay.stop();
    });
}

fn is_up(state: &State, relay: &PublicKey) -> bool {
    let begun = state.reach.begun.borrow();
    let Begun { carrier, kept, .. } = begun.as_ref().unwrap();
    kept.iter().any(|kept| kept.relay.public_key == *relay && carrier.is_connected_to(kept.key))
}

#[test]
fn nobody_is_sent_to_a_relay_by_anothers_word() {
    reactor::run(|| {
        let (_network, relay, other) = two();
        let state = relay.state();
        assert_eq!(known(state).into_keys().collect::<Vec<_>>(), [key(&relay)]);
        // A member names somebody who is none. What is no member's own word is no relay.
        other.restate(|says| says.relays = vec![identity(66).public_key()]);
        let names = |contact: &Contact| contact.relays() == [identity(66).public_key()];
        until(|| relay.contacts().iter().any(|(contact, _)| names(contact)));
        assert_eq!(known(state).len(), 1);
        let places = Places::of(&relay.contacts()[0].0);
        let kept = || state.reach.begun.borrow().as_ref().unwrap().kept.len();
        let _ =
            reactor::timeout(Duration::from_millis(100), || state.reach.dial(state, &key(&other), &places));
        assert_eq!(kept(), 1);
        // Nor is who says so itself and was never let in.
        let said = Statement {
            addresses: [address(&relay)].into_iter().collect(),
            is_relay: true,
            ..Statement::default()
        };
        let record = NodeRecord::sign(&identity(67), &state.credentials.network, 1, said);
        let stranger = Contact::new(*record.holder(), []).with_record(Arc::new(record));
        state.meet(&Introduction::from(&stranger));
        assert_eq!(known(state).len(), 1);
        // It may say so of itself.
        other.relay().unwrap();
        until(|| known(state).len() == 2);
        other.stop();
        relay.stop();
    });
}

#[test]
fn who_is_removed_or_whose_passport_ends_is_turned_out_of_the_relay_whatever_it_thinks_of_that() {
    reactor::run(|| {
        let (network, relay, other) = two();
        let at = address(&relay);
        let come = |number: u8, expires| {
            let identity = Rc::new(identity(number));
            let passport = network.passport(&identity, expires).to_bytes();
            reactor::nat::relay::connect(at, Expect::Key(key(&relay)), &identity, &passport)
        };
        let soon = reactor::wall_clock() + Duration::from_secs(6);
        // It opens as long again as clocks may differ.
        let expires_at = soon - CLOCK_SKEW_MAX;
        let (_removed_to, mut removed) = come(10, None).unwrap();
        let (_expires_to, mut expires) = come(11, Some(expires_at)).unwrap();
        assert_eq!(clients(&relay), 4);
        relay.revoke(network.removed(identity(10).public_key())).unwrap();
        let told = removed.receive().unwrap_err();
        assert_eq!(told.kind(), ErrorKind::PermissionDenied, "{told}");
        assert_eq!(come(10, None).map(drop).unwrap_err().kind(), ErrorKind::PermissionDenied);
        until(|| reactor::wall_clock() > soon);
        let told = expires.receive().unwrap_err();
        assert_eq!(told.kind(), ErrorKind::PermissionDenied, "{told}");
        until(|| clients(&relay) == 2);
        // Nobody is served by a node that has stopped.
        let (_to, mut stays) = come(12, None).unwrap();
        other.stop();
        relay.stop();
        assert!(matches!(stays.receive(), Err(_) | Ok(Event::Absent(_))));
        assert_eq!(clients(&relay), 0);
    });
}

#[test]
fn who_comes_by_our_id_and_says_nothing_has_few_places_and_takes_none_of_those_who_come_by_tcp() {
    reactor::run(|| {
        let (network, relay, other) = two();
        let silent = Rc::new(identity(20));
        let passport = network.passport(&silent, None).to_bytes();
        let carrier = Carrier::caller(([127, 0, 0, 1], 0).into(), &silent).unwrap();
        carrier
            .add_relay(RelayAt { credential: passport, ..RelayAt::new(address(&relay), key(&relay).into()) });
        carrier.wait_relay(reactor::now() + Duration::from_secs(60)).unwrap();
        let before = other.state().gate.connection_count();
        let came: Vec<quic::Connection> =
            (0..12).filter_map(|_| carrier.connect(key(&other).into()).ok()).collect();
        let gate = &other.state().gate_by_id;
        let most = Cell::new(0);
        let counted = || most.set(most.get().max(gate.connection_count()));
        for connection in &came {
            if let Ok(stream) = connection.open() {
                let _ = (&stream).write_all(b"\0");
            }
            counted();
        }
        until(|| {
            counted();
            most.get() > 0
        });
        assert!(most.get() <= listener::HALF_OPEN_PER_KEY_MAX, "{} places", most.get());
        assert_eq!(other.state().gate.connection_count(), before);
        // Another member comes by the id meanwhile.
        let third = network.node(identity(21), &[address(&relay)]);
        until(|| {
            let carrier = third.state().reach.begun.borrow().as_ref().map(|begun| begun.carrier.clone());
            carrier.is_some_and(|carrier| carrier.wait_relay(reactor::now()).is_ok())
        });
        let places = Places { relays: vec![key(&relay)], ..Places::default() };
        assert!(third.state().reach.dial(third.state(), &key(&other), &places).is_ok());
        third.stop();
        other.stop();
        relay.stop();
    });
}

#[test]
fn relays_over_which_we_are_found_or_somebody_is_dialled_are_never_let_go_to_make_room() {
    reactor::run(|| {
        let (_network, relay, other) = two();
        let state = other.state();
        let dead = |number: u8| Relay {
            public_key: identity(number).public_key(),
            address: ([127, 0, 0, 1], 9).into(),
        };
        let now = reactor::now();
        let dialled: Vec<Relay> = (100..100 + KEPT_MAX as u8).map(dead).collect();
        state.reach.keep(state, &dialled, false, now).unwrap();
        let late = dead(200);
        let kept = |relay: &Relay| {
            state.reach.begun.borrow().as_ref().unwrap().kept.iter().any(|kept| kept.relay == *relay)
        };
        state.reach.keep(state, std::slice::from_ref(&late), false, now).unwrap();
        assert!(!kept(&late) && dialled.iter().all(kept), "all of them are being dialled over");
        // One that we are to be found over has its place.
        let ours = dead(201);
        state.reach.keep(state, std::slice::from_ref(&ours), true, now).unwrap();
        assert!(kept(&ours) && dialled.iter().all(kept));
        let later = now + DIAL_TIMEOUT;
        state.reach.keep(state, &dialled[1..], false, later).unwrap();
        state.reach.keep(state, std::slice::from_ref(&late), false, later).unwrap();
        assert!(kept(&late) && !kept(&dialled[0]), "that of longest ago made room");
        assert!(
            kept(&ours)
                && state
                    .reach
                    .begun
                    .borrow()
                    .as_ref()
                    .unwrap()
                    .kept
                    .iter()
                    .any(|kept| kept.relay.public_key == key(&relay))
        );
        other.stop();
        relay.stop();
    });
}

#[test]
fn a_socket_that_only_relays_of_this_machine_lead_to_is_for_nobody_outside() {
    reactor::run(|| {
        let (_network, relay, other) = two();
        let state = other.state();
        assert_eq!(state.reach.bound_for_others(), None);
        let elsewhere = Relay { public_key: identity(5).public_key(), address: ([192, 0, 2, 1], 1).into() };
        state.reach.keep(state, &[elsewhere], false, reactor::now()).unwrap();
        let bound = state.reach.bound_for_others();
        assert!(bound.is_some());
        // What it is for does not change when that relay is needed no more.
        state.reach.begun.borrow_mut().as_mut().unwrap().kept.clear();
        assert_eq!(state.reach.bound_for_others(), bound);
        other.stop();
        relay.stop();
    });
}
