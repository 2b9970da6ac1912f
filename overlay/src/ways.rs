//! The ways into the network that we were told or remembered, and which of them is worth another try.
//!
//! Whoever has met somebody of the network hears of the others through them, if they know the others. They may not: nodes
//! that start while a link between them is down meet those on their side of it, and each side is content with itself. When
//! the link is back nobody has a reason to look beyond. So whoever is not met is tried on, one way at a time and for as
//! long as we run; one connection between two such islands makes them one, for each asks its neighbours for news.
//!
//! Pure: it dials nothing.

use reactor::crypto::PublicKey;

use crate::join::Bootstrap;

/// The ways in, without end: what was given, and the last run's contacts.
#[derive(Default)]
pub(crate) struct Ways {
    ways: Vec<Way>,
    /// Where the search for one that is worth a try goes on, so that each has its turn.
    next: usize,
}

struct Way {
    bootstrap: Bootstrap,
    /// Who was met there last.
    led_to: Option<PublicKey>,
}

impl Ways {
    /// Adds those that are new.
    pub(crate) fn add(&mut self, ways: &[Bootstrap]) {
        for bootstrap in ways {
            if !self.ways.iter().any(|way| way.bootstrap == *bootstrap) {
                let led_to = match bootstrap {
                    Bootstrap::Contact(contact) => Some(contact.public_key),
                    Bootstrap::Address(_) => None,
                };
                self.ways.push(Way { bootstrap: bootstrap.clone(), led_to });
            }
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Bootstrap> {
        self.ways.iter().map(|way| way.bootstrap.clone()).collect()
    }

    /// Notes that the holder of `key` was met at `bootstrap`.
    pub(crate) fn on_met(&mut self, bootstrap: &Bootstrap, key: PublicKey) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.bootstrap == *bootstrap) {
            way.led_to = Some(key);
        }
    }

    /// The next way that leads to nobody whom we are in touch with, each in its turn.
    pub(crate) fn next_unmet(&mut self, is_in_touch: impl Fn(&PublicKey) -> bool) -> Option<Bootstrap> {
        let count = self.ways.len();
        let is_unmet = |way: &Way| !way.led_to.as_ref().is_some_and(&is_in_touch);
        let index = (0..count)
            .map(|offset| (self.next + offset) % count)
            .find(|index| is_unmet(&self.ways[*index]))?;
        self.next = index + 1;
        Some(self.ways[index].bootstrap.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_id::NodeId;
    use crate::testing::contact_at;

    fn address(port: u16) -> Bootstrap {
        Bootstrap::Address(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn whoever_is_not_met_has_a_turn_and_whoever_is_has_none() {
        let (one, two) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
        let known = Bootstrap::Contact(contact_at(NodeId([1; 32]), "127.0.0.1:1"));
        let mut ways = Ways::default();
        assert_eq!(ways.next_unmet(|_| true), None);
        ways.add(&[address(2), known.clone()]);
        ways.add(&[known.clone(), address(3)]);
        assert_eq!(ways.all(), [address(2), known.clone(), address(3)]);
        let turn = |ways: &mut Ways, met: &[PublicKey]| ways.next_unmet(|key| met.contains(key));
        assert_eq!(turn(&mut ways, &[one]), Some(address(2)));
        assert_eq!(turn(&mut ways, &[one]), Some(address(3)));
        assert_eq!(turn(&mut ways, &[one]), Some(address(2)));
        ways.on_met(&address(2), two);
        assert_eq!(turn(&mut ways, &[one, two]), Some(address(3)));
        assert_eq!(turn(&mut ways, &[one, two]), Some(address(3)));
        assert_eq!(turn(&mut ways, &[two]), Some(known), "it is gone, and may be back");
        ways.on_met(&address(3), one);
        assert_eq!(turn(&mut ways, &[one, two]), None);
    }
}
