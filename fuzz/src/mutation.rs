//! Seeded mutations of bytes, after what libFuzzer does blindly: flips, interesting numbers, cuts, repeats, splices.
//!
//! Not coverage-guided: it remembers nothing of what an input reached. It is there so that stable Rust and a minute
//! of CI find the shallow faults, and so that a seed replays them.

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % end as u64) as usize
    }

    /// This many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next_u64() as u8).collect()
    }
}

/// Lengths and counts that parsers get wrong: zero, one, the limits of each width, and just beyond.
const INTERESTING: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// 64 KiB: long enough for every parser's longest structure but bulk payloads, which no parser looks into.
const SIZE_BYTES_MAX: usize = 64 * 1024;

/// Changes `input` in one to eight ways. `other` is spliced in at times.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(8) {
        if input.is_empty() {
            *input = random.bytes(16);
            continue;
        }
        let at = random.below(input.len());
        match random.below(8) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = random.next_u64() as u8,
            2 => write_number(input, at, random),
            3 => input.truncate(at),
            4 => {
                let end = at + random.below(input.len() - at) + 1;
                input.drain(at..end);
            }
            5 => {
                let end = at + random.below((input.len() - at).min(64)) + 1;
                let piece = input[at..end].to_vec();
                for _ in 0..=random.below(16) {
                    input.splice(at..at, piece.iter().copied());
                }
            }
            6 => {
                let count = random.below(32) + 1;
                let bytes = random.bytes(count);
                input.splice(at..at, bytes);
            }
            _ if !other.is_empty() => {
                let from = random.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.reverse(),
        }
        input.truncate(SIZE_BYTES_MAX);
    }
}

fn write_number(input: &mut [u8], at: usize, random: &mut Random) {
    let number = INTERESTING[random.below(INTERESTING.len())];
    let width = [1, 2, 4, 8][random.below(4)].min(input.len() - at);
    let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
    let bytes = if random.below(2) == 0 { &little[..width] } else { &big[8 - width..] };
    input[at..at + width].copy_from_slice(bytes);
}
