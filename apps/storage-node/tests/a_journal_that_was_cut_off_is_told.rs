//! A journal that lost its end, or is gone, looks like one that ended there: the next mount says that what was answered is missing, and
//! it is told until somebody takes what was kept of it away. The torn end that a kill leaves is told to nobody.
//!
//! What went wrong: the last file that was closed without the nodes was gone with the end of the journal, and the mount said in its last
//! word that everything is stored.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::running::Running;
use common::{PROGRAM, Place, detach, ended_within, fuse_is_usable, storage_node, text};

/// Seconds are meant; a loaded machine may take longer.
const SOON: Duration = Duration::from_secs(90);

/// What `umount` says, and whether all is stored.
fn umount(drive: &Path) -> (bool, String) {
    let output = ended_within(SOON, Command::new(PROGRAM).args(["umount", text(drive)]));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn journal_files(home: &Path, begin: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.join("client/journal")).unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(begin);
    entries.filter(is_one).collect()
}

#[test]
fn what_was_answered_and_is_not_in_the_journal_any_more_is_told() {
    if !fuse_is_usable("a_journal_that_was_cut_off_is_told") {
        return;
    }
    let place = Place::new("cut-off");
    let (home, drive) = (place.join("home"), place.join("drive"));
    let up = Running::up(&home, &drive, 1);
    assert!(up.stop().success());
    let node = || Running::start(&["run", "--home", text(&home.join("nodes/1"))], "listening on");
    let mount = || Running::start(&["mount", "--home", text(&home), text(&drive)], "the drive is");
    // What becomes of the journal's file after the kill, which had so many bytes before the last change.
    type Mishap = fn(&Path, u64);
    let torn: Mishap = |file, _| {
        let mut file = OpenOptions::new().append(true).open(file).unwrap();
        file.write_all(&[[200, 1, 0, 0].as_slice(), &[7; 100]].concat()).unwrap();
    };
    let cut: Mishap =
        |file, before| OpenOptions::new().write(true).open(file).unwrap().set_len(before + 30).unwrap();
    let emptied: Mishap = |file, _| drop(fs::File::create(file).unwrap());
    let removed: Mishap = |file, _| fs::remove_file(file).unwrap();
    for (name, mishap, is_told) in
        [("torn", torn, false), ("cut", cut, true), ("emptied", emptied, true), ("removed", removed, true)]
    {
        let (running, mounted) = (node(), mount());
        running.kill();
        let file = || match &journal_files(&home, "journal-")[..] {
            [file] => file.clone(),
            other => panic!("one file: {other:?}"),
        };
        fs::write(drive.join(format!("first {name}")), "first").unwrap();
        let before = fs::metadata(file()).unwrap().len();
        fs::write(drive.join(format!("last {name}")), "last").unwrap();
        mounted.kill();
        detach(&drive);
        mishap(&file(), before);

        let running = node();
        let mut mounted = mount();
        assert_eq!(drive.join(format!("last {name}")).exists(), !is_told, "{name}");
        assert_eq!(drive.join(format!("first {name}")).exists(), !is_told || name == "cut", "{name}");
        let (is_stored, said) = umount(&drive);
        assert_eq!(is_stored, !is_told, "{name}: {said}");
        assert_eq!(said.contains("everything in it is stored"), !is_told, "{name}: {said}");
        assert_eq!(mounted.wait(SOON).expect("it ends").success(), !is_told);
        let log = format!("{}\n{}", mounted.seen.join("\n"), mounted.drain());
        assert_eq!(log.contains("the journal lost its end"), is_told, "{name}: {log}");
        // It is told until what is kept of it is taken away; but the next mount has stored everything.
        let mounted = mount();
        assert!(mounted.stop().success());
        let listed = storage_node(&["journal", "--home", text(&home)]);
        let listed = String::from_utf8_lossy(&[listed.stdout, listed.stderr].concat()).into_owned();
        let kept = journal_files(&home, "damaged-");
        assert_eq!(kept.len(), usize::from(is_told), "{name}: {kept:?}");
        for kept in kept {
            assert!(listed.contains(text(&kept)) && said.contains(text(&kept)), "{name}: {listed}{said}");
            fs::remove_file(kept).unwrap();
        }
        assert!(running.stop().success());
    }
    let listed = storage_node(&["journal", "--home", text(&home)]);
    let listed = String::from_utf8_lossy(&[listed.stdout, listed.stderr].concat()).into_owned();
    assert!(!listed.contains("damaged"), "{listed}");
}
