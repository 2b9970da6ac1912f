//! What a member may do on a network's nodes: four bits, which passports grant and pass on.
//!
//! Not here: who grants them ([`crate::passport`]).

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the holder of a passport may do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub struct Rights {
    /// Be a storage node: enter routing tables and hold blocks for others.
    pub store: bool,
    /// Fetch blocks.
    pub read: bool,
    /// Store blocks on the network's nodes, change registers.
    pub write: bool,
    /// Sign passports for others, with rights among its own.
    pub invite: bool,
}

impl Rights {
    /// Everything: what the owner has.
    pub const ALL: Rights = Rights { store: true, read: true, write: true, invite: true };
    /// A storage node that is never a user: it repairs blocks, hence also reads and writes.
    pub const NODE: Rights = Rights { store: true, read: true, write: true, invite: false };
    /// A user's client: reads and writes, stores nothing for others.
    pub const CLIENT: Rights = Rights { store: false, read: true, write: true, invite: false };
    /// A user's client that changes nothing.
    pub const READER: Rights = Rights { store: false, read: true, write: false, invite: false };

    /// Whether each right in `wanted` is among these.
    pub fn include(self, wanted: Rights) -> bool {
        u8::from(self) & u8::from(wanted) == u8::from(wanted)
    }
}

impl From<Rights> for u8 {
    fn from(rights: Rights) -> u8 {
        u8::from(rights.store)
            | u8::from(rights.read) << 1
            | u8::from(rights.write) << 2
            | u8::from(rights.invite) << 3
    }
}

impl From<u8> for Rights {
    /// Unknown bits are rights of a later version; we grant nothing for them.
    fn from(bits: u8) -> Rights {
        Rights { store: bits & 1 != 0, read: bits & 2 != 0, write: bits & 4 != 0, invite: bits & 8 != 0 }
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all =
            [(self.store, "store"), (self.read, "read"), (self.write, "write"), (self.invite, "invite")];
        let mut first = true;
        for (_, word) in all.iter().filter(|(has, _)| *has) {
            write!(f, "{}{word}", if first { "" } else { "+" })?;
            first = false;
        }
        if first { f.write_str("nothing") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_survive_the_wire_and_unknown_ones_are_none() {
        for rights in [Rights::ALL, Rights::NODE, Rights::CLIENT, Rights::READER, Rights::default()] {
            assert_eq!(Rights::from(u8::from(rights)), rights);
        }
        assert_eq!(Rights::from(0xf0), Rights::default());
    }

    #[test]
    fn a_reader_may_not_write() {
        assert!(Rights::CLIENT.include(Rights::READER));
        assert!(!Rights::READER.include(Rights::CLIENT));
        assert_eq!(
            (Rights::NODE.to_string(), Rights::default().to_string()),
            ("store+read+write".into(), "nothing".into())
        );
    }
}
