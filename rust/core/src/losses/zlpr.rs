//! zlpr, the multi-label softmax cross entropy (Su 2020; Su et al. 2022):
//! `log(1 + Σ (1 - tᵢ) e^{sᵢ}) + log(1 + Σ tᵢ e^{-sᵢ})`, to predict the labels with s > 0.
//!
//! * **Targets.** Numbers from 0 to 1 or lists of labels. The loss of soft ones is least at t = sigmoid(2s), where it
//!   is `2 log(1 + Σ √(t(1 - t)))`.
//! * **Threshold.** A score s₀ takes the place of the 0: `log(e^{s₀} + Σ (1 - tᵢ) e^{sᵢ}) + log(e^{-s₀} + Σ tᵢ
//!   e^{-sᵢ})`, the loss of s - s₀.
//! * **Margin.** `log(1 + Σ (1 - tᵢ) e^{g(sᵢ + m)} · Σ tᵢ e^{-g sᵢ})`: one logarithm over all pairs, in which no
//!   threshold shows.
//! * **Domain.** A term with the factor 0 is absent, whatever its score. A score that makes its term infinite (-∞ of a
//!   label, +∞ of another) makes the loss +∞, and the gradient is that of a softmax whose mass such scores share. A NaN
//!   makes the row NaN.
//! * **Precision.** The sums are shifted by their largest terms, so no score is too large; small losses keep their
//!   digits.
//! * **Determinism.** The same bits at every SIMD level.
//!
//! ```text
//! M ← 0, or where that is too far: the largest exponents;  A ← Σ (1 - t) e^{s - M};  B ← Σ t e^{-s - M'}
//! loss ← M + log(e^{-M} + A) + M' + log(e^{-M'} + B)
//! ∂s ← (1 - t) e^{s - M} / (e^{-M} + A) - t e^{-s - M'} / (e^{-M'} + B)
//! ```
//!
//! 1. M = 0 is tried first: scores are seldom large, so that one pass finds the value, and a second the gradient.
//! 2. Where all targets are 0 or 1, a score takes part in one of the sums, and one exponential is enough.
//! 3. exp is lifted by a power of two, which the gradient removes.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::rows::{Batch, Loss, RowTargets, Rows, Takes, each_row};
use crate::{
    batch::{PerRow, Storage},
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{Sum, exp_lifted, load_padded, store_part, whole_stripes, whole_stripes_mut},
};

/// The zlpr loss of every row; the margin comes with its scale. Returns the reduction.
///
/// # Errors
/// [`Error::Domain`] unless the thresholds are finite, the margin is finite, and the scale is finite and positive;
/// [`Error::Domain`] for targets outside [0, 1], a label that no score has, or a weight below 0;
/// [`Error::Unsupported`] for one label a row; [`Error::Empty`] and [`Error::Length`] if the shapes do not fit;
/// [`Error::Interrupted`].
pub fn zlpr<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    threshold: PerRow<'_>,
    margin: Option<(f64, f64)>,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<f64, Error> {
    let fits = |value: f64| E::Compute::from_f64(value).is_finite();
    let rows = batch.scores.shape.count();
    threshold.check("threshold", rows, "finite", fits)?;
    if let Some((margin, scale)) = margin {
        PerRow::All(margin).check("margin", rows, "finite", f64::is_finite)?;
        let positive = |scale: f64| fits(scale) && E::Compute::from_f64(scale) > E::Compute::ZERO;
        PerRow::All(scale).check("scale", rows, "finite and positive", positive)?;
    }
    each_row(run, batch, &Zlpr { threshold, margin }, values, gradient)
}

pub(super) struct Zlpr<'a> {
    threshold: PerRow<'a>,
    /// And the scale.
    margin: Option<(f64, f64)>,
}

impl<T: Compiled> Loss<T> for Zlpr<'_> {
    const TAKES: Takes = Takes::Fractions;

    fn rows(&self, level: Level, rows: Rows<'_, T>, _: &mut Vec<T>) {
        (T::kernels().losses.zlpr.rows)(level, self, rows);
    }
}

/// The kernels of zlpr.
pub(crate) struct Kernels<T> {
    rows: fn(Level, &Zlpr<'_>, Rows<'_, T>),
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        rows: |level, zlpr, rows| dispatch!(level, simd => zlpr_rows(simd, zlpr, rows)),
    };
}

#[simd]
fn zlpr_rows<S: Simd, T: Real>(simd: S, zlpr: &Zlpr<'_>, rows: Rows<'_, T>) {
    let Rows {
        first,
        n,
        x,
        targets,
        mut gradient,
        values,
    } = rows;
    let RowTargets::Dense(targets) = targets else {
        return; // refused at the door
    };
    for (i, value) in values.iter_mut().enumerate() {
        let at = i * n..(i + 1) * n;
        let row = Row {
            x: &x[at.clone()],
            t: &targets[at.clone()],
            threshold: T::from_f64(zlpr.threshold.of(first + i)),
            margin: zlpr.margin,
        };
        let gradient = gradient.as_deref_mut().map(|all| &mut all[at]);
        *value = if row.is_hard(simd) {
            row.value::<S, true>(simd, gradient)
        } else {
            row.value::<S, false>(simd, gradient)
        };
    }
}

/// Exponents up to this need no shift: the sums are far from overflow, and so are their inverses.
const LARGE: f64 = 40.0;

/// Under a margin, a sum below this is computed again from its largest term: what was rounded to zero could show.
const SMALL: f64 = 1e-19;

/// One row.
struct Row<'a, T> {
    x: &'a [T],
    t: &'a [T],
    threshold: T,
    margin: Option<(f64, f64)>,
}

/// The sums over the labels' opposites and over the labels, lifted, and the largest exponent.
struct Sums<T> {
    negative: T,
    positive: T,
    largest: T,
}

impl<T: Real> Row<'_, T> {
    /// Whether all targets are 0 or 1.
    #[inline(always)]
    fn is_hard<S: Simd>(&self, simd: S) -> bool {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let mut soft = zero;
        let (stripes, rest) = whole_stripes(self.t);
        for stripe in stripes.chunks_exact(T::LANES) {
            let t = T::Stripe::<S>::from_slice(simd, stripe);
            soft = (t.simd_eq(zero) | t.simd_eq(one)).select(soft, one);
        }
        let t = load_padded::<T, S>(simd, rest, T::ZERO);
        soft = (t.simd_eq(zero) | t.simd_eq(one)).select(soft, one);
        soft.simd_eq(zero).all_true()
    }

    #[inline(always)]
    fn scale(&self) -> T {
        self.margin.map_or(T::ONE, |(_, scale)| T::from_f64(scale))
    }

    #[inline(always)]
    fn value<S: Simd, const HARD: bool>(&self, simd: S, mut gradient: Option<&mut [T]>) -> f64 {
        let lift = T::LIFT_FACTOR.to_f64();
        let mut shifts = [T::ZERO; 2];
        let sums = self.sums::<S, HARD, false>(simd, shifts, gradient.as_deref_mut());
        let sum_of =
            |sums: &Sums<T>| [sums.negative.to_f64() / lift, sums.positive.to_f64() / lift];
        let mut both = sum_of(&sums);
        let far = sums.largest > T::from_f64(LARGE)
            || self.margin.is_some() && both.iter().any(|&sum| sum < SMALL);
        if far {
            shifts = self.largest_exponents(simd);
            let sums = self.sums::<S, HARD, true>(simd, shifts, gradient.as_deref_mut());
            both = sum_of(&sums);
        }
        let (value, factors) = combine(self.margin, shifts.map(T::to_f64), both);
        if let Some(gradient) = gradient {
            let factors = factors.map(|factor| T::from_f64(factor / lift));
            if HARD {
                multiply_by_sign(simd, factors, gradient);
            } else if far {
                self.soft_gradient::<S, true>(simd, shifts, factors, gradient);
            } else {
                self.soft_gradient::<S, false>(simd, shifts, factors, gradient);
            }
        }
        value
    }

    /// The largest exponents of both sums; without a margin at least 0, for the 1 is among the terms.
    #[inline(always)]
    fn largest_exponents<S: Simd>(&self, simd: S) -> [T; 2] {
        let least = T::Stripe::<S>::splat(simd, T::NEG_INFINITY);
        let (mut negative, mut positive) = (least, least);
        for (x, t) in self.x.chunks(T::LANES).zip(self.t.chunks(T::LANES)) {
            // Past the end, a target of NaN takes part in neither.
            let z = (load_padded::<T, S>(simd, x, T::ZERO) - self.threshold) * self.scale();
            let t = load_padded::<T, S>(simd, t, T::NAN);
            negative = negative.max(t.simd_lt(T::ONE).select(z, least));
            positive = positive.max(t.simd_gt(T::ZERO).select(-z, least));
        }
        let least = if self.margin.is_some() {
            T::NEG_INFINITY
        } else {
            T::ZERO
        };
        let mut largest = [T::fold_max(negative), T::fold_max(positive)];
        for shift in &mut largest {
            *shift = if *shift > least { *shift } else { T::ZERO };
        }
        largest
    }

    /// The sums. Leaves the exponentials in the gradient: hard targets' with the sign of the gradient; of soft ones
    /// those of the negative sum, where there is no shift.
    #[inline(always)]
    fn sums<S: Simd, const HARD: bool, const SHIFTED: bool>(
        &self,
        simd: S,
        shifts: [T; 2],
        gradient: Option<&mut [T]>,
    ) -> Sums<T> {
        match gradient {
            Some(gradient) => self.sums_to::<S, HARD, SHIFTED, true>(simd, shifts, gradient),
            None => self.sums_to::<S, HARD, SHIFTED, false>(simd, shifts, &mut []),
        }
    }

    #[inline(always)]
    fn sums_to<S: Simd, const HARD: bool, const SHIFTED: bool, const STORE: bool>(
        &self,
        simd: S,
        shifts: [T; 2],
        gradient: &mut [T],
    ) -> Sums<T> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let mut largest = T::Stripe::<S>::splat(simd, T::NEG_INFINITY);
        let (mut negative, mut positive) = (Sum::<T, S>::new(simd), Sum::<T, S>::new(simd));
        let (x_stripes, x_rest) = whole_stripes(self.x);
        let (t_stripes, t_rest) = whole_stripes(self.t);
        let group = Sum::<T, S>::GROUP * T::LANES;
        for (index, (x, t)) in x_stripes
            .chunks(group)
            .zip(t_stripes.chunks(group))
            .enumerate()
        {
            let (mut negative_part, mut positive_part) = (zero, zero);
            let mut at = index * group;
            for (x, t) in x.chunks_exact(T::LANES).zip(t.chunks_exact(T::LANES)) {
                let x = T::Stripe::<S>::from_slice(simd, x);
                let t = T::Stripe::<S>::from_slice(simd, t);
                let terms = self.terms::<S, HARD, SHIFTED>(x, t, shifts);
                negative_part += terms.negative;
                positive_part += terms.positive;
                largest = largest.max(terms.exponent);
                if STORE {
                    terms.stored.store_slice(&mut gradient[at..at + T::LANES]);
                    at += T::LANES;
                }
            }
            negative.add(negative_part);
            positive.add(positive_part);
        }
        if !x_rest.is_empty() {
            let x = load_padded::<T, S>(simd, x_rest, T::NEG_INFINITY);
            let t = load_padded::<T, S>(simd, t_rest, T::ZERO);
            let terms = self.terms::<S, HARD, SHIFTED>(x, t, shifts);
            negative.add(terms.negative);
            positive.add(terms.positive);
            // What was filled up would look large in soft rows.
            let largest_of_rest = &terms.exponent.as_slice()[..x_rest.len()];
            for (to, &exponent) in largest.as_mut_slice().iter_mut().zip(largest_of_rest) {
                if exponent > *to {
                    *to = exponent;
                }
            }
            if STORE {
                store_part::<T, S>(terms.stored, &mut gradient[x_stripes.len()..]);
            }
        }
        Sums {
            negative: negative.total(),
            positive: positive.total(),
            largest: T::fold_max(largest),
        }
    }

    /// The terms of both sums.
    #[inline(always)]
    fn terms<S: Simd, const HARD: bool, const SHIFTED: bool>(
        &self,
        x: T::Stripe<S>,
        t: T::Stripe<S>,
        [negative_shift, positive_shift]: [T; 2],
    ) -> Terms<T, S> {
        let simd = x.token();
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let z = (x - self.threshold) * self.scale();
        if HARD {
            let label = t.simd_gt(T::ZERO);
            let mut exponent = label.select(-z, z);
            if SHIFTED {
                let shift = label.select(
                    T::Stripe::<S>::splat(simd, positive_shift),
                    T::Stripe::<S>::splat(simd, negative_shift),
                );
                exponent = less::<T, S>(exponent, shift);
            }
            let e = exp_lifted::<T, S>(exponent);
            return Terms {
                negative: label.select(zero, e),
                positive: label.select(e, zero),
                stored: label.select(-e, e),
                exponent,
            };
        }
        let (e, inverse) = if SHIFTED {
            (
                exp_lifted::<T, S>(less::<T, S>(z, T::Stripe::<S>::splat(simd, negative_shift))),
                exp_lifted::<T, S>(less::<T, S>(
                    -z,
                    T::Stripe::<S>::splat(simd, positive_shift),
                )),
            )
        } else {
            let e = exp_lifted::<T, S>(z);
            (e, inverse_of_lifted::<T, S>(e))
        };
        Terms {
            negative: t.simd_eq(one).select(zero, (one - t) * e),
            positive: t.simd_eq(zero).select(zero, t * inverse),
            stored: e,
            exponent: z.abs(),
        }
    }

    #[inline(always)]
    fn soft_gradient<S: Simd, const SHIFTED: bool>(
        &self,
        simd: S,
        shifts: [T; 2],
        factors: [T; 2],
        gradient: &mut [T],
    ) {
        let stripes = self.x.chunks(T::LANES).zip(self.t.chunks(T::LANES));
        for ((x, t), to) in stripes.zip(gradient.chunks_mut(T::LANES)) {
            let t = load_padded::<T, S>(simd, t, T::ZERO);
            let (negative, positive) = if SHIFTED {
                let x = load_padded::<T, S>(simd, x, T::ZERO);
                let terms = self.terms::<S, false, true>(x, t, shifts);
                (terms.negative, terms.positive)
            } else {
                let e = load_padded::<T, S>(simd, to, T::ZERO);
                ((-t + T::ONE) * e, t * inverse_of_lifted::<T, S>(e))
            };
            store_part::<T, S>(negative * factors[0] - positive * factors[1], to);
        }
    }
}

/// What a stripe adds to the sums.
struct Terms<T: Real, S: Simd> {
    negative: T::Stripe<S>,
    positive: T::Stripe<S>,
    /// What the gradient is made of.
    stored: T::Stripe<S>,
    /// What must not be large.
    exponent: T::Stripe<S>,
}

/// `a - b`, 0 also where both are infinite.
#[inline(always)]
fn less<T: Real, S: Simd>(a: T::Stripe<S>, b: T::Stripe<S>) -> T::Stripe<S> {
    a.simd_eq(b)
        .select(T::Stripe::<S>::splat(a.token(), T::ZERO), a - b)
}

/// `2^LIFT e^{-x}` of `2^LIFT e^x`.
#[inline(always)]
fn inverse_of_lifted<T: Real, S: Simd>(e: T::Stripe<S>) -> T::Stripe<S> {
    let lift = T::Stripe::<S>::splat(e.token(), T::LIFT_FACTOR);
    lift / e * T::LIFT_FACTOR
}

/// Multiplies what is below 0 by the second factor, and all else by the first.
#[inline(always)]
fn multiply_by_sign<S: Simd, T: Real>(simd: S, [above, below]: [T; 2], y: &mut [T]) {
    let above = T::Stripe::<S>::splat(simd, above);
    let below = T::Stripe::<S>::splat(simd, below);
    let (stripes, rest) = whole_stripes_mut(y);
    for y in stripes.chunks_exact_mut(T::LANES) {
        let e = T::Stripe::<S>::from_slice(simd, y);
        (e.simd_lt(T::ZERO).select(below, above) * e).store_slice(y);
    }
    let e = load_padded::<T, S>(simd, rest, T::ZERO);
    store_part::<T, S>(e.simd_lt(T::ZERO).select(below, above) * e, rest);
}

/// The loss, and what the gradient multiplies the terms of each sum by.
fn combine(margin: Option<(f64, f64)>, shifts: [f64; 2], sums: [f64; 2]) -> (f64, [f64; 2]) {
    let [negative, positive] = sums;
    if (negative + positive).is_nan() {
        return (f64::NAN, [f64::NAN; 2]);
    }
    let Some((margin, scale)) = margin else {
        let (a, b) = (log_1p(shifts[0], negative), log_1p(shifts[1], positive));
        return (a.0 + b.0, [a.1, b.1]);
    };
    if negative == 0.0 || positive == 0.0 {
        return (0.0, [0.0; 2]);
    }
    let log = shifts[0] + shifts[1] + margin * scale + libm::log(negative) + libm::log(positive);
    let e = libm::exp(-log.abs());
    let (value, share) = if log > 0.0 {
        (log + libm::log1p(e), 1.0 / (1.0 + e))
    } else {
        (libm::log1p(e), e / (1.0 + e))
    };
    (value, [scale * share / negative, scale * share / positive])
}

/// `log(1 + e^shift sum)` and its derivative by the sum, for a shift of 0 or more.
fn log_1p(shift: f64, sum: f64) -> (f64, f64) {
    if shift == 0.0 {
        return (libm::log1p(sum), 1.0 / (1.0 + sum));
    }
    let norm = libm::exp(-shift) + sum;
    (shift + libm::log(norm), 1.0 / norm)
}
