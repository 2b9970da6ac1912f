//! Several peers behind one client.
//!
//! What it is not: the choice, which is plain data (`balance.rs`), or repeats: a call goes to one peer, and whoever wants
//! another to be asked then puts a [`Retrying`](super::Retrying) client around this. Nor does it keep connections: its peers
//! are callers, mostly [`Reconnecting`](super::Reconnecting) ones.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Instant;

use super::balance::{EjectPolicy, End, Peers};
use super::stream::{Holder, StreamCall, StreamMethod};
use super::{CallError, CallOptions, Caller, Fate, Method, Payload, Reply};
use crate::cell::RefCell;
use crate::random;

/// The peers that tries of one call have gone to; clones are the same list. See [`CallOptions::tried`].
#[derive(Clone, Debug, Default)]
pub struct Tried {
    peers: Rc<RefCell<Vec<usize>>>,
    /// Whether another copy of the call, made after this one, was answered.
    passed: Rc<Cell<bool>>,
}

impl Tried {
    /// The same list, for one copy of the call.
    pub(super) fn of_copy(&self) -> Tried {
        Tried { peers: self.peers.clone(), passed: Rc::default() }
    }

    /// A copy made after this one was answered.
    pub(super) fn pass(&self) {
        self.passed.set(true);
    }
}

/// Spreads calls over several peers, which do the same. Clones are the same client.
///
/// Of two peers at random the one with fewer calls in flight is asked. One that fails three times in a row is left out for a
/// while, longer each time, and comes back with one call; while all are left out, all are asked. A call fails if its peer
/// does; see the module for who repeats it.
///
/// # Examples
/// ```
/// use std::rc::Rc;
/// use reactor::rpc::{Balanced, CallContext, Never, Service, pair};
///
/// reactor::service! {
///     trait Who = "who" version 1, client WhoClient {
///         fn who(&self) -> Result<u32, Never> = 1 as WhoMethod;
///     }
/// }
///
/// struct Number(u32);
/// impl Who for Number {
///     fn who(&self, _: &CallContext) -> Result<u32, Never> {
///         Ok(self.0)
///     }
/// }
///
/// reactor::run(|| {
///     let mut far_ends = Vec::new();
///     let peers: Vec<_> = (0..3)
///         .map(|number| {
///             let mut service = Service::new();
///             Rc::new(Number(number)).serve_on(&mut service);
///             let (near, far) = pair(Service::none(), Rc::new(service));
///             far_ends.push(far);
///             near
///         })
///         .collect();
///     let client = WhoClient::new(Balanced::new(peers));
///     let mut asked = [false; 3];
///     for _ in 0..100 {
///         asked[client.who().unwrap() as usize] = true;
///     }
///     assert_eq!(asked, [true; 3]);
/// });
/// ```
pub struct Balanced<C>(Rc<Inner<C>>);

struct Inner<C> {
    callers: Vec<C>,
    peers: Rc<RefCell<Peers>>,
}

/// What is known of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// Whether it would be asked at once: it has a connection.
    pub is_ready: bool,
    /// Whether it has failed, and is left out.
    pub is_ejected: bool,
    /// Calls, and streams, that it has in hand for us.
    pub in_flight: usize,
}

/// A call in flight at a peer. Dropped before it came to something, it was given up.
struct InFlight {
    peers: Rc<RefCell<Peers>>,
    at: usize,
    began: Instant,
    passed: Option<Rc<Cell<bool>>>,
    end: End,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let is_passed = self.passed.as_ref().is_some_and(|passed| passed.get());
        let end = match self.end {
            End::GivenUp if is_passed => End::Passed { began: self.began },
            end => end,
        };
        self.peers.borrow_mut().on_end(self.at, end, crate::now(), random::number());
    }
}

impl<C: Caller> Balanced<C> {
    /// Calls the peers of these callers.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(callers: impl IntoIterator<Item = C>) -> Balanced<C> {
        Balanced::with_policy(EjectPolicy::default(), callers)
    }

    /// As [`Balanced::new`], with another policy for those that fail.
    ///
    /// # Panics
    /// As there.
    pub fn with_policy(policy: EjectPolicy, callers: impl IntoIterator<Item = C>) -> Balanced<C> {
        let callers: Vec<C> = callers.into_iter().collect();
        assert!(!callers.is_empty(), "a client of no peers has nobody to call");
        let peers = Rc::new(RefCell::new(Peers::new(callers.len(), policy)));
        Balanced(Rc::new(Inner { callers, peers }))
    }

    /// What is known of each peer, in the order in which they were given.
    pub fn states(&self) -> Vec<PeerState> {
        let (peers, now) = (self.0.peers.borrow(), crate::now());
        let state = |(at, caller): (usize, &C)| PeerState {
            is_ready: caller.is_ready(),
            is_ejected: peers.is_ejected(at, now),
            in_flight: peers.in_flight(at),
        };
        self.0.callers.iter().enumerate().map(state).collect()
    }

    /// Chooses who is asked, and notes it where the call is told.
    fn choose(&self, options: &CallOptions) -> (&C, InFlight) {
        let callers = &self.0.callers;
        let tried = options.tried.as_ref().map(|tried| tried.peers.borrow().clone()).unwrap_or_default();
        let is_ready = |at: usize| callers[at].is_ready();
        let picked =
            self.0.peers.borrow_mut().pick(crate::now(), is_ready, &tried, random::number()).unwrap_or(0);
        if let Some(tried) = &options.tried {
            tried.peers.borrow_mut().push(picked);
        }
        let in_flight = InFlight {
            peers: self.0.peers.clone(),
            at: picked,
            began: crate::now(),
            passed: options.tried.as_ref().map(|tried| tried.passed.clone()),
            end: End::GivenUp,
        };
        (&callers[picked], in_flight)
    }
}

impl InFlight {
    fn note<T, E>(&mut self, result: &Result<T, CallError<E>>) {
        self.end = match result {
            Ok(_) => End::Answered,
            Err(CallError::TimedOut) => End::TimedOut { began: self.began },
            Err(error) if error.fate() == Fate::Answered => End::Answered,
            Err(_) => End::Failed,
        };
    }
}

impl Holder for InFlight {
    fn on_life(&self) {
        self.peers.borrow_mut().on_answer(self.at, crate::now());
    }

    fn on_end(&mut self, reply: Option<&Reply>, has_lived: bool) {
        self.end = match reply {
            None => End::GivenUp,
            // A stream that lasts as long as it was given.
            Some(Reply::TimedOut) if has_lived => End::GivenUp,
            Some(Reply::TimedOut) => End::TimedOut { began: self.began },
            Some(reply) if reply.fate() == Fate::Answered => End::Answered,
            Some(_) => End::Failed,
        };
    }
}

impl<C: Caller> Caller for Balanced<C> {
    fn call_with<M: Method>(
        &self,
        request: &M::Request,
        payload: Payload,
        options: &CallOptions,
    ) -> Result<(M::Response, Payload), CallError<M::Error>> {
        let (caller, mut in_flight) = self.choose(options);
        let result = caller.call_with::<M>(request, payload, options);
        in_flight.note(&result);
        result
    }

    fn open_with<M: StreamMethod>(
        &self,
        request: &M::Request,
        options: &CallOptions,
    ) -> Result<StreamCall<M>, CallError<M::Error>> {
        let (caller, mut in_flight) = self.choose(options);
        let mut result = caller.open_with::<M>(request, options);
        match &mut result {
            // That it was sent says nothing of the peer; the call tells what comes of it.
            Ok(call) => call.hold(Box::new(in_flight)),
            Err(_) => in_flight.note(&result),
        }
        result
    }

    fn is_ready(&self) -> bool {
        self.0.callers.iter().any(Caller::is_ready)
    }
}

impl<C> Clone for Balanced<C> {
    fn clone(&self) -> Balanced<C> {
        Balanced(self.0.clone())
    }
}

impl<C> fmt::Debug for Balanced<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balanced").field("peers", &self.0.peers.borrow()).finish()
    }
}
