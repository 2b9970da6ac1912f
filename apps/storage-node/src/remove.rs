//! `remove`: somebody is a member no more.
//!
//! Three steps, the most urgent first, and each can be done again: the owner signs a new list of the revoked and has it on
//! disk here; the nodes take it, and refuse who is on it from that moment, on open connections too; and the drive's root
//! gets a new key, which is sealed to those who stay. A node that does not answer learns it from the others when it is
//! back. What could not be done is said, and `up` goes on with it.
//!
//! Not here: how a list spreads (`overlay::revocation`).

use bytes::Bytes;
use overlay::message::{Revoke, Revoked};
use overlay::{Contact, Node, Overlay, Revocations};
use reactor::crypto::PublicKey;

use std::time::Duration;

use crate::cli::Remove;
use crate::client::{Client, Settings};
use crate::errors::Failure;
use crate::home::Home;
use crate::identity::{self, Member};
use crate::members::{Subject, resolve};
use crate::network::{Network, Role};
use crate::output::{self, say};
use crate::process;
use crate::roll::{LetIn, Roll};
use crate::sharing;

/// A node has to write the list down before it answers.
const KEEP_LIMIT: Duration = Duration::from_secs(10);

/// Runs the command.
///
/// # Errors
/// `Failure::NotTheOwner`, `Failure::NoMember`, or `Failure::Removing` with what is not done yet.
pub(crate) fn remove(options: &Remove) -> Result<(), Failure> {
    let home = Home::locate(options.home.home.as_deref())?;
    let network = home.network()?;
    identity::owner(&home)?;
    let subject = resolve(&options.who, &Roll::read(&home)?, &home, &network)?;
    let settings = Settings::of_home(&home, network.clone());
    process::run(|| perform(&home, &network, &settings, &subject))
}

fn perform(home: &Home, network: &Network, settings: &Settings, subject: &Subject) -> Result<(), Failure> {
    // Without a node the list is made all the same: whoever comes up in this home hands it over.
    let client = Client::connect(settings);
    let key = subject.key();
    let nodes: Vec<Contact> = client.as_ref().map_or_else(
        |_| Vec::new(),
        |client| client.overlay().contacts().into_iter().map(|(contact, _)| contact).collect(),
    );
    let nodes: Vec<Contact> = nodes.into_iter().filter(|node| node.public_key != key).collect();
    let newest =
        client.as_ref().map_or_else(|_| Revocations::default(), |client| newest_of(client, &nodes, network));
    let list = sign(home, network, key, newest)?;
    let client = client.map_err(|failure| Failure::Removing {
        reason: format!("{subject} is on the list of the revoked, and no node knows it yet: {failure}"),
    })?;
    let result = spread_and_put_out(home, network, &client, &nodes, &list, subject);
    client.leave();
    result
}

/// The newest list that a node has: this home's may be a restored copy.
fn newest_of(client: &Client, nodes: &[Contact], network: &Network) -> Revocations {
    let lists = on_each(client.overlay(), nodes, |overlay, node| {
        let (list, _) = overlay.call::<Revoked>(node, &(), Bytes::new(), KEEP_LIMIT).ok()?;
        list.verify(&network.owner_key()).ok().map(|()| list)
    });
    lists.into_iter().flatten().max_by_key(Revocations::version).unwrap_or_default()
}

/// Signs the list that follows the newest, and has it on disk here before anybody hears of it.
fn sign(home: &Home, network: &Network, key: PublicKey, newest: Revocations) -> Result<Revocations, Failure> {
    let path = home.revocations_file();
    Roll::change(home, |_| {
        let failed = |error| Failure::file(&path, error);
        let kept = Revocations::load(&path, &network.owner_key()).map_err(failed)?;
        let before = if newest.version() > kept.version() { newest } else { kept };
        if before.contains(&key) {
            before.save(&path).map_err(failed)?;
            return Ok(before);
        }
        let owner = identity::owner(home)?;
        let next = before.with(&owner, [key], reactor::wall_clock());
        let next = next.map_err(|error| Failure::Removing { reason: error.to_string() })?;
        next.save(&path).map_err(failed)?;
        Ok(next)
    })
}

fn spread_and_put_out(
    home: &Home,
    network: &Network,
    client: &Client,
    nodes: &[Contact],
    list: &Revocations,
    subject: &Subject,
) -> Result<(), Failure> {
    let kept = on_each(client.overlay(), nodes, |overlay, node| {
        let answer = overlay.call::<Revoke>(node, list, Bytes::new(), KEEP_LIMIT);
        answer.map(|(version, _)| version >= list.version()).map_err(|error| error.to_string())
    });
    let count = kept.iter().filter(|answer| matches!(answer, Ok(true))).count();
    for (node, answer) in nodes.iter().zip(&kept) {
        if let Err(error) = answer {
            output::warn(format_args!(
                "{node} has not taken the list ({error}); the others hand it over when it is back"
            ));
        }
    }
    if count == 0 {
        let reason = format!("{subject} is on the list of the revoked, and no node has taken that yet");
        return Err(Failure::Removing { reason });
    }
    say(format_args!("{subject} is removed: {count} of {} nodes refuse it from now on", nodes.len()));
    let Subject::Member(member) = subject else { return Ok(()) };
    if !member.is_on_drive {
        return Ok(());
    }
    let user = Member::load(&home.user_key_file(), Role::User)?;
    put_out(home, network, &client.block_store(), &user, std::slice::from_ref(member)).map_err(|failure| {
        Failure::Removing {
            reason: format!("the nodes refuse {subject}, but what is written from now on is still sealed to it as well: {failure}"),
        }
    })?;
    say("the drive has a new key, which is sealed to those who stay");
    Ok(())
}

/// Takes members off the drive, and off the roll's account of who is on it.
///
/// # Errors
/// `Failure::Sharing`, or those of the home's files.
///
/// # Suspends
/// Until the drive's root says so.
pub(crate) fn put_out(
    home: &Home,
    network: &Network,
    store: &dht::Client<std::rc::Rc<Node>>,
    user: &Member,
    members: &[LetIn],
) -> Result<(), Failure> {
    sharing::put_out(store, network, user, members)?;
    let (home, keys) = (home.clone(), members.iter().map(|member| member.key.clone()).collect::<Vec<_>>());
    reactor::offload(move || {
        Roll::change(&home, |roll| {
            let entries = roll.members.iter_mut().filter(|entry| keys.contains(&entry.key));
            entries.for_each(|entry| entry.is_on_drive = false);
            Ok(())
        })
    })
}

/// Asks every node at once.
pub(crate) fn on_each<T>(overlay: &Node, nodes: &[Contact], ask: impl Fn(&Node, &Contact) -> T) -> Vec<T> {
    let ask = &ask;
    reactor::scope(|scope| {
        let asked: Vec<_> = nodes.iter().map(|node| scope.spawn(move || ask(overlay, node))).collect();
        asked.into_iter().filter_map(|asking| asking.join().ok()).collect()
    })
}
