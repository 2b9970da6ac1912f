//! How many system calls a server makes per request, by `strace -c` in a run apart.
//!
//! strace slows every call many times over, so nothing else is measured in that run. It attaches after the
//! connections are made: what is counted is the echoing alone.

use super::load::{Generator, Workload};
use super::servers::Running;
use crate::build::find_program;
use crate::process::Program;
use rustix::process::Signal;
use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

/// System calls by name, each with how often it was made per request, most frequent first.
pub type CallsPerRequest = Vec<(String, f64)>;

/// Traces `server` under `workload`, whose `duration` says for how long.
///
/// # Errors
/// Fails when there is no strace, or it may not trace here.
pub fn count(server: &Running, workload: &Workload) -> io::Result<CallsPerRequest> {
    find_program("strace").ok_or_else(|| io::Error::other("no strace found (Debian: apt install strace)"))?;
    let mut generator = Generator::connect(server.address, workload)?;
    let summary = std::env::temp_dir().join(format!("hypha-strace-{}", std::process::id()));
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-q", "-o"]).arg(&summary).args(["-p", &server.process.id().to_string()]);
    let mut tracer = Program::start(command.stdin(Stdio::null()).stderr(Stdio::null()), None)?;
    // strace says nothing when it has attached; an idle server makes no calls meanwhile.
    std::thread::sleep(Duration::from_millis(400));
    if tracer.has_ended() {
        return Err(io::Error::other("strace may not attach here (see /proc/sys/kernel/yama/ptrace_scope)"));
    }
    // All requests must be counted, those of the warm-up too: so there is none, and those in flight at the end,
    // one a connection, are added.
    let workload = Workload { warm_up: workload.duration, duration: Duration::ZERO, ..*workload };
    let outcome = generator.run(&workload, server.process.id())?;
    tracer.stop(Signal::INT, Duration::from_secs(5))?;
    let text = fs::read_to_string(&summary)?;
    // It is in the temporary directory: leaving it there would only be untidy.
    let _ = fs::remove_file(&summary);
    let requests = outcome.requests + workload.connections as u64;
    Ok(parse(&text).into_iter().map(|(name, calls)| (name, calls as f64 / requests as f64)).collect())
}

/// Reads strace's summary: the fourth column counts calls, the last names them.
fn parse(summary: &str) -> Vec<(String, u64)> {
    let mut calls = Vec::new();
    for line in summary.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(count), Some(&name)) = (fields.get(3).and_then(|field| field.parse().ok()), fields.last())
        else {
            continue;
        };
        if fields.len() >= 5 && name != "total" {
            calls.push((name.to_string(), count));
        }
    }
    calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_strace_is_read_with_and_without_errors() {
        let summary = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.030000           3     10000           sendto
 39.00    0.020000           2     10020        20 recvfrom
  1.00    0.000100           1       700           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.050100           2     20720        20 total
";
        let calls = parse(summary);
        assert_eq!(calls[0], ("recvfrom".to_string(), 10020));
        assert_eq!(calls[1], ("sendto".to_string(), 10000));
        assert_eq!(calls.len(), 3);
    }
}
