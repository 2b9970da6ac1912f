//! What an adversary can make us hold who chooses every frame, when handlers end, and whether anything is read.

use super::*;
use crate::rpc::frame::{Header, Priority, Side, Status};
use crate::rpc::metadata::BLOCK_SIZE_BYTES_MAX;
use crate::rpc::outbox::{Outbox, Withdrawn};
use bytes::Bytes;
use proptest::prelude::*;

fn budget() -> Budget<u32> {
    Budget::new(Pool::new(POOL_BYTES_MAX))
}

const LIGHT: Weight = Weight { class: Class::Light, bytes: CALL_WEIGHT_BYTES_MIN };

#[test]
fn as_many_small_calls_are_admitted_as_documented() {
    let mut budget = budget();
    for call in 0..256 {
        assert_eq!(budget.admit(call, Weight::of_call(10, 72 << 10)), Ok(true));
    }
    assert_eq!(budget.admit(256, LIGHT), Ok(false));
    let charge = budget.end(7).expect("its reply is wanted");
    assert_eq!(budget.admit(256, LIGHT), Ok(false), "its reply has not left");
    budget.give_back(charge);
    assert_eq!(budget.admit(256, LIGHT), Ok(true));
}

#[test]
fn small_calls_large_ones_and_streams_have_room_of_their_own() {
    let mut budget = budget();
    let mut next = 0;
    let mut fill = |weight: Weight| {
        let mut count = 0;
        while budget.admit(next, weight) == Ok(true) {
            (next, count) = (next + 1, count + 1);
        }
        count
    };
    let largest = MESSAGE_SIZE_BYTES_MAX + PAYLOAD_SIZE_BYTES_MAX;
    assert_eq!(fill(Weight::of_call(largest, largest)), 3);
    assert_eq!(fill(Weight::of_call(0, 72 << 10)), 256);
    assert_eq!(
        fill(Weight::of_call(64 << 10, 256 << 10)),
        50,
        "what is agreed on is not behind what is moved"
    );
    assert_eq!(fill(Weight::of_stream(100, 72 << 10)), STREAMS_MAX);
}

#[test]
fn a_call_that_is_cancelled_is_paid_back_when_its_handler_has_ended_and_not_before() {
    let mut budget = budget();
    assert_eq!(budget.admit(1, LIGHT), Ok(true));
    assert_eq!(budget.attach(1, 11), None);
    assert_eq!(budget.cancel(1), Some(11));
    assert_eq!(budget.cancel(1), None, "once is enough");
    assert_eq!(budget.admit(1, LIGHT), Err(FrameError::DuplicateCall { call: 1 }), "the number is in use");
    assert_eq!(budget.charged_bytes(), CALL_WEIGHT_BYTES_MIN);
    assert_eq!(budget.end(1), None, "nobody wants the reply");
    assert_eq!((budget.charged_bytes(), budget.count()), (0, 0));
    assert_eq!(budget.admit(1, LIGHT), Ok(true));
}

#[test]
fn requests_that_are_cancelled_at_once_come_to_an_end_while_their_handlers_do_not() {
    let mut budget = budget();
    let mut begun = 0;
    while budget.admit(begun, LIGHT) == Ok(true) {
        assert_eq!(budget.attach(begun, begun), None);
        assert_eq!(budget.cancel(begun), Some(begun));
        begun += 1;
    }
    assert_eq!(begun as usize, (LIGHT_BYTES_MAX + DYING_BYTES_MAX) / CALL_WEIGHT_BYTES_MIN);
}

#[test]
fn a_caller_that_cancels_all_it_has_finds_room_at_once() {
    let mut budget = budget();
    for round in 0..2 {
        for call in (0..256).map(|call| call + 256 * round) {
            assert_eq!(budget.admit(call, LIGHT), Ok(true));
            assert_eq!(budget.attach(call, call), None);
        }
        if round == 0 {
            assert_eq!(budget.cancel_all().len(), 256);
        }
    }
}

#[test]
fn a_number_in_use_is_an_error_and_a_freed_one_is_not() {
    let mut budget = budget();
    assert_eq!(budget.admit(1, LIGHT), Ok(true));
    assert_eq!(budget.admit(1, LIGHT), Err(FrameError::DuplicateCall { call: 1 }));
    assert_eq!(budget.cancel(1), None, "parts of it were still to come");
    assert_eq!(budget.attach(1, 5), Some(5), "it is over");
    assert_eq!(budget.admit(1, LIGHT), Ok(true));
}

#[test]
fn peers_beyond_their_share_draw_from_one_pool_and_give_it_back() {
    let pool = Pool::new(10 * CALL_WEIGHT_BYTES_MIN);
    let share = PEER_SHARE_BYTES / CALL_WEIGHT_BYTES_MIN;
    let (mut first, mut second) = (Budget::<()>::new(pool.clone()), Budget::<()>::new(pool.clone()));
    let fill =
        |budget: &mut Budget<()>| (0..256).take_while(|&call| budget.admit(call, LIGHT) == Ok(true)).count();
    assert_eq!(fill(&mut first), share + 10, "its share, and the pool");
    assert_eq!(fill(&mut second), share, "its share is left to it");
    let charge = first.end(3).unwrap();
    first.give_back(charge);
    assert_eq!(second.admit(share as u32, LIGHT), Ok(true));
    drop(first);
    assert_eq!(pool.taken_bytes(), CALL_WEIGHT_BYTES_MIN);
    drop(second);
    assert_eq!(pool.taken_bytes(), 0);
}

#[test]
fn a_peer_moves_blocks_although_others_have_emptied_the_pool() {
    let mut budget = Budget::<()>::new(Pool::new(0));
    let block = Weight::of_call(200, (1 << 20) + (72 << 10));
    assert!((0..3).all(|call| budget.admit(call, block) == Ok(true)));
    assert_eq!(budget.admit(3, block), Ok(false));
}

#[test]
fn a_method_that_allows_itself_more_than_there_is_finds_room_all_the_same() {
    assert_eq!(budget().admit(1, Weight::of_call(0, 40 << 20)), Ok(true));
}

/// What the adversary does next.
#[derive(Clone, Debug)]
enum Step {
    /// Asks, with so many bytes, metadata among them, a method whose replies take so many at most and metadata beside.
    Request {
        call: u32,
        request_bytes: usize,
        reply_bytes_max: usize,
        streams: bool,
        priority: Priority,
    },
    /// Asks for what there is not, or with metadata that is none, and is told why in so many bytes.
    Refused {
        call: u32,
        reason_bytes: usize,
    },
    Cancel {
        call: u32,
    },
    Ping,
    /// The handler of the `nth` call that runs ends, with the longest reply. It may take its time to end.
    End {
        nth: usize,
    },
    /// The line takes a batch.
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop_oneof![0..200usize, 0..100_000usize, 0..PAYLOAD_SIZE_BYTES_MAX];
    let priority = prop::sample::select(&Priority::ALL[..]);
    // Few numbers, so that they are used again.
    let metadata = prop_oneof![Just(0), 0..=BLOCK_SIZE_BYTES_MAX];
    let request = (0..300u32, bytes(), metadata, bytes(), prop::bool::weighted(0.3), priority).prop_map(
        |(call, request_bytes, metadata_bytes, reply_bytes_max, streams, priority)| {
            let max = if streams { MESSAGE_SIZE_BYTES_MAX } else { PAYLOAD_SIZE_BYTES_MAX };
            let (request_bytes, reply_bytes_max) = (request_bytes.min(max), reply_bytes_max.min(max));
            Step::Request {
                call,
                request_bytes: request_bytes + metadata_bytes,
                reply_bytes_max,
                streams,
                priority,
            }
        },
    );
    prop_oneof![
        6 => request,
        3 => (0..300u32).prop_map(|call| Step::Cancel { call }),
        1 => (0..300u32, 0..200usize).prop_map(|(call, reason_bytes)| Step::Refused { call, reason_bytes }),
        1 => Just(Step::Ping),
        3 => (0..2_000usize).prop_map(|nth| Step::End { nth }),
        2 => Just(Step::Read),
    ]
}

#[derive(Clone, Copy)]
struct Handler {
    request_bytes: usize,
    reply_bytes_max: usize,
    streams: bool,
    priority: Priority,
}

impl Handler {
    fn weight(self) -> Weight {
        match self.streams {
            true => Weight::of_stream(self.request_bytes, self.reply_bytes_max),
            false => Weight::of_call(self.request_bytes, self.reply_bytes_max),
        }
    }
}

/// The connection as the adversary meets it: budget and outbox are the real ones.
struct Connection {
    budget: Budget<u32>,
    outbox: Outbox,
    handlers: BTreeMap<u32, Handler>,
    cut_off: bool,
}

impl Connection {
    fn new(pool: Pool) -> Connection {
        let (budget, outbox) = (Budget::new(pool), Outbox::new());
        Connection { budget, outbox, handlers: BTreeMap::new(), cut_off: false }
    }

    fn begin(&mut self, call: u32, handler: Handler) -> Result<bool, FrameError> {
        let admitted = self.budget.admit(call, handler.weight())?;
        if admitted {
            assert_eq!(self.budget.attach(call, call), None);
            assert!(self.handlers.insert(call, handler).is_none(), "a number was given twice");
        }
        Ok(admitted)
    }

    fn say(&mut self, header: Header) {
        match (self.budget.courtesy(header.message_size()), header) {
            (Some(charge), Header::Pong | Header::Stop { .. } | Header::ResponsePart { .. }) => {
                self.outbox.push_courtesy(header, charge);
            }
            (Some(charge), _) => {
                let reason = vec![0; header.message_size()];
                self.outbox.push_call(header, reason, Bytes::new(), Priority::Normal, charge);
            }
            (None, _) => self.cut_off = true,
        }
    }

    fn end(&mut self, call: u32) {
        let Handler { reply_bytes_max: size, streams, priority, .. } =
            self.handlers.remove(&call).expect("it runs");
        if streams {
            // It has taken nothing of what might still come.
            self.say(Header::Stop { side: Side::Request, call });
        }
        let Some(charge) = self.budget.end(call) else { return };
        let status = Status::Response;
        // The longest reply there may be, and all the metadata.
        let (block, metadata_size) = (vec![0; METADATA_SIZE_BYTES_MAX], METADATA_SIZE_BYTES_MAX as u16);
        let (message_size, payload_size) = if streams { (size as u32, 0) } else { (0, size as u32) };
        let header = Header::Response { call, status, metadata_size, message_size, payload_size };
        if streams {
            let message = [block, vec![0; size]].concat();
            self.outbox.push_item(Side::Response, call, header, &message, priority, charge);
        } else {
            self.outbox.push_call(header, block, Bytes::from(vec![0; size]), priority, charge);
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Request { call, request_bytes, reply_bytes_max, streams, priority } => {
                // A number that is in use closes the connection; the adversary gets another try.
                if self.begin(call, Handler { request_bytes, reply_bytes_max, streams, priority })
                    == Ok(false)
                {
                    let status = Status::Overloaded;
                    self.say(Header::Response {
                        call,
                        status,
                        metadata_size: 0,
                        message_size: 0,
                        payload_size: 0,
                    });
                }
            }
            Step::Refused { call, reason_bytes } => {
                let (status, message_size) = (Status::Malformed, reason_bytes as u32);
                self.say(Header::Response { call, status, metadata_size: 0, message_size, payload_size: 0 });
            }
            Step::Cancel { call } => {
                let _ = self.budget.cancel(call);
                let (withdrawn, charge) = self.outbox.withdraw(Side::Response, call);
                self.budget.give_back(charge);
                if withdrawn == Withdrawn::Partly {
                    self.say(Header::ResponsePart { call, size: 0 });
                }
            }
            Step::Ping => self.say(Header::Pong),
            Step::End { nth } => {
                let call = self.handlers.keys().nth(nth % self.handlers.len().max(1)).copied();
                call.into_iter().for_each(|call| self.end(call));
            }
            Step::Read => {
                let mut batch = self.outbox.next_batch();
                self.budget.give_back(batch.charge.take());
                let in_hand: usize = batch.slices().map(<[u8]>::len).sum();
                assert!(in_hand <= IN_HAND_BYTES_MAX, "{in_hand} bytes in one batch");
                self.outbox.recycle(batch);
            }
        }
    }

    /// What is really held.
    fn held_bytes(&self) -> usize {
        let windows = |streams| if streams { 2 * STREAM_WINDOW_BYTES } else { 0 };
        let handlers = self.handlers.values().map(|handler| handler.request_bytes + windows(handler.streams));
        handlers.sum::<usize>() + self.outbox.checked_bytes()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_a_peer_sends_it_never_costs_more_than_is_stated(
        steps in prop::collection::vec(step(), 1..1_500), reads: bool,
    ) {
        let pool = Pool::new(64 << 20);
        let mut connection = Connection::new(pool.clone());
        for step in steps {
            if reads || !matches!(step, Step::Read) {
                connection.take(&step);
            }
            if connection.cut_off {
                return Ok(());
            }
            let charged = connection.budget.charged_bytes();
            // The preface is ours.
            prop_assert!(connection.held_bytes() <= charged + 2 * HEADER_SIZE_BYTES, "something is held and not charged");
            prop_assert!(charged + IN_HAND_BYTES_MAX <= PEER_BYTES_MAX);
            prop_assert!(charged <= PEER_SHARE_BYTES + pool.taken_bytes() + COURTESIES_BYTES_MAX);
        }
        // When all has ended and left, nothing is charged any more.
        while !connection.handlers.is_empty() {
            connection.take(&Step::End { nth: 0 });
        }
        while !connection.outbox.is_empty() {
            connection.take(&Step::Read);
        }
        prop_assert_eq!((connection.budget.charged_bytes(), pool.taken_bytes()), (0, 0));
        prop_assert_eq!(connection.budget.count(), 0);
    }

    #[test]
    fn a_caller_that_keeps_the_account_is_never_refused(steps in prop::collection::vec(step(), 1..1_500)) {
        let mut connection = Connection::new(Pool::new(POOL_BYTES_MAX));
        // As the caller has it: what is in flight, until it has read the reply or given up.
        let mut account: BTreeMap<u32, Weight> = BTreeMap::new();
        for (call, step) in (0..).zip(steps) {
            match step {
                Step::Request { request_bytes, reply_bytes_max, streams, priority, .. } => {
                    let handler = Handler { request_bytes, reply_bytes_max, streams, priority };
                    let weight = handler.weight();
                    let others = account.values().filter(|other| other.class == weight.class);
                    let in_flight: usize = others.map(|other| other.bytes).sum();
                    if in_flight + weight.bytes <= weight.class.limit_bytes() {
                        prop_assert_eq!(connection.begin(call, handler), Ok(true));
                        account.insert(call, weight);
                    }
                }
                Step::Cancel { call } => {
                    let call = account.keys().nth(call as usize % account.len().max(1)).copied();
                    // A reply among the small frames cannot be called back, and weighs until it has left.
                    let can_be_called_back = |call: &u32| {
                        connection.handlers.contains_key(call) || connection.outbox.holds_response(*call)
                    };
                    if let Some(call) = call.filter(can_be_called_back) {
                        account.remove(&call);
                        connection.take(&Step::Cancel { call });
                        // Its handler ends soon.
                        if connection.handlers.contains_key(&call) {
                            connection.end(call);
                        }
                    }
                }
                Step::Read => {
                    connection.take(&step);
                    // What has left is read at once.
                    account.retain(|call, _| {
                        connection.handlers.contains_key(call) || connection.outbox.holds_response(*call)
                    });
                }
                other => connection.take(&other),
            }
        }
    }
}
