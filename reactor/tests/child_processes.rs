//! Child processes: what they are given, how they end, and that nothing is left of them.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use reactor::process::{Child, Command, Stdio};
use reactor::signals::Signal;
use reactor::{run, scope, sleep, spawn, timeout};

fn shell(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

/// Waits until there is no such process, not as a zombie either.
fn wait_until_gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Path::new(&format!("/proc/{pid}")).exists() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        assert!(Instant::now() < deadline, "process {pid} is still there:\n{status}");
        sleep(Duration::from_millis(1));
    }
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn a_program_gets_its_arguments_environment_and_directory_as_given() {
    run(|| {
        let directory = tempfile::tempdir().unwrap();
        let command = shell("printf '%s|' \"$@\" \"$HYPHA_TEST\" \"${HOME-none}\" \"$(pwd -P)\"")
            .args(["name", "two words", "'quoted' $HOME", ""])
            .env("HYPHA_TEST", "a = b")
            .env_remove("HOME")
            .current_dir(directory.path());
        let output = command.output(10_000).unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let expected = format!("two words|'quoted' $HOME||a = b|none|{}|", directory.display());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        assert!(output.status.success());

        let bare = Command::new("/usr/bin/env").env_clear().env("ONLY", "one").output(10_000).unwrap();
        assert_eq!(bare.stdout, b"ONLY=one\n");
    });
}

#[test]
fn a_program_that_cannot_start_is_an_error_at_once() {
    run(|| {
        assert_eq!(Command::new("/no/such/program").spawn().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(Command::new("/etc/passwd").spawn().unwrap_err().kind(), ErrorKind::PermissionDenied);
    });
}

#[test]
fn its_exit_code_or_the_signal_that_ended_it_is_told() {
    run(|| {
        assert_eq!(shell("exit 0").spawn().unwrap().wait().unwrap().code(), Some(0));
        assert_eq!(shell("exit 200").spawn().unwrap().wait().unwrap().code(), Some(200));
        let killed = shell("kill -USR1 $$; sleep 60").spawn().unwrap().wait().unwrap();
        assert_eq!((killed.code(), killed.signal()), (None, Some(10)));
    });
}

#[test]
fn input_and_output_larger_than_a_pipe_flow_both_ways_at_once() {
    run(|| {
        let input: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let child = shell("tee /dev/stderr").stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Piped);
        let output = child.spawn().unwrap().communicate(&input, input.len()).unwrap();
        assert!(output.stdout == input && output.stderr == input);
        assert!(output.status.success());
        // One that does not read its input is no failure.
        let deaf = Command::new("true").stdin(Stdio::Piped).spawn().unwrap();
        assert!(deaf.communicate(&input, 0).unwrap().status.success());
    });
}

#[test]
fn streams_go_where_they_are_told() {
    run(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        let child = shell("cat; echo out; echo error >&2").stdin(Stdio::Null).stdout(Stdio::Piped);
        let to_file = Stdio::Descriptor(file.reopen().unwrap().into());
        let mut child = child.stderr(to_file).spawn().unwrap();
        assert!(child.stdin.is_none() && child.stderr.is_none());
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        assert_eq!(
            (text.as_str(), std::fs::read_to_string(file.path()).unwrap().as_str()),
            ("out\n", "error\n")
        );
    });
}

#[test]
fn a_dialogue_over_pipes_takes_turns() {
    run(|| {
        let mut child = shell("while read line; do echo \"<$line>\"; done")
            .stdin(Stdio::Piped)
            .stdout(Stdio::Piped)
            .spawn()
            .unwrap();
        let (mut to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut from = std::io::BufReader::new(from);
        for word in ["one", "two", "three"] {
            writeln!(to, "{word}").unwrap();
            let answer = reactor::read_until(&mut from, b'\n', 100).unwrap();
            assert_eq!(String::from_utf8(answer).unwrap(), format!("<{word}>\n"));
        }
        drop(to);
        assert!(child.wait().unwrap().success());
        assert_eq!(reactor::read_until(&mut from, b'\n', 100).unwrap(), b"");
    });
}

#[test]
fn output_beyond_its_limit_is_refused_and_its_writer_killed() {
    run(|| {
        for script in ["yes", "yes >&2", "trap '' PIPE; yes; sleep 600"] {
            let error = shell(&format!("echo $$; {script}")).own_group().output(100_000).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FileTooLarge, "{script}");
        }
        let exact = shell("printf 12345").output(5).unwrap();
        assert_eq!(exact.stdout, b"12345");
    });
}

#[test]
fn killing_and_signalling_reach_the_child_and_nobody_else_after_its_end() {
    run(|| {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        child.kill().unwrap();
        child.signal(Signal::Terminate).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "told again as often as asked");

        let mut polite = shell("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done")
            .stdout(Stdio::Piped)
            .spawn()
            .unwrap();
        let mut output = std::io::BufReader::new(polite.stdout.take().unwrap());
        assert_eq!(reactor::read_until(&mut output, b'\n', 100).unwrap(), b"ready\n");
        polite.signal(Signal::Terminate).unwrap();
        assert_eq!(reactor::read_until(&mut output, b'\n', 100).unwrap(), b"bye\n");
        assert_eq!(polite.wait().unwrap().code(), Some(3));
    });
}

#[test]
fn several_coroutines_wait_for_one_child_and_all_are_told() {
    run(|| {
        let mut child = shell("read line; exit 7").stdin(Stdio::Piped).spawn().unwrap();
        let stdin = child.stdin.take();
        let child = Rc::new(child);
        let waiters: Vec<_> = (0..5)
            .map(|_| {
                let child = child.clone();
                spawn(move || child.wait().unwrap().code())
            })
            .collect();
        // One of them is terminated, and takes nothing from the others.
        waiters[2].terminate();
        drop(stdin);
        for (n, waiter) in waiters.into_iter().enumerate() {
            assert_eq!(waiter.join().ok(), (n != 2).then_some(Some(7)));
        }
    });
}

#[test]
fn many_children_are_waited_for_without_a_thread_each() {
    run(|| {
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let children: Vec<Child> = (0..60)
            .map(|n| shell(&format!("read line; exit {n}")).stdin(Stdio::Piped).spawn().unwrap())
            .collect();
        scope(|s| {
            let waiters: Vec<_> =
                children.iter().map(|child| s.spawn(move || child.wait().unwrap())).collect();
            sleep(Duration::from_millis(1));
            // The pool that starts them has 16 at most; the test program and its other tests some more.
            assert!(threads() < 60, "{} threads", threads());
            for child in &children {
                (&mut child.stdin.as_ref().unwrap()).write_all(b"\n").unwrap();
            }
            for (n, waiter) in waiters.into_iter().enumerate() {
                assert_eq!(waiter.join().unwrap().code(), Some(n as i32));
            }
        });
    });
}

#[test]
fn a_dropped_child_is_killed_and_no_zombie_stays() {
    run(|| {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id();
        assert!(is_running(pid));
        drop(child);
        wait_until_gone(pid);

        // One that has ended, and was never waited for.
        let child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        while is_running(pid) {
            sleep(Duration::from_millis(1));
        }
        drop(child);
        wait_until_gone(pid);
    });
}

#[test]
fn a_child_left_running_goes_on_and_is_reaped_at_its_end() {
    run(|| {
        let mut child = shell("read line; exit 0").stdin(Stdio::Piped).leave_running().spawn().unwrap();
        let (pid, stdin) = (child.id(), child.stdin.take());
        drop(child);
        sleep(Duration::from_millis(20));
        assert!(is_running(pid));
        drop(stdin); // lets it end
        wait_until_gone(pid);
    });
}

/// How many processes there are whose command line says `marker`, zombies not counted: they have none.
fn running_with(marker: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok());
    let lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(marker)).count()
}

#[test]
fn a_timeout_or_a_termination_leaves_no_child_behind() {
    run(|| {
        // In the script and in what it becomes.
        let marker = format!("600.{}", std::process::id());
        let script = format!("exec sleep {marker}");
        let wait_until_none = || {
            let deadline = Instant::now() + Duration::from_secs(60);
            while running_with(&marker) > 0 {
                assert!(Instant::now() < deadline, "a child runs on");
                sleep(Duration::from_millis(5));
            }
        };
        let waiting = spawn({
            let script = script.clone();
            move || shell(&script).output(100).map(drop)
        });
        while running_with(&marker) == 0 {
            sleep(Duration::from_millis(5));
        }
        waiting.terminate();
        assert!(waiting.join().is_err());
        wait_until_none();

        assert!(timeout(Duration::from_millis(100), || shell(&script).output(100).map(drop)).is_err());
        wait_until_none();

        // Terminated while it is being started: the child may be there already, or come to be.
        for _ in 0..10 {
            let script = script.clone();
            let starting = spawn(move || shell(&script).spawn().map(drop));
            starting.terminate();
            let _ = starting.join();
        }
        // Whatever the pool was still starting is started behind this one.
        assert!(Command::new("true").spawn().unwrap().wait().unwrap().success());
        sleep(Duration::from_millis(100));
        wait_until_none();
    });
}

#[test]
fn a_group_is_killed_with_the_child_that_leads_it() {
    run(|| {
        let mut child = shell("sleep 600 & echo $!; wait").stdout(Stdio::Piped).own_group().spawn().unwrap();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        let line = String::from_utf8(reactor::read_until(&mut output, b'\n', 100).unwrap()).unwrap();
        let grandchild: u32 = line.trim().parse().unwrap();
        assert!(is_running(grandchild));
        drop(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while is_running(grandchild) {
            assert!(Instant::now() < deadline, "the grandchild runs on");
            sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn a_child_inherits_no_descriptor_of_ours() {
    run(|| {
        let listener = reactor::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let file = reactor::fs::File::open("/etc/passwd").unwrap();
        let socket = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_fd().as_raw_fd())).unwrap();
        let output = Command::new("ls").arg("-l").arg("/proc/self/fd").output(100_000).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // What this program was itself given by its parent, the child may have too.
        for ours in
            ["/etc/passwd", socket.to_str().unwrap(), "anon_inode:[eventpoll]", "anon_inode:[io_uring]"]
        {
            assert!(!text.contains(ours), "{ours} in {text}");
        }
        assert!(text.contains("pipe:["), "the standard output, at least, in {text}");
        drop((listener, file));
    });
}
