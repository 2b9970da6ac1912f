//! std's `RefCell` with guards that their coroutine knows of, for debug builds: see [`super`].
//!
//! Not here: what knowing of them leads to (`coroutine/forbids.rs`).

use std::cell::{self, BorrowError, BorrowMutError};
use std::cmp::Ordering;
use std::fmt::{self, Debug, Display, Formatter};
use std::ops::{Deref, DerefMut};

use crate::coroutine::Borrow;

/// As [`std::cell::RefCell`], with borrows that their coroutine knows of in debug builds: see the [module](super).
#[derive(Default)]
pub struct RefCell<T: ?Sized> {
    cell: cell::RefCell<T>,
}

/// As [`std::cell::Ref`].
#[must_use = "it borrows until it is dropped"]
pub struct Ref<'b, T: ?Sized> {
    value: cell::Ref<'b, T>,
    borrow: Option<Borrow>,
}

/// As [`std::cell::RefMut`].
#[must_use = "it borrows until it is dropped"]
pub struct RefMut<'b, T: ?Sized> {
    value: cell::RefMut<'b, T>,
    borrow: Option<Borrow>,
}

impl<T> RefCell<T> {
    /// A cell that holds `value`.
    pub const fn new(value: T) -> RefCell<T> {
        RefCell { cell: cell::RefCell::new(value) }
    }

    /// The value, of a cell that nobody shares any more.
    pub fn into_inner(self) -> T {
        self.cell.into_inner()
    }

    /// Puts `value` in the place of what is there, which it returns.
    ///
    /// # Panics
    ///
    /// If the value is borrowed.
    #[track_caller]
    pub fn replace(&self, value: T) -> T {
        self.cell.replace(value)
    }

    /// Puts what `make` makes of the value in its place; what was there. `make` must not suspend.
    ///
    /// # Panics
    ///
    /// If the value is borrowed.
    #[track_caller]
    pub fn replace_with(&self, make: impl FnOnce(&mut T) -> T) -> T {
        let value = &mut *self.borrow_mut();
        let made = make(value);
        std::mem::replace(value, made)
    }

    /// Exchanges the values of two cells.
    ///
    /// # Panics
    ///
    /// If one of them is borrowed.
    #[track_caller]
    pub fn swap(&self, other: &RefCell<T>) {
        self.cell.swap(&other.cell);
    }
}

impl<T: ?Sized> RefCell<T> {
    /// Borrows the value to look at it.
    ///
    /// # Panics
    ///
    /// If it is borrowed to be changed.
    #[track_caller]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref { value: self.cell.borrow(), borrow: Borrow::note() }
    }

    /// As [`RefCell::borrow`], if it can be.
    ///
    /// # Errors
    ///
    /// When it is borrowed to be changed.
    #[track_caller]
    pub fn try_borrow(&self) -> Result<Ref<'_, T>, BorrowError> {
        let value = self.cell.try_borrow()?;
        Ok(Ref { value, borrow: Borrow::note() })
    }

    /// Borrows the value to change it.
    ///
    /// # Panics
    ///
    /// If it is borrowed.
    #[track_caller]
    pub fn borrow_mut(&self) -> RefMut<'_, T> {
        RefMut { value: self.cell.borrow_mut(), borrow: Borrow::note() }
    }

    /// As [`RefCell::borrow_mut`], if it can be.
    ///
    /// # Errors
    ///
    /// When it is borrowed.
    #[track_caller]
    pub fn try_borrow_mut(&self) -> Result<RefMut<'_, T>, BorrowMutError> {
        let value = self.cell.try_borrow_mut()?;
        Ok(RefMut { value, borrow: Borrow::note() })
    }

    /// Where the value is.
    pub fn as_ptr(&self) -> *mut T {
        self.cell.as_ptr()
    }

    /// The value of a cell that is the caller's alone.
    pub fn get_mut(&mut self) -> &mut T {
        self.cell.get_mut()
    }
}

impl<T: Default> RefCell<T> {
    /// Takes the value out, and leaves its default.
    ///
    /// # Panics
    ///
    /// If it is borrowed.
    #[track_caller]
    pub fn take(&self) -> T {
        self.cell.take()
    }
}

impl<'b, T: ?Sized> Ref<'b, T> {
    /// Borrows once more.
    #[expect(clippy::should_implement_trait, reason = "it is called as std's is")]
    #[track_caller]
    pub fn clone(orig: &Ref<'b, T>) -> Ref<'b, T> {
        Ref { value: cell::Ref::clone(&orig.value), borrow: Borrow::note() }
    }

    /// Borrows a part of the value instead.
    pub fn map<U: ?Sized>(orig: Ref<'b, T>, part: impl FnOnce(&T) -> &U) -> Ref<'b, U> {
        Ref { value: cell::Ref::map(orig.value, part), borrow: orig.borrow }
    }

    /// Borrows a part of the value instead, if that is there.
    ///
    /// # Errors
    ///
    /// The borrow as it was, where `part` finds nothing.
    pub fn filter_map<U: ?Sized>(
        orig: Ref<'b, T>,
        part: impl FnOnce(&T) -> Option<&U>,
    ) -> Result<Ref<'b, U>, Ref<'b, T>> {
        match cell::Ref::filter_map(orig.value, part) {
            Ok(value) => Ok(Ref { value, borrow: orig.borrow }),
            Err(value) => Err(Ref { value, borrow: orig.borrow }),
        }
    }
}

impl<'b, T: ?Sized> Ref<'b, T> {
    /// Borrows two parts of the value instead.
    #[track_caller]
    pub fn map_split<U: ?Sized, V: ?Sized>(
        orig: Ref<'b, T>,
        parts: impl FnOnce(&T) -> (&U, &V),
    ) -> (Ref<'b, U>, Ref<'b, V>) {
        let (left, right) = cell::Ref::map_split(orig.value, parts);
        (Ref { value: left, borrow: orig.borrow }, Ref { value: right, borrow: Borrow::note() })
    }
}

impl<'b, T: ?Sized> RefMut<'b, T> {
    /// Borrows two parts of the value instead.
    #[track_caller]
    pub fn map_split<U: ?Sized, V: ?Sized>(
        orig: RefMut<'b, T>,
        parts: impl FnOnce(&mut T) -> (&mut U, &mut V),
    ) -> (RefMut<'b, U>, RefMut<'b, V>) {
        let (left, right) = cell::RefMut::map_split(orig.value, parts);
        (RefMut { value: left, borrow: orig.borrow }, RefMut { value: right, borrow: Borrow::note() })
    }

    /// Borrows a part of the value instead.
    pub fn map<U: ?Sized>(orig: RefMut<'b, T>, part: impl FnOnce(&mut T) -> &mut U) -> RefMut<'b, U> {
        RefMut { value: cell::RefMut::map(orig.value, part), borrow: orig.borrow }
    }

    /// Borrows a part of the value instead, if that is there.
    ///
    /// # Errors
    ///
    /// The borrow as it was, where `part` finds nothing.
    pub fn filter_map<U: ?Sized>(
        orig: RefMut<'b, T>,
        part: impl FnOnce(&mut T) -> Option<&mut U>,
    ) -> Result<RefMut<'b, U>, RefMut<'b, T>> {
        match cell::RefMut::filter_map(orig.value, part) {
            Ok(value) => Ok(RefMut { value, borrow: orig.borrow }),
            Err(value) => Err(RefMut { value, borrow: orig.borrow }),
        }
    }
}

impl<T: ?Sized> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> Deref for RefMut<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for RefMut<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized + Debug> Debug for Ref<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + Debug> Debug for RefMut<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + Display> Display for Ref<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&**self, f)
    }
}

impl<T: ?Sized + Display> Display for RefMut<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&**self, f)
    }
}

impl<T: ?Sized + Debug> Debug for RefCell<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.cell, f)
    }
}

impl<T: Clone> Clone for RefCell<T> {
    #[track_caller]
    fn clone(&self) -> RefCell<T> {
        RefCell::new(self.borrow().clone())
    }
}

impl<T> From<T> for RefCell<T> {
    fn from(value: T) -> RefCell<T> {
        RefCell::new(value)
    }
}

impl<T: ?Sized + PartialEq> PartialEq for RefCell<T> {
    fn eq(&self, other: &RefCell<T>) -> bool {
        *self.borrow() == *other.borrow()
    }
}

impl<T: ?Sized + Eq> Eq for RefCell<T> {}

impl<T: ?Sized + PartialOrd> PartialOrd for RefCell<T> {
    fn partial_cmp(&self, other: &RefCell<T>) -> Option<Ordering> {
        self.borrow().partial_cmp(&*other.borrow())
    }
}

impl<T: ?Sized + Ord> Ord for RefCell<T> {
    fn cmp(&self, other: &RefCell<T>) -> Ordering {
        self.borrow().cmp(&*other.borrow())
    }
}
