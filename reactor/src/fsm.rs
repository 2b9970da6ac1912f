//! State machines whose states are code: a state is a body that runs, and a transition ends it.
//!
//! A protocol's life is often a few phases, each of them a plain sequence: shake hands, serve, drain. Written as
//! one function, every phase has to look out for what may end it; written as callbacks, no phase is a sequence
//! any more. Here each state has a body, run on the coroutine that called [`Machine::run`], and the transitions
//! out of it are declared beside it. While the body runs its triggers are watched; when one fires, the body
//! unwinds where it waits, as if terminated, and the next state's body begins.
//!
//! ```
//! use std::time::Duration;
//! use reactor::fsm::{Machine, Trigger};
//!
//! reactor::run(|| {
//!     let paid = reactor::sync::Barrier::new(false);
//!     let mut shop = Machine::<String>::new("shop");
//!     let ordered = shop.state("ordered", || { paid.open(); Ok(()) });
//!     let packed = shop.state("packed", || Ok(()));
//!     let cancelled = shop.state("cancelled", || Ok(()));
//!     shop.transition(ordered, packed, Trigger::when("paid", || paid.wait()));
//!     shop.transition(ordered, cancelled, Trigger::after(Duration::from_secs(60)));
//!     assert_eq!(shop.run(), Ok(packed));
//!     assert!(shop.mermaid().contains("ordered --> packed : paid"));
//! });
//! ```
//!
//! Five kinds of trigger: the body's end, its error, something awaited (a signal, a barrier, a channel, anything a
//! coroutine can wait for), a time, and a named event that somebody posts. An event that the current state does
//! not declare is refused, and told to who posted it. A state may be a machine itself ([`Machine::composite`]).
//!
//! What it is not: a table of plain data. Where nothing runs and nothing waits, use an `enum` and `match`.

mod diagram;

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use crate::cell::RefCell;
use crate::coroutine::{self, Coroutine, Cut};
use crate::timer::Timer;

/// How many events are kept for a state that has yet to begin: more than that come from a loop that does not stop.
const EARLY_EVENTS_MAX: usize = 16;

/// A state of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateId(usize);

type Body<'a, E> = Box<dyn FnMut() -> Result<(), E> + 'a>;
type Wait<'a> = Box<dyn Fn() + 'a>;
type Matches<'a, E> = Box<dyn Fn(&E) -> bool + 'a>;

/// What makes a machine leave a state.
pub struct Trigger<'a, E>(Kind<'a, E>);

enum Kind<'a, E> {
    End,
    Error(&'static str, Matches<'a, E>),
    When(&'static str, Wait<'a>),
    After(Duration),
    Event(&'static str),
}

impl<'a, E> Trigger<'a, E> {
    /// The body returned `Ok`. A state without this trigger lasts until another one fires; one that has none to wait
    /// for is final, and the machine ends there.
    pub fn end() -> Trigger<'a, E> {
        Trigger(Kind::End)
    }

    /// The body returned an error for which `matches` holds; the first one declared wins. Without one, the error ends
    /// the machine.
    pub fn error(name: &'static str, matches: impl Fn(&E) -> bool + 'a) -> Trigger<'a, E> {
        Trigger(Kind::Error(name, Box::new(matches)))
    }

    /// `wait` returned. It runs on a coroutine of its own while the state lasts, and is terminated with it: so it
    /// may wait for anything, and should take nothing that it could lose.
    pub fn when(name: &'static str, wait: impl Fn() + 'a) -> Trigger<'a, E> {
        Trigger(Kind::When(name, Box::new(wait)))
    }

    /// The state has lasted so long.
    pub fn after(time: Duration) -> Trigger<'a, E> {
        Trigger(Kind::After(time))
    }

    /// [`Events::post`] was called with this name.
    pub fn event(name: &'static str) -> Trigger<'a, E> {
        Trigger(Kind::Event(name))
    }

    fn label(&self) -> String {
        match &self.0 {
            Kind::End => String::new(),
            Kind::Error(name, _) => format!("error {name}"),
            Kind::When(name, _) | Kind::Event(name) => (*name).to_owned(),
            Kind::After(time) => format!("after {time:?}"),
        }
    }
}

struct State<'a, E> {
    name: &'static str,
    body: Body<'a, E>,
    transitions: Vec<(Trigger<'a, E>, StateId)>,
    /// The diagram of the machine inside.
    inner: Option<diagram::Diagram>,
}

/// States and the transitions between them; see the [module](self).
///
/// `E` is what bodies fail with.
pub struct Machine<'a, E> {
    name: &'static str,
    states: Vec<State<'a, E>>,
    control: Rc<Control>,
}

/// Which state runs, and what may end it from outside.
#[derive(Default)]
struct Control {
    /// The events that the current state declares, and the coroutine it runs on.
    current: RefCell<Option<Current>>,
    /// The transition that has fired, by its place in the state's list.
    fired: Cell<Option<usize>>,
    running: Cell<bool>,
    /// What was posted between two states, for the second one to look at.
    early: RefCell<VecDeque<&'static str>>,
}

struct Current {
    state: &'static str,
    events: Vec<(&'static str, usize)>,
    runner: Rc<Coroutine>,
    cut: Cut,
}

/// The current state declares no transition for the event; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} declares no transition for the event {event}", state.unwrap_or("a machine that does not run"))]
pub struct Undeclared {
    /// The state, if the machine runs.
    pub state: Option<&'static str>,
    /// What was posted.
    pub event: &'static str,
}

/// Posts events to a machine. Clones post to the same one.
#[derive(Clone)]
pub struct Events(Rc<Control>);

impl Events {
    /// Makes the machine take the transition declared for `event` in the state it is in. Never suspends.
    ///
    /// An event that comes when a transition has fired already, and its state has not begun, is kept for that one,
    /// which takes the first that it declares; what else was posted then is dropped.
    ///
    /// # Errors
    /// [`Undeclared`] if there is no such transition, the machine does not run, or it has been posted a great many
    /// events without a chance to look at them.
    pub fn post(&self, event: &'static str) -> Result<(), Undeclared> {
        let current = self.0.current.borrow();
        let passing = current.is_none() || self.0.fired.get().is_some();
        if self.0.running.get() && passing && self.0.early.borrow().len() < EARLY_EVENTS_MAX {
            self.0.early.borrow_mut().push_back(event);
            return Ok(());
        }
        let Some(current) = &*current else { return Err(Undeclared { state: None, event }) };
        let found = current.events.iter().find(|(name, _)| *name == event);
        let &(_, transition) = found.ok_or(Undeclared { state: Some(current.state), event })?;
        self.0.fire(transition, &current.runner, current.cut);
        Ok(())
    }

    /// The name of the state that runs.
    pub fn current(&self) -> Option<&'static str> {
        self.0.current.borrow().as_ref().map(|current| current.state)
    }
}

impl Control {
    /// Notes that a transition has fired, and ends the body. The first one stays.
    fn fire(&self, transition: usize, runner: &Rc<Coroutine>, cut: Cut) {
        if self.fired.get().is_none() {
            self.fired.set(Some(transition));
            runner.cut_to(cut);
        }
    }
}

impl<'a, E> Machine<'a, E> {
    /// A machine without states. The first state declared is where it begins.
    pub fn new(name: &'static str) -> Machine<'a, E> {
        Machine { name, states: Vec::new(), control: Rc::default() }
    }

    /// Declares a state. Its body runs each time the state is entered.
    ///
    /// # Panics
    /// If the name is taken.
    pub fn state(&mut self, name: &'static str, body: impl FnMut() -> Result<(), E> + 'a) -> StateId {
        assert!(self.states.iter().all(|state| state.name != name), "{} has two states {name}", self.name);
        self.states.push(State { name, body: Box::new(body), transitions: Vec::new(), inner: None });
        StateId(self.states.len() - 1)
    }

    /// Declares a state whose body runs another machine, from its beginning each time. The state ends when that
    /// machine does; a transition out of the state ends whatever state the inner machine is in.
    ///
    /// # Panics
    /// If the name is taken.
    pub fn composite(&mut self, name: &'static str, mut inner: Machine<'a, E>) -> StateId
    where
        E: 'a,
    {
        let diagram = inner.diagram();
        let id = self.state(name, move || inner.run().map(drop));
        self.states[id.0].inner = Some(diagram);
        id
    }

    /// Declares that `trigger` leads from one state to another, or to the same one again.
    ///
    /// # Panics
    /// If a state is another machine's, or has a transition for its end, or for that event, already.
    pub fn transition(&mut self, from: StateId, to: StateId, trigger: Trigger<'a, E>) {
        assert!(to.0 < self.states.len(), "{} has no such state to go to", self.name);
        let state = self.states.get_mut(from.0).expect("the state to come from is this machine's");
        let twice = state.transitions.iter().any(|(other, _)| match (&trigger.0, &other.0) {
            (Kind::End, Kind::End) => true,
            (Kind::Event(new), Kind::Event(old)) => new == old,
            _ => false,
        });
        assert!(!twice, "{} has two transitions for {:?}", state.name, trigger.label());
        state.transitions.push((trigger, to));
    }

    /// The handle with which others post events.
    pub fn events(&self) -> Events {
        Events(self.control.clone())
    }

    /// Runs the machine from its first state, and returns the final one.
    ///
    /// A trigger that holds already when a state is entered fires before the body begins. Where several would fire,
    /// the first one does, and the others find nobody.
    ///
    /// # Errors
    /// That of a body for which no transition is declared.
    ///
    /// # Panics
    /// Without states. With the panic of a body, or of an awaited trigger.
    ///
    /// # Suspends
    /// As the bodies do. If the caller is terminated, so are the body and the watchers of its triggers.
    pub fn run(&mut self) -> Result<StateId, E> {
        assert!(!self.states.is_empty(), "{} has no states", self.name);
        let control = self.control.clone();
        let _running = Running::new(&control);
        let mut at = StateId(0);
        loop {
            let state = &mut self.states[at.0];
            let (name, machine) = (state.name, self.name);
            tracing::trace!(machine, state = name, "entered");
            let next = match state.visit(&self.control) {
                Left::By(transition) => Some(state.transitions[transition].1),
                Left::Returned(result) => {
                    let error = result.err();
                    let next = state.transitions.iter().find(|(trigger, _)| match (&trigger.0, &error) {
                        (Kind::End, None) => true,
                        (Kind::Error(_, matches), Some(error)) => matches(error),
                        _ => false,
                    });
                    match (next, error) {
                        (None, Some(error)) => return Err(error),
                        (next, _) => next.map(|(_, to)| *to),
                    }
                }
            };
            match next {
                Some(next) => at = next,
                None => return Ok(at),
            }
        }
    }

    /// The name of a state.
    pub fn name_of(&self, state: StateId) -> &'static str {
        self.states[state.0].name
    }

    /// The machine as a Mermaid state diagram: every declared state and transition, in the order of declaration.
    pub fn mermaid(&self) -> String {
        self.diagram().mermaid()
    }

    fn diagram(&self) -> diagram::Diagram {
        let state = |state: &State<'a, E>| diagram::State {
            name: state.name,
            is_final: state.is_final(),
            transitions: state.transitions.iter().map(|(trigger, to)| (trigger.label(), to.0)).collect(),
            inner: state.inner.clone(),
        };
        diagram::Diagram { states: self.states.iter().map(state).collect() }
    }
}

impl<E> fmt::Debug for Machine<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("name", &self.name).field("states", &self.states.len()).finish()
    }
}

/// Marks that a machine runs, until it is left however that happens.
struct Running<'a>(&'a Control);

impl<'a> Running<'a> {
    fn new(control: &'a Control) -> Running<'a> {
        control.running.set(true);
        Running(control)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(false);
        self.0.early.take();
    }
}

/// How a state was left.
enum Left<E> {
    By(usize),
    Returned(Result<(), E>),
}

/// Takes the state's events and note away however it is left.
struct Visit<'a> {
    control: &'a Control,
    runner: &'a Coroutine,
    cut: Cut,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.control.current.take();
        self.runner.withdraw_cut(self.cut);
    }
}

impl<E> State<'_, E> {
    /// Whether the machine ends when the body does.
    fn is_final(&self) -> bool {
        self.transitions.iter().all(|(trigger, _)| matches!(trigger.0, Kind::Error(..)))
    }

    /// Whether the state lasts on when the body has returned.
    fn outlasts_its_body(&self) -> bool {
        !self.is_final() && !self.transitions.iter().any(|(trigger, _)| matches!(trigger.0, Kind::End))
    }

    /// Runs the body until it ends or a trigger fires.
    fn visit(&mut self, control: &Rc<Control>) -> Left<E> {
        let (runner, cut) = (coroutine::current(), Cut::new());
        let outlasts = self.outlasts_its_body();
        let State { name, body, transitions, .. } = self;
        let events = transitions.iter().enumerate().filter_map(|(at, (trigger, _))| match trigger.0 {
            Kind::Event(event) => Some((event, at)),
            _ => None,
        });
        let events: Vec<_> = events.collect();
        // The first early event that this state declares counts; the others find nobody.
        let early = control.early.take();
        let early = early.iter().find_map(|early| events.iter().find(|(event, _)| event == early));
        control.fired.set(early.map(|(_, transition)| *transition));
        let current = Current { state: name, events, runner: runner.clone(), cut };
        *control.current.borrow_mut() = Some(current);
        let visit = Visit { control, runner: &runner, cut };

        let timers = transitions.iter().enumerate().filter_map(|(at, (trigger, _))| match trigger.0 {
            Kind::After(time) => Some((crate::now().checked_add(time)?, at)),
            _ => None,
        });
        // Of several times only the shortest can fire.
        let timer = timers.min();
        let _armed = timer.map(|(due, _)| Timer::cut_at(due, cut));
        let guarded = |body: &mut Body<'_, E>| {
            if control.fired.get().is_some() {
                return Ok(());
            }
            body()?;
            if outlasts {
                loop {
                    coroutine::park_on(&"a transition");
                }
            }
            Ok(())
        };
        let waits = || {
            transitions.iter().enumerate().filter_map(|(at, (trigger, _))| match &trigger.0 {
                Kind::When(_, wait) => Some((at, wait)),
                _ => None,
            })
        };
        let result = catch_unwind(AssertUnwindSafe(|| {
            if waits().next().is_none() {
                return guarded(body);
            }
            crate::scope(|s| {
                let watchers: Vec<_> = waits()
                    .map(|(at, wait)| {
                        let (control, runner) = (&*control, &runner);
                        s.spawn(move || {
                            wait();
                            control.fire(at, runner, cut);
                        })
                    })
                    .collect();
                let result = guarded(body);
                watchers.iter().for_each(|watcher| watcher.terminate());
                result
            })
        }));
        drop(visit);
        let fired = control.fired.take();
        match (result, fired) {
            (Err(payload), _) if payload.downcast_ref::<Cut>() != Some(&cut) => resume_unwind(payload),
            (_, Some(transition)) => Left::By(transition),
            (Ok(result), None) => Left::Returned(result),
            // Nobody else cuts to here: the time is over.
            (Err(_), None) => Left::By(timer.map_or(0, |(_, at)| at)),
        }
    }
}

#[cfg(test)]
mod tests;
