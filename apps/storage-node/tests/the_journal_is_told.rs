//! What waits in a journal is one amount, whoever tells it; and of a journal that was damaged the end of the next mount says so.
//!
//! What went wrong: `umount` told the bytes that were changed, and `journal` the sizes of whole files; and a
//! mount that had found the journal damaged, and kept it aside with a line in the log, said in its last word that everything is stored.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::members::printed;
use common::random::Random;
use common::running::Running;
use common::{PROGRAM, Place, ended_within, fuse_is_usable, storage_node, text};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(90);

/// What `umount` says, and whether all is stored.
fn umount(drive: &Path) -> (bool, String) {
    let output = ended_within(SOON, Command::new(PROGRAM).args(["umount", text(drive)]));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The files of the home's journal whose names begin so.
fn journal_files(home: &Path, begin: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.join("client/journal")).unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(begin);
    entries.filter(is_one).collect()
}

/// The words between two others.
fn between<'a>(said: &'a str, before: &str, after: &str) -> &'a str {
    let rest = said.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {said}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no {after:?} in {said}")).0
}

#[test]
fn what_waits_is_one_amount_and_a_damaged_journal_is_no_stored_one() {
    if !fuse_is_usable("the_journal_is_told") {
        return;
    }
    let mut random = Random::announced("the_journal_is_told");
    let place = Place::new("told");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    fs::write(drive.join("old"), random.bytes(3_000_000)).unwrap();
    assert!(up.stop().success());
    let node = || Running::start(&["run", "--home", text(&home.join("nodes/1"))], "listening on");
    let mount = || Running::start(&["mount", "--home", text(&home), text(&drive)], "the drive is");

    // Some bytes in the midst of a large file, and new ones: then the node is gone.
    let (running, mut mounted) = (node(), mount());
    // It is in the cache then.
    fs::read(drive.join("old")).unwrap();
    running.kill();
    fs::create_dir(drive.join("made")).unwrap();
    fs::write(drive.join("made/new"), random.bytes(400_000)).unwrap();
    let old = fs::OpenOptions::new().write(true).open(drive.join("old")).unwrap();
    old.write_all_at(b"changed", 1_500_000).unwrap();
    drop(old);
    // Then it waits for nobody at its end.
    assert!(mounted.wait_for("the drive is offline", SOON), "{}", mounted.drain());
    let (is_stored, said) = umount(&drive);
    assert!(!is_stored && said.contains("wait in the journal"), "{said}");
    assert!(!mounted.wait(SOON).expect("it ends").success());
    let told = between(&said, "): ", " wait in the journal");
    let listed = printed(&home, &["journal"]);
    assert_eq!(between(&listed, "client: ", " wait ("), told, "{said}{listed}");
    assert!(told.ends_with("in 3 files and directories"), "{told}: {listed}");
    assert!(told.starts_with("4") && told.contains(" KiB"), "what was changed, and not whole files: {told}");

    // A bit flips. What can be read is put in; what can't is kept, and the end says both.
    let [file] = &journal_files(&home, "journal-")[..] else { panic!("one file") };
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, &bytes).unwrap();
    let running = node();
    let mut mounted = mount();
    let (is_stored, said) = umount(&drive);
    assert!(
        !is_stored && said.contains("was damaged") && !said.contains("everything in it is stored"),
        "{said}"
    );
    assert!(!mounted.wait(SOON).expect("it ends").success());
    let kept = journal_files(&home, "damaged-");
    assert!(kept.len() == 1 && said.contains(text(&kept[0])), "{said}: {kept:?}");
    assert!(fs::read(&kept[0]).unwrap() == bytes);
    // It lies there, and whoever lists what waits hears of it.
    let listed = storage_node(&["journal", "--home", text(&home)]);
    let listed = String::from_utf8_lossy(&[listed.stdout, listed.stderr].concat()).into_owned();
    assert!(listed.contains(text(&kept[0])) && listed.contains("was damaged"), "{listed}");
    let mut mounted = mount();
    let (is_stored, said) = umount(&drive);
    assert!(is_stored && said.contains("everything in it is stored"), "{said}");
    assert!(mounted.wait(SOON).expect("it ends").success());
    assert!(running.stop().success());
}
