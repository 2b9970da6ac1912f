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
use reactor::crypto::{Identity, PublicKey};
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
    fn sign(
        &self,
        version: u64,
        statement: Statement,
        word: impl FnOnce(&[u8]) -> Option<LifeWord>,
    ) -> NodeRecord {
        NodeRecord::sign_in(&self.config.identity, &self.network(), version, statement, word)
    }

    fn network(&self) -> PublicKey {
        self.network.owner.public_key()
    }

    /// A copy of the home of `node`, whose record is there, without where that is.
    fn copy_home_elsewhere(&self, node: &Node, record: &Path, copied: &Path) {
        let addresses = node.record().unwrap().statement().addresses.clone();
        node.restate(|says| says.addresses = [].into_iter().collect());
        fs::copy(record, copied).unwrap();
        node.restate(|says| says.addresses = addresses);
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
    let last = later.record().unwrap();
    assert!(last.life().unwrap().is_last(), "it says that this is its last word");
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
        story.copy_home_elsewhere(&original, &record, &copied);
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
        story.copy_home_elsewhere(&original, &record, &copied);
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
        let (network, key) = (story.network(), *ancestor.holder());
        let own = node.record().unwrap();
        let name = own.life().unwrap().name();
        let version = own.version() + 1;
        // He has been there for ever, by his word.
        let thief = Life::begin(Identity::generate(), None, true, reactor::now());
        let word = |body: &[u8]| Some(thief.word(&network, &key, body, Some((name, u64::MAX))));
        let statement = Statement {
            addresses: [([192, 0, 2, 7], 4701).into()].into_iter().collect(),
            ..Statement::default()
        };
        assert_eq!(show(&story, &node, &story.sign(version, statement.clone(), word)), Ok(()));
        assert_eq!(twin_at(&node), Some((Some(([192, 0, 2, 7], 4701).into()), Stops::Nobody)));
        // Or is a life of the node's own, which he does not have the key of.
        let word = |_: &[u8]| ancestor.life().cloned();
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

/// It was called a thief if it obeyed more than a minute after it was first seen: it was away, or our answer had to wait.
#[test]
fn a_copy_that_hears_late_and_obeys_is_no_thief_and_one_that_goes_on_is() {
    in_counted_time(|_| {
        let story = Story::new();
        let node = start(Config { record_file: None, ..story.config(Path::new("unused"), 0) });
        let began = node.record().unwrap();
        let (network, key) = (story.network(), *began.holder());
        let name = began.life().unwrap().name();
        let copy = Life::begin(Identity::generate(), began.life(), false, reactor::now());
        let says = |word: &dyn Fn(&[u8]) -> LifeWord| {
            let version = node.record().unwrap().version() + 1;
            let said = story.sign(version, Statement::default(), |body| Some(word(body)));
            assert_eq!(show(&story, &node, &said), Ok(()));
            let is_answered = || node.record().unwrap().version() > version;
            eventually("it is answered", 10 * SOON, is_answered);
            let told = node.twin().unwrap();
            (told.stops, told.is_lawless)
        };
        let is_told_to_stop = (Stops::They, false);
        assert_eq!(says(&|body| copy.word(&network, &key, body, None)), is_told_to_stop);
        // Its lid is closed before it hears that, for an hour; and it is elsewhere when it wakes.
        reactor::sleep(Duration::from_secs(3600));
        assert_eq!(says(&|body| copy.word(&network, &key, body, None)), is_told_to_stop);
        let beside = Some((name, 5));
        assert_eq!(says(&|body| copy.last_word(&network, &key, body, beside)), is_told_to_stop);
        reactor::sleep(Duration::from_secs(3600));
        assert!(!node.twin().unwrap().is_lawless);
        // If it says another one it has not stopped.
        assert_eq!(says(&|body| copy.last_word(&network, &key, body, beside)), (Stops::Nobody, true));
    });
}

#[test]
fn one_who_went_on_after_he_had_heard_is_told_of_until_he_obeys() {
    in_counted_time(|_| {
        let story = Story::new();
        let node = start(Config { record_file: None, ..story.config(Path::new("unused"), 0) });
        let began = node.record().unwrap();
        let (network, key) = (story.network(), *began.holder());
        let beside = Some((began.life().unwrap().name(), 5));
        let other = Life::begin(Identity::generate(), began.life(), false, reactor::now());
        let says = |is_last: bool| {
            let version = node.record().unwrap().version() + 1;
            let said = story.sign(version, Statement::default(), |body| match is_last {
                true => Some(other.last_word(&network, &key, body, beside)),
                false => Some(other.word(&network, &key, body, beside)),
            });
            assert_eq!(show(&story, &node, &said), Ok(()));
            let is_answered = || node.record().unwrap().version() > version;
            eventually("it is answered", 10 * SOON, is_answered);
            reactor::sleep(2 * SOON);
            node.twin().map(|twin| (twin.stops, twin.is_lawless)).unwrap()
        };
        let told = [false, false, false, true, false].map(says);
        let (is_told, lawless) = ((Stops::They, false), (Stops::Nobody, true));
        assert_eq!(told, [is_told, is_told, lawless, is_told, lawless]);
    });
}

/// What whoever has the node's key and nothing else of it says, newer than what the node says, as this life or as nobody's.
fn stolen(story: &Story, node: &Node, thief: Option<&Life>) -> NodeRecord {
    let own = node.record().unwrap();
    let network = story.network();
    let word = |body: &[u8]| thief.map(|thief| thief.word(&network, own.holder(), body, None));
    story.sign(own.version() + 1, Statement::default(), word)
}

#[test]
fn a_thief_of_the_key_who_names_nobody_is_told_of_as_soon_as_he_signs_again() {
    let lives: [fn() -> Option<Life>; 2] =
        [|| None, || Some(Life::begin(Identity::generate(), None, false, reactor::now()))];
    for life in lives {
        reactor::run(|| {
            let story = Story::new();
            let (_one, record) = scratch_file("record");
            let node = story.start(&record, 0);
            let first = stolen(&story, &node, life().as_ref());
            assert_eq!(show(&story, &node, &first), Ok(()));
            let is_newer = || node.record().unwrap().version() > first.version();
            eventually("the node says its own again", SOON, is_newer);
            assert_eq!(node.twin(), None, "that may be its own word, forgotten");
            assert_eq!(show(&story, &node, &first), Ok(()));
            assert_eq!(node.twin(), None, "it has answered that");
            let second = stolen(&story, &node, life().as_ref());
            assert_eq!(show(&story, &node, &second), Ok(()));
            let told = node.twin().expect("nobody who is dead says something new");
            assert_eq!((told.stops, told.is_lawless), (Stops::Nobody, true));
            assert!(node.ping(&contact(&story.others[0])), "it serves");
        });
    }
}

#[test]
fn a_home_that_was_put_back_on_a_machine_whose_clock_is_behind_is_alone() {
    reactor::run(|| {
        let story = Story::new();
        let (_one, record) = scratch_file("record");
        let node = story.start(&record, 0);
        let now = node.record().unwrap().version();
        // Of its lives that it has forgotten its peers remember different words, all newer than its clock.
        let dead = [0; 2].map(|_| Life::begin(Identity::generate(), None, false, reactor::now()));
        for (life, days) in [(0, 1_u64), (0, 2), (1, 3), (1, 200)] {
            let key = *node.record().unwrap().holder();
            let word = |body: &[u8]| Some(dead[life].word(&story.network(), &key, body, None));
            let shown = story.sign(now + days * 24 * 3600 * 1000, Statement::default(), word);
            assert_eq!(show(&story, &node, &shown), Ok(()));
            eventually("it says its own", SOON, || node.record().unwrap().version() > shown.version());
            assert_eq!(node.twin(), None);
        }
    });
}

#[test]
fn whoever_took_the_last_version_there_is_is_told_of_at_once() {
    reactor::run(|| {
        let story = Story::new();
        let (_one, record) = scratch_file("record");
        let node = story.start(&record, 0);
        let highest = story.sign((1 << 62) - 1, Statement::default(), |_| None);
        assert_eq!(show(&story, &node, &highest), Ok(()));
        let told = node.twin().unwrap();
        assert_eq!((told.stops, told.is_lawless), (Stops::Nobody, true));
        // What it says from then on nobody takes, and is well formed: the next start reads it.
        node.restate(|says| says.release = "another".into());
        node.stop();
        let node = start(story.config(&record, 0));
        assert!(node.ping(&contact(&story.others[0])));
    });
}

#[test]
fn who_stopped_for_a_copy_stays_so_whatever_has_become_of_what_it_kept() {
    reactor::run(|| {
        let story = Story::new();
        let ((_one, record), (_two, copied)) = (scratch_file("record"), scratch_file("record"));
        let original = story.start(&record, 0);
        story.copy_home_elsewhere(&original, &record, &copied);
        let copy = story.start(&copied, 1);
        assert_eq!(copy.wait_until_twin_stops_us().stops, Stops::We);
        copy.stop();
        original.stop();
        let again = || Node::start(story.config(&copied, 0), Service::new());
        assert!(matches!(again(), Err(StartError::Stopped { .. })));
        // Its own word, or the other's, may be damaged, or of another release: it has stopped all the same.
        let whole = fs::read(&copied).unwrap();
        for damaged in [1, whole.len() / 2, whole.len() - 20] {
            let mut bytes = whole.clone();
            bytes[damaged + 5] ^= 1;
            fs::write(&copied, bytes).unwrap();
            assert!(
                matches!(again(), Err(StartError::Stopped { .. } | StartError::Record { .. })),
                "{damaged}"
            );
        }
        fs::write(&copied, to_bytes(&(None::<()>, Some("of another release"), false))).unwrap();
        assert!(matches!(again(), Err(StartError::Stopped { address: None })));
        for bytes in [&b"nothing"[..], &whole[..whole.len() / 2], b""] {
            fs::write(&copied, bytes).unwrap();
            assert!(matches!(again(), Err(StartError::Record { .. })));
        }
        fs::remove_file(&copied).unwrap();
        fs::create_dir(&copied).unwrap();
        assert!(matches!(again(), Err(StartError::Record { .. })), "what can't be read may say so");
    });
}
