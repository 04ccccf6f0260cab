//! The standard normal distribution of a stripe of f64: φ, Φ, ln Φ and the Mills ratio.
//!
//! * **Domain.** Every value: ±∞ give the limits, NaN gives NaN.
//! * **Precision.** The Mills ratio and φ are within 3 ulp where they are normal numbers, Φ within 4, ln Φ within 6.
//! * **Determinism.** The same bits at every level.
//!
//! ```text
//! R(x) = Φ(-x)/φ(x) = m(t)/(x + 5), t = (x - 5)/(x + 5), x ≥ 0     # m: polynomials.py
//! Φ(z) = φ(z) R(-z) for z < 0, 1 - φ(z) R(z) above
//! ```
//!
//! 1. φ of a large z: what rounding takes from z² is put back, or it would cost z² ulp.

use fearless_simd::{Simd, f64x8, prelude::*};

use super::{
    elementary::{exp, ln_1p, polynomial},
    fused::Fused,
};

/// m in `R(x) = m(t)/(x + 5)`, lowest power first; made by `polynomials.py`.
const MILLS: [f64; 25] = [
    1.928_081_047_153_157_8,
    -1.667_866_595_188_96,
    1.241_547_061_573_865_7,
    -0.785_911_075_546_548_9,
    0.413_644_715_732_719_1,
    -0.173_254_734_087_051_42,
    0.052_125_502_411_598_586,
    -0.007_503_282_821_889_575,
    -0.001_999_961_968_245_578,
    0.001_365_859_169_150_024_8,
    -0.000_148_833_091_577_304_05,
    -0.000_124_735_692_107_137_88,
    4.181_473_040_542_649e-5,
    9.974_869_956_327_542e-6,
    -6.945_382_649_476_545_5e-6,
    -8.362_234_531_030_202e-7,
    1.094_226_013_861_833_9e-6,
    9.686_029_036_919_63e-8,
    -1.770_096_619_081_654_7e-7,
    -1.752_279_894_507_611e-8,
    2.857_348_405_663_637_4e-8,
    3.237_161_645_054_645_4e-9,
    -3.999_016_396_638_762e-9,
    -3.424_998_372_645_589e-10,
    3.386_569_117_911_810_7e-10,
];

/// √(π/2), the Mills ratio at 0.
const MILLS_AT_ZERO: f64 = 1.253_314_137_315_500_3;

/// 1/√(2π).
const PDF_AT_ZERO: f64 = 0.398_942_280_401_432_7;

/// `Φ(-x)/φ(x)` for x ≥ 0.
#[inline(always)]
pub fn mills_ratio<S: Simd>(x: f64x8<S>) -> f64x8<S> {
    let inverse = f64x8::splat(x.token(), 1.0) / (x + 5.0);
    polynomial::<f64, S>(&MILLS, inverse.fused(-10.0, 1.0)) * inverse
}

/// `φ(z) = e^{-z²/2}/√(2π)`.
#[inline(always)]
pub fn normal_pdf<S: Simd>(z: f64x8<S>) -> f64x8<S> {
    // Beyond, it is zero; and z² stays finite.
    let z = z.abs();
    let z = z.simd_gt(40.0).select(f64x8::splat(z.token(), 40.0), z);
    let square = z * z;
    let lost = z.fused(z, -square);
    let y = exp::<f64, S>(square * -0.5);
    (lost * -0.5).fused(y, y) * PDF_AT_ZERO
}

/// `Φ(z)`, small values to full precision.
#[inline(always)]
pub fn normal_cdf<S: Simd>(z: f64x8<S>) -> f64x8<S> {
    let tail = normal_pdf::<S>(z) * mills_ratio::<S>(z.abs());
    z.simd_gt(0.0).select(-tail + 1.0, tail)
}

/// `ln Φ(z)`, to full precision on both sides.
#[inline(always)]
pub fn normal_log_cdf<S: Simd>(z: f64x8<S>) -> f64x8<S> {
    let ratio = mills_ratio::<S>(z.abs());
    let tail = normal_pdf::<S>(z) * ratio;
    let right = z.simd_gt(0.0);
    // -ln Φ is ln(1 + q/(1 - q)) with q = Φ(-z) on the right, and z²/2 + ln 2 + ln(R(0)/R(-z)) on the left.
    let (over, under) = (
        right.select(tail, -ratio + MILLS_AT_ZERO),
        right.select(-tail + 1.0, ratio),
    );
    let log = ln_1p::<f64, S>(over / under);
    let half_square = z * z * 0.5;
    let left = half_square + std::f64::consts::LN_2 + log;
    // There the ratio may be zero.
    let left = z.simd_lt(-1e9).select(half_square, left);
    -right.select(log, left)
}
