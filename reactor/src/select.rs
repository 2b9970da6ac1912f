//! Waiting for the first of several things, in one coroutine.
//!
//! [`select`] tells which of its sources is ready, and takes nothing from it: the caller does, with the call that
//! it would use anyway, which then does not suspend, since nothing else ran in between.
//!
//! Two kinds of sources. Most can be asked whether they are ready (a channel, a socket, a timer): what they tell a
//! waiter is only that it should look again. A [`Signal`](crate::sync::Signal) can't: the notification is all
//! there is. A notification that `select` was given but did not return goes to the next in that source's row.

use std::cell::RefCell;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::clock::now;
use crate::coroutine::{self, Coroutine};
use crate::timer::{Elapsed, Timer};

/// Something that [`select`] waits for. The reactor's own types only.
pub trait Selectable: source::Source {}

pub(crate) mod source {
    use super::Waiter;

    /// How a source is waited for.
    pub trait Source {
        /// Whether it may be taken now.
        fn is_ready(&self) -> bool;

        /// Wakes the waiter, by its number or without, when it may have become ready.
        fn enroll(&self, waiter: &Waiter);

        /// Forgets the waiter.
        fn withdraw(&self, waiter: &Waiter);

        /// A notification came here, and may not be made use of: the next in the row gets it.
        fn pass_on(&self) {}

        /// A notification is all there is: [`Source::is_ready`] can't tell.
        fn is_told_once(&self) -> bool {
            false
        }
    }
}

/// A coroutine that waits at one of several sources.
pub struct Waiter {
    pub(crate) coroutine: Rc<Coroutine>,
    pub(crate) number: NonZeroU32,
}

/// Waits until one of `sources` is ready, and returns its index.
///
/// Ready means: the call that takes from it would not suspend.
///
/// | source | ready when |
/// |---|---|
/// | [`sync::Receiver`](crate::sync::Receiver), [`remote::Receiver`](crate::remote::Receiver) | a value waits, or the channel is closed |
/// | [`sync::Sender`](crate::sync::Sender) | there is room, or the channel is closed |
/// | [`sync::Signal`](crate::sync::Signal) | it is notified while `select` waits |
/// | [`sync::Barrier`](crate::sync::Barrier) | it is open, or was since |
/// | [`sync::Watcher`](crate::sync::Watcher) | the value is unread, or the watch closed |
/// | [`JoinHandle`](crate::JoinHandle), [`ScopedJoinHandle`](crate::ScopedJoinHandle) | the coroutine has ended |
/// | [`net::Descriptor`](crate::net::Descriptor), [`net::TcpStream`](crate::net::TcpStream) and its like | it is readable |
/// | [`signals::Signals`](crate::signals::Signals) | a signal came |
/// | [`Alarm`]: [`after`], [`at`] | its time has come |
///
/// Where several are ready one is picked with equal chance, so that none is starved. A source that is not picked
/// loses nothing: what is in it stays, a [`Signal`](crate::sync::Signal)'s notification goes to the next who waits
/// for it, and others who wait for the same are served as if `select` had not been there. Nor does the picked one,
/// if the caller does not take from it.
///
/// # Panics
///
/// Without sources. Outside [`crate::run`]. In a destructor that runs while its coroutine unwinds, where it would
/// have to wait.
///
/// # Suspends
///
/// Until one is ready.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reactor::{after, select, sync::channel};
///
/// reactor::run(|| {
///     let (jobs, inbox) = channel(8);
///     let worker = reactor::spawn(move || {
///         let mut done = 0;
///         let idle = Duration::from_millis(5);
///         loop {
///             match select(&[&inbox, &after(idle)]) {
///                 0 => match inbox.recv() {
///                     Ok(job) => done += job,
///                     Err(_) => return ("closed", done),
///                 },
///                 _ => return ("idle", done),
///             }
///         }
///     });
///     jobs.send(1).unwrap();
///     jobs.send(2).unwrap();
///     assert_eq!(worker.join().unwrap(), ("idle", 3));
/// });
/// ```
pub fn select(sources: &[&dyn Selectable]) -> usize {
    match select_until(None, sources) {
        Ok(index) => index,
        Err(Elapsed) => unreachable!("there is no deadline"),
    }
}

/// As [`select`], for `duration` at most. A source that is ready just as the time ends counts.
///
/// # Errors
///
/// [`Elapsed`] when the time was over first.
///
/// # Panics
///
/// As [`select`].
///
/// # Suspends
///
/// Until one is ready, or the time is over.
pub fn select_timeout(duration: Duration, sources: &[&dyn Selectable]) -> Result<usize, Elapsed> {
    select_until(Some(now() + duration), sources)
}

fn select_until(deadline: Option<Instant>, sources: &[&dyn Selectable]) -> Result<usize, Elapsed> {
    assert!(!sources.is_empty(), "a select without sources would wait for ever");
    let me = coroutine::current();
    let first = me.group().choose(sources.len());
    let ready = || {
        let from_first = (first..sources.len()).chain(0..first);
        from_first.into_iter().find(|&index| sources[index].is_ready())
    };
    if let Some(index) = ready() {
        return Ok(index);
    }
    me.wait.notified.set(None);
    let _timer = deadline.map(Timer::wake_at);
    let mut enrolled = Enrolled { sources, me, taken: false };
    for (index, source) in sources.iter().enumerate() {
        source.enroll(&enrolled.waiter(index));
    }
    loop {
        coroutine::park_on(&"the first of several");
        if let Some(index) = enrolled.notified() {
            let source = sources[index];
            if source.is_told_once() {
                enrolled.taken = true;
                return Ok(index);
            }
            if source.is_ready() {
                // Passed on all the same (as `enrolled` is dropped): whether the caller takes we can't know, and
                // whoever is woken in vain looks and waits again.
                return Ok(index);
            }
            // Somebody was quicker. Back into the row; the other sources still know us.
            enrolled.me.wait.notified.set(None);
            source.enroll(&enrolled.waiter(index));
        }
        if let Some(index) = ready() {
            return Ok(index);
        }
        if deadline.is_some_and(|deadline| deadline <= now()) {
            return Err(Elapsed);
        }
    }
}

/// The running coroutine's places in all rows, left when this is dropped: also when it is terminated.
struct Enrolled<'a> {
    sources: &'a [&'a dyn Selectable],
    me: Rc<Coroutine>,
    /// The notification has been made use of.
    taken: bool,
}

impl Enrolled<'_> {
    fn waiter(&self, index: usize) -> Waiter {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        Waiter { coroutine: self.me.clone(), number: number.expect("fewer sources than numbers") }
    }

    /// The source that told us to go on, if one did.
    fn notified(&self) -> Option<usize> {
        self.me.wait.notified.get().map(|number| number.get() as usize - 1)
    }
}

impl Drop for Enrolled<'_> {
    fn drop(&mut self) {
        for (index, source) in self.sources.iter().enumerate() {
            source.withdraw(&self.waiter(index));
        }
        if !self.taken
            && let Some(index) = self.notified()
        {
            self.sources[index].pass_on();
        }
    }
}

/// A time to wait for among other things: see [`select`].
pub struct Alarm {
    due: Instant,
    timers: RefCell<Vec<Armed>>,
}

struct Armed {
    coroutine: Rc<Coroutine>,
    number: NonZeroU32,
    _timer: Timer,
}

/// Ready from `duration` from now on, counted from this call and not from that of [`select`]: one alarm may bound
/// a whole loop. Never suspends.
pub fn after(duration: Duration) -> Alarm {
    at(now() + duration)
}

/// Ready from `due` on. Never suspends.
pub fn at(due: Instant) -> Alarm {
    Alarm { due, timers: RefCell::new(Vec::new()) }
}

impl source::Source for Alarm {
    fn is_ready(&self) -> bool {
        self.due <= now()
    }

    fn enroll(&self, waiter: &Waiter) {
        let Waiter { coroutine, number } = waiter;
        let timer = Timer::wake_at(self.due);
        self.timers.borrow_mut().push(Armed { coroutine: coroutine.clone(), number: *number, _timer: timer });
    }

    fn withdraw(&self, waiter: &Waiter) {
        self.timers.borrow_mut().retain(|armed| {
            armed.number != waiter.number || !Rc::ptr_eq(&armed.coroutine, &waiter.coroutine)
        });
    }
}

impl Selectable for Alarm {}
