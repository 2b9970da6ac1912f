//! What a list becomes, and whose word counts.

use filesystem::access::groups::{Groups, InGroup};
use filesystem::access::list::Access;
use overlay::NodeId;
use overlay::invitation::InvitedAs;
use reactor::crypto::Identity;

use super::*;
use crate::identity::Founding;
use crate::roll::AllowedGroup;

const REGISTER: RegisterAddress = RegisterAddress([9; 32]);

pub(super) fn key(number: u8) -> PublicKey {
    Identity::from_seed(&[number; 32]).public_key()
}

pub(super) fn member(number: u8) -> LetIn {
    LetIn {
        key: Hex(*key(number).as_bytes()),
        sealing_key: Hex([number; 32]),
        name: format!("member {number}"),
        role: InvitedAs::Writer,
        since: 0,
        ticket: Hex([9; 32]),
        number: None,
        may_be_on_drive: true,
        passport: None,
    }
}

pub(super) fn people(people: &[(u8, bool)]) -> Vec<Allowed> {
    let allowed =
        |(who, may_write): &(u8, bool)| Allowed { key: Hex(*key(*who).as_bytes()), may_write: *may_write };
    people.iter().map(allowed).collect()
}

fn own(at: u64) -> AccessChange {
    let (access, by) = (Access::Write, Vec::new());
    AccessChange { key: key(1), sealing_key: [1; 32], name: "owner".into(), access, own: access, by, at }
}

fn guests(people: Vec<Allowed>) -> Expanded {
    Expanded::of(&people.into(), &Groups::default())
}

fn nobody(_: &PublicKey) -> bool {
    false
}

fn next(before: &AccessList, who: &[(u8, bool)], number: u64, at: u64) -> AccessList {
    let members = [member(2), member(3), member(4)];
    next_list(before, &guests(people(who)), number, &members, &own(at), nobody).unwrap()
}

fn new() -> AccessList {
    AccessList::new(REGISTER, "docs")
}

fn may(list: &AccessList) -> [Access; 4] {
    [1, 2, 3, 4].map(|who| list.access_of(&key(who)))
}

#[test]
fn a_list_is_what_the_roll_says_whatever_the_one_before_said() {
    let first = next(&new(), &[(2, true), (3, false)], 0, 10);
    assert_eq!(may(&first), [Access::Write, Access::Write, Access::Read, Access::None]);
    assert_eq!((first.number, first.changes.len()), (1, 3));
    // Said again it is the same list; and who is revoked goes, whatever the roll says.
    assert_eq!(next(&first, &[(2, true), (3, false)], 1, 11), first);
    let members = [member(2), member(3), member(4)];
    let revoked = |who: &PublicKey| *who == key(2);
    let both = guests(people(&[(2, true), (4, true)]));
    let later = next_list(&first, &both, 1, &members, &own(12), revoked).unwrap();
    assert_eq!(may(&later), [Access::Write, Access::None, Access::None, Access::Write]);
    assert_eq!((later.number, later.changes.last().unwrap().at), (2, 12));
    // Somebody who may write put the first one back: nobody is in again, and no number is used twice.
    for who in [&[(4, true)][..], &[(2, true), (3, false)]] {
        let back = next(&first, who, 6, 13);
        assert_eq!(back.access_of(&key(4)) == Access::Write, who.len() == 1);
        assert_eq!(back.number, 7);
    }
    // Whom the roll does not have as a member any more is taken off as well.
    let alone = next_list(&first, &guests(Vec::new()), 1, &[], &own(14), nobody).unwrap();
    assert_eq!(alone.readers().len(), 1);
}

#[test]
fn what_a_command_wishes_is_not_the_rolls_before_it_is_so() {
    let mut roll = Roll::default();
    let genesis = Genesis::sign(&Identity::from_seed(&[1; 32]), [5; 32], vec![NodeId([1; 32])], Vec::new());
    let entry = roll.space_or_new(&genesis, "docs");
    entry.people = people(&[(2, true), (3, false)]);
    let with = Wish::With(people(&[(3, true), (4, false)]).into()).guests(entry).people;
    assert_eq!(with, people(&[(2, true), (3, true), (4, false)]));
    // A space whose making was cut short is for those alone who are named now.
    assert_eq!(Wish::Exactly(people(&[(4, true)]).into()).guests(entry).people, people(&[(4, true)]));
    assert_eq!(Wish::AsItIs.guests(entry).people, people(&[(2, true), (3, false)]));
}

#[test]
fn an_older_list_that_was_put_back_is_told_by_its_number_or_by_the_registers_writers() {
    let (first, owner) = (next(&new(), &[(2, true)], 0, 1), key(1));
    let later = next(&first, &[(3, true)], 1, 2);
    assert_eq!((first.number, later.number), (1, 2));
    let told =
        |list: &AccessList, number, writers: &[PublicKey]| distrust(list, number, &owner, writers).is_some();
    assert!(!told(&later, 2, &[key(3)]));
    // Another copy of the home signed it, after this one looked.
    assert!(told(&later, 1, &[key(3)]));
    // The first one again: a home that knows the second goes on from it, since it knows better; one that does not is told by
    // the register, whose writers are still those of the second.
    assert!(!told(&first, 2, &[key(3)]));
    assert!(told(&first, 1, &[key(3)]));
}

#[test]
fn what_another_copy_of_the_home_signed_later_is_learnt_and_nothing_older() {
    let genesis = Genesis::sign(&Identity::from_seed(&[1; 32]), [5; 32], vec![NodeId([1; 32])], Vec::new());
    let list = next(&new(), &[(2, true), (3, false)], 0, 1);
    let mut roll = Roll::default();
    roll.learn(&genesis, &list);
    assert_eq!((roll.spaces[0].people.clone(), roll.spaces[0].number), (people(&[(2, true), (3, false)]), 1));
    // Not what this home is about to take back, either.
    roll.take_off(&genesis, "docs", &[member(3).key], &[]);
    roll.learn(&genesis, &list);
    assert_eq!((roll.spaces.len(), roll.spaces[0].people.len()), (1, 1));
    // Also if that copy signs another one meanwhile: until the root says so, he is remembered as one who may be in it.
    let later = next(&list, &[(2, true), (3, false), (4, false)], 1, 2);
    roll.learn(&genesis, &later);
    assert_eq!(roll.spaces[0].people, people(&[(2, true), (4, false)]));
    assert_eq!(roll.spaces[0].leaving, [member(3).key]);
    roll.published(&genesis, &next(&later, &[(2, true), (4, false)], 2, 3), &Wish::AsItIs, nobody);
    assert_eq!(roll.spaces[0].leaving, []);
}

#[test]
fn a_link_is_gone_by_where_the_owner_put_it_and_never_to_the_drive_itself() {
    let (owner, stranger) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
    let mut network = Founding::new().network(Vec::new());
    network.volume_owner = Hex(*owner.public_key().as_bytes());
    let genesis = |by: &Identity, salt| Genesis::sign(by, salt, vec![NodeId([1; 32])], Vec::new());
    let (band, board) = (genesis(&owner, [5; 32]), genesis(&owner, [6; 32]));
    let mut roll = Roll::default();
    roll.space_or_new(&band, "band");
    roll.space_or_new(&board, "board");
    let led = |genesis: &Signed<Genesis>, path, is_moved| {
        led_to(&SpaceLink::new(genesis.clone()).encode(), path, is_moved, &roll, &network)
    };
    assert_eq!(led(&band, "band", false), Ok(band.clone()));
    let exchanged = led(&board, "band", false).unwrap_err();
    assert!(exchanged.contains("board"), "{exchanged}");
    assert_eq!(led(&board, "x/board", true), Ok(board.clone()));
    // At a name that it does not have no mount shows it.
    for elsewhere in ["other", "x/other", "x/board2"] {
        assert!(led(&board, elsewhere, true).unwrap_err().contains("keeps its name"), "{elsewhere}");
    }
    for nowhere in [genesis(&stranger, [5; 32]), genesis(&owner, network.volume_salt.0)] {
        assert!(led(&nowhere, "band", true).is_err());
    }
}

#[test]
fn what_a_wish_did_is_told_of_the_roll_as_it_is_and_brings_nobody_back() {
    let genesis = Genesis::sign(&Identity::from_seed(&[1; 32]), [5; 32], vec![NodeId([1; 32])], Vec::new());
    let list = next(&new(), &[(2, true), (3, false)], 6, 1);
    let after = |wish: &Wish| {
        let mut roll = Roll::default();
        roll.space_or_new(&genesis, "docs").people = people(&[(3, false), (4, true)]);
        roll.published(&genesis, &list, wish, |who| *who == key(4));
        assert_eq!(roll.spaces[0].number, list.number);
        roll.spaces[0].people.clone()
    };
    assert_eq!(after(&Wish::AsItIs), people(&[(3, false)]), "he was taken off meanwhile");
    assert_eq!(after(&Wish::With(people(&[(2, true)]).into())), people(&[(3, false), (2, true)]));
    assert_eq!(after(&Wish::Exactly(people(&[(2, true)]).into())), people(&[(2, true)]));
}

#[test]
fn a_making_that_was_cut_short_is_not_taken_for_a_space_that_somebody_took_away() {
    let genesis = Genesis::sign(&Identity::from_seed(&[1; 32]), [5; 32], vec![NodeId([1; 32])], Vec::new());
    let list = next(&new(), &[(2, true)], 0, 1);
    let (mut roll, mut elsewhere) = (Roll::default(), Roll::default());
    roll.space_or_new(&genesis, "docs");
    roll.learn(&genesis, &list);
    // The list is there, and its link never was: who says `share` again knows whom to take off.
    assert_eq!((roll.spaces[0].is_linked, roll.spaces[0].people.clone()), (false, people(&[(2, true)])));
    assert_eq!(Wish::Exactly(Guests::default()).guests(&roll.spaces[0]), Guests::default());
    // What another copy of the home made is found by its link.
    elsewhere.learn(&genesis, &list);
    assert!(elsewhere.spaces[0].is_linked);
}

#[test]
fn an_older_copy_of_the_home_lets_no_writer_in_where_the_list_was_taken_away() {
    let who = people(&[(2, true), (3, false)]);
    let told = |writers: &[PublicKey], revoked: u8| {
        distrust_without(&who, writers, &[member(2), member(3)], |who| *who == key(revoked)).is_some()
    };
    assert!(told(&[], 9) && told(&[key(3)], 9));
    // As the owner's own home finds it, also if it is just taking somebody off.
    assert!(!told(&[key(2)], 9) && !told(&[key(4), key(2)], 9) && !told(&[], 2));
    // A reader whom another copy let in, of whom nothing is known here but that he is on the list that is gone.
    assert!(distrust_without(&who, &[key(2)], &[member(2)], nobody).is_some());
}

#[test]
fn a_list_has_the_people_of_its_groups_and_another_copy_of_the_home_learns_which_are_which() {
    let genesis = Genesis::sign(&Identity::from_seed(&[1; 32]), [5; 32], vec![NodeId([1; 32])], Vec::new());
    let mut groups = Groups::default();
    let family = groups.create("family").unwrap();
    for who in [3, 4] {
        groups.add(family, &InGroup::Person((&member(who)).into())).unwrap();
    }
    let with = vec![AllowedGroup { id: family, may_write: true }];
    let guests = Guests { people: people(&[(2, false), (3, false)]), groups: with.clone() };
    let members = [member(2), member(3), member(4)];
    let made = |before: &AccessList, groups: &Groups, number, at| {
        next_list(before, &Expanded::of(&guests, groups), number, &members, &own(at), nobody).unwrap()
    };
    let list = made(&new(), &groups, 0, 1);
    assert_eq!(may(&list), [Access::Write, Access::Read, Access::Write, Access::Write]);
    assert_eq!(made(&list, &groups, 1, 2), list);
    let mut elsewhere = Roll::default();
    elsewhere.learn(&genesis, &list);
    let entry = &elsewhere.spaces[0];
    assert_eq!((&entry.people, &entry.groups), (&people(&[(2, false), (3, false)]), &with));
    assert_eq!(entry.listed.people, people(&[(2, false), (3, true), (4, true)]));
    // Out of the group: who is named himself may do what his name says, and the other one nothing. A change of the group is another list.
    for who in [3, 4] {
        groups.remove(family, &InGroup::Person((&member(who)).into())).unwrap();
    }
    let later = made(&list, &groups, 1, 3);
    assert_eq!(may(&later), [Access::Write, Access::Read, Access::Read, Access::None]);
    assert_eq!((later.number, later.groups[0].epoch), (2, groups.get(family).unwrap().epoch));
    // A group that is being taken off does not come back by what another copy signed meanwhile.
    elsewhere.take_off(&genesis, "docs", &[], &[family]);
    elsewhere.learn(&genesis, &later);
    assert_eq!((&elsewhere.spaces[0].groups, &elsewhere.spaces[0].leaving_groups), (&vec![], &vec![family]));
}

#[test]
fn two_machines_make_the_same_list_of_a_group_though_one_has_never_heard_of_who_is_in_it() {
    let mut groups = Groups::default();
    let family = groups.create("family").unwrap();
    let reader = LetIn { role: InvitedAs::Reader, ..member(3) };
    for who in [&member(2), &reader] {
        groups.add(family, &InGroup::Person(who.into())).unwrap();
    }
    let with = vec![AllowedGroup { id: family, may_write: true }];
    let guests = Expanded::of(&Guests { people: Vec::new(), groups: with }, &groups);
    let made = |before: &AccessList, members: &[LetIn], number, at| {
        next_list(before, &guests, number, members, &own(at), nobody).unwrap()
    };
    // That of the one, which let them in; and that of the other, whose roll is of before.
    let list = made(&new(), &[member(2), reader.clone()], 0, 1);
    assert_eq!(may(&list), [Access::Write, Access::Write, Access::Read, Access::None]);
    assert_eq!(made(&list, &[], 1, 2), list, "or each would take back what the other said, once a minute");
    let elsewhere = made(&new(), &[], 0, 1);
    assert_eq!((may(&elsewhere), elsewhere.readers()), (may(&list), list.readers()));
    let revoked = next_list(&list, &guests, 1, &[], &own(3), |who| *who == key(2)).unwrap();
    assert_eq!(may(&revoked), [Access::Write, Access::None, Access::Read, Access::None]);
}
