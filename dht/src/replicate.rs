//! Putting blocks on their replicas and reading them back.
//!
//! A put goes to the R nodes that are responsible at once and returns when a quorum holds the block durably, in two zones where
//! there are two (`acks.rs`); the stragglers go on in the background. Where one fails, the next in the order takes its
//! place. A read asks one node, the next if that one fails, lies or is slow, and believes nothing that it has not verified. That a
//! block is nowhere it says only if all said so that are there, and of the nodes that the owner let in and did not remove each that could
//! keep it is one of these, however long another has been away; else it is not known.
//!
//! So a dead node costs no time: a put never waits for more than a quorum, but where that stands in one zone, and then no longer
//! than a bound; and a read waits for a hedging delay once, after which the dead one is asked last.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use overlay::{Contact, Overlay};
use reactor::sync::{Sender, channel};

use crate::acks::{Acks, Asked};
use crate::address::{Address, BLOCK_SIZE_BYTES_MAX, OwnerTag, RangeError, verify_range};
use crate::block::immutable::trailer;
use crate::block_store::{GetError, PutError};
use crate::links::{Failure, Links};
use crate::message::{
    GetBlock, GetBlockRequest, GetBlockResponse, PutBlock, PutBlockRequest, Refusal, SuspectBlock,
};
use crate::node::deletions::now_seconds;
use crate::placement::{SPARES, WIDTH};

/// A block of 1 MiB takes 8 s over 1 Mbit/s; whoever needs longer is no use as a replica.
pub(crate) const BLOCK_CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// If a quorum has not answered a put by then, a spare is asked too.
const PUT_HEDGE: Duration = Duration::from_millis(1500);

/// Puts in flight to one node before it is left out where a quorum can do without it: 48 blocks of 1 MiB are what a
/// node that hangs may make us keep.
const BACKLOG_MAX: usize = 48;

/// As far as a reader looks at last: what one lookup finds at most.
const RING_WIDTH: usize = overlay::message::CONTACTS_MAX;

/// Blocks that one `put_many` keeps in flight.
const PUTS_AT_ONCE: usize = 16;

type Answer<T> = (usize, Result<T, Failure>);

/// Stores a block on its replicas.
///
/// A block with a `claimed` name is not hashed here if nobody here needs the hash: other nodes check it anyway, and in
/// a network of one there is nobody to deceive.
pub(crate) fn put<O: Overlay + 'static>(
    links: &Rc<Links<O>>,
    tag: &OwnerTag,
    claimed: Option<&Address>,
    content: &Bytes,
    may_use_reserve: bool,
) -> Result<Address, PutError> {
    if content.is_empty() || content.len() > BLOCK_SIZE_BYTES_MAX {
        return Err(PutError::Size { size: content.len(), max: BLOCK_SIZE_BYTES_MAX });
    }
    let needed = links.write_quorum();
    if let (Some(node), Some(address)) = (links.only_local(), claimed) {
        let request = PutBlockRequest { may_use_reserve, ..PutBlockRequest::new(*address, *tag) };
        let stored = node.store_named(&request, content).map_err(Failure::Refused);
        return stored.map(|()| *address).map_err(|failure| put_error(0, needed, &[failure]));
    }
    let (address, trailer) = match claimed {
        Some(claimed) if links.local.is_none() => (*claimed, Bytes::new()),
        _ => trailer(tag, content, now_seconds()),
    };
    if let Some(claimed) = claimed.filter(|claimed| **claimed != address) {
        return Err(PutError::Misnamed(*claimed));
    }
    let request = PutBlockRequest { may_use_reserve, ..PutBlockRequest::new(address, *tag) };
    if let Some(node) = links.only_local() {
        let stored = node.store_block(&request, content, &trailer).map_err(Failure::Refused);
        return stored.map(|()| address).map_err(|failure| put_error(0, needed, &[failure]));
    }
    let (candidates, zones) = links.placed_in_zones(address.0, links.replicas + SPARES);
    // One copy is in one zone.
    let zones = if needed > 1 { zones } else { vec![0; candidates.len()] };
    let mut acks = Acks::new(zones, needed, links.replicas + SPARES, reactor::now());
    let quorum_took = Rc::new(Cell::new(None));
    let are_deaf = || candidates.iter().map(|contact| links.is_deaf(&contact.id)).collect();
    let (sender, answers) = channel(candidates.len().max(1));
    let start = |acks: &mut Acks, index: usize| {
        let contact = &candidates[index];
        let asked = Asked::new(links.in_flight(&contact.id), reactor::now());
        acks.on_asked(index, asked);
        let is_free = |contact: &Contact| links.in_flight(&contact.id) < BACKLOG_MAX;
        let are_free: Vec<bool> = candidates.iter().take(links.replicas + SPARES).map(is_free).collect();
        let job = PutJob {
            links: links.clone(),
            contact: contact.clone(),
            request: request.clone(),
            content: content.clone(),
            trailer: trailer.clone(),
            asked,
            quorum_took: quorum_took.clone(),
        };
        if !is_free(contact) && acks.can_do_with(&are_free) {
            let reason = format!("{contact} is too slow: {BACKLOG_MAX} blocks wait for it");
            answer(&sender, index, Err(Failure::Unreachable(reason)));
        } else {
            let sender = sender.clone();
            drop(reactor::spawn(move || answer(&sender, index, job.run())));
        }
    };
    // Others first: their requests are on the way while our own disk works.
    let is_own = |index: &usize| links.local(&candidates[*index].id).is_some();
    let (own, others): (Vec<_>, Vec<_>) = (0..candidates.len().min(links.replicas)).partition(is_own);
    others.into_iter().chain(own).for_each(|index| start(&mut acks, index));
    let mut failures = Vec::new();
    loop {
        acks.on_deaf(are_deaf());
        if acks.is_done() {
            break;
        }
        if acks.open() == 0 {
            let Some(next) = acks.next() else { break };
            start(&mut acks, next);
            continue;
        }
        let until_late = |at: Instant| at.saturating_duration_since(reactor::now());
        let pause = acks.next_late_at().map_or(PUT_HEDGE, until_late).min(PUT_HEDGE);
        match reactor::timeout(pause, || answers.recv()) {
            Ok(Ok((index, outcome))) => {
                acks.on_answer(index, outcome.is_ok(), reactor::now());
                quorum_took.set(acks.quorum_took());
                let Err(failure) = outcome else { continue };
                failures.push(failure);
            }
            Ok(Err(_)) => break,
            // It takes long: one more is asked. Where nobody is left to ask, the calls' own timeouts decide.
            Err(_) => {
                acks.late(reactor::now()).for_each(|index| links.note_late(&candidates[index].id));
                acks.on_deaf(are_deaf());
            }
        }
        if let Some(next) = acks.next().filter(|_| !acks.is_done()) {
            start(&mut acks, next);
        }
    }
    if acks.is_done() {
        if acks.is_in_one_zone() {
            links.warn_of_one_zone();
        }
        return Ok(address);
    }
    if failures.contains(&Failure::Refused(Refusal::Misnamed)) {
        return Err(PutError::Misnamed(address));
    }
    Err(put_error(acks.durable(), needed, &failures))
}

fn answer<T>(sender: &Sender<Answer<T>>, index: usize, outcome: Result<T, Failure>) {
    // The channel has room for every answer; it is closed once nobody waits, and then nobody need know.
    drop(sender.try_send((index, outcome)));
}

fn put_error(durable: usize, needed: usize, failures: &[Failure]) -> PutError {
    let full = failures.iter().filter(|failure| **failure == Failure::Refused(Refusal::Full)).count();
    let silence = || failures.iter().rev().filter(|failure| matches!(failure, Failure::Unreachable(_)));
    // With those that do not answer it would be stored, whoever has no room: that is what is amiss, and it may pass.
    if full > 0 && durable + silence().count() < needed {
        return PutError::Full { full };
    }
    for failure in failures {
        if let Failure::Refused(Refusal::NotAllowed(reason)) = failure {
            return PutError::Refused(reason.clone());
        }
    }
    let last = silence().next().filter(|_| full > 0).or(failures.last());
    let mut reason = last.map_or("too few nodes are known".to_owned(), ToString::to_string);
    if full > 0 {
        reason += &format!("; {full} more have no space left");
    }
    PutError::NoQuorum { durable, needed, reason }
}

struct PutJob<O> {
    links: Rc<Links<O>>,
    contact: Contact,
    request: PutBlockRequest,
    content: Bytes,
    trailer: Bytes,
    asked: Asked,
    /// How long it took until a quorum had the block, once one has.
    quorum_took: Rc<Cell<Option<Duration>>>,
}

impl<O: Overlay> PutJob<O> {
    fn run(self) -> Result<(), Failure> {
        let given = match self.links.local(&self.contact.id) {
            Some(node) => {
                let _counted = self.links.count_in_flight(self.contact.id);
                node.store_block(&self.request, &self.content, &self.trailer).map_err(Failure::Refused)
            }
            None => self
                .links
                .call::<PutBlock>(&self.contact, &self.request, self.content, BLOCK_CALL_TIMEOUT)
                .map(|_| ()),
        };
        let late_at = self.quorum_took.get().map(|quorum_took| self.asked.late_at(quorum_took));
        let is_late = late_at.is_some_and(|at| reactor::now() >= at);
        self.links.note_given(&self.contact.id, &given, is_late);
        given
    }
}

/// Stores many blocks, some at a time.
pub(crate) fn put_many<O: Overlay + 'static>(
    links: &Rc<Links<O>>,
    tag: &OwnerTag,
    blocks: &[(Option<Address>, Bytes)],
    may_use_reserve: bool,
) -> Result<Vec<Address>, PutError> {
    if blocks.len() == 1 {
        return Ok(vec![put(links, tag, blocks[0].0.as_ref(), &blocks[0].1, may_use_reserve)?]);
    }
    let next = Cell::new(0);
    let addresses = reactor::cell::RefCell::new(vec![Address([0; 32]); blocks.len()]);
    let failure = reactor::cell::RefCell::new(None);
    reactor::scope(|scope| {
        for _ in 0..PUTS_AT_ONCE.min(blocks.len()) {
            scope.spawn(|| {
                while next.get() < blocks.len() && failure.borrow().is_none() {
                    let index = next.replace(next.get() + 1);
                    let (claimed, content) = &blocks[index];
                    match put(links, tag, claimed.as_ref(), content, may_use_reserve) {
                        Ok(address) => addresses.borrow_mut()[index] = address,
                        Err(error) => *failure.borrow_mut() = Some(error),
                    }
                }
            });
        }
    });
    failure.into_inner().map_or_else(|| Ok(addresses.into_inner()), Err)
}

/// Reads a block or a range of it.
pub(crate) fn get<O: Overlay + 'static>(
    links: &Rc<Links<O>>,
    tag: &OwnerTag,
    address: &Address,
    range: Option<Range<u32>>,
) -> Result<Bytes, GetError> {
    if let Some(node) = &links.local {
        match node.get_block(address, range.clone()) {
            Ok(content) => return Ok(content),
            Err(Refusal::Outside { length }) => return Err(outside(range, length)),
            Err(refusal) if links.replicas == 1 => {
                return Err(match refusal {
                    Refusal::NotFound => GetError::NotFound(*address),
                    Refusal::Damaged => GetError::Corrupt { address: *address, liars: 1 },
                    other => GetError::Unreachable { address: *address, reason: other.to_string() },
                });
            }
            // Not ours, or damaged: the others may have it.
            Err(_) => {}
        }
    }
    fetch(links, Some(tag), address, range).map(|(_, content)| content)
}

/// Reads a block from other nodes than our own. With no `tag`, trusts the one that comes with it, which the address
/// then proves.
pub(crate) fn fetch<O: Overlay + 'static>(
    links: &Rc<Links<O>>,
    tag: Option<&OwnerTag>,
    address: &Address,
    range: Option<Range<u32>>,
) -> Result<(GetBlockResponse, Bytes), GetError> {
    let ordered = links.placed(address.0, WIDTH);
    let responsible = &ordered[..ordered.len().min(links.replicas)];
    let (near, far) = ordered.split_at(ordered.len().min(links.replicas + SPARES));
    let others = |part: &[Contact]| -> Vec<Contact> {
        part.iter().filter(|contact| links.local(&contact.id).is_none()).cloned().collect()
    };
    let mut candidates = others(near);
    candidates.sort_by_key(|contact| links.is_suspect(&contact.id));
    let near_count = candidates.len();
    candidates.extend(others(far));
    let (sender, answers) = channel(ordered.len() + RING_WIDTH);
    let (mut running, mut tally) = (Running(Vec::new()), Tally::default());
    let (mut asked, mut open, mut is_wide) = (0, 0, false);
    loop {
        if asked == candidates.len() && open == 0 {
            // Repair was told of it by one of the near ones.
            if is_wide || tag.is_none() || tally.length.is_some() {
                break;
            }
            // Those that kept it may have been the nearest when it was put, and many may have come since.
            is_wide = true;
            let around = links.closest(address.0, RING_WIDTH);
            tally.look_at(links, address, &around);
            let is_new = |contact: &Contact| ordered.iter().all(|known| known.id != contact.id);
            candidates.extend(others(&around).into_iter().filter(is_new));
            continue;
        }
        // Those further away are asked only once the near ones have had their say.
        let outcome = if asked == candidates.len() || asked >= near_count && open > 0 && !is_wide {
            answers.recv().ok()
        } else {
            let contact = &candidates[asked];
            let job = GetJob {
                links: links.clone(),
                contact: contact.clone(),
                address: *address,
                tag: tag.copied(),
                range: range.clone(),
            };
            let (sender, index) = (sender.clone(), asked);
            running.0.push(reactor::spawn(move || answer(&sender, index, job.run())));
            (asked, open) = (asked + 1, open + 1);
            // Wait for this one as long as it usually takes, and ask the next then, or as soon as it fails.
            reactor::timeout(links.hedge_after(&contact.id), || answers.recv()).ok().and_then(Result::ok)
        };
        let Some((index, outcome)) = outcome else { continue };
        open -= 1;
        if let Some(found) = tally.enter(links, &candidates[index], address, outcome)? {
            tally.tell(links, responsible, tag.is_some(), address);
            return Ok(found);
        }
    }
    Err(tally.error(links, address, range))
}

/// Ends the calls whose answers nobody needs any more.
struct Running(Vec<reactor::JoinHandle<()>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.iter().for_each(reactor::JoinHandle::terminate);
    }
}

#[derive(Default)]
struct Tally {
    lacking: Vec<Contact>,
    liars: usize,
    unreachable: Option<String>,
    length: Option<u32>,
    /// Why others may have it, whom nobody asked.
    unasked: Option<String>,
}

impl Tally {
    fn enter<O: Overlay + 'static>(
        &mut self,
        links: &Rc<Links<O>>,
        contact: &Contact,
        address: &Address,
        outcome: Result<(GetBlockResponse, Bytes), Failure>,
    ) -> Result<Option<(GetBlockResponse, Bytes)>, GetError> {
        match outcome {
            Ok(found) => return Ok(Some(found)),
            Err(Failure::Refused(Refusal::NotFound)) => self.lacking.push(contact.clone()),
            Err(Failure::Refused(Refusal::Damaged)) => self.liars += 1,
            Err(Failure::Refused(Refusal::Outside { length })) => self.length = Some(length),
            Err(Failure::Lied(reason)) => {
                self.liars += 1;
                tracing::warn!(%address, node = %contact, "a node sent a bad block: {reason}");
                suspect(links, contact, address);
            }
            Err(failure) => self.unreachable = Some(failure.to_string()),
        }
        Ok(None)
    }

    /// Those that are asked at last are no proof that nobody has a block, if there may be others.
    fn look_at<O: Overlay + 'static>(&mut self, links: &Rc<Links<O>>, address: &Address, around: &[Contact]) {
        if around.len() >= RING_WIDTH {
            self.unasked =
                Some(format!("the {RING_WIDTH} nodes nearest to it lack it, and there are others"));
            return;
        }
        // As long as somebody may have it who is there, nobody need know who is not.
        if self.liars > 0 || self.unreachable.is_some() {
            return;
        }
        let Some(missed) = links.missed(address.0, around) else {
            self.unasked = Some("nobody says which nodes there are".into());
            return;
        };
        if let [first, ..] = &missed[..] {
            let others = match missed.len() - 1 {
                0 => String::new(),
                count => format!(" and {count} more"),
            };
            self.unasked = Some(format!(
                "all that answer lack it; node {first}{others} may have it and is away: it is known once that answers, or was removed by \
                 the network's owner"
            ));
        }
    }

    /// The block was found. Lets those who are responsible for it and lack it know; but a repairing node that fetches it
    /// for itself leaves the others to their own repair.
    fn tell<O: Overlay + 'static>(
        &self,
        links: &Rc<Links<O>>,
        responsible: &[Contact],
        is_reader: bool,
        address: &Address,
    ) {
        for contact in self.lacking.iter().filter(|contact| is_reader && responsible.contains(contact)) {
            suspect(links, contact, address);
        }
    }

    /// Nobody has it. That it does not exist is believed only of as many nodes as keep a block: one that is cut off knows
    /// few others for a while, and what these lack may be on those that it does not know.
    fn error<O: Overlay + 'static>(
        self,
        links: &Rc<Links<O>>,
        address: &Address,
        range: Option<Range<u32>>,
    ) -> GetError {
        if let Some(length) = self.length {
            return outside(range, length);
        }
        // Our own node was asked before the others.
        let (denied, needed) = (self.lacking.len() + usize::from(links.local.is_some()), links.replicas);
        match (self.liars, self.unreachable.or(self.unasked)) {
            (0, None) if denied < needed => {
                let reason = format!("only {denied} of the {needed} nodes that keep a block are known");
                GetError::Unreachable { address: *address, reason }
            }
            (0, None) => GetError::NotFound(*address),
            (0, Some(reason)) => GetError::Unreachable { address: *address, reason },
            (liars, _) => GetError::Corrupt { address: *address, liars },
        }
    }
}

/// Has a node look after its copy of a block; what it answers changes nothing for this reader.
fn suspect<O: Overlay + 'static>(links: &Rc<Links<O>>, contact: &Contact, address: &Address) {
    let (links, contact, address) = (links.clone(), contact.clone(), *address);
    drop(reactor::spawn(move || {
        drop(links.call::<SuspectBlock>(&contact, &address, Bytes::new(), BLOCK_CALL_TIMEOUT));
    }));
}

fn outside(range: Option<Range<u32>>, length: u32) -> GetError {
    let range = range.unwrap_or(0..length);
    GetError::OutOfRange { start: range.start, end: range.end, length }
}

/// Reads a block from one other node.
pub(crate) struct GetJob<O> {
    pub(crate) links: Rc<Links<O>>,
    pub(crate) contact: Contact,
    pub(crate) address: Address,
    pub(crate) tag: Option<OwnerTag>,
    pub(crate) range: Option<Range<u32>>,
}

impl<O: Overlay> GetJob<O> {
    pub(crate) fn run(self) -> Result<(GetBlockResponse, Bytes), Failure> {
        let range = self.range.as_ref().map(|range| (range.start, range.end));
        let request = GetBlockRequest { address: self.address, range };
        let (proof, content) =
            self.links.call::<GetBlock>(&self.contact, &request, Bytes::new(), BLOCK_CALL_TIMEOUT)?;
        let tag = self.tag.unwrap_or(proof.tag);
        let proof = GetBlockResponse { tag, ..proof };
        let Some(range) = self.range else {
            let whole = content.len() <= BLOCK_SIZE_BYTES_MAX && self.address.names(&tag, &content);
            return if whole {
                Ok((proof, content))
            } else {
                Err(Failure::Lied("it has another hash".into()))
            };
        };
        match verify_range(&self.address, &tag, proof.length, &range, &content, &proof.proof) {
            Ok(within) => Ok((proof, content.slice(within))),
            Err(RangeError::Outside { length, .. }) => Err(Failure::Refused(Refusal::Outside { length })),
            Err(error) => Err(Failure::Lied(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of five were full, two were stopped, and whoever wrote was told to delete something.
    #[test]
    fn it_is_for_want_of_space_only_if_those_that_are_silent_would_not_do() {
        let full = || Failure::Refused(Refusal::Full);
        let silent = || Failure::Unreachable("the node 7 does not answer".into());
        let told = |durable, failures: &[Failure]| put_error(durable, 2, failures);
        assert_eq!(told(1, &[full(), full()]), PutError::Full { full: 2 });
        assert_eq!(told(0, &[full(), silent()]), PutError::Full { full: 1 });
        for failures in [[full(), silent(), silent()], [silent(), silent(), full()]] {
            let PutError::NoQuorum { durable: 1, needed: 2, reason } = told(1, &failures) else {
                panic!("{:?}", told(1, &failures))
            };
            assert_eq!(reason, "the node 7 does not answer; 1 more have no space left");
        }
    }
}
