//! Two processes have one node's key: a copy of its home was started where the node never said that it was, or the original comes
//! back while its copy runs. Both find out by what others know, the later one is to stop, and a node that was only started again
//! is no copy of itself.
//!
//! What went wrong: each went on, was one node to everybody else, and gave promises that the other had never heard of.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use common::*;
use overlay::{Config, Node, StartError};
use reactor::rpc::Service;

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
        // Of two that begin in one millisecond chance would say which is the elder.
        reactor::sleep(Duration::from_millis(5));
        let node = start(self.config(record, by));
        let is_known = || {
            self.others.iter().all(|other| other.contacts().iter().any(|(known, _)| known.id == node.id()))
        };
        eventually("it is known", SOON, is_known);
        node
    }
}

fn twin_at(node: &Node) -> Option<(Option<SocketAddr>, bool)> {
    node.twin().map(|twin| (twin.address, twin.is_elder))
}

/// Both know of each other, and `later` is told to stop; it is not started again while the other is up.
fn one_stops(story: &Story, elder: &Node, later: &Node, record: &Path) {
    let told = later.wait_for_elder_twin();
    assert_eq!((told.address, told.is_elder), (elder.listen_address(), true));
    let later_at = later.listen_address();
    later.stop();
    eventually("the elder knows too", SOON, || twin_at(elder) == Some((later_at, false)));
    let again = Node::start(story.config(record, 0), Service::new()).map(drop);
    assert!(
        matches!(again, Err(StartError::Twin { address }) if Some(address) == elder.listen_address()),
        "it is seen where the elder is: {again:?}"
    );
}

#[test]
fn a_copy_that_never_heard_where_its_original_is_stops() {
    reactor::run(|| {
        let story = Story::new();
        let ((_one, record), (_two, copied)) = (scratch_file("record"), scratch_file("record"));
        let original = story.start(&record, 0);
        let copy = story.start(&copied, 1);
        one_stops(&story, &original, &copy, &copied);
        assert!(original.ping(&contact(&story.others[0])));
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
        one_stops(&story, &copy, &original, &record);
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
