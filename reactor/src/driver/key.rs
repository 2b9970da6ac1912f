//! Names for slots that are used again: a slot's number alone could name a later owner, the generation tells them
//! apart. One machine word, since the kernel carries it for us (`epoll_data`).

pub(super) fn join_key(slot: usize, generation: u32) -> usize {
    assert!(slot < u32::MAX as usize, "more slots than a key can name");
    slot | (generation as usize) << 32
}

pub(super) fn split_key(key: usize) -> (usize, u32) {
    (key & u32::MAX as usize, (key >> 32) as u32)
}
