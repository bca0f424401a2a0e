//! Random numbers that depend on a seed, a tensor and a place in it, never on threads: xoshiro256++ started by SplitMix64
//! (Blackman and Vigna's published formulas). Arithmetic is exact everywhere, so every machine draws the same bytes.

/// A generator of 64-bit words.
pub(crate) struct Rng([u64; 4]);

impl Rng {
    /// The stream number `index` of a tensor whose key is `key`.
    pub(crate) fn new(seed: u64, key: u64, index: u64) -> Self {
        let mut state = split_mix(&mut split_mix(&mut seed.wrapping_add(key)).wrapping_add(index));
        Self(std::array::from_fn(|_| split_mix(&mut state)))
    }

    #[inline(always)]
    pub(crate) fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// Random bytes in wide stores.
    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        let (words, rest) = out.as_chunks_mut::<8>();
        for word in words {
            *word = self.next().to_le_bytes();
        }
        rest.copy_from_slice(&self.next().to_le_bytes()[..rest.len()]);
    }

    /// Uniform in 0..1, 24 bits.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// Nearly normal with mean 0 and variance 1: four uniforms of 16 bits, which needs no function that rounds differently
    /// from one machine to the next.
    pub(crate) fn normal(&mut self) -> f32 {
        const MEAN: i32 = 2 * 65_535;
        const DEVIATION: f32 = 37_837.2;
        let word = self.next();
        let sum: i32 = (0..4).map(|i| (word >> (16 * i)) as i32 & 0xffff).sum();
        (sum - MEAN) as f32 / DEVIATION
    }

    /// Uniform in `0..n`; the bias is below n / 2^32.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        (((self.next() >> 32) * u64::from(n)) >> 32) as u32
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A tensor's key: FNV-1a of its name, so that a tensor keeps its bytes when others come or go.
pub(crate) fn key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generators_give_their_published_numbers() {
        let mut state = 1_234_567;
        assert_eq!(
            [split_mix(&mut state), split_mix(&mut state)],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
        );
        let mut rng = Rng([1, 2, 3, 4]);
        assert_eq!([rng.next(), rng.next(), rng.next()], [41_943_041, 58_720_359, 3_588_806_011_781_223]);
    }

    #[test]
    fn draws_have_the_promised_moments() {
        let mut rng = Rng::new(0, 0, 0);
        let n = 200_000;
        let z: Vec<f64> = (0..n).map(|_| f64::from(rng.normal())).collect();
        let (mean, power) = (z.iter().sum::<f64>() / n as f64, z.iter().map(|z| z * z).sum::<f64>() / n as f64);
        assert!(mean.abs() < 0.01 && (power - 1.0).abs() < 0.01, "{mean} {power}");
        let u: f64 = (0..n).map(|_| f64::from(rng.unit())).sum::<f64>() / n as f64;
        assert!((u - 0.5).abs() < 0.005, "{u}");
        let mut seen = [0; 6];
        (0..60_000).for_each(|_| seen[rng.below(6) as usize] += 1);
        assert!(seen.iter().all(|&n| (9_500..10_500).contains(&n)), "{seen:?}");
    }

    #[test]
    fn streams_differ_in_each_of_their_coordinates() {
        let first = |seed, key, index| Rng::new(seed, key, index).next();
        let all = [first(0, 0, 0), first(1, 0, 0), first(0, 1, 0), first(0, 0, 1), first(1, 1, 0), first(0, 1, 1)];
        for (i, a) in all.iter().enumerate() {
            // Seed and key are added, so only that pair may meet.
            assert!(all[..i].iter().filter(|b| *b == a).count() <= usize::from(i == 2), "{i}");
        }
    }
}
