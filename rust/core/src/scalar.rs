//! `Real`: the two floating-point types that every kernel is written for, and what they are made of.
//!
//! The constants with a value per type stand here, so that [`crate::simd`] reads as one algorithm.

use fearless_simd::{Simd, SimdFloatElement, f32x16, f64x8, prelude::*};

/// `f32` or `f64`.
pub trait Real: SimdFloatElement + Send + Sync + 'static {
    /// 64 bytes of values, at every SIMD level: narrower registers hold it in pieces, so the order of every
    /// operation, and with it every bit, is the same on every machine.
    type Stripe<S: Simd>: SimdFloat<S, Element = Self>;
    /// Values in a stripe.
    const LANES: usize;

    /// 0.
    const ZERO: Self;
    /// ½.
    const HALF: Self;
    /// 1.
    const ONE: Self;
    /// 2.
    const TWO: Self;
    /// The distance from 1 to the next larger value.
    const EPSILON: Self;
    /// About √EPSILON: a step of Newton's method that starts this far off ends within rounding.
    const NEARLY: Self;
    /// The smallest normal value.
    const MIN_POSITIVE: Self;
    /// The largest finite value.
    const MAX: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// Negative infinity.
    const NEG_INFINITY: Self;
    /// A quiet NaN.
    const NAN: Self;

    /// Bits of the stored significand.
    const MANTISSA_BITS: u32;
    /// A mask of the stored significand.
    const MANTISSA_MASK: Self::Bits;
    /// The bits of √½, where `ln` cuts the significand.
    const SQRT_HALF_BITS: Self::Bits;
    /// The bits of 1 less those of √½.
    const ONE_LESS_SQRT_HALF_BITS: Self::Bits;
    /// The bits of 1.
    const ONE_BITS: Self::Bits;
    /// `2^MANTISSA_BITS`: an integer in the low bits of a value of this size reads as that integer.
    const INTEGER: Self;
    /// The bits of [`Real::INTEGER`].
    const INTEGER_BITS: Self::Bits;
    /// The exponent of 1 as it is stored.
    const EXPONENT_BIAS: Self;

    /// `1.5 · 2^MANTISSA_BITS`: adding it rounds to an integer, which then stands in the low bits.
    const ROUND: Self;
    /// By how many powers of two [`crate::simd::exp_lifted`] lifts its results.
    const LIFT: Self;
    /// `2^LIFT`.
    const LIFT_FACTOR: Self;
    /// Below this, `e^x` rounds to zero.
    const EXP_ZERO: Self;
    /// Below this, `2^x` rounds to zero.
    const EXP2_ZERO: Self;
    /// log₂ e.
    const LOG2_E: Self;
    /// ln 2.
    const LN_2: Self;
    /// The leading bits of ln 2: few enough that its product with an exponent is exact.
    const LN_2_HIGH: Self;
    /// ln 2 less [`Real::LN_2_HIGH`].
    const LN_2_LOW: Self;
    /// q in `e^r = 1 + r + r² q(r)`, lowest power first; made by `simd/polynomials.py`.
    const EXP_TAIL: &'static [Self];
    /// l in `ln((1+s)/(1-s)) = 2s + s³ l(s²)`, lowest power first; made by `simd/polynomials.py`.
    const LN_TAIL: &'static [Self];

    /// The sum of the lanes, by halving the stripe.
    fn fold_sum<S: Simd>(stripe: Self::Stripe<S>) -> Self;
    /// The largest lane; of lanes that are NaN, nothing is promised.
    fn fold_max<S: Simd>(stripe: Self::Stripe<S>) -> Self;
    /// The nearest value.
    fn from_f64(value: f64) -> Self;
    /// The value, exactly.
    fn to_f64(self) -> f64;
    /// The square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// Whether the value is NaN.
    fn is_nan(self) -> bool;
    /// Whether the value is neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// The magnitude.
    fn abs(self) -> Self;
}

impl Real for f32 {
    type Stripe<S: Simd> = f32x16<S>;
    const LANES: usize = 16;

    const ZERO: Self = 0.0;
    const HALF: Self = 0.5;
    const ONE: Self = 1.0;
    const TWO: Self = 2.0;
    const EPSILON: Self = f32::EPSILON;
    const NEARLY: Self = 2.5e-4;
    const MIN_POSITIVE: Self = f32::MIN_POSITIVE;
    const MAX: Self = f32::MAX;
    const INFINITY: Self = f32::INFINITY;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;
    const NAN: Self = f32::NAN;

    const MANTISSA_BITS: u32 = 23;
    const MANTISSA_MASK: u32 = 0x007f_ffff;
    const SQRT_HALF_BITS: u32 = 0x3f35_04f3;
    const ONE_LESS_SQRT_HALF_BITS: u32 = 0x3f80_0000 - Self::SQRT_HALF_BITS;
    const ONE_BITS: u32 = 0x3f80_0000;
    const INTEGER: Self = 8_388_608.0;
    const INTEGER_BITS: u32 = 0x4b00_0000;
    const EXPONENT_BIAS: Self = 127.0;

    const ROUND: Self = 12_582_912.0;
    const LIFT: Self = 24.0;
    const LIFT_FACTOR: Self = 16_777_216.0;
    const EXP_ZERO: Self = -103.972_08;
    const EXP2_ZERO: Self = -150.0;
    const LOG2_E: Self = std::f32::consts::LOG2_E;
    const LN_2: Self = std::f32::consts::LN_2;
    const LN_2_HIGH: Self = 0.693_145_75; // 15 bits
    const LN_2_LOW: Self = 1.428_606_8e-6;
    const EXP_TAIL: &'static [Self] = &[
        0.499_999_93,
        0.166_665_21,
        0.041_668_39,
        0.008_368_71,
        0.001_381_461_3,
    ];
    const LN_TAIL: &'static [Self] = &[0.666_667_76, 0.399_775_42, 0.298_717_3];

    #[inline(always)]
    fn fold_sum<S: Simd>(stripe: Self::Stripe<S>) -> Self {
        let (a, b) = stripe.split();
        let (a, b) = (a + b).split();
        let [a, b, c, d] = *(a + b);
        (a + c) + (b + d)
    }
    #[inline(always)]
    fn fold_max<S: Simd>(stripe: Self::Stripe<S>) -> Self {
        stripe.reduce_max()
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        self.is_finite()
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }
}

impl Real for f64 {
    type Stripe<S: Simd> = f64x8<S>;
    const LANES: usize = 8;

    const ZERO: Self = 0.0;
    const HALF: Self = 0.5;
    const ONE: Self = 1.0;
    const TWO: Self = 2.0;
    const EPSILON: Self = f64::EPSILON;
    const NEARLY: Self = 1e-8;
    const MIN_POSITIVE: Self = f64::MIN_POSITIVE;
    const MAX: Self = f64::MAX;
    const INFINITY: Self = f64::INFINITY;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;
    const NAN: Self = f64::NAN;

    const MANTISSA_BITS: u32 = 52;
    const MANTISSA_MASK: u64 = 0x000f_ffff_ffff_ffff;
    const SQRT_HALF_BITS: u64 = 0x3fe6_a09e_667f_3bcd;
    const ONE_LESS_SQRT_HALF_BITS: u64 = 0x3ff0_0000_0000_0000 - Self::SQRT_HALF_BITS;
    const ONE_BITS: u64 = 0x3ff0_0000_0000_0000;
    const INTEGER: Self = 4_503_599_627_370_496.0;
    const INTEGER_BITS: u64 = 0x4330_0000_0000_0000;
    const EXPONENT_BIAS: Self = 1023.0;

    const ROUND: Self = 6_755_399_441_055_744.0;
    const LIFT: Self = 53.0;
    const LIFT_FACTOR: Self = 9_007_199_254_740_992.0;
    const EXP_ZERO: Self = -745.133_219_101_941_1;
    const EXP2_ZERO: Self = -1075.0;
    const LOG2_E: Self = std::f64::consts::LOG2_E;
    const LN_2: Self = std::f64::consts::LN_2;
    const LN_2_HIGH: Self = 0.693_147_180_369_123_8; // 32 bits
    const LN_2_LOW: Self = 1.908_214_929_270_587_7e-10;
    const EXP_TAIL: &'static [Self] = &[
        0.500_000_000_000_001_1,
        0.166_666_666_666_664_13,
        0.041_666_666_666_530_267,
        0.008_333_333_333_494_335,
        0.001_388_888_894_359_768_3,
        0.000_198_412_695_067_769_26,
        2.480_149_313_618_881_7e-5,
        2.755_758_626_878_311_3e-6,
        2.763_023_392_104_851_7e-7,
        2.500_007_155_769_498_4e-8,
    ];
    const LN_TAIL: &'static [Self] = &[
        0.666_666_666_666_673_4,
        0.399_999_999_994_146_76,
        0.285_714_287_423_879_05,
        0.222_221_985_731_706_04,
        0.181_835_643_262_957_76,
        0.153_140_505_578_260_9,
        0.147_959_495_658_404_97,
    ];

    #[inline(always)]
    fn fold_sum<S: Simd>(stripe: Self::Stripe<S>) -> Self {
        let (a, b) = stripe.split();
        let (a, b) = (a + b).split();
        let [a, b] = *(a + b);
        a + b
    }
    #[inline(always)]
    fn fold_max<S: Simd>(stripe: Self::Stripe<S>) -> Self {
        stripe.reduce_max()
    }
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    #[inline(always)]
    fn is_nan(self) -> bool {
        self.is_nan()
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        self.is_finite()
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }
}
