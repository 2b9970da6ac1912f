//! What is pinned in a shared directory that its user may not read any more holds up no other pin: what these need no longer makes room
//! for what they need now.
//!
//! What went wrong: nothing was let go while anything that is pinned could not be read, so that a file that changed a few times had all of
//! its old contents beside the new one, until there was no room for it.

mod common;

use std::fs;
use std::time::Duration;

use common::members::{id, join, printed};
use common::running::Running;
use common::{Place, eventually, fuse_is_usable, storage_node, text};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);
/// Two of them fit into what pins may have of the cache below, and three do not.
const FILE_BYTES: usize = 6 << 20;

/// Bytes that no block is shared for.
fn content(round: u8) -> Vec<u8> {
    let mut state = u64::from(round) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..FILE_BYTES).map(|_| next()).collect()
}

#[test]
fn a_pin_that_can_not_be_read_any_more_holds_up_no_other() {
    if !fuse_is_usable("a_pin_that_can_not_be_read_any_more_holds_up_no_other") {
        return;
    }
    let place = Place::new("pins-lost-space");
    let (home, a, b, bobs) = (place.join("home"), place.join("a"), place.join("b"), place.join("bob"));
    let up = Running::up(&home, &a, 1);
    assert!(join(&home, &bobs, &b).stop().success());
    let bob = Running::start(&["mount", "--cache", "16MiB", "--home", text(&bobs), text(&b)], "the drive is");
    printed(&home, &["share", "band", "--read", &id(&bobs)]);
    eventually("the space is there", SOON, || fs::write(a.join("band/song"), "la").is_ok());
    eventually("bob reads it", SOON, || fs::read(b.join("band/song")).is_ok_and(|song| song == b"la"));
    fs::create_dir(a.join("docs")).unwrap();
    fs::write(a.join("docs/big"), content(0)).unwrap();
    for pinned in ["band", "docs"] {
        eventually("bob pins it", SOON, || {
            storage_node(&["pin", pinned, "--home", text(&bobs)]).status.success()
        });
    }
    let pin = |path: &str| {
        let pins: Value = serde_json::from_str(&printed(&bobs, &["pins", "--json"])).unwrap();
        pins["pins"].as_array().unwrap().iter().find(|pin| pin["path"] == path).unwrap().clone()
    };
    let kept = |path: &str| pin(path)["is_complete"] == true;
    eventually("both are kept", SOON, || kept("band") && kept("docs"));

    printed(&home, &["unshare", "band", "--from", &id(&bobs)]);
    eventually("it is told that one is not kept any more", SOON, || !kept("band"));
    for round in 1..4 {
        fs::write(a.join("docs/big"), content(round)).unwrap();
        eventually("bob has it", SOON, || {
            fs::read(b.join("docs/big")).is_ok_and(|big| big == content(round))
        });
        let looked = pin("docs")["looked_s"].as_u64().unwrap();
        eventually("he looked again since", SOON, || pin("docs")["looked_s"].as_u64() > Some(looked + 1));
        eventually("and keeps it", SOON, || kept("docs"));
    }
    assert!(bob.stop().success() && up.stop().success());
}
