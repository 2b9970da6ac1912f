//! A directory of the drive with a list of its own: who is on it reads and writes there, and nobody else.
//!
//! The homes here are one machine's each, as far as the program can tell.

mod common;

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use reactor::crypto::Identity;
use rustix::process::Signal;

use common::keys;
use common::members::{id, join, printed, refusal};
use common::running::{Running, kill_hard, signal};
use common::{Place, eventually, fuse_is_usable, run, text};

/// What the kernel calls it: EKEYREVOKED.
const KEY_REVOKED: i32 = 128;
/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(60);

fn reads(path: &Path, content: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|found| found == content)
}

fn list(directory: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// What the owner's home needs to say who may do what, as somebody's backup has it.
fn copy_of(home: &Path, copy: &Path) {
    fs::create_dir_all(copy.join("members")).unwrap();
    for file in ["network.json", "owner.key", "user.key", "members/roll.json"] {
        fs::copy(home.join(file), copy.join(file)).unwrap();
    }
}

/// Changes a home's roll under whoever reads it.
fn change_roll(home: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let (roll, new) = (home.join("members/roll.json"), home.join("members/roll.new"));
    let mut content = serde_json::from_str(&fs::read_to_string(&roll).unwrap()).unwrap();
    change(&mut content);
    fs::write(&new, serde_json::to_vec(&content).unwrap()).unwrap();
    fs::rename(&new, &roll).unwrap();
}

fn is_denied<T: std::fmt::Debug>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

#[test]
fn who_is_on_a_spaces_list_reads_and_writes_there_and_nobody_else() {
    if !fuse_is_usable("who_is_on_a_spaces_list_reads_and_writes_there_and_nobody_else") {
        return;
    }
    let place = Place::new("spaces");
    let (home, a, b, c) = (place.join("home"), place.join("a"), place.join("b"), place.join("c"));
    let (bobs, carols) = (place.join("bob"), place.join("carol"));
    let up = Running::up(&home, &a, 1);
    let mut bob = join(&home, &bobs, &b);
    let mut carol = join(&home, &carols, &c);
    // Both are called after the same machine, and the second one is told what she is called instead.
    let is_named = |line: &String| line.starts_with("joined as a writer, called ") && line.contains("-2: ");
    assert!(carol.seen.iter().any(is_named), "{:?}", carol.seen);
    let copy = place.join("copy");
    copy_of(&home, &copy);
    fs::create_dir(a.join("band")).unwrap();
    fs::write(a.join("band/of everybody"), "here").unwrap();

    // What everybody has seen is not made a secret by that; and who does not own the drive shares nothing of it.
    let band = a.join("band");
    let share = ["share", text(&band), "--write", &id(&bobs)];
    assert!(refusal(&home, &share).contains("is there already"));
    for of in [&["access", text(&band)][..], &["unshare", text(&band), "--from", &id(&bobs)]] {
        assert!(refusal(&home, of).contains("is no space of its own"), "{of:?}");
    }
    assert!(fs::read(b.join("band/of everybody")).is_ok());
    fs::remove_dir_all(&band).unwrap();
    let theirs = b.join("band");
    assert!(refusal(&bobs, &["share", text(&theirs)]).contains("only the home that made the network"));
    let outside = text(&home);
    assert!(refusal(&home, &["share", outside]).contains("lies in no mounted drive"));
    eventually("it is gone everywhere", SOON, || !b.join("band").exists());
    printed(&home, &share);
    assert!(fs::metadata(&band).unwrap().is_dir());

    // It appears by itself; bob writes, and both see what the other wrote.
    eventually("bob writes there", SOON, || fs::write(b.join("band/of bob"), "a song").is_ok());
    assert_eq!(fs::read_to_string(a.join("band/of bob")).unwrap(), "a song");
    fs::create_dir(a.join("band/tapes")).unwrap();
    fs::write(a.join("band/tapes/first"), "la la").unwrap();
    eventually("bob reads", SOON, || reads(&b.join("band/tapes/first"), "la la"));

    // Carol sees its name, and is told that it is not for her.
    let seen = list(&c).unwrap();
    assert!(seen.contains(&"band".into()), "{seen:?}");
    eventually("carol is kept out", SOON, || is_denied(list(&c.join("band"))));
    assert!(fs::metadata(c.join("band")).unwrap().is_dir());
    assert!(is_denied(fs::read(c.join("band/of bob"))));
    assert!(is_denied(fs::write(c.join("band/of carol"), "not to be")));
    assert!(is_denied(fs::create_dir(c.join("band/carol"))));
    assert!(
        carol.wait_for("the space band is not shown: this user is not on its list", SOON),
        "{}",
        carol.drain()
    );
    let hers = c.join("band");
    assert!(refusal(&carols, &["access", text(&hers)]).contains("not shared with this user"));

    // To programs it is another file system, whose place can't be changed.
    fs::write(a.join("note"), "of the drive").unwrap();
    let moved = fs::rename(a.join("note"), a.join("band/note")).unwrap_err();
    assert_eq!(moved.kind(), ErrorKind::CrossesDevices);
    assert_eq!(
        fs::hard_link(a.join("band/of bob"), a.join("x")).unwrap_err().kind(),
        ErrorKind::CrossesDevices
    );
    run("mv", &[text(&a.join("note")), text(&a.join("band/note"))]);
    fs::rename(a.join("band/note"), a.join("band/tapes/note")).unwrap();
    assert_eq!(fs::read_to_string(a.join("band/tapes/note")).unwrap(), "of the drive");
    for refused in [fs::rename(&band, a.join("other")), fs::remove_dir(&band)] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ResourceBusy);
    }

    // Who may do what, and since when; read by all who are on the list.
    let listed = printed(&bobs, &["access", text(&theirs)]);
    assert!(listed.contains(&id(&bobs)) && listed.contains("the drive's owner ("), "{listed}");
    assert!(!listed.contains(&id(&carols)), "{listed}");
    printed(&home, &["share", text(&band), "--read", &id(&carols)]);
    eventually("carol reads", SOON, || reads(&c.join("band/of bob"), "a song"));
    let refused = fs::write(c.join("band/of carol"), "not to be").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem, "{refused}");

    // Bob goes: the space gets a new key, and he neither reads what comes nor writes anything.
    let said = printed(&home, &["unshare", text(&band), "--from", &id(&bobs)]);
    assert!(said.contains(&id(&bobs)) && said.contains("neither read nor write"), "{said}");
    fs::write(a.join("band/later"), "not for bob").unwrap();
    eventually("carol reads on", SOON, || reads(&c.join("band/later"), "not for bob"));
    eventually("bob's mount has noticed", SOON, || {
        fs::write(b.join("band/late"), "late").is_err_and(|error| error.raw_os_error() == Some(KEY_REVOKED))
    });
    assert!(fs::read(b.join("band/later")).is_err(), "he read what is not for him");
    assert!(!a.join("band/late").exists());
    // The drive is his as before.
    fs::write(b.join("of the drive"), "here").unwrap();
    assert_eq!(fs::read_to_string(a.join("of the drive")).unwrap(), "here");
    let log = printed(&carols, &["access", text(&hers), "--log"]);
    let lines = |who: &str| log.lines().filter(|line| line.contains(who)).collect::<Vec<_>>();
    let [came, went] = lines(&id(&bobs))[..] else { panic!("{log}") };
    assert!(came.contains("reads and writes") && went.contains("neither"), "{log}");
    signal(bob.pid(), Signal::TERM);
    let _ = bob.wait(SOON).expect("it ends");
    drop(bob);
    let bob = Running::start(&["mount", "--home", text(&bobs), text(&b)], "the drive is");
    assert!(is_denied(list(&b.join("band"))));

    // One of two writers seals a space's root so that it opens to her only once it is another's turn. Where the owner gives that
    // space up it opens to nobody, and neither of them writes there any more: what there was before is nobody's to put back.
    printed(&home, &["share", "choir", "--write", &id(&bobs), "--write", &id(&carols)]);
    let [hers, owners] = [&carols, &home].map(|home| keys::identity(&home.join("user.key")));
    keys::seal_the_last_space(&home, &carols, &[&hers, &owners], 1);
    assert!(refusal(&home, &["unshare", "choir", "--from", &id(&carols)]).contains("does not open here"));
    let said = printed(&home, &["unshare", "choir", "--from", &id(&carols), "--give-up"]);
    assert!(said.contains("choir is given up"), "{said}");
    assert_eq!(keys::that_open_the_last_space(&home, &[&hers, &owners]), []);
    for writer in [&bobs, &carols] {
        assert!(keys::overwrite_the_last_space(&home, writer, b"what there was before").is_err());
    }
    assert!(refusal(&home, &["share", "choir"]).contains("was given up"));

    // A member who is removed from the network is out of its spaces, too, also if another copy of the owner's home does it, which
    // has never heard of them.
    printed(&copy, &["remove", &id(&carols)]);
    eventually("she is off the list", SOON, || {
        !printed(&home, &["access", text(&band)]).contains(&id(&carols))
    });
    assert!(!printed(&home, &["access", text(&band)]).contains(&id(&bobs)));
    assert!(refusal(&home, &["share", text(&band), "--read", &id(&carols)]).contains("it was removed"));
    signal(carol.pid(), Signal::TERM);
    assert!(!carol.wait(SOON).expect("it ends").success());

    // It is there again, and all that was in it, also below another name of what it lies in.
    for process in [bob, up] {
        assert!(process.stop().success());
    }
    let up = Running::up(&home, &a, 1);
    assert_eq!(fs::read_to_string(a.join("band/later")).unwrap(), "not for bob");
    let inner = a.join("x/inner");
    fs::create_dir(a.join("x")).unwrap();
    printed(&home, &["share", text(&inner)]);
    fs::write(a.join("x/inner/mine"), "mine").unwrap();
    fs::rename(a.join("x"), a.join("y")).unwrap();
    assert_eq!(fs::read_to_string(a.join("y/inner/mine")).unwrap(), "mine");
    let moved = a.join("y/inner");
    let share = ["share", text(&moved)];
    assert!(refusal(&home, &share).contains("put at x/inner"));
    fs::create_dir(a.join("x")).unwrap();
    assert!(refusal(&home, &["share", "x/inner"]).contains("if you moved a directory above it"));
    printed(&home, &[&share[..], &["--moved"]].concat());

    // Bob puts its link at another name of the drive: that neither shows it nor shuts it, whichever is looked at first.
    keys::link_a_space(&home, &bobs, 2, "accounts");
    let accounts = a.join("accounts");
    eventually("it is listed", SOON, || list(&a).unwrap().contains(&"accounts".into()));
    assert!(is_denied(list(&accounts)) && is_denied(fs::write(accounts.join("secret"), "no")));
    assert!(reads(&a.join("y/inner/mine"), "mine"));
    assert!(up.stop().success());
    let up = Running::up(&home, &a, 1);
    assert!(is_denied(list(&accounts)) && reads(&a.join("y/inner/mine"), "mine"));
    assert!(is_denied(list(&accounts)));
    assert!(refusal(&home, &["share", text(&accounts)]).contains("put at y/inner"));

    // He puts it into another space's place: the owner puts that one back, with what was in it and for whom it was.
    keys::link_a_space(&home, &bobs, 2, "band");
    assert!(refusal(&home, &["share", "band"]).contains("--put-back"));
    assert!(
        refusal(&home, &["share", "band", "--put-back", "--write", &id(&bobs)]).contains("without names")
    );
    assert!(printed(&home, &["share", "band", "--put-back"]).contains("band is there again"));
    eventually("it shows", SOON, || reads(&a.join("band/later"), "not for bob"));
    assert!(refusal(&home, &["share", "band", "--put-back"]).contains("is missing there"));
    assert!(up.stop().success());
}

#[test]
fn what_is_closed_in_a_space_is_kept_as_in_the_drive() {
    if !fuse_is_usable("what_is_closed_in_a_space_is_kept_as_in_the_drive") {
        return;
    }
    let place = Place::new("spaces-kept");
    let (home, a, b, bobs) = (place.join("home"), place.join("a"), place.join("b"), place.join("bob"));
    let up = Running::up(&home, &a, 1);
    let bob = join(&home, &bobs, &b);
    printed(&home, &["share", "band (old)", "--write", &id(&bobs)]);
    eventually("bob writes there", SOON, || fs::write(b.join("band (old)/first"), "1").is_ok());

    // Killed after a close: the next start has it, and puts it in before anybody looks into the space.
    fs::write(b.join("band (old)/second"), "2").unwrap();
    kill_hard(bob.pid());
    drop(bob);
    common::detach(&b);
    let bob = Running::start(&["mount", "--home", text(&bobs), text(&b)], "the drive is");
    eventually("the owner reads it", SOON, || reads(&a.join("band (old)/second"), "2"));

    // No node is there: what is closed waits, and the drive's last word says so of the space as of the drive.
    assert!(reads(&b.join("band (old)/first"), "1"));
    assert!(up.stop().success());
    let mut bob = bob;
    fs::write(b.join("band (old)/third"), "3").unwrap();
    signal(bob.pid(), Signal::TERM);
    let status = bob.wait(Duration::from_secs(120)).expect("it ends");
    let said = bob.drain();
    assert!(!status.success() && said.contains("in the journal of"), "{status}: {said}");
    let up = Running::up(&home, &a, 1);
    assert!(!a.join("band (old)/third").exists());

    // He may only read meanwhile: it waits on, and no end of his passes that over.
    printed(&home, &["share", "band (old)", "--read", &id(&bobs)]);
    let mut bob = Running::start(&["mount", "--home", text(&bobs), text(&b)], "the drive is");
    assert!(bob.wait_for("may not write to the space band (old) any more", SOON), "{}", bob.drain());
    assert!(reads(&b.join("band (old)/second"), "2"));
    signal(bob.pid(), Signal::TERM);
    let status = bob.wait(SOON).expect("it ends");
    let said = bob.drain();
    assert!(!status.success() && said.contains("in the journal of"), "{status}: {said}");
    printed(&home, &["share", "band (old)", "--write", &id(&bobs)]);
    let bob = Running::start(&["mount", "--home", text(&bobs), text(&b)], "the drive is");
    eventually("it is put in by itself", SOON, || reads(&a.join("band (old)/third"), "3"));
    for process in [bob, up] {
        assert!(process.stop().success());
    }

    // An `unshare` that was killed after its first step: whoever has the owner's key goes on with it.
    change_roll(&home, |roll| roll["spaces"][0]["people"].as_array_mut().unwrap().clear());
    let up = Running::up(&home, &a, 1);
    eventually("he is off the list", SOON, || {
        !printed(&home, &["access", "band (old)"]).contains(&id(&bobs))
    });

    // Bob seals a space to himself and a friend: the owner's home says so, and leaves it to them until the owner gives it up.
    printed(&home, &["share", "choir", "--write", &id(&bobs)]);
    let (his, friends) = (keys::identity(&bobs.join("user.key")), Identity::from_seed(&[9; 32]));
    let both = [&his, &friends];
    keys::seal_the_last_space(&home, &bobs, &both, 0);
    let still_opens = || keys::that_open_the_last_space(&home, &both) == both.map(Identity::public_key);
    let unshare = ["unshare", "choir", "--from", &id(&bobs)];
    assert!(refusal(&home, &unshare).contains("has sealed it to others") && still_opens());
    assert!(up.stop().success());
    let mut up = Running::up(&home, &a, 1);
    assert!(
        up.wait_for("in the space choir has to wait: one of its writers has sealed it", SOON),
        "{}",
        up.drain()
    );
    assert!(refusal(&home, &["share", "choir"]).contains("has sealed it") && still_opens());
    // Also if he takes its link away by which the owner would find it.
    keys::link_a_space(&home, &bobs, 0, "choir");
    assert!(refusal(&home, &unshare).contains("put at band (old)"));
    let said = printed(&home, &[&unshare[..], &["--give-up"]].concat());
    assert!(said.contains("nobody opens what is in it"), "{said}");
    assert_eq!(keys::that_open_the_last_space(&home, &both), []);
    let bob = Running::start(&["mount", "--home", text(&bobs), text(&b)], "the drive is");
    assert!(is_denied(list(&b.join("band (old)"))));

    // A making that came as far as its list: whom it was to let in the next one does not, and says so.
    printed(&home, &["share", "duo", "--write", &id(&bobs)]);
    change_roll(&home, |roll| roll["spaces"][2]["is_linked"] = false.into());
    let said = printed(&home, &["share", "duo"]);
    assert!(said.contains(&id(&bobs)) && said.contains("neither read nor write"), "{said}");
    printed(&home, &["share", "duo", "--write", &id(&bobs)]);

    // A space that can't be looked at: a removal fails if he was to be off it and is not known to be, and is done in all else.
    let mut bob = bob;
    let broken = |leaving: serde_json::Value| {
        change_roll(&home, |roll| {
            roll["spaces"][0]["leaving"] = leaving;
            roll["spaces"][0]["genesis"] = "00".into();
        });
    };
    broken(serde_json::json!([keys::identity(&bobs.join("user.key")).public_key().to_string()]));
    let said = refusal(&home, &["remove", &id(&bobs)]);
    assert!(said.contains("may still be sealed to it") && said.contains("band"), "{said}");
    assert!(!printed(&home, &["access", "duo"]).contains(&id(&bobs)));
    broken(serde_json::json!([]));
    let said = printed(&home, &["remove", &id(&bobs)]);
    assert!(said.contains("removed") && said.contains("ago already"), "{said}");
    assert!(said.contains("the drive has a new key"), "{said}");
    signal(bob.pid(), Signal::TERM);
    assert!(!bob.wait(SOON).expect("it ends").success());
    assert!(up.stop().success());
}
