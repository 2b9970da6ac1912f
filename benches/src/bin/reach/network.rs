//! A network of the real program's: founded on the machine outside, and joined from behind routers by tickets.
//!
//! What it is not: the routers and cables, which are the lab's.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use benches::process::Program;
use rustix::process::Signal;
use serde_json::Value;

use crate::nat_lab::{Lab, PUBLIC};

/// A program says that it is ready within so long, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(90);

/// The port at which those come in who are let out to the web only.
const WEB_PORT: &str = ":443\"";

/// See the module. What it started ends with it, and what it wrote is removed.
pub(crate) struct Network<'a> {
    pub(crate) lab: &'a Lab,
    program: PathBuf,
    place: PathBuf,
    running: Vec<(String, Program)>,
    /// For nodes, and for who writes.
    tickets: [String; 2],
}

impl<'a> Network<'a> {
    /// Founds it with so many nodes outside, the first of which relays if it `relays`.
    pub(crate) fn found(lab: &'a Lab, program: &Path, nodes: usize, relays: bool) -> io::Result<Network<'a>> {
        let place = std::env::temp_dir().join(format!("reach-{}", std::process::id()));
        fs::create_dir_all(&place)?;
        let (program, running, tickets) = (program.to_owned(), Vec::new(), [String::new(), String::new()]);
        let mut network = Network { lab, program, place, running, tickets };
        let (home, drive) = (network.path("outside"), network.path("drive-outside"));
        let count = nodes.to_string();
        let relay = if relays { "--relay=auto" } else { "--relay=off" };
        let words =
            ["up", "--nodes", &count, relay, "--home", text(&home), "--listen", PUBLIC[0], text(&drive)];
        let ready = if relays { "it relays" } else { "Ctrl-C" };
        network.start("pub", "outside", &words, ready)?;
        if relays {
            // No option asks for a port, and only this one is open to everybody.
            network.stop("outside");
            for file in [home.join("network.json"), home.join("nodes/1/node.json")] {
                move_to_web_port(&file)?;
            }
            network.start("pub", "outside", &words, ready)?;
        }
        for (ticket, role) in [(0, "node"), (1, "writer")] {
            let asked = ["invite", "--home", text(&home), "--role", role, "--uses", "100"];
            network.tickets[ticket] = network.printed("pub", &asked)?.trim().to_owned();
        }
        Ok(network)
    }

    /// Where something of that name is kept.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// A node joins, at that place of the lab; it listens at the address that is given, or its own.
    pub(crate) fn add_node(&mut self, at: &str, name: &str, listen: Option<&str>) -> io::Result<()> {
        let (home, ticket) = (self.path(name), self.tickets[0].clone());
        let mut words = vec!["join", "--as", name, "--home", text(&home), &ticket];
        words.extend(listen.into_iter().flat_map(|address| ["--listen", address]));
        self.start(at, name, &words, "listening on")
    }

    /// A node that was stopped, or died, runs again.
    pub(crate) fn run_node(&mut self, at: &str, name: &str) -> io::Result<()> {
        let home = self.path(name);
        self.start(at, name, &["run", "--home", text(&home)], "listening on")
    }

    /// Who writes joins, at that place of the lab, and mounts the drive if that is asked.
    pub(crate) fn add_writer(&mut self, at: &str, name: &str, drive: Option<&Path>) -> io::Result<()> {
        let (home, ticket) = (self.path(name), self.tickets[1].clone());
        let words = ["join", "--as", name, "--home", text(&home), &ticket];
        match drive {
            Some(drive) => self.start(at, name, &[&words[..], &[text(drive)]].concat(), "the drive is"),
            None => self.printed(at, &words).map(drop),
        }
    }

    /// The nodes' ids by the names under which they joined.
    pub(crate) fn ids(&self) -> io::Result<Vec<(String, String)>> {
        let home = self.path("outside");
        let listed = self.printed("pub", &["members", "--json", "--home", text(&home)])?;
        let listed: Value = serde_json::from_str(&listed)?;
        let members = listed["members"].as_array().into_iter().flatten();
        let word = |member: &Value, key: &str| member[key].as_str().unwrap_or_default().to_owned();
        Ok(members.map(|member| (word(member, "name"), word(member, "id"))).collect())
    }

    /// What the program prints at a place of the lab.
    pub(crate) fn printed(&self, at: &str, words: &[&str]) -> io::Result<String> {
        let output = self.command(at, words).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("{} at {at} said {}", words[0], said.trim())));
        }
        String::from_utf8(output.stdout).map_err(io::Error::other)
    }

    fn command(&self, at: &str, words: &[&str]) -> Command {
        let mut command = self.lab.on_the_network_of(at, text(&self.program));
        command.args(words);
        command
    }

    fn start(&mut self, at: &str, name: &str, words: &[&str], ready: &str) -> io::Result<()> {
        let said = self.log(name);
        let (out, errors) = (File::create(&said)?, File::options().append(true).open(&said)?);
        let mut command = self.command(at, words);
        command.stdin(Stdio::null()).stdout(out).stderr(errors).env("HYPHA_LOG", "warn,reactor::nat=debug");
        let mut program = Program::start(&mut command, None)?;
        let begun = Instant::now();
        while !fs::read_to_string(&said)?.contains(ready) {
            if program.has_ended() || begun.elapsed() > PATIENCE {
                let said = fs::read_to_string(&said)?;
                return Err(io::Error::other(format!("{} at {at} is not ready: {}", words[0], said.trim())));
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.running.push((name.to_owned(), program));
        Ok(())
    }

    /// Where a program's words go.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }

    /// Ends a program as a user does.
    pub(crate) fn stop(&mut self, name: &str) {
        if let Some((_, mut program)) = self.take(name) {
            let _ = program.stop(Signal::TERM, PATIENCE);
        }
    }

    /// Kills it.
    pub(crate) fn kill(&mut self, name: &str) {
        // It is killed when it is dropped.
        self.take(name);
    }

    fn take(&mut self, name: &str) -> Option<(String, Program)> {
        let index = self.running.iter().position(|(other, _)| other == name)?;
        Some(self.running.remove(index))
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        // Those that came last go first: a drive stores what it has while its nodes are there.
        while let Some((_, mut program)) = self.running.pop() {
            let _ = program.stop(Signal::TERM, PATIENCE);
        }
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// Has the first node that is described in a file listen at the port of the web.
fn move_to_web_port(file: &Path) -> io::Result<()> {
    let text = fs::read_to_string(file)?;
    let own = format!("\"{}:", PUBLIC[0]);
    let Some((before, after)) = text.split_once(&own) else { return Ok(()) };
    let rest = after.split_once('"').map_or("", |(_, rest)| rest);
    fs::write(file, format!("{before}{}{WEB_PORT}{rest}", own.trim_end_matches(':')))
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("paths of ours are text")
}
