//! `pin`, `unpin`, `pins`: what of the drive this machine keeps, whatever else it reads; and the mount that keeps it so.
//!
//! Pins are this machine's, and lie in its home (`pins.json`), not in the drive. The mount that has the cache's lock reads
//! all that is pinned through a view of the drive that remembers nothing, so that each block passes by the cache and is
//! pinned there; it looks again whenever the drive has changed. Files that did not change are not read again, but the tree
//! around them is, for it may lie elsewhere. What is pinned may be in a space, or be one. Not here: how entries are kept from being evicted (`filesystem::disk_cache`).

mod keeper;
mod walk;

use std::fs::File;
use std::path::Path;

use data_encoding::{DecodeError, HEXLOWER};
use filesystem::calendar::Civil;
use filesystem::disk_cache::{pinned_bytes_about, pins_bytes_max};
use filesystem::format::Shown;
use serde::{Deserialize, Serialize};

use crate::cache::{Plan, Usual};
use crate::cli::{PinOptions, PinsOptions};
use crate::client;
use crate::client_directory::ClientDirectory;
use crate::errand::{Need, with_place_or_all};
use crate::errors::Failure;
use crate::files::{self, Kind};
use crate::home::Lock;
use crate::name::within;
use crate::output::{self, say};
use crate::progress::{self, human_bytes, only_files_in_words};
pub(crate) use keeper::keep;

/// `pins.json`: what is to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Pins {
    pins: Vec<Pin>,
}

/// A path in these files: text, as far as it is text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
struct PinnedPath(Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes { hex: String },
}

impl TryFrom<Written> for PinnedPath {
    type Error = DecodeError;

    fn try_from(written: Written) -> Result<PinnedPath, DecodeError> {
        Ok(PinnedPath(match written {
            Written::Text(text) => text.into_bytes(),
            Written::Bytes { hex } => HEXLOWER.decode(hex.as_bytes())?,
        }))
    }
}

impl From<PinnedPath> for Written {
    fn from(PinnedPath(path): PinnedPath) -> Written {
        match String::from_utf8(path) {
            Ok(text) => Written::Text(text),
            Err(error) => Written::Bytes { hex: HEXLOWER.encode(error.as_bytes()) },
        }
    }
}

/// A path within the drive: a file, or a directory with all in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    path: PinnedPath,
    /// What it took when it was pinned.
    estimated_bytes: u64,
}

impl Kind for Pins {
    const KIND: &'static str = "hypha pins";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
    // Paths of the drive, whose files' modes let nobody else see them.
    const PRIVATE: bool = true;
}

/// `pins-kept.json`: how far the mount is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Kept {
    pins: Vec<KeptPin>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeptPin {
    path: PinnedPath,
    /// Files that are here, and their bytes.
    files: u64,
    bytes: u64,
    /// Whether it is all here, as new as the drive's root was when the mount looked last.
    is_complete: bool,
    /// When that was last known to be so, in seconds since 1970.
    looked_s: u64,
    /// What keeps it from being complete.
    trouble: Option<String>,
}

impl Kind for Kept {
    const KIND: &'static str = "hypha kept pins";
    const VERSION: u32 = 1;
    const SECRET: bool = false;
    // Paths of the drive, whose files' modes let nobody else see them.
    const PRIVATE: bool = true;
}

fn load<T: Kind + Default>(path: &Path) -> Result<T, Failure> {
    match files::load(path) {
        Err(Failure::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(T::default())
        }
        other => other,
    }
}

/// Changes `pins.json`, one process at a time.
fn change(base: &Path, with: impl FnOnce(&mut Pins) -> Result<(), Failure>) -> Result<(), Failure> {
    let failed = |error| Failure::file(base, error);
    let lock = File::open(base).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let file = base.join("pins.json");
    let mut pins: Pins = load(&file)?;
    with(&mut pins)?;
    files::save(&file, &pins)
}

fn shown(path: &[u8]) -> Shown {
    if path.is_empty() { "the whole drive".into() } else { Shown::of(path) }
}

/// Runs `pin`.
///
/// # Errors
/// `Failure::Pin` if it is not there or does not fit, or what keeps the drive from being read.
pub(crate) fn pin(options: &PinOptions) -> Result<(), Failure> {
    let settings = client::settings(&options.client)?;
    let path = within(&options.path, &settings.network)?;
    let base = settings.clients.ok_or(Failure::NoDirectory)?;
    let bound = Plan::make(&base, None, None, Usual::ShareOfTheDisk)?.bound_bytes();
    let (files, bytes, spaces) = with_place_or_all(&options.client, &path, Need::Read, |volume, _, rest| {
        let failed = |errno| Failure::NotPinned { what: shown(&path), errno };
        let spinner = progress::spinner("looking how much it is");
        let size = walk::size(volume, rest).map_err(failed);
        spinner.finish_and_clear();
        size
    })?;
    let estimated_bytes = pinned_bytes_about(files, bytes);
    change(&base, |pins| {
        pins.pins.retain(|pin| pin.path.0 != path);
        let others: u64 = pins.pins.iter().map(|pin| pin.estimated_bytes).sum();
        let left = pins_bytes_max(bound).saturating_sub(others);
        if estimated_bytes > left {
            let (needed, left) = (human_bytes(estimated_bytes), human_bytes(left));
            let reason = format!(
                "{} takes about {needed}, and the cache has room for {left} more of pins: nothing was pinned",
                shown(&path)
            );
            return Err(Failure::Pin { reason });
        }
        pins.pins.push(Pin { path: PinnedPath(path.clone()), estimated_bytes });
        Ok(())
    })?;
    say(format_args!(
        "{} is pinned: {}, {}; a running `mount` of this home fetches what it is, `up` does not (`storage-node pins` shows how far it is)",
        shown(&path),
        only_files_in_words(files),
        human_bytes(bytes)
    ));
    if spaces > 0 {
        say(format_args!(
            "what is in the {spaces} spaces that lie in it is kept by a pin of each, and not by this one"
        ));
    }
    Ok(())
}

/// Runs `unpin`.
///
/// # Errors
/// `Failure::Pin` if it is not pinned, or those of the home.
pub(crate) fn unpin(options: &PinOptions) -> Result<(), Failure> {
    let settings = client::settings(&options.client)?;
    let path = within(&options.path, &settings.network)?;
    let base = settings.clients.ok_or(Failure::NoDirectory)?;
    change(&base, |pins| {
        let before = pins.pins.len();
        pins.pins.retain(|pin| pin.path.0 != path);
        let is_gone = pins.pins.len() < before;
        let reason = || format!("{} is not pinned; `storage-node pins` lists what is", shown(&path));
        is_gone.then_some(()).ok_or_else(|| Failure::Pin { reason: reason() })
    })?;
    say(format_args!("{} is not pinned any more", shown(&path)));
    Ok(())
}

/// Why nobody has looked yet at what was pinned.
fn not_looked_at(base: &Path) -> &'static str {
    match () {
        () if Lock::is_held(base) => "no `mount` has looked at it yet: `up` runs, and fetches none",
        () if ClientDirectory::all(base).any(|client| Lock::is_held(&client)) => {
            "the running `mount` has yet to look at it"
        }
        () => "no `mount` runs that would fetch it",
    }
}

/// Runs `pins`.
///
/// # Errors
/// Those of the home.
pub(crate) fn pins(options: &PinsOptions) -> Result<(), Failure> {
    let base = client::settings(&options.client)?.clients.ok_or(Failure::NoDirectory)?;
    let pins: Pins = load(&base.join("pins.json"))?;
    // Where the cache was removed, or switched off, nothing is kept, whatever was said of it.
    let has_cache = Plan::make(&base, None, None, Usual::AsBefore)?.bound_bytes() > 0;
    let kept: Kept = if has_cache { load(&base.join("pins-kept.json"))? } else { Kept::default() };
    let unknown = |pin: &Pin| KeptPin {
        path: pin.path.clone(),
        files: 0,
        bytes: 0,
        is_complete: false,
        looked_s: 0,
        trouble: Some(not_looked_at(&base).into()),
    };
    let of = |pin: &Pin| {
        kept.pins.iter().find(|kept| kept.path == pin.path).cloned().unwrap_or_else(|| unknown(pin))
    };
    let kept = Kept { pins: pins.pins.iter().map(of).collect() };
    if options.json {
        return output::print_json(&kept);
    }
    if kept.pins.is_empty() {
        return output::print("nothing is pinned\n");
    }
    let line = |pin: &KeptPin| {
        let state = match (&pin.trouble, pin.is_complete) {
            (Some(trouble), _) => trouble,
            (None, true) => {
                let looked_s = i64::try_from(pin.looked_s).unwrap_or(i64::MAX);
                &*format!("kept, as of {} UTC", Civil::of(looked_s))
            }
            (None, false) => "being fetched",
        };
        let files = only_files_in_words(pin.files);
        format!("{}: {state} ({files}, {})\n", shown(&pin.path.0), human_bytes(pin.bytes))
    };
    output::print(&kept.pins.iter().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_path_is_written_as_text_where_it_is_text() {
        for (path, written) in
            [(&b"notes/caf\xc3\xa9"[..], "\"notes/café\""), (b"caf\xe9", "{\"hex\":\"636166e9\"}")]
        {
            let path = PinnedPath(path.into());
            assert_eq!(serde_json::to_string(&path).unwrap(), written);
            assert_eq!(serde_json::from_str::<PinnedPath>(written).unwrap(), path);
        }
        assert!(serde_json::from_str::<PinnedPath>("{\"hex\":\"6\"}").is_err());
    }

    #[test]
    fn a_change_that_is_refused_changes_nothing() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("pins.json");
        let pin = Pin { path: PinnedPath(b"a".into()), estimated_bytes: 1 };
        change(base.path(), |pins| {
            pins.pins.push(pin.clone());
            Ok(())
        })
        .unwrap();
        let refused = change(base.path(), |pins| {
            pins.pins.clear();
            Err(Failure::Pin { reason: "no".into() })
        });
        assert!(refused.is_err());
        assert_eq!(load::<Pins>(&file).unwrap(), Pins { pins: vec![pin] });
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "the paths of a drive's files are nobody else's business");
    }
}
