//! Of three nodes two are lost for good, with all that they had. The third has every block, and what the root was: that is enough to get
//! everything out, the drive and its spaces, though nobody can say any more that there is nothing newer.
//!
//! What went wrong: whatever was tried, the root was asked for first, and two of those that keep it had to answer.

mod common;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::Duration;

use common::members::{printed, refusal};
use common::running::Running;
use common::{Place, eventually, fuse_is_usable, run, text};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

/// The name of the last state that `past` lists.
fn last_state(home: &Path, of: &[&str]) -> String {
    let listed: Value = serde_json::from_str(&printed(home, &[&["past", "--json"], of].concat())).unwrap();
    listed["past"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn what_one_node_has_is_shown_although_nobody_can_read_the_root() {
    if !fuse_is_usable("what_one_node_has_is_shown_although_nobody_can_read_the_root") {
        return;
    }
    let place = Place::new("one-node-is-enough");
    let (home, drive, then) = (place.join("home"), place.join("drive"), place.join("then"));
    let up = Running::up(&home, &drive, 3);
    let large: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    fs::create_dir(drive.join("photos")).unwrap();
    fs::write(drive.join("photos/large"), &large).unwrap();
    printed(&home, &["share", "band"]);
    eventually("the space is there", SOON, || fs::write(drive.join("band/song"), "la").is_ok());
    eventually("node 3 has all of it", SOON, || {
        let status: Value = serde_json::from_str(&printed(&home, &["status", "--json"])).unwrap();
        status["health"] == "healthy"
    });
    assert!(up.stop().success());

    let node = place.join("node");
    fs::rename(home.join("nodes/3"), &node).unwrap();
    fs::remove_dir_all(home.join("nodes/1")).unwrap();
    fs::remove_dir_all(home.join("nodes/2")).unwrap();
    let running = Running::start(&["run", "--home", text(&node)], "listening on");

    // Each waits for a while for those who kept the root, so all do it at once.
    let bands = place.join("bands");
    let shown = |of: &[&str], at: &Path| {
        let state = last_state(&home, of);
        let of = if of.is_empty() { vec![] } else { [&["--of"], of].concat() };
        let arguments = [&["mount", "--at", &state, "--home", text(&home)], &of[..], &[text(at)]].concat();
        Running::start(&arguments, "the drive is")
    };
    let refused_without = || refusal(&home, &["mount", "--cache", "0", text(&place.join("now"))]);
    let (view, band, refused) = thread::scope(|scope| {
        let view = scope.spawn(|| shown(&[], &then));
        let band = scope.spawn(|| shown(&["band"], &bands));
        let refused = scope.spawn(refused_without);
        (view.join().unwrap(), band.join().unwrap(), refused.join().unwrap())
    });
    assert!(refused.contains("cannot be read") && refused.contains("mount --at STATE"), "{refused}");
    let refused = refusal(&home, &["mount", "--at", "1d", "--of", "band", text(&place.join("now"))]);
    assert!(refused.contains("past DIR"), "{refused}");

    assert!(fs::read(then.join("photos/large")).unwrap() == large);
    assert_eq!(fs::write(then.join("new"), "new").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    run("cp", &["-a", text(&then.join("photos")), text(&place.join("copied"))]);
    assert!(fs::read(place.join("copied/large")).unwrap() == large);
    assert_eq!(fs::read(bands.join("song")).unwrap(), b"la");
    assert!(view.stop().success() && band.stop().success() && running.stop().success());
}
