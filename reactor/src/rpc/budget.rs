//! What a peer may cost us: one account, from a request's header to the last byte of its reply. Pure.
//!
//! Everything that a peer can make us hold is charged here before it is held, and paid back when it is gone:
//!
//! - a *call* weighs its request, metadata included, and the longest reply that its method may give, with the longest
//!   metadata ([`Weight`]). It is charged when the
//!   request's header has come, and given back when the reply has been handed to the line, however long the handler
//!   took. A call that is cancelled is given back when its handler has *ended*: ending is work too;
//! - a *stream* weighs that and its two windows;
//! - a *courtesy* is an answer that cost its cause nothing: a refusal, a pong.
//!
//! Light, middling and heavy calls and streams have a limit each, so that small calls do not wait behind large ones. Both ends
//! know the weights, and the caller waits before it goes over a limit (`rpc/call.rs`); one that does not is answered
//! `Overloaded`, and one that causes courtesies and reads none is cut off. The callee never stops reading instead:
//! two sides that each wait for the other to read would wait for ever.
//!
//! What it holds for one peer never exceeds [`PEER_BYTES_MAX`]; what all peers together hold, beyond a share that each
//! has for itself and what readers and writers have in their hands ([`IN_HAND_BYTES_MAX`]), is bounded by a [`Pool`].
//!
//! How many calls the peer may call off, which costs no memory and a coroutine's life each, is counted beside
//! (`withdrawals`).
//!
//! What it is not: what our own calls cost us. We began those, and their replies are bounded by their methods. Nor is it
//! what handlers make of a request: bytes are counted as they are on the line.

mod withdrawals;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;
use std::time::Instant;

use super::frame::{FrameError, HEADER_SIZE_BYTES, PART_SIZE_BYTES_MAX};
use super::metadata::METADATA_SIZE_BYTES_MAX;
use super::window::{STREAM_WINDOW_BYTES, STREAMS_MAX};
use super::{MESSAGE_SIZE_BYTES_MAX, PAYLOAD_SIZE_BYTES_MAX};
use withdrawals::Withdrawals;

/// The least a call weighs: a coroutine, a request of some 50 KiB and a reply of the default length, so that
/// [`LIGHT_BYTES_MAX`] allows 256 of them.
pub const CALL_WEIGHT_BYTES_MIN: usize = 128 << 10;

/// The longest reason why there is no reply, as text: any call may be answered with one.
pub const REASON_SIZE_BYTES_MAX: usize = 4 << 10;

/// What a call takes beside its bytes: headers, and places in tables and queues.
const PLACE_BYTES: usize = 512;

/// What one peer may have in flight at us, and we at it, of calls that weigh no more than the least: 256.
pub const LIGHT_BYTES_MAX: usize = 32 << 20;

/// The longest call that is not heavy: what is agreed on and looked up, with its proofs, and not moved in bulk.
pub const MIDDLING_WEIGHT_BYTES_MAX: usize = 512 << 10;

/// The same of calls up to [`MIDDLING_WEIGHT_BYTES_MAX`]: 32 of the heaviest.
pub const MIDDLING_BYTES_MAX: usize = 16 << 20;

/// The same of the heavier ones: 28 that fetch a block of 1 MiB. At 1 GB/s and 30 ms of round trip, 32 MiB keep the
/// line full.
pub const HEAVY_BYTES_MAX: usize = 32 << 20;

/// The same of streams: [`STREAMS_MAX`] that were opened with a light call.
pub const STREAMS_BYTES_MAX: usize = STREAMS_MAX * (CALL_WEIGHT_BYTES_MIN + 2 * STREAM_WINDOW_BYTES);

/// What cancelled calls may weigh until their handlers have ended, beside those that are still wanted: an honest caller
/// that cancels all of a class but streams and asks anew finds room. Beyond it, a cancelled call goes on weighing as one that is wanted.
pub const DYING_BYTES_MAX: usize = 32 << 20;

/// The bytes of courtesies that may wait for a peer that does not read; then it is cut off. Some 40,000 refusals.
pub const COURTESIES_BYTES_MAX: usize = 1 << 20;

/// What is in somebody's hands and not charged: a part that the reader passes over, and what the writer writes after it
/// was given back, which is up to four turns, each of a message and the last part of a payload, which holds all of that;
/// and the small frames of all calls, of 4 KiB each, with the courtesies.
pub const IN_HAND_BYTES_MAX: usize =
    PART_SIZE_BYTES_MAX + 4 * (MESSAGE_SIZE_BYTES_MAX + PAYLOAD_SIZE_BYTES_MAX) + (4 << 20);

/// The most that a peer can make us hold.
pub const PEER_BYTES_MAX: usize = LIGHT_BYTES_MAX
    + MIDDLING_BYTES_MAX
    + HEAVY_BYTES_MAX
    + STREAMS_BYTES_MAX
    + DYING_BYTES_MAX
    + COURTESIES_BYTES_MAX
    + IN_HAND_BYTES_MAX;

/// What a peer may hold before it draws from the [`Pool`], which others may have emptied: three calls that move a block,
/// and some light ones.
pub const PEER_SHARE_BYTES: usize = 4 << 20;

/// What the peers of one reactor may hold together beyond their own shares, unless
/// [`Config::pool`](super::Config::pool) says otherwise: 16,384 light calls at once. Weights are promises; what is held
/// is mostly a tenth of them.
pub const POOL_BYTES_MAX: usize = 2 << 30;

/// What a call is counted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A call of the least weight.
    Light = 0,
    /// A call that weighs up to [`MIDDLING_WEIGHT_BYTES_MAX`].
    Middling = 1,
    /// A call that weighs more.
    Heavy = 2,
    /// A call that streams.
    Stream = 3,
}

impl Class {
    /// In the order of their numbers.
    pub const ALL: [Class; 4] = [Class::Light, Class::Middling, Class::Heavy, Class::Stream];

    /// What the calls of the class may weigh together, in one direction.
    pub const fn limit_bytes(self) -> usize {
        match self {
            Class::Light => LIGHT_BYTES_MAX,
            Class::Middling => MIDDLING_BYTES_MAX,
            Class::Heavy => HEAVY_BYTES_MAX,
            Class::Stream => STREAMS_BYTES_MAX,
        }
    }
}

/// What a call costs, as both ends reckon it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// What it is counted with.
    pub class: Class,
    /// How much it weighs.
    pub bytes: usize,
}

impl Weight {
    /// Of a call with a request of so many bytes, metadata included, to a method whose replies take so many at most. An end
    /// below version 3 reckons without the answer's metadata, and may be told that there is too much a call early.
    pub fn of_call(request_bytes: usize, reply_bytes_max: usize) -> Weight {
        // A method that allows itself more than a reply can have would never find room.
        let reply_max = MESSAGE_SIZE_BYTES_MAX + PAYLOAD_SIZE_BYTES_MAX;
        let reply_bytes = reply_bytes_max.clamp(REASON_SIZE_BYTES_MAX, reply_max) + METADATA_SIZE_BYTES_MAX;
        let bytes = request_bytes + reply_bytes + PLACE_BYTES;
        if bytes <= CALL_WEIGHT_BYTES_MIN {
            Weight { class: Class::Light, bytes: CALL_WEIGHT_BYTES_MIN }
        } else if bytes <= MIDDLING_WEIGHT_BYTES_MAX {
            Weight { class: Class::Middling, bytes }
        } else {
            Weight { class: Class::Heavy, bytes }
        }
    }

    /// Of the same if it streams.
    pub fn of_stream(request_bytes: usize, reply_bytes_max: usize) -> Weight {
        let call = Weight::of_call(request_bytes, reply_bytes_max);
        Weight { class: Class::Stream, bytes: call.bytes + 2 * STREAM_WINDOW_BYTES }
    }
}

/// What is to be given back to a [`Budget`] once bytes have left.
#[must_use = "what is charged and not given back is lost to the peer"]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    held_bytes: [usize; 4],
    courtesies_bytes: usize,
}

impl Charge {
    /// Nothing: what we send of our own accord.
    pub const NONE: Charge = Charge { held_bytes: [0; 4], courtesies_bytes: 0 };

    fn of(weight: Weight) -> Charge {
        let mut charge = Charge::NONE;
        charge.held_bytes[weight.class as usize] = weight.bytes;
        charge
    }

    /// Adds another.
    pub fn add(&mut self, other: Charge) {
        for (held, more) in self.held_bytes.iter_mut().zip(other.held_bytes) {
            *held += more;
        }
        self.courtesies_bytes += other.courtesies_bytes;
    }

    /// Takes all of it.
    pub fn take(&mut self) -> Charge {
        std::mem::take(self)
    }
}

/// What the peers of many connections may hold together, beyond [`PEER_SHARE_BYTES`] each. Clones are the same pool.
#[derive(Clone, Debug)]
pub struct Pool(Rc<Places>);

#[derive(Debug)]
struct Places {
    max_bytes: usize,
    taken_bytes: Cell<usize>,
}

impl Pool {
    /// A pool of so many bytes.
    pub fn new(max_bytes: usize) -> Pool {
        Pool(Rc::new(Places { max_bytes, taken_bytes: Cell::new(0) }))
    }

    /// What is taken of it now, in bytes.
    pub fn taken_bytes(&self) -> usize {
        self.0.taken_bytes.get()
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = self.taken_bytes() + bytes;
        let fits = taken <= self.0.max_bytes;
        if fits {
            self.0.taken_bytes.set(taken);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.0.taken_bytes.set(self.taken_bytes() - bytes);
    }
}

impl Default for Pool {
    /// The reactor's own pool, of [`POOL_BYTES_MAX`]. In a simulated world, whose machines share a reactor and must not
    /// feel each other by it, each has its own.
    fn default() -> Pool {
        if crate::sim::here().is_some() {
            return Pool::new(POOL_BYTES_MAX);
        }
        thread_local! {
            static POOL: Pool = Pool::new(POOL_BYTES_MAX);
        }
        POOL.with(Pool::clone)
    }
}

/// Where a call of the peer is.
#[derive(Debug)]
enum State<H> {
    /// Parts of its payload are still to come, or its handler has not been noted yet.
    Arriving,
    /// This ends its handler.
    Running(H),
    /// Nobody waits for it, and its handler has not ended yet: is it counted with the dying?
    Dying { apart: bool },
}

#[derive(Debug)]
struct Call<H> {
    weight: Weight,
    state: State<H>,
}

/// The account of one peer. `H` is what ends a handler.
#[derive(Debug)]
pub struct Budget<H> {
    calls: BTreeMap<u32, Call<H>>,
    /// Calls that are wanted, and replies that wait for the line, by class.
    held_bytes: [usize; 4],
    dying_bytes: usize,
    courtesies_bytes: usize,
    pool: Pool,
    /// What of the pool is ours.
    drawn_bytes: usize,
    withdrawals: Withdrawals,
}

impl<H> Budget<H> {
    /// An account that draws from `pool`.
    pub fn new(pool: Pool) -> Budget<H> {
        Budget {
            calls: BTreeMap::new(),
            held_bytes: [0; 4],
            dying_bytes: 0,
            courtesies_bytes: 0,
            pool,
            drawn_bytes: 0,
            withdrawals: Withdrawals::new(),
        }
    }

    /// All that is charged now; at most [`PEER_BYTES_MAX`].
    pub fn charged_bytes(&self) -> usize {
        self.held_bytes.iter().sum::<usize>() + self.dying_bytes + self.courtesies_bytes
    }

    /// Charges a call; false if the peer has too much in flight, or all peers together.
    ///
    /// # Errors
    /// [`FrameError::DuplicateCall`] if the number is in use: the peer is broken, close the connection.
    pub fn admit(&mut self, call: u32, weight: Weight) -> Result<bool, FrameError> {
        let held = self.held_bytes[weight.class as usize];
        let charged = self.charged_bytes();
        match self.calls.entry(call) {
            Entry::Occupied(_) => Err(FrameError::DuplicateCall { call }),
            Entry::Vacant(_) if held + weight.bytes > weight.class.limit_bytes() => Ok(false),
            Entry::Vacant(entry) => {
                let beyond = (charged + weight.bytes).saturating_sub(PEER_SHARE_BYTES);
                let draw = beyond.saturating_sub(self.drawn_bytes);
                if !self.pool.take(draw) {
                    return Ok(false);
                }
                self.drawn_bytes += draw;
                entry.insert(Call { weight, state: State::Arriving });
                self.held_bytes[weight.class as usize] += weight.bytes;
                Ok(true)
            }
        }
    }

    /// Charges an answer with a body of so many bytes (most have none) that cost its cause nothing; `None` if too many of
    /// them wait already.
    pub fn courtesy(&mut self, body_bytes: usize) -> Option<Charge> {
        let bytes = HEADER_SIZE_BYTES + body_bytes;
        if self.courtesies_bytes + bytes > COURTESIES_BYTES_MAX {
            return None;
        }
        self.courtesies_bytes += bytes;
        Some(Charge { courtesies_bytes: bytes, ..Charge::NONE })
    }

    /// Notes what ends the call's handler. A handler that has ended already is given back.
    pub fn attach(&mut self, call: u32, handler: H) -> Option<H> {
        match self.calls.get_mut(&call) {
            Some(Call { state: state @ State::Arriving, .. }) => {
                *state = State::Running(handler);
                None
            }
            _ => Some(handler),
        }
    }

    /// Whether the call was admitted, and neither begun nor given up.
    pub fn is_arriving(&self, call: u32) -> bool {
        matches!(self.calls.get(&call), Some(Call { state: State::Arriving, .. }))
    }

    /// The caller no longer waits. What ends the handler is given out; the call is paid back when that is done.
    pub fn cancel(&mut self, call: u32) -> Option<H> {
        let entry = self.calls.get_mut(&call)?;
        let weight = entry.weight;
        match std::mem::replace(&mut entry.state, State::Arriving) {
            State::Arriving => {
                // Nothing runs: what had come of it is dropped with this.
                self.calls.remove(&call);
                self.give_back(Charge::of(weight));
                None
            }
            State::Running(handler) => {
                let apart = self.dying_bytes + weight.bytes <= DYING_BYTES_MAX;
                entry.state = State::Dying { apart };
                if apart {
                    self.dying_bytes += weight.bytes;
                    self.held_bytes[weight.class as usize] -= weight.bytes;
                }
                Some(handler)
            }
            dying @ State::Dying { .. } => {
                entry.state = dying;
                None
            }
        }
    }

    /// The peer calls off a call, at `now`. False if it does so beyond all measure with calls that are not answered; what
    /// it has called off before is no such call.
    pub fn may_withdraw(&mut self, call: u32, now: Instant) -> bool {
        match self.calls.get(&call) {
            Some(Call { state: State::Arriving | State::Running(_), .. }) => {
                self.withdrawals.on_withdrawal(now)
            }
            _ => true,
        }
    }

    /// The call's handler has ended, and its number may be used again. If its reply is wanted, the charge goes with it.
    pub fn end(&mut self, call: u32) -> Option<Charge> {
        let Call { weight, state } = self.calls.remove(&call)?;
        match state {
            State::Arriving | State::Running(_) => {
                self.withdrawals.on_answer();
                return Some(Charge::of(weight));
            }
            State::Dying { apart: false } => self.give_back(Charge::of(weight)),
            State::Dying { apart: true } => {
                self.dying_bytes -= weight.bytes;
                self.settle();
            }
        }
        None
    }

    /// What was charged has left, or will not be sent.
    pub fn give_back(&mut self, charge: Charge) {
        for (held, less) in self.held_bytes.iter_mut().zip(charge.held_bytes) {
            *held -= less;
        }
        self.courtesies_bytes -= charge.courtesies_bytes;
        self.settle();
    }

    /// Returns to the pool what is no longer needed.
    fn settle(&mut self) {
        let beyond = self.charged_bytes().saturating_sub(PEER_SHARE_BYTES);
        if let Some(spare) = self.drawn_bytes.checked_sub(beyond) {
            self.pool.give_back(spare);
            self.drawn_bytes = beyond;
        }
    }

    /// Nobody waits for any of the calls any more: gives out what ends their handlers.
    pub fn cancel_all(&mut self) -> Vec<H> {
        let calls: Vec<u32> = self.calls.keys().copied().collect();
        calls.into_iter().filter_map(|call| self.cancel(call)).collect()
    }

    /// How many calls are arriving or running.
    pub fn count(&self) -> usize {
        self.calls.len()
    }
}

impl<H> Drop for Budget<H> {
    fn drop(&mut self) {
        self.pool.give_back(self.drawn_bytes);
    }
}

const _: () = assert!(
    HEAVY_BYTES_MAX >= 2 * (MESSAGE_SIZE_BYTES_MAX + PAYLOAD_SIZE_BYTES_MAX),
    "the largest request to a method with the largest replies must be admitted"
);

#[cfg(test)]
mod tests;
