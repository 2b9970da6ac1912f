//! The switch against its promises, by examples and by random steps.

use std::time::Duration;

use proptest::prelude::*;

use super::super::frame::Decoder;
use super::*;

const QUOTA: Quota = Quota {
    clients: 3,
    queue_bytes: 4_000,
    memory_bytes: 6_000,
    bytes_per_second: 1_000_000,
    burst_bytes: 20_000,
    bytes_per_second_in_all: 100_000_000,
};

fn id(number: u8) -> Seat {
    Seat::known(PeerId([number; 32]))
}

fn taken(switch: &mut Switch, ticket: Ticket) -> Vec<(Seat, Vec<u8>)> {
    let mut bytes = Vec::new();
    switch.take(ticket, usize::MAX, &mut bytes);
    let (mut decoder, mut all) = (Decoder::default(), Vec::new());
    decoder.push(&bytes);
    while let Some(frame) = decoder.next_frame().unwrap() {
        let Frame::Datagram { seat, bytes } = frame else { panic!("{frame:?}") };
        all.push((seat, bytes.to_vec()));
    }
    all
}

#[test]
fn a_datagram_arrives_under_the_name_of_who_sent_it() {
    let (mut switch, now) = (Switch::new(QUOTA), Instant::now());
    let [a, b] = [1, 2].map(|number| switch.register(id(number), now).unwrap());
    assert_eq!(switch.on_datagram(a, id(2), b"hello", now), Fate::Queued);
    assert_eq!(switch.on_datagram(a, id(9), b"hello", now), Fate::Absent);
    assert_eq!(taken(&mut switch, a), []);
    assert_eq!(taken(&mut switch, b), [(id(1), b"hello".to_vec())]);
    assert_eq!(taken(&mut switch, b), []);
}

#[test]
fn who_registers_anew_keeps_what_waits_and_the_old_ticket_is_void() {
    let (mut switch, now) = (Switch::new(QUOTA), Instant::now());
    let [a, old] = [1, 2].map(|number| switch.register(id(number), now).unwrap());
    assert_eq!(switch.on_datagram(a, id(2), b"waits", now), Fate::Queued);
    let new = switch.register(id(2), now).unwrap();
    assert!(!switch.is_current(old) && switch.is_current(new));
    assert_eq!(taken(&mut switch, old), []);
    assert_eq!(switch.on_datagram(old, id(1), b"forged", now), Fate::Stale);
    switch.leave(old);
    assert_eq!(taken(&mut switch, new), [(id(1), b"waits".to_vec())]);
    switch.leave(new);
    assert_eq!(switch.on_datagram(a, id(2), b"late", now), Fate::Absent);
}

#[test]
fn a_full_relay_takes_nobody_new_and_everybody_again() {
    let (mut switch, now) = (Switch::new(QUOTA), Instant::now());
    let tickets = [1, 2, 3].map(|number| switch.register(id(number), now).unwrap());
    assert_eq!(switch.register(id(4), now), Err(Refusal::Full));
    assert!(switch.register(id(3), now).is_ok());
    switch.leave(tickets[0]);
    assert!(switch.register(id(4), now).is_ok());
    assert_eq!(switch.client_count(), 3);
}

#[test]
fn one_who_floods_a_peer_leaves_others_room_and_the_oldest_stays() {
    let (mut switch, now) = (Switch::new(QUOTA), Instant::now());
    let [flooding, other, victim] = [1, 2, 3].map(|number| switch.register(id(number), now).unwrap());
    let fates: Vec<Fate> =
        (0..30).map(|number| switch.on_datagram(flooding, id(3), &[number; 100], now)).collect();
    assert_eq!(fates.iter().filter(|fate| **fate == Fate::Queued).count(), 10, "half of 4,000 bytes");
    assert_eq!(fates[10], Fate::QueueFull);
    assert_eq!(switch.on_datagram(other, id(3), b"small", now), Fate::Queued);
    let came = taken(&mut switch, victim);
    assert_eq!(came.len(), 11);
    assert!((0..10).all(|at| came[at] == (id(1), vec![at as u8; 100])));
    // What was taken makes room again.
    assert_eq!(switch.on_datagram(flooding, id(3), b"", now), Fate::Queued);
}

#[test]
fn all_queues_together_have_a_bound() {
    let (mut switch, now) = (Switch::new(QUOTA), Instant::now());
    let tickets = [1, 2, 3].map(|number| switch.register(id(number), now).unwrap());
    let mut queued = 0;
    for from in tickets {
        for to in tickets {
            while switch.on_datagram(from, to.seat(), &[0; 400], now) == Fate::Queued {
                queued += 500;
            }
        }
    }
    assert_eq!(queued, QUOTA.memory_bytes);
    assert_eq!(
        switch.on_datagram(tickets[1], id(2), &[0; 400], now + Duration::from_secs(1)),
        Fate::MemoryFull
    );
    switch.leave(tickets[1]);
    assert!(switch.memory_bytes < QUOTA.memory_bytes, "what waits for one who leaves is given back");
}

#[test]
fn those_who_read_nothing_leave_each_other_client_its_share() {
    let (mut switch, now) = (Switch::new(QUOTA), Instant::now());
    let [one, two, reading] = [1, 2, 3].map(|number| switch.register(id(number), now).unwrap());
    for (from, to) in [(one, 1), (two, 1), (one, 2), (two, 2)] {
        while switch.on_datagram(from, id(to), &[0; 400], now) == Fate::Queued {}
    }
    assert_eq!(switch.memory_bytes, QUOTA.memory_bytes);
    for _ in 0..3 {
        let fates = [one, one, two, two].map(|from| switch.on_datagram(from, id(3), &[0; 400], now));
        assert_eq!(fates, [Fate::Queued; 4]);
        assert_eq!(switch.on_datagram(reading, id(3), &[0; 400], now), Fate::MemoryFull, "it has its share");
        assert_eq!(taken(&mut switch, reading).len(), 4);
    }
}

#[test]
fn a_client_may_send_so_much_and_registering_anew_gives_no_more() {
    let (mut switch, begin) = (Switch::new(QUOTA), Instant::now());
    let mut ticket = switch.register(id(1), begin).unwrap();
    let sent = |switch: &mut Switch, ticket, now| {
        (0..1_000).take_while(|_| switch.on_datagram(ticket, id(9), &[0; 900], now) == Fate::Absent).count()
    };
    assert_eq!(sent(&mut switch, ticket, begin), 20);
    ticket = switch.register(id(1), begin).unwrap();
    assert_eq!(sent(&mut switch, ticket, begin), 0);
    assert_eq!(sent(&mut switch, ticket, begin + Duration::from_millis(5)), 5);
    assert_eq!(sent(&mut switch, ticket, begin + Duration::from_secs(3600)), 20);
    // Asked before a whole byte is earned, it earns as much.
    let mut switch = Switch::new(Quota { bytes_per_second: 1_000, ..QUOTA });
    let ticket = switch.register(id(1), begin).unwrap();
    assert_eq!(sent(&mut switch, ticket, begin), 20);
    let later = (0..20_000).filter(|step| {
        let now = begin + Duration::from_micros(100 * step);
        switch.on_datagram(ticket, id(9), &[0; 900], now) == Fate::Absent
    });
    assert_eq!(later.count(), 1);
}

#[test]
fn all_clients_together_may_send_so_much_and_who_is_over_its_own_share_takes_nothing_from_the_others() {
    let quota = Quota { bytes_per_second_in_all: 30_000, ..QUOTA };
    let (mut switch, begin) = (Switch::new(quota), Instant::now());
    let tickets = [1, 2, 3].map(|number| switch.register(id(number), begin).unwrap());
    let mut sent = |number: usize, now| {
        (0..1_000)
            .filter(|_| switch.on_datagram(tickets[number], id(9), &[0; 900], now) == Fate::Absent)
            .count()
    };
    assert_eq!([sent(0, begin), sent(1, begin), sent(2, begin)], [20, 10, 0]);
    assert_eq!(sent(2, begin + Duration::from_millis(100)), 3);
}

#[test]
fn a_peer_in_several_seats_is_one_to_the_bounds_and_goes_as_a_whole() {
    let (mut switch, now) = (Switch::new(Quota { clients: 200, ..QUOTA }), Instant::now());
    let peer = id(1).peer;
    let seat = |number| Seat { peer, number };
    let other = switch.register(id(2), now).unwrap();
    let tickets: Vec<Ticket> =
        (0..SEATS_EACH_MAX as u64).map(|number| switch.register(seat(number), now).unwrap()).collect();
    assert_eq!(switch.register(seat(u64::MAX), now), Err(Refusal::Full));
    assert!(switch.register(id(3), now).is_ok(), "others find room");
    // What is for one of them the others don't get, and whom it is from is told.
    assert_eq!(switch.on_datagram(other, seat(5), b"five", now), Fate::Queued);
    assert_eq!(taken(&mut switch, tickets[4]), []);
    assert_eq!(taken(&mut switch, tickets[5]), [(id(2), b"five".to_vec())]);
    assert_eq!(switch.on_datagram(tickets[5], id(2), b"and back", now), Fate::Queued);
    assert_eq!(taken(&mut switch, other), [(seat(5), b"and back".to_vec())]);
    // All together send as much as one may, and hold as much of a queue.
    let sent = tickets.iter().map(|ticket| switch.on_datagram(*ticket, id(2), &[0; 900], now));
    let fates: Vec<Fate> = sent.collect();
    assert_eq!(fates.iter().filter(|fate| **fate == Fate::Queued).count(), 2, "half of 4,000 bytes");
    assert!(fates.ends_with(&[Fate::OverQuota]), "{fates:?}");
    let mut dismissed = switch.dismiss(peer);
    dismissed.sort();
    assert!(dismissed.len() == SEATS_EACH_MAX && tickets.iter().all(|ticket| !switch.is_current(*ticket)));
    assert_eq!(switch.on_datagram(tickets[5], id(2), b"gone", now), Fate::Stale);
    assert_eq!((switch.client_count(), switch.dismiss(peer).len()), (2, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Register(u8),
    Leave(usize),
    Send(usize, u8, usize),
    Take(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..5_u8).prop_map(Step::Register),
        (0..20_usize).prop_map(Step::Leave),
        (0..20_usize, 0..6_u8, 0..1_500_usize).prop_map(|(from, to, size)| Step::Send(from, to, size)),
        (0..20_usize).prop_map(Step::Take),
    ]
}

proptest! {
    #[test]
    fn counts_never_drift_and_nothing_is_made_up_or_overtaken(steps in prop::collection::vec(step(), 0..200)) {
        let (mut switch, mut now) = (Switch::new(QUOTA), Instant::now());
        let mut tickets: Vec<Ticket> = Vec::new();
        // What each client has yet to get, in order.
        let mut waiting: BTreeMap<Seat, VecDeque<(Seat, Vec<u8>)>> = BTreeMap::new();
        let mut number = 0_u8;
        for step in steps {
            now += Duration::from_millis(1);
            match step {
                Step::Register(peer) => {
                    if let Ok(ticket) = switch.register(id(peer), now) {
                        waiting.entry(id(peer)).or_default();
                        tickets.push(ticket);
                    }
                }
                Step::Leave(at) if at < tickets.len() => {
                    if switch.is_current(tickets[at]) {
                        waiting.remove(&tickets[at].seat());
                    }
                    switch.leave(tickets[at]);
                }
                Step::Send(at, to, size) if at < tickets.len() => {
                    number = number.wrapping_add(1);
                    let bytes = vec![number; size];
                    if switch.on_datagram(tickets[at], id(to), &bytes, now) == Fate::Queued {
                        waiting.get_mut(&id(to)).unwrap().push_back((tickets[at].seat(), bytes));
                    }
                }
                Step::Take(at) if at < tickets.len() => {
                    let is_current = switch.is_current(tickets[at]);
                    let came = taken(&mut switch, tickets[at]);
                    let expected = if is_current { waiting.insert(tickets[at].seat(), VecDeque::new()) } else { None };
                    prop_assert_eq!(came, Vec::from(expected.unwrap_or_default()));
                }
                _ => {}
            }
            prop_assert!(switch.client_count() <= QUOTA.clients && switch.memory_bytes <= 2 * QUOTA.memory_bytes);
            prop_assert_eq!(switch.peers.values().map(|peer| peer.seats).sum::<usize>(), switch.client_count());
            for slot in switch.slots.values() {
                let weights = slot.queue.iter().map(Queued::weight).sum::<usize>();
                prop_assert!(slot.queue_bytes == weights && weights <= QUOTA.queue_bytes);
                prop_assert_eq!(slot.bytes_by_sender.values().sum::<usize>(), weights);
            }
            prop_assert_eq!(switch.slots.values().map(|slot| slot.queue_bytes).sum::<usize>(), switch.memory_bytes);
        }
    }
}
