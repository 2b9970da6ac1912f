//! Sealing frames and nodes, and packing them into the objects that the store keeps.
//!
//! A *chunk* is content and zeros up to its size class, sealed by AES-256-GCM under a key of its own that is used once;
//! hence the nonce may be zero. A frame is sealed in segments, by the same key, each under its number as nonce
//! (`format/segments.rs`), so that a part of it can be opened without the rest. Chunks written together follow each other in one object, so that ten thousand small files
//! are some forty puts and not ten thousand. An object is named by its hash, and a chunk by its object, offset and lengths,
//! key and tags: all that is in the [`Pointer`], and none of it in the object. The last chunk of an object is a filler whose
//! key nobody keeps: it pads the object to a size class.
//!
//! What no pointer describes, roots and journals, is sealed as a *record*: its length and tag lie in it.
//!
//! Chunks know nothing of the tree; the packer only tells which object a chunk went to, since the object's name is not
//! known before it is closed.

use bytes::{Bytes, BytesMut};
use dht::{Address, OwnerTag};
use reactor::crypto::aead::{self, Key};
use reactor::random;

use crate::format::{
    BIRTH_MAX, OBJECT_SIZE_MAX, Piece, Pointer, SEAL_OVERHEAD, Tags, VolumeId, encoded_size, padded_size,
};

mod buffers;

pub use buffers::Buffers;

/// What a chunk holds. It is authenticated, so that a frame can never be taken for a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ChunkKind {
    /// A tree node.
    Node = 1,
    /// A frame of a file.
    Frame = 2,
    /// Padding.
    Filler = 3,
    /// A volume's root.
    Root = 4,
    /// A record of the local journal.
    Journal = 5,
}

/// Of all that is sealed: a chunk of another format version does not open.
const FORMAT_VERSION: u8 = 3;

/// What sealed bytes are bound to. It is authenticated with them, and stored with none of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// What they hold.
    pub kind: ChunkKind,
    /// The volume that they belong to.
    pub volume: VolumeId,
}

impl Binding {
    fn bytes(&self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes[0] = FORMAT_VERSION;
        bytes[1] = self.kind as u8;
        bytes[2..].copy_from_slice(&self.volume.0);
        bytes
    }

    /// Of a segment: to the version of the register that it was sealed for, too.
    fn segment_bytes(&self, birth: u64) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..18].copy_from_slice(&self.bytes());
        // As the pointer has it.
        bytes[18..].copy_from_slice(&birth.min(BIRTH_MAX).to_le_bytes()[..6]);
        bytes
    }
}

/// Of segment `index` of `count`: no other segment under the key has it, and the last one cannot pass for another.
fn segment_nonce(index: usize, count: usize) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&(index as u32).to_le_bytes());
    nonce[11] = u8::from(index + 1 == count);
    nonce
}

/// The bytes are not what was sealed under this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed bytes do not verify: wrong key, or damaged; try another replica")]
pub struct Damaged;

/// Keys from the operating system's randomness (in a simulation the world's), drawn many at a time: one call a key costs more than sealing 1 KiB.
#[derive(Default)]
pub struct KeyPool {
    bytes: Vec<u8>,
}

impl KeyPool {
    /// A small commit has some ten chunks; more would be thrown away with its pool, and the system's generator makes no
    /// more than some 400 MB/s.
    const KEYS_PER_DRAW: usize = 16;

    /// Returns 32 fresh random bytes.
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness: nothing secret can be made then.
    pub fn draw(&mut self) -> [u8; 32] {
        if self.bytes.is_empty() {
            self.bytes.resize(Self::KEYS_PER_DRAW * 32, 0);
            random::fill(&mut self.bytes);
        }
        let at = self.bytes.len() - 32;
        let mut key = [0; 32];
        key.copy_from_slice(&self.bytes[at..]);
        // Drawn keys leave the pool: what is dumped later holds none that are in use.
        self.bytes[at..].fill(0);
        self.bytes.truncate(at);
        key
    }
}

impl Drop for KeyPool {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.bytes);
    }
}

/// Returns how many bytes a record of `size` bytes takes once sealed.
pub fn sealed_size(size: usize) -> usize {
    padded_size(size) + SEAL_OVERHEAD
}

/// Appends `content` to `out`, padded and sealed under `key`, which seals nothing else, and returns the tag.
pub fn seal_into(out: &mut Vec<u8>, binding: &Binding, content: &[u8], key: &[u8; 32]) -> [u8; 16] {
    let start = out.len();
    let padded = padded_size(content.len());
    out.reserve(padded);
    out.extend_from_slice(content);
    out.resize(start + padded, 0);
    aead::encrypt_detached(&Key::from_bytes(*key), &[0; 12], &binding.bytes(), &mut out[start..])
}

/// Appends `content` to `out`, padded and sealed in segments under `key`, which seals nothing else, and returns the tags.
pub fn seal_segments_into(
    out: &mut Vec<u8>,
    binding: &Binding,
    birth: u64,
    content: &[u8],
    key: &[u8; 32],
) -> Tags {
    let start = out.len();
    let padded = padded_size(content.len());
    out.reserve(padded);
    out.extend_from_slice(content);
    out.resize(start + padded, 0);
    let mut tags = Tags::of_segments(padded);
    let (cipher, data) = (Key::from_bytes(*key).cipher(), binding.segment_bytes(birth));
    let segments = out[start..].chunks_mut(tags.segment_size().unwrap_or(padded));
    let count = segments.len();
    for (index, segment) in segments.enumerate() {
        tags.push(cipher.encrypt_detached(&segment_nonce(index, count), &data, segment));
    }
    tags
}

/// Appends a record, whose key may seal more than one: `nonce` must never repeat under it.
pub fn seal_with_nonce_into(
    out: &mut Vec<u8>,
    binding: &Binding,
    content: &[u8],
    key: &[u8; 32],
    nonce: &[u8; 12],
) {
    let start = out.len();
    out.reserve(sealed_size(content.len()));
    out.extend_from_slice(content);
    out.resize(start + padded_size(content.len()), 0);
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    let tag = aead::encrypt_detached(&Key::from_bytes(*key), nonce, &binding.bytes(), &mut out[start..]);
    out.extend_from_slice(&tag);
}

/// Opens a chunk, or a segment of one, in place.
///
/// # Errors
///
/// [`Damaged`] if it is not what the pointer means, under `binding`; what `sealed` holds then is of no use.
pub fn open_in_place(binding: &Binding, sealed: &mut [u8], piece: &Piece) -> Result<(), Damaged> {
    let pointer = piece.pointer();
    let cipher = Key::from_bytes(pointer.key).cipher();
    let (tags, Some(size)) = (pointer.tags.as_slice(), pointer.tags.segment_size()) else {
        let tag = pointer.tags.as_slice().first().ok_or(Damaged)?;
        return cipher.decrypt_detached(&[0; 12], &binding.bytes(), sealed, tag).map_err(|_| Damaged);
    };
    let (data, wanted) = (binding.segment_bytes(pointer.birth), piece.segments());
    if sealed.len().div_ceil(size) != wanted.len() {
        return Err(Damaged);
    }
    for (index, segment) in wanted.zip(sealed.chunks_mut(size)) {
        let nonce = segment_nonce(index, tags.len());
        cipher.decrypt_detached(&nonce, &data, segment, &tags[index]).map_err(|_| Damaged)?;
    }
    Ok(())
}

/// Opens a record in place and returns how many bytes of content are now at its start.
///
/// # Errors
///
/// [`Damaged`] if it does not verify.
pub fn open_with_nonce_in_place(
    binding: &Binding,
    sealed: &mut [u8],
    key: &[u8; 32],
    nonce: &[u8; 12],
) -> Result<usize, Damaged> {
    if sealed.len() < SEAL_OVERHEAD {
        return Err(Damaged);
    }
    let (body, tag) = sealed.split_at_mut(sealed.len() - 16);
    let tag: [u8; 16] = (&*tag).try_into().map_err(|_| Damaged)?;
    aead::decrypt_detached(&Key::from_bytes(*key), nonce, &binding.bytes(), body, &tag)
        .map_err(|_| Damaged)?;
    let (content, length) = body.split_at(body.len() - 4);
    let length = u32::from_le_bytes(length.try_into().map_err(|_| Damaged)?) as usize;
    if length > content.len() { Err(Damaged) } else { Ok(length) }
}

/// Opens a run of chunks, or segments, of one object that lie in one buffer, which begins at offset `start` of the object.
///
/// Content that takes less than half of the buffer is copied out of it: whoever keeps it must not keep the whole run, which
/// no cache would have counted.
///
/// # Errors
///
/// [`Damaged`] if one does not verify or is out of bounds.
pub fn open_run(
    binding: &Binding,
    sealed: Bytes,
    start: u32,
    pieces: &[Piece],
) -> Result<Vec<Bytes>, Damaged> {
    let mut buffer = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let run_length = buffer.len();
    let mut opened = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let at = piece.offset().checked_sub(start).ok_or(Damaged)? as usize;
        let sealed = buffer.get_mut(at..at.saturating_add(piece.length() as usize)).ok_or(Damaged)?;
        let content = at..at + (piece.size() as usize).min(sealed.len());
        // A segment always: it may be all of the run, and yet lie in a larger buffer.
        opened.push(if piece.is_segment() || content.len() * 2 < run_length {
            let mut copy = BytesMut::from(&*sealed);
            open_in_place(binding, &mut copy, piece)?;
            copy.truncate(content.len());
            Opened::Copy(copy.freeze())
        } else {
            open_in_place(binding, sealed, piece)?;
            Opened::InPlace(content)
        });
    }
    let buffer = buffer.freeze();
    let contents = opened.into_iter().map(|opened| match opened {
        Opened::Copy(content) => content,
        Opened::InPlace(content) => buffer.slice(content),
    });
    Ok(contents.collect())
}

/// Where the content of an opened chunk is.
enum Opened {
    Copy(Bytes),
    InPlace(std::ops::Range<usize>),
}

/// Where a chunk went: an object that may still be open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location {
    object: u32,
    offset: u32,
    length: u32,
    size: u32,
    key: [u8; 32],
    tags: Tags,
}

impl Location {
    /// Returns how many bytes a pointer to it takes with its address.
    pub(crate) fn pointer_size(&self) -> usize {
        encoded_size(&self.tags)
    }
}

/// Packs chunks into objects.
pub struct Packer {
    tag: OwnerTag,
    volume: VolumeId,
    birth: u64,
    keys: KeyPool,
    /// What objects are sealed in, if others share it.
    buffers: Option<Buffers>,
    current: Vec<u8>,
    /// Of each closed object its name, once it is known.
    closed: Vec<Option<Address>>,
    ready: Vec<(u32, Bytes)>,
    defers_names: bool,
}

impl Packer {
    /// Starts with no object; `tag` is the store's, under which objects are named. Chunks are bound to `volume`, and made
    /// for the register's version `birth`.
    pub fn new(tag: OwnerTag, volume: VolumeId, birth: u64) -> Packer {
        Packer {
            tag,
            volume,
            birth,
            keys: KeyPool::default(),
            buffers: None,
            current: Vec::new(),
            closed: Vec::new(),
            ready: Vec::new(),
            defers_names: false,
        }
    }

    /// Seals in `buffers`, which other packers share.
    pub fn with_buffers(mut self, buffers: Buffers) -> Packer {
        self.buffers = Some(buffers);
        self
    }

    /// Closes the open object if `size` bytes of content do not fit it any more.
    pub fn make_room(&mut self, size: usize) {
        if !self.current.is_empty() && self.current.len() + padded_size(size) > OBJECT_SIZE_MAX {
            self.close();
        }
    }

    /// Seals `content` under a fresh key at the end of the open object.
    pub fn append(&mut self, kind: ChunkKind, content: &[u8]) -> Location {
        self.make_room(content.len());
        self.reserve(padded_size(content.len()));
        let key = self.keys.draw();
        let offset = self.current.len();
        let binding = Binding { kind, volume: self.volume };
        let tags = match kind {
            ChunkKind::Frame => seal_segments_into(&mut self.current, &binding, self.birth, content, &key),
            _ => Tags::whole(seal_into(&mut self.current, &binding, content, &key)),
        };
        Location {
            object: self.closed.len() as u32,
            offset: offset as u32,
            length: (self.current.len() - offset) as u32,
            size: content.len() as u32,
            key,
            tags,
        }
    }

    /// Makes room in the buffer.
    fn reserve(&mut self, size: usize) {
        let needed = self.current.len() + size;
        if needed <= self.current.capacity() {
            return;
        }
        match &self.buffers {
            None => self.current.reserve(size),
            Some(buffers) => {
                let mut larger = buffers.take(needed);
                larger.extend_from_slice(&self.current);
                buffers.give_back(std::mem::replace(&mut self.current, larger));
            }
        }
    }

    /// Whether `location` lies in the object that is open now, where the next chunk goes if there is room.
    pub fn is_open(&self, location: &Location) -> bool {
        location.object as usize == self.closed.len()
    }

    /// Whether `location` lies in an object whose name is known.
    pub fn is_named(&self, location: &Location) -> bool {
        self.name(location.object).is_some()
    }

    /// Returns the pointer to a chunk; its address is zero while its object is open.
    pub fn pointer(&self, location: &Location) -> Pointer {
        Pointer {
            address: self.name(location.object).map_or([0; 32], |address| address.0),
            offset: location.offset,
            length: location.length,
            size: location.size,
            birth: self.birth,
            key: location.key,
            tags: location.tags,
        }
    }

    /// Pads and names the open object, if there is one.
    pub fn close(&mut self) {
        if self.current.is_empty() {
            return;
        }
        let content = self.current.len();
        let padded = padded_size(content);
        if padded > content && padded <= OBJECT_SIZE_MAX {
            self.reserve(padded - content);
            self.current.resize(padded, 0);
            let binding = Binding { kind: ChunkKind::Filler, volume: self.volume };
            let key = Key::from_bytes(self.keys.draw());
            // Its tag is thrown away with its key: nobody ever opens it.
            let _ = aead::encrypt_detached(&key, &[0; 12], &binding.bytes(), &mut self.current[content..]);
        }
        let object = std::mem::take(&mut self.current);
        if content > OBJECT_SIZE_MAX / 2 {
            // Another large one follows, mostly: grown step by step, it would be copied.
            self.reserve(OBJECT_SIZE_MAX);
        }
        let object = match &self.buffers {
            None => Bytes::from(object),
            Some(buffers) => buffers.lend(object),
        };
        self.ready.push((self.closed.len() as u32, object.clone()));
        self.closed.push((!self.defers_names).then(|| Address::of(&self.tag, &object)));
    }

    /// While `on`, objects are closed without a name: the store computes it anyway when they are put, and hashing is a
    /// good part of what writing costs. Nothing may point to them before [`set_name`](Packer::set_name).
    pub fn defer_names(&mut self, on: bool) {
        self.defers_names = on;
    }

    /// Says what the store calls a closed object.
    pub fn set_name(&mut self, object: u32, address: Address) {
        if let Some(name) = self.closed.get_mut(object as usize) {
            *name = Some(address);
        }
    }

    fn name(&self, object: u32) -> Option<&Address> {
        self.closed.get(object as usize)?.as_ref()
    }

    /// Takes the objects that are closed and wait to be put, by number.
    pub fn take_closed(&mut self) -> Vec<(u32, Bytes)> {
        std::mem::take(&mut self.ready)
    }

    /// Takes the objects that are closed and have a name.
    pub fn take_ready(&mut self) -> Vec<(Address, Bytes)> {
        let ready = std::mem::take(&mut self.ready);
        ready.into_iter().filter_map(|(object, bytes)| Some((*self.name(object)?, bytes))).collect()
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        if let Some(buffers) = &self.buffers {
            buffers.give_back(std::mem::take(&mut self.current));
        }
    }
}

#[cfg(test)]
mod tests;
