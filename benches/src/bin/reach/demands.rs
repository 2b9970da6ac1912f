//! What is asked of two machines behind routers of two kinds.
//!
//! The numbers are the project's goals on a quiet machine; they are compared and printed, and nothing fails by them.

use std::time::Duration;

use crate::Arguments;
use crate::nat_lab::Kind;

/// What is asked of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Within how long it is to be direct; none where the relay is all that is asked.
    pub(crate) direct_within: Option<Duration>,
    /// Of ten tries so many.
    pub(crate) of_ten: u32,
}

/// The milliseconds of delay for which the goals name a time of their own.
const DELAY_ASKED: u32 = 25;

/// Two who share a network, or a router that turns round what is for it, are direct within that.
pub(crate) const SHARED: Duration = Duration::from_secs(1);

/// And two of whom one has a router that maps ports.
pub(crate) const MAPPED: Duration = Duration::from_secs(2);

/// The name of a kind in tables and options.
pub(crate) fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Public => "public",
        Kind::Firewall => "firewall",
        Kind::FullCone => "full-cone",
        Kind::Restricted => "restricted",
        Kind::PortRestricted => "port-restricted",
        Kind::Carrier => "carrier",
        Kind::Symmetric => "symmetric",
        Kind::SymmetricBlock => "symmetric-block",
        Kind::CarrierSymmetric => "carrier-symmetric",
        Kind::NoUdp => "no-udp",
        Kind::Web => "web",
    }
}

fn is_hard(kind: Kind) -> bool {
    matches!(kind, Kind::Symmetric | Kind::SymmetricBlock | Kind::CarrierSymmetric)
}

/// Whether anybody is let in who was sent to, at whatever port he has.
fn is_roomy(kind: Kind) -> bool {
    matches!(kind, Kind::Public | Kind::FullCone | Kind::Restricted)
}

/// What makes it harder for all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hardship {
    /// Routers answer for themselves what nobody inside has asked for.
    is_open: bool,
    /// Of a hundred packets of each site so many are lost, each way.
    loss: u32,
    /// What passes takes so many milliseconds longer, each way at each site.
    delay: u32,
}

impl From<&Arguments> for Hardship {
    fn from(arguments: &Arguments) -> Hardship {
        Hardship { is_open: arguments.open, loss: arguments.loss, delay: arguments.delay }
    }
}

impl Hardship {
    /// The first reply is to be there within so long, whatever the pair.
    pub(crate) fn first_reply(self) -> Duration {
        // A lost packet of a handshake by TCP is sent again after a second.
        Duration::from_secs(if self.loss > 0 { 3 } else { 1 })
    }
}

/// What is asked of two kinds, in whichever order.
pub(crate) fn demand(one: Kind, other: Kind, hardship: Hardship) -> Demand {
    let within = |seconds, of_ten| Demand { direct_within: Some(Duration::from_secs(seconds)), of_ten };
    let (least, most) = (one.min(other), one.max(other));
    let relay = Demand { direct_within: None, of_ten: 10 };
    match (least, most) {
        (_, Kind::Web) => relay,
        // Who listens at an address of its own is dialled.
        (Kind::Public | Kind::Firewall | Kind::PortRestricted | Kind::Carrier | Kind::NoUdp, Kind::NoUdp) => {
            within(2, 10)
        }
        (_, Kind::NoUdp) => relay,
        _ if is_hard(one) && is_hard(other) => relay,
        _ if is_hard(one) || is_hard(other) => {
            if is_roomy(least) {
                within(1, 10)
            } else {
                within(10, 9)
            }
        }
        _ if hardship.is_open => within(2, 10),
        _ if hardship.loss > 0 => within(3, 10),
        _ if hardship.delay == DELAY_ASKED => {
            Demand { direct_within: Some(Duration::from_millis(600)), of_ten: 10 }
        }
        _ => within(1, 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_pairs_has_its_demand_whatever_the_order() {
        let mut direct = 0;
        let mut pairs = 0;
        for (at, one) in Kind::ALL.into_iter().enumerate() {
            for other in &Kind::ALL[at..] {
                assert_eq!(
                    demand(one, *other, Hardship::default()),
                    demand(*other, one, Hardship::default())
                );
                pairs += 1;
                direct += u32::from(demand(one, *other, Hardship::default()).direct_within.is_some());
            }
        }
        // 21 easy ones, 3 kinds with 6 others, and five without UDP.
        assert_eq!((pairs, direct), (66, 21 + 18 + 5));
    }
}
