//! Fenchel-Young losses (Blondel, Martins & Niculae 2020): `Ω(y) - Ω(p) + ⟨p - y, x⟩`, p = argmax ⟨p, x⟩ - Ω(p) over the
//! simplex. The gradient is p - y.
//!
//! * **entmax**: `Ω(p) = (Σ pᵃ - 1)/(a (a - 1))`, and `Σ p ln p` at a = 1, where the loss of a label is cross entropy. For
//!   a > 1 it is exactly 0 once the target lies 1/(a - 1) above all others.
//! * **normmax**: `Ω(p) = |p|ₐ - 1`.
//! * **top-k cross entropy**: cross entropy of the softmax over the k largest scores; finite for a target that is not
//!   among them.
//! * **In a** (entmax): `dL/da = ∂ₐΩ(y) - ∂ₐΩ(p)`, for p is a maximum.
//! * **Domain.** -∞ takes no part, and gives +∞ as a target. Scores of +∞ share the mass. A NaN makes the row NaN, and so
//!   do only -∞.
//! * **Precision.** No loss is below 0. That of a label is a sum of terms that are not negative: the distance of its score
//!   from the largest, and the loss L of the largest score m, which keeps its digits when it is small. With r the mass
//!   beside m, and pₘ that of m,
//!
//! ```text
//! entmax:   L = Σ_{i≠m} pᵢᵃ/a + (1 - pₘᵃ⁻¹ (1 + (a - 1) r))/(a (a - 1))
//! normmax:  L = 1 - (1 + Σ_{i≠m} (pᵢ/pₘ)ᵃ)^{-(a-1)/a}
//! top k:    L = log(1 + r/pₘ)
//! ```
//!
//! * **Determinism.** The same bits at every SIMD level.
//! * **Cost.** The map, which writes p to the gradient or to scratch, and two or three passes over the row in cache.
//!
//! 1. For entmax, `pᵢᵃ = (a - 1) pᵢ (xᵢ - xₘ) + pₘᵃ⁻¹ pᵢ`: no power is needed but for the largest p.

use std::ops::Range;

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::rows::{Batch, Loss, RowTargets, Rows, Takes, each_row};
use crate::{
    batch::{PerRow, Storage},
    error::Error,
    kernels::Compiled,
    maps::{Keep, Method},
    parallel::{Parts, Run},
    scalar::Real,
    simd::{
        Sum, exp, exp2, ln, load_padded, log2, max, polynomial, whole_stripes, whole_stripes_mut,
    },
};

/// The Fenchel-Young loss of entmax, for every row, and its derivatives in α times the weight of the row, if there is
/// room for them: like the gradient, they are those of the reduction. Returns the reduction.
///
/// # Errors
/// [`Error::Domain`] unless every α is finite and at least 1; else as [`super::cross_entropy()`].
pub fn entmax_loss<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    alpha: PerRow<'_>,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
    alpha_slopes: Option<&mut [f64]>,
) -> Result<f64, Error> {
    let rows = batch.scores.shape.count();
    alpha.check("alpha", rows, "finite and at least 1", |a| {
        a >= 1.0 && a.is_finite()
    })?;
    let Some(slopes) = alpha_slopes else {
        return loss(run, batch, Family::Entmax, alpha, values, gradient, None);
    };
    if slopes.len() != rows {
        return Err(Error::Length {
            argument: "alpha_slopes",
            expected: rows,
            found: slopes.len(),
        });
    }
    let parts = Some(Parts::new(&mut *slopes));
    let reduced = loss(run, batch, Family::Entmax, alpha, values, gradient, parts)?;
    batch.weigh(values, slopes);
    Ok(reduced)
}

/// The Fenchel-Young loss of normmax, for every row. Returns the reduction.
///
/// # Errors
/// [`Error::Domain`] unless every α is finite and more than 1; else as [`super::cross_entropy()`].
pub fn normmax_loss<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    alpha: PerRow<'_>,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<f64, Error> {
    let rows = batch.scores.shape.count();
    alpha.check("alpha", rows, "finite and more than 1", |a| {
        a > 1.0 && a.is_finite()
    })?;
    loss(run, batch, Family::Normmax, alpha, values, gradient, None)
}

/// The cross entropy of the softmax over the k largest scores of every row, and of all scores if there are no more than
/// k. Returns the reduction.
///
/// # Errors
/// [`Error::Domain`] if k is 0; else as [`super::cross_entropy()`].
pub fn topk_cross_entropy<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    k: usize,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<f64, Error> {
    if k == 0 {
        return Err(Error::Domain {
            argument: "k",
            domain: "at least 1",
            value: 0.0,
        });
    }
    let none = PerRow::All(0.0);
    loss(run, batch, Family::TopK(k), none, values, gradient, None)
}

fn loss<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    family: Family,
    parameter: PerRow<'_>,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
    slopes: Option<Parts<'_, f64>>,
) -> Result<f64, Error> {
    let loss = FenchelYoung {
        family,
        parameter,
        slopes,
    };
    each_row(run, batch, &loss, values, gradient)
}

/// The map that a loss belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Entmax,
    Normmax,
    TopK(usize),
}

/// Ω, by its α.
#[derive(Clone, Copy)]
struct Omega {
    family: Family,
    parameter: f64,
}

impl Omega {
    /// The map.
    fn map<T: Compiled>(self, level: Level, n: usize, x: &[T], p: &mut [T], kernel: &mut Vec<T>) {
        let maps = &T::kernels().maps;
        match self.family {
            Family::Entmax => {
                let parameter = (self.parameter, Method::Auto);
                (maps.entmax.rows)(level, parameter, n, x, p, kernel);
            }
            Family::Normmax => (maps.normmax.map.rows)(level, self.parameter, n, x, p, kernel),
            Family::TopK(k) if k < n => {
                let parameter = (T::ONE, Keep::Count(k));
                (maps.top.map.rows)(level, parameter, n, x, p, kernel);
            }
            // Of all scores, it is softmax.
            Family::TopK(_) => (maps.entmax.rows)(level, (1.0, Method::Auto), n, x, p, kernel),
        }
    }
}

/// Rows that are mapped and then added up while they lie in cache, where p is not wanted: what the maps take at once.
const TOGETHER: usize = 16;

/// Rows of more values are mapped one by one.
const NARROW: usize = 512;

struct FenchelYoung<'a> {
    family: Family,
    parameter: PerRow<'a>,
    slopes: Option<Parts<'a, f64>>,
}

impl<T: Compiled> Loss<T> for FenchelYoung<'_> {
    const TAKES: Takes = Takes::Distributions;

    fn rows(&self, level: Level, rows: Rows<'_, T>, scratch: &mut Vec<T>) {
        let Rows {
            first,
            n,
            x,
            targets,
            mut gradient,
            values,
        } = rows;
        let kernels = &T::kernels().losses.fenchel_young;
        let with_gradient = gradient.is_some();
        let (mut kernel, mut wide) = (Vec::new(), Vec::new());
        let each = if n > NARROW { 1 } else { TOGETHER };
        let all = first..first + values.len();
        self.parameter.runs(all, |parameter, run| {
            let omega = Omega {
                family: self.family,
                parameter,
            };
            for start in run.clone().step_by(each) {
                let rows = start - first..run.end.min(start + each) - first;
                let own = rows.start * n..rows.end * n;
                let x = &x[own.clone()];
                let targets = part(targets, n, rows.clone());
                let p = match gradient.as_deref_mut() {
                    Some(gradient) => &mut gradient[own],
                    None => {
                        scratch.resize(x.len(), T::ZERO);
                        &mut scratch[..]
                    }
                };
                omega.map(level, n, x, p, &mut kernel);
                (kernels.values)(level, omega, n, x, p, targets, &mut values[rows.clone()]);
                if let Some(slopes) = &self.slopes {
                    // SAFETY: each row belongs to one task.
                    let slopes = unsafe { slopes.part(start, rows.len()) };
                    (kernels.slopes)(level, parameter, n, p, targets, slopes, &mut wide);
                }
                if with_gradient {
                    (kernels.subtract)(level, n, p, targets);
                }
            }
        });
    }
}

/// The targets of some rows among those of a task.
fn part<'a, T>(targets: RowTargets<'a, T>, n: usize, rows: Range<usize>) -> RowTargets<'a, T> {
    match targets {
        RowTargets::Labels(labels) => RowTargets::Labels(&labels[rows]),
        RowTargets::Dense(y) => RowTargets::Dense(&y[rows.start * n..rows.end * n]),
    }
}

/// The kernels for values of type T.
pub(super) struct Kernels<T> {
    values: Values<T>,
    slopes: Slopes<T>,
    /// Subtracts the targets from p.
    subtract: fn(Level, usize, &mut [T], RowTargets<'_, T>),
}

/// The losses of rows of n scores, from p.
type Values<T> = fn(Level, Omega, usize, &[T], &[T], RowTargets<'_, T>, &mut [f64]);

/// dL/da of rows of n entries of p, by a; the vector is the kernel's scratch.
type Slopes<T> = fn(Level, f64, usize, &[T], RowTargets<'_, T>, &mut [f64], &mut Vec<f64>);

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        values: |level, omega, n, x, p, targets, to| {
            dispatch!(level, simd => values(simd, omega, n, x, p, targets, to));
        },
        slopes: |level, alpha, n, p, targets, to, wide| {
            dispatch!(level, simd => slopes(simd, alpha, n, p, targets, to, wide));
        },
        subtract: |level, n, p, targets| {
            dispatch!(level, simd => subtract(simd, n, p, targets));
        },
    };
}

/// Only the mass beside the largest entry.
const MASS: u8 = 0;
/// And Σ p².
const LINEAR: u8 = 1;
/// And Σ p^{3/2}.
const SQUARE: u8 = 2;
/// And `Σ p (x - max)`, which gives Σ pᵃ.
const DISTANCE: u8 = 3;
/// And `Σ (p/max p)ᵃ`.
const POWER: u8 = 4;

/// Sums over a row of a distribution, without one of its largest entries.
struct Rest {
    largest: f64,
    /// How many more entries are as large; they are not in the sums.
    ties: f64,
    mass: f64,
    /// What the kind says.
    power: f64,
}

#[simd]
fn values<S: Simd, T: Real>(
    simd: S,
    omega: Omega,
    n: usize,
    x: &[T],
    p: &[T],
    targets: RowTargets<'_, T>,
    to: &mut [f64],
) {
    match (omega.family, omega.parameter) {
        (Family::Entmax, 1.0) => each::<S, T, MASS>(simd, omega, n, x, p, targets, to),
        (Family::Entmax, 2.0) => each::<S, T, LINEAR>(simd, omega, n, x, p, targets, to),
        (Family::Entmax, _) => each::<S, T, DISTANCE>(simd, omega, n, x, p, targets, to),
        (Family::Normmax, _) => each::<S, T, POWER>(simd, omega, n, x, p, targets, to),
        (Family::TopK(_), _) => each::<S, T, MASS>(simd, omega, n, x, p, targets, to),
    }
}

#[inline(always)]
fn each<S: Simd, T: Real, const KIND: u8>(
    simd: S,
    omega: Omega,
    n: usize,
    x: &[T],
    p: &[T],
    targets: RowTargets<'_, T>,
    to: &mut [f64],
) {
    for (row, (x, p)) in x.chunks_exact(n).zip(p.chunks_exact(n)).enumerate() {
        if p[0].is_nan() {
            to[row] = f64::NAN;
            continue;
        }
        let max = max::<T, S>(simd, x);
        let rest = Rest::of::<S, T, KIND>(simd, omega.parameter, max, x, p);
        let of_largest = omega.loss_of_largest(&rest);
        let value = match targets {
            RowTargets::Labels(labels) => {
                let own = x[labels[row]];
                let distance = if own == max {
                    0.0
                } else {
                    max.to_f64() - own.to_f64()
                };
                of_largest + distance
            }
            RowTargets::Dense(y) => {
                let y = &y[row * n..(row + 1) * n];
                let of_target = omega.of_target::<S, T>(simd, y);
                (of_largest + of_target) - dot::<S, T>(simd, max, x, y)
            }
        };
        to[row] = if value < 0.0 { 0.0 } else { value }; // a NaN stays
    }
}

impl Rest {
    #[inline(always)]
    fn of<S: Simd, T: Real, const KIND: u8>(
        simd: S,
        alpha: f64,
        max_x: T,
        x: &[T],
        p: &[T],
    ) -> Self {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let largest = max::<T, S>(simd, p);
        let (inverse, exponent) = (T::ONE / largest, T::from_f64(alpha));
        let (mut mass, mut power) = (Sum::<T, S>::new(simd), Sum::<T, S>::new(simd));
        let mut count = 0;
        let (x_stripes, x_rest) = whole_stripes(x);
        let (p_stripes, p_rest) = whole_stripes(p);
        let group = Sum::<T, S>::GROUP * T::LANES;
        for (x, p) in x_stripes.chunks(group).zip(p_stripes.chunks(group)) {
            let (mut some_mass, mut some_power) = (zero, zero);
            for (x, p) in x.chunks_exact(T::LANES).zip(p.chunks_exact(T::LANES)) {
                let x = T::Stripe::<S>::from_slice(simd, x);
                let p = T::Stripe::<S>::from_slice(simd, p);
                let top = p.simd_eq(largest);
                count += top.to_bitmask().count_ones();
                let p = top.select(zero, p);
                some_mass += p;
                some_power += term::<S, T, KIND>(x, p, max_x, inverse, exponent);
            }
            mass.add(some_mass);
            power.add(some_power);
        }
        if !x_rest.is_empty() {
            let x = load_padded::<T, S>(simd, x_rest, T::NEG_INFINITY);
            let p = load_padded::<T, S>(simd, p_rest, T::ZERO);
            let top = p.simd_eq(largest);
            count += top.to_bitmask().count_ones();
            let p = top.select(zero, p);
            mass.add(p);
            power.add(term::<S, T, KIND>(x, p, max_x, inverse, exponent));
        }
        Self {
            largest: largest.to_f64(),
            ties: f64::from(count) - 1.0,
            mass: mass.total().to_f64(),
            power: power.total().to_f64(),
        }
    }
}

#[inline(always)]
fn term<S: Simd, T: Real, const KIND: u8>(
    x: T::Stripe<S>,
    p: T::Stripe<S>,
    max_x: T,
    inverse: T,
    exponent: T,
) -> T::Stripe<S> {
    let zero = T::Stripe::<S>::splat(p.token(), T::ZERO);
    match KIND {
        LINEAR => p * p,
        SQUARE => p * p.sqrt(),
        DISTANCE => p.simd_eq(T::ZERO).select(zero, p * (x - max_x)),
        POWER => {
            let absent = p.simd_eq(T::ZERO);
            if absent.all_true() {
                return zero;
            }
            absent.select(zero, exp2::<T, S>(log2::<T, S>(p * inverse) * exponent))
        }
        _ => zero,
    }
}

/// `⟨y, x - max⟩`; what y leaves out counts for nothing.
#[inline(always)]
fn dot<S: Simd, T: Real>(simd: S, max: T, x: &[T], y: &[T]) -> f64 {
    let mut sum = Sum::<T, S>::new(simd);
    let (x_stripes, x_rest) = whole_stripes(x);
    let (y_stripes, y_rest) = whole_stripes(y);
    let group = Sum::<T, S>::GROUP * T::LANES;
    for (x, y) in x_stripes.chunks(group).zip(y_stripes.chunks(group)) {
        let mut partial = T::Stripe::<S>::splat(simd, T::ZERO);
        for (x, y) in x.chunks_exact(T::LANES).zip(y.chunks_exact(T::LANES)) {
            let x = T::Stripe::<S>::from_slice(simd, x);
            partial += along::<S, T>(max, x, T::Stripe::<S>::from_slice(simd, y));
        }
        sum.add(partial);
    }
    if !x_rest.is_empty() {
        let x = load_padded::<T, S>(simd, x_rest, T::NEG_INFINITY);
        let y = load_padded::<T, S>(simd, y_rest, T::ZERO);
        sum.add(along::<S, T>(max, x, y));
    }
    let total = sum.total();
    if total.is_nan() {
        return f64::NEG_INFINITY; // no term is above 0; of -∞ the sum, which keeps what rounding loses, makes a NaN
    }
    total.to_f64()
}

#[inline(always)]
fn along<S: Simd, T: Real>(max: T, x: T::Stripe<S>, y: T::Stripe<S>) -> T::Stripe<S> {
    let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
    let nothing = y.simd_eq(T::ZERO) | x.simd_eq(max); // ∞ - ∞ is a distance of 0 here
    nothing.select(zero, y * (x - max))
}

impl Omega {
    /// The loss of the largest score.
    fn loss_of_largest(self, rest: &Rest) -> f64 {
        let Self { family, parameter } = self;
        let beside = rest.mass + rest.ties * rest.largest;
        match (family, parameter) {
            (Family::TopK(_), _) | (Family::Entmax, 1.0) => libm::log1p(beside / rest.largest),
            (Family::Normmax, alpha) => {
                let log = libm::log1p(rest.ties + rest.power);
                -libm::expm1((1.0 / alpha - 1.0) * log)
            }
            // Two for which nothing but square roots is needed.
            (Family::Entmax, 2.0) => {
                let ties = rest.ties * rest.largest * rest.largest;
                (rest.power + ties + beside * beside) / 2.0
            }
            (Family::Entmax, 1.5) => {
                let root = rest.largest.sqrt();
                let lost = beside / (1.0 + root); // 1 - √p
                let others = 0.5 * rest.power + root * beside;
                (others + (2.0 + root) * lost * lost) / 1.5
            }
            (Family::Entmax, alpha) => {
                let delta = alpha - 1.0;
                let log = if beside < 0.5 {
                    libm::log1p(-beside)
                } else {
                    libm::log(rest.largest)
                };
                let own = delta * log;
                let others = delta * rest.power + libm::exp(own) * beside;
                let largest = -libm::expm1(own + libm::log1p(delta * beside));
                others / alpha + largest / (alpha * delta)
            }
        }
    }

    /// Ω of a row of targets.
    #[inline(always)]
    fn of_target<S: Simd, T: Real>(self, simd: S, y: &[T]) -> f64 {
        let Self { family, parameter } = self;
        match (family, parameter) {
            (Family::TopK(_), _) => 0.0,
            (Family::Normmax, _) => {
                let rest = Rest::of::<S, T, POWER>(simd, parameter, T::ZERO, y, y);
                let log = libm::log1p(rest.ties + rest.power) / parameter;
                rest.largest * libm::exp(log) - 1.0
            }
            (Family::Entmax, 2.0) => above::<S, T, LINEAR>(simd, 2.0, y),
            (Family::Entmax, 1.5) => above::<S, T, SQUARE>(simd, 1.5, y),
            (Family::Entmax, _) => {
                let mut wide = Vec::new();
                Moments::of::<S, T>(simd, parameter - 1.0, y, &mut wide).first / parameter
            }
        }
    }
}

/// `(Σ yᵃ - Σ y)/(a (a - 1))`.
#[inline(always)]
fn above<S: Simd, T: Real, const KIND: u8>(simd: S, alpha: f64, y: &[T]) -> f64 {
    let rest = Rest::of::<S, T, KIND>(simd, alpha, T::ZERO, y, y);
    let power = match KIND {
        SQUARE => rest.largest * rest.largest.sqrt(),
        _ => rest.largest * rest.largest,
    };
    let tops = rest.ties + 1.0;
    (rest.power - rest.mass + tops * (power - rest.largest)) / (alpha * (alpha - 1.0))
}

#[simd]
fn slopes<S: Simd, T: Real>(
    simd: S,
    alpha: f64,
    n: usize,
    p: &[T],
    targets: RowTargets<'_, T>,
    to: &mut [f64],
    wide: &mut Vec<f64>,
) {
    for (row, (p, to)) in p.chunks_exact(n).zip(to).enumerate() {
        *to = -Moments::of::<S, T>(simd, alpha - 1.0, p, wide).slope(alpha);
        if let RowTargets::Dense(y) = targets {
            let y = &y[row * n..(row + 1) * n];
            *to += Moments::of::<S, T>(simd, alpha - 1.0, y, wide).slope(alpha);
        }
    }
}

/// Sums over a row that give Ω of entmax and its derivative in α, also at 1. With l = ln p, δ = α - 1:
/// `first = Σ p (e^{δ l} - 1)/δ`, which is α Ω, and its derivative in δ, `second = Σ p l² G(δ l)`, where
/// `G(y) = (1 - e^y + y e^y)/y²`.
struct Moments {
    first: f64,
    second: f64,
}

impl Moments {
    #[inline(always)]
    fn of<S: Simd, T: Real>(simd: S, delta: f64, p: &[T], wide: &mut Vec<f64>) -> Self {
        wide.clear();
        for &p in p {
            if p != T::ZERO {
                wide.push(p.to_f64());
            }
        }
        let (mut linear, mut second) = (Sum::<f64, S>::new(simd), Sum::<f64, S>::new(simd));
        for p in wide.chunks(f64::LANES) {
            let p = load_padded::<f64, S>(simd, p, 1.0);
            let l = ln::<f64, S>(p);
            let y = l * delta;
            let e = exp::<f64, S>(y);
            let near = polynomial::<f64, S>(&SERIES, y);
            let far = ((y - 1.0) * e + 1.0) / (y * y);
            let g = y.abs().simd_le(1.0).select(near, far);
            linear.add(p * l * e);
            second.add(p * l * (l * g));
        }
        let second = second.total();
        Self {
            first: linear.total() - delta * second,
            second,
        }
    }

    /// The derivative of Ω in α.
    fn slope(&self, alpha: f64) -> f64 {
        (self.second - self.first / alpha) / alpha
    }
}

/// `(k + 1)/(k + 2)!`: the series of `(1 - e^y + y e^y)/y²`, to the last place for |y| up to 1.
const SERIES: [f64; 18] = {
    let (mut series, mut inverse, mut k) = ([0.0; 18], 0.5, 0);
    while k < 18 {
        series[k] = (k + 1) as f64 * inverse;
        inverse /= (k + 3) as f64;
        k += 1;
    }
    series
};

#[simd]
fn subtract<S: Simd, T: Real>(simd: S, n: usize, p: &mut [T], targets: RowTargets<'_, T>) {
    match targets {
        RowTargets::Labels(labels) => {
            for (p, &label) in p.chunks_exact_mut(n).zip(labels) {
                if p[label] > T::HALF {
                    // The others have the digits that 1 - p would lose.
                    p[label] = T::ZERO;
                    let mut others = Sum::<T, S>::new(simd);
                    for p in p.chunks(T::LANES) {
                        others.add(load_padded::<T, S>(simd, p, T::ZERO));
                    }
                    p[label] = -others.total();
                } else {
                    p[label] -= T::ONE;
                }
            }
        }
        RowTargets::Dense(y) => {
            let (p, p_rest) = whole_stripes_mut(p);
            let (y, y_rest) = whole_stripes(y);
            for (p, y) in p.chunks_exact_mut(T::LANES).zip(y.chunks_exact(T::LANES)) {
                let y = T::Stripe::<S>::from_slice(simd, y);
                (T::Stripe::<S>::from_slice(simd, p) - y).store_slice(p);
            }
            for (p, y) in p_rest.iter_mut().zip(y_rest) {
                *p -= *y;
            }
        }
    }
}
