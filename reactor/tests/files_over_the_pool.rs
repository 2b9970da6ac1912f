//! The stories of `files/` over the pool of threads.

mod files {
    mod kernel;
    mod stories;

    use std::path::Path;

    use kernel::make_cold;

    fn with_files(story: impl FnOnce(&Path) + Send + 'static) {
        kernel::with_backend(reactor::fs::Backend::Pool, story);
    }
}
