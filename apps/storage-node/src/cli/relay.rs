//! Whether a node relays for the members of its network whose routers keep them apart.

use std::net::IpAddr;

use clap::{Args, ValueEnum};
use reactor::net::is_of_the_internet;

/// The option, of `up` and of `run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RelayOption {
    /// Whether the node relays for members of the network who can't reach each other, each with up to 16 MiB a second; they
    /// come to its own port, by TCP and UDP. auto: if it listens at an address of the internet
    #[arg(
        long = "relay", value_name = "WHEN", value_enum, default_value_t = Relaying::Auto,
        num_args = 0..=1, require_equals = true, default_missing_value = "on"
    )]
    pub(crate) when: Relaying,
}

/// When a node relays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Relaying {
    /// If it listens at an address of the internet
    Auto,
    /// Always; also in a network of its own, for those who can reach it there
    On,
    /// Never
    Off,
}

impl Relaying {
    /// Whether a node that listens there is to relay.
    pub(crate) fn at(self, address: IpAddr) -> bool {
        match self {
            Relaying::Auto => is_of_the_internet(address),
            Relaying::On => true,
            Relaying::Off => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_where_anybody_may_come_from_relays_unless_told_otherwise() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.1.11",
            "172.16.0.1",
            "169.254.1.1",
            "100.64.0.2",
            "0.0.0.0",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.5",
            "240.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "2001:db8::1",
            "ff02::1",
            "::ffff:10.0.0.1",
        ] {
            let address = inside.parse().unwrap();
            assert!(!Relaying::Auto.at(address) && Relaying::On.at(address), "{inside}");
        }
        for outside in
            ["11.0.0.10", "100.128.0.1", "198.20.0.1", "192.0.1.1", "2a01:4f8::1", "::ffff:11.0.0.1"]
        {
            let address = outside.parse().unwrap();
            assert!(Relaying::Auto.at(address) && !Relaying::Off.at(address), "{outside}");
        }
    }
}
