//! The curves but for the stairs: values and slopes of a stripe. Each is the exact function plus tails of the kernel.

use std::marker::PhantomData;

use fearless_simd::{Simd, prelude::*};

use super::{
    PiecewiseLinear,
    tails::{Density, Logistic},
};
use crate::scalar::Real;

/// A smooth function.
pub(super) trait Curve<T: Real> {
    /// Value and slope at x; nothing is promised where x is NaN.
    fn at<S: Simd>(&self, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>);
}

/// A width, or the inverse of a sharpness, kept within the normal numbers.
pub(super) fn normal<T: Real>(width: f64) -> T {
    let width = T::from_f64(width);
    if width > T::MAX {
        T::MAX
    } else if width < T::MIN_POSITIVE {
        T::MIN_POSITIVE
    } else {
        width
    }
}

/// A ramp of slope `slope` below 0 and 1 above: convolved, or as x times a smoothed step.
pub(super) struct Ramp<T, D> {
    slope: T,
    bend: T,
    width: T,
    /// `bend` times `width`.
    lift: T,
    product: bool,
    density: PhantomData<D>,
}

impl<T: Real, D> Ramp<T, D> {
    pub(super) fn new(slope: f64, width: f64, product: bool) -> Self {
        let width = normal::<T>(width);
        Self {
            slope: T::from_f64(slope),
            bend: T::from_f64(1.0 - slope),
            width,
            lift: T::from_f64((1.0 - slope) * width.to_f64()),
            product,
            density: PhantomData,
        }
    }
}

impl<T: Real, D: Density> Curve<T> for Ramp<T, D> {
    #[inline(always)]
    fn at<S: Simd>(&self, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let distance = x.abs();
        let tails = D::tails::<T, S>(distance / self.width);
        let above = x.simd_gt(T::ZERO);
        // Where it is level, x may be infinite.
        let below = if self.slope == T::ZERO {
            zero
        } else {
            x * self.slope
        };
        let line = above.select(x, below);
        let (value, change) = if self.product {
            let fall = distance * tails.step * self.bend;
            let fall = tails.step.simd_eq(T::ZERO).select(zero, fall);
            (line - fall, tails.gate * self.bend)
        } else {
            (line + tails.ramp * self.lift, tails.step * self.bend)
        };
        (value, above.select(-change + T::ONE, change + self.slope))
    }
}

/// From 0 below 0 to 1 above; or from -1, which is odd.
pub(super) struct Step<T, D> {
    width: T,
    inverse: T,
    odd: bool,
    density: PhantomData<D>,
}

impl<T: Real, D> Step<T, D> {
    pub(super) fn new(width: f64, odd: bool) -> Self {
        let width = normal::<T>(width);
        Self {
            width,
            inverse: T::ONE / width,
            odd,
            density: PhantomData,
        }
    }
}

impl<T: Real, D: Density> Curve<T> for Step<T, D> {
    #[inline(always)]
    fn at<S: Simd>(&self, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let tails = D::tails::<T, S>(x.abs() / self.width);
        let slope = tails.density * self.inverse;
        if self.odd {
            return (tails.inside.copysign(x), slope + slope);
        }
        let above = x.simd_gt(T::ZERO);
        (above.select(-tails.step + T::ONE, tails.step), slope)
    }
}

/// |x|, convolved with the logistic kernel.
pub(super) struct Absolute<T> {
    pub(super) width: T,
}

impl<T: Real> Curve<T> for Absolute<T> {
    #[inline(always)]
    fn at<S: Simd>(&self, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let distance = x.abs();
        let tails = Logistic::tails::<T, S>(distance / self.width);
        let value = distance + tails.ramp * self.width * T::TWO;
        (value, tails.inside.copysign(x))
    }
}

/// `√(x² + ε²)`.
pub(super) struct Root<T> {
    pub(super) least: T,
}

impl<T: Real> Curve<T> for Root<T> {
    #[inline(always)]
    fn at<S: Simd>(&self, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let one = T::Stripe::<S>::splat(x.token(), T::ONE);
        let distance = x.abs();
        let large = distance.max(self.least);
        let ratio = distance.min(self.least) / large;
        let root = (ratio * ratio + T::ONE).sqrt();
        let share = distance.simd_ge(self.least).select(one, ratio);
        (large * root, (share / root).copysign(x))
    }
}

/// Pieces of lines, with their breaks smoothed.
pub(super) struct Pieces<T, D> {
    width: T,
    inverse: T,
    /// The value at the first break from the left, and the slope there.
    start: (T, T),
    breaks: Vec<Break<T>>,
    density: PhantomData<D>,
}

/// A break: where it is, value and slope on its right, and how they change.
struct Break<T> {
    at: T,
    value: T,
    slope: T,
    jump: T,
    bend: T,
}

impl<T: Real, D> Pieces<T, D> {
    pub(super) fn new(pieces: &PiecewiseLinear<'_>, width: f64) -> Self {
        let width = normal::<T>(width);
        let mut value = pieces.value;
        let mut breaks = Vec::with_capacity(pieces.breaks.len());
        for (i, &at) in pieces.breaks.iter().enumerate() {
            let (before, slope) = (pieces.slopes[i], pieces.slopes[i + 1]);
            if i > 0 {
                value += before * (at - pieces.breaks[i - 1]);
            }
            value += pieces.jumps[i];
            breaks.push(Break {
                at: T::from_f64(at),
                value: T::from_f64(value),
                slope: T::from_f64(slope),
                jump: T::from_f64(pieces.jumps[i]),
                bend: T::from_f64(slope - before),
            });
        }
        Self {
            width,
            inverse: T::ONE / width,
            start: (T::from_f64(pieces.value), T::from_f64(pieces.slopes[0])),
            breaks,
            density: PhantomData,
        }
    }
}

impl<T: Real, D: Density> Curve<T> for Pieces<T, D> {
    #[inline(always)]
    fn at<S: Simd>(&self, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let simd = x.token();
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let mut origin = T::Stripe::<S>::splat(simd, self.breaks[0].at);
        let mut value = T::Stripe::<S>::splat(simd, self.start.0);
        let mut slope = T::Stripe::<S>::splat(simd, self.start.1);
        let [mut more, mut steeper] = [zero; 2];
        for b in &self.breaks {
            let distance = x - b.at;
            let tails = D::tails::<T, S>(distance.abs() / self.width);
            let right = distance.simd_ge(T::ZERO);
            origin = right.select(T::Stripe::<S>::splat(simd, b.at), origin);
            value = right.select(T::Stripe::<S>::splat(simd, b.value), value);
            slope = right.select(T::Stripe::<S>::splat(simd, b.slope), slope);
            let over = right.select(-tails.step, tails.step);
            more += tails.ramp * self.width * b.bend + over * b.jump;
            steeper += over * b.bend + tails.density * self.inverse * b.jump;
        }
        // Where the line is level, x may be infinite.
        let along = slope.simd_eq(T::ZERO).select(zero, slope * (x - origin));
        (value + along + more, slope + steeper)
    }
}
