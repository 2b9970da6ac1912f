//! Secrets that a person types, or that a program hands over: passphrases, and the words of recovery.
//!
//! A secret never stands on a command line or in the environment, where other programs see it. It comes from a descriptor that
//! the command line names, else from a systemd credential, else from the terminal, where it does not show while it is typed.
//! Each is one line. What holds it is wiped when it is dropped.
//!
//! Not here: what a secret opens (`keyring`).

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::errors::Failure;
use crate::words;

/// The longest line that is a secret: a passphrase of a page is nobody's, and 24 words take 215.
const LINE_BYTES_MAX: usize = 4096;

/// A line that somebody gave, without its end.
pub(crate) type Secret = Zeroizing<Vec<u8>>;

/// Where a secret is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// A descriptor of this process that has it, and nothing else is asked then.
    pub(crate) descriptor: Option<u16>,
    /// The systemd credential of this name has it, if there is one.
    pub(crate) credential: Option<&'a str>,
    /// What it is, as the terminal is asked for it and as errors call it: "the passphrase of ./home".
    pub(crate) what: &'a str,
}

impl Source<'_> {
    /// The secret. Blocks until it is given.
    ///
    /// # Errors
    /// `Failure::NotGiven`.
    pub(crate) fn ask(&self) -> Result<Secret, Failure> {
        if let Some(given) = self.without_a_terminal() {
            return given;
        }
        let unseen = Terminal::open().and_then(|terminal| terminal.unseen()?.ask(self.what));
        unseen.map_err(|error| self.not_given(error))
    }

    /// A secret that is new, and is typed twice at a terminal. Blocks until it is given.
    ///
    /// # Errors
    /// `Failure::NotGiven`, also if it is empty, or the two are not the same.
    pub(crate) fn ask_new(&self) -> Result<Secret, Failure> {
        let given = match self.without_a_terminal() {
            Some(given) => given?,
            None => self.ask_twice().map_err(|error| self.not_given(error))?,
        };
        if given.is_empty() {
            return Err(self.not_given(io::Error::other("an empty one protects nothing")));
        }
        Ok(given)
    }

    fn ask_twice(&self) -> io::Result<Secret> {
        let terminal = Terminal::open()?;
        let unseen = terminal.unseen()?;
        let first = unseen.ask(self.what)?;
        if *unseen.ask("once more")? == *first { Ok(first) } else { Err(io::Error::other("the two differ")) }
    }

    /// The words of recovery, which show while they are typed, and may take several lines.
    ///
    /// # Errors
    /// `Failure::NotGiven`.
    pub(crate) fn ask_words(&self) -> Result<Zeroizing<String>, Failure> {
        let lines = || -> io::Result<Zeroizing<String>> {
            let mut input: Box<dyn Read> = match self.descriptor {
                Some(descriptor) => Box::new(open(descriptor)?),
                None => {
                    let mut terminal = Terminal::open()?;
                    let asked = format!("{} (they show while you type; Enter after the last):\n", self.what);
                    terminal.file.write_all(asked.as_bytes())?;
                    Box::new(terminal.file)
                }
            };
            // What is there and one more line.
            let mut text = Zeroizing::new(String::with_capacity(2 * LINE_BYTES_MAX));
            while words::count(&text) < words::COUNT && text.len() < LINE_BYTES_MAX {
                let (line, is_last) = read_line(&mut input)?;
                text.push_str(std::str::from_utf8(&line).map_err(|_| io::Error::other("they are not text"))?);
                text.push('\n');
                // An empty line at a terminal ends them, too, however few they are.
                if is_last || (line.is_empty() && self.descriptor.is_none()) {
                    break;
                }
            }
            Ok(text)
        };
        lines().map_err(|error| self.not_given(error))
    }

    fn without_a_terminal(&self) -> Option<Result<Secret, Failure>> {
        let read = match (self.descriptor, self.credential.and_then(credential)) {
            (Some(descriptor), _) => open(descriptor).and_then(|mut input| read_line(&mut input)),
            (None, Some(path)) => File::open(path).and_then(|mut input| read_line(&mut input)),
            (None, None) => return None,
        };
        Some(read.map(|(line, _)| line).map_err(|error| self.not_given(error)))
    }

    fn not_given(&self, error: io::Error) -> Failure {
        let reason = match error.kind() {
            ErrorKind::NotFound if self.descriptor.is_some() => "there is no such descriptor".into(),
            _ => error.to_string(),
        };
        Failure::NotGiven { what: self.what.into(), reason }
    }
}

/// The file of a credential that systemd gave this service.
fn credential(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os("CREDENTIALS_DIRECTORY")?).join(name);
    path.exists().then_some(path)
}

/// A descriptor by its number. It is read from where it stands, and stands behind what was read then: whoever read from it
/// before, another secret or another process, has had its own line, and under whatever number.
fn open(descriptor: u16) -> io::Result<File> {
    if descriptor == 0 {
        return Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    }
    let path = format!("/proc/self/fd/{descriptor}");
    // A pipe or a terminal has no place: it is the same, opened anew. A file opened anew would begin at its beginning.
    if !fs::metadata(&path)?.is_file() {
        return File::open(path);
    }
    let process = pidfd_open(getpid(), PidfdFlags::empty());
    let same = process.and_then(|own| pidfd_getfd(own, descriptor.into(), PidfdGetfdFlags::empty()));
    same.map(File::from).map_err(|error| match error {
        // Containers may forbid it.
        Errno::PERM | Errno::NOSYS => io::Error::other(
            "this system does not let a file be read from there: give it as standard input (descriptor 0), or a pipe",
        ),
        other => other.into(),
    })
}

/// One line, and whether there is nothing behind it. Reads no byte beyond its end, since the next line may be another secret.
fn read_line(input: &mut dyn Read) -> io::Result<(Secret, bool)> {
    // Never reallocated: that would leave a copy.
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
    let mut byte = Zeroizing::new([0_u8]);
    loop {
        match input.read(&mut *byte) {
            Ok(0) => return Ok((line, true)),
            Ok(_) if byte[0] == b'\n' => return Ok((line, false)),
            Ok(_) if line.len() == LINE_BYTES_MAX => return Err(too_long()),
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn too_long() -> io::Error {
    io::Error::other(format!("it is longer than {LINE_BYTES_MAX} bytes"))
}

/// The terminal that this process was started at, whatever its standard input is.
struct Terminal {
    file: File,
}

impl Terminal {
    fn open() -> io::Result<Terminal> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/tty");
        file.map(|file| Terminal { file }).map_err(|_| io::Error::other("there is no terminal to ask at"))
    }

    /// Has it show nothing of what is typed, before anything is asked: people type ahead.
    fn unseen(&self) -> io::Result<Unseen<'_>> {
        let terminal = &self.file;
        let before = tcgetattr(terminal)?;
        let mut unseen = before.clone();
        unseen.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        unseen.special_codes[SpecialCodeIndex::VMIN] = 1;
        unseen.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Now, &unseen)?;
        Ok(Unseen { terminal, before })
    }
}

/// A terminal that shows nothing that is typed, until this is dropped.
struct Unseen<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Unseen<'_> {
    /// A line that does not show. The terminal's own keys are read as well, so that Ctrl-C leaves it as it was.
    fn ask(&self, what: &str) -> io::Result<Secret> {
        let mut terminal = self.terminal;
        terminal.write_all(format!("{what}: ").as_bytes())?;
        let mut line: Secret = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
        let mut byte = Zeroizing::new([0_u8]);
        let read = loop {
            match terminal.read(&mut *byte) {
                Ok(0) => break Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => break Err(error),
            }
            match byte[0] {
                b'\n' | b'\r' => break Ok(()),
                CTRL_C => break Err(io::Error::other("interrupted")),
                CTRL_D if line.is_empty() => break Err(ErrorKind::UnexpectedEof.into()),
                CTRL_U => line.clear(),
                BACKSPACE | DELETE => take_back(&mut line),
                _ if line.len() == LINE_BYTES_MAX => break Err(too_long()),
                other => line.push(other),
            }
        };
        terminal.write_all(b"\n")?;
        read.map(|()| line)
    }
}

impl Drop for Unseen<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: u8 = 8;
const CTRL_U: u8 = 21;
const DELETE: u8 = 127;

/// Drops the last character, which may be several bytes.
fn take_back(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {}
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_line_ends_where_it_ends_and_the_next_is_left_alone() {
        let mut input: &[u8] = b"first\nsecond";
        assert_eq!(read_line(&mut input).unwrap(), (Zeroizing::new(b"first".to_vec()), false));
        assert_eq!(read_line(&mut input).unwrap(), (Zeroizing::new(b"second".to_vec()), true));
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        assert_eq!(read_line(&mut &long[..LINE_BYTES_MAX]).unwrap().0.len(), LINE_BYTES_MAX);
        assert!(read_line(&mut &long[..]).is_err());
    }

    /// What went wrong: a file was read from its beginning under each number anew, so that a new passphrase was the old one, or the
    /// line that a shell had read before.
    #[test]
    fn a_descriptor_goes_on_where_it_stands_under_whatever_number() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        std::fs::write(&path, "somebody\nfirst\nsecond\nthird\n").unwrap();
        let mut file = File::open(path).unwrap();
        read_line(&mut file).unwrap();
        let same = file.try_clone().unwrap();
        let ask = |file: &File| {
            let descriptor = Some(file.as_raw_fd().try_into().unwrap());
            Source { descriptor, credential: None, what: "a line" }.ask().unwrap()
        };
        assert_eq!(*ask(&file), b"first");
        assert_eq!(*ask(&same), b"second");
        // The next command of whoever started this one.
        assert_eq!(*read_line(&mut file).unwrap().0, b"third");
        // A pipe has no place that could be another's.
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"first\nsecond\n").unwrap();
        let reader = File::from(std::os::fd::OwnedFd::from(reader));
        assert_eq!((&**ask(&reader), &**ask(&reader)), (&b"first"[..], &b"second"[..]));
    }

    #[test]
    fn what_is_taken_back_is_a_character_and_no_byte() {
        let mut line = "aé€".as_bytes().to_vec();
        for left in ["aé", "a", "", ""] {
            take_back(&mut line);
            assert_eq!(line, left.as_bytes());
        }
    }
}
