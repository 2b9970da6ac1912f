//! What is unpacked and cloned: real sources of this machine, so that names, sizes and depth are real.
//!
//! The crates that cargo has unpacked are at hand wherever this was built. They are taken in the order of their
//! names until there are enough files: the same machine gives the same inputs, and the counts are printed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The inputs of all rows, made once before anything is measured.
pub struct Inputs {
    /// An archive of source files.
    pub archive: PathBuf,
    /// How many files it holds, and their bytes.
    pub archived: Tally,
    /// A repository with one commit, in one pack.
    pub repository: PathBuf,
    /// How many files a clone checks out, and their bytes.
    pub cloned: Tally,
}

/// Files and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Regular files.
    pub files: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

impl Inputs {
    /// Makes an archive of at least `archive_files` files and a repository of at least `repository_files`.
    ///
    /// # Errors
    /// Fails when there are no sources of crates here, or tar or git fail.
    pub fn make(directory: &Path, archive_files: u64, repository_files: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let registry = registry_sources()?;
        let archive = directory.join("sources.tar");
        let (crates, archived) = choose(&registry, archive_files)?;
        run(Command::new("tar").arg("cf").arg(&archive).arg("-C").arg(&registry).args(&crates))?;

        let repository = directory.join("repository");
        let (crates, cloned) = choose(&registry, repository_files)?;
        fs::create_dir_all(&repository)?;
        run(Command::new("cp")
            .args(["-r", "-t"])
            .arg(&repository)
            .args(crates.iter().map(|name| registry.join(name))))?;
        let git = |arguments: &[&str]| {
            let author = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"];
            run(git_command().arg("-C").arg(&repository).args(author).args(arguments))
        };
        git(&["init", "-q"])?;
        // What a crate's own .gitignore names would otherwise be missing in the clone.
        git(&["add", "--force", "--all"])?;
        git(&["commit", "-q", "-m", "Sources"])?;
        git(&["repack", "-a", "-d", "-q"])?;
        Ok(Self { archive, archived, repository, cloned })
    }
}

/// Returns a git that knows no configuration but its own.
pub fn git_command() -> Command {
    let mut command = Command::new("git");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

/// Runs `command`, whose output is shown only when it fails.
///
/// # Errors
/// Fails when the command does, with what it said.
pub fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}", command.get_program().to_string_lossy()))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let last = message.lines().last().unwrap_or("no message");
    Err(io::Error::other(format!("{} failed: {last}", command.get_program().to_string_lossy())))
}

/// Returns the directory where cargo unpacks crates.
fn registry_sources() -> io::Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let sources = home.ok_or_else(|| io::Error::other("set CARGO_HOME or HOME"))?.join("registry/src");
    let entries = fs::read_dir(&sources).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).min().ok_or_else(|| {
        io::Error::other(format!("no sources of crates in {}: run `cargo fetch` first", sources.display()))
    })
}

/// Returns crates in the order of their names until they hold `files` files, and what they hold.
fn choose(registry: &Path, files: u64) -> io::Result<(Vec<PathBuf>, Tally)> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(registry)?.map(|entry| Ok(entry?.file_name().into())).collect::<io::Result<_>>()?;
    names.sort();
    let mut tally = Tally::default();
    let mut chosen = Vec::new();
    for name in names {
        if tally.files >= files {
            break;
        }
        let more = count(&registry.join(&name))?;
        // The Windows import libraries and the like are a few huge files, not a source tree.
        if more.files > 0 && more.bytes / more.files < 64 * 1024 {
            tally = Tally { files: tally.files + more.files, bytes: tally.bytes + more.bytes };
            chosen.push(name);
        }
    }
    Ok((chosen, tally))
}

/// Counts the regular files below `directory`.
///
/// # Errors
/// Fails when something there cannot be listed.
pub fn count(directory: &Path) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                pending.push(entry.path());
            } else if metadata.is_file() {
                tally.files += 1;
                tally.bytes += metadata.len();
            }
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_counted_below_directories_too() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        fs::write(directory.path().join("a/b/one"), "12345").unwrap();
        fs::write(directory.path().join("two"), "123").unwrap();
        assert_eq!(count(directory.path()).unwrap(), Tally { files: 2, bytes: 8 });
    }

    #[test]
    fn a_failed_command_says_what_it_said() {
        let error = run(Command::new("ls").arg("/no such directory")).unwrap_err();
        assert!(error.to_string().contains("no such directory"), "{error}");
    }
}
