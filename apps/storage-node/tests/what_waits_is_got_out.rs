//! What was closed and is taken no more: a member made a reader while he has the space mounted, and one who was removed from the
//! network with files that no node has. Each hears it at once and in words that are so, and gets his files out, byte for byte.
//!
//! The homes here are one machine's each, as far as the program can tell.

mod common;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use common::members::{id, join, printed, refusal};
use common::random::Random;
use common::running::{Running, signal};
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, text};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(60);

fn reads(path: &Path, content: &[u8]) -> bool {
    fs::read(path).is_ok_and(|found| found == content)
}

/// What `umount` says of a drive of which something waits.
fn umounted(drive: &Path) -> String {
    let output = ended_within(SOON, Command::new(PROGRAM).args(["umount", text(drive)]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// The one space of an export.
fn band(exported: &Path) -> std::path::PathBuf {
    let mut spaces = fs::read_dir(exported.join("spaces")).unwrap();
    spaces.next().unwrap().unwrap().path()
}

#[test]
fn who_may_write_no_more_hears_it_and_gets_his_files_out() {
    if !fuse_is_usable("who_may_write_no_more_hears_it_and_gets_his_files_out") {
        return;
    }
    let place = Place::new("got-out");
    let (home, a, b, bobs) = (place.join("home"), place.join("a"), place.join("b"), place.join("bob"));
    let mut random = Random::announced("got-out");
    let up = Running::up(&home, &a, 1);
    let mut bob = join(&home, &bobs, &b);
    printed(&home, &["share", "band", "--write", &id(&bobs)]);
    let mut old = random.bytes(200_000);
    let song = random.bytes(100_000);
    eventually("bob writes there", SOON, || fs::write(b.join("band/song"), &song).is_ok());
    fs::create_dir(b.join("papers")).unwrap();
    fs::write(b.join("papers/old"), &old).unwrap();
    eventually("all of it is stored", SOON, || {
        reads(&a.join("papers/old"), &old) && reads(&a.join("band/song"), &song)
    });

    // Made a reader while he has it mounted, with something that no node has: he hears it, and waits for nothing.
    assert!(up.stop().success());
    let take = random.bytes(50_000);
    fs::write(b.join("band/take"), &take).unwrap();
    signal(bob.pid(), Signal::STOP);
    let up = Running::up(&home, &a, 1);
    printed(&home, &["share", "band", "--read", &id(&bobs)]);
    signal(bob.pid(), Signal::CONT);
    assert!(bob.wait_for("you may only read the space band now", SOON), "{}", bob.drain());
    let said = bob.seen.last().unwrap();
    assert!(
        said.contains("in 1 file, waits on this machine") && said.contains("journal export DIR"),
        "{said}"
    );
    let refused = fs::write(b.join("band/more"), "more").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem, "{refused}");
    let refused = fs::create_dir(b.join("band/tapes")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem, "{refused}");
    fs::write(a.join("band/fresh"), "of another").unwrap();
    eventually("he reads what others write", SOON, || reads(&b.join("band/fresh"), b"of another"));
    assert!(reads(&b.join("band/take"), &take) && !a.join("band/take").exists());
    let listed = printed(&bobs, &["journal"]);
    assert!(listed.contains("band/take") && listed.contains("may only read the space now"), "{listed}");
    let out = place.join("first");
    printed(&bobs, &["journal", "export", text(&out)]);
    assert!(reads(&band(&out).join("take"), &take));
    let said = umounted(&b);
    assert!(said.contains("may only read the space now") && said.contains("journal export DIR"), "{said}");
    assert!(!said.contains("nodes are back") && said.contains("in 1 file"), "{said}");
    assert!(!bob.wait(SOON).expect("it ends").success());

    // A writer again while it is mounted: it is stored by itself.
    let mut bob = Running::start(&["mount", "--home", text(&bobs), text(&b)], "the drive is");
    assert!(bob.wait_for("may not write to the space band any more", SOON), "{}", bob.drain());
    assert!(bob.stop().code() == Some(1));
    printed(&home, &["share", "band", "--write", &id(&bobs)]);
    let mut bob = Running::start(&["mount", "--home", text(&bobs), text(&b)], "the drive is");
    eventually("it is stored", SOON, || reads(&a.join("band/take"), &take));
    printed(&home, &["share", "band", "--read", &id(&bobs)]);
    assert!(bob.wait_for("you may only read the space band now", SOON), "{}", bob.drain());
    printed(&home, &["share", "band", "--write", &id(&bobs)]);
    assert!(bob.wait_for("you may write to the space band again", SOON), "{}", bob.drain());
    fs::write(b.join("band/again"), "again").unwrap();
    eventually("he writes again", SOON, || reads(&a.join("band/again"), b"again"));

    // No node is there, and he goes on: new files, some bytes in the midst of an old one, more at the end of another.
    assert!(up.stop().success());
    let new = random.bytes(70_000);
    fs::create_dir(b.join("papers/new")).unwrap();
    fs::write(b.join("papers/new/letter"), &new).unwrap();
    std::os::unix::fs::symlink("letter", b.join("papers/new/link")).unwrap();
    let change = random.bytes(10);
    old[100_000..100_010].copy_from_slice(&change);
    std::os::unix::fs::FileExt::write_all_at(
        &fs::OpenOptions::new().write(true).open(b.join("papers/old")).unwrap(),
        &change,
        100_000,
    )
    .unwrap();
    fs::write(b.join("band/verse"), &new).unwrap();
    let longer = [&song[..], b" la la"].concat();
    use std::io::Write;
    fs::OpenOptions::new().append(true).open(b.join("band/song")).unwrap().write_all(b" la la").unwrap();
    let said = umounted(&b);
    assert!(said.contains("nodes are back") && !said.contains("journal export"), "{said}");
    assert!(!bob.wait(SOON).expect("it ends").success());

    // Meanwhile he is removed. His drive says that, of the space as well, and how he gets at what he wrote.
    let up = Running::up(&home, &a, 1);
    printed(&home, &["remove", &id(&bobs)]);
    let mut bob = Running::start(&["mount", "--home", text(&bobs), text(&b)], "the drive is");
    let mut said = String::new();
    eventually("it is said of the space too", SOON, || {
        said = bob.drain();
        said.contains("the space band waits in")
    });
    assert!(said.contains("removed from the network; `storage-node journal --home"), "{said}");
    assert!(said.contains("journal export DIR") && !said.contains("do not answer"), "{said}");
    eventually("the list says why, of the drive and of the space", SOON, || {
        printed(&bobs, &["journal"]).matches("(this user was removed from the network").count() == 2
    });
    let said = umounted(&b);
    assert!(said.contains("was removed from the network") && said.contains("journal export DIR"), "{said}");
    assert!(!said.contains("nodes are back") && said.contains("6 files and directories"), "{said}");
    drop(bob);
    assert!(up.stop().success());

    // With all nodes away, and nobody who would serve him.
    let listed = printed(&bobs, &["journal"]);
    for path in
        ["papers/new/", "papers/new/letter", "papers/new/link", "papers/old", "band/verse", "band/song"]
    {
        assert!(listed.contains(&format!("  {path}\n")), "{path}: {listed}");
    }
    assert!(listed.contains("this user was removed from the network"), "{listed}");
    let out = place.join("second");
    printed(&bobs, &["journal", "export", text(&out)]);
    let drive = out.join("drive");
    assert!(reads(&drive.join("papers/new/letter"), &new) && reads(&drive.join("papers/old"), &old));
    assert_eq!(fs::read_link(drive.join("papers/new/link")).unwrap(), Path::new("letter"));
    assert!(reads(&band(&out).join("verse"), &new) && reads(&band(&out).join("song"), &longer));
    assert!(refusal(&bobs, &["journal", "export", text(&out)]).contains("is not empty"));

    // Without its cache the machine has less of them: what is missing is said, and nothing is passed off as whole.
    fs::remove_dir_all(bobs.join("cache")).unwrap();
    let out = place.join("third");
    let said = refusal(&bobs, &["journal", "export", text(&out)]);
    assert!(said.contains("of 200000 bytes, bytes 0 to 98303, 131072 to 199999 are missing"), "{said}");
    assert!(said.contains("not on this machine") && said.contains("could not be had as a whole"), "{said}");
    let found = |name: &str| walk(&out).into_iter().find(|path| path.ends_with(name));
    assert!(reads(&found("letter").unwrap(), &new) && reads(&found("verse").unwrap(), &new));
    assert!(found("old").is_none() && found("song").is_none());
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.symlink_metadata().unwrap().is_dir() {
            true => all.extend(walk(&path)),
            false => all.push(path),
        }
    }
    all
}
