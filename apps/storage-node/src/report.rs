//! What a node says about itself, and the method by which others ask.
//!
//! One RPC method beside the overlay's and the DHT's, so that `status` sees just what a peer may see, over the same
//! connections and behind the same passports.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use overlay::NodeId;
use reactor::rpc::Method;
use serde::{Deserialize, Serialize};

use crate::network::Hex;
use crate::progress::human_duration;

/// A node's account of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(Default))]
pub(crate) struct Report {
    /// The program's version.
    pub(crate) version: String,
    /// Its process.
    pub(crate) process: u32,
    /// How long it has been up.
    pub(crate) uptime_s: u64,
    /// How many blocks, registers and words about them its store has.
    pub(crate) blocks: u64,
    /// How many blocks, and ranges of blocks, it has given to others since its start.
    pub(crate) served: u64,
    /// What they take on its disk.
    pub(crate) used_bytes: u64,
    /// What its disk has in all.
    pub(crate) total_bytes: u64,
    /// How many nodes and clients are connected to it.
    pub(crate) peers: u32,
    /// Why its store takes no writes, save that it is full.
    pub(crate) failure: Option<String>,
    /// How many stored values are known to be damaged.
    pub(crate) damaged_count: u64,
    /// Whether its store was replaced, or put back from a copy, so that it has forgotten what it promised.
    pub(crate) has_forgotten: bool,
    /// The nodes with which it has compared, with nothing missing of what it is to keep or to hand over, and with no register that would
    /// be gone with their zone; also those that are gone, if it was so before.
    #[serde(default)]
    pub(crate) caught_up_with: Vec<Hex<[u8; 32]>>,
    /// Whether it has its copies; none if an older release says nothing of it.
    #[serde(default)]
    pub(crate) own_copies: Option<OwnCopies>,
    /// For how long it keeps what is deleted now, in seconds, whoever says that it may go; none if its store does not tell.
    #[serde(default)]
    pub(crate) retention_seconds: Option<u32>,
    /// Bytes of what was deleted, and is kept yet.
    #[serde(default)]
    pub(crate) kept_deleted_bytes: u64,
    /// A copy of its home that served beside it since it was started.
    #[serde(default)]
    pub(crate) copy: Option<CopySeen>,
    /// What its clock shows, in milliseconds since 1970.
    #[serde(default)]
    pub(crate) clock_ms: Option<u64>,
    /// By how many seconds that is ahead of the clock of who asked, as that found out.
    #[serde(default)]
    pub(crate) clock_ahead_s: Option<i64>,
}

/// A process that had the node's key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CopySeen {
    /// Where it said that it was.
    pub(crate) address: Option<SocketAddr>,
    /// How long ago it was found.
    pub(crate) found_s_ago: u64,
    /// It was not told to stop, since nobody knows which of the two is the later one: both go on.
    #[serde(default)]
    pub(crate) goes_on: bool,
    /// It signs with the node's key, and does not go by what copies of a home do that are none of a thief's.
    #[serde(default)]
    pub(crate) is_lawless: bool,
}

/// Whether a node has its copies, as far as it knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OwnCopies {
    /// Blocks and registers that others have, and it should have and has not.
    pub(crate) lacking: u64,
    /// With whom it compared, and lacked nothing by then.
    pub(crate) lacked_nothing_of: Vec<Hex<[u8; 32]>>,
    /// Who is near and may keep some of the same, and with whom it has not.
    #[serde(default)]
    pub(crate) not_compared_with: Vec<Hex<[u8; 32]>>,
    /// How many seconds ago the oldest of these comparisons began.
    pub(crate) compared_s_ago: Option<u64>,
    /// In milliseconds, by which it is told whether it is of now.
    #[serde(default)]
    pub(crate) compared_ms_ago: Option<u64>,
}

impl OwnCopies {
    /// They were compared before what is asked for: nothing is known of what was stored since.
    pub(crate) fn are_of_before(&mut self) {
        self.not_compared_with.append(&mut self.lacked_nothing_of);
    }
}

impl From<dht::node::OwnCopies> for OwnCopies {
    fn from(told: dht::node::OwnCopies) -> OwnCopies {
        OwnCopies {
            lacking: told.lacking,
            lacked_nothing_of: told.lacked_nothing_of.iter().map(|id| Hex(id.0)).collect(),
            not_compared_with: told.not_compared_with.iter().map(|id| Hex(id.0)).collect(),
            compared_s_ago: told.compared_ago.map(|ago| ago.as_secs()),
            compared_ms_ago: told.compared_ago.map(|ago| ago.as_millis() as u64),
        }
    }
}

impl Report {
    /// Whether what it says of its copies is of comparisons none of which began more than `within` before it was asked: with the others, or
    /// with nobody where there is nobody else.
    pub(crate) fn has_compared_within(&self, within: Duration) -> bool {
        let Some(own) = &self.own_copies else { return false };
        let alone = own.lacked_nothing_of.is_empty() && own.not_compared_with.is_empty();
        alone || own.compared_ms_ago.is_some_and(|ago| u128::from(ago) <= within.as_millis())
    }

    /// What keeps it from taking writes, or else is wrong with it, in a few words.
    pub(crate) fn fault(&self) -> Option<String> {
        if let Some(failure) = &self.failure {
            return Some(format!("takes no writes: {failure}"));
        }
        if self.is_full() {
            return Some("full: takes no writes".into());
        }
        if self.has_forgotten {
            return Some("its store was replaced or put back once: it takes part in what it learned from the others since".into());
        }
        if let Some(CopySeen { address, found_s_ago, goes_on, is_lawless }) = &self.copy {
            let place = address.map_or(String::new(), |address| format!(" at {address}"));
            let ago = human_duration(*found_s_ago);
            return Some(match goes_on {
                true if *is_lawless => format!(
                    "somebody signs with this node's key{place}, as was found {ago} ago, and is no copy of its home that would stop, or say \
                     that it goes on: the key was stolen, or the machine was copied as it ran, or put back to what it was; what others \
                     think to store with this node may be there instead"
                ),
                true => format!(
                    "another process serves with its key{place}, as was found {ago} ago, and which of the two is the copy is not known, so \
                     both go on: what is stored with one may be missing with the other; stop one, and start this again"
                ),
                false => format!(
                    "a copy of its home served beside it{place}, and was told to stop {ago} ago: what was stored with that may be missing here"
                ),
            });
        }
        (self.damaged_count > 0).then(|| format!("{} stored values are damaged", self.damaged_count))
    }

    /// The nodes that it had caught up with.
    pub(crate) fn caught_up(&self) -> Vec<NodeId> {
        self.caught_up_with.iter().map(|id| NodeId(id.0)).collect()
    }

    /// Whether it can take writes.
    pub(crate) fn takes_writes(&self) -> bool {
        self.failure.is_none() && !self.is_full()
    }

    /// Whether it takes what removes something, and nothing else: for that, some room is kept back.
    pub(crate) fn takes_removals(&self) -> bool {
        self.failure.is_none() && self.is_full()
    }

    /// So little is left that it is done without.
    fn is_full(&self) -> bool {
        dht::space::is_full(self.total_bytes.saturating_sub(self.used_bytes))
    }
}

/// Asks a node for its [`Report`].
pub(crate) struct ReportMethod;

/// Why there is no report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReportRefused(pub(crate) String);

impl fmt::Display for ReportRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Method for ReportMethod {
    /// 0x0100 is the overlay's hundred, 0x0200 the DHT's; applications begin here.
    const ID: u32 = 0x0300;
    const NAME: &'static str = "report";
    /// A line for each peer and each finding, of which there may be thousands.
    const REPLY_SIZE_BYTES_MAX: usize = reactor::rpc::MESSAGE_SIZE_BYTES_MAX;
    type Request = ();
    type Response = Report;
    type Error = ReportRefused;
}

#[cfg(test)]
mod tests {
    use reactor::serialization::{from_bytes, to_bytes};

    use super::*;

    /// A field that was left out where it had nothing to say had the next one read in its place.
    #[test]
    fn what_a_node_says_is_read_as_it_was_said_whatever_of_it_is_missing() {
        let report = Report {
            version: "1".into(),
            process: 1,
            uptime_s: 2,
            blocks: 3,
            served: 4,
            used_bytes: 5,
            total_bytes: 6,
            peers: 7,
            failure: None,
            damaged_count: 8,
            has_forgotten: true,
            caught_up_with: vec![Hex([9; 32])],
            own_copies: None,
            retention_seconds: None,
            kept_deleted_bytes: 10,
            copy: None,
            clock_ms: Some(1_795_848_881_389),
            clock_ahead_s: None,
        };
        let read: Report = from_bytes(&to_bytes(&report)).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&report).unwrap());
        let copy = Some(CopySeen { address: None, found_s_ago: 11, goes_on: true, is_lawless: false });
        let report = Report { copy, clock_ms: None, clock_ahead_s: Some(-12), ..report };
        let read: Report = from_bytes(&to_bytes(&report)).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), serde_json::to_value(&report).unwrap());
    }
}
