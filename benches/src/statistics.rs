//! Medians, and a histogram of latencies that costs a few nanoseconds a value.
//!
//! Medians and not means, because a shared machine disturbs some rounds and not others; no outlier is thrown away
//! by hand. The histogram keeps two significant digits, not each value: the values of one second would otherwise
//! fill the caches that the measured programs need.

/// Returns the median of `values`, the mean of the middle two where their count is even.
///
/// None when there are no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The share of successes among all that could be tried, by `successes` of `tries`: from and to, with 95 % confidence; anything where
/// none was tried.
///
/// # Source
/// Wilson 1927, "Probable inference, the law of succession, and statistical inference".
pub fn wilson(successes: usize, tries: usize) -> (f64, f64) {
    if tries == 0 {
        return (0.0, 1.0);
    }
    let (n, share, z) = (tries as f64, successes as f64 / tries as f64, 1.96_f64);
    let middle = share + z * z / (2.0 * n);
    let spread = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    ((middle - spread).max(0.0) / scale, ((middle + spread) / scale).min(1.0))
}

/// Values below this are counted exactly; above, each power of two is divided into this many buckets.
const BUCKETS_PER_OCTAVE: u64 = 128;
const OCTAVE_BITS: u32 = BUCKETS_PER_OCTAVE.trailing_zeros();

/// Counts of values by size, exact to within one part in 128.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; (BUCKETS_PER_OCTAVE * (65 - u64::from(OCTAVE_BITS))) as usize], total: 0 }
    }
}

impl Histogram {
    /// Counts `value`.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket_of(value)] += 1;
        self.total += 1;
    }

    /// Returns how many values were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Returns the value that `fraction` (0 to 1) of the values do not exceed, 0 when there are none.
    pub fn quantile(&self, fraction: f64) -> u64 {
        let wanted = ((self.total as f64 * fraction).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return lowest_of(bucket);
            }
        }
        0
    }
}

fn bucket_of(value: u64) -> usize {
    if value < BUCKETS_PER_OCTAVE {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() - OCTAVE_BITS;
    (BUCKETS_PER_OCTAVE * u64::from(shift) + (value >> shift)) as usize
}

fn lowest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < BUCKETS_PER_OCTAVE {
        return bucket;
    }
    let shift = bucket / BUCKETS_PER_OCTAVE - 1;
    (bucket - shift * BUCKETS_PER_OCTAVE) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_of_ten_say_less_than_a_hundred_of_a_hundred() {
        let near = |(least, most): (f64, f64), other: (f64, f64)| {
            (least - other.0).abs() < 0.001 && (most - other.1).abs() < 0.001
        };
        assert!(near(wilson(10, 10), (0.722, 1.0)));
        assert!(near(wilson(0, 10), (0.0, 0.278)));
        assert!(near(wilson(5, 10), (0.237, 0.763)));
        assert!(near(wilson(100, 100), (0.963, 1.0)));
        assert!(near(wilson(0, 0), (0.0, 1.0)));
    }
    use proptest::prelude::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median([9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn quantiles_of_small_values_are_exact() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|value| histogram.record(value));
        assert_eq!(
            (histogram.quantile(0.5), histogram.quantile(0.99), histogram.quantile(1.0)),
            (50, 99, 100)
        );
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }

    proptest! {
        #[test]
        fn a_bucket_begins_within_one_part_in_128_below_its_values(value: u64) {
            let lowest = lowest_of(bucket_of(value));
            prop_assert!(lowest <= value);
            prop_assert!(value - lowest <= value / BUCKETS_PER_OCTAVE);
        }
    }
}
