//! Which nodes are responsible for a key: one answer for putting, reading, repairing, deleting and choosing who keeps a
//! register. Pure.
//!
//! Where everybody is known, which is so up to [`WIDTH`] nodes, those come first whose distance from the key, divided by their
//! weight, is the least; but of each zone the first comes before the second of any, and the second before the third. So copies
//! lie in as many zones as there are, a node takes about what it has room for beside the others, and where nobody says anything
//! of itself, the nearest come first, as in Kademlia. Those that say no zone are taken to stand in one together, if others say
//! theirs: or each of them would be given as much as a whole zone.
//!
//! In a larger network the nearest come first, whatever they say. A lookup shows a part of it, and two who see different parts would
//! put a block in different zones, compare with others than those who have it, and call a zone dispensable that has all copies.
//!
//! **What moves.** The order of two nodes depends on the two and on how many of their zones come before them, on nothing
//! else. So whoever comes takes the place of one node at most in each key's set, and takes no place for others: that is the
//! least that there can be. Whoever goes leaves what it had to others, and moves nothing else. A node that says another zone
//! or capacity goes and comes. The first node beyond [`WIDTH`] moves, when it has stayed for a while, all that lies where it does
//! for a zone or a weight.
//!
//! **Who lies.** A node has one copy of a block at most, whatever it claims. A claim of much room draws no more than the share of
//! a node whose weight is [`WEIGHT_MAX`], sixteen times that of one that says nothing; what it then has no room for, others take
//! in its place that have. A node that makes up a zone of its own is the first of that zone for every key: where there are fewer honest
//! zones than copies it has one of every block, otherwise up to that. Each of them is in the place of an honest one, so a block has
//! one copy less than it should for each who lies so. How often it may change what it says, [`steady`] bounds.
//!
//! **Who disagrees.** Two who know different records of a node put some blocks elsewhere. A reader asks all of the [`WIDTH`], and
//! then those around them, before it says that a block is not there, and says so only if these are all that there are. Whoever
//! holds a block that is not its own hands it to those whose it is (`repair/handover.rs`).
//!
//! Not here: who is there, which is the overlay's to say.
//!
//! Source of the weights: E. Ohlsson, "Sequential Poisson sampling", 1998: the least `n` of random numbers divided by sizes
//! are a sample in which each is with a probability very nearly in proportion to its size.

use overlay::{Contact, NodeId, Zone};
use reactor::crypto::hash::sha3_256;
use smallvec::SmallVec;

pub(crate) mod steady;

/// As many nodes as all know of each other, so that what they say of themselves can count; and as far as a reader looks first:
/// Kademlia's K.
pub const WIDTH: usize = 16;

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
}

/// A candidate with its zone as a number.
#[derive(Clone, Debug)]
struct Standing {
    id: NodeId,
    weight: u64,
    zone: usize,
}

/// The candidates with their zones as numbers from 0, those that say none as one together; and how many numbers there are.
fn number<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> (Vec<Standing>, usize) {
    let mut zones: Vec<&Option<Zone>> = Vec::new();
    let mut standings = Vec::new();
    for Candidate { id, zone, weight } in candidates {
        let zone = zones.iter().position(|known| *known == zone).unwrap_or_else(|| {
            zones.push(zone);
            zones.len() - 1
        });
        standings.push(Standing { id: *id, weight: *weight, zone });
    }
    (standings, zones.len())
}

/// The first `count` of `standings` in the order for `key`, where `taken` of each zone come before them.
fn first(
    key: &NodeId,
    standings: &[Standing],
    mut taken: SmallVec<[usize; WIDTH]>,
    count: usize,
) -> SmallVec<[usize; WIDTH]> {
    // The first 64 bits of a distance tell any two nodes apart that were not made to be alike.
    let first_bits = |id: &NodeId| u64::from_be_bytes(*id.0.first_chunk().expect("an id has 32 bytes"));
    let key_bits = first_bits(key);
    let reach = |standing: &Standing| (first_bits(&standing.id) ^ key_bits) / standing.weight;
    let mut left: SmallVec<[(u64, usize); WIDTH]> =
        standings.iter().enumerate().map(|(index, standing)| (reach(standing), index)).collect();
    let mut chosen = SmallVec::new();
    while chosen.len() < count && !left.is_empty() {
        let rank = |(reach, index): &(u64, usize)| (taken[standings[*index].zone], *reach);
        let mut best = 0;
        for other in 1..left.len() {
            let whole = |place: usize| standings[left[place].1].id.distance(key);
            let order = rank(&left[other]).cmp(&rank(&left[best]));
            if order.then_with(|| whole(other).cmp(&whole(best))).is_lt() {
                best = other;
            }
        }
        let (_, index) = left.swap_remove(best);
        taken[standings[index].zone] += 1;
        chosen.push(index);
    }
    chosen
}

/// Whether what nodes say of themselves counts, where so many are seen by one who looked for more than [`WIDTH`].
pub(crate) fn is_everybody(seen: usize) -> bool {
    seen <= WIDTH
}

/// `contacts`, which are all that there are if they are no more than [`WIDTH`], in the order for `key`: those that are responsible
/// for it, then those that take their places.
pub(crate) fn order(key: &NodeId, contacts: &[Contact]) -> Vec<Contact> {
    if is_everybody(contacts.len()) {
        return order_beside(key, &[], contacts);
    }
    let mut nearest = contacts.to_vec();
    nearest.sort_by_key(|contact| contact.id.distance(key));
    nearest
}

/// All there are in the order for `key`, where `kept` have it already and are not to be asked to.
pub(crate) fn order_beside(key: &NodeId, kept: &[Candidate], contacts: &[Contact]) -> Vec<Contact> {
    let candidates: Vec<Candidate> = contacts.iter().map(Candidate::from).collect();
    let (standings, zones) = number(kept.iter().chain(&candidates));
    let (kept, others) = standings.split_at(kept.len());
    let mut taken: SmallVec<[usize; WIDTH]> = smallvec::smallvec![0; zones];
    kept.iter().for_each(|standing| taken[standing.zone] += 1);
    let ordered = first(key, others, taken, others.len());
    ordered.into_iter().map(|index| contacts[index].clone()).collect()
}

/// Who of those that are `away` could be one of the `replicas` that keep what belongs to `key`, beside those that are `in_sight`: those
/// who would be responsible if all were there. One of whom it was never heard what he says of himself could stand anywhere, where
/// others say something.
pub(crate) fn could_keep(
    key: &NodeId,
    in_sight: &[Contact],
    away: &[Contact],
    replicas: usize,
) -> Vec<Contact> {
    let all: Vec<Contact> = in_sight.iter().chain(away).cloned().collect();
    let ordered = order(key, &all);
    let are_heard = in_sight.iter().any(|contact| contact.record().is_some());
    let could = |contact: &&Contact| {
        let would = ordered.iter().take(replicas).any(|first| first.id == contact.id);
        would || are_heard && contact.record().is_none()
    };
    away.iter().filter(could).cloned().collect()
}

/// The number of the zone that each of these counts to, where zones count: equal where they may be gone together.
pub(crate) fn zones(contacts: &[Contact]) -> Vec<usize> {
    let mut known: SmallVec<[Option<&Zone>; WIDTH]> = SmallVec::new();
    let number = |contact| {
        let zone = Contact::zone(contact);
        known.iter().position(|other| *other == zone).unwrap_or_else(|| {
            known.push(zone);
            known.len() - 1
        })
    };
    contacts.iter().map(number).collect()
}

/// Whether these say nothing by which they would stand otherwise than by their distance.
pub(crate) fn say_nothing(contacts: &[Contact]) -> bool {
    contacts.iter().all(|contact| contact.zone().is_none() && contact.capacity_bytes().is_none())
}

/// The nodes that one node knows around itself, and itself.
#[derive(Debug)]
pub(crate) struct Neighbourhood {
    candidates: Vec<Candidate>,
    standings: Vec<Standing>,
    zones: usize,
    /// What they say counts, and differs.
    is_weighed: bool,
    is_everybody: bool,
    mark: u64,
}

impl Neighbourhood {
    /// `own`, alone.
    pub(crate) fn of(own: NodeId) -> Neighbourhood {
        Neighbourhood::new(own, Vec::new(), true)
    }

    /// `own` among `candidates`, which may name it, and which are all that there are if `is_everybody`.
    pub(crate) fn new(own: NodeId, mut candidates: Vec<Candidate>, is_everybody: bool) -> Neighbourhood {
        if candidates.iter().all(|candidate| candidate.id != own) {
            candidates.push(Candidate::unknown(own));
        }
        candidates.sort_by_key(|candidate| candidate.id);
        let (standings, zones) = number(candidates.iter());
        let differs = zones > 1 || standings.iter().any(|standing| standing.weight != standings[0].weight);
        let mut told = vec![u8::from(is_everybody)];
        for Candidate { id, zone, weight } in &candidates {
            told.extend_from_slice(&id.0);
            if !is_everybody {
                continue;
            }
            told.extend_from_slice(&weight.to_be_bytes());
            let name = zone.as_ref().map_or("", Zone::as_str);
            told.push(name.len() as u8);
            told.extend_from_slice(name.as_bytes());
        }
        let mark = u64::from_be_bytes(*sha3_256(&[&told]).first_chunk().expect("a hash has 32 bytes"));
        let is_weighed = is_everybody && differs;
        Neighbourhood { candidates, standings, zones, is_weighed, is_everybody, mark }
    }

    /// Equal, for two who see the same nodes say the same; and then only.
    pub(crate) fn mark(&self) -> u64 {
        self.mark
    }

    /// Whether copies lie in different zones by this.
    pub(crate) fn has_zones(&self) -> bool {
        self.is_everybody && self.zones > 1
    }

    /// How many of these are known to stand in another zone than this one.
    pub(crate) fn count_elsewhere(&self, node: &NodeId, others: &[NodeId]) -> usize {
        let zone = |id: &NodeId| self.get(id).map(|candidate| &candidate.zone);
        others.iter().filter_map(zone).filter(|other| Some(*other) != zone(node)).count()
    }

    /// What is known of a node.
    pub(crate) fn get(&self, id: &NodeId) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.id == *id)
    }

    /// Whether what counts of those who are in both is the same in both.
    pub(crate) fn agrees_with(&self, other: &Neighbourhood) -> bool {
        let is_same = |candidate: &Candidate| other.get(&candidate.id).is_none_or(|known| known == candidate);
        self.is_everybody == other.is_everybody && self.candidates.iter().all(is_same)
    }

    /// All in the order for `key`, if everybody is known.
    pub(crate) fn order(&self, key: &NodeId) -> Option<Vec<NodeId>> {
        let taken = smallvec::smallvec![0; self.zones];
        let ordered = || first(key, &self.standings, taken, self.standings.len());
        self.is_everybody.then(|| ordered().into_iter().map(|index| self.standings[index].id).collect())
    }

    /// Whether all of `nodes` are responsible for `key`, one beside the other.
    pub(crate) fn are_responsible(&self, nodes: &[NodeId], key: &NodeId, replicas: usize) -> bool {
        // One that asks, and was not heard of before, stands where its id does.
        let unknown = nodes.iter().filter(|node| self.get(node).is_none()).copied();
        let unknown: SmallVec<[NodeId; 2]> = unknown.collect();
        if !self.is_weighed {
            let all = || self.standings.iter().map(|standing| &standing.id).chain(&unknown);
            let is_near = |node: &NodeId| {
                let distance = node.distance(key);
                all().filter(|other| other.distance(key) < distance).count() < replicas
            };
            return nodes.iter().all(is_near);
        }
        let is_chosen = |standings: &[Standing], zones: usize| {
            let chosen = first(key, standings, smallvec::smallvec![0; zones], replicas);
            nodes.iter().all(|node| chosen.iter().any(|index| standings[*index].id == *node))
        };
        if unknown.is_empty() {
            return is_chosen(&self.standings, self.zones);
        }
        let unknown: Vec<Candidate> = unknown.into_iter().map(Candidate::unknown).collect();
        let (standings, zones) = number(self.candidates.iter().chain(&unknown));
        is_chosen(&standings, zones)
    }
}

#[cfg(test)]
mod tests;
