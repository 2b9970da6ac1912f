//! The stories of `files/stories.rs` over io_uring.

mod files {
    pub(crate) const BACKEND: reactor::fs::Backend = reactor::fs::Backend::IoUring;
    mod stories;
}
