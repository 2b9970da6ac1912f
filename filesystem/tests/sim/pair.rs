//! Two machines that mount one volume, for stories of a few steps.

use std::rc::Rc;
use std::time::Duration;

use filesystem::operations::{Credentials, FileKind};
use filesystem::{Errno, Inode, Operations, Options, Volume, VolumeKeys};
use reactor::crypto::X25519Secret;
use reactor::sim::{Host, World};

use super::store::Cloud;
use super::tree::read;

pub(crate) const USER: Credentials = Credentials { uid: 1000, gid: 1000, umask: 0 };

/// See the file's header.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cloud: Rc<Cloud>,
    pub(crate) keys: VolumeKeys,
    pub(crate) hosts: [Host; 2],
}

impl Pair {
    /// Makes a volume with one file.
    pub(crate) fn begin(world: &World) -> Pair {
        let cloud = Cloud::new(world);
        let register = cloud.memory.new_register([7; 32]);
        let keys = VolumeKeys { register, secret: X25519Secret::from_bytes(&[9; 32]), readers: Vec::new() };
        let hosts = [0, 1].map(|machine| world.host(&format!("machine-{machine}")));
        let pair = Pair { cloud, keys, hosts };
        pair.on(0, |pair| {
            let store = pair.cloud.reach(0);
            let volume =
                Volume::create(store, pair.keys.clone(), options(0), (1000, 1000)).expect("a volume");
            close_file(&volume, b"file", b"old").expect("it is closed");
            volume.close().stored().expect("nothing is left");
        });
        pair
    }

    /// Runs `main` on a machine, to its end.
    pub(crate) fn on(&self, machine: usize, main: impl FnOnce(Pair) + 'static) {
        let pair = self.clone();
        self.hosts[machine].start(move || main(pair)).wait();
    }

    /// Mounts it on a machine, as one of its processes.
    pub(crate) fn open(&self, machine: usize) -> Rc<Volume> {
        Volume::open(self.cloud.reach(machine), self.keys.clone(), options(machine)).expect("it opens")
    }
}

/// How the volume is mounted on a machine.
pub(crate) fn options(machine: usize) -> Options {
    let mut options = Options::default();
    options.author = format!("machine {machine}");
    options.device = machine as u64 + 1;
    options.journal_directory = Some("/home/journal".into());
    options.sync_patience = Duration::from_secs(600);
    options.watch_interval = Some(Duration::from_secs(1));
    options
}

/// Writes a file, which may be new, and closes it.
pub(crate) fn close_file(volume: &Volume, name: &[u8], content: &[u8]) -> Result<(), Errno> {
    let inode = match volume.lookup(Inode::ROOT, name) {
        Err(Errno::ENOENT) => volume.make_node(Inode::ROOT, name, FileKind::Regular, 0o644, 0, &USER)?.inode,
        found => found?.inode,
    };
    volume.open(inode)?;
    volume.write(inode, 0, content, false)?;
    volume.flush(inode)
}

/// What a program finds that opens the file.
pub(crate) fn found(volume: &Volume, name: &[u8]) -> String {
    let inode = loop {
        let inode = volume.lookup(Inode::ROOT, name).expect("it is there").inode;
        match volume.open(inode) {
            Err(Errno::ESTALE) => {}
            opened => break opened.map(|()| inode).expect("it opens"),
        }
    };
    String::from_utf8(read(volume, inode).expect("it reads")).expect("text")
}
