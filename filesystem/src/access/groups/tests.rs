//! Who is in what, what may not be, and the bytes.

use overlay::NodeId;
use reactor::crypto::Identity;

use super::*;
use crate::access::root::example;

fn who(number: u8) -> InGroup {
    InGroup::Person(Person { key: key(number), sealing_key: [number; 32], may_write: true, name: "w".into() })
}

fn key(number: u8) -> PublicKey {
    Identity::from_seed(&[number; 32]).public_key()
}

fn group(id: GroupId) -> InGroup {
    InGroup::Group(id)
}

#[test]
fn who_is_in_a_group_is_whoever_is_in_it_by_whatever_way_and_each_change_raises_those_around_it() {
    let mut groups = Groups::default();
    let [family, kids, club] = ["family", "kids", "club"].map(|name| groups.create(name).unwrap());
    assert_eq!(groups.create("kids"), Err(GroupsError::Taken("kids".into())));
    assert!(groups.add(family, &who(1)).unwrap() && groups.add(kids, &who(2)).unwrap());
    assert!(groups.add(family, &group(kids)).unwrap() && !groups.add(family, &group(kids)).unwrap());
    assert!(groups.add(club, &group(family)).unwrap());
    let epochs = |groups: &Groups| groups.all().iter().map(|group| group.epoch).collect::<Vec<_>>();
    assert_eq!(epochs(&groups), [3, 2, 2]);
    assert_eq!(groups.people_of(club), [key(1), key(2)].into());
    // By two ways: out of one, he is in by the other.
    groups.add(family, &who(2)).unwrap();
    assert!(groups.remove(kids, &who(2)).unwrap() && !groups.remove(kids, &who(2)).unwrap());
    assert_eq!(epochs(&groups), [5, 3, 4], "all that have it, each time");
    assert_eq!(groups.people_of(club), [key(1), key(2)].into());
    let space = RegisterAddress([9; 32]);
    assert!(groups.name(&space, "a/band", &[club].into()).unwrap());
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
    groups.add(a, &group(b)).unwrap();
    groups.add(b, &group(c)).unwrap();
    let before = groups.clone();
    for (outer, inner) in [(a, a), (c, a), (c, b)] {
        assert!(
            matches!(groups.add(outer, &group(inner)), Err(GroupsError::Cycle(_))),
            "{inner:?} in {outer:?}"
        );
    }
    let missing = GroupId(a.0 ^ b.0 ^ c.0 ^ 1);
    assert_eq!(groups.add(a, &group(missing)), Err(GroupsError::Missing));
    assert_eq!(groups.name(&RegisterAddress([9; 32]), "x", &[a, missing].into()), Err(GroupsError::Missing));
    assert_eq!(groups, before, "what is refused changes nothing");
    groups.name(&RegisterAddress([9; 32]), "band", &[b].into()).unwrap();
    let by = vec!["the space band".to_owned(), "the group a-g".to_owned()];
    assert_eq!(groups.delete(b), Err(GroupsError::InUse { name: "b-g".into(), by }));
    assert!(!groups.unname(&RegisterAddress([8; 32]), &[b].into()));
    assert!(groups.unname(&RegisterAddress([9; 32]), &[b].into()));
    groups.remove(a, &group(b)).unwrap();
    assert_eq!(groups.delete(b), Ok(()));
    // Whatever comes later is no one that was, here or in another register.
    let next = groups.create("b-g").unwrap();
    assert!(next != b && groups.get(b).is_none() && Groups::default().create("b-g") != Ok(next));
}

#[test]
fn groups_are_bounded_in_number_and_depth_and_in_all_that_is_in_them() {
    let mut groups = Groups::default();
    let ids: Vec<GroupId> =
        (0..GROUPS_MAX).map(|number| groups.create(&format!("group-{number}")).unwrap()).collect();
    assert_eq!(groups.create("one-more"), Err(GroupsError::TooMany));
    for depth in 1..DEPTH_MAX {
        groups.add(ids[depth], &group(ids[depth - 1])).unwrap();
    }
    assert_eq!(groups.add(ids[DEPTH_MAX], &group(ids[DEPTH_MAX - 1])), Err(GroupsError::Deep));
    // People count by whatever way they come.
    for number in 0..PEOPLE_MAX as u8 {
        groups.add(ids[usize::from(number % 8)], &who(number)).unwrap();
    }
    assert!(matches!(groups.add(ids[0], &who(200)), Err(GroupsError::Crowded(_))));
    assert!(groups.person(&key(200)).is_none(), "whoever is in none is not kept");
    for number in 0..SPACES_MAX as u8 {
        groups.name(&RegisterAddress([number; 32]), &"p/".repeat(200), &[ids[0]].into()).unwrap();
    }
    assert!(groups.all()[0].spaces.iter().all(|space| space.path.len() <= PATH_SIZE_MAX));
    let more = groups.name(&RegisterAddress([200; 32]), "more", &[ids[0]].into());
    assert!(matches!(more, Err(GroupsError::Widespread(_))), "{more:?}");
    let full = ids.iter().find_map(|id| {
        let mut spaces = 0..SPACES_MAX as u8;
        spaces.find_map(|number| {
            groups.name(&RegisterAddress([number; 32]), &"p/".repeat(200), &[*id].into()).err()
        })
    });
    assert_eq!(full, Some(GroupsError::Size));
    assert!(groups.encode().len() <= SIZE_MAX && Groups::decode(&groups.encode()) == Some(groups));
}

#[test]
fn what_two_registers_had_is_one_and_in_a_group_of_both_is_who_is_in_it_in_both() {
    let mut one = Groups::default();
    let [family, kids, outer] = ["family", "kids", "outer"].map(|name| one.create(name).unwrap());
    for (id, number) in [(family, 1), (family, 4), (kids, 2)] {
        one.add(id, &who(number)).unwrap();
    }
    one.add(outer, &group(family)).unwrap();
    one.name(&RegisterAddress([1; 32]), "one", &[family].into()).unwrap();
    let mut other = one.clone();
    other.remove(family, &who(1)).unwrap();
    // Changed more often than the other one, and 1 is in it there.
    for number in [5, 6] {
        one.add(family, &who(number)).unwrap();
    }
    other.name(&RegisterAddress([2; 32]), "two", &[family].into()).unwrap();
    let club = other.create("club").unwrap();
    other.add(club, &who(7)).unwrap();
    // Each in the other would be both in themselves.
    one.add(family, &group(kids)).unwrap();
    other.add(kids, &group(family)).unwrap();
    let mut apart = Groups::default();
    let others = apart.create("family").unwrap();
    let epoch = |groups: &Groups, id| groups.get(id).unwrap().epoch;
    for (mut here, there) in [(one.clone(), &other), (other.clone(), &one)] {
        let before = here.clone();
        let left_out = here.take_in(there);
        assert_eq!((here.people_of(family), here.people_of(kids)), ([key(4)].into(), [key(2)].into()));
        assert_eq!((here.people_of(outer), here.people_of(club)), ([key(4)].into(), [key(7)].into()));
        assert_eq!(left_out.len(), 5, "1, 5, 6, and either group of the other: {left_out:?}");
        for id in [family, outer] {
            assert!([&before, there].iter().all(|state| epoch(state, id) < epoch(&here, id)), "{id:?}");
        }
        assert_eq!(here.reached_by(family).len(), 2);
        assert!(here.person(&key(1)).is_none() && here.check().is_ok());
        assert!(here.take_in(&apart).is_empty());
        assert_eq!(here.get(others).unwrap().name, "family-2", "a name is one group's");
        let before = here.clone();
        here.take_in(&apart);
        here.take_in(there);
        assert_eq!(here, before);
    }
}

#[test]
fn whoever_is_taken_out_while_there_are_two_registers_is_not_brought_back_by_what_the_other_one_does() {
    let mut one = Groups::default();
    let [family, kids, club] = ["family", "kids", "club"].map(|name| one.create(name).unwrap());
    one.add(family, &group(kids)).unwrap();
    one.add(kids, &who(1)).unwrap();
    let (mut other, before) = (one.clone(), one.clone());
    for number in 2..9 {
        other.add(kids, &who(number)).unwrap();
    }
    one.remove(kids, &who(1)).unwrap();
    one.rise_far(&before);
    let epoch = |groups: &Groups, id| groups.get(id).unwrap().epoch;
    for id in [family, kids] {
        assert!(epoch(&one, id) > epoch(&other, id));
    }
    assert_eq!(epoch(&one, club), epoch(&before, club));
}

#[test]
fn what_has_no_room_beside_another_registers_groups_is_left_out_and_told() {
    let many = |with: &str| {
        let mut groups = Groups::default();
        let ids: Vec<GroupId> =
            (0..40).map(|number| groups.create(&format!("{with}-{number}")).unwrap()).collect();
        groups.add(ids[0], &group(ids[39])).unwrap();
        groups
    };
    let (mut one, other) = (many("one"), many("other"));
    let left_out = one.take_in(&other);
    assert_eq!((one.all().len(), left_out.len()), (GROUPS_MAX, 16));
    assert!(left_out.iter().all(|left_out| matches!(left_out, LeftOut::Group(_))) && one.check().is_ok());
}

#[test]
fn a_state_that_is_lost_lets_nobody_in_again_whom_it_had_out_in_whatever_order_lists_are_looked_at() {
    let mut groups = Groups::default();
    let family = groups.create("family").unwrap();
    for number in [1, 2, 3] {
        groups.add(family, &who(number)).unwrap();
    }
    let epoch = groups.get(family).unwrap().epoch;
    let list = |id, epoch, people: &[u8]| ListedBy {
        id,
        epoch,
        people: people.iter().map(|number| key(*number)).collect(),
    };
    let narrowed = |groups: &Groups, lists: &[ListedBy]| {
        let (mut forward, mut backward) = (groups.clone(), groups.clone());
        let reverse: Vec<ListedBy> = lists.iter().rev().cloned().collect();
        let mut left_out = [forward.narrow(lists), backward.narrow(&reverse)];
        left_out.iter_mut().for_each(|left_out| left_out.sort());
        assert_eq!((&forward, &left_out[0]), (&backward, &left_out[1]));
        (forward, left_out[0].len())
    };
    assert_eq!(narrowed(&groups, &[list(family, epoch, &[])]), (groups.clone(), 0), "it tells nothing new");
    // Two that were made by one state: the first one narrows, and the second one counts as well.
    let (same, out) =
        narrowed(&groups, &[list(family, epoch + 1, &[1, 2, 3]), list(family, epoch + 1, &[1, 2])]);
    assert_eq!((same.people_of(family), out), ([key(1), key(2)].into(), 1));
    // One that could not be had say what another one says by now.
    let (later, out) = narrowed(&groups, &[list(family, epoch + 1, &[1, 2]), list(family, epoch + 2, &[1])]);
    assert_eq!((later.people_of(family), out), ([key(1)].into(), 2));
    assert!(later.get(family).unwrap().epoch > epoch + 2);

    // By groups in it, and around it.
    let [kids, outer] = ["kids", "outer"].map(|name| groups.create(name).unwrap());
    for number in [4, 5] {
        groups.add(kids, &who(number)).unwrap();
    }
    groups.add(family, &group(kids)).unwrap();
    groups.add(outer, &group(family)).unwrap();
    let (now, _) = narrowed(&groups, &[list(family, epoch + 5, &[1, 2, 4])]);
    assert_eq!(now.people_of(outer), [key(1), key(2), key(4)].into());
    assert_eq!(now.people_of(kids), [key(4)].into());
    for id in [kids, outer] {
        assert!(now.get(id).unwrap().epoch > groups.get(id).unwrap().epoch);
    }
    assert!(now.get(family).unwrap().epoch > epoch + 5 && now.check().is_ok());
}

/// Taking another register's state in raises the epoch, up to that of a list by which somebody is out.
#[test]
fn of_two_states_nobody_is_in_whom_a_list_has_out_whatever_state_the_list_is_of() {
    let mut own = Groups::default();
    let family = own.create("family").unwrap();
    for number in [1, 2] {
        own.add(family, &who(number)).unwrap();
    }
    let mut other = own.clone();
    other.add(family, &who(3)).unwrap();
    let people = [key(1)].into();
    let list = ListedBy { id: family, epoch: own.get(family).unwrap().epoch + 1, people };
    assert_eq!(own.take_in(&other).len(), 1);
    assert!(own.get(family).unwrap().epoch >= list.epoch, "by numbers alone it would tell nothing new");
    assert_eq!(own.clone().narrow(std::slice::from_ref(&list)), []);
    let left_out = own.narrow_by_all(std::slice::from_ref(&list));
    assert_eq!((own.people_of(family), left_out.len()), ([key(1)].into(), 1));
    assert!(own.get(family).unwrap().epoch > list.epoch && own.check().is_ok());
    let before = own.clone();
    own.rise_far(&Groups::default());
    assert!(own.get(family).unwrap().epoch > before.get(family).unwrap().epoch + u64::from(u32::MAX));
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
    groups.add(family, &group(kids)).unwrap();
    let key = PublicKey::from_bytes([7; 32]);
    let person = Person { key, sealing_key: [8; 32], may_write: true, name: "ann".into() };
    groups.add(kids, &InGroup::Person(person)).unwrap();
    groups.name(&RegisterAddress([9; 32]), "band", &[family].into()).unwrap();
    groups.groups[0].id = GroupId(1);
    groups.groups[1].id = GroupId(2);
    groups.groups[0].groups = vec![GroupId(2)];
    groups
}

#[test]
fn the_bytes_are_as_they_were() {
    let golden = "\
        6879706861677270010001000707070707070707070707070707070707070707070707070707070707070707080808080808\
        08080808080808080808080808080808080808080808080808080103616e6e02000100000000000000030000000000000006\
        66616d696c790000010002000000000000000100090909090909090909090909090909090909090909090909090909090909\
        09090462616e6402000000000000000200000000000000046b6964730100000000000000";
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
    // Of two groups that are in each other, one whose id is another's, and one with a group that is not there.
    let mut changed = some();
    changed.groups[1].groups.push(GroupId(1));
    assert_eq!(Groups::decode(&changed.encode()), None);
    for id in [1, 5] {
        let mut changed = some();
        changed.groups[1].id = GroupId(id);
        assert_eq!(Groups::decode(&changed.encode()), None);
    }
    for number in [7, 8] {
        let mut twice = some();
        twice.groups[1].people.push(PublicKey::from_bytes([number; 32]));
        assert_eq!(Groups::decode(&twice.encode()), None, "twice, or nobody of whom anything is known");
    }
    let mut never = some();
    never.groups[1].epoch = 0;
    assert_eq!(Groups::decode(&never.encode()), None);
    let mut alone = some();
    alone.groups[1].people.clear();
    assert_eq!(Groups::decode(&alone.encode()), None, "somebody who is in none");
    let mut unshown = some();
    unshown.people[0].name = "a\u{1b}[2J".into();
    assert_eq!(Groups::decode(&unshown.encode()), None);
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
    let (its, mut charter) = (sign(&owner, new_salt(&[5; 32]), Vec::new()), example(Vec::new()).charter);
    let found = |charter: &Charter| charter.groups(&owner.public_key(), &[5; 32]);
    assert_eq!(found(&charter), None);
    let forged = [
        sign(&writer, new_salt(&[5; 32]), Vec::new()),
        // A space's, of the same owner: what is written there would be its root.
        sign(&owner, [7; 32], Vec::new()),
        sign(&owner, new_salt(&[6; 32]), Vec::new()),
        sign(&owner, new_salt(&[5; 32]), vec![writer.public_key()]),
    ];
    for genesis in forged {
        charter.set_groups(&genesis);
        assert_eq!(found(&charter), None);
    }
    let others = charter.extensions.len();
    charter.set_groups(&its);
    assert_eq!((found(&charter), charter.extensions.len()), (Some(its), others));
}
