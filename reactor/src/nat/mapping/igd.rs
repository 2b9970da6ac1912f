//! What is said to a router by UPnP, and what it answers: which service maps ports, and the calls of it
//! (UPnP WANIPConnection:1 and :2). Pure.
//!
//! Everything that is put into a call is a number or an address of ours, so there is nothing to be escaped.

use std::net::Ipv4Addr;

use super::ssdp::Location;
use super::xml::{Token, Tokens, text_in, unescape};
use super::{Port, Transport};

/// The longest description or answer that is read: those of routers have some 5 KB.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// Services that are looked at of one router.
const SERVICES_MAX: usize = 4;

/// What mappings are called in the router's own pages.
const DESCRIPTION: &str = "hypha";

/// A service that maps ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    kind: &'static str,
    /// Where it is called.
    pub control: Location,
}

/// The kinds of services that map ports; any router has one of them.
const KINDS: [&str; 3] = [
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];

/// The services in a description that map ports, the best first. `at` is where the description was.
#[must_use]
pub fn services(description: &str, at: &Location, router: Ipv4Addr) -> Vec<Service> {
    let mut found: Vec<(usize, Service)> = Vec::new();
    let (mut element, mut kind, mut control) = ("", None, None);
    for token in Tokens::of(description) {
        match token {
            Token::Open("service") => (element, kind, control) = ("", None, None),
            Token::Open(name) => element = name,
            Token::Text(text) if element == "serviceType" => {
                kind = KINDS.iter().position(|kind| *kind == text)
            }
            Token::Text(text) if element == "controlURL" => control = at.join(&unescape(text), router),
            Token::Text(_) => {}
            Token::Close("service") => {
                if let (Some(rank), Some(control), true) =
                    (kind.take(), control.take(), found.len() < SERVICES_MAX)
                {
                    found.push((rank, Service { kind: KINDS[rank], control }));
                }
            }
            Token::Close(_) => element = "",
        }
    }
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, service)| service).collect()
}

/// A call of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// What is the router's outside address?
    ExternalAddress,
    /// A port is to be mapped.
    Add {
        /// Ours.
        port: Port,
        /// Our address.
        own: Ipv4Addr,
        /// The outside port.
        external: u16,
        /// For how long; 0 for until it is deleted.
        lifetime_s: u32,
        /// Ours.
        mark: Mark,
    },
    /// What is mapped to that outside port?
    Entry {
        /// By which transport.
        transport: Transport,
        /// The outside port.
        external: u16,
    },
    /// What is mapped to it is to be mapped no more.
    Delete {
        /// By which transport.
        transport: Transport,
        /// The outside port.
        external: u16,
    },
}

impl Call {
    fn name(&self) -> &'static str {
        match self {
            Call::ExternalAddress => "GetExternalIPAddress",
            Call::Add { .. } => "AddPortMapping",
            Call::Entry { .. } => "GetSpecificPortMappingEntry",
            Call::Delete { .. } => "DeletePortMapping",
        }
    }

    /// The value of the header `SOAPAction`.
    #[must_use]
    pub fn action(&self, service: &Service) -> String {
        format!("\"{}#{}\"", service.kind, self.name())
    }

    /// The body of the request.
    #[must_use]
    pub fn body(&self, service: &Service) -> String {
        let outside = |external: u16, transport: Transport| {
            format!(
                "<NewRemoteHost></NewRemoteHost><NewExternalPort>{external}</NewExternalPort><NewProtocol>{}</NewProtocol>",
                transport.name()
            )
        };
        let arguments = match *self {
            Call::ExternalAddress => String::new(),
            Call::Add { port, own, external, lifetime_s, mark } => format!(
                "{}<NewInternalPort>{}</NewInternalPort><NewInternalClient>{own}</NewInternalClient><NewEnabled>1</NewEnabled>\
                 <NewPortMappingDescription>{DESCRIPTION} {:08x}</NewPortMappingDescription>\
                 <NewLeaseDuration>{lifetime_s}</NewLeaseDuration>",
                outside(external, port.transport),
                port.number,
                mark.0,
            ),
            Call::Entry { transport, external } | Call::Delete { transport, external } => {
                outside(external, transport)
            }
        };
        let (name, kind) = (self.name(), service.kind);
        format!(
            "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:{name} xmlns:u=\"{kind}\">{arguments}\
             </u:{name}></s:Body></s:Envelope>"
        )
    }
}

/// The router's outside address in an answer.
#[must_use]
pub fn external_address(answer: &str) -> Option<Ipv4Addr> {
    text_in(answer, "NewExternalIPAddress")?.parse().ok()
}

/// Tells a node's mappings from those of others, in their description: some routers give machines by names, and a machine's
/// address changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(pub u32);

/// To whom an outside port is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its machine; `None` where that is given by a name.
    pub client: Option<Ipv4Addr>,
    /// Its port there.
    pub port: u16,
    /// How many seconds are left of it, 0 for until it is deleted; `None` where that is not said.
    pub lifetime_s: Option<u32>,
    /// Which node's it is; `None` where that is not said, or it is none of ours.
    pub mark: Option<Mark>,
}

/// Whose an entry is, as far as is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// It leads to us.
    Ours,
    /// It is ours, and leads to where we were.
    Moved,
    /// Another machine's.
    Others,
    /// Of a machine that has a name, and a port of the same number: it may be ours or another's.
    NotTold,
}

impl Entry {
    /// Whose it is, seen from a node with that address, port and mark.
    #[must_use]
    pub fn whose(&self, own: Ipv4Addr, port: u16, mark: Mark) -> Whose {
        let is_marked = self.mark == Some(mark);
        match self.client {
            _ if self.port != port => Whose::Others,
            Some(client) if client == own => Whose::Ours,
            Some(_) if is_marked => Whose::Moved,
            None if is_marked => Whose::Ours,
            None if self.mark.is_none() => Whose::NotTold,
            _ => Whose::Others,
        }
    }
}

/// What an answer to [`Call::Entry`] says; `None` if that is nothing.
#[must_use]
pub fn entry(answer: &str) -> Option<Entry> {
    let number =
        |name: &str| -> Option<u32> { text_in(answer, name).and_then(|text| text.trim().parse().ok()) };
    let port = u16::try_from(number("NewInternalPort")?).ok()?;
    let client = text_in(answer, "NewInternalClient").and_then(|client| client.trim().parse().ok());
    let mark = text_in(answer, "NewPortMappingDescription").and_then(|description| {
        let mark = description.trim().strip_prefix(DESCRIPTION)?.strip_prefix(' ')?;
        u32::from_str_radix(mark, 16).ok().map(Mark)
    });
    Some(Entry { client, port, lifetime_s: number("NewLeaseDuration"), mark })
}

/// Why a call was refused, by UPnP's codes; `None` if that is not said.
#[must_use]
pub fn error_code(answer: &str) -> Option<u16> {
    text_in(answer, "errorCode")?.parse().ok()
}

/// Another machine has that outside port.
pub const CONFLICT: u16 = 718;
/// There is no such mapping.
pub const NO_SUCH_ENTRY: u16 = 714;
/// Mappings are for ever, or not at all.
pub const ONLY_PERMANENT: u16 = 725;

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn service(kind: &str, control: &str) -> String {
        format!(
            "<service><serviceType>{kind}</serviceType><serviceId>x</serviceId><SCPDURL>/s.xml</SCPDURL>\
             <controlURL>{control}</controlURL></service>"
        )
    }

    fn at() -> Location {
        Location { port: 5000, path: "/root.xml".into() }
    }

    #[test]
    fn the_service_that_maps_ports_is_found_wherever_it_stands_and_at_the_router_only() {
        let description = [
            "<root><device><serviceList>",
            &service("urn:schemas-upnp-org:service:Layer3Forwarding:1", "/l3"),
            "</serviceList><deviceList><device><serviceList>",
            &service(KINDS[2], "/ppp"),
            &service(KINDS[1], "/ctl?a=1&amp;b=2"),
            &service(KINDS[0], "http://10.0.0.1/elsewhere"),
            "</serviceList></device></deviceList></device></root>",
        ]
        .concat();
        let found = services(&description, &at(), ROUTER);
        let paths: Vec<&str> = found.iter().map(|service| service.control.path.as_str()).collect();
        assert_eq!(paths, ["/ctl?a=1&b=2", "/ppp"]);
        let many = service(KINDS[1], "/x").repeat(1_000);
        assert_eq!(services(&many, &at(), ROUTER).len(), SERVICES_MAX);
        assert_eq!(services("<service><controlURL>/x</controlURL>", &at(), ROUTER), []);
    }

    #[test]
    fn a_call_names_its_service_and_what_is_to_be_mapped() {
        let service = &services(&service(KINDS[1], "/x"), &at(), ROUTER)[0];
        let port = Port { transport: Transport::Tcp, number: 4701 };
        let (own, mark) = (Ipv4Addr::new(192, 168, 1, 11), Mark(0xa1));
        let call = Call::Add { port, own, external: 4702, lifetime_s: 3_600, mark };
        assert_eq!(call.action(service), format!("\"{}#AddPortMapping\"", KINDS[1]));
        let body = call.body(service);
        for (name, value) in [
            ("NewExternalPort", "4702"),
            ("NewProtocol", "TCP"),
            ("NewInternalPort", "4701"),
            ("NewInternalClient", "192.168.1.11"),
            ("NewLeaseDuration", "3600"),
        ] {
            assert_eq!(text_in(&body, name), Some(value));
        }
        // Routers say of an entry what they were told.
        assert_eq!(entry(&body).unwrap().mark, Some(mark));
    }

    #[test]
    fn answers_are_read() {
        let address = "<s:Body><u:R><NewExternalIPAddress>11.0.1.2</NewExternalIPAddress></u:R></s:Body>";
        assert_eq!(external_address(address), Some(Ipv4Addr::new(11, 0, 1, 2)));
        assert_eq!(external_address("<NewExternalIPAddress></NewExternalIPAddress>"), None);
        let mapped =
            "<NewInternalPort>7</NewInternalPort><NewInternalClient>192.168.1.11</NewInternalClient>";
        let own = Ipv4Addr::new(192, 168, 1, 11);
        assert_eq!(entry(mapped), Some(Entry { client: Some(own), port: 7, lifetime_s: None, mark: None }));
        let by_name = "<NewInternalPort>7</NewInternalPort><NewInternalClient>desk.home</NewInternalClient>\
            <NewLeaseDuration>0</NewLeaseDuration>";
        assert_eq!(entry(by_name), Some(Entry { client: None, port: 7, lifetime_s: Some(0), mark: None }));
        assert_eq!(entry("<NewInternalPort>70000</NewInternalPort>"), None);
        assert_eq!(
            error_code("<detail><UPnPError><errorCode>718</errorCode></UPnPError></detail>"),
            Some(CONFLICT)
        );
        assert_eq!(error_code("<errorCode>many</errorCode>"), None);
    }

    #[test]
    fn an_entry_is_ours_by_our_address_or_our_mark_and_never_by_its_ports_number_alone() {
        let (own, other) = (Ipv4Addr::new(192, 168, 1, 11), Ipv4Addr::new(192, 168, 1, 12));
        let (ours, theirs) = (Some(Mark(1)), Some(Mark(2)));
        for (client, port, mark, whose) in [
            (Some(own), 7, None, Whose::Ours),
            // Left behind by another node that ran here: nobody else can have the port now.
            (Some(own), 7, theirs, Whose::Ours),
            (Some(other), 7, ours, Whose::Moved),
            (Some(other), 7, None, Whose::Others),
            (Some(own), 8, ours, Whose::Others),
            (None, 7, ours, Whose::Ours),
            (None, 7, theirs, Whose::Others),
            (None, 7, None, Whose::NotTold),
        ] {
            let entry = Entry { client, port, lifetime_s: None, mark };
            assert_eq!(entry.whose(own, 7, Mark(1)), whose, "{entry:?}");
        }
    }
}
