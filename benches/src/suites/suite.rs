//! The suites: what each is called, how it is run, and how its outcome is read.
//!
//! Each case runs in a new directory of its own, with what it prints in a log of its own. What a case leaves there stays,
//! for the inventory after the remount.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use clap::ValueEnum;

use crate::build::find_program;
use crate::process::Program;

/// How long a case may take. One that takes longer hangs: the longest takes some minutes on two slow processors.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// What pjdfstest is told of the file systems: times are of the clock's last tick, and these users are on every machine.
const PJDFSTEST_SETTINGS: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.02
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// All that fsx can do, with sizes that cross our frames and our extents.
const FSX_SETTINGS: &str = r#"
flen = 1048576
[opsize]
max = 98304
[weights]
close_open = 1.0
invalidate = 1.0
mapread = 10.0
mapwrite = 10.0
read = 10.0
write = 10.0
truncate = 5.0
fsync = 0.5
fdatasync = 0.5
posix_fallocate = 2.0
punch_hole = 5.0
sendfile = 2.0
posix_fadvise = 1.0
copy_file_range = 5.0
"#;

/// stress-ng's class `filesystem`, and what else of it works on files. Left out: `bind-mount`, `binderfs` and `procfs`, which
/// are about other file systems; `ioprio`, which is about the scheduler.
const STRESSORS: &str = "\
    access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup eventfd fallocate \
    fanotify fcntl fiemap file-ioctl filename flock fpunch fsize fstat getdent handle hdd inode-flags \
    inotify io iomix lease link locka lockf lockofd mknod mmap msync open readahead rename revio seek \
    symlink sync-file touch utime verity xattr";

/// How fio reads and writes: its engine, and whether past the kernel's cache.
const FIO_CASES: &[(&str, bool)] = &[
    ("psync", false),
    ("psync", true),
    ("mmap", false),
    ("libaio", false),
    ("libaio", true),
    ("io_uring", false),
    ("io_uring", true),
];

/// A suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// What POSIX says of each system call, by name.
    Pjdfstest,
    /// Random operations on one file, each read compared with what must be there.
    Fsx,
    /// Random writes of every kind, verified when they are read back.
    Fio,
    /// What may disturb a file system, at once.
    StressNg,
    /// What a file server's clients did, recorded.
    Dbench,
    /// Many small files, synced one by one.
    FsMark,
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Operations of fsx, for each seed.
    pub operations: u64,
    /// Seeds of fsx.
    pub seeds: u64,
    /// How long each stressor and dbench run, in seconds.
    pub seconds: u64,
    /// What fio writes, in MiB.
    pub mebibytes: u64,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// As it should.
    Passed,
    /// The suite left it out, and says why.
    Skipped(String),
    /// Otherwise.
    Failed(String),
}

/// A case of a suite, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its name.
    pub case: String,
    /// How it ended.
    pub end: End,
}

impl Suite {
    /// Returns its name in tables, which is also that of its directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pjdfstest => "pjdfstest",
            Self::Fsx => "fsx",
            Self::Fio => "fio",
            Self::StressNg => "stress-ng",
            Self::Dbench => "dbench",
            Self::FsMark => "fs_mark",
        }
    }

    /// Finds its program.
    ///
    /// # Errors
    /// Fails where it is not installed, and says how to install it.
    pub fn program(self) -> io::Result<PathBuf> {
        let name = self.name();
        let how = match self {
            Self::Pjdfstest => "apt install libacl1-dev, cargo install pjdfstest".to_owned(),
            Self::Fsx => "cargo install fsx".to_owned(),
            Self::FsMark => "Debian: apt install fsmark".to_owned(),
            Self::Fio | Self::StressNg | Self::Dbench => format!("Debian: apt install {name}"),
        };
        find_program(name).ok_or_else(|| io::Error::other(format!("not installed ({how})")))
    }

    /// Runs it in `directory`, which is empty, with its logs in `logs`.
    ///
    /// # Errors
    /// Fails when something around it does: what fails in it is an outcome.
    pub fn run(self, directory: &Path, logs: &Path, effort: &Effort) -> io::Result<Vec<Outcome>> {
        let program = self.program()?;
        let place = Place { program: &program, directory, logs };
        match self {
            Self::Pjdfstest => pjdfstest(&place),
            Self::Fsx => fsx(&place, effort),
            Self::Fio => fio(&place, effort),
            Self::StressNg => stress_ng(&place, effort),
            Self::Dbench => dbench(&place, effort),
            Self::FsMark => fs_mark(&place),
        }
    }
}

/// Where a suite runs.
struct Place<'a> {
    program: &'a Path,
    directory: &'a Path,
    logs: &'a Path,
}

impl Place<'_> {
    /// Makes a directory for the case `name`.
    fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    fn command(&self) -> Command {
        Command::new(self.program)
    }

    /// Runs the case `name`; returns how its process ended and what it printed.
    fn run(&self, name: &str, command: &mut Command) -> io::Result<(End, String)> {
        let path = self.logs.join(format!("{name}.log"));
        let log = File::create(&path)?;
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let end = match Program::start(command, None)?.status(PATIENCE) {
            Ok(status) if status.success() => End::Passed,
            Ok(status) => End::Failed(format!("{}, see {}", in_words(status), path.display())),
            Err(error) => End::Failed(format!("{error}, see {}", path.display())),
        };
        Ok((end, String::from_utf8_lossy(&fs::read(&path)?).into_owned()))
    }

    /// As [`Place::run`], for a case of which nothing but its exit code counts.
    fn judge(&self, name: &str, command: &mut Command) -> io::Result<Outcome> {
        let (end, _) = self.run(name, command)?;
        Ok(Outcome { case: name.to_owned(), end })
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn pjdfstest(place: &Place<'_>) -> io::Result<Vec<Outcome>> {
    let settings = place.logs.join("pjdfstest.toml");
    fs::write(&settings, PJDFSTEST_SETTINGS)?;
    let mut command = place.command();
    // Some cases need a second file system, for the errors of a rename or a link across two.
    command.arg("-c").arg(&settings).arg("-p").arg(place.directory).args(["-s", "/dev/shm"]);
    let (end, output) = place.run("pjdfstest", &mut command)?;
    Ok(with_its_end(of_pjdfstest(&output), end))
}

/// The cases of a program that tells each, and its own end as one more where they do not account for it: one that died midway
/// has told of no failure.
fn with_its_end(mut outcomes: Vec<Outcome>, end: End) -> Vec<Outcome> {
    let has_failure = outcomes.iter().any(|outcome| matches!(outcome.end, End::Failed(_)));
    let end = match end {
        End::Passed if outcomes.is_empty() => End::Failed("it ran no case".to_owned()),
        end => end,
    };
    if matches!(end, End::Failed(_)) && !has_failure {
        outcomes.push(Outcome { case: "as a whole".to_owned(), end });
    }
    outcomes
}

/// Reads lines of a case and its end, each followed by others that begin with a tab and say why.
fn of_pjdfstest(output: &str) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for line in output.lines() {
        if let Some(reason) = line.strip_prefix('\t') {
            match outcomes.last_mut().map(|outcome| &mut outcome.end) {
                Some(End::Skipped(why) | End::Failed(why)) if why.is_empty() => reason.clone_into(why),
                _ => {}
            }
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(case), Some(end), None) = (words.next(), words.next(), words.next()) else { continue };
        let end = match end {
            "ok" => End::Passed,
            "skipped" => End::Skipped(String::new()),
            "FAILED" => End::Failed(String::new()),
            _ => continue,
        };
        outcomes.push(Outcome { case: case.to_owned(), end });
    }
    outcomes
}

fn fsx(place: &Place<'_>, effort: &Effort) -> io::Result<Vec<Outcome>> {
    let settings = place.logs.join("fsx.toml");
    fs::write(&settings, FSX_SETTINGS)?;
    let operations = effort.operations.to_string();
    let run = |seed: u64| {
        let mut command = place.command();
        let file = place.directory.join(format!("seed-{seed}"));
        command.arg("-f").arg(&settings).arg("-P").arg(place.logs).args(["-N", &operations]);
        place.judge(&format!("fsx-{seed}"), command.args(["-S", &seed.to_string()]).arg(file))
    };
    (1..=effort.seeds).map(run).collect()
}

fn fio(place: &Place<'_>, effort: &Effort) -> io::Result<Vec<Outcome>> {
    let run = |&(engine, direct): &(&str, bool)| {
        let name = format!("fio-{engine}-{}", if direct { "direct" } else { "cached" });
        let mut command = place.command();
        command.args([
            "--name=verified",
            "--rw=randrw",
            "--bsrange=4k-128k",
            "--iodepth=8",
            "--fallocate=none",
        ]);
        command.args([
            "--verify=crc32c",
            "--verify_fatal=1",
            "--do_verify=1",
            "--verify_backlog=64",
            "--numjobs=2",
        ]);
        command.arg(format!("--directory={}", place.directory(&name)?.display()));
        command.arg(format!("--size={}m", effort.mebibytes));
        command.arg(format!("--ioengine={engine}")).arg(format!("--direct={}", u8::from(direct)));
        place.judge(&name, &mut command)
    };
    FIO_CASES.iter().map(run).collect()
}

fn stress_ng(place: &Place<'_>, effort: &Effort) -> io::Result<Vec<Outcome>> {
    let run = |stressor: &str| {
        let mut command = place.command();
        command.args([&format!("--{stressor}"), "2", "--timeout", &effort.seconds.to_string(), "--verify"]);
        command.arg("--temp-path").arg(place.directory(stressor)?);
        let (end, output) = place.run(&format!("stress-ng-{stressor}"), &mut command)?;
        let skipped = output.lines().find(|line| line.contains("skipping"));
        let end = match (end, skipped) {
            (End::Passed, Some(line)) => {
                End::Skipped(line.split_once("] ").map_or(line, |(_, why)| why).to_owned())
            }
            (end, _) => end,
        };
        Ok(Outcome { case: stressor.to_owned(), end })
    };
    STRESSORS.split_whitespace().map(run).collect()
}

fn dbench(place: &Place<'_>, effort: &Effort) -> io::Result<Vec<Outcome>> {
    let run = |(name, sync): (&str, &[&str])| {
        let mut command = place.command();
        command.args(sync).args(["-t", &effort.seconds.to_string(), "-D"]).arg(place.directory(name)?);
        command.args(["-c", "/usr/share/dbench/client.txt", "4"]);
        place.judge(name, &mut command)
    };
    [("dbench", [].as_slice()), ("dbench-synced", &["-s"])].into_iter().map(run).collect()
}

fn fs_mark(place: &Place<'_>) -> io::Result<Vec<Outcome>> {
    let run = |(name, how): (&str, &str)| {
        let mut command = place.command();
        command
            .arg("-d")
            .arg(place.directory(name)?)
            .args(["-n", "200", "-t", "2", "-D", "4", "-k", "-s", "10240"]);
        // It writes a log where it stands.
        place.judge(name, command.args(["-S", how]).current_dir(place.logs))
    };
    [("each", "1"), ("at-the-end", "5")].into_iter().map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_of_pjdfstest_is_read_with_its_reason() {
        let output = "chmod::ctime::regular      ok\n\
                      chflags::all               skipped\n\trequires features: chflags\n\tand more\n\
                      link::count                FAILED\n\tassertion `left == right` failed\nBacktrace:\n   0: main\n\n\
                      Summary: 1 failed, 1 skipped, 1 passed, 0 expected failures, 3 total\n";
        let outcome = |case: &str, end| Outcome { case: case.to_owned(), end };
        let expected = [
            outcome("chmod::ctime::regular", End::Passed),
            outcome("chflags::all", End::Skipped("requires features: chflags".to_owned())),
            outcome("link::count", End::Failed("assertion `left == right` failed".to_owned())),
        ];
        assert_eq!(of_pjdfstest(output), expected);
        assert!(of_pjdfstest("error: nobody: no such user\n").is_empty());
    }

    #[test]
    fn a_suite_that_died_midway_has_not_passed() {
        let case = |end| Outcome { case: "chmod".to_owned(), end };
        let died = || End::Failed("ended by signal 9".to_owned());
        let failed = |outcomes: &[Outcome]| {
            outcomes.iter().filter(|outcome| matches!(outcome.end, End::Failed(_))).count()
        };
        assert_eq!(with_its_end(vec![case(End::Passed)], End::Passed), [case(End::Passed)]);
        assert_eq!(failed(&with_its_end(vec![case(End::Passed)], died())), 1);
        assert_eq!(failed(&with_its_end(Vec::new(), End::Passed)), 1, "it ran nothing");
        // Its own end says no more than that a case failed.
        assert_eq!(with_its_end(vec![case(died())], died()).len(), 1);
    }
}
