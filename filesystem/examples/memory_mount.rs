//! Mounts a file system that lives in this process's memory, until Ctrl-C or `umount`.
//!
//! It shows the whole of the mount's API, and measures the mount apart from everything below it:
//! `cargo run --release -p filesystem --example memory_mount -- DIRECTORY`.

use std::path::PathBuf;
use std::rc::Rc;

use filesystem::mount::{Mount, MountOptions};
use reactor::signals::{Signal, Signals};

#[path = "../tests/support/memory.rs"]
mod memory;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = PathBuf::from(std::env::args().nth(1).ok_or("usage: memory_mount DIRECTORY")?);
    let outcome = reactor::run(|| serve(directory).map_err(|error| error.to_string()));
    Ok(outcome?)
}

fn serve(directory: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let options = MountOptions { fs_name: "memory".into(), replace_stale: true, ..MountOptions::default() };
    let mount = Rc::new(Mount::new(&directory, &options)?);
    println!("mounted at {}; Ctrl-C unmounts", mount.mountpoint().display());
    let unmounting = mount.clone();
    let signals = Signals::new(&[Signal::Interrupt, Signal::Terminate])?;
    reactor::spawn(move || {
        signals.wait();
        match unmounting.unmount() {
            Ok(how) => println!("unmounted: {how:?}"),
            Err(error) => eprintln!("{error}"),
        }
    });
    Ok(mount.serve(Rc::new(memory::MemoryFs::default()))?)
}
