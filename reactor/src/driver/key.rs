//! Names for slots that are used again: a slot's number alone could name a later owner, the generation tells them
//! apart. 64 bits, since the kernel carries it for us (`epoll_data`).

pub(super) fn join_key(slot: usize, generation: u32) -> u64 {
    assert!(slot < u32::MAX as usize, "more slots than a key can name");
    slot as u64 | u64::from(generation) << 32
}

pub(super) fn split_key(key: u64) -> (usize, u32) {
    ((key & u64::from(u32::MAX)) as usize, (key >> 32) as u32)
}
