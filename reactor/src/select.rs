//! Waiting for the first of several things, in one coroutine.
//!
//! [`select`] tells which of its sources is ready, and takes nothing from it: the caller does, with the call that
//! it would use anyway, which then does not suspend, since nothing else ran in between.
//!
//! Two kinds of sources. Most can be asked whether they are ready (a channel, a socket, a timer): what they tell a
//! waiter is only that it should look again. A [`Signal`](crate::sync::Signal) can't: the notification is all
//! there is. A notification that `select` was given but did not return goes to the next in that source's row.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::clock::{deadline_after, now};
use crate::coroutine::{self, begin, pass};
use crate::sync::{Place, Told, WaitList};
use crate::timer::{Elapsed, Timer};

/// Something that [`select`] waits for. The reactor's own types only.
pub trait Selectable: source::Source {}

pub(crate) mod source {
    use crate::sync::WaitList;
    use crate::timer::Timer;

    /// How a source is waited for.
    pub trait Source {
        /// Whether it may be taken now.
        fn is_ready(&self) -> bool;

        /// Shows `row` the rows of those who wait for it: they are told when it may have become ready.
        fn rows<'a>(&'a self, row: &mut dyn FnMut(&'a WaitList));

        /// Called before each wait: from now on whoever makes it ready must say so.
        fn prepare(&self) {}

        /// Armed while the running coroutine waits, where the source is a time.
        fn timer(&self) -> Option<Timer> {
            None
        }

        /// Being told is all there is: [`Source::is_ready`] can't tell.
        fn is_told_once(&self) -> bool {
            false
        }
    }
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
    select_until(Some(deadline_after(duration)), sources)
}

fn select_until(deadline: Option<Instant>, sources: &[&dyn Selectable]) -> Result<usize, Elapsed> {
    assert!(!sources.is_empty(), "a select without sources would wait for ever");
    // Before it looks, and not after: between here and the caller's taking nobody else runs.
    pass();
    // Others may have run.
    begin().over();
    let first = coroutine::current().group().choose(sources.len());
    let ready = || {
        let from_first = (first..sources.len()).chain(0..first);
        from_first.into_iter().find(|&index| sources[index].is_ready())
    };
    if let Some(index) = ready() {
        return Ok(index);
    }
    let mut waiting = Waiting::join(sources, first);
    let _timer = deadline.map(Timer::wake_at);
    loop {
        sources.iter().for_each(|source| source.prepare());
        if let Some(index) = ready() {
            return Ok(index);
        }
        if deadline.is_some_and(|deadline| deadline <= now()) {
            return Err(Elapsed);
        }
        coroutine::park_on(&"the first of several");
        if let Some(index) = waiting.take_told_once() {
            return Ok(index);
        }
        waiting.look_again();
    }
}

/// The running coroutine's places in all rows. Left when this is dropped, also when it is terminated: what it was told
/// there, and has made no use of, goes to the next.
struct Waiting<'a> {
    sources: &'a [&'a dyn Selectable],
    /// Each with its source's index, in the order in which sources are looked at.
    places: SmallVec<[(usize, Place<'a>); 4]>,
    _timers: SmallVec<[Timer; 1]>,
}

impl<'a> Waiting<'a> {
    fn join(sources: &'a [&'a dyn Selectable], first: usize) -> Waiting<'a> {
        let mut places = SmallVec::new();
        for index in (first..sources.len()).chain(0..first) {
            sources[index].rows(&mut |row: &'a WaitList| places.push((index, row.join(1))));
        }
        let timers = sources.iter().filter_map(|source| source.timer()).collect();
        Waiting { sources, places, _timers: timers }
    }

    /// The source that is known to be ready by its word alone, which is used up with that; the first that gave it.
    fn take_told_once(&mut self) -> Option<usize> {
        let is_it = |(index, place): &(usize, Place<'_>)| {
            self.sources[*index].is_told_once() && place.told() != Told::No
        };
        let told = self.places.iter().enumerate().filter(|(_, place)| is_it(place));
        let (found, _) = told.min_by_key(|(_, (_, place))| place.told_at())?;
        let (index, _place) = self.places.remove(found);
        Some(index)
    }

    /// Told or not, it has found nothing: it waits again, where it was told at the front.
    fn look_again(&self) {
        for (index, place) in &self.places {
            if place.told() != Told::No && !self.sources[*index].is_ready() {
                place.look_again();
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        for (index, place) in self.places.drain(..) {
            let row = place.list();
            let source = self.sources[index];
            // Whether the caller takes from the source that it is given we can't know. Who is told in vain looks, and
            // waits again.
            if place.leave() == Told::Alone && (source.is_told_once() || source.is_ready()) {
                row.notify_one();
            }
        }
    }
}

/// A time to wait for among other things: see [`select`].
pub struct Alarm {
    due: Instant,
}

/// Ready from `duration` from now on, counted from this call and not from that of [`select`]: one alarm may bound
/// a whole loop. Never suspends.
pub fn after(duration: Duration) -> Alarm {
    at(deadline_after(duration))
}

/// Ready from `due` on. Never suspends.
pub fn at(due: Instant) -> Alarm {
    Alarm { due }
}

impl source::Source for Alarm {
    fn is_ready(&self) -> bool {
        self.due <= now()
    }

    fn rows<'a>(&'a self, _: &mut dyn FnMut(&'a WaitList)) {}

    fn timer(&self) -> Option<Timer> {
        Some(Timer::wake_at(self.due))
    }
}

impl Selectable for Alarm {}
