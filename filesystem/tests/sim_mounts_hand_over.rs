//! The drive goes from one machine to another: unmounted here and mounted there, over a slow line, after a long absence.
//!
//! Once the newcomer waited ten seconds for a mount that was alone, and then opened old files, while the other was storing
//! what it had closed all the time; and one that came back after a long absence closed files that the other, believing that
//! it was alone, did not look for.

mod sim;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use filesystem::{Inode, Operations, Volume};
use reactor::sim::{SimConfig, World, check};

use sim::pair::{Pair, close_file, found, options};

/// Three leases: far longer than a newcomer waits for one that is silent.
const SLOW: Duration = Duration::from_secs(30);

/// The first machine has closed a file that takes long to store, alone, when the second comes.
fn slow_hand_over(world: &World, unmounts: bool, is_committing: bool, failing_puts: u32) {
    let story = Pair::begin(world);
    let is_closed = Rc::new(Cell::new(false));
    let (of_first, closed) = (story.clone(), is_closed.clone());
    let first = story.hosts[0].start(move || {
        let mut options = options(0);
        if failing_puts > 0 {
            // The newcomer alone is what makes it store anything.
            options.commit_interval = Duration::from_secs(600);
        }
        let store = of_first.cloud.reach(0);
        let volume = Volume::open(store, of_first.keys.clone(), options).expect("it opens");
        of_first.cloud.slow.borrow_mut().insert(0, SLOW);
        if is_committing {
            close_file(&volume, b"other", b"on its way").expect("it is closed");
            reactor::sleep(Duration::from_millis(1500));
        }
        close_file(&volume, b"file", b"new").expect("it is closed");
        assert!(volume.sharing().is_alone(), "and waited for nobody");
        of_first.cloud.failing_puts.borrow_mut().insert(0, failing_puts);
        closed.set(true);
        if !unmounts {
            reactor::sleep(Duration::from_secs(300));
        }
        volume.close().stored().expect("nothing is left");
    });
    while !is_closed.get() {
        reactor::sleep(Duration::from_millis(10));
    }
    story.on(1, |story| {
        let volume = story.open(1);
        assert_eq!(found(&volume, b"file"), "new");
        volume.close().stored().expect("nothing is left");
    });
    first.wait();
}

#[test]
fn a_newcomer_waits_for_one_that_stores_slowly() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        for is_committing in [false, true] {
            slow_hand_over(world, false, is_committing, 0);
        }
    });
}

#[test]
fn a_newcomer_waits_for_one_that_stores_slowly_and_not_at_once() {
    check(&SimConfig::default(), sim::seeds(3), |world| slow_hand_over(world, false, false, 1));
}

#[test]
fn a_newcomer_waits_for_one_that_is_unmounted_and_stores_slowly() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        for is_committing in [false, true] {
            slow_hand_over(world, true, is_committing, 0);
        }
    });
}

#[test]
fn what_one_closes_after_a_long_absence_is_looked_for() {
    check(&SimConfig::default(), sim::seeds(10), |world| {
        let story = Pair::begin(world);
        let (is_back, is_closed) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (of_first, back, closed) = (story.clone(), is_back.clone(), is_closed.clone());
        let first = story.hosts[0].start(move || {
            let volume = of_first.open(0);
            // Opened before all this: only the close can wait for the other.
            let inode = volume.lookup(Inode::ROOT, b"file").expect("it is there").inode;
            volume.remember(inode);
            volume.open(inode).expect("it opens");
            reactor::sleep(Duration::from_secs(5));
            // Cut off until the other has struck it out.
            of_first.cloud.cut(0, true);
            while !back.get() {
                reactor::sleep(Duration::from_secs(1));
            }
            of_first.cloud.cut(0, false);
            volume.write(inode, 0, b"from the absent", false).expect("it is written");
            volume.flush(inode).expect("it is closed");
            closed.set(true);
            reactor::sleep(Duration::from_secs(60));
            volume.close().stored().expect("nothing is left");
        });
        story.on(1, move |story| {
            let volume = story.open(1);
            while !volume.sharing().is_alone() {
                close_file(&volume, b"own", b"work").expect("it is closed");
                reactor::sleep(Duration::from_secs(1));
            }
            is_back.set(true);
            while !is_closed.get() {
                reactor::sleep(Duration::from_millis(20));
            }
            assert_eq!(found(&volume, b"file"), "from the absent");
            volume.close().stored().expect("nothing is left");
        });
        first.wait();
    });
}

/// One that was struck out comes back while the other, alone since, stores for far longer than one waits for the nodes.
#[test]
fn who_comes_back_waits_for_as_long_as_the_other_says_that_it_stores() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let story = Pair::begin(world);
        let is_back = Rc::new(Cell::new(false));
        let (of_first, back) = (story.clone(), is_back.clone());
        let first = story.hosts[0].start(move || {
            let volume = of_first.open(0);
            reactor::sleep(Duration::from_secs(5));
            of_first.cloud.cut(0, true);
            while !back.get() {
                reactor::sleep(Duration::from_secs(1));
            }
            of_first.cloud.cut(0, false);
            // It looks about each second, and finds itself struck out.
            reactor::sleep(Duration::from_secs(5));
            assert_eq!(found(&volume, b"file"), "closed alone");
            volume.close().stored().expect("nothing is left");
        });
        let other = story.hosts[1].clone();
        let of_second = story.clone();
        let second = other.start(move || {
            let volume = of_second.open(1);
            while !volume.sharing().is_alone() {
                close_file(&volume, b"own", b"work").expect("it is closed");
                reactor::sleep(Duration::from_secs(1));
            }
            of_second.cloud.slow.borrow_mut().insert(1, 2 * SLOW);
            close_file(&volume, b"file", b"closed alone").expect("it is closed");
            assert!(volume.sharing().is_alone(), "and waited for nobody");
            is_back.set(true);
            reactor::sleep(Duration::from_secs(300));
            volume.close().stored().expect("nothing is left");
        });
        first.wait();
        second.wait();
    });
}

#[test]
fn an_idle_mount_whose_nodes_went_away_ends_with_everything_stored() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let story = Pair::begin(world);
        let (of_second, is_there) = (story.clone(), Rc::new(Cell::new(false)));
        let there = is_there.clone();
        let second = story.hosts[1].start(move || {
            let _volume = of_second.open(1);
            there.set(true);
            reactor::sleep(Duration::from_secs(3600));
        });
        story.on(0, move |story| {
            let volume = story.open(0);
            while !is_there.get() {
                reactor::sleep(Duration::from_secs(1));
            }
            close_file(&volume, b"file", b"stored").expect("it is closed");
            // It has something to ask of the other, and nobody takes it.
            reactor::sleep(Duration::from_secs(10));
            story.cloud.cut(0, true);
            reactor::sleep(Duration::from_secs(60));
            volume.sync(None, false).expect("there is nothing to store");
            volume.close().stored().expect("everything is stored");
        });
        story.hosts[1].kill();
        drop(second);
    });
}

#[test]
fn what_was_closed_alone_outlives_the_process() {
    check(&SimConfig::default(), sim::seeds(5), |world| {
        let story = Pair::begin(world);
        let is_closed = Rc::new(Cell::new(false));
        let (of_first, closed) = (story.clone(), is_closed.clone());
        let first = story.hosts[0].start(move || {
            let volume = of_first.open(0);
            close_file(&volume, b"file", b"one").expect("it is closed");
            close_file(&volume, b"file", b"two").expect("it is closed");
            assert!(volume.sharing().is_alone(), "and waited for nobody");
            closed.set(true);
            reactor::sleep(Duration::from_secs(3600));
        });
        while !is_closed.get() {
            reactor::sleep(Duration::from_millis(1));
        }
        story.hosts[0].kill();
        drop(first);
        story.on(0, |story| {
            let volume = story.open(0);
            assert_eq!(found(&volume, b"file"), "two");
            volume.close().stored().expect("nothing is left");
        });
        story.on(1, |story| {
            let volume = story.open(1);
            assert_eq!(found(&volume, b"file"), "two");
            volume.close().stored().expect("nothing is left");
        });
    });
}

#[test]
fn a_close_while_the_nodes_take_nothing_is_kept() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let story = Pair::begin(world);
        let is_closed = Rc::new(Cell::new(false));
        let (of_first, closed) = (story.clone(), is_closed.clone());
        let first = story.hosts[0].start(move || {
            let volume = of_first.open(0);
            of_first.cloud.mute.borrow_mut().insert(0);
            close_file(&volume, b"file", b"one").expect("it is closed");
            while volume.pending().trouble.is_none() {
                reactor::sleep(Duration::from_millis(100));
            }
            close_file(&volume, b"file", b"two").expect("the nodes are not asked");
            assert!(volume.sharing().is_alone(), "they were not");
            closed.set(true);
            reactor::sleep(Duration::from_secs(3600));
        });
        while !is_closed.get() {
            reactor::sleep(Duration::from_millis(1));
        }
        story.hosts[0].kill();
        drop(first);
        story.cloud.mute.borrow_mut().clear();
        story.on(0, |story| {
            let volume = story.open(0);
            assert_eq!(found(&volume, b"file"), "two");
            volume.close().stored().expect("nothing is left");
        });
    });
}

#[test]
fn a_mount_that_cannot_be_announced_ends_all_the_same() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let story = Pair::begin(world);
        story.on(0, |story| {
            story.cloud.mute.borrow_mut().insert(0);
            let volume = story.open(0);
            assert_eq!(found(&volume, b"file"), "old");
            let ending = reactor::timeout(Duration::from_secs(600), || volume.close());
            ending.expect("it ends").stored().expect("there is nothing to store");
        });
    });
}

#[test]
fn a_full_network_keeps_nobody_waiting() {
    check(&SimConfig::default(), sim::seeds(3), |world| {
        let story = Pair::begin(world);
        story.on(0, |story| {
            story.cloud.full.set(true);
            let begun = reactor::now();
            let volume = story.open(0);
            assert_eq!(found(&volume, b"file"), "old");
            volume.close().stored().expect("there is nothing to store");
            let waited = reactor::now() - begun;
            assert!(waited < Duration::from_secs(1), "{waited:?} for what time does not change");
        });
    });
}

#[test]
fn one_that_is_never_told_that_another_has_stored_waits_once() {
    check(&SimConfig::default(), sim::seeds(1), |world| {
        let story = Pair::begin(world);
        let is_closed = Rc::new(Cell::new(false));
        let (of_first, closed) = (story.clone(), is_closed.clone());
        let first = story.hosts[0].start(move || {
            let volume = of_first.open(0);
            of_first.cloud.slow.borrow_mut().insert(0, Duration::from_secs(3600));
            close_file(&volume, b"file", b"new").expect("it is closed");
            closed.set(true);
            reactor::sleep(Duration::from_secs(7200));
        });
        while !is_closed.get() {
            reactor::sleep(Duration::from_millis(10));
        }
        story.on(1, |story| {
            let volume = story.open(1);
            let begun = reactor::now();
            for _ in 0..20 {
                assert_eq!(found(&volume, b"file"), "old");
            }
            let waited = reactor::now() - begun;
            assert!(waited < Duration::from_secs(60), "20 opens take {waited:?}");
            volume.close().stored().expect("nothing is left");
        });
        story.hosts[0].kill();
        drop(first);
    });
}

#[test]
fn one_that_is_killed_again_and_again_need_not_wait_for_itself() {
    check(&SimConfig::default(), sim::seeds(1), |world| {
        for lived_ms in (0..400).step_by(20) {
            let story = Pair::begin(world);
            for life in [Duration::from_secs(60), Duration::from_millis(lived_ms)] {
                let of_killed = story.clone();
                let killed = story.hosts[0].start(move || {
                    let _volume = of_killed.open(0);
                    reactor::sleep(Duration::from_secs(3600));
                });
                reactor::sleep(life);
                story.hosts[0].kill();
                drop(killed);
            }
            story.on(0, move |story| {
                let begun = reactor::now();
                let volume = story.open(0);
                let waited = reactor::now() - begun;
                assert!(waited < Duration::from_secs(5), "{waited:?} after a life of {lived_ms} ms");
                volume.close().stored().expect("nothing is left");
            });
        }
    });
}
