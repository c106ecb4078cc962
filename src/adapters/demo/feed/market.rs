//! The synthetic market of one symbol: a price that walks, and a phase that colours everything else.

use super::random::Random;

/// Kind of phase that a market is in. The direction says which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Balanced,
    StopHunt,
    Trend,
    Squeeze,
    Liquidation,
    Exhaustion,
}

/// The readings of a shape in upward direction: what the numbers of a snapshot scatter around.
pub(super) struct Readings {
    /// Share of the price's step that is not chance.
    pub(super) drift: f64,
    /// Price away from VWAP, in average true ranges.
    pub(super) stretch: f64,
    /// Aggressive buying less selling, −1 to 1.
    pub(super) pressure: f64,
    /// Change of the cumulative volume delta against its size, −1 to 1.
    pub(super) slope: f64,
    /// Funding in standard deviations.
    pub(super) funding_z: f64,
    /// 0 to 1.
    pub(super) liquidation: f64,
    /// 0 to 1.
    pub(super) sweep: f64,
}

impl Shape {
    const ALL: [Self; 6] =
        [Self::Balanced, Self::StopHunt, Self::Trend, Self::Squeeze, Self::Liquidation, Self::Exhaustion];

    const fn upward_readings(self) -> Readings {
        let [drift, stretch, pressure, slope, funding_z, liquidation, sweep] = match self {
            Self::Balanced => [0.0, 0.05, 0.0, 0.0, 0.0, 0.05, 0.1],
            Self::StopHunt => [0.0, 0.2, 0.0, 0.0, 0.2, 0.3, 0.8],
            Self::Trend => [0.2, 0.8, 0.4, 0.5, 0.3, 0.1, 0.2],
            Self::Squeeze => [0.4, 1.1, 0.8, 0.6, -1.6, 0.4, 0.3],
            Self::Liquidation => [0.6, 1.3, 0.6, 0.5, -0.6, 0.9, 0.5],
            Self::Exhaustion => [0.05, 0.8, -0.5, -0.1, 0.8, 0.15, 0.3],
        };
        Readings { drift, stretch, pressure, slope, funding_z, liquidation, sweep }
    }
}

/// A candle of one minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candle {
    pub(super) minute: i64,
    pub(super) open: f64,
    pub(super) high: f64,
    pub(super) low: f64,
    pub(super) close: f64,
    pub(super) volume: f64,
}

/// One symbol's market.
#[derive(Clone, Debug)]
pub(super) struct Market {
    pub(super) symbol: String,
    pub(super) price: f64,
    /// The price is drawn back here, so that a feed that runs for weeks stays plausible.
    anchor: f64,
    /// Powers of ten of the smallest price step.
    scale: f64,
    shape: Shape,
    direction: f64,
    snapshots_left: u32,
    pub(super) cvd: f64,
    pub(super) open_interest: f64,
    pub(super) candle: Option<Candle>,
    /// A candle that is complete and not yet told.
    pub(super) closed: Option<Candle>,
    /// Number of its last event.
    pub(super) source_seq: u64,
}

impl Market {
    /// A market near the price that `symbol` is known for, or near any.
    pub(super) fn new(symbol: &str, random: &mut Random) -> Self {
        let known = [
            ("BTC", 60_000.0),
            ("ETH", 2_600.0),
            ("BNB", 550.0),
            ("SOL", 150.0),
            ("XRP", 0.6),
            ("DOGE", 0.12),
        ];
        let near = known.iter().find(|(prefix, _)| symbol.starts_with(prefix));
        let anchor = near.map_or_else(|| random.pick_one(&[1.0, 10.0, 100.0, 1_000.0]), |(_, price)| *price);
        let scale = [(10_000.0, 10.0), (100.0, 100.0), (1.0, 10_000.0)];
        let scale = scale.iter().find(|(from, _)| anchor >= *from).map_or(1e6, |(_, scale)| *scale);
        Self {
            symbol: symbol.to_owned(),
            price: anchor * random.next_around(1.0, 0.02),
            anchor,
            scale,
            shape: random.pick_one(&Shape::ALL),
            direction: random.pick_one(&[1.0, -1.0]),
            snapshots_left: 1 + random.next_below(6),
            cvd: 0.0,
            open_interest: 1e9 / anchor,
            candle: None,
            closed: None,
            source_seq: 0,
        }
    }

    /// The readings now, in the direction of the phase.
    pub(super) fn directed_readings(&self) -> Readings {
        let up = self.shape.upward_readings();
        Readings {
            drift: up.drift * self.direction,
            stretch: up.stretch * self.direction,
            pressure: up.pressure * self.direction,
            slope: up.slope * self.direction,
            funding_z: up.funding_z * self.direction,
            liquidation: up.liquidation,
            sweep: up.sweep,
        }
    }

    /// Lets a trade of `quantity` (negative: a sale) move the price.
    pub(super) fn apply_trade(&mut self, quantity: f64, now_ms: i64, random: &mut Random) {
        let drawn_back = (self.price / self.anchor - 1.0) * 0.5;
        let step = random.next_around(self.directed_readings().drift - drawn_back, 1.0) * 1e-4;
        self.price *= 1.0 + step;
        self.cvd += quantity;
        self.open_interest *= 1.0 + 1e-5 * random.next_noise();
        let (minute, price) = (now_ms.div_euclid(60_000), self.price);
        if self.candle.is_some_and(|candle| candle.minute != minute) {
            self.closed = self.candle.take();
        }
        let new = Candle { minute, open: price, high: price, low: price, close: price, volume: 0.0 };
        let candle = self.candle.get_or_insert(new);
        candle.high = candle.high.max(price);
        candle.low = candle.low.min(price);
        candle.close = price;
        candle.volume += quantity.abs();
    }

    /// One snapshot is over: after some of them the phase changes.
    pub(super) fn snapshot_taken(&mut self, random: &mut Random) {
        self.snapshots_left = self.snapshots_left.saturating_sub(1);
        if self.snapshots_left == 0 {
            self.shape = random.pick_one(&Shape::ALL);
            self.direction = random.pick_one(&[1.0, -1.0]);
            self.snapshots_left = 3 + random.next_below(7);
        }
    }

    /// Whether liquidations come in numbers.
    pub(super) fn is_liquidating(&self) -> bool {
        self.shape == Shape::Liquidation
    }

    /// `price` on the grid of this market.
    pub(super) fn on_grid(&self, price: f64) -> f64 {
        (price * self.scale).round() / self.scale
    }

    /// The smallest step of the price.
    pub(super) fn price_step(&self) -> f64 {
        1.0 / self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_walks_but_stays_plausible() {
        let mut random = Random::new(5, 0);
        let mut market = Market::new("BTCUSDT", &mut random);
        let mut distinct = std::collections::BTreeSet::new();
        for n in 0..100_000_i64 {
            market.apply_trade(random.next_noise(), n * 10, &mut random);
            if n % 200 == 0 {
                market.snapshot_taken(&mut random);
                distinct.insert(market.price.to_bits());
            }
            assert!((10_000.0..200_000.0).contains(&market.price), "{}", market.price);
        }
        assert!(distinct.len() > 400);
    }

    #[test]
    fn a_candle_is_closed_when_its_minute_is_over() {
        let mut random = Random::new(5, 0);
        let mut market = Market::new("ETHUSDT", &mut random);
        market.apply_trade(1.0, 0, &mut random);
        market.apply_trade(-2.0, 59_999, &mut random);
        assert_eq!(market.closed, None);

        market.apply_trade(1.0, 60_000, &mut random);

        let closed = market.closed.unwrap();
        assert_eq!((closed.minute, closed.volume), (0, 3.0));
        assert!(closed.low <= closed.open.min(closed.close) && closed.high >= closed.open.max(closed.close));
        assert_eq!(market.candle.unwrap().minute, 1);
    }

    #[test]
    fn every_phase_comes_up() {
        let mut random = Random::new(5, 0);
        let mut market = Market::new("X", &mut random);
        let mut seen = Vec::new();
        for _ in 0..1_000 {
            market.snapshot_taken(&mut random);
            let phase = (market.shape, market.direction > 0.0);
            if !seen.contains(&phase) {
                seen.push(phase);
            }
        }
        assert_eq!(seen.len(), 12);
    }
}
