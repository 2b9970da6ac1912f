//! The owner's home is put back from a backup after a writer has sealed a space to himself; by the backup somebody may read there whom the
//! home had taken off since. The space goes back to what it was, and he is not let in by that. The home that took him off takes it over.
//!
//! What went wrong: where the newest root does not open, the backup's list was said anew, under a number that was used already. Only its
//! writers were compared with the register's, and who only read was let in again.

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use common::keys;
use common::members::{id, join, printed};
use common::running::Running;
use common::{Place, eventually, fuse_is_usable, run, text};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

/// A thousandth of it is a second and some.
const RETENTION: &str = "20m";

fn write(directory: &Path, name: &str) {
    let path = directory.join(name);
    fs::write(&path, name).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
}

fn past(home: &Path) -> Value {
    serde_json::from_str(&printed(home, &["past", "band", "--json"])).unwrap()
}

#[test]
fn who_was_taken_off_after_the_backup_is_not_let_in_by_going_back() {
    if !fuse_is_usable("who_was_taken_off_after_the_backup_is_not_let_in_by_going_back") {
        return;
    }
    let place = Place::new("spaces-readers-stay-off");
    let (home, backup) = (place.join("home"), place.join("backup"));
    let (bobs, carols, a) = (place.join("bob"), place.join("carol"), place.join("a"));
    let up = Running::start(
        &["up", "--nodes", "1", "--retention", RETENTION, "--home", text(&home), text(&a)],
        "the drive is",
    );
    for (member, drive) in [(&bobs, "b"), (&carols, "c")] {
        assert!(join(&home, member, &place.join(drive)).stop().success());
    }
    printed(&home, &["share", "band", "--write", &id(&bobs), "--read", &id(&carols)]);
    let ours = a.join("band");
    write(&ours, "first");
    let first = past(&home)["newest"]["id"].as_str().unwrap().to_owned();
    // It is kept as the last of its slot, once another one comes in a later slot.
    let mut number = 0;
    eventually("a state with the first file alone is kept", SOON, || {
        std::thread::sleep(Duration::from_secs(3));
        number += 1;
        write(&ours, &format!("later {number}"));
        past(&home)["past"].as_array().unwrap().iter().any(|state| state["id"] == *first)
    });
    run("cp", &["-a", text(&home), text(&backup)]);

    printed(&home, &["unshare", "band", "--from", &id(&carols)]);
    let [his_key, her_key] = [&bobs, &carols].map(|home| keys::identity(&home.join("user.key")));
    keys::seal_the_last_space(&home, &bobs, &[&his_key], 0);
    let said = printed(&backup, &["rollback", "band", "--to", &first]);
    assert!(said.contains("the space band is what it was"), "{said}");
    assert_eq!(keys::that_open_the_last_space(&home, &[&her_key]), [], "{said}");
    let listed = printed(&backup, &["access", "band"]);
    assert!(listed.contains(&id(&bobs)) && !listed.contains(&id(&carols)), "{said}\n{listed}");

    // The home goes on from that, and its next list is the backup's next one too.
    printed(&home, &["share", "band", "--read", &id(&carols)]);
    for home in [&home, &backup] {
        let listed = printed(home, &["access", "band"]);
        assert!(listed.contains(&id(&bobs)) && listed.contains(&id(&carols)), "{listed}");
    }
    assert_eq!(keys::that_open_the_last_space(&home, &[&her_key]).len(), 1);
    assert!(up.stop().success());
}
