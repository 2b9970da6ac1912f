//! A borrow that is held over a call that may suspend is told in debug builds, where it was made, whether the call has to wait
//! or not. In an earlier reactor it was a panic of somebody else, who came by the same cell at the end of a turn: on a busy
//! day, and in no test.
#![cfg(debug_assertions)]

use std::io::{Read, Write};
use std::mem::forget;
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::{Ref, RefCell, RefMut};
use reactor::net::UnixStream;
use reactor::suspension::forbid_suspend;
use reactor::sync::{Mutex, OnceCell, RwLock, Semaphore, channel, watch};
use reactor::{
    Builder, Terminated, catch_panic, offload, scope, select, sleep, spawn, timeout, uninterruptible,
    yield_now,
};

fn run(story: impl FnOnce() + Send) {
    if std::env::var_os("HYPHA_BORROWS").is_some() {
        eprintln!("\n*** SKIPPED: with HYPHA_BORROWS nothing is a panic that is told here\n");
        return;
    }
    reactor::run(story);
}

/// What `f` panics with.
#[track_caller]
fn told(f: impl FnOnce()) -> String {
    let payload = catch_panic(f).expect_err("it was told of nothing");
    payload.downcast_ref::<String>().expect("a message").clone()
}

fn assert_told(what: &str, call: impl FnOnce()) {
    let cell = RefCell::new(1);
    let (held, line) = (cell.borrow(), line!());
    let message = told(call);
    assert!(message.contains(&format!("borrowed at {}:{line}:", file!())), "{what}: {message}");
    drop(held);
}

#[test]
fn each_of_two_parts_of_a_borrow_is_told_of() {
    run(|| {
        let (sender, _receiver) = channel(8);
        let cell = RefCell::new((1, 2));
        assert!(!cell.as_ptr().is_null());
        let (left, right) = Ref::map_split(cell.borrow(), |(left, right)| (left, right));
        assert_eq!((*left, *right), (1, 2));
        drop(left);
        told(|| sender.send(1).unwrap());
        drop(right);
        let (mut left, mut right) = RefMut::map_split(cell.borrow_mut(), |(left, right)| (left, right));
        (*left, *right) = (3, 4);
        drop(right);
        told(|| sender.send(2).unwrap());
        drop(left);
        sender.send(3).unwrap();
        assert_eq!(cell.into_inner(), (3, 4));
    });
}

#[test]
fn a_borrow_held_over_a_call_that_need_not_wait_is_told_with_its_place() {
    run(|| {
        let (sender, receiver) = channel(8);
        sender.send(1).unwrap();
        assert_told("send", || sender.send(2).unwrap());
        assert_told("recv", || assert!(receiver.recv().is_ok()));
        assert_told("select", || assert_eq!(select(&[&receiver]), 0));
        let (near, far) = UnixStream::pair().unwrap();
        assert_told("write", || assert!((&near).write(b"x").is_ok()));
        (&near).write_all(b"x").unwrap();
        assert_told("read", || assert!((&far).read(&mut [0]).is_ok()));
        assert_told("a mutex", || drop(Mutex::new(1).lock()));
        assert_told("a lock to read", || drop(RwLock::new(1).read()));
        assert_told("a lock to write", || drop(RwLock::new(1).write()));
        assert_told("a semaphore", || drop(Semaphore::new(1).acquire()));
        assert_told("a cell that is made once", || assert_eq!(OnceCell::new().get_or_init(|| 7), &7));
        let (news, watcher) = watch(1);
        news.set(2);
        assert_told("a watch", || assert!(watcher.changed().is_ok()));
        let ended = spawn(|| ());
        assert_told("join", || assert_eq!(ended.join(), Ok(())));
        assert_told("scope", || scope(|_| ()));
        assert_told("offload", || offload(|| ()));
        // What was refused has taken nothing, and is no matter once the borrow has ended.
        assert_eq!(receiver.recv(), Ok(1));
    });
}

#[test]
fn a_borrow_held_over_a_wait_is_told_with_its_place_and_its_coroutine() {
    run(|| {
        assert_told("a turn", yield_now);
        assert_told("a nap", || sleep(Duration::from_millis(1)));
        assert_told("a nap with a bound", || {
            let _ = timeout(Duration::from_secs(60), || sleep(Duration::from_millis(1)));
        });
        assert_told("a nap that nothing interrupts", || uninterruptible(|| sleep(Duration::from_millis(1))));
        let (sender, _receiver) = channel(1);
        let builder = Builder::new().name("forgetful");
        let child = builder.spawn(move || {
            let cell = RefCell::new(1);
            told(|| {
                let _held = cell.borrow_mut();
                sender.send(1).unwrap();
            })
        });
        let message = child.unwrap().join().unwrap();
        assert!(message.contains("the coroutine forgetful ("), "{message}");
        assert!(message.contains(file!()), "{message}");
    });
}

#[test]
fn what_an_argument_or_the_head_of_a_block_borrows_is_told_too() {
    run(|| {
        let (sender, _receiver) = channel(100);
        let numbers = RefCell::new(vec![1, 2, 3]);
        told(|| sender.send(numbers.borrow()[0]).unwrap());
        told(|| numbers.borrow().iter().for_each(|number| sender.send(*number).unwrap()));
        told(|| {
            for number in std::mem::take(&mut *numbers.borrow_mut()) {
                sender.send(number).unwrap();
            }
        });
        numbers.borrow_mut().push(4);
        told(|| {
            while let Some(number) = numbers.borrow_mut().pop() {
                sender.send(number).unwrap();
            }
        });
        let first = numbers.borrow().first().copied();
        sender.send(first.unwrap_or_default()).unwrap();
    });
}

#[test]
fn parts_and_copies_of_a_borrow_count_until_the_last_is_dropped() {
    run(|| {
        let (sender, _receiver) = channel(100);
        let send = || sender.send(1).unwrap();
        let pair = RefCell::new((1, Some(2)));
        let first = Ref::map(pair.borrow(), |pair| &pair.0);
        told(send);
        let again = Ref::clone(&first);
        drop(first);
        told(send);
        drop(again);
        send();
        let Ok(second) = RefMut::filter_map(pair.borrow_mut(), |pair| pair.1.as_mut()) else {
            unreachable!()
        };
        told(send);
        drop(second);
        send();
        pair.borrow_mut().1 = None;
        let Err(whole) = Ref::filter_map(pair.borrow(), |pair| pair.1.as_ref()) else { unreachable!() };
        told(send);
        drop(whole);
        let changed = RefMut::map(pair.borrow_mut(), |pair| &mut pair.0);
        told(send);
        drop(changed);
        assert!(pair.try_borrow().is_ok_and(|_shared| pair.try_borrow_mut().is_err()));
        send();
    });
}

#[test]
fn what_never_suspends_may_be_called_under_a_borrow() {
    run(|| {
        let (sender, receiver) = channel(1);
        let (mutex, ended) = (Mutex::new(1), spawn(|| sleep(Duration::from_secs(60))));
        let cell = Rc::new(RefCell::new(0));
        for _ in 0..1_000 {
            *cell.borrow_mut() += 1;
            let number = *cell.borrow();
            sender.send(number).unwrap();
            let received = receiver.recv().unwrap();
            assert_eq!(received, *cell.borrow());
        }
        let mut held = cell.borrow_mut();
        sender.try_send(1).unwrap();
        *held += receiver.try_recv().unwrap();
        drop(mutex.try_lock().unwrap());
        ended.terminate();
        sender.close();
        let child = spawn(|| 7);
        drop(held);
        assert_eq!((child.join(), ended.join()), (Ok(7), Err(Terminated)));
    });
}

#[test]
fn a_borrow_is_no_matter_of_other_coroutines() {
    run(|| {
        let (sender, receiver) = channel(1);
        let cell = Rc::new(RefCell::new(1));
        let held = cell.borrow();
        // It runs at once, nested in its parent, until it has to wait.
        let child = spawn(move || {
            for number in 0..1_000 {
                sender.send(number).unwrap();
            }
        });
        let (near, far) = UnixStream::pair().unwrap();
        let talks = spawn(move || {
            (&near).write_all(b"x").unwrap();
            (&near).read(&mut [0]).unwrap()
        });
        drop(held);
        assert_eq!((0..1_000).filter(|number| receiver.recv() == Ok(*number)).count(), 1_000);
        child.join().unwrap();
        (&far).write_all(b"y").unwrap();
        assert_eq!(talks.join(), Ok(1));
    });
}

#[test]
fn a_borrow_that_is_moved_to_another_coroutine_counts_until_it_is_dropped_there() {
    run(|| {
        let (cell, (sender, receiver)) = (RefCell::new(1), channel(8));
        scope(|s| {
            let held = cell.borrow_mut();
            s.spawn(|| {
                let mut held = held;
                // It is not this one's, which need not wait for anybody.
                sender.send(*held).unwrap();
                *held += 1;
            });
            // By now that has ended, and the borrow with it.
            let number = *cell.borrow();
            sender.send(number).unwrap();
            assert_eq!((receiver.recv(), receiver.recv()), (Ok(1), Ok(2)));
        });
    });
}

#[test]
fn whoever_unwinds_is_told_of_nothing_more() {
    struct SaysGoodbye(reactor::sync::Sender<u32>);
    impl Drop for SaysGoodbye {
        fn drop(&mut self) {
            let _ = self.0.send(1);
            yield_now();
        }
    }
    run(|| {
        let (sender, receiver) = channel(8);
        let cell = Rc::new(RefCell::new(1));
        let (kept, said) = (cell.clone(), sender.clone());
        let panics = catch_panic(move || {
            let _held = kept.borrow_mut();
            let _said_under_it = SaysGoodbye(said);
            panic!("its own");
        });
        assert_eq!(panics.unwrap_err().downcast_ref(), Some(&"its own"));
        assert_eq!((receiver.recv(), *cell.borrow()), (Ok(1), 1));
        // The borrow that was told of ended as the call unwound.
        told(|| {
            let _held = cell.borrow_mut();
            let _said_under_it = SaysGoodbye(sender.clone());
            sender.send(2).unwrap();
        });
        assert_eq!((receiver.recv(), receiver.try_recv()), (Ok(1), None));
    });
}

#[test]
fn what_a_watch_lets_go_of_is_dropped_under_no_borrow() {
    struct Farewell(reactor::sync::Sender<u32>, u32);
    impl Drop for Farewell {
        fn drop(&mut self) {
            self.0.send(self.1).unwrap();
        }
    }
    run(|| {
        let (sender, receiver) = channel(8);
        let (latest, watcher) = watch(Farewell(sender.clone(), 1));
        latest.set(Farewell(sender, 2));
        assert_eq!((receiver.recv(), watcher.with(|farewell| farewell.1)), (Ok(1), 2));
    });
}

#[test]
fn a_leaked_borrow_is_its_coroutines_for_ever_and_keeps_nobody_from_its_end() {
    run(|| {
        let (sender, receiver) = channel(1);
        let child = spawn(move || {
            forget(RefCell::new(1).borrow());
            told(|| sender.send(1).unwrap());
            told(yield_now);
        });
        child.join().unwrap();
        assert!(receiver.recv().is_err());
        let stays = spawn(move || sleep(Duration::from_secs(60)));
        forget(RefCell::new(1).borrow());
        told(|| {
            let _ = stays.terminate_and_wait();
        });
        // Others are yet to end, for which the run waits.
    });
}

#[test]
fn a_scope_that_is_left_with_a_borrow_is_told_and_waits_for_its_children() {
    run(|| {
        let (cell, ended) = (RefCell::new(1), RefCell::new(false));
        let message = told(|| {
            let held = scope(|s| {
                s.spawn(|| {
                    let _ends = Ends(&ended);
                    sleep(Duration::from_secs(60));
                });
                cell.borrow()
            });
            drop(held);
        });
        assert!(message.contains("borrowed at"), "{message}");
        assert!(*ended.borrow(), "the child has ended first");
    });

    struct Ends<'a>(&'a RefCell<bool>);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            *self.0.borrow_mut() = true;
        }
    }
}

#[test]
fn in_a_section_that_must_not_suspend_a_borrow_may_be_held_over_what_goes_through() {
    run(|| {
        let (sender, receiver) = channel(1_000);
        let cell = RefCell::new(1);
        let section = forbid_suspend("the table is half moved");
        let held = cell.borrow_mut();
        // More than a turn's worth.
        (0..500).for_each(|number| sender.send(number).unwrap());
        let message = told(|| sleep(Duration::from_millis(1)));
        assert!(message.contains("this would suspend while the table is half moved"), "{message}");
        drop(section);
        told(|| sender.send(1).unwrap());
        drop(held);
        sender.send(1).unwrap();
        assert_eq!(receiver.drain().count(), 501);
    });
}

#[test]
fn outside_of_coroutines_nothing_is_counted() {
    let cell = RefCell::new(1);
    let held = cell.borrow();
    run(|| {
        yield_now();
        // Another thread has no coroutine.
        let sum = offload(|| {
            let cell = RefCell::new(1);
            let held = cell.borrow();
            std::thread::yield_now();
            *held + 1
        });
        assert_eq!(sum, 2);
    });
    assert_eq!(*held, 1);
}
