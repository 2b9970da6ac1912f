//! A child process, as its parent holds it.

use std::cell::Cell;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitStatus;

use rustix::process::{Pid, PidfdFlags, Signal as Number, pidfd_open, pidfd_send_signal};

use super::reaper::{hand_over, try_reap};
use super::{PipeReader, PipeWriter};
use crate::cell::RefCell;
use crate::coroutine::begin;
use crate::net::Descriptor;
use crate::scope::scope;
use crate::signals::Signal;
use crate::sync::{Sender, channel};

/// How a program ended, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// Its exit code, or the signal that ended it.
    pub status: ExitStatus,
    /// What it wrote to its standard output, where that was piped.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error, where that was piped.
    pub stderr: Vec<u8>,
}

/// The process itself: who it is and what its parent's end means for it. On drop it is seen to.
struct Process {
    pid: Pid,
    /// Names the process until it is reaped, for as long as this is open.
    pidfd: Option<OwnedFd>,
    own_group: bool,
    leave_running: bool,
}

impl Process {
    fn signal(&self, number: Number) -> io::Result<()> {
        let Some(pidfd) = &self.pidfd else { return Ok(()) };
        let sent = if self.own_group {
            // The group keeps its leader's number for as long as that one is not reaped, and more are in it.
            rustix::process::kill_process_group(self.pid, number)
        } else {
            pidfd_send_signal(pidfd, number)
        };
        match sent {
            // It has ended, and only the reaping is left.
            Err(rustix::io::Errno::SRCH) => Ok(()),
            result => Ok(result?),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.pidfd.is_some() && !self.leave_running {
            // It can fail only for a program that changed its user: then it is left running.
            let _ = self.signal(Number::KILL);
        }
        if let Some(pidfd) = self.pidfd.take() {
            hand_over(pidfd);
        }
    }
}

/// A child that was just started, on its way to the reactor's thread: dropped on that way it is seen to as well.
pub(super) struct Started {
    process: Process,
    watch: OwnedFd,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Started {
    pub(super) fn new(
        mut child: std::process::Child,
        own_group: bool,
        leave_running: bool,
    ) -> io::Result<Started> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process has a number");
        let opened = pidfd_open(pid, PidfdFlags::NONBLOCK).or_else(|error| match error {
            // Linux 5.3 to 5.9 know the call, and not the flag.
            rustix::io::Errno::INVAL => pidfd_open(pid, PidfdFlags::empty()),
            error => Err(error),
        });
        let pidfd = match opened {
            Ok(pidfd) => pidfd,
            Err(error) => {
                // Without it nobody could wait for the child.
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.into());
            }
        };
        let process = Process { pid, pidfd: Some(pidfd), own_group, leave_running };
        let watch = process.pidfd.as_ref().expect("just opened").try_clone()?;
        Ok(Started {
            process,
            watch,
            stdin: child.stdin.take().map(OwnedFd::from),
            stdout: child.stdout.take().map(OwnedFd::from),
            stderr: child.stderr.take().map(OwnedFd::from),
        })
    }

    pub(super) fn into_child(self) -> io::Result<Child> {
        Ok(Child {
            process: self.process,
            watch: Descriptor::new(self.watch)?,
            status: Cell::new(None),
            stdin: self.stdin.map(PipeWriter::new).transpose()?,
            stdout: self.stdout.map(PipeReader::new).transpose()?,
            stderr: self.stderr.map(PipeReader::new).transpose()?,
        })
    }
}

/// A child process. Dropping it kills the child, unless [`super::Command::leave_running`] was said; it is reaped
/// either way.
pub struct Child {
    process: Process,
    watch: Descriptor,
    status: Cell<Option<ExitStatus>>,
    /// What it reads from, if that is piped. Take and drop it to let the child see the end.
    pub stdin: Option<PipeWriter>,
    /// What it writes to, if that is piped. A child that writes and is not read from waits for ever.
    pub stdout: Option<PipeReader>,
    /// What it writes errors to, if that is piped.
    pub stderr: Option<PipeReader>,
}

impl Child {
    /// Its number.
    pub fn id(&self) -> u32 {
        self.process.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until it has ended; at once if it has. Several coroutines may wait.
    ///
    /// Being terminated in here leaves the child as it is: the next call waits again.
    ///
    /// Unlike the standard library's, it does not close [`Child::stdin`], for others may write to it meanwhile: take and
    /// drop that first, or a child that reads to the end of it waits for ever, and so does this.
    ///
    /// # Errors
    ///
    /// When its end went elsewhere: to a `wait` of other code in this process, or nowhere, SIGCHLD being ignored.
    ///
    /// # Suspends
    ///
    /// Until it has ended.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        let call = begin();
        loop {
            if let Some(status) = self.try_wait()? {
                call.needed_no_wait();
                return Ok(status);
            }
            // The descriptor becomes readable once, when the process has ended.
            self.watch.wait_readable()?;
        }
    }

    /// How it ended, if it has. Never suspends.
    ///
    /// # Errors
    ///
    /// As [`Child::wait`].
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        if self.status.get().is_none() {
            self.status.set(try_reap(&self.watch)?);
        }
        Ok(self.status.get())
    }

    /// Ends it at once, by SIGKILL: it cannot object. [`Child::wait`] then tells that it did. Never suspends.
    ///
    /// # Errors
    ///
    /// `PermissionDenied`, when it runs as another user by now. None when it has ended already.
    pub fn kill(&self) -> io::Result<()> {
        self.send(Number::KILL)
    }

    /// Sends it a signal, which it may heed or not. Never suspends.
    ///
    /// # Errors
    ///
    /// As [`Child::kill`].
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.send(match signal {
            Signal::Interrupt => Number::INT,
            Signal::Terminate => Number::TERM,
            Signal::HangUp => Number::HUP,
            Signal::User1 => Number::USR1,
            Signal::User2 => Number::USR2,
        })
    }

    fn send(&self, number: Number) -> io::Result<()> {
        // Once it is reaped, its number may be anyone's.
        if self.status.get().is_some() { Ok(()) } else { self.process.signal(number) }
    }

    /// Writes `input` to it, reads all that it writes, and waits for its end; all at the same time, so that neither
    /// side waits for the other for ever. Streams that are not piped are left out.
    ///
    /// A child that ends without reading all of its input is no error.
    ///
    /// # Errors
    ///
    /// `FileTooLarge` when it wrote more than `limit_bytes` to a stream: it is killed then, or left, as a drop has it.
    ///
    /// # Suspends
    ///
    /// Until it has ended and closed its streams. Programs that it started may hold those open for longer.
    pub fn communicate(mut self, input: &[u8], limit_bytes: usize) -> io::Result<Output> {
        let (stdin, stdout, stderr) = (self.stdin.take(), self.stdout.take(), self.stderr.take());
        let (output, errors) = (RefCell::default(), RefCell::default());
        scope(|s| {
            let (ended, ends) = channel(3);
            let workers = [
                s.spawn(then_tell(&ended, || match stdin.map(|mut stdin| stdin.write_all(input)) {
                    Some(Err(error)) if error.kind() != ErrorKind::BrokenPipe => Err(error),
                    _ => Ok(()),
                })),
                s.spawn(then_tell(&ended, || read_all(stdout, limit_bytes, &output))),
                s.spawn(then_tell(&ended, || read_all(stderr, limit_bytes, &errors))),
            ];
            for _ in &workers {
                let result = ends.recv().expect("each sends its end");
                if result.is_err() {
                    // The others may wait for ever: the child goes on, or waits for us.
                    workers.iter().for_each(|worker| worker.terminate());
                    return result;
                }
            }
            Ok(())
        })?;
        Ok(Output { status: self.wait()?, stdout: output.into_inner(), stderr: errors.into_inner() })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Nothing is left to be done for one that was reaped, and its number may be another's.
        if self.status.get().is_some() {
            self.process.pidfd = None;
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id()).field("status", &self.status.get()).finish()
    }
}

fn then_tell<'a>(
    ended: &Sender<io::Result<()>>,
    work: impl FnOnce() -> io::Result<()> + 'a,
) -> impl FnOnce() + 'a {
    let ended = ended.clone();
    move || {
        // The receiver is gone only when another has failed.
        let _ = ended.send(work());
    }
}

fn read_all(stream: Option<PipeReader>, limit_bytes: usize, into: &RefCell<Vec<u8>>) -> io::Result<()> {
    let Some(stream) = stream else { return Ok(()) };
    let mut all = Vec::new();
    (&stream).take(limit_bytes as u64 + 1).read_to_end(&mut all)?;
    if all.len() > limit_bytes {
        let message = format!("the child wrote more than {limit_bytes} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, message));
    }
    *into.borrow_mut() = all;
    Ok(())
}
