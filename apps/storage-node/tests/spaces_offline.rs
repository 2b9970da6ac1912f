//! A laptop without its network has the shared directories that it looked into, as it has the drive: to read, and, where its user may
//! write, to write; and what is pinned of them though nobody looked into it.
//!
//! What went wrong: a space was opened by what the nodes say of its root alone, so that a mount that began without them showed an
//! error in the place of each directory that somebody shares, though all that was in it lay in the cache.

mod common;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use common::members::{id, join, printed};
use common::running::Running;
use common::{Place, detach, eventually, fuse_is_usable, storage_node, text};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

fn has(path: &Path, content: &str) -> bool {
    fs::read(path).is_ok_and(|read| read == content.as_bytes())
}

fn mount(home: &Path, drive: &Path) -> Running {
    Running::start(&["mount", "--home", text(home), text(drive)], "the drive is")
}

#[test]
fn spaces_are_read_and_written_without_the_nodes_as_the_drive_is() {
    if !fuse_is_usable("spaces_are_read_and_written_without_the_nodes_as_the_drive_is") {
        return;
    }
    let place = Place::new("spaces-offline");
    let (home, a, b, bobs) = (place.join("home"), place.join("a"), place.join("b"), place.join("bob"));
    let up = Running::up(&home, &a, 1);
    let bob = join(&home, &bobs, &b);
    for (space, right) in [("band", "--write"), ("notes", "--read"), ("unseen", "--write")] {
        printed(&home, &["share", space, right, &id(&bobs)]);
        eventually("the space is there", SOON, || fs::write(a.join(space).join("of alice"), space).is_ok());
    }
    // One that was never looked into from here is not here.
    for space in ["band", "notes"] {
        eventually("bob reads it", SOON, || has(&b.join(space).join("of alice"), space));
    }
    // Nor into this one; it is pinned instead, and what is added to it later is here as well.
    printed(&home, &["share", "photos", "--read", &id(&bobs)]);
    eventually("it is there", SOON, || {
        fs::create_dir_all(a.join("photos/summer"))
            .is_ok_and(|()| fs::write(a.join("photos/summer/sea"), "blue").is_ok())
    });
    eventually("bob pins it", SOON, || {
        let pinned = storage_node(&["pin", "photos/summer", "--home", text(&bobs)]);
        pinned.status.success() && String::from_utf8_lossy(&pinned.stdout).contains("1 file")
    });
    let kept = |files: u64| {
        let pins: Value = serde_json::from_str(&printed(&bobs, &["pins", "--json"])).unwrap();
        pins["pins"][0]["is_complete"] == true && pins["pins"][0]["files"] == files
    };
    eventually("it is kept", SOON, || kept(1));
    fs::write(a.join("photos/summer/sand"), "white").unwrap();
    eventually("what came to it is kept", SOON, || kept(2));
    assert!(bob.stop().success());
    assert!(up.stop().success());

    let bob = mount(&bobs, &b);
    assert!(has(&b.join("band/of alice"), "band") && has(&b.join("notes/of alice"), "notes"));
    assert_eq!(fs::read(b.join("unseen/of alice")).unwrap_err().kind(), ErrorKind::HostUnreachable);
    assert!(has(&b.join("photos/summer/sea"), "blue") && has(&b.join("photos/summer/sand"), "white"));
    let refused = fs::write(b.join("notes/of bob"), "notes").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem, "his is to read only");
    fs::write(b.join("band/of bob"), "without a node").unwrap();
    // That is on this machine, and nobody says that it is anywhere else.
    assert!(File::open(b.join("band/of bob")).unwrap().sync_all().is_err());
    bob.kill();
    detach(&b);
    let bob = mount(&bobs, &b);
    assert!(has(&b.join("band/of bob"), "without a node") && has(&b.join("band/of alice"), "band"));

    let up = Running::up(&home, &a, 1);
    eventually("alice has what bob wrote", SOON, || has(&a.join("band/of bob"), "without a node"));
    fs::write(a.join("band/news"), "again").unwrap();
    eventually("bob has what alice writes", SOON, || has(&b.join("band/news"), "again"));
    eventually("and what he had never looked into", SOON, || has(&b.join("unseen/of alice"), "unseen"));
    assert!(bob.stop().success() && up.stop().success());
}
