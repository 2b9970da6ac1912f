//! `members`: who may do what since when, and who was seen last where.
//!
//! Who belongs to the network stands in the owner's home: its own keys, and the roll of those who joined. Where they are,
//! the nodes know, as long as they run. The JSON's fields are only ever added to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use overlay::invitation::InvitedAs;
use overlay::message::Sightings;
use overlay::peers::Sighting;
use overlay::{Contact, How, NodeId, Overlay, Revocations, Rights};
use reactor::crypto::PublicKey;
use serde::Serialize;

use crate::admitting::{now, seconds};
use crate::cli::Members;
use crate::client::{Client, Settings};
use crate::errors::Failure;
use crate::gc::Span;
use crate::home::Home;
use crate::netcheck;
use crate::network::{Hex, Network};
use crate::nodes::{Listed, Said, said_to};
use crate::output;
use crate::process;
use crate::remove::{lists_of, on_each};
use crate::roll::{Invited, LetIn, Roll};

/// What the owner is called wherever members are named: his key is one, whatever machines use it.
pub(crate) const OWNER: &str = "the drive's owner";

/// A node that takes longer has nothing to tell.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Hexadecimal digits of a key that are shown, and enough to name it.
const SHOWN_DIGITS: usize = 12;
/// Fewer digits are too easily somebody else's.
const NAMING_DIGITS_MIN: usize = 4;

/// What `members` found.
#[derive(Debug, Serialize)]
struct Overview {
    members: Vec<Entry>,
    tickets: Vec<TicketEntry>,
    /// Whether a node could be asked who was seen.
    nodes_answer: bool,
}

#[derive(Debug, Serialize)]
struct Entry {
    /// As `status` and `node list` name a node.
    id: Hex<[u8; 32]>,
    key: Hex<[u8; 32]>,
    name: String,
    /// `owner`, `node`, `writer` or `reader`.
    role: String,
    may: String,
    /// Seconds since 1970; none for those who were there when the network was made.
    since: Option<u64>,
    revoked_since: Option<u64>,
    /// When its passport ends, unless it is renewed before; none for those whose passports never do.
    passport_expires: Option<u64>,
    last_seen: Option<LastSeen>,
    /// Of a node.
    #[serde(flatten)]
    says: Said,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct LastSeen {
    /// Where, as a node sees it; none where only a relay does.
    address: Option<SocketAddr>,
    /// `direct`, `punched`, `punched-tcp` or `relayed`.
    how: How,
    /// 0 for one that is connected.
    seconds_ago: u64,
    /// From here to there and back; none for who is no node, or does not answer.
    round_trip_ms: Option<f64>,
}

/// Where and how.
impl fmt::Display for LastSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.how) {
            (Some(address), How::Direct) => write!(f, "at {address}"),
            (Some(address), how) => write!(f, "at {address}, {how}"),
            (None, how) => how.fmt(f),
        }
    }
}

#[derive(Debug, Serialize)]
struct TicketEntry {
    key: Hex<[u8; 32]>,
    role: String,
    uses_left: usize,
    expires: u64,
    is_revoked: bool,
}

/// Whom `remove` is about.
pub(crate) enum Subject {
    Member(LetIn),
    Ticket(Invited),
    /// A node that the network was made with.
    FirstNode(Listed),
}

impl Subject {
    /// The keys that are revoked. A member's ticket goes with it: it may be good for more, and the member has it.
    pub(crate) fn keys(&self) -> Vec<PublicKey> {
        match self {
            Subject::Member(member) => vec![member.public_key(), PublicKey::from_bytes(member.ticket.0)],
            Subject::Ticket(ticket) => vec![PublicKey::from_bytes(ticket.ticket.0)],
            Subject::FirstNode(node) => vec![node.key],
        }
    }

    /// Whether it is a storage node.
    pub(crate) fn is_node(&self) -> bool {
        match self {
            Subject::Member(member) => member.role == InvitedAs::Node,
            Subject::Ticket(_) => false,
            Subject::FirstNode(_) => true,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Member(member) => {
                write!(f, "{} ({} {})", member.name, member.role, short(&id_of(&member.key)))
            }
            Subject::Ticket(ticket) => write!(f, "the ticket {}", short(&ticket.ticket)),
            Subject::FirstNode(node) => write!(f, "node {}", node.number.unwrap_or(0)),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// `Failure::NotTheOwner`, or those of the home's files.
pub(crate) fn members(options: &Members) -> Result<(), Failure> {
    let home = Home::locate(options.home.home.as_deref())?;
    let network = home.network()?;
    if !home.is_owners() {
        return Err(Failure::NotTheOwner { path: home.path().into() });
    }
    let roll = Roll::read(&home)?;
    let own = home.revocations(&network)?;
    let settings = Settings::of_home(&home, network.clone());
    let (seen, theirs, said) = match process::run(|| ask_nodes(&settings)) {
        Some((seen, lists, said)) => (Some(seen), lists, said),
        None => Default::default(),
    };
    // Another copy of this home may have removed somebody; the nodes know.
    let lists: Vec<Revocations> = std::iter::once(own).chain(theirs).collect();
    let mut overview = overview(&network, &roll, &lists, seen, now());
    for entry in &mut overview.members {
        entry.says = said.get(&NodeId(entry.id.0)).cloned().unwrap_or_default();
    }
    match options.json {
        true => output::print_json(&overview),
        false => output::print(&render(&overview, now())),
    }
}

/// What the nodes know.
type Known = (BTreeMap<PublicKey, LastSeen>, Vec<Revocations>, BTreeMap<NodeId, Said>);

/// Who was seen where by any node, the lists of the revoked that they have, and what nodes say of themselves; `None` if none
/// answers.
fn ask_nodes(settings: &Settings) -> Option<Known> {
    let client = Client::connect(settings).ok()?;
    let nodes: Vec<Contact> = client.overlay().contacts().into_iter().map(|(contact, _)| contact).collect();
    let answers = on_each(client.overlay(), &nodes, |overlay, node| {
        overlay.call::<Sightings>(node, &(), Bytes::new(), ANSWER_LIMIT)
    });
    let mut seen: BTreeMap<PublicKey, LastSeen> = BTreeMap::new();
    let mut answering: Vec<&Contact> = Vec::new();
    for (node, answer) in nodes.iter().zip(answers) {
        let Some(Ok((sightings, _))) = answer else { continue };
        answering.push(node);
        for Sighting { key, address, how, seconds_ago } in sightings {
            let last = LastSeen { address, how, seconds_ago, round_trip_ms: None };
            let known = seen.entry(key).or_insert(last);
            if (last.seconds_ago, last.how) < (known.seconds_ago, known.how) {
                *known = last;
            }
        }
    }
    // The nodes themselves as this home reaches them: where they listen, or let us in, and not from which port they called another
    // one.
    let answering: Vec<Contact> = answering.into_iter().cloned().collect();
    let took = on_each(client.overlay(), &answering, netcheck::round_trip);
    for (node, took) in answering.iter().zip(took) {
        let round_trip_ms = took.flatten().map(netcheck::milliseconds);
        let (how, place) = client.overlay().peers().place(&node.public_key).unwrap_or((How::Direct, None));
        let address = if how == How::Direct { node.addresses.first().copied() } else { place };
        seen.insert(node.public_key, LastSeen { address, how, seconds_ago: 0, round_trip_ms });
    }
    let lists = lists_of(&client, &nodes, &settings.network);
    let said = said_to(client.overlay());
    client.leave();
    Some((seen, lists, said))
}

fn overview(
    network: &Network,
    roll: &Roll,
    revoked: &[Revocations],
    seen: Option<BTreeMap<PublicKey, LastSeen>>,
    now: u64,
) -> Overview {
    let revoked_since = |key: &PublicKey| {
        let entries = revoked.iter().flat_map(|list| list.revoked());
        entries.filter(|entry| entry.key == *key).map(|entry| entry.since).min()
    };
    let entry = |key: PublicKey, name: String, role: &str, rights: Rights, since: Option<u64>| Entry {
        id: Hex(NodeId::of(&key).0),
        key: Hex(*key.as_bytes()),
        name,
        role: role.into(),
        may: rights.to_string(),
        since,
        revoked_since: revoked_since(&key),
        passport_expires: None,
        last_seen: seen.as_ref().and_then(|seen| seen.get(&key)).copied(),
        says: Said::default(),
    };
    let user = entry(network.volume_owner(), OWNER.into(), "owner", Rights::ALL, None);
    let nodes = network.nodes.iter().map(|node| {
        let key = PublicKey::from_bytes(node.public_key.0);
        entry(key, format!("node {}", node.number), "node", Rights::NODE, None)
    });
    let joined = roll.members.iter().map(|member| {
        let rights = member.role.rights();
        let role = member.role.to_string();
        Entry {
            passport_expires: member.passport().and_then(|passport| passport.expires()).map(seconds),
            ..entry(member.public_key(), member.name.clone(), &role, rights, Some(member.since))
        }
    });
    let open = roll.invitations.iter().filter(|ticket| ticket.expires > now);
    let tickets = open.map(|invited| TicketEntry {
        key: invited.ticket.clone(),
        role: invited.role.to_string(),
        uses_left: usize::from(invited.uses).saturating_sub(roll.uses_of(&invited.ticket)),
        expires: invited.expires,
        is_revoked: revoked_since(&PublicKey::from_bytes(invited.ticket.0)).is_some(),
    });
    Overview {
        members: std::iter::once(user).chain(nodes).chain(joined).collect(),
        tickets: tickets.collect(),
        nodes_answer: seen.is_some(),
    }
}

fn render(overview: &Overview, now: u64) -> String {
    let mut text = String::new();
    for entry in &overview.members {
        let since = match (entry.revoked_since, entry.since) {
            (Some(at), _) => format!("removed {} ago", age(now, at)),
            (None, Some(at)) => format!("for {}", age(now, at)),
            (None, None) => "from the start".into(),
        };
        let seen = match entry.last_seen {
            Some(last) if last.seconds_ago == 0 => {
                let took = last.round_trip_ms.map(|took| format!(", {took} ms there and back"));
                format!("connected, {last}{}", took.unwrap_or_default())
            }
            Some(last) => format!("seen {} ago {last}", age(last.seconds_ago, 0)),
            None if overview.nodes_answer => "not seen since the nodes started".into(),
            None => "no node answers".into(),
        };
        let may = match (entry.revoked_since, entry.role.as_str()) {
            (Some(_), _) => "nothing",
            // It reads and writes what is sealed, and no key opens it there.
            (None, "node") => "keeps blocks",
            (None, _) => &entry.may,
        };
        let id = short(&entry.id);
        let says = entry.says.in_words().map_or(String::new(), |words| format!(", {words}"));
        let _ =
            writeln!(text, "{id}  {:<7} {:<20} {may:<16} {since:<18} {seen}{says}", entry.role, entry.name);
    }
    for ticket in &overview.tickets {
        let state = match (ticket.is_revoked, ticket.uses_left) {
            (true, _) => "revoked".into(),
            (_, 0) => "used".into(),
            (_, 1) => format!("good once, for {} more", left(ticket.expires, now)),
            (_, uses) => format!("good {uses} times, for {} more", left(ticket.expires, now)),
        };
        let _ = writeln!(text, "{}  ticket  for a {}: {state}", short(&ticket.key), ticket.role);
    }
    text
}

/// What is left of a time that was given in hours or days, a moment later: in the unit in which it was given.
fn left(until: u64, now: u64) -> Span {
    let seconds = until.saturating_sub(now);
    age(seconds + if seconds > 3600 { 59 } else { 0 }, 0)
}

/// The time between the two, as a person would say it.
pub(crate) fn age(later: u64, earlier: u64) -> Span {
    let seconds = later.saturating_sub(earlier);
    // To the unit that a person would say.
    let unit = [86_400, 3600, 60].into_iter().find(|unit| seconds >= 2 * unit).unwrap_or(1);
    Span(Duration::from_secs(seconds / unit * unit))
}

/// As `status` and `node list` name it.
fn id_of(key: &Hex<[u8; 32]>) -> Hex<[u8; 32]> {
    Hex(NodeId::of(&PublicKey::from_bytes(key.0)).0)
}

fn short(key: &Hex<[u8; 32]>) -> String {
    key.to_string()[..SHOWN_DIGITS].to_owned()
}

/// So many first digits of each that no two are alike: some may have been made so that the shown ones are.
fn told_apart(ids: &[String]) -> Vec<&str> {
    let firsts = |count: usize| ids.iter().map(move |id| &id[..count.min(id.len())]);
    let is_enough = |count: &usize| firsts(*count).collect::<BTreeSet<_>>().len() == ids.len();
    let longest = ids.iter().map(String::len).max().unwrap_or_default();
    firsts((SHOWN_DIGITS..longest).find(is_enough).unwrap_or(longest)).collect()
}

/// Whom `who` names: a name that one member has, or the first digits of a member's id or key, or of a ticket's key.
///
/// # Errors
/// `Failure::NoMember` if it is nobody or several, or one of this home's own keys.
pub(crate) fn resolve(who: &str, roll: &Roll, home: &Home, network: &Network) -> Result<Subject, Failure> {
    let none = |reason: &str| Failure::NoMember { who: who.into(), reason: reason.into() };
    if let Some(subject) = look_up(who, roll, home, network)? {
        return Ok(subject);
    }
    if who.len() < NAMING_DIGITS_MIN && !who.is_empty() && who.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(none(&format!(
            "nobody has that name, and of what `members` shows in the first column it takes {NAMING_DIGITS_MIN} \
             digits or more"
        )));
    }
    match home.members_directory().exists() {
        false => Err(none("nobody was invited yet")),
        true => Err(none("nobody has that name, and no key begins so")),
    }
}

/// As [`resolve`]; `None` if it is nobody.
pub(crate) fn look_up(
    who: &str,
    roll: &Roll,
    home: &Home,
    network: &Network,
) -> Result<Option<Subject>, Failure> {
    let none = |reason: &str| Failure::NoMember { who: who.into(), reason: reason.into() };
    let digits = who.to_ascii_lowercase();
    let is_key = digits.len() >= NAMING_DIGITS_MIN && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let begins = |digest: &Hex<[u8; 32]>| digest.to_string().starts_with(&digits);
    let names = |key: &Hex<[u8; 32]>| is_key && (begins(key) || begins(&id_of(key)));
    let founding = || {
        none(
            "it is one of the keys that the network was made with: its nodes are removed by `storage-node node remove`, \
             and its user stays",
        )
    };
    if network.founding_keys().any(names) || who == "node" || who.starts_with("node ") {
        return Err(founding());
    }
    let members = roll.members.iter().filter(|member| member.name == who || names(&member.key));
    let tickets = roll.invitations.iter().filter(|ticket| names(&ticket.ticket));
    let mut found: Vec<Subject> =
        members.cloned().map(Subject::Member).chain(tickets.cloned().map(Subject::Ticket)).collect();
    // Of several, those who were removed before are not meant.
    let revoked = home.revocations(network)?;
    let stays = |subject: &Subject| !subject.keys().first().is_some_and(|key| revoked.contains(key));
    if found.iter().any(stays) {
        found.retain(stays);
    }
    if found.len() > 1 {
        let ids = found.iter().filter_map(|subject| Some(NodeId::of(subject.keys().first()?)));
        return Err(none(&format!(
            "several are called so: give the first digits of one of them: {}",
            told_apart(&ids.map(|id| id.to_string()).collect::<Vec<_>>()).join(", ")
        )));
    }
    match (found.pop(), found.is_empty()) {
        // Whatever the roll calls it.
        (Some(subject), true)
            if network.founding_keys().any(|own| subject.keys().contains(&PublicKey::from_bytes(own.0))) =>
        {
            Err(founding())
        }
        (Some(subject), true) => Ok(Some(subject)),
        (Some(_), false) => Err(none("several are called so")),
        (None, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use reactor::crypto::Identity;

    use super::*;
    use crate::identity;

    fn member(number: u8, name: &str) -> LetIn {
        LetIn {
            key: Hex(*Identity::from_seed(&[number; 32]).public_key().as_bytes()),
            sealing_key: Hex([number; 32]),
            name: name.into(),
            role: InvitedAs::Writer,
            since: 0,
            ticket: Hex([number; 32]),
            number: None,
            may_be_on_drive: true,
            passport: None,
        }
    }

    #[test]
    fn ids_that_begin_alike_are_shown_as_far_as_they_differ() {
        let ids = ["00112233445566", "00112233445577", "ff112233445566"].map(String::from);
        assert_eq!(told_apart(&ids[1..]), ["001122334455", "ff1122334455"]);
        assert_eq!(told_apart(&ids), ["0011223344556", "0011223344557", "ff11223344556"]);
    }

    #[test]
    fn a_name_is_that_of_who_stays_and_of_who_is_off_only_where_nobody_does() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::locate(Some(directory.path())).unwrap();
        let (network, _) = home.open_or_found(Some(1)).unwrap();
        let (first, second) = (member(10, "bob"), member(11, "bob"));
        let roll = Roll { members: vec![first.clone(), second.clone()], ..Roll::default() };
        let remove = |gone: &[&LetIn]| {
            let keys = gone.iter().map(|member| member.public_key());
            let owner = identity::owner(&home).unwrap();
            let list = Revocations::default().with(&owner, keys, SystemTime::now()).unwrap();
            list.save(&home.revocations_file()).unwrap();
        };
        let named = |who: &str| match resolve(who, &roll, &home, &network) {
            Ok(Subject::Member(member)) => Ok(member.key),
            Ok(_) => panic!("{who} is no member"),
            Err(failure) => Err(failure.to_string()),
        };
        let several = named("bob").unwrap_err();
        assert!(several.contains(&short(&id_of(&first.key))), "{several}");
        remove(&[&first]);
        assert_eq!(named("bob"), Ok(second.key.clone()));
        assert_eq!(named(&short(&id_of(&first.key))), Ok(first.key.clone()), "said again it is gone on with");
        remove(&[&first, &second]);
        assert!(named("bob").unwrap_err().contains("several"));
    }
}
