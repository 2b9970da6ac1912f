//! The stories of `files/stories.rs` over the pool of threads.

mod files {
    pub(crate) const BACKEND: reactor::fs::Backend = reactor::fs::Backend::Pool;
    mod stories;
}
