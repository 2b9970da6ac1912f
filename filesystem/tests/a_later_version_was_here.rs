//! A later version used the volume before us: what it put there that we do not know is kept, or we keep away.
//!
//! And what an earlier version put there goes on as it is.
//!
//! "Later" and "earlier" are played by hand: the root is opened, the tree changed below the volume's back, and a new root is published.

mod common;

use std::rc::Rc;

use bytes::Bytes;
use common::*;
use dht::{Address, BlockStore};
use filesystem::access::{Extension, Features, Root, RootError, RootSealer, open_root};
use filesystem::chunk::{Binding, ChunkKind, Packer, open_run, seal_into};
use filesystem::format::{Key, NAME_HASH_BITS, ObjectId, ObjectRecord, Pointer, Tags, VolumeId};
use filesystem::operations::{RenameFlags, SetAttributes};
use filesystem::tree::commit::{Change, Value, merge};
use filesystem::tree::{Nodes, cursor, node::Node};
use filesystem::volume::Cause;
use filesystem::{Ending, Errno, OpenError, Operations, Volume};

/// The tree as it lies in the store.
struct Stored<'a>(&'a TestStore, VolumeId);

impl Stored<'_> {
    fn load(&self, pointer: &Pointer) -> Rc<Node> {
        let end = pointer.offset + pointer.length;
        let sealed = self.0.get(&Address(pointer.address), Some(pointer.offset..end)).unwrap();
        let binding = Binding { kind: ChunkKind::Node, volume: self.1 };
        let bytes = open_run(&binding, sealed, pointer.offset, &[(*pointer).into()]).unwrap().remove(0);
        Rc::new(Node::decode(bytes, pointer.address).unwrap())
    }

    fn value(&self, root: &Root, key: &[u8]) -> Option<Bytes> {
        let found = cursor::get(&root.tree?, key, |pointer| Some(self.load(pointer))).unwrap()?;
        Some(found.node.shared_value(found.index))
    }
}

impl Nodes for Stored<'_> {
    type Error = Errno;

    fn fetch(&self, pointers: &[Pointer]) -> Result<Vec<Rc<Node>>, Errno> {
        Ok(pointers.iter().map(|pointer| self.load(pointer)).collect())
    }
}

fn root_of(store: &TestStore) -> Root {
    let record = store.read(&keys(store).register).unwrap().unwrap();
    open_root(&record.payload, record.version, &keys(store).secret).unwrap()
}

/// Publishes a root that `change` makes from the last one, with `values` put into the tree.
fn publish(store: &TestStore, values: Vec<(Vec<u8>, Vec<u8>)>, change: impl FnOnce(&mut Root)) {
    let record = store.read(&keys(store).register).unwrap().unwrap();
    let mut root = root_of(store);
    let mut packer = Packer::new(store.tag(), root.charter.volume, record.version + 1);
    let mut changes: Vec<Change> = values
        .into_iter()
        .map(|(key, value)| Change { key: key.into(), value: Some(Value::Raw(value.into())) })
        .collect();
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    let merged = merge(&Stored(store, root.charter.volume), root.tree, &changes, &mut packer).unwrap();
    packer.close();
    for (_, object) in packer.take_ready() {
        store.put(object).unwrap();
    }
    merged.count(&packer, &mut root.objects);
    root.tree = match merged.root {
        Some(Value::Chunk(location)) => Some(packer.pointer(&location)),
        Some(Value::Pointer(pointer)) => Some(pointer),
        _ => None,
    };
    root.previous = Some(record.header_hash);
    root.version = record.version + 1;
    change(&mut root);
    let payload = RootSealer::new().seal(&root);
    store.compare_and_swap(&keys(store).register, Some(record.header_hash), payload).unwrap();
}

fn key(inode: u64, kind: u8, rest: &[u8]) -> Vec<u8> {
    [&inode.to_be_bytes()[..], &[kind], rest].concat()
}

/// Returns the key of `name` in the root directory.
fn entry_key(root: &Root, name: &[u8]) -> Vec<u8> {
    let hash = blake3::keyed_hash(&root.charter.name_key, name);
    let number = u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap()) >> (64 - NAME_HASH_BITS);
    key(1, 3, &[&number.to_be_bytes(), name].concat())
}

#[test]
fn what_we_do_not_know_is_kept_where_it_is_and_moves_with_what_it_belongs_to() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let file = write_file(&volume, ROOT, "file", &[7; 100_000]);
        volume.close().stored().unwrap();

        let root = root_of(&store);
        let stored = Stored(&store, root.charter.volume);
        let record = key(file.0, 1, &[]);
        let entry = entry_key(&root, b"file");
        let mut longer_record = stored.value(&root, &record).unwrap().to_vec();
        longer_record.extend_from_slice(b"of an inode");
        let mut longer_entry = stored.value(&root, &entry).unwrap().to_vec();
        longer_entry.extend_from_slice(b"of a name");
        // A link to another volume, and kinds of keys that nobody has thought of yet.
        let link = entry_key(&root, b"link");
        let link_value = [&99u64.to_le_bytes()[..], &[8], b"id and key box"].concat();
        let of_inode = key(file.0, 9, b"something");
        let of_volume = key(0, 20, b"something else");
        publish(
            &store,
            vec![
                (record.clone(), longer_record),
                (entry, longer_entry),
                (link.clone(), link_value.clone()),
                (of_inode.clone(), b"about a file".to_vec()),
                (of_volume.clone(), b"about the volume".to_vec()),
            ],
            |root| {
                root.charter.features.compatible = 6;
                root.charter.extensions =
                    vec![Extension { kind: 77, value: Bytes::from_static(b"in the root") }];
            },
        );

        let volume = open(&store, "second");
        assert_eq!(names(&volume, ROOT), ["file", "link"]);
        assert_eq!(volume.lookup(ROOT, b"link"), Err(Errno::EOPNOTSUPP));
        assert_eq!(volume.unlink(ROOT, b"link"), Err(Errno::EOPNOTSUPP));
        assert_eq!(volume.make_directory(ROOT, b"link", 0o755, &USER), Err(Errno::EEXIST));
        let directory = volume.make_directory(ROOT, b"directory", 0o755, &USER).unwrap().inode;
        volume.rename(ROOT, b"file", directory, b"moved", RenameFlags::default()).unwrap();
        volume.rename(directory, b"moved", ROOT, b"file", RenameFlags::default()).unwrap();
        volume.write(file, 0, b"written", false).unwrap();
        let mode = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
        volume.set_attributes(file, &mode).unwrap();
        volume.close().stored().unwrap();

        let root = root_of(&store);
        let stored = Stored(&store, root.charter.volume);
        let value = |key: &[u8]| stored.value(&root, key).unwrap();
        assert!(value(&record).ends_with(b"of an inode"));
        assert!(value(&entry_key(&root, b"file")).ends_with(b"of a name"));
        assert_eq!(value(&link), link_value);
        assert_eq!(value(&of_inode), "about a file");
        assert_eq!(value(&of_volume), "about the volume");
        assert_eq!(root.charter.features.compatible, 6);
        assert_eq!(root.charter.extensions[0].value, "in the root");
    });
}

#[test]
fn what_is_said_of_an_object_beyond_its_bytes_is_kept_when_they_are_counted() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let file = write_file(&volume, ROOT, "file", &[7; 100_000]);
        volume.close().stored().unwrap();
        let root = root_of(&store);
        let extent = common::objects::count(&store.memory, &root).extents[0];
        let object = ObjectId::from(&extent);
        let record_key = Key::Object(object).encode();
        let change = root.objects.0[&object];
        let later = ObjectRecord {
            live_bytes: Some(change.live_bytes as u64),
            end: change.end,
            layout: 1,
            tail: Bytes::from_static(b"a key"),
            ..ObjectRecord::default()
        };
        let mut value = Vec::new();
        later.encode(&mut value);
        publish(&store, vec![(record_key.to_vec(), value)], |root| {
            let unfolded = Rc::make_mut(&mut root.objects.0).entry(object).or_default();
            unfolded.live_bytes -= change.live_bytes;
        });

        let volume = open(&store, "second");
        for round in 0..140 {
            volume.write(file, 0, &[round; 100_000], false).unwrap();
            volume.sync(None, false).unwrap();
        }
        volume.close().stored().unwrap();
        let root = root_of(&store);
        let value = Stored(&store, root.charter.volume).value(&root, &record_key).unwrap();
        let counted = ObjectRecord::decode(&value).unwrap();
        assert_eq!((counted.live_bytes, counted.end), (Some(0), later.end), "all of it was written anew");
        assert!(counted.dead_seconds > 0);
        assert_eq!((counted.layout, counted.tail), (later.layout, later.tail));
    });
}

#[test]
fn a_frame_that_is_sealed_in_a_way_of_later_years_is_an_error_and_nothing_else_is() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let file = write_file(&volume, ROOT, "file", &[7; 100_000]);
        let other = write_file(&volume, ROOT, "other", &[8; 100_000]);
        volume.close().stored().unwrap();
        let root = root_of(&store);
        let extent = key(file.0, 4, &1u64.to_be_bytes());
        let mut segments = Vec::new();
        let stored = Stored(&store, root.charter.volume).value(&root, &extent).unwrap();
        let home = [0; 32];
        Pointer::decode(&stored, &home).expect("a pointer").encode(false, &mut segments);
        segments[1] = 0x90;
        publish(&store, vec![(extent.clone(), segments.clone())], |_| {});

        let volume = open(&store, "second");
        assert_eq!(volume.read(file, 40_000, 100).err(), Some(Errno::EIO));
        assert_eq!(flatten(&volume.read(file, 0, 100).unwrap()), [7; 100]);
        assert_eq!(read_file(&volume, other), [8; 100_000]);
        assert_eq!(names(&volume, ROOT), ["file", "other"]);
        volume.write(file, 0, &[9; 32 * 1024], false).unwrap();
        volume.close().stored().unwrap();
        let root = root_of(&store);
        assert_eq!(Stored(&store, root.charter.volume).value(&root, &extent).unwrap(), segments);
    });
}

#[test]
fn frames_that_an_earlier_version_sealed_in_one_piece_are_read_and_only_what_is_written_is_sealed_anew() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let file = write_file(&volume, ROOT, "file", &[7; 100_000]);
        volume.close().stored().unwrap();
        let root = root_of(&store);
        let content: Vec<u8> = (0..32_768u32).map(|at| (at / 5) as u8).collect();
        let (mut object, secret) = (Vec::new(), [4; 32]);
        let binding = Binding { kind: ChunkKind::Frame, volume: root.charter.volume };
        let tags = Tags::whole(seal_into(&mut object, &binding, &content, &secret));
        let address = store.put(object.into()).unwrap().0;
        let (length, birth) = (content.len() as u32, root.version);
        let pointer = Pointer { address, offset: 0, length, size: length, birth, key: secret, tags };
        let mut encoded = Vec::new();
        pointer.encode(false, &mut encoded);
        let extents = [1, 2].map(|index: u64| key(file.0, 4, &index.to_be_bytes()));
        publish(&store, extents.iter().map(|extent| (extent.clone(), encoded.clone())).collect(), |root| {
            root.objects.add(&pointer);
            root.objects.add(&pointer);
            root.charter.features.incompatible &= !Features::SEGMENTS;
        });

        let volume = open(&store, "second");
        assert_eq!(flatten(&volume.read(file, 32_768 + 9000, 4096).unwrap()), content[9000..9000 + 4096]);
        volume.write(file, 65_536, &[9; 10], false).unwrap();
        volume.close().stored().unwrap();
        let root = root_of(&store);
        assert_eq!(root.charter.features.incompatible, Features::SEGMENTS);
        let stored = Stored(&store, root.charter.volume);
        assert_eq!(stored.value(&root, &extents[0]).unwrap(), encoded, "it stays");
        assert_eq!(stored.value(&root, &extents[1]).unwrap()[1], 0x40);
        let volume = open(&store, "third");
        let mut expected = [&[7; 32_768][..], &content, &content, &[7; 1696]].concat();
        expected[65_536..65_546].fill(9);
        assert!(read_file(&volume, file) == expected);
    });
}

#[test]
fn a_volume_that_we_must_not_touch_is_refused_and_left_as_it_is() {
    reactor::run(|| {
        let store = TestStore::new();
        create(&store).close().stored().unwrap();
        publish(&store, Vec::new(), |root| root.charter.features.incompatible = 0x20);
        let before = store.read(&keys(&store).register).unwrap().unwrap();
        let error = Volume::open(store.clone(), keys(&store), options("second")).err();
        assert!(matches!(error, Some(OpenError::Root(RootError::Newer { flags: 0x20 }))), "{error:?}");
        assert_eq!(store.read(&keys(&store).register).unwrap().unwrap(), before);
    });
}

#[test]
fn a_volume_that_we_must_not_write_is_opened_for_reading() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let file = write_file(&volume, ROOT, "file", b"content");
        volume.close().stored().unwrap();
        publish(&store, Vec::new(), |root| root.charter.features.read_compatible = 0x10);
        let before = store.read(&keys(&store).register).unwrap().unwrap();
        let volume = open(&store, "second");
        assert_eq!(read_file(&volume, file), b"content");
        assert_eq!(volume.write(file, 0, b"other", false), Err(Errno::EROFS));
        assert_eq!(volume.unlink(ROOT, b"file"), Err(Errno::EROFS));
        volume.close().stored().unwrap();
        assert_eq!(store.read(&keys(&store).register).unwrap().unwrap(), before);
    });
}

#[test]
fn a_journal_that_cannot_be_put_in_is_not_passed_over() {
    reactor::run(|| {
        let directory = tempfile::tempdir().unwrap();
        let with_journal = || {
            let mut options = options("first");
            options.journal_directory = Some(directory.path().into());
            options
        };
        let store = TestStore::new();
        let volume = Volume::create(store.clone(), keys(&store), with_journal(), (0, 0)).unwrap();
        store.budget.set(0);
        write_file(&volume, ROOT, "file", b"waits");
        assert!(matches!(volume.close(), Ending::InJournal { .. }));
        store.budget.set(u64::MAX);
        publish(&store, Vec::new(), |root| root.charter.features.read_compatible = 0x10);
        let open = |options| Volume::open(store.clone(), keys(&store), options);
        // It would end with the word that everything is stored.
        let error = open(with_journal()).map(drop);
        assert!(matches!(error, Err(OpenError::JournalWaits { flags: 0x10, .. })), "{error:?}");
        assert_eq!(journal_files(directory.path()).len(), 1, "it is kept for the version that can");
        let mut reading = with_journal();
        reading.read_only = true;
        open(reading).expect("who asks to read only may").close().stored().unwrap();
        for file in journal_files(directory.path()) {
            std::fs::remove_file(file).unwrap();
        }
        open(with_journal()).expect("without it there is nothing to lose").close().stored().unwrap();
    });
}

#[test]
fn a_mount_hears_of_features_that_come_while_it_runs() {
    reactor::run(|| {
        let store = TestStore::new();
        let volume = create(&store);
        let file = write_file(&volume, ROOT, "file", b"content");
        volume.sync(None, false).unwrap();
        let features = Features { read_compatible: 1, ..Features::default() };
        publish(&store, Vec::new(), |root| root.charter.features = features);
        let before = store.read(&keys(&store).register).unwrap().unwrap();
        volume.write(file, 0, b"late", false).unwrap();
        assert_eq!(volume.sync(None, false), Err(Errno::EROFS));
        assert_eq!(volume.write(file, 0, b"more", false), Err(Errno::EROFS));
        assert_eq!(read_file(&volume, file), b"lateent");
        assert!(matches!(volume.close(), Ending::Lost { cause: Cause::Failed(_), .. }));
        assert_eq!(store.read(&keys(&store).register).unwrap().unwrap(), before);
    });
}
