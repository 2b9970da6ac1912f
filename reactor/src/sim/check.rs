//! Running a test with many seeds; and from a failing seed, finding the plainest run that fails the same way.
//!
//! A failing run is recorded as a list of choices. Choices are set back to 0 (first come first served, no fault,
//! least latency) in ever smaller groups for as long as the run still fails: delta debugging. What is left is told
//! as a story.
//!
//! # Source
//!
//! Zeller and Hildebrandt 2002, "Simplifying and isolating failure-inducing input".

use std::cell::Cell;
use std::env::VarError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::choices::{Choice, Choices, Kind};
use super::world::Inner;
use super::{SimConfig, World, simulate};
use crate::coroutine::{Payload, panic_message};

/// Runs that shrinking may take.
const SHRINK_RUNS_MAX: usize = 400;

/// Steps of coroutines that shrinking may take in all, which bounds its time: some seconds.
const SHRINK_STEPS_MAX: u64 = 5_000_000;

/// All kinds, those first whose absence makes a story plainest.
const KINDS: [Kind; 7] =
    [Kind::Latency, Kind::Offload, Kind::Schedule, Kind::Packet, Kind::Disk, Kind::Router, Kind::Test];

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Whether panics of what runs now are expected, and so not printed.
pub(super) fn set_quiet(quiet: bool) {
    QUIET.set(quiet);
}

/// A run that failed, made as plain as could be.
#[derive(Clone)]
#[non_exhaustive]
pub struct Failure {
    /// The seed it was found with.
    pub seed: u64,
    /// The panic's message.
    pub message: String,
    /// The choices of the plainest run that fails so: see [`replay`].
    pub choices: Vec<Choice>,
    /// What happens in that run, one event a line.
    pub story: String,
    /// That run's trace.
    pub trace_hash: u64,
}

impl Failure {
    /// Choices that could not be made plain: the faults, and turns out of line, that the failure needs.
    pub fn fault_count(&self) -> usize {
        nonzero(&self.choices).len()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { seed, message, story, .. } = self;
        let count = self.fault_count();
        write!(
            f,
            "with HYPHA_SEED={seed}: {message}\nthe plainest run that fails so needs {count} choices:\n{story}"
        )
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What came of one run.
struct Attempt {
    failure: Option<String>,
    choices: Vec<Choice>,
    story: String,
    trace_hash: u64,
    step_count: u64,
}

struct Manner {
    quiet: bool,
    tell: bool,
}

fn attempt(
    config: &SimConfig,
    seed: u64,
    choices: Choices,
    manner: Manner,
    body: &(impl Fn(&World) + Sync),
) -> Attempt {
    let config = config.clone();
    crate::run(move || {
        let mut world = Inner::new(config, choices, seed, manner.tell);
        if let Some(world) = std::rc::Rc::get_mut(&mut world) {
            world.quiet = manner.quiet;
        }
        let result = catch_unwind(AssertUnwindSafe(|| simulate(&world, body)));
        let failure = result.err().map(|payload: Payload| panic_message(&payload).to_owned());
        if let Some(message) = &failure {
            world.tell(|| format!("fails: {message}"));
        }
        let trace = world.trace.borrow();
        Attempt {
            failure,
            choices: world.take_choices(),
            story: trace.story(),
            trace_hash: trace.hash(),
            step_count: world.step_count(),
        }
    })
}

/// What the body of a [`check`] returns: nothing, or a `Result` whose error fails it.
pub trait Outcome {
    /// Panics where it tells of a failure.
    fn accept(self);
}

impl Outcome for () {
    fn accept(self) {}
}

impl<T: Outcome, E: fmt::Debug> Outcome for Result<T, E> {
    fn accept(self) {
        match self {
            Ok(outcome) => outcome.accept(),
            Err(error) => panic!("it returned an error: {error:?}"),
        }
    }
}

/// Runs `body` in a world of its own for each seed, and panics with the story of the first that fails.
///
/// The environment variable `HYPHA_SEED` chooses one seed instead.
///
/// # Panics
///
/// When a run fails: with its seed, and the story of the plainest run that fails the same way. When `HYPHA_SEED` is no
/// number, or there is no seed at all.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use reactor::sim::{self, SimConfig};
///
/// sim::check(&SimConfig::default(), 0..20, |world| {
///     let first = reactor::spawn(|| reactor::sleep(Duration::from_millis(1)));
///     first.join().unwrap();
///     assert_eq!(world.elapsed(), Duration::from_millis(1));
/// });
/// ```
#[track_caller]
pub fn check<T: Outcome>(
    config: &SimConfig,
    seeds: impl IntoIterator<Item = u64>,
    body: impl Fn(&World) -> T + Sync,
) {
    let body = |world: &World| body(world).accept();
    let failure = match std::env::var("HYPHA_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap_or_else(|_| panic!("HYPHA_SEED={seed} is not a number"));
            find_failure(config, [seed], body)
        }
        Err(VarError::NotPresent) => {
            let mut seeds = seeds.into_iter().peekable();
            assert!(seeds.peek().is_some(), "there are no seeds, so nothing was tried");
            find_failure(config, seeds, body)
        }
        Err(error) => panic!("HYPHA_SEED: {error}"),
    };
    if let Some(failure) = failure {
        panic!("{failure}");
    }
}

/// As [`check`], giving the failure as a value.
pub fn find_failure(
    config: &SimConfig,
    seeds: impl IntoIterator<Item = u64>,
    body: impl Fn(&World) + Sync,
) -> Option<Failure> {
    for seed in seeds {
        let plain = Manner { quiet: false, tell: false };
        let first = attempt(config, seed, Choices::seeded(seed, false), plain, &body);
        if first.failure.is_some() {
            return Some(shrink(config, seed, &body));
        }
    }
    None
}

/// Runs `body` again as in `failure`; whether it failed again, and its story and trace then.
pub fn replay(config: &SimConfig, failure: &Failure, body: impl Fn(&World) + Sync) -> Option<Failure> {
    silence_panics();
    let manner = Manner { quiet: true, tell: true };
    let again = attempt(config, failure.seed, Choices::replayed(&failure.choices), manner, &body);
    let message = again.failure?;
    let Attempt { choices, story, trace_hash, .. } = again;
    Some(Failure { seed: failure.seed, message, choices, story, trace_hash })
}

/// Lets panics of quiet worlds pass without a word. Once a process, and only where a simulation has failed.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
}

fn nonzero(choices: &[Choice]) -> Vec<usize> {
    (0..choices.len()).filter(|index| choices[*index].chosen != 0).collect()
}

/// The same failure, whatever numbers it tells: the first line without digits.
fn gist(message: &str) -> String {
    message.lines().next().unwrap_or_default().chars().filter(|c| !c.is_ascii_digit()).collect()
}

struct Shrinker<'a, F> {
    config: &'a SimConfig,
    seed: u64,
    body: &'a F,
    gist: String,
    best: Vec<Choice>,
    runs_left: usize,
    steps_left: u64,
}

impl<F: Fn(&World) + Sync> Shrinker<'_, F> {
    /// Tries the best run with these choices plain; keeps it if it fails the same way and is plainer.
    fn try_without(&mut self, indices: &[usize]) -> bool {
        if self.runs_left == 0 || self.steps_left == 0 || indices.is_empty() {
            return false;
        }
        self.runs_left -= 1;
        let mut trial = self.best.clone();
        for index in indices {
            trial[*index].chosen = 0;
        }
        let manner = Manner { quiet: true, tell: false };
        let result = attempt(self.config, self.seed, Choices::replayed(&trial), manner, self.body);
        self.steps_left = self.steps_left.saturating_sub(result.step_count);
        let same = result.failure.is_some_and(|message| gist(&message) == self.gist);
        if same && nonzero(&result.choices).len() < nonzero(&self.best).len() {
            self.best = result.choices;
            return true;
        }
        false
    }

    fn shrink(&mut self) {
        for kind in KINDS {
            let all = nonzero(&self.best);
            let of_kind: Vec<usize> =
                all.into_iter().filter(|index| self.best[*index].kind == kind).collect();
            self.try_without(&of_kind);
        }
        let mut size = nonzero(&self.best).len();
        while size > 0 {
            let mut start = 0;
            let mut shrunk = false;
            loop {
                let left = nonzero(&self.best);
                if start >= left.len() {
                    break;
                }
                if self.try_without(&left[start..left.len().min(start + size)]) {
                    shrunk = true;
                } else {
                    start += size;
                }
            }
            // A smaller run may allow what a larger one did not: at the finest, once more.
            if !(shrunk && size == 1) {
                size /= 2;
            }
        }
    }
}

fn shrink(config: &SimConfig, seed: u64, body: &(impl Fn(&World) + Sync)) -> Failure {
    silence_panics();
    let quiet = Manner { quiet: true, tell: false };
    let recorded = attempt(config, seed, Choices::seeded(seed, true), quiet, body);
    let Some(message) = recorded.failure else {
        let message = "it failed once and not again: something in it is not simulated".to_owned();
        return Failure { seed, message, choices: Vec::new(), story: String::new(), trace_hash: 0 };
    };
    let mut shrinker = Shrinker {
        config,
        seed,
        body,
        gist: gist(&message),
        best: recorded.choices,
        runs_left: SHRINK_RUNS_MAX,
        steps_left: SHRINK_STEPS_MAX,
    };
    shrinker.shrink();
    let choices = shrinker.best;
    let failure = Failure { seed, message, choices, story: String::new(), trace_hash: 0 };
    replay(config, &failure, body).unwrap_or(failure)
}
