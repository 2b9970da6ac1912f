//! What a node says of itself, as options of those commands that start nodes.

use std::str::FromStr;

use clap::Args;
use overlay::Zone;
use overlay::record::{BadZone, NO_ZONE};

use crate::cache::bytes_of;
use crate::progress::human_bytes;

/// Less is no use to anybody: some of it is kept back for removals.
const CAPACITY_BYTES_MIN: u64 = 1 << 30;

/// What is left out stays as it was.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NodeSays {
    /// Where the nodes of this machine stand, as in `cellar` or `fra-2`. Those of one zone may all be gone at once: in networks of
    /// up to 16 nodes, copies of a block lie in as many zones as there are, and what is stored is in two of them when it is said to
    /// be, as long as nodes of two have room and are not much slower than the others: 2 s are granted, a quarter of a second for each
    /// of up to 16 blocks on their way, or four times what the others take. What a slower one has not taken when it is said to be
    /// stored, is in one zone until it has. The drive's root stays with the nodes that founded the network until `node replace` has others
    /// keep it. A 17th that stays has all placed anew, without zones. Say it on all machines: those that
    /// say none count as one zone together. `none` for none [default: the one used last, at first none]
    #[arg(long, value_name = "NAME")]
    pub(crate) zone: Option<ZoneChoice>,
    /// What each node of this machine takes at most, as in 500GiB. In networks of up to 16 nodes, who takes more gets more, in
    /// proportion between 16GiB and 4TiB, however much of that is used; one that says nothing counts as 256GiB. One that has more
    /// already keeps it and takes no more. 0 for as much as its disk has [default: the one used last, at first 0]
    #[arg(long, value_name = "SIZE")]
    pub(crate) capacity: Option<Capacity>,
}

/// A zone, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ZoneChoice(pub(crate) Option<Zone>);

impl FromStr for ZoneChoice {
    type Err = BadZone;

    fn from_str(text: &str) -> Result<ZoneChoice, BadZone> {
        if text == NO_ZONE { Ok(ZoneChoice(None)) } else { text.parse().map(|zone| ZoneChoice(Some(zone))) }
    }
}

/// A bound, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity(pub(crate) Option<u64>);

impl FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Capacity, String> {
        if text == "0" {
            return Ok(Capacity(None));
        }
        let bytes = bytes_of(text).map_err(|why| format!("{why}, or 0 for as much as the disk has"))?;
        if bytes < CAPACITY_BYTES_MIN {
            return Err(format!("a node takes {} or more", human_bytes(CAPACITY_BYTES_MIN)));
        }
        Ok(Capacity(Some(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_and_capacities_are_read_as_people_write_them() {
        let zone =
            |text: &str| text.parse::<ZoneChoice>().ok().map(|choice| choice.0.map(|zone| zone.to_string()));
        assert_eq!(zone("cellar"), Some(Some("cellar".into())));
        assert_eq!((zone("none"), zone(""), zone("Two Words")), (Some(None), None, None));
        let capacity = |text: &str| text.parse::<Capacity>().ok().map(|capacity| capacity.0);
        assert_eq!(capacity("500GiB"), Some(Some(500 << 30)));
        assert_eq!(
            (capacity("0"), capacity("1MiB"), capacity("500"), capacity("much")),
            (Some(None), None, None, None)
        );
    }
}
