//! What `status` finds, put together from what each node says: pure.
//!
//! Not here: asking them (`asking.rs`), whether they can be done without (`health.rs`), and the words (`render.rs`).

use std::net::SocketAddr;

use overlay::{Contact, How, NodeId, Zone};
use serde::Serialize;

use super::health::{self, Health, Incomplete, Lack, RootInZone, RootKeepers, Witness};
use crate::cache::CacheStatus;
use crate::clocks::{self, Differing};
use crate::network::{Hex, Network};
use crate::nodes::{ID_DIGITS_MIN, Nodes, Said};
use crate::owner::OwnerAway;
use crate::report::Report;
use crate::volume::{Keepers, Older};

/// What `status` found.
#[derive(Debug, Serialize)]
pub(super) struct Overview {
    /// `healthy`, `degraded` (what is written is stored, and one more death may not be survived), `full` (only what removes something is
    /// stored), or `down` (nothing can be written).
    /// With a `lost_zone`, what was stored while the others could not be reached may be away with it.
    pub(super) health: Health,
    /// All copies of some of what is stored may be on nodes that are away.
    pub(super) may_hide: bool,
    /// What is not there that a write needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lack: Option<Lack>,
    /// The nodes hold another state of the drive than this machine has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) older_than_seen: Option<Older>,
    /// The nodes that answer and may lack copies that they are to keep, by their numbers or ids.
    pub(super) catching_up: Vec<CatchingUp>,
    /// How many seconds ago the oldest comparison began by which nodes know that they lack nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compared_s_ago: Option<u64>,
    /// The nodes' clocks differ from each other, and nothing else makes it degraded.
    #[serde(skip)]
    pub(super) is_for_clocks_only: bool,
    /// Whether it is known which nodes the owner let in: else there may be others.
    pub(super) knows_all_nodes: bool,
    /// The zone of all that are away, if more are than could be done without in several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lost_zone: Option<Zone>,
    /// On how many nodes each block is.
    pub(super) replicas: u8,
    /// What all answering nodes hold, replicas counted each.
    pub(super) blocks: u64,
    /// What they take.
    pub(super) used_bytes: u64,
    /// What their disks have.
    pub(super) total_bytes: u64,
    /// What of it was deleted, and is kept until its time is over.
    pub(super) kept_deleted_bytes: u64,
    /// Each node.
    pub(super) nodes: Vec<NodeStatus>,
    /// Who keeps the drive's root, as the nodes say, or, where these do not answer, as this machine has seen.
    pub(super) root: RootStatus,
    /// The cache that mounts of this home share; none if there was none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache: Option<CacheStatus>,
    /// Where the owner's key is, and what that means for members; none if it is at hand, or this is no home of the owner's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) owner_away: Option<OwnerAway>,
}

impl Overview {
    /// By how much the clocks of the nodes that say so are ahead of this machine's.
    pub(super) fn clocks_ahead_s(&self) -> Vec<i64> {
        self.nodes.iter().filter_map(|node| node.report.as_ref()?.clock_ahead_s).collect()
    }
}

#[derive(Debug, Serialize)]
pub(super) struct RootStatus {
    pub(super) keepers: Vec<Hex<[u8; 32]>>,
    /// How often another node took the place of one, by a drive of the owner's or by `node replace`.
    pub(super) moved_count: u64,
    /// How many of them must take a write.
    pub(super) needed: usize,
    /// A zone with which it would be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) in_one_zone: Option<InOneZone>,
    #[serde(skip)]
    pub(super) names: String,
}

/// So many of those that keep the root stand in one zone that it is gone with that.
#[derive(Debug, Serialize)]
pub(super) struct InOneZone {
    /// None if they say none, while others do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) zone: Option<Zone>,
    pub(super) keeper_count: usize,
    /// In whose place others should keep it, by their numbers or ids, as `node replace` takes them.
    pub(super) to_replace: Vec<String>,
}

/// A node that gets what it lacks from the others, or has not compared with all of them yet.
#[derive(Debug, Serialize)]
pub(super) struct CatchingUp {
    pub(super) node: String,
    /// Blocks and registers that it knows to lack.
    pub(super) lacking: u64,
    /// It is of a release that does not say what it lacks.
    pub(super) does_not_say: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct NodeStatus {
    pub(super) number: Option<u16>,
    pub(super) id: Hex<[u8; 32]>,
    pub(super) address: Option<SocketAddr>,
    #[serde(flatten)]
    pub(super) says: Said,
    /// How this machine reaches it: `direct`, `punched`, `punched-tcp` or `relayed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reached: Option<How>,
    pub(super) answers: bool,
    /// Why it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(flatten)]
    pub(super) report: Option<Report>,
}

impl NodeStatus {
    /// Whether a copy of its home goes on beside it.
    pub(super) fn is_two(&self) -> bool {
        let copy = self.report.as_ref().and_then(|report| report.copy.as_ref());
        copy.is_some_and(|copy| copy.goes_on)
    }

    /// Whether somebody else signs with its key.
    pub(super) fn has_a_thief(&self) -> bool {
        let copy = self.report.as_ref().and_then(|report| report.copy.as_ref());
        copy.is_some_and(|copy| copy.goes_on && copy.is_lawless)
    }

    /// Whether what was stored with it may be with a copy of its home.
    pub(super) fn has_a_copy(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.copy.is_some())
    }
}

pub(super) fn root_status(keepers: &Keepers, nodes: &Nodes) -> RootStatus {
    RootStatus {
        keepers: keepers.members().iter().map(|id| Hex(id.0)).collect(),
        moved_count: keepers.moved_count(),
        needed: keepers.needed(),
        in_one_zone: None,
        names: nodes.names(keepers.members()),
    }
}

pub(super) type Answer = (Option<u16>, Contact, Result<Report, String>);

/// Of those who keep the drive's root, one that nobody has met does not answer either.
pub(super) fn overview(network: &Network, answers: Vec<Answer>, mut root: RootStatus) -> Overview {
    let unmet: Vec<NodeId> = root
        .keepers
        .iter()
        .map(|id| NodeId(id.0))
        .filter(|id| answers.iter().all(|(_, contact, _)| contact.id != *id))
        .collect();
    let witness = |(_, contact, answer): &Answer| Witness {
        id: contact.id,
        zone: contact.zone().cloned(),
        works: answer.as_ref().is_ok_and(Report::takes_writes),
        is_full: answer.as_ref().is_ok_and(Report::takes_removals),
        caught_up_with: answer.as_ref().map_or_else(|_| Vec::new(), Report::caught_up),
        own: answer.as_ref().ok().and_then(|report| report.own_copies.clone()),
    };
    let away = |id: &NodeId| Witness {
        id: *id,
        zone: None,
        works: false,
        is_full: false,
        caught_up_with: Vec::new(),
        own: None,
    };
    let witnesses: Vec<Witness> = answers.iter().map(witness).chain(unmet.iter().map(away)).collect();
    let keepers: Vec<NodeId> = root.keepers.iter().map(|id| NodeId(id.0)).collect();
    let of_root = RootKeepers { ids: &keepers, needed: root.needed };
    let verdict = health::judge(&witnesses, of_root, usize::from(network.replicas));
    let name = |id: &NodeId| {
        let number =
            answers.iter().find(|(_, contact, _)| contact.id == *id).and_then(|(number, ..)| *number);
        number.map_or_else(|| id.to_string()[..ID_DIGITS_MIN].to_owned(), |number| number.to_string())
    };
    root.in_one_zone =
        health::root_in_zone(&witnesses, of_root).map(|RootInZone { zone, count, to_replace }| InOneZone {
            zone,
            keeper_count: count,
            to_replace: to_replace.iter().map(name).collect(),
        });
    let incomplete = health::incomplete(&witnesses, usize::from(network.replicas));
    let catching_up: Vec<CatchingUp> = incomplete
        .iter()
        .map(|Incomplete { id, lacking, says }| CatchingUp {
            node: name(id),
            lacking: *lacking,
            does_not_say: !says,
        })
        .collect();
    let reports = || answers.iter().filter_map(|(_, _, answer)| answer.as_ref().ok());
    let clocks: Vec<i64> = reports().filter_map(|report| report.clock_ahead_s).collect();
    let do_clocks_differ = clocks::differing(&clocks) == Differing::AmongNodes;
    let is_for_clocks_only = do_clocks_differ && verdict.health == Health::Healthy && catching_up.is_empty();
    let health = match verdict.health {
        Health::Healthy if !catching_up.is_empty() || do_clocks_differ => Health::Degraded,
        health => health,
    };
    let sum = |field: fn(&Report) -> u64| reports().map(field).sum();
    Overview {
        health,
        may_hide: verdict.may_hide,
        lack: verdict.lack,
        catching_up,
        compared_s_ago: reports().filter_map(|report| report.own_copies.as_ref()?.compared_s_ago).max(),
        older_than_seen: None,
        is_for_clocks_only,
        knows_all_nodes: true,
        lost_zone: verdict.lost_zone,
        replicas: network.replicas,
        blocks: sum(|report| report.blocks),
        used_bytes: sum(|report| report.used_bytes),
        total_bytes: sum(|report| report.total_bytes),
        kept_deleted_bytes: sum(|report| report.kept_deleted_bytes),
        nodes: answers.into_iter().map(node_status).chain(unmet.into_iter().map(unmet_keeper)).collect(),
        root,
        cache: None,
        owner_away: None,
    }
}

fn node_status((number, contact, answer): Answer) -> NodeStatus {
    let (report, error) = match answer {
        Ok(report) => (Some(report), None),
        Err(error) => (None, Some(error)),
    };
    NodeStatus {
        number,
        id: Hex(contact.id.0),
        address: contact.addresses.first().copied(),
        says: Said::of(&contact),
        reached: None,
        answers: report.is_some(),
        error,
        report,
    }
}

fn unmet_keeper(id: NodeId) -> NodeStatus {
    let error = Some("it keeps the drive's root, and nobody who answers says where it is".into());
    NodeStatus {
        number: None,
        id: Hex(id.0),
        address: None,
        says: Said::default(),
        reached: None,
        answers: false,
        error,
        report: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use overlay::Revocations;
    use reactor::crypto::{Identity, PublicKey};

    use super::super::{advice, known, render};
    use super::*;
    use crate::identity::Founding;
    use crate::network::NodeEntry;
    use crate::report::OwnCopies;

    fn network(count: u16) -> Network {
        let founding = Founding::new();
        let entry = |number| NodeEntry { number, public_key: founding.node_key().1, address: None };
        founding.network((1..=count).map(entry).collect())
    }

    fn root(keepers: &[NodeId]) -> RootStatus {
        let keepers: Vec<_> = keepers.iter().map(|id| Hex(id.0)).collect();
        let needed = if keepers.is_empty() { 0 } else { keepers.len() / 2 + 1 };
        RootStatus { keepers, moved_count: 0, needed, in_one_zone: None, names: "nodes".into() }
    }

    fn report(failure: Option<&str>, total_bytes: u64) -> Report {
        Report {
            version: "1".into(),
            process: 1,
            uptime_s: 1,
            blocks: 2,
            served: 0,
            used_bytes: 3,
            total_bytes,
            peers: 0,
            failure: failure.map(Into::into),
            damaged_count: 0,
            has_forgotten: false,
            caught_up_with: Vec::new(),
            own_copies: None,
            retention_seconds: Some(0),
            kept_deleted_bytes: 0,
            copy: None,
            clock_ms: None,
            clock_ahead_s: None,
        }
    }

    /// Of nodes that lack nothing.
    fn overview(network: &Network, mut answers: Vec<Answer>, root: RootStatus) -> Overview {
        let all: Vec<_> = answers.iter().map(|(_, contact, _)| Hex(contact.id.0)).collect();
        for report in answers.iter_mut().filter_map(|(_, _, answer)| answer.as_mut().ok()) {
            report.own_copies = Some(OwnCopies {
                lacking: 0,
                lacked_nothing_of: all.clone(),
                not_compared_with: Vec::new(),
                compared_s_ago: Some(1),
                compared_ms_ago: Some(1000),
            });
        }
        super::overview(network, answers, root)
    }

    /// A network of which half was renewed was called healthy, whatever the other half lacked.
    #[test]
    fn a_node_of_a_release_that_does_not_say_what_it_lacks_is_named_and_not_called_healthy() {
        let network = network(3);
        let answers = known(&Nodes::first(&network), &[]).into_iter();
        let answers = answers.map(|(number, contact)| (number, contact, Ok(report(None, 4 << 30))));
        let overview = super::overview(&network, answers.collect(), root(&[]));
        assert_eq!(overview.health, Health::Degraded);
        let text = render(&overview);
        assert!(
            text.contains("nodes 1, 2 and 3 are of an older release, and do not say what they lack"),
            "{text}"
        );
        let advice = advice(&overview);
        assert!(advice.contains("with this release") && !advice.contains("do not answer"), "{advice}");
    }

    #[test]
    fn what_is_advised_is_about_what_was_found() {
        let network = network(3);
        let of = |change: fn(u16, &mut Report)| {
            let answers = known(&Nodes::first(&network), &[]).into_iter().map(|(number, contact)| {
                let mut report = report(None, 4 << 30);
                change(number.unwrap(), &mut report);
                (number, contact, Ok(report))
            });
            let mut overview = overview(&network, answers.collect(), root(&[]));
            overview.catching_up.clear();
            overview
        };
        let mut waits = of(|_, _| {});
        waits.catching_up.push(CatchingUp { node: "1".into(), lacking: 0, does_not_say: false });
        let told = advice(&waits);
        assert!(told.starts_with("leave the nodes running") && !told.contains("answer"), "{told}");
        let full = advice(&of(|number, report| report.total_bytes = if number == 1 { 4 } else { 4 << 30 }));
        assert!(full.starts_with("make room on full disks") && !full.contains("answer"), "{full}");
        let mut away = of(|_, _| {});
        away.nodes[0].answers = false;
        assert!(advice(&away).starts_with("start the nodes that do not answer"));
    }

    #[test]
    fn clocks_that_differ_are_told_with_whose_and_by_how_much() {
        let told = |ahead_s: [i64; 3]| {
            let network = network(3);
            let nodes = known(&Nodes::first(&network), &[]).into_iter().zip(ahead_s);
            let answers = nodes.map(|((number, contact), ahead_s)| {
                (number, contact, Ok(Report { clock_ahead_s: Some(ahead_s), ..report(None, 4 << 30) }))
            });
            let overview = overview(&network, answers.collect(), root(&[]));
            (overview.health, render(&overview), advice(&overview))
        };
        let (health, text, advice) = told([0, 7200, -34_560_000]);
        assert_eq!(health, Health::Degraded);
        assert!(
            text.starts_with("degraded: every node answers, and takes writes; but clocks differ"),
            "{text}"
        );
        assert!(
            text.contains("that of node 2 is 2 h ahead of this machine's, that of node 3 is 400 days behind"),
            "{text}"
        );
        assert!(text.contains("      its clock is 400 days behind this machine's"), "{text}");
        assert!(advice.starts_with("compare the clocks"), "{advice}");
        // If only this machine's is wrong, the network is well.
        let (health, text, _) = told([7200, 7190, 7201]);
        assert_eq!(health, Health::Healthy);
        assert!(
            text.contains("the clocks of all nodes that answer are 1 h ahead of this machine's"),
            "{text}"
        );
        let (health, text, _) = told([0, 2, -290]);
        assert!(health == Health::Healthy && !text.contains("clock"), "{text}");
        // Each is near enough to this machine's, and they are not to each other.
        let (health, text, advice) = told([-200, 0, 200]);
        assert_eq!(health, Health::Degraded);
        assert!(text.contains("but clocks differ") && !text.contains("may die"), "{text}");
        let whose = "that of node 3 is 6 min ahead of that of node 1";
        assert!(text.contains(whose), "{text}");
        assert!(advice.starts_with("compare the clocks"), "{advice}");
    }

    /// It was called degraded for the clocks, where fewer nodes than copies were there and none of them might die.
    #[test]
    fn clocks_are_the_reason_only_where_there_is_no_other() {
        let told = |ahead_s: &[i64], away: usize| {
            let network = network(ahead_s.len() as u16);
            let nodes = known(&Nodes::first(&network), &[]).into_iter().zip(ahead_s).enumerate();
            let answers = nodes.map(|(index, ((number, contact), ahead_s))| {
                let report = Report { clock_ahead_s: Some(*ahead_s), ..report(None, 4 << 30) };
                (number, contact, if index < away { Err("dead".into()) } else { Ok(report) })
            });
            let overview = overview(&Network { replicas: 3, ..network }, answers.collect(), root(&[]));
            (overview.health, render(&overview))
        };
        for ahead_s in [[600, 600], [600, -600], [200, -200]] {
            let (health, text) = told(&ahead_s, 0);
            assert_eq!(health, Health::Degraded);
            let reason =
                "degraded: everything works, there are fewer nodes than copies, and no further node may die";
            assert!(text.starts_with(reason) && text.contains("clock"), "{text}");
        }
        let (_, text) = told(&[0, 7200, 0, 0], 1);
        assert!(text.starts_with("degraded: everything works, and no further node may die"), "{text}");
        assert!(text.contains("its clock is 2 h ahead"), "{text}");
    }

    fn health(nodes: u16, down: usize) -> Health {
        let network = network(nodes);
        let report = report(None, 4 << 30);
        let answers = known(&Nodes::first(&network), &[])
            .into_iter()
            .enumerate()
            .map(|(index, (number, contact))| {
                (number, contact, if index < down { Err("dead".into()) } else { Ok(report.clone()) })
            })
            .collect();
        let overview = overview(&network, answers, root(&[]));
        assert_eq!(overview.blocks, 2 * (usize::from(nodes) - down) as u64);
        assert!(render(&overview).lines().count() >= usize::from(nodes) + 4);
        overview.health
    }

    #[test]
    fn one_dead_node_of_three_is_survived_and_two_are_not() {
        assert_eq!(health(3, 0), Health::Healthy);
        assert_eq!(health(3, 1), Health::Degraded);
        assert_eq!(health(3, 2), Health::Down);
        assert_eq!(health(5, 1), Health::Degraded);
        // What is written is stored all the same.
        assert_eq!(health(5, 3), Health::Degraded);
        assert_eq!(health(5, 4), Health::Down);
    }

    #[test]
    fn a_node_that_takes_no_writes_is_as_good_as_dead_and_said_so() {
        let network = network(3);
        let told = |reports: [Report; 3]| {
            let nodes = known(&Nodes::first(&network), &[]).into_iter().zip(reports);
            let overview = overview(
                &network,
                nodes.map(|((n, contact), report)| (n, contact, Ok(report))).collect(),
                root(&[]),
            );
            (overview.health, render(&overview))
        };
        let well = || report(None, 4 << 30);
        let (health, text) = told([well(), report(Some("cannot sync"), 4 << 30), well()]);
        assert_eq!(health, Health::Degraded);
        assert!(text.contains("takes no writes: cannot sync"), "{text}");
        let (health, text) = told([well(), report(Some("cannot sync"), 4 << 30), report(None, 4)]);
        // For what removes something two are there.
        assert_eq!(health, Health::Full);
        assert!(text.starts_with("full: ") && text.contains("full: takes no writes"), "{text}");
        let (health, _) = told([report(Some("cannot sync"), 4 << 30), report(Some("it"), 4), well()]);
        assert_eq!(health, Health::Down);
    }

    #[test]
    fn a_single_node_and_a_pair_survive_no_death() {
        assert_eq!(health(1, 1), Health::Down);
        assert_eq!(health(2, 1), Health::Down);
    }

    #[test]
    fn a_met_node_is_shown_once_under_its_number() {
        let network = network(2);
        let key = PublicKey::from_bytes(network.nodes[1].public_key.0);
        let met = Contact::new(key, ["127.0.0.1:4711".parse().unwrap()]);
        let nodes = known(&Nodes::first(&network), &[met]);
        assert_eq!(nodes.len(), 2);
        assert_eq!(nodes[1].0, Some(2));
        assert_eq!(nodes[1].1.addresses.first().unwrap().port(), 4711);
    }

    #[test]
    fn who_keeps_the_root_is_missed_although_no_node_has_met_it() {
        let keeper = NodeId::of(&PublicKey::from_bytes(Founding::new().node_key().1.0));
        let network = network(3);
        let told = |others: usize| {
            let nodes = known(&Nodes::first(&network), &[]);
            let keepers: Vec<NodeId> = nodes.iter().take(others).map(|(_, contact)| contact.id).collect();
            let answers =
                nodes.into_iter().map(|(number, contact)| (number, contact, Ok(report(None, 4 << 30))));
            overview(&network, answers.collect(), root(&[&[keeper][..], &keepers].concat()))
        };
        let two_of_three = told(2);
        assert_eq!((two_of_three.health, two_of_three.nodes.len()), (Health::Degraded, 4));
        let text = render(&two_of_three);
        assert!(text.contains("it keeps the drive's root") && !text.contains("met it"), "{text}");
        assert!(text.starts_with("degraded: everything works"), "{text}");
        let text = render(&told(0));
        assert!(text.starts_with("down: of the 1 node that keeps the drive's root 1 must"), "{text}");
    }

    #[test]
    fn who_was_removed_counts_no_more_and_fewer_nodes_than_copies_are_not_healthy() {
        let (four, owner) = (network(4), Identity::from_seed(&[1; 32]));
        let mut nodes = Nodes::first(&four);
        let health_without = |nodes: &Nodes, met: &[Contact]| {
            let answers = known(nodes, met).into_iter();
            let answers = answers.map(|(number, contact)| (number, contact, Ok(report(None, 4 << 30))));
            overview(&four, answers.collect(), root(&[]))
        };
        let mut revoked = Revocations::default();
        let keys: Vec<PublicKey> = nodes.present().map(|node| node.key).collect();
        for (key, expected) in keys.iter().zip([Health::Healthy, Health::Degraded, Health::Down]) {
            revoked = revoked.with(&owner, [*key], SystemTime::now()).unwrap();
            nodes.strike_off(&revoked);
            // Although somebody still believes that it is there.
            let met = Contact::new(*key, ["127.0.0.1:4711".parse().unwrap()]);
            assert_eq!(health_without(&nodes, &[met]).health, expected);
        }
    }
}
