//! What is said when this user may do less in a space than before, or more again, while the drive is mounted.
//!
//! A volume knows it from the list in its root (`filesystem::volume::Cause`), and refuses from that moment on. Here it is said, once
//! and in plain words: what holds now, what becomes of what was written, and whom to ask.

use std::time::Duration;

use filesystem::format::Shown;
use filesystem::volume::{Cause, Pending};

use super::Spaces;
use crate::output::say;
use crate::progress::{files_in_words, human_bytes};
use crate::waits;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(1);

impl Spaces {
    /// Says of each space that is open when nothing is taken in it any more, and when it is again, for as long as it runs.
    ///
    /// # Suspends
    /// For ever.
    pub(crate) fn tell_of_rights(&self) {
        loop {
            reactor::sleep(INTERVAL);
            let mut told = Vec::new();
            for opened in self.state.opened.borrow().iter() {
                let now = opened.volume.shut_for();
                let before = opened.told.replace(now);
                if before != now {
                    told.push((opened.directory.path().to_owned(), now));
                    let way_out = waits::way_out(&self.directory);
                    let was_writer = opened.was_writer.replace(opened.was_writer.get() || now.is_none());
                    let name = Shown::of(&opened.name);
                    match was_writer {
                        false if now.is_none() => {
                            say(format_args!("you may write to the space {name} now: its list says so"))
                        }
                        _ => say_it(&name, before, now, opened.volume.pending(), &way_out),
                    }
                }
            }
            reactor::offload(move || {
                told.iter().for_each(|(directory, cause)| waits::note(directory, *cause))
            });
        }
    }
}

fn say_it(name: &Shown, before: Option<Cause>, now: Option<Cause>, pending: Pending, way_out: &str) {
    let words = match (before, now) {
        (_, Some(Cause::ReadsOnly)) => format!(
            "you may only read the space {name} now: its list says so. What is written there from now on is refused (EROFS), what \
             others write is shown"
        ),
        (_, Some(Cause::TakenOff)) => format!(
            "the space {name} is not sealed to you any more: its owner took you off its list, or one of its writers did that. What is \
             written there from now on is refused (EKEYREVOKED), and what others write is not shown"
        ),
        // That is said of the whole drive.
        (_, Some(_)) => return,
        (_, None) => {
            return say(format_args!(
                "you may write to the space {name} again: what waits there is being stored"
            ));
        }
    };
    let waiting = match pending.bytes {
        0 => String::new(),
        bytes => format!(
            "; what you wrote before and the nodes do not have, {} in {}, waits on this machine: {way_out}",
            human_bytes(bytes),
            files_in_words(pending.file_count)
        ),
    };
    let way_back = match now {
        Some(Cause::TakenOff) => {
            "if you are to have it, and mount the drive again then: this mount does not come back to it"
        }
        _ => "if you are to write there",
    };
    say(format_args!("{words}{waiting}; ask the drive's owner to `share` it with you {way_back}"));
}
