//! A `tracing` subscriber keeps the spans that are entered as a stack of the *thread*. Coroutines share the thread,
//! so without help an event of one would be told as if it had happened in another's span.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use reactor::{Builder, scope, sleep, spawn, yield_now};
use support::run_logged;
use tracing::{Span, info, info_span};

/// The spans that the event `message` was logged in: `outer:inner`.
fn spans_of(log: &str, message: &str) -> Vec<String> {
    log.lines()
        .filter(|line| line.ends_with(message))
        .map(|line| {
            let after_level = line.split_once("INFO ").unwrap().1;
            let spans = after_level.split(' ').next().unwrap();
            // Without spans the target stands first.
            if spans.starts_with("spans_follow_coroutines") {
                String::new()
            } else {
                spans.trim_end_matches(':').to_owned()
            }
        })
        .collect()
}

#[test]
fn interleaved_coroutines_each_log_in_the_spans_that_they_are_in() {
    let log = run_logged(|_| {
        scope(|s| {
            for name in ["a", "b", "c"] {
                s.spawn(move || {
                    let _outer = match name {
                        "a" => info_span!("outer_a"),
                        "b" => info_span!("outer_b"),
                        _ => info_span!("outer_c"),
                    }
                    .entered();
                    for _ in 0..3 {
                        yield_now();
                        info!("outside {name}");
                        info_span!("inner").in_scope(|| {
                            sleep(std::time::Duration::from_millis(1));
                            info!("inside {name}");
                        });
                    }
                });
            }
            yield_now();
            info!("in the parent");
        });
    });
    for name in ["a", "b", "c"] {
        assert_eq!(spans_of(&log, &format!("outside {name}")), vec![format!("outer_{name}"); 3], "{log}");
        assert_eq!(
            spans_of(&log, &format!("inside {name}")),
            vec![format!("outer_{name}:inner"); 3],
            "{log}"
        );
    }
    assert_eq!(spans_of(&log, "in the parent"), [""], "{log}");
}

#[tracing::instrument(skip_all)]
fn instrumented() {
    yield_now();
    info!("in the function");
}

#[test]
fn an_instrumented_function_that_suspends_keeps_its_span() {
    let log = run_logged(|_| {
        let first = spawn(instrumented);
        info!("beside it");
        first.join().unwrap();
        info!("after it");
    });
    assert_eq!(spans_of(&log, "in the function"), ["instrumented"], "{log}");
    assert_eq!(spans_of(&log, "beside it"), [""], "{log}");
    assert_eq!(spans_of(&log, "after it"), [""], "{log}");
}

#[test]
fn a_child_is_in_the_span_that_its_parent_was_in_unless_its_builder_says_otherwise() {
    let log = run_logged(|_| {
        let request = info_span!("request");
        let (inherits, none, own) = request.in_scope(|| {
            let child = |message: &'static str| {
                move || {
                    yield_now();
                    info!("{message}");
                }
            };
            (
                spawn(child("inherits")),
                Builder::new().span(Span::none()).spawn(child("has none")).unwrap(),
                Builder::new().span(info_span!(parent: None, "own")).spawn(child("has its own")).unwrap(),
            )
        });
        info!("the parent has left it");
        for child in [inherits, none, own] {
            child.join().unwrap();
        }
    });
    assert_eq!(spans_of(&log, "inherits"), ["request"], "{log}");
    assert_eq!(spans_of(&log, "has none"), [""], "{log}");
    assert_eq!(spans_of(&log, "has its own"), ["own"], "{log}");
    assert_eq!(spans_of(&log, "the parent has left it"), [""], "{log}");
}

#[test]
fn a_coroutine_that_unwinds_leaves_its_spans_behind() {
    let log = run_logged(|_| {
        let inside = |panics: bool| {
            move || {
                let _span = info_span!("ended").entered();
                yield_now();
                assert!(!panics, "on purpose");
                sleep(std::time::Duration::from_secs(3600));
            }
        };
        assert!(spawn(inside(false)).terminate_and_wait().is_err());
        let panicked = spawn(inside(true));
        assert!(catch_unwind(AssertUnwindSafe(|| panicked.join())).is_err());
        info!("afterwards");
    });
    assert_eq!(spans_of(&log, "afterwards"), [""], "{log}");
}

#[test]
fn a_span_is_closed_when_the_last_coroutine_has_left_it() {
    use tracing_subscriber::fmt::format::FmtSpan;
    let log = support::Log::default();
    let writer = log.clone();
    let _alone = support::alone();
    reactor::run(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_span_events(FmtSpan::CLOSE)
            .with_writer(std::sync::Mutex::new(writer))
            .finish();
        let _default = tracing::subscriber::set_default(subscriber);
        let child = info_span!("shared").in_scope(|| spawn(|| (0..3).for_each(|_| yield_now())));
        assert!(!log.text().contains("close"), "{}", log.text());
        child.join().unwrap();
        assert_eq!(log.text().matches("close").count(), 1, "{}", log.text());
    });
}
