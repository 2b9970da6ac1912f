//! Child processes: started on chosen processors, their processor time read from /proc, ended with their guard.
//!
//! Affinity is set on a thread that then spawns the child, which inherits it with every thread it will ever have;
//! `taskset` would do the same, and setting it from outside after the start would miss threads started by then.

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Confines the calling thread, and what it will start, to the processor `cpu`.
///
/// # Errors
/// Fails when the machine, or this process, has no such processor.
pub fn pin_this_thread(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)?;
    Ok(())
}

/// A child process, ended when this is dropped.
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts `command` on the processor `cpu`, or anywhere where that is None.
    ///
    /// # Errors
    /// Fails when the program cannot be started or the processor does not exist.
    pub fn start(command: &mut Command, cpu: Option<usize>) -> io::Result<Self> {
        let spawn = || {
            cpu.map_or(Ok(()), pin_this_thread)?;
            command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{command:?}: {error}")))
        };
        let child =
            std::thread::scope(|scope| scope.spawn(spawn).join()).expect("spawning does not panic")?;
        Ok(Self { child })
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Takes the program's output, where it has a pipe there.
    pub fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Writes `input` to the program's input, where it has a pipe there, and ends it.
    ///
    /// # Errors
    /// Fails when the program has closed its input.
    pub fn write_input(&mut self, input: &[u8]) -> io::Result<()> {
        self.child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(input))
    }

    /// Sends `signal` and waits for the process to end; kills it when `patience` is over.
    ///
    /// # Errors
    /// Fails when the process had to be killed.
    pub fn stop(&mut self, signal: Signal, patience: Duration) -> io::Result<()> {
        if self.has_ended() {
            return Ok(());
        }
        send(self.child.id(), signal)?;
        self.wait(patience)
    }

    /// Waits for the process to end; kills it when `patience` is over.
    ///
    /// # Errors
    /// Fails when the process had to be killed.
    pub fn wait(&mut self, patience: Duration) -> io::Result<()> {
        self.status(patience).map(drop)
    }

    /// Waits for the process to end, and returns how it did; kills it when `patience` is over.
    ///
    /// # Errors
    /// Fails when the process had to be killed.
    pub fn status(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                self.kill();
                return Err(io::Error::other(format!("process {} did not end in time", self.child.id())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn kill(&mut self) {
        // Fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How long a server may take from its start until it accepts.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns an address of loopback that was free a moment ago.
///
/// # Errors
/// Fails when no port is free.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Waits until `server` accepts at `address`.
///
/// # Errors
/// Fails when it ends, or stays silent, instead of listening.
pub fn wait_for_listener(server: &mut Program, address: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(address).is_err() {
        if server.has_ended() || Instant::now() > deadline {
            return Err(io::Error::other(format!("the server does not listen at {address}")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn send(process_id: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(process_id).ok().and_then(Pid::from_raw);
    Ok(kill_process(pid.ok_or(io::ErrorKind::InvalidInput)?, signal)?)
}

/// Returns the processor time that the living threads of process `process_id` have used, to the nanosecond.
///
/// Threads that have ended are not counted: use [`tree_cpu`] for programs that start and end them.
///
/// # Errors
/// Fails when there is no such process, or the kernel keeps no scheduling statistics.
pub fn threads_cpu(process_id: u32) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{process_id}/task"))? {
        // Its first field is the time spent on a processor, in nanoseconds.
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let nanoseconds = text.split_whitespace().next().and_then(|field| field.parse().ok());
        total += Duration::from_nanos(nanoseconds.ok_or(io::ErrorKind::InvalidData)?);
    }
    Ok(total)
}

/// Returns the processor time of process `root` and of all its living descendants, in steps of 10 ms.
pub fn tree_cpu(root: u32) -> Duration {
    let processes: Vec<Statistics> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|process_id: u32| Statistics::of(&format!("/proc/{process_id}/stat")))
        .collect();
    let mut members = vec![root];
    let mut ticks = 0;
    // Children are appended while we walk, so that theirs are found too.
    let mut next = 0;
    while let Some(&parent) = members.get(next) {
        next += 1;
        ticks += processes
            .iter()
            .filter(|process| process.id == parent)
            .map(|process| process.own_ticks)
            .sum::<u64>();
        members.extend(processes.iter().filter(|process| process.parent == parent).map(|process| process.id));
    }
    ticks_to_duration(ticks)
}

/// Returns the processor time of this process and of the children it has waited for, in steps of 10 ms.
pub fn own_cpu() -> Duration {
    let statistics = Statistics::of("/proc/self/stat");
    ticks_to_duration(statistics.map_or(0, |own| own.own_ticks + own.waited_ticks))
}

fn ticks_to_duration(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The fields of /proc/PID/stat that we need.
struct Statistics {
    id: u32,
    parent: u32,
    own_ticks: u64,
    /// Of the children that ended and were waited for.
    waited_ticks: u64,
}

impl Statistics {
    fn of(path: &str) -> Option<Self> {
        Self::parse(&fs::read_to_string(path).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold spaces and parentheses itself.
        let (id, _) = text.split_once(' ')?;
        let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
        // See proc_pid_stat(5): the parent is field 4, utime to cstime are fields 14 to 17; these begin with field 3.
        let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok());
        Some(Self {
            id: id.parse().ok()?,
            parent: u32::try_from(field(4)?).ok()?,
            own_ticks: field(14)? + field(15)?,
            waited_ticks: field(16)? + field(17)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c) S 7 1 1 0 -1 4194304 5 0 0 0 11 2 30 4 20 0 1 0 1 2 3";
        let statistics = Statistics::parse(text).unwrap();
        assert_eq!((statistics.id, statistics.parent), (42, 7));
        assert_eq!((statistics.own_ticks, statistics.waited_ticks), (13, 34));
    }

    #[test]
    fn a_busy_program_shows_in_the_processor_time() {
        let program = Program::start(Command::new("sh").args(["-c", "while :; do :; done"]), None).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let before = threads_cpu(program.id()).unwrap();
        while threads_cpu(program.id()).unwrap() < before + Duration::from_millis(1) {
            assert!(Instant::now() < deadline, "it never shows");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_dropped_program_is_gone() {
        let program = Program::start(Command::new("sleep").arg("60"), Some(0)).unwrap();
        let id = program.id();
        drop(program);
        assert!(threads_cpu(id).is_err());
    }
}
