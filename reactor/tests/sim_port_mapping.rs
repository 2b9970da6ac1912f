//! A machine behind a router that maps ports, in the simulator: by each protocol, for hours, through lost packets and a router
//! that begins anew, and with routers that lie.
//!
//! What could go wrong: a mapping that ends while others are told of it, one of a router that was switched off and on and knows
//! nothing of it, one that is left behind, and an address of somebody else's that peers are sent to.

mod scripted_router;

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use reactor::nat::mapping::{Gateway, Mapper, Mapping, Port, Protocol, Transport, Why, Wish};
use reactor::sim::{self, Latency, Link, SimConfig, World};
use reactor::{now, sleep};
use scripted_router::{ELSEWHERE, OUTSIDE, Router, Speaks};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const UDP: Port = Port { transport: Transport::Udp, number: 4_433 };
const TCP: Port = Port { transport: Transport::Tcp, number: 4_701 };

fn mapper(router: &Router) -> Mapper {
    let gateway = router.gateway();
    let mapper = Mapper::start([7; 32], move || Some(gateway));
    mapper.wish(&[Wish::any(UDP), Wish::any(TCP)]);
    mapper
}

fn wait_for(mapper: &Mapper, what: impl Fn(&Mapper) -> bool) {
    let until = now() + 10 * MINUTE;
    while !what(mapper) {
        assert!(now() < until, "{:?}, {:?}", mapper.mapping(UDP), mapper.mapping(TCP));
        sleep(SECOND / 10);
    }
}

fn settled(mapper: &Mapper) -> Result<Mapping, Why> {
    [TCP, UDP].map(|port| mapper.settled(port, now() + MINUTE))[1]
}

/// Runs `story` on a machine in the same network as a router that does as it is told.
fn at_home(link: Link, speaks: Speaks, story: impl Fn(&Router) + Clone + Send + 'static) {
    for seed in 0..8 {
        let (link, story) = (link, story.clone());
        sim::run(seed, SimConfig::default(), move |world: &World| {
            world.link_all(link);
            let [home, host] = ["router", "host"].map(|name| world.host(name));
            let router = Router::new(home.address(), host.address(), speaks);
            let served = router.clone();
            home.start(move || served.serve());
            host.start(move || story(&router)).wait();
        });
    }
}

fn good() -> Link {
    Link::new(Latency::Uniform(SECOND / 1_000, SECOND / 200))
}

#[test]
fn each_protocol_maps_both_ports_and_they_are_given_back_at_the_end() {
    for (speaks, protocol) in
        [(Speaks::Pcp, Protocol::Pcp), (Speaks::NatPmp, Protocol::NatPmp), (Speaks::Upnp, Protocol::Upnp)]
    {
        at_home(good(), speaks, move |router| {
            let mapper = mapper(router);
            let mapping = settled(&mapper).unwrap();
            assert_eq!((mapping.protocol, *mapping.external.ip()), (protocol, OUTSIDE));
            assert_eq!(
                router.mapped(),
                [UDP, TCP].map(|port| (port, mapper.mapping(port).unwrap().external.port()))
            );
            mapper.close();
            assert_eq!(router.mapped(), [], "nothing is left behind");
        });
    }
}

#[test]
fn through_lost_packets_a_mapping_is_had_for_hours_without_a_gap() {
    for speaks in [Speaks::Pcp, Speaks::NatPmp] {
        at_home(good().with_loss(0.2), speaks, |router| {
            let mapper = mapper(router);
            wait_for(&mapper, |mapper| mapper.mapping(UDP).is_ok() && mapper.mapping(TCP).is_ok());
            let until = now() + 3 * 60 * MINUTE;
            while now() < until {
                sleep(MINUTE);
                assert_eq!(router.mapped().len(), 2, "the router has both, since they are renewed in time");
                assert!(mapper.mapping(UDP).is_ok() && mapper.mapping(TCP).is_ok());
            }
            assert!(router.asked_count() < 1_500, "{} packets in three hours", router.asked_count());
        });
    }
}

#[test]
fn a_router_that_was_switched_off_and_on_maps_the_ports_anew_within_minutes() {
    for speaks in [Speaks::Pcp, Speaks::NatPmp, Speaks::Upnp] {
        at_home(good(), speaks, |router| {
            let mapper = mapper(router);
            settled(&mapper).unwrap();
            sleep(10 * MINUTE);
            router.begin_anew();
            assert_eq!(router.mapped(), []);
            let begun = now();
            while router.mapped().len() < 2 {
                sleep(SECOND);
                assert!(now() < begun + 2 * MINUTE, "it knows nothing of {:?}", mapper.mapping(UDP));
            }
            assert!(mapper.mapping(UDP).is_ok() && mapper.mapping(TCP).is_ok());
            // And one that is gone for longer is told of no more, until it is back.
            router.speak(Speaks::Nothing);
            wait_for(&mapper, |mapper| mapper.mapping(UDP) == Err(Why::Silent));
            router.speak(Speaks::Upnp);
            wait_for(&mapper, |mapper| {
                mapper.mapping(UDP).is_ok_and(|found| found.protocol == Protocol::Upnp)
            });
        });
    }
}

#[test]
fn an_address_behind_another_router_is_told_to_nobody_and_nothing_stays_mapped() {
    for speaks in [Speaks::Pcp, Speaks::NatPmp, Speaks::Upnp] {
        at_home(good(), speaks, |router| {
            for outside in [[100, 64, 0, 2], [192, 168, 7, 1], [10, 0, 0, 1], [0, 0, 0, 0]] {
                router.set_outside(outside.into());
                let mapper = mapper(router);
                let found = settled(&mapper);
                assert!(
                    matches!(found, Err(Why::Private { external, .. }) if external.octets() == outside),
                    "{found:?}"
                );
                assert_eq!(router.mapped(), []);
                mapper.close();
            }
        });
    }
}

#[test]
fn who_is_seen_elsewhere_than_the_router_says_tells_nobody_what_it_says() {
    at_home(good(), Speaks::Pcp, |router| {
        let mapper = mapper(router);
        settled(&mapper).unwrap();
        mapper.seen_from_outside(vec![ELSEWHERE]);
        assert_eq!(mapper.mapping(UDP), Err(Why::Disagrees { external: OUTSIDE, seen: ELSEWHERE }));
        mapper.seen_from_outside(vec![ELSEWHERE, OUTSIDE]);
        assert!(mapper.mapping(UDP).is_ok(), "one of them confirms it");
    });
}

#[test]
fn what_others_send_in_the_routers_name_changes_nothing() {
    at_home(good(), Speaks::Pcp, |router| {
        router.set_flood(200);
        let mapper = mapper(router);
        let mapping = settled(&mapper).unwrap();
        assert_eq!(
            *mapping.external.ip(),
            OUTSIDE,
            "not what stood in answers with other nonces, ports and lengths"
        );
        sleep(5 * MINUTE);
        assert_eq!(mapper.mapping(UDP), Ok(mapping));
    });
}

#[test]
fn a_router_whose_clock_runs_wild_is_not_asked_without_end() {
    at_home(good(), Speaks::Pcp, |router| {
        router.set_wild_clock();
        let mapper = mapper(router);
        settled(&mapper).unwrap();
        sleep(60 * MINUTE);
        assert!(mapper.mapping(UDP).is_ok());
        assert!(router.asked_count() < 60 * 10, "{} packets in an hour", router.asked_count());
    });
}

#[test]
fn a_lease_is_no_longer_than_was_asked_and_a_very_short_one_is_none() {
    at_home(good(), Speaks::Pcp, |router| {
        router.set_lifetime(5);
        let short = mapper(router);
        assert_eq!(settled(&short), Err(Why::TooShort { protocol: Protocol::Pcp }));
        short.close();
        router.set_lifetime(u32::MAX);
        let long = mapper(router);
        assert_eq!(settled(&long).unwrap().lifetime_s, Some(3_600), "nobody is told more");
        let before = router.map_count();
        sleep(31 * MINUTE);
        assert!(router.map_count() > before, "it is renewed at half of an hour");
    });
}

#[test]
fn nothing_is_asked_before_something_is_wished_and_what_is_wished_no_more_is_given_back() {
    at_home(good(), Speaks::Pcp, |router| {
        let gateway = router.gateway();
        let mapper = Mapper::start([7; 32], move || Some(gateway));
        sleep(MINUTE);
        assert_eq!(router.asked_count(), 0);
        mapper.wish(&[Wish::any(UDP), Wish::any(TCP)]);
        settled(&mapper).unwrap();
        mapper.wish(&[Wish::any(TCP)]);
        sleep(5 * SECOND);
        let mapped: Vec<Port> = router.mapped().iter().map(|(port, _)| *port).collect();
        assert_eq!(mapped, [TCP]);
        let other = Wish { port: UDP, bound: Some(Ipv4Addr::LOCALHOST) };
        mapper.wish(&[Wish::any(TCP), other]);
        assert_eq!(mapper.settled(UDP, now() + MINUTE), Err(Why::OtherNetwork));
    });
}

#[test]
fn another_network_has_another_router_and_none_has_none() {
    at_home(good(), Speaks::Pcp, |router| {
        let (there, here) = (Rc::new(Cell::new(Some(router.gateway()))), router.gateway());
        let asked = there.clone();
        let mapper = Mapper::start([7; 32], move || asked.get());
        mapper.wish(&[Wish::any(UDP)]);
        mapper.settled(UDP, now() + MINUTE).unwrap();
        there.set(None);
        mapper.look_again();
        wait_for(&mapper, |mapper| mapper.mapping(UDP) == Err(Why::NoRouter));
        there.set(Some(Gateway { control_port: 9, ..here }));
        wait_for(&mapper, |mapper| mapper.mapping(UDP) == Err(Why::Silent));
        there.set(Some(here));
        wait_for(&mapper, |mapper| mapper.mapping(UDP).is_ok());
    });
}

/// The ways in which a mapping by UPnP, which this router never ends by itself, could be left behind.
#[test]
fn what_is_mapped_for_good_is_given_back_however_the_router_has_changed_meanwhile() {
    let changes: [fn(&Router, &Mapper); 4] = [
        // Its line was renewed: ours are its entries still.
        |router, _| router.set_outside(ELSEWHERE),
        // It is behind another one now.
        |router, _| router.set_outside([10, 0, 0, 1].into()),
        // And that was noticed before the end.
        |router, mapper| {
            router.set_outside([10, 0, 0, 1].into());
            wait_for(mapper, |mapper| matches!(mapper.mapping(UDP), Err(Why::Private { .. })));
            wait_for(mapper, |_| router.mapped().is_empty());
        },
        // It did not answer for so long that the lease is lost, and it is back at the end.
        |router, mapper| {
            router.speak(Speaks::Nothing);
            wait_for(mapper, |mapper| mapper.mapping(UDP) == Err(Why::Silent));
            sleep(90 * MINUTE);
            router.speak(Speaks::Upnp);
        },
    ];
    for change in changes {
        at_home(good(), Speaks::Upnp, move |router| {
            let mapper = mapper(router);
            settled(&mapper).unwrap();
            assert_eq!(router.mapped().len(), 2);
            change(router, &mapper);
            mapper.close();
            assert_eq!(router.mapped(), [], "nothing is left behind");
        });
    }
}

#[test]
fn a_slow_router_is_told_of_all_ports_at_once() {
    at_home(good(), Speaks::Upnp, |router| {
        let mapper = mapper(router);
        settled(&mapper).unwrap();
        // Two calls for each port.
        router.set_delay(9 * SECOND / 10);
        mapper.close();
        sleep(5 * SECOND);
        assert_eq!(router.mapped(), []);
    });
}

#[test]
fn who_renews_nothing_that_is_had_is_not_asked_for_more_and_more() {
    for has_leases in [false, true] {
        at_home(good(), Speaks::Upnp, move |router| {
            router.refuse_renewals();
            if has_leases {
                router.have_leases();
            }
            let mapper = mapper(router);
            let mapping = settled(&mapper).unwrap();
            // Never in the moment in which one is had anew.
            sleep(20 * SECOND);
            // Three renewals.
            let until = now() + 95 * MINUTE;
            while now() < until {
                sleep(MINUTE);
                assert_eq!(router.mapped().len(), 2, "one for each port");
                assert_eq!(mapper.mapping(UDP).map(|mapping| mapping.external), Ok(mapping.external));
            }
            mapper.close();
            assert_eq!(router.mapped(), []);
        });
    }
}

#[test]
fn what_another_machine_has_is_left_to_it() {
    at_home(good(), Speaks::Upnp, |router| {
        router.set_others(UDP.number);
        let mapper = mapper(router);
        let mapping = settled(&mapper).unwrap();
        assert_ne!(mapping.external.port(), UDP.number);
        assert_eq!(router.others(), Some(UDP.number));
        assert_eq!(mapper.mapping(TCP).unwrap().external.port(), TCP.number, "nobody has that");
    });
}

#[test]
fn what_is_wished_again_while_the_router_is_asked_is_mapped_then() {
    for speaks in [Speaks::Pcp, Speaks::NatPmp, Speaks::Upnp] {
        // Slow, so that each question is under way for a while.
        at_home(Link::new(Latency::Constant(SECOND / 20)), speaks, |router| {
            for milliseconds in (0..600).step_by(60) {
                let mapper = mapper(router);
                settled(&mapper).unwrap();
                mapper.wish(&[]);
                sleep(Duration::from_millis(milliseconds));
                mapper.wish(&[Wish::any(UDP)]);
                sleep(Duration::from_millis(milliseconds / 3));
                mapper.wish(&[]);
                mapper.wish(&[Wish::any(UDP)]);
                sleep(20 * SECOND);
                let external = mapper.mapping(UDP).unwrap().external.port();
                assert_eq!(router.mapped(), [(UDP, external)], "after {milliseconds} ms");
                mapper.close();
                assert_eq!(router.mapped(), []);
            }
        });
    }
}

#[test]
fn a_router_that_does_not_say_whether_it_is_the_same_keeps_its_mappings() {
    at_home(good(), Speaks::Pcp, |router| {
        router.ignore_announce();
        let mapper = mapper(router);
        settled(&mapper).unwrap();
        let until = now() + 60 * MINUTE;
        while now() < until {
            sleep(SECOND);
            assert!(mapper.mapping(UDP).is_ok() && mapper.mapping(TCP).is_ok());
        }
        assert!(router.asked_count() < 60 * 20, "{} packets in an hour", router.asked_count());
    });
}

#[test]
fn an_end_waits_for_no_router_that_never_answered_and_for_one_that_is_about_to_grant_something() {
    at_home(good(), Speaks::Nothing, |router| {
        let mapper = mapper(router);
        sleep(SECOND);
        let begun = now();
        mapper.close();
        assert!(now() < begun + SECOND / 2, "{:?}", now() - begun);
    });
    for speaks in [Speaks::Pcp, Speaks::NatPmp, Speaks::Upnp] {
        at_home(good(), speaks, |router| {
            // As it is asked first, and when it has said nothing by the other protocols.
            for milliseconds in (0..60).step_by(6).chain((3_450..3_650).step_by(6)) {
                let mapper = mapper(router);
                sleep(Duration::from_millis(milliseconds));
                mapper.close();
                sleep(5 * SECOND);
                assert_eq!(router.mapped(), [], "closed after {milliseconds} ms");
            }
        });
    }
}

#[test]
fn a_router_that_writes_in_an_old_way_is_understood() {
    at_home(good(), Speaks::Upnp, |router| {
        // In ISO 8859-1, which is not UTF-8.
        router.set_noise(b"<friendlyName>Bo\xeete</friendlyName>");
        let mapper = mapper(router);
        assert_eq!(settled(&mapper).unwrap().protocol, Protocol::Upnp);
    });
}

#[test]
fn what_is_granted_at_no_port_is_not_granted() {
    for speaks in [Speaks::Pcp, Speaks::NatPmp] {
        at_home(good(), speaks, |router| {
            router.set_lifetime(7_200);
            router.grant_no_port();
            let mapper = mapper(router);
            assert_eq!(settled(&mapper), Err(Why::Silent));
        });
    }
}

#[test]
fn another_network_is_noticed_within_a_minute_though_nobody_says_so() {
    at_home(good(), Speaks::Pcp, |router| {
        let (there, here) = (Rc::new(Cell::new(None)), router.gateway());
        let asked = there.clone();
        let mapper = Mapper::start([7; 32], move || asked.get());
        mapper.wish(&[Wish::any(UDP)]);
        // Long enough for the longest pause between two tries.
        sleep(120 * MINUTE);
        assert_eq!(mapper.mapping(UDP), Err(Why::NoRouter));
        there.set(Some(here));
        sleep(MINUTE + 5 * SECOND);
        assert!(mapper.mapping(UDP).is_ok(), "{:?}", mapper.mapping(UDP));
    });
}

#[test]
fn what_a_machine_has_that_the_router_only_names_is_left_to_it_and_what_is_ours_is_known_again() {
    // Two nodes at one network, whose ports have one number: the router calls both "desk.home".
    for refuses in [false, true] {
        at_home(good(), Speaks::Upnp, move |router| {
            router.name_machines("desk.home");
            router.set_others(UDP.number);
            router.have_leases();
            if refuses {
                router.refuse_renewals();
            }
            let first = mapper(router);
            let external = settled(&first).unwrap().external;
            assert_ne!(external.port(), UDP.number);
            // It ends without giving anything back, and begins anew.
            drop(first);
            let second = mapper(router);
            settled(&second).unwrap();
            assert_eq!(router.others(), Some(UDP.number), "it was another machine's");
            // A renewal.
            sleep(40 * MINUTE);
            assert!(second.mapping(UDP).is_ok());
            second.close();
            assert_eq!(router.others(), Some(UDP.number), "it was another machine's");
        });
    }
}

#[test]
fn what_we_had_by_an_address_that_this_machine_has_no_more_is_given_back() {
    at_home(good(), Speaks::Upnp, |router| {
        let mapper = mapper(router);
        settled(&mapper).unwrap();
        assert_eq!(router.mapped().len(), 2);
        router.name_machines("192.168.1.99");
        mapper.close();
        assert_eq!(router.mapped(), []);
    });
}

#[test]
fn what_the_router_was_not_told_is_given_back_when_it_is_there_again_though_nothing_is_wished_any_more() {
    at_home(good(), Speaks::Upnp, |router| {
        let mapper = mapper(router);
        settled(&mapper).unwrap();
        for silence in [MINUTE, 30 * MINUTE] {
            router.speak(Speaks::Nothing);
            sleep(silence);
            mapper.wish(&[]);
            sleep(silence);
            router.speak(Speaks::Upnp);
            let begun = now();
            while !router.mapped().is_empty() {
                sleep(SECOND);
                assert!(now() < begun + 20 * MINUTE, "it keeps {:?} for good", router.mapped());
            }
            mapper.wish(&[Wish::any(UDP), Wish::any(TCP)]);
            settled(&mapper).unwrap();
        }
    });
}

#[test]
fn an_end_that_breaks_off_what_is_being_given_back_gives_it_back_all_the_same() {
    at_home(good(), Speaks::Upnp, |router| {
        let mapper = mapper(router);
        settled(&mapper).unwrap();
        router.speak(Speaks::Nothing);
        // It has given up asking, for some seconds.
        wait_for(&mapper, |mapper| [UDP, TCP].iter().all(|port| mapper.mapping(*port) == Err(Why::Silent)));
        sleep(SECOND);
        router.speak(Speaks::Upnp);
        router.set_delay(2 * SECOND / 5);
        mapper.wish(&[]);
        sleep(SECOND / 20);
        mapper.close();
        assert_eq!(router.mapped(), []);
    });
}
