//! The kernel limits a process's memory mappings: at the limit every `mmap` fails, so spawning stops before it.
//!
//! In a file, and so a process, of its own: other tests could not spawn meanwhile.

use std::time::Duration;

use reactor::{run, sleep};

#[test]
fn spawning_stops_short_of_the_kernels_limit_with_a_helpful_error() {
    run(|| {
        let mut parked = Vec::new();
        let error = loop {
            match reactor::Builder::new().spawn(|| sleep(Duration::from_secs(3600))) {
                Ok(handle) => parked.push(handle),
                Err(error) => break error,
            }
        };
        assert!(parked.len() > 10_000, "only {}", parked.len());
        assert!(error.to_string().contains("vm.max_map_count"));
        // And the process is still able to map memory and to run coroutines.
        drop(vec![0u8; 64 * 1024 * 1024]);
        parked.drain(..).for_each(|handle| handle.terminate());
        while reactor::Builder::new().spawn(|| ()).is_err() {
            sleep(Duration::from_millis(1));
        }
    });
}
