//! The command line: where options stand, what the help shows, what is refused.

use super::*;

fn command_of(line: &str) -> Result<Command, clap::Error> {
    Cli::try_parse_from(line.split(' ')).and_then(Cli::into_command)
}

#[test]
fn home_may_stand_before_and_after_the_verb() {
    let verbs = "up d;run;mount d;umount d;status;put x;get x;gc;snapshot;snapshots;diff a now;history x;restore x;undelete x;retention;past;rollback --to x;node list;node replace 2;\
                 node drain 2;node remove 2;invite;join t;members;remove w;recovery;\
                 recover --node 127.0.0.1:1;passphrase;owner export f;owner renew;owner import f;\
                 group create g;group add g w;group remove g w x;group list;group delete g;\
                 group restore --anew";
    for verb in verbs.split(';') {
        for line in [format!("storage-node --home h {verb}"), format!("storage-node {verb} --home h")] {
            let mut command = command_of(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(command.home_mut().as_deref(), Some(std::path::Path::new("h")), "{line}");
        }
        assert!(command_of(&format!("storage-node --home h {verb} --home other")).is_err(), "{verb}");
    }
    assert!(command_of("storage-node run").is_err());
    assert!(command_of("storage-node --home h status --network n --key k").is_err());
    assert!(command_of("storage-node status --home h --network n --key k").is_err());
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_shows_an_example() {
    for command in Cli::command().get_subcommands_mut() {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example"), "{} shows no example", command.get_name());
        assert!(help.contains("storage-node "), "{} has no line to copy", command.get_name());
    }
}

#[test]
fn nodes_are_between_one_and_sixty_four() {
    assert!(Cli::try_parse_from(["storage-node", "up", "--nodes", "0", "d"]).is_err());
    assert!(Cli::try_parse_from(["storage-node", "up", "--nodes", "65", "d"]).is_err());
    assert!(Cli::try_parse_from(["storage-node", "up", "--nodes", "3", "d"]).is_ok());
}

#[test]
fn a_node_is_named_with_its_port_and_a_member_by_what_shows_as_it_is() {
    for line in ["status --node ADDRESS", "run --home h --node ADDRESS", "recover --node ADDRESS"] {
        let with = |address: &str| command_of(&format!("storage-node {}", line.replace("ADDRESS", address)));
        assert!(with("203.0.113.7:4701").is_ok() && with("[::1]:4701").is_ok(), "{line}");
        let error = with("203.0.113.7").unwrap_err().to_string();
        assert!(error.contains("give it with its port, as in 203.0.113.7:4701"), "{error}");
    }
    for (name, is_fine) in
        [("ben", true), ("Änne.2@desk-top_1", true), ("ben/x", false), ("ben?", false), ("facade", false)]
    {
        let line = format!("storage-node join --as {name} t");
        assert_eq!(command_of(&line).is_ok(), is_fine, "{line}");
    }
}

#[test]
fn nodes_listen_on_an_address_that_others_can_dial() {
    for (address, is_fine) in
        [("192.0.2.7", true), ("::1", true), ("0.0.0.0", false), ("::", false), ("x", false)]
            .into_iter()
            .chain([("192.0.2.7:443", true), ("[::1]:443", true), ("0.0.0.0:443", false)])
            .chain([("192.0.2.7:0", false), ("192.0.2.7:65536", false), (":443", false)])
    {
        for line in ["up --listen ADDRESS d", "join --listen ADDRESS hypha1x"] {
            let line = format!("storage-node {}", line.replace("ADDRESS", address));
            assert_eq!(command_of(&line).is_ok(), is_fine, "{line}");
        }
    }
}

#[test]
fn a_network_file_without_a_key_is_refused() {
    assert!(Cli::try_parse_from(["storage-node", "mount", "--network", "n", "d"]).is_err());
    assert!(Cli::try_parse_from(["storage-node", "mount", "--network", "n", "--key", "k", "d"]).is_ok());
}

#[test]
fn options_may_stand_on_either_side_of_a_second_verb() {
    for line in [
        "storage-node journal --home h --directory d export out",
        "storage-node journal export --home h --directory d out",
        "storage-node journal --directory d export --home h out",
        "storage-node --home h journal --directory d --home h export out",
    ] {
        let Command::Journal(journal) = command_of(line).unwrap_or_else(|error| panic!("{line}: {error}"))
        else {
            panic!("{line}")
        };
        let place = journal.place();
        assert_eq!(place.client.home.home.as_deref(), Some("h".as_ref()), "{line}");
        assert_eq!(place.directory.as_deref(), Some("d".as_ref()), "{line}");
    }
    for line in ["storage-node node --home h list", "storage-node node list --home h"] {
        let Ok(Command::Node(node)) = command_of(line) else { panic!("{line}") };
        assert_eq!(node.client().home.home.as_deref(), Some("h".as_ref()), "{line}");
    }
    let Ok(Command::Owner(owner)) = command_of("storage-node owner --home h renew") else { panic!() };
    assert_eq!(owner.home().home.as_deref(), Some("h".as_ref()));
    assert!(command_of("storage-node journal --home h export --home i out").is_err());
}

#[test]
fn where_secrets_come_from_may_stand_before_and_after_the_verb() {
    for line in
        ["storage-node --passphrase-fd 3 --owner f status", "storage-node status --passphrase-fd 3 --owner f"]
    {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(cli.secrets.passphrase().descriptor, Some(3), "{line}");
        assert!(cli.secrets.given().owner.is_some(), "{line}");
    }
    // No secret ever stands on the line itself.
    assert!(command_of("storage-node passphrase secret").is_err());
    assert!(command_of("storage-node recover --node 127.0.0.1:1 abandon").is_err());
    assert!(command_of("storage-node recover").is_err());
}
