//! Keeping, in the place of a node that leaves, the bytes of a block that was deleted: what the drive was within the retention
//! reaches such blocks, so they have to move with it.
//!
//! Whoever hands such a copy on shows the owner's word with it, and the node is bound by that as if it had heard it. It was not there
//! when that was said, so it counts the time from when those at the latest heard it who were told at first: no word is taken
//! directly that is older than a day. And it keeps it for as long as they had promised then, which is handed on with it, up to the longest
//! that anybody may promise: what they promise now may be less. That is no sooner than on any of them, however old the word says
//! it is, and it grows by no further hand. Of a block that the node has, or of which it was told something else, nothing changes.
//!
//! Not here: which copies are made ([`crate::spread`]).

use bytes::Bytes;
use reactor::serialization::to_envelope;

use super::deletions::{CLOCK_AHEAD_MS, CLOCK_BEHIND_MS, Told, is_over, now_ms, now_seconds, rank, word_key};
use super::{Node, refusal_of};
use crate::block::deletion::{OwnersWord, RETENTION_SECONDS_MAX};
use crate::block::mutable::Invalid;
use crate::message::{PutBlockRequest, Refusal};
use crate::store::Kind;

impl Node {
    /// Keeps a deleted block until its time is over.
    ///
    /// # Errors
    /// [`Refusal::Superseded`] if it is not deleted by what this node knows; [`Refusal::Over`] if it is, and its time is over;
    /// [`Refusal::Invalid`] if the word does not verify or is about another block; [`Refusal::Bounds`] without a time at which it was
    /// put; that of the store.
    ///
    /// # Suspends
    /// Until it is durable.
    pub(crate) fn keep_deleted(
        &self,
        request: &PutBlockRequest,
        word: &OwnersWord,
        content: &Bytes,
    ) -> Result<(), Refusal> {
        word.verify()?;
        let (address, tag, deletion) = (&request.address, &request.tag, &word.deletion);
        if deletion.address != *address || word.tag() != *tag {
            return Err(Invalid::NotGranted.into());
        }
        // A right that has ended lets nobody speak as of before that; who heard him then keeps it for those who can say so themselves.
        if word.grant.as_ref().is_some_and(|grant| grant.until_seconds < now_seconds()) {
            return Err(Invalid::NotGranted.into());
        }
        if deletion.said_ms > now_ms() + CLOCK_AHEAD_MS || is_over(deletion.said_ms, now_ms()) {
            return Err(Invalid::Time.into());
        }
        if !address.names(tag, content) {
            return Err(Refusal::Misnamed);
        }
        let without_time = || Refusal::Bounds("a deleted block without the time at which it was put".into());
        let put_seconds = request.put_seconds.ok_or_else(without_time)?;
        let _deciding = self.deletions.decide(*address);
        if self.has_block(address) {
            return if self.is_dead(address)? { Ok(()) } else { Err(Refusal::Superseded) };
        }
        let key = word_key(address, tag);
        let known = self.told(&key)?.filter(|known| rank(&known.word.deletion) >= rank(deletion));
        let is_news = known.is_none();
        let told = match known {
            Some(known) => known,
            None => {
                let heard_at_the_latest = deletion.said_ms.saturating_add(CLOCK_BEHIND_MS) / 1000;
                let kept_seconds =
                    self.promise_retention()?.max(request.kept_seconds.min(RETENTION_SECONDS_MAX));
                let received_seconds = heard_at_the_latest.min(now_seconds());
                Told { received_seconds, kept_seconds, word: word.clone() }
            }
        };
        // Two things, for whoever hands it on puts it as one that lives if it is to live.
        let due = told.due_seconds(put_seconds).ok_or(Refusal::Superseded)?;
        if due <= now_seconds() {
            return Err(Refusal::Over);
        }
        let plain =
            PutBlockRequest { deleted_by: None, kept_seconds: 0, may_use_reserve: false, ..request.clone() };
        let write = || -> Result<(), Refusal> {
            // The word first: without it the block would live.
            if is_news {
                let value = to_envelope(&told).into();
                self.store.put(&key.in_kind(Kind::TOMBSTONE), value).map_err(refusal_of)?;
                self.store.remove(&key.in_kind(Kind::REPRIEVE)).map_err(refusal_of)?;
            }
            self.enqueue_block(&plain, content.clone())?.wait().map_err(refusal_of)?;
            self.deletions.note_due(*address, content.len() as u32, due);
            Ok(())
        };
        reactor::uninterruptible(write)
    }
}
