//! Repeatable randomness: a seed gives the same numbers on every platform and in every version.

/// Generator of numbers from a seed: one addition and a mix. Not for secrets.
///
/// Never changes: seeds that once found a bug are recorded, and so are the days that the demo makes up.
///
/// Source: SplitMix64, in Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below `bound`; 0 when that is 0. Even as far as `bound` is small beside 2⁶⁴.
    pub const fn next_below(&mut self, bound: u64) -> u64 {
        let bound = if bound == 0 { 1 } else { bound };
        self.next_u64() % bound
    }

    /// The next index into something of this length; 0 when it is empty.
    pub const fn next_index(&mut self, length: usize) -> usize {
        self.next_below(length as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference sequence from seed 1234567, as published with the algorithm.
    #[test]
    fn the_sequence_is_that_of_the_published_algorithm() {
        let mut rng = Rng::new(1_234_567);

        let first = [rng.next_u64(), rng.next_u64(), rng.next_u64()];

        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut rng = Rng::new(1);

        assert!((0..1_000).all(|_| rng.next_below(7) < 7 && rng.next_index(3) < 3));
        assert_eq!((rng.next_below(0), rng.next_index(0)), (0, 0));
    }
}
