//! How an end is told to people, and what they can do about it.

use std::fmt;
use std::path::Path;

use filesystem::volume::Cause;

use super::{Outcome, Undoing};
use crate::progress::{amount_in_words, human_bytes};
use crate::waits;

/// The next step; `None` if everything is stored.
pub(super) fn advice(outcome: &Outcome) -> Option<String> {
    Some(match outcome {
        Outcome::Stored => return None,
        Outcome::InJournal { causes, cut_off, directory, .. } => {
            advice_of_waiting(causes, directory, cut_off.is_some())
        }
        Outcome::Lost { .. } => {
            "make room on this machine's disk and on the nodes', then write it again".into()
        }
        Outcome::Damaged { beside, .. } => {
            let of_beside =
                beside.as_deref().and_then(advice).map_or(String::new(), |advice| format!("; {advice}"));
            format!(
                "the log names the inodes (`find . -inum` finds the files): write them anew from where they came from, or \
                 remove them{of_beside}"
            )
        }
        Outcome::JournalDamaged { beside, .. } => {
            let of_beside =
                beside.as_deref().and_then(advice).map_or(String::new(), |advice| format!("; {advice}"));
            format!(
                "look at what was written last before this run, and write anew what is missing; nothing puts in what was kept, and it may \
                 be deleted then{of_beside}"
            )
        }
        Outcome::Undone { why, beside } => {
            let of_beside =
                beside.as_deref().and_then(advice).map_or(String::new(), |advice| format!("; {advice}"));
            let step = match why {
                Undoing::Older { .. } => {
                    "see that the nodes run that have the newer state, or put back a newer copy of their stores, before anything is written; to go \
                     on from what they hold, and lose what was stored since, give `up` or `mount` --accept-rollback"
                }
                Undoing::Copied => {
                    "look in the drive there at what was written here last, and write anew what it does not have"
                }
            };
            format!("{step}{of_beside}")
        }
        Outcome::CutOff { .. } => "mount it again, and look at what was written last".into(),
    })
}

/// What to do about what waits for these reasons in the journal of a client with this directory.
fn advice_of_waiting(causes: &[Cause], directory: &Path, is_cut_off: bool) -> String {
    let mut steps = Vec::new();
    if causes.iter().any(|cause| !cause.is_final()) || causes.is_empty() {
        let begin = if is_cut_off { "" } else { "nothing is lost: " };
        steps.push(format!(
            "{begin}start it again (`up`, or `mount` where it was joined) once the nodes are back and serve it (`status` says what they \
             answer), and that start puts it in"
        ));
    }
    if causes.iter().any(|cause| cause.is_final()) {
        steps.push(format!("what is not taken any more waits: {}", waits::way_out(directory)));
    }
    if causes.iter().any(|cause| matches!(cause, Cause::TakenOff | Cause::ReadsOnly)) {
        steps.push("or ask the drive's owner to `share` the space with you again, and mount the drive: then it is stored".into());
    }
    if is_cut_off {
        steps.push("and look at what was written last elsewhere".into());
    }
    steps.join("; ")
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Stored => write!(f, "everything in it is stored"),
            Outcome::InJournal { bytes, file_count, causes, directory, cut_off } => write!(
                f,
                "not everything is on the nodes ({}): {} wait{} in the journal of {}{}",
                causes.iter().map(Cause::to_string).collect::<Vec<_>>().join("; "),
                amount_in_words(*bytes, *file_count),
                if *file_count == 1 { "s" } else { "" },
                directory.display(),
                cut_off.as_ref().map_or(String::new(), |reason| format!(
                    "; and the connection to the kernel was cut ({reason})"
                ))
            ),
            Outcome::Damaged { file_count, beside } => write!(
                f,
                "parts of {file_count} file{} are lost: no node has them any more, and whoever reads them is told so{}",
                if *file_count == 1 { "" } else { "s" },
                beside.as_ref().map_or(String::new(), |beside| format!("; and {beside}"))
            ),
            Outcome::JournalDamaged { kept, beside } => {
                let kept = kept.display();
                write!(
                    f,
                    "the journal that an earlier run left was damaged: what could not be read of it is not on the nodes, and its files are \
                     kept as {kept} and the like; "
                )?;
                match beside {
                    Some(beside) => beside.fmt(f),
                    None => write!(f, "all else is stored"),
                }
            }
            Outcome::Undone { why, beside } => {
                match why {
                    Undoing::Older { seen, found } => write!(
                        f,
                        "not everything in it is stored: the nodes had taken version {seen} of it, and hold version {found} now; what was \
                         stored in between they do not have any more"
                    )?,
                    Undoing::Copied => write!(
                        f,
                        "whether everything in it is stored is not known: a copy of this home serves, and may not have what this one's \
                         nodes took"
                    )?,
                }
                beside.as_ref().map_or(Ok(()), |beside| write!(f, "; and {beside}"))
            }
            Outcome::Lost { bytes, cause, journal } => write!(
                f,
                "{} of what was written last is lost: the nodes did not take it ({cause}), nor did the journal ({journal})",
                human_bytes(*bytes)
            ),
            Outcome::CutOff { reason } => write!(
                f,
                "all that reached this program is stored, but its connection to the kernel was cut ({reason})"
            ),
        }
    }
}
