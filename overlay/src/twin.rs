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
//! Which of the two stops both tell the same, by what they signed: [`crate::life`] says how, and why no clock decides it. One at most
//! does. Who goes on says from then on that there was another, since what was stored with that it does not have. Who stops keeps the
//! other's word in its home, and is not started again before the owner says so. Where neither is known to be the later one both go
//! on, and both say all the while that two serve.
//!
//! Who does not name whom he has heard (a thief of the key with a program of his own), and who has our memory, with our life's key in it
//! (a virtual machine that was cloned as it ran), is known by what he goes on signing ([`crate::signers`]). So is who is to stop and does not
//! ([`crate::obedience`]). For him nobody stops, since he would not either: it is told in `status`.
//!
//! Not here: two that know nobody in common, and so give nobody two answers. And a thief who signs nothing, but only listens or answers.
//! A machine that was put back to a snapshot of its memory may be shown what a process said that was started in it later, and is no more,
//! or itself: it says that another began after it, or has its key, though there is none.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use reactor::JoinHandle;
use reactor::cell::RefCell;
use reactor::crypto::Identity;
use reactor::net::TcpStream;
use reactor::net::tls::{self, Expect};
use reactor::sync::Signal;

use crate::admission::Credentials;
use crate::life::{Life, LifeName, LifeWord, Stops, who_stops};
use crate::obedience::{Obedience, Said};
use crate::record::NodeRecord;
use crate::signers::{Signers, TURN};
use crate::state::State;
use crate::stating;

/// How long somebody may take to prove it: as long as any dial, for a machine that is busy. It delays who was in another network
/// before, which drops what we send there; elsewhere nobody listening is told at once.
const PROOF_TIMEOUT: Duration = crate::dial::DIAL_TIMEOUT;

/// How long peers may take to note the last that is said by who stops: it delays the end of a node that does no good.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(1);

/// How long the disk and they together may take: an fsync on a disk that is busy takes seconds, and one that is stuck has no end.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// Another process that has our key, by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// Where it says that it listens.
    pub address: Option<SocketAddr>,
    /// Which of the two is to stop.
    pub stops: Stops,
    /// When it was found.
    pub found: SystemTime,
    /// It does not go by what processes of this program do that have one key: it does not name whom it has heard, or does not stop though
    /// it is the one to.
    pub is_lawless: bool,
}

/// Lives beside us whose first sight is remembered. Of more than a few somebody makes them up.
const SEEN_MAX: usize = 64;

/// Who we are beside others that have our key, and whom we have found.
pub(crate) struct Twins {
    pub(crate) life: Life,
    last: RefCell<Option<Found>>,
    /// Which lives we have seen; the oldest first.
    seen: RefCell<Vec<Seen>>,
    /// What stands in our name, and what we say to that.
    pub(crate) signers: RefCell<Signers>,
    found: Signal,
    /// What keeps that, and tells everybody our last word.
    last_word: Cell<Option<JoinHandle<()>>>,
}

/// A life beside us.
struct Seen {
    life: LifeName,
    /// How old we were when we first saw it.
    age_ms: u64,
    /// What it did since, if it is to stop.
    obedience: Obedience,
}

/// One that was found, as which life, and when that one was first.
#[derive(Clone)]
struct Found {
    twin: Twin,
    life: Option<LifeName>,
    at: Instant,
}

impl Twins {
    pub(crate) fn new(life: Life) -> Twins {
        Twins {
            life,
            last: RefCell::default(),
            seen: RefCell::default(),
            signers: RefCell::new(Signers::new(reactor::now())),
            found: Signal::new(),
            last_word: Cell::default(),
        }
    }

    /// The one found last; one that we are to stop for counts before all others.
    pub(crate) fn last(&self) -> Option<Twin> {
        self.last.borrow().as_ref().map(|found| found.twin.clone())
    }

    fn found(&self) -> Option<Found> {
        self.last.borrow().clone()
    }

    fn note(&self, address: Option<SocketAddr>, stops: Stops, life: Option<LifeName>, is_lawless: bool) {
        let twin = Twin { address, stops, found: reactor::wall_clock(), is_lawless };
        let mut last = self.last.borrow_mut();
        let before = last.as_ref().filter(|known| known.life.is_some() && known.life == life);
        let at = before.map_or_else(reactor::now, |known| known.at);
        *last = Some(Found { twin, life, at });
    }

    /// Whether we are to stop.
    pub(crate) fn is_to_stop(&self) -> bool {
        self.last.borrow().as_ref().is_some_and(|found| found.twin.stops == Stops::We)
    }

    /// How old we were when we first saw this life, which may be now.
    pub(crate) fn age_beside(&self, name: LifeName) -> u64 {
        let mut seen = self.seen.borrow_mut();
        if let Some(seen) = seen.iter().find(|seen| seen.life == name) {
            return seen.age_ms;
        }
        let age_ms = self.life.age_ms(reactor::now());
        if seen.len() == SEEN_MAX {
            seen.remove(0);
        }
        seen.push(Seen { life: name, age_ms, obedience: Obedience::default() });
        age_ms
    }

    /// Whether that life, which is to stop, does not obey, by what it says now; and whether it may be honest though it was thought not
    /// to be.
    fn judge(&self, name: LifeName, said: Said) -> (bool, bool) {
        let (mut seen, now) = (self.seen.borrow_mut(), reactor::now());
        let Some(Seen { obedience, .. }) = seen.iter_mut().find(|seen| seen.life == name) else {
            return (false, false);
        };
        (obedience.is_broken_by(said, now), obedience.is_excused(now))
    }

    /// Waits until one is found that we are to stop for.
    pub(crate) fn wait_until_to_stop(&self) -> Twin {
        loop {
            if let Some(other) = self.last().filter(|twin| twin.stops == Stops::We) {
                return other;
            }
            self.found.wait();
        }
    }

    /// Waits until our home says that we stop for another, if we do, and everybody who is connected has our last word.
    ///
    /// # Suspends
    /// For [`FINISH_LIMIT`] at most.
    pub(crate) fn finish(&self) {
        if let Some(last_word) = self.last_word.take()
            && reactor::timeout(FINISH_LIMIT, || last_word.join()).is_err()
        {
            tracing::error!(
                "that this node is not to start again could not be kept in time: its next start serves until it is told once more"
            );
        }
    }
}

/// Notes that another process said this with our key, having seen what we say.
///
/// # Suspends
/// Never before whoever waits for it is told.
pub(crate) fn on_found(state: &Rc<State>, said: &NodeRecord) {
    let Some(own) = state.credentials.records.own() else { return };
    let Some(other) = said.life() else { return };
    let address = said.statement().addresses.first().copied();
    let Credentials { network, own: key, .. } = &state.credentials;
    // What we say of this one, whomever we name last.
    let beside = (other.name(), state.twins.age_beside(other.name()));
    let word = state.twins.life.word(network, key, own.body(), Some(beside));
    let stops = who_stops(&word, other);
    if state.twins.is_to_stop() {
        return;
    }
    let (is_lawless, is_excused) = match stops {
        Stops::They => {
            let own_word = own.life().filter(|word| word.name() == state.twins.life.name());
            let word = Said {
                version: said.version(),
                names_us: other.beside() == Some(state.twins.life.name()),
                is_last: other.is_last(),
                is_after_ours: said.is_newer_than(&own)
                    && own_word.and_then(LifeWord::beside) == Some(other.name()),
            };
            state.twins.judge(other.name(), word)
        }
        _ => (false, false),
    };
    if is_lawless {
        on_another(state, said);
        return;
    }
    if let Some(known) = state.twins.found() {
        let is_the_same = known.life == Some(other.name());
        let has_had_its_turn = is_the_same && reactor::now() >= known.at + TURN;
        if has_had_its_turn && (known.twin.stops, stops) == (Stops::They, Stops::They) {
            return;
        }
        // Nobody becomes better by what he says of himself; but who signed before he had heard of us may be honest.
        let is_lawless = known.twin.is_lawless
            && !(is_the_same && (is_excused || !has_had_its_turn && stops != Stops::They));
        let is_known = known.twin.stops == stops && known.twin.address == address && !known.twin.is_lawless;
        if is_known || is_lawless && stops != Stops::We {
            return;
        }
    }
    state.twins.note(address, stops, Some(other.name()), false);
    match stops {
        Stops::We => tracing::error!(
            ?address,
            "another process serves with this node's key, and this one began later: it stops, and does not start again before the owner \
             says so"
        ),
        Stops::They => tracing::error!(
            ?address,
            "another process serves with this node's key, or did, and began after this one: it is told to stop; what was stored with it may \
             be missing here"
        ),
        Stops::Nobody => tracing::error!(
            ?address,
            "another process serves with this node's key, and which of the two began later is not known: both go on, and what is stored with \
             the one is not with the other; stop one of them"
        ),
    }
    // Before anything suspends: whoever brought the word may be cut short, and what is promised from here on is lost.
    state.twins.found.notify_all();
    if stops != Stops::We {
        return;
    }
    let (speaker, said) = (state.clone(), said.clone());
    let last_word = move || {
        stating::say_last(&speaker, &said);
        let _ = reactor::timeout(LAST_WORD_LIMIT, || stating::say_to_all(&speaker));
    };
    // Not in the span of whoever brought the word.
    match reactor::Builder::new().span(tracing::Span::none()).spawn(last_word.clone()) {
        Ok(telling) => state.twins.last_word.set(Some(telling)),
        Err(_) => last_word(),
    }
}

/// Notes that somebody signed this with our key, and is there, who does not go by what is agreed of those who have one key.
///
/// # Suspends
/// Never.
pub(crate) fn on_another(state: &Rc<State>, said: &NodeRecord) {
    let address = said.statement().addresses.first().copied();
    // That one is there who goes on is told already; whom we stop for counts before all others.
    if state.twins.last().is_some_and(|twin| twin.stops != Stops::They) {
        return;
    }
    tracing::error!(
        ?address,
        "somebody else signs with this node's key: it was stolen, or this machine was copied as it ran, or put back to what it was"
    );
    state.twins.note(address, Stops::Nobody, said.life().map(LifeWord::name), true);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contact::{Addresses, Introduction};
    use crate::record::Statement;
    use crate::{Config, Node, Passport, Peers, Rights, Role};
    use reactor::rpc::Service;
    use reactor::suspension::break_off_at;

    #[test]
    fn who_brings_the_word_waits_for_nothing_so_that_it_is_told_and_kept_though_he_is_cut_short() {
        reactor::run(|| {
            let owner = Identity::generate();
            // At the first place where he would wait, if there were one; and not at all.
            for place in [0, u64::MAX] {
                let directory = tempfile::tempdir().unwrap();
                let start = |identity: &Identity| {
                    let config = Config {
                        identity: identity.clone(),
                        network: owner.public_key(),
                        passport: Passport::issue(&owner, identity.public_key(), Rights::NODE, None),
                        role: Role::Storage,
                        listen: Some(([127, 0, 0, 1], 0).into()),
                        bootstrap: Vec::new(),
                        contacts_file: None,
                        revocations_file: None,
                        renewals_file: None,
                        statement: Statement::default(),
                        record_file: Some(directory.path().join("record")),
                        peers: Peers::new(),
                    };
                    Node::start(config, Service::new())
                };
                let identity = Identity::generate();
                let node = start(&identity).unwrap();
                let (key, network) = (identity.public_key(), owner.public_key());
                let own = node.record().unwrap();
                let (name, version) = (own.life().unwrap().name(), own.version() + 1);
                // One that has been there for longer.
                let other = Life::begin(Identity::generate(), None, true, reactor::now());
                let word = |body: &[u8]| Some(other.word(&network, &key, body, Some((name, u64::MAX))));
                let said = NodeRecord::sign_in(&identity, &network, version, Statement::default(), word);
                let record = Some(said.signed().clone());
                let introduction = Introduction { public_key: key, addresses: Addresses::new(), record };
                let waiter = reactor::spawn({
                    let node = node.clone();
                    move || node.wait_until_twin_stops_us()
                });
                reactor::yield_now();
                let brought = break_off_at(place, || stating::on_introduced(node.state(), &introduction));
                assert!(brought.is_some(), "whoever waits can be cut short before anybody is told");
                let told = reactor::timeout(Duration::from_secs(60), || waiter.join());
                assert!(told.is_ok_and(|told| told.is_ok()), "broken off at {place}, nobody is told");
                node.stop();
                assert!(matches!(start(&identity), Err(crate::StartError::Stopped { .. })), "{place}");
            }
        });
    }
}
