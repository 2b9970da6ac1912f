//! A coroutine that is terminated in a blocking call unwinds there, and what it waited for stays as usable as if it
//! had never waited: one test for each kind of call. And what a destructor gets that would block meanwhile.

use std::cell::Cell;
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Duration;

use reactor::cell::RefCell;
use reactor::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use reactor::sync::{
    Barrier, Mutex, OnceCell, RecvError, RwLock, Semaphore, SendError, Signal, channel, watch,
};
use reactor::{Terminated, offload, run, scope, select, sleep, spawn, uninterruptible, yield_now};

const LONG: Duration = Duration::from_secs(3600);

/// Lets `blocks` run into its blocking call, terminates it there, and checks that it unwound.
fn terminate_in<T>(blocks: impl FnOnce() -> T) {
    let (entered, returned) = (Cell::new(false), Cell::new(false));
    scope(|s| {
        let child = s.spawn(|| {
            entered.set(true);
            blocks();
            returned.set(true);
        });
        assert!(entered.get() && !child.is_finished(), "it did not block");
        assert_eq!(child.terminate_and_wait(), Err(Terminated));
    });
    assert!(!returned.get());
}

#[test]
fn a_semaphore_a_mutex_and_a_lock_go_on_without_a_terminated_waiter() {
    run(|| {
        let (places, mutex, lock) = (Semaphore::new(1), Mutex::new(0), RwLock::new(0));
        let held = (places.acquire(), mutex.lock(), lock.write());
        terminate_in(|| drop(places.acquire()));
        terminate_in(|| *mutex.lock() += 1);
        terminate_in(|| *lock.write() += 1);
        terminate_in(|| *lock.read());
        drop(held);
        assert!(places.try_acquire().is_some());
        assert_eq!(mutex.try_lock().as_deref(), Some(&0));
        assert_eq!(lock.try_write().as_deref(), Some(&0));
    });
}

#[test]
fn a_holder_that_is_terminated_lets_the_next_in() {
    run(|| {
        let mutex = Mutex::new(0);
        terminate_in(|| {
            let _held = mutex.lock();
            sleep(LONG);
        });
        assert!(mutex.try_lock().is_some());
    });
}

#[test]
fn a_channel_goes_on_without_a_terminated_sender_or_receiver_and_no_value_is_lost_or_doubled() {
    run(|| {
        let (sender, receiver) = channel(1);
        terminate_in(|| receiver.recv());
        sender.send(1).unwrap();
        terminate_in(|| sender.send(2));
        assert_eq!(receiver.recv(), Ok(1));
        assert_eq!(receiver.try_recv(), None, "the terminated sender's value was not sent");
        sender.send(3).unwrap();
        assert_eq!(receiver.recv(), Ok(3));
    });
}

#[test]
fn signals_gates_watches_and_cells_go_on_without_a_terminated_waiter() {
    run(|| {
        let (signal, gate, cell) = (Signal::new(), Barrier::new(false), OnceCell::new());
        let (watch, watcher) = watch(0);
        watcher.get();
        terminate_in(|| signal.wait());
        terminate_in(|| gate.wait());
        terminate_in(|| watcher.changed());
        terminate_in(|| {
            cell.get_or_init(|| {
                sleep(LONG);
                1
            });
        });
        assert!(!signal.notify_one(), "nobody waits");
        gate.open();
        gate.wait();
        watch.set(1);
        assert_eq!(watcher.changed(), Ok(()));
        assert_eq!(cell.get_or_init(|| 2), &2);
    });
}

#[test]
fn a_coroutine_can_be_joined_after_another_one_that_joined_it_was_terminated() {
    run(|| {
        let joined = spawn(|| {
            sleep(Duration::from_millis(2));
            5
        });
        // A join takes the handle along, so the waiter here waits by `select`.
        terminate_in(|| select(&[&joined]));
        assert_eq!(joined.join(), Ok(5));
    });
}

#[test]
fn a_tcp_connection_whose_reader_is_terminated_reads_on_with_no_byte_lost_or_doubled() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        terminate_in(|| listener.accept());
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (served, _) = listener.accept().unwrap();
        const COUNT: u32 = 2000;
        let writer = spawn(move || {
            for n in 0..COUNT {
                client.write_all(&n.to_le_bytes()).unwrap();
                if n % 3 == 0 {
                    yield_now();
                }
            }
        });
        // Readers come and are terminated at whatever point they are; what they had read they note at once.
        let received = Rc::new(RefCell::new(Vec::new()));
        let served = Rc::new(served);
        let ended = Rc::new(Cell::new(false));
        let mut turns = 0;
        while !ended.get() {
            let (socket, sink, end) = (served.clone(), received.clone(), ended.clone());
            let reader = spawn(move || {
                let mut buffer = [0; 7];
                loop {
                    let count = (&*socket).read(&mut buffer).unwrap();
                    sink.borrow_mut().extend_from_slice(&buffer[..count]);
                    if count == 0 {
                        end.set(true);
                        return;
                    }
                    yield_now();
                }
            });
            turns += 1;
            (0..turns % 5).for_each(|_| yield_now());
            let _ = reader.terminate_and_wait();
        }
        writer.join().unwrap();
        let expected: Vec<u8> = (0..COUNT).flat_map(u32::to_le_bytes).collect();
        assert!(*received.borrow() == expected, "{} bytes of {}", received.borrow().len(), expected.len());
    });
}

#[test]
fn a_connection_whose_writer_is_terminated_writes_on() {
    run(|| {
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = Rc::new(near);
        let written = Rc::new(Cell::new(0usize));
        let (socket, count) = (near.clone(), written.clone());
        let writer = spawn(move || {
            loop {
                count.set(count.get() + (&*socket).write(&[1; 4096]).unwrap());
            }
        });
        assert!(writer.terminate_and_wait().is_err(), "its socket was full");
        let mut left = vec![0; written.get()];
        far.read_exact(&mut left).unwrap();
        (&*near).write_all(b"on").unwrap();
        let mut text = [0; 2];
        far.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"on");
    });
}

#[test]
fn a_datagram_socket_and_a_thread_channel_go_on_without_a_terminated_receiver() {
    run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        terminate_in(|| socket.recv_from(&mut [0; 8]));
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        assert_eq!(socket.recv_from(&mut [0; 8]).unwrap().0, 1);

        let (sender, receiver) = reactor::remote::channel(1);
        terminate_in(|| receiver.recv());
        sender.try_send(3).unwrap();
        assert_eq!(receiver.recv(), Some(3));
    });
}

#[test]
fn blocking_work_whose_waiter_is_terminated_gives_its_place_back() {
    run(|| {
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Arc::new(std::sync::Mutex::new(gate));
        for _ in 0..40 {
            // More than there are threads, so the later ones wait for a place.
            let gate = gate.clone();
            terminate_in(move || offload(move || gate.lock().unwrap().recv().is_ok()));
        }
        drop(release);
        assert_eq!(offload(|| 1), 1);
    });
}

/// Calls its closure when it is dropped.
struct AtDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_destructor_that_would_block_while_its_coroutine_unwinds_fails_at_once() {
    run(|| {
        let (full, empty) = (channel(1), channel::<u32>(1));
        full.0.send(1).unwrap();
        let (signal, gate, mutex) = (Signal::new(), Barrier::new(false), Mutex::new(()));
        let (_watch, watcher) = watch(0);
        watcher.get();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let (_thread, inbox) = reactor::remote::channel::<u32>(1);
        let others = RefCell::new(Some(spawn(|| sleep(LONG))));
        let held = mutex.lock();
        let checked = Cell::new(false);
        terminate_in(|| {
            let _checks = AtDrop(|| {
                sleep(LONG);
                yield_now();
                assert_eq!(empty.1.recv(), Err(RecvError));
                assert_eq!(full.0.send(2), Err(SendError(2)));
                signal.wait();
                gate.wait();
                assert_eq!(watcher.changed(), Err(RecvError));
                assert_eq!((&socket).read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
                assert_eq!(inbox.recv(), None);
                assert_eq!(others.take().unwrap().terminate_and_wait(), Err(Terminated));
                assert!(mutex.try_lock().is_none(), "a lock can only be tried");
                assert_eq!(offload(|| 4), 4, "done here and now");
                checked.set(true);
            });
            sleep(LONG);
        });
        drop(held);
        assert!(checked.get());
    });
}

#[test]
fn a_critical_section_defers_a_termination_also_in_its_blocking_calls() {
    run(|| {
        let (sender, receiver) = channel(1);
        let got = Rc::new(Cell::new(0));
        let note = got.clone();
        let worker = spawn(move || {
            uninterruptible(|| {
                note.set(receiver.recv().unwrap());
                note.set(note.get() + receiver.recv().unwrap());
            });
            yield_now();
            note.set(-1);
        });
        worker.terminate();
        sender.send(1).unwrap();
        yield_now();
        sender.send(2).unwrap();
        assert_eq!(worker.join(), Err(Terminated));
        assert_eq!(got.get(), 3);
    });
}
