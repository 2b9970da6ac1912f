//! Learning what owners said of blocks while this node was away, and removing what is due.
//!
//! Not here: what a node does by an owner's word ([`crate::node::deletions`]).

use std::time::Duration;

use bytes::Bytes;
use overlay::{Contact, Overlay};

use super::{COMPARE_TIMEOUT, NEIGHBOURS, Repair, Report};
use crate::block::deletion::OwnersWord;
use crate::links::Failure;
use crate::message::{Family, ListedKey, NodeRetention, Refusal, Retention, WORDS_MAX, WordKey, Words};

/// How often blocks are looked for whose retention is over.
const REMOVAL_PERIOD: Duration = Duration::from_secs(5);

impl<O: Overlay + 'static> Repair<O> {
    /// Learns what `contact` was told of blocks and this node was not.
    pub(super) fn learn_words(
        &self,
        contact: &Contact,
        family: Family,
        keys: &[ListedKey],
        report: &mut Report,
    ) -> Result<(), Failure> {
        let keys = keys.iter().map(|key| WordKey(key.address));
        let news: Vec<WordKey> = keys.filter(|key| !self.node.has_word(family, key)).collect();
        for some in news.chunks(WORDS_MAX) {
            report.words += self.fetch_words(contact, some)?;
        }
        Ok(())
    }

    /// Asks `contact` what it was told under some keys, at most [`WORDS_MAX`], and does as it says. Returns how many
    /// words were news.
    pub(super) fn fetch_words(&self, contact: &Contact, keys: &[WordKey]) -> Result<usize, Failure> {
        let (words, _) = self.links.call::<Words>(contact, &keys.to_vec(), Bytes::new(), COMPARE_TIMEOUT)?;
        if words.len() != keys.len() {
            return Err(Failure::Lied("a list of the wrong length".into()));
        }
        let mut learned = 0;
        for (word, key) in words.iter().zip(keys) {
            let is_asked_for =
                |word: &&OwnersWord| self.node.word_key(&word.deletion.address, &word.tag()) == *key;
            let Some(word) = word.as_ref().filter(is_asked_for) else { continue };
            match self.node.learn(word) {
                Ok(()) => learned += 1,
                // Put again since; it stays, here.
                Err(Refusal::TooYoung { .. } | Refusal::Superseded) => {}
                Err(refusal) => {
                    tracing::debug!(address = %word.deletion.address, node = %contact, "can't take over a deletion: {refusal}");
                }
            }
        }
        Ok(learned)
    }

    /// Hears for how long the others keep what is deleted, if this node is new to that.
    fn ask_for_retentions(&self) -> Result<(), Refusal> {
        if !self.node.is_to_ask_for_retention()? {
            return Ok(());
        }
        let neighbours = self.links.closest(self.node.own().0, NEIGHBOURS);
        let others = neighbours.iter().filter(|contact| contact.id != self.node.own());
        let answers: Vec<_> = others
            .map(|contact| self.links.call::<NodeRetention>(contact, &(), Bytes::new(), COMPARE_TIMEOUT))
            .collect();
        let said: Vec<Retention> = answers.iter().flatten().map(|(said, _)| *said).collect();
        self.node.hear_retentions(&said, !said.is_empty() && said.len() == answers.len());
        Ok(())
    }

    /// Removes blocks as their retentions end, for ever.
    pub(super) fn remove_deleted(&self) {
        if let Err(refusal) = self.node.find_due() {
            tracing::warn!("can't find out which deleted blocks are still there: {refusal}");
        }
        loop {
            if let Err(refusal) = self.ask_for_retentions().and_then(|()| self.node.look_at_retention()) {
                tracing::warn!("can't look for how long deleted blocks are to be kept: {refusal}");
            }
            if let Err(refusal) = self.node.remove_all_due() {
                tracing::warn!("can't remove deleted blocks now: {refusal}");
            }
            reactor::sleep(REMOVAL_PERIOD);
        }
    }
}

#[cfg(test)]
mod tests;
