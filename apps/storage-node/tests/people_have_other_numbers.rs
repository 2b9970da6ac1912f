//! People whose accounts have other numbers on their machines use one drive, as README has them set it up, and the lists alone say who
//! may write.
//!
//! What went wrong: the drive's top was root's of the server that it was founded on, so that nobody else could make anything in it; and
//! what one member made no other could change, in the very words with which the drive refuses who is not on a list.
//!
//! Root founds the network here; the others are users of this machine, in a mount namespace of their own in which everybody may use
//! /dev/fuse, as is usual on laptops.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use common::members::printed;
use common::running::Running;
use common::{PROGRAM, Place, eventually, fuse_is_usable, has_program, loud, text};

const SOON: Duration = Duration::from_secs(60);

/// Where ordinary users may mount.
struct Laptops {
    holder: Child,
}

impl Laptops {
    fn new(place: &Place) -> Option<Laptops> {
        let device = place.join("fuse");
        let made = Command::new("mknod").args(["-m", "666", text(&device), "c", "10", "229"]).status();
        if !made.is_ok_and(|status| status.success()) {
            return None;
        }
        let script = format!("mount --bind {} /dev/fuse && echo there && exec sleep 600", text(&device));
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.take()?).read_line(&mut line).ok()?;
        let laptops = Laptops { holder };
        // A file system without devices is of no use for that.
        let usable = laptops.command(Person::ANNA).args(["sh", "-c", ": < /dev/fuse"]).status();
        usable.is_ok_and(|status| status.success()).then_some(laptops)
    }

    /// A command of one person's.
    fn command(&self, Person { uid, .. }: Person) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "-m", "setpriv"]);
        command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
        command.args(["--clear-groups", "--"]);
        command
    }

    /// What a line of shell says to somebody who stands beside his drive.
    fn says(&self, person: Person, place: &Path, line: &str) -> Output {
        let mut command = self.command(person);
        let place = place.join(person.name);
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", &format!("HOME={}", text(&place))]);
        command
            .args(["sh", "-c", &format!("cd {} && {line}", text(&place))])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    #[track_caller]
    fn does(&self, person: Person, place: &Path, line: &str) -> String {
        let output = self.says(person, place, line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {line}: {said}", person.name);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[track_caller]
    fn is_refused(&self, person: Person, place: &Path, line: &str, words: &str) {
        let output = self.says(person, place, line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{}: {line}: {said}", person.name);
    }
}

impl Drop for Laptops {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Users of every Linux, with names, which fusermount3 asks for.
#[derive(Clone, Copy)]
struct Person {
    name: &'static str,
    uid: u32,
}

impl Person {
    const ANNA: Person = Person { name: "anna", uid: 65534 };
    const BEN: Person = Person { name: "ben", uid: 1 };
}

/// A directory of a person's own, and a drive mounted in it with a ticket.
fn join(laptops: &Laptops, person: Person, place: &Path, owner: &Path) -> Running {
    let directory = place.join(person.name);
    fs::create_dir(&directory).unwrap();
    chown(&directory, Some(person.uid), Some(person.uid)).unwrap();
    let ticket = printed(owner, &["invite"]).trim().to_owned();
    let (program, home, drive) =
        (place.join("storage-node"), directory.join("home"), directory.join("drive"));
    let mut command = laptops.command(person);
    command.args([text(&program), "join", "--as", person.name, "--home", text(&home), &ticket, text(&drive)]);
    Running::start_with(&mut command, "the drive is")
}

fn owner_and_mode(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.permissions().mode() & 0o7777)
}

#[test]
fn people_with_other_numbers_write_where_the_lists_let_them() {
    const STORY: &str = "people_with_other_numbers_write_where_the_lists_let_them";
    if !fuse_is_usable(STORY) {
        return;
    }
    let programs = ["setpriv", "nsenter", "unshare", "mknod"].map(has_program);
    if !rustix::process::geteuid().is_root() || programs.contains(&false) {
        loud(&format!("SKIPPED: {STORY}: it takes root, setpriv, nsenter, unshare and mknod"));
        return;
    }
    let place = Place::new("numbers");
    let Some(laptops) = Laptops::new(&place) else {
        loud(&format!("SKIPPED: {STORY}: no /dev/fuse for everybody can be made here"));
        return;
    };
    let path: PathBuf = place.join("");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(PROGRAM, place.join("storage-node")).unwrap();
    let (home, drive) = (place.join("server"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    assert_eq!(owner_and_mode(&drive), (0, 0o755), "root founded it, as on any server");
    fs::write(drive.join("of the server"), "1").unwrap();
    let anna = join(&laptops, Person::ANNA, &path, &home);
    let ben = join(&laptops, Person::BEN, &path, &home);

    // Word for word what anybody does next.
    laptops.does(Person::ANNA, &path, "mkdir drive/familie && echo brief > drive/familie/brief.txt");
    laptops.does(Person::ANNA, &path, "echo 2 >> 'drive/of the server'");
    // What is stored stays true for whoever tells users apart.
    eventually("the server sees it", SOON, || drive.join("familie/brief.txt").exists());
    assert_eq!(owner_and_mode(&drive.join("familie")), (65534, 0o755));
    assert_eq!(owner_and_mode(&drive.join("of the server")), (0, 0o644), "nobody gave it away");
    eventually("ben sees it", SOON, || {
        laptops.says(Person::BEN, &path, "cat drive/familie/brief.txt").status.success()
    });
    laptops.does(
        Person::BEN,
        &path,
        "echo antwort >> drive/familie/brief.txt && mv drive/familie/brief.txt drive/familie/b",
    );
    assert_eq!(laptops.does(Person::BEN, &path, "stat -c %u:%g drive drive/familie/b"), "1:1\n1:1");

    // Permission bits are honoured as stored, the owner's: a file that is protected from writing is so for everybody.
    laptops.does(Person::BEN, &path, "chmod 440 drive/familie/b");
    laptops.is_refused(Person::BEN, &path, "echo no >> drive/familie/b", "ermission denied");
    eventually("the mode is everybody's", SOON, || {
        owner_and_mode(&drive.join("familie/b")) == (65534, 0o440)
    });
    // Nothing is said to be given to somebody whose it would not show to be.
    laptops.is_refused(Person::BEN, &path, "chown 0 drive/familie/b", "not permitted");
    laptops.is_refused(Person::BEN, &path, "chgrp 0 drive/familie/b", "not permitted");
    // What copies owners gets on: these are made by ben, and stored so.
    laptops.does(
        Person::BEN,
        &path,
        "mkdir t && touch t/x && chown 1:1 t/x && cp -a t drive/t && tar -C t -cf - x | tar -C drive/t -xpf -",
    );
    eventually("it shows", SOON, || drive.join("t/x").exists());
    assert_eq!(owner_and_mode(&drive.join("t/x")).0, 1);
    if has_program("git") {
        laptops.does(Person::ANNA, &path, "git init -q drive/repo");
        eventually("ben sees anna's repository, and git takes it for his", SOON, || {
            laptops.says(Person::BEN, &path, "git -C drive/repo status").status.success()
        });
    }

    // A space that the server's root made: who is on its list writes, and nobody else.
    printed(&home, &["share", text(&drive.join("firm")), "--write", "anna"]);
    eventually("anna writes it", SOON, || {
        laptops.says(Person::ANNA, &path, "echo x > drive/firm/anna").status.success()
    });
    laptops.is_refused(Person::BEN, &path, "ls drive/firm", "ermission denied");

    // Told apart on demand, and then it is said why nothing can be made.
    assert!(ben.stop().success());
    let mut command = laptops.command(Person::BEN);
    let of_ben = path.join("ben");
    command.args([text(&place.join("storage-node")), "mount", "--owners", "stored", "--home"]);
    command.args([text(&of_ben.join("home")), text(&of_ben.join("drive"))]);
    let mut ben = Running::start_with(&mut command, "the drive is");
    assert!(ben.wait_for("belongs to user 0 (mode 755), and you are user 1", SOON), "{}", ben.drain());
    assert_eq!(laptops.does(Person::BEN, &path, "stat -c %u drive drive/familie drive/t"), "0\n65534\n1");
    laptops.is_refused(Person::BEN, &path, "touch drive/no", "ermission denied");
    assert!(ben.stop().success() && anna.stop().success() && up.stop().success());
}
