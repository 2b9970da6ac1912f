//! One round of one contender: the relay where there is one, who is asked, and who asks.

use super::end::{DRIVE, READY, RELAY, SERVE, task};
use super::work::WORDS;
use super::{Carrier, Contender, Workload};
use crate::process::{Program, free_address, threads_cpu};
use std::io::{self, BufRead, BufReader, ErrorKind, Lines};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

/// Where and for how long.
pub struct Setting {
    /// The processor of who is asked, or receives.
    pub asked_cpu: usize,
    /// That of who asks, or sends. The relay is wherever the kernel has it.
    pub asking_cpu: usize,
    /// How long a round is measured.
    pub duration: Duration,
    /// Where the certificate of those without keys lies.
    pub certificates: PathBuf,
}

/// What came of one round: of bytes in bulk, of calls else.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// So many a second.
    pub rate: f64,
    /// Seconds of processor time for each of them: who sends or asks, who receives or answers, and the relay.
    pub cpu: [f64; 3],
}

/// Runs one.
///
/// # Errors
/// Fails when any of the programs does.
pub fn round(contender: Contender, workload: Workload, setting: &Setting) -> io::Result<Round> {
    let carrier = contender.carrier;
    let by_udp = matches!(carrier, Carrier::Quic | Carrier::BareQuic);
    let address = if by_udp { free_udp_address()? } else { free_address()? };
    let relay = match carrier {
        Carrier::Relayed => Some(start(&[RELAY, &address.to_string()], None)?),
        _ => None,
    };
    let at = [carrier.word(), task(workload, contender.is_rpc), &address.to_string()].map(str::to_owned);
    let certificates = setting.certificates.display().to_string();
    let words = |role: &str| [&[role.to_owned()], &at[..], std::slice::from_ref(&certificates)].concat();
    let (asked, _asked_lines) = start(&words(SERVE), Some(setting.asked_cpu))?;
    let in_flight = if let Workload::Calls(in_flight) = workload { in_flight } else { 1 };
    let load = [in_flight.to_string(), setting.duration.as_secs_f64().to_string()];
    let (_asking, mut lines) = begin(&[&words(DRIVE)[..], &load].concat(), Some(setting.asking_cpu))?;
    let others = || -> io::Result<[Duration; 2]> {
        let of_relay = relay.as_ref().map(|(relay, _)| threads_cpu(relay.id()));
        Ok([threads_cpu(asked.id())?, of_relay.transpose()?.unwrap_or_default()])
    };
    expect(&next(&mut lines)?, WORDS[0])?;
    let before = others()?;
    let end = next(&mut lines)?;
    let after = others()?;
    expect(&end, WORDS[1])?;
    let figures: Vec<f64> = end.split(' ').skip(1).filter_map(|word| word.parse().ok()).collect();
    match figures[..] {
        [count, seconds, cpu] if count > 0.0 => {
            let spent = |which: usize| after[which].saturating_sub(before[which]).as_secs_f64();
            Ok(Round { rate: count / seconds, cpu: [cpu, spent(0), spent(1)].map(|cpu| cpu / count) })
        }
        _ => Err(io::Error::other(format!("nothing was carried: {end}"))),
    }
}

type Said = Lines<BufReader<ChildStdout>>;

/// Starts an end that says when it can be reached.
fn start(words: &[impl AsRef<str>], cpu: Option<usize>) -> io::Result<(Program, Said)> {
    let (program, mut lines) = begin(words, cpu)?;
    expect(&next(&mut lines)?, READY)?;
    Ok((program, lines))
}

fn begin(words: &[impl AsRef<str>], cpu: Option<usize>) -> io::Result<(Program, Said)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words.iter().map(AsRef::as_ref)).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut program = Program::start(&mut command, cpu)?;
    let output = program.take_output().ok_or(ErrorKind::BrokenPipe)?;
    Ok((program, BufReader::new(output).lines()))
}

fn next(lines: &mut Said) -> io::Result<String> {
    lines.next().unwrap_or_else(|| Err(io::Error::other("an end has ended early")))
}

fn expect(line: &str, word: &str) -> io::Result<()> {
    match line.split(' ').next() == Some(word) {
        true => Ok(()),
        false => Err(io::Error::other(format!("an end said {line:?} where {word:?} was due"))),
    }
}

fn free_udp_address() -> io::Result<SocketAddr> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
