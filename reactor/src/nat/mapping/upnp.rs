//! UPnP's calls of a router, over HTTP.
//!
//! Why not a crate: igd-next (0.17) takes the first answer that anybody in the network gives for the router's, and brings an HTTP
//! client and an XML parser of its own; ours is here, and what is left is `ssdp.rs` and `igd.rs`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::gateway::Gateway;
use super::igd::{self, Call, DOCUMENT_BYTES_MAX, Mark, Service, Whose};
use super::lease::{Granted, LIFETIME};
use super::ssdp::{self, Location};
use super::{Port, Protocol, Why};
use crate::cell::RefCell;
use crate::clock::now;
use crate::http::client::{Client, RedirectPolicy, Response, Timeouts};
use crate::net::UdpSocket;
use crate::random;

/// How long answers to a search are waited for: `MX` is a second.
const SEARCH_WAIT: Duration = Duration::from_millis(1_500);

/// And when the search is sent once more.
const SEARCH_AGAIN: Duration = Duration::from_millis(500);

/// Packets that are looked at meanwhile.
const READS_MAX: usize = 64;

/// A call: routers are slow, and in the next room.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    head: Duration::from_secs(4),
    idle: Duration::from_secs(2),
    total: Some(Duration::from_secs(5)),
};

/// How often an outside port is asked for: some that others have, and once more for one that lasts until it is deleted.
const TRIES_MAX: usize = 6;

/// To whom an outside port is mapped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Nobodys,
    Ours {
        /// It lasts until it is deleted.
        is_permanent: bool,
    },
    /// Ours, from when we had another address.
    Moved,
    Others,
    /// A machine's that has a name, as ours may have.
    Named,
    /// Some routers do not tell.
    NotTold,
}

/// A router that speaks UPnP.
pub(super) struct Upnp {
    router: Ipv4Addr,
    service: Service,
    client: Client,
    mark: Mark,
    /// The outside port that each port was granted last.
    granted: RefCell<BTreeMap<Port, u16>>,
}

impl Upnp {
    /// Asks whether the router speaks it, and which of its services has an outside address.
    ///
    /// # Suspends
    /// For the search and some calls.
    pub(super) fn find(gateway: &Gateway, own: Ipv4Addr, mark: Mark) -> Result<Upnp, Why> {
        let mut why = Why::Silent;
        for upnp in Upnp::all(gateway, own, mark)? {
            match upnp.usable_address() {
                Ok(_) => return Ok(upnp),
                Err(other) => why = why.or(other),
            }
        }
        Err(why)
    }

    /// The router by each of its services that map ports.
    ///
    /// # Suspends
    /// For the search and a call.
    pub(super) fn all(gateway: &Gateway, own: Ipv4Addr, mark: Mark) -> Result<Vec<Upnp>, Why> {
        let at = search(gateway, own).ok_or(Why::Silent)?;
        let redirects = RedirectPolicy { limit: 0, ..RedirectPolicy::default() };
        let client = Client::builder().timeouts(TIMEOUTS).redirects(redirects).gzip(false).build();
        let router = gateway.address;
        let description = client.get(&url(router, &at)).send().ok();
        let description = description.and_then(|response| response.error_for_status().ok());
        let description = text(description.ok_or(Why::Silent)?)?;
        let services = igd::services(&description, &at, router);
        let by =
            |service| Upnp { router, service, client: client.clone(), mark, granted: RefCell::default() };
        Ok(services.into_iter().map(by).collect())
    }

    fn usable_address(&self) -> Result<Ipv4Addr, Why> {
        let answer = self.call(&Call::ExternalAddress)?;
        super::usable(Protocol::Upnp, igd::external_address(&answer).unwrap_or(Ipv4Addr::UNSPECIFIED))
    }

    /// Maps a port, to the outside port `suggested` if nobody else has it; what is ours is renewed, or kept where the router does
    /// not renew it.
    ///
    /// # Suspends
    /// For some calls.
    pub(super) fn map(&self, own: Ipv4Addr, port: Port, suggested: u16) -> Result<Granted, Why> {
        let address = self.usable_address()?;
        let mut external = suggested;
        let mut lifetime = Some(LIFETIME);
        for _ in 0..TRIES_MAX {
            // Some routers give what another machine has to whoever asks last.
            let held = self.held(own, port, external)?;
            let is_anothers = match held {
                Held::Others => true,
                Held::Named => self.granted.borrow().get(&port) != Some(&external),
                _ => false,
            };
            if is_anothers {
                external = any_port();
                continue;
            }
            let granted = |lifetime| {
                let external = SocketAddrV4::new(address, external);
                Granted { protocol: Protocol::Upnp, external, lifetime }
            };
            let lifetime_s = lifetime.map_or(0, |lifetime| lifetime.as_secs() as u32);
            let add = Call::Add { port, own, external, lifetime_s, mark: self.mark };
            match (self.call(&add), held) {
                (Ok(_), _) => {
                    self.granted.borrow_mut().insert(port, external);
                    return Ok(granted(lifetime));
                }
                (Err(Why::Refused { code: igd::ONLY_PERMANENT, .. }), _) if lifetime.is_some() => {
                    lifetime = None;
                }
                (Err(Why::Refused { code: igd::CONFLICT, .. }), Held::Ours { is_permanent: true }) => {
                    return Ok(granted(None));
                }
                // It would end, and is had anew at once.
                (Err(Why::Refused { code: igd::CONFLICT, .. }), Held::Ours { is_permanent: false }) => {
                    self.delete(port, external)?;
                }
                (Err(Why::Refused { code: igd::CONFLICT, .. }), Held::Moved) => {
                    // Some let a machine delete its own only: what it had by another address is not.
                    if self.delete(port, external).is_err() {
                        external = any_port();
                    }
                }
                (Err(Why::Refused { code: igd::CONFLICT, .. }), _) => external = any_port(),
                (Err(why), _) => return Err(why),
            }
        }
        Err(Why::Refused { protocol: Protocol::Upnp, code: igd::CONFLICT })
    }

    /// Whether the router still has the mapping; `None` if it does not say.
    ///
    /// # Suspends
    /// For two calls.
    pub(super) fn has(&self, own: Ipv4Addr, port: Port, granted: &Granted) -> Option<bool> {
        match self.usable_address() {
            Ok(address) if address == *granted.external.ip() => {}
            Err(Why::Silent) => return None,
            _ => return Some(false),
        }
        let held = self.held(own, port, granted.external.port()).ok()?;
        Some(matches!(held, Held::Ours { .. } | Held::Named | Held::NotTold))
    }

    /// To whom that outside port is mapped. It fails if the router does not answer.
    fn held(&self, own: Ipv4Addr, port: Port, external: u16) -> Result<Held, Why> {
        match self.call(&Call::Entry { transport: port.transport, external }) {
            Ok(answer) => {
                let Some(entry) = igd::entry(&answer) else { return Ok(Held::NotTold) };
                Ok(match entry.whose(own, port.number, self.mark) {
                    Whose::Ours => Held::Ours { is_permanent: entry.lifetime_s == Some(0) },
                    Whose::Moved => Held::Moved,
                    Whose::Others => Held::Others,
                    Whose::NotTold => Held::Named,
                })
            }
            Err(Why::Refused { code: igd::NO_SUCH_ENTRY, .. }) => Ok(Held::Nobodys),
            Err(Why::Refused { .. }) => Ok(Held::NotTold),
            Err(why) => Err(why),
        }
    }

    /// Gives a mapping up that was granted, if it is ours still, as far as the router tells, whatever the router's outside address is by now; whether the router has answered.
    ///
    /// # Suspends
    /// For two calls.
    pub(super) fn unmap(&self, own: Ipv4Addr, port: Port, granted: &Granted) -> bool {
        let external = granted.external.port();
        match self.held(own, port, external) {
            Ok(Held::Ours { .. } | Held::Moved | Held::Named | Held::NotTold) => {
                self.delete(port, external) != Err(Why::Silent)
            }
            Ok(Held::Nobodys | Held::Others) => true,
            Err(_) => false,
        }
    }

    fn delete(&self, port: Port, external: u16) -> Result<(), Why> {
        self.call(&Call::Delete { transport: port.transport, external }).map(drop)
    }

    fn call(&self, call: &Call) -> Result<String, Why> {
        let request = self.client.post(&url(self.router, &self.service.control));
        let request = request.header("Content-Type", "text/xml; charset=\"utf-8\"");
        let body = call.body(&self.service);
        let response = request.header("SOAPAction", call.action(&self.service)).body(body.as_bytes()).send();
        let response = response.map_err(|_| Why::Silent)?;
        let status = response.status().as_u16();
        let text = text(response)?;
        match status {
            200 => Ok(text),
            _ => {
                Err(Why::Refused { protocol: Protocol::Upnp, code: igd::error_code(&text).unwrap_or(status) })
            }
        }
    }
}

/// What the router says, whatever its description and its names of mappings are written in.
fn text(response: Response) -> Result<String, Why> {
    let bytes = response.bytes(DOCUMENT_BYTES_MAX).map_err(|_| Why::Silent)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn any_port() -> u16 {
    1_024 + random::below(u64::from(u16::MAX) - 1_024) as u16
}

fn url(router: Ipv4Addr, at: &Location) -> String {
    format!("http://{router}:{}{}", at.port, at.path)
}

/// Where the router says that its description is.
fn search(gateway: &Gateway, own: Ipv4Addr) -> Option<Location> {
    let socket = UdpSocket::bind(SocketAddr::from((own, 0))).ok()?;
    let begun = now();
    let mut buffer = [0; ssdp::BYTES_MAX];
    for until in [SEARCH_AGAIN, SEARCH_WAIT] {
        for packet in ssdp::searches(gateway.ssdp) {
            let _ = socket.try_send_to(&packet, gateway.ssdp.into());
        }
        socket.set_read_deadline(Some(begun + until));
        for _ in 0..READS_MAX {
            let Ok((size, from)) = socket.recv_from(&mut buffer) else { break };
            // It may answer from another port, and nobody else for it.
            let is_routers = from.ip().to_canonical() == gateway.address;
            if let Some(at) = ssdp::location(&buffer[..size], gateway.address).filter(|_| is_routers) {
                return Some(at);
            }
        }
    }
    None
}
