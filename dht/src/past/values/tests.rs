//! When each value was the newest, whoever lies and whichever clock is wrong.

use reactor::crypto::Identity;

use super::*;

const NOW: u64 = 10_000;
const DAY: u64 = 24 * 3600;

fn contact(number: u8) -> Contact {
    Contact::new(Identity::from_seed(&[number; 32]).public_key(), [])
}

fn entry(version: u64, since_seconds: u64) -> PastEntry {
    let writer = Identity::from_seed(&[9; 32]).public_key();
    PastEntry {
        since_seconds,
        version,
        header_hash: HeaderHash([version as u8; 32]),
        writer,
        is_proved: false,
    }
}

fn record(version: u64) -> Record {
    let PastEntry { header_hash, writer, .. } = entry(version, 0);
    Record { version, payload: bytes::Bytes::new(), header_hash, writer }
}

/// What nodes show that have these values since then.
fn shown(nodes: &[&[(u64, u64)]]) -> Vec<Shown> {
    let of_one = |(index, values): (usize, &&[(u64, u64)])| {
        let entries = values.iter().map(|(version, since)| entry(*version, *since)).collect();
        (contact(index as u8 + 1), entries)
    };
    nodes.iter().enumerate().map(of_one).collect()
}

fn values(shown: &[Shown], newest: u64) -> Values {
    let newest = record(newest);
    let values = together(shown, Some(&newest), NOW);
    Values { values, newest: Ok(Some(newest)), answers: shown.len(), left_out: Vec::new() }
}

/// Since when each was the newest.
fn times(nodes: &[&[(u64, u64)]], newest: u64) -> Vec<(u64, u64, u64)> {
    let of = |value: &Past| (value.version, value.perhaps_since_seconds, value.since_seconds);
    values(&shown(nodes), newest).values.iter().map(of).collect()
}

/// Which version it was then, if that is certain.
fn was(values: &Values, seconds: u64) -> Option<u64> {
    match values.at(seconds) {
        At::Was(value) => Some(value.version),
        _ => None,
    }
}

#[test]
fn one_node_alone_says_of_no_value_when_it_was_the_newest() {
    let honest = &[(1, 100), (2, 200), (3, 300)];
    let certain = [(1, 100, 100), (2, 200, 200), (3, 300, 300)];
    for liar in
        [&[(1, 1), (2, 2), (3, 3)][..], &[(1, 5000), (2, 6000), (3, 7000)], &[(1, 100 * NOW)], &[(3, 0)], &[]]
    {
        assert_eq!(times(&[liar, honest, honest], 3), certain, "{liar:?}");
    }
    // Of two nobody can tell which one is right.
    assert_eq!(times(&[&[(1, 110), (2, 200)], &[(1, 100), (2, 200)]], 2), [(1, 100, 110), (2, 200, 200)]);
}

#[test]
fn a_value_that_one_node_shows_alone_dates_no_other() {
    // Its clock is ahead, so it keeps others than these do; or it makes them up.
    let honest = &[(1, 100), (3, 300), (9, 900)];
    for since in [5000, NOW + DAY] {
        let times = times(&[honest, honest, &[(2, since), (9, since + 100)]], 9);
        assert_eq!(times, [(1, 100, 100), (2, 100, 300), (3, 300, 300), (9, 900, 900)]);
    }
    // What it says is believed as far as the others leave it open.
    assert_eq!(times(&[honest, honest, &[(2, 250), (9, 900)]], 9)[1], (2, 250, 250));
    // One that is invented, older than all.
    let values = values(&shown(&[&[(5, 500), (9, 900)], &[(5, 500), (9, 900)], &[(1, 9000)]]), 9);
    assert_eq!((was(&values, 600), was(&values, 950)), (Some(5), Some(9)));
}

#[test]
fn a_clock_that_was_put_back_makes_it_uncertain_and_takes_nobody_further_back() {
    // Three hours ahead at the start, and right soon after it: these hours are yet to come, and then they are over.
    let story = &[(4, 7000), (5, NOW + 10_800), (6, 7600), (7, 8000)];
    assert_eq!(times(&[story], 7), [(4, 7000, 7000), (5, 7000, 7600), (6, 7600, 7600), (7, 8000, 8000)]);
    let story = &[(4, 5000), (5, 9500), (6, 6000), (7, 6500)];
    assert_eq!(times(&[story], 7), [(4, 5000, 5000), (5, 6000, 9500), (6, 6000, 9500), (7, 6500, 9500)]);
    let values = values(&shown(&[story]), 7);
    assert_eq!((was(&values, 5500), was(&values, NOW)), (Some(4), Some(7)));
    let At::Between(Some(least), most) = values.at(7000) else { panic!("nobody can tell") };
    assert_eq!((least.version, most.version), (4, 7));
    // In 1970, after a start without a network.
    let story = &[(1, 5000), (2, 6000), (3, 1), (4, 7000)];
    assert_eq!(times(&[story], 4), [(1, 1, 5000), (2, 1, 6000), (3, 1, 6000), (4, 7000, 7000)]);
}

#[test]
fn what_it_is_now_is_among_them_though_no_node_shows_it() {
    let values = values(&shown(&[&[(4, 7000), (5, NOW + 10_800)]]), 6);
    let newest = values.values.last().unwrap();
    assert_eq!((newest.version, newest.node_count()), (6, 0));
    assert_eq!(was(&values, NOW), Some(6), "nothing is to be done");
    assert!(
        matches!(values.at(7100), At::Between(Some(least), most) if (least.version, most.version) == (4, 6))
    );
    assert_eq!(values.at(6999), At::Nothing);
}

#[test]
fn what_came_meanwhile_or_is_on_one_node_alone_that_has_it_now_is_not_gone_back_to() {
    // The first missed what came after 3, which nobody else knows of; the second has what came since the newest was read.
    let values =
        values(&shown(&[&[(1, 100), (3, 300)], &[(1, 100), (5, 500), (6, 600)], &[(1, 100), (5, 500)]]), 5);
    let versions: Vec<u64> = values.values.iter().map(|value| value.version).collect();
    assert_eq!(versions, [1, 3, 5]);
    assert_eq!(was(&values, 400), Some(1));
    assert_eq!(was(&values, NOW), Some(5));
}

#[test]
fn of_two_of_one_number_it_was_what_more_nodes_show() {
    let mut shown = shown(&[
        &[(1, 100), (2, 200), (3, 300)],
        &[(1, 100), (2, 200), (3, 300)],
        &[(1, 100), (2, 200), (3, 300)],
    ]);
    shown[2].1[1].header_hash = HeaderHash([0xff; 32]);
    let of_three = values(&shown, 3);
    assert!(matches!(of_three.at(250), At::Was(value) if value.header_hash == HeaderHash([2; 32])));
    assert_eq!(lone(&shown), [vec![], vec![], vec![1]]);
    let mut of_another = shown.clone();
    of_another[0].1[0].writer = Identity::from_seed(&[8; 32]).public_key();
    assert_eq!(lone(&of_another), [vec![0], vec![], vec![1]], "it names another writer");
    shown.remove(0);
    let of_two = values(&shown, 3);
    assert!(
        matches!(of_two.at(250), At::Between(Some(one), other) if one.version == 2 && other.version == 2)
    );
    assert_eq!(lone(&shown), [vec![1], vec![1]]);
}

#[test]
fn nodes_whose_clocks_differ_by_less_than_what_they_keep_date_what_each_has_alone() {
    let times =
        times(&[&[(10, 100), (20, 700)], &[(12, 130), (22, 730)], &[(11, 115), (21, 715), (30, 800)]], 30);
    let points = [(10, 100), (11, 115), (12, 130), (20, 700), (21, 715), (22, 730), (30, 800)];
    assert_eq!(times, points.map(|(version, since)| (version, since, since)));
}

/// The one in the middle was believed, and so what was two hours earlier taken for what was at the time that was asked for.
#[test]
fn of_three_that_contradict_each_other_none_is_believed_alone() {
    let of = |ahead: u64| [(1, 1000 + ahead), (2, 1100 + ahead)];
    let (right, wrong, other) = (of(0), of(3000), of(6000));
    let shown = shown(&[&right, &wrong, &other]);
    let times = times(&[&right, &wrong, &other], 2);
    assert_eq!(times, [(1, 1000, 7000), (2, 1100, 7100)]);
    let values = values(&shown, 2);
    for seconds in [1050, 4050, 7050] {
        assert!(matches!(values.at(seconds), At::Between(..)), "{seconds}: {:?}", values.at(seconds));
    }
    assert_eq!(was(&values, 7100), Some(2));
    // Half of four are not most.
    assert_eq!(common([(1, 1), (1, 1), (900, 900), (900, 900)].into_iter()), Some((1, 900)));
    assert_eq!(common(std::iter::empty()), None);
}

/// Else one that lies would make every time uncertain: no two accept a value in the same second.
#[test]
fn clocks_that_are_right_may_differ_by_a_little_and_outvote_a_liar_still() {
    for liar in [1, 9000] {
        assert_eq!(common([(100, 100), (101, 101), (liar, liar)].into_iter()), Some((100, 101)));
        let five = [(100, 100), (liar, liar), (103, 103), (101, 101), (102, 102)];
        assert_eq!(common(five.into_iter()), Some((100, 103)));
    }
    assert_eq!(common([(100, 100), (160, 160), (9000, 9000)].into_iter()), Some((100, 160)));
    assert_eq!(common([(100, 100), (161, 161), (9000, 9000)].into_iter()), Some((100, 9000)));
    // What overlaps needs no such leave.
    assert_eq!(common([(0, 10), (5, 15), (100, 100)].into_iter()), Some((5, 10)));
}

/// What went wrong: two that had learned a value from its one keeper, and did not know when it was, outvoted that one.
#[test]
fn who_only_heard_of_a_value_neither_counts_nor_says_when_it_was() {
    let mut shown = shown(&[
        &[(8, 800), (9, 1000), (10, 1800)],
        &[(8, 800), (9, 1799), (10, 1800)],
        &[(8, 800), (9, 1799), (10, 1800)],
    ]);
    shown[1..].iter_mut().for_each(|(_, entries)| entries[1].is_proved = true);
    let of_three = values(&shown, 10);
    let value = &of_three.values[1];
    assert_eq!((value.version, value.node_count(), value.shown_by.len()), (9, 1, 3));
    assert_eq!((value.perhaps_since_seconds, value.since_seconds), (1000, 1000));
    assert_eq!((was(&of_three, 900), was(&of_three, 1400)), (Some(8), Some(9)));
    // Without its one witness nobody knows when it was.
    shown.remove(0);
    let of_two = values(&shown, 10);
    assert_eq!((of_two.values[1].node_count(), of_two.values[1].shown_by.len()), (0, 2));
    assert!(
        matches!(of_two.at(1400), At::Between(Some(least), most) if (least.version, most.version) == (8, 9))
    );
}
