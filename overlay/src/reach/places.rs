//! Where the socket is bound by which members are reached by their ids: pure.
//!
//! Who was told at which address to listen is bound there and nowhere else: its firewall, its owner and the threat model go by
//! that. Where that address has gone, a laptop's that has left its network, say, it has no socket until it is there again.
//!
//! What it is not: the binding, and the looks at whether an address is there (`reach.rs`).

use std::net::SocketAddr;

/// Where it may be bound, the best first. `own` is where we listen to others, which was found and not asked for where that
/// `is_unbound`; `all` are all addresses of this machine, at a port.
pub(super) fn to_bind(
    own: Option<SocketAddr>,
    is_unbound: bool,
    is_within_the_machine: bool,
    all: impl Fn(u16) -> SocketAddr,
) -> Vec<SocketAddr> {
    let may_be_anywhere = own.is_none() || is_unbound;
    let listening = own.filter(|own| !own.ip().is_loopback() || is_within_the_machine);
    let everywhere = listening.filter(|own| may_be_anywhere && !own.ip().is_loopback());
    // Who has opened a port for us has opened that, and a relay is asked there where one is.
    let at_ours = listening.into_iter().flat_map(|own| [own, SocketAddr::new(own.ip(), 0)]);
    let anywhere = may_be_anywhere.then(|| all(0));
    everywhere.map(|own| all(own.port())).into_iter().chain(at_ours).chain(anywhere).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(own: Option<&str>, is_unbound: bool, is_within: bool) -> Vec<String> {
        let all = |port| SocketAddr::new([0; 16].into(), port);
        let own = own.map(|own| own.parse().unwrap());
        to_bind(own, is_unbound, is_within, all).iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn who_was_told_where_to_listen_is_bound_nowhere_else() {
        assert_eq!(places(Some("192.0.2.5:7"), false, false), ["192.0.2.5:7", "192.0.2.5:0"]);
        assert_eq!(places(Some("0.0.0.0:7"), false, false), ["0.0.0.0:7", "0.0.0.0:0"], "IPv4 only");
        assert_eq!(places(Some("[::]:7"), false, false), ["[::]:7", "[::]:0"]);
        assert_eq!(places(Some("127.0.0.1:7"), false, true), ["127.0.0.1:7", "127.0.0.1:0"]);
        assert!(places(Some("127.0.0.1:7"), false, false).is_empty());
    }

    #[test]
    fn who_was_told_nothing_is_bound_to_all_addresses() {
        assert_eq!(
            places(Some("192.0.2.5:7"), true, false),
            ["[::]:7", "192.0.2.5:7", "192.0.2.5:0", "[::]:0"]
        );
        assert_eq!(places(Some("127.0.0.1:7"), true, true), ["127.0.0.1:7", "127.0.0.1:0", "[::]:0"]);
        assert_eq!(places(Some("127.0.0.1:7"), true, false), ["[::]:0"]);
        assert_eq!(places(None, false, false), ["[::]:0"], "a client");
    }
}
