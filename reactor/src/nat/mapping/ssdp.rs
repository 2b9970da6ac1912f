//! Finding out whether a router speaks UPnP: the question by UDP, and where its answer says that the description is
//! (UPnP Device Architecture 1.1, section 1.3). Pure.
//!
//! The router itself is asked, and not all of the network: another machine's word is not wanted. For the same reason what its
//! answer names as the place of the description counts only if it is at the router's own address.

use std::net::{Ipv4Addr, SocketAddrV4};

/// What is sought. A device of version 2 answers to 1 as well.
const TARGETS: [&str; 2] =
    ["urn:schemas-upnp-org:device:InternetGatewayDevice:1", "urn:schemas-upnp-org:service:WANIPConnection:1"];

/// An answer is one packet.
pub const BYTES_MAX: usize = 1_500;

/// A longer path in a router leads nowhere.
const PATH_BYTES_MAX: usize = 512;

/// Lines of an answer that are looked at.
const LINES_MAX: usize = 64;

/// The questions, each a packet.
pub fn searches(to: SocketAddrV4) -> impl Iterator<Item = Vec<u8>> {
    TARGETS.iter().map(move |target| {
        // `HOST` is the group even where one device is asked (section 1.3.2), and some look at it.
        let host = if to.port() == 1900 { "239.255.255.250:1900".to_owned() } else { to.to_string() };
        format!(
            "M-SEARCH * HTTP/1.1\r\nHOST: {host}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n"
        )
        .into_bytes()
    })
}

/// Where something at a router is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The port of its HTTP server.
    pub port: u16,
    /// The path, which begins with a slash and has nothing in it that would end a URL or a line.
    pub path: String,
}

impl Location {
    /// What a URL names at the router's own address; `None` for any other machine.
    #[must_use]
    pub fn of_url(url: &str, router: Ipv4Addr) -> Option<Location> {
        let rest = url.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://")).map(|_| &url[7..])?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
            None => (authority, 80),
        };
        let is_routers = host.parse::<Ipv4Addr>().is_ok_and(|host| host == router);
        let path = if path.is_empty() { "/" } else { path };
        (is_routers && is_path(path)).then(|| Location { port, path: path.to_owned() })
    }

    /// What a URL in a description at this place names, which may be relative; `None` for any other machine.
    #[must_use]
    pub fn join(&self, url: &str, router: Ipv4Addr) -> Option<Location> {
        if url.contains("://") {
            return Location::of_url(url, router);
        }
        let path = match url.starts_with('/') {
            true => url.to_owned(),
            false => {
                let directory = &self.path[..=self.path.rfind('/')?];
                format!("{directory}{url}")
            }
        };
        is_path(&path).then_some(Location { port: self.port, path })
    }
}

fn is_path(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\');
    path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= PATH_BYTES_MAX
        && path.bytes().all(is_plain)
}

/// Where the answer of the router says that its description is; `None` if it is no answer, or says of another machine.
#[must_use]
pub fn location(answer: &[u8], router: Ipv4Addr) -> Option<Location> {
    let text = std::str::from_utf8(answer.get(..answer.len().min(BYTES_MAX))?).ok()?;
    let mut lines = text.lines().take(LINES_MAX);
    let mut status = lines.next()?.split_ascii_whitespace();
    let is_good = status.next()?.starts_with("HTTP/1.") && status.next()? == "200";
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
    };
    let url = lines.find_map(field).filter(|_| is_good)?;
    Location::of_url(&url, router)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

    fn answer(location: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLocation: {location}\r\nUSN: x\r\n\r\n")
            .into_bytes()
    }

    #[test]
    fn the_router_says_where_its_description_is_and_no_other_machine_is_gone_to() {
        let found = location(&answer("http://192.168.1.1:49152/rootDesc.xml"), ROUTER);
        assert_eq!(found, Some(Location { port: 49_152, path: "/rootDesc.xml".into() }));
        assert_eq!(
            location(&answer("http://192.168.1.1"), ROUTER).unwrap(),
            Location { port: 80, path: "/".into() }
        );
        for elsewhere in [
            "http://192.168.1.9:80/x",
            "http://example.org/x",
            "http://192.168.1.1@evil.example/x",
            "http://192.168.1.1:0/x",
            "http://192.168.1.1:99999/x",
            "https://192.168.1.1/x",
            "http://192.168.1.1/a b",
            "http://192.168.1.1//other.example/x",
            "ftp",
            "",
        ] {
            assert_eq!(location(&answer(elsewhere), ROUTER), None, "{elsewhere:?}");
        }
        let refused = String::from_utf8(answer("http://192.168.1.1/")).unwrap().replace("200 OK", "404 No");
        assert_eq!(location(refused.as_bytes(), ROUTER), None);
        assert_eq!(location(b"\xff\xfe", ROUTER), None);
    }

    #[test]
    fn what_a_description_names_is_at_the_router_too() {
        let at = Location { port: 5000, path: "/upnp/root.xml".into() };
        let joined = |url| at.join(url, ROUTER).map(|found| (found.port, found.path));
        assert_eq!(joined("/ctl/IPConn"), Some((5000, "/ctl/IPConn".into())));
        assert_eq!(joined("ctl/IPConn"), Some((5000, "/upnp/ctl/IPConn".into())));
        assert_eq!(joined("http://192.168.1.1:80/c"), Some((80, "/c".into())));
        assert_eq!(
            (joined("http://10.0.0.1/c"), joined("/c\r\nX: y"), joined("//10.0.0.1/c")),
            (None, None, None)
        );
    }

    #[test]
    fn each_search_is_one_packet() {
        let all: Vec<Vec<u8>> = searches(SocketAddrV4::new(ROUTER, 1900)).collect();
        assert!(all.iter().all(|search| search.starts_with(b"M-SEARCH * HTTP/1.1\r\n") && search.ends_with(b"\r\n\r\n")));
    }
}
