//! A coroutine's stack as text: which of a backtrace's lines are its own.
//!
//! A backtrace begins with the frames that take it, and ends with those of whoever resumed the coroutine. Two functions
//! of `coroutine::frames` are the marks between. The backtrace's text is all that the standard library gives; where it
//! has no symbols, or another form one day, everything is shown.

use std::backtrace::Backtrace;
use std::fmt;
use std::sync::Arc;

/// What stands in the names of the functions that take the backtrace.
const FIRST_MARK: &str = "coroutine_tells_its_frames";
/// What stands in the name of the function that all of a coroutine's code is called by.
const LAST_MARK: &str = "coroutine_begins";

/// The calls that a coroutine is in, innermost first.
///
/// They are looked up in the program's symbols when they are shown (`Display`): some tens of milliseconds the first time,
/// and best done on another thread where that matters.
#[derive(Clone)]
pub struct Stack(Arc<Backtrace>);

impl Stack {
    pub(super) fn new(backtrace: Backtrace) -> Stack {
        Stack(Arc::new(backtrace))
    }
}

/// The lines of `text` between the marks.
fn own_lines(text: &str) -> impl Iterator<Item = &str> {
    // A frame's place stands in a line below its name.
    let is_place = |line: &&str| line.trim_start().starts_with("at ");
    let marked = text.lines().enumerate().filter(|(_, line)| line.contains(FIRST_MARK));
    let after_first = marked.last().map_or(0, |(index, _)| index + 1);
    let own = text.lines().skip(after_first).take_while(|line| !line.contains(LAST_MARK));
    own.skip_while(move |line| after_first > 0 && is_place(line))
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        for (index, line) in own_lines(&text).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_between_the_marks_are_a_coroutines_own() {
        let text = "   0: std::backtrace::create\n   1: reactor::coroutine_tells_its_frames\n             at a.rs:1\n   1: \
                    coroutine_tells_its_frames_when_asked\n             at a.rs:9\n   \
                    2: park_on\n             at b.rs:2\n   3: user::waits\n   4: coroutine_begins<()>\n             at \
                    c.rs:3\n   5: reactor::resume";
        let own: Vec<_> = own_lines(text).collect();
        assert_eq!(own, ["   2: park_on", "             at b.rs:2", "   3: user::waits"]);
    }

    #[test]
    fn without_symbols_everything_is_shown() {
        let text = "   0: <unknown>\n   1: <unknown>";
        assert_eq!(own_lines(text).count(), 2);
        assert_eq!(own_lines("disabled backtrace").collect::<Vec<_>>(), ["disabled backtrace"]);
    }
}
