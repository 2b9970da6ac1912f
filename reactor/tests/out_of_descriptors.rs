//! A server runs out of descriptors while clients keep coming. Its `accept` must neither end the server, nor spin on
//! the connection that it can't take, and when others have left it must serve those who waited.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use reactor::net::{TcpListener, UnixListener};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// In the child's environment: the path of the Unix socket to listen at, or empty for TCP.
const ROLE: &str = "HYPHA_TEST_LISTEN_AT";

/// Descriptors of the child: what the reactor itself needs, and a dozen clients.
const LIMIT: u64 = 32;

const CLIENTS: usize = 60;

/// What `accept` has logged in this process.
static COMPLAINTS: AtomicUsize = AtomicUsize::new(0);

/// Those of them that were warnings.
static WARNINGS: AtomicUsize = AtomicUsize::new(0);

/// Counts what `accept` logs: something for each time it rests, though not a warning each time.
struct Counting;

impl tracing::Subscriber for Counting {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "reactor::net::accept"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        COMPLAINTS.fetch_add(1, Relaxed);
        if *event.metadata().level() == tracing::Level::WARN {
            WARNINGS.fetch_add(1, Relaxed);
        }
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Not a test of its own: what the child process of the tests below runs.
#[test]
fn child_process_that_serves_with_few_descriptors() {
    let Ok(path) = std::env::var(ROLE) else { return };
    tracing::subscriber::set_global_default(Counting).unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(LIMIT), ..limit }).unwrap();
    reactor::run(move || {
        if path.is_empty() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            println!("listening at {}", listener.local_addr().unwrap());
            serve(|| listener.accept().unwrap().0);
        } else {
            let listener = UnixListener::bind(&path).unwrap();
            println!("listening at {path}");
            serve(|| listener.accept().unwrap());
        }
    });
}

/// Answers a byte with a byte. A `w` is answered with the complaints so far, the warnings among them, and how long they took.
fn serve<S: 'static>(mut accept: impl FnMut() -> S)
where
    for<'a> &'a S: Read + Write,
{
    let begun = Instant::now();
    loop {
        let client = accept();
        reactor::spawn(move || {
            let mut byte = [0];
            while let Ok(1) = (&client).read(&mut byte) {
                let answer = match byte {
                    [b'w'] => format!(
                        "{} {} {}\n",
                        COMPLAINTS.load(Relaxed),
                        WARNINGS.load(Relaxed),
                        begun.elapsed().as_millis()
                    ),
                    _ => "x".into(),
                };
                (&client).write_all(answer.as_bytes()).unwrap();
            }
        });
    }
}

struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(path: &str) -> (Child, String) {
    use std::io::BufRead;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process_that_serves_with_few_descriptors", "--nocapture"])
        .env(ROLE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let child = Child(child);
    for line in output.lines() {
        if let Some((_, address)) = line.unwrap().split_once("listening at ") {
            return (child, address.to_owned());
        }
    }
    panic!("the child ended early");
}

fn ask(mut stream: impl Read + Write) -> bool {
    stream.write_all(b"?").is_ok() && matches!(stream.read(&mut [0]), Ok(1))
}

fn exhaust<S>(connect: impl Fn() -> S)
where
    for<'a> &'a S: Read + Write,
{
    let mut clients: Vec<S> = (0..CLIENTS).map(|_| connect()).collect();
    // The first ones are served, and while the others wait, the server still answers these.
    assert!(ask(&clients[0]));
    std::thread::sleep(Duration::from_millis(500));
    assert!(ask(&clients[0]));
    (&clients[0]).write_all(b"w").unwrap();
    let mut line = String::new();
    let mut byte = [0];
    while byte != *b"\n" {
        (&clients[0]).read_exact(&mut byte).unwrap();
        line.push(byte[0].into());
    }
    let told: Vec<u64> = line.trim_end().split(' ').map(|number| number.parse().unwrap()).collect();
    let &[complaints, warnings, elapsed_ms] = &told[..] else { panic!("three numbers, not {line}") };
    assert!(complaints >= 1, "the limit was not reached");
    // It rests 20 ms after each failure, however fast the machine.
    assert!(complaints <= elapsed_ms / 20 + 1, "{complaints} failures in {elapsed_ms} ms: it spins");
    // One of them in ten seconds is for whoever reads the log.
    assert!((1..=elapsed_ms / 10_000 + 1).contains(&warnings), "{warnings} warnings in {elapsed_ms} ms");
    // As the served ones leave, those who waited have their turn, down to the last.
    while let Some(client) = (!clients.is_empty()).then(|| clients.remove(0)) {
        assert!(ask(&client), "{} clients were left", clients.len());
    }
}

#[test]
fn a_tcp_server_out_of_descriptors_never_dies_and_never_spins() {
    let (_child, address) = start("");
    let address: SocketAddr = address.parse().unwrap();
    exhaust(|| StdStream::connect(address).unwrap());
}

#[test]
fn a_unix_server_out_of_descriptors_never_dies_and_never_spins() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let (_child, _) = start(path.to_str().unwrap());
    exhaust(|| std::os::unix::net::UnixStream::connect(&path).unwrap());
}
