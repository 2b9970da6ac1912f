//! What carries bytes between two peers: our TLS over TCP, our QUIC, and a relay between, beside rustls and quinn-proto with a
//! loop around them and nothing else. `src/bin/carry.rs` in parts.
//!
//! [`end`] is either end of each, [`work`] what they do, [`round`] one round, [`report`] prints.
//!
//! The rules of fairness: one connection, one thread on each side, each on a processor of its own; TLS 1.3 with AES-128-GCM, which
//! our peers choose first; over TCP `TCP_NODELAY`, and reads of 256 KiB; over UDP the windows, the segments and the buffers that
//! ours has, and the same controller. What is done on a stream is one body for all; only RPC is ours alone.
//!
//! What it is not: iroh, which brings 371 crates (`cargo generate-lockfile`, iroh 1.4.1), more than this whole project.

mod bare_quic;
pub mod end;
pub mod report;
pub mod round;
pub mod work;

/// Who carries. Each of ours is followed by what it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Our TLS over TCP, with bare keys.
    Tls,
    /// rustls on a blocking socket.
    BareTls,
    /// Our QUIC.
    Quic,
    /// quinn-proto in a loop over a socket of the standard library's.
    BareQuic,
    /// Our QUIC through a relay of ours, over TLS to it.
    Relayed,
}

impl Carrier {
    /// All.
    pub const ALL: [Carrier; 5] =
        [Carrier::Tls, Carrier::BareTls, Carrier::Quic, Carrier::BareQuic, Carrier::Relayed];

    /// The word on command lines.
    pub fn word(self) -> &'static str {
        match self {
            Carrier::Tls => "tls",
            Carrier::BareTls => "bare-tls",
            Carrier::Quic => "quic",
            Carrier::BareQuic => "bare-quic",
            Carrier::Relayed => "relayed",
        }
    }

    /// The carrier of that word.
    pub fn of_word(word: &str) -> Option<Carrier> {
        Carrier::ALL.into_iter().find(|carrier| carrier.word() == word)
    }

    /// What ours is to reach of another: how much of which.
    pub fn goal(self) -> Option<(f64, Carrier)> {
        match self {
            Carrier::Tls => Some((0.9, Carrier::BareTls)),
            Carrier::Quic => Some((0.9, Carrier::BareQuic)),
            Carrier::Relayed => Some((0.4, Carrier::Quic)),
            Carrier::BareTls | Carrier::BareQuic => None,
        }
    }
}

/// Who takes part in a table: ours with RPC, or anybody's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contender {
    /// What carries.
    pub carrier: Carrier,
    /// Whether our RPC is on top.
    pub is_rpc: bool,
}

impl Contender {
    /// The name that stands in tables.
    pub fn name(self) -> &'static str {
        match (self.carrier, self.is_rpc) {
            (Carrier::Tls, false) => "ours, TLS",
            (Carrier::BareTls, _) => "rustls alone",
            (Carrier::Quic, false) => "ours, QUIC",
            (Carrier::BareQuic, _) => "quinn-proto alone",
            (Carrier::Relayed, false) => "ours, relayed",
            (Carrier::Tls, true) => "ours, RPC over TLS",
            (Carrier::Quic, true) => "ours, RPC over QUIC",
            (Carrier::Relayed, true) => "ours, RPC relayed",
        }
    }
}

/// What is asked of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Pieces of 256 KiB, one way.
    Bulk,
    /// Questions of 64 B and their answers, so many at once.
    Calls(usize),
}

impl Workload {
    /// What it is, in words.
    pub fn title(self) -> String {
        match self {
            Workload::Bulk => "bulk, pieces of 256 KiB".into(),
            Workload::Calls(in_flight) => format!("64 B there and back, {in_flight} at once"),
        }
    }

    /// Who takes part.
    pub fn contenders(self) -> Vec<Contender> {
        let streams = Carrier::ALL.map(|carrier| Contender { carrier, is_rpc: false });
        let rpc = [Carrier::Tls, Carrier::Quic, Carrier::Relayed];
        let rpc = rpc.map(|carrier| Contender { carrier, is_rpc: true });
        match self {
            Workload::Bulk => streams.to_vec(),
            Workload::Calls(_) => [&streams[..], &rpc].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_word_and_has_a_name_of_its_own() {
        assert!(Carrier::ALL.iter().all(|carrier| Carrier::of_word(carrier.word()) == Some(*carrier)));
        assert_eq!(Carrier::of_word("pigeon"), None);
        let mut names: Vec<&str> = Workload::Calls(1).contenders().into_iter().map(Contender::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Workload::Calls(1).contenders().len());
        assert!(Workload::Bulk.contenders().iter().all(|contender| !contender.is_rpc));
    }
}
