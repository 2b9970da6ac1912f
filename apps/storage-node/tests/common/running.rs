//! A running `storage-node`: started, waited for, killed.
//!
//! What it prints is read by two threads and kept, so that a story can wait for a line and a failed story can show
//! them all.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PROGRAM, loud, text};

/// A debug build on a loaded machine may take its time; `first_light` says how long it took.
pub const START_LIMIT: Duration = Duration::from_secs(60);

/// A running `storage-node`, killed when dropped.
pub struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Every line that it printed and that was waited past.
    pub seen: Vec<String>,
    /// From its start to the line that was waited for.
    pub ready_after: Duration,
}

impl Running {
    /// Starts the program and waits until it prints a line that contains `ready`.
    pub fn start(arguments: &[&str], ready: &str) -> Running {
        Self::try_start(arguments, ready).unwrap_or_else(|words| panic!("{words}"))
    }

    /// As [`Running::start`]; an error tells what it printed instead.
    pub fn try_start(arguments: &[&str], ready: &str) -> Result<Running, String> {
        Self::try_start_with(Command::new(PROGRAM).args(arguments), ready)
    }

    /// As [`Running::start`], from a copy of the program.
    pub fn start_as(program: &Path, arguments: &[&str], ready: &str) -> Running {
        Self::start_with(Command::new(program).args(arguments), ready)
    }

    /// As [`Running::start`], with a command line of one's own.
    pub fn start_with(command: &mut Command, ready: &str) -> Running {
        Self::try_start_with(command, ready).unwrap_or_else(|words| panic!("{words}"))
    }

    fn try_start_with(command: &mut Command, ready: &str) -> Result<Running, String> {
        let started = Instant::now();
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        forward(child.stdout.take().unwrap(), sender.clone());
        forward(child.stderr.take().unwrap(), sender);
        let mut running = Running { child, lines, seen: Vec::new(), ready_after: Duration::ZERO };
        if !running.wait_for(ready, START_LIMIT) {
            let status = running.child.try_wait();
            let said = running.seen.join("\n");
            running.seen.clear();
            return Err(format!("{command:?} never said {ready:?} ({status:?}), but:\n{said}"));
        }
        running.ready_after = started.elapsed();
        Ok(running)
    }

    /// `up` with this many nodes, waited for until the drive is usable.
    pub fn up(home: &Path, drive: &Path, nodes: u16) -> Running {
        let nodes = nodes.to_string();
        Running::start(&["up", "--nodes", &nodes, "--home", text(home), text(drive)], "the drive is")
    }

    /// Waits until it prints a line that contains `words`; `false` if it ends or `limit` passes first.
    pub fn wait_for(&mut self, words: &str, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            let found = line.contains(words);
            self.seen.push(line);
            if found {
                return true;
            }
        }
        false
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process of node `number`, as `up` printed it last; `None` for the one that shares `up`'s process.
    pub fn node_pid(&mut self, number: u16) -> Option<u32> {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push(line);
        }
        let start = format!("node {number} ");
        self.seen
            .iter()
            .rev()
            .filter(|line| line.trim_start().starts_with(&start))
            .find_map(|line| line.split("process ").nth(1)?.split_whitespace().next()?.parse().ok())
    }

    /// Asks it to end, and waits.
    pub fn stop(mut self) -> ExitStatus {
        signal(self.pid(), Signal::TERM);
        let status = self.wait(Duration::from_secs(120));
        status.unwrap_or_else(|| panic!("process {} ignored SIGTERM; it said:\n{}", self.pid(), self.drain()))
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its own end.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() > until {
                return None;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// All that it printed so far.
    pub fn drain(&mut self) -> String {
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(50)) {
            self.seen.push(line);
        }
        self.seen.join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            let said = self.drain();
            if !said.is_empty() {
                loud(&format!("-- process {} had said:\n{said}", self.pid()));
            }
        }
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn forward(stream: impl Read + Send + 'static, sender: mpsc::Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}

/// SIGKILL, as a power cut would.
pub fn kill_hard(pid: u32) {
    signal(pid, Signal::KILL);
}
