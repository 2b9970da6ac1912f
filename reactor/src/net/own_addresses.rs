//! The addresses of this machine, as the kernel tells them by netlink: of all its interfaces, each with what is known of it.
//!
//! The kernel is asked for a list (`RTM_GETADDR`), which comes in some datagrams, each of some messages, each of some
//! attributes (Linux's `netlink.h`, `rtnetlink.h`, `if_addr.h`). It answers at once, so that nobody waits.
//!
//! What it is not: a choice among them (who tells peers where he is makes his own, `nat/peers/machine.rs`), nor news of
//! changes, which `route_changes.rs` hears of.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, bind, connect, getsockname,
    ipproto, recvfrom, send, socket_with,
};

use super::socket_options::new_socket;
use crate::{random, sim};

/// Addresses that are looked at: a machine with hundreds of containers has no more, and those of its own come first.
pub const OWN_ADDRESSES_MAX: usize = 256;

/// Bytes of one datagram of the kernel's: it fills no more at once.
const DATAGRAM_BYTES: usize = 32 << 10;

/// How often it is asked, where the addresses change as it tells them: each answer takes less than a millisecond.
const TRIES: usize = 8;

/// Datagrams of one answer: an address takes some 80 bytes, so that these hold far more than are looked at.
const DATAGRAMS_MAX: usize = 64;

const HEADER_BYTES: usize = 16;
/// `NLMSG_ERROR`, `NLMSG_DONE`, `RTM_NEWADDR` and `RTM_GETADDR`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const ASKS_FOR_ALL: u16 = 0x1 | 0x300;
/// `NLM_F_DUMP_INTR`: there was a change amid the list, which may lack what was there all the while.
const INTERRUPTED: u16 = 0x10;

/// `ifaddrmsg`, before the attributes.
const ABOUT_BYTES: usize = 8;
/// `IFA_ADDRESS`, `IFA_LOCAL` and `IFA_FLAGS`.
const ADDRESS: u16 = 1;
const LOCAL: u16 = 2;
const FLAGS: u16 = 8;

/// `IFA_F_SECONDARY` of an address of IPv4, `IFA_F_TEMPORARY` of one of IPv6.
const SECOND: u32 = 0x01;
const OPTIMISTIC: u32 = 0x04;
const FAILED: u32 = 0x08;
const DEPRECATED: u32 = 0x20;
const TENTATIVE: u32 = 0x40;

/// `RT_SCOPE_LINK`: from there on an address means something on one link, or in this machine, only.
const SCOPE_LINK: u8 = 253;

/// An address of one of this machine's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address.
    pub ip: IpAddr,
    /// The number that the kernel has for its interface.
    pub interface: u32,
    /// How many bits of it are its network's.
    pub prefix_bits: u8,
    /// `IFA_F_*`.
    pub(crate) flags: u32,
    /// `RT_SCOPE_*`.
    pub(crate) scope: u8,
}

impl OwnAddress {
    /// Whether packets can be sent from it to another machine, and answered by the same address: it means something beyond one
    /// link, nobody else was found to have it, and it is not about to go.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let is_special = match self.ip {
            IpAddr::V4(ip) => {
                ip.is_unspecified()
                    || ip.is_loopback()
                    || ip.is_link_local()
                    || ip.is_multicast()
                    || ip.is_broadcast()
            }
            IpAddr::V6(ip) => {
                // Site-local ones are no more (RFC 3879), and what stands for IPv4 is no address of an interface.
                let is_site_local = ip.segments()[0] & 0xffc0 == 0xfec0;
                ip.is_unspecified()
                    || ip.is_loopback()
                    || ip.is_unicast_link_local()
                    || ip.is_multicast()
                    || is_site_local
                    || ip.to_ipv4_mapped().is_some()
            }
        };
        let is_doubtful = self.flags & TENTATIVE != 0 && self.flags & OPTIMISTIC == 0;
        !is_special && !is_doubtful && self.scope < SCOPE_LINK && self.flags & (FAILED | DEPRECATED) == 0
    }

    /// Whether it was made for some hours or days, so that nobody follows this machine by it (RFC 8981).
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.ip.is_ipv6() && self.flags & SECOND != 0
    }

    /// Whether it is in the network of another address of the same interface, from which packets leave.
    #[must_use]
    pub fn is_secondary(&self) -> bool {
        self.ip.is_ipv4() && self.flags & SECOND != 0
    }
}

/// What follows a datagram of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Another one.
    More,
    /// Nothing: that was the last.
    All,
    /// Nothing of use: something has changed meanwhile, and it has to be asked again.
    Interrupted,
    /// Nothing, since the kernel can't say, or what it said is no list.
    Failed,
}

/// The addresses of this machine, of both families; [`OWN_ADDRESSES_MAX`] at most.
///
/// # Errors
/// `Unsupported` in a simulation, whose machines have one each; where the kernel tells nothing.
///
/// # Suspends
/// Never.
pub fn own_addresses() -> io::Result<Vec<OwnAddress>> {
    if sim::here().is_some() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    for _ in 0..TRIES {
        if let Some(found) = ask_once()? {
            return Ok(found);
        }
    }
    Err(io::Error::other("this machine's addresses change faster than the kernel tells them"))
}

/// Asks the kernel; nothing where its answer was interrupted.
fn ask_once() -> io::Result<Option<Vec<OwnAddress>>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    // Protocol 0 of the family is that of routes and addresses (`NETLINK_ROUTE`).
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    let sequence = random::number() as u32;
    send(&socket, &request(sequence), SendFlags::empty())?;
    let (mut found, mut buffer) = (Vec::new(), vec![0; DATAGRAM_BYTES]);
    for _ in 0..DATAGRAMS_MAX {
        // It writes the next part as this one is taken.
        let (count, _, sender) = recvfrom(&socket, &mut buffer[..], RecvFlags::empty())?;
        if !is_the_kernel(sender) {
            continue;
        }
        match addresses_told(&buffer[..count], sequence, &mut found) {
            Told::More => {}
            Told::All => return Ok(Some(found)),
            Told::Interrupted => return Ok(None),
            Told::Failed => {
                return Err(io::Error::other("the kernel does not tell this machine's addresses"));
            }
        }
    }
    // More than are looked at.
    Ok(Some(found))
}

/// Whether a datagram is the kernel's: any process may send there, with its own number.
fn is_the_kernel(sender: Option<SocketAddrAny>) -> bool {
    sender.is_some_and(|sender| SocketAddrNetlink::try_from(sender).is_ok_and(|sender| sender.pid() == 0))
}

/// The question for all addresses.
fn request(sequence: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&((HEADER_BYTES + ABOUT_BYTES) as u32).to_ne_bytes());
    bytes.extend_from_slice(&GET_ADDRESS.to_ne_bytes());
    bytes.extend_from_slice(&ASKS_FOR_ALL.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    // To the kernel; and of any family, interface and scope.
    bytes.resize(HEADER_BYTES + ABOUT_BYTES, 0);
    bytes
}

/// Takes what a datagram of the kernel's tells in answer to the question of that number. Pure; what is no address is left out.
pub fn addresses_told(datagram: &[u8], sequence: u32, found: &mut Vec<OwnAddress>) -> Told {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Some((kind, flags, about, body)) = take_message(&mut rest) else { return Told::Failed };
        match kind {
            // Of an earlier question, or nobody's.
            _ if about != sequence => {}
            // Any of its messages may say so, the last one too.
            _ if flags & INTERRUPTED != 0 => return Told::Interrupted,
            DONE => return Told::All,
            ERROR => return Told::Failed,
            NEW_ADDRESS if found.len() < OWN_ADDRESSES_MAX => found.extend(address_in(body)),
            _ => {}
        }
    }
    Told::More
}

/// The next message of a datagram: its kind, its flags, the number of the question, and what it says.
fn take_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, u16, u32, &'a [u8])> {
    let length = usize::try_from(number(rest, 0)?).ok()?;
    let (kind, flags, sequence) = (short(rest, 4)?, short(rest, 6)?, number(rest, 8)?);
    let body = rest.get(HEADER_BYTES..length)?;
    *rest = rest.get(aligned(length)..).unwrap_or_default();
    Some((kind, flags, sequence, body))
}

fn address_in(body: &[u8]) -> Option<OwnAddress> {
    let &[family, prefix_bits, flags, scope, ..] = body else { return None };
    let (interface, mut flags) = (number(body, 4)?, u32::from(flags));
    let (mut address, mut local) = (None, None);
    let mut rest = body.get(ABOUT_BYTES..)?;
    while !rest.is_empty() {
        let length = usize::from(short(rest, 0)?);
        let (kind, value) = (short(rest, 2)?, rest.get(4..length)?);
        match kind {
            ADDRESS => address = ip_of(family, value),
            // Between two points, the other one's is the address.
            LOCAL => local = ip_of(family, value),
            // There are more of them than fit before.
            FLAGS => flags = number(value, 0)?,
            _ => {}
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Some(OwnAddress { ip: local.or(address)?, interface, prefix_bits, flags, scope })
}

fn ip_of(family: u8, value: &[u8]) -> Option<IpAddr> {
    match u16::from(family) {
        family if family == AddressFamily::INET.as_raw() => {
            Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into())
        }
        family if family == AddressFamily::INET6.as_raw() => {
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into())
        }
        _ => None,
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Messages and attributes begin at multiples of four bytes.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The address of this machine from which packets for there would leave now; sends nothing, and never suspends.
///
/// # Errors
/// Where there is no way there.
pub fn source_towards(there: SocketAddr) -> io::Result<IpAddr> {
    if sim::here().is_some() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let socket = new_socket(there, SocketType::DGRAM, ipproto::UDP)?;
    connect(&socket, &there)?;
    Ok(SocketAddr::try_from(getsockname(&socket)?)?.ip())
}

/// What to bind a socket to that is to have all addresses of this machine, at that port: of both families where there is IPv6 at
/// all. [`Endpoint`](crate::net::quic::Endpoint) and [`super::BindOptions::only_v6`] see to the rest. Never suspends.
#[must_use]
pub fn all_addresses(port: u16) -> SocketAddr {
    let has_v6 = || {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let socket = new_socket(any, SocketType::DGRAM, ipproto::UDP).ok()?;
        bind(&socket, &any).ok()
    };
    match sim::here().is_none() && has_v6().is_some() {
        true => (Ipv6Addr::UNSPECIFIED, port).into(),
        false => (Ipv4Addr::UNSPECIFIED, port).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel writes it.
    fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&2_u16.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&7_u32.to_ne_bytes());
        bytes.extend_from_slice(body);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn about(ip: &str, flags: u32, scope: u8) -> Vec<u8> {
        let ip: IpAddr = ip.parse().unwrap();
        let (family, value) = match ip {
            IpAddr::V4(ip) => (2, ip.octets().to_vec()),
            IpAddr::V6(ip) => (10, ip.octets().to_vec()),
        };
        let mut body = vec![family, 24, flags as u8, scope];
        body.extend_from_slice(&3_u32.to_ne_bytes());
        body.extend(attribute(ADDRESS, &value));
        // A name, of a length that is no multiple of four.
        body.extend(attribute(3, b"eth0\0"));
        body.extend(attribute(FLAGS, &flags.to_ne_bytes()));
        body
    }

    fn told(datagram: &[u8]) -> (Told, Vec<OwnAddress>) {
        let mut found = Vec::new();
        (addresses_told(datagram, 9, &mut found), found)
    }

    #[test]
    fn each_address_of_a_list_is_found_with_what_is_known_of_it() {
        // At the end of a line to somebody, where the address is his.
        let mut point_to_point = about("10.9.0.1", 0x80, 0);
        point_to_point.extend(attribute(LOCAL, &[10, 9, 0, 2]));
        let list = [
            message(NEW_ADDRESS, 9, &about("192.168.1.2", 0x80, 0)),
            message(NEW_ADDRESS, 9, &point_to_point),
            message(NEW_ADDRESS, 9, &about("2a00::7", 0x301, 0)),
            message(NEW_ADDRESS, 8, &about("192.168.1.3", 0x80, 0)),
            message(77, 9, b"what nobody knows"),
        ]
        .concat();
        let (then, found) = told(&list);
        let ips: Vec<String> = found.iter().map(|own| own.ip.to_string()).collect();
        assert_eq!(
            (then, &ips[..]),
            (Told::More, &["192.168.1.2", "10.9.0.2", "2a00::7"].map(str::to_owned)[..])
        );
        assert!(found.iter().all(|own| own.is_usable() && own.interface == 3 && own.prefix_bits == 24));
        assert!(found[2].is_temporary() && !found[2].is_secondary());
        assert_eq!(told(&message(DONE, 9, &[0; 4])), (Told::All, vec![]));
        assert_eq!(told(&message(ERROR, 9, &[0; 20])), (Told::Failed, vec![]));
        assert_eq!(told(&[]), (Told::More, vec![]));
    }

    #[test]
    fn of_a_list_amid_which_something_changed_nothing_is_believed() {
        let changed = |mut message: Vec<u8>| {
            message[6] |= INTERRUPTED as u8;
            message
        };
        let address = || message(NEW_ADDRESS, 9, &about("192.168.1.2", 0x80, 0));
        let end = || message(DONE, 9, &[0; 4]);
        assert_eq!(told(&[address(), end()].concat()).0, Told::All);
        assert_eq!(told(&[changed(address()), end()].concat()).0, Told::Interrupted);
        assert_eq!(told(&[address(), changed(end())].concat()).0, Told::Interrupted);
        // Of another question's list that says nothing.
        let other = changed(message(NEW_ADDRESS, 8, &about("192.168.1.3", 0x80, 0)));
        assert_eq!(told(&[other, end()].concat()).0, Told::All);
    }

    #[test]
    fn only_the_kernel_is_asked_and_no_process_that_passes_for_it() {
        let from = |number| is_the_kernel(Some(SocketAddrNetlink::new(number, 0).into()));
        assert!(from(0));
        assert!(!from(4_711) && !is_the_kernel(None));
        assert!(!is_the_kernel(Some(SocketAddr::from(([127, 0, 0, 1], 0)).into())));
    }

    #[test]
    fn an_address_that_leads_nowhere_or_is_about_to_go_is_not_usable() {
        let is_usable = |ip: &str, flags, scope| {
            let (_, found) = told(&message(NEW_ADDRESS, 9, &about(ip, flags, scope)));
            found[0].is_usable()
        };
        for ip in ["192.168.1.2", "100.64.0.7", "11.0.0.1", "fd00::1", "2a00::1"] {
            assert!(is_usable(ip, 0x80, 0), "{ip}");
            for flags in [TENTATIVE, FAILED, DEPRECATED, DEPRECATED | 0x80, TENTATIVE | FAILED | OPTIMISTIC] {
                assert!(!is_usable(ip, flags, 0), "{ip} {flags}");
            }
            assert!(is_usable(ip, TENTATIVE | OPTIMISTIC, 0));
            assert!(!is_usable(ip, 0, 253) && !is_usable(ip, 0, 254));
        }
        for ip in
            ["127.0.0.2", "169.254.3.4", "0.0.0.0", "::1", "fe80::1", "fec0::1", "::ffff:10.0.0.1", "ff02::1"]
        {
            assert!(!is_usable(ip, 0x80, 0), "{ip}");
        }
    }

    #[test]
    fn of_what_is_no_list_nothing_is_read_and_of_a_long_one_not_all() {
        let whole = message(NEW_ADDRESS, 9, &about("192.168.1.2", 0x80, 0));
        for length in 1..whole.len() {
            let (then, found) = told(&whole[..length]);
            assert!(then == Told::Failed && found.is_empty(), "{length}");
        }
        // Lengths that lead nowhere: of a message, and of an attribute.
        for length in [0_u32, 15, 1 << 31, u32::MAX] {
            assert_eq!(told(&[&length.to_ne_bytes()[..], &whole[4..]].concat()).0, Told::Failed);
        }
        let mut endless = whole.clone();
        endless[HEADER_BYTES + ABOUT_BYTES..][..2].copy_from_slice(&[0, 0]);
        assert_eq!(told(&endless), (Told::More, vec![]));
        assert_eq!(told(&whole.repeat(2 * OWN_ADDRESSES_MAX)).1.len(), OWN_ADDRESSES_MAX);
    }

    #[test]
    fn the_kernel_tells_the_addresses_of_this_very_machine() {
        let Ok(all) = own_addresses() else { return eprintln!("SKIPPED: netlink tells no addresses here") };
        let is_loopback = |own: &OwnAddress| own.ip.is_loopback() && !own.is_usable();
        assert!(all.iter().any(is_loopback), "{all:?}");
    }
}
