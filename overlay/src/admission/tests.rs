//! The exchange of passports over a recorded stream: who is let in, and what the other side hears.

use std::sync::Arc;

use super::*;
use crate::invitation::{Invitation, InvitedAs};
use crate::record::{NodeRecord, SignedRecord, Statement};
use proptest::prelude::*;
use reactor::crypto::Identity;

/// A stream that plays a recording and records what is written.
#[derive(Default)]
struct Script {
    input: io::Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn address() -> SocketAddr {
    "192.0.2.7:50000".parse().unwrap()
}

fn credentials(owner: &Identity, role: Role, rights: Rights) -> Credentials {
    let own = Identity::generate().public_key();
    Credentials {
        network: owner.public_key(),
        own,
        passport: Passport::issue(owner, own, rights, None),
        role,
        addresses: vec!["0.0.0.0:7001".parse().unwrap()],
        peers: Peers::new(),
        renewals: Renewals::new(),
        records: Records::new(owner.public_key()),
    }
}

/// What the dialler makes of an answer.
fn answered(caller: &Credentials, answer: Vec<u8>) -> AdmissionError {
    let mut script = Script { input: io::Cursor::new(answer), output: Vec::new() };
    dialler(&mut script, caller, caller.network, address()).unwrap_err()
}

/// What the acceptor makes of `caller`'s hello, and what it sends back.
fn knock(caller: &Credentials, acceptor_is: &Credentials) -> (Result<Admitted, AdmissionError>, Vec<u8>) {
    let mut script = Script::default();
    send(&mut script, &Opening::Hello(caller.hello()), HELLO_BYTES_MAX).unwrap();
    send(&mut script, &Verdict::Accepted, HELLO_BYTES_MAX).unwrap();
    let mut script = Script { input: io::Cursor::new(script.output), output: Vec::new() };
    let result = acceptor(&mut script, acceptor_is, caller.own, address()).map(|visitor| match visitor {
        Visitor::Member(admitted) => *admitted,
        Visitor::Stranger(_) => panic!("it brought no letter"),
    });
    (result, script.output)
}

#[test]
fn a_node_is_admitted_at_the_address_it_dialled_from_if_it_names_none() {
    let owner = Identity::generate();
    let (caller, node) =
        (credentials(&owner, Role::Storage, Rights::NODE), credentials(&owner, Role::Storage, Rights::NODE));
    let admitted = knock(&caller, &node).0.unwrap();
    assert_eq!(admitted.contact, Contact::new(caller.own, ["192.0.2.7:7001".parse().unwrap()]));
    assert_eq!(admitted.peer.rights, Rights::NODE);
}

#[test]
fn a_client_is_admitted_without_addresses() {
    let owner = Identity::generate();
    let (caller, node) =
        (credentials(&owner, Role::Client, Rights::CLIENT), credentials(&owner, Role::Storage, Rights::NODE));
    assert!(knock(&caller, &node).0.unwrap().contact.addresses.is_empty());
}

#[test]
fn the_refused_side_learns_why() {
    let (owner, other) = (Identity::generate(), Identity::generate());
    let node = credentials(&owner, Role::Storage, Rights::NODE);
    let stranger = credentials(&other, Role::Storage, Rights::NODE);
    let intruder = credentials(&owner, Role::Storage, Rights::CLIENT);
    for caller in [stranger, intruder, node.clone()] {
        let (result, sent) = knock(&caller, &node);
        let Err(AdmissionError::Unwelcome(why)) = result else { panic!("{result:?}") };
        let mut caller_side = Script { input: io::Cursor::new(sent), output: Vec::new() };
        let result = dialler(&mut caller_side, &caller, node.own, address());
        let Err(AdmissionError::Refused(told)) = result else { panic!("{result:?}") };
        assert_eq!(told, why);
    }
}

#[test]
fn the_dialler_refuses_a_false_node_and_says_so() {
    let (owner, other) = (Identity::generate(), Identity::generate());
    let caller = credentials(&owner, Role::Client, Rights::CLIENT);
    let false_node = credentials(&other, Role::Storage, Rights::NODE);
    let mut script = Script::default();
    send(&mut script, &Answer::Welcome(false_node.hello()), HELLO_BYTES_MAX).unwrap();
    let mut script = Script { input: io::Cursor::new(script.output), output: Vec::new() };
    let result = dialler(&mut script, &caller, false_node.own, address());
    assert!(matches!(result, Err(AdmissionError::Unwelcome(Refusal::Passport(_)))));
    let mut sent = io::Cursor::new(script.output);
    receive::<Opening>(&mut sent, HELLO_BYTES_MAX).unwrap();
    assert!(matches!(receive::<Verdict>(&mut sent, HELLO_BYTES_MAX), Ok(Verdict::Refused(_))));
}

#[test]
fn releases_that_share_a_version_speak_the_newest() {
    let versions = |oldest, newest| Versions { oldest, newest };
    assert_eq!(versions(1, 3).common(versions(2, 5)), Some(3));
    assert_eq!(versions(2, 5).common(versions(1, 3)), Some(3));
    assert_eq!(versions(1, 2).common(versions(3, 4)), None);
}

/// What a later release sends: it speaks `versions`, shows `passport`, and says more than this one.
fn later_hello(versions: Versions, passport: impl Serialize) -> Script {
    #[derive(Serialize)]
    struct Later<P>(Versions, u64, P, Role, Vec<SocketAddr>, u64, [u8; 8], Option<SignedRecord>, Vec<String>);
    #[derive(Serialize)]
    enum Sent<P> {
        Hello(Later<P>),
    }
    let more = vec!["more".to_owned()];
    let hello = Later(versions, u64::MAX, passport, Role::Client, vec![], 0, [0; 8], None, more);
    let mut script = Script::default();
    send(&mut script, &Sent::Hello(hello), HELLO_BYTES_MAX).unwrap();
    send(&mut script, &Verdict::Accepted, HELLO_BYTES_MAX).unwrap();
    Script { input: io::Cursor::new(script.output), output: Vec::new() }
}

#[test]
fn a_later_release_is_understood_where_versions_meet_and_else_both_hear_that_they_do_not() {
    let owner = Identity::generate();
    let (caller, node) =
        (credentials(&owner, Role::Client, Rights::CLIENT), credentials(&owner, Role::Storage, Rights::NODE));
    let ours = PROTOCOL_VERSIONS;
    let overlapping = Versions { oldest: ours.newest, newest: ours.newest + 3 };
    let mut script = later_hello(overlapping, caller.passport.clone());
    let result = acceptor(&mut script, &node, caller.own, address());
    assert!(matches!(&result, Ok(Visitor::Member(member)) if member.version == ours.newest), "{result:?}");

    let theirs = Versions { oldest: ours.newest + 1, newest: ours.newest + 3 };
    let refusal = Refusal::Version { ours, theirs };
    for mut script in [later_hello(theirs, caller.passport.clone()), later_hello(theirs, "of another form")] {
        let result = acceptor(&mut script, &node, caller.own, address());
        assert!(matches!(&result, Err(AdmissionError::Unwelcome(why)) if *why == refusal), "{result:?}");
        let told = receive::<Answer>(&mut io::Cursor::new(script.output), WELCOME_BYTES_MAX);
        assert!(matches!(told, Ok(Answer::Refused(why)) if why == refusal));
    }
    // Of a common version, it would have to be understood.
    let mut script = later_hello(overlapping, "of another form");
    let result = acceptor(&mut script, &node, caller.own, address());
    assert!(matches!(result, Err(AdmissionError::Malformed)));
}

#[test]
fn a_node_is_met_under_its_newest_record_and_hears_that_it_showed_an_older_one() {
    let (owner, identity) = (Identity::generate(), Identity::generate());
    let of_identity = |version| {
        let zone = Some(format!("zone-{version}").parse().unwrap());
        let said = Statement { zone, ..Statement::default() };
        Arc::new(NodeRecord::sign(&identity, &owner.public_key(), version, said))
    };
    let own = identity.public_key();
    let passport = Passport::issue(&owner, own, Rights::NODE, None);
    let caller = Credentials { own, passport, ..credentials(&owner, Role::Storage, Rights::NODE) };
    let node = credentials(&owner, Role::Storage, Rights::NODE);
    for (shown, newest, is_stale) in [(5, 5, false), (7, 7, false), (6, 7, true), (7, 7, false)] {
        caller.records.set_own(of_identity(shown));
        let admitted = knock(&caller, &node).0.unwrap();
        assert_eq!(
            (admitted.contact.record(), admitted.is_record_stale),
            (Some(&of_identity(newest)), is_stale)
        );
    }
    // Of another network, or somebody else's: it is let in, and nothing that it says counts.
    let elsewhere = NodeRecord::sign(&identity, &own, 99, Statement::default());
    let anothers = NodeRecord::sign(&owner, &owner.public_key(), 99, Statement::default());
    for forged in [elsewhere, anothers] {
        caller.records.set_own(Arc::new(forged));
        assert_eq!(knock(&caller, &node).0.unwrap().contact.record(), Some(&of_identity(7)));
    }
}

#[test]
fn the_revoked_are_refused_and_say_what_they_know() {
    let owner = Identity::generate();
    let (caller, node) =
        (credentials(&owner, Role::Client, Rights::CLIENT), credentials(&owner, Role::Storage, Rights::NODE));
    assert_eq!(knock(&caller, &node).0.unwrap().revocations, Some(0));
    let list = node.peers.revocations().with(&owner, [caller.own], reactor::wall_clock()).unwrap();
    node.peers.revoke(list).unwrap();
    let refused = knock(&caller, &node).0.unwrap_err();
    let revoked = Refusal::Passport(PassportError::Revoked { link: 0 });
    assert!(matches!(refused, AdmissionError::Unwelcome(why) if why == revoked));
}

#[test]
fn who_is_removed_believes_it_on_the_owners_word_and_on_nobody_elses() {
    let (owner, other) = (Identity::generate(), Identity::generate());
    let (caller, node) =
        (credentials(&owner, Role::Client, Rights::CLIENT), credentials(&owner, Role::Storage, Rights::NODE));
    let list = |signer: &Identity, key| Revocations::default().with(signer, [key], reactor::wall_clock());
    let encoded = |answer: &Answer| {
        let mut script = Script::default();
        send(&mut script, answer, WELCOME_BYTES_MAX).unwrap();
        script.output
    };
    let revoked = Refusal::Passport(PassportError::Revoked { link: 0 });
    for lie in [
        Answer::Refused(revoked.clone()),
        Answer::Removed(list(&other, caller.own).unwrap()),
        Answer::Removed(list(&owner, node.own).unwrap()),
        Answer::Removed(Revocations::default()),
    ] {
        assert!(matches!(answered(&caller, encoded(&lie)), AdmissionError::Unproven));
        assert!(!caller.peers.is_revoked(&caller.own));
    }
    node.peers.revoke(list(&owner, caller.own).unwrap()).unwrap();
    let told = answered(&caller, knock(&caller, &node).1);
    assert!(matches!(told, AdmissionError::Refused(why) if why == revoked));
    assert!(caller.peers.is_revoked(&caller.own));
    // The longest list that there can be is told as well.
    let keys = (0..crate::revocation::REVOKED_MAX as u32 - 1).map(|number| {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        PublicKey::from_bytes(bytes)
    });
    let full = node.peers.revocations().with(&owner, keys, reactor::wall_clock()).unwrap();
    node.peers.revoke(full).unwrap();
    assert!(matches!(answered(&caller, knock(&caller, &node).1), AdmissionError::Refused(_)));
}

#[test]
fn an_expired_passport_is_as_good_as_its_renewal_if_that_is_known_here_and_its_holder_is_there() {
    let owner = Identity::generate();
    let mut caller = credentials(&owner, Role::Client, Rights::CLIENT);
    let node = credentials(&owner, Role::Storage, Rights::NODE);
    let hour = std::time::Duration::from_secs(3600);
    let (now, day) = (reactor::wall_clock(), 24 * hour);
    let until = |expires| Passport::issue(&owner, caller.own, Rights::CLIENT, Some(expires));
    let (over, good) = (until(now - 2 * hour), until(now + day));
    // Clocks differ, within a bound.
    let just_over = until(now - hour / 2);
    let expired = Refusal::Passport(PassportError::Expired { link: 0 });
    caller.passport = just_over;
    assert!(knock(&caller, &node).0.is_ok());
    caller.passport = over;
    let refused = knock(&caller, &node).0.unwrap_err();
    assert!(matches!(refused, AdmissionError::Unwelcome(why) if why == expired));
    node.renewals.take(vec![good.clone()], &node.network, &node.peers.revocations(), now).unwrap();
    let admitted = knock(&caller, &node).0.unwrap();
    assert!(admitted.is_renewed && admitted.passport == good);
    assert_eq!(admitted.peer.expires, good.opens_until());
    // A thief shows it without the key.
    let thief = Credentials { own: Identity::generate().public_key(), ..caller.clone() };
    let refused = knock(&thief, &node).0.unwrap_err();
    assert!(matches!(
        refused,
        AdmissionError::Unwelcome(Refusal::Passport(PassportError::WrongHolder { .. }))
    ));
    // Who has its new one shows it; and who was removed is, whatever he has.
    caller.renewals.take(vec![good], &caller.network, &caller.peers.revocations(), now).unwrap();
    assert!(!knock(&caller, &node).0.unwrap().is_renewed);
    let list = Revocations::default().with(&owner, [caller.own], now).unwrap();
    node.peers.revoke(list).unwrap();
    let refused = knock(&caller, &node).0.unwrap_err();
    assert!(matches!(refused, AdmissionError::Unwelcome(Refusal::Passport(PassportError::Revoked { .. }))));
}

#[test]
fn who_was_turned_away_at_the_last_dial_is_remembered_with_the_side_that_did_so() {
    let owner = Identity::generate();
    let caller = credentials(&owner, Role::Client, Rights::CLIENT);
    let known = || caller.peers.turned_away();
    let why = Refusal::Passport(PassportError::NotYetValid { link: 0 });
    let mut refusal = Vec::new();
    send(&mut refusal, &Answer::Refused(why.clone()), WELCOME_BYTES_MAX).unwrap();
    assert!(matches!(answered(&caller, refusal), AdmissionError::Refused(_)));
    assert_eq!(known(), [(caller.network, TurnedAway::Us(why))]);
    // Its passport is another's, for all we can tell.
    let node = credentials(&owner, Role::Storage, Rights::NODE);
    let (_, welcome) = knock(&caller, &node);
    assert!(matches!(answered(&caller, welcome), AdmissionError::Unwelcome(_)));
    assert!(matches!(known()[..], [(_, TurnedAway::Them(Refusal::Passport(_)))]));
    caller.peers.on_admitted(&caller.network);
    assert_eq!(known(), []);
}

#[test]
fn a_stranger_leaves_a_letter_of_his_own_or_is_told_why_not() {
    let (owner, ticket, holder) = (Identity::generate(), Identity::generate(), Identity::generate());
    let node = credentials(&owner, Role::Storage, Rights::NODE);
    let bring = |issuer: &Identity, key: PublicKey| {
        let expires = reactor::wall_clock() + std::time::Duration::from_secs(3600);
        let invited = Invitation::sign(issuer, ticket.public_key(), InvitedAs::Reader, 1, expires);
        let letter = Letter::sign(&ticket, invited, &holder, "a laptop");
        let mut script = Script::default();
        send(&mut script, &Opening::Letter(Box::new(letter)), HELLO_BYTES_MAX).unwrap();
        let mut script = Script { input: io::Cursor::new(script.output), output: Vec::new() };
        acceptor(&mut script, &node, key, address())
    };
    assert!(matches!(bring(&owner, holder.public_key()), Ok(Visitor::Stranger(_))));
    let why = |result| match result {
        Err(AdmissionError::Declined(why)) => why,
        other => panic!("{other:?}"),
    };
    // Who carries somebody else's letter, and who was invited elsewhere.
    assert_eq!(why(bring(&owner, ticket.public_key())), Declined::Forged);
    assert_eq!(why(bring(&holder, holder.public_key())), Declined::WrongNetwork);
    let list = node.peers.revocations().with(&owner, [ticket.public_key()], reactor::wall_clock());
    node.peers.revoke(list.unwrap()).unwrap();
    assert_eq!(why(bring(&owner, holder.public_key())), Declined::Revoked);
}

proptest! {
    #[test]
    fn garbage_is_an_error(bytes: Vec<u8>) {
        let node = credentials(&Identity::from_seed(&[1; 32]), Role::Storage, Rights::NODE);
        let mut script = Script { input: io::Cursor::new(bytes), output: Vec::new() };
        prop_assert!(acceptor(&mut script, &node, node.network, address()).is_err());
    }
}
