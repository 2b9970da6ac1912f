//! Two homes in one network without a way outside, whose machines get other addresses: they find each other again, with no
//! address given to the one that looks.
//!
//! What went wrong: a member knew others by their addresses only. When all of them changed, as they do when a router is
//! replaced, two machines in one room did not find each other, until somebody typed an address.
//!
//! It takes root, `ip`, `nft`, and FUSE.

mod common;
#[path = "../../../reactor/tests/nat_lab/mod.rs"]
mod nat_lab;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use common::running::Running;
use common::{PROGRAM, Place, ended_within, eventually, fuse_is_usable, text};
use nat_lab::Lab;

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(90);

fn on(lab: &Lab, place: &str, arguments: &[&str]) -> Command {
    let mut command = lab.on_the_network_of(place, PROGRAM);
    command.args(arguments);
    command
}

fn start(lab: &Lab, place: &str, arguments: &[&str], ready: &str) -> Running {
    Running::start_with(&mut on(lab, place, arguments), ready)
}

fn ended(lab: &Lab, place: &str, arguments: &[&str]) -> Output {
    ended_within(SOON, &mut on(lab, place, arguments))
}

fn write_and_read(one: &Path, other: &Path, name: &str) {
    fs::write(one.join(name), name).unwrap();
    eventually("the other has it", SOON, || {
        fs::read_to_string(other.join(name)).is_ok_and(|read| read == name)
    });
}

#[test]
fn members_of_one_network_find_each_other_when_all_their_addresses_have_changed() {
    let story = "members_of_one_network_find_each_other_when_all_their_addresses_have_changed";
    if !fuse_is_usable(story) || !nat_lab::is_usable(story) {
        return;
    }
    let place = Place::new("lan");
    let lab = Lab::of_one_network("l", 2, 7);
    let (home, guest) = (place.join("home"), place.join("guest"));
    let [near, far] = ["near", "far"].map(|name| place.join(name));
    let up = |listen| {
        start(&lab, "host0", &["up", "--home", text(&home), "--listen", listen, text(&near)], "the drive is")
    };
    let mount = |options: &[&str]| {
        let words = [&["mount", "--home", text(&guest)], options, &[text(&far)]].concat();
        start(&lab, "host1", &words, "the drive is")
    };

    let founder = up("10.7.0.1");
    let ticket = ended(&lab, "host0", &["invite", "--home", text(&home)]);
    let ticket = String::from_utf8(ticket.stdout).unwrap();
    let joined = ["join", "--home", text(&guest), ticket.trim(), text(&far)];
    let member = start(&lab, "host1", &joined, "the drive is");
    write_and_read(&near, &far, "before");
    assert!(member.stop().success() && founder.stop().success());

    // What the guest remembers leads nowhere any more.
    lab.renumber(2, 8);
    let founder = up("10.8.0.1");
    let status =
        |options: &[&str]| ended(&lab, "host1", &[&["status", "--home", text(&guest)], options].concat());
    let alone = status(&["--no-discovery"]);
    assert!(!alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
    // A packet may be lost, and each try waits for an answer for a few seconds only.
    eventually("the member finds the node where it is now", SOON, || status(&[]).status.success());

    // And from then on it remembers where that was.
    let known = status(&["--no-discovery"]);
    assert!(known.status.success(), "{}", String::from_utf8_lossy(&known.stdout));

    // A drive that is mounted meanwhile finds the node of the other when that is there.
    lab.renumber(2, 9);
    assert!(founder.stop().success());
    let founder = up("10.9.0.1");
    let member = mount(&[]);
    write_and_read(&near, &far, "after");
    write_and_read(&far, &near, "and back");
    assert!(member.stop().success() && founder.stop().success());
}
