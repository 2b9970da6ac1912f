//! A mounted volume, from the mount to the word on how it ended.
//!
//! The order matters. The mount exists before anything is announced, so that a user never writes below it by
//! mistake. On the way out the kernel first hands over what it has cached, which takes a living server; only then is
//! the volume closed, only then is anything said about what is stored, and only then may the nodes stop.
//!
//! Nobody else can delay the end. Programs that still use the drive lose it, and so do containers and other mount
//! namespaces, which keep a mount alive that nobody here sees any more: they are named, and the connection is cut.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use filesystem::fuse::SessionError;
use filesystem::mount::{Mount, MountOptions, Unmounted};
use filesystem::operations::{Inode, Operations};
use filesystem::owners::{self, Owners};
use filesystem::past::WithPast;
use filesystem::spaces::WithSpaces;
use filesystem::volume::Volume;
use reactor::ScopedJoinHandle;

use crate::errors::Failure;
use crate::guard::Guard;
use crate::mountpoint;
use crate::outcome::{Note, Outcome, Undoing};
use crate::output::say;
use crate::progress::{self, files_in_words, human_bytes};
use crate::spaces::Spaces;
use crate::stop::{Reason, Stop};
use crate::waits;

/// How long the kernel may take to let go of what is unmounted; without other namespaces it is a millisecond.
const LET_GO_LIMIT: Duration = Duration::from_secs(1);
/// How long what other namespaces hold may take to be written back: a patience of the nodes, and no more.
const FLUSH_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether somebody unmounted here what another namespace keeps alive.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// An end that takes no longer needs no explanation.
const SILENCE: Duration = Duration::from_secs(2);
/// How often a long end says how far it is.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Where a drive appears, and to whom.
pub(crate) struct Place<'a> {
    pub(crate) mountpoint: &'a Path,
    /// What the table of mounts shows as its source: `Network::mark`.
    pub(crate) source: String,
    /// Other users may look too.
    pub(crate) allow_other: bool,
    /// Whose files it says they are.
    pub(crate) owners: Owners,
    /// What opens the spaces in it; `None` for a snapshot, which cannot be changed, and has neither snapshots nor spaces.
    pub(crate) spaces: Option<Rc<Spaces>>,
}

/// Mounts `volume` at a place, calls `ready`, and serves until `stop` opens or the drive is unmounted. `directory`
/// is where the volume's journal is.
///
/// # Errors
/// `Failure::Drive` if it can't be mounted, `Failure::NotStored` if not everything is on the nodes in the end.
///
/// # Suspends
/// Until everything is stored, or it is decided that it can't be.
pub(crate) fn serve(
    volume: Rc<Volume>,
    directory: &Path,
    Place { mountpoint, source, allow_other, owners, spaces }: &Place<'_>,
    stop: &Stop,
    ready: impl FnOnce(),
) -> Result<(), Failure> {
    let options = MountOptions {
        fs_name: source.clone(),
        read_only: spaces.is_none(),
        allow_other: *allow_other,
        owners: *owners,
        replace_stale: true,
    };
    let mount = Mount::new(mountpoint, &options)?;
    let device = mountpoint::drive_at(mount.mountpoint()).map(|entry| entry.device).unwrap_or_default();
    let mut note = Note::leave(mount.mountpoint(), source, &device);
    let _guard = Guard::start(mount.mountpoint());
    let with_past = Rc::new(WithPast::new(volume.clone()));
    let show = |spaces: &Rc<Spaces>| WithSpaces::new(volume.clone(), with_past.clone(), spaces.clone());
    let with_spaces = spaces.as_ref().map(show);
    let operations: Rc<dyn Operations> = match &with_spaces {
        Some(with_spaces) => with_spaces.clone(),
        None => volume.clone(),
    };
    let outcome = reactor::scope(|scope| {
        let server = scope.spawn(|| {
            let served = mount.serve(operations);
            stop.open(Reason::Unmounted);
            served
        });
        let looker = scope.spawn(|| {
            wait_until_only_others_have_it(&device);
            stop.open(Reason::Unmounted);
        });
        let keeper = scope.spawn(|| volume.keep_snapshots());
        let opener = scope.spawn(|| {
            if let (Some(spaces), Some(with_spaces)) = (spaces, &with_spaces) {
                spaces.open_what_waits(with_spaces);
            }
        });
        let wanted = scope.spawn(|| {
            if let (Some(spaces), Some(with_spaces)) = (spaces, &with_spaces) {
                spaces.open_what_is_wanted(with_spaces);
            }
        });
        let rights = scope.spawn(|| spaces.iter().for_each(|spaces| spaces.tell_of_rights()));
        ready();
        let top = scope.spawn(|| tell_of_the_top(&mount, &volume));
        let reason = stop.wait();
        top.terminate();
        rights.terminate();
        looker.terminate();
        keeper.terminate();
        opener.terminate();
        wanted.terminate();
        let teller = scope.spawn(|| tell_what_is_left(&volume, spaces.as_deref(), stop, &mut note));
        let impatient = scope.spawn(|| {
            stop.wait_hurry();
            say("not waiting for the nodes any longer: what they did not take goes to the journal");
            volume.give_up();
            with_past.give_up();
            spaces.iter().for_each(|spaces| spaces.give_up());
            with_spaces.iter().for_each(|with_spaces| with_spaces.give_up());
        });
        let spinner = progress::spinner("storing what was written, and unmounting");
        let served = take_away(&mount, mountpoint, &device, server, reason);
        // At the same time: a space that is just being opened may take its time, and the drive does not wait for it.
        let closing = scope.spawn(|| {
            with_spaces.iter().for_each(|with_spaces| with_spaces.end());
            spaces.as_ref().map(|spaces| spaces.close())
        });
        let ending = volume.close();
        waits::note(directory, ending.cause());
        let outcome = Outcome::of(ending, directory);
        let cut = || Some(Outcome::CutOff { reason: "the end of its spaces was cut short".into() });
        let outcome = match closing.join().unwrap_or_else(|_| cut()) {
            Some(of_spaces) => outcome.with(of_spaces),
            None => outcome,
        };
        spinner.finish_and_clear();
        teller.terminate();
        impatient.terminate();
        match served {
            // What was stored with this copy of the nodes meanwhile may be on them alone.
            Ok(()) if reason == Reason::Copied => {
                outcome.with(Outcome::Undone { why: Undoing::Copied, beside: None })
            }
            Ok(()) => outcome,
            Err(reason) => outcome.cut_off(reason),
        }
    });
    note.ended(&outcome);
    outcome.into_result()
}

/// Says so if who mounts can make nothing at the drive's top, as it is another number's: nobody else says why.
fn tell_of_the_top(mount: &Mount, volume: &Volume) {
    if mount.shows_all_as_mine() || !volume.may_change() {
        return;
    }
    let Ok(top) = volume.attributes(Inode::ROOT) else { return };
    if !owners::may_change_names(&top) {
        let user = rustix::process::geteuid().as_raw();
        say(format_args!(
            "the top of the drive belongs to user {} (mode {:o}), and you are user {user}: you can make nothing there. `--owners mine` shows \
             you all as yours; or whoever is that user says `chmod 1777` of it",
            top.uid, top.mode
        ));
    }
}

/// Unmounts, if nobody has yet, and cuts off whoever keeps the kernel's end of it alive. An error says why something that
/// programs wrote through `mmap` may not have come here.
fn take_away(
    mount: &Mount,
    mountpoint: &Path,
    device: &str,
    server: ScopedJoinHandle<'_, Result<(), SessionError>>,
    reason: Reason,
) -> Result<(), String> {
    let place = mountpoint.display();
    let mut is_unmounted = false;
    if reason == Reason::Unmounted {
        say(format_args!("{place} was unmounted"));
    } else {
        match mount.unmount() {
            Ok(Unmounted::Completely) => is_unmounted = true,
            Ok(Unmounted::Lazily) => {
                say(format_args!("{place} was still in use: it is taken away all the same"))
            }
            Err(error) => say(format_args!("{error}")),
        }
    }
    let deadline = reactor::now() + LET_GO_LIMIT;
    while !server.is_finished() && reactor::now() < deadline {
        reactor::sleep(Duration::from_millis(10));
    }
    let mut is_cut = false;
    if !server.is_finished() {
        let number = device.to_owned();
        let holders = reactor::offload(move || mountpoint::holders(&number));
        if !holders.is_empty() {
            let holders = holders.join(", ");
            say(format_args!(
                "other mount namespaces still have the drive, and lose it now, with what programs there change through \
                 mmap from now on: {holders}"
            ));
            let number = device.to_owned();
            let flush = || reactor::offload(move || mountpoint::flush_elsewhere(&number));
            is_cut = !reactor::timeout(FLUSH_LIMIT, flush).unwrap_or(false);
        }
        // Whoever we may not look at has it, and cannot be asked. What is used here only was flushed when it was unmounted.
        is_cut |= holders.is_empty() && is_unmounted && !mount.has_let_go();
        server.terminate();
    }
    match server.join() {
        _ if is_cut => Err("other mount namespaces had it, and what they hold cannot be asked for".into()),
        Ok(Err(error)) => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Returns once the drive is mounted in other namespaces only: the kernel says nothing about that.
fn wait_until_only_others_have_it(device: &str) {
    loop {
        reactor::sleep(LOOK_INTERVAL);
        let device = device.to_owned();
        let only_others = reactor::offload(move || {
            !mountpoint::is_visible(&device) && !mountpoint::holders(&device).is_empty()
        });
        if only_others {
            return;
        }
    }
}

/// Says what the end waits for, how much it is, and how to leave, for as long as it takes: here, and in the note, where
/// `umount` in another terminal finds it.
fn tell_what_is_left(volume: &Volume, spaces: Option<&Spaces>, stop: &Stop, note: &mut Note) {
    reactor::sleep(SILENCE);
    loop {
        let drive = volume.pending();
        let pending = spaces.map_or(drive, |spaces| spaces.pending_with(drive));
        if pending.bytes > 0 {
            let trouble = pending.trouble.map_or(String::new(), |(since, cause)| {
                format!("; the nodes have taken nothing for {} s ({cause})", since.as_secs())
            });
            let way_out = if stop.is_hurried() {
                ""
            } else {
                "; Ctrl-C now leaves it in the journal for the next start"
            };
            let amount = format!(
                "still storing {} of {}{trouble}",
                human_bytes(pending.bytes),
                files_in_words(pending.file_count)
            );
            note.waits(&amount);
            say(format_args!("{amount}{way_out}"));
        }
        reactor::sleep(TELL_INTERVAL);
    }
}
