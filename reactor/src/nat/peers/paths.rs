//! The ways to one peer: which addresses are tried, when, and which one is in use. Pure.
//!
//! The relay is always there; a direct address is used as soon as a packet as long as QUIC's has gone there and come back,
//! under the peer's seal. It is left for the relay when it falls silent, or carries nothing though it answers; and all
//! addresses are tried again, in rounds that grow rarer, as long as none is in use.
//!
//! Both sides try at once, so that each one's packets open its own router for the other's. A round is a burst of small
//! pings to every address, dense at first; an address that answers is asked once more at full length. Until the peer is known
//! to try, what is sent outside goes a few hops only: it opens our router, and does not come to the peer's before that is open, which
//! may answer for itself then (and a port that it answers for is lost to us, for as long as we ask).
//!
//! What a peer can make us do, since it names the addresses: in [`BURST_GAP_MIN`] no more than [`PROBES_MAX`] packets, some
//! 15 KB, whichever it names and however often it names others; long ones only to who answered.
//!
//! What it is not: where addresses come from, nor what goes over the relay meanwhile. Which of two is better, `paths/rank.rs` says.

mod rank;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(super) use self::rank::{is_near, may_lend_ports};
use super::message::{CANDIDATES_MAX, FULL_BYTES, SMALL_BYTES};

/// Addresses that are known of a peer: those it named, and as many that its pings came from.
const KNOWN_MAX: usize = 2 * CANDIDATES_MAX;

/// The first pings of a burst are so far apart: a router's mapping is open then, whichever side came first.
const BURST_STEP: Duration = Duration::from_millis(50);
/// How many are so dense; those behind them come at four times the distance.
const BURST_DENSE: u32 = 12;
/// Pings of one burst, over some 3 s.
const BURST_PINGS: u32 = 24;
/// Between two bursts to one address, whoever asks for them.
const BURST_GAP_MIN: Duration = Duration::from_secs(3);

/// How long the peer is waited for, before pings go all the way: what it says over a relay takes no longer, even where both are
/// busy. It is not waited for any longer than until it has said so.
const HEAD_START: Duration = Duration::from_millis(500);
/// How far they go until then: through the router of a home, and not to that of another.
const NEAR_HOPS: u8 = 2;

/// Pings in [`BURST_GAP_MIN`] to addresses that are not in use: a burst to each that is known. It bounds what leaves, since
/// what is remembered of an address goes as soon as the peer names others. Those above wait for the next such time.
const PROBES_MAX: u32 = BURST_PINGS * KNOWN_MAX as u32;

/// An address in use is asked so often while it is used, to notice soon that it carries nothing any more.
const PING_BUSY: Duration = Duration::from_secs(1);
/// And so often when it is not: a router forgets a mapping at 20 s or 30 s.
const PING_IDLE: Duration = Duration::from_secs(15);
/// After a ping without an answer.
const PING_AGAIN: Duration = Duration::from_millis(250);
/// An address whose pings go unanswered for so long is not used any more: a dozen pings, which are not lost by chance.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// And for so long where the peer has left it.
const SILENCE_IN_DOUBT: Duration = Duration::from_secs(1);

/// Behind the first round: the peer may have known nothing of the connection yet.
const ROUND_AGAIN: Duration = Duration::from_millis(500);
/// The pause between the next rounds; it doubles up to [`ROUND_MAX`].
const ROUND_FIRST: Duration = Duration::from_secs(5);
const ROUND_MAX: Duration = Duration::from_secs(60);

/// The pause behind a search for a way that was in vain. From the fifth time on it doubles, up to an hour: what is wrong for a few
/// minutes is over then, and what is wrong for longer stays so.
const SEARCH_PAUSE: Duration = Duration::from_secs(30);
const SEARCHES_ALIKE: u32 = 3;

/// How long an address that carried nothing is not used; it doubles each time, up to an hour.
const BLOCK_FIRST: Duration = Duration::from_secs(30);
const BLOCK_MAX: Duration = Duration::from_secs(3_600);
/// One that was in use for so long had healed: if it carries nothing after that, it is for the first time.
const CARRIES_WELL: Duration = Duration::from_secs(60);

/// Questions whose answers are waited for, for each address.
const OUTSTANDING_MAX: usize = 16;

/// A ping to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) to: SocketAddr,
    pub(super) transaction: u64,
    pub(super) padding: usize,
    /// How far it goes, if not all the way.
    pub(super) hops: Option<u8>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Paths {
    known: BTreeMap<SocketAddr, Address>,
    chosen: Option<SocketAddr>,
    chosen_at: Option<Instant>,
    /// When the next round is due, and how many there were since a direct address was last in use.
    round_at: Option<Instant>,
    round_count: u32,
    rounded_at: Option<Instant>,
    /// Whether the peer has named its addresses since everything was tried anew.
    has_heard: bool,
    /// From when on pings go all the way; before that there were none.
    meant_at: Option<Instant>,
    /// When a way may be searched again, and how often that was in vain.
    search_at: Option<Instant>,
    search_count: u32,
    /// When data was last sent directly.
    used_at: Option<Instant>,
    /// Until when how many pings were sent to addresses that are not in use: see [`PROBES_MAX`].
    probes_until: Option<Instant>,
    probes_count: u32,
}

struct Address {
    /// Where it stands among those that the peer has named; `None` if only its pings come from there.
    named: Option<usize>,
    /// When its next ping is due.
    ping_at: Option<Instant>,
    burst_at: Option<Instant>,
    burst_left: u32,
    /// Questions without an answer, with their lengths.
    outstanding: VecDeque<(u64, Instant, usize)>,
    /// When the first question since the last answer was asked.
    unanswered_since: Option<Instant>,
    /// It has answered a short ping in this burst.
    has_answered: bool,
    round_trip: Option<Duration>,
    blocked_until: Option<Instant>,
    block_count: u32,
}

impl Address {
    fn new(named: Option<usize>) -> Address {
        Address {
            named,
            ping_at: None,
            burst_at: None,
            burst_left: 0,
            outstanding: VecDeque::new(),
            unanswered_since: None,
            has_answered: false,
            round_trip: None,
            blocked_until: None,
            block_count: 0,
        }
    }

    fn burst(&mut self, now: Instant) {
        if self.burst_at.is_none_or(|at| now >= at + BURST_GAP_MIN) {
            self.burst_at = Some(now);
            self.burst_left = BURST_PINGS;
            self.has_answered = false;
            self.ping_at = Some(now);
        }
    }

    fn is_blocked(&self, now: Instant) -> bool {
        self.blocked_until.is_some_and(|until| now < until)
    }
}

impl Paths {
    /// The direct address in use; `None` for the relay.
    pub(super) fn route(&self) -> Option<SocketAddr> {
        self.chosen
    }

    /// Whether the address is one of the peer's.
    pub(super) fn knows(&self, address: SocketAddr) -> bool {
        self.known.contains_key(&address)
    }

    /// The round trip time of the direct address in use.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.chosen.and_then(|address| self.known[&address].round_trip)
    }

    /// The peer names its addresses, and tries ours now: so do we. Those that it named before, and no more, are forgotten.
    /// `has_heard` says whether it knows ours, and `must_tell` that it has to be told something besides.
    pub(super) fn on_candidates(
        &mut self,
        named: &[SocketAddr],
        (has_heard, must_tell): (bool, bool),
        now: Instant,
    ) {
        let is_first = !std::mem::replace(&mut self.has_heard, true);
        let chosen = self.chosen;
        self.known.retain(|address, known| {
            known.named.is_none() || named.contains(address) || chosen == Some(*address)
        });
        for (place, address) in named.iter().take(CANDIDATES_MAX).enumerate() {
            if let Some(known) = self.learn(*address, Some(place)) {
                known.named = Some(place);
            }
        }
        // It has to know our addresses too, unless it was just told, and that we know its own now.
        if must_tell || !has_heard || is_first || self.rounded_at.is_none_or(|at| now >= at + BURST_GAP_MIN) {
            self.round_at = Some(now);
        }
        if is_first {
            // What was held back before was sent to addresses that we did not know.
            self.meant_at = None;
        }
        self.hold_back(now);
        self.burst(now);
        if has_heard {
            self.go_all_the_way(now);
        }
        self.doubt(now);
    }

    /// The peer may not try yet. Where it has done so a moment ago its router is still open.
    fn hold_back(&mut self, now: Instant) {
        if self.meant_at.is_none_or(|at| now >= at + BURST_GAP_MIN) {
            self.meant_at = Some(now + HEAD_START);
        }
    }

    /// The peer tries: it has opened its router.
    fn go_all_the_way(&mut self, now: Instant) {
        if self.meant_at.is_none_or(|at| now < at) {
            self.meant_at = Some(now);
            for address in self.known.values_mut().filter(|address| address.burst_left > 0) {
                address.ping_at = Some(now);
            }
        }
    }

    /// What goes to our direct address may be in vain, since the peer has none in use, or this machine lacks one that it had: it has to
    /// answer soon.
    pub(super) fn doubt(&mut self, now: Instant) {
        if let Some(address) = self.chosen.and_then(|chosen| self.known.get_mut(&chosen)) {
            let since = now.checked_sub(SILENCE_MAX - SILENCE_IN_DOUBT).unwrap_or(now);
            address.unanswered_since.get_or_insert(since);
            address.ping_at = Some(now);
        }
    }

    /// We have another address, and what goes directly leaves from there: it has to be answered soon, as the peer may let in only
    /// what came from before.
    pub(super) fn on_moved(&mut self, now: Instant) {
        self.doubt(now);
        self.search_anew();
        self.start_over(now);
    }

    /// The peer's ping has come from there, whether it named the address or not.
    pub(super) fn on_ping(&mut self, from: SocketAddr, now: Instant) {
        let is_chosen = self.chosen == Some(from);
        if let Some(address) = self.learn(from, None)
            && !is_chosen
            && !address.is_blocked(now)
        {
            address.burst(now);
        }
        self.go_all_the_way(now);
    }

    fn learn(&mut self, address: SocketAddr, named: Option<usize>) -> Option<&mut Address> {
        if !self.known.contains_key(&address) && self.known.len() >= KNOWN_MAX {
            // One that only pings came from: of those somebody on the way can make many.
            let chosen = self.chosen;
            let replaced =
                self.known.iter().find(|(at, known)| known.named.is_none() && chosen != Some(**at));
            let replaced = *replaced?.0;
            self.known.remove(&replaced);
        }
        Some(self.known.entry(address).or_insert_with(|| Address::new(named)))
    }

    /// An answer has come from there: whether it is to a question that was asked there. It may be in use from now on.
    pub(super) fn on_pong(&mut self, from: SocketAddr, transaction: u64, now: Instant) -> bool {
        let pace = self.pace(now);
        let Some(address) = self.known.get_mut(&from) else { return false };
        let asked = address.outstanding.iter().find(|(asked, ..)| *asked == transaction);
        let Some(&(_, at, padding)) = asked else { return false };
        address.outstanding.retain(|(asked, ..)| *asked != transaction);
        address.unanswered_since = None;
        let round_trip = now.saturating_duration_since(at);
        address.round_trip =
            Some(address.round_trip.map_or(round_trip, |other| (other * 3 + round_trip) / 4));
        if self.chosen == Some(from) {
            address.ping_at = Some(now + pace);
        } else if padding + SMALL_BYTES >= FULL_BYTES {
            address.burst_left = 0;
            address.ping_at = None;
            if !address.is_blocked(now) && self.is_better(from, round_trip) {
                self.choose(from, now);
            }
        } else if !address.has_answered {
            address.has_answered = true;
            address.ping_at = Some(now);
        }
        true
    }

    fn is_better(&self, address: SocketAddr, round_trip: Duration) -> bool {
        let Some((chosen, other)) = self.chosen.zip(self.round_trip()) else { return true };
        rank::is_better((address, round_trip), (chosen, other))
    }

    fn choose(&mut self, address: SocketAddr, now: Instant) {
        (self.chosen, self.chosen_at) = (Some(address), Some(now));
        self.round_at = None;
        self.round_count = 0;
        (self.search_at, self.search_count) = (None, 0);
        self.known.get_mut(&address).expect("it has answered").ping_at = Some(now + PING_BUSY);
    }

    /// Data is being sent to the direct address; whether that makes [`Paths::next_due`] come earlier.
    pub(super) fn on_sent(&mut self, now: Instant) -> bool {
        self.used_at = Some(now);
        let Some(address) = self.chosen.and_then(|chosen| self.known.get_mut(&chosen)) else { return false };
        // An idle address would be asked in a while only.
        let is_idle = address.ping_at.is_none_or(|at| at > now + PING_BUSY);
        if is_idle {
            address.ping_at = Some(now + PING_BUSY);
        }
        is_idle
    }

    fn pace(&self, now: Instant) -> Duration {
        let is_busy = self.used_at.is_some_and(|at| now < at + 2 * PING_BUSY);
        if is_busy { PING_BUSY } else { PING_IDLE }
    }

    /// The direct address answers pings and carries nothing: for a while the relay is better.
    pub(super) fn on_carries_nothing(&mut self, now: Instant) {
        let Some(address) = self.chosen.take().and_then(|chosen| self.known.get_mut(&chosen)) else { return };
        if self.chosen_at.is_some_and(|at| now >= at + CARRIES_WELL) {
            address.block_count = 0;
        }
        let block = BLOCK_FIRST.saturating_mul(1 << address.block_count.min(6)).min(BLOCK_MAX);
        address.block_count += 1;
        address.blocked_until = Some(now + block);
        address.ping_at = None;
        self.round_at = Some(now + ROUND_FIRST);
    }

    /// Whether the peer has named its addresses.
    pub(super) fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// Something has changed here: what was searched in vain may be found. Not by a peer's word.
    pub(super) fn search_anew(&mut self) {
        (self.search_at, self.search_count) = (None, 0);
    }

    /// Tries everything again, now: something has changed here or there.
    pub(super) fn start_over(&mut self, now: Instant) {
        if self.chosen.is_none() {
            self.round_count = 0;
            self.round_at = Some(now);
        }
    }

    /// Whether a round is due: the peer has to be told our addresses, so that it tries as we do.
    pub(super) fn begin_round(&mut self, now: Instant) -> bool {
        let is_due = self.chosen.is_none() && self.round_at.is_none_or(|at| now >= at);
        if is_due {
            let pause = match self.round_count {
                0 => ROUND_AGAIN,
                count => ROUND_FIRST.saturating_mul(1 << (count - 1).min(6)).min(ROUND_MAX),
            };
            self.round_count += 1;
            self.rounded_at = Some(now);
            // An address that may be used again is tried at once.
            let unblocked = self.known.values().filter_map(|address| address.blocked_until);
            let unblocked = unblocked.filter(|until| *until > now).min();
            self.round_at = unblocked.into_iter().chain([now + pause]).min();
            if !self.known.is_empty() {
                self.hold_back(now);
            }
            self.burst(now);
        }
        is_due
    }

    /// Whether a way is to be searched by other means, since two rounds were in vain. It is said once for each pause.
    pub(super) fn wants_search(&mut self, now: Instant) -> bool {
        let is_due = self.round_count >= 2 && self.search_at.is_none_or(|at| now >= at);
        let wants = is_due && self.searched().is_some();
        if wants {
            let doubled = self.search_count.saturating_sub(SEARCHES_ALIKE).min(7);
            self.search_at = Some(now + SEARCH_PAUSE * (1 << doubled));
            self.search_count += 1;
        }
        wants
    }

    /// Where the peer's router is, if no direct address is in use.
    pub(super) fn searched(&self) -> Option<SocketAddr> {
        // The first that it names: a relay sees it there, while others are of interfaces of its own.
        let named = self.known.iter().filter(|(at, _)| may_lend_ports(**at));
        let named = named.filter_map(|(at, known)| Some((known.named?, *at)));
        if self.chosen.is_some() { None } else { named.min().map(|(_, at)| at) }
    }

    fn burst(&mut self, now: Instant) {
        let chosen = self.chosen;
        for (at, address) in &mut self.known {
            if chosen != Some(*at) && !address.is_blocked(now) {
                address.burst(now);
            }
        }
    }

    /// Leaves the direct address if it is silent.
    pub(super) fn on_time(&mut self, now: Instant) {
        let is_silent =
            |address: &Address| address.unanswered_since.is_some_and(|at| now >= at + SILENCE_MAX);
        if self.chosen.is_some_and(|chosen| is_silent(&self.known[&chosen]))
            && let Some(address) = self.chosen.take().and_then(|chosen| self.known.get_mut(&chosen))
        {
            address.ping_at = None;
            self.round_at = Some(now);
        }
    }

    /// The pings that are due. `transaction` draws a number that nobody can guess.
    pub(super) fn probes(&mut self, now: Instant, mut transaction: impl FnMut() -> u64) -> Vec<Probe> {
        let chosen = self.chosen;
        let until = match self.probes_until.filter(|until| now < *until) {
            Some(until) => until,
            None => {
                self.probes_count = 0;
                now + BURST_GAP_MIN
            }
        };
        let mut probes = Vec::new();
        for (&to, address) in &mut self.known {
            if address.ping_at.is_none_or(|at| now < at) {
                continue;
            }
            if chosen != Some(to) {
                if self.probes_count == PROBES_MAX {
                    address.ping_at = Some(until);
                    continue;
                }
                self.probes_count += 1;
                self.probes_until = Some(until);
            }
            let mut padding = 0;
            address.ping_at = if chosen == Some(to) {
                // An answer puts it off.
                Some(now + PING_AGAIN)
            } else if address.burst_left > 0 {
                address.burst_left -= 1;
                padding = if address.has_answered { FULL_BYTES - SMALL_BYTES } else { 0 };
                let is_dense = BURST_PINGS - address.burst_left <= BURST_DENSE;
                // A long packet of our own making is sent no faster than it takes to be answered.
                let step = if is_dense && padding == 0 { BURST_STEP } else { 4 * BURST_STEP };
                (address.burst_left > 0).then(|| now + step)
            } else {
                None
            };
            let transaction = transaction();
            if address.outstanding.len() == OUTSTANDING_MAX {
                address.outstanding.pop_front();
            }
            address.outstanding.push_back((transaction, now, padding));
            address.unanswered_since.get_or_insert(now);
            let is_held_back = self.meant_at.is_some_and(|at| now < at) && chosen != Some(to) && !is_near(to);
            probes.push(Probe { to, transaction, padding, hops: is_held_back.then_some(NEAR_HOPS) });
        }
        probes
    }

    /// When [`Paths::on_time`], [`Paths::begin_round`] or [`Paths::probes`] has something to do next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let pings = self.known.values().filter_map(|address| address.ping_at);
        let silence = self.chosen.and_then(|chosen| self.known[&chosen].unanswered_since);
        let round = self.round_at.filter(|_| self.chosen.is_none());
        pings.chain(silence.map(|at| at + SILENCE_MAX)).chain(round).min()
    }
}

#[cfg(test)]
mod tests;
