//! Commands with a path in a space work there, or say what to do instead; a space has a past of its own; and who may only read it is
//! told so, and writes as soon as he may.
//!
//! The homes here are one machine's each, as far as the program can tell.

mod common;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use common::members::{id, join, printed, refusal};
use common::running::Running;
use common::{Place, eventually, fuse_is_usable, run, text};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(60);

fn reads(path: &Path, content: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|found| found == content)
}

#[test]
fn a_command_with_a_path_in_a_space_works_there_and_a_reader_becomes_a_writer_while_he_looks() {
    if !fuse_is_usable(
        "a_command_with_a_path_in_a_space_works_there_and_a_reader_becomes_a_writer_while_he_looks",
    ) {
        return;
    }
    let place = Place::new("spaces-commands");
    let (home, a, b, bobs) = (place.join("home"), place.join("a"), place.join("b"), place.join("bob"));
    let up = Running::up(&home, &a, 1);
    let mut bob = join(&home, &bobs, &b);
    printed(&home, &["share", "band", "--read", &id(&bobs)]);
    let (then, now) = (place.join("then"), place.join("now"));
    fs::write(&then, "then").unwrap();
    fs::write(&now, "now!").unwrap();

    // `put` and `get` work in the space, and leave the drive alone.
    let through_the_mount = a.join("band/notes/today");
    printed(&home, &["put", text(&through_the_mount), text(&then)]);
    eventually("it shows", SOON, || reads(&through_the_mount, "then"));
    assert_eq!(printed(&bobs, &["get", "band/notes/today"]), "then");
    eventually("bob reads it", SOON, || reads(&b.join("band/notes/today"), "then"));
    assert!(refusal(&home, &["get", "band/nothing"]).contains("band/nothing"));
    assert!(refusal(&home, &["get", "band"]).contains("a space of its own"));

    // Who may only read is told that.
    let said = refusal(&bobs, &["put", "band/of bob", text(&then)]);
    assert!(said.contains("may read the space band, and change nothing"), "{said}");
    let refused = fs::write(b.join("band/of bob"), "no").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem, "{refused}");
    assert!(refusal(&bobs, &["snapshot", "--of", "band"]).contains("may read the space band"));

    // A snapshot of the drive is one of its spaces too, in which each shows its own.
    let said = printed(&home, &["snapshot", "before"]);
    assert!(said.contains("of the space band as well"), "{said}");
    let said = printed(&bobs, &["snapshot", "of-bob"]);
    assert!(said.contains("not of the space band: this user may read"), "{said}");
    printed(&home, &["put", "band/notes/today", text(&now)]);
    eventually("it shows", SOON, || reads(&through_the_mount, "now!"));
    for drive in [&a, &b] {
        assert!(reads(&drive.join("band/.snapshots/before/notes/today"), "then"), "{}", drive.display());
    }
    assert!(!a.join("band/.snapshots/of-bob").exists());
    // The drive's own snapshot has it as well, whoever looks, copies, or goes up from there; and says where there is none.
    for drive in [&a, &b] {
        let then = drive.join(".snapshots/before/band");
        assert!(reads(&then.join("notes/today"), "then"), "{}", drive.display());
        assert!(reads(&then.join("../band/notes/today"), "then"), "{}", drive.display());
        assert!(reads(&drive.join("band/.snapshots/before/notes/today"), "then"), "{}", drive.display());
        let denied = fs::write(then.join("notes/today"), "no").unwrap_err();
        assert_eq!(denied.kind(), ErrorKind::ReadOnlyFilesystem);
        let missing = fs::read_dir(drive.join(".snapshots/of-bob/band")).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(61), "{missing}");
    }
    let (whole, copy) = (a.join(".snapshots/before"), place.join("copy"));
    run("cp", &["-a", text(&whole), text(&copy)]);
    assert!(reads(&copy.join("band/notes/today"), "then"));
    assert_eq!(run("diff", &["-r", text(&whole), text(&copy)]), "");
    let changed = fs::write(a.join("band/.snapshots/before/notes/today"), "no").unwrap_err();
    assert_eq!(changed.kind(), ErrorKind::ReadOnlyFilesystem);
    assert!(printed(&bobs, &["snapshots", "--of", "band"]).contains("before"));
    assert!(refusal(&home, &["snapshot", "--of", "band/notes"]).contains("is no space of its own"));
    assert_eq!(printed(&bobs, &["get", "--at", "before", "band/notes/today"]), "then");
    let versions = printed(&bobs, &["history", "band/notes/today"]);
    assert!(versions.lines().count() == 2 && versions.contains("before"), "{versions}");
    let differs = printed(&bobs, &["diff", "before", "now", "band"]);
    assert!(differs.contains("changed     band/notes/today"), "{differs}");
    // Of the whole drive it is said too, and of a space without such a snapshot that it was not looked at.
    let differs = printed(&home, &["diff", "before", "now"]);
    assert!(differs.contains("changed     band/notes/today"), "{differs}");
    let differs = printed(&home, &["diff", "of-bob", "now", "--json"]);
    let differs: serde_json::Value = serde_json::from_str(&differs).unwrap();
    assert_eq!(differs["not_compared"][0]["space"], "band", "{differs}");
    let then = place.join("as it was");
    let mut shown =
        Running::start(&["mount", "--at", "before", "--home", text(&home), text(&then)], "the drive is");
    assert!(shown.drain().contains("what spaces had is not in it (band)"), "{}", shown.drain());
    assert!(shown.stop().success());
    assert!(refusal(&home, &["restore", "band/notes/today", "--to", "today"]).contains("in another volume"));
    assert!(refusal(&home, &["restore", "band"]).contains("a space of its own"));
    let said = printed(&home, &["restore", "band/notes/today"]);
    assert!(said.contains("band/notes/today is there as the snapshot before has"), "{said}");
    eventually("it is as it was", SOON, || reads(&through_the_mount, "then"));
    assert!(printed(&home, &["pin", "band/notes"]).contains("band/notes is pinned"));
    assert!(!a.join("notes").exists());

    // Said again after it did not come to its end in a space, a command does what was left; and then it says that it is done.
    printed(&home, &["snapshot", "--of", "band", "twice"]);
    for _ in 0..2 {
        assert!(refusal(&home, &["snapshot", "twice"]).contains("not of all spaces: not of band"));
    }
    printed(&home, &["snapshot", "--of", "band", "--delete", "twice"]);
    let said = printed(&home, &["snapshot", "twice"]);
    assert!(said.contains("of the space band as well: band/.snapshots/twice"), "{said}");
    assert!(said.contains("there is a snapshot \"twice\" already") && said.contains("cut short"), "{said}");
    assert!(printed(&home, &["snapshots", "--of", "band"]).contains("twice"));
    assert!(refusal(&home, &["snapshot", "twice"]).contains("there is a snapshot \"twice\" already"));
    printed(&home, &["snapshot", "--delete", "twice"]);
    // What was done to its end is not done again to a space alone, nor is what nobody began.
    printed(&home, &["snapshot", "whole"]);
    printed(&home, &["snapshot", "--of", "band", "--delete", "whole"]);
    assert!(refusal(&home, &["snapshot", "whole"]).contains("there is a snapshot \"whole\" already"));
    printed(&home, &["snapshot", "--of", "band", "alone"]);
    assert!(refusal(&home, &["snapshot", "--delete", "alone"]).contains("there is no snapshot \"alone\""));
    assert!(printed(&home, &["snapshots", "--of", "band"]).contains("alone"));

    // A directory that a space is in is not copied, and it is said why; paths keep their slashes.
    fs::create_dir(a.join("ours")).unwrap();
    printed(&home, &["share", "ours/choir", "--read", &id(&bobs)]);
    let said = printed(&home, &["snapshot", "nested"]);
    assert!(said.contains("of the space ours/choir as well"), "{said}");
    assert!(a.join(".snapshots/nested/ours/choir").is_dir());
    let said = refusal(&home, &["restore", "ours", "--at", "nested", "--to", "again"]);
    assert!(said.contains("there is a space in it") && !said.contains("the nodes do not"), "{said}");
    assert!(!a.join("again").exists());

    assert!(
        refusal(&home, &["share", "ours/choir/of mine"])
            .contains("ours/choir is a space, and a space lies in no other")
    );

    // He may write: no mount anew.
    printed(&home, &["share", "band", "--write", &id(&bobs)]);
    assert!(bob.wait_for("you may write to the space band now", SOON), "{}", bob.drain());
    fs::write(b.join("band/of bob"), "a song").unwrap();
    eventually("the owner reads it", SOON, || reads(&a.join("band/of bob"), "a song"));
    printed(&bobs, &["put", "band/of bob", text(&now)]);
    let said = printed(&home, &["snapshot", "--delete", "before"]);
    assert!(said.contains("of the space band as well"), "{said}");
    eventually("it is gone", SOON, || !b.join("band/.snapshots/before").exists());

    // What only the network's owner does is said so to others.
    for command in [&["gc"][..], &["node", "list"]] {
        let said = refusal(&bobs, command);
        assert!(
            said.contains("only the home that made the network does that") && !said.contains("opened"),
            "{said}"
        );
    }
    assert!(bob.stop().success());

    // Who is removed is off the spaces too, and it is said which, and what he may have kept.
    assert!(refusal(&home, &["remove", &id(&bobs), "--now"]).contains("--now is for storage nodes"));
    let said = printed(&home, &["remove", &id(&bobs)]);
    assert!(said.contains("taken off the spaces that it was on: band, ours/choir"), "{said}");
    assert!(said.contains("it may have kept"), "{said}");
    assert!(up.stop().success());
}
