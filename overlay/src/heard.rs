//! What was heard of members in one's own network, and whether anything is to be done about it. Pure.
//!
//! A packet counts if it comes from the address that its holder says he sends it from, and is newer than all that he was heard to say
//! from there. So whoever sends one again that he has recorded has to have that address, and finds nobody who heard the original,
//! or a later one, and does anything about it. Of each member, at each of its addresses, one time is kept for that, of the
//! [`KNOWN_MAX`] that were heard last. It is given up when nothing has come from there for [`KNOWN_FOR`]: a member whose clock was
//! put back is heard again then.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use reactor::crypto::PublicKey;

use crate::beacon::Beacon;

/// Packets that are looked at in a second, of any sender: opening one takes some 10 us.
const READS_MAX: u32 = 200;

/// Signatures of packets that are checked in a second.
const VERDICTS_MAX: u32 = 20;

/// Answers in a second.
const ANSWERS_MAX: u32 = 10;

/// Between two answers to one member: it asks again after two seconds.
const ANSWER_GAP: Duration = Duration::from_secs(1);

/// Between two dials of one member at one address.
const DIAL_GAP: Duration = Duration::from_secs(5);

/// Between two looks whether this machine is in another network.
const LOOK_GAP: Duration = Duration::from_secs(1);

/// Members that are remembered as dialled, and as answered.
const DONE_MAX: usize = 64;

/// Members, at an address each, of whom it is known when they said something last.
const KNOWN_MAX: usize = 256;

/// How long it is.
const KNOWN_FOR: Duration = Duration::from_secs(3_600);

/// Who, and where.
type Who = (PublicKey, Ipv4Addr);

/// See the module.
pub(crate) struct Heard {
    own: PublicKey,
    second: Option<Instant>,
    reads: u32,
    verdicts: u32,
    answers: u32,
    looked: Option<Instant>,
    /// What each said last, by its clock, and when it was heard.
    newest: BTreeMap<Who, (u64, Instant)>,
    answered: BTreeMap<Who, Instant>,
    dialled: BTreeMap<Who, Instant>,
}

impl Heard {
    /// Nothing, by who has that key.
    pub(crate) fn by(own: PublicKey) -> Heard {
        Heard {
            own,
            second: None,
            reads: 0,
            verdicts: 0,
            answers: 0,
            looked: None,
            newest: BTreeMap::new(),
            answered: BTreeMap::new(),
            dialled: BTreeMap::new(),
        }
    }

    fn begin(&mut self, now: Instant) -> Instant {
        let second = match self.second.filter(|second| now < *second + Duration::from_secs(1)) {
            Some(second) => second,
            None => {
                (self.reads, self.verdicts, self.answers) = (0, 0, 0);
                now
            }
        };
        self.second = Some(second);
        second
    }

    /// Whether another packet may be looked at; else when.
    pub(crate) fn may_read(&mut self, now: Instant) -> Result<(), Instant> {
        let second = self.begin(now);
        self.reads += 1;
        if self.reads <= READS_MAX { Ok(()) } else { Err(second + Duration::from_secs(1)) }
    }

    /// Whether it may be looked whether this machine is in another network by now, as a packet of none that it was in tells.
    pub(crate) fn may_look(&mut self, now: Instant) -> bool {
        let may = self.looked.is_none_or(|looked| now >= looked + LOOK_GAP);
        if may {
            self.looked = Some(now);
        }
        may
    }

    /// Whether it is of use to check whether the holder did say that, which came from there.
    pub(crate) fn may_check(&mut self, beacon: &Beacon, from: SocketAddr, now: Instant) -> bool {
        let is_of_use = beacon.passport.holder() != self.own
            && from.ip() == beacon.address
            && from.port() != 0
            && self.is_news(beacon, now);
        if !is_of_use {
            return false;
        }
        self.begin(now);
        self.verdicts += 1;
        self.verdicts <= VERDICTS_MAX
    }

    fn is_news(&self, beacon: &Beacon, now: Instant) -> bool {
        let known = self.newest.get(&who(beacon));
        known.is_none_or(|(at_ms, heard)| beacon.at_ms > *at_ms || now >= *heard + KNOWN_FOR)
    }

    /// A member did say that: it does so once.
    pub(crate) fn on_said(&mut self, beacon: &Beacon, now: Instant) {
        self.newest.insert(who(beacon), (beacon.at_ms, now));
        if self.newest.len() > KNOWN_MAX {
            let longest = self.newest.iter().min_by_key(|(_, (_, heard))| *heard).map(|(who, _)| *who);
            if let Some(who) = longest {
                self.newest.remove(&who);
            }
        }
    }

    /// Whether that member may be answered now, which is noted.
    pub(crate) fn may_answer(&mut self, beacon: &Beacon, now: Instant) -> bool {
        if !is_time(&mut self.answered, who(beacon), ANSWER_GAP, now) {
            return false;
        }
        self.begin(now);
        self.answers += 1;
        self.answers <= ANSWERS_MAX
    }

    /// Whether that member may be dialled now, which is noted.
    pub(crate) fn may_dial(&mut self, beacon: &Beacon, now: Instant) -> bool {
        is_time(&mut self.dialled, who(beacon), DIAL_GAP, now)
    }
}

fn who(beacon: &Beacon) -> Who {
    (beacon.passport.holder(), beacon.address)
}

fn is_time(done: &mut BTreeMap<Who, Instant>, who: Who, gap: Duration, now: Instant) -> bool {
    done.retain(|_, at| now < *at + gap);
    let is_time = done.len() < DONE_MAX && !done.contains_key(&who);
    if is_time {
        done.insert(who, now);
    }
    is_time
}

#[cfg(test)]
mod tests {
    use reactor::crypto::Identity;

    use super::*;
    use crate::passport::Passport;
    use crate::rights::Rights;

    const THERE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 66);

    fn key(number: u32) -> PublicKey {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        PublicKey::from_bytes(bytes)
    }

    fn beacon(holder: u32, at_ms: u64) -> Beacon {
        let passport = Passport::issue(&Identity::from_seed(&[1; 32]), key(holder), Rights::NODE, None);
        Beacon { passport, port: None, address: THERE, at_ms }
    }

    fn heard() -> Heard {
        Heard::by(key(0))
    }

    /// Whether anything is done about a packet; if so it is noted.
    fn counts(heard: &mut Heard, beacon: &Beacon, from: Ipv4Addr, now: Instant) -> bool {
        let counts = heard.may_check(beacon, (from, 4_700).into(), now);
        if counts {
            heard.on_said(beacon, now);
        }
        counts
    }

    #[test]
    fn a_packet_that_is_sent_again_counts_nowhere_where_it_or_a_later_one_was_heard() {
        let (mut heard, start) = (heard(), Instant::now());
        let (asks, later) = (beacon(1, 1_000), beacon(1, 2_000));
        assert!(counts(&mut heard, &asks, THERE, start));
        assert!(!counts(&mut heard, &asks, THERE, start + Duration::from_secs(1)));
        assert!(counts(&mut heard, &later, THERE, start + Duration::from_secs(2)));
        for seconds in 2..3_600 {
            let now = start + Duration::from_secs(seconds);
            assert!(!counts(&mut heard, &asks, THERE, now) && !counts(&mut heard, &later, THERE, now));
        }
    }

    #[test]
    fn a_packet_from_another_address_than_its_sender_says_counts_nowhere() {
        let (mut heard, now) = (heard(), Instant::now());
        let asks = beacon(1, 1_000);
        assert!(!counts(&mut heard, &asks, ELSEWHERE, now));
        assert!(!heard.may_check(&asks, (THERE, 0).into(), now));
        // And keeps none that is true from being followed.
        assert!(counts(&mut heard, &asks, THERE, now));
    }

    #[test]
    fn whoever_sends_packets_again_has_none_forgotten_and_costs_no_signature() {
        let (mut heard, start) = (heard(), Instant::now());
        let asks = beacon(1, 1_000);
        assert!(counts(&mut heard, &asks, THERE, start));
        // All that he can have recorded of others, and once more.
        for round in 0..3 {
            for number in 0..1_000 {
                let now = start + Duration::from_millis(round * 1_000 + number);
                heard.may_check(&beacon(2, 10 + number), (ELSEWHERE, 9).into(), now);
                assert!(!counts(&mut heard, &asks, THERE, now));
            }
        }
        assert_eq!(heard.verdicts, 1);
    }

    #[test]
    fn ones_own_packets_cost_no_signature() {
        let (mut heard, now) = (heard(), Instant::now());
        assert!(!counts(&mut heard, &beacon(0, 1), THERE, now));
        assert_eq!(heard.verdicts, 0);
    }

    #[test]
    fn a_member_whose_clock_was_put_back_is_heard_again_in_an_hour() {
        let (mut heard, start) = (heard(), Instant::now());
        assert!(counts(&mut heard, &beacon(1, 9_000), THERE, start));
        assert!(!counts(&mut heard, &beacon(1, 1), THERE, start + KNOWN_FOR - Duration::from_secs(1)));
        assert!(counts(&mut heard, &beacon(1, 2), THERE, start + KNOWN_FOR));
    }

    #[test]
    fn however_many_members_there_are_few_are_remembered_and_those_heard_last() {
        let (mut heard, start) = (heard(), Instant::now());
        for number in 1..=1_000 {
            let now = start + Duration::from_millis(100 * u64::from(number));
            assert!(counts(&mut heard, &beacon(number, 1), THERE, now), "{number}");
        }
        assert_eq!(heard.newest.len(), KNOWN_MAX);
        let now = start + Duration::from_secs(101);
        assert!(!counts(&mut heard, &beacon(1_000, 1), THERE, now));
    }

    #[test]
    fn however_much_is_heard_little_is_done_about_it() {
        let (mut heard, start) = (heard(), Instant::now());
        let (mut reads, mut verdicts, mut answers, mut dials, mut looks) = (0, 0, 0, 0, 0);
        for number in 0..10_000 {
            // A thousand a second.
            let now = start + Duration::from_millis(number);
            let beacon = beacon(1 + number as u32, number);
            reads += u32::from(heard.may_read(now).is_ok());
            verdicts += u32::from(heard.may_check(&beacon, (THERE, 9).into(), now));
            answers += u32::from(heard.may_answer(&beacon, now));
            dials += usize::from(heard.may_dial(&beacon, now));
            looks += u32::from(heard.may_look(now));
        }
        assert_eq!((reads, verdicts, answers), (10 * READS_MAX, 10 * VERDICTS_MAX, 10 * ANSWERS_MAX));
        assert_eq!((dials, looks), (2 * DONE_MAX, 10));
        let until = heard.may_read(start + Duration::from_millis(9_999)).unwrap_err();
        assert_eq!(until, start + Duration::from_secs(10));
    }

    #[test]
    fn one_member_is_dialled_and_answered_now_and_then_and_elsewhere_apart_from_that() {
        let (mut heard, start, there) = (heard(), Instant::now(), beacon(7, 1));
        let elsewhere = Beacon { address: ELSEWHERE, ..there.clone() };
        let times = |may: &mut dyn FnMut(Instant) -> bool| {
            (0..60).filter(|second| may(start + Duration::from_secs(*second))).count()
        };
        assert_eq!(times(&mut |now| heard.may_dial(&there, now)), 12);
        assert_eq!(times(&mut |now| heard.may_answer(&there, now)), 60);
        assert!(!heard.may_answer(&there, start + Duration::from_millis(59_500)));
        let now = start + Duration::from_millis(59_500);
        assert!(heard.may_dial(&elsewhere, now) && heard.may_answer(&elsewhere, now));
    }
}
