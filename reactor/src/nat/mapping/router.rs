//! A router that maps ports, by whichever protocol it speaks: PCP, NAT-PMP, or UPnP, tried in this order.
//!
//! What it says is believed as far as it goes: an outside address that is none of the internet's is told as the reason why there
//! is no mapping, and what was granted under it is given up at once.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::ask::{ask, own_address_towards};
use super::epoch::Epoch;
use super::gateway::Gateway;
use super::igd::Mark;
use super::lease::{Granted, LIFETIME, LIFETIME_MIN};
use super::nat_pmp::{self, Body};
use super::pcp::{self, MapRequest};
use super::upnp::Upnp;
use super::{Port, Protocol, Why, usable};
use crate::clock::now;
use crate::crypto::hash::sha3_256;
use crate::scope;

/// Where a router is, and we are in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    gateway: Gateway,
    own: Ipv4Addr,
}

impl Place {
    /// That of a gateway; `None` if there is none, or no packet of ours gets there. Never suspends.
    pub(super) fn towards(gateway: Option<Gateway>) -> Option<Place> {
        let gateway = gateway?;
        Some(Place { gateway, own: own_address_towards(control(&gateway))? })
    }

    /// Whether another router is there: not so where this machine has another address only.
    pub(super) fn is_of_another_router(&self, other: &Place) -> bool {
        self.gateway != other.gateway
    }
}

/// See the module.
pub(super) struct Router {
    gateway: Gateway,
    /// Our address in its network.
    own: Ipv4Addr,
    /// Whether it has answered anything, so that it may be about to grant what it is asked.
    has_answered: Rc<Cell<bool>>,
    /// What nonces are made of.
    secret: [u8; 32],
    speaks: Option<Speaks>,
    epoch: Epoch,
    /// By its clock it has forgotten what was mapped before.
    has_forgotten: bool,
}

enum Speaks {
    Pcp,
    NatPmp,
    Upnp(Upnp),
}

/// What a router says when it is asked whether it has kept what was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Kept,
    Lost,
    Silent,
}

impl Router {
    /// The router there, which says by `has_answered` that it has. Never suspends.
    pub(super) fn at(place: Place, secret: [u8; 32], has_answered: Rc<Cell<bool>>) -> Router {
        let Place { gateway, own } = place;
        let (speaks, epoch) = (None, Epoch::default());
        Router { gateway, own, has_answered, secret, speaks, epoch, has_forgotten: false }
    }

    /// Our address in its network.
    pub(super) fn own(&self) -> Ipv4Addr {
        self.own
    }

    /// Maps a port, or renews that, at the outside port `suggested` if that can be.
    ///
    /// # Suspends
    /// While it is asked, by all protocols until one is found.
    pub(super) fn map(&mut self, port: Port, suggested: u16) -> Result<Granted, Why> {
        self.has_answered.set(self.has_answered.get() || self.speaks.is_some());
        let granted = match &self.speaks {
            Some(Speaks::Pcp) => self.map_by_pcp(port, suggested),
            Some(Speaks::NatPmp) => self.map_by_nat_pmp(port, suggested),
            Some(Speaks::Upnp(upnp)) => upnp.map(self.own, port, suggested),
            None => self.find(port, suggested),
        }?;
        match granted.lifetime {
            Some(lifetime) if lifetime < LIFETIME_MIN => Err(Why::TooShort { protocol: granted.protocol }),
            _ => Ok(granted),
        }
    }

    /// By whichever protocol it speaks. UPnP is looked for meanwhile, since a router that speaks no other may take as long to say
    /// so as to be found by it.
    fn find(&mut self, port: Port, suggested: u16) -> Result<Granted, Why> {
        let (gateway, own) = (self.gateway, self.own);
        scope(|s| {
            let mark = self.mark();
            let searching = s.spawn(move || Upnp::find(&gateway, own, mark));
            let by_packets = match self.map_by_pcp(port, suggested) {
                Ok(granted) => Ok((Speaks::Pcp, granted)),
                Err(why) => match self.map_by_nat_pmp(port, suggested) {
                    Ok(granted) => Ok((Speaks::NatPmp, granted)),
                    Err(other) => Err(why.or(other)),
                },
            };
            let found = match by_packets {
                Ok(found) => {
                    searching.terminate();
                    Ok(found)
                }
                Err(why) => {
                    let upnp = searching.join().unwrap_or(Err(Why::Silent));
                    let mapped = upnp.and_then(|upnp| {
                        self.has_answered.set(true);
                        let granted = upnp.map(own, port, suggested)?;
                        Ok((Speaks::Upnp(upnp), granted))
                    });
                    mapped.map_err(|other| why.or(other))
                }
            };
            let (speaks, granted) = found?;
            self.speaks = Some(speaks);
            Ok(granted)
        })
    }

    /// What tells our mappings by UPnP from others': the same at the next start, as the nonces below.
    fn mark(&self) -> Mark {
        let digest = sha3_256(&[b"port mapping mark", &self.secret]);
        Mark(u32::from_be_bytes(digest[..4].try_into().expect("so many bytes")))
    }

    fn map_request(&self, port: Port, suggested: u16, lifetime: Duration) -> MapRequest {
        // The same at the next start, so that a mapping which a process has left behind is ours to renew; and known to nobody
        // but the router.
        let digest = sha3_256(&[
            b"port mapping nonce",
            &self.secret,
            &self.gateway.address.octets(),
            &[port.transport.number()],
            &port.number.to_be_bytes(),
        ]);
        MapRequest {
            nonce: digest[..12].try_into().expect("so many bytes"),
            own: self.own,
            port,
            lifetime_s: lifetime.as_secs() as u32,
            suggested: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, suggested),
        }
    }

    fn map_by_pcp(&mut self, port: Port, suggested: u16) -> Result<Granted, Why> {
        let protocol = Protocol::Pcp;
        let request = self.map_request(port, suggested, LIFETIME);
        let judge = |packet: &[u8]| {
            let answer = pcp::Answer::parse(packet)?;
            let mapped = request.answered_by(&answer)?;
            // Nobody can be sent to port 0.
            let is_none = mapped.is_ok_and(|mapped| mapped.external.port() == 0);
            (!is_none).then_some((answer.epoch_s, mapped))
        };
        let (epoch_s, result) =
            ask(self.own, control(&self.gateway), &request.encode(), judge).ok_or(Why::Silent)?;
        epoch_s.into_iter().for_each(|epoch_s| self.note(epoch_s, now()));
        let mapped = match result {
            Ok(mapped) => mapped,
            Err(pcp::UNSUPPORTED_VERSION) => return Err(Why::Silent),
            Err(code) => return Err(Why::Refused { protocol, code: code.into() }),
        };
        if let Err(why) = usable(protocol, *mapped.external.ip()) {
            self.unmap_by_pcp(port);
            return Err(why);
        }
        let lifetime = Some(Duration::from_secs(mapped.lifetime_s.into()));
        Ok(Granted { protocol, external: mapped.external, lifetime })
    }

    fn map_by_nat_pmp(&mut self, port: Port, suggested: u16) -> Result<Granted, Why> {
        let protocol = Protocol::NatPmp;
        let (address, epoch_s) = self.address_by_nat_pmp()?;
        self.has_answered.set(true);
        self.note(epoch_s, now());
        usable(protocol, address)?;
        let request = nat_pmp::map_request(port, suggested, LIFETIME.as_secs() as u32);
        let judge = |packet: &[u8]| {
            let mapped = mapped_by_nat_pmp(packet, port)?;
            (!mapped.is_ok_and(|(external, _)| external == 0)).then_some(mapped)
        };
        let answer = ask(self.own, control(&self.gateway), &request, judge);
        match answer.ok_or(Why::Silent)? {
            Ok((external, lifetime_s)) => Ok(Granted {
                protocol,
                external: SocketAddrV4::new(address, external),
                lifetime: Some(Duration::from_secs(lifetime_s.into())),
            }),
            Err(code) => Err(Why::Refused { protocol, code }),
        }
    }

    fn address_by_nat_pmp(&self) -> Result<(Ipv4Addr, u32), Why> {
        let judge = |packet: &[u8]| match nat_pmp::Answer::parse(packet)? {
            nat_pmp::Answer { epoch_s, body: Some(Body::Address(address)), .. } => {
                Some(Ok((address, epoch_s)))
            }
            nat_pmp::Answer { result, body: None, .. } if result != 0 => {
                Some(Err(Why::Refused { protocol: Protocol::NatPmp, code: result }))
            }
            _ => None,
        };
        ask(self.own, control(&self.gateway), &nat_pmp::ADDRESS_REQUEST, judge).ok_or(Why::Silent)?
    }

    /// Whether it has kept what was mapped, as far as it tells.
    ///
    /// # Suspends
    /// While it is asked.
    pub(super) fn check(&mut self, mapped: &[(Port, Granted)]) -> Check {
        let of = |is_kept| if is_kept { Check::Kept } else { Check::Lost };
        match &self.speaks {
            Some(Speaks::Pcp) => {
                let judge = |packet: &[u8]| pcp::Answer::parse(packet)?.epoch_s;
                let epoch_s = ask(self.own, control(&self.gateway), &pcp::announce(self.own), judge);
                epoch_s.map_or(Check::Silent, |epoch_s| of(self.epoch.on_seen(epoch_s, now())))
            }
            Some(Speaks::NatPmp) => match self.address_by_nat_pmp() {
                Ok((address, epoch_s)) => {
                    let is_same = mapped.iter().all(|(_, granted)| *granted.external.ip() == address);
                    of(self.epoch.on_seen(epoch_s, now()) && is_same)
                }
                Err(Why::Silent) => Check::Silent,
                Err(_) => Check::Lost,
            },
            Some(Speaks::Upnp(upnp)) => {
                let each = mapped.iter().map(|(port, granted)| upnp.has(self.own, *port, granted));
                each.map(|has| has.map_or(Check::Silent, of))
                    .find(|check| *check != Check::Kept)
                    .unwrap_or(Check::Kept)
            }
            None => Check::Lost,
        }
    }

    /// Gives a mapping up, by the protocol by which it was granted; whether that is done as far as it can be. By UPnP it is not
    /// where the router does not answer; by the others it ends by itself then.
    ///
    /// # Suspends
    /// While the router is told.
    pub(super) fn unmap(&self, port: Port, granted: &Granted) -> bool {
        match (granted.protocol, &self.speaks) {
            (Protocol::Pcp, _) => self.unmap_by_pcp(port),
            (Protocol::NatPmp, _) => {
                let request = nat_pmp::map_request(port, 0, 0);
                ask(self.own, control(&self.gateway), &request, |packet| mapped_by_nat_pmp(packet, port));
            }
            (Protocol::Upnp, Some(Speaks::Upnp(upnp))) => return upnp.unmap(self.own, port, granted),
            (Protocol::Upnp, _) => {
                let found = Upnp::all(&self.gateway, self.own, self.mark()).unwrap_or_default();
                let is_told = |upnp: &Upnp| upnp.unmap(self.own, port, granted);
                return !found.is_empty() && found.iter().all(is_told);
            }
        }
        true
    }

    fn unmap_by_pcp(&self, port: Port) {
        let request = self.map_request(port, 0, Duration::ZERO);
        let judge = |packet: &[u8]| request.answered_by(&pcp::Answer::parse(packet)?);
        ask(self.own, control(&self.gateway), &request.encode(), judge);
    }

    /// What its clock shows as it grants something: what it granted before may be lost.
    fn note(&mut self, epoch_s: u32, now: Instant) {
        self.has_forgotten |= !self.epoch.on_seen(epoch_s, now);
    }

    /// Whether it has shown, since that was asked last, that it has forgotten what was mapped. Never suspends.
    pub(super) fn take_forgotten(&mut self) -> bool {
        std::mem::take(&mut self.has_forgotten)
    }
}

fn control(gateway: &Gateway) -> SocketAddr {
    SocketAddr::from((gateway.address, gateway.control_port))
}

/// The outside port and the lifetime that an answer grants to that port, or why not.
fn mapped_by_nat_pmp(packet: &[u8], asked: Port) -> Option<Result<(u16, u32), u16>> {
    match nat_pmp::Answer::parse(packet)? {
        nat_pmp::Answer { body: Some(Body::Mapped { port, external, lifetime_s }), .. } if port == asked => {
            Some(Ok((external, lifetime_s)))
        }
        nat_pmp::Answer { result, body: None, .. } if result != 0 => Some(Err(result)),
        _ => None,
    }
}
