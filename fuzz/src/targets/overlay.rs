//! Parsers of the overlay: passports, contacts and what nodes say of themselves, the messages of lookups, the file of contacts,
//! tickets, letters and their replies, the list of the revoked, renewed passports, what is kept for the owner.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ::overlay::beacon::{BEACON_BYTES_MAX, Beacon, parse_body};
use ::overlay::contact::{ADDRESSES_MAX, Introduction};
use ::overlay::invitation::{Answer, Declined, Invitation, InvitedAs, Letter, Reply, Verdict};
use ::overlay::life::Life;
use ::overlay::message::{FindNodeRequest, FindNodeResponse};
use ::overlay::record::{RELAYS_MAX, RELEASE_BYTES_MAX, SignedRecord};
use ::overlay::records::Records;
use ::overlay::{
    Contact, Keepsake, NodeRecord, Passport, Renewals, Revocations, Rights, Statement, Ticket, contacts_file,
};
use ::reactor::crypto::Identity;
use ::reactor::crypto::hash::sha3_256;
use ::reactor::serialization::{from_bytes, to_bytes};

use crate::Target;

fn identity(number: u8) -> Identity {
    Identity::from_seed(&[number; 32])
}

/// What somebody in our network says to a group: sealed as it came, and opened, as whoever knows the network can make it.
pub const BEACON: Target = Target {
    name: "beacon",
    body: |data| {
        let network = identity(1).public_key();
        let _ = Beacon::open(data, &network);
        if let Some(beacon) = parse_body(data, &network) {
            let again = beacon.seal(&identity(2), &network);
            assert!(again.len() <= BEACON_BYTES_MAX);
        }
    },
    seeds: || {
        let passport = Passport::issue(&identity(1), identity(2).public_key(), Rights::NODE, None);
        let (address, at_ms) = (Ipv4Addr::new(192, 168, 1, 11), 1_800_000_000_000);
        let [asks, tells] =
            [None, Some(4701)].map(|port| Beacon { passport: passport.clone(), port, address, at_ms });
        let network = identity(1).public_key();
        let shown = passport.to_bytes();
        let mut body = vec![2, 0x12, 0x5d];
        body.extend(address.octets());
        body.extend(at_ms.to_be_bytes());
        body.extend((shown.len() as u16).to_be_bytes());
        body.extend(shown);
        let salt = [0; 16];
        let signature = identity(2).sign(&sha3_256(&[b"hypha beacon 1", network.as_bytes(), &salt, &body]));
        body.extend(signature.as_bytes());
        vec![asks.seal(&identity(2), &network), tells.seal(&identity(2), &network), body]
    },
};

/// A passport that a stranger shows: decoded and, if it decodes, checked.
pub const PASSPORT: Target = Target {
    name: "passport",
    body: |data| {
        if let Ok(passport) = Passport::from_bytes(data) {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
            let _ = passport.verify(&identity(1).public_key(), &identity(2).public_key(), now);
            let _ = (passport.expires(), passport.rights(), passport.holder());
            let again = Passport::from_bytes(&passport.to_bytes()).expect("what we encode decodes");
            assert_eq!(again, passport);
        }
    },
    seeds: || {
        let mut rights = Rights::NODE;
        rights.invite = true;
        let first = Passport::issue(&identity(1), identity(3).public_key(), rights, None);
        let second = first.delegate(&identity(3), identity(2).public_key(), Rights::CLIENT, None);
        vec![first.to_bytes(), second.expect("it may invite").to_bytes()]
    },
};

fn introductions() -> Vec<Introduction> {
    let addresses =
        ["127.0.0.1:4701", "[2001:db8::1]:4702"].map(|text| text.parse::<SocketAddr>().expect("valid"));
    let contact = Contact::new(identity(2).public_key(), addresses);
    let with_record = contact.clone().with_record(Arc::new(node_record(7)));
    [contact, with_record].iter().map(Introduction::from).collect()
}

fn node_record(version: u64) -> NodeRecord {
    let statement = Statement {
        addresses: [([192, 0, 2, 8], 4701).into()].into_iter().collect(),
        relays: vec![identity(3).public_key()],
        zone: "cellar".parse().ok(),
        capacity_bytes: Some(500 << 30),
        release: "1.2.3".into(),
        is_relay: true,
    };
    let (network, holder) = (identity(1).public_key(), identity(2).public_key());
    NodeRecord::sign_in(&identity(2), &network, version, statement, |body| {
        let before = Life::begin(identity(4), None, false, Instant::now());
        let said = before.word(&network, &holder, body, None);
        let life = Life::begin(identity(5), Some(&said), false, Instant::now());
        Some(life.word(&network, &holder, body, Some((before.name(), 1000))))
    })
}

/// Contacts, the messages that carry them, and the file in which they are kept.
pub const CONTACT: Target = Target {
    name: "contact",
    body: |data| {
        if let Ok(introduction) = from_bytes::<Introduction>(data) {
            let again: Introduction = from_bytes(&to_bytes(&introduction)).expect("what we encode decodes");
            assert_eq!(again, introduction);
            let contact = Records::new(identity(1).public_key()).meet(&introduction);
            assert!(contact.record().is_none_or(|record| *record.holder() == introduction.public_key));
        }
        let _ = from_bytes::<FindNodeRequest>(data);
        let _ = from_bytes::<FindNodeResponse>(data);
        let loaded = contacts_file::parse(data);
        assert!(loaded.contacts.len() <= contacts_file::SAVED_MAX);
    },
    seeds: || {
        let both = introductions();
        let digits =
            to_bytes(node_record(7).signed()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let saved =
            format!("hypha contacts 2\n{} 127.0.0.1:4701 record:{digits}\n", identity(2).public_key());
        assert!(contacts_file::parse(saved.as_bytes()).damage.is_empty());
        let answer = to_bytes(&FindNodeResponse { contacts: both.clone() });
        both.iter().map(to_bytes).chain([answer, saved.into_bytes()]).collect()
    },
};

/// What a node says of itself: decoded and, if it decodes, verified, alone and against what is known.
pub const RECORD: Target = Target {
    name: "record",
    body: |data| {
        let Ok(said) = from_bytes::<SignedRecord>(data) else { return };
        let (network, holder) = (identity(1).public_key(), identity(2).public_key());
        let book = Records::new(network);
        book.take(&holder, node_record(7).signed()).expect("it is good");
        if let Ok(record) = said.verify(&holder, &network) {
            let statement = record.statement();
            assert!(statement.relays.len() <= RELAYS_MAX && statement.addresses.len() <= ADDRESSES_MAX);
            assert!(statement.release.len() <= RELEASE_BYTES_MAX);
            if let Some(life) = record.life() {
                assert!(!life.is_beside(life.name()), "nobody is beside himself");
            }
            let (newest, _) = book.take(&holder, &said).expect("it verifies");
            assert!(newest.version() >= record.version() && newest.version() >= 7);
        } else {
            let _ = book.take(&holder, &said);
            assert_eq!(book.of(&holder).map(|kept| kept.version()), Some(7));
        }
    },
    seeds: || [3, 7, 9].map(|version| to_bytes(node_record(version).signed())).into(),
};

fn later() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn invitation() -> Invitation {
    Invitation::sign(&identity(1), identity(4).public_key(), InvitedAs::Writer, 2, later())
}

fn letter() -> Letter {
    Letter::sign(&identity(4), invitation(), &identity(2), "ann@laptop")
}

/// A ticket that somebody pasted.
pub const TICKET: Target = Target {
    name: "ticket",
    body: |data| {
        if let Ok(ticket) = String::from_utf8_lossy(data).parse::<Ticket>() {
            let again: Ticket = ticket.to_string().parse().expect("what we show is read");
            assert_eq!(again.invitation(), ticket.invitation());
            assert_eq!(again.ways(), ticket.ways());
        }
    },
    seeds: || {
        let way = |number, address: &str| {
            Contact::new(identity(number).public_key(), [address.parse::<SocketAddr>().expect("valid")])
        };
        let ways = [way(5, "192.0.2.7:4701"), way(6, "[2001:db8::7]:4702")];
        vec![
            Ticket::new(identity(4), invitation(), ways).to_string().into_bytes(),
            Ticket::new(identity(4), invitation(), []).to_string().into_bytes(),
        ]
    },
};

/// What strangers and nodes say to each other before anybody is admitted.
pub const LETTER: Target = Target {
    name: "letter",
    body: |data| {
        let network = identity(1).public_key();
        if let Ok(letter) = from_bytes::<Letter>(data) {
            let _ = letter.verify(&network, SystemTime::UNIX_EPOCH);
            assert_eq!(from_bytes::<Letter>(&to_bytes(&letter)).expect("what we encode decodes"), letter);
        }
        if let Ok(reply) = from_bytes::<Reply>(data) {
            let _ = reply.answers(&letter(), &network);
        }
        let _ = from_bytes::<Answer>(data);
    },
    seeds: || {
        let passport = Passport::issue(&identity(1), identity(2).public_key(), Rights::CLIENT, None);
        let welcome = Verdict::Welcome { passport, notes: vec![7; 40].into() };
        let replies = [welcome, Verdict::Declined(Declined::Used)];
        let replies = replies.map(|verdict| Reply::sign(&identity(1), &letter(), verdict));
        let answers = replies.iter().map(|reply| to_bytes(&Answer::Replied(reply.clone())));
        let others =
            [to_bytes(&letter()), to_bytes(&Answer::Waiting), to_bytes(&Answer::Declined(Declined::Busy))];
        replies.iter().map(to_bytes).chain(answers).chain(others).collect()
    },
};

/// Renewed passports that somebody hands over, or that lie in a file.
pub const RENEWALS: Target = Target {
    name: "renewals",
    body: |data| {
        let Ok(passports) = from_bytes::<Vec<Passport>>(data) else { return };
        let (book, network) = (Renewals::new(), identity(1).public_key());
        if let Ok(news) = book.take(passports.clone(), &network, &Revocations::default(), later()) {
            assert!(news.iter().all(|passport| {
                passports.contains(passport) && passport.verify(&network, &passport.holder(), later()).is_ok()
            }));
            assert!(book.all().len() <= news.len());
        }
    },
    seeds: || {
        let until = |number, days: u64| {
            let expires = later() + Duration::from_secs(days * 86_400);
            Passport::issue(&identity(1), identity(number).public_key(), Rights::NODE, Some(expires))
        };
        vec![to_bytes(&vec![until(2, 30)]), to_bytes(&vec![until(2, 60), until(3, 60), until(2, 90)])]
    },
};

/// A list of the revoked that somebody hands over.
pub const REVOCATIONS: Target = Target {
    name: "revocations",
    body: |data| {
        if let Ok(list) = Revocations::from_bytes(data) {
            let _ = list.verify(&identity(1).public_key());
            assert_eq!(Revocations::from_bytes(&list.to_bytes()).as_ref(), Ok(&list));
        }
    },
    seeds: || {
        let first = Revocations::default().with(&identity(1), [identity(2).public_key()], later());
        let first = first.expect("it is short");
        let second = first.with(&identity(1), [identity(3).public_key()], later()).expect("it is short");
        vec![Revocations::default().to_bytes(), first.to_bytes(), second.to_bytes()]
    },
};

/// What a node is given to keep for the owner, and what the owner finds at a node.
pub const KEEPSAKE: Target = Target {
    name: "keepsake",
    body: |data| {
        if let Ok(kept) = Keepsake::from_bytes(data) {
            let verified = kept.verify(&identity(1).public_key());
            assert_eq!(kept.open(&identity(1)).is_ok(), verified.is_ok());
            assert_eq!(Keepsake::from_bytes(&kept.to_bytes()).as_ref(), Ok(&kept));
        }
    },
    seeds: || {
        let seal =
            |version, content: &[u8]| Keepsake::seal(&identity(1), version, content).expect("it is short");
        vec![seal(0, b"").to_bytes(), seal(u64::MAX, &[7; 300]).to_bytes()]
    },
};
