//! Keys of homes, for stories about who may do what: passports that the owner might have signed, and what a key opens.
//!
//! This goes below the command line, with the project's own crates: what a removed member could do who keeps its keys and
//! meets a node that serves everybody, no command shows.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use dht::block::configuration::Membership;
use dht::block::mutable::{Genesis, Signed};
use dht::{BlockStore, RegisterAddress, SwapError, owner_tag};
use filesystem::access::{RootSealer, SpaceLink, VolumeKeys, open_root};
use filesystem::volume::{Options, Place, Volume};
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

/// Whose network it is that a home belongs to.
pub fn network_of(home: &Path) -> PublicKey {
    PublicKey::from_bytes(array(&read(&home.join("network.json"))["owner"]))
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
    let network = read(&home.join("network.json"));
    as_user(home, home, |client| that_open(client, &bytes(&network["volume"]["genesis"]), keys))
}

/// As [`that_open_the_root`], of the space that is the last in the roll of `home`.
pub fn that_open_the_last_space(home: &Path, keys: &[&Identity]) -> Vec<PublicKey> {
    as_user(home, home, |client| that_open(client, &last_space(home), keys))
}

/// Has the user of `writer` seal the space that is the last in the roll of `home` to `readers` and to nobody else, which no command
/// does: whoever may write can. The root opens as soon as `ahead` others have come after it.
pub fn seal_the_last_space(home: &Path, writer: &Path, readers: &[&Identity], ahead: u64) {
    let user = identity(&writer.join("user.key"));
    as_user(home, writer, |client| {
        let register = opened(client, &last_space(home));
        let record = client.read(&register).unwrap().expect("the space has a root");
        let mut root = open_root(&record.payload, record.version, &user.sealing_key()).unwrap();
        root.charter.readers = readers.iter().map(|reader| reader.sealing_key().public()).collect();
        (root.version, root.previous) = (record.version + 1 + ahead, Some(record.header_hash));
        let payload = RootSealer::new().seal(&root);
        client.compare_and_swap(&register, Some(record.header_hash), payload).unwrap();
    });
}

/// Has the user of `writer` put anything into the place of that space's root: it fails for who may not write there.
pub fn overwrite_the_last_space(home: &Path, writer: &Path, payload: &'static [u8]) -> Result<(), SwapError> {
    as_user(home, writer, |client| {
        let register = opened(client, &last_space(home));
        let expected = client.read(&register).unwrap().map(|record| record.header_hash);
        client.compare_and_swap(&register, expected, Bytes::from_static(payload)).map(drop)
    })
}

/// Has the user of `writer` put a link to the space that has this place in the roll at a name of the drive that its owner did not
/// give it, also in the place of another's.
pub fn link_a_space(home: &Path, writer: &Path, space: usize, name: &str) {
    let network = read(&home.join("network.json"));
    let secret = identity(&writer.join("user.key")).sealing_key();
    as_user(home, writer, |client| {
        let register = opened(client, &bytes(&network["volume"]["genesis"]));
        let keys = VolumeKeys { register, secret, readers: Vec::new() };
        let volume = Volume::open(Rc::new(client.clone()), keys, Options::default()).unwrap();
        let roll = read(&home.join("members/roll.json"));
        let genesis = Signed::<Genesis>::from_bytes(&bytes(&roll["spaces"][space]["genesis"])).unwrap();
        let link = SpaceLink::new(genesis).encode();
        match volume.look_at_place(name).unwrap() {
            Place::Link(old) => volume.replace_link(name, &old, &link).unwrap(),
            Place::Free(..) => volume.make_link(name, &link).unwrap(),
        }
        volume.close().stored().unwrap();
    });
}

fn last_space(home: &Path) -> Vec<u8> {
    let roll = read(&home.join("members/roll.json"));
    bytes(&roll["spaces"].as_array().unwrap().last().unwrap()["genesis"])
}

/// The register of the root of the drive of `home`, opened by `client`.
pub fn drive(client: &dht::Client<Rc<Node>>, home: &Path) -> RegisterAddress {
    opened(client, &bytes(&read(&home.join("network.json"))["volume"]["genesis"]))
}

/// Whose the drive of `home` is, and the salt of its blocks' tag.
pub fn drive_tag(home: &Path) -> (PublicKey, [u8; 32]) {
    let network = read(&home.join("network.json"));
    (PublicKey::from_bytes(array(&network["volume_owner"])), array(&network["volume_salt"]))
}

fn opened(client: &dht::Client<Rc<Node>>, genesis: &[u8]) -> RegisterAddress {
    client.open_register(Membership::from(Signed::<Genesis>::from_bytes(genesis).unwrap())).unwrap()
}

fn that_open(client: &dht::Client<Rc<Node>>, genesis: &[u8], keys: &[&Identity]) -> Vec<PublicKey> {
    let root = client.read(&opened(client, genesis)).unwrap().expect("it has a root");
    let opens = |key: &&Identity| open_root(&root.payload, root.version, &key.sealing_key()).is_ok();
    keys.iter().copied().filter(opens).map(Identity::public_key).collect()
}

/// Connects to the network of `home` as the user of another one.
pub fn as_user<T: Send>(
    home: &Path,
    user: &Path,
    work: impl FnOnce(&dht::Client<Rc<Node>>) -> T + Send,
) -> T {
    let (network, key) = (read(&home.join("network.json")), read(&user.join("user.key")));
    let user = identity(&user.join("user.key"));
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
        let result = work(&dht::Client::new(overlay.clone(), None, config));
        overlay.stop();
        result
    })
}
