//! A mounted volume, from the mount to the last flush.
//!
//! The order matters. The mount exists before anything is announced, so that a user never writes below it by
//! mistake. On the way out the kernel first hands over what it has cached, which takes a living server; only then is
//! the volume committed, and only then may the nodes stop.

use std::path::Path;
use std::rc::Rc;

use filesystem::mount::{Mount, MountOptions, Unmounted};
use filesystem::operations::Operations;
use filesystem::volume::Volume;

use crate::errors::Failure;
use crate::mountpoint::Note;
use crate::output::say;
use crate::progress;
use crate::stop::{Reason, Stop};

/// Mounts `volume` at `mountpoint`, calls `ready`, and serves until `stop` opens or the drive is unmounted.
///
/// # Errors
/// `Failure::Drive` if it can't be mounted, `Failure::NotStored` if the last flush failed.
///
/// # Suspends
/// Until then.
pub(crate) fn serve(
    volume: Rc<Volume>,
    mountpoint: &Path,
    stop: &Stop,
    ready: impl FnOnce(),
) -> Result<(), Failure> {
    let options = MountOptions { fs_name: "hypha".into(), replace_stale: true, ..MountOptions::default() };
    let mount = Mount::new(mountpoint, &options)?;
    let _note = Note::leave(mount.mountpoint());
    let operations: Rc<dyn Operations> = volume.clone();
    let served = reactor::scope(|scope| {
        let server = scope.spawn(|| {
            let served = mount.serve(operations);
            stop.open(Reason::Unmounted);
            served
        });
        ready();
        if stop.wait() == Reason::Unmounted {
            say(format_args!("{} was unmounted", mountpoint.display()));
        } else {
            let spinner = progress::spinner("storing what was written, and unmounting");
            let unmounted = mount.unmount();
            spinner.finish_and_clear();
            match unmounted {
                Ok(Unmounted::Completely) => {}
                Ok(Unmounted::Lazily) => {
                    say(format_args!(
                        "{} was still in use: everything is stored, and it is gone",
                        mountpoint.display()
                    ));
                    server.terminate();
                }
                Err(error) => {
                    say(format_args!("{error}"));
                    server.terminate();
                }
            }
        }
        server.join()
    });
    let spinner = progress::spinner("storing what was written");
    let stored = volume.close();
    spinner.finish_and_clear();
    if let Ok(Err(error)) = served {
        return Err(Failure::NotStored { reason: error.to_string() });
    }
    stored.stored().map_err(|ending| Failure::NotStored { reason: ending.to_string() })
}
