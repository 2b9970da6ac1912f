//! Which nodes are responsible for a key: one answer for putting, reading, repairing, deleting and choosing who keeps a
//! register. Pure.
//!
//! Of the [`WIDTH`] nodes nearest to the key, those come first whose distance, divided by their weight, is the least; but of
//! each zone the first comes before the second of any, and the second before the third. So copies lie in as many zones as
//! there are, a node takes about what it has room for beside the others, and where nobody says anything of itself, the
//! nearest come first, as in Kademlia.
//!
//! **What moves.** The order of two nodes depends on the two and on how many of their zones come before them, on nothing
//! else. So whoever comes takes the place of one node at most in each key's set, and takes no place for others: that is the
//! least that there can be. Whoever goes leaves what it had to others, and moves nothing else. A node that says another zone
//! or capacity goes and comes. (In a network of more than [`WIDTH`] nodes whoever comes can also push one out of sight.)
//!
//! **Who lies.** A node has one copy of a block at most, whatever it claims. So a claim of much room draws no more than the
//! share of a node whose weight is [`WEIGHT_MAX`], which is sixteen times that of one that says nothing; what it then has no
//! room for it refuses, and the next in the order takes it. A false zone makes its own copies worth less, and nobody else's.
//!
//! **Who disagrees.** Two who know different records of a node put some blocks elsewhere. Nothing is lost by it: a reader asks
//! all of the [`WIDTH`] before it says that a block is not there, and whoever holds a block that is not its own hands it to
//! those whose it is (`repair/handover.rs`).
//!
//! Not here: who is there, which is the overlay's to say.
//!
//! Source of the weights: E. Ohlsson, "Sequential Poisson sampling", 1998: the least `n` of random numbers divided by sizes
//! are a sample in which each is with a probability very nearly in proportion to its size.

use overlay::{Contact, NodeId, Zone};
use smallvec::SmallVec;

/// Nodes that may be responsible for a key, and as far as a reader looks before it says that a block is not there: Kademlia's
/// K, what one lookup finds.
pub(crate) const WIDTH: usize = 16;

/// Further nodes that may take the place of those that fail, in a put.
pub(crate) const SPARES: usize = 3;

/// What a weight of 1 stands for. Nodes with less have that weight too.
const WEIGHT_BYTES: u64 = 16 << 30;

/// The largest weight: 4 TiB. Who says more is not believed more.
pub(crate) const WEIGHT_MAX: u64 = 256;

/// The weight of a node that says nothing: as if it took 256 GiB.
const WEIGHT_UNSAID: u64 = 16;

/// What of a node decides where it stands in the order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) id: NodeId,
    zone: Option<Zone>,
    weight: u64,
}

impl From<&Contact> for Candidate {
    fn from(contact: &Contact) -> Candidate {
        let weight = |bytes: u64| (bytes / WEIGHT_BYTES).clamp(1, WEIGHT_MAX);
        let weight = contact.capacity_bytes().map_or(WEIGHT_UNSAID, weight);
        Candidate { id: contact.id, zone: contact.zone().cloned(), weight }
    }
}

impl Candidate {
    /// A node of which nothing is known.
    pub(crate) fn unknown(id: NodeId) -> Candidate {
        Candidate { id, zone: None, weight: WEIGHT_UNSAID }
    }

    /// Its distance from a key: the first 64 bits of it, which tell any two nodes apart that were not made to be alike.
    fn distance(&self, key: &NodeId) -> u64 {
        let first = |id: &NodeId| u64::from_be_bytes(*id.0.first_chunk().expect("an id has 32 bytes"));
        first(&self.id) ^ first(key)
    }
}

/// The positions of `candidates` in the order for `key`, the first ones first; those of `kept` stand before them all.
fn positions<'a>(
    key: &NodeId,
    kept: impl Iterator<Item = &'a Candidate>,
    candidates: impl Iterator<Item = &'a Candidate>,
) -> SmallVec<[usize; WIDTH]> {
    struct Ranked<'a> {
        index: usize,
        candidate: &'a Candidate,
        distance: u64,
    }
    let rank = |(index, candidate): (usize, &'a Candidate)| Ranked {
        index,
        candidate,
        distance: candidate.distance(key),
    };
    let mut ranked: SmallVec<[Ranked<'a>; WIDTH]> = candidates.enumerate().map(rank).collect();
    let whole = |ranked: &Ranked<'_>| ranked.candidate.id.distance(key);
    if ranked.len() > WIDTH {
        ranked.select_nth_unstable_by_key(WIDTH - 1, whole);
        ranked.truncate(WIDTH);
    }
    let reach = |ranked: &Ranked<'_>| ranked.distance / ranked.candidate.weight;
    ranked.sort_by(|a, b| reach(a).cmp(&reach(b)).then_with(|| whole(a).cmp(&whole(b))));
    let mut seen: SmallVec<[&Zone; WIDTH]> = kept.filter_map(|candidate| candidate.zone.as_ref()).collect();
    let mut rounds: SmallVec<[(usize, usize); WIDTH]> = SmallVec::new();
    for Ranked { index, candidate, .. } in ranked {
        // One that says no zone is taken to be in one of its own.
        let before =
            candidate.zone.as_ref().map_or(0, |zone| seen.iter().filter(|other| **other == zone).count());
        seen.extend(candidate.zone.as_ref());
        rounds.push((before, index));
    }
    // Stable: within a round the order stays.
    rounds.sort_by_key(|(before, _)| *before);
    rounds.into_iter().map(|(_, index)| index).collect()
}

/// `contacts` in the order for `key`: those that are responsible for it, then those that take their places. Of more than
/// [`WIDTH`], the others follow, the nearest first.
pub(crate) fn order(key: &NodeId, contacts: &[Contact]) -> Vec<Contact> {
    order_beside(key, &[], contacts)
}

/// As [`order`], where `kept` have it already and are not to be asked to.
pub(crate) fn order_beside(key: &NodeId, kept: &[Candidate], contacts: &[Contact]) -> Vec<Contact> {
    let candidates: Vec<Candidate> = contacts.iter().map(Candidate::from).collect();
    let first = positions(key, kept.iter(), candidates.iter());
    let mut rest: Vec<usize> = (0..contacts.len()).filter(|index| !first.contains(index)).collect();
    rest.sort_by_key(|index| contacts[*index].id.distance(key));
    first.into_iter().chain(rest).map(|index| contacts[index].clone()).collect()
}

/// Those of the nodes nearest to a key that are responsible for it.
pub(crate) fn responsible(key: &NodeId, nearest: &[Contact], replicas: usize) -> Vec<Contact> {
    let mut responsible = order(key, nearest);
    responsible.truncate(replicas);
    responsible
}

/// The nodes that one node knows around itself, and itself.
#[derive(Debug)]
pub(crate) struct Neighbourhood(Vec<Candidate>);

impl Neighbourhood {
    /// `own`, alone.
    pub(crate) fn of(own: NodeId) -> Neighbourhood {
        Neighbourhood(vec![Candidate::unknown(own)])
    }

    /// `own` among `contacts`, which may name it.
    pub(crate) fn new(own: NodeId, contacts: &[Contact]) -> Neighbourhood {
        let mut candidates: Vec<Candidate> = contacts.iter().map(Candidate::from).collect();
        if candidates.iter().all(|candidate| candidate.id != own) {
            candidates.push(Candidate::unknown(own));
        }
        Neighbourhood(candidates)
    }

    /// Whether all of `nodes` are responsible for `key`, one beside the other.
    pub(crate) fn are_responsible(&self, nodes: &[NodeId], key: &NodeId, replicas: usize) -> bool {
        // One that asks, and was not heard of before, stands where its id does.
        let unknown = nodes.iter().filter(|node| self.0.iter().all(|known| known.id != **node));
        let unknown: SmallVec<[Candidate; 2]> = unknown.map(|node| Candidate::unknown(*node)).collect();
        let all = || self.0.iter().chain(&unknown);
        // Most keys of a large network are out of most nodes' sight, which costs a look and no order.
        let is_out_of_sight = |node: &NodeId| {
            let distance = Candidate::unknown(*node).distance(key);
            all().filter(|other| other.distance(key) < distance).count() >= WIDTH
        };
        if nodes.iter().any(is_out_of_sight) {
            return false;
        }
        let chosen = positions(key, [].iter(), all());
        let is_chosen = |node: &NodeId| {
            chosen.iter().take(replicas).any(|index| all().nth(*index).is_some_and(|found| found.id == *node))
        };
        nodes.iter().all(is_chosen)
    }
}

#[cfg(test)]
mod tests;
