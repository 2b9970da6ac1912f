//! What a commit makes of the sessions' records.
//!
//! A record goes to nothing in five cases only: its session leaves; it has no journal, and is struck out; a mount that has its
//! journal publishes all that is in that; it is lost, and somebody says that it never comes back; or its user may not write any
//! more, somebody says. Whoever finds that his own has gone all the same goes by [`super::super::doubt`].

use super::{Changes, Intent, Session};
use crate::format::{SessionRecord, SessionState};

pub(super) fn is_lost(record: &SessionRecord) -> bool {
    record.state == SessionState::Lost
}

/// Whether `now` is what its session said when it was `seen`. That it is lost by now, others say.
pub(super) fn is_same_but_lost(seen: &SessionRecord, now: &SessionRecord) -> bool {
    now == seen || (is_lost(now) && *now == SessionRecord { state: SessionState::Lost, ..*seen })
}

/// What becomes of the record of one that gives no sign of life.
fn struck(record: &SessionRecord) -> Option<SessionRecord> {
    record.has_journal.then_some(SessionRecord { state: SessionState::Lost, ..*record })
}

impl Session {
    /// Returns what becomes of the records in the tree that we stand on, by a commit that `has_all` that there is to commit,
    /// or by one that only says so.
    pub(crate) fn changes(&self, intent: &Intent, has_all: bool) -> Changes {
        let mut changes = Changes::new();
        match intent {
            // One at a time goes by our device's number, and now that is us; but where its directory was copied the other
            // may live, and rely on being alone, or on what it has yet to publish.
            Intent::Enter => {
                for (id, other) in self.others().chain(self.lost.iter().map(|(id, lost)| (*id, lost))) {
                    if self.over.contains(&id) && has_all {
                        // What it left in our journal is published by this.
                        changes.insert(id, None);
                    } else if self.over.contains(&id)
                        || (other.device == self.device && other.state == SessionState::Shared)
                    {
                        changes.insert(id, struck(other));
                    }
                }
                changes.extend(self.to_forget().map(|id| (id, None)));
            }
            Intent::Strike(silent) => changes.extend(
                (silent.iter())
                    .filter(|(id, record)| self.present.get(id) == Some(record))
                    .map(|(id, record)| (*id, struck(record))),
            ),
            Intent::Leave => {
                changes.insert(self.id, None);
                return changes;
            }
            _ => {}
        }
        let mine = self.mine().copied();
        if mine.is_none() && *intent != Intent::Enter {
            // Struck out meanwhile: the next commit sees to that.
            return Changes::new();
        }
        let is_only = self.others().all(|(id, _)| changes.contains_key(&id));
        let known = self.present.values().chain(self.lost.values());
        let question = known.map(|record| record.asks.max(record.heard)).max().unwrap_or(0);
        let before = mine.unwrap_or(SessionRecord {
            device: self.device,
            since_seconds: self.since_seconds,
            has_journal: self.has_journal,
            label: self.label,
            member: self.member,
            ..SessionRecord::default()
        });
        let state = match intent {
            Intent::Enter | Intent::BeAlone | Intent::Strike(_) if is_only => SessionState::Alone,
            Intent::Enter | Intent::BeAlone | Intent::Strike(_) | Intent::Share => SessionState::Shared,
            _ => before.state,
        };
        let asks = if *intent == Intent::Ask { question.saturating_add(1) } else { before.asks };
        let heard = self.others().map(|(_, other)| other.asks).max().unwrap_or(0).max(before.heard);
        let cleared = if has_all { before.cleared.max(self.clearing) } else { before.cleared };
        changes.insert(self.id, Some(SessionRecord { state, asks, heard, cleared, ..before }));
        changes
    }
}
