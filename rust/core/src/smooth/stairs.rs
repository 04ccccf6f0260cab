//! floor and round, smoothed: a step at each integer, or half-way between them.
//!
//! With n the integer next to x, r = x - n and a = |r| ≤ ½:
//!
//! ```text
//! few steps:   round = n ± Σ D(j),              j = ½, 3/2, …   D(j) = q((j - a)/w) - q((j + a)/w)
//!              floor = n + c or n - 1 - c,      j = 1, 2, …     c = Σ D(j) - q(a/w)
//! series:      n + r [- ½ for floor] + Σₘ (±1)ᵐ ĉ(2πmw) sin(2πmr)/(πm),  ĉ: the kernel's characteristic function
//! uniform:     n + r [- ½ for floor] + (P(r + w) - P(r - w))/2w,  P of period 1: the integral of ½ - y + ⌊y⌋
//! ```
//!
//! Narrow kernels meet few steps, wide ones need few terms, and the two meet where both have all their digits. A uniform
//! kernel's series ends nowhere, but its sum is known.

use std::{f64::consts::PI, marker::PhantomData};

use fearless_simd::{Simd, prelude::*};

use super::{
    curves::{Curve, normal},
    tails::Density,
};
use crate::{scalar::Real, simd::polynomial};

/// The width from which the logistic kernel takes the series.
pub(super) const LOGISTIC_SERIES: f64 = 0.125;
/// The width from which the Gaussian kernel takes the series.
pub(super) const GAUSSIAN_SERIES: f64 = 0.25;
/// The width from which the uniform kernel reaches more than one step.
pub(super) const UNIFORM_PERIODIC: f64 = 0.5;

/// What e^-cut is no longer seen beside 1.
fn cut<T: Real>() -> f64 {
    f64::from(T::MANTISSA_BITS + 4) * std::f64::consts::LN_2
}

/// The integer n next to x, and x - n. Beyond the largest fraction x is its own n.
#[inline(always)]
fn split<T: Real, S: Simd>(x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
    let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
    let n = x.round_ties_even();
    let r = n.abs().simd_eq(T::INFINITY).select(zero, x - n);
    (n, r)
}

/// Slopes have no limit at infinity.
#[inline(always)]
fn none_at_infinity<T: Real, S: Simd>(x: T::Stripe<S>, slope: T::Stripe<S>) -> T::Stripe<S> {
    let nan = T::Stripe::<S>::splat(x.token(), T::NAN);
    x.abs().simd_eq(T::INFINITY).select(nan, slope)
}

/// By the steps nearby.
pub(super) struct Steps<T, D> {
    width: T,
    inverse: T,
    round: bool,
    /// j, the sign of a in its distance, and the sign of its tail in the sum.
    steps: Vec<(T, T, T)>,
    density: PhantomData<D>,
}

impl<T: Real, D> Steps<T, D> {
    /// `negligible(N)`: how far, in exponents, the first of the pairs beyond N lies below the sum.
    pub(super) fn new(width: f64, round: bool, negligible: impl Fn(f64) -> f64) -> Self {
        let mut steps = vec![];
        if !round {
            steps.push((T::ZERO, T::ONE, -T::ONE));
        }
        let mut count = 0.0;
        while count == 0.0 || negligible(count) <= cut::<T>() {
            let j = T::from_f64(if round { count + 0.5 } else { count + 1.0 });
            steps.push((j, -T::ONE, T::ONE));
            steps.push((j, T::ONE, -T::ONE));
            count += 1.0;
        }
        let width = normal::<T>(width);
        Self {
            width,
            inverse: T::ONE / width,
            round,
            steps,
            density: PhantomData,
        }
    }
}

impl<T: Real, D: Density> Curve<T> for Steps<T, D> {
    #[inline(always)]
    fn at<S: Simd>(&self, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let (n, r) = split::<T, S>(x);
        let (a, below) = (r.abs(), r.simd_lt(T::ZERO));
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let [mut over, mut density] = [zero; 2];
        for &(j, side, sign) in &self.steps {
            let tails = D::tails::<T, S>((a * side + j) / self.width);
            over += tails.step * sign;
            density += tails.density;
        }
        let value = if self.round {
            n + below.select(-over, over)
        } else {
            below.select(n - T::ONE - over, n + over)
        };
        (value, none_at_infinity::<T, S>(x, density * self.inverse))
    }
}

/// By the Fourier series.
pub(super) struct Series<T> {
    round: bool,
    /// Of sin(2πmr) in the value, and of cos(2πmr) in the slope, m = 1, 2, …
    sines: Vec<T>,
    cosines: Vec<T>,
}

impl<T: Real> Series<T> {
    /// `characteristic(t)`: that of the kernel.
    pub(super) fn new(round: bool, characteristic: impl Fn(f64) -> f64) -> Self {
        let [mut sines, mut cosines] = [vec![], vec![]];
        for m in 1.. {
            let c = 2.0 * characteristic(2.0 * PI * f64::from(m));
            // A few bits further: the slope is small where it is least.
            if c < libm::exp(-cut::<T>()) / 64.0 {
                break;
            }
            let c = if round && m % 2 == 1 { -c } else { c };
            sines.push(T::from_f64(c / (2.0 * PI * f64::from(m))));
            cosines.push(T::from_f64(c));
        }
        Self {
            round,
            sines,
            cosines,
        }
    }
}

impl<T: Real> Curve<T> for Series<T> {
    #[inline(always)]
    fn at<S: Simd>(&self, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let (n, r) = split::<T, S>(x);
        let (a, below) = (r.abs(), r.simd_lt(T::ZERO));
        let half = T::Stripe::<S>::splat(x.token(), T::HALF);
        let sine = sine_of_turns::<T, S>(a.min(half - a));
        let half_sine = sine_of_turns::<T, S>(a * T::HALF);
        let cosine = -(half_sine * half_sine * T::TWO) + T::ONE;
        let (first, _) = clenshaw::<T, S>(&self.sines, cosine);
        let r = a + sine * first;
        let r = below.select(-r, r);
        let value = if self.round { n + r } else { n + (r - T::HALF) };
        let (first, second) = clenshaw::<T, S>(&self.cosines, cosine);
        let slope = (first * cosine - second) + T::ONE;
        (value, none_at_infinity::<T, S>(x, slope))
    }
}

/// b₁ and b₂ of Clenshaw's recurrence: Σ cₘ sin(mθ) = b₁ sin θ, Σ cₘ cos(mθ) = b₁ cos θ - b₂.
#[inline(always)]
fn clenshaw<T: Real, S: Simd>(
    coefficients: &[T],
    cosine: T::Stripe<S>,
) -> (T::Stripe<S>, T::Stripe<S>) {
    let twice = cosine + cosine;
    let [mut first, mut second] = [T::Stripe::<S>::splat(cosine.token(), T::ZERO); 2];
    for &c in coefficients.iter().rev() {
        let next = (first * twice - second) + c;
        second = first;
        first = next;
    }
    (first, second)
}

/// sin(2πb) for 0 ≤ b ≤ ¼.
#[inline(always)]
fn sine_of_turns<T: Real, S: Simd>(b: T::Stripe<S>) -> T::Stripe<S> {
    let sum = if T::MANTISSA_BITS > 23 {
        polynomial::<T, S>(&sine_series::<13>().map(T::from_f64), b * b)
    } else {
        polynomial::<T, S>(&sine_series::<8>().map(T::from_f64), b * b)
    };
    b * sum
}

/// `(-1)ⁿ (2π)²ⁿ⁺¹ / (2n + 1)!`.
const fn sine_series<const N: usize>() -> [f64; N] {
    let (mut all, mut term, mut n) = ([0.0; N], 2.0 * PI, 0);
    while n < N {
        all[n] = term;
        n += 1;
        term *= -(2.0 * PI) * (2.0 * PI) / ((2 * n) as f64 * (2 * n + 1) as f64);
    }
    all
}

/// By the sum of the uniform kernel's series.
pub(super) struct Periodic<T> {
    round: bool,
    /// The width less the integer next to it, and that integer over the width.
    fraction: T,
    whole: T,
    inverse: T,
}

impl<T: Real> Periodic<T> {
    pub(super) fn new(width: f64, round: bool) -> Self {
        let whole = libm::rint(width);
        Self {
            round,
            fraction: T::from_f64(width - whole),
            whole: T::from_f64(whole / width),
            inverse: T::from_f64(0.5 / width),
        }
    }
}

impl<T: Real> Curve<T> for Periodic<T> {
    #[inline(always)]
    fn at<S: Simd>(&self, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let (n, r) = split::<T, S>(x);
        let (a, below) = (r.abs(), r.simd_lt(T::ZERO));
        let (right, left) = (a + self.fraction, a - self.fraction);
        let wave = periodic::<T, S>(right, self.round) - periodic::<T, S>(left, self.round);
        let r = a + wave * self.inverse;
        let r = below.select(-r, r);
        let value = if self.round { n + r } else { n + (r - T::HALF) };
        let steps = if self.round {
            (right + T::HALF).floor() - (left + T::HALF).floor()
        } else {
            right.floor() - left.floor()
        };
        let slope = steps * self.inverse + self.whole;
        (value, none_at_infinity::<T, S>(x, slope))
    }
}

/// P(y), or P(y + ½).
#[inline(always)]
fn periodic<T: Real, S: Simd>(y: T::Stripe<S>, half: bool) -> T::Stripe<S> {
    let d = (y - y.round_ties_even()).abs();
    if half {
        (-(d * d) + T::from_f64(0.25)) * T::HALF
    } else {
        d * (-d + T::ONE) * T::HALF
    }
}
