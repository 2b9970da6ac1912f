//! Machines whose states are code: what their transitions, terminations and drawings promise.

use super::*;
use crate::sync::{Barrier, Signal, channel};
use crate::{run, sleep, spawn, timeout, yield_now};

const LONG: Duration = Duration::from_secs(3600);

/// Notes that it is dropped: that the body was unwound.
struct Note<'a>(&'a RefCell<Vec<&'static str>>, &'static str);
impl Drop for Note<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1);
    }
}

#[test]
fn a_state_whose_body_returns_goes_on_to_the_next_and_the_last_ends_the_machine() {
    run(|| {
        let order = RefCell::new(Vec::new());
        let mut machine = Machine::<()>::new("sequence");
        let states = ["one", "two", "three"].map(|name| {
            let order = &order;
            machine.state(name, move || {
                yield_now();
                order.borrow_mut().push(name);
                Ok(())
            })
        });
        machine.transition(states[0], states[1], Trigger::end());
        machine.transition(states[1], states[2], Trigger::end());
        assert_eq!(machine.run(), Ok(states[2]));
        assert_eq!(*order.borrow(), ["one", "two", "three"]);
    });
}

#[test]
fn a_trigger_that_fires_unwinds_the_body_and_begins_the_next_state() {
    run(|| {
        let (signal, log) = (Signal::new(), RefCell::new(Vec::new()));
        let mut machine = Machine::<()>::new("interrupted");
        let work = machine.state("work", || {
            let _note = Note(&log, "unwound");
            signal.notify_all();
            sleep(LONG);
            unreachable!("the trigger fires first");
        });
        let rest = machine.state("rest", || {
            log.borrow_mut().push("rested");
            Ok(())
        });
        machine.transition(work, rest, Trigger::when("bell", || signal.wait()));
        assert_eq!(machine.run(), Ok(rest));
        assert_eq!(*log.borrow(), ["unwound", "rested"]);
    });
}

#[test]
fn anything_a_coroutine_can_wait_for_is_a_trigger() {
    run(|| {
        let barrier = Barrier::new(false);
        let (sender, receiver) = channel::<u8>(1);
        let other = RefCell::new(Some(spawn(|| sleep(Duration::from_millis(2)))));
        let mut machine = Machine::<()>::new("waits");
        let on_barrier = machine.state("on barrier", || {
            barrier.open();
            sleep(LONG);
            Ok(())
        });
        let on_channel = machine.state("on channel", || {
            sender.send(7).unwrap();
            sleep(LONG);
            Ok(())
        });
        let on_join = machine.state("on join", || {
            sleep(LONG);
            Ok(())
        });
        let done = machine.state("done", || Ok(()));
        machine.transition(on_barrier, on_channel, Trigger::when("open", || barrier.wait()));
        machine.transition(on_channel, on_join, Trigger::when("value", || _ = receiver.recv()));
        let join = || _ = other.take().map(|handle| handle.join());
        machine.transition(on_join, done, Trigger::when("joined", join));
        assert_eq!(machine.run(), Ok(done));
    });
}

#[test]
fn a_trigger_that_holds_already_fires_before_the_body_begins() {
    run(|| {
        let open = Barrier::new(true);
        let begun = Cell::new(false);
        let mut machine = Machine::<()>::new("at once");
        let first = machine.state("first", || {
            begun.set(true);
            Ok(())
        });
        let second = machine.state("second", || Ok(()));
        machine.transition(first, second, Trigger::when("open", || open.wait()));
        assert_eq!(machine.run(), Ok(second));
        assert!(!begun.get());
    });
}

#[test]
fn a_state_that_lasts_too_long_is_left_by_its_timeout() {
    run(|| {
        let log = RefCell::new(Vec::new());
        let mut machine = Machine::<()>::new("patience");
        let slow = machine.state("slow", || {
            let _note = Note(&log, "unwound");
            sleep(LONG);
            Ok(())
        });
        let [late, never] = ["late", "never"].map(|name| machine.state(name, || Ok(())));
        machine.transition(slow, never, Trigger::after(LONG));
        machine.transition(slow, late, Trigger::after(Duration::from_millis(2)));
        machine.transition(slow, never, Trigger::after(Duration::MAX));
        assert_eq!(machine.run(), Ok(late));
        assert_eq!(*log.borrow(), ["unwound"]);
    });
}

#[test]
fn an_event_that_comes_between_two_states_is_kept_for_the_second() {
    run(|| {
        let mut machine = Machine::<()>::new("early");
        let [events, poster] = [machine.events(), machine.events()];
        let [one, two, three] = ["one", "two", "three"].map(|name| {
            machine.state(name, move || {
                assert_ne!(name, "two", "it is left before it begins");
                Ok(())
            })
        });
        machine.transition(one, two, Trigger::event("go on"));
        machine.transition(two, three, Trigger::event("and on"));
        let poster = spawn(move || {
            yield_now();
            for event in ["go on", "nobody declares this", "and on"] {
                poster.post(event).unwrap();
            }
            for _ in 3..EARLY_EVENTS_MAX + 1 {
                poster.post("flood").unwrap();
            }
            assert!(poster.post("flood").is_err());
        });
        assert_eq!(machine.run(), Ok(three));
        poster.join().unwrap();
        assert_eq!(events.post("go on"), Err(Undeclared { state: None, event: "go on" }));
    });
}

#[test]
fn a_state_without_an_end_lasts_on_when_its_body_has_returned() {
    run(|| {
        let mut machine = Machine::<()>::new("lasts");
        let events = machine.events();
        let idle = machine.state("idle", || Ok(()));
        let done = machine.state("done", || Ok(()));
        machine.transition(idle, done, Trigger::event("go"));
        let poster = spawn(move || {
            sleep(Duration::from_millis(2));
            assert_eq!(events.current(), Some("idle"));
            events.post("go").unwrap();
        });
        assert_eq!(machine.run(), Ok(done));
        poster.join().unwrap();
    });
}

#[test]
fn an_error_takes_the_first_transition_that_matches_it_and_ends_the_machine_where_none_does() {
    run(|| {
        let error = Cell::new("mild");
        let mut machine = Machine::new("errors");
        let work = machine.state("work", || Err(error.get()));
        let [mended, failed] = ["mended", "failed"].map(|name| machine.state(name, || Ok(())));
        machine.transition(work, mended, Trigger::error("mild", |error| *error == "mild"));
        machine.transition(work, failed, Trigger::error("not fatal", |error| *error != "fatal"));
        assert_eq!(machine.run(), Ok(mended));
        error.set("hard");
        assert_eq!(machine.run(), Ok(failed));
        error.set("fatal");
        assert_eq!(machine.run(), Err("fatal"));
    });
}

#[test]
fn a_posted_event_moves_the_machine_and_an_undeclared_one_is_refused() {
    run(|| {
        let mut machine = Machine::<()>::new("door");
        let events = machine.events();
        assert_eq!(events.post("open"), Err(Undeclared { state: None, event: "open" }));
        let posted = Rc::new(RefCell::new(Vec::new()));
        let closed = machine.state("closed", || {
            sleep(LONG);
            Ok(())
        });
        let open = machine.state("open", || {
            sleep(LONG);
            Ok(())
        });
        let gone = machine.state("gone", || Ok(()));
        machine.transition(closed, open, Trigger::event("open"));
        machine.transition(open, closed, Trigger::event("close"));
        machine.transition(open, gone, Trigger::event("burn"));
        let (poster, results) = (events.clone(), posted.clone());
        spawn(move || {
            yield_now();
            for event in ["close", "open", "open", "close", "burn", "open", "burn"] {
                results.borrow_mut().push((poster.current(), poster.post(event).is_ok()));
                yield_now();
                yield_now();
            }
        });
        assert_eq!(machine.run(), Ok(gone));
        let (closed, open) = (Some("closed"), Some("open"));
        let expected = [
            (closed, false),
            (closed, true),
            (open, false),
            (open, true),
            (closed, false),
            (closed, true),
            (open, true),
        ];
        assert_eq!(*posted.borrow(), expected);
        assert_eq!(events.current(), None);
    });
}

#[test]
fn of_two_triggers_at_once_the_first_one_counts() {
    run(|| {
        let mut machine = Machine::<()>::new("race");
        let events = machine.events();
        let start = machine.state("start", move || {
            events.post("left").unwrap();
            events.post("right").unwrap();
            sleep(LONG);
            Ok(())
        });
        let [left, right] = ["left", "right"].map(|name| machine.state(name, || Ok(())));
        machine.transition(start, right, Trigger::event("right"));
        machine.transition(start, left, Trigger::event("left"));
        assert_eq!(machine.run(), Ok(left));
    });
}

#[test]
fn a_machine_inside_a_state_ends_with_it() {
    run(|| {
        let log = RefCell::new(Vec::new());
        let hang_up = Signal::new();
        let mut talk = Machine::<()>::new("talk");
        let listen = talk.state("listen", || Ok(()));
        let speak = talk.state("speak", || {
            let _note = Note(&log, "interrupted");
            hang_up.notify_all();
            sleep(LONG);
            Ok(())
        });
        talk.transition(listen, speak, Trigger::end());
        let mut call = Machine::new("call");
        let connected = call.composite("connected", talk);
        let over = call.state("over", || Ok(()));
        call.transition(connected, over, Trigger::when("hang up", || hang_up.wait()));
        assert_eq!(call.run(), Ok(over));
        assert_eq!(*log.borrow(), ["interrupted"]);
        assert_eq!(
            call.mermaid(),
            "stateDiagram-v2\n    state connected {\n        state \"listen\" as connected_listen\n        \
             state \"speak\" as connected_speak\n        [*] --> connected_listen\n        \
             connected_listen --> connected_speak\n        connected_speak --> [*]\n    }\n    \
             [*] --> connected\n    connected --> over : hang up\n    over --> [*]\n"
        );
    });
}

#[test]
fn terminating_the_caller_ends_body_and_watchers() {
    run(|| {
        let log: &'static RefCell<Vec<&'static str>> = Box::leak(Box::default());
        let running = spawn(move || {
            let mut machine = Machine::<()>::new("terminated");
            let state = machine.state("waits", || {
                let _note = Note(log, "body");
                sleep(LONG);
                Ok(())
            });
            let watch = || {
                let _note = Note(log, "watcher");
                sleep(LONG);
            };
            machine.transition(state, state, Trigger::when("never", watch));
            machine.run()
        });
        running.terminate();
        assert!(running.join().is_err());
        log.borrow_mut().sort_unstable();
        assert_eq!(*log.borrow(), ["body", "watcher"]);
    });
}

#[test]
fn a_panic_in_a_body_or_a_trigger_is_the_callers() {
    run(|| {
        for in_trigger in [false, true] {
            let running = spawn(move || {
                let mut machine = Machine::<()>::new("panics");
                let state = machine.state("panics", || {
                    yield_now();
                    assert!(in_trigger, "this panic is part of a test");
                    sleep(LONG);
                    Ok(())
                });
                let watch = || {
                    yield_now();
                    assert!(!in_trigger, "this panic is part of a test");
                    sleep(LONG);
                };
                machine.transition(state, state, Trigger::when("never", watch));
                machine.run()
            });
            let joined = catch_unwind(AssertUnwindSafe(|| running.join()));
            assert!(joined.is_err(), "in_trigger: {in_trigger}");
        }
    });
}

#[test]
fn a_timeout_around_the_machine_passes_through_it() {
    run(|| {
        let mut machine = Machine::<()>::new("outer");
        let state = machine.state("waits", || {
            sleep(LONG);
            Ok(())
        });
        machine.transition(state, state, Trigger::when("never", || sleep(LONG)));
        machine.transition(state, state, Trigger::after(LONG));
        assert!(timeout(Duration::from_millis(2), || machine.run()).is_err());
        assert_eq!(machine.events().current(), None);
    });
}

#[test]
#[should_panic(expected = "two transitions")]
fn two_transitions_for_one_event_are_a_bug() {
    let mut machine = Machine::<()>::new("ambiguous");
    let state = machine.state("state", || Ok(()));
    machine.transition(state, state, Trigger::event("go"));
    machine.transition(state, state, Trigger::event("go"));
}

#[test]
fn names_that_mermaid_cannot_take_are_written_as_labels() {
    let mut machine = Machine::<()>::new("odd names");
    let odd = machine.state("half-open: \"1\"", || Ok(()));
    let plain = machine.state("plain", || Ok(()));
    machine.transition(odd, plain, Trigger::event("a;b"));
    machine.transition(plain, odd, Trigger::end());
    assert_eq!(
        machine.mermaid(),
        "stateDiagram-v2\n    state \"half-open   1 \" as half_open___1_\n    [*] --> half_open___1_\n    \
         half_open___1_ --> plain : a b\n    plain --> half_open___1_\n"
    );
}
