//! Where nodes listen, as it is asked for.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::errors::Failure;

/// `IP` or `IP:PORT`: one address of this machine, by which others reach it, and perhaps the port of the first node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenAt {
    /// Of this machine.
    pub(crate) ip: IpAddr,
    /// That of the node with number 1; of the others it is the next ones.
    port: Option<u16>,
}

impl ListenAt {
    /// Where node `number` is to listen; at port 0 if none was asked for.
    ///
    /// # Errors
    /// `Failure::Listen` if there is no such port.
    pub(crate) fn of(self, number: u16) -> Result<SocketAddr, Failure> {
        let Some(first) = self.port else { return Ok(SocketAddr::new(self.ip, 0)) };
        let port = first.checked_add(number.saturating_sub(1));
        port.map(|port| SocketAddr::new(self.ip, port)).ok_or_else(|| {
            let source = Error::new(
                ErrorKind::InvalidInput,
                format!("for node {number} there is no port behind that"),
            );
            Failure::Listen { address: SocketAddr::new(self.ip, first), source }
        })
    }

    /// Whether the port was asked for, too.
    pub(crate) fn has_port(self) -> bool {
        self.port.is_some()
    }
}

/// Where a node is reached: nothing is guessed of its port.
pub(super) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    let with_port = "give it with its port, as in 203.0.113.7:4701, or [2001:db8::7]:4701; names of machines are not looked up";
    text.parse().map_err(|_| with_port)
}

impl FromStr for ListenAt {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAt, String> {
        let (ip, port) = match (text.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
            (Ok(ip), _) => (ip, None),
            (_, Ok(address)) => (address.ip(), Some(address.port())),
            (Err(error), _) => {
                return Err(format!("{error}: give an IP address, or one with a port ([IP]:PORT for IPv6)"));
            }
        };
        if ip.is_unspecified() || ip.is_multicast() {
            let advice =
                "give the one address that others reach this machine by (`ip -brief address` shows them)";
            return Err(advice.into());
        }
        if port == Some(0) {
            return Err("port 0 is none: without a port, a free one is taken".into());
        }
        Ok(ListenAt { ip, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_has_the_port_and_the_others_the_next_ones() {
        let at = |text: &str| text.parse::<ListenAt>().unwrap();
        let of = |text: &str, number| at(text).of(number).map(|address| address.to_string()).ok();
        assert_eq!(of("192.0.2.7:443", 1).as_deref(), Some("192.0.2.7:443"));
        assert_eq!(of("[2001:db8::1]:443", 3).as_deref(), Some("[2001:db8::1]:445"));
        assert_eq!(of("192.0.2.7", 3).as_deref(), Some("192.0.2.7:0"));
        assert_eq!(of("192.0.2.7:65535", 1).as_deref(), Some("192.0.2.7:65535"));
        assert_eq!(of("192.0.2.7:65535", 2), None);
    }
}
