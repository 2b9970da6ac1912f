//! One thread that waits for all children nobody waits for any more, so that none stays a zombie.
//!
//! It starts with the first such child and stays. A coroutine would not do: it ends with its `run`, and a destructor
//! may not start one.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

struct Reaper {
    children: Sender<OwnedFd>,
    wake: OwnedFd,
}

static REAPER: Mutex<Option<Reaper>> = Mutex::new(None);

/// Takes a child's end, if it has ended, so that the kernel may forget it. Never blocks.
pub(super) fn try_reap(child: impl AsFd) -> io::Result<Option<ExitStatus>> {
    use std::os::unix::process::ExitStatusExt;
    let status = waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
    Ok(status.map(|status| {
        // As wait(2) writes it: the code above the low byte, or the signal.
        let code = status.exit_status().map(|code| (code & 0xff) << 8);
        ExitStatus::from_raw(code.or_else(|| status.terminating_signal()).unwrap_or_default())
    }))
}

/// Reaps `child` when it ends.
pub(super) fn hand_over(child: OwnedFd) {
    if !matches!(try_reap(&child), Ok(None)) {
        return;
    }
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    let started = match &*reaper {
        Some(_) => Ok(()),
        None => start().map(|started| *reaper = Some(started)),
    };
    match (started, &*reaper) {
        (Ok(()), Some(reaper)) => {
            let _ = reaper.children.send(child);
            let _ = rustix::io::write(&reaper.wake, &1u64.to_ne_bytes());
        }
        // It stays a zombie until our process ends: without threads or descriptors there is no better.
        (error, _) => tracing::error!("no thread to reap child processes: {error:?}"),
    }
}

fn start() -> io::Result<Reaper> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let (children, incoming) = mpsc::channel();
    let woken = wake.try_clone()?;
    thread::Builder::new().name("reaper".into()).spawn(move || reap(&woken, &incoming))?;
    Ok(Reaper { children, wake })
}

fn reap(woken: &OwnedFd, incoming: &Receiver<OwnedFd>) {
    let mut children: Vec<OwnedFd> = Vec::new();
    loop {
        let mut fds = vec![PollFd::new(woken, PollFlags::IN)];
        fds.extend(children.iter().map(|child| PollFd::new(child, PollFlags::IN)));
        if poll(&mut fds, None).is_err() {
            // Interrupted, or short of memory: look again, and not in haste.
            thread::sleep(Duration::from_millis(10));
        }
        let _ = rustix::io::read(woken, &mut [0u8; 8]);
        children.extend(incoming.try_iter());
        children.retain(|child| matches!(try_reap(child), Ok(None)));
    }
}
