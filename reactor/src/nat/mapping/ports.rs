//! The ports that are to be mapped, how each stands, and what the router may have of them that nobody wishes any more. Pure.
//!
//! What a router has granted is remembered until it was told that nobody wants it, or until there is another router: also while it
//! does not answer, and when it has granted something else or says that its address leads nowhere. By UPnP it would keep that for
//! good, some routers whatever was asked.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use super::lease::{Granted, Lease};
use super::{Port, Protocol, Why, Wish};

/// What is to be given up that is remembered: more would only come together at a router that answers nothing.
const DROPPED_MAX: usize = 32;

/// See the module.
#[derive(Default)]
pub(super) struct Ports {
    wished: BTreeMap<Port, Standing>,
    /// What nobody wishes any more, and the router may have.
    dropped: Vec<(Port, Granted)>,
    /// Of that, what the router did not answer to.
    untold: Vec<(Port, Granted)>,
}

/// How a port stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) bound: Option<Ipv4Addr>,
    pub(super) lease: Result<Lease, Why>,
    /// What the router granted last, unless it said that it does not have it.
    held: Option<Granted>,
    /// The outside port that it had last.
    pub(super) suggested: u16,
    due: Option<Instant>,
}

impl Ports {
    pub(super) fn wish(&mut self, wishes: &[Wish], now: Instant) {
        let is_wished =
            |port: &Port, standing: &Standing| wishes.contains(&Wish { port: *port, bound: standing.bound });
        let (kept, gone): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.wished)
            .into_iter()
            .partition(|(port, standing)| is_wished(port, standing));
        self.wished = kept;
        gone.into_iter().for_each(|(port, standing)| self.drop_held(port, standing.held));
        for Wish { port, bound } in wishes {
            let (suggested, due) = (port.number, Some(now));
            let standing = Standing { bound: *bound, lease: Err(Why::Untried), held: None, suggested, due };
            self.wished.entry(*port).or_insert(standing);
        }
    }

    fn drop_held(&mut self, port: Port, held: Option<Granted>) {
        let Some(held) = held else { return };
        if self.dropped.len() >= DROPPED_MAX {
            self.dropped.remove(0);
        }
        self.dropped.push((port, held));
    }

    /// What came of asking for a port that was to be bound like that; whether that is news.
    pub(super) fn on_asked(
        &mut self,
        port: Port,
        bound: Option<Ipv4Addr>,
        lease: Result<Lease, Why>,
        due: Option<Instant>,
    ) -> bool {
        let Some(standing) = self.wished.get_mut(&port).filter(|standing| standing.bound == bound) else {
            // It was given up while the router was asked.
            self.drop_held(port, lease.ok().map(|lease| lease.granted));
            return false;
        };
        let is_news = match (&standing.lease, &lease) {
            (Ok(before), Ok(after)) => before.granted != after.granted,
            (before, after) => before != after,
        };
        (standing.lease, standing.due) = (lease, due);
        let before = match lease {
            Ok(lease) => {
                standing.suggested = lease.granted.external.port();
                let before = standing.held.replace(lease.granted);
                before.filter(|before| !is_same_entry(before, &lease.granted))
            }
            // Who does not answer may have it still.
            Err(Why::Silent | Why::NoRouter | Why::Untried) => None,
            Err(_) => standing.held.take(),
        };
        self.drop_held(port, before);
        is_news
    }

    /// Nothing is mapped any more, for that reason; whether that is news.
    pub(super) fn on_failed(&mut self, why: Why) -> bool {
        let all: Vec<(Port, Standing)> =
            self.wished.iter().map(|(port, standing)| (*port, *standing)).collect();
        let mut is_news = false;
        for (port, standing) in all {
            // One that could not be mapped has a reason of its own, unless there is nobody any more who could map it.
            let own = standing.lease.err().filter(|own| *own != Why::Untried && why != Why::NoRouter);
            is_news |= self.on_asked(port, standing.bound, Err(own.unwrap_or(why)), None);
        }
        is_news
    }

    /// There is another router: what the one before has is out of our reach.
    pub(super) fn on_other_router(&mut self) {
        self.dropped.clear();
        self.untold.clear();
        self.wished.values_mut().for_each(|standing| standing.held = None);
    }

    /// All is to be mapped anew.
    pub(super) fn wish_again(&mut self, now: Instant) {
        self.wished.values_mut().for_each(|standing| standing.due = Some(now));
    }

    /// A port that is due.
    pub(super) fn due(&self, now: Instant) -> Option<(Port, Standing)> {
        let is_due = |standing: &Standing| standing.due.is_some_and(|due| due <= now);
        self.wished.iter().find(|(_, standing)| is_due(standing)).map(|(port, standing)| (*port, *standing))
    }

    /// When the next is.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.wished.values().filter_map(|standing| standing.due).min()
    }

    /// Takes what the router is to be told that nobody wants.
    pub(super) fn take_dropped(&mut self) -> Vec<(Port, Granted)> {
        let mut dropped = std::mem::take(&mut self.dropped);
        // It may have been granted again since, as it was or, by PCP and NAT-PMP, which know our port alone, in its place.
        dropped.retain(|(port, granted)| {
            let now = self.wished.get(port).and_then(|standing| standing.lease.ok());
            now.is_none_or(|now| !is_same_entry(granted, &now.granted))
        });
        dropped
    }

    /// The router did not answer to that.
    pub(super) fn on_untold(&mut self, port: Port, granted: Granted) {
        if self.untold.len() < DROPPED_MAX {
            self.untold.push((port, granted));
        }
    }

    /// What the router did not answer to is told again.
    pub(super) fn tell_again(&mut self) {
        for (port, granted) in std::mem::take(&mut self.untold) {
            self.drop_held(port, Some(granted));
        }
    }

    /// How a port stands, if it is wished.
    pub(super) fn lease(&self, port: Port) -> Result<Lease, Why> {
        self.wished.get(&port).map_or(Err(Why::Untried), |standing| standing.lease)
    }

    /// What is had now.
    pub(super) fn granted(&self) -> Vec<(Port, Granted)> {
        let granted =
            self.wished.iter().filter_map(|(port, standing)| Some((*port, standing.lease.ok()?.granted)));
        granted.collect()
    }

    /// Whether anything is mapped, or nothing is to be; else why not.
    pub(super) fn outcome(&self) -> Result<(), Why> {
        let why = self.wished.values().filter_map(|standing| standing.lease.err()).reduce(Why::or);
        match why {
            Some(why) if !self.wished.values().any(|standing| standing.lease.is_ok()) => Err(why),
            _ => Ok(()),
        }
    }

    /// Whether nothing is to be mapped.
    pub(super) fn is_empty(&self) -> bool {
        self.wished.is_empty()
    }

    /// Whether there is something that the router is to be told nobody wants.
    pub(super) fn has_dropped(&self) -> bool {
        !self.dropped.is_empty()
    }

    /// Whether there is something of that to which it did not answer.
    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Whether the router may have anything of ours.
    #[cfg(test)]
    fn may_be_held(&self) -> bool {
        let is_held = self.wished.values().any(|standing| standing.held.is_some());
        is_held || !self.dropped.is_empty() || !self.untold.is_empty()
    }
}

/// Whether a router has one thing for both, that were granted for one port of ours: by UPnP it has one for each outside port.
fn is_same_entry(one: &Granted, other: &Granted) -> bool {
    let is_upnp = |granted: &Granted| granted.protocol == Protocol::Upnp;
    match (is_upnp(one), is_upnp(other)) {
        (true, true) => one.external.port() == other.external.port(),
        (false, false) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;
    use std::time::Duration;

    use super::*;
    use crate::nat::mapping::Transport;

    const PORT: Port = Port { transport: Transport::Tcp, number: 4_701 };
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(11, 0, 1, 2);

    fn granted(protocol: Protocol, port: u16) -> Granted {
        Granted { protocol, external: SocketAddrV4::new(OUTSIDE, port), lifetime: None }
    }

    fn lease(protocol: Protocol, port: u16) -> Result<Lease, Why> {
        Ok(Lease::begun(granted(protocol, port), Instant::now()))
    }

    fn wished() -> Ports {
        let mut ports = Ports::default();
        ports.wish(&[Wish::any(PORT)], Instant::now());
        ports
    }

    #[test]
    fn what_was_granted_is_given_up_when_the_router_grants_another_or_says_that_it_leads_nowhere() {
        let mut ports = wished();
        ports.on_asked(PORT, None, lease(Protocol::Upnp, 5_000), None);
        ports.on_asked(PORT, None, lease(Protocol::Upnp, 5_001), None);
        assert_eq!(ports.take_dropped(), [(PORT, granted(Protocol::Upnp, 5_000))]);
        let private = Why::Private { protocol: Protocol::Upnp, external: Ipv4Addr::new(10, 0, 0, 1) };
        ports.on_asked(PORT, None, Err(private), None);
        assert_eq!(ports.take_dropped(), [(PORT, granted(Protocol::Upnp, 5_001))]);
        assert!(!ports.may_be_held());
    }

    #[test]
    fn a_router_that_does_not_answer_may_have_what_it_granted_until_there_is_another() {
        for why in [Why::Silent, Why::NoRouter, Why::Untried] {
            let mut ports = wished();
            ports.on_asked(PORT, None, lease(Protocol::Upnp, 5_000), None);
            ports.on_failed(why);
            assert!(ports.take_dropped().is_empty() && ports.may_be_held(), "{why:?}");
            ports.wish(&[], Instant::now());
            assert_eq!(ports.take_dropped(), [(PORT, granted(Protocol::Upnp, 5_000))], "{why:?}");
        }
        let mut ports = wished();
        ports.on_asked(PORT, None, lease(Protocol::Upnp, 5_000), None);
        ports.on_other_router();
        ports.wish(&[], Instant::now());
        assert!(!ports.has_dropped() && !ports.may_be_held());
    }

    #[test]
    fn what_is_wished_again_while_the_router_is_asked_is_not_given_up_behind_that() {
        for protocol in [Protocol::Pcp, Protocol::NatPmp, Protocol::Upnp] {
            let mut ports = wished();
            ports.on_asked(PORT, None, lease(protocol, 5_000), None);
            // Its renewal is under way.
            ports.wish(&[], Instant::now());
            ports.wish(&[Wish::any(PORT)], Instant::now());
            ports.on_asked(PORT, None, lease(protocol, 5_000), None);
            assert_eq!(ports.take_dropped(), [], "{protocol}");
            // Bound elsewhere by now: what was granted is none of that wish.
            let elsewhere = Some(Ipv4Addr::LOCALHOST);
            ports.wish(&[Wish { port: PORT, bound: elsewhere }], Instant::now());
            ports.on_asked(PORT, None, lease(protocol, 5_000), None);
            assert_eq!(ports.lease(PORT), Err(Why::Untried));
            assert_eq!(ports.take_dropped(), [(PORT, granted(protocol, 5_000)); 2]);
        }
    }

    #[test]
    fn a_renewal_at_another_outside_port_leaves_something_behind_by_upnp_alone() {
        for (protocol, count) in [(Protocol::Pcp, 0), (Protocol::NatPmp, 0), (Protocol::Upnp, 1)] {
            let mut ports = wished();
            ports.on_asked(PORT, None, lease(protocol, 5_000), None);
            ports.on_asked(PORT, None, lease(protocol, 5_001), None);
            assert_eq!(ports.take_dropped().len(), count, "{protocol}");
        }
    }

    #[test]
    fn what_a_router_did_not_answer_to_is_told_again_and_there_is_a_bound_to_it() {
        let mut ports = Ports::default();
        for number in 0..1_000 {
            ports.on_untold(PORT, granted(Protocol::Upnp, 1_024 + number));
        }
        assert!(!ports.has_dropped() && ports.may_be_held());
        ports.tell_again();
        assert_eq!(ports.take_dropped().len(), DROPPED_MAX);
        for number in 0..1_000 {
            ports.wish(&[Wish::any(PORT)], Instant::now());
            ports.on_asked(PORT, None, lease(Protocol::Upnp, 1_024 + number), None);
            ports.wish(&[], Instant::now() + Duration::from_secs(1));
        }
        assert_eq!(ports.take_dropped().len(), DROPPED_MAX);
    }
}
