//! `retention`: for how long the nodes keep what is deleted, whoever says that it may go.
//!
//! The owner says it in the list that he signs for all nodes, beside those who are members no more, so it spreads as that does:
//! to whoever is connected at once, to everybody else when it is met. What a node makes of it is the node's own (`dht::node`).

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use filesystem::calendar::Civil;
use overlay::message::Revoke;
use overlay::{Contact, Node, Overlay, Revocations};

use crate::cli::Retention;
use crate::client::{Client, Settings};
use crate::errors::Failure;
use crate::gc::Span;
use crate::home::Home;
use crate::identity;
use crate::network::Network;
use crate::output::{self, say};
use crate::process;
use crate::progress::human_bytes;
use crate::remove::{lists_of, on_each};
use crate::roll::Roll;

/// A node has to write the list down before it answers.
const KEEP_LIMIT: Duration = Duration::from_secs(10);

/// What the nodes say of it.
pub(crate) struct Kept {
    said: Vec<dht::message::Retention>,
    silent: usize,
    replicas: u64,
}

impl Kept {
    /// Asks the nodes.
    ///
    /// # Suspends
    /// Until all have answered, or not.
    pub(crate) fn of(store: &dht::Client<Rc<Node>>) -> Kept {
        let (said, silent) = store.retentions();
        Kept { said, silent, replicas: store.replicas() as u64 }
    }

    /// For how long each node that answers keeps what is deleted, at least.
    pub(crate) fn retention(&self) -> Duration {
        let least = self.said.iter().map(|said| said.seconds).min();
        Duration::from_secs(least.unwrap_or(0).into())
    }

    /// Says how much is kept of what was deleted, if anything is.
    pub(crate) fn tell(&self) {
        let bytes: u64 = self.said.iter().map(|said| said.held_bytes).sum();
        if bytes > 0 {
            let kept = human_bytes(bytes / self.replicas.max(1));
            say(format_args!(
                "of what was deleted earlier they keep {kept} yet, one copy counted (the retention is {})",
                Span(self.retention())
            ));
        }
    }
}

/// Runs `retention`.
///
/// # Errors
/// `Failure::NotTheOwner`, `Failure::Retention`, or what keeps the nodes from being asked.
pub(crate) fn retention(options: &Retention) -> Result<(), Failure> {
    let home = Home::locate(options.home.home.as_deref())?;
    let network = home.network()?;
    if options.span.is_some() {
        identity::owner(&home)?;
    }
    let span = options.span.map(checked).transpose()?;
    let settings = Settings::of_home(&home, network.clone());
    process::run(|| {
        let client = Client::connect(&settings)?;
        let result = match span {
            None => show(&client),
            Some(seconds) => set(&home, &network, &client, seconds),
        };
        client.leave();
        result
    })
}

/// How many seconds that is, if nodes take it.
fn checked(Span(span): Span) -> Result<u32, Failure> {
    let seconds = u32::try_from(span.as_secs()).ok();
    let is_allowed = |seconds: &u32| *seconds <= dht::block::deletion::RETENTION_SECONDS_MAX;
    let too_long = || Failure::Retention { reason: "nodes keep what is deleted for 90d at most".into() };
    seconds.filter(is_allowed).ok_or_else(too_long)
}

fn show(client: &Client) -> Result<(), Failure> {
    let kept = Kept::of(&client.block_store());
    if kept.said.is_empty() {
        return Err(Failure::Retention {
            reason: "no node says for how long it keeps what is deleted".into(),
        });
    }
    let mut spans: Vec<u32> = kept.said.iter().map(|said| said.seconds).collect();
    spans.sort_unstable();
    spans.dedup();
    for seconds in spans {
        let nodes = kept.said.iter().filter(|said| said.seconds == seconds).count();
        let span = Span(Duration::from_secs(seconds.into()));
        let nodes = if nodes == 1 { "1 node keeps".to_owned() } else { format!("{nodes} nodes keep") };
        say(format_args!("{nodes} what is deleted for {span} at least"));
    }
    let next = kept.said.iter().filter_map(|said| said.shorter).max_by_key(|(_, from)| *from);
    if let Some((seconds, from)) = next {
        let (span, from) = (Span(Duration::from_secs(seconds.into())), civil(from));
        say(format_args!("from {from} (UTC) on it is {span}, as the owner has said since"));
    }
    if kept.silent > 0 {
        say(format_args!("{} do not answer", kept.silent));
    }
    kept.tell();
    Ok(())
}

fn set(home: &Home, network: &Network, client: &Client, seconds: u32) -> Result<(), Failure> {
    let nodes: Vec<Contact> = client.overlay().contacts().into_iter().map(|(contact, _)| contact).collect();
    let theirs = lists_of(client, &nodes, network);
    let list = sign(home, network, seconds, &theirs)?;
    let answers = on_each(client.overlay(), &nodes, |overlay, node| {
        overlay.call::<Revoke>(node, &list, Bytes::new(), KEEP_LIMIT).map(|(hash, _)| hash == list.hash())
    });
    let mut heard = 0;
    for (node, answer) in nodes.iter().zip(answers) {
        match answer {
            Some(Ok(true)) => heard += 1,
            Some(Err(error)) => output::warn(format_args!(
                "{node} has not heard of it ({error}); the others tell it when it is back"
            )),
            Some(Ok(false)) | None => output::warn(format_args!(
                "{node} has a list that another copy of this home signed meanwhile: say it again"
            )),
        }
    }
    if heard == 0 {
        return Err(Failure::Retention { reason: "no node has heard of it yet: say it again".into() });
    }
    say(format_args!(
        "{heard} of {} nodes know that what is deleted is to be kept for {}",
        nodes.len(),
        Span(Duration::from_secs(seconds.into()))
    ));
    show(client)
}

/// Signs a list that follows all of them and says so, and has it on disk here before anybody hears of it.
fn sign(
    home: &Home,
    network: &Network,
    seconds: u32,
    theirs: &[Revocations],
) -> Result<Revocations, Failure> {
    Roll::change(home, |_| {
        let kept = home.revocations(network)?;
        let owner = identity::owner(home)?;
        let all = Revocations::following(theirs.iter().chain([&kept]), &owner, [], reactor::wall_clock());
        let all = all.map_err(|error| Failure::Retention { reason: error.to_string() })?;
        let next = all.with_retention(&owner, seconds);
        let path = home.revocations_file();
        next.save(&path).map_err(|error| Failure::file(&path, error))?;
        Ok(next)
    })
}

/// Has the nodes of a network that was just made hear it before they are asked to keep anything.
///
/// # Errors
/// `Failure::Retention`, or those of the home's files.
pub(crate) fn say_first(home: &Home, network: &Network, span: Span) -> Result<(), Failure> {
    let list = sign(home, network, checked(span)?, &[])?;
    network.nodes.iter().try_for_each(|node| {
        let path = home.node(node.number).revocations_file();
        list.save(&path).map_err(|error| Failure::file(&path, error))
    })
}

fn civil(seconds: u64) -> Civil {
    Civil::of(i64::try_from(seconds).unwrap_or(i64::MAX))
}
