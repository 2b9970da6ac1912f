//! Whether another process serves with our key.
//!
//! A node is one store: what it has promised and what it holds lies there. Where a copy of its home is started beside it, two
//! stores answer for one node, and what is written to the one the other has never heard of; each of them says in good faith that
//! it is stored. So before a node serves anybody it looks where it said last that it was: if somebody proves our key
//! there, it does not start. Its own listener cannot be taken for that, since nobody answers there yet.
//!
//! A copy that runs where we never said that we were is found while both run, by anybody who knows both: each of the two is shown
//! what the other says in its name ([`crate::stating`]), and answers with a record that names the other's life. Whoever finds its
//! own life named by another's has the proof, signed with its own key, that it is two: an address that leads back to ourselves
//! cannot pass for that, nor can a record of a life that is over, nor the lie of a peer that does not have the key.
//!
//! Of the two *the later one stops*. Both tell the same by their beginnings, so that exactly one goes on. A beginning is what the process
//! says of it, by its own clock: where clocks are right the elder has what was stored before the copy began, and who is connected to it
//! goes on. What it can't have is what was stored with the later one meanwhile, so it says from then on that there was one. The last
//! that the later one keeps is the elder's own word, so that it does not start again while that is up *and can be dialled at the
//! addresses that it says*. Elsewhere whoever starts it again has it serve until it is shown the other's word once more.
//!
//! Not here: two that know nobody in common, and so give nobody two answers. A copy whose clock is behind, or whoever has stolen the key
//! and says that he began before: it is the real one that stops then (`docs/threat-model.md`). And a virtual machine that was cloned as it
//! ran: both have one life, and neither is told from the other.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::crypto::Identity;
use reactor::net::TcpStream;
use reactor::net::tls::{self, Expect};
use reactor::sync::Signal;

use crate::record::NodeRecord;
use crate::state::State;
use crate::stating;

/// How long somebody may take to prove it: as long as any dial, for a machine that is busy. It delays who was in another network
/// before, which drops what we send there; elsewhere nobody listening is told at once.
const PROOF_TIMEOUT: Duration = crate::dial::DIAL_TIMEOUT;

/// How long peers may take to note the last that is said by who stops: it delays the end of a node that does no good.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(1);

/// Another process that has our key, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// Where it says that it listens.
    pub address: Option<SocketAddr>,
    /// Whether it began before us: then it goes on, and we are to stop.
    pub is_elder: bool,
    /// When it was found.
    pub found: SystemTime,
}

/// Whom we have found that has our key.
#[derive(Default)]
pub(crate) struct Twins {
    last: RefCell<Option<Twin>>,
    found: Signal,
    /// What tells everybody our last word, if we are to stop.
    last_word: Cell<Option<JoinHandle<()>>>,
}

impl Twins {
    /// The one found last; an elder one counts before all others.
    pub(crate) fn last(&self) -> Option<Twin> {
        self.last.borrow().clone()
    }

    /// Whether there is an elder one.
    pub(crate) fn is_to_stop(&self) -> bool {
        self.last.borrow().as_ref().is_some_and(|twin| twin.is_elder)
    }

    /// Waits until an elder one is found.
    pub(crate) fn wait_for_elder(&self) -> Twin {
        loop {
            if let Some(elder) = self.last().filter(|twin| twin.is_elder) {
                return elder;
            }
            self.found.wait();
        }
    }

    /// Waits until everybody who is connected has our last word, if there is one.
    ///
    /// # Suspends
    /// For [`LAST_WORD_LIMIT`] at most.
    pub(crate) fn finish(&self) {
        if let Some(last_word) = self.last_word.take() {
            let _ = last_word.join();
        }
    }
}

/// Notes that another process said this with our key, having seen what we say.
pub(crate) fn on_found(state: &Rc<State>, said: &NodeRecord) {
    let Some(own) = state.credentials.records.own() else { return };
    let address = said.statement().addresses.first().copied();
    let (is_elder, found) = (said.life() < own.life(), reactor::wall_clock());
    // A later one may come again, or another.
    if state.twins.is_to_stop()
        || state.twins.last().is_some_and(|known| !is_elder && known.address == address)
    {
        return;
    }
    state.twins.last.replace(Some(Twin { address, is_elder, found }));
    if !is_elder {
        state.twins.found.notify_all();
        tracing::error!(
            ?address,
            "another process serves with this node's key and began after this one: it is told to stop; what was stored with it may be \
             missing here"
        );
        return;
    }
    tracing::error!(
        ?address,
        "another process has served with this node's key since before this one began: this one stops"
    );
    let speaker = state.clone();
    let telling = reactor::Builder::new().spawn(move || {
        let _ = reactor::timeout(LAST_WORD_LIMIT, || stating::say_to_all(&speaker));
    });
    state.twins.last_word.set(telling.ok());
    {
        // What was being said before goes to the same file, and comes first.
        let _turn = state.stating.lock();
        // Where it is is looked for before the next start.
        stating::keep(state.kept_record.as_ref(), said);
    }
    state.twins.found.notify_all();
}

/// Looks at all of `places` at once whether somebody there has our key; returns where.
///
/// # Suspends
/// At most [`PROOF_TIMEOUT`].
pub(crate) fn find(identity: &Identity, places: &[SocketAddr]) -> Option<SocketAddr> {
    let (identity, found) = (Rc::new(identity.clone()), Cell::new(None));
    reactor::scope(|s| {
        for &place in places {
            let (identity, found) = (&identity, &found);
            s.spawn(move || {
                let proof = || -> std::io::Result<()> {
                    let stream = TcpStream::connect_one(place)?;
                    tls::connect(stream, identity, Expect::Key(identity.public_key())).map(drop)
                };
                if matches!(reactor::timeout(PROOF_TIMEOUT, proof), Ok(Ok(()))) {
                    found.set(Some(place));
                }
            });
        }
    });
    found.get()
}
