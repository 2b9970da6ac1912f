//! Parsers of the overlay: passports, contacts, the messages of lookups, the file of saved contacts.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use ::overlay::message::{FindNodeRequest, FindNodeResponse};
use ::overlay::{Contact, Passport, Rights};
use ::reactor::crypto::Identity;
use ::reactor::serialization::{from_bytes, to_bytes};

use crate::Target;

fn identity(number: u8) -> Identity {
    Identity::from_seed(&[number; 32])
}

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

/// Contacts and the messages that carry them.
pub const CONTACT: Target = Target {
    name: "contact",
    body: |data| {
        if let Ok(contact) = from_bytes::<Contact>(data) {
            let again: Contact = from_bytes(&to_bytes(&contact)).expect("what we encode decodes");
            assert_eq!(again, contact);
        }
        let _ = from_bytes::<FindNodeRequest>(data);
        let _ = from_bytes::<FindNodeResponse>(data);
    },
    seeds: || {
        let addresses =
            ["127.0.0.1:4701", "[2001:db8::1]:4702"].map(|text| text.parse::<SocketAddr>().expect("valid"));
        let contact = Contact::new(identity(1).public_key(), addresses);
        vec![to_bytes(&contact), to_bytes(&vec![contact])]
    },
};
