//! `netcheck` asked for a node that it does not meet: it says that, and not that there is no such node.
//!
//! What went wrong: of members that were joining, some were told that a node which had not been reached yet "is no node of this
//! network".

mod common;

use common::running::Running;
use common::{Place, fuse_is_usable, storage_node, text};

#[test]
fn who_was_not_met_is_not_said_to_be_nobody() {
    if !fuse_is_usable("who_was_not_met_is_not_said_to_be_nobody") {
        return;
    }
    let place = Place::new("not-met");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    let netcheck = |to: &str| {
        let options = ["--seconds", "2", "--no-port-mapping"];
        let output = storage_node(&[&["netcheck", "--home", text(&home), "--to", to], &options[..]].concat());
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (is_found, said) = netcheck("1");
    assert!(is_found, "{said}");
    for id in ["ab".repeat(32), "AB".repeat(4)] {
        let (is_found, said) = netcheck(&id);
        assert!(!is_found && said.contains("was met within 2s"), "{said}");
        assert!(!said.contains("is no node"), "{said}");
    }
    let (is_found, said) = netcheck("7");
    assert!(!is_found && said.contains("no node of this network is known here"), "{said}");
    assert!(up.stop().success());
}
