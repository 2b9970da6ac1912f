//! A space goes back to what it was, alone and in one step: the drive stays as it is, who was taken off since is not let in by it, what
//! somebody writes meanwhile is kept, and another rollback brings back what the first took the place of. A writer of it may do that; from
//! a writer who seals it to himself the owner has it back.
//!
//! What went wrong: `rollback` knew the drive alone, and what a writer had done to a space, or sealed, was lost though the nodes kept it.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::keys;
use common::members::{id, join, printed, refusal};
use common::running::{Running, signal};
use common::{Place, eventually, fuse_is_usable, text};
use rustix::process::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

/// A thousandth of it is two seconds.
const RETENTION: &str = "20m";

fn write(directory: &Path, name: &str) {
    let path = directory.join(name);
    fs::write(&path, name).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
}

fn has(directory: &Path, name: &str) -> bool {
    fs::read(directory.join(name)).is_ok_and(|content| content == name.as_bytes())
}

fn past(home: &Path, of: &str) -> Value {
    serde_json::from_str(&printed(home, &["past", of, "--json"])).unwrap()
}

/// What a rollback said that it took the place of.
fn undoing(said: &str) -> String {
    let id = said.split("what it was until now is ").nth(1).and_then(|rest| rest.split(':').next());
    id.unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn a_space_is_what_it_was_and_nobody_comes_back_by_that() {
    if !fuse_is_usable("a_space_is_what_it_was_and_nobody_comes_back_by_that") {
        return;
    }
    let place = Place::new("spaces-roll-back");
    let (home, bobs, carols) = (place.join("home"), place.join("bob"), place.join("carol"));
    let (a, b, c) = (place.join("a"), place.join("b"), place.join("c"));
    let up = Running::start(
        &["up", "--nodes", "1", "--retention", RETENTION, "--home", text(&home), text(&a)],
        "the drive is",
    );
    let (bob, carol) = (join(&home, &bobs, &b), join(&home, &carols, &c));
    printed(&home, &["share", "band", "--write", &id(&bobs), "--read", &id(&carols)]);
    let (ours, his, hers) = (a.join("band"), b.join("band"), c.join("band"));
    write(&ours, "first");
    eventually("carol reads it", SOON, || has(&hers, "first"));
    let first = past(&home, "band")["newest"]["id"].as_str().unwrap().to_owned();
    // It is kept as the last of its slot, once another one comes in a later slot.
    let mut number = 0;
    eventually("a state with the first file alone is kept", SOON, || {
        std::thread::sleep(Duration::from_secs(3));
        number += 1;
        write(&ours, &format!("later {number}"));
        past(&home, "band")["past"].as_array().unwrap().iter().any(|state| state["id"] == *first)
    });
    let last = format!("later {number}");

    // Who only reads goes back nowhere; carol is taken off after that state, in which she was on the list.
    let to_first = ["rollback", "band", "--to", &first];
    assert!(refusal(&carols, &to_first).contains("change nothing in it"));
    printed(&home, &["unshare", "band", "--from", &id(&carols)]);
    write(&a, "of the drive");
    write(&his, "precious");
    eventually("the owner has it", SOON, || has(&ours, "precious"));

    // Bob's mount is asleep, with something on its way, while he has the space go back from elsewhere.
    signal(bob.pid(), Signal::STOP);
    let mut late = Command::new("sh")
        .args(["-c", "cat > \"$0\"", text(&his.join("late"))])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    late.stdin.take().unwrap().write_all(b"late").unwrap();
    let said = printed(&bobs, &to_first);
    signal(bob.pid(), Signal::CONT);
    assert!(said.contains("the space band is what it was "), "{said}");
    eventually("it is what it was", SOON, || has(&ours, "first") && !ours.join(&last).exists());
    assert!(!ours.join("precious").exists() && has(&a, "of the drive"));
    assert!(late.wait().unwrap().success());
    eventually("what was on its way is put on it", SOON, || has(&ours, "late"));
    let listed = printed(&home, &["access", "band"]);
    assert!(listed.contains(&id(&bobs)) && !listed.contains(&id(&carols)), "{listed}");
    write(&ours, "not for carol");
    let her_key = keys::identity(&carols.join("user.key"));
    assert!(fs::read(hers.join("not for carol")).is_err());
    assert_eq!(keys::that_open_the_last_space(&home, &[&her_key]), []);

    // The way back.
    let undone = printed(&bobs, &["rollback", text(&his), "--to", &undoing(&said)]);
    assert!(undone.contains("the space band is what it was"), "{undone}");
    for name in ["first", &last, "precious"] {
        eventually("all of it is there again", SOON, || has(&ours, name));
    }

    // Bob seals it to himself: that he is to be off it is noted, and the owner has what there was, without him.
    assert!(bob.stop().success());
    write(&ours, "after");
    // Within one slot with what bob wrote last, what came between may not be kept.
    std::thread::sleep(Duration::from_secs(3));
    let his_key = keys::identity(&bobs.join("user.key"));
    keys::seal_the_last_space(&home, &bobs, &[&his_key], 0);
    assert!(refusal(&home, &["unshare", "band", "--from", &id(&bobs)]).contains("has sealed it to others"));
    let listed = past(&home, "band");
    let mut states = listed["past"].as_array().unwrap().iter();
    let good = states.rfind(|state| state["writer"] == "the drive's owner");
    let good = good.unwrap_or_else(|| panic!("{listed}"))["id"].as_str().unwrap();
    let said = printed(&home, &["rollback", "band", "--to", good]);
    assert!(said.contains(&id(&bobs)) && said.contains("neither read nor write"), "{said}");
    // A mount that saw what did not open to it shows it when it is mounted anew, as that said.
    assert!(said.contains("mounted anew"), "{said}");
    assert!(up.stop().success());
    let up = Running::up(&home, &a, 1);
    for name in ["first", &last, "precious", "after"] {
        eventually("the owner has it again", SOON, || has(&ours, name));
    }
    write(&ours, "and so on");
    assert!(keys::overwrite_the_last_space(&home, &bobs, b"again").is_err());
    assert_eq!(keys::that_open_the_last_space(&home, &[&his_key]), []);
    let listed = printed(&home, &["access", "band", "--log"]);
    assert!(listed.contains(&id(&bobs)) && listed.contains("neither"), "{listed}");

    // A directory that is none comes from a snapshot, and what was there is beside it.
    fs::create_dir(a.join("photos")).unwrap();
    write(&a.join("photos"), "one");
    printed(&home, &["snapshot", "before"]);
    fs::remove_file(a.join("photos/one")).unwrap();
    write(&a.join("photos"), "two");
    assert!(refusal(&home, &["past", "photos"]).contains("is no space of its own"));
    let said = printed(&home, &["rollback", "photos", "--to", "before"]);
    let aside = said.split("is kept as ").nth(1).and_then(|rest| rest.lines().next()).unwrap().to_owned();
    eventually("it is as it was", SOON, || has(&a.join("photos"), "one"));
    assert!(!a.join("photos/two").exists() && has(&a.join(aside), "two"));
    for process in [carol, up] {
        assert!(process.stop().success());
    }
}
