//! How a drive ended, as the process that served it knows and as `umount` reads it.
//!
//! The end of a process says nothing about what it stored. So the serving process leaves a note where whoever unmounts
//! its drive finds it without the environment's help: in a directory that follows from the user alone, under a name
//! that follows from the mountpoint alone. The note first says who serves, then what the end waits for, and before the
//! process ends how that went. Where there is no such word, the answer is "not known", and never "stored".
//!
//! Root unmounts other users' drives, and so reads notes that others write: such a note is believed only if it is the
//! mounting user's own file, in that user's own directory, about that user's own process.

mod words;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use filesystem::volume::{Cause, Ending};
use reactor::crypto::hash;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::errors::Failure;
use crate::files::{self, Kind};

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// A quorum of the nodes has everything.
    Stored,
    /// The nodes did not take everything, for these reasons: the next start puts it in, unless one is final.
    /// `cut_off`: beside that, as in `CutOff`.
    InJournal { bytes: u64, file_count: u64, causes: Vec<Cause>, directory: PathBuf, cut_off: Option<String> },
    /// Parts of files are lost: no node has them any more. What else is not stored is said `beside` that.
    Damaged { file_count: u64, beside: Option<Box<Outcome>> },
    /// The journal that an earlier run left was damaged, and its files are kept under this name and the like: what could not be read of it
    /// is not on the nodes. What else is not stored is said `beside` that.
    JournalDamaged { kept: PathBuf, beside: Option<Box<Outcome>> },
    /// The nodes had taken everything, and may not have it any more. What else is not stored is said `beside` that.
    Undone { why: Undoing, beside: Option<Box<Outcome>> },
    /// Neither the nodes nor the journal took everything.
    Lost { bytes: u64, cause: String, journal: String },
    /// The connection to the kernel broke: what programs had written through `mmap` may not have come through.
    CutOff { reason: String },
}

/// Why the nodes may not have what they had taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Undoing {
    /// They answer an older version of the drive, or of a space, or one that does not follow what they had taken.
    Older { seen: u64, found: u64 },
    /// Nodes of this home have stopped because copies of them serve.
    Copied,
}

impl Outcome {
    /// How a volume ended whose client used `directory`.
    pub(crate) fn of(ending: Ending, directory: &Path) -> Outcome {
        match ending {
            Ending::Stored => Outcome::Stored,
            Ending::Damaged { file_count } => Outcome::Damaged { file_count, beside: None },
            Ending::JournalDamaged { kept, beside } => Outcome::JournalDamaged {
                kept,
                beside: beside.map(|beside| Box::new(Outcome::of(*beside, directory))),
            },
            Ending::Undone { seen, found, beside } => Outcome::Undone {
                why: Undoing::Older { seen, found },
                beside: beside.map(|beside| Box::new(Outcome::of(*beside, directory))),
            },
            Ending::InJournal { bytes, file_count, cause } => Outcome::InJournal {
                bytes,
                file_count,
                causes: vec![cause],
                directory: directory.into(),
                cut_off: None,
            },
            Ending::Lost { bytes, cause, journal } => {
                Outcome::Lost { bytes, cause: cause.to_string(), journal }
            }
        }
    }

    /// How all of it ended, if this is how one volume did and `other` how another did of the same client: never better than
    /// either.
    pub(crate) fn with(self, other: Outcome) -> Outcome {
        match (self, other) {
            (Outcome::Stored, other) | (other, Outcome::Stored) => other,
            (Outcome::Undone { why, beside }, other) | (other, Outcome::Undone { why, beside }) => {
                let beside = beside.map_or(Outcome::Stored, |beside| *beside).with(other);
                Outcome::Undone { why, beside: (beside != Outcome::Stored).then(|| Box::new(beside)) }
            }
            (Outcome::JournalDamaged { kept, beside }, other)
            | (other, Outcome::JournalDamaged { kept, beside }) => {
                let beside = beside.map_or(Outcome::Stored, |beside| *beside).with(other);
                Outcome::JournalDamaged {
                    kept,
                    beside: (beside != Outcome::Stored).then(|| Box::new(beside)),
                }
            }
            (
                Outcome::Lost { bytes, cause, journal },
                Outcome::Lost { bytes: more, .. } | Outcome::InJournal { bytes: more, .. },
            )
            | (Outcome::InJournal { bytes: more, .. }, Outcome::Lost { bytes, cause, journal }) => {
                Outcome::Lost { bytes: bytes + more, cause, journal }
            }
            (
                Outcome::InJournal { bytes, file_count, mut causes, directory, cut_off },
                Outcome::InJournal {
                    bytes: more,
                    file_count: more_files,
                    causes: others,
                    cut_off: other_cut,
                    ..
                },
            ) => {
                causes.extend(others);
                let mut seen = Vec::new();
                causes.retain(|cause| {
                    !seen.contains(cause) && {
                        seen.push(*cause);
                        true
                    }
                });
                Outcome::InJournal {
                    bytes: bytes + more,
                    file_count: file_count + more_files,
                    causes,
                    directory,
                    cut_off: cut_off.or(other_cut),
                }
            }
            (lost @ Outcome::Lost { .. }, Outcome::Damaged { .. })
            | (Outcome::Damaged { .. }, lost @ Outcome::Lost { .. }) => lost,
            (Outcome::Damaged { file_count, beside }, other)
            | (other, Outcome::Damaged { file_count, beside }) => {
                let (more, other) = match other {
                    Outcome::Damaged { file_count, beside } => (file_count, beside),
                    other => (0, Some(Box::new(other))),
                };
                let both = [beside, other].into_iter().flatten().map(|one| *one).reduce(Outcome::with);
                Outcome::Damaged { file_count: file_count + more, beside: both.map(Box::new) }
            }
            (Outcome::CutOff { reason }, other) | (other, Outcome::CutOff { reason }) => {
                other.cut_off(reason)
            }
        }
    }

    /// What it is if the connection to the kernel was cut before all came through, for this reason.
    pub(crate) fn cut_off(self, reason: String) -> Outcome {
        match self {
            Outcome::Stored => Outcome::CutOff { reason },
            Outcome::InJournal { bytes, file_count, causes, directory, .. } => {
                Outcome::InJournal { bytes, file_count, causes, directory, cut_off: Some(reason) }
            }
            Outcome::Undone { why, beside } => {
                let beside = beside.map_or(Outcome::Stored, |beside| *beside).cut_off(reason);
                Outcome::Undone { why, beside: Some(Box::new(beside)) }
            }
            Outcome::JournalDamaged { kept, beside } => {
                let beside = beside.map_or(Outcome::Stored, |beside| *beside).cut_off(reason);
                Outcome::JournalDamaged { kept, beside: Some(Box::new(beside)) }
            }
            worse => worse,
        }
    }

    /// `Ok` if everything is stored.
    ///
    /// # Errors
    /// `Failure::NotStored` if not, with what became of it.
    pub(crate) fn into_result(self) -> Result<(), Failure> {
        let Some(advice) = words::advice(&self) else { return Ok(()) };
        Err(Failure::NotStored { reason: self.to_string(), advice })
    }
}

/// A killed process takes a few milliseconds, and the more the more memory it has.
const DYING_LIMIT: Duration = Duration::from_millis(500);

/// The note's content.
#[derive(Debug, Serialize, Deserialize)]
struct Word {
    process: u32,
    /// When that process began, in ticks since the machine did: its number may be given out again.
    began: u64,
    /// What the end waits for, if it takes long.
    #[serde(default)]
    waits: Option<String>,
    outcome: Option<Outcome>,
    /// Whose drive it is, as the table of mounts has it: `Network::mark`.
    #[serde(default)]
    source: String,
    /// The kernel's number for the mount, as that table has it.
    #[serde(default)]
    device: String,
}

impl Kind for Word {
    const KIND: &'static str = "hypha drive";
    const VERSION: u32 = 2;
    const SECRET: bool = false;
}

/// The note that this process leaves about the drive it serves.
#[derive(Debug)]
pub(crate) struct Note {
    file: PathBuf,
    word: Word,
}

impl Note {
    /// Says that this process serves the drive at `mountpoint`, a mount with the kernel's number `device`. That it can't be said is no reason not to mount:
    /// `umount` then knows nothing, and says that.
    pub(crate) fn leave(mountpoint: &Path, source: &str, device: &str) -> Note {
        let file = note_file(rustix::process::geteuid().as_raw(), mountpoint);
        let process = std::process::id();
        let began = began(process).unwrap_or(0);
        let (source, device) = (source.to_owned(), device.to_owned());
        let note = Note { file, word: Word { process, began, waits: None, outcome: None, source, device } };
        note.write();
        note
    }

    /// Says what the end waits for, to whoever waits for it in another terminal.
    pub(crate) fn waits(&mut self, what: &str) {
        self.word.waits = Some(what.to_owned());
        self.write();
    }

    /// Says how it went. To be called when all is decided, and before the process ends.
    pub(crate) fn ended(mut self, outcome: &Outcome) {
        self.word.outcome = Some(outcome.clone());
        self.write();
    }

    fn write(&self) {
        let directory = self.file.parent().expect("it is in one");
        let written = match fs::symlink_metadata(directory) {
            Ok(metadata) if !metadata.is_dir() => {
                Err(Failure::Untrusted { path: directory.into(), reason: "it is not a directory".into() })
            }
            _ => files::private_directory(directory),
        };
        if let Err(failure) = written.and_then(|()| files::save(&self.file, &self.word)) {
            tracing::warn!("`umount` will not know how this drive ended: {failure}");
        }
    }
}

/// The process that serves a drive, as a note names it.
pub(crate) struct Server {
    file: PathBuf,
    user: u32,
    process: u32,
    began: u64,
    device: String,
    /// `None` if it has ended already.
    descriptor: Option<OwnedFd>,
}

impl Server {
    /// The process that serves the drive that `user` mounted at `mountpoint`, if it left a word.
    pub(crate) fn of(user: u32, mountpoint: &Path) -> Option<Server> {
        let file = note_file(user, mountpoint);
        let Word { process, began: then, device, .. } = read(&file, user)?;
        let pid = Pid::from_raw(process.try_into().ok()?)?;
        let is_it = || {
            began(process) == Some(then)
                && fs::metadata(format!("/proc/{process}")).is_ok_and(|metadata| metadata.uid() == user)
        };
        // First the descriptor, then the look at what it is of: not the other way round.
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok().filter(|_| is_it());
        Some(Server { file, user, process, began: then, device, descriptor })
    }

    /// Its number.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    /// To wait for its end with; `None` if it has ended.
    pub(crate) fn descriptor(&self) -> Option<&OwnedFd> {
        self.descriptor.as_ref()
    }

    /// Waits for its end, at most this long, and returns whether it has come; the descriptor becomes readable then, whether or not the
    /// process's parent has noticed.
    pub(crate) fn has_ended_within(&self, limit: Duration) -> bool {
        let Some(descriptor) = &self.descriptor else { return true };
        let limit = Timespec::try_from(limit).ok();
        let mut descriptors = [PollFd::new(descriptor, PollFlags::IN)];
        loop {
            match poll(&mut descriptors, limit.as_ref()) {
                Err(Errno::INTR) => {}
                other => return other != Ok(0),
            }
        }
    }

    /// Whether it serves, or served, the mount with the kernel's number `device`.
    pub(crate) fn has_served(&self, device: &str) -> bool {
        self.device == device
    }

    /// Whether it is dead and can't end: its main thread is over, and another waits in the kernel. Blocks for a moment, in which one
    /// that can end does.
    pub(crate) fn hangs(&self) -> bool {
        is_dead(self.process, self.began) && !self.has_ended_within(DYING_LIMIT)
    }

    /// How it went, once it has ended; `None` if it did not say.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.word()?.outcome
    }

    /// What its end waits for, as it last said.
    pub(crate) fn waits(&self) -> Option<String> {
        self.word()?.waits
    }

    /// The note as it is now, if it is still this process's.
    fn word(&self) -> Option<Word> {
        read(&self.file, self.user).filter(|word| (word.process, word.began) == (self.process, self.began))
    }
}

/// Whose drive this user had mounted last at `mountpoint`, as the table of mounts had it, if a note still says so.
pub(crate) fn last_drive_at(mountpoint: &Path) -> Option<String> {
    let user = rustix::process::geteuid().as_raw();
    Some(read(&note_file(user, mountpoint), user)?.source)
}

/// Reads a note that `user` wrote, if nobody else can have.
fn read(file: &Path, user: u32) -> Option<Word> {
    let directory = fs::symlink_metadata(file.parent()?).ok()?;
    let is_own = directory.is_dir() && directory.uid() == user && directory.mode() & 0o022 == 0;
    let note = fs::symlink_metadata(file).ok()?;
    if !is_own || !note.is_file() || note.uid() != user {
        return None;
    }
    files::load(file).ok()
}

/// Whether the main thread of a process is over that began then. What serves drives ends with that thread.
fn is_dead(process: u32, began: u64) -> bool {
    stat(process).is_some_and(|(state, then)| then == began && matches!(state, 'Z' | 'X'))
}

/// When a process began.
fn began(process: u32) -> Option<u64> {
    stat(process).map(|(_, began)| began)
}

/// The state of a process and when it began, from its line in `/proc`; the name in it may contain anything.
fn stat(process: u32) -> Option<(char, u64)> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, after_name) = line.rsplit_once(')')?;
    // Fields 3 and 22 of proc_pid_stat(5); the first after the name is field 3.
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(22 - 4)?.parse().ok()?))
}

fn note_file(user: u32, mountpoint: &Path) -> PathBuf {
    let name = hash::sha3_256(&[b"hypha mountpoint", mountpoint.as_os_str().as_bytes()]);
    notes_of(user).join(format!("drive-{}", HEXLOWER.encode(&name[..16])))
}

/// Where a user's notes are, whatever that user's environment says: another session, `sudo` and cron have another.
fn notes_of(user: u32) -> PathBuf {
    if user == 0 {
        return "/run/hypha".into();
    }
    let runtime = PathBuf::from(format!("/run/user/{user}"));
    match fs::symlink_metadata(&runtime) {
        Ok(metadata) if metadata.is_dir() && metadata.uid() == user => runtime.join("hypha"),
        _ => format!("/tmp/hypha-{user}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn a_note_says_who_serves_and_then_how_it_went() {
        let place = tempfile::tempdir().unwrap();
        let mut note = Note::leave(place.path(), "hypha:1234", "0:7");
        let server = Server::of(own(), place.path()).expect("there is a note");
        assert_eq!(server.process(), std::process::id());
        assert_eq!(last_drive_at(place.path()), Some("hypha:1234".into()));
        assert_eq!(last_drive_at(&place.path().join("a")), None);
        assert!(server.descriptor().is_some() && !server.hangs());
        assert!(server.has_served("0:7") && !server.has_served("0:70"));
        assert_eq!((server.outcome(), server.waits()), (None, None));
        note.waits("4.0 KiB of 1 file");
        assert_eq!((server.outcome(), server.waits()), (None, Some("4.0 KiB of 1 file".into())));
        note.ended(&Outcome::Stored);
        assert_eq!(server.outcome(), Some(Outcome::Stored));
        // A later drive at the same place says nothing about this one.
        let mut later = Note::leave(place.path(), "hypha:1234", "0:7");
        later.word.began += 1;
        later.ended(&Outcome::Stored);
        assert_eq!(server.outcome(), None);
        let late = Server::of(own(), place.path()).unwrap();
        assert!(late.descriptor().is_none(), "a process that began at another time is another");
        fs::remove_file(&late.file).unwrap();
    }

    #[test]
    fn the_end_of_several_is_no_better_than_that_of_any() {
        let waiting = |bytes| Outcome::InJournal {
            bytes,
            file_count: 1,
            causes: vec![Cause::Away],
            directory: "/d".into(),
            cut_off: None,
        };
        let lost = |bytes| Outcome::Lost { bytes, cause: "no answer".into(), journal: "full".into() };
        let cut = || Outcome::CutOff { reason: "aborted".into() };
        assert_eq!(Outcome::Stored.with(Outcome::Stored), Outcome::Stored);
        let damaged = |file_count| Outcome::Damaged { file_count, beside: None };
        for worse in [waiting(1), damaged(1), lost(1), cut()] {
            assert_eq!(Outcome::Stored.with(worse.clone()), worse);
            assert_eq!(worse.clone().with(Outcome::Stored), worse);
        }
        let Outcome::InJournal { bytes, file_count, .. } = waiting(1).with(waiting(2)) else {
            panic!("it is in the journal")
        };
        assert_eq!((bytes, file_count), (3, 2));
        for both in [waiting(1).with(lost(2)), lost(2).with(waiting(1))] {
            assert!(matches!(both, Outcome::Lost { .. }), "{both}");
        }
        for both in [waiting(1).with(cut()), cut().with(waiting(1))] {
            assert!(matches!(both, Outcome::InJournal { cut_off: Some(_), .. }), "{both}");
        }
        assert!(matches!(lost(1).with(cut()), Outcome::Lost { .. }));
        assert_eq!(
            (damaged(1).with(Outcome::Stored), Outcome::Stored.with(damaged(1))),
            (damaged(1), damaged(1))
        );
        for other in [waiting(1), cut()] {
            for both in [damaged(1).with(other.clone()), other.clone().with(damaged(1))] {
                // Neither hides the other.
                let said = both.into_result().unwrap_err();
                let (words, advice) = (said.to_string(), said.advice().unwrap());
                assert!(words.contains("parts of 1 file") && words.contains(&other.to_string()), "{words}");
                assert!(advice.contains("find . -inum") && advice.contains(" it again"), "{advice}");
            }
        }
        assert_eq!(damaged(1).with(damaged(2)), damaged(3));
        // Nor does anything hide that a journal could not be read.
        let unread = |name: &str| Outcome::JournalDamaged { kept: name.into(), beside: None };
        for other in [waiting(1), damaged(1), lost(1), cut(), unread("/j/damaged-2")] {
            for both in
                [unread("/j/damaged-1").with(other.clone()), other.clone().with(unread("/j/damaged-1"))]
            {
                let said = both.into_result().unwrap_err().to_string();
                assert!(said.contains("/j/damaged-1") && said.contains(&other.to_string()[..20]), "{said}");
            }
        }
        let cut_too = unread("/j/damaged-1").cut_off("aborted".into()).to_string();
        assert!(cut_too.contains("/j/damaged-1") && cut_too.contains("aborted"), "{cut_too}");
        assert!(unread("/j/damaged-1").to_string().ends_with("all else is stored"));
        // And nothing hides that what was stored is there no more.
        let undone = |seen| Outcome::Undone { why: Undoing::Older { seen, found: 5 }, beside: None };
        assert_eq!(undone(7).with(Outcome::Stored), undone(7));
        for other in [waiting(1), damaged(1), lost(1), cut(), unread("/j/damaged-2"), undone(9)] {
            for both in [undone(7).with(other.clone()), other.clone().with(undone(7))] {
                let said = both.into_result().unwrap_err();
                let (words, advice) = (said.to_string(), said.advice().unwrap());
                assert!(words.contains("version 7") && words.contains(&other.to_string()[..20]), "{words}");
                assert!(advice.contains("--accept-rollback"), "{advice}");
            }
        }
        assert_eq!((damaged(1).with(lost(1)), lost(1).with(damaged(1))), (lost(1), lost(1)));
    }

    #[test]
    fn who_is_let_in_no_more_is_not_told_to_wait_for_nodes() {
        let advice = |causes: &[Cause]| {
            let directory = "/d".into();
            let waiting = Outcome::InJournal {
                bytes: 1,
                file_count: 1,
                causes: causes.into(),
                directory,
                cut_off: None,
            };
            waiting.into_result().unwrap_err().advice().unwrap()
        };
        for cause in [Cause::Removed, Cause::TakenOff, Cause::ReadsOnly] {
            let advice = advice(&[cause]);
            assert!(advice.contains("journal export DIR") && !advice.contains("nodes are back"), "{advice}");
            assert_eq!(advice.contains("ask the drive's owner"), cause != Cause::Removed, "{advice}");
        }
        let away = advice(&[Cause::Away]);
        assert!(away.contains("nodes are back") && !away.contains("export"), "{away}");
        let both = advice(&[Cause::Away, Cause::TakenOff]);
        assert!(both.contains("nodes are back") && both.contains("export"), "{both}");
    }

    #[test]
    fn nothing_but_stored_is_a_success() {
        assert!(Outcome::Stored.into_result().is_ok());
        let cause = || "no answer".to_owned();
        let waiting = Outcome::InJournal {
            bytes: 2048,
            file_count: 2,
            causes: vec![Cause::Away],
            directory: "/d".into(),
            cut_off: None,
        };
        let both = waiting.clone().cut_off("aborted".into());
        assert!(
            both.to_string().contains("wait in the journal of /d; and")
                && both.to_string().contains("aborted")
        );
        let failure = both.into_result().unwrap_err();
        assert!(!failure.advice().unwrap().contains("nothing is lost"), "{failure}");
        let lost = Outcome::Lost { bytes: 1, cause: cause(), journal: "full".into() };
        for (outcome, words) in [
            (waiting, "2.0 KiB in 2 files and directories wait in the journal of /d"),
            (Outcome::Damaged { file_count: 2, beside: None }, "parts of 2 files"),
            (lost, "is lost"),
            (Outcome::CutOff { reason: "aborted".into() }, "was cut (aborted)"),
        ] {
            let failure = outcome.into_result().unwrap_err();
            assert!(failure.to_string().contains(words), "{failure}");
            assert!(failure.advice().is_some());
        }
    }
}
