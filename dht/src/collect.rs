//! What all nodes hold of one owner's blocks, and having some of it deleted: the means of whoever collects garbage.
//!
//! A [`Census`] knows which nodes there are and which of them answer; with it, blocks are listed range by range, so that
//! memory is bounded by the range, and told to go. A block is deleted once a quorum of those responsible have heard so
//! and have it on disk: whoever was away learns it from them.
//!
//! Not here: which blocks nobody needs. Only who can read them knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use overlay::{Contact, NodeId, Overlay};
use reactor::cell::RefCell;

use crate::address::{Address, OwnerTag};
use crate::block::deletion::{OwnersWord, Speaker, Verdict};
use crate::client::Client;
use crate::links::{Failure, Links};
use crate::message::{
    BLOCKS_LISTED_MAX, DeleteBlocks, ListBlocks, ListBlocksRequest, ListBlocksResponse, Refusal, WORDS_MAX,
};
use crate::placement::WIDTH;

/// A page of a list, or a batch of words, takes a node some milliseconds, and seconds on a cold disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Of one node, the blocks of one owner that are listed of addresses with the same first byte: 67 million on each, which are tens of
/// TiB. Each takes some hundred bytes here.
const LISTED_MAX: usize = 1 << 18;

/// And the pages: each looks at [`BLOCKS_LISTED_MAX`] blocks, whoever owns them.
const PAGES_MAX: usize = 1 << 12;

/// And for how long: with the most pages, over a bad line.
const LIST_LIMIT: Duration = Duration::from_secs(600);

/// How long one node may have a census wait, over all that it is asked for, as long as it can be done without: a million blocks are listed
/// three times over a line of 2 Mbit/s in some ten minutes (50 bytes of each). What brings back much that was deleted lists all once for
/// each 65,536 blocks that are missing, and where the drive is larger all take longer: so [`SLOWER_MAX`] beside it.
const WAIT_LIMIT: Duration = Duration::from_secs(1800);

/// And how many times as long as the others, as the median of them took: liars among these move it only where they are half.
const SLOWER_MAX: u32 = 10;

/// Why a census says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CensusError {
    /// So many nodes are silent that blocks may have no quorum that answers.
    #[error(
        "{silent} of {known} nodes do not answer ({reason}), so that what they hold is not known; start them first"
    )]
    Silent {
        /// How many do not answer.
        silent: usize,
        /// How many are known.
        known: usize,
        /// What the last failure was.
        reason: String,
    },
    /// A node's clock is wrong, or ours is.
    #[error("the clock of {node} is {difference_seconds} s off; set the clocks first")]
    Clock {
        /// Whose.
        node: String,
        /// By how much it differs from ours.
        difference_seconds: u64,
    },
}

/// A block that is held somewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Its length.
    pub length: u32,
    /// When its youngest copy was put, in seconds since 1970.
    pub put_seconds: u64,
    /// The nodes that hold it, by their number in the census.
    holders: Vec<u16>,
    /// Those by whose word it is deleted, and that keep it yet, if that was asked.
    dead_holders: Vec<u16>,
    /// For how long any of these has promised to.
    pub(crate) kept_seconds: u32,
}

/// What becomes of deleted blocks in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// They are left out.
    Left,
    /// They are listed as such.
    Listed,
}

/// What came of deleting some blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Blocks that a quorum knows to be deleted.
    pub deleted: u64,
    /// Their bytes, one copy counted.
    pub deleted_bytes: u64,
    /// Blocks that somebody put again meanwhile.
    pub young: u64,
    /// Blocks of which fewer than a quorum have heard it; they will be listed again.
    pub unheard: u64,
}

/// The nodes that were there when it was taken.
#[derive(Debug, Clone)]
pub struct Census {
    nodes: Vec<Contact>,
    silent: usize,
    silent_max: usize,
    /// Those of the nodes, by their number, whose lists came to nothing since, and why: they are done without as those that were
    /// silent then.
    fallen_out: RefCell<BTreeMap<u16, String>>,
    /// How long each has been waited for, by its number.
    waited: RefCell<Vec<Duration>>,
    /// Those that were too slow, some of which a list that goes on has yet to note as fallen out.
    let_go: RefCell<BTreeSet<u16>>,
    /// The number of the node in this process, by which no other is gone: it takes no time.
    local: Option<usize>,
}

impl Census {
    /// How many nodes answer.
    pub fn node_count(&self) -> usize {
        self.nodes.len() - self.fallen_out.borrow().len()
    }

    /// How many nodes are known and do not answer, or lie.
    pub fn silent_count(&self) -> usize {
        self.silent + self.fallen_out.borrow().len()
    }

    /// Refuses what was listed if a node has fallen out since: for whoever has to know of every block.
    pub(crate) fn refuse_fallen_out(&self) -> Result<(), CensusError> {
        match self.fallen_out.borrow().values().next_back() {
            Some(reason) => Err(self.too_many_silent(reason.clone())),
            None => Ok(()),
        }
    }

    fn too_many_silent(&self, reason: String) -> CensusError {
        let known = self.nodes.len() + self.silent;
        CensusError::Silent { silent: self.silent + self.fallen_out.borrow().len(), known, reason }
    }

    /// Notes that a node has been waited for so long; `false` if that is more by now than anybody may be waited for. Where there is no
    /// other to go by, or no more may be done without, there is no such limit: slow is better than never.
    fn wait_on(&self, number: u16, took: Duration) -> bool {
        let mut waited = self.waited.borrow_mut();
        waited[usize::from(number)] += took;
        if may_be_waited_for(&waited, usize::from(number), self.local) {
            return true;
        }
        let (fallen_out, mut let_go) = (self.fallen_out.borrow(), self.let_go.borrow_mut());
        let leaving = let_go.iter().filter(|number| !fallen_out.contains_key(number)).count();
        if self.silent + fallen_out.len() + leaving >= self.silent_max {
            return true;
        }
        let_go.insert(number);
        false
    }

    /// The nodes that answered.
    pub(crate) fn nodes(&self) -> &[Contact] {
        &self.nodes
    }

    /// Those of them that hold a block.
    pub(crate) fn holders(&self, found: &Found) -> impl Iterator<Item = &Contact> {
        found.holders.iter().map(|number| &self.nodes[usize::from(*number)])
    }

    /// Those of them that keep it yet though it is deleted.
    pub(crate) fn dead_holders(&self, found: &Found) -> impl Iterator<Item = &Contact> {
        found.dead_holders.iter().map(|number| &self.nodes[usize::from(*number)])
    }
}

/// Whether a node may be waited for yet, by how long each was, but for the one that is `local`.
fn may_be_waited_for(waited: &[Duration], number: usize, local: Option<usize>) -> bool {
    let others = waited.iter().enumerate().filter(|(other, _)| *other != number && Some(*other) != local);
    let mut others: Vec<Duration> = others.map(|(_, waited)| *waited).collect();
    others.sort_unstable();
    // The lower one of two: one liar of two others has no say.
    let Some(median) = others.get(others.len().saturating_sub(1) / 2) else { return true };
    waited[number] <= WAIT_LIMIT + *median * SLOWER_MAX
}

fn now_ms() -> u64 {
    reactor::wall_clock().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}

impl<O: Overlay + 'static> Client<O> {
    /// Finds out which nodes there are, and that enough of them answer. The age of a block is told by the clock of the node
    /// that has it, so all clocks must agree with ours to within `tolerance`.
    ///
    /// # Errors
    /// [`CensusError`].
    ///
    /// # Suspends
    /// Until each has answered, or not.
    pub fn census(&self, tolerance: Duration) -> Result<Census, CensusError> {
        let links = self.links();
        let known = self.known_nodes();
        let nothing = self.request([1; 32], [0; 32], Deleted::Left);
        let (mut nodes, mut reason) = (Vec::new(), "no node is known".to_owned());
        for contact in known.values() {
            match list(links, contact, &nothing) {
                Ok(page) => {
                    let difference_seconds = page.now_seconds.abs_diff(now_ms() / 1000);
                    if difference_seconds > tolerance.as_secs().max(1) {
                        return Err(CensusError::Clock { node: contact.to_string(), difference_seconds });
                    }
                    nodes.push(contact.clone());
                }
                Err(failure) => reason = failure.to_string(),
            }
        }
        let silent = known.len() - nodes.len();
        let silent_max = links.replicas - links.write_quorum();
        if nodes.is_empty() || silent > silent_max {
            return Err(CensusError::Silent { silent, known: known.len(), reason });
        }
        let waited = RefCell::new(vec![Duration::ZERO; nodes.len()]);
        let local = nodes.iter().position(|contact| links.local(&contact.id).is_some());
        let (fallen_out, let_go) = Default::default();
        Ok(Census { nodes, silent, silent_max, fallen_out, waited, let_go, local })
    }

    /// All nodes that there are, as far as lookups all over the place find them.
    pub(crate) fn known_nodes(&self) -> BTreeMap<NodeId, Contact> {
        let mut known = BTreeMap::new();
        for first in 0..=u8::MAX {
            let mut place = [0x80; 32];
            place[0] = first;
            known.extend(self.links().closest(place, WIDTH).into_iter().map(|contact| (contact.id, contact)));
        }
        known
    }

    /// Lists what the nodes of `census` hold of this client's tag, of the addresses that begin with `first`. One whose list comes to
    /// nothing, has no end, or takes too long, with those that it was asked for before, is done without from then on, as long as so many may be silent: it keeps nobody from anything.
    ///
    /// # Errors
    /// [`CensusError`] if too many do not answer any more.
    ///
    /// # Suspends
    /// Until all have answered, or not.
    pub fn list_held(&self, census: &Census, first: u8) -> Result<BTreeMap<Address, Found>, CensusError> {
        self.list_all(census, first, Deleted::Left)
    }

    /// As [`Client::list_held`]; what was deleted and is kept yet may be listed too.
    pub(crate) fn list_all(
        &self,
        census: &Census,
        first: u8,
        deleted: Deleted,
    ) -> Result<BTreeMap<Address, Found>, CensusError> {
        let found: RefCell<BTreeMap<Address, Found>> = RefCell::default();
        let failed: RefCell<BTreeMap<u16, String>> = RefCell::default();
        let fallen_out = census.fallen_out.borrow().clone();
        reactor::scope(|scope| {
            for (number, contact) in census.nodes.iter().enumerate() {
                let (found, failed, number) = (&found, &failed, number as u16);
                if fallen_out.contains_key(&number) {
                    continue;
                }
                scope.spawn(move || {
                    if let Err(reason) = self.list_of(census, number, first, deleted, found) {
                        failed.borrow_mut().insert(number, format!("{contact}: {reason}"));
                    }
                });
            }
        });
        let (mut found, failed) = (found.into_inner(), failed.into_inner());
        let Some(reason) = failed.values().next_back().cloned() else { return Ok(found) };
        census.fallen_out.borrow_mut().extend(failed.clone());
        if census.silent_count() > census.silent_max || census.node_count() == 0 {
            return Err(census.too_many_silent(reason));
        }
        for reason in failed.values() {
            tracing::warn!("what a node holds is not known, and it is done without: {reason}");
        }
        found.retain(|_, found| {
            found.holders.retain(|number| !failed.contains_key(number));
            found.dead_holders.retain(|number| !failed.contains_key(number));
            !found.holders.is_empty() || !found.dead_holders.is_empty()
        });
        Ok(found)
    }

    fn list_of(
        &self,
        census: &Census,
        number: u16,
        first: u8,
        deleted: Deleted,
        found: &RefCell<BTreeMap<Address, Found>>,
    ) -> Result<(), Failure> {
        let (mut from, mut to) = ([0; 32], [0xff; 32]);
        (from[0], to[0]) = (first, first);
        let mut request = self.request(from, to, deleted);
        let contact = &census.nodes[usize::from(number)];
        let (began, mut count) = (reactor::now(), 0);
        for _ in 0..PAGES_MAX {
            let asked = reactor::now();
            let page = list(self.links(), contact, &request)?;
            if !census.wait_on(number, reactor::now().saturating_duration_since(asked)) {
                return Err(Failure::Lied("its lists take too long, and the others' do not".into()));
            }
            let mut found = found.borrow_mut();
            count += page.blocks.len();
            if page.blocks.len() > 2 * BLOCKS_LISTED_MAX || count > LISTED_MAX {
                return Err(Failure::Lied("its list is too long".into()));
            }
            if reactor::now().saturating_duration_since(began) > LIST_LIMIT {
                return Err(Failure::Lied("its list takes too long".into()));
            }
            for held in page.blocks {
                if held.address.0[0] != first {
                    return Err(Failure::Lied("it lists what it was not asked for".into()));
                }
                let new = || Found { length: held.length, ..Found::default() };
                let entry = found.entry(held.address).or_insert_with(new);
                if held.is_deleted {
                    entry.dead_holders.push(number);
                    entry.kept_seconds = entry.kept_seconds.max(held.kept_seconds);
                    continue;
                }
                entry.put_seconds = entry.put_seconds.max(held.put_seconds);
                entry.holders.push(number);
            }
            match page.next {
                Some(next) if next > request.from => request.from = next,
                Some(_) => return Err(Failure::Lied("its list goes in circles".into())),
                None => return Ok(()),
            }
        }
        Err(Failure::Lied("its list has no end".into()))
    }

    /// Says what is to become of blocks, to whoever holds them and whoever is responsible for them.
    ///
    /// # Suspends
    /// Until all have answered.
    pub fn tell(
        &self,
        census: &Census,
        blocks: &[(Address, Found)],
        speaker: &Speaker<'_>,
        verdict: Verdict,
    ) -> Tally {
        let links = self.links();
        let mut told: BTreeMap<NodeId, (Contact, Vec<usize>)> = BTreeMap::new();
        let mut responsible: Vec<BTreeSet<NodeId>> = Vec::with_capacity(blocks.len());
        for (index, (address, found)) in blocks.iter().enumerate() {
            let mut theirs = links.placed(address.0, links.replicas);
            theirs.truncate(links.replicas);
            responsible.push(theirs.iter().map(|contact| contact.id).collect());
            for contact in theirs.iter().chain(census.holders(found)) {
                let (_, list) = told.entry(contact.id).or_insert_with(|| (contact.clone(), Vec::new()));
                if list.last() != Some(&index) {
                    list.push(index);
                }
            }
        }
        let words: Vec<OwnersWord> =
            blocks.iter().map(|(address, _)| speaker.say(*address, now_ms(), verdict)).collect();
        let heard = RefCell::new(vec![0; blocks.len()]);
        let young = RefCell::new(vec![false; blocks.len()]);
        reactor::scope(|scope| {
            for (id, (contact, list)) in &told {
                let (words, responsible, heard, young) = (&words, &responsible, &heard, &young);
                scope.spawn(move || {
                    for some in list.chunks(WORDS_MAX) {
                        let words: Vec<OwnersWord> = some.iter().map(|index| words[*index].clone()).collect();
                        for (index, outcome) in some.iter().zip(say(links, contact, &words)) {
                            match outcome {
                                Ok(()) if responsible[*index].contains(id) => heard.borrow_mut()[*index] += 1,
                                Ok(()) => {}
                                Err(Failure::Refused(Refusal::TooYoung { .. })) => {
                                    young.borrow_mut()[*index] = true;
                                }
                                Err(failure) => {
                                    tracing::debug!(node = %contact, "not deleted there: {failure}")
                                }
                            }
                        }
                    }
                });
            }
        });
        let mut tally = Tally::default();
        for (index, (_, found)) in blocks.iter().enumerate() {
            if young.borrow()[index] {
                tally.young += 1;
            } else if heard.borrow()[index] >= links.write_quorum() {
                tally.deleted += 1;
                tally.deleted_bytes += u64::from(found.length);
            } else {
                tally.unheard += 1;
            }
        }
        tally
    }

    /// Takes back, on every node of `census`, what was said of blocks that are needed after all; returns those of them that
    /// somebody holds then.
    ///
    /// # Errors
    /// [`CensusError`] if a node does not answer any more.
    ///
    /// # Suspends
    /// Until all have answered.
    pub fn take_back(
        &self,
        census: &Census,
        blocks: &BTreeSet<Address>,
        speaker: &Speaker<'_>,
    ) -> Result<BTreeSet<Address>, CensusError> {
        // Who has a copy that is to go does not list it: it may be anybody.
        let holders: Vec<u16> = (0..census.nodes.len()).map(|number| number as u16).collect();
        let hidden = Found { holders, ..Found::default() };
        let told: Vec<(Address, Found)> = blocks.iter().map(|address| (*address, hidden.clone())).collect();
        for some in told.chunks(BLOCKS_LISTED_MAX) {
            self.tell(census, some, speaker, Verdict::Keep);
        }
        let mut held = BTreeSet::new();
        let first_bytes: BTreeSet<u8> = blocks.iter().map(|address| address.0[0]).collect();
        for first in first_bytes {
            let listed = self.list_held(census, first)?;
            held.extend(listed.into_keys().filter(|address| blocks.contains(address)));
        }
        Ok(held)
    }

    fn request(&self, from: [u8; 32], to: [u8; 32], deleted: Deleted) -> ListBlocksRequest {
        let with_deleted = deleted == Deleted::Listed;
        ListBlocksRequest { tag: self.tag_of_blocks(), from: Address(from), to: Address(to), with_deleted }
    }

    fn tag_of_blocks(&self) -> OwnerTag {
        crate::BlockStore::tag(self)
    }
}

fn list<O: Overlay>(
    links: &Links<O>,
    contact: &Contact,
    request: &ListBlocksRequest,
) -> Result<ListBlocksResponse, Failure> {
    match links.local(&contact.id) {
        Some(node) => node.list_blocks(request).map_err(Failure::Refused),
        None => links.call::<ListBlocks>(contact, request, Bytes::new(), CALL_TIMEOUT).map(|(page, _)| page),
    }
}

fn say<O: Overlay>(links: &Links<O>, contact: &Contact, words: &[OwnersWord]) -> Vec<Result<(), Failure>> {
    let outcomes = match links.local(&contact.id) {
        Some(node) => Ok(node.hear_all(words)),
        None => links
            .call::<DeleteBlocks>(contact, &words.to_vec(), Bytes::new(), CALL_TIMEOUT)
            .map(|(outcomes, _)| outcomes),
    };
    match outcomes {
        Ok(outcomes) if outcomes.len() == words.len() => {
            outcomes.into_iter().map(|outcome| outcome.map_err(Failure::Refused)).collect()
        }
        Ok(_) => vec![Err(Failure::Lied("a list of the wrong length".into())); words.len()],
        Err(failure) => vec![Err(failure); words.len()],
    }
}

#[cfg(test)]
mod tests;
