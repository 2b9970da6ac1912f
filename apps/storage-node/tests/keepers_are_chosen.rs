//! The drive's root is moved to other nodes altogether, one node after the other, as `status` and the recovery page advise for a root
//! that stands in one zone.
//!
//! What went wrong: the second `node replace` had the node keep the root again that the first had replaced, the third the second, and
//! there was no way to say which node should; and a network of one copy was told to do what it had just been told would not help.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::running::Running;
use common::{Place, fuse_is_usable, storage_node, text};

/// Runs the program; whether it succeeded, and what it said.
fn told(arguments: &[&str]) -> (bool, String) {
    let output = storage_node(arguments);
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (output.status.success(), said.concat())
}

fn keepers(home: &Path) -> BTreeSet<u16> {
    let (is_done, list) = told(&["node", "list", "--home", text(home)]);
    assert!(is_done, "{list}");
    let keepers = list.lines().filter(|line| line.contains("keeps it"));
    keepers.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_root_moves_to_other_nodes_altogether_and_to_those_that_are_named() {
    if !fuse_is_usable("a_root_moves_to_other_nodes_altogether_and_to_those_that_are_named") {
        return;
    }
    let place = Place::new("chosen");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 6);
    let first: Vec<u16> = keepers(&home).into_iter().collect();
    let others: Vec<u16> = (1..=6).filter(|number| !first.contains(number)).collect();
    let replace = |number: u16, by: Option<u16>| {
        let (number, by) = (number.to_string(), by.map(|by| by.to_string()));
        let by: Vec<&str> = by.iter().flat_map(|by| ["--by", by]).collect();
        told(&[&["node", "replace", &number, "--home", text(&home)][..], &by].concat())
    };

    let (is_done, said) = replace(first[0], Some(first[1]));
    assert!(!is_done && said.contains("one of them already"), "{said}");
    let (is_done, said) = replace(first[0], Some(others[1]));
    assert!(is_done, "{said}");
    assert!(said.contains(&format!("node {} in the place of node {}", others[1], first[0])), "{said}");
    assert_eq!(keepers(&home), BTreeSet::from([first[1], first[2], others[1]]));
    for number in &first[1..] {
        let (is_done, said) = replace(*number, None);
        assert!(is_done && said.contains(&format!("in the place of node {number}")), "{said}");
    }
    assert_eq!(keepers(&home), others.iter().copied().collect());
    // Back to where it was, if that is what somebody wants.
    let (is_done, said) = replace(others[0], Some(first[0]));
    assert!(is_done && keepers(&home).contains(&first[0]), "{said}");
    assert!(up.stop().success());
}

#[test]
fn one_copy_is_told_what_does_help() {
    if !fuse_is_usable("one_copy_is_told_what_does_help") {
        return;
    }
    let place = Place::new("one-copy-chosen");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    let (is_done, said) = told(&["node", "replace", "1", "--home", text(&home)]);
    assert!(
        !is_done && said.contains("move its directory") && !said.contains("let another node join"),
        "{said}"
    );
    assert!(up.stop().success());
}
