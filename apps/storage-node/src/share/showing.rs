//! `access`: who may do what in a space, and how it came to be so.

use std::fmt::Write;

use filesystem::access::SpaceLink;
use filesystem::access::list::{Access, AccessChange, AccessList, CHANGES_MAX};
use filesystem::calendar::Civil;
use filesystem::format::Shown;
use filesystem::volume::{LinkError, Place};
use overlay::NodeId;
use reactor::crypto::PublicKey;

use super::{SHOWN_DIGITS, at_place, in_words, is_no_space, read_list};
use crate::cli::AccessOptions;
use crate::client;
use crate::errand::with_volume;
use crate::errors::Failure;
use crate::members::OWNER;
use crate::name::SpaceName;
use crate::output;

/// Runs `access`.
///
/// # Errors
/// `Failure::Space`, or what keeps the volume from being opened.
pub(crate) fn access(options: &AccessOptions) -> Result<(), Failure> {
    let settings = client::settings(&options.client)?;
    let name = SpaceName::of(&options.path, &options.client)?;
    let text = with_volume(&options.client, |client, volume| {
        let link = match volume.look_at_place(name.text()) {
            Ok(Place::Link(link)) => link,
            Ok(Place::Free(..)) | Err(LinkError::Occupied { .. }) => return Err(is_no_space(&name)),
            Err(error) => return Err(at_place(error)),
        };
        let genesis = SpaceLink::decode(&link, &settings.network.volume_owner())
            .map(|link| link.genesis().clone())
            .ok_or_else(|| is_no_space(&name))?;
        let list = read_list(client, settings.seen_directory().as_deref(), &genesis)?;
        Ok(if options.log { log(&list) } else { render(&list, &genesis.owner) })
    })?;
    output::print(&text)
}

fn render(list: &AccessList, owner: &PublicKey) -> String {
    let mut text = String::new();
    for change in list.present() {
        // He goes by his account's name, which others may have as well.
        let who = match change.key == *owner {
            true => format!("{OWNER} ({})", &NodeId::of(&change.key).to_string()[..SHOWN_DIGITS]),
            false => in_words(change),
        };
        let may = if change.access == Access::Write { "reads and writes" } else { "reads" };
        let since = Civil::of(change.at as i64);
        let by = by_groups(list, change);
        let _ = writeln!(text, "{may:<18}{who}  since {since} UTC{by}");
    }
    for group in &list.groups {
        let may = if group.access == Access::Write { "reads and writes" } else { "reads" };
        let count = list.present().filter(|change| change.by.contains(&group.id)).count();
        let _ = writeln!(text, "{may:<18}the group {}: {count} of these", group.name);
    }
    let _ = writeln!(
        text,
        "{}, by the {} list that the drive's owner signed for it, the newest; `--log` shows what each changed",
        Shown::of(&list.path),
        nth(list.number)
    );
    text
}

/// As in "the 2nd".
fn nth(number: u64) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// By which groups somebody is on a list, as it is said behind what he may do.
pub(super) fn by_groups(list: &AccessList, change: &AccessChange) -> String {
    let mut ways: Vec<String> = list.names_of(change).map(|name| format!("the group {name}")).collect();
    if ways.is_empty() {
        return String::new();
    }
    if change.own != Access::None {
        ways.insert(0, "name".into());
    }
    format!(", by {}", ways.join(" and "))
}

fn log(list: &AccessList) -> String {
    let mut text = String::new();
    if list.changes.len() == CHANGES_MAX {
        let _ = writeln!(text, "(the last {CHANGES_MAX} changes are remembered)");
    }
    for change in &list.changes {
        let may = match change.access {
            Access::None => "neither reads nor writes any more",
            Access::Read => "reads",
            Access::Write => "reads and writes",
        };
        let by = by_groups(list, change);
        let _ = writeln!(text, "{} UTC  {}  {may}{by}", Civil::of(change.at as i64), in_words(change));
    }
    text
}
