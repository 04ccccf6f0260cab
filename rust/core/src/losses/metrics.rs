//! Smooth stand-ins for metrics that have no gradient: accuracy, F1, argmax, and the set of the k largest.
//!
//! With p = softmax(x/T), but for F1, where p = sigmoid(x/T):
//!
//! * **smooth_accuracy**: `⟨y, p⟩`, the probability of the label; gradient `p (y - ⟨y, p⟩)/T`.
//! * **smooth_f1**: `F = 2 Σ t p / Σ (t + p)`; gradient `(2 t - F) / Σ (t + p) · p (1 - p)/T`. Without positives, predicted or
//!   true, it is 0, as scikit-learn's `zero_division=0`.
//! * **soft_argmax**: `Σ i pᵢ`, i from 0; gradient `pᵢ (i - Σ i pᵢ)/T`.
//! * **soft_top_k**: q ← 0; k times `q ← q + softmax((1 - q) (x - min x))`. It adds up to k, and an entry can exceed 1.
//! * **Domain.** -∞ takes no part, nor do its targets. Scores of +∞ share the mass of a softmax, and have p = 1 in F1. A NaN
//!   makes the row NaN, and so do only -∞ where there is a softmax.
//! * **Determinism.** The same bits at every SIMD level.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::rows::{Batch, Loss, Reduction, RowTargets, Rows, Takes, Targets, each_row};
use crate::{
    batch::{PerRow, RowMap, Scores, Shape, Storage, map_rows},
    error::Error,
    kernels::Compiled,
    maps::{Mass, Shares, inverse_temperature, multiply},
    parallel::Run,
    scalar::Real,
    simd::{Sum, exp, load_padded, store_part},
};

/// The mass that `softmax(x / temperature)` gives to the target of every row. Returns the reduction.
///
/// # Errors
/// As [`super::cross_entropy()`].
pub fn smooth_accuracy<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    temperature: f64,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<f64, Error> {
    let inverse = inverse_temperature::<E::Compute>(temperature)?;
    each_row(run, batch, &Accuracy { inverse }, values, gradient)
}

/// The F1 score of `sigmoid(x / temperature)` in every row, against lists of labels or numbers from 0 to 1. Returns the
/// reduction.
///
/// # Errors
/// [`Error::Domain`] unless the temperature is finite and positive, or for targets outside [0, 1];
/// [`Error::Unsupported`] for one label a row; else as [`super::cross_entropy()`].
pub fn smooth_f1<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    temperature: f64,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<f64, Error> {
    let inverse = inverse_temperature::<E::Compute>(temperature)?;
    each_row(run, batch, &F1 { inverse }, values, gradient)
}

/// The mean position of `softmax(x / temperature)` in every row; positions count from 0.
///
/// # Errors
/// [`Error::Domain`] unless the temperature is finite and positive; [`Error::Empty`] and [`Error::Length`] if the shapes do
/// not fit; [`Error::Interrupted`].
pub fn soft_argmax<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    temperature: f64,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<(), Error> {
    let inverse = inverse_temperature::<E::Compute>(temperature)?;
    let batch = beside(*scores, Targets::Labels(&[]));
    each_row(run, &batch, &Argmax { inverse }, values, gradient).map(drop)
}

/// The k largest of every row, softly: k steps, each of which adds the softmax of the scores, less by what they have.
///
/// # Errors
/// [`Error::Domain`] unless k is from 1 to the number of scores; else as [`soft_argmax`].
pub fn soft_top_k<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    k: usize,
    out: &mut [E],
) -> Result<(), Error> {
    map_rows(run, scores, out, &TopK::new(k, scores.shape)?)
}

/// The product of the vector g with the Jacobian of [`soft_top_k`] at x; among equal smallest scores, the first is that
/// which is subtracted.
///
/// # Errors
/// As [`soft_top_k`].
pub fn soft_top_k_vjp<E: Storage>(
    run: &mut Run<'_>,
    shape: Shape,
    (x, g): (&[E], &[E]),
    k: usize,
    out: &mut [E],
) -> Result<(), Error> {
    let top_k = TopK::new(k, shape)?;
    let batch = beside(Scores::new(shape, x), Targets::Dense(g));
    let mut values = vec![0.0; shape.count()];
    each_row(run, &batch, &top_k, &mut values, Some(out)).map(drop)
}

/// Scores and what lies beside them.
fn beside<'a, E>(scores: Scores<'a, E>, targets: Targets<'a, E>) -> Batch<'a, E> {
    Batch {
        scores,
        targets,
        weights: PerRow::All(1.0),
        ignore: None,
        reduction: Reduction::None,
    }
}

#[derive(Clone, Copy)]
struct Accuracy<T> {
    inverse: T,
}

impl<T: Compiled> Loss<T> for Accuracy<T> {
    const TAKES: Takes = Takes::Distributions;

    fn rows(&self, level: Level, rows: Rows<'_, T>, scratch: &mut Vec<T>) {
        (T::kernels().losses.metrics.accuracy)(level, *self, rows, scratch);
    }
}

#[derive(Clone, Copy)]
struct F1<T> {
    inverse: T,
}

impl<T: Compiled> Loss<T> for F1<T> {
    const TAKES: Takes = Takes::Fractions;

    fn rows(&self, level: Level, rows: Rows<'_, T>, _: &mut Vec<T>) {
        (T::kernels().losses.metrics.f1)(level, *self, rows);
    }
}

#[derive(Clone, Copy)]
struct Argmax<T> {
    inverse: T,
}

impl<T: Compiled> Loss<T> for Argmax<T> {
    const TAKES: Takes = Takes::Nothing;

    fn rows(&self, level: Level, rows: Rows<'_, T>, scratch: &mut Vec<T>) {
        (T::kernels().losses.metrics.argmax)(level, *self, rows, scratch);
    }
}

#[derive(Clone, Copy)]
struct TopK {
    k: usize,
}

impl TopK {
    fn new(k: usize, shape: Shape) -> Result<Self, Error> {
        if k == 0 || k > shape.n {
            return Err(Error::Integer {
                argument: "k",
                domain: "from 1 to the number of scores",
                value: k as i64,
            });
        }
        Ok(Self { k })
    }
}

impl<T: Compiled> RowMap<T> for TopK {
    const EXCLUDED: T = T::ZERO;

    fn rows(&self, level: Level, _: usize, n: usize, x: &[T], y: &mut [T], kernel: &mut Vec<T>) {
        (T::kernels().losses.metrics.top_k)(level, *self, n, x, y, kernel);
    }

    fn long_row(&self, run: &mut Run<'_>, _: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let kernel = &mut Vec::new();
        (T::kernels().losses.metrics.top_k)(run.level, *self, x.len(), x, y, kernel);
        Ok(())
    }
}

/// The gradient, with g in the place of targets.
impl<T: Compiled> Loss<T> for TopK {
    const TAKES: Takes = Takes::Numbers;

    fn rows(&self, level: Level, rows: Rows<'_, T>, scratch: &mut Vec<T>) {
        (T::kernels().losses.metrics.top_k_vjp)(level, *self, rows, scratch);
    }
}

/// The kernels for values of type T.
pub(super) struct Kernels<T> {
    accuracy: fn(Level, Accuracy<T>, Rows<'_, T>, &mut Vec<T>),
    f1: fn(Level, F1<T>, Rows<'_, T>),
    argmax: fn(Level, Argmax<T>, Rows<'_, T>, &mut Vec<T>),
    top_k: Map<T>,
    top_k_vjp: fn(Level, TopK, Rows<'_, T>, &mut Vec<T>),
}

/// Maps contiguous rows of n values; the vector is the kernel's scratch.
type Map<T> = fn(Level, TopK, usize, &[T], &mut [T], &mut Vec<T>);

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        accuracy: |level, score, rows, scratch| {
            dispatch!(level, simd => score.all(simd, rows, scratch));
        },
        f1: |level, score, rows| dispatch!(level, simd => score.all(simd, rows)),
        argmax: |level, score, rows, scratch| {
            dispatch!(level, simd => score.all(simd, rows, scratch));
        },
        top_k: |level, top_k, n, x, y, kernel| {
            dispatch!(level, simd => top_k.map(simd, n, x, y, kernel));
        },
        top_k_vjp: |level, top_k, rows, kernel| {
            dispatch!(level, simd => top_k.pull(simd, rows, kernel));
        },
    };
}

/// Writes softmax(x/T), and returns what it was made of. A row that has none becomes NaN.
#[inline(always)]
fn softmax<S: Simd, T: Real>(simd: S, x: &[T], inverse: T, p: &mut [T]) -> Mass<T> {
    let mass = Mass::of::<S, true, true>(simd, x, inverse, p);
    if mass.max.is_finite() {
        multiply(simd, p, T::ONE / mass.lifted());
    } else {
        Shares::of_row(x, T::ONE).write(x, p);
    }
    mass
}

/// Where the mass of a row goes: to its gradient, or to scratch.
#[inline(always)]
fn room<'a, T: Real>(
    n: usize,
    row: usize,
    gradient: &'a mut Option<&mut [T]>,
    scratch: &'a mut Vec<T>,
) -> &'a mut [T] {
    match gradient {
        Some(gradient) => &mut gradient[row * n..(row + 1) * n],
        None => {
            scratch.resize(n, T::ZERO);
            scratch
        }
    }
}

impl<T: Real> Accuracy<T> {
    #[simd]
    fn all<S: Simd>(self, simd: S, rows: Rows<'_, T>, scratch: &mut Vec<T>) {
        let Rows {
            n,
            x,
            targets,
            mut gradient,
            values,
            ..
        } = rows;
        let with_gradient = gradient.is_some();
        for (row, (x, value)) in x.chunks_exact(n).zip(values).enumerate() {
            *value = match targets {
                RowTargets::Labels(labels) if !with_gradient => {
                    let mass = Mass::of::<S, true, false>(simd, x, self.inverse, &mut []);
                    if mass.max.is_finite() {
                        mass.share(simd, (x[labels[row]] - mass.max) * self.inverse)
                    } else {
                        Shares::of_row(x, T::ONE).at(x[labels[row]])
                    }
                }
                RowTargets::Labels(labels) => {
                    let p = room(n, row, &mut gradient, scratch);
                    self.of_label::<S>(simd, x, labels[row], p)
                }
                RowTargets::Dense(y) => {
                    let p = room(n, row, &mut gradient, scratch);
                    let y = &y[row * n..(row + 1) * n];
                    self.of_distribution::<S>(simd, x, y, p, with_gradient)
                }
            }
            .to_f64();
        }
    }

    #[inline(always)]
    fn of_label<S: Simd>(self, simd: S, x: &[T], label: usize, to: &mut [T]) -> T {
        let mass = softmax::<S, T>(simd, x, self.inverse, to);
        // p as it is without a gradient, and 1 - p with the digits that a difference would lose.
        let (p, beside) = if mass.max.is_finite() {
            let z = (x[label] - mass.max) * self.inverse;
            (mass.share(simd, z), mass.beside(simd, z))
        } else {
            (to[label], T::ONE - to[label])
        };
        multiply(simd, to, -p * self.inverse);
        to[label] = p * beside * self.inverse;
        p
    }

    #[inline(always)]
    fn of_distribution<S: Simd>(
        self,
        simd: S,
        x: &[T],
        y: &[T],
        p: &mut [T],
        with_gradient: bool,
    ) -> T {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        softmax::<S, T>(simd, x, self.inverse, p);
        let mut sum = Sum::<T, S>::new(simd);
        for (p, y) in p.chunks(T::LANES).zip(y.chunks(T::LANES)) {
            let p = load_padded::<T, S>(simd, p, T::ZERO);
            let y = load_padded::<T, S>(simd, y, T::ZERO);
            sum.add(p.simd_eq(T::ZERO).select(zero, p * y));
        }
        let mean = sum.total();
        if with_gradient {
            for (to, y) in p.chunks_mut(T::LANES).zip(y.chunks(T::LANES)) {
                let p = load_padded::<T, S>(simd, to, T::ZERO);
                let y = load_padded::<T, S>(simd, y, T::ZERO);
                let value = p * (y - mean) * self.inverse;
                store_part::<T, S>(p.simd_eq(T::ZERO).select(zero, value), to);
            }
        }
        mean
    }
}

impl<T: Real> F1<T> {
    #[simd]
    fn all<S: Simd>(self, simd: S, rows: Rows<'_, T>) {
        let Rows {
            n,
            x,
            targets,
            mut gradient,
            values,
            ..
        } = rows;
        let RowTargets::Dense(t) = targets else {
            return; // refused at the door
        };
        let rows = x.chunks_exact(n).zip(t.chunks_exact(n)).zip(values);
        for (row, ((x, t), value)) in rows.enumerate() {
            let (mut hits, mut all) = (Sum::<T, S>::new(simd), Sum::<T, S>::new(simd));
            for (x, t) in x.chunks(T::LANES).zip(t.chunks(T::LANES)) {
                let Odds { p, t, .. } = self.odds::<S>(simd, x, t);
                hits.add(p * t);
                all.add(p + t);
            }
            let (hits, all) = (hits.total(), all.total());
            let score = if all == T::ZERO {
                T::ZERO
            } else {
                T::TWO * hits / all
            };
            *value = score.to_f64();
            let Some(gradient) = gradient.as_deref_mut() else {
                continue;
            };
            let to = &mut gradient[row * n..(row + 1) * n];
            if all == T::ZERO {
                to.fill(T::ZERO);
                continue;
            }
            let factor = self.inverse / all;
            let stripes = x.chunks(T::LANES).zip(t.chunks(T::LANES));
            for ((x, t), to) in stripes.zip(to.chunks_mut(T::LANES)) {
                let Odds { p, q, t } = self.odds::<S>(simd, x, t);
                store_part::<T, S>((t * T::TWO - score) * (p * q) * factor, to);
            }
        }
    }

    #[inline(always)]
    fn odds<S: Simd>(self, simd: S, x: &[T], t: &[T]) -> Odds<T, S> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let x = load_padded::<T, S>(simd, x, T::NEG_INFINITY);
        let t = load_padded::<T, S>(simd, t, T::ZERO);
        let e = exp::<T, S>(x.abs() * -self.inverse);
        let (large, small) = (
            T::Stripe::<S>::splat(simd, T::ONE) / (e + T::ONE),
            e / (e + T::ONE),
        );
        let positive = x.simd_gt(T::ZERO);
        let absent = x.simd_eq(T::NEG_INFINITY);
        Odds {
            p: positive.select(large, small),
            q: positive.select(small, large),
            t: absent.select(zero, t),
        }
    }
}

/// p = sigmoid(x/T), q = 1 - p and the targets of the scores that take part; p and t of others are 0.
struct Odds<T: Real, S: Simd> {
    p: T::Stripe<S>,
    q: T::Stripe<S>,
    t: T::Stripe<S>,
}

impl<T: Real> Argmax<T> {
    #[simd]
    fn all<S: Simd>(self, simd: S, rows: Rows<'_, T>, scratch: &mut Vec<T>) {
        let Rows {
            n,
            x,
            mut gradient,
            values,
            ..
        } = rows;
        let with_gradient = gradient.is_some();
        let mut lanes = T::Stripe::<S>::splat(simd, T::ZERO);
        for (k, lane) in lanes.as_mut_slice().iter_mut().enumerate() {
            *lane = T::from_f64(k as f64);
        }
        for (row, (x, value)) in x.chunks_exact(n).zip(values).enumerate() {
            let p = room(n, row, &mut gradient, scratch);
            let mass = softmax::<S, T>(simd, x, self.inverse, p);
            // Positions are relative to the largest score, so that a mean near it keeps its digits.
            let origin = x.iter().position(|&x| x == mass.max).unwrap_or(0) as f64;
            let mut sum = Sum::<T, S>::new(simd);
            for (k, p) in p.chunks(T::LANES).enumerate() {
                let offset = lanes + T::from_f64((k * T::LANES) as f64 - origin);
                sum.add(load_padded::<T, S>(simd, p, T::ZERO) * offset);
            }
            let mean = sum.total();
            *value = origin + mean.to_f64();
            if with_gradient {
                for (k, to) in p.chunks_mut(T::LANES).enumerate() {
                    let offset = lanes + T::from_f64((k * T::LANES) as f64 - origin);
                    let p = load_padded::<T, S>(simd, to, T::ZERO);
                    store_part::<T, S>(p * (offset - mean) * self.inverse, to);
                }
            }
        }
    }
}

impl TopK {
    #[simd]
    fn map<S: Simd, T: Real>(self, simd: S, n: usize, x: &[T], y: &mut [T], kernel: &mut Vec<T>) {
        kernel.resize(3 * n, T::ZERO);
        let (z, kernel) = kernel.split_at_mut(n);
        let (left, p) = kernel.split_at_mut(n);
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            if !raise(x, z) {
                Shares::of_row(x, T::from_f64(self.k as f64)).write(x, y);
                continue;
            }
            y.fill(T::ZERO);
            for _ in 0..self.k {
                step(simd, z, y, left, p);
            }
        }
    }

    #[simd]
    fn pull<S: Simd, T: Real>(self, simd: S, rows: Rows<'_, T>, kernel: &mut Vec<T>) {
        let Rows {
            n,
            x,
            targets,
            gradient,
            ..
        } = rows;
        let (RowTargets::Dense(g), Some(gradient)) = (targets, gradient) else {
            return; // both are there
        };
        // The p of a block of steps; the q of earlier ones is kept where a block begins, and their p computed again.
        let block = self.k.isqrt();
        let blocks = self.k.div_ceil(block);
        kernel.resize((4 + block + blocks) * n, T::ZERO);
        let (z, kernel) = kernel.split_at_mut(n);
        let (left, kernel) = kernel.split_at_mut(n);
        let (q, kernel) = kernel.split_at_mut(n);
        let (own, kernel) = kernel.split_at_mut(n);
        let (steps, kept) = kernel.split_at_mut(block * n);
        let rows = x.chunks_exact(n).zip(g.chunks_exact(n));
        for ((x, g), to) in rows.zip(gradient.chunks_exact_mut(n)) {
            if !raise(x, z) {
                // Shares of the mass do not depend on the scores.
                Shares::of_row(x, T::ZERO).write(x, to);
                continue;
            }
            q.fill(T::ZERO);
            for (i, kept) in kept.chunks_exact_mut(n).enumerate() {
                kept.copy_from_slice(q);
                for p in steps.chunks_exact_mut(n).take(self.k - i * block) {
                    step(simd, z, q, left, p);
                }
            }
            own.copy_from_slice(g);
            to.fill(T::ZERO);
            for (i, kept) in kept.chunks_exact(n).enumerate().rev() {
                let count = block.min(self.k - i * block);
                if i + 1 < blocks {
                    q.copy_from_slice(kept);
                    for p in steps.chunks_exact_mut(n) {
                        step(simd, z, q, left, p);
                    }
                }
                for p in steps.chunks_exact(n).take(count).rev() {
                    pull_step(simd, z, p, q, own, to);
                }
            }
            let mut sum = Sum::<T, S>::new(simd);
            for to in to.chunks(T::LANES) {
                sum.add(load_padded::<T, S>(simd, to, T::ZERO));
            }
            // raise() has left a 0 where the smallest score is.
            if let Some(least) = z.iter().position(|&z| z == T::ZERO) {
                to[least] -= sum.total();
            }
        }
    }
}

/// Writes `x - min x`, -∞ staying as it is; false if the largest score is not finite or there is a NaN.
fn raise<T: Real>(x: &[T], z: &mut [T]) -> bool {
    let mut least = T::INFINITY;
    for &x in x {
        if x.is_nan() || x == T::INFINITY {
            return false;
        }
        if x > T::NEG_INFINITY && x < least {
            least = x;
        }
    }
    for (x, z) in x.iter().zip(z) {
        *z = *x - least;
    }
    least < T::INFINITY
}

/// `p ← softmax((1 - q) z)`; `q ← q + p`.
#[inline(always)]
fn step<S: Simd, T: Real>(simd: S, z: &[T], q: &mut [T], left: &mut [T], p: &mut [T]) {
    let one = T::Stripe::<S>::splat(simd, T::ONE);
    let stripes = z.chunks(T::LANES).zip(q.chunks(T::LANES));
    for ((z, q), left) in stripes.zip(left.chunks_mut(T::LANES)) {
        let q = load_padded::<T, S>(simd, q, T::ZERO);
        store_part::<T, S>((one - q) * load_padded::<T, S>(simd, z, T::ZERO), left);
    }
    softmax::<S, T>(simd, left, T::ONE, p);
    for (q, p) in q.chunks_mut(T::LANES).zip(p.chunks(T::LANES)) {
        let p = load_padded::<T, S>(simd, p, T::ZERO);
        store_part::<T, S>(load_padded::<T, S>(simd, q, T::ZERO) + p, q);
    }
}

/// Takes back a step that added p to q: the gradient in q after it becomes that before it, and z's grows.
#[inline(always)]
fn pull_step<S: Simd, T: Real>(simd: S, z: &[T], p: &[T], q: &mut [T], g: &mut [T], to: &mut [T]) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let one = T::Stripe::<S>::splat(simd, T::ONE);
    let mut sum = Sum::<T, S>::new(simd);
    for (p, g) in p.chunks(T::LANES).zip(g.chunks(T::LANES)) {
        let p = load_padded::<T, S>(simd, p, T::ZERO);
        let g = load_padded::<T, S>(simd, g, T::ZERO);
        sum.add(p.simd_eq(T::ZERO).select(zero, p * g));
    }
    let mean = sum.total();
    let fixed = z.chunks(T::LANES).zip(p.chunks(T::LANES));
    let changed = q.chunks_mut(T::LANES).zip(g.chunks_mut(T::LANES));
    for (((z, p), (q, g)), to) in fixed.zip(changed).zip(to.chunks_mut(T::LANES)) {
        let z = load_padded::<T, S>(simd, z, T::ZERO);
        let p = load_padded::<T, S>(simd, p, T::ZERO);
        let before = load_padded::<T, S>(simd, q, T::ZERO) - p;
        let old = load_padded::<T, S>(simd, g, T::ZERO);
        let pulled = p.simd_eq(T::ZERO).select(zero, p * (old - mean));
        let lost = pulled.simd_eq(T::ZERO).select(zero, pulled * z);
        store_part::<T, S>(before, q);
        store_part::<T, S>(old - lost, g);
        let sum = load_padded::<T, S>(simd, to, T::ZERO) + pulled * (one - before);
        store_part::<T, S>(sum, to);
    }
}
