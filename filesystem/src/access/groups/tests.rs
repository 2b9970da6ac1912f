//! Who is in what, what may not be, and the bytes.

use overlay::NodeId;
use reactor::crypto::Identity;

use super::*;
use crate::access::root::example;

fn who(number: u8) -> InGroup {
    InGroup::Person(key(number))
}

fn key(number: u8) -> PublicKey {
    Identity::from_seed(&[number; 32]).public_key()
}

fn group(id: u32) -> InGroup {
    InGroup::Group(id)
}

#[test]
fn who_is_in_a_group_is_whoever_is_in_it_by_whatever_way_and_each_change_raises_those_around_it() {
    let mut groups = Groups::default();
    let [family, kids, club] = ["family", "kids", "club"].map(|name| groups.create(name).unwrap());
    assert_eq!(groups.create("kids"), Err(GroupsError::Taken("kids".into())));
    assert!(groups.add(family, who(1)).unwrap() && groups.add(kids, who(2)).unwrap());
    assert!(groups.add(family, group(kids)).unwrap() && !groups.add(family, group(kids)).unwrap());
    assert!(groups.add(club, group(family)).unwrap());
    let epochs = |groups: &Groups| groups.all().iter().map(|group| group.epoch).collect::<Vec<_>>();
    assert_eq!(epochs(&groups), [3, 2, 2]);
    assert_eq!(groups.people_of(club), [key(1), key(2)].into());
    // By two ways: out of one, he is in by the other.
    groups.add(family, who(2)).unwrap();
    assert!(groups.remove(kids, who(2)).unwrap() && !groups.remove(kids, who(2)).unwrap());
    assert_eq!(epochs(&groups), [5, 3, 4], "all that have it, each time");
    assert_eq!(groups.people_of(club), [key(1), key(2)].into());
    let space = RegisterAddress([9; 32]);
    assert!(groups.named_by(&space, "a/band", &[club].into()).unwrap());
    assert_eq!(groups.reached_by(kids), [([9; 32], "a/band".to_owned())].into());
    // Who is no member any more is in none.
    assert!(groups.forget(|gone| *gone == key(2)) && !groups.forget(|gone| *gone == key(2)));
    assert_eq!(groups.people_of(club), [key(1)].into());
    assert_eq!(epochs(&groups), [6, 3, 5]);
}

#[test]
fn no_group_is_in_itself_and_none_is_deleted_that_is_named() {
    let mut groups = Groups::default();
    let [a, b, c] = ["a-g", "b-g", "c-g"].map(|name| groups.create(name).unwrap());
    groups.add(a, group(b)).unwrap();
    groups.add(b, group(c)).unwrap();
    let before = groups.clone();
    for (outer, inner) in [(a, a), (c, a), (c, b)] {
        assert!(matches!(groups.add(outer, group(inner)), Err(GroupsError::Cycle(_))), "{inner} in {outer}");
    }
    assert_eq!(groups.add(a, group(7)), Err(GroupsError::Missing));
    assert_eq!(groups, before, "what is refused changes nothing");
    groups.named_by(&RegisterAddress([9; 32]), "band", &[b].into()).unwrap();
    let by = vec!["the space band".to_owned(), "the group a-g".to_owned()];
    assert_eq!(groups.delete(b), Err(GroupsError::InUse { name: "b-g".into(), by }));
    groups.named_by(&RegisterAddress([9; 32]), "band", &BTreeSet::new()).unwrap();
    groups.remove(a, group(b)).unwrap();
    assert_eq!(groups.delete(b), Ok(()));
    // Whatever comes later is no one that was.
    let next = groups.create("b-g").unwrap();
    assert!(next > c && groups.was_made(b) && !groups.was_made(next + 1) && groups.get(b).is_none());
}

#[test]
fn groups_are_bounded_in_number_and_depth_and_in_all_that_is_in_them() {
    let mut groups = Groups::default();
    for number in 0..GROUPS_MAX {
        groups.create(&format!("group-{number}")).unwrap();
    }
    assert_eq!(groups.create("one-more"), Err(GroupsError::TooMany));
    for depth in 1..DEPTH_MAX as u32 {
        groups.add(depth, group(depth - 1)).unwrap();
    }
    assert_eq!(groups.add(DEPTH_MAX as u32, group(DEPTH_MAX as u32 - 1)), Err(GroupsError::Deep));
    // People count by whatever way they come.
    for number in 0..PEOPLE_MAX as u8 {
        groups.add(u32::from(number % 8), who(number)).unwrap();
    }
    assert!(matches!(groups.add(0, who(200)), Err(GroupsError::Crowded(_))));
    for number in 0..SPACES_MAX as u8 {
        groups.named_by(&RegisterAddress([number; 32]), &"p/".repeat(200), &[0].into()).unwrap();
    }
    assert!(groups.all()[0].spaces.iter().all(|space| space.path.len() <= PATH_SIZE_MAX));
    let more = groups.named_by(&RegisterAddress([200; 32]), "more", &[0].into());
    assert!(matches!(more, Err(GroupsError::Crowded(_))), "{more:?}");
    let mut left = 1..GROUPS_MAX as u32;
    let full = left.find_map(|id| {
        let mut spaces = 0..SPACES_MAX as u8;
        spaces.find_map(|number| {
            let ids = (0..=id).collect();
            groups.named_by(&RegisterAddress([number; 32]), &"p/".repeat(200), &ids).err()
        })
    });
    assert_eq!(full, Some(GroupsError::Size));
    assert!(groups.encode().len() <= SIZE_MAX && Groups::decode(&groups.encode()) == Some(groups));
}

#[test]
fn a_name_is_what_people_can_type_and_terminals_show() {
    for fine in ["family", "ann@home", "Änne-2", &"x".repeat(NAME_SIZE_MAX)] {
        assert!(is_name(fine), "{fine}");
    }
    for bad in ["", "a b", "a/b", "a\u{1b}[2J", &"x".repeat(NAME_SIZE_MAX + 1)] {
        assert!(!is_name(bad) && Groups::default().create(bad) == Err(GroupsError::Name), "{bad:?}");
    }
}

fn some() -> Groups {
    let mut groups = Groups::default();
    let [family, kids] = ["family", "kids"].map(|name| groups.create(name).unwrap());
    groups.add(family, group(kids)).unwrap();
    groups.add(kids, InGroup::Person(PublicKey::from_bytes([7; 32]))).unwrap();
    groups.named_by(&RegisterAddress([9; 32]), "band", &[family].into()).unwrap();
    groups
}

#[test]
fn the_bytes_are_as_they_were() {
    let golden = "\
        687970686167727001000200000002000000000003000000000000000666616d696c790000010001000000010009090909\
        090909090909090909090909090909090909090909090909090909090462616e640100000002000000000000000\
        46b69647301000707070707070707070707070707070707070707070707070707070707070707\
        00000000";
    let hex: String = some().encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden);
}

#[test]
fn what_is_cut_or_changed_or_names_what_is_not_there_is_nothing() {
    let bytes = some().encode();
    assert_eq!(Groups::decode(&bytes), Some(some()));
    for size in 0..bytes.len() {
        assert_eq!(Groups::decode(&bytes[..size]), None, "{size}");
    }
    let mut padded = bytes.clone();
    padded.resize(4096, 0);
    assert_eq!(Groups::decode(&padded), Some(some()));
    padded[4095] = 1;
    assert_eq!(Groups::decode(&padded), None);
    // Of two groups that are in each other, one that is in itself, and one whose id is yet to be given.
    let mut changed = some();
    changed.groups[1].groups.push(0);
    assert_eq!(Groups::decode(&changed.encode()), None);
    for id in [0, 5] {
        let mut changed = some();
        changed.groups[1].id = id;
        assert_eq!(Groups::decode(&changed.encode()), None);
    }
    let mut twice = some();
    twice.groups[1].people.push(PublicKey::from_bytes([7; 32]));
    assert_eq!(Groups::decode(&twice.encode()), None);
    assert_eq!(Groups::decode(&vec![0; SIZE_MAX + 1]), None);
}

#[test]
fn they_open_to_the_owner_alone_and_their_size_tells_little() {
    let [owner, other] = [1, 2].map(|seed| Identity::from_seed(&[seed; 32]).sealing_key());
    let (few, none) = (some().seal(&owner.public()), Groups::default().seal(&owner.public()));
    assert_eq!(Groups::open(&few, &owner), Some(some()));
    assert_eq!(Groups::open(&few, &other), None);
    assert_eq!(few.len(), none.len());
}

#[test]
fn a_drives_root_says_where_its_groups_are_and_nothing_else_passes_for_that() {
    let (owner, writer) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
    let sign = |by: &Identity, salt, writers| Genesis::sign(by, salt, vec![NodeId([3; 32])], writers);
    let (its, mut charter) = (sign(&owner, salt(&[5; 32]), Vec::new()), example(Vec::new()).charter);
    let found = |charter: &Charter| charter.groups(&owner.public_key(), &[5; 32]);
    assert_eq!(found(&charter), None);
    let forged = [
        sign(&writer, salt(&[5; 32]), Vec::new()),
        // A space's, of the same owner: what is written there would be its root.
        sign(&owner, [7; 32], Vec::new()),
        sign(&owner, salt(&[6; 32]), Vec::new()),
        sign(&owner, salt(&[5; 32]), vec![writer.public_key()]),
    ];
    for genesis in forged {
        charter.set_groups(&genesis);
        assert_eq!(found(&charter), None);
    }
    let others = charter.extensions.len();
    charter.set_groups(&its);
    assert_eq!((found(&charter), charter.extensions.len()), (Some(its), others));
}
