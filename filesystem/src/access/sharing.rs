//! Letting somebody read a volume, or no longer.
//!
//! The root lists its readers, and is sealed to each of them. So a change of the list is a root like the one before, but
//! for the list: the tree stays as it is, and whoever has the volume mounted takes the new list over with the root, as with
//! any other writer's. A session that finds another list than its own seals to it under a new key, so that who was taken
//! off reads nothing that is written from then on. What he could read before he may have kept.
//!
//! Not here: who may *write*, which the register's own list says; the caller changes it with the same swap.

use bytes::Bytes;
use dht::{BlockStore, HeaderHash, ReadError, Record, SwapError};
use reactor::cell::RefCell;
use reactor::crypto::random_bytes;

use super::{Charter, READER_COUNT_MAX, Root, RootError, RootSealer, VolumeKeys, open_root};
use crate::operations::Time;

/// How often other writers may be faster before it is given up.
const TRIES: usize = 64;

/// Why the readers were not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharingError {
    /// There is no root.
    #[error("the volume has no root yet")]
    Missing,
    /// The root can't be read.
    #[error("the volume's root cannot be read: {0}")]
    Read(#[from] ReadError),
    /// The root does not open.
    #[error(transparent)]
    Root(#[from] RootError),
    /// This version must not write the volume.
    #[error(
        "the volume uses features that this version does not know (flags {flags:#x}): use the newer version"
    )]
    Newer {
        /// The unknown ones.
        flags: u64,
    },
    /// The caller can't say who is to read it.
    #[error("who is to read the volume is not known: {0}")]
    Undecided(String),
    /// What would be replaced could not be kept.
    #[error("what the volume is now could not be kept, and it stays that: {0}")]
    Unkept(String),
    /// There would be too many.
    #[error("a volume has at most {READER_COUNT_MAX} readers: remove some first")]
    TooMany,
    /// The new root was not taken.
    #[error("the new list was not stored: {0}")]
    Swap(#[from] SwapError),
    /// Others write all the time.
    #[error("other writers were faster each time: try again")]
    Busy,
}

/// What becomes of the list of readers, and of what else the charter says of them; and whether the root is to be written although
/// that stays as it is; or why that can't be said. Asked after the root was read, so what it then knows is
/// not older than the list that it changes.
///
/// Any writer may have put keys on the list. Whoever takes somebody off has to say who is on it, not who is off.
pub type ReadersChange<'a> = &'a dyn Fn(&mut Charter) -> Result<bool, String>;

/// What becomes of the charter of a root that is put back; asked of that of then, with the newest root's, if that one opens. Or why
/// it can't be said.
pub type ChangeBack<'a> = &'a dyn Fn(&mut Charter, Option<&Charter>) -> Result<(), String>;

/// Changes who reads the volume of `keys`, our own key excepted: what opens it now will open it after. `swap` puts the new
/// root in the place of the one it names; it is not called if `change` changes nothing, unless that says so.
///
/// # Errors
///
/// [`SharingError`]; then `swap`'s failure says whether the change may have happened all the same.
///
/// # Suspends
///
/// Until the new root is durable.
pub fn change_readers(
    store: &dyn BlockStore,
    keys: &VolumeKeys,
    author: &str,
    change: ReadersChange<'_>,
    swap: &dyn Fn(HeaderHash, Bytes) -> Result<Record, SwapError>,
) -> Result<(), SharingError> {
    let newest = |record: &Record| Ok(open_root(&record.payload, record.version, &keys.secret)?);
    follow(store, keys, author, &newest, change, swap)
}

/// Puts the tree of `past` in the place of the newest one, be that of a root or of anything else: a writer may have put there what
/// opens to nobody, or to himself alone. The volume is then what it was, with its snapshots of then; versions go on. Otherwise
/// as [`change_readers`]. What `change` is asked of is the charter of then: whoever was taken off since may be in it. `keep` is shown what
/// is about to be replaced, before each try, and nothing is replaced if it fails.
///
/// A collection of garbage that is under way ends by it, without deleting. One that was let through since is remembered; where the newest
/// root can't tell, it is taken that there was one: then whoever stores something that he holds from before stores it anew.
///
/// # Errors
///
/// As [`change_readers`].
///
/// # Suspends
///
/// Until the new root is durable.
pub fn put_back(
    store: &dyn BlockStore,
    keys: &VolumeKeys,
    author: &str,
    past: &Root,
    keep: &dyn Fn(&Record) -> Result<(), String>,
    change: ChangeBack<'_>,
    swap: &dyn Fn(HeaderHash, Bytes) -> Result<Record, SwapError>,
) -> Result<(), SharingError> {
    let of_newest = RefCell::new(None::<Charter>);
    let basis = |newest: &Record| {
        keep(newest).map_err(SharingError::Unkept)?;
        let opened = open_root(&newest.payload, newest.version, &keys.secret).map(|root| root.charter).ok();
        let let_through = opened.as_ref().map_or(newest.version, Charter::let_through);
        let mut root = past.clone();
        root.charter.set_collection(None);
        if let_through > root.charter.let_through() {
            root.charter.let_collection_through(let_through);
        }
        of_newest.replace(opened);
        Ok(root)
    };
    // It is written in any case, also if the readers stay as they were.
    let change = |charter: &mut Charter| {
        let newest = of_newest.borrow().clone();
        change(charter, newest.as_ref()).map(|()| true)
    };
    follow(store, keys, author, &basis, &change, swap)
}

/// Has what `basis` makes of the newest value follow that, with the readers that `change` makes of its.
fn follow(
    store: &dyn BlockStore,
    keys: &VolumeKeys,
    author: &str,
    basis: &dyn Fn(&Record) -> Result<Root, SharingError>,
    change: ReadersChange<'_>,
    swap: &dyn Fn(HeaderHash, Bytes) -> Result<Record, SwapError>,
) -> Result<(), SharingError> {
    let mut newest = store.read(&keys.register)?.ok_or(SharingError::Missing)?;
    for _ in 0..TRIES {
        let root = basis(&newest)?;
        let flags = root.charter.features.unwritable();
        if flags != 0 {
            return Err(SharingError::Newer { flags });
        }
        let mut charter = root.charter.clone();
        let anyway = change(&mut charter).map_err(SharingError::Undecided)?;
        let own = keys.secret.public();
        if !charter.readers.contains(&own) {
            charter.readers.insert(0, own);
        }
        if charter.readers.len() > READER_COUNT_MAX {
            return Err(SharingError::TooMany);
        }
        if charter == root.charter && !anyway {
            return Ok(());
        }
        let next = Root {
            charter,
            version: newest.version + 1,
            previous: Some(newest.header_hash),
            commit: random_bytes(),
            time: Time::now(),
            author: author.into(),
            ..root
        };
        match swap(newest.header_hash, RootSealer::new().seal(&next)) {
            Ok(_) => return Ok(()),
            Err(SwapError::Lost(Some(record))) => newest = record,
            Err(error) => return Err(error.into()),
        }
    }
    Err(SharingError::Busy)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use dht::MemoryBlockStore;
    use reactor::crypto::{X25519Public, X25519Secret};

    use super::*;
    use crate::operations::{Credentials, Inode, Operations};
    use crate::volume::{Options, Volume};

    struct Story {
        store: Rc<MemoryBlockStore>,
        keys: VolumeKeys,
    }

    impl Story {
        fn new() -> Story {
            let store = Rc::new(MemoryBlockStore::new());
            let register = store.new_register([1; 32]);
            let keys = VolumeKeys { register, secret: X25519Secret::generate(), readers: Vec::new() };
            let volume = Volume::create(store.clone(), keys.clone(), Options::default(), (0, 0)).unwrap();
            volume.close().stored().unwrap();
            Story { store, keys }
        }

        fn change(&self, change: &dyn Fn(&mut Vec<X25519Public>)) -> Result<(), SharingError> {
            let change = |charter: &mut Charter| {
                change(&mut charter.readers);
                Ok(false)
            };
            let swap =
                |expected, payload| self.store.compare_and_swap(&self.keys.register, Some(expected), payload);
            change_readers(&*self.store, &self.keys, "owner", &change, &swap)
        }

        fn open(&self, secret: &X25519Secret) -> Result<Root, RootError> {
            let record = self.store.read(&self.keys.register).unwrap().unwrap();
            open_root(&record.payload, record.version, secret)
        }
    }

    #[test]
    fn a_reader_reads_from_when_he_is_let_in_until_he_is_taken_off() {
        reactor::run(|| {
            let (story, guest) = (Story::new(), X25519Secret::generate());
            let before = story.open(&story.keys.secret).unwrap();
            assert_eq!(story.open(&guest), Err(RootError::NotAReader));
            story.change(&|readers| readers.push(guest.public())).unwrap();
            assert_eq!(story.open(&guest).unwrap().tree, before.tree);
            story.change(&|readers| readers.retain(|reader| *reader != guest.public())).unwrap();
            assert_eq!(story.open(&guest), Err(RootError::NotAReader));
            assert_eq!(story.open(&story.keys.secret).unwrap().charter, before.charter);
        });
    }

    #[test]
    fn a_mount_that_goes_on_writes_for_the_new_readers_only() {
        reactor::run(|| {
            let (story, stays, goes) = (Story::new(), X25519Secret::generate(), X25519Secret::generate());
            story.change(&|readers| readers.extend([stays.public(), goes.public()])).unwrap();
            let volume = Volume::open(story.store.clone(), story.keys.clone(), Options::default()).unwrap();
            story.change(&|readers| readers.retain(|reader| *reader != goes.public())).unwrap();
            let root = Inode::ROOT;
            let credentials = Credentials { uid: 0, gid: 0, umask: 0 };
            volume.make_directory(root, b"later", 0o755, &credentials).unwrap();
            volume.close().stored().unwrap();
            assert_eq!(story.open(&goes), Err(RootError::NotAReader));
            assert_eq!(story.open(&stays).unwrap().tree, story.open(&story.keys.secret).unwrap().tree);
        });
    }

    #[test]
    fn a_key_that_a_writer_planted_goes_with_him_if_the_list_is_said_anew() {
        reactor::run(|| {
            let (story, stays, goes) = (Story::new(), X25519Secret::generate(), X25519Secret::generate());
            let planted = X25519Secret::generate();
            story.change(&|readers| readers.extend([stays.public(), goes.public()])).unwrap();
            story.change(&|readers| readers.push(planted.public())).unwrap();
            assert!(story.open(&planted).is_ok());
            story.change(&|readers| *readers = vec![stays.public()]).unwrap();
            for gone in [&goes, &planted] {
                assert_eq!(story.open(gone), Err(RootError::NotAReader));
            }
            assert_eq!(story.open(&stays).unwrap().tree, story.open(&story.keys.secret).unwrap().tree);
        });
    }

    #[test]
    fn what_was_is_put_back_over_whatever_a_writer_has_put_there_since() {
        reactor::run(|| {
            let story = Story::new();
            let register = story.keys.register;
            let read = || story.store.read(&register).unwrap().unwrap();
            let volume = Volume::open(story.store.clone(), story.keys.clone(), Options::default()).unwrap();
            let credentials = Credentials { uid: 0, gid: 0, umask: 0 };
            volume.make_directory(Inode::ROOT, b"kept", 0o755, &credentials).unwrap();
            volume.close().stored().unwrap();
            let good = story.open(&story.keys.secret).unwrap();
            let swap = |expected, payload| story.store.compare_and_swap(&register, Some(expected), payload);
            let thief = X25519Secret::generate();
            let to_himself = |version| {
                let charter = Charter { readers: vec![thief.public()], ..good.charter.clone() };
                RootSealer::new().seal(&Root { charter, version, tree: None, ..good.clone() })
            };
            let newer = |version| {
                let mut root = Root { version, ..good.clone() };
                root.charter.features.incompatible |= 1 << 60;
                RootSealer::new().seal(&root)
            };
            let empty = |version| RootSealer::new().seal(&Root { version, tree: None, ..good.clone() });
            let garbage = |_| Bytes::from_static(b"pay me");
            let attacks: [(&dyn Fn(u64) -> Bytes, bool); 4] =
                [(&to_himself, false), (&newer, false), (&empty, true), (&garbage, false)];
            for (attack, is_ours) in attacks {
                let before = read();
                swap(before.header_hash, attack(before.version + 1)).unwrap();
                let kept = reactor::cell::RefCell::new(Vec::new());
                let keep = |newest: &Record| {
                    kept.borrow_mut().push(newest.header_hash);
                    Ok(())
                };
                let attacked = read().header_hash;
                let opens = std::cell::Cell::new(false);
                let change = |_: &mut Charter, newest: Option<&Charter>| -> Result<(), String> {
                    opens.set(newest.is_some());
                    Ok(())
                };
                put_back(&*story.store, &story.keys, "owner", &good, &keep, &change, &swap).unwrap();
                assert_eq!(opens.get(), is_ours);
                assert_eq!(kept.into_inner(), [attacked]);
                let root = story.open(&story.keys.secret).unwrap();
                assert_eq!((root.tree, root.version), (good.tree, before.version + 2));
                assert!(root.charter.collection().is_none());
            }
            let volume = Volume::open(story.store.clone(), story.keys.clone(), Options::default()).unwrap();
            assert!(volume.lookup(Inode::ROOT, b"kept").is_ok());
            volume.make_directory(Inode::ROOT, b"and so on", 0o755, &credentials).unwrap();
            volume.close().stored().unwrap();
        });
    }

    #[test]
    fn who_was_taken_off_since_is_not_let_in_by_a_state_from_before() {
        reactor::run(|| {
            let (story, goes, comes) = (Story::new(), X25519Secret::generate(), X25519Secret::generate());
            let register = story.keys.register;
            story.change(&|readers| readers.push(goes.public())).unwrap();
            let then = story.open(&story.keys.secret).unwrap();
            story.change(&|readers| *readers = vec![comes.public()]).unwrap();
            let swap = |expected, payload| story.store.compare_and_swap(&register, Some(expected), payload);
            let change = |charter: &mut Charter, newest: Option<&Charter>| -> Result<(), String> {
                charter.take_access_of(newest.ok_or("it opens")?);
                Ok(())
            };
            put_back(&*story.store, &story.keys, "owner", &then, &|_| Ok(()), &change, &swap).unwrap();
            assert_eq!(story.open(&goes), Err(RootError::NotAReader));
            assert_eq!(story.open(&comes).unwrap().tree, then.tree);
        });
    }

    #[test]
    fn nobody_locks_himself_out_and_there_is_a_bound() {
        reactor::run(|| {
            let story = Story::new();
            story.change(&Vec::clear).unwrap();
            assert!(story.open(&story.keys.secret).is_ok());
            let crowd = |readers: &mut Vec<X25519Public>| {
                readers.extend((0..READER_COUNT_MAX).map(|_| X25519Secret::generate().public()));
            };
            assert!(matches!(story.change(&crowd), Err(SharingError::TooMany)));
            let keys = VolumeKeys { secret: X25519Secret::generate(), ..story.keys.clone() };
            let unread = Story { keys, ..story };
            assert!(matches!(unread.change(&Vec::clear), Err(SharingError::Root(RootError::NotAReader))));
        });
    }
}
