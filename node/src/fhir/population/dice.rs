//! The random numbers of the made-up population: SplitMix64 (Steele, Lea and Flood, 2014). The same seed gives
//! the same numbers on every machine and in every version, which no library promises. Not for secrets.

/// A stream of numbers that its seed determines.
pub(super) struct Dice(u64);

impl Dice {
    /// The stream for one thing of one place under one seed; streams of different things are independent.
    pub fn new(seed: u64, place: &str, thing: u64) -> Self {
        // FNV-1a over all three.
        let bytes = seed.to_le_bytes().into_iter().chain(place.bytes()).chain(thing.to_le_bytes());
        let hash = bytes.fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        let mut dice = Self(hash);
        dice.0 = dice.next();
        dice
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        let width = u128::from(low.abs_diff(high)) + 1;
        low + ((u128::from(self.next()) * width) >> 64) as i64
    }

    /// A number around the middle of `low` to `high`: the mean of three throws.
    pub fn around(&mut self, low: i64, high: i64) -> i64 {
        (self.between(low, high) + self.between(low, high) + self.between(low, high)) / 3
    }

    pub fn chance(&mut self, percent: i64) -> bool {
        self.between(1, 100) <= percent
    }

    /// One of a list that is not empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.between(0, from.len() as i64 - 1) as usize]
    }

    /// One of a list of things with weights.
    pub fn weighted<T: Copy>(&mut self, from: &[(T, i64)]) -> T {
        let mut left = self.between(1, from.iter().map(|(_, weight)| weight).sum());
        for (thing, weight) in from {
            left -= weight;
            if left <= 0 {
                return *thing;
            }
        }
        unreachable!("the throw is at most the sum of the weights")
    }

    /// A UUID of version 8: one whose bits somebody other than chance decided.
    pub fn uuid(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xFFFF,
            a & 0xFFF,
            0x8000 | b >> 48 & 0x3FFF,
            b & 0xFFFF_FFFF_FFFF
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_published_ones_and_stay_in_range() {
        // The first output for the state 0, from the reference implementation.
        assert_eq!(Dice(0).next(), 0xE220_A839_7B1D_CDAF);
        let mut dice = Dice::new(1, "a", 2);
        assert!((0..1000).map(|_| dice.between(-3, 3)).all(|n| (-3..=3).contains(&n)));
        assert!((0..1000).map(|_| dice.weighted(&[('a', 1), ('b', 0)])).all(|c| c == 'a'));
        let uuid = dice.uuid();
        assert!(uuid.len() == 36 && uuid.as_bytes()[14] == b'8' && b"89ab".contains(&uuid.as_bytes()[19]));
    }
}
