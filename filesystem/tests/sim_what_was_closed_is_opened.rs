//! What one machine closed, the next opens: whoever is alone and keeps what it closes to itself, whoever comes and goes,
//! is killed or cut off meanwhile.
//!
//! Programs on several machines take turns with one file: each opens it, finds the number that was closed last, and closes
//! it with the next. Beside that each machine writes files of its own all the time, and drives are mounted and unmounted as
//! it comes. Hundreds of worlds, each from a seed, as with `sim_mounts_keep_what_they_promised`.
//!
//! What a machine closed just before it was killed or cut off may be seen late, or never: the promise is `fsync`'s then. So
//! nothing is asked for some time after; the next number counts again.

mod sim;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use filesystem::operations::{Credentials, FileKind};
use filesystem::{Errno, Inode, Operations, Options, Volume, VolumeKeys};
use reactor::crypto::X25519Secret;
use reactor::sim::{Host, Running, SimConfig, World, check};
use reactor::sync::Mutex;

use sim::store::Cloud;
use sim::tree::read;

const USER: Credentials = Credentials { uid: 1000, gid: 1000, umask: 0 };
/// How long mounts last on average, and the time between them.
const LIFE_MS_MAX: u32 = 20_000;
const STORY: Duration = Duration::from_secs(90);
/// Longer than it takes until a machine that was cut off is back with what it had.
const DOUBT: Duration = Duration::from_secs(60);

/// What all machines share.
struct Story {
    world: World,
    cloud: Rc<Cloud>,
    keys: VolumeKeys,
    /// One program at a time has the file open.
    turn: Mutex<()>,
    /// The number that was closed last; whoever opens the file now finds it, or a later one.
    closed: Cell<u32>,
    closed_by: Cell<usize>,
    written: Cell<u32>,
    /// Nothing is asked before.
    doubtful_until: Cell<Duration>,
    was_cut: Cell<bool>,
    is_over: Cell<bool>,
    /// What the machines have said and done: a world in which nothing is asked shows nothing.
    asked: Cell<u32>,
    lone_closes: Cell<u32>,
}

impl Story {
    fn doubt(&self) {
        self.closed.set(0);
        self.doubtful_until.set(self.world.elapsed() + DOUBT);
    }

    fn options(&self, machine: usize) -> Options {
        let mut options = Options::default();
        options.author = format!("machine {machine}");
        options.device = machine as u64 + 1;
        options.journal_directory = Some("/home/journal".into());
        options.sync_patience = Duration::from_secs(8);
        options.watch_interval = Some(Duration::from_secs(1));
        options
    }

    fn open(&self, machine: usize) -> Rc<Volume> {
        loop {
            let store = self.cloud.reach(machine);
            match Volume::open(store, self.keys.clone(), self.options(machine)) {
                Ok(volume) => return volume,
                Err(error) => {
                    self.world.tell(|| format!("machine {machine} cannot open: {error}"));
                    reactor::sleep(Duration::from_secs(2));
                }
            }
        }
    }

    /// Opens the file, as a program does: by its name, and again if it has become another.
    fn find(&self, volume: &Volume) -> Result<(Inode, u32), Errno> {
        let inode = loop {
            let inode = volume.lookup(Inode::ROOT, b"file")?.inode;
            match volume.open(inode) {
                Err(Errno::ESTALE) => {}
                opened => break opened.map(|()| inode)?,
            }
        };
        let content = read(volume, inode)?;
        Ok((inode, String::from_utf8(content).expect("digits").parse().expect("a number")))
    }

    /// One program's turn with the file.
    fn take_turn(&self, machine: usize, volume: &Volume) -> Result<(), Errno> {
        let _turn = self.turn.lock();
        let expected = self.closed.get();
        let is_asked = self.world.elapsed() >= self.doubtful_until.get();
        let (inode, found) = self.find(volume)?;
        self.world.tell(|| format!("machine {machine} finds {found}, where {expected} was closed"));
        if is_asked && self.world.elapsed() >= self.doubtful_until.get() {
            assert!(found >= expected, "machine {machine} opens {found} after {expected} was closed");
            self.asked.set(self.asked.get() + 1);
        }
        let number = self.written.get() + 1;
        self.written.set(number);
        volume.write(inode, 0, format!("{number:08}").as_bytes(), false)?;
        let version = volume.version();
        volume.flush(inode)?;
        if volume.sharing().is_alone() && volume.version() == version {
            self.lone_closes.set(self.lone_closes.get() + 1);
        }
        self.world.tell(|| format!("machine {machine} has closed {number} ({:?})", volume.sharing()));
        let is_doubtful = self.world.elapsed() < self.doubtful_until.get();
        self.closed.set(if is_doubtful { 0 } else { number });
        self.closed_by.set(machine);
        Ok(())
    }

    fn live(self: &Rc<Self>, machine: usize) {
        while !self.is_over.get() {
            reactor::sleep(self.some_time());
            let volume = self.open(machine);
            self.world.tell(|| format!("machine {machine} has mounted"));
            let until = self.world.elapsed() + self.some_time();
            let own = format!("own-{machine}");
            while self.world.elapsed() < until && !self.is_over.get() {
                reactor::sleep(Duration::from_millis(u64::from(self.world.choose(500))));
                let done = match self.world.choose(3) {
                    0 => self.take_turn(machine, &volume),
                    _ => load(&volume, own.as_bytes()),
                };
                if let Err(errno) = done {
                    self.world.tell(|| format!("machine {machine}: {errno}"));
                    assert!(errno != Errno::EIO, "nothing is damaged, and a call says that something is");
                }
            }
            let ending = volume.close();
            self.world.tell(|| format!("machine {machine} has unmounted: {ending}"));
        }
    }

    fn some_time(&self) -> Duration {
        Duration::from_millis(u64::from(self.world.choose(LIFE_MS_MAX)))
    }

    fn misfortune(self: &Rc<Self>, machines: &mut [(Host, Running)]) {
        let machine = self.world.choose(machines.len() as u32) as usize;
        match self.world.choose(4) {
            0 => {
                self.world.tell(|| format!("machine {machine} is cut off"));
                self.was_cut.set(true);
                self.cloud.cut(machine, true);
                self.doubt();
                reactor::sleep(self.some_time());
                self.cloud.cut(machine, false);
                self.world.tell(|| format!("machine {machine} is connected"));
                self.doubt();
            }
            1 => {
                let (host, running) = &mut machines[machine];
                host.kill();
                if self.closed_by.get() == machine {
                    self.closed.set(0);
                }
                let story = self.clone();
                *running = host.start(move || story.live(machine));
            }
            _ => {}
        }
    }
}

/// Writes to a file that nobody else does.
fn load(volume: &Volume, name: &[u8]) -> Result<(), Errno> {
    let inode = match volume.lookup(Inode::ROOT, name) {
        Ok(found) => found.inode,
        Err(Errno::ENOENT) => volume.make_node(Inode::ROOT, name, FileKind::Regular, 0o644, 0, &USER)?.inode,
        Err(errno) => return Err(errno),
    };
    volume.write(inode, 0, &[7; 100_000], false)
}

fn world_of_turns(world: &World) {
    let cloud = Cloud::new(world);
    let register = cloud.memory.new_register([7; 32]);
    let secret = X25519Secret::from_bytes(&[9; 32]);
    let story = Rc::new(Story {
        world: world.clone(),
        cloud,
        keys: VolumeKeys { register, secret, readers: Vec::new() },
        turn: Mutex::new(()),
        closed: Cell::new(0),
        closed_by: Cell::new(0),
        written: Cell::new(0),
        doubtful_until: Cell::new(Duration::ZERO),
        was_cut: Cell::new(false),
        is_over: Cell::new(false),
        asked: Cell::new(0),
        lone_closes: Cell::new(0),
    });
    let hosts: Vec<Host> =
        (0..1 + world.choose(3)).map(|machine| world.host(&format!("machine-{machine}"))).collect();
    let of_founder = story.clone();
    hosts[0]
        .start(move || {
            let store = of_founder.cloud.reach(0);
            let options = of_founder.options(0);
            let volume =
                Volume::create(store, of_founder.keys.clone(), options, (1000, 1000)).expect("a volume");
            let file = volume.make_node(Inode::ROOT, b"file", FileKind::Regular, 0o644, 0, &USER);
            volume.write(file.expect("a file").inode, 0, b"00000000", false).expect("it is written");
            volume.close().stored().expect("nothing is left");
        })
        .wait();
    let start = |(machine, host): (usize, &Host)| {
        let story = story.clone();
        (host.clone(), host.start(move || story.live(machine)))
    };
    let mut machines: Vec<(Host, Running)> = hosts.iter().enumerate().map(start).collect();
    let has_misfortunes = world.choose(2) == 1;
    while world.elapsed() < STORY {
        reactor::sleep(story.some_time());
        if has_misfortunes {
            story.misfortune(&mut machines);
        }
    }
    story.is_over.set(true);
    while machines.iter().any(|(_, running)| running.is_running()) {
        reactor::sleep(Duration::from_secs(1));
        assert!(world.elapsed() < Duration::from_secs(3600), "somebody never gets to the end");
    }
    let of_reader = story.clone();
    hosts[0]
        .start(move || {
            let volume = of_reader.open(0);
            let (_, found) = of_reader.find(&volume).expect("it reads");
            let is_asked = of_reader.world.elapsed() >= of_reader.doubtful_until.get();
            assert!(!is_asked || found >= of_reader.closed.get(), "{found} is left");
            let names = volume.read_directory(Inode::ROOT, 0, 100, false).expect("it lists");
            let names: Vec<_> = names.iter().map(|entry| String::from_utf8_lossy(&entry.name)).collect();
            let conflict = names.iter().find(|name| name.contains("conflict"));
            assert!(
                of_reader.was_cut.get() || conflict.is_none(),
                "they took turns, and there is {conflict:?}"
            );
            volume.close().stored().expect("nothing is left");
        })
        .wait();
    ASKED.set(ASKED.get() + story.asked.get());
    LONE_CLOSES.set(LONE_CLOSES.get() + story.lone_closes.get());
}

thread_local! {
    static ASKED: Cell<u32> = const { Cell::new(0) };
    static LONE_CLOSES: Cell<u32> = const { Cell::new(0) };
}

#[test]
fn whoever_opens_a_file_finds_what_was_closed_before() {
    check(&SimConfig::default(), sim::seeds(60), world_of_turns);
    if std::env::var_os("HYPHA_SEED").is_none() {
        let (asked, lone) = (ASKED.get(), LONE_CLOSES.get());
        assert!(asked > 100 && lone > 100, "{asked} opens were asked, {lone} closes waited for nobody");
    }
}
