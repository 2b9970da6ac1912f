//! Coroutines in a row, each waiting to be told to go on: what everything else here is made of, sockets included.
//!
//! Nobody but the waiter itself takes its place out of a row. Being told only marks the place, and lets the ones behind
//! it be told next. So a coroutine may wait in several rows at once, by [`crate::select`], and knows of each whether it
//! has been told there; one who was told and found nothing, since somebody was quicker, takes up its place again; and
//! one who leaves without making use of what it was told passes that on.
//!
//! Places have keys and know their neighbours, so that coming, telling and leaving take constant time each,
//! however many wait.

use std::cell::Cell;
use std::rc::Rc;

use super::places::Places;
use crate::cell::RefCell;
use crate::coroutine::{self, Coroutine, What};

thread_local! { static TELL_COUNT: Cell<u64> = const { Cell::new(0) }; }

/// No neighbour.
const NONE: usize = usize::MAX;

/// A row of waiting coroutines.
pub struct WaitList {
    row: RefCell<Row>,
}

struct Row {
    places: Places<Entry>,
    /// The ends of the chain of those who have yet to be told.
    first: usize,
    last: usize,
}

struct Entry {
    waiter: Rc<Coroutine>,
    /// How much it waits for, where that counts.
    need: usize,
    told: Told,
    /// When, among all that was told on this thread.
    told_at: u64,
    /// Its neighbours, while it has yet to be told.
    before: usize,
    after: usize,
}

/// What a waiter has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing yet.
    No,
    /// To go on, and nobody else: if it makes no use of that, another may.
    Alone,
    /// To go on, as everybody was.
    WithAll,
}

impl Default for WaitList {
    fn default() -> Self {
        WaitList::new()
    }
}

impl WaitList {
    pub(crate) const fn new() -> WaitList {
        WaitList { row: RefCell::new(Row { places: Places::new(), first: NONE, last: NONE }) }
    }

    /// Whether nobody waits to be told.
    pub(crate) fn is_empty(&self) -> bool {
        self.row.borrow().first == NONE
    }

    /// Waits at the end of the row until told; never wakes early.
    pub(crate) fn wait_on(&self, what: What) {
        self.wait_for(1, what, |_| ());
    }

    /// As [`WaitList::wait_on`]. If the coroutine is terminated meanwhile, `on_leave` is called with whether it had been
    /// told: what it was told must not be lost.
    pub(crate) fn wait_for(&self, need: usize, what: What, on_leave: impl FnOnce(bool)) {
        self.wait_at(self.join(need), what, |told| on_leave(told != Told::No));
    }

    /// Waits to be told to look again, and tells the next if it leaves instead; `again`, if it has looked in vain: then
    /// it keeps its place, which is at the front.
    pub(crate) fn wait_turn(&self, again: bool, what: What) {
        let place = self.join(1);
        if again {
            place.look_again();
        }
        self.wait_at(place, what, |told| {
            if told == Told::Alone {
                self.notify_one();
            }
        });
    }

    fn wait_at(&self, place: Place<'_>, what: What, on_leave: impl FnOnce(Told)) {
        struct Waiting<'a, F: FnOnce(Told)> {
            place: Option<Place<'a>>,
            on_leave: Option<F>,
        }
        impl<F: FnOnce(Told)> Drop for Waiting<'_, F> {
            fn drop(&mut self) {
                let told = self.place.take().map_or(Told::No, Place::leave);
                if let Some(on_leave) = self.on_leave.take() {
                    on_leave(told);
                }
            }
        }
        let mut waiting = Waiting { place: Some(place), on_leave: Some(on_leave) };
        while waiting.place.as_ref().is_some_and(|place| !place.is_told()) {
            coroutine::park_on(what);
        }
        waiting.on_leave = None;
    }

    /// Gives the running coroutine a place at the end of the row.
    pub(crate) fn join(&self, need: usize) -> Place<'_> {
        let waiter = coroutine::current();
        let mut row = self.row.borrow_mut();
        let key =
            row.places.insert(Entry { waiter, need, told: Told::No, told_at: 0, before: NONE, after: NONE });
        row.link_last(key);
        Place { list: self, key }
    }

    /// Tells the first in the row to go on; whether there was one.
    pub(crate) fn notify_one(&self) -> bool {
        self.tell_first(Told::Alone)
    }

    /// Tells all who wait now to go on, in their order.
    pub(crate) fn notify_all(&self) {
        while self.tell_first(Told::WithAll) {}
    }

    /// Tells them to go on from the first for as long as `grant` takes on their need.
    pub(crate) fn notify_while(&self, mut grant: impl FnMut(usize) -> bool) {
        loop {
            let need = {
                let row = self.row.borrow();
                row.places.get(row.first).map(|entry| entry.need)
            };
            match need {
                Some(need) if grant(need) => self.notify_one(),
                _ => return,
            };
        }
    }

    fn tell_first(&self, told: Told) -> bool {
        let waiter = {
            let mut row = self.row.borrow_mut();
            let key = row.first;
            if key == NONE {
                return false;
            }
            row.unlink(key);
            row.places[key].told = told;
            row.places[key].told_at = TELL_COUNT.replace(TELL_COUNT.get() + 1);
            row.places[key].waiter.clone()
        };
        waiter.wake();
        true
    }
}

/// The running coroutine's place in a row, left when this is dropped.
pub(crate) struct Place<'a> {
    list: &'a WaitList,
    key: usize,
}

impl<'a> Place<'a> {
    /// The row that it is in.
    pub(crate) fn list(&self) -> &'a WaitList {
        self.list
    }

    /// Whether it has been told to go on.
    pub(crate) fn is_told(&self) -> bool {
        self.told() != Told::No
    }

    /// What it has been told.
    pub(crate) fn told(&self) -> Told {
        self.list.row.borrow().places[self.key].told
    }

    /// When it was told: the lesser, the earlier.
    pub(crate) fn told_at(&self) -> u64 {
        self.list.row.borrow().places[self.key].told_at
    }

    /// It was told, and has looked in vain: it waits again, at the front.
    pub(crate) fn look_again(&self) {
        let mut row = self.list.row.borrow_mut();
        if row.places[self.key].told == Told::No {
            row.unlink(self.key);
        }
        row.places[self.key].told = Told::No;
        row.link_first(self.key);
    }

    /// Leaves the row; what it had been told.
    pub(crate) fn leave(self) -> Told {
        self.told()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let left = {
            let mut row = self.list.row.borrow_mut();
            if row.places[self.key].told == Told::No {
                row.unlink(self.key);
            }
            row.places.remove(self.key)
        };
        drop(left);
    }
}

impl Row {
    fn link_last(&mut self, key: usize) {
        let last = std::mem::replace(&mut self.last, key);
        self.places[key].before = last;
        self.places[key].after = NONE;
        match self.places.get_mut(last) {
            Some(last) => last.after = key,
            None => self.first = key,
        }
    }

    fn link_first(&mut self, key: usize) {
        let first = std::mem::replace(&mut self.first, key);
        self.places[key].after = first;
        self.places[key].before = NONE;
        match self.places.get_mut(first) {
            Some(first) => first.before = key,
            None => self.last = key,
        }
    }

    fn unlink(&mut self, key: usize) {
        let Entry { before, after, .. } = self.places[key];
        match self.places.get_mut(before) {
            Some(before) => before.after = after,
            None => self.first = after,
        }
        match self.places.get_mut(after) {
            Some(after) => after.before = before,
            None => self.last = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::RefCell;
    use crate::{run, spawn, yield_now};
    use std::rc::Rc;

    /// Coroutines that wait in `list`, and note their number when they are told.
    fn waiters(
        list: &Rc<WaitList>,
        order: &Rc<RefCell<Vec<u32>>>,
        numbers: std::ops::Range<u32>,
    ) -> Vec<crate::JoinHandle<()>> {
        numbers
            .map(|n| {
                let (list, order) = (list.clone(), order.clone());
                spawn(move || {
                    list.wait_on(&"the test");
                    order.borrow_mut().push(n);
                })
            })
            .collect()
    }

    #[test]
    fn who_waits_is_told_in_turn_whoever_leaves_in_between() {
        run(|| {
            let (list, order) = (Rc::new(WaitList::new()), Rc::default());
            let waiting = waiters(&list, &order, 0..6);
            for leaving in [0, 3, 5] {
                waiting[leaving].terminate();
            }
            yield_now();
            assert!(list.notify_one());
            list.notify_all();
            yield_now();
            assert_eq!(*order.borrow(), [1, 2, 4]);
            assert!(list.is_empty() && !list.notify_one());
        });
    }

    #[test]
    fn a_place_is_its_waiters_until_it_leaves_and_at_the_front_if_it_looked_in_vain() {
        run(|| {
            let (list, order) = (Rc::new(WaitList::new()), Rc::default());
            let place = list.join(1);
            let _behind = waiters(&list, &order, 1..2);
            assert!(list.notify_one());
            assert_eq!(place.told(), Told::Alone);
            place.look_again();
            assert!(list.notify_one());
            assert_eq!((place.told(), order.borrow().len()), (Told::Alone, 0));
            list.notify_all();
            assert_eq!(place.leave(), Told::Alone, "it was told before all were");
            yield_now();
            assert_eq!(*order.borrow(), [1]);
        });
    }
}
