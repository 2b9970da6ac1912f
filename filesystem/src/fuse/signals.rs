//! Which signals end a wait: those that end the program, and no others.
//!
//! The kernel sends INTERRUPT for every signal that arrives while a program waits for us, a timer's or a child's too. Had
//! we answered each with `EINTR`, `stat`, `open` and `read` of a regular file would fail where no local file system lets
//! them, whatever `SA_RESTART` says. So we look at what is pending for the thread: a signal that kills it needs our answer
//! at once, and nobody will read that; any other can wait until the call is through.

use std::fs;

/// Signals whose default is to be ignored (`CHLD`, `CONT`, `URG`, `WINCH`) or to stop the process (`STOP`, `TSTP`, `TTIN`,
/// `TTOU`): neither ends a wait.
const HARMLESS: u64 = bits(&[17, 18, 23, 28, 19, 20, 21, 22]);

/// `SIGKILL`. Whatever kills a process without a core file is turned into one for each of its threads.
const KILL: u64 = bits(&[9]);

/// The kernel's set of signals: number 1 is bit 0.
const fn bits(numbers: &[u32]) -> u64 {
    let mut set = 0;
    let mut at = 0;
    while at < numbers.len() {
        set |= 1 << (numbers[at] - 1);
        at += 1;
    }
    set
}

/// Whether thread `pid` is about to die. One that is gone is; of one that we can't see (0) nobody knows, and it waits.
pub(super) fn is_dying(pid: u32) -> bool {
    if pid == 0 {
        return false;
    }
    match fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => is_fatal(&status),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// Whether a signal that kills is pending, by `/proc/PID/status`.
fn is_fatal(status: &str) -> bool {
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
    };
    let pending = set("SigPnd") | set("ShdPnd");
    let handled = set("SigBlk") | set("SigIgn") | set("SigCgt") | HARMLESS;
    pending & (!handled | KILL) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: u64, blocked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tsh\nState:\tD (disk sleep)\nSigQ:\t1/9\nSigPnd:\t{:016x}\nShdPnd:\t{pending:016x}\n\
             SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n",
            0
        )
    }

    #[test]
    fn a_signal_kills_unless_it_is_caught_ignored_blocked_or_harmless() {
        let quit = bits(&[3]);
        assert!(is_fatal(&status(quit, 0, 0, 0)));
        assert!(!is_fatal(&status(quit, quit, 0, 0)));
        assert!(!is_fatal(&status(quit, 0, quit, 0)));
        assert!(!is_fatal(&status(quit, 0, 0, quit)));
        assert!(!is_fatal(&status(bits(&[17, 20, 23]), 0, 0, 0)), "a child, a stop, urgent data");
        assert!(!is_fatal(&status(0, 0, 0, 0)));
    }

    #[test]
    fn nothing_holds_sigkill_off() {
        assert!(is_fatal(&status(KILL, !0, !0, !0)));
        assert!(is_fatal("SigPnd:\t0000000000000100\n"));
    }

    #[test]
    fn a_thread_that_is_gone_waits_for_nothing_and_an_invisible_one_may() {
        assert!(!is_dying(std::process::id()));
        // Above the greatest number that Linux gives out.
        assert!(is_dying(1 << 23));
        assert!(!is_dying(0));
    }
}
