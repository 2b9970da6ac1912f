//! Asking one node what a register was: page after page, the newest first.
//!
//! Not here: what the lists of several come to.

use std::time::{Instant, UNIX_EPOCH};

use bytes::Bytes;
use overlay::{Contact, Overlay};

use super::{CALL_TIMEOUT, PAGE_LIMIT, why_late};
use crate::block::deletion::RETENTION_SECONDS_MAX;
use crate::block_store::RegisterAddress;
use crate::links::{Failure, Links};
use crate::message::{ListPast, PastEntry};
use crate::node::past::learned::LEARNED_MAX;
use crate::node::past::{KEPT_MAX, PAST_LISTED_MAX};

/// Pages that are asked for of one node: as many as one has that tells the truth and keeps all that it may, of its own and of others.
const PAGES_MAX: usize = (KEPT_MAX + LEARNED_MAX).div_ceil(PAST_LISTED_MAX - 1) + 32;

/// A list of more than a page is asked for from the newest on: of the last hour, then of the last four hours, and so on to the longest
/// retention, and last of what was before. So what is left out of one that comes too slowly is what is older, and not what was right before
/// an attack.
const WINDOW_SECONDS: u64 = 3600;

/// What a node lists, the oldest first; last what it has now.
pub(crate) struct Listed {
    pub(crate) entries: Vec<PastEntry>,
    /// What did not come.
    pub(crate) gap: Option<Gap>,
}

/// Of what a node had between these times, not all came.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    pub(super) from_seconds: u64,
    pub(super) until_seconds: u64,
    /// Why, in words.
    pub(super) reason: String,
}

/// Why a list is not had to its end.
enum Ended {
    /// Nothing that this node says counts.
    Lied(Failure),
    /// What came does.
    Late(String),
}

/// The list of a node, page after page.
struct Pages<'a, O: Overlay> {
    links: &'a Links<O>,
    contact: &'a Contact,
    register: &'a RegisterAddress,
    began: Instant,
    count: usize,
}

impl<O: Overlay> Pages<'_, O> {
    fn page(&mut self, from_seconds: u64) -> Result<Vec<PastEntry>, Failure> {
        self.count += 1;
        let page = match self.links.local(&self.contact.id) {
            Some(node) => node.list_past(self.register, from_seconds).map_err(Failure::Refused)?,
            None => {
                let asked = (*self.register, from_seconds);
                self.links.call::<ListPast>(self.contact, &asked, Bytes::new(), CALL_TIMEOUT)?.0
            }
        };
        if page.len() > PAST_LISTED_MAX {
            return Err(Failure::Lied("its list is too long".into()));
        }
        // What it has now is the last, and from an earlier time if its clock was set back.
        let kept = &page[..page.len().saturating_sub(1)];
        let is_in_order = kept.is_sorted_by_key(|entry| entry.since_seconds);
        if !is_in_order || kept.first().is_some_and(|first| first.since_seconds < from_seconds) {
            return Err(Failure::Lied("its list goes in circles".into()));
        }
        Ok(page)
    }

    /// Adds what is from one time to another.
    fn span(&mut self, mut from: u64, until: u64, entries: &mut Vec<PastEntry>) -> Result<(), Ended> {
        while from < until {
            if self.count >= PAGES_MAX {
                return Err(Ended::Lied(Failure::Lied("its list has no end".into())));
            }
            if let Some(late) = why_late(self.began, PAGE_LIMIT, self.count) {
                return Err(Ended::Late(late));
            }
            let page = self.page(from).map_err(|failure| match failure {
                Failure::Lied(_) => Ended::Lied(failure),
                failure => Ended::Late(failure.to_string()),
            })?;
            let last = page.iter().map(|entry| entry.since_seconds).max();
            entries.extend(page.into_iter().take_while(|entry| entry.since_seconds < until));
            // What can't be read is left out of a page, so a short one need not be the last.
            from = match last.and_then(|last| last.checked_add(1)) {
                Some(next) if next > from => next,
                Some(_) => return Err(Ended::Lied(Failure::Lied("its list goes in circles".into()))),
                None => return Ok(()),
            };
        }
        Ok(())
    }
}

/// Lists what a register was by the word of one node. Of one that answers too slowly, or not to the end, what came.
pub(crate) fn list<O: Overlay>(
    links: &Links<O>,
    contact: &Contact,
    register: &RegisterAddress,
) -> Result<Listed, Failure> {
    let mut pages = Pages { links, contact, register, began: reactor::now(), count: 0 };
    let mut entries = pages.page(0)?;
    let last = entries.iter().map(|entry| entry.since_seconds).max();
    let Some(rest) = last.and_then(|last| last.checked_add(1)) else {
        return Ok(Listed { entries, gap: None });
    };
    let now = reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut begins = Vec::new();
    if entries.len() + 1 >= PAST_LISTED_MAX {
        let ages = std::iter::successors(Some(WINDOW_SECONDS), |age| age.checked_mul(4));
        let ages = ages.take_while(|age| *age <= RETENTION_SECONDS_MAX.into());
        begins.extend(ages.map_while(|age| now.checked_sub(age).filter(|begin| *begin > rest)));
    }
    begins.push(rest);
    let (mut until, mut windows, mut gap) = (u64::MAX, Vec::new(), None);
    for begin in begins {
        let mut window = Vec::new();
        let ended = pages.span(begin, until, &mut window);
        windows.push(window);
        match ended {
            Ok(()) => until = begin,
            Err(Ended::Lied(failure)) => return Err(failure),
            Err(Ended::Late(reason)) => {
                gap = Some(Gap { from_seconds: rest, until_seconds: until.min(now), reason });
                break;
            }
        }
    }
    entries.extend(windows.into_iter().rev().flatten());
    Ok(Listed { entries, gap })
}
