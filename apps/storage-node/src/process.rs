//! What every process of this program is before it is a node or a client.
//!
//! A signal that asks for a dump must not end a process that is not ready to give one; a shell's low limit of open files
//! must not be a node's; and what is in memory, keys and plain text, is nothing for a core file. None of them can fail in a way
//! that matters: what is refused is left as it was.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use signal_hook::consts::{SIGHUP, SIGUSR2};

/// Prepares the process. To be called once, before anything else.
pub(crate) fn prepare() {
    // Until the reactor listens for it, and after, the default would be death. The flag is nobody's.
    let _ = signal_hook::flag::register(SIGUSR2, Arc::new(AtomicBool::new(false)));
    raise_file_limit();
    // No core file, and no debugger of the same user. A process that is started by this one begins anew, and says it again.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // A node is started through /proc/self/exe, and would be called "exe".
    let _ = rustix::thread::set_name(c"storage-node");
}

/// Runs `body` in a reactor that tells what its coroutines wait for when SIGUSR2 asks.
///
/// Blocks the thread until `body` returns.
pub(crate) fn run<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    reactor::run(|| {
        if let Err(error) = reactor::dump_on_signal() {
            tracing::warn!("SIGUSR2 will tell nothing: {error}");
        }
        body()
    })
}

/// Whether whoever started this process wants it to outlive its terminal, as `nohup` does.
pub(crate) fn ignores_hang_up() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (SIGHUP - 1)) != 0
}

/// The usual 1024 is for programs that use `select`; a store with many segments and a hundred peers needs more.
fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
