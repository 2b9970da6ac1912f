//! Comparing with one neighbour: a digest for each first byte of an address, and lists where the digests differ.
//!
//! Not here: what is done about a difference, which is the families' own ([`super`], `registers`, `deletions`).

use bytes::Bytes;
use overlay::{Contact, Overlay};

use super::{COMPARE_TIMEOUT, PAGES_MAX, Repair, Report};
use crate::links::Failure;
use crate::message::{Digests, DigestsRequest, DigestsResponse, Family, ListKeys, ListKeysRequest, ViewMark};

impl<O: Overlay + 'static> Repair<O> {
    /// Returns by which view the other one answered; by none, if it changed meanwhile.
    pub(super) fn compare(&self, contact: &Contact, report: &mut Report) -> Result<ViewMark, Failure> {
        let mut mark = None;
        for family in [Family::Deletions, Family::Reprieves, Family::Registers, Family::Blocks] {
            match self.compare_family(contact, family, report) {
                Ok(theirs) if mark.is_none_or(|mark: ViewMark| mark.view == theirs.view) => {
                    mark = Some(theirs)
                }
                Ok(theirs) => mark = Some(ViewMark { view: 0, has_handed_over: false, ..theirs }),
                // What a neighbour makes of owners' words must not keep its registers and blocks from being compared.
                Err(failure @ (Failure::Lied(_) | Failure::Refused(_)))
                    if matches!(family, Family::Deletions | Family::Reprieves) =>
                {
                    tracing::warn!(node = %contact, "can't compare what owners said of blocks: {failure}");
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(mark.unwrap_or_default())
    }

    fn compare_family(
        &self,
        contact: &Contact,
        family: Family,
        report: &mut Report,
    ) -> Result<ViewMark, Failure> {
        let theirs_for_us = DigestsRequest { family, asker: self.node.own() };
        let (DigestsResponse { digests: theirs, mut mark }, _) =
            self.links.call::<Digests>(contact, &theirs_for_us, Bytes::new(), COMPARE_TIMEOUT)?;
        let ours = DigestsRequest { family, asker: contact.id };
        let ours = self.node.digests(&ours).map_err(Failure::Refused)?;
        if theirs.len() != ours.len() {
            return Err(Failure::Lied("a digest list of the wrong length".into()));
        }
        let mut first = 0;
        while first < ours.len() {
            if theirs[first] == ours[first] {
                first += 1;
                continue;
            }
            let mut last = first;
            while last + 1 < ours.len() && theirs[last + 1] != ours[last + 1] {
                last += 1;
            }
            let all = self.catch_up(contact, &theirs_for_us, first as u8, last as u8, report);
            // What else there is that we lack, we do not know. Owners' words keep nothing from being read.
            if all != Ok(true) && matches!(family, Family::Blocks | Family::Registers) {
                self.node.fall_behind(&contact.id);
            }
            if !all? {
                mark.view = 0;
            }
            first = last + 1;
        }
        Ok(mark)
    }

    /// Fetches what `contact` has in a range of first bytes and we lack; says whether that was all of it.
    fn catch_up(
        &self,
        contact: &Contact,
        of: &DigestsRequest,
        first: u8,
        last: u8,
        report: &mut Report,
    ) -> Result<bool, Failure> {
        let (mut from, mut to) = ([0; 32], [0xff; 32]);
        (from[0], to[0]) = (first, last);
        let mut pages = 0;
        loop {
            let request = ListKeysRequest { of: of.clone(), from, to };
            let (list, _) = self.links.call::<ListKeys>(contact, &request, Bytes::new(), COMPARE_TIMEOUT)?;
            match of.family {
                Family::Blocks => self.fetch_blocks(contact, &list.keys, report),
                Family::Registers => self.fetch_registers(contact, &list.keys, report),
                Family::Deletions | Family::Reprieves => {
                    self.learn_words(contact, of.family, &list.keys, report)?;
                }
            }
            pages += 1;
            match list.next {
                // A liar could send us in circles, or one key at a time.
                Some(next) if next > from && pages < PAGES_MAX => from = next,
                rest => return Ok(rest.is_none()),
            }
        }
    }
}
