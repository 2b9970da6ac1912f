//! A client that asks again, or a second peer beside the first, as a policy says.
//!
//! It is a loop around another caller: a try, a pause, a try. A hedged try is a scope with a coroutine a copy, in which the
//! first answer ends the others; a copy that is ended so gives its call up, and the peer is told and ends its handler.
//!
//! What it is not: the rules, which are plain data (`retry.rs`). It knows no peers either: put it around a
//! [`Balanced`](super::Balanced) client, and each try and each copy goes to a peer that the call has not been at, as long as
//! there is one that is neither left out nor without a connection.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::call::deadline_of;
use super::retry::{Copies, Step};
use super::stream::{StreamCall, StreamMethod};
use super::{
    CallError, CallOptions, Caller, HedgePolicy, Method, Payload, ReplyMetadata, RetryBudget, RetryPolicy,
    Tried,
};
use crate::cell::RefCell;
use crate::sync::Signal;
use crate::{Backoff, Builder, random};

/// Calls through another caller, as often as its policy says. Clones share the policy's budget.
///
/// # Examples
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use std::time::Duration;
/// use reactor::rpc::{CallContext, CallInfo, Never, Reply, RetryPolicy, Retrying, Service, pair};
///
/// reactor::service! {
///     trait Counter = "counter" version 1, client CounterClient {
///         fn next(&self) -> Result<u64, Never> = 1 as Next;
///     }
/// }
///
/// struct Count(Cell<u64>);
/// impl Counter for Count {
///     fn next(&self, _: &CallContext) -> Result<u64, Never> {
///         self.0.set(self.0.get() + 1);
///         Ok(self.0.get())
///     }
/// }
///
/// reactor::run(|| {
///     let mut service = Service::new();
///     Rc::new(Count(Cell::new(0))).serve_on(&mut service);
///     // Has too much in hand, twice.
///     let busy = Cell::new(2);
///     service.around(move |_: &CallInfo<'_>, next: &mut dyn FnMut() -> Reply| match busy.get() {
///         0 => next(),
///         left => {
///             busy.set(left - 1);
///             Reply::Overloaded
///         }
///     });
///     let (near, _far) = pair(Service::none(), Rc::new(service));
///     let policy = RetryPolicy { pause_first: Duration::from_millis(1), ..RetryPolicy::default() };
///     let counter = CounterClient::new(Retrying::new(near, policy));
///     assert_eq!(counter.next(), Ok(1), "the third try, and the first that was done");
/// });
/// ```
#[derive(Clone)]
pub struct Retrying<C> {
    caller: C,
    policy: RetryPolicy,
    budget: Rc<RefCell<RetryBudget>>,
    extra_count: Rc<Cell<u64>>,
}

/// What a call came to.
type Called<M> = Result<(<M as Method>::Response, Payload), CallError<<M as Method>::Error>>;

impl<C: Caller> Retrying<C> {
    /// Calls through `caller`, with a budget of its own.
    pub fn new(caller: C, policy: RetryPolicy) -> Retrying<C> {
        let budget = Rc::new(RefCell::new(RetryBudget::new(&policy)));
        Retrying { caller, policy, budget, extra_count: Rc::default() }
    }

    /// What it calls through.
    pub fn caller(&self) -> &C {
        &self.caller
    }

    /// How many tries beyond the first, and copies, there were.
    pub fn extra_count(&self) -> u64 {
        self.extra_count.get()
    }

    /// Takes one more try from the budget.
    fn afford(&self) -> bool {
        let afforded = self.budget.borrow_mut().take();
        if afforded {
            self.extra_count.set(self.extra_count.get() + 1);
        }
        afforded
    }

    /// Tries until it is of no use, or not allowed, to go on.
    fn tried<T, E>(
        &self,
        deadline: Instant,
        idempotent: bool,
        mut attempt: impl FnMut() -> Result<T, CallError<E>>,
    ) -> Result<T, CallError<E>> {
        self.budget.borrow_mut().on_call();
        let mut backoff = Backoff::new(self.policy.pause_first, self.policy.pause_max);
        for _ in 1..self.policy.tries_max {
            let result = attempt();
            let Err(error) = &result else { return result };
            if !self.policy.repeats(error.fate(), idempotent) {
                return result;
            }
            let pause = backoff.next_delay(random::number());
            // A try for which no time is left would only hide what the last one came to.
            if crate::now() + pause >= deadline || !self.afford() {
                return result;
            }
            tracing::debug!(fate = ?error.fate(), ?pause, "a call is tried again");
            crate::sleep(pause);
        }
        attempt()
    }

    /// One try, with the copies that the policy allows it. An error is the last copy's.
    fn hedged<M: Method>(
        &self,
        hedge: HedgePolicy,
        request: &M::Request,
        payload: &Payload,
        options: &CallOptions,
    ) -> Called<M> {
        let copies = RefCell::new(Copies::new(hedge, crate::now()));
        let (answer, failure) = (RefCell::new(None), RefCell::new(None));
        let changed = Signal::new();
        let until = deadline_of(options);
        let sent = RefCell::new(Vec::<Tried>::new());
        let copy = || {
            let tried = options.tried.as_ref().map(Tried::of_copy).unwrap_or_default();
            let before = sent.borrow().len();
            sent.borrow_mut().push(tried.clone());
            let heard = options.reply_metadata.as_ref().map(|_| ReplyMetadata::new());
            let options = CallOptions {
                reply_metadata: heard.clone(),
                timeout: Some(left(until)),
                tried: Some(tried),
                ..options.clone()
            };
            let result = self.caller.call_with::<M>(request, payload.clone(), &options);
            let is_answer =
                result.as_ref().err().is_none_or(|error| !self.policy.repeats(error.fate(), true));
            match is_answer {
                true => {
                    // Whoever was asked before and has said nothing was given up on, and not just not waited for.
                    if answer.borrow().is_none() {
                        sent.borrow().iter().take(before).for_each(Tried::pass);
                    }
                    answer.borrow_mut().get_or_insert((result, heard));
                }
                false => {
                    copies.borrow_mut().on_failed();
                    *failure.borrow_mut() = Some((result, heard));
                }
            }
            changed.notify_all();
        };
        crate::scope(|s| {
            while answer.borrow().is_none() {
                let step = copies.borrow().next(crate::now());
                match step {
                    Step::Send if !copies.borrow().is_first() && !self.afford() => copies.borrow_mut().stop(),
                    Step::Send => {
                        let is_first = copies.borrow().is_first();
                        copies.borrow_mut().on_sent(crate::now());
                        match Builder::new().spawn_scoped(s, copy) {
                            Ok(_) => {}
                            // Where stacks have run out the call is made all the same, without copies.
                            Err(_) if is_first => copy(),
                            Err(_) => {
                                let mut copies = copies.borrow_mut();
                                copies.on_failed();
                                copies.stop();
                            }
                        }
                    }
                    Step::Wait(Some(until)) => {
                        let _ = crate::timeout(left(until), || changed.wait());
                    }
                    Step::Wait(None) => changed.wait(),
                    Step::Fail => break,
                }
            }
            // The first answer wins: the others give their calls up, which their peers are told.
            s.terminate_children();
        });
        let (result, heard) =
            answer.into_inner().or(failure.into_inner()).expect("a try ends with an answer or a failure");
        if let (Some(place), Some(heard)) = (&options.reply_metadata, heard) {
            place.put(heard.get());
        }
        result
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(crate::now())
}

impl<C: Caller> Caller for Retrying<C> {
    fn call_with<M: Method>(
        &self,
        request: &M::Request,
        payload: Payload,
        options: &CallOptions,
    ) -> Result<(M::Response, Payload), CallError<M::Error>> {
        let deadline = deadline_of(options);
        let mut options = options.clone();
        options.tried.get_or_insert_with(Tried::default);
        self.tried(deadline, M::IDEMPOTENT, || {
            let time = left(deadline);
            let time = self.policy.try_time.map_or(time, |try_time| time.min(try_time));
            let options = CallOptions { timeout: Some(time), ..options.clone() };
            match self.policy.hedge {
                Some(hedge) if M::IDEMPOTENT && hedge.copies_max > 1 => {
                    self.hedged::<M>(hedge, request, &payload, &options)
                }
                _ => self.caller.call_with::<M>(request, payload.clone(), &options),
            }
        })
    }

    fn open_with<M: StreamMethod>(
        &self,
        request: &M::Request,
        options: &CallOptions,
    ) -> Result<StreamCall<M>, CallError<M::Error>> {
        let mut options = options.clone();
        options.tried.get_or_insert_with(Tried::default);
        let deadline = deadline_of(&options);
        // What fails before it was sent says so, whatever the method. It may have been sent, and be given up again, if an
        // interceptor fails behind it; what fails later is told by the call's end.
        self.tried(deadline, M::IDEMPOTENT, || {
            // A stream that is told no time lasts as long as both ends want it.
            let options = CallOptions { timeout: options.timeout.map(|_| left(deadline)), ..options.clone() };
            self.caller.open_with::<M>(request, &options)
        })
    }

    fn is_ready(&self) -> bool {
        self.caller.is_ready()
    }
}

impl<C: fmt::Debug> fmt::Debug for Retrying<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retrying").field("caller", &self.caller).field("policy", &self.policy).finish()
    }
}
