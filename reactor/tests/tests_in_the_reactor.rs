//! `#[reactor::test]` and `#[reactor::main]`: whatever fails in any coroutine fails the test that it belongs to, and is
//! told there.
//!
//! How failures are told is seen from outside: this program is run again, with its own harness, and an environment
//! variable that lets the tests of `fails_on_demand` fail.

use std::io;
use std::process::{Command, Output};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use reactor::sim::{Latency, Link, SimConfig, World};
use reactor::{sleep, spawn};

const MS: Duration = Duration::from_millis(1);

/// Set for the second run of this program.
const DEMAND: &str = "REACTOR_TESTS_SHALL_FAIL";

#[reactor::test]
fn a_body_runs_in_a_coroutine_of_its_own_reactor() {
    assert_eq!(reactor::current_name(), "main");
    let shared = Rc::new(7);
    let child = spawn({
        let shared = shared.clone();
        move || {
            sleep(MS);
            *shared
        }
    });
    assert_eq!(child.join(), Ok(7));
}

#[reactor::test]
fn a_body_may_return_what_is_not_send() -> Result<(), Box<dyn std::error::Error>> {
    let number: u32 = "17".parse()?;
    assert_eq!(number, 17);
    Ok(())
}

#[reactor::test]
#[should_panic(expected = "nobody joins it")]
fn a_panic_that_nobody_joins_fails_the_test() {
    spawn(|| {
        sleep(MS);
        panic!("nobody joins it");
    });
    sleep(Duration::from_secs(3600));
}

static WORLDS: AtomicU32 = AtomicU32::new(0);

#[reactor::test(seeds = 5..12)]
fn worlds_one_for_each_seed(world: &World) {
    WORLDS.fetch_add(1, Ordering::Relaxed);
    sleep(Duration::from_secs(3600));
    assert_eq!(world.elapsed(), Duration::from_secs(3600));
}

#[test]
fn a_test_with_seeds_runs_once_for_each() {
    // The harness may run it as well, at the same time: at least as often as it is called here.
    let before = WORLDS.load(Ordering::Relaxed);
    worlds_one_for_each_seed();
    let wanted = if std::env::var_os("HYPHA_SEED").is_some() { 1 } else { 7 };
    assert!(WORLDS.load(Ordering::Relaxed) - before >= wanted);
}

// The documentation's examples, which nobody compiles there.

#[reactor::test]
fn a_nap_is_over_soon() -> Result<(), reactor::Elapsed> {
    reactor::timeout(Duration::from_secs(60), || reactor::sleep(Duration::from_millis(1)))
}

#[reactor::test(seeds = 0..20, config = SimConfig { first_come_first_served: true, ..SimConfig::default() })]
fn an_hour_costs_no_time(world: &World) {
    world.link_all(Link::new(Latency::Constant(Duration::from_millis(5))).with_loss(0.1));
    reactor::sleep(Duration::from_secs(3600));
    assert_eq!(world.elapsed(), Duration::from_secs(3600));
}

#[reactor::test(seeds = 0..3)]
#[should_panic(expected = "it returned an error: Elapsed")]
fn a_world_fails_by_an_error_too() -> Result<(), reactor::Elapsed> {
    #![allow(clippy::needless_question_mark, reason = "an attribute inside of a body is one of the function")]
    Ok(reactor::timeout(MS, || sleep(Duration::from_secs(1)))?)
}

#[reactor::test(seeds = 5..5)]
#[should_panic(expected = "there are no seeds")]
fn a_test_without_seeds_is_no_test() {}

fn short_worlds() -> SimConfig {
    SimConfig { steps_max: 1_000, ..SimConfig::default() }
}

#[reactor::test(seeds = [1], config = short_worlds())]
#[should_panic(expected = "has not ended after 1000 steps")]
fn worlds_are_as_their_config_says() {
    loop {
        reactor::yield_now();
    }
}

/// What fails only in the second run. They are many, so that they run side by side there.
mod fails_on_demand {
    use super::*;

    fn is_demanded() -> bool {
        std::env::var_os(DEMAND).is_some()
    }

    #[inline(never)]
    fn breaks_here(message: &str) {
        sleep(20 * MS);
        panic!("{message}");
    }

    /// The threads for blocking work are some test's children, and what they print goes to that one's output.
    static POOL_IS_ANOTHERS: AtomicBool = AtomicBool::new(false);

    #[reactor::test]
    fn in_its_body() {
        if is_demanded() {
            reactor::offload(|| ());
            POOL_IS_ANOTHERS.store(true, Ordering::Relaxed);
            breaks_here("the body broke");
        }
    }

    #[reactor::test]
    fn in_a_coroutine_that_nobody_joins() {
        if is_demanded() {
            spawn(|| breaks_here("the child broke"));
            sleep(Duration::from_secs(3600));
        }
    }

    #[reactor::test]
    fn in_blocking_work() {
        if is_demanded() {
            for _ in 0..60_000 {
                if POOL_IS_ANOTHERS.load(Ordering::Relaxed) {
                    break;
                }
                sleep(MS);
            }
            assert!(POOL_IS_ANOTHERS.load(Ordering::Relaxed), "`in_its_body` runs beside this");
            reactor::offload(|| panic!("the work broke"));
        }
    }

    #[reactor::test]
    fn by_an_error() -> io::Result<()> {
        if is_demanded() {
            sleep(20 * MS);
            return Err(io::Error::other("the error that it returned"));
        }
        Ok(())
    }

    #[reactor::test(seeds = 0..1000)]
    fn in_a_world(world: &World) {
        if is_demanded() {
            let unlucky = world.choose(10) == 9;
            world.tell(|| format!("unlucky is {unlucky}"));
            assert!(!unlucky, "the world broke");
        }
    }
}

/// Runs the tests of `fails_on_demand`, all at once, and lets them fail.
fn failing_run(seed: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["fails_on_demand", "--test-threads", "8"]).env(DEMAND, "1").env("RUST_BACKTRACE", "1");
    match seed {
        Some(seed) => command.env("HYPHA_SEED", seed),
        None => command.env_remove("HYPHA_SEED"),
    };
    command.output().unwrap()
}

/// What the harness shows of one failed test.
fn told_of(output: &Output, name: &str) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let head = format!("---- fails_on_demand::{name} stdout ----");
    let (_, section) = text.split_once(&head).unwrap_or_else(|| panic!("{name} is not told:\n{text}"));
    let end = section.find("\n---- ").or_else(|| section.find("\nfailures:")).unwrap_or(section.len());
    section[..end].to_owned()
}

#[test]
fn each_failure_is_told_in_its_own_tests_output_with_place_and_backtrace() {
    let output = failing_run(None);
    assert_eq!(output.status.code(), Some(101));
    let messages = [
        ("in_its_body", "the body broke"),
        ("in_a_coroutine_that_nobody_joins", "the child broke"),
        ("in_blocking_work", "the work broke"),
        ("by_an_error", "the error that it returned"),
        ("in_a_world", "the world broke"),
    ];
    for (name, own) in messages {
        let told = told_of(&output, name);
        for (other, message) in messages {
            // The thread that did the work may show its message elsewhere as well.
            let may_be_there = other == name || other == "in_blocking_work";
            assert!(!told.contains(message) || may_be_there, "of {name} is told:\n{told}");
        }
        assert!(told.contains(own), "of {name} is told:\n{told}");
        if name != "by_an_error" {
            assert!(told.contains("panicked at reactor/tests/tests_in_the_reactor.rs:"), "{name}:\n{told}");
        }
    }
    for name in ["in_its_body", "in_a_coroutine_that_nobody_joins"] {
        let told = told_of(&output, name);
        assert!(told.contains("stack backtrace:") && told.contains("breaks_here"), "{told}");
    }
}

#[test]
fn a_failing_world_is_told_as_a_story_and_comes_back_from_its_seed() {
    let told = told_of(&failing_run(None), "in_a_world");
    assert!(told.contains("the plainest run that fails so needs 1 choices"), "{told}");
    assert!(told.contains("unlucky is true"), "{told}");
    let (_, rest) = told.split_once("with HYPHA_SEED=").expect("the seed is told");
    let seed = rest.split(':').next().unwrap();
    let again = told_of(&failing_run(Some(seed)), "in_a_world");
    assert!(again.contains(&format!("with HYPHA_SEED={seed}: the world broke")), "{again}");
    let wrong = told_of(&failing_run(Some("17th")), "in_a_world");
    assert!(wrong.contains("HYPHA_SEED=17th is not a number"), "{wrong}");
}
