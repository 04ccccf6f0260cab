//! The power that a threshold map raises distances to: `p = (δ d)^{1/δ}`, δ = α - 1, d the distance above the threshold.
//!
//! What Newton's method needs of it is one step, and two sums: `q = Σ uᵉ` and `s = Σ uᵉ⁻¹`, u = δ d, e = 1/δ.
//!
//! The step is Newton's on the norm `qᵟ = (Σ uᵉ)ᵟ`, which is convex in the threshold and closer to linear than q:
//! `Δd = q (1 - q⁻ᵟ) / (δ s)`. For δ = 1 it is Michelot's, `(q - 1)/k`.

use fearless_simd::{Simd, prelude::*};

use crate::{
    scalar::Real,
    simd::{
        exp, exp2, exp2_lifted, ln, log2_near_one, log2_of_normal, rough_power_lifted, two_sum,
    },
};

/// A number in two parts, `high + low`, low below half an ulp of high.
pub(super) struct Pair<T: Real, S: Simd> {
    pub(super) high: T::Stripe<S>,
    pub(super) low: T::Stripe<S>,
}

impl<T: Real, S: Simd> Clone for Pair<T, S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Real, S: Simd> Copy for Pair<T, S> {}

impl<T: Real, S: Simd> Pair<T, S> {
    #[inline(always)]
    pub(super) fn new(high: T::Stripe<S>) -> Self {
        let low = T::Stripe::<S>::splat(high.token(), T::ZERO);
        Self { high, low }
    }

    #[inline(always)]
    pub(super) fn add(self, step: T::Stripe<S>) -> Self {
        let (high, error) = two_sum::<T, S>(self.high, step);
        let (high, low) = two_sum::<T, S>(high, error + self.low);
        Self { high, low }
    }

    /// `x - self`, accurate to its last place also where x is near.
    #[inline(always)]
    pub(super) fn below(&self, x: T::Stripe<S>) -> T::Stripe<S> {
        (x - self.high) - self.low
    }
}

/// A member of the family.
///
/// The unknown is a position t on the axis of the scores, from which `cut` derives what the terms need.
pub(super) trait Power<T: Real>: Copy + Sync {
    /// What the terms of a row are computed from.
    type Cut<S: Simd>: Copy;

    /// How far below the largest score the position lies where it alone would have all the mass.
    fn reach(&self) -> T;

    /// What belongs to a position.
    fn cut<S: Simd>(&self, t: Pair<T, S>) -> Self::Cut<S>;

    /// `(uᵉ, uᵉ⁻¹)` of scores, the second in a unit of the power's own; `(0, 0)` below the threshold.
    fn terms<S: Simd>(&self, cut: &Self::Cut<S>, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>);

    /// [`Power::terms`] within a thousandth: enough to come near.
    #[inline(always)]
    fn rough_terms<S: Simd>(
        &self,
        cut: &Self::Cut<S>,
        x: T::Stripe<S>,
    ) -> (T::Stripe<S>, T::Stripe<S>) {
        self.terms(cut, x)
    }

    /// The threshold, where p reaches 0, on the axis of the scores.
    fn threshold<S: Simd>(&self, cut: &Self::Cut<S>) -> Pair<T, S>;

    /// Whether p is rounded more than once, so that what is left of Σ p is divided out.
    const ROUNDED: bool;

    /// What q should be.
    #[inline(always)]
    fn total(&self) -> T {
        T::ONE
    }
}

/// A member that Newton's method solves.
pub(super) trait Solved<T: Real>: Power<T> {
    /// Whether the terms cost less than moving them.
    const CHEAP: bool;

    /// α - 1.
    fn delta(&self) -> T;

    /// How far the solution lies above the position, from the sums there; never too far while α ≤ 2.
    fn step<S: Simd>(&self, q: T::Stripe<S>, s: T::Stripe<S>) -> T::Stripe<S>;

    /// How far q may be from its aim, relatively, before the last step.
    fn settles(&self) -> T;
}

/// α = 2, the projection: `p = d`, `Σ p = total`.
#[derive(Clone, Copy)]
pub(super) struct Linear<T> {
    pub(super) total: T,
}

impl<T: Real> Power<T> for Linear<T> {
    type Cut<S: Simd> = Pair<T, S>;
    const ROUNDED: bool = false;

    #[inline(always)]
    fn reach(&self) -> T {
        self.total
    }

    #[inline(always)]
    fn cut<S: Simd>(&self, t: Pair<T, S>) -> Pair<T, S> {
        t
    }

    #[inline(always)]
    fn terms<S: Simd>(&self, cut: &Pair<T, S>, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let one = T::Stripe::<S>::splat(x.token(), T::ONE);
        let d = cut.below(x);
        let out = d.simd_le(zero); // a NaN is not, and stays
        (out.select(zero, d), out.select(zero, one))
    }

    #[inline(always)]
    fn threshold<S: Simd>(&self, cut: &Pair<T, S>) -> Pair<T, S> {
        *cut
    }

    #[inline(always)]
    fn total(&self) -> T {
        self.total
    }
}

impl<T: Real> Solved<T> for Linear<T> {
    const CHEAP: bool = true;

    #[inline(always)]
    fn delta(&self) -> T {
        T::ONE
    }

    #[inline(always)]
    fn step<S: Simd>(&self, q: T::Stripe<S>, s: T::Stripe<S>) -> T::Stripe<S> {
        (q - self.total) / s
    }

    #[inline(always)]
    fn settles(&self) -> T {
        T::TWO * T::EPSILON
    }
}

/// α = 3/2: `p = (d/2)²`.
#[derive(Clone, Copy)]
pub(super) struct Square;

impl<T: Real> Power<T> for Square {
    type Cut<S: Simd> = Pair<T, S>;
    const ROUNDED: bool = true;

    #[inline(always)]
    fn reach(&self) -> T {
        T::TWO
    }

    #[inline(always)]
    fn cut<S: Simd>(&self, t: Pair<T, S>) -> Pair<T, S> {
        t
    }

    #[inline(always)]
    fn terms<S: Simd>(&self, cut: &Pair<T, S>, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let d = cut.below(x);
        let u = d.simd_le(zero).select(zero, d * T::HALF); // a NaN stays
        (u * u, u)
    }

    #[inline(always)]
    fn threshold<S: Simd>(&self, cut: &Pair<T, S>) -> Pair<T, S> {
        *cut
    }
}

impl<T: Real> Solved<T> for Square {
    const CHEAP: bool = true;

    #[inline(always)]
    fn delta(&self) -> T {
        T::HALF
    }

    #[inline(always)]
    fn step<S: Simd>(&self, q: T::Stripe<S>, s: T::Stripe<S>) -> T::Stripe<S> {
        (q - q.sqrt()) * T::TWO / s
    }

    #[inline(always)]
    fn settles(&self) -> T {
        T::NEARLY
    }
}

/// Any other α in (1, 2): `p = u · u^{(2-α)/(α-1)}`.
///
/// The unknown is `c = threshold + 1/δ`, where p would be 1: as α → 1 it tends to log Σ exp x, while the threshold
/// runs away. With `NEAR`, for α near 1, `u = 1 + δ (x - c)` is used where that shows more digits than `u = δ d`.
#[derive(Clone, Copy)]
pub(super) struct General<T, const NEAR: bool> {
    delta: T,
    reach: T,
    exponent: T,
}

impl<T: Real, const NEAR: bool> General<T, NEAR> {
    pub(super) fn new(alpha: f64) -> Self {
        let delta = alpha - 1.0;
        Self {
            delta: T::from_f64(delta),
            reach: T::from_f64(1.0 / delta),
            exponent: T::from_f64((1.0 - delta) / delta),
        }
    }
}

/// α below which [`General`] is used with `NEAR`: the exponent multiplies the error of u by up to 1/(α - 1).
pub(super) const NEAR_ONE: f64 = 1.2;

pub(super) struct GeneralCut<T: Real, S: Simd> {
    threshold: Pair<T, S>,
    center: Pair<T, S>,
}

impl<T: Real, S: Simd> Clone for GeneralCut<T, S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Real, S: Simd> Copy for GeneralCut<T, S> {}

impl<T: Real, const NEAR: bool> Power<T> for General<T, NEAR> {
    type Cut<S: Simd> = GeneralCut<T, S>;
    const ROUNDED: bool = true;

    #[inline(always)]
    fn reach(&self) -> T {
        T::ZERO
    }

    #[inline(always)]
    fn cut<S: Simd>(&self, t: Pair<T, S>) -> GeneralCut<T, S> {
        let reach = T::Stripe::<S>::splat(t.high.token(), -self.reach);
        GeneralCut {
            threshold: t.add(reach),
            center: t,
        }
    }

    #[inline(always)]
    fn terms<S: Simd>(
        &self,
        cut: &GeneralCut<T, S>,
        x: T::Stripe<S>,
    ) -> (T::Stripe<S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let one = T::Stripe::<S>::splat(x.token(), T::ONE);
        let u = cut.threshold.below(x) * self.delta;
        // Below the least normal value the power is nothing beside it; a NaN stays.
        let out = u.simd_lt(T::MIN_POSITIVE);
        let u = out.select(one, u);
        let (u, log) = if NEAR {
            log2_near_one::<T, S>(u, cut.center.below(x) * self.delta)
        } else {
            (u, log2_of_normal::<T, S>(u))
        };
        let v = exp2_lifted::<T, S>(log * self.exponent);
        let p = v * (u * (T::ONE / T::LIFT_FACTOR));
        (out.select(zero, p), out.select(zero, v))
    }

    #[inline(always)]
    fn rough_terms<S: Simd>(
        &self,
        cut: &GeneralCut<T, S>,
        x: T::Stripe<S>,
    ) -> (T::Stripe<S>, T::Stripe<S>) {
        if NEAR {
            return self.terms(cut, x);
        }
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let u = cut.threshold.below(x) * self.delta;
        let out = u.simd_lt(T::MIN_POSITIVE);
        let v = rough_power_lifted::<T, S>(u, self.exponent);
        let p = v * (u * (T::ONE / T::LIFT_FACTOR));
        (out.select(zero, p), out.select(zero, v))
    }

    #[inline(always)]
    fn threshold<S: Simd>(&self, cut: &GeneralCut<T, S>) -> Pair<T, S> {
        cut.threshold
    }
}

impl<T: Real, const NEAR: bool> Solved<T> for General<T, NEAR> {
    const CHEAP: bool = false;

    #[inline(always)]
    fn delta(&self) -> T {
        self.delta
    }

    #[inline(always)]
    fn step<S: Simd>(&self, q: T::Stripe<S>, s: T::Stripe<S>) -> T::Stripe<S> {
        q * distance::<T, S>(q, self.delta) * T::LIFT_FACTOR / s
    }

    #[inline(always)]
    fn settles(&self) -> T {
        settles(self.delta)
    }
}

/// Any α > 1 by the formula as it stands, `p = 2^{log₂(u)/δ}`: for bisection, which needs no slope.
#[derive(Clone, Copy)]
pub(super) struct Plain<T> {
    delta: T,
    reach: T,
}

impl<T: Real> Plain<T> {
    pub(super) fn new(alpha: f64) -> Self {
        let delta = alpha.min(1e30) - 1.0; // beyond, only the largest score has a share, and f32 no such number
        Self {
            delta: T::from_f64(delta),
            reach: T::from_f64(1.0 / delta),
        }
    }

    /// How far above the start n equal scores have their solution: the width of the interval to halve.
    #[inline(always)]
    pub(super) fn width<S: Simd>(&self, simd: S, n: usize) -> T {
        let n = T::Stripe::<S>::splat(simd, T::from_f64(n as f64));
        distance::<T, S>(n, self.delta)[0]
    }
}

impl<T: Real> Power<T> for Plain<T> {
    type Cut<S: Simd> = GeneralCut<T, S>;
    const ROUNDED: bool = true;

    #[inline(always)]
    fn reach(&self) -> T {
        T::ZERO
    }

    #[inline(always)]
    fn cut<S: Simd>(&self, t: Pair<T, S>) -> GeneralCut<T, S> {
        let reach = T::Stripe::<S>::splat(t.high.token(), -self.reach);
        GeneralCut {
            threshold: t.add(reach),
            center: t,
        }
    }

    #[inline(always)]
    fn terms<S: Simd>(
        &self,
        cut: &GeneralCut<T, S>,
        x: T::Stripe<S>,
    ) -> (T::Stripe<S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let one = T::Stripe::<S>::splat(x.token(), T::ONE);
        let u = cut.threshold.below(x) * self.delta;
        let out = u.simd_lt(T::MIN_POSITIVE);
        let u = out.select(one, u);
        let (u, log) = log2_near_one::<T, S>(u, cut.center.below(x) * self.delta);
        let p = out.select(zero, exp2::<T, S>(log * self.reach));
        let p = u.simd_eq(u).select(p, u); // the logarithm loses a NaN
        (p, p / u)
    }

    #[inline(always)]
    fn threshold<S: Simd>(&self, cut: &GeneralCut<T, S>) -> Pair<T, S> {
        cut.threshold
    }
}

/// `(1 - q⁻ᵟ)/δ`: how far above a position the solution lies if every score has the same share of q.
#[inline(always)]
pub(super) fn distance<T: Real, S: Simd>(q: T::Stripe<S>, delta: T) -> T::Stripe<S> {
    let log = ln::<T, S>(q);
    let y = log * delta;
    let one = T::Stripe::<S>::splat(q.token(), T::ONE);
    // (1 - e^{-y})/y, by its series where the difference would cancel.
    let series = one - y * (one - y * T::from_f64(1.0 / 3.0)) * T::HALF;
    let near = y.abs().simd_lt(T::from_f64(0.01));
    log * near.select(series, (one - exp::<T, S>(-y)) / y)
}

/// Up to α = 3/2 the terms go to 0 with their slope: what falls out of the support does not disturb a step, and the
/// error after it is a small part of the square of the error before. Beyond, the sums have to confirm it.
#[inline(always)]
pub(super) fn settles<T: Real>(delta: T) -> T {
    if delta <= T::HALF {
        T::NEARLY
    } else {
        T::EPSILON * T::from_f64(16.0)
    }
}
