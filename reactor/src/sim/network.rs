//! How long packets take from one machine to another, and which never arrive. Pure: it is told what was chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Steps between the least and the greatest latency of a distribution.
pub(super) const LATENCY_STEPS: u32 = 1024;

/// From a machine to itself: a loopback device's round trip, halved.
const LOOPBACK: Duration = Duration::from_micros(15);

/// How long a packet is under way.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Latency {
    /// Always as long.
    Constant(Duration),
    /// Anything from the first to the second, each as likely.
    Uniform(Duration, Duration),
    /// Half of all take longer than `median`; the logarithm has a deviation of `sigma` (0.1: steady; 1: a long
    /// tail). Cut off at three deviations.
    LogNormal {
        /// The middle one.
        median: Duration,
        /// The spread.
        sigma: f64,
    },
}

impl Latency {
    /// The latency that a fraction `step / LATENCY_STEPS` of all packets undercuts.
    fn at(self, step: u32) -> Duration {
        match self {
            Latency::Constant(latency) => latency,
            Latency::Uniform(least, most) => least + most.saturating_sub(least) * step / (LATENCY_STEPS - 1),
            Latency::LogNormal { median, sigma } => {
                let probability = (f64::from(step) + 0.5) / f64::from(LATENCY_STEPS);
                median.mul_f64((sigma * normal_quantile(probability).clamp(-3.0, 3.0)).exp())
            }
        }
    }

    fn is_constant(self) -> bool {
        matches!(self, Latency::Constant(_))
    }
}

/// The point that a standard normal variable stays below with `probability`, to 3 decimals.
///
/// # Source
///
/// Abramowitz and Stegun 1964, formula 26.2.23.
fn normal_quantile(probability: f64) -> f64 {
    let tail = probability.min(1.0 - probability);
    let t = (-2.0 * tail.ln()).sqrt();
    let top = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let bottom = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    let quantile = t - top / bottom;
    if probability < 0.5 { -quantile } else { quantile }
}

/// A way from one machine to another, one direction of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// How long packets take.
    pub latency: Latency,
    /// The share of packets that is lost, from 0 to 1. TCP sends them again after a while.
    pub loss: f64,
    /// The share of datagrams that arrives twice.
    pub duplication: f64,
    /// The share of datagrams that is held back so that later ones overtake it.
    pub reordering: f64,
    /// Bytes in a second; `None` without a limit.
    pub bandwidth_bytes: Option<u64>,
}

impl Default for Link {
    /// A good local network: 0.2 to 1 ms, nothing lost.
    fn default() -> Self {
        Link {
            latency: Latency::Uniform(Duration::from_micros(200), Duration::from_millis(1)),
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            bandwidth_bytes: None,
        }
    }
}

impl Link {
    /// A link with this latency and no faults.
    pub fn new(latency: Latency) -> Link {
        Link { latency, ..Link::default() }
    }

    /// The same, losing this share of packets.
    pub fn with_loss(self, loss: f64) -> Link {
        Link { loss, ..self }
    }

    /// The same, doubling this share of datagrams.
    pub fn with_duplication(self, duplication: f64) -> Link {
        Link { duplication, ..self }
    }

    /// The same, holding back this share of datagrams.
    pub fn with_reordering(self, reordering: f64) -> Link {
        Link { reordering, ..self }
    }

    /// The same, with so many bytes in a second.
    pub fn with_bandwidth(self, bytes_per_second: u64) -> Link {
        Link { bandwidth_bytes: Some(bytes_per_second), ..self }
    }
}

/// Decides on behalf of the network; each answer that is "no" or 0 makes the run plainer.
pub(super) trait Chance {
    fn chance(&mut self, probability: f64) -> bool;
    /// From 0 to [`LATENCY_STEPS`] - 1.
    fn step(&mut self) -> u32;
}

/// All links of a world. Machines are known by their index.
pub(super) struct Network {
    default_link: Link,
    links: BTreeMap<(usize, usize), Link>,
    cut: BTreeSet<(usize, usize)>,
    /// When what was sent before has left a link of limited bandwidth.
    busy_until: BTreeMap<(usize, usize), Duration>,
}

impl Network {
    pub(super) fn new(default_link: Link) -> Network {
        Network { default_link, links: BTreeMap::new(), cut: BTreeSet::new(), busy_until: BTreeMap::new() }
    }

    pub(super) fn set_link(&mut self, from: usize, to: usize, link: Link) {
        self.links.insert((from, to), link);
    }

    pub(super) fn set_default(&mut self, link: Link) {
        self.default_link = link;
    }

    pub(super) fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        if cut {
            self.cut.insert((from, to));
        } else {
            self.cut.remove(&(from, to));
        }
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    fn link(&self, from: usize, to: usize) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or(self.default_link)
    }

    /// The least time a packet takes: for the acknowledgements that the model leaves out.
    pub(super) fn least_latency(&self, from: usize, to: usize) -> Duration {
        if from == to { LOOPBACK } else { self.link(from, to).latency.at(0) }
    }

    /// How long a packet that leaves at `now` takes, or `None` if it gets lost.
    pub(super) fn carry(
        &mut self,
        (from, to): (usize, usize),
        size_bytes: usize,
        now: Duration,
        chance: &mut impl Chance,
    ) -> Option<Duration> {
        if from == to {
            return Some(LOOPBACK);
        }
        let link = self.link(from, to);
        if self.is_cut(from, to) || chance.chance(link.loss) {
            return None;
        }
        let step = if link.latency.is_constant() { 0 } else { chance.step() };
        let mut time = link.latency.at(step);
        if let Some(bytes) = link.bandwidth_bytes {
            let free = self.busy_until.entry((from, to)).or_default();
            *free = now.max(*free) + Duration::from_nanos(size_bytes as u64 * 1_000_000_000 / bytes.max(1));
            time += *free - now;
        }
        Some(time)
    }

    /// When each copy of a datagram arrives, which may be never.
    pub(super) fn carry_datagram(
        &mut self,
        way: (usize, usize),
        size_bytes: usize,
        now: Duration,
        chance: &mut impl Chance,
    ) -> [Option<Duration>; 2] {
        let link = self.link(way.0, way.1);
        let faulty = way.0 != way.1;
        let first = self.carry(way, size_bytes, now, chance).map(|time| {
            // Held back for as long again as the slowest takes: all that is sent meanwhile may overtake it.
            let held = faulty && chance.chance(link.reordering);
            if held { time + link.latency.at(LATENCY_STEPS - 1) } else { time }
        });
        let again = faulty && first.is_some() && chance.chance(link.duplication);
        [first, if again { self.carry(way, size_bytes, now, chance) } else { None }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(bool, u32);

    impl Chance for Fixed {
        fn chance(&mut self, probability: f64) -> bool {
            self.0 && probability > 0.0
        }

        fn step(&mut self) -> u32 {
            self.1
        }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn distributions_have_the_latencies_they_state() {
        let uniform = Latency::Uniform(MS, 3 * MS);
        assert_eq!((uniform.at(0), uniform.at(LATENCY_STEPS - 1)), (MS, 3 * MS));
        assert_eq!(Latency::Constant(MS).at(700), MS);
        let normal = Latency::LogNormal { median: 100 * MS, sigma: 0.5 };
        let near = |step, ms: f64| (normal.at(step).as_secs_f64() * 1e3 / ms - 1.0).abs() < 0.01;
        assert!(near(LATENCY_STEPS / 2, 100.0));
        // One deviation below and above: 15.87 and 84.13 percent.
        assert!(near(162, 60.65), "{:?}", normal.at(162));
        assert!(near(861, 164.87), "{:?}", normal.at(861));
        assert!((1..LATENCY_STEPS).all(|step| normal.at(step - 1) <= normal.at(step)));
    }

    #[test]
    fn packets_queue_for_a_link_of_limited_bandwidth() {
        let link = Link::new(Latency::Constant(MS)).with_bandwidth(1_000_000);
        let mut network = Network::new(link);
        let mut at = |now| network.carry((0, 1), 1000, now, &mut Fixed(false, 0)).unwrap();
        assert_eq!(at(Duration::ZERO), 2 * MS);
        assert_eq!(at(Duration::ZERO), 3 * MS);
        assert_eq!(at(10 * MS), 2 * MS);
    }

    #[test]
    fn a_cut_stops_one_direction_and_a_machine_always_reaches_itself() {
        let mut network = Network::new(Link::new(Latency::Constant(MS)).with_loss(0.5));
        network.set_cut(0, 1, true);
        let mut lucky = Fixed(false, 0);
        assert_eq!(network.carry((0, 1), 1, MS, &mut lucky), None);
        assert_eq!(network.carry((1, 0), 1, MS, &mut lucky), Some(MS));
        let mut unlucky = Fixed(true, 0);
        assert_eq!(network.carry((1, 0), 1, MS, &mut unlucky), None);
        assert_eq!(network.carry((0, 0), 1, MS, &mut unlucky), Some(LOOPBACK));
        network.set_cut(0, 1, false);
        assert_eq!(network.carry((0, 1), 1, MS, &mut lucky), Some(MS));
    }

    #[test]
    fn datagrams_may_come_twice_and_late() {
        let link = Link::new(Latency::Constant(MS)).with_duplication(0.1).with_reordering(0.1);
        let mut network = Network::new(link);
        assert_eq!(network.carry_datagram((0, 1), 1, MS, &mut Fixed(false, 0)), [Some(MS), None]);
        assert_eq!(network.carry_datagram((0, 1), 1, MS, &mut Fixed(true, 0)), [Some(2 * MS), Some(MS)]);
    }
}
