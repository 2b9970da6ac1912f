//! wrk as the load: one thread, a number of connections, pipelined by a script or not.

use crate::build::find_program;
use crate::process::Program;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::servers::Page;

/// Requests that a pipelined connection sends at once.
pub const PIPELINED: usize = 16;

/// What is asked of each server.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Which page.
    pub page: Page,
    /// Connections, each with one request in flight, or [`PIPELINED`].
    pub connections: usize,
    /// Whether requests are sent [`PIPELINED`] at a time.
    pub pipelined: bool,
}

/// What wrk said of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Requests answered.
    pub requests: f64,
    /// In how many seconds.
    pub seconds: f64,
    /// The median latency, in microseconds; of a pipelined run it says nothing.
    pub p50_us: f64,
    /// What 99 % of the requests did not exceed.
    pub p99_us: f64,
}

/// Returns wrk's path.
///
/// # Errors
/// Fails when it is not installed.
pub fn find() -> io::Result<PathBuf> {
    find_program("wrk").ok_or_else(|| io::Error::other("no wrk found (Debian: apt install wrk)"))
}

/// Writes the script that pipelines requests for `page` and returns its path.
///
/// # Errors
/// Fails when it cannot be written.
pub fn write_script(scratch: &Path, page: Page) -> io::Result<PathBuf> {
    let path = scratch.join(format!("pipeline{}.lua", page.path().replace('/', "-")));
    let text = format!(
        "init = function(args)\n  local one = wrk.format('GET', '{}')\n  all = string.rep(one, {PIPELINED})\nend\n\
         request = function() return all end\n",
        page.path()
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Runs wrk on the processor `cpu`.
///
/// # Errors
/// Fails when wrk does, or any request does.
pub fn run(
    wrk: &Path,
    address: SocketAddr,
    workload: &Workload,
    duration: Duration,
    cpu: usize,
    scratch: &Path,
) -> io::Result<Outcome> {
    // wrk knows whole seconds.
    let seconds = duration.as_secs().max(1);
    let mut command = Command::new(wrk);
    let (connections, length) = (format!("-c{}", workload.connections), format!("-d{seconds}s"));
    command.args(["-t1", "--latency", &connections, &length]);
    if workload.pipelined {
        command.arg("-s").arg(write_script(scratch, workload.page)?);
    }
    command.arg(format!("http://{address}{}", workload.page.path()));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut program = Program::start(&mut command, Some(cpu))?;
    let mut text = String::new();
    program.take_output().ok_or(ErrorKind::BrokenPipe)?.read_to_string(&mut text)?;
    program.wait(Duration::from_secs(10))?;
    parse(&text)
}

fn parse(text: &str) -> io::Result<Outcome> {
    let wrong = || io::Error::other(format!("wrk said {text:?}"));
    let line = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
    if line("Socket errors:").is_some() || line("Non-2xx or 3xx responses:").is_some() {
        return Err(wrong());
    }
    // "  123456 requests in 1.10s, 15.00MB read"
    let summary = text.lines().find_map(|line| line.split_once(" requests in ")).ok_or_else(wrong)?;
    let requests = summary.0.trim().parse().map_err(|_| wrong())?;
    let length = summary.1.split(',').next().and_then(microseconds).ok_or_else(wrong)?;
    Ok(Outcome {
        requests,
        seconds: length / 1e6,
        p50_us: line("50%").and_then(microseconds).ok_or_else(wrong)?,
        p99_us: line("99%").and_then(microseconds).ok_or_else(wrong)?,
    })
}

/// Reads a time as wrk writes it: 12.00us, 1.20ms, 1.10s, 1.00m.
fn microseconds(text: &str) -> Option<f64> {
    let units = [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)];
    units
        .into_iter()
        .find_map(|(unit, factor)| Some(text.trim().strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Running 1s test @ http://127.0.0.1:8080/plaintext
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   500.00us  100.00us   5.00ms   90.00%
    Req/Sec   120.00k     1.00k  125.00k    80.00%
  Latency Distribution
     50%  480.00us
     75%  520.00us
     90%    0.90ms
     99%    1.20ms
  132000 requests in 1.10s, 17.00MB read
Requests/sec: 120000.00
Transfer/sec:     15.45MB
";

    #[test]
    fn what_wrk_prints_is_understood() {
        let expected = Outcome { requests: 132_000.0, seconds: 1.1, p50_us: 480.0, p99_us: 1200.0 };
        let outcome = parse(TEXT).unwrap();
        assert!((outcome.seconds - expected.seconds).abs() < 1e-9);
        assert_eq!(Outcome { seconds: expected.seconds, ..outcome }, expected);
    }

    #[test]
    fn a_run_with_errors_is_no_figure() {
        assert!(parse(&TEXT.replace("Requests/sec", "  Non-2xx or 3xx responses: 3\nRequests/sec")).is_err());
        assert!(parse("unable to connect").is_err());
    }
}
