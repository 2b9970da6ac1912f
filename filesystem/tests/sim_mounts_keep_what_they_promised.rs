//! Several machines mount one volume and change the same few files, while calls are lost, machines are cut off and killed,
//! and the store fills up. In the end every content that anybody was promised is there, whole, or was replaced or removed
//! by somebody who saw it; nothing that was replaced for good comes back; and all machines see the same.
//!
//! Hundreds of worlds, each from a seed; a failing one prints it, shrunk and told as a story. `HYPHA_WORLDS=100000` runs
//! as many, `HYPHA_WORLDS_FROM` says from which seed on.

#[path = "common/objects.rs"]
mod objects;
mod sim;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use filesystem::{Operations, Volume};
use reactor::sim::{SimConfig, World, check};

use sim::mount::Mount;
use sim::store::Cloud;
use sim::tree::{Tree, read_all};

/// Steps of each machine.
const STEPS: u32 = 25;

fn world_of_mounts(world: &World) {
    let cloud = Cloud::new(world);
    let register = cloud.memory.new_register([7; 32]);
    let homes = tempfile::tempdir().expect("a directory");
    let history = Rc::new(RefCell::new(sim::history::History::default()));
    let mount = |number: usize| Mount {
        number,
        host: world.host(&format!("machine-{number}")),
        world: world.clone(),
        cloud: cloud.clone(),
        register,
        journal: homes.path().join(number.to_string()),
        history: history.clone(),
        steps_left: Rc::new(Cell::new(STEPS)),
        is_done: Rc::default(),
    };
    let mounts: Vec<Mount> = (0..1 + world.choose(3) as usize).map(mount).collect();

    let founder = mounts[0].clone();
    mounts[0].host.start(move || found(&founder)).wait();
    cloud.lost_percent.set(world.choose(3) * 5);
    for mount in &mounts {
        let of_life = mount.clone();
        mount.host.start(move || of_life.live());
    }
    for _ in 0..world.choose(8) {
        reactor::sleep(Duration::from_millis(u64::from(world.choose(4000))));
        misfortune(world, &cloud, &mounts);
    }
    cloud.full.set(false);
    cloud.lost_percent.set(0);
    for mount in &mounts {
        cloud.cut(mount.number, false);
    }
    while !mounts.iter().all(|mount| mount.is_done.get()) {
        reactor::sleep(Duration::from_secs(1));
        assert!(world.elapsed() < Duration::from_secs(3600), "somebody never gets to the end");
    }

    // What is there: the same to all who look.
    let seen: Rc<RefCell<Vec<Tree>>> = Rc::default();
    for mount in &mounts {
        let (mount, of_mount) = (mount.clone(), seen.clone());
        let host = mount.host.clone();
        host.start(move || {
            let volume = mount.open();
            of_mount.borrow_mut().push(read_all(&volume).expect("all reads"));
            volume.close().stored().expect("nothing is left");
        })
        .wait();
    }
    let seen = seen.borrow();
    assert!(seen.iter().all(|tree| *tree == seen[0]), "the machines see different things: {seen:?}");
    let faults = history.borrow().faults(&seen[0]);
    assert_eq!(faults, [""; 0], "there is {:?}", seen[0]);
    // And a collector would know what of it is in use.
    objects::check(&cloud.memory, &mounts[0].keys());
}

fn found(mount: &Mount) {
    let volume =
        Volume::create(mount.store(), mount.keys(), mount.options(), (1000, 1000)).expect("a volume");
    let user = filesystem::operations::Credentials { uid: 1000, gid: 1000, umask: 0 };
    for name in [b"left".as_slice(), b"right"] {
        volume.make_directory(filesystem::Inode::ROOT, name, 0o755, &user).expect("a directory");
    }
    volume.close().stored().expect("nothing is left");
}

fn misfortune(world: &World, cloud: &Rc<Cloud>, mounts: &[Mount]) {
    let mount = &mounts[world.choose(mounts.len() as u32) as usize];
    match world.choose(6) {
        0 => {
            world.tell(|| format!("machine {} is cut off", mount.number));
            cloud.cut(mount.number, true);
        }
        1 => {
            world.tell(|| format!("machine {} is connected", mount.number));
            cloud.cut(mount.number, false);
        }
        2 => cloud.full.set(world.choose(2) == 1),
        _ if !mount.is_done.get() => {
            mount.host.kill();
            let of_life = mount.clone();
            mount.host.start(move || of_life.live());
        }
        _ => {}
    }
}

#[test]
fn nothing_promised_is_lost_and_nothing_replaced_comes_back() {
    check(&SimConfig::default(), sim::seeds(100), world_of_mounts);
}
