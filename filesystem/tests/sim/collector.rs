//! Somebody collects garbage while the volume is mounted: lists what there is, marks the root, waits for the mounts, and
//! deletes at once, with no time of grace whatsoever. At times it is killed in the middle, and begins anew.
//!
//! What it deletes is not put back by anybody, so whatever is missing later is missed by whoever reads it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use dht::Address;
use filesystem::Volume;
use filesystem::volume::{CollectError, Roots, Standing};
use reactor::sim::{Host, Running, World};

use super::mount::Mount;
use super::store::Cloud;

/// How long it waits for mounts that do not answer, before it tries another time.
const PATIENCE: Duration = Duration::from_secs(40);

/// See the file's header.
pub(crate) struct Collector {
    world: World,
    cloud: Rc<Cloud>,
    host: Host,
    /// How the volume is opened.
    mount: Mount,
    /// Objects that it has deleted, over all lives.
    pub(crate) deleted: Rc<Cell<usize>>,
    running: reactor::cell::RefCell<Option<Running>>,
}

impl Collector {
    pub(crate) fn new(world: &World, cloud: &Rc<Cloud>, mount: &Mount) -> Collector {
        Collector {
            world: world.clone(),
            cloud: cloud.clone(),
            host: world.host("collector"),
            mount: Mount { number: 100, ..mount.clone() },
            deleted: Rc::default(),
            running: Default::default(),
        }
    }

    /// Starts it, if it does not run; it goes on until it is killed.
    pub(crate) fn start(&self) {
        if self.running.borrow().as_ref().is_some_and(Running::is_running) {
            return;
        }
        let (world, cloud, mount) = (self.world.clone(), self.cloud.clone(), self.mount.clone());
        let deleted = self.deleted.clone();
        let live = move || {
            let mut options = mount.options();
            options.read_only = true;
            let volume = loop {
                match Volume::open(cloud.reach(mount.number), mount.keys(), options.clone()) {
                    Ok(volume) => break volume,
                    Err(_) => reactor::sleep(Duration::from_secs(1)),
                }
            };
            loop {
                reactor::sleep(Duration::from_millis(u64::from(world.choose(4000))));
                match collect(&world, &cloud, &volume) {
                    Ok(count) => deleted.set(deleted.get() + count),
                    Err(error) => world.tell(|| format!("garbage is not collected: {error}")),
                }
            }
        };
        *self.running.borrow_mut() = Some(self.host.start(live));
    }

    /// Kills it, in the middle of whatever it does.
    pub(crate) fn kill(&self) {
        self.host.kill();
    }
}

/// Collects once; returns how many objects are gone.
fn collect(world: &World, cloud: &Cloud, volume: &Volume) -> Result<usize, CollectError> {
    let listed: BTreeSet<Address> = cloud.memory.blocks().into_iter().map(|(address, _)| address).collect();
    let fence = volume.begin_collection()?;
    let mut roots = None;
    let answered = reactor::timeout(PATIENCE, || {
        while roots.is_none() {
            reactor::sleep(Duration::from_millis(300));
            match volume.look_at_collection(&fence) {
                Ok(Standing::Clear(found)) => roots = Some(found),
                Ok(Standing::Waits { .. }) | Err(CollectError::Read(_) | CollectError::Tree(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    });
    let count = match answered {
        Ok(answered) => {
            answered.map(|()| roots.map_or(0, |roots| delete(world, cloud, volume, &roots, &listed)))
        }
        Err(_) => Ok(0),
    };
    // Once in a while it leaves its mark, where it was not let through.
    if world.choose(4) > 0 {
        let _ = volume.end_collection(&fence);
    }
    count
}

fn delete(world: &World, cloud: &Cloud, volume: &Volume, roots: &Roots, listed: &BTreeSet<Address>) -> usize {
    let mut reached = BTreeSet::new();
    let mut visit = |address: &Address| {
        reached.insert(*address);
    };
    if volume.visit_reachable(roots, &mut visit).is_err() {
        return 0;
    }
    let garbage = listed.iter().filter(|address| !reached.contains(*address) && !roots.keep(address));
    let garbage: BTreeSet<Address> = garbage.copied().collect();
    world.tell(|| format!("{} objects of {} are garbage and go", garbage.len(), listed.len()));
    // Not all at once: mounts go on meanwhile, and it may be killed in between.
    for address in &garbage {
        reactor::sleep(Duration::from_millis(u64::from(world.choose(20))));
        cloud.memory.retain(|held| held != address);
    }
    garbage.len()
}
