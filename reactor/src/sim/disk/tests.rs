//! What a simulated disk keeps of writes and names when the power goes, and what it refuses.

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn create(disk: &mut Disk, path: &str) -> u64 {
    disk.open(Path::new(path), Opening { create: true, writes: true, mode: 0o666, ..Opening::default() }, NOW)
        .unwrap()
}

fn names(disk: &Disk) -> Vec<String> {
    let names = disk.list(ROOT).unwrap();
    names.into_iter().map(|(name, ..)| name.into_string().unwrap()).collect()
}

fn content(disk: &mut Disk, path: &str) -> Vec<u8> {
    let number = disk.resolve(Path::new(path), true).unwrap();
    disk.read(number, 0, 1000).unwrap()
}

#[test]
fn a_file_needs_its_directory_synced_to_survive_a_crash() {
    let mut disk = Disk::new(NOW);
    let file = create(&mut disk, "/a");
    disk.write(file, Some(0), b"content", NOW).unwrap();
    disk.sync(file, false).unwrap();
    disk.crash(|_| 0, |_| Fate::Lost);
    assert!(names(&disk).is_empty(), "its content was synced, its name was not");

    let file = create(&mut disk, "/a");
    disk.write(file, Some(0), b"content", NOW).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let damage = disk.crash(
        |unsynced| {
            assert_eq!(unsynced, 0);
            0
        },
        |_| Fate::Lost,
    );
    assert_eq!(names(&disk), ["a"]);
    assert_eq!(content(&mut disk, "/a"), b"", "its name was synced, its content was not");
    assert_eq!(damage, Damage { lost_writes: 1, torn_writes: 0, lost_names: 0 });
}

#[test]
fn a_rename_is_whole_or_not_there() {
    for kept in 0..=1 {
        let mut disk = Disk::new(NOW);
        for (path, bytes) in [("/state", b"old"), ("/new", b"new")] {
            let file = create(&mut disk, path);
            disk.write(file, Some(0), bytes, NOW).unwrap();
            disk.sync(file, false).unwrap();
        }
        disk.sync_dir(Path::new("/")).unwrap();
        disk.rename(Path::new("/new"), Path::new("/state"), NOW).unwrap();
        assert_eq!((names(&disk), content(&mut disk, "/state")), (vec!["state".to_owned()], b"new".to_vec()));
        disk.crash(|_| kept, |_| Fate::Lost);
        if kept == 1 {
            assert_eq!(
                (names(&disk), content(&mut disk, "/state")),
                (vec!["state".to_owned()], b"new".to_vec())
            );
        } else {
            assert_eq!(names(&disk), ["new", "state"]);
            assert_eq!(content(&mut disk, "/state"), b"old");
        }
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_removing_makes_room() {
    let mut disk = Disk::new(NOW);
    disk.capacity_bytes = Some(10);
    let file = create(&mut disk, "/a");
    assert_eq!(disk.write(file, None, b"12345678", NOW).unwrap(), 8);
    assert_eq!(disk.write(file, None, b"12345678", NOW).unwrap(), 2);
    assert_eq!(disk.write(file, None, b"1", NOW).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(disk.write(file, Some(0), b"x", NOW).unwrap(), 1, "in place there is room");
    disk.close(file);
    disk.remove_file(Path::new("/a"), NOW).unwrap();
    // The name's removal is not durable, so the blocks are not free.
    let other = create(&mut disk, "/b");
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(disk.write(other, None, b"1234567890", NOW).unwrap(), 10);
}

#[test]
fn paths_lead_through_links_and_dots() {
    let mut disk = Disk::new(NOW);
    disk.create_dir(Path::new("/d"), NOW).unwrap();
    disk.create_dir(Path::new("/d/e"), NOW).unwrap();
    let file = create(&mut disk, "/d/e/f");
    disk.symlink(Path::new("e"), Path::new("/d/link"), NOW).unwrap();
    assert_eq!(disk.resolve(Path::new("d/link/../e/./f"), true).unwrap_or(0), file);
    assert_eq!(disk.resolve(Path::new("/d/link/f"), true).unwrap_or(0), file);
    disk.symlink(Path::new("/loop"), Path::new("/loop"), NOW).unwrap();
    assert!(disk.resolve(Path::new("/loop"), true).is_err());
    assert_eq!(disk.read_link(Path::new("/loop")).unwrap(), Path::new("/loop"));
    let below = disk.rename(Path::new("/d"), Path::new("/d/e/g"), NOW);
    assert_eq!(below.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(disk.remove_dir(Path::new("/d"), NOW).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    disk.hard_link(Path::new("/d/e/f"), Path::new("/again"), NOW).unwrap();
    assert_eq!(disk.known(file).unwrap().link_count, 2);
    assert_eq!(disk.remove_file(Path::new("/d"), NOW).unwrap_err().kind(), ErrorKind::IsADirectory);
}

#[test]
fn an_open_file_outlives_its_name_and_not_a_crash() {
    let mut disk = Disk::new(NOW);
    let file = create(&mut disk, "/a");
    disk.sync_dir(Path::new("/")).unwrap();
    disk.remove_file(Path::new("/a"), NOW).unwrap();
    disk.write(file, Some(0), b"still here", NOW).unwrap();
    assert_eq!(disk.read(file, 0, 100).unwrap(), b"still here");
    disk.crash(|unsynced| unsynced, |_| Fate::Kept);
    assert!(disk.read(file, 0, 100).is_err() && names(&disk).is_empty());
}
