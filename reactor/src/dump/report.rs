//! A dump with stacks for a log: short, however many coroutines there are.
//!
//! Thousands of coroutines wait in a few places. So each place is told once, with those that are there, the fullest first;
//! and no more of them than a log has room for beside its history.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Dump;

/// Text of stacks that goes into a log: a quarter of what the smaller logs keep (1 MiB), and some hundred stacks.
const STACKS_BYTES_MAX: usize = 256 * 1024;

/// Lines of coroutines that go into a log: some thousand, those first that have lived longest.
const LINES_BYTES_MAX: usize = 128 * 1024;

/// Coroutines that are named for one stack; the others are counted.
const NAMED_MAX: usize = 20;

/// The events that tell it: first a line for each coroutine, then the stacks.
pub(super) fn write(mut dump: Dump) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for entry in &mut dump.coroutines {
        if let Some(stack) = entry.stack.take() {
            places.entry(stack.to_string()).or_default().push(entry.number);
        }
    }
    let mut places: Vec<_> = places.into_iter().collect();
    places.sort_by_key(|(_, who)| std::cmp::Reverse(who.len()));
    let mut events = vec![lines(&dump)];
    events.extend(within_limit(places));
    events
}

/// A line for each coroutine, as far as there is room.
fn lines(dump: &Dump) -> String {
    let mut text = format!("{} coroutines", dump.coroutines.len());
    for (told, entry) in dump.coroutines.iter().enumerate() {
        let line = entry.to_string();
        if text.len() + line.len() > LINES_BYTES_MAX {
            let _ =
                write!(text, "\n  and {} more: a dump as a value has them all", dump.coroutines.len() - told);
            break;
        }
        let _ = write!(text, "\n  {line}");
    }
    text
}

fn within_limit(places: Vec<(String, Vec<u64>)>) -> Vec<String> {
    let mut events = Vec::new();
    let mut room = STACKS_BYTES_MAX;
    let mut left_out = 0;
    for (stack, who) in places {
        let event = format!("{}:\n{stack}", title(&who));
        // A recursion may be long enough for all the room; what comes behind it is told nevertheless.
        match room.checked_sub(event.len()) {
            Some(left) => {
                room = left;
                events.push(event);
            }
            None => left_out += 1,
        }
    }
    if left_out > 0 {
        events.push(format!("{left_out} more stacks are left out: a dump as a value has them all"));
    }
    events
}

fn title(who: &[u64]) -> String {
    let mut title = match who.len() {
        1 => "a coroutine is here".to_owned(),
        count => format!("{count} coroutines are here"),
    };
    for (index, number) in who.iter().take(NAMED_MAX).enumerate() {
        let _ = write!(title, "{} #{number}", if index == 0 { "," } else { "" });
    }
    if who.len() > NAMED_MAX {
        title += " and others";
    }
    title
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::{CoroutineDump, CoroutineState};

    #[test]
    fn a_stack_is_told_once_with_those_who_are_there() {
        let events = within_limit(vec![("sleeps".into(), (1..=30).collect()), ("reads".into(), vec![31])]);
        assert!(
            events[0].starts_with("30 coroutines are here, #1 #2 ") && events[0].contains("#20 and others")
        );
        assert!(events[0].ends_with(":\nsleeps"));
        assert_eq!(events[1..], ["a coroutine is here, #31:\nreads"]);
    }

    #[test]
    fn ten_thousand_coroutines_are_no_more_than_a_log_holds() {
        let entry = |number| CoroutineDump {
            number,
            name: format!("a connection of client {number}"),
            state: CoroutineState::Runnable,
            is_terminated: false,
            spawned_at: "src/server.rs:17".into(),
            parent: None,
            is_scoped: false,
            stack_size_bytes: 1 << 18,
            stack_used_bytes: None,
            stack: None,
        };
        let dump = |count| Dump { coroutines: (0..count).map(entry).collect() };
        let few = write(dump(3));
        assert_eq!((few.len(), few[0].lines().count()), (1, 4));
        let many = write(dump(10_000));
        assert_eq!(many.len(), 1);
        assert!(many[0].starts_with("10000 coroutines") && many[0].len() < LINES_BYTES_MAX + 100);
        let told = many[0].lines().count() - 2;
        assert!(many[0].ends_with(&format!("and {} more: a dump as a value has them all", 10_000 - told)));
    }

    #[test]
    fn what_a_log_has_no_room_for_is_counted() {
        let places = (0..1_000).map(|n| (format!("{n:06000}"), vec![n])).collect();
        let events = within_limit(places);
        let told: usize = events.iter().map(String::len).sum();
        assert!(told < STACKS_BYTES_MAX + 1_000, "{told}");
        let left_out = 1_000 - (events.len() - 1);
        assert!(events.last().unwrap().starts_with(&format!("{left_out} more stacks are left out")));

        let events = within_limit(vec![("x".repeat(STACKS_BYTES_MAX), vec![1]), ("waits".into(), vec![2])]);
        assert_eq!(events[0], "a coroutine is here, #2:\nwaits");
        assert!(events[1].starts_with("1 more stacks are left out"), "the long one");
    }
}
