//! Where a connection is to go: numeric addresses, or a name and a port.
//!
//! The standard library's `ToSocketAddrs` resolves a name at once, on the calling thread and all families together.
//! Here a name stays a name until [`super::TcpStream::connect`] races its addresses.

use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use smallvec::{SmallVec, smallvec};

/// The longest name that the domain name system can hold, written with dots (RFC 1035, section 3.1).
const NAME_LEN_MAX: usize = 253;

/// Where a connection is to go; made by [`IntoDestination`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// One of these addresses.
    Addresses(SmallVec<[SocketAddr; 1]>),
    /// A name that has to be looked up, and a port.
    Name(Cow<'a, str>, u16),
}

/// What [`super::TcpStream::connect`] takes: `SocketAddr`, `("example.org", 443)`, `"[::1]:80"`, a list of addresses.
///
/// # Examples
///
/// ```
/// use reactor::net::{Destination, IntoDestination};
/// assert!(matches!("[::1]:80".into_destination(), Ok(Destination::Addresses(_))));
/// assert!(matches!(("example.org", 80).into_destination(), Ok(Destination::Name(_, 80))));
/// assert!("example.org".into_destination().is_err(), "the port is missing");
/// ```
pub trait IntoDestination<'a> {
    /// Reads it. Never suspends, never looks a name up.
    ///
    /// # Errors
    /// `InvalidInput` when it is neither an address nor a name with a port.
    fn into_destination(self) -> io::Result<Destination<'a>>;
}

impl<'a> IntoDestination<'a> for Destination<'a> {
    fn into_destination(self) -> io::Result<Destination<'a>> {
        Ok(self)
    }
}

macro_rules! addresses_are_destinations {
    ($($address:ty),*) => {$(
        impl<'a> IntoDestination<'a> for $address {
            fn into_destination(self) -> io::Result<Destination<'a>> {
                Ok(Destination::Addresses(smallvec![SocketAddr::from(self)]))
            }
        }
    )*};
}

addresses_are_destinations!(
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16)
);

impl<'a> IntoDestination<'a> for &SocketAddr {
    fn into_destination(self) -> io::Result<Destination<'a>> {
        (*self).into_destination()
    }
}

impl<'a> IntoDestination<'a> for &[SocketAddr] {
    fn into_destination(self) -> io::Result<Destination<'a>> {
        Ok(Destination::Addresses(self.into()))
    }
}

impl<'a> IntoDestination<'a> for Vec<SocketAddr> {
    fn into_destination(self) -> io::Result<Destination<'a>> {
        Ok(Destination::Addresses(self.into()))
    }
}

impl<'a> IntoDestination<'a> for (&'a str, u16) {
    fn into_destination(self) -> io::Result<Destination<'a>> {
        named(Cow::Borrowed(self.0), self.1)
    }
}

impl<'a> IntoDestination<'a> for (String, u16) {
    fn into_destination(self) -> io::Result<Destination<'a>> {
        named(Cow::Owned(self.0), self.1)
    }
}

impl<'a> IntoDestination<'a> for &'a str {
    fn into_destination(self) -> io::Result<Destination<'a>> {
        let (host, port) = split(self)?;
        named(Cow::Borrowed(host), port)
    }
}

impl<'a> IntoDestination<'a> for &'a String {
    fn into_destination(self) -> io::Result<Destination<'a>> {
        self.as_str().into_destination()
    }
}

impl<'a> IntoDestination<'a> for String {
    fn into_destination(self) -> io::Result<Destination<'a>> {
        let (host, port) = split(&self)?;
        named(Cow::Owned(host.to_owned()), port)
    }
}

/// `host:port`, where an IPv6 address stands in brackets.
fn split(text: &str) -> io::Result<(&str, u16)> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    parts.ok_or_else(|| invalid("an address must end in a colon and a port"))
}

fn named(host: Cow<'_, str>, port: u16) -> io::Result<Destination<'_>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return (ip, port).into_destination();
    }
    if let Some(ip) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let ip: Ipv6Addr = ip.parse().map_err(|_| invalid("what stands in brackets is no IPv6 address"))?;
        return (ip, port).into_destination();
    }
    check_name(&host)?;
    Ok(Destination::Name(host, port))
}

/// Refuses what can't be a name before the system's resolver sees it.
pub(super) fn check_name(host: &str) -> io::Result<()> {
    // A dot at the end only says that the name is complete.
    let len = host.strip_suffix('.').unwrap_or(host).len();
    if len == 0 || len > NAME_LEN_MAX {
        return Err(invalid("a host's name has between 1 and 253 bytes"));
    }
    if host.bytes().any(|byte| byte <= b' ' || byte == 0x7f || b"/@:?#[]\\".contains(&byte)) {
        return Err(invalid("the host's name has a character that no name has"));
    }
    Ok(())
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_addresses_and_the_rest_are_names() {
        let address: SocketAddr = "[::1]:80".parse().unwrap();
        let destination = Destination::Addresses(smallvec![address]);
        assert_eq!("[::1]:80".into_destination().unwrap(), destination);
        assert_eq!(("::1", 80).into_destination().unwrap(), destination);
        assert_eq!(("[::1]", 80).into_destination().unwrap(), destination);
        assert_eq!(
            String::from("example.org:443").into_destination().unwrap(),
            Destination::Name("example.org".into(), 443)
        );
    }

    #[test]
    fn what_is_no_name_is_refused_before_anybody_is_asked() {
        let long = "a".repeat(254);
        for host in ["", ".", "a b", "a\0b", "a/b", "user@host", "::1::", &long] {
            assert!((host, 80).into_destination().is_err(), "{host:?}");
        }
        for text in ["host", "host:", "host:99999", "host:-1", ":80", "[::1:80", "[x]:80"] {
            assert!(text.into_destination().is_err(), "{text:?}");
        }
    }
}
