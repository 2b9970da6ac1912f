//! Up to where the journal was acknowledged, said beside it: what a file cannot say of itself once its end is gone.
//!
//! A crash leaves a torn group at the end, of which nothing was acknowledged, and that is passed over in silence. A file that was cut off
//! (by a file system that lost its last extent, a copy that was made while it grew, a hand that slipped), or that is not there at
//! all, looks just like it. The file `end` names the file that takes the groups, and two places in it: up to where it was
//! *noted*, which outlives the process, and up to where it is *kept* by a power cut. It is written in place after each group, and never
//! synced: after the end of the process it is exact, and after that of the system older at worst; what was only noted is not
//! asked for then, which the system's boot id tells. What a root contains by then is not lacking, whatever became of the file: so no removal
//! of one that has served has to wait for this one.
//!
//! | bytes | |
//! | --- | --- |
//! | 8 | `hyphaje1` |
//! | 8 | the session whose changes these are |
//! | 8 | its device |
//! | 16 | the boot id of the system; zeros if it has none |
//! | 24 | noted: the file's number, 0 if there is none; where it ended; the delta up to which it has changes |
//! | 24 | kept: the same |
//! | 8 | BLAKE3 of the register and all that |

use std::path::PathBuf;

use bytes::Bytes;
use dht::RegisterAddress;
use reactor::fs::{self, File, OpenOptions};

use super::{Files, Journal, JournalError};

/// The file's name.
const NAME: &str = "end";
const MAGIC: &[u8; 8] = b"hyphaje1";
const SIZE: usize = 96;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A place in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Reached {
    /// The file's number; 0 if there is none.
    number: u64,
    size_bytes: u64,
    /// The last delta that it has changes of.
    delta: u64,
}

/// What the file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Mark {
    session: [u8; 8],
    device: u64,
    boot_id: [u8; 16],
    noted: Reached,
    kept: Reached,
}

/// What a group adds to a file.
pub(super) struct Written {
    pub(super) writer: ([u8; 8], u64),
    pub(super) number: u64,
    pub(super) size_bytes: u64,
    pub(super) delta: Option<u64>,
    pub(super) durably: bool,
}

/// What a file has, as it was read: up to where it has whole groups, 0 if it has none. The first of each is a snapshot.
pub(super) struct Whole {
    pub(super) number: u64,
    pub(super) size_bytes: u64,
}

/// Something that was acknowledged is not in the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lacking {
    /// Whose it was.
    pub(crate) session: [u8; 8],
    pub(crate) device: u64,
    /// A root that contains the session up to this delta has it.
    pub(crate) delta: u64,
    /// The file that had it.
    number: u64,
    /// That file is there, and is shorter: it may not be that it has served.
    pub(crate) is_cut: bool,
}

/// The file, and what it says by now.
#[derive(Default)]
pub(super) struct End {
    file: Option<File>,
    mark: Mark,
    /// Which run of the system this is, once that was asked.
    boot_id: Option<[u8; 16]>,
    /// It can't be had: the journal is as good without it, and only certainty is lost.
    has_failed: bool,
}

impl Mark {
    fn on_written(&mut self, written: &Written, boot_id: [u8; 16]) {
        let Written { writer: (session, device), number, size_bytes, delta, durably } = *written;
        if (self.session, self.device, self.boot_id) != (session, device, boot_id) {
            *self = Mark { session, device, boot_id, ..Mark::default() };
        }
        // Nobody misses a group without changes: what it syncs is before it.
        if delta.is_some() || number != self.noted.number {
            let delta = delta.unwrap_or(0).max(self.noted.delta);
            self.noted = Reached { number, size_bytes, delta };
        }
        // A file that takes the place of one is kept by no less than that was.
        if durably {
            self.kept = self.noted;
        }
    }

    /// What is not in these files. What is only noted a system that was booted anew may have lost.
    fn lacking(&self, boot_id: [u8; 16], files: &[Whole]) -> Option<Lacking> {
        let is_same_system = self.boot_id == boot_id && boot_id != [0; 16];
        let claims = [Some(self.kept), is_same_system.then_some(self.noted)];
        let is_there = |claim: &Reached| {
            files.iter().any(|file| match file.number == claim.number {
                true => file.size_bytes >= claim.size_bytes,
                // Its snapshot took the place of all before it.
                false => file.number > claim.number && file.size_bytes > 0,
            })
        };
        let lacking = claims.into_iter().flatten().filter(|claim| claim.number > 0 && !is_there(claim));
        let claim = lacking.max_by_key(|claim| (claim.delta, claim.size_bytes))?;
        Some(Lacking {
            session: self.session,
            device: self.device,
            delta: claim.delta,
            number: claim.number,
            is_cut: files.iter().any(|file| file.number == claim.number),
        })
    }

    fn encode(&self, register: &RegisterAddress) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &self.session, &self.device.to_le_bytes(), &self.boot_id].concat();
        for Reached { number, size_bytes, delta } in [self.noted, self.kept] {
            [number, size_bytes, delta].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        }
        bytes.extend(checksum(register, &bytes));
        bytes
    }

    fn decode(bytes: &[u8], register: &RegisterAddress) -> Option<Mark> {
        let (body, found) = bytes.split_last_chunk::<8>()?;
        if bytes.len() != SIZE || checksum(register, body) != *found {
            return None;
        }
        let (session, rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
        let (device, rest) = rest.split_first_chunk::<8>()?;
        let (boot_id, rest) = rest.split_first_chunk::<16>()?;
        let numbers: [u64; 6] = std::array::from_fn(|at| {
            rest.as_chunks::<8>().0.get(at).map_or(0, |number| u64::from_le_bytes(*number))
        });
        let reached =
            |at: usize| Reached { number: numbers[at], size_bytes: numbers[at + 1], delta: numbers[at + 2] };
        let (noted, kept) = (reached(0), reached(3));
        Some(Mark { session: *session, device: u64::from_le_bytes(*device), boot_id: *boot_id, noted, kept })
    }
}

fn checksum(register: &RegisterAddress, bytes: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&register.0).update(bytes);
    let mut checksum = [0; 8];
    checksum.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    checksum
}

/// Which run of the system this is; zeros where that is not known.
fn boot_id() -> [u8; 16] {
    let text = fs::read(BOOT_ID, 64).unwrap_or_default();
    let mut digits = text.iter().filter_map(|byte| char::from(*byte).to_digit(16));
    std::array::from_fn(|_| (digits.next().unwrap_or(0) << 4 | digits.next().unwrap_or(0)) as u8)
}

impl Journal {
    fn end_path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// A group was written: says so, for whoever looks after this process has ended.
    ///
    /// # Suspends
    ///
    /// As a rule not at all: the page cache takes it at once.
    pub(super) fn note_end(&self, files: &mut Files, written: &Written) {
        let end = &mut files.end;
        let boot_id = *end.boot_id.get_or_insert_with(boot_id);
        end.mark.on_written(written, boot_id);
        self.write_end(end);
    }

    /// Says that nothing that was acknowledged is in the files alone.
    ///
    /// # Suspends
    ///
    /// As [`Journal::note_end`].
    pub(super) fn clear_end(&self, files: &mut Files) {
        files.end.mark = Mark::default();
        self.write_end(&mut files.end);
    }

    fn write_end(&self, end: &mut End) {
        if end.has_failed {
            return;
        }
        let open = || OpenOptions::new().write(true).create(true).mode(0o600).open(self.end_path());
        let opened = end.file.take().map_or_else(open, Ok);
        let written = opened.and_then(|file| {
            file.write_chunk_at(Bytes::from(end.mark.encode(&self.register)), 0)?;
            end.file = Some(file);
            Ok(())
        });
        if let Err(error) = written {
            tracing::debug!(%error, "how far the journal reaches is not said beside it");
            end.has_failed = true;
            // What is not kept up to date must not be believed.
            let _ = fs::remove_file(self.end_path());
        }
    }

    /// What was said of the journal before it is read: whoever uses it may go on meanwhile.
    pub(super) fn read_end(&self) -> Option<Mark> {
        let bytes = fs::read(self.end_path(), SIZE + 1).ok()?;
        Mark::decode(&bytes, &self.register)
    }

    pub(super) fn note_lacking(&self, mark: Option<Mark>, files: &[Whole]) {
        self.lacking.set(mark.and_then(|mark| mark.lacking(boot_id(), files)));
    }

    /// What was acknowledged, and is not in what the last [`Journal::replay`] read.
    pub(crate) fn lacking(&self) -> Option<Lacking> {
        self.lacking.get()
    }

    /// Keeps what there is of the journal that lost its end under other names, for people: or a file that says so, where there is nothing.
    /// Returns the first.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`].
    ///
    /// # Suspends
    ///
    /// Until it is kept for good.
    pub(crate) fn keep_lacking(&self, files: &mut Files, lacking: Lacking) -> Result<PathBuf, JournalError> {
        let kept = match self.keep_aside(&files.found)? {
            Some(kept) => kept,
            None => {
                let Lacking { number, .. } = lacking;
                let kept = self.directory.join(format!("damaged-{number:016x}-0"));
                let words =
                    format!("The journal's file journal-{number:016x} had changes, and was not there.\n");
                fs::write_atomically(&kept, words, 0o600).map_err(|error| self.error(error))?;
                kept
            }
        };
        // From here on that name tells it.
        self.clear_end(files);
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: [u8; 16] = [5; 16];

    fn written(number: u64, size_bytes: u64, delta: u64, durably: bool) -> Written {
        Written { writer: ([1; 8], 2), number, size_bytes, delta: Some(delta), durably }
    }

    fn lacks(mark: &Mark, boot_id: [u8; 16], files: &[(u64, u64)]) -> Option<u64> {
        let whole = |(number, size_bytes): &(u64, u64)| Whole { number: *number, size_bytes: *size_bytes };
        let files: Vec<Whole> = files.iter().map(whole).collect();
        mark.lacking(boot_id, &files).map(|lacking| lacking.delta)
    }

    #[test]
    fn what_was_acknowledged_is_asked_for_and_no_more() {
        let mut mark = Mark::default();
        assert_eq!(lacks(&mark, BOOT, &[]), None);
        mark.on_written(&written(3, 100, 7, true), BOOT);
        mark.on_written(&written(3, 250, 9, false), BOOT);
        assert_eq!(lacks(&mark, BOOT, &[(3, 250)]), None);
        assert_eq!(lacks(&mark, BOOT, &[(3, 400)]), None, "a group whose mark was not written");
        assert_eq!(lacks(&mark, BOOT, &[(3, 249)]), Some(9));
        assert_eq!(lacks(&mark, BOOT, &[]), Some(9));
        assert_eq!(lacks(&mark, BOOT, &[(2, 900)]), Some(9), "an older one");
        assert_eq!(lacks(&mark, BOOT, &[(4, 50)]), None, "a snapshot whose mark was not written");
        assert_eq!(lacks(&mark, BOOT, &[(3, 100), (4, 0)]), Some(9), "one that is torn");
        // A power cut leaves what was synced.
        for other in [[6; 16], [0; 16]] {
            assert_eq!(lacks(&mark, other, &[(3, 100)]), None);
            assert_eq!(lacks(&mark, other, &[(3, 99)]), Some(7));
        }
        // A head without changes adds nothing to what a root has to have.
        mark.on_written(&Written { delta: None, ..written(3, 300, 0, false) }, BOOT);
        assert_eq!(lacks(&mark, BOOT, &[(3, 250)]), None);
        assert_eq!(lacks(&mark, BOOT, &[]), Some(9));
        // But all that is before it is durable then.
        mark.on_written(&Written { delta: None, ..written(3, 300, 0, true) }, BOOT);
        assert_eq!(lacks(&mark, [6; 16], &[(3, 249)]), Some(9));
        // The next session's are its own.
        mark.on_written(&Written { writer: ([8; 8], 2), ..written(4, 60, 1, false) }, BOOT);
        assert_eq!((lacks(&mark, BOOT, &[]), lacks(&mark, [6; 16], &[])), (Some(1), None));
    }

    #[test]
    fn a_mark_is_read_back_whole_and_of_its_own_volume() {
        let mut mark = Mark::default();
        mark.on_written(&written(3, 100, 7, true), BOOT);
        mark.on_written(&written(3, 250, 9, false), BOOT);
        let (register, other) = (RegisterAddress([1; 32]), RegisterAddress([2; 32]));
        let bytes = mark.encode(&register);
        assert_eq!((bytes.len(), Mark::decode(&bytes, &register)), (SIZE, Some(mark)));
        assert_eq!(Mark::decode(&bytes, &other), None);
        for at in 0..SIZE {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert_eq!(Mark::decode(&flipped, &register), None);
            assert_eq!(Mark::decode(&bytes[..at], &register), None);
        }
    }
}
