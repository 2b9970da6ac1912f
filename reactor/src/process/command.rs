//! What to start, and how.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use super::child::{Child, Output, Started};
use crate::coroutine;
use crate::offload::{Kind, offload_as};

/// What one of a child's three standard streams is.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// The same as ours.
    #[default]
    Inherit,
    /// Nothing to read; what is written is lost.
    Null,
    /// A pipe, whose other end is the [`Child`]'s.
    Piped,
    /// This descriptor: a file (`std::fs::File::into`), a socket. It should be a blocking one.
    Descriptor(OwnedFd),
}

impl From<Stdio> for std::process::Stdio {
    fn from(stdio: Stdio) -> std::process::Stdio {
        match stdio {
            Stdio::Inherit => std::process::Stdio::inherit(),
            Stdio::Null => std::process::Stdio::null(),
            Stdio::Piped => std::process::Stdio::piped(),
            Stdio::Descriptor(fd) => fd.into(),
        }
    }
}

/// A program to be started, with its arguments and surroundings.
///
/// The child inherits our environment, working directory and standard streams unless told otherwise, and no other
/// descriptor of ours.
#[derive(Debug)]
#[must_use = "a command does nothing until it is spawned"]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    clear_env: bool,
    env: BTreeMap<OsString, Option<OsString>>,
    current_dir: Option<PathBuf>,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
    own_group: bool,
    leave_running: bool,
}

impl Command {
    /// A program by its path, or by its name, which is looked for in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            clear_env: false,
            env: BTreeMap::new(),
            current_dir: None,
            stdin: None,
            stdout: None,
            stderr: None,
            own_group: false,
            leave_running: false,
        }
    }

    /// Adds an argument. No shell sees it: spaces and quotes are themselves.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Command {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Command {
        self.env.insert(name.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Takes a variable out of the environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Command {
        self.env.insert(name.as_ref().to_owned(), None);
        self
    }

    /// Begins with an empty environment instead of ours.
    pub fn env_clear(mut self) -> Command {
        self.clear_env = true;
        self.env.clear();
        self
    }

    /// The working directory.
    pub fn current_dir(mut self, path: impl AsRef<Path>) -> Command {
        self.current_dir = Some(path.as_ref().to_owned());
        self
    }

    /// What it reads from.
    pub fn stdin(mut self, stdio: Stdio) -> Command {
        self.stdin = Some(stdio);
        self
    }

    /// What it writes to.
    pub fn stdout(mut self, stdio: Stdio) -> Command {
        self.stdout = Some(stdio);
        self
    }

    /// What it writes errors to.
    pub fn stderr(mut self, stdio: Stdio) -> Command {
        self.stderr = Some(stdio);
        self
    }

    /// Puts the child in a process group of its own. Signals, and the kill when it is dropped, then reach those that it
    /// started too, as long as its own end has not been waited for; and Ctrl-C in our terminal reaches none of them.
    pub fn own_group(mut self) -> Command {
        self.own_group = true;
        self
    }

    /// Lets the child run on when its [`Child`] is dropped, instead of killing it. It is reaped when it ends.
    pub fn leave_running(mut self) -> Command {
        self.leave_running = true;
        self
    }

    /// Starts the program.
    ///
    /// A coroutine that is terminated meanwhile leaves no child behind, unless it should be left running.
    ///
    /// # Errors
    ///
    /// `NotFound`, `PermissionDenied`; when processes or descriptors run out; before Linux 5.4.
    ///
    /// # Panics
    ///
    /// Outside [`crate::run`].
    ///
    /// # Suspends
    ///
    /// Until it runs.
    pub fn spawn(self) -> io::Result<Child> {
        if !coroutine::may_suspend() {
            let message = "a destructor may not wait while unwinding";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
        }
        // It forks, and waits until the program is loaded from the disk: work for another thread.
        let started = offload_as(Kind::Programs, move || {
            let (own_group, leave_running) = (self.own_group, self.leave_running);
            Started::new(self.into_std().spawn()?, own_group, leave_running)
        })?;
        started.into_child()
    }

    /// Runs the program to its end and returns what it wrote: at most `limit_bytes` to each of the two streams. It
    /// reads nothing, unless it was told from where.
    ///
    /// # Errors
    ///
    /// As [`Command::spawn`]; `FileTooLarge` when it wrote more: it is killed then.
    ///
    /// # Panics
    ///
    /// Outside [`crate::run`].
    ///
    /// # Suspends
    ///
    /// Until it has ended. Bound it by [`crate::timeout`]: the child is killed when the time is over.
    ///
    /// # Examples
    ///
    /// ```
    /// use reactor::process::Command;
    /// reactor::run(|| {
    ///     let output = Command::new("echo").arg("hello").output(100).unwrap();
    ///     assert_eq!(output.stdout, b"hello\n");
    /// });
    /// ```
    pub fn output(mut self, limit_bytes: usize) -> io::Result<Output> {
        self.stdin.get_or_insert(Stdio::Null);
        self.stdout.get_or_insert(Stdio::Piped);
        self.stderr.get_or_insert(Stdio::Piped);
        self.spawn()?.communicate(b"", limit_bytes)
    }

    fn into_std(self) -> std::process::Command {
        let mut command = std::process::Command::new(self.program);
        command.args(self.args);
        if self.clear_env {
            command.env_clear();
        }
        for (name, value) in self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(path) = self.current_dir {
            command.current_dir(path);
        }
        command.stdin(self.stdin.unwrap_or_default());
        command.stdout(self.stdout.unwrap_or_default());
        command.stderr(self.stderr.unwrap_or_default());
        if self.own_group {
            command.process_group(0);
        }
        command
    }
}
