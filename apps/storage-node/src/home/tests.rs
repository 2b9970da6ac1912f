//! A home: founded, opened again, locked, and told from other directories.

use super::*;

fn home() -> (tempfile::TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::locate(Some(directory.path())).unwrap();
    (directory, home)
}

#[test]
fn the_usual_home_follows_the_xdg_specification() {
    assert_eq!(usual(Some("/data".into()), Some("/home/me".into())), Some("/data/hypha".into()));
    assert_eq!(
        usual(Some("relative".into()), Some("/home/me".into())),
        Some("/home/me/.local/share/hypha".into())
    );
    assert_eq!(usual(None, None), None);
}

#[test]
fn a_network_is_founded_once_and_found_again() {
    let (_directory, home) = home();
    let (first, new) = home.open_or_found(Some(3)).unwrap();
    assert!(new);
    assert_eq!((first.nodes.len(), first.replicas), (3, 3));
    let (again, new) = home.open_or_found(None).unwrap();
    assert!(!new);
    assert_eq!(again.owner, first.owner);
    assert!(matches!(
        home.open_or_found(Some(2)),
        Err(Failure::OtherNodeCount { remembered: 3, asked: 2, .. })
    ));
}

#[test]
fn a_directory_with_other_things_in_it_is_not_taken_over() {
    let (directory, home) = home();
    fs::write(directory.path().join("thesis.tex"), "x").unwrap();
    assert!(matches!(home.open_or_found(None), Err(Failure::HomeOccupied { .. })));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_founding_that_was_cut_short_is_begun_again() {
    let (_directory, home) = home();
    home.open_or_found(Some(2)).unwrap();
    fs::remove_file(home.network_file()).unwrap();
    let key = fs::read(home.owner_key_file()).unwrap();
    assert!(matches!(home.open_or_found(Some(2)), Err(Failure::LonelyKeys { .. })), "keys are destroyed");
    assert_eq!(fs::read(home.owner_key_file()).unwrap(), key);
    fs::write(home.path().join("founding"), "").unwrap();
    // A drive of a network without a home has its directory in the usual one, which may have nothing else yet.
    fs::create_dir(home.path().join("networks")).unwrap();
    let (network, new) = home.open_or_found(Some(2)).unwrap();
    assert!(new && !home.path().join("founding").exists());
    assert_eq!(home.node(2).network().unwrap().owner, network.owner);
}

#[test]
fn a_locked_home_says_who_has_it() {
    let (_directory, home) = home();
    let lock = home.lock().unwrap();
    match home.lock() {
        Err(Failure::Locked { holder, .. }) => assert_eq!(holder, std::process::id().to_string()),
        other => panic!("{other:?}"),
    }
    drop(lock);
    home.lock().unwrap();
}

#[test]
fn the_home_of_a_network_is_no_home_of_a_node() {
    let (directory, home) = home();
    home.open_or_found(None).unwrap();
    assert!(matches!(NodeHome::open(directory.path()), Err(Failure::NetworkHomeForNode { .. })));
    NodeHome::open(home.node(1).path()).unwrap();
}

#[test]
fn a_home_is_recovered_into_an_empty_directory_or_where_that_was_cut_short() {
    let (directory, home) = home();
    home.refuse_to_recover().unwrap();
    fs::write(home.owner_key_file(), "the key comes first").unwrap();
    home.refuse_to_recover().unwrap();
    fs::rename(home.owner_key_file(), home.user_key_file()).unwrap();
    assert!(matches!(home.refuse_to_recover(), Err(Failure::LonelyKeys { .. })));
    fs::remove_file(home.user_key_file()).unwrap();
    fs::write(directory.path().join("thesis.tex"), "x").unwrap();
    assert!(matches!(home.refuse_to_recover(), Err(Failure::HomeOccupied { .. })));
    fs::remove_file(directory.path().join("thesis.tex")).unwrap();
    home.open_or_found(None).unwrap();
    assert!(matches!(home.refuse_to_recover(), Err(Failure::NotRecovered { .. })));
}
