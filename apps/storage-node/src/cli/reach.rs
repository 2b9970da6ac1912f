//! What a machine does in its own network so that others find it and get through to it.

use clap::Args;

/// The option of those commands that stay, and of `netcheck`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct MappingOption {
    /// Do not ask this network's router to let members in (by PCP, NAT-PMP or UPnP). It is asked for its own ports only, and not
    /// by who listens on this machine alone and knows no relay on another; at an orderly end what it let in is taken back, if it does so
    /// within two seconds
    #[arg(long)]
    pub(crate) no_port_mapping: bool,
}

impl MappingOption {
    /// Whether the router is asked.
    pub(crate) fn is_on(self) -> bool {
        !self.no_port_mapping
    }

    /// The same, for another process of this program.
    pub(crate) fn as_argument(self) -> Option<&'static str> {
        self.no_port_mapping.then_some("--no-port-mapping")
    }
}

/// The option of all commands that reach nodes.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct DiscoveryOption {
    /// Neither look for members in this machine's own network, nor let them find it there: other machines in it see that this
    /// program runs here, and not in which network
    #[arg(long)]
    pub(crate) no_discovery: bool,
}

impl DiscoveryOption {
    /// Whether members are looked for.
    pub(crate) fn is_on(self) -> bool {
        !self.no_discovery
    }

    /// The same, for another process of this program.
    pub(crate) fn as_argument(self) -> Option<&'static str> {
        self.no_discovery.then_some("--no-discovery")
    }
}
