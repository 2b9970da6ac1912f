//! Putting blocks on their replicas and reading them back.
//!
//! A put goes to the R closest nodes at once and returns when a quorum holds the block durably; the stragglers go on
//! in the background. Where one fails, the next closest takes its place. A read asks one node, the next if that one
//! fails, lies or is slow, and believes nothing that it has not verified. That a block is nowhere it says only if all said so
//! that it knows to be alive.
//!
//! So a dead node costs no time: a put never waits for more than a quorum, and a read waits for a hedging delay once,
//! after which the dead one is asked last.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use overlay::{Contact, Overlay};
use reactor::sync::{Sender, channel};

use crate::address::{Address, BLOCK_SIZE_BYTES_MAX, OwnerTag, RangeError, verify_range};
use crate::block::immutable::trailer;
use crate::block_store::{GetError, PutError};
use crate::links::{Failure, Links};
use crate::message::{
    GetBlock, GetBlockRequest, GetBlockResponse, PutBlock, PutBlockRequest, Refusal, SuspectBlock,
};
use crate::node::deletions::now_seconds;
use crate::placement::{self, READ_WIDTH, SPARES};

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
    let candidates = links.closest(address.0, links.replicas + SPARES);
    let (sender, answers) = channel(candidates.len().max(1));
    let mut waiting = candidates.iter().enumerate();
    let start = |(index, contact): (usize, &Contact)| {
        let backlog = links.in_flight(&contact.id) >= BACKLOG_MAX;
        let free = candidates.iter().filter(|other| links.in_flight(&other.id) < BACKLOG_MAX).count();
        let job = PutJob {
            links: links.clone(),
            contact: contact.clone(),
            request: request.clone(),
            content: content.clone(),
            trailer: trailer.clone(),
        };
        if backlog && free >= needed {
            let reason = format!("{contact} is too slow: {BACKLOG_MAX} blocks wait for it");
            answer(&sender, index, Err(Failure::Unreachable(reason)));
        } else {
            let sender = sender.clone();
            drop(reactor::spawn(move || answer(&sender, index, job.run())));
        }
    };
    let mut open = 0;
    // Others first: their requests are on the way while our own disk works.
    let (own, others): (Vec<_>, Vec<_>) =
        waiting.by_ref().take(links.replicas).partition(|(_, contact)| links.local(&contact.id).is_some());
    for candidate in others.into_iter().chain(own) {
        start(candidate);
        open += 1;
    }
    let (mut durable, mut failures) = (0, Vec::new());
    while open > 0 {
        let outcome = match reactor::timeout(PUT_HEDGE, || answers.recv()) {
            Ok(Ok((_, outcome))) => outcome,
            Ok(Err(_)) => break,
            Err(_) => {
                match waiting.next() {
                    Some(candidate) => {
                        start(candidate);
                        open += 1;
                    }
                    // Nobody is left to ask: the calls' own timeouts decide.
                    None => {
                        let Ok((_, outcome)) = answers.recv() else { break };
                        note(outcome, &mut durable, &mut failures, &mut open);
                    }
                }
                if durable >= needed {
                    return Ok(address);
                }
                continue;
            }
        };
        if note(outcome, &mut durable, &mut failures, &mut open) {
            if durable >= needed {
                return Ok(address);
            }
        } else if let Some(candidate) = waiting.next() {
            start(candidate);
            open += 1;
        }
    }
    if failures.contains(&Failure::Refused(Refusal::Misnamed)) {
        return Err(PutError::Misnamed(address));
    }
    Err(put_error(durable, needed, &failures))
}

/// Enters one answer; says whether it was a success.
fn note(
    outcome: Result<(), Failure>,
    durable: &mut usize,
    failures: &mut Vec<Failure>,
    open: &mut usize,
) -> bool {
    *open -= 1;
    match outcome {
        Ok(()) => *durable += 1,
        Err(failure) => {
            failures.push(failure);
            return false;
        }
    }
    true
}

fn answer<T>(sender: &Sender<Answer<T>>, index: usize, outcome: Result<T, Failure>) {
    // The channel has room for every answer; it is closed once nobody waits, and then nobody need know.
    drop(sender.try_send((index, outcome)));
}

fn put_error(durable: usize, needed: usize, failures: &[Failure]) -> PutError {
    let full = failures.iter().filter(|failure| **failure == Failure::Refused(Refusal::Full)).count();
    if full > 0 {
        return PutError::Full { full };
    }
    for failure in failures {
        if let Failure::Refused(Refusal::NotAllowed(reason)) = failure {
            return PutError::Refused(reason.clone());
        }
    }
    let reason = failures.last().map_or("too few nodes are known".to_owned(), ToString::to_string);
    PutError::NoQuorum { durable, needed, reason }
}

struct PutJob<O> {
    links: Rc<Links<O>>,
    contact: Contact,
    request: PutBlockRequest,
    content: Bytes,
    trailer: Bytes,
}

impl<O: Overlay> PutJob<O> {
    fn run(self) -> Result<(), Failure> {
        if let Some(node) = self.links.local(&self.contact.id) {
            return node.store_block(&self.request, &self.content, &self.trailer).map_err(Failure::Refused);
        }
        self.links
            .call::<PutBlock>(&self.contact, &self.request, self.content, BLOCK_CALL_TIMEOUT)
            .map(|_| ())
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
    let next = std::cell::Cell::new(0);
    let addresses = std::cell::RefCell::new(vec![Address([0; 32]); blocks.len()]);
    let failure = std::cell::RefCell::new(None);
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
    let nearest = links.closest(address.0, READ_WIDTH);
    let responsible = placement::responsible(&nearest, links.replicas).to_vec();
    let (near, far) = nearest.split_at(nearest.len().min(links.replicas + SPARES));
    let others = |part: &[Contact]| -> Vec<Contact> {
        part.iter().filter(|contact| links.local(&contact.id).is_none()).cloned().collect()
    };
    let mut candidates = others(near);
    candidates.sort_by_key(|contact| links.is_suspect(&contact.id));
    let near_count = candidates.len();
    candidates.extend(others(far));
    let (sender, answers) = channel(nearest.len() + RING_WIDTH);
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
            tally.look_at(&around);
            let is_new = |contact: &Contact| nearest.iter().all(|known| known.id != contact.id);
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
            tally.tell(links, &responsible, tag.is_some(), address);
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
    fn look_at(&mut self, around: &[Contact]) {
        let reason = || format!("the {RING_WIDTH} nodes nearest to it lack it, and there are others");
        self.unasked = (around.len() >= RING_WIDTH).then(reason);
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
        match verify_range(&self.address, &tag, proof.length, &range, &content, &proof.hashes) {
            Ok(within) => Ok((proof, content.slice(within))),
            Err(RangeError::Outside { length, .. }) => Err(Failure::Refused(Refusal::Outside { length })),
            Err(error) => Err(Failure::Lied(error.to_string())),
        }
    }
}
