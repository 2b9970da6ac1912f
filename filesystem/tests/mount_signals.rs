//! Signals while a program waits for the drive: those that kill it end the wait, no other does.
//!
//! Once every signal ended it: a timer's, a child's, the ones that Go's scheduler sends itself. `read` of a regular file
//! failed with EINTR, which no local file system lets happen and hardly a program expects.

mod support;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use filesystem::Inode;
use filesystem::operations::{Credentials, FileKind, Operations};
use support::memory::MemoryFs;
use support::{have, with_fs};

/// Reads ten bytes while an alarm rings every 20 ms, and prints how many it got.
const READ_WITH_ALARMS: &str = r#"
    use Time::HiRes qw(setitimer ITIMER_REAL);
    my $rang = 0;
    $SIG{ALRM} = sub { $rang++; syswrite(STDOUT, "r") if $rang == 1 };
    open(my $file, '<', 'file') or die "open: $!";
    setitimer(ITIMER_REAL, 0.02, 0.02);
    my $got = sysread($file, my $bytes, 10);
    die "read: $!" unless defined $got;
    print "$got\n";
"#;

fn slow_fs(read_delay: Duration) -> MemoryFs {
    let fs = MemoryFs::default();
    let credentials = Credentials { uid: 0, gid: 0, umask: 0 };
    let file = fs.make_node(Inode::ROOT, b"file", FileKind::Regular, 0o644, 0, &credentials).unwrap();
    fs.write(file.inode, 0, b"0123456789", false).unwrap();
    fs.read_delay.set(read_delay);
    fs
}

#[test]
fn a_signal_that_does_not_kill_interrupts_nothing() {
    if !have("perl") {
        return;
    }
    with_fs(
        || slow_fs(Duration::from_millis(400)),
        |root| {
            let output =
                Command::new("perl").args(["-e", READ_WITH_ALARMS]).current_dir(root).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
            assert!(String::from_utf8_lossy(&output.stdout).ends_with("10\n"));
        },
    );
}

#[test]
fn a_kill_ends_the_wait_even_after_a_signal_that_did_not() {
    if !have("perl") {
        return;
    }
    const READ_DELAY: Duration = Duration::from_secs(600);
    with_fs(
        || slow_fs(READ_DELAY),
        |root| {
            let begun = Instant::now();
            let mut reader = Command::new("perl")
                .args(["-e", READ_WITH_ALARMS])
                .current_dir(root)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // The kernel tells the server of the first signal of a wait only, and perl's handler runs after the wait: so
            // the alarm is known to have rung by the time that has passed.
            std::thread::sleep(Duration::from_millis(500));
            reader.kill().unwrap();
            assert_eq!(reader.wait().unwrap().signal(), Some(9));
            assert!(begun.elapsed() < READ_DELAY / 2, "it waited for the file system");
            let mut said = String::new();
            reader.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            assert_eq!(said, "", "the read was never over");
        },
    );
}

/// Waits until `count` is `many`; what it is then, or after longer than anything takes.
fn until(count: &AtomicUsize, many: usize) -> usize {
    for _ in 0..30_000 {
        if count.load(Ordering::SeqCst) >= many {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    count.load(Ordering::SeqCst)
}

/// Once whoever had handled such a request died later, of what it had not seen, as it waited for its turn to read from the
/// kernel: it was counted as waiting for ever, so that nobody took its place, and requests went one after another.
#[test]
fn a_request_that_is_given_up_and_does_not_see_it_costs_nobody_a_reader() {
    const READERS: usize = 6;
    let (tell, told) = mpsc::channel();
    let fs = move || {
        let fs = MemoryFs::default();
        tell.send(fs.gate.clone()).unwrap();
        let credentials = Credentials { uid: 0, gid: 0, umask: 0 };
        for reader in 0..READERS {
            let name = format!("file{reader}");
            let file = fs.make_node(Inode::ROOT, name.as_bytes(), FileKind::Regular, 0o644, 0, &credentials);
            fs.write(file.unwrap().inode, 0, b"0123456789", false).unwrap();
        }
        fs
    };
    with_fs(fs, move |root| {
        let seen = told.recv().unwrap();
        for killed in 1..=3 {
            seen.shields_lookups.store(true, Ordering::SeqCst);
            let mut looks = Command::new("stat").arg(root.join(format!("nothing{killed}"))).spawn().unwrap();
            assert_eq!(until(&seen.shielded_count, killed), killed, "it looks");
            looks.kill().unwrap();
            // Its lookup has been answered, or it would be there yet.
            assert_eq!(looks.wait().unwrap().signal(), Some(9));
            seen.shields_lookups.store(false, Ordering::SeqCst);
        }
        // All of them wait at once, for whose request somebody has to read.
        seen.is_closed.store(true, Ordering::SeqCst);
        let read = |reader| Command::new("cat").arg(root.join(format!("file{reader}"))).output().unwrap();
        let (waiting, read) = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS).map(|reader| scope.spawn(move || read(reader))).collect();
            let waiting = until(&seen.waiting_count, READERS);
            seen.is_closed.store(false, Ordering::SeqCst);
            let read: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap().stdout).collect();
            (waiting, read)
        });
        assert_eq!(waiting, READERS, "so many were read from the kernel while the first waited");
        assert_eq!(read, vec![b"0123456789"; READERS]);
    });
}
