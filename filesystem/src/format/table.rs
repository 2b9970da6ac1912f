//! Records that belong to the volume as a whole: who wrote what, who is about to, what is open without a name, what is
//! being removed.
//!
//! Each begins with its version; what is longer was written by a later version, and its known part is read.
//!
//! | record | bytes |
//! | --- | --- |
//! | writer | `1, session 8, delta u64, committed seconds i64, journal session 8, journal delta u64` |
//! | session | `1, device u64, since seconds i64, state u64, asks u64, heard u64, cleared u64, has journal u64, label size u8, label` |
//! | orphan | `1, device u64, since seconds i64, lease seconds i64` |
//! | truncation | `1, first frame u64, end frame u64` |

use std::fmt;

/// What a root contains of one writer: it is written anew in each of its commits, by the commit itself.
///
/// So whoever holds any later root knows exactly whether a delta is in it, however many others committed since: a
/// journal that is replayed, and a commit whose answer was lost, are decided by this record alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct WriterRecord {
    /// Random, drawn by each mount.
    pub session: [u8; 8],
    /// The highest delta of that session that the root contains.
    pub delta: u64,
    /// When, in seconds since 1970.
    pub committed_seconds: i64,
    /// The session whose journal that one began with, or zeros: what it found of that is in the root as well.
    pub journal_session: [u8; 8],
    /// The highest delta of it that was in that journal.
    pub journal_delta: u64,
}

/// What a session may do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SessionState {
    /// Others are about: it publishes what it closes, and asks before it opens.
    #[default]
    Shared,
    /// It is the only one: it publishes and asks when it likes, as long as it knows that it is.
    Alone,
    /// It gave no sign of life for long, and is counted among the others no more. What it has not published, and what it
    /// stands on, it may come back for: so nothing is deleted that it may need, until it is in its place again, or one that
    /// has its journal.
    Lost,
}

/// A mount that may write, from its beginning to its end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SessionRecord {
    /// Its device's number: one session at a time goes by it.
    pub device: u64,
    /// Since when, in seconds since 1970.
    pub since_seconds: i64,
    /// What it may do.
    pub state: SessionState,
    /// Its last question whether the others are still there: questions are numbered, over all sessions.
    pub asks: u64,
    /// The last question, of whoever, that it has answered.
    pub heard: u64,
    /// The last collection that it knows of, by the version that it began with: a commit of all that it had says so, and
    /// since then it needs nothing older than that.
    pub cleared: u64,
    /// It has a journal, so that what it has yet to publish may come back after its end.
    pub has_journal: bool,
    /// What people know it by.
    pub label: Label,
    /// The public key of the user whose mount it is, or zeros where that is not said: by it a collector knows those who may not
    /// write any more. It says so itself, and whoever can write a false one can take the record away.
    pub member: [u8; MEMBER_SIZE],
}

/// A public key's.
const MEMBER_SIZE: usize = 32;

/// Whose mount a session is, and where, for people to read: nothing is granted to it, and nothing looked up by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label([u8; LABEL_SIZE_MAX]);

/// A user, a machine, and as a rule all of a path; there is a record for each mount.
const LABEL_SIZE_MAX: usize = 128;

impl Label {
    /// Returns the beginning of `text`, as much as a label holds.
    pub fn new(text: &str) -> Label {
        let mut label = Label::default();
        let size = text.floor_char_boundary(LABEL_SIZE_MAX);
        label.0[..size].copy_from_slice(&text.as_bytes()[..size]);
        label
    }

    fn bytes(&self) -> &[u8] {
        let size = self.0.iter().position(|byte| *byte == 0).unwrap_or(LABEL_SIZE_MAX);
        &self.0[..size]
    }
}

impl Default for Label {
    fn default() -> Label {
        Label([0; LABEL_SIZE_MAX])
    }
}

impl fmt::Display for Label {
    /// Anybody may have written it: only what is safe to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(self.bytes());
        text.chars().filter(|it| !it.is_control()).try_for_each(|it| write!(f, "{it}"))
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An inode without a name that somebody has open.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Orphan {
    /// Whose mount has it open.
    pub device: u64,
    /// Since when it has no name, in seconds since 1970.
    pub since_seconds: i64,
    /// Until when nobody else may remove it, in seconds since 1970; its holder moves that on.
    pub lease_seconds: i64,
}

/// A part of a file that is no more, while the keys of its frames are still being removed, in steps, from its front.
///
/// It belongs to the file's content: who reads or copies the file's extents passes over those within, and whoever takes
/// another writer's content over takes his record over with it. Any mount may go on with the removal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Truncation {
    /// The first frame that is gone.
    pub from: u64,
    /// One past the last frame that is gone.
    pub to: u64,
}

const VERSION: u8 = 1;

/// Reads the little-endian numbers behind the version.
fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    let body = bytes.strip_prefix(&[VERSION])?.get(..N * 8)?;
    for (number, bytes) in numbers.iter_mut().zip(body.chunks_exact(8)) {
        *number = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(numbers)
}

fn put(out: &mut Vec<u8>, numbers: &[u64]) {
    out.push(VERSION);
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

impl WriterRecord {
    /// Writes the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let session = u64::from_le_bytes(self.session);
        let journal_session = u64::from_le_bytes(self.journal_session);
        let committed = self.committed_seconds as u64;
        put(out, &[session, self.delta, committed, journal_session, self.journal_delta]);
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Option<WriterRecord> {
        let [session, delta, committed] = numbers(bytes)?;
        // Earlier versions wrote no more.
        let [.., journal_session, journal_delta] = numbers::<5>(bytes).unwrap_or_default();
        Some(WriterRecord {
            session: session.to_le_bytes(),
            delta,
            committed_seconds: committed as i64,
            journal_session: journal_session.to_le_bytes(),
            journal_delta,
        })
    }

    /// Up to which of its deltas the root contains what `session` changed; 0 if it says nothing of it.
    pub fn contained_of(&self, session: &[u8; 8]) -> u64 {
        let of = |known: &[u8; 8], delta| if known == session { delta } else { 0 };
        of(&self.session, self.delta).max(of(&self.journal_session, self.journal_delta))
    }
}

impl SessionRecord {
    /// Writes the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let state = match self.state {
            SessionState::Shared => 1,
            SessionState::Alone => 2,
            SessionState::Lost => 3,
        };
        let (since, journal) = (self.since_seconds as u64, u64::from(self.has_journal));
        put(out, &[self.device, since, state, self.asks, self.heard, self.cleared, journal]);
        let label = self.label.bytes();
        out.push(label.len() as u8);
        out.extend_from_slice(label);
        out.extend_from_slice(&self.member);
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Option<SessionRecord> {
        const NUMBERS: usize = 7;
        let [device, since, state, asks, heard, cleared, journal] = numbers::<NUMBERS>(bytes)?;
        let mut label = Label::default();
        let rest = bytes.get(1 + 8 * NUMBERS..).unwrap_or_default();
        let size = rest.first().map_or(0, |size| usize::from(*size));
        for (to, from) in label.0.iter_mut().zip(rest.get(1..1 + size).unwrap_or_default()) {
            *to = *from;
        }
        let member = rest.get(1 + size..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        let state = match state {
            1 => SessionState::Shared,
            3 => SessionState::Lost,
            // What a later version's session may do, and does not say in words that we know, may be anything.
            _ => SessionState::Alone,
        };
        let (since_seconds, has_journal) = (since as i64, journal != 0);
        Some(SessionRecord { device, since_seconds, state, asks, heard, cleared, has_journal, label, member })
    }
}

impl Orphan {
    /// Writes the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put(out, &[self.device, self.since_seconds as u64, self.lease_seconds as u64]);
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Option<Orphan> {
        let [device, since, lease] = numbers(bytes)?;
        Some(Orphan { device, since_seconds: since as i64, lease_seconds: lease as i64 })
    }
}

impl Truncation {
    /// Writes the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put(out, &[self.from, self.to]);
    }

    /// Reads a record.
    pub fn decode(bytes: &[u8]) -> Option<Truncation> {
        let [from, to] = numbers(bytes)?;
        Some(Truncation { from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_encoding_and_a_longer_tail() {
        let writer = WriterRecord {
            session: *b"session1",
            delta: 2,
            committed_seconds: -3,
            journal_session: *b"session0",
            journal_delta: 4,
        };
        let session = SessionRecord {
            device: 10,
            since_seconds: -11,
            state: SessionState::Lost,
            asks: 12,
            heard: 13,
            cleared: 14,
            has_journal: true,
            label: Label::new("ann@desk /home/ann/drive"),
            member: [15; 32],
        };
        let orphan = Orphan { device: 5, since_seconds: 6, lease_seconds: -7 };
        let truncation = Truncation { from: 8, to: 9 };
        let mut bytes = [const { Vec::new() }; 4];
        writer.encode(&mut bytes[0]);
        orphan.encode(&mut bytes[1]);
        truncation.encode(&mut bytes[2]);
        session.encode(&mut bytes[3]);
        assert_eq!(bytes.each_ref().map(Vec::len), [41, 25, 17, 114]);
        for tail in [&b""[..], b"later"] {
            bytes.iter_mut().for_each(|bytes| bytes.extend_from_slice(tail));
            assert_eq!(WriterRecord::decode(&bytes[0]), Some(writer));
            assert_eq!(Orphan::decode(&bytes[1]), Some(orphan));
            assert_eq!(Truncation::decode(&bytes[2]), Some(truncation));
            assert_eq!(SessionRecord::decode(&bytes[3]), Some(session));
        }
    }

    #[test]
    fn a_writer_says_what_the_root_has_of_its_own_session_and_of_the_one_whose_journal_it_began_with() {
        let writer = WriterRecord {
            session: *b"session1",
            delta: 2,
            committed_seconds: -3,
            journal_session: *b"session0",
            journal_delta: 4,
        };
        let contained = |writer: &WriterRecord| {
            [b"session1", b"session0", b"session2"].map(|session| writer.contained_of(session))
        };
        assert_eq!(contained(&writer), [2, 4, 0]);
        let mut bytes = Vec::new();
        writer.encode(&mut bytes);
        // As earlier versions wrote it.
        let earlier = WriterRecord::decode(&bytes[..25]).unwrap();
        assert_eq!(contained(&earlier), [2, 0, 0]);
    }

    #[test]
    fn what_is_too_short_or_of_another_version_is_none() {
        for size in 0..25 {
            let mut bytes = vec![0; size];
            assert_eq!(Orphan::decode(&bytes), None);
            if let Some(first) = bytes.first_mut() {
                *first = 1;
            }
            assert_eq!(Orphan::decode(&bytes), None);
        }
    }
}
