//! Whether what a register was stays when a node goes.
//!
//! Who comes to keep a register learns by itself what it was ([`crate::repair`]). Whoever is about to take a node away waits for that
//! here, and hears what is on fewer nodes than keep the register: what too few show to be taken over, and what somebody who is away
//! lacks.

use std::time::{Duration, UNIX_EPOCH};

use overlay::{NodeId, Overlay};

use super::values::{Past, Values};
use crate::block::deletion::RETENTION_SECONDS_MAX;
use crate::block_store::{HeaderHash, ReadError, RegisterAddress};
use crate::client::Client;

/// How long nothing may have been taken over before nobody is waited for any more: one that did not answer is asked again after
/// some seconds, twice.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// What of a register's past would be left without a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Staying {
    /// How many values the nodes keep within the retention, beside what it is now.
    pub count: usize,
    /// Those that fewer other nodes show than keep the register, the oldest first.
    pub thin: Vec<Thin>,
}

/// A value that few nodes show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thin {
    /// Since when it was the newest, at the latest, in seconds since 1970.
    pub since_seconds: u64,
    /// How many nodes show it, beside the one that goes.
    pub copies: usize,
    /// So many show it that those who keep the register take it over from them.
    may_grow: bool,
}

impl Staying {
    fn copies(&self) -> usize {
        self.thin.iter().map(|thin| thin.copies).sum::<usize>()
    }

    /// What of `values` stays without `leaving`, if as many as `members` are to have each, and take over what `needed` show; what was
    /// replaced before `begin_seconds` goes anyhow.
    fn of(
        values: &[Past],
        newest: Option<HeaderHash>,
        leaving: &NodeId,
        members: usize,
        needed: usize,
        begin_seconds: u64,
    ) -> Staying {
        let mut staying = Staying::default();
        for (index, value) in values.iter().enumerate() {
            let is_over = values.get(index + 1).is_some_and(|next| next.since_seconds < begin_seconds);
            if is_over || value.is_stray || newest == Some(value.header_hash) {
                continue;
            }
            staying.count += 1;
            let copies = value.shown_by.iter().filter(|(contact, _)| contact.id != *leaving).count();
            if copies < members {
                let may_grow = value.shown_by.len() >= needed;
                staying.thin.push(Thin { since_seconds: value.since_seconds, copies, may_grow });
            }
        }
        staying
    }
}

impl<O: Overlay + 'static> Client<O> {
    /// What is left of a register's past without a node, once those who keep the register have learned it: waits for that as long
    /// as it goes on.
    ///
    /// # Errors
    /// [`ReadError`], if it is not known what it was, or for how long any node keeps that.
    ///
    /// # Suspends
    /// Until then, or until nothing has been learned for some 20 seconds.
    pub fn past_without(&self, register: &RegisterAddress, leaving: &NodeId) -> Result<Staying, ReadError> {
        let (mut most, mut grown_at) = (None, reactor::now());
        loop {
            let staying = self.staying(register, leaving)?;
            if !staying.thin.iter().any(|thin| thin.may_grow) {
                return Ok(staying);
            }
            let now = reactor::now();
            let measure = (usize::MAX - staying.thin.len(), staying.copies());
            if most.is_none_or(|most| measure > most) {
                (most, grown_at) = (Some(measure), now);
            } else if now.saturating_duration_since(grown_at) > PATIENCE {
                return Ok(staying);
            }
            reactor::sleep(INTERVAL);
        }
    }

    fn staying(&self, register: &RegisterAddress, leaving: &NodeId) -> Result<Staying, ReadError> {
        let Values { values, newest, .. } = self.past(register)?;
        // The longest that any says, since one may say anything: if none keeps that for so long, none shows it either, and this asks
        // for some seconds more. With the shortest one alone would have all be over.
        let said = self.retentions().0.into_iter().map(|said| said.seconds.min(RETENTION_SECONDS_MAX)).max();
        let Some(retention) = said else {
            let reason = "no node says for how long it keeps what was".into();
            return Err(ReadError::NoQuorum { answers: 0, needed: 1, reason });
        };
        let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let quorum = self.membership(register)?.quorum();
        let needed = quorum.members - quorum.needed + 1;
        let newest = newest.ok().flatten().map(|newest| newest.header_hash);
        let begin = now.saturating_sub(retention.into());
        Ok(Staying::of(&values, newest, leaving, quorum.members, needed, begin))
    }
}
