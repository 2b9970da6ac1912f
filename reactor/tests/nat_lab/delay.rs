//! Cables that take their time, also where the kernel has no netem: a thread of ours holds what passes.
//!
//! ```text
//!   net: to-0 == far-0 :line: near-0 == wan :router
//! ```
//!
//! The site's cable is cut in two, in a namespace of its own. A macvtap device on each end makes a file of it, from which frames are
//! read; they are written to the other end when their time has come, in their order. Segments that the kernel has put together
//! stay so: each frame has the header before it that says how it is to be cut.
//!
//! What it is not: jitter, or a rate. A frame may be late besides by what the machine has to do otherwise.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open, unlink};
use rustix::io::{read, write};

use super::{Lab, loud};

/// The longest frame that is not cut yet, with what stands before it.
const FRAME_BYTES_MAX: usize = 70_000;

/// So many frames are held in each direction; a queue of a router's is full too at some time.
const FRAMES_MAX: usize = 20_000;

/// It is looked so often whether the lab is still there.
const TURN: Duration = Duration::from_millis(50);

/// Whether the kernel makes such devices; says loudly if it does not.
pub(crate) fn is_here(story: &str) -> bool {
    let name = format!("hymac{}", std::process::id());
    let words = format!(
        "ip netns add {name} && ip -n {name} link add one type veth peer name other && \
         ip -n {name} link add link one name tap type macvtap mode passthru"
    );
    let tried = Command::new("sh").args(["-c", &words]).output();
    let _ = super::command(&["ip", "netns", "del", &name], "");
    let reason = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    loud(&format!("SKIPPED: {story}: no macvtap device can be made here: {reason}"));
    false
}

/// Holds what passes as long as it is there; after it nothing passes any more.
pub(crate) struct DelayLine {
    is_over: Arc<AtomicBool>,
    carrying: Option<JoinHandle<()>>,
}

/// One end of a cable that was cut, and what came out of it and is not due yet.
struct End {
    device: OwnedFd,
    held: VecDeque<(Instant, Vec<u8>)>,
}

impl Lab {
    /// What passes the cables of the sites `0..count` takes so much longer from now on, each way. They have no IPv6 yet, and no
    /// provider's router in common.
    pub(crate) fn delay(&mut self, count: usize, by: Duration) -> DelayLine {
        self.namespace("line", false);
        let ends: Vec<[End; 2]> = (0..count).map(|number| self.cut_in_two(number)).collect();
        let is_over = Arc::new(AtomicBool::new(false));
        let carrying = {
            let is_over = is_over.clone();
            thread::spawn(move || carry(ends, by, &is_over))
        };
        DelayLine { is_over, carrying: Some(carrying) }
    }

    fn cut_in_two(&self, number: usize) -> [End; 2] {
        let (up, near, far) = (format!("to-{number}"), format!("near-{number}"), format!("far-{number}"));
        self.ip("net", &format!("link set {up} netns {}", self.full("line")));
        self.ip("line", &format!("link set {up} name {near}"));
        self.ip("line", &format!("link set {near} up"));
        self.cable("net", &up, "line", &far);
        let outside = format!("11.0.{}", number + 1);
        self.ip("net", &format!("addr add {outside}.1/24 dev {up}"));
        // The way to those who have an address of their own went with the cable; others have no such network, and need none.
        self.ip("net", &format!("route replace 11.1.{}.0/24 via {outside}.2", number + 1));
        [near, far].map(|device| End { device: self.file_of(&device), held: VecDeque::new() })
    }

    /// A file of the frames of that device.
    fn file_of(&self, device: &str) -> OwnedFd {
        let tap = format!("t-{device}");
        self.ip("line", &format!("link add link {device} name {tap} type macvtap mode passthru"));
        self.ip("line", &format!("link set {tap} up"));
        let mut said = self.within("line", "sh");
        let said = said.args(["-c", &format!("cat /sys/class/net/{tap}/macvtap/*/dev")]).output().unwrap();
        let said = String::from_utf8_lossy(&said.stdout);
        let numbers =
            said.trim().split_once(':').and_then(|(of, at)| Some((of.parse().ok()?, at.parse().ok()?)));
        let (of, at): (u32, u32) = numbers.unwrap_or_else(|| panic!("{tap} is no device: {said:?}"));
        // /dev names them by a number that several namespaces may have given.
        let node = std::env::temp_dir().join(format!("{}-{device}", self.name));
        mknodat(CWD, &node, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(of, at)).unwrap();
        let opened = open(&node, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        unlink(&node).unwrap();
        opened.unwrap()
    }
}

/// Holds what passes until it is over.
fn carry(mut cables: Vec<[End; 2]>, by: Duration, is_over: &AtomicBool) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    while !is_over.load(Ordering::Relaxed) {
        let due = cables.iter().flatten().filter_map(|end| end.held.front()).map(|(due, _)| *due).min();
        let wait = due.map_or(TURN, |due| due.saturating_duration_since(Instant::now()).min(TURN));
        let mut ready: Vec<PollFd<'_>> =
            cables.iter().flatten().map(|end| PollFd::new(&end.device, PollFlags::IN)).collect();
        // Interrupted it is looked as well.
        let _ = poll(&mut ready, Some(&Timespec::try_from(wait).expect("it is short")));
        drop(ready);
        for end in cables.iter_mut().flatten() {
            // There is nothing, or the device is gone: then nothing comes any more.
            while let Ok(size) = read(&end.device, &mut buffer) {
                if end.held.len() < FRAMES_MAX {
                    end.held.push_back((Instant::now() + by, buffer[..size].to_vec()));
                }
            }
        }
        let now = Instant::now();
        for [near, far] in &mut cables {
            pass(&mut near.held, &far.device, now);
            pass(&mut far.held, &near.device, now);
        }
    }
}

fn pass(held: &mut VecDeque<(Instant, Vec<u8>)>, to: &OwnedFd, now: Instant) {
    while let Some((_, frame)) = held.pop_front_if(|(due, _)| *due <= now) {
        // A cable that is unplugged loses it.
        let _ = write(to, &frame);
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(carrying) = self.carrying.take() {
            let _ = carrying.join();
        }
    }
}
