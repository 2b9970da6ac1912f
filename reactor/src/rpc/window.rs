//! What one end of a stream has, may send, and may still be sent: credit windows in bytes. Pure.
//!
//! A sender may have [`STREAM_WINDOW_BYTES`] on their way or waiting at the receiver, headers included, so that empty
//! items count too. The receiver gives credit back as its user takes items, half a window at a time. So a receiver
//! that takes nothing costs a window and no more, and stops nobody but its own sender.
//!
//! What it is not: waiting. Who finds no credit is told so.

use std::collections::VecDeque;

use super::frame::{FrameError, HEADER_SIZE_BYTES, ITEM_SIZE_BYTES_MAX};

/// What a stream may have under way in one direction: at 1 GB/s it covers a round trip of 250 us, and over 30 ms it
/// gives 8 MB/s, which four streams or a payload multiply. With [`STREAMS_MAX`] streams a peer costs 16 MiB.
pub const STREAM_WINDOW_BYTES: usize = 256 << 10;

/// How many calls that stream each side may have open: a pipe per file of a busy transfer, and a bound on memory.
pub const STREAMS_MAX: usize = 64;

/// What an item counts.
pub fn item_weight_bytes(size: usize) -> usize {
    size + HEADER_SIZE_BYTES
}

/// What a peer may still send us, and what of it waits.
#[derive(Debug)]
pub struct Inbound {
    items: VecDeque<Vec<u8>>,
    /// What the peer may still send.
    window_bytes: usize,
    /// What was taken, and not given back yet.
    taken_bytes: usize,
    /// The sender has said that it is through.
    ended: bool,
    /// The call is over, whatever the sender still meant to send.
    cut: Option<Broken>,
    unwanted: bool,
}

impl Default for Inbound {
    fn default() -> Inbound {
        Inbound {
            items: VecDeque::new(),
            window_bytes: STREAM_WINDOW_BYTES,
            taken_bytes: 0,
            ended: false,
            cut: None,
            unwanted: false,
        }
    }
}

/// What [`Inbound::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// An item, and what credit to give, if it is worth a frame.
    Item(Vec<u8>, Option<u32>),
    /// Nothing yet.
    Empty,
    /// Nothing any more, and the sender has said so, or nobody wants it.
    Ended,
    /// Nothing any more, because the call is over: whether that was all only its answer says.
    Cut(Broken),
}

impl Inbound {
    /// An item has come.
    ///
    /// # Errors
    /// [`FrameError::WindowExceeded`] if there was no credit for it: the peer is broken.
    pub fn on_item(&mut self, call: u32, item: Vec<u8>) -> Result<(), FrameError> {
        let weight_bytes = item_weight_bytes(item.len());
        if weight_bytes > self.window_bytes || self.ended || self.cut.is_some() {
            return Err(FrameError::WindowExceeded { call });
        }
        self.window_bytes -= weight_bytes;
        if !self.unwanted {
            self.items.push_back(item);
        }
        Ok(())
    }

    /// No more will come; what is here can still be taken.
    pub fn on_end(&mut self) {
        self.ended = true;
    }

    /// The call is over; what is here can still be taken.
    pub fn on_cut(&mut self, why: Broken) {
        self.cut.get_or_insert(why);
    }

    /// Takes the next item.
    pub fn take(&mut self) -> Taken {
        let Some(item) = self.items.pop_front() else {
            return match (self.ended || self.unwanted, self.cut) {
                (true, _) => Taken::Ended,
                (false, Some(why)) => Taken::Cut(why),
                (false, None) => Taken::Empty,
            };
        };
        self.taken_bytes += item_weight_bytes(item.len());
        let worth = !self.ended && self.cut.is_none() && self.taken_bytes >= STREAM_WINDOW_BYTES / 2;
        let credit = worth.then(|| {
            self.window_bytes += self.taken_bytes;
            std::mem::take(&mut self.taken_bytes) as u32
        });
        Taken::Item(item, credit)
    }

    /// Nobody takes items any more. True if the peer should be told: it may yet send some.
    pub fn refuse(&mut self) -> bool {
        self.items.clear();
        !std::mem::replace(&mut self.unwanted, true) && !self.ended && self.cut.is_none()
    }

    /// How many items wait to be taken.
    pub fn waiting_count(&self) -> usize {
        self.items.len()
    }

    /// What waits to be taken, headers included.
    pub fn waiting_bytes(&self) -> usize {
        self.items.iter().map(|item| item_weight_bytes(item.len())).sum()
    }
}

/// What we may still send.
#[derive(Debug)]
pub struct Outbound {
    credit_bytes: usize,
    stopped: bool,
}

impl Default for Outbound {
    fn default() -> Outbound {
        Outbound { credit_bytes: STREAM_WINDOW_BYTES, stopped: false }
    }
}

impl Outbound {
    /// Takes credit for an item; `None` if it must wait.
    ///
    /// # Errors
    /// `Err` if nobody wants it any more.
    pub fn admit(&mut self, size: usize) -> Result<Option<()>, Stopped> {
        if self.stopped {
            return Err(Stopped);
        }
        match self.credit_bytes.checked_sub(item_weight_bytes(size)) {
            Some(left) => {
                self.credit_bytes = left;
                Ok(Some(()))
            }
            None => Ok(None),
        }
    }

    /// Whether an item of that size would be admitted.
    pub fn has_credit(&self, size: usize) -> bool {
        item_weight_bytes(size) <= self.credit_bytes
    }

    /// The receiver has room again.
    ///
    /// # Errors
    /// [`FrameError::WindowExceeded`] if that is more than a window.
    pub fn on_credit(&mut self, call: u32, bytes: u32) -> Result<(), FrameError> {
        self.credit_bytes += bytes as usize;
        if self.credit_bytes > STREAM_WINDOW_BYTES {
            return Err(FrameError::WindowExceeded { call });
        }
        Ok(())
    }

    /// Nothing more may be sent.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether nothing more may be sent.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }
}

/// Why a stream broke off before its sender had ended it: what came was not all.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The caller has given the call up.
    #[error("the caller gave the call up before its stream had ended")]
    Cancelled,
    /// The connection is gone, and the caller with it as far as we know.
    #[error("the connection was lost before the stream had ended")]
    Lost,
    /// The call has been answered: by its handler, or because its time was over.
    #[error("the call was answered before the stream had ended")]
    Answered,
}

/// The other end takes no more items: it has stopped this stream, or the call is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer takes no more items of this stream")]
pub struct Stopped;

const _: () = assert!(ITEM_SIZE_BYTES_MAX + HEADER_SIZE_BYTES < STREAM_WINDOW_BYTES / 2);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_sender_beyond_its_window_is_found_out() {
        let mut inbound = Inbound::default();
        let item = vec![0; 1000];
        let fit = STREAM_WINDOW_BYTES / item_weight_bytes(1000);
        for _ in 0..fit {
            inbound.on_item(1, item.clone()).unwrap();
        }
        assert_eq!(inbound.on_item(1, item), Err(FrameError::WindowExceeded { call: 1 }));
        assert!(inbound.waiting_bytes() <= STREAM_WINDOW_BYTES);
    }

    #[test]
    fn empty_items_are_bounded_too() {
        let mut inbound = Inbound::default();
        let accepted = (0..).take_while(|_| inbound.on_item(1, Vec::new()).is_ok()).count();
        assert_eq!(accepted, STREAM_WINDOW_BYTES / HEADER_SIZE_BYTES);
    }

    #[test]
    fn credit_beyond_a_window_is_an_error() {
        let mut outbound = Outbound::default();
        assert_eq!(outbound.on_credit(3, 1), Err(FrameError::WindowExceeded { call: 3 }));
    }

    #[test]
    fn what_came_before_the_end_can_be_taken_after_it() {
        let mut inbound = Inbound::default();
        inbound.on_item(1, vec![1]).unwrap();
        inbound.on_end();
        assert_eq!(inbound.take(), Taken::Item(vec![1], None));
        assert_eq!(inbound.take(), Taken::Ended);
        assert!(inbound.on_item(1, vec![2]).is_err(), "nothing comes behind the end");
    }

    #[test]
    fn a_stream_that_was_cut_is_not_taken_for_one_that_ended() {
        let mut inbound = Inbound::default();
        inbound.on_item(1, vec![1]).unwrap();
        inbound.on_cut(Broken::Lost);
        inbound.on_cut(Broken::Answered);
        assert_eq!(inbound.take(), Taken::Item(vec![1], None));
        assert_eq!(inbound.take(), Taken::Cut(Broken::Lost), "the first reason stays");
        // The sender was through before.
        let mut inbound = Inbound::default();
        inbound.on_end();
        inbound.on_cut(Broken::Cancelled);
        assert_eq!(inbound.take(), Taken::Ended);
    }

    #[test]
    fn a_receiver_that_refuses_says_so_once_and_keeps_nothing() {
        let mut inbound = Inbound::default();
        inbound.on_item(1, vec![1]).unwrap();
        assert!(inbound.refuse());
        assert!(!inbound.refuse());
        inbound.on_item(1, vec![2]).unwrap();
        assert_eq!((inbound.waiting_bytes(), inbound.take()), (0, Taken::Ended));
    }

    proptest! {
        #[test]
        fn an_honest_sender_is_never_stuck_nor_over_the_window(
            sizes in prop::collection::vec(0..ITEM_SIZE_BYTES_MAX, 1..200), seed: u64,
        ) {
            let (mut inbound, mut outbound) = (Inbound::default(), Outbound::default());
            let (mut sent, mut taken, mut random) = (0, 0, seed);
            while taken < sizes.len() {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let can_send = sent < sizes.len() && outbound.admit(sizes[sent]).unwrap().is_some();
                if can_send {
                    inbound.on_item(1, vec![0; sizes[sent]]).unwrap();
                    sent += 1;
                }
                if !can_send || random >> 63 == 0 {
                    match inbound.take() {
                        Taken::Item(item, credit) => {
                            prop_assert_eq!(item.len(), sizes[taken]);
                            taken += 1;
                            if let Some(bytes) = credit {
                                outbound.on_credit(1, bytes).unwrap();
                            }
                        }
                        Taken::Empty => prop_assert!(can_send || sent == sizes.len(), "stuck"),
                        Taken::Ended | Taken::Cut(_) => unreachable!(),
                    }
                }
                prop_assert!(inbound.waiting_bytes() <= STREAM_WINDOW_BYTES);
            }
        }
    }
}
