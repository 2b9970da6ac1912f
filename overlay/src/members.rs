//! Which nodes the network has, whether they can be reached or not.
//!
//! Who is there says nothing of who is not: a site whose line is cut is as silent as one that burned down. What tells of both is the
//! owner's word: the nodes that the network was made with, and those whose passports he signed since, which every node
//! keeps ([`crate::renewal`]). Whom he removed is none any more. That somebody was met, or that others name him, is no such word, and no
//! reason to leave him out.
//!
//! Not here: what follows for a block that nobody who answers has, which is the layer above's.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reactor::cell::RefCell;
use reactor::crypto::PublicKey;

use crate::contact::Contact;
use crate::message::Enrolled;
use crate::passport::{Passport, Rights};
use crate::peers::Role;
use crate::state::State;

/// How long a node may take to tell: some round trips, and up to a quarter of a megabyte.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How many are asked: they hand each other what they hear, so that one would do that is not fresh.
const ASKED_MAX: usize = 3;
/// How long it is believed what they said.
const TOLD_FOR: Duration = Duration::from_secs(1);

/// What is known of that.
#[derive(Default)]
pub(crate) struct Members {
    /// Those with which the network was made, as its description says.
    founding: RefCell<Vec<PublicKey>>,
    /// When somebody told last who came since.
    told_at: Cell<Option<Instant>>,
}

impl Members {
    pub(crate) fn set_founding(&self, nodes: Vec<PublicKey>) {
        *self.founding.borrow_mut() = nodes;
    }
}

/// The passports that make somebody a storage node.
pub(crate) fn enrolled(state: &State) -> Vec<Passport> {
    let stores = Rights { store: true, ..Rights::default() };
    let mut passports = state.credentials.renewals.all();
    passports.retain(|passport| passport.rights().include(stores));
    passports
}

/// All storage nodes but ourselves; `None` if nobody told.
///
/// # Suspends
/// While some are asked, unless they told a moment ago.
pub(crate) fn members(state: &Rc<State>) -> Option<Vec<Contact>> {
    // Every node keeps what the owner signed; a client has what was its affair.
    if state.credentials.role == Role::Client && !ask(state) {
        return None;
    }
    let known: Vec<Contact> = state.table.borrow().entries().map(|entry| entry.contact.clone()).collect();
    let let_in = enrolled(state);
    let keys = state.members.founding.borrow().clone().into_iter().chain(let_in.iter().map(Passport::holder));
    let mut members: BTreeMap<PublicKey, Contact> =
        keys.map(|key| (key, state.credentials.records.newest(Contact::new(key, [])))).collect();
    members.extend(known.into_iter().map(|contact| (contact.public_key, contact)));
    members.retain(|key, _| *key != state.credentials.own && !state.peers.is_revoked(key));
    Some(members.into_values().collect())
}

/// Has some of those that are there tell whom the owner let in. Returns whether anybody did, now or a moment ago.
fn ask(state: &Rc<State>) -> bool {
    if state.members.told_at.get().is_some_and(|at| reactor::now() < at + TOLD_FOR) {
        return true;
    }
    let asked = state.table.borrow().closest(&state.own_id, ASKED_MAX);
    let told = reactor::scope(|scope| {
        let ask = |contact| {
            let state = state.clone();
            scope.spawn(move || state.call::<Enrolled>(contact, &(), Bytes::new(), ANSWER_LIMIT).ok())
        };
        let questions: Vec<_> = asked.iter().map(ask).collect();
        questions.into_iter().filter_map(|question| question.join().ok().flatten()).collect::<Vec<_>>()
    });
    let credentials = &state.credentials;
    let (revoked, now) = (state.peers.revocations(), reactor::wall_clock());
    let take = |passports| credentials.renewals.take(passports, &credentials.network, &revoked, now);
    // What is not the owner's says nothing; that a clock is wrong is no reason to.
    let are_told = told.into_iter().filter(|(passports, _)| take(passports.clone()).is_ok()).count();
    if are_told > 0 {
        state.members.told_at.set(Some(reactor::now()));
    }
    are_told > 0
}
