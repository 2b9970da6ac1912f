//! What TLS has sealed leaves, whoever reads meanwhile, or does not: a write or an end that was broken off by a timeout has sealed
//! records that its peer can't do without.
//!
//! Once only a read that began later brought them on their way, and only until the first byte came. A reader that was parked
//! already waited for the answer to a request of which half had left; and of an end that was broken off nothing left at all.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use reactor::crypto::Identity;
use reactor::net::tls::{self, Expect, TlsStream};
use reactor::net::{Duplex, Pipe, Presence, pipe};
use reactor::suspension::break_off_at;
use reactor::{run, spawn, timeout, yield_now};

/// What should never take so long, even on a machine that is busy; a hang fails by it.
const PATIENCE: Duration = Duration::from_secs(100);

type Stream = Rc<TlsStream<Pipe>>;

fn in_time<T>(f: impl FnOnce() -> T) -> T {
    timeout(PATIENCE, f).expect("it hangs")
}

/// Both ends of TLS over a stream that holds little.
fn tls_pair() -> (Stream, Stream) {
    let (client, server) = (Rc::new(Identity::generate()), Rc::new(Identity::generate()));
    let (near, far) = pipe(400);
    let key = server.public_key();
    let accepting = spawn(move || tls::accept(far, &server).unwrap());
    let near = tls::connect(near, &client, Expect::Key(key)).unwrap();
    (Rc::new(near), Rc::new(accepting.join().unwrap()))
}

/// Bytes of which none looks like its neighbours.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| ((at * 2_654_435_761) >> 11) as u8).collect()
}

fn write_all(stream: &dyn Duplex, bytes: &[u8]) -> io::Result<()> {
    stream.write_slices(&mut [io::IoSlice::new(bytes)])
}

fn read(stream: &dyn Duplex, count: usize) -> Vec<u8> {
    let mut all = vec![0; count];
    let mut filled = 0;
    while filled < count {
        let size = stream.read_some(&mut all[filled..]).unwrap();
        assert!(size > 0, "it ended after {filled} bytes");
        filled += size;
    }
    all
}

/// Has a write broken off that the other end does not read: all of it is sealed, and hardly anything has left.
fn leave_half_written(stream: &TlsStream<Pipe>, data: &[u8]) {
    assert!(timeout(Duration::from_millis(1), || write_all(stream, data)).is_err());
}

#[test]
fn a_request_whose_write_was_broken_off_comes_though_its_answer_is_waited_for_already() {
    run(|| {
        let (near, far) = tls_pair();
        let request = bytes(50_000);
        let answer = spawn({
            let near = near.clone();
            move || read(&*near, 6)
        });
        leave_half_written(&near, &request);
        in_time(|| {
            assert!(read(&*far, request.len()) == request);
            write_all(&*far, b"answer").unwrap();
            assert_eq!(answer.join().unwrap(), b"answer");
        });
    });
}

#[test]
fn it_comes_though_nobody_reads_any_more_or_ever_did() {
    run(|| {
        for has_read in [false, true] {
            let (near, far) = tls_pair();
            let request = bytes(50_000);
            leave_half_written(&near, &request);
            in_time(|| {
                if has_read {
                    write_all(&*far, b"?").unwrap();
                    assert_eq!(read(&*near, 1), b"?");
                }
                assert!(read(&*far, request.len()) == request);
            });
            // And it is written to as ever.
            let more = spawn(move || write_all(&*near, &bytes(3_000)));
            in_time(|| assert!(read(&*far, 3_000) == bytes(3_000)));
            more.join().unwrap().unwrap();
        }
    });
}

#[test]
fn an_end_that_was_broken_off_comes_behind_all_that_was_written() {
    run(|| {
        let (near, far) = tls_pair();
        let last_words = bytes(50_000);
        leave_half_written(&near, &last_words);
        assert!(timeout(Duration::from_millis(1), || near.end()).is_err());
        let end = spawn({
            let near = near.clone();
            move || near.read_some(&mut [0])
        });
        in_time(|| {
            assert!(read(&*far, last_words.len()) == last_words);
            assert_eq!(far.read_some(&mut [0]).unwrap(), 0, "it ends, and says so");
            while far.watch_peer().unwrap().presence() == Presence::Here {
                // The stream below ends too.
                yield_now();
            }
            far.end().unwrap();
            assert_eq!(end.join().unwrap().unwrap(), 0);
        });
        assert_eq!(write_all(&*near, b"late").unwrap_err().kind(), ErrorKind::BrokenPipe);
        near.end().unwrap();
    });
}

#[test]
fn wherever_a_write_and_an_end_are_broken_off_all_that_was_taken_comes_whole() {
    run(|| {
        let words = bytes(2_000);
        let mut torn_count = 0;
        for place in 0.. {
            let (near, far) = tls_pair();
            let reading = spawn(move || {
                let (mut all, mut buffer) = (Vec::new(), [0; 97]);
                loop {
                    match far.read_some(&mut buffer).expect("an end that was said") {
                        0 => return all,
                        size => all.extend_from_slice(&buffer[..size]),
                    }
                }
            });
            let whole = break_off_at(place, || {
                write_all(&*near, &words).unwrap();
                near.end().unwrap();
            });
            // Where it has not begun to end.
            let ended = in_time(|| near.end());
            let read = in_time(|| reading.join().unwrap());
            assert!(ended.is_ok() && (read.is_empty() || read == words), "place {place}: {}", read.len());
            if whole.is_some() {
                assert!(read == words);
                break;
            }
            torn_count += usize::from(read == words);
        }
        assert!(torn_count > 3, "{torn_count}");
    });
}

#[test]
fn a_write_that_waits_while_what_was_owed_leaves_succeeds() {
    run(|| {
        // Who of the two writes the last record is left to chance.
        for size in 1..60 {
            let (near, far) = tls_pair();
            let owed = bytes(700);
            leave_half_written(&near, &owed);
            let more = bytes(size);
            let writing = spawn({
                let more = more.clone();
                move || {
                    write_all(&*near, &more)?;
                    near.end()
                }
            });
            in_time(|| {
                assert!(read(&*far, owed.len() + size) == [owed, more].concat());
                writing.join().unwrap().unwrap();
            });
        }
    });
}

#[test]
fn a_stream_that_is_dropped_while_it_owes_something_has_broken_off() {
    run(|| {
        let (near, far) = tls_pair();
        leave_half_written(&near, &bytes(50_000));
        drop(near);
        let mut all = 0;
        let error = in_time(|| {
            loop {
                match far.read_some(&mut [0; 1_000]) {
                    Ok(0) => panic!("an end that nobody said"),
                    Ok(size) => all += size,
                    Err(error) => return error,
                }
            }
        });
        assert!(all < 50_000, "{error}");
        in_time(|| {
            while far.watch_peer().unwrap().presence() != Presence::Gone {
                yield_now();
            }
        });
    });
}
