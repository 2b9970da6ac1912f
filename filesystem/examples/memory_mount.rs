//! Mounts a file system that lives in this process's memory, until Ctrl-C or `umount`.
//!
//! It shows the whole of the mount's API, and measures the mount apart from what is below it: either over a few maps, or
//! over a real volume whose blocks stay in memory:
//! `cargo run --release -p filesystem --example memory_mount -- DIRECTORY [volume]`.

use std::error::Error;
use std::path::PathBuf;
use std::rc::Rc;

use dht::MemoryBlockStore;
use filesystem::mount::{Mount, MountOptions};
use filesystem::{Operations, Options, Volume, VolumeKeys};
use reactor::crypto::X25519Secret;
use reactor::signals::{Signal, Signals};

#[path = "../tests/support/memory.rs"]
mod memory;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: memory_mount DIRECTORY [volume]")?);
    let as_volume = arguments.next().is_some_and(|argument| argument == "volume");
    let outcome = reactor::run(|| serve(directory, as_volume).map_err(|error| error.to_string()));
    Ok(outcome?)
}

fn serve(directory: PathBuf, as_volume: bool) -> Result<(), Box<dyn Error>> {
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
    let operations: Rc<dyn Operations> =
        if as_volume { make_volume()? } else { Rc::new(memory::MemoryFs::default()) };
    Ok(mount.serve(operations)?)
}

fn make_volume() -> Result<Rc<Volume>, Box<dyn Error>> {
    let store = Rc::new(MemoryBlockStore::new());
    let keys = VolumeKeys {
        register: store.new_register([1; 32]),
        secret: X25519Secret::from_bytes(&[2; 32]),
        readers: Vec::new(),
    };
    let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Ok(Volume::create(store, keys, Options::default(), owner)?)
}
