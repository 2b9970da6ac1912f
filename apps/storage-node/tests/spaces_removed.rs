//! A space is removed: its name goes from everybody's drive, whoever had something waiting for it is told and gets it out, nobody is
//! held up, what it held is collected, and within the retention it is brought back, to its owner alone.
//!
//! What went wrong: a space could not be removed at all. Its name stayed for ever, and what it held on the nodes' disks.

mod common;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use common::garbage::gc;
use common::members::{id, join, printed, refusal};
use common::running::{Running, signal};
use common::{Place, eventually, fuse_is_usable, text};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(120);

fn write(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
}

fn is_missing(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn lists(directory: &Path, name: &str) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| entry.unwrap().file_name() == name)
}

#[test]
fn a_space_that_is_removed_is_gone_for_all_and_comes_back_to_its_owner() {
    if !fuse_is_usable("a_space_that_is_removed_is_gone_for_all_and_comes_back_to_its_owner") {
        return;
    }
    let place = Place::new("spaces-removed");
    let (home, bobs) = (place.join("home"), place.join("bob"));
    let (a, b) = (place.join("a"), place.join("b"));
    let founding = ["up", "--nodes", "1", "--retention", "20m", "--home", text(&home), text(&a)];
    let up = Running::start(&founding, "the drive is");
    let bob = join(&home, &bobs, &b);
    printed(&home, &["share", "band", "--write", &id(&bobs)]);
    let song: Vec<u8> = (0..400_000u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
    eventually("bob writes there", SOON, || fs::write(b.join("band/first"), "1").is_ok());
    write(&b.join("band/song"), &song);
    eventually("the owner has it", SOON, || fs::read(a.join("band/song")).is_ok_and(|read| read == song));

    // What bob writes while no node is there waits on his machine, beyond the end of his mount.
    assert!(up.stop().success());
    let mut bob = bob;
    fs::write(b.join("band/waiting"), "a tune").unwrap();
    signal(bob.pid(), Signal::TERM);
    assert!(!bob.wait(SOON).expect("it ends").success());
    let up = Running::up(&home, &a, 1);

    // Programs remove it no more than before, and the command removes nothing unasked.
    assert_eq!(fs::remove_dir(a.join("band")).unwrap_err().kind(), ErrorKind::ResourceBusy);
    assert!(refusal(&bobs, &["unshare", "band", "--remove"]).contains("only the home that made the network"));
    assert!(refusal(&home, &["unshare", "band", "--remove"]).contains("band is not empty"));
    assert!(fs::read(a.join("band/song")).is_ok_and(|read| read == song));
    write(&a.join("band/open"), b"before");
    let mut open = File::options().append(true).open(a.join("band/open")).unwrap();
    let removed = printed(&home, &["unshare", "band", "--remove", "--with-content"]);
    assert!(removed.contains("band is removed"), "{removed}");
    let again = removed.split("`rollback band --to ").nth(1).and_then(|rest| rest.split('`').next()).unwrap();
    eventually("its name is gone", SOON, || !lists(&a, "band") && is_missing(&a.join("band")));
    assert!(is_missing(&a.join("band/song")));
    // Who has something open there is told at once that nothing is taken.
    assert!(open.write_all(b" and after").and_then(|()| open.sync_all()).is_err());
    drop(open);

    // Bob is told what waits, and gets it out; nothing else of his goes wrong.
    let mut bob = Running::start(&["mount", "--home", text(&bobs), text(&b)], "the drive is");
    assert!(bob.wait_for("what was written to the space band waits in", SOON), "{}", bob.drain());
    assert!(is_missing(&b.join("band")) && !lists(&b, "band"));
    let waits = printed(&bobs, &["journal"]);
    assert!(waits.contains("band/waiting") && waits.contains("journal export"), "{waits}");
    let out = place.join("out");
    printed(&bobs, &["journal", "export", text(&out)]);
    let found = common::run("find", &[text(&out), "-name", "waiting"]);
    assert_eq!(fs::read_to_string(found.trim()).unwrap(), "a tune");
    write(&b.join("of the drive"), b"here");
    for name in ["one", "two"] {
        let said = printed(&bobs, &["snapshot", name]);
        assert!(!said.contains("band"), "{said}");
    }

    // What it held is collected, and nobody who had it open is waited for.
    let mut deleted = 0;
    eventually("it is collected", SOON, || {
        let (succeeded, said) = gc(&home, &[]);
        assert!(succeeded, "{said}");
        let of_space = said.split("of the space band: deleted ").nth(1);
        let count = of_space.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        deleted += count.unwrap_or(0);
        deleted > 0 && count == Some(0) || deleted > 2
    });

    // Its owner changes his mind.
    let said = refusal(&home, &["share", "band", "--put-back"]);
    assert!(said.contains("the space band was removed") && said.contains("`rollback DIR --to ID`"), "{said}");
    let said = printed(&home, &["rollback", "band", "--to", again]);
    assert!(said.contains("the space band is what it was"), "{said}");
    assert!(said.contains("nobody but you is on its list"), "{said}");
    assert!(printed(&home, &["share", "band", "--put-back"]).contains("band is there again"));
    // Whether what was refused waits in its journal hangs on when the mount heard of it.
    let _ = up.stop();
    let mut up = Running::up(&home, &a, 1);
    assert!(fs::read(a.join("band/song")).unwrap() == song);
    assert!(fs::read(a.join("band/open")).unwrap().starts_with(b"before"));
    write(&a.join("band/later"), b"on");
    let listed = printed(&home, &["access", "band"]);
    assert!(listed.contains("the drive's owner (") && !listed.contains(&id(&bobs)), "{listed}");
    eventually("bob sees its name", SOON, || lists(&b, "band"));
    assert!(fs::read(b.join("band/song")).is_err());

    // An empty one goes without another word, and its name is free for the next.
    printed(&home, &["share", "duo", "--write", &id(&bobs)]);
    eventually("it is there", SOON, || {
        fs::write(b.join("duo/x"), "1").is_ok() && fs::read(a.join("duo/x")).is_ok()
    });
    fs::remove_file(a.join("duo/x")).unwrap();
    File::open(a.join("duo")).unwrap().sync_all().unwrap();
    assert!(printed(&home, &["unshare", "duo", "--remove"]).contains("duo is removed"));
    // The owner's mount too: what is written before it has heard of it waits for a space that is no more.
    eventually("nobody finds it", SOON, || is_missing(&b.join("duo")) && is_missing(&a.join("duo")));
    printed(&home, &["share", "duo"]);
    eventually("there is another of that name", SOON, || a.join("duo").is_dir());
    write(&a.join("duo/new"), b"new");
    signal(bob.pid(), Signal::TERM);
    let ended = bob.wait(SOON).expect("it ends");
    assert!(
        !ended.success() && bob.drain().contains("in the journal of"),
        "{ended}: it waits for ever, and he is told"
    );
    signal(up.pid(), Signal::TERM);
    let ended = up.wait(SOON).expect("it ends");
    // All that he was told of is stored: what was left to take away of the file that was removed there nobody waits for.
    assert!(ended.success(), "{ended}: {}", up.drain());
}
