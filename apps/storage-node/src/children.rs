//! The node processes that `up` starts, kept alive for as long as `up` lives and no longer.
//!
//! Two pipes say all there is to say. A child's standard input is a pipe that only we hold: when we end, in whatever
//! way, the kernel closes it and the child leaves in order. (A parent-death signal would do as much for SIGKILL, but
//! it follows the *thread* that forked.) A child's standard output tells its address, and its end tells that the
//! child is gone; it is then started again, after a back-off that forgets itself once a child has lived for a while. Two ends are
//! for good: that of a node that was removed from the network, and that of one whose home's copy serves. The latter ends `up` too, if
//! the node had served: what was stored by its word is lost to the copy, and the drive must not call more stored beside that.
//!
//! Each child has one coroutine, a loop that starts it, reads it and mourns it. Not here: what a node does.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{self, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::net::Descriptor;
use reactor::sync::Signal;

use crate::errors::{COPIED, Failure};
use crate::home::NodeHome;
use crate::log_file;
use crate::output::say;
use crate::stop::{Reason, Stop};

/// What a node prints once it serves, before its address; `up` reads it.
pub(crate) const READY: &str = "listening on ";

/// The first wait before a dead node is started again; doubled at each death in a row.
const BACK_OFF: Duration = Duration::from_millis(250);
/// A node that dies at each start should not fill the log: at most twice a minute.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);
/// A node that lived this long did not die of its start: the back-off begins anew.
const LIVED: Duration = Duration::from_secs(10);
/// A child that has not left by then is killed: its store survives that.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);
/// A node may first wait until its predecessor has left; one that is not ready by then is not waited for any longer.
const START_LIMIT: Duration = Duration::from_secs(25);
/// This program, whatever has become of its file: an upgrade puts another file in its place, and a node of another
/// version beside this process is nobody's wish.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// A ready line is some 40 bytes.
const LINE_SIZE_BYTES_MAX: usize = 4096;

/// One child's state, shared between its coroutine and `up`.
struct Child {
    number: u16,
    home: NodeHome,
    /// The nodes that it is told of when it starts.
    known: Vec<SocketAddr>,
    /// Where it is to listen, if it may not be elsewhere.
    listen: Option<SocketAddr>,
    options: [Option<&'static str>; 3],
    address: Cell<Option<SocketAddr>>,
    process: RefCell<Option<process::Child>>,
    /// Why it ended before it was ever ready.
    failure: RefCell<Option<String>>,
    /// `up` waits for it, and tells that it is there.
    is_awaited: Cell<bool>,
    changed: Signal,
    stopping: Cell<bool>,
    /// It has served since `up` began.
    has_served: Cell<bool>,
    /// A copy of its home serves, or did, and it is not started again.
    is_copied: Cell<bool>,
    /// Opened then, if it has served.
    stop: Stop,
    /// Between two lives: there is no process.
    resting: Cell<bool>,
}

/// A child that is kept alive. Dropping it lets go of the pipe, and so ends the child too.
pub(crate) struct Supervised {
    child: Rc<Child>,
    coroutine: JoinHandle<()>,
}

impl Supervised {
    /// Starts node `number`, which is told of `known` nodes and listens at `listen` and nowhere else, if that is said, with these options,
    /// and keeps it alive.
    pub(crate) fn start(
        number: u16,
        home: NodeHome,
        known: Vec<SocketAddr>,
        listen: Option<SocketAddr>,
        options: [Option<&'static str>; 3],
        stop: &Stop,
    ) -> Supervised {
        let child = Rc::new(Child {
            number,
            home,
            known,
            listen,
            options,
            address: Cell::new(None),
            process: RefCell::new(None),
            failure: RefCell::new(None),
            is_awaited: Cell::new(true),
            changed: Signal::new(),
            stopping: Cell::new(false),
            has_served: Cell::new(false),
            is_copied: Cell::new(false),
            stop: stop.clone(),
            resting: Cell::new(false),
        });
        let coroutine = reactor::spawn({
            let child = child.clone();
            move || child.keep_alive()
        });
        Supervised { child, coroutine }
    }

    /// Its number in its home.
    pub(crate) fn number(&self) -> u16 {
        self.child.number
    }

    /// Whether it has ended for good because a copy of its home serves, or did.
    pub(crate) fn is_copied(&self) -> bool {
        self.child.is_copied.get()
    }

    /// Whether it had served before that since `up` began, so that what was stored may be lost with it.
    pub(crate) fn was_copied_as_it_served(&self) -> bool {
        self.child.is_copied.get() && self.child.has_served.get()
    }

    /// Waits until the node serves for the first time. One that does not is started again all the same, and says so
    /// when it is there.
    ///
    /// # Errors
    /// `Failure::NodeStart` with the end of its log if it ended instead, or is not ready in time.
    ///
    /// # Suspends
    /// Until the node is ready or gone, for [`START_LIMIT`] at most.
    pub(crate) fn wait_ready(&self) -> Result<(SocketAddr, u32), Failure> {
        let failed = |reason| Failure::NodeStart { number: self.child.number, reason };
        let ready = reactor::timeout(START_LIMIT, || {
            loop {
                if let Some(reason) = self.child.failure.borrow_mut().take() {
                    return Err(failed(reason));
                }
                if let (Some(address), Some(pid)) = (self.child.address.get(), self.pid()) {
                    return Ok((address, pid));
                }
                self.child.changed.wait();
            }
        });
        self.child.is_awaited.set(false);
        ready.unwrap_or_else(|_| Err(failed(format!("it is not ready after {} s", START_LIMIT.as_secs()))))
    }

    fn pid(&self) -> Option<u32> {
        self.child.process.borrow().as_ref().map(process::Child::id)
    }

    /// Asks the node to leave, by closing its pipe. [`Supervised::stopped`] waits for it.
    pub(crate) fn ask_to_stop(&self) {
        self.child.stopping.set(true);
        if let Some(process) = &mut *self.child.process.borrow_mut() {
            process.stdin = None;
        }
    }

    /// Waits until a node that was asked to stop has gone.
    ///
    /// # Suspends
    /// Until then; a node that won't leave is killed after ten seconds.
    pub(crate) fn stopped(self) {
        let deadline = reactor::now() + LEAVE_LIMIT;
        while !self.coroutine.is_finished() {
            if self.child.resting.get() {
                self.coroutine.terminate();
            } else if reactor::now() > deadline
                && let Some(process) = &mut *self.child.process.borrow_mut()
            {
                let _ = process.kill();
            }
            reactor::sleep(Duration::from_millis(10));
        }
    }
}

impl Child {
    fn keep_alive(&self) {
        let mut back_off = BACK_OFF;
        // One that dies at each start is news once.
        let mut told = None;
        while !self.stopping.get() {
            let started = reactor::now();
            let log_length = log_file::length_bytes(&self.home.log_file());
            let end = self.live();
            let was_ready = self.address.take().is_some();
            if self.stopping.get() {
                return;
            }
            // It ends by itself, and well, in one case only.
            let is_removed = end.as_ref().is_ok_and(ExitStatus::success);
            let is_copied = end.as_ref().is_ok_and(|status| status.code() == Some(COPIED.into()));
            let is_final = is_removed || is_copied;
            let reason = match end {
                Ok(_) if is_copied && self.has_served.get() => {
                    "has ended, because a copy of its home serves: its log says where; what was stored by its word the copy does not have, so \
                     the drive is not served on beside that, and the next `up` does without this node"
                        .into()
                }
                Ok(_) if is_copied => "does not start, because a copy of its home serves, or did".into(),
                Ok(_) if is_removed => "was removed from the network, and has ended".into(),
                Ok(status) => describe(status),
                Err(error) => format!("could not be started: {error}"),
            };
            let is_news = was_ready || told.as_ref() != Some(&reason);
            self.is_copied.set(is_copied);
            if was_ready || !self.is_awaited.get() {
                if is_final {
                    say(format_args!("node {} {reason}", self.number));
                } else if is_news {
                    say(format_args!("node {} {reason}; starting it again", self.number));
                }
            } else {
                let last_words = log_file::end(&self.home.log_file(), log_length);
                self.failure.borrow_mut().get_or_insert(last_words.unwrap_or(reason.clone()));
                self.changed.notify_all();
            }
            if is_copied && self.has_served.get() {
                self.stop.open(Reason::Copied);
            }
            if is_final {
                return;
            }
            told = Some(reason);
            if started.elapsed() > LIVED {
                back_off = BACK_OFF;
            }
            self.resting.set(true);
            reactor::sleep(back_off);
            self.resting.set(false);
            back_off = (back_off * 2).min(BACK_OFF_MAX);
        }
    }

    /// One life of the child, from its start to its end.
    fn live(&self) -> io::Result<ExitStatus> {
        let mut process = self.spawn()?;
        let pid = process.id();
        let output = Descriptor::new(process.stdout.take().expect("it was asked for").into())?;
        *self.process.borrow_mut() = Some(process);
        let mut text = Vec::new();
        let mut buffer = [0; 512];
        loop {
            let count = output.read_with(|fd| rustix::io::read(fd, &mut buffer).map_err(io::Error::from));
            let Ok(1..) = count else { break };
            let count = count?;
            if text.len() + count > LINE_SIZE_BYTES_MAX {
                text.clear();
            }
            text.extend_from_slice(&buffer[..count]);
            if let Some(address) = ready_address(&text) {
                text.clear();
                self.address.set(Some(address));
                self.has_served.set(true);
                if !self.is_awaited.get() {
                    say(describe_node(self.number, address, pid));
                }
                self.changed.notify_all();
            }
        }
        // Its output has ended, so that it is ending: taken out of the cell, since the wait suspends.
        let mut process = self.process.borrow_mut().take().expect("only this coroutine takes it");
        process.stdin = None;
        reactor::offload(move || process.wait())
    }

    fn spawn(&self) -> io::Result<process::Child> {
        let log = log_file::open(&self.home.log_file())?;
        let mut command = Command::new(THIS_PROGRAM);
        command
            .arg0("storage-node")
            .arg("run")
            .arg("--until-stdin-closes")
            // One of a machine's nodes is enough.
            .arg("--relay=off")
            .args(self.options.iter().flatten())
            .arg("--home")
            .arg(self.home.path())
            .args(self.listen.map(|listen| format!("--listen={listen}")));
        for address in &self.known {
            command.arg("--node").arg(address.to_string());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        // A process group of its own: Ctrl-C at the terminal reaches us alone, and we stop it after the drive.
        command.process_group(0);
        command.spawn()
    }
}

/// The address in a line that starts with [`READY`], once the line is whole.
fn ready_address(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, rest) = text.split_once(READY)?;
    rest.split_once('\n')?.0.trim().parse().ok()
}

/// The line that tells where a node process is.
pub(crate) fn describe_node(number: u16, address: SocketAddr, pid: u32) -> String {
    format!("  node {number}  {address}  process {pid}")
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_only_from_a_whole_line() {
        assert_eq!(ready_address(b"listening on 127.0.0.1:47"), None);
        assert_eq!(ready_address(b"listening on 127.0.0.1:47\n"), Some("127.0.0.1:47".parse().unwrap()));
        assert_eq!(
            ready_address(b"node 2 listening on [::1]:4701\nmore"),
            Some("[::1]:4701".parse().unwrap())
        );
        assert_eq!(ready_address(b"something else\n"), None);
    }
}
