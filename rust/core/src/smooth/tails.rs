//! The kernels that smooth: densities K, even, of width 1, and what lies beyond a distance a ≥ 0 of them.
//!
//! ```text
//!            density k(a)         step q(a) = ∫ₐ^∞ k    ramp r(a) = ∫ₐ^∞ q
//! logistic   e⁻ᵃ / (1 + e⁻ᵃ)²     e⁻ᵃ / (1 + e⁻ᵃ)       log(1 + e⁻ᵃ)
//! gaussian   φ(a)                 φ(a) m(a)             φ(a) (1 - a m(a))        m: Mills' ratio Q/φ
//! uniform    ½ on [0, 1)          (1 - a)/2             (1 - a)²/4
//! ```
//!
//! A smoothed step is H(x) = q(-x) for x < 0 and 1 - q(x) for x ≥ 0, a smoothed ramp is R(x) = max(x, 0) + r(|x|). So what
//! is near 0 is never the difference of what is not.
//!
//! * **Precision.** Relative to each tail: 2 ulp for uniform and logistic, 4 for gaussian, down to the smallest normal
//!   number.
//! * **Gaussian.** e^(-a²/2) takes a² with its rounding error, found by splitting a in two. m(a) and 1 - a m(a), each over
//!   its power of a + 4, are polynomials in (a - 4)/(a + 4): the second would lose a² ulp as a difference.

use fearless_simd::{Simd, prelude::*};

use crate::{
    scalar::Real,
    simd::{exp, ln_1p, polynomial},
};

/// What lies beyond a. What a caller does not use is not computed, for all is inlined.
pub(super) struct Tails<T: Real, S: Simd> {
    /// r(a).
    pub(super) ramp: T::Stripe<S>,
    /// q(a).
    pub(super) step: T::Stripe<S>,
    /// k(a).
    pub(super) density: T::Stripe<S>,
    /// q(a) - a k(a), minus the derivative of the product x H(x) below 0.
    pub(super) gate: T::Stripe<S>,
    /// 1 - 2 q(a), the mass within a.
    pub(super) inside: T::Stripe<S>,
}

/// A density that smooths.
pub(super) trait Density: Copy + Send + Sync {
    /// What lies beyond a, which is not negative and may be infinite; of NaN, nothing is promised.
    fn tails<T: Real, S: Simd>(a: T::Stripe<S>) -> Tails<T, S>;
}

/// The derivative of the logistic function.
#[derive(Clone, Copy)]
pub(super) struct Logistic;

impl Density for Logistic {
    #[inline(always)]
    fn tails<T: Real, S: Simd>(a: T::Stripe<S>) -> Tails<T, S> {
        let one = T::Stripe::<S>::splat(a.token(), T::ONE);
        let a = a.min(T::MAX);
        let e = exp::<T, S>(-a);
        let inverse = one / (e + one);
        let step = e * inverse;
        Tails {
            ramp: ln_1p::<T, S>(e),
            step,
            density: step * inverse,
            gate: step * (one - a * inverse),
            inside: -exp_m1::<T, S>(-a, e) * inverse,
        }
    }
}

/// The standard normal density.
#[derive(Clone, Copy)]
pub(super) struct Gaussian;

/// Where even the tails of f64 are 0, and f32 has none since long.
const NOTHING_BEYOND: f64 = 40.0;

/// `√(2/π) / 2`.
const PEAK: f64 = 0.398_942_280_401_432_7;

impl Density for Gaussian {
    #[inline(always)]
    fn tails<T: Real, S: Simd>(a: T::Stripe<S>) -> Tails<T, S> {
        let one = T::Stripe::<S>::splat(a.token(), T::ONE);
        let a = a.min(T::from_f64(NOTHING_BEYOND));
        let inverse = one / (a + T::from_f64(4.0));
        let t = (a - T::from_f64(4.0)) * inverse;
        let (mills, rest) = if T::MANTISSA_BITS > 23 {
            (
                polynomial::<T, S>(&MILLS_LONG.map(T::from_f64), t),
                polynomial::<T, S>(&RAMP_LONG.map(T::from_f64), t),
            )
        } else {
            (
                polynomial::<T, S>(&MILLS_SHORT.map(T::from_f64), t),
                polynomial::<T, S>(&RAMP_SHORT.map(T::from_f64), t),
            )
        };
        let mills = mills * inverse;
        let (square, error) = square::<T, S>(a);
        let e = exp::<T, S>(-square * T::HALF);
        let density = (e - e * (error * T::HALF)) * T::from_f64(PEAK);
        let step = density * mills;
        let near = erf_near::<T, S>(a, square);
        Tails {
            ramp: density * (rest * inverse * inverse),
            step,
            density,
            gate: density * (mills - a),
            inside: a.simd_lt(T::ONE).select(near, one - step * T::TWO),
        }
    }
}

/// Uniform on [-1, 1].
#[derive(Clone, Copy)]
pub(super) struct Uniform;

impl Density for Uniform {
    #[inline(always)]
    fn tails<T: Real, S: Simd>(a: T::Stripe<S>) -> Tails<T, S> {
        let zero = T::Stripe::<S>::splat(a.token(), T::ZERO);
        let within = a.simd_lt(T::ONE);
        let half = T::Stripe::<S>::splat(a.token(), T::HALF);
        let a = a.min(T::ONE);
        let step = (zero + T::ONE - a) * T::HALF;
        Tails {
            ramp: step * step,
            step,
            density: within.select(half, zero),
            gate: within.select(half - a, zero),
            inside: a,
        }
    }
}

/// a² rounded, and what the rounding lost, for |a| ≤ 40.
#[inline(always)]
fn square<T: Real, S: Simd>(a: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
    let half = T::MANTISSA_BITS / 2 + 1;
    let high = T::Stripe::<S>::from_bits((a.to_bits() >> half) << half);
    let low = a - high;
    let product = a * a;
    let error = ((high * high - product) + high * low * T::TWO) + low * low;
    (product, error)
}

/// erf(a/√2) for 0 ≤ a < 1, by its series in a².
#[inline(always)]
fn erf_near<T: Real, S: Simd>(a: T::Stripe<S>, square: T::Stripe<S>) -> T::Stripe<S> {
    let sum = if T::MANTISSA_BITS > 23 {
        polynomial::<T, S>(&erf_series::<14>().map(T::from_f64), square)
    } else {
        polynomial::<T, S>(&erf_series::<8>().map(T::from_f64), square)
    };
    a * sum
}

/// `√(2/π) (-½)ⁿ / (n! (2n + 1))`.
const fn erf_series<const N: usize>() -> [f64; N] {
    let (mut all, mut power, mut n) = ([0.0; N], 2.0 * PEAK, 0);
    while n < N {
        all[n] = power / (2 * n + 1) as f64;
        n += 1;
        power /= -2.0 * n as f64;
    }
    all
}

/// `e^y - 1` for y ≤ 0, `e^y` being known.
#[inline(always)]
pub(super) fn exp_m1<T: Real, S: Simd>(y: T::Stripe<S>, exp: T::Stripe<S>) -> T::Stripe<S> {
    let sum = if T::MANTISSA_BITS > 23 {
        polynomial::<T, S>(&exp_series::<13>().map(T::from_f64), y)
    } else {
        polynomial::<T, S>(&exp_series::<7>().map(T::from_f64), y)
    };
    y.simd_gt(T::from_f64(-0.35))
        .select(y + y * y * sum, exp - T::ONE)
}

/// `1/(n + 2)!`.
const fn exp_series<const N: usize>() -> [f64; N] {
    let (mut all, mut factorial, mut n) = ([0.0; N], 1.0, 0);
    while n < N {
        factorial *= (n + 2) as f64;
        all[n] = 1.0 / factorial;
        n += 1;
    }
    all
}

/// `(a + 4) m(a)` by `t = (a - 4)/(a + 4)`, 0 ≤ a ≤ 40, within 2⁻⁵⁷; lowest power first. Made by `polynomials.py`.
const MILLS_LONG: [f64; 24] = [
    1.893_219_063_308_485_3,
    -1.523_770_910_819_983,
    0.970_409_554_867_587_4,
    -0.467_540_962_998_384_7,
    0.151_391_762_312_493_16,
    -0.018_900_450_860_039_51,
    -0.008_722_295_275_174_895,
    0.004_087_855_656_283_78,
    0.000_334_244_624_122_159_15,
    -0.000_579_269_096_015_852_5,
    -4.783_295_896_516_123e-06,
    8.809_465_027_219_364e-05,
    1.796_415_608_067_176_9e-06,
    -1.483_963_082_458_293_3e-05,
    -1.578_397_965_679_845_3e-06,
    2.560_572_171_651_021e-06,
    6.812_539_261_594_997e-07,
    -3.883_447_305_530_976_4e-07,
    -2.139_906_390_656_895e-07,
    3.324_062_898_692_017_4e-08,
    4.909_915_144_801_439_4e-08,
    4.806_949_174_252_691e-09,
    -6.295_078_391_207_66e-09,
    -1.811_709_431_519_180_2e-09,
];

/// The same for a ≤ 15, within 2⁻²⁸.
const MILLS_SHORT: [f64; 11] = [
    1.893_219_063_828_007,
    -1.523_770_953_730_852_4,
    0.970_409_472_791_416_9,
    -0.467_539_517_783_965_24,
    0.151_394_164_155_914_1,
    -0.018_913_182_774_517_357,
    -0.008_746_421_343_468_426,
    0.004_123_953_208_730_211,
    0.000_428_770_325_909_653_3,
    -0.000_581_033_121_155_007_7,
    -0.000_129_233_214_505_825_19,
];

/// `(a + 4)² (1 - a m(a))`, as [`MILLS_LONG`].
const RAMP_LONG: [f64; 26] = [
    3.416_989_974_128_468,
    -4.988_360_931_375_141,
    4.313_851_553_597_916_5,
    -2.475_730_901_243_532_2,
    0.851_461_065_862_801_5,
    -0.061_068_933_507_977_13,
    -0.089_671_056_526_634_18,
    0.030_028_888_230_222_844,
    0.008_221_623_595_476_337,
    -0.005_744_857_686_799_601,
    -0.001_021_658_466_106_085,
    0.001_035_576_634_230_495,
    0.000_216_274_397_230_157_54,
    -0.000_185_647_528_456_536_74,
    -6.210_447_829_520_941e-05,
    3.004_017_507_478_393_5e-05,
    1.822_730_739_873_846_6e-05,
    -3.080_595_224_675_399_7e-06,
    -4.760_032_731_628_268e-06,
    -3.936_177_705_065_12e-07,
    9.849_089_020_847_547e-07,
    3.081_233_345_146_989e-07,
    -1.297_764_567_256_478e-07,
    -7.376_400_074_757_7e-08,
    5.460_578_205_119_356e-09,
    6.134_587_243_985_908e-09,
];

/// The same for a ≤ 15, within 2⁻³².
const RAMP_SHORT: [f64; 13] = [
    3.416_989_974_130_536,
    -4.988_360_931_505_068,
    4.313_851_543_449_68,
    -2.475_730_876_356_124_5,
    0.851_461_562_865_887_1,
    -0.061_069_319_694_506_67,
    -0.089_678_197_021_092_43,
    0.030_028_363_028_752_485,
    0.008_264_521_717_019_111,
    -0.005_716_544_594_647_715,
    -0.001_132_509_291_747_273_8,
    0.000_905_194_516_485_592_5,
    0.000_298_990_023_220_925_95,
];
