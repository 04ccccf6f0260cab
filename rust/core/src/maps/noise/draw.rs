//! Draws of argmax(x + scale · ε): perturb, and take the largest.
//!
//! * **Determinism.** Draws come in blocks of 8. Block b of row r has the eight streams of block 2³² b + r of [`crate::rng`]:
//!   the score at index k is perturbed by stream k mod 8. So a draw is the same whatever the number of draws, of workers, or
//!   the SIMD level; it changes with its row's index.
//! * **Ties** go to the lowest index.

use fearless_simd::{Level, Simd, dispatch, prelude::*, u64x8};
use fearless_simd_macros::simd;

use super::{Noise, Stripe, check_scale, f64s, load, stripe};
use crate::{
    batch::{Scores, Source, Storage},
    error::Error,
    kernels::Compiled,
    parallel::{Parts, Run},
    rng::Lanes,
    scalar::Real,
    simd::{ln, polynomial},
};

const LANES: usize = <f64 as Real>::LANES;

/// Draws that share their streams.
const BLOCK: usize = 8;

/// Perturbed scores in a task.
const TASK: usize = 1 << 17;

/// `size` draws from every row: draw d of row r becomes `out[d · rows + r]`, the index of the largest of x + scale · ε.
///
/// A row with a NaN, and one with no score above -∞, gives -1; one with +∞ any of those that are, with equal
/// probability.
///
/// # Errors
/// As [`super::noisy_argmax()`].
pub fn noisy_sample<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    noise: &Noise,
    scale: f64,
    size: usize,
    seed: u64,
    out: &mut [i64],
) -> Result<(), Error> {
    check_scale(scale)?;
    scores.check()?;
    let (rows, n) = (scores.shape.count(), scores.shape.n);
    let Some(x) = scores.x else {
        return Err(Error::Empty { argument: "x" });
    };
    let expected = rows.saturating_mul(size);
    if out.len() != expected {
        return Err(Error::Length {
            argument: "out",
            expected,
            found: out.len(),
        });
    }
    let (level, kernel) = (run.level, E::Compute::kernels().maps.noise.draw);
    let (out, source) = (Parts::new(out), Source::Apart(x));
    let blocks = size.div_ceil(BLOCK);
    let units = rows * blocks;
    let each = (TASK / n / BLOCK).max(1);
    run.each(
        units.div_ceil(each),
        || (Vec::new(), Vec::new()),
        |(room, z), task| {
            for unit in task * each..units.min((task + 1) * each) {
                let (row, block) = (unit / blocks, unit % blocks);
                // SAFETY: nothing is written to x.
                let x =
                    unsafe { scores.stage(&source, row..row + 1, E::Compute::NEG_INFINITY, room) };
                let stream = (block as u64) << 32 | row as u64;
                let mut draws = [0; BLOCK];
                let first = block * BLOCK;
                let draws = &mut draws[..BLOCK.min(size - first)];
                kernel(level, noise, scale, x, (seed, stream), draws, z);
                for (draw, &index) in (first..).zip(&*draws) {
                    // SAFETY: each draw of a row belongs to one task.
                    unsafe { out.part(draw * rows + row, 1)[0] = index };
                }
            }
        },
    )
}

/// Draws from a row, under a seed and with a block of streams; the vector is scratch.
pub(super) type DrawRow<T> = fn(Level, &Noise, f64, &[T], (u64, u64), &mut [i64], &mut Vec<f64>);

pub(super) fn draw_row<T: Real>(
    level: Level,
    noise: &Noise,
    scale: f64,
    x: &[T],
    stream: (u64, u64),
    draws: &mut [i64],
    z: &mut Vec<f64>,
) {
    let top = dispatch!(level, simd => load(simd, x, scale, noise.grain(), z));
    if top == f64::INFINITY {
        let largest: Vec<usize> = (0..x.len()).filter(|&k| x[k] == T::INFINITY).collect();
        return dispatch!(level, simd => draw_any(simd, &largest, stream, draws));
    }
    if !top.is_finite() {
        return draws.fill(-1);
    }
    match noise {
        Noise::Gumbel => {
            dispatch!(level, simd => draw::<_, Gumbel>(simd, &Gumbel, z, stream, draws))
        }
        Noise::Normal => {
            dispatch!(level, simd => draw::<_, Normal>(simd, &Normal, z, stream, draws))
        }
        Noise::Logistic => {
            dispatch!(level, simd => draw::<_, Logistic>(simd, &Logistic, z, stream, draws))
        }
        Noise::Exponential => {
            dispatch!(level, simd => draw::<_, Exponential>(simd, &Exponential, z, stream, draws))
        }
        Noise::Uniform => {
            dispatch!(level, simd => draw::<_, Uniform>(simd, &Uniform, z, stream, draws))
        }
        Noise::Table(table) => {
            dispatch!(level, simd => draw::<_, Table>(simd, table, z, stream, draws))
        }
    }
}

/// Any of the given, with equal probability.
#[simd]
fn draw_any<S: Simd>(simd: S, given: &[usize], (seed, block): (u64, u64), draws: &mut [i64]) {
    let mut lanes = Lanes::new(simd, seed, block);
    for draw in draws {
        let u = uniform::<S>(lanes.next_u64())[0];
        let k = (u * given.len() as f64) as usize;
        *draw = given[k.min(given.len() - 1)] as i64;
    }
}

#[simd]
fn draw<S: Simd, Q: Quantile>(
    simd: S,
    noise: &Q,
    z: &[f64],
    (seed, block): (u64, u64),
    draws: &mut [i64],
) {
    let mut lanes = Lanes::new(simd, seed, block);
    for draw in draws {
        let mut best = f64s::<S>(simd, f64::NEG_INFINITY);
        let mut stripes = f64s::<S>(simd, 0.0);
        let mut index = 0.0;
        for z in z.chunks_exact(LANES) {
            let perturbed = stripe::<S>(simd, z) + noise.at::<S>(uniform::<S>(lanes.next_u64()));
            let better = perturbed.simd_gt(best);
            best = better.select(perturbed, best);
            stripes = better.select(f64s::<S>(simd, index), stripes);
            index += 1.0;
        }
        let mut winner = (f64::NEG_INFINITY, i64::MAX);
        for lane in 0..LANES {
            let index = stripes[lane] as i64 * LANES as i64 + lane as i64;
            let own = (best[lane], index);
            if own.0 > winner.0 || own.0 == winner.0 && own.1 < winner.1 {
                winner = own;
            }
        }
        *draw = winner.1;
    }
}

/// Uniform on (0, 1): odd multiples of 2⁻⁵³.
#[inline(always)]
fn uniform<S: Simd>(bits: u64x8<S>) -> Stripe<S> {
    let one_to_two = Stripe::<S>::from_bits((bits >> 12) | f64::ONE_BITS);
    one_to_two - (1.0 - 0.5 * f64::EPSILON)
}

/// The inverse of a distribution function.
trait Quantile {
    fn at<S: Simd>(&self, u: Stripe<S>) -> Stripe<S>;
}

struct Gumbel;

impl Quantile for Gumbel {
    #[inline(always)]
    fn at<S: Simd>(&self, u: Stripe<S>) -> Stripe<S> {
        -ln::<f64, S>(-ln::<f64, S>(u))
    }
}

struct Logistic;

impl Quantile for Logistic {
    #[inline(always)]
    fn at<S: Simd>(&self, u: Stripe<S>) -> Stripe<S> {
        ln::<f64, S>(u / (-u + 1.0))
    }
}

struct Exponential;

impl Quantile for Exponential {
    #[inline(always)]
    fn at<S: Simd>(&self, u: Stripe<S>) -> Stripe<S> {
        -ln::<f64, S>(u)
    }
}

struct Uniform;

impl Quantile for Uniform {
    #[inline(always)]
    fn at<S: Simd>(&self, u: Stripe<S>) -> Stripe<S> {
        u
    }
}

type Table = super::Table;

impl Quantile for Table {
    #[inline(always)]
    fn at<S: Simd>(&self, u: Stripe<S>) -> Stripe<S> {
        let mut x = u;
        for lane in 0..LANES {
            x[lane] = self.quantile(u[lane]);
        }
        x
    }
}

struct Normal;

impl Quantile for Normal {
    /// Wichura's rational functions (AS 241, 1988), within 1e-15: in r = .180625 - (u - ½)² near the middle, in
    /// √(-ln min(u, 1 - u)) in the tails.
    #[inline(always)]
    fn at<S: Simd>(&self, u: Stripe<S>) -> Stripe<S> {
        let q = u - 0.5;
        let r = -(q * q) + 0.180_625;
        let middle = q * polynomial::<f64, S>(&MIDDLE.0, r) / polynomial::<f64, S>(&MIDDLE.1, r);
        let outside = q.abs().simd_gt(0.425);
        if !outside.any_true() {
            return middle;
        }
        let r = (-ln::<f64, S>(u.min(-u + 1.0))).sqrt();
        let s = r - 1.6;
        let mut tail = polynomial::<f64, S>(&TAIL.0, s) / polynomial::<f64, S>(&TAIL.1, s);
        let far = r.simd_gt(5.0);
        if far.any_true() {
            let s = r - 5.0;
            let value = polynomial::<f64, S>(&FAR.0, s) / polynomial::<f64, S>(&FAR.1, s);
            tail = far.select(value, tail);
        }
        let tail = q.simd_lt(0.0).select(-tail, tail);
        outside.select(tail, middle)
    }
}

/// Numerator and denominator, lowest power first.
type Rational = ([f64; 8], [f64; 8]);

const MIDDLE: Rational = (
    [
        3.387_132_872_796_366_5,
        133.141_667_891_784_38,
        1_971.590_950_306_551_3,
        13_731.693_765_509_46,
        45_921.953_931_549_87,
        67_265.770_927_008_7,
        33_430.575_583_588_13,
        2_509.080_928_730_122_7,
    ],
    [
        1.0,
        42.313_330_701_600_91,
        687.187_007_492_057_9,
        5_394.196_021_424_751,
        21_213.794_301_586_597,
        39_307.895_800_092_71,
        28_729.085_735_721_943,
        5_226.495_278_852_546,
    ],
);

const TAIL: Rational = (
    [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        0.241_780_725_177_450_6,
        0.022_723_844_989_269_184,
        0.000_774_545_014_278_341_4,
    ],
    [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        0.689_767_334_985_1,
        0.148_103_976_427_480_08,
        0.015_198_666_563_616_457,
        0.000_547_593_808_499_534_5,
        1.050_750_071_644_416_9e-9,
    ],
);

const FAR: Rational = (
    [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        0.296_560_571_828_504_87,
        0.026_532_189_526_576_124,
        0.001_242_660_947_388_078_4,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ],
    [
        1.0,
        0.599_832_206_555_888,
        0.136_929_880_922_735_8,
        0.014_875_361_290_850_615,
        0.000_786_869_131_145_613_3,
        1.846_318_317_510_054_8e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_7e-15,
    ],
);
