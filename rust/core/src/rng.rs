//! Random streams: (seed, item index) gives an independent generator, whoever draws from it and wherever.
//!
//! The generator is xoshiro256++ (Blackman & Vigna, 2019: period 2²⁵⁶ - 1, four words of state). Its state is filled by
//! SplitMix64 from a mix of seed and index, so neighbouring indices start at unrelated points: two of 2⁶⁴ streams of
//! 2⁶⁴ values each overlap with probability below 2⁻⁶⁴.
//!
//! [`Lanes`] runs eight streams side by side, whatever the width of the registers. `benches/testu01.sh` holds their
//! interleaved output to the batteries SmallCrush and Crush of TestU01.

use fearless_simd::{Simd, prelude::*, u64x8};

/// The stream of one item.
#[derive(Clone, Debug)]
pub struct Stream {
    state: [u64; 4],
}

impl Stream {
    /// The stream of item `index` under `seed`.
    pub fn new(seed: u64, index: u64) -> Self {
        // Two rounds apart, so that (seed, index) and (seed + 1, index - 1) share nothing.
        let mut root = SplitMix(SplitMix(seed).next() ^ index);
        Self {
            state: std::array::from_fn(|_| root.next()),
        }
    }

    /// The four words, for a generator that runs many streams side by side.
    pub fn state(&self) -> [u64; 4] {
        self.state
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Uniform on [0, 1), a multiple of 2⁻⁵³.
    pub fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * 2f64.powi(-53)
    }
}

/// How many streams a block has.
pub const LANES: usize = 8;

/// The streams of a block, one in each SIMD lane: lane l has the stream of item 8 `block` + l.
#[derive(Clone, Copy)]
pub struct Lanes<S: Simd> {
    state: [u64x8<S>; 4],
}

impl<S: Simd> Lanes<S> {
    /// The streams of block `block` under `seed`.
    #[inline(always)]
    pub fn new(simd: S, seed: u64, block: u64) -> Self {
        let first = block.wrapping_mul(LANES as u64);
        let mut words = [[0; LANES]; 4];
        for lane in 0..LANES {
            let state = Stream::new(seed, first.wrapping_add(lane as u64)).state;
            for (word, value) in words.iter_mut().zip(state) {
                word[lane] = value;
            }
        }
        let [a, b, c, d] = words;
        Self {
            state: [
                a.simd_into(simd),
                b.simd_into(simd),
                c.simd_into(simd),
                d.simd_into(simd),
            ],
        }
    }

    /// 64 uniform bits of each stream.
    #[inline(always)]
    pub fn next_u64(&mut self) -> u64x8<S> {
        let [a, b, c, d] = self.state;
        let result = rotate_left::<23, S>(a + d) + a;
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), rotate_left::<45, S>(d)];
        result
    }

    /// Replaces all values by `n` new ones; those of a lane stand eight apart.
    #[inline(always)]
    pub fn fill(&mut self, values: &mut Vec<u64>, n: usize) {
        values.resize(n.next_multiple_of(LANES), 0);
        for eight in values.as_chunks_mut().0 {
            *eight = self.next_u64().into();
        }
        values.truncate(n);
    }
}

#[inline(always)]
fn rotate_left<const BY: u32, S: Simd>(x: u64x8<S>) -> u64x8<S> {
    (x << BY) | (x >> (64 - BY))
}

/// Steele, Lea & Flood, 2014.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use fearless_simd::dispatch;
    use fearless_simd_macros::simd;

    use super::*;

    #[test]
    fn the_generator_is_xoshiro256_plus_plus() {
        // The first values from state 1, 2, 3, 4 of the authors' C code, as the rand_xoshiro crate pins them too.
        let mut stream = Stream {
            state: [1, 2, 3, 4],
        };
        let first: Vec<u64> = (0..5).map(|_| stream.next_u64()).collect();
        assert_eq!(
            first,
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386,
                9_228_616_714_210_784_205
            ]
        );
    }

    #[test]
    fn streams_are_pinned() {
        // A change here changes every simulation that anyone has published: it is an entry in the CHANGELOG.
        let first = |seed, index| Stream::new(seed, index).next_u64();
        assert_eq!(
            [
                first(0, 0),
                first(0, 1),
                first(1, 0),
                first(u64::MAX, u64::MAX)
            ],
            PINNED
        );
    }

    const PINNED: [u64; 4] = [
        9_579_327_875_526_494_010,
        5_226_295_891_941_712_017,
        8_089_978_747_140_965_633,
        6_881_029_436_186_680_218,
    ];

    #[test]
    fn lanes_are_streams() {
        for (name, level) in crate::simd::levels() {
            let mut streams: Vec<_> = (80..88).map(|index| Stream::new(5, index)).collect();
            let drawn = dispatch!(level, simd => draw(simd, 5, 10));
            for values in drawn {
                let expected = streams.iter_mut().map(Stream::next_u64);
                assert!(expected.eq(values), "{name}");
            }
        }
    }

    #[simd]
    fn draw<S: Simd>(simd: S, seed: u64, block: u64) -> [[u64; 8]; 100] {
        let mut lanes = Lanes::new(simd, seed, block);
        let mut drawn = [[0; 8]; 100];
        for values in &mut drawn {
            *values = lanes.next_u64().into();
        }
        drawn
    }

    #[test]
    fn uniforms_have_the_right_mean_and_stay_below_one() {
        // 10⁶ draws: the mean is within 6 standard errors of ½ (false alarm 2e-9, and the seed is fixed).
        let mut stream = Stream::new(7, 3);
        let draws: Vec<f64> = (0..1_000_000).map(|_| stream.next_f64()).collect();
        let mean = draws.iter().sum::<f64>() / 1e6;
        assert!((mean - 0.5).abs() < 6.0 / (12.0f64 * 1e6).sqrt());
        assert!(draws.iter().all(|u| (0.0..1.0).contains(u)));
    }
}
