//! `join`: a machine becomes a member, with a key that it makes itself.
//!
//! The key is on disk before anybody hears of it, so that whoever is let in can prove to be it, however this process
//! ends; the same command goes on where it was. The letter is brought to the nodes in the ticket, once a second, until the
//! owner's reply is there. What a node says itself is only believed if every one that can be reached says no: one
//! that lies must not turn a guest away.
//!
//! A home that joined already does not join twice: a second ticket tells it where nodes are now. If it was removed from the
//! network, which the nodes have to show it, it joins as somebody new, and what it had is set aside.
//!
//! Not here: what happens at the other end (`admitting`).

use std::io::{BufRead, IsTerminal, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use filesystem::format::printable;
use overlay::contact::Introduction;
use overlay::invitation::{Answer, Declined, InvitedAs, Letter, Verdict};
use overlay::{Contact, DialError, Passport, Ticket, contacts_file, stranger};
use reactor::cell::RefCell;
use reactor::crypto::{Identity, PublicKey};
use reactor::serialization::to_bytes;
use reactor::sync::Signal;

use crate::admitting::Notes;
use crate::author;
use crate::cli::Join;
use crate::client::{Client, Settings};
use crate::errors::Failure;
use crate::files;
use crate::home::Home;
use crate::keyring;
use crate::mountpoint;
use crate::network::{Hex, KeyFile, Network, NodeSettings, Role};
use crate::output::{self, say};
use crate::process;
use crate::progress;
use crate::stop::Stop;

/// How often the nodes are asked for the reply.
const INTERVAL: Duration = Duration::from_secs(1);
/// A reply that takes longer needs an explanation: the home that invited is asleep.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest line with a ticket that is read from standard input.
const TICKET_BYTES_MAX: u64 = 4096;

/// Runs the command.
///
/// # Errors
/// `Failure::Ticket` if nobody is let in with it, `Failure::OtherNetwork` if the home belongs elsewhere, or what keeps the
/// drive or node from starting.
pub(crate) fn join(options: &Join) -> Result<(), Failure> {
    let ticket: Ticket = read_ticket(&options.ticket)?.parse().map_err(declined)?;
    let role = ticket.invitation().role;
    let home = Home::locate(options.home.home.as_deref())?;
    match (&options.drive, role) {
        (Some(path), InvitedAs::Node) => {
            let reason = "the ticket is for a node, which has no drive: leave it out".into();
            return Err(Failure::Mountpoint { path: path.clone(), reason });
        }
        // Known now, and not only when the ticket is used up.
        (Some(path), _) => drop(mountpoint::prepare(path)?),
        (None, _) => {}
    }
    if role != InvitedAs::Node && (options.says.zone.is_some() || options.says.capacity.is_some()) {
        return Err(Failure::Ticket {
            reason: format!("the ticket is for a {role}: --zone and --capacity are for nodes"),
            advice: Some("leave them out"),
        });
    }
    match options.listen {
        Some(_) if role != InvitedAs::Node => {
            return Err(Failure::Ticket {
                reason: format!("the ticket is for a {role}: --listen is for nodes"),
                advice: Some("leave it out"),
            });
        }
        // Known before the ticket is used up.
        Some(listen) => {
            let address = listen.of(1)?;
            TcpListener::bind(address).map_err(|source| Failure::Listen { address, source })?;
        }
        None => {}
    }
    // Whoever uses the home, it belongs where it belongs.
    home.refuse_to_join(&ticket.invitation().network)?;
    {
        let _lock = home.lock()?;
        let joined_before = home.refuse_to_join(&ticket.invitation().network)?;
        let was_removed = joined_before.is_some();
        if let Some(network) = joined_before {
            refuse_unless_removed(&home, network, &ticket)?;
        }
        let joined = process::run(|| admit(&home, &ticket, options))?;
        let Some((identity, passport, notes)) = joined else {
            return Ok(()); // Ctrl-C: it can go on later.
        };
        if was_removed {
            let aside = home.set_aside()?;
            let place = aside.display();
            say(match aside.join("user.key").exists() {
                true => format!(
                    "what this home had when it was removed is in {place}: storage-node --home {place} journal export DIR writes out what \
                     no node took, and storage-node mount --home {place} DRIVE shows what its cache has"
                ),
                false => {
                    format!("the node that this home had when it was removed is in {place}, with its store")
                }
            });
        }
        let name = printable(&notes.name);
        settle_in(&home, &ticket, options, &identity, &passport, notes)?;
        say(format_args!("joined as a {role}, called {name}: {}", home.path().display()));
        if let (Some(drive), true) = (&options.drive, role != InvitedAs::Node) {
            // What comes next can fail, and then it is not this command that has to be said again.
            say(format_args!(
                "the ticket is used; from now on `storage-node mount --home {} {}` is all it takes",
                home.path().display(),
                drive.display()
            ));
        }
    }
    match (&options.drive, role) {
        (_, InvitedAs::Node) => Err(go_on_as("run", &home, None, options)),
        (Some(drive), _) => Err(go_on_as("mount", &home, Some(drive), options)),
        (None, _) => {
            say(format_args!("storage-node mount --home {} DRIVE mounts the drive", home.path().display()));
            Ok(())
        }
    }
}

/// Only who was removed joins the same network again. Whoever is a member still gets something from the ticket: the
/// addresses of nodes that are in it.
fn refuse_unless_removed(home: &Home, network: Network, ticket: &Ticket) -> Result<(), Failure> {
    let mut settings = Settings::of_joined(home, network);
    if !settings.has_key() {
        return Ok(()); // It was set aside, and that was cut short.
    }
    let already = Failure::AlreadyJoined { path: home.path().into() };
    remember(home, ticket.ways())?;
    settings.addresses.extend(ticket.ways().iter().flat_map(|way| way.addresses.iter().copied()));
    match process::run(|| Client::connect(&settings).map(Client::leave)) {
        Err(Failure::Removed { .. }) => Ok(()),
        Err(Failure::Expired) => Err(Failure::Expired),
        _ => {
            say("where the nodes are now is known from the ticket");
            Err(already)
        }
    }
}

/// Has every later start look for nodes there too.
fn remember(home: &Home, ways: &[Contact]) -> Result<(), Failure> {
    let path = home.contacts_file();
    let failed = |error| Failure::file(&path, error);
    let mut contacts: Vec<Introduction> = ways.iter().map(Introduction::from).collect();
    for known in contacts_file::load(&path).map_err(failed)?.contacts {
        match contacts.iter_mut().find(|way| way.public_key == known.public_key) {
            // Where the ticket says, and then where it was.
            Some(way) => {
                for address in known.addresses {
                    if !way.addresses.contains(&address) {
                        way.addresses.push(address);
                    }
                }
                way.record = known.record;
            }
            None => contacts.push(known),
        }
    }
    contacts_file::save(&path, &contacts).map_err(failed)
}

/// Puts another command of this program in the place of this process, which has the ticket on a command line that everybody
/// on this machine may read. Returns only if that fails.
fn go_on_as(command: &str, home: &Home, drive: Option<&Path>, options: &Join) -> Failure {
    let mut next = Command::new("/proc/self/exe");
    next.arg0("storage-node").arg(command).arg("--home").arg(home.path());
    // At another port than the one that was asked for nobody is to be told to look.
    let listen = options.listen.filter(|listen| listen.has_port()).and_then(|listen| listen.of(1).ok());
    next.args(listen.map(|listen| format!("--listen={listen}")));
    next.args(options.mapping.as_argument()).args(options.discovery.as_argument()).arg("--").args(drive);
    // The row of what was said ends with this program.
    output::settle();
    Failure::Internal(format!("can't go on as `{command}`, which is to be given by hand: {}", next.exec()))
}

fn read_ticket(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.into());
    }
    if std::io::stdin().is_terminal() {
        say("paste the ticket, and press Enter:");
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(TICKET_BYTES_MAX).read_line(&mut text);
    read.map_err(|source| Failure::Stream { what: "standard input", source })?;
    Ok(text)
}

fn declined(why: impl std::fmt::Display) -> Failure {
    Failure::Ticket { reason: why.to_string(), advice: None }
}

type Joined = (Identity, Passport, Notes);

/// Asks until there is a reply; `None` if somebody pressed Ctrl-C first.
fn admit(home: &Home, ticket: &Ticket, options: &Join) -> Result<Option<Joined>, Failure> {
    let stop = Stop::on_signals()?;
    let identity = Rc::new(own_key(home, ticket)?);
    let usual = || match ticket.invitation().role {
        InvitedAs::Node => author::of_node(),
        _ => author::author(),
    };
    let name = options.called.clone().unwrap_or_else(usual);
    let letter = ticket.letter(&identity, &name);
    let spinner = progress::spinner("asking the nodes to pass the request on");
    let reply = stop.unless_open(|| ask(ticket, &identity, &letter));
    spinner.finish_and_clear();
    let Some(reply) = reply else {
        say("not joined yet; the same command goes on with it");
        return Ok(None);
    };
    match reply? {
        Verdict::Declined(why) => Err(declined(why)),
        Verdict::Welcome { passport, notes } => {
            let notes: Notes = serde_json::from_slice(&notes).map_err(|error| {
                declined(format_args!("what the home that invited you says is not understood: {error}"))
            })?;
            let network = ticket.invitation().network;
            let rights = passport.verify(&network, &identity.public_key(), reactor::wall_clock());
            rights
                .map_err(|error| declined(format_args!("the passport that was given is no good: {error}")))?;
            if notes.network.owner_key() != network {
                return Err(declined("what the home that invited you says is of another network"));
            }
            Ok(Some(((*identity).clone(), passport, notes)))
        }
    }
}

/// The key that joins, made once.
fn own_key(home: &Home, ticket: &Ticket) -> Result<Identity, Failure> {
    let path = home.joining_key_file();
    let role = role_of(ticket);
    if path.exists() {
        let key = keyring::load(&path)?;
        if key.role == role {
            return Ok(key.identity);
        }
    }
    let identity = Identity::generate();
    files::save(&path, &KeyFile::plain(role, &identity, None))?;
    Ok(identity)
}

fn role_of(ticket: &Ticket) -> Role {
    match ticket.invitation().role {
        InvitedAs::Node => Role::Node,
        _ => Role::User,
    }
}

/// Brings the letter to every node of the ticket until one has the owner's reply.
fn ask(ticket: &Ticket, identity: &Rc<Identity>, letter: &Letter) -> Result<Verdict, Failure> {
    let (began, network) = (Instant::now(), ticket.invitation().network);
    let (mut was_reached, mut has_told) = (false, false);
    loop {
        let begun = Instant::now();
        let (mut waits, mut refusal, mut failure) = (false, None, None);
        for answer in bring_to_all(ticket, identity, letter, &network) {
            match answer {
                Ok(Answer::Replied(reply)) if reply.answers(letter, &network) => return Ok(reply.verdict),
                // It lies, or is not there to be believed.
                Ok(Answer::Replied(_)) => failure = Some("a node gave a false reply".to_owned()),
                Ok(Answer::Waiting | Answer::Declined(Declined::Busy)) => waits = true,
                Ok(Answer::Declined(why)) => refusal = Some(why),
                Err(error) => failure = Some(error.to_string()),
            }
        }
        match (waits, refusal, failure) {
            (false, Some(why), None) => return Err(declined(why)),
            (false, Some(why), Some(failure)) => {
                return Err(Failure::Ticket {
                    reason: format!(
                        "{why} (so a node says, and not the owner; others can't be asked: {failure})"
                    ),
                    advice: Some("if that can't be, try again when the other nodes run"),
                });
            }
            (false, None, failure) if !was_reached => {
                return Err(Failure::Ticket {
                    reason: format!(
                        "none of the {} nodes that the ticket names can be reached: {}",
                        ticket.ways().len(),
                        failure.unwrap_or_else(|| "it names none".into())
                    ),
                    advice: Some(
                        "see that the nodes run and that this machine can reach them, and try again",
                    ),
                });
            }
            _ => was_reached = true,
        }
        if !has_told && began.elapsed() > PATIENCE {
            has_told = true;
            say(
                "the nodes have your request; it is answered as soon as `up` or `mount` runs with the home that invited \
                 you, and with its owner's key (--owner, if that is kept elsewhere)\nwaiting for that; Ctrl-C is safe, and the same command goes on",
            );
        }
        reactor::sleep(INTERVAL.saturating_sub(begun.elapsed()));
    }
}

/// Brings the letter to all nodes of the ticket at once. One whose address leads nowhere, since it is behind a router, say,
/// keeps nobody waiting who has an answer from another.
fn bring_to_all(
    ticket: &Ticket,
    identity: &Rc<Identity>,
    letter: &Letter,
    network: &PublicKey,
) -> Vec<Result<Answer, DialError>> {
    let (answers, came) = (RefCell::new(Vec::new()), Signal::new());
    let (answers_of, came_of) = (&answers, &came);
    let bring = |way| {
        let answer = stranger::bring(identity, letter, way);
        answers_of.borrow_mut().push(answer);
        came_of.notify_all();
    };
    let bring = &bring;
    reactor::scope(|s| {
        let asked: Vec<_> = ticket.ways().iter().map(|way| s.spawn(move || bring(way))).collect();
        let is_reply = |answer: &Result<Answer, DialError>| matches!(answer, Ok(Answer::Replied(reply)) if reply.answers(letter, network));
        let waits =
            |answer: &Result<Answer, DialError>| is_reply(answer) || matches!(answer, Ok(Answer::Waiting));
        let wait_for = |is_enough: &dyn Fn(&Result<Answer, DialError>) -> bool| {
            while answers_of.borrow().len() < asked.len() && !answers_of.borrow().iter().any(is_enough) {
                came_of.wait();
            }
        };
        wait_for(&waits);
        // Whoever has the letter has us wait for the owner anyway.
        let _ = reactor::timeout(INTERVAL, || wait_for(&is_reply));
        asked.iter().filter(|asked| !asked.is_finished()).for_each(|asked| asked.terminate());
    });
    answers.into_inner()
}

/// Writes down what was received: `network.json` last, so that a home is whole or no home.
fn settle_in(
    home: &Home,
    ticket: &Ticket,
    options: &Join,
    identity: &Identity,
    passport: &Passport,
    Notes { network, number, name }: Notes,
) -> Result<(), Failure> {
    let role = role_of(ticket);
    let key = KeyFile::plain(role, identity, Some(Hex(to_bytes(passport))));
    match role {
        Role::Node => {
            let node = home.as_node();
            files::save(&node.key_file(), &key)?;
            let listen = match options.listen {
                Some(listen) => listen.of(1)?,
                None => SocketAddr::new(our_address(ticket), 0),
            };
            let mut settings = NodeSettings::new(number.unwrap_or(0), listen);
            settings.listen_was_found = options.listen.is_none();
            settings.take(&options.says);
            node.save_settings(&settings)?;
        }
        _ => {
            author::call(&home.user_key_file(), &printable(&name))?;
            files::save(&home.user_key_file(), &key)?;
        }
    }
    // Where the nodes were when the network was made may be long ago, or is not known to who recovered it.
    remember(home, ticket.ways())?;
    files::save(&home.network_file(), &network)?;
    let _ = std::fs::remove_file(home.joining_key_file());
    Ok(())
}

/// The address of this machine from which it reaches the first node of the ticket; sends nothing.
fn our_address(ticket: &Ticket) -> IpAddr {
    let there = ticket.ways().iter().flat_map(|way| &way.addresses).next();
    let ours = there.and_then(|there| {
        let any = if there.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(there).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    ours.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
