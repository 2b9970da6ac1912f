//! Keys under a passphrase, and the owner's key away from the home.
//!
//! What went wrong before: whoever read the disk had every key. The keys that open the drive are sealed here, from a terminal,
//! a descriptor and a service's credential; whoever is killed meanwhile has the old passphrase or the new one.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use common::random::Random;
use common::running::Running;
use common::{PROGRAM, Place, eventually, fuse_is_usable, has_program, loud, run, text};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(60);

/// The program in a session of its own, so that it finds no terminal to ask at, whoever runs this test.
fn alone(arguments: &[&str]) -> Command {
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(PROGRAM).args(arguments);
    command
}

/// What a command does that is given `input` on standard input.
fn given(input: &str, arguments: &[&str]) -> Output {
    let mut command = alone(arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever does not want it has ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn done(output: Output) -> String {
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

fn refused(output: Output, words: &str) {
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(words), "not {words:?}: {}", said(&output));
}

/// Whether the home's keys open with this: `members` reads them, and needs no node.
fn opens(home: &Path, passphrase: &str) -> bool {
    let output =
        given(&format!("{passphrase}\n"), &["members", "--home", text(home), "--passphrase-fd", "0"]);
    match output.status.code() {
        Some(0) => true,
        _ => {
            assert!(said(&output).contains("does not open"), "{}", said(&output));
            false
        }
    }
}

/// A terminal, and what a program at it says.
struct Terminal {
    master: File,
    said: String,
}

impl Terminal {
    /// Starts the program at a terminal of its own.
    fn start(arguments: &[&str]) -> (Terminal, std::process::Child) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", PROGRAM]).args(arguments);
        let (input, output) = (slave.try_clone().unwrap(), slave.try_clone().unwrap());
        let child = command.stdin(input).stdout(output).stderr(slave).spawn().unwrap();
        (Terminal { master: File::from(master), said: String::new() }, child)
    }

    /// Waits for `prompt`, and types a line.
    fn answer(&mut self, prompt: &str, line: &str) {
        let until = Instant::now() + SOON;
        let mut buffer = [0; 1024];
        while !self.said.contains(prompt) {
            assert!(Instant::now() < until, "never asked {prompt:?}, but said {:?}", self.said);
            let count = self.master.read(&mut buffer).unwrap();
            self.said += &String::from_utf8_lossy(&buffer[..count]);
        }
        self.said = self.said.split_once(prompt).unwrap().1.to_owned();
        self.master.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// All that it says until it ends.
    fn rest(&mut self) -> String {
        let mut buffer = [0; 1024];
        loop {
            match self.master.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.said += &String::from_utf8_lossy(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // EIO: nobody has the other side any more.
                Err(_) => break,
            }
        }
        std::mem::take(&mut self.said)
    }
}

#[test]
fn keys_take_a_passphrase_and_the_owners_key_may_be_elsewhere() {
    let story = "keys_take_a_passphrase_and_the_owners_key_may_be_elsewhere";
    if !fuse_is_usable(story) || !has_program("setsid") {
        return loud(&format!("SKIPPED: {story}: no FUSE, or no setsid"));
    }
    let place = Place::new("sealed");
    let (home, drive, file) = (place.join("home"), place.join("drive"), place.join("owner.sealed"));
    let up = Running::up(&home, &drive, 1);
    fs::write(drive.join("a"), "kept").unwrap();
    // A drive has keys in memory: nothing changes under it.
    refused(
        given("x\n", &["passphrase", "--home", text(&home), "--new-passphrase-fd", "0"]),
        "in use by process",
    );
    assert!(up.stop().success());
    let seed = |name: &str| {
        let key: serde_json::Value = serde_json::from_slice(&fs::read(home.join(name)).unwrap()).unwrap();
        key["seed"].as_str().map(str::to_owned)
    };
    let seeds = [seed("owner.key").unwrap(), seed("user.key").unwrap()];

    // Set at a terminal, where it does not show.
    let (mut terminal, mut child) = Terminal::start(&["passphrase", "--home", text(&home)]);
    terminal.answer("the new passphrase: ", "correct horsx\u{7f}e");
    terminal.answer("once more: ", "correct horse");
    let rest = terminal.rest();
    assert!(child.wait().unwrap().success(), "{rest}");
    assert!(!rest.contains("horse") && rest.contains("Argon2id"), "{rest}");
    for entry in fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
    {
        let content = String::from_utf8_lossy(&fs::read(&entry).unwrap()).into_owned();
        assert!(seeds.iter().all(|seed| !content.contains(seed)), "{} has a key", entry.display());
    }
    assert_eq!((seed("owner.key"), seed("user.key")), (None, None));

    // Nobody is there to be asked; somebody says something else; what is asked for at a terminal is asked for once.
    let at_home = ["--home", text(&home)];
    refused(
        alone(&[&["members"], &at_home[..]].concat()).stdin(Stdio::null()).output().unwrap(),
        "no terminal",
    );
    assert!(!opens(&home, "correct hors") && opens(&home, "correct horse"));
    let (mut terminal, mut child) = Terminal::start(&[&["members"], &at_home[..]].concat());
    terminal.answer("the passphrase of this home's keys: ", "correct horse");
    let rest = terminal.rest();
    assert!(child.wait().unwrap().success() && rest.contains("the drive's owner"), "{rest}");
    let (mut terminal, mut child) = Terminal::start(&[&["members"], &at_home[..]].concat());
    terminal.answer("the passphrase of this home's keys: ", "correct\u{3}");
    let rest = terminal.rest();
    assert!(!child.wait().unwrap().success() && rest.contains("interrupted"), "{rest}");

    // Secrets in an ordinary file, each a line of its own: by one number, by two, behind what the shell has read, and behind what
    // another command has.
    let lines = place.join("lines");
    let commands = [
        ("", "", "--passphrase-fd 3 --new-passphrase-fd 3 3< \"$2\""),
        ("", "", "--passphrase-fd 3 --new-passphrase-fd 4 3< \"$2\" 4<&3"),
        ("somebody\n", "exec < \"$2\"; read -r user;", "--passphrase-fd 0 --new-passphrase-fd 3 3<&0"),
        (
            "other horse\n",
            "exec 3< \"$2\"; \"$0\" members --home \"$1\" --passphrase-fd 3;",
            "--passphrase-fd 3 --new-passphrase-fd 3",
        ),
    ];
    let mut passphrases = ("correct horse", "other horse");
    for (first, before, how) in commands {
        let (old, new) = passphrases;
        fs::write(&lines, format!("{first}{old}\n{new}\n")).unwrap();
        let line = format!("{before} exec \"$0\" passphrase --home \"$1\" {how}");
        run("sh", &["-c", &line, PROGRAM, text(&home), text(&lines)]);
        assert!(opens(&home, new) && !opens(&home, old), "{line}");
        passphrases = (new, old);
    }
    let same = ["passphrase", "--passphrase-fd", "0", "--new-passphrase-fd", "0"];
    refused(given("correct horse\ncorrect horse\n", &[&same[..], &at_home].concat()), "under already");
    let inside = home.join("inside.key");
    let export = ["owner", "export", text(&inside), "--passphrase-fd", "0", "--new-passphrase-fd", "0"];
    refused(given("correct horse\nbattery\n", &[&export[..], &at_home].concat()), "no place apart");

    // A drive as a service: its passphrase is a credential, and its nodes start without.
    let credentials = place.join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("hypha.passphrase"), "correct horse\n").unwrap();
    let service = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).args(at_home).env("CREDENTIALS_DIRECTORY", &credentials);
        command
    };
    let up = Running::start_with(&mut service(&["up", text(&drive)]), "the drive is");
    assert_eq!(fs::read_to_string(drive.join("a")).unwrap(), "kept");
    assert!(up.stop().success());

    // The owner's key goes elsewhere. The drive goes on, and says what waits.
    let export = ["owner", "export", text(&file), "--passphrase-fd", "0", "--new-passphrase-fd", "0"];
    done(given("correct horse\nbattery\n", &[&export[..], &at_home].concat()));
    assert!(!home.join("owner.key").exists());
    let content = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
    assert!(!content.contains(&seeds[0]));
    let mut up = Running::start_with(&mut service(&["up", text(&drive)]), "the owner's key is away");
    assert!(up.wait_for("the drive is", SOON));
    let output = service(&["invite"]).output().unwrap();
    refused(output, &format!("--owner {}", text(&file)));
    let output = service(&["invite"]).output().unwrap();
    refused(output, &format!("the owner's key is away (in {})", text(&file)));
    let status = done(service(&["status"]).output().unwrap());
    assert!(status.contains("nobody is let in or removed but by what runs with --owner FILE"), "{status}");
    let other = place.join("other.sealed");
    fs::copy(&file, &other).unwrap();
    let with_owner = ["--owner", text(&other), "--passphrase-fd", "0", "--owner-passphrase-fd", "0"];
    let invite = [&["invite"], &at_home[..], &with_owner].concat();
    refused(given("correct horse\nbatteries\n", &invite), "does not open");
    let output = given("correct horse\nbattery\n", &invite);
    assert!(output.status.success(), "{}", said(&output));
    let ticket = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    // Whoever comes waits until a drive runs that was given the key.
    let second = place.join("second");
    let mut joining =
        Running::start(&["join", "--home", text(&second), &ticket], "the nodes have your request");
    assert!(done(service(&["status"]).output().unwrap()).contains("a ticket is good"));
    assert!(up.stop().success());
    fs::write(credentials.join("hypha.owner-passphrase"), "battery").unwrap();
    let up =
        Running::start_with(&mut service(&["up", "--owner", text(&other), text(&drive)]), "the drive is");
    let joined = joining.wait(SOON).unwrap();
    assert!(joined.success(), "{}", joining.drain());
    // Of a member's home the owner's words bring back nothing.
    let new = ["passphrase", "--home", text(&second), "--new-passphrase-fd", "0"];
    let told = done(given("of the second\n", &new));
    assert!(told.contains("the owner removes this member") && !told.contains("words"), "{told}");
    let wrong = ["passphrase", "--home", text(&second), "--remove", "--passphrase-fd", "0"];
    let wrong = given("wrong\n", &wrong);
    assert!(said(&wrong).contains("the owner removes this member"), "{}", said(&wrong));
    let renewed = done(service(&["owner", "renew", "--owner", text(&other)]).output().unwrap());
    assert!(renewed.contains("1 of 1 nodes keep the newest passports of 1 member"), "{renewed}");
    assert!(up.stop().success());
    // The words are the same key, and bring it back as well.
    let shown = service(&["recovery", "--show", "--owner", text(&other)]).output().unwrap();
    refused(shown, "no storage node answers");
    done(given(
        "correct horse\nbattery\n",
        &[&["owner", "import", text(&file)], &at_home[..], &with_owner[2..]].concat(),
    ));
    assert!(home.join("owner.key").exists() && seed("owner.key").is_none());

    // Taken off: everything is as it was.
    refused(
        given("wrong\n", &[&["passphrase", "--remove", "--passphrase-fd", "0"], &at_home[..]].concat()),
        "does not open",
    );
    done(given(
        "correct horse\n",
        &[&["passphrase", "--remove", "--passphrase-fd", "0"], &at_home[..]].concat(),
    ));
    assert_eq!([seed("owner.key").unwrap(), seed("user.key").unwrap()], seeds);
    run(PROGRAM, &[&["members"], &at_home[..]].concat());
}

#[test]
fn whoever_is_killed_while_a_passphrase_changes_has_the_old_one_or_the_new() {
    let story = "whoever_is_killed_while_a_passphrase_changes_has_the_old_one_or_the_new";
    if !fuse_is_usable(story) || !has_program("setsid") {
        return loud(&format!("SKIPPED: {story}: no FUSE, or no setsid"));
    }
    let place = Place::new("killed");
    let (home, drive) = (place.join("home"), place.join("drive"));
    assert!(Running::up(&home, &drive, 1).stop().success());
    let mut random = Random::announced(story);
    let mut now = "none is needed".to_owned();
    for round in 0..12 {
        let next = format!("passphrase {round}");
        let arguments = ["passphrase", "--home", text(&home), "--passphrase-fd", "0"];
        // Whether it is set, changed or taken off, as the state before happens to be.
        let what: &[&str] = if round % 4 == 3 { &["--remove"] } else { &["--new-passphrase-fd", "0"] };
        let is_sealed = fs::read_to_string(home.join("user.key")).unwrap().contains("sealed")
            || fs::read_to_string(home.join("owner.key")).unwrap().contains("sealed");
        let input = if is_sealed { format!("{now}\n{next}\n") } else { format!("{next}\n") };
        let mut child = Command::new(PROGRAM)
            .args([&arguments[..], what].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        thread::sleep(Duration::from_millis(random.below(500)));
        let _ = child.kill();
        child.wait().unwrap();
        if opens(&home, &next) {
            now = next;
        } else {
            assert!(opens(&home, &now), "round {round}: neither {now:?} nor {next:?}");
        }
    }
    eventually("no key lies beside the home's", SOON, || {
        let is_left = |path: &Path| path.extension().is_some_and(|end| end == "new");
        let left =
            fs::read_dir(&home).unwrap().filter(|entry| is_left(&entry.as_ref().unwrap().path())).count();
        if left > 0 {
            let arguments =
                ["passphrase", "--home", text(&home), "--passphrase-fd", "0", "--new-passphrase-fd", "0"];
            given(&format!("{now}\n{now}\n"), &arguments);
        }
        left == 0
    });
}
