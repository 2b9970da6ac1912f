//! A node restarts with no bootstrap address: it rejoins through the contacts it saved, also when the file was damaged
//! in part. A file that is damaged as a whole is no reason not to start.

mod common;

use std::fs;
use std::time::Duration;

use common::*;
use overlay::Config;
use reactor::crypto::Identity;

#[test]
fn restart_from_saved_contacts() {
    reactor::run(|| {
        let (_directory, path) = scratch_file("contacts");
        let network = Network::new();
        let nodes = network.start(3);
        let config = Config { contacts_file: Some(path.clone()), ..network.storage(&[address(&nodes[0])]) };
        let (seed, passport) = (config.identity.seed(), config.passport.clone());
        let node = start(config);
        node.stop();
        drop(node);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4, "a header and three contacts");

        let again = || {
            let config = Config { contacts_file: Some(path.clone()), ..network.storage(&[]) };
            start(Config { identity: Identity::from_seed(&seed), passport: passport.clone(), ..config })
        };
        let node = again();
        assert_eq!(live_count(&node), 3);
        node.stop();

        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines[1] = "7f45 nonsense \u{fffd}";
        fs::write(&path, lines.join("\n")).unwrap();
        let node = again();
        assert_eq!(live_count(&node), 3, "the other lines suffice");
        node.stop();

        fs::write(&path, [0xff; 100_000]).unwrap();
        let node = again();
        assert_eq!(live_count(&node), 0);
        node.join(&[contact(&nodes[0]).into()]).unwrap();
        let mended = || fs::read_to_string(&path).is_ok_and(|text| text.lines().count() == 4);
        eventually("the file is written anew", Duration::from_secs(7), mended);
    });
}

#[test]
fn contacts_are_saved_while_running_so_that_a_kill_loses_none() {
    reactor::run(|| {
        let (_directory, path) = scratch_file("contacts");
        let network = Network::new();
        let first = start(network.storage(&[]));
        let _node =
            start(Config { contacts_file: Some(path.clone()), ..network.storage(&[address(&first)]) });
        let saved = || fs::read_to_string(&path).is_ok_and(|text| text.lines().count() == 2);
        eventually("the contact is saved", Duration::from_secs(3), saved);
    });
}
