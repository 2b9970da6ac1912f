//! Signals that a program took over do what they did before when it lets go of them: Ctrl-C ends the process again.
//!
//! In a child process each, which is this test again.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use reactor::signals::{Signal, Signals};
use reactor::{run, sleep, timeout};

const CHILD: &str = "HYPHA_TEST_SIGNALS_ARE_GIVEN_BACK";

fn again(test: &str, through: Option<&str>) -> ExitStatus {
    let this = std::env::current_exe().unwrap();
    let mut command = match through {
        Some(program) => {
            let mut command = Command::new(program);
            command.arg(this);
            command
        }
        None => Command::new(this),
    };
    command.args(["--exact", test]).env(CHILD, "1").process_group(0).status().unwrap()
}

fn raise(signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
}

#[test]
fn a_signal_that_was_let_go_of_ends_the_process_as_it_does_by_default() {
    if std::env::var_os(CHILD).is_some() {
        return run(|| {
            let (first, second) = (Signals::new(&[Signal::Terminate]), Signals::new(&[Signal::Terminate]));
            let (first, second) = (first.unwrap(), second.unwrap());
            raise(rustix::process::Signal::TERM);
            assert_eq!((first.wait(), second.wait()), (Signal::Terminate, Signal::Terminate), "each is told");
            drop(first);
            raise(rustix::process::Signal::TERM);
            assert_eq!(second.wait(), Signal::Terminate);
            drop(second);
            let third = Signals::new(&[Signal::Terminate]).unwrap();
            raise(rustix::process::Signal::TERM);
            assert_eq!(third.wait(), Signal::Terminate, "taken again");
            drop(third);
            raise(rustix::process::Signal::TERM);
            sleep(Duration::from_secs(60));
        });
    }
    let status = again("a_signal_that_was_let_go_of_ends_the_process_as_it_does_by_default", None);
    assert_eq!(status.signal(), Some(15), "{status}");
}

#[test]
fn a_signal_that_was_ignored_before_is_ignored_after() {
    if std::env::var_os(CHILD).is_some() {
        return run(|| {
            let signals = Signals::new(&[Signal::HangUp]).unwrap();
            raise(rustix::process::Signal::HUP);
            assert_eq!(signals.wait(), Signal::HangUp);
            drop(signals);
            raise(rustix::process::Signal::HUP);
            assert!(timeout(Duration::from_millis(20), || sleep(Duration::from_secs(60))).is_err());
        });
    }
    let status = again("a_signal_that_was_ignored_before_is_ignored_after", Some("nohup"));
    assert!(status.success(), "{status}");
}
