//! What the feed draws from seeded randomness.

use orchestrator_kernel::random::Rng;

/// Draws of one part of the feed.
#[derive(Clone, Debug)]
pub(super) struct Random(Rng);

impl Random {
    /// A generator; each pair of `seed` and `stream` gives another sequence.
    pub(super) const fn new(seed: u64, stream: u64) -> Self {
        let mixed = Rng::new(seed).next_u64();
        Self(Rng::new(mixed ^ stream.wrapping_mul(0xd134_2543_de82_ef95)))
    }

    /// A number from 0 to below 1, in steps of 2⁻⁵³.
    pub(super) fn next_unit(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
        let unit = (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        unit
    }

    /// A whole number from 0 to below `bound`; 0 when `bound` is 0.
    pub(super) fn next_below(&mut self, bound: u32) -> u32 {
        let scaled = (u128::from(self.0.next_u64()) * u128::from(bound)) >> 64;
        u32::try_from(scaled).unwrap_or(0)
    }

    /// Yes once in `n` times.
    pub(super) fn one_in(&mut self, n: u32) -> bool {
        self.next_below(n) == 0
    }

    /// Roughly normal with mean 0 and deviation 1, within ±3.5: from sums only, so that no platform's mathematics
    /// differs.
    pub(super) fn next_noise(&mut self) -> f64 {
        let sum = self.next_unit() + self.next_unit() + self.next_unit() + self.next_unit();
        (sum - 2.0) * 1.732
    }

    /// Around `mean` with deviation `spread`.
    pub(super) fn next_around(&mut self, mean: f64, spread: f64) -> f64 {
        mean + spread * self.next_noise()
    }

    /// One of `choices`, which must not be empty.
    pub(super) fn pick_one<T: Copy, const N: usize>(&mut self, choices: &[T; N]) -> T {
        const { assert!(N > 0) };
        let index = self.next_below(u32::try_from(N).unwrap_or(u32::MAX)) as usize;
        choices[index % N]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_in_their_ranges_and_have_their_moments() {
        let mut random = Random::new(1, 2);
        let draws: Vec<f64> = (0..20_000).map(|_| random.next_noise()).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 20_000.0;

        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!((0..1_000).all(|_| (0.0..1.0).contains(&random.next_unit()) && random.next_below(7) < 7));
        assert_eq!(random.next_below(0), 0);
    }
}
