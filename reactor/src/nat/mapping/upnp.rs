//! UPnP's calls of a router, over HTTP.
//!
//! Why not a crate: igd-next (0.17) takes the first answer that anybody in the network gives for the router's, and brings an HTTP
//! client and an XML parser of its own; ours is here, and what is left is `ssdp.rs` and `igd.rs`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::gateway::Gateway;
use super::igd::{self, Call, DOCUMENT_BYTES_MAX, Service};
use super::lease::{Granted, LIFETIME};
use super::ssdp::{self, Location};
use super::{Port, Protocol, Why};
use crate::clock::now;
use crate::http::client::{Client, RedirectPolicy, Timeouts};
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

/// Outside ports that are tried where others have the one that we want.
const PORTS_TRIED_MAX: usize = 4;

/// A router that speaks UPnP.
pub(super) struct Upnp {
    router: Ipv4Addr,
    service: Service,
    client: Client,
}

impl Upnp {
    /// Asks whether the router speaks it, and which of its services has an outside address.
    ///
    /// # Suspends
    /// For the search and some calls.
    pub(super) fn find(gateway: &Gateway, own: Ipv4Addr) -> Result<Upnp, Why> {
        let at = search(gateway, own).ok_or(Why::Silent)?;
        let redirects = RedirectPolicy { limit: 0, ..RedirectPolicy::default() };
        let client = Client::builder().timeouts(TIMEOUTS).redirects(redirects).gzip(false).build();
        let router = gateway.address;
        let description = client.get(&url(router, &at)).send().ok();
        let description = description.and_then(|response| response.error_for_status().ok());
        let description =
            description.and_then(|response| response.text(DOCUMENT_BYTES_MAX).ok()).ok_or(Why::Silent)?;
        let mut why = Why::Silent;
        for service in igd::services(&description, &at, router) {
            let upnp = Upnp { router, service, client: client.clone() };
            match upnp.usable_address() {
                Ok(_) => return Ok(upnp),
                Err(other) => why = why.or(other),
            }
        }
        Err(why)
    }

    fn usable_address(&self) -> Result<Ipv4Addr, Why> {
        let answer = self.call(&Call::ExternalAddress)?;
        super::usable(Protocol::Upnp, igd::external_address(&answer).unwrap_or(Ipv4Addr::UNSPECIFIED))
    }

    /// Maps a port, to the outside port `suggested` if nobody else has it.
    ///
    /// # Suspends
    /// For some calls.
    pub(super) fn map(&self, own: Ipv4Addr, port: Port, suggested: u16) -> Result<Granted, Why> {
        let address = self.usable_address()?;
        let mut external = suggested;
        let mut lifetime = Some(LIFETIME);
        for _ in 0..PORTS_TRIED_MAX {
            let lifetime_s = lifetime.map_or(0, |lifetime| lifetime.as_secs() as u32);
            match self.call(&Call::Add { port, own, external, lifetime_s }) {
                Ok(_) => {
                    let external = std::net::SocketAddrV4::new(address, external);
                    return Ok(Granted { protocol: Protocol::Upnp, external, lifetime });
                }
                Err(Why::Refused { code: igd::ONLY_PERMANENT, .. }) if lifetime.is_some() => lifetime = None,
                Err(Why::Refused { code: igd::CONFLICT, .. }) => {
                    external = 1_024 + random::below(u64::from(u16::MAX) - 1_024) as u16;
                }
                Err(why) => return Err(why),
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
        self.is_ours(own, port, granted)
    }

    /// Whether what is mapped to that outside port is ours; `None` if the router does not answer.
    fn is_ours(&self, own: Ipv4Addr, port: Port, granted: &Granted) -> Option<bool> {
        match self.call(&Call::Entry { transport: port.transport, external: granted.external.port() }) {
            Ok(answer) => Some(igd::entry(&answer) == Some((own, port.number))),
            Err(Why::Refused { code: igd::NO_SUCH_ENTRY, .. }) => Some(false),
            // Some do not tell at all.
            Err(Why::Refused { .. }) => Some(true),
            Err(_) => None,
        }
    }

    /// Gives a mapping up, if it is ours still, whatever the router's outside address is by now.
    ///
    /// # Suspends
    /// For two calls.
    pub(super) fn unmap(&self, own: Ipv4Addr, port: Port, granted: &Granted) {
        if self.is_ours(own, port, granted) == Some(true) {
            let (transport, external) = (port.transport, granted.external.port());
            let _ = self.call(&Call::Delete { transport, external });
        }
    }

    fn call(&self, call: &Call) -> Result<String, Why> {
        let request = self.client.post(&url(self.router, &self.service.control));
        let request = request.header("Content-Type", "text/xml; charset=\"utf-8\"");
        let body = call.body(&self.service);
        let response = request.header("SOAPAction", call.action(&self.service)).body(body.as_bytes()).send();
        let response = response.map_err(|_| Why::Silent)?;
        let status = response.status().as_u16();
        let text = response.text(DOCUMENT_BYTES_MAX).map_err(|_| Why::Silent)?;
        match status {
            200 => Ok(text),
            _ => {
                Err(Why::Refused { protocol: Protocol::Upnp, code: igd::error_code(&text).unwrap_or(status) })
            }
        }
    }
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
