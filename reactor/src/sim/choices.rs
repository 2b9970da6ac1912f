//! Where every free decision of a simulation comes from: a seeded generator, or a list made earlier.
//!
//! A choice is one of `count` ways, of which way 0 is the plain one: first come first served, no fault, least
//! latency. So a failing run is made readable by setting choices back to 0 for as long as it still fails
//! ([`super::shrink`]).
//!
//! Replayed choices are kept apart by kind: to take one fault out does not shift all later scheduling.

use std::collections::BTreeMap;

/// What a choice decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Which of the runnable coroutines goes on.
    Schedule,
    /// How long a packet takes.
    Latency,
    /// Whether a packet is lost, sent twice, or held back.
    Packet,
    /// How long blocking work takes.
    Offload,
    /// What a crash leaves on a disk, and which of its calls fail.
    Disk,
    /// Which ports a router lends.
    Router,
    /// What the test itself left to chance: [`super::World::choose`].
    Test,
}

/// One decision that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What it was about.
    pub kind: Kind,
    /// How many ways there were.
    pub count: u32,
    /// Which one was taken, from 0.
    pub chosen: u32,
}

/// A small generator with a period of 2^64, whose output never changes between versions of this crate.
///
/// # Source
///
/// Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators": SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Generator(u64);

impl Generator {
    pub(super) fn new(seed: u64) -> Generator {
        Generator(seed)
    }

    /// The generator of one of several independent streams of a seed: what a program draws must tell nothing of what is
    /// decided about it, or some pairs of both would never be tried.
    pub(super) fn of_stream(seed: u64, stream: u64) -> Generator {
        // Each output is a start of its own in the one long period, so two streams are far apart.
        Generator(Generator(seed ^ Generator(stream).next()).next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u32
    }
}

enum Source {
    Seeded(Generator),
    /// For each kind the choices to take and how many have been; 0 from there on.
    Replayed(BTreeMap<Kind, (Vec<u32>, usize)>),
}

/// The decisions of one run.
pub(super) struct Choices {
    source: Source,
    log: Option<Vec<Choice>>,
}

impl Choices {
    pub(super) fn seeded(seed: u64, record: bool) -> Choices {
        Choices { source: Source::Seeded(Generator::new(seed)), log: record.then(Vec::new) }
    }

    pub(super) fn replayed(choices: &[Choice]) -> Choices {
        let mut by_kind: BTreeMap<Kind, (Vec<u32>, usize)> = BTreeMap::new();
        for choice in choices {
            by_kind.entry(choice.kind).or_default().0.push(choice.chosen);
        }
        Choices { source: Source::Replayed(by_kind), log: Some(Vec::new()) }
    }

    /// One of `count` ways, each as likely.
    pub(super) fn choose(&mut self, kind: Kind, count: u32) -> u32 {
        if count <= 1 {
            return 0;
        }
        self.decide(kind, count, |generator| generator.below(count))
    }

    /// 1 with `probability`, else 0. Nothing is chosen where the outcome is certain.
    pub(super) fn chance(&mut self, kind: Kind, probability: f64) -> bool {
        if probability <= 0.0 {
            return false;
        }
        // 32 bits of fraction are exact in a double, on every machine.
        let limit = (probability.min(1.0) * 4_294_967_296.0) as u64;
        self.decide(kind, 2, |generator| u32::from(generator.next() >> 32 < limit)) == 1
    }

    fn decide(&mut self, kind: Kind, count: u32, draw: impl FnOnce(&mut Generator) -> u32) -> u32 {
        let chosen = match &mut self.source {
            Source::Seeded(generator) => draw(generator),
            Source::Replayed(by_kind) => by_kind.get_mut(&kind).map_or(0, |(list, taken)| {
                let chosen = list.get(*taken).copied().unwrap_or(0);
                *taken += 1;
                chosen.min(count - 1)
            }),
        };
        if let Some(log) = &mut self.log {
            log.push(Choice { kind, count, chosen });
        }
        chosen
    }

    pub(super) fn take_log(&mut self) -> Vec<Choice> {
        self.log.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_list_replays_the_same_choices_kind_by_kind() {
        let mut first = Choices::seeded(7, true);
        let taken: Vec<_> = (0..50)
            .map(|n| {
                let kind = if n % 3 == 0 { Kind::Latency } else { Kind::Schedule };
                (kind, first.choose(kind, 10), first.chance(Kind::Packet, 0.5))
            })
            .collect();
        let mut log = first.take_log();
        assert_eq!(log.len(), 100);
        let mut second = Choices::replayed(&log);
        for &(kind, way, lost) in &taken {
            assert_eq!((second.choose(kind, 10), second.chance(Kind::Packet, 0.5)), (way, lost));
        }
        assert_eq!(second.choose(Kind::Schedule, 10), 0, "past the end everything is plain");

        // Without the losses all else stays.
        log.retain(|choice| choice.kind != Kind::Packet);
        let mut third = Choices::replayed(&log);
        for &(kind, way, _) in &taken {
            assert_eq!((third.choose(kind, 10), third.chance(Kind::Packet, 0.5)), (way, false));
        }
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // The reference implementation's first outputs for the seed 1234567.
        let mut generator = Generator::new(1_234_567);
        assert_eq!(generator.next(), 6_457_827_717_110_365_317);
        assert_eq!(generator.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn streams_of_one_seed_have_nothing_to_do_with_each_other() {
        for seed in 0..1_000 {
            let (mut first, mut second) = (Generator::new(seed), Generator::of_stream(seed, 1));
            let one: Vec<u64> = (0..20).map(|_| first.next()).collect();
            let other: Vec<u64> = (0..20).map(|_| second.next()).collect();
            assert!(one.iter().all(|number| !other.contains(number)), "seed {seed}");
        }
    }
}
