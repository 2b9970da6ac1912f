//! Two processes have one node's key: a copy of its home was started where the node never said that it was, or the original comes
//! back while its copy runs. Both find out by what others know, the later one is to stop and does not start again before the owner says
//! so, and a node that was only started again is no copy of itself. Whoever has stolen a node's key stops nobody who has not just begun.
//!
//! What went wrong: each went on, was one node to everybody else, and gave promises that the other had never heard of. Then the one
//! stopped that said it began later, by its clock: the original, where its copy's clock was behind, or a thief said 1970. And who had
//! stopped was started again, and served until it was told once more.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use overlay::contact::Introduction;
use overlay::life::{Life, LifeWord, SETTLED};
use overlay::message::Introduce;
use overlay::record::RecordError;
use overlay::{Config, Node, NodeRecord, Overlay, StartError, Statement, Stops};
use reactor::crypto::Identity;
use reactor::rpc::{CallError, Service};
use reactor::serialization::to_bytes;

const SOON: Duration = Duration::from_secs(30);

/// A node's home, as far as it matters here, and others that it meets.
struct Story {
    network: Network,
    config: Config,
    others: Vec<Rc<Node>>,
}

impl Story {
    fn new() -> Story {
        let network = Network::new();
        let (others, config) = (network.start(2), network.storage(&[]));
        Story { network, config, others }
    }

    /// Who serves with the home's key by way of one of the others, and keeps its word in `record`.
    fn config(&self, record: &Path, by: usize) -> Config {
        Config {
            identity: self.config.identity.clone(),
            passport: self.config.passport.clone(),
            record_file: Some(record.to_owned()),
            ..self.network.storage(&[address(&self.others[by])])
        }
    }

    fn start(&self, record: &Path, by: usize) -> Rc<Node> {
        let node = start(self.config(record, by));
        let is_known = || {
            self.others.iter().all(|other| other.contacts().iter().any(|(known, _)| known.id == node.id()))
        };
        eventually("it is known", SOON, is_known);
        node
    }

    /// What the home's node signs as `life` word.
    fn sign(&self, version: u64, statement: Statement, word: LifeWord) -> NodeRecord {
        let network = self.network.owner.public_key();
        NodeRecord::sign_in(&self.config.identity, &network, version, statement, Some(word))
    }

    /// A copy of the home of `node`, without where that is.
    fn copy_home_elsewhere(&self, node: &Node, record: &Path) {
        let said = node.record().unwrap();
        let said = self.sign(said.version(), Statement::default(), said.life().unwrap().clone());
        fs::write(record, to_bytes(&(Some(said.signed()), None::<()>, false))).unwrap();
    }
}

fn twin_at(node: &Node) -> Option<(Option<SocketAddr>, Stops)> {
    node.twin().map(|twin| (twin.address, twin.stops))
}

/// Both know of each other, and `later` is told to stop; it is not started again, whether the other is up or not, before the owner
/// says so.
fn one_stops(story: &Story, elder: &Node, later: &Node, record: &Path) {
    let told = later.wait_until_twin_stops_us();
    assert_eq!((told.address, told.stops), (elder.listen_address(), Stops::We));
    let later_at = later.listen_address();
    later.stop();
    eventually("the elder knows too", SOON, || twin_at(elder) == Some((later_at, Stops::They)));
    let again = || Node::start(story.config(record, 0), Service::new());
    assert!(
        matches!(again(), Err(StartError::Twin { address }) if Some(address) == elder.listen_address()),
        "it is seen where the elder is"
    );
    assert!(elder.ping(&contact(&story.others[0])));
    elder.stop();
    for _ in 0..2 {
        assert!(
            matches!(again(), Err(StartError::Stopped { address }) if address == elder.listen_address()),
            "who can't be dialled may be there all the same"
        );
    }
    overlay::accept_copy(record).unwrap();
    let accepted = again().map_err(|error| error.to_string()).expect("the owner said so");
    assert!(accepted.ping(&contact(&story.others[0])));
    accepted.stop();
}

/// Waits until one of the two is told to stop: of these nobody knows which began later, but both the same.
fn the_later_of<'a>(one: (&'a Node, &'a Path), other: (&'a Node, &'a Path)) -> [(&'a Node, &'a Path); 2] {
    let is_told = |node: &Node| node.twin().is_some_and(|twin| twin.stops == Stops::We);
    eventually("one of them is to stop", SOON, || is_told(one.0) || is_told(other.0));
    assert!(!is_told(one.0) || !is_told(other.0), "one goes on");
    if is_told(one.0) { [other, one] } else { [one, other] }
}

#[test]
fn a_copy_that_never_heard_where_its_original_is_stops() {
    reactor::run(|| {
        let story = Story::new();
        let ((_one, record), (_two, copied)) = (scratch_file("record"), scratch_file("record"));
        let original = story.start(&record, 0);
        let copy = story.start(&copied, 1);
        let [(elder, _), (later, record)] = the_later_of((&original, &record), (&copy, &copied));
        one_stops(&story, elder, later, record);
    });
}

#[test]
fn a_copy_of_one_that_is_elsewhere_stops_and_the_original_goes_on() {
    reactor::run(|| {
        let story = Story::new();
        let ((_one, record), (_two, copied)) = (scratch_file("record"), scratch_file("record"));
        let original = story.start(&record, 0);
        story.copy_home_elsewhere(&original, &copied);
        let copy = story.start(&copied, 1);
        one_stops(&story, &original, &copy, &copied);
    });
}

#[test]
fn who_serves_beside_another_by_the_owners_word_goes_on_and_both_say_so() {
    reactor::run(|| {
        let story = Story::new();
        let ((_one, record), (_two, copied)) = (scratch_file("record"), scratch_file("record"));
        let original = story.start(&record, 0);
        story.copy_home_elsewhere(&original, &copied);
        overlay::accept_copy(&copied).unwrap();
        let copy = story.start(&copied, 1);
        let (original_at, copy_at) = (original.listen_address(), copy.listen_address());
        eventually("both say so", SOON, || {
            twin_at(&original) == Some((copy_at, Stops::Nobody))
                && twin_at(&copy) == Some((original_at, Stops::Nobody))
        });
        // It was said for one start.
        copy.stop();
        let copy = story.start(&copied, 1);
        one_stops(&story, &original, &copy, &copied);
    });
}

/// Has the node hear what whoever has its key says, by another member.
fn show(story: &Story, node: &Node, said: &NodeRecord) -> Result<(), RecordError> {
    let addresses = [].into_iter().collect();
    let introduction =
        Introduction { public_key: *said.holder(), addresses, record: Some(said.signed().clone()) };
    match story.others[0].call::<Introduce>(&contact(node), &introduction, Bytes::new(), SOON) {
        Ok(_) => Ok(()),
        Err(CallError::Remote(error)) => Err(error),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_record_signed_by_the_keys_thief_stops_nobody_who_has_not_just_begun() {
    in_counted_time(|_| {
        let story = Story::new();
        let node = start(Config { record_file: None, ..story.config(Path::new("unused"), 0) });
        let ancestor = node.record().unwrap();
        reactor::sleep(SETTLED);
        let (network, key) = (story.network.owner.public_key(), *ancestor.holder());
        let own = node.record().unwrap();
        let nonce = own.life().unwrap().nonce();
        let version = own.version() + 1;
        // He has been there for ever, by his word.
        let thief = Life::begin(Identity::generate(), None, true, reactor::now());
        let word = thief.word(&network, &key, version, Some((nonce, u64::MAX)));
        let statement = Statement {
            addresses: [([192, 0, 2, 7], 4701).into()].into_iter().collect(),
            ..Statement::default()
        };
        assert_eq!(show(&story, &node, &story.sign(version, statement.clone(), word)), Ok(()));
        assert_eq!(twin_at(&node), Some((Some(([192, 0, 2, 7], 4701).into()), Stops::Nobody)));
        // Or is a life of the node's own, which he does not have the key of.
        let word = ancestor.life().unwrap().clone();
        let forged = story.sign(version + 1, statement, word);
        assert_eq!(show(&story, &node, &forged), Err(RecordError::Forged));
        reactor::sleep(SETTLED);
        assert_eq!(twin_at(&node).unwrap().1, Stops::Nobody);
        assert!(node.ping(&contact(&story.others[0])), "it serves");
    });
}

#[test]
fn an_original_that_comes_back_while_its_copy_runs_stops() {
    reactor::run(|| {
        let story = Story::new();
        let ((_one, record), (_two, copied)) = (scratch_file("record"), scratch_file("record"));
        let original = story.start(&record, 0);
        fs::copy(&record, &copied).unwrap();
        original.stop();
        let copy = story.start(&copied, 1);
        assert_eq!(twin_at(&copy), None, "it is alone");
        let original = story.start(&record, 0);
        let [(elder, _), (later, record)] = the_later_of((&copy, &copied), (&original, &record));
        one_stops(&story, elder, later, record);
    });
}

#[test]
fn a_node_that_is_started_again_is_no_copy_of_itself() {
    reactor::run(|| {
        let story = Story::new();
        let (_directory, record) = scratch_file("record");
        let mut node = story.start(&record, 0);
        for by in [1, 0] {
            node.stop();
            node = story.start(&record, by);
            let newest = node.record();
            let is_known = |other: &Rc<Node>| {
                other
                    .contacts()
                    .iter()
                    .any(|(known, _)| known.id == node.id() && known.record() == newest.as_ref())
            };
            eventually("its newest word is known", SOON, || story.others.iter().all(is_known));
        }
        // What is forgotten is reminded of, by its own earlier lives, and by its own clock of later ones.
        node.stop();
        fs::remove_file(&record).unwrap();
        node = story.start(&record, 0);
        let first = node.record().unwrap().version();
        node.restate(|says| says.release = "another".into());
        assert!(node.record().unwrap().version() > first);
        for _ in 0..20 {
            assert!(story.others.iter().all(|other| node.ping(&contact(other))));
            assert_eq!(node.twin(), None);
        }
    });
}
