//! The stories of `files/` on a simulated machine's disk: the same promises, for several seeds each.

mod files {
    mod stories;

    use std::path::Path;
    use std::sync::Arc;

    use reactor::sim::{self, SimConfig};

    fn with_files(story: impl Fn(&Path) + Send + Sync + 'static) {
        let story = Arc::new(story);
        sim::check(&SimConfig::default(), 0..5, |world| {
            let story = story.clone();
            world.host("machine").start(move || story(Path::new("/"))).wait();
        });
    }

    /// What is read waits for no device here, and takes its time all the same.
    fn make_cold(_: &Path) {}
}
