//! What happened, twice: as a hash that two runs are compared by, and as a story that people read.
//!
//! The hash takes in times, actors and sizes; never contents (a key's bytes may differ) and never addresses in
//! memory. The story is kept only for runs that are going to be told.

use std::time::Duration;

/// Lines of a story: a run that needs more is not readable anyway, and its end is what matters.
const LINES_MAX: usize = 10_000;

/// What kind of event the hash takes in.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(super) enum What {
    Run = 1,
    Send,
    Arrive,
    Connect,
    Start,
    Crash,
    Link,
    Disk,
    Test,
    Clock,
    Router,
}

/// The record of one run.
pub(super) struct Trace {
    hash: u64,
    story: Option<Story>,
}

#[derive(Default)]
struct Story {
    lines: Vec<String>,
    dropped_count: usize,
}

impl Trace {
    pub(super) fn new(tell: bool) -> Trace {
        // FNV-1a's offset basis.
        Trace { hash: 0xcbf2_9ce4_8422_2325, story: tell.then(Story::default) }
    }

    pub(super) fn note(&mut self, at: Duration, what: What, who: u64, size: u64) {
        for word in [at.as_nanos() as u64, what as u64, who, size] {
            // FNV-1a by words, with a rotation that brings high bits down.
            self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn is_telling(&self) -> bool {
        self.story.is_some()
    }

    pub(super) fn tell(&mut self, at: Duration, line: &str) {
        let Some(story) = &mut self.story else { return };
        if story.lines.len() >= LINES_MAX {
            // Keep the end: it is nearest to the failure. In halves, so that it costs little on average.
            story.dropped_count += LINES_MAX / 2;
            story.lines.drain(..LINES_MAX / 2);
        }
        story.lines.push(format!("{:>14}  {line}", format_time(at)));
    }

    /// The story so far, one event a line.
    pub(super) fn story(&self) -> String {
        let Some(story) = &self.story else { return String::new() };
        let mut text = String::new();
        if story.dropped_count > 0 {
            text += &format!("({} earlier lines left out)\n", story.dropped_count);
        }
        for line in &story.lines {
            text += line;
            text.push('\n');
        }
        text
    }
}

/// Milliseconds with three decimals: what people compare latencies in.
pub(super) fn format_time(at: Duration) -> String {
    format!("{}.{:03} ms", at.as_millis(), at.as_micros() % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_keeps_its_end() {
        let mut trace = Trace::new(true);
        for n in 0..LINES_MAX + 1 {
            trace.tell(Duration::from_micros(n as u64), &format!("event {n}"));
        }
        let story = trace.story();
        assert!(story.starts_with("(5000 earlier lines left out)\n"));
        assert!(story.ends_with("     10.000 ms  event 10000\n"));
    }

    #[test]
    fn the_hash_sees_order_time_and_size() {
        let hash = |events: &[(u64, u64)]| {
            let mut trace = Trace::new(false);
            for &(at, size) in events {
                trace.note(Duration::from_nanos(at), What::Test, 1, size);
            }
            trace.hash()
        };
        assert_eq!(hash(&[(1, 2), (3, 4)]), hash(&[(1, 2), (3, 4)]));
        assert_ne!(hash(&[(1, 2), (3, 4)]), hash(&[(3, 4), (1, 2)]));
        assert_ne!(hash(&[(1, 2)]), hash(&[(2, 2)]));
        assert_ne!(hash(&[(1, 2)]), hash(&[(1, 3)]));
    }
}
