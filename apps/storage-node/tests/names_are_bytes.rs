//! Names are bytes: each command takes those that are no text, and none has a terminal obey one.
//!
//! What went wrong: a file that the drive has could not be got, restored or pinned, since its name was no UTF-8; and whoever may write
//! to the drive wrote to the terminals of others, with names that have ends of lines, colours or marks that turn a line around.

mod common;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::running::Running;
use common::{PROGRAM, Place, eventually, fuse_is_usable, text};

const CAFE: &[u8] = b"caf\xe9";

/// What a command said, all of it as bytes that no terminal obeys.
fn said(home: &Path, verb: &str, arguments: &[&OsStr]) -> (bool, String) {
    let mut command = Command::new(PROGRAM);
    command.arg(verb).args(arguments).args(["--home", text(home)]).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat());
    let said = said.unwrap_or_else(|error| panic!("{command:?} prints what is no text: {error}"));
    let is_obeyed = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!said.contains(is_obeyed), "{command:?} said {said:?}");
    (output.status.success(), said)
}

fn done(home: &Path, verb: &str, arguments: &[&OsStr]) -> String {
    let (is_done, said) = said(home, verb, arguments);
    assert!(is_done, "{verb} {arguments:?}: {said}");
    said
}

fn refused(home: &Path, verb: &str, arguments: &[&OsStr], cause: &str) {
    let (is_done, said) = said(home, verb, arguments);
    assert!(!is_done && said.contains(cause), "{verb} {arguments:?}: {said}");
}

#[test]
fn each_command_takes_names_that_are_no_text_and_shows_names_that_a_terminal_would_obey() {
    if !fuse_is_usable("each_command_takes_names_that_are_no_text_and_shows_names_that_a_terminal_would_obey")
    {
        return;
    }
    let place = Place::new("names-are-bytes");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    let home = home.as_path();
    let (cafe, then, got) = (OsStr::from_bytes(CAFE), place.join("then"), place.join("got"));
    fs::write(&then, "then").unwrap();

    // No text: by what it is, and through the mounted drive.
    let stored = done(home, "put", &[cafe, then.as_os_str()]);
    assert!(stored.contains("caf\\xe9 is stored (4 B)"), "{stored}");
    eventually("it shows", Duration::from_secs(60), || drive.join(cafe).exists());
    let through_the_mount = drive.join(cafe);
    done(home, "get", &[through_the_mount.as_os_str(), got.as_os_str()]);
    assert_eq!(fs::read(&got).unwrap(), b"then");
    done(home, "snapshot", &["s".as_ref()]);
    fs::write(&through_the_mount, "now").unwrap();
    let versions = done(home, "history", &[cafe]);
    assert_eq!(versions.lines().count(), 2, "{versions}");
    let differs = done(home, "diff", &["s".as_ref(), "now".as_ref(), cafe]);
    assert!(differs.contains("changed     caf\\xe9"), "{differs}");
    let json = done(home, "diff", &["s".as_ref(), "now".as_ref(), "--json".as_ref()]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["changes"][0]["after"]["path_hex"], "636166e9");
    let restored = done(home, "restore", &[cafe]);
    assert!(restored.contains("caf\\xe9 is there as the snapshot s has caf\\xe9"), "{restored}");
    assert!(restored.contains("kept as caf\\xe9 (before restore, "), "{restored}");
    eventually("it is as it was", Duration::from_secs(60), || {
        fs::read(&through_the_mount).is_ok_and(|content| content == b"then")
    });
    assert!(done(home, "pin", &[cafe]).starts_with("caf\\xe9 is pinned: 1 file"));
    assert!(done(home, "pins", &[]).starts_with("caf\\xe9: "));
    done(home, "pins", &["--json".as_ref()]);
    assert!(done(home, "unpin", &[cafe]).contains("caf\\xe9 is not pinned any more"));
    refused(home, "get", &[OsStr::from_bytes(b"no\xff")], "there is nothing named \"no\\xff\"");
    refused(home, "share", &[OsStr::from_bytes(b"sp\xe9ce")], "it is no UTF-8");
    refused(home, "past", &[cafe], "is no space of its own");

    // Text that does something: as a file, as a directory above one, as a space.
    let evil = "li\x1b[31mne\nbreak\u{202e}x";
    let shown = "li\\x1b[31mne\\nbreak\\u{202e}x";
    let within = OsString::from(format!("{evil}/f"));
    done(home, "put", &[&within, then.as_os_str()]);
    done(home, "snapshot", &["t".as_ref()]);
    done(home, "put", &[&within, got.as_os_str()]);
    fs::write(&got, "other").unwrap();
    done(home, "put", &[&within, got.as_os_str()]);
    assert!(done(home, "restore", &[&within]).contains(&format!("{shown}/f is there as the snapshot t")));
    assert!(done(home, "pin", &[evil.as_ref()]).starts_with(&format!("{shown} is pinned")));
    assert_eq!(done(home, "pins", &[]).lines().count(), 1, "a name ends no line");
    refused(home, "restore", &[format!("{evil}/none").as_ref()], &format!("{shown}/none"));
    let space = OsString::from(format!("{evil}/sp\x1b[7m"));
    let shared = done(home, "share", &[&space]);
    assert!(shared.contains(&format!("{shown}/sp\\x1b[7m is a space of its own")), "{shared}");
    done(home, "access", &[&space]);
    assert!(
        done(home, "snapshot", &["u".as_ref()]).contains(&format!("of the space {shown}/sp\\x1b[7m as well"))
    );
    done(home, "unshare", &[&space, "--remove".as_ref()]);
    refused(home, "unshare", &[evil.as_ref()], "is no space of its own");
    refused(home, "umount", &[evil.as_ref()], "no hypha drive is mounted");
    refused(home, "join", &[evil.as_ref()], "ticket");
    refused(home, "remove", &[evil.as_ref()], "nobody");
    assert!(up.stop().success());
}
