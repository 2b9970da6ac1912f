//! Members of a network, each with a home: how they come in, what they are called, what commands of theirs say.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use overlay::NodeId;

use super::running::Running;
use super::{PROGRAM, ended_within, keys, run, text};

/// No command takes longer, also on a loaded machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Has `home` become a member of the network of `owner`'s, with its drive at `drive`.
pub fn join(owner: &Path, home: &Path, drive: &Path) -> Running {
    let ticket = run(PROGRAM, &["invite", "--home", text(owner)]).trim().to_owned();
    Running::start(&["join", "--home", text(home), &ticket, text(drive)], "the drive is")
}

/// The first digits of the id of whom a home is for.
pub fn id(home: &Path) -> String {
    NodeId::of(&keys::identity(&home.join("user.key")).public_key()).to_string()[..12].to_owned()
}

/// What a command prints that has to succeed.
pub fn printed(home: &Path, arguments: &[&str]) -> String {
    run(PROGRAM, &[arguments, &["--home", text(home)]].concat())
}

/// What a command says that must fail.
pub fn refusal(home: &Path, arguments: &[&str]) -> String {
    let output =
        ended_within(COMMAND_LIMIT, Command::new(PROGRAM).args(arguments).args(["--home", text(home)]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}
