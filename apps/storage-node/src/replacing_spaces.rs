//! Having other nodes keep the roots of the drive's spaces, and the register of its groups, in the place of those that are gone, as is
//! done for the drive's own root.
//!
//! Which spaces there are the roll says, so that one is looked after whether or not anybody looks into it. Not here: how a keeper is
//! replaced (`replacing`).

use std::rc::Rc;
use std::time::Duration;

use dht::block::mutable::{Genesis, Signed};
use dht::{Client, RegisterAddress};
use overlay::Node;
use reactor::JoinHandle;
use reactor::cell::RefCell;

use crate::client_directory;
use crate::errors::Failure;
use crate::gc::Span;
use crate::groups;
use crate::home::Home;
use crate::nodes::Nodes;
use crate::output::say;
use crate::replacing::Replacing;
use crate::roll::{Roll, SpaceEntry};
use crate::seen::Seen;
use crate::spaces;
use crate::volume;

/// How often it is looked for new spaces: a keeper of one has to be gone for longer.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Goes on until it is stopped.
pub(crate) struct ReplacingSpaces {
    coroutine: JoinHandle<()>,
    watched: Rc<RefCell<Vec<Watched>>>,
}

struct Watched {
    register: RegisterAddress,
    seen: Seen,
    replacing: Replacing,
}

impl ReplacingSpaces {
    /// Begins for the spaces of `home`'s drive; `store` is the drive's.
    pub(crate) fn start(
        home: &Home,
        store: &Client<Rc<Node>>,
        nodes: &Nodes,
        grace: Option<Span>,
    ) -> ReplacingSpaces {
        let watched = Rc::new(RefCell::new(Vec::new()));
        let (home, store, nodes, watching) = (home.clone(), store.clone(), nodes.clone(), watched.clone());
        let coroutine = reactor::spawn(move || {
            let mut told = None;
            loop {
                if let Err(failure) = look(&home, &store, &nodes, grace, &watching) {
                    let words = failure.to_string();
                    if told.as_ref() != Some(&words) {
                        say(format_args!(
                            "whether the nodes that keep its spaces are there is not looked at: {words}"
                        ));
                    }
                    told = Some(words);
                }
                reactor::sleep(LOOK_INTERVAL);
            }
        });
        ReplacingSpaces { coroutine, watched }
    }

    /// Ends it.
    ///
    /// # Suspends
    /// Until moves that have begun have ended.
    pub(crate) fn stop(self) {
        self.coroutine.terminate();
        let _ = self.coroutine.join();
        for Watched { seen, replacing, .. } in self.watched.take() {
            replacing.stop();
            drop(seen);
        }
    }
}

fn look(
    home: &Home,
    store: &Client<Rc<Node>>,
    nodes: &Nodes,
    grace: Option<Span>,
    watched: &RefCell<Vec<Watched>>,
) -> Result<(), Failure> {
    let of = home.clone();
    let Roll { spaces, groups, .. } = reactor::offload(move || Roll::read(&of))?;
    let mut result = Ok(());
    if let Some(groups) = groups.filter(|groups| groups.version > 0) {
        let what = groups::WHAT.to_owned();
        result =
            groups.genesis().and_then(|genesis| watch(home, store, nodes, grace, (&genesis, what), watched));
    }
    // One whose making was cut short has a root as soon as it has a list. One that was given up has the word that it was.
    let has_root = |space: &&SpaceEntry| space.is_linked || space.number > 0;
    for space in spaces.iter().filter(has_root) {
        let what = format!("the root of the space {}", space.path);
        let watching =
            space.genesis().and_then(|genesis| watch(home, store, nodes, grace, (&genesis, what), watched));
        result = result.and(watching);
    }
    result
}

fn watch(
    home: &Home,
    store: &Client<Rc<Node>>,
    nodes: &Nodes,
    grace: Option<Span>,
    (genesis, what): (&Signed<Genesis>, String),
    watched: &RefCell<Vec<Watched>>,
) -> Result<(), Failure> {
    let seen_directory = client_directory::first(home.path());
    if watched.borrow().iter().any(|known| known.register == genesis.register()) {
        return Ok(());
    }
    let membership = spaces::membership(genesis, Some(&seen_directory))?;
    let register = store.open_register(membership).map_err(|error| volume::failed(error.to_string()))?;
    let seen = Seen::recall(store, register, &seen_directory, false, None)?;
    if let Some(replacing) = Replacing::start(&seen, what, nodes.clone(), grace) {
        watched.borrow_mut().push(Watched { register, seen, replacing });
    }
    Ok(())
}
