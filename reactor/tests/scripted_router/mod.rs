//! A router that does as it is told: PCP, NAT-PMP or UPnP, written from the standards by hand, so that what it takes and says is
//! no echo of the code that is tried.

#![allow(dead_code, reason = "each story uses its part")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::cell::RefCell;
use reactor::nat::mapping::{Gateway, Port, Transport};
use reactor::net::{TcpListener, TcpStream, UdpSocket};
use reactor::{now, sleep, spawn};

/// What it says is its outside address.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(11, 0, 1, 2);
/// Somebody else's.
pub(crate) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(11, 0, 9, 9);

const CONTROL: u16 = 5_351;
const SSDP: u16 = 1_900;
const HTTP: u16 = 5_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Nothing,
    Pcp,
    NatPmp,
    Upnp,
}

#[derive(Clone)]
pub(crate) struct Router(Rc<Inner>);

/// Until when it is mapped (for ever, if `None`), and the nonce of who asked.
type Mapping = (Option<Instant>, [u8; 12]);

struct Inner {
    own: Ipv4Addr,
    host: Ipv4Addr,
    speaks: Cell<Speaks>,
    outside: Cell<Ipv4Addr>,
    lifetime_s: Cell<u32>,
    begun: Cell<Instant>,
    has_wild_clock: Cell<bool>,
    flood: Cell<usize>,
    /// By the port inside and the one outside, of which UPnP may have several for one inside.
    mapped: RefCell<BTreeMap<(Port, u16), Mapping>>,
    /// What the mappings of UPnP were called, by the port outside.
    descriptions: RefCell<BTreeMap<u16, String>>,
    /// The port outside that another machine has.
    others: Cell<Option<u16>>,
    /// What it says of a machine in place of its address.
    names: Cell<Option<&'static str>>,
    refuses_renewals: Cell<bool>,
    has_leases: Cell<bool>,
    ignores_announce: Cell<bool>,
    grants_no_port: Cell<bool>,
    /// How long its answers by UPnP take.
    delay: Cell<Duration>,
    /// What its answers by UPnP have beside what was asked for.
    noise: Cell<&'static [u8]>,
    asked_count: Cell<usize>,
    map_count: Cell<usize>,
}

impl Router {
    pub(crate) fn new(own: IpAddr, host: IpAddr, speaks: Speaks) -> Router {
        let v4 = |ip| match ip {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => panic!("it is of version 4"),
        };
        Router(Rc::new(Inner {
            own: v4(own),
            host: v4(host),
            speaks: Cell::new(speaks),
            outside: Cell::new(OUTSIDE),
            lifetime_s: Cell::new(7_200),
            begun: Cell::new(now() - Duration::from_secs(1)),
            has_wild_clock: Cell::new(false),
            flood: Cell::new(0),
            mapped: RefCell::default(),
            descriptions: RefCell::default(),
            others: Cell::default(),
            names: Cell::default(),
            refuses_renewals: Cell::default(),
            has_leases: Cell::default(),
            ignores_announce: Cell::default(),
            grants_no_port: Cell::default(),
            delay: Cell::default(),
            noise: Cell::new(b""),
            asked_count: Cell::new(0),
            map_count: Cell::new(0),
        }))
    }

    pub(crate) fn gateway(&self) -> Gateway {
        Gateway { address: self.0.own, control_port: CONTROL, ssdp: SocketAddrV4::new(self.0.own, SSDP) }
    }

    pub(crate) fn speak(&self, speaks: Speaks) {
        self.0.speaks.set(speaks);
    }

    pub(crate) fn set_outside(&self, outside: Ipv4Addr) {
        self.0.outside.set(outside);
    }

    pub(crate) fn set_lifetime(&self, seconds: u32) {
        self.0.lifetime_s.set(seconds);
    }

    /// Somebody sends so many packets in its name before each answer.
    pub(crate) fn set_flood(&self, count: usize) {
        self.0.flood.set(count);
    }

    /// Its clock goes back with every answer.
    pub(crate) fn set_wild_clock(&self) {
        self.0.has_wild_clock.set(true);
    }

    /// Another machine has that port outside, by UPnP, and this router gives it to whoever asks last.
    pub(crate) fn set_others(&self, external: u16) {
        self.0.others.set(Some(external));
    }

    /// By UPnP it calls every machine so, and says that the port inside is the one that our machine has too.
    pub(crate) fn name_machines(&self, name: &'static str) {
        self.0.names.set(Some(name));
    }

    /// Whether another machine still has it.
    pub(crate) fn others(&self) -> Option<u16> {
        self.0.others.get()
    }

    /// By UPnP it says that a port is taken, also to who has it.
    pub(crate) fn refuse_renewals(&self) {
        self.0.refuses_renewals.set(true);
    }

    /// By UPnP it maps for as long as it is asked for.
    pub(crate) fn have_leases(&self) {
        self.0.has_leases.set(true);
    }

    /// By PCP it does not say whether it is the one that it was.
    pub(crate) fn ignore_announce(&self) {
        self.0.ignores_announce.set(true);
    }

    /// By PCP and NAT-PMP it grants port 0.
    pub(crate) fn grant_no_port(&self) {
        self.0.grants_no_port.set(true);
    }

    /// So long it takes for each answer by UPnP.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.0.delay.set(delay);
    }

    /// So begins each of its answers by UPnP.
    pub(crate) fn set_noise(&self, noise: &'static [u8]) {
        self.0.noise.set(noise);
    }

    /// It is switched off and on.
    pub(crate) fn begin_anew(&self) {
        self.0.mapped.borrow_mut().clear();
        self.0.begun.set(now());
    }

    /// What it maps now, by the order of ports.
    pub(crate) fn mapped(&self) -> Vec<(Port, u16)> {
        let mapped = self.0.mapped.borrow();
        let holds = mapped.iter().filter(|(_, (until, _))| until.is_none_or(|until| now() < until));
        holds.map(|(place, _)| *place).collect()
    }

    pub(crate) fn asked_count(&self) -> usize {
        self.0.asked_count.get()
    }

    /// How often it was asked to map something.
    pub(crate) fn map_count(&self) -> usize {
        self.0.map_count.get()
    }

    /// Answers, until the world ends.
    pub(crate) fn serve(&self) {
        let control = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, CONTROL))).unwrap();
        let ssdp = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, SSDP))).unwrap();
        let http = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, HTTP))).unwrap();
        let (searched, called) = (self.clone(), self.clone());
        spawn(move || searched.serve_searches(&ssdp));
        spawn(move || called.serve_calls(&http));
        let mut buffer = [0; 1_500];
        while let Ok((size, from)) = control.recv_from(&mut buffer) {
            self.0.asked_count.set(self.asked_count() + 1);
            let asked = &buffer[..size];
            let answer = match (self.0.speaks.get(), asked[0]) {
                (Speaks::Pcp, 2) => self.answer_pcp(asked),
                (Speaks::NatPmp, 0) => self.answer_nat_pmp(asked),
                // "Unsupported version" (RFC 6886, section 3.5).
                (Speaks::NatPmp, _) => Some([&[0, 128, 0, 1][..], &self.epoch().to_be_bytes()].concat()),
                _ => None,
            };
            let Some(answer) = answer else { continue };
            for number in 0..self.0.flood.get() {
                control.send_to(&forged(&answer, number), from).unwrap();
            }
            control.send_to(&answer, from).unwrap();
        }
    }

    fn epoch(&self) -> u32 {
        if self.0.has_wild_clock.get() {
            return 1_000_000 - 10 * self.asked_count() as u32;
        }
        (now() - self.0.begun.get()).as_secs() as u32
    }

    /// Maps, renews or forgets; the outside port and the lifetime.
    fn map(&self, port: Port, suggested: u16, lifetime_s: u32, nonce: [u8; 12]) -> (u16, u32) {
        let mut mapped = self.0.mapped.borrow_mut();
        let had = mapped.keys().find(|(had, _)| *had == port).map(|(_, external)| *external);
        if lifetime_s == 0 {
            mapped.retain(|(had, _), _| *had != port);
            return (0, 0);
        }
        self.0.map_count.set(self.map_count() + 1);
        // Another port than ours: nobody may take it for granted.
        let external = had.unwrap_or(suggested.max(1_024) ^ 0x4000);
        if self.0.grants_no_port.get() {
            return (0, lifetime_s);
        }
        let granted = self.0.lifetime_s.get();
        let holds_s = granted.min(lifetime_s);
        mapped.insert((port, external), (Some(now() + Duration::from_secs(holds_s.into())), nonce));
        (external, granted)
    }

    fn answer_pcp(&self, asked: &[u8]) -> Option<Vec<u8>> {
        let word = |at: usize| u32::from_be_bytes(asked[at..at + 4].try_into().unwrap());
        assert_eq!(asked[8..24], self.0.host.to_ipv6_mapped().octets(), "the client's own address");
        let mut answer = asked.to_vec();
        answer[1] |= 0x80;
        answer[2..4].fill(0);
        answer[8..12].copy_from_slice(&self.epoch().to_be_bytes());
        answer[12..24].fill(0);
        match asked[1] {
            0 if self.0.ignores_announce.get() => return None,
            0 => assert_eq!(asked.len(), 24),
            1 => {
                assert_eq!(asked.len(), 60);
                let port = Port { transport: transport(asked[36]), number: short(&asked[40..]) };
                let nonce: [u8; 12] = asked[24..36].try_into().unwrap();
                for (_, (_, had)) in self.0.mapped.borrow().iter().filter(|((had, _), _)| *had == port) {
                    assert_eq!(*had, nonce, "the nonce stays the same");
                }
                let (external, lifetime_s) = self.map(port, short(&asked[42..]), word(4), nonce);
                answer[4..8].copy_from_slice(&lifetime_s.to_be_bytes());
                answer[42..44].copy_from_slice(&external.to_be_bytes());
                answer[44..60].copy_from_slice(&self.0.outside.get().to_ipv6_mapped().octets());
            }
            _ => return None,
        }
        Some(answer)
    }

    fn answer_nat_pmp(&self, asked: &[u8]) -> Option<Vec<u8>> {
        let mut answer = vec![0, asked[1] | 128, 0, 0];
        answer.extend_from_slice(&self.epoch().to_be_bytes());
        match asked[1] {
            0 => answer.extend_from_slice(&self.0.outside.get().octets()),
            1 | 2 => {
                assert_eq!(asked.len(), 12);
                let transport = if asked[1] == 1 { Transport::Udp } else { Transport::Tcp };
                let port = Port { transport, number: short(&asked[4..]) };
                let lifetime_s = u32::from_be_bytes(asked[8..12].try_into().unwrap());
                let (external, lifetime_s) = self.map(port, short(&asked[6..]), lifetime_s, [0; 12]);
                answer.extend_from_slice(&asked[4..6]);
                answer.extend_from_slice(&external.to_be_bytes());
                answer.extend_from_slice(&lifetime_s.to_be_bytes());
            }
            _ => return None,
        }
        Some(answer)
    }

    fn serve_searches(&self, socket: &UdpSocket) {
        let mut buffer = [0; 1_500];
        while let Ok((size, from)) = socket.recv_from(&mut buffer) {
            let asked = String::from_utf8_lossy(&buffer[..size]);
            if self.0.speaks.get() != Speaks::Upnp || !asked.starts_with("M-SEARCH * HTTP/1.1\r\n") {
                continue;
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: x\r\nLOCATION: http://{}:{HTTP}/root.xml\r\n\r\n",
                self.0.own
            );
            socket.send_to(answer.as_bytes(), from).unwrap();
        }
    }

    fn serve_calls(&self, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            let router = self.clone();
            spawn(move || router.serve_call(&stream));
        }
    }

    fn serve_call(&self, mut stream: &TcpStream) {
        let (mut asked, mut byte) = (Vec::new(), [0]);
        while !asked.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => asked.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8(asked).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        if stream.read_exact(&mut body).is_err() || self.0.speaks.get() != Speaks::Upnp {
            return;
        }
        let (status, answer) = match head.starts_with("get /root.xml ") {
            true => (200, DESCRIPTION.to_owned()),
            false => self.answer_call(&head, &String::from_utf8(body).unwrap()),
        };
        let mut response = String::new();
        let noise = self.0.noise.get();
        let length = noise.len() + answer.len();
        write!(response, "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
            .unwrap();
        sleep(self.0.delay.get());
        let _ = stream.write_all(&[response.as_bytes(), noise, answer.as_bytes()].concat());
    }

    fn answer_call(&self, head: &str, body: &str) -> (u16, String) {
        let argument = |name: &str| {
            let (_, after) = body.split_once(&format!("<{name}>"))?;
            Some(after.split_once("</")?.0.to_owned())
        };
        let number = |name: &str| argument(name).and_then(|text| text.parse::<u32>().ok());
        let transport = match argument("NewProtocol").as_deref() {
            Some("TCP") => Transport::Tcp,
            _ => Transport::Udp,
        };
        let external = number("NewExternalPort").map(|port| port as u16);
        let of_external = || {
            let of = |(port, had): &(Port, u16)| port.transport == transport && Some(*had) == external;
            self.mapped().into_iter().find(of).map(|(port, _)| port)
        };
        let refused = |code: u16| (500, format!("<s:Fault><errorCode>{code}</errorCode></s:Fault>"));
        self.0.asked_count.set(self.asked_count() + 1);
        let action = head.lines().find_map(|line| line.strip_prefix("soapaction:")).unwrap_or_default();
        let action = action.trim().trim_matches('"').rsplit('#').next().unwrap().to_owned();
        match action.as_str() {
            "getexternalipaddress" => {
                let outside = self.0.outside.get();
                (200, format!("<R><NewExternalIPAddress>{outside}</NewExternalIPAddress></R>"))
            }
            "addportmapping" => {
                assert_eq!(argument("NewInternalClient"), Some(self.0.host.to_string()));
                let lifetime_s = number("NewLeaseDuration").unwrap();
                let port = Port { transport, number: number("NewInternalPort").unwrap() as u16 };
                // The port of the number that is wished is another's, and this router forgets nothing by itself.
                let is_ours = of_external().is_some();
                if external == Some(port.number) && self.0.others.get().is_none()
                    || is_ours && self.0.refuses_renewals.get()
                {
                    return refused(718);
                }
                let has_leases = self.0.has_leases.get();
                if lifetime_s != 0 && !has_leases {
                    return refused(725);
                }
                if self.0.others.get() == external {
                    self.0.others.set(None);
                }
                self.0.map_count.set(self.map_count() + 1);
                let description = argument("NewPortMappingDescription").unwrap();
                self.0.descriptions.borrow_mut().insert(external.unwrap(), description);
                let until = has_leases.then(|| now() + Duration::from_secs(lifetime_s.into()));
                self.0.mapped.borrow_mut().insert((port, external.unwrap()), (until, [0; 12]));
                (200, "<R/>".to_owned())
            }
            "getspecificportmappingentry" if self.0.others.get() == external => {
                let inside = match self.0.names.get() {
                    Some(name) => (external.unwrap(), name),
                    None => (9, "192.168.77.77"),
                };
                (
                    200,
                    format!(
                        "<R><NewInternalPort>{}</NewInternalPort><NewInternalClient>{}</NewInternalClient></R>",
                        inside.0, inside.1
                    ),
                )
            }
            "getspecificportmappingentry" => match of_external() {
                Some(port) => (
                    200,
                    format!(
                        "<R><NewInternalPort>{}</NewInternalPort><NewInternalClient>{}</NewInternalClient>\
                         <NewPortMappingDescription>{}</NewPortMappingDescription>\
                         <NewLeaseDuration>{}</NewLeaseDuration></R>",
                        port.number,
                        self.0.names.get().map_or(self.0.host.to_string(), str::to_owned),
                        self.0.descriptions.borrow().get(&external.unwrap()).map_or("", String::as_str),
                        if self.0.has_leases.get() { 600 } else { 0 }
                    ),
                ),
                None => refused(714),
            },
            "deleteportmapping" if self.0.others.get() == external => {
                self.0.others.set(None);
                (200, "<R/>".to_owned())
            }
            "deleteportmapping" => match of_external() {
                Some(port) => {
                    self.0.mapped.borrow_mut().remove(&(port, external.unwrap()));
                    (200, "<R/>".to_owned())
                }
                None => refused(714),
            },
            _ => refused(401),
        }
    }
}

/// An answer as somebody would forge it who has not seen the question: another nonce, port, length or version, and an address
/// where he wants others to be sent.
fn forged(answer: &[u8], number: usize) -> Vec<u8> {
    let mut forged = answer.to_vec();
    if forged.len() == 60 {
        forged[44..60].copy_from_slice(&ELSEWHERE.to_ipv6_mapped().octets());
        match number % 4 {
            0 => forged[24] ^= 1,
            1 => forged[41] ^= 1,
            2 => forged.truncate(59),
            _ => forged[0] = 1,
        }
    } else {
        forged.truncate(number % forged.len());
    }
    forged
}

fn transport(number: u8) -> Transport {
    match number {
        6 => Transport::Tcp,
        17 => Transport::Udp,
        other => panic!("transport {other}"),
    }
}

fn short(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

const DESCRIPTION: &str = "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device>\
    <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device><serviceList><service>\
    <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/ctl</controlURL></service>\
    </serviceList></device></deviceList></device></root>";
