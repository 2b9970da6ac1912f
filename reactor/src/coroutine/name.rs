//! What a coroutine is called, in logs and dumps.

use super::{Coroutine, Payload, current, with_current};

impl Coroutine {
    /// Its name, or the place where it was spawned if it was given none.
    pub(crate) fn label(&self) -> String {
        match &self.fiber.label().name {
            Some(name) => name.to_string(),
            None => self.place(),
        }
    }

    /// Where it was spawned: file and line.
    pub(crate) fn place(&self) -> String {
        let spawned_at = self.fiber.label().spawned_at;
        format!("{}:{}", spawned_at.file(), spawned_at.line())
    }

    /// Its name, with the place where it was spawned.
    pub(crate) fn label_and_place(&self) -> String {
        match &self.fiber.label().name {
            Some(name) => format!("{name} ({})", self.place()),
            None => self.place(),
        }
    }
}

/// The running coroutine's name.
///
/// What [`Builder::name`](crate::Builder::name) said, else `file:line` of the call that spawned it; `main` for
/// the one that [`run`](crate::run) started. Never suspends.
///
/// # Panics
///
/// Outside `run`.
///
/// # Examples
///
/// ```
/// reactor::run(|| {
///     let named = reactor::Builder::new().name("acceptor").spawn(reactor::current_name).unwrap();
///     assert_eq!(named.join().unwrap(), "acceptor");
///     assert_eq!(reactor::current_name(), "main");
/// });
/// ```
pub fn current_name() -> String {
    current().label()
}

/// As [`current_name`], also where no coroutine runs.
pub(crate) fn label_of_current() -> String {
    with_current(|me| me.map_or_else(|| "a coroutine".to_owned(), |me| me.label()))
}

/// Its name and the place where it was spawned, also where no coroutine runs.
pub(super) fn label_and_place_of_current() -> String {
    with_current(|me| me.map_or_else(|| "a coroutine".to_owned(), Coroutine::label_and_place))
}

/// The text of a panic, as far as it has one.
pub(crate) fn panic_message(payload: &Payload) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("(a panic without text)")
}
