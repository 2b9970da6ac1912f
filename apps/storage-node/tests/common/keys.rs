//! Keys of homes, for stories about who may do what: passports that the owner might have signed, and what a key opens.
//!
//! This goes below the command line, with the project's own crates: what a removed member could do who keeps its keys and
//! meets a node that serves everybody, no command shows.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use dht::block::configuration::Membership;
use dht::block::mutable::{Genesis, Signed};
use dht::{BlockStore, owner_tag};
use filesystem::access::open_root;
use overlay::{Config, Node, Passport, Peers, Rights, Role};
use reactor::crypto::{Identity, PublicKey};
use reactor::rpc::Service;
use serde_json::Value;

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

fn array(value: &Value) -> [u8; 32] {
    bytes(value).try_into().unwrap()
}

/// Whose key is in the file.
pub fn identity(key_file: &Path) -> Identity {
    Identity::from_seed(&array(&read(key_file)["seed"]))
}

/// Has a home's key file show a passport that the owner signed and that ended a day ago, and forgets any renewal.
pub fn let_expire(owner: &Path, home: &Path) {
    let (owner, path) = (identity(&owner.join("owner.key")), home.join("user.key"));
    let expires = SystemTime::now() - Duration::from_secs(86_400);
    let passport = Passport::issue(&owner, identity(&path).public_key(), Rights::CLIENT, Some(expires));
    let mut key = read(&path);
    key["passport"] = HEXLOWER.encode(&passport.to_bytes()).into();
    fs::write(path, key.to_string()).unwrap();
    let _ = fs::remove_file(home.join("renewals"));
}

/// Which of `keys` open the drive's root as the nodes have it now. It is fetched by the user of `home`, as a node would hand
/// it to anybody that serves whoever asks.
pub fn that_open_the_root(home: &Path, keys: &[&Identity]) -> Vec<PublicKey> {
    let (network, key) = (read(&home.join("network.json")), read(&home.join("user.key")));
    let user = identity(&home.join("user.key"));
    let addresses: Vec<SocketAddr> = (network["nodes"].as_array().unwrap().iter())
        .map(|node| node["address"].as_str().unwrap().parse().unwrap())
        .collect();
    let owner = PublicKey::from_bytes(array(&network["volume_owner"]));
    reactor::run(|| {
        let config = Config {
            identity: user.clone(),
            network: PublicKey::from_bytes(array(&network["owner"])),
            passport: Passport::from_bytes(&bytes(&key["passport"])).unwrap(),
            role: Role::Client,
            listen: None,
            bootstrap: addresses.into_iter().map(Into::into).collect(),
            contacts_file: None,
            revocations_file: None,
            renewals_file: None,
            statement: Default::default(),
            record_file: None,
            peers: Peers::new(),
        };
        let overlay = Node::start(config, Service::new()).unwrap();
        let config = dht::client::Config {
            identity: Rc::new(user.clone()),
            tag: owner_tag(&owner, &array(&network["volume_salt"])),
            replicas: network["replicas"].as_u64().unwrap() as usize,
        };
        let client = dht::Client::new(overlay.clone(), None, config);
        let genesis = Signed::<Genesis>::from_bytes(&bytes(&network["volume"]["genesis"])).unwrap();
        let register = client.open_register(Membership::from(genesis)).unwrap();
        let root = client.read(&register).unwrap().expect("the drive has a root");
        let opens = |key: &&Identity| open_root(&root.payload, root.version, &key.sealing_key()).is_ok();
        let open = keys.iter().copied().filter(opens).map(Identity::public_key).collect();
        overlay.stop();
        open
    })
}
