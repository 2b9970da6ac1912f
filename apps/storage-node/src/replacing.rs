//! Having another node keep the drive's root in the place of one that is gone, without being asked.
//!
//! Only its owner's word moves the root, so this runs with the drives of whoever has that key, and nowhere else. A node that
//! was away for a grace is replaced, if it was the node and not our line (`dht::absence`), and if another one is there that
//! can keep the root; otherwise that is said once, and tried again later.
//!
//! A move that has begun is let end, also when the drive ends: what was sealed and not installed would wait for the owner's
//! next start, and nobody could read the drive meanwhile.

use std::rc::Rc;
use std::time::{Duration, Instant};

use dht::absence::Absence;
use overlay::NodeId;
use reactor::JoinHandle;

use crate::gc::Span;
use crate::nodes::Nodes;
use crate::output::say;
use crate::seen::{Keeper, Seen};

/// Restarts and cut cables take minutes; that two nodes die within a quarter of an hour is another matter than within years.
const GRACE: Duration = Duration::from_secs(15 * 60);
/// The shortest and the longest time between two looks: small calls to a few nodes.
const INTERVAL_MIN: Duration = Duration::from_millis(500);
const INTERVAL_MAX: Duration = Duration::from_secs(30);
/// A look takes some seconds where somebody does not answer, and a busy machine may be late.
const LATE: Duration = Duration::from_secs(15);
/// The longest pause before what failed is tried again: it holds up the drive's writes.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Goes on until it is stopped.
pub(crate) struct Replacing {
    coroutine: JoinHandle<()>,
}

impl Replacing {
    /// Begins for the register that was opened with `seen`, which people call `what`; not at all if `grace` is zero.
    pub(crate) fn start(seen: &Seen, what: String, nodes: Nodes, grace: Option<Span>) -> Option<Replacing> {
        let grace = grace.map_or(GRACE, |grace| grace.0);
        if grace.is_zero() {
            return None;
        }
        let owner = Owner { keeper: seen.keeper(), what, nodes, grace };
        Some(Replacing { coroutine: reactor::spawn(move || owner.run()) })
    }

    /// Ends it.
    ///
    /// # Suspends
    /// Until a move that has begun has ended.
    pub(crate) fn stop(self) {
        self.coroutine.terminate();
        let _ = self.coroutine.join();
    }
}

struct Owner {
    keeper: Rc<Keeper>,
    what: String,
    nodes: Nodes,
    grace: Duration,
}

impl Owner {
    fn run(&self) {
        let interval = (self.grace / 8).clamp(INTERVAL_MIN, INTERVAL_MAX);
        let mut absence = Absence::new(self.grace, interval * 2 + LATE);
        let (mut pause, mut not_before, mut told) = (interval, None::<Instant>, None);
        loop {
            reactor::sleep(interval);
            let (client, register) = (self.keeper.client(), self.keeper.register());
            let (Ok(before), Ok(presence)) = (client.membership(register), client.presence(register)) else {
                continue;
            };
            let now = reactor::now();
            let gone = absence.on_look(&presence, before.quorum().needed, now);
            if gone.is_empty() {
                (pause, not_before, told) = (interval, None, None);
                continue;
            }
            if not_before.is_some_and(|at| now < at) {
                continue;
            }
            match client.replace_members(register, &gone) {
                Ok(after) => {
                    absence.on_replaced(now);
                    self.tell(&gone, after.members());
                }
                Err(error) => {
                    pause = (pause * 2).min(PAUSE_MAX);
                    not_before = Some(now + pause);
                    // As long as there is no other node, that is so at every look.
                    let words = error.to_string();
                    if told.as_ref() != Some(&words) {
                        say(format_args!(
                            "{} keeps {}, has not answered for {}, and can't be replaced: {words}",
                            self.nodes.names(&gone),
                            self.what,
                            Span(self.grace)
                        ));
                    }
                    told = Some(words);
                }
            }
        }
    }

    fn tell(&self, gone: &[NodeId], keepers: &[NodeId]) {
        say(format_args!(
            "{} has not answered for {}: {} keep {} now",
            self.nodes.names(gone),
            Span(self.grace),
            self.nodes.names(keepers),
            self.what
        ));
        // Not for the drive: it goes on, and so does whoever looks for the root. It is written down again and again.
        if let Err(failure) = self.keeper.remember_keepers() {
            say(failure);
        }
    }
}
