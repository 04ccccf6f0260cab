//! Cross entropy of softmax, `(Σ y) log Σ e^{x/T} - ⟨y, x/T⟩`, and the margin losses that change the target's score.
//!
//! * **Targets.** A label, y = 1 there and 0 elsewhere, or a distribution y.
//! * **Label smoothing** (Szegedy et al. 2016) by ε puts `(1 - ε) y + ε/n` in the place of y: n and the share ε/n are of the
//!   scores above -∞, for the others cannot have any mass.
//! * **Margins** (labels only): the scores are cosines, s = 1/T a scale, and of the target's, cos θ, becomes what
//!   [`Margin`] says.
//! * **Domain.** -∞ takes no part, and gives +∞ as a target. Scores of +∞ share the mass. A NaN makes the row NaN, and so
//!   do only -∞.
//! * **Precision.** The value is a sum of terms that are not negative, by log1p over what is not at the maximum: a small loss
//!   keeps its digits, and so does its gradient at the target.
//! * **Determinism.** The same bits at every SIMD level.
//! * **Cost.** Two passes over a row for its value, three with the gradient, one more for dense targets or smoothing.
//!   Narrow rows with labels go a lane each.
//!
//! ```text
//! m ← max x;  z ← (x - m)/T;  c ← how many z are 0;  r ← Σ e^z over the others
//! loss ← (Σ y) log1p(c - 1 + r) - ⟨y, z⟩;  gradient ← (e^z/(c + r) Σ y - y)/T
//! ```

use std::f64::consts::FRAC_PI_2;

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::rows::{Batch, Loss, RowTargets, Rows, Takes, each_row};
use crate::{
    batch::Storage,
    error::Error,
    kernels::Compiled,
    maps::{Mass, inverse_temperature, multiply, tile},
    parallel::Run,
    scalar::Real,
    simd::{Sum, exp_lifted, ln_1p, load_padded, store_part, whole_stripes, whole_stripes_mut},
};

/// The cross entropy of `softmax(x / temperature)` and the targets, for every row. Returns the reduction.
///
/// # Errors
/// [`Error::Domain`] unless the temperature is finite and positive, and the smoothing from 0 to 1;
/// [`Error::Unsupported`] for lists of labels; [`Error::Domain`] for a label that no score has, targets that are no
/// distributions, or a weight below 0; [`Error::Empty`] and [`Error::Length`] if the shapes do not fit;
/// [`Error::Interrupted`].
pub fn cross_entropy<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    temperature: f64,
    label_smoothing: f64,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<f64, Error> {
    let inverse = inverse_temperature::<E::Compute>(temperature)?;
    if !(0.0..=1.0).contains(&label_smoothing) {
        return Err(Error::Domain {
            argument: "label_smoothing",
            domain: "from 0 to 1",
            value: label_smoothing,
        });
    }
    let loss = CrossEntropy {
        inverse,
        smoothing: label_smoothing,
    };
    each_row(run, batch, &loss, values, gradient)
}

/// What the target's cosine, cos θ, becomes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Margin {
    /// `cos θ - m`, of AM-softmax and CosFace; m is finite.
    Additive(f64),
    /// `cos(θ + m)`, of ArcFace, 0 ≤ m ≤ π/2. Beyond θ + m = π it would rise again: there it is `cos θ - m sin m`, which
    /// falls on, by a jump.
    Angular(f64),
    /// `(-1)ᵏ cos(m θ) - 2k` where `k π/m ≤ θ ≤ (k + 1) π/m`, of SphereFace, 1 ≤ m ≤ 64.
    Sphere(u32),
}

/// [`cross_entropy`] of `scale · x`, the scores x being cosines, with a margin at the target. Returns the reduction.
///
/// A target's cosine that rounding has put beyond ±1 counts as ±1 to an angular margin, whose derivative is infinite there:
/// sin θ, by which it divides, is taken to be at least 1/1024.
///
/// # Errors
/// [`Error::Domain`] unless the scale is finite and positive, and the margin as [`Margin`] says; [`Error::Unsupported`]
/// unless the targets are labels; else as [`cross_entropy`].
pub fn margin_softmax<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    margin: Margin,
    scale: f64,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<f64, Error> {
    let inverse = E::Compute::from_f64(scale);
    let normal = E::Compute::MIN_POSITIVE..=E::Compute::MAX;
    if !normal.contains(&inverse) {
        return Err(Error::Domain {
            argument: "scale",
            domain: "finite and positive",
            value: scale,
        });
    }
    let (domain, value, holds) = match margin {
        Margin::Additive(m) => ("finite", m, m.is_finite()),
        Margin::Angular(m) => ("from 0 to pi/2", m, (0.0..=FRAC_PI_2).contains(&m)),
        Margin::Sphere(m) => ("from 1 to 64", m.into(), (1..=64).contains(&m)),
    };
    if !holds {
        return Err(Error::Domain {
            argument: "margin",
            domain,
            value,
        });
    }
    let loss = WithMargin {
        margin,
        cross_entropy: CrossEntropy {
            inverse,
            smoothing: 0.0,
        },
    };
    each_row(run, batch, &loss, values, gradient)
}

/// What the kernel takes.
#[derive(Clone, Copy)]
struct CrossEntropy<T> {
    inverse: T,
    smoothing: f64,
}

impl<T: Compiled> Loss<T> for CrossEntropy<T> {
    const TAKES: Takes = Takes::Distributions;

    fn rows(&self, level: Level, rows: Rows<'_, T>, scratch: &mut Vec<T>) {
        (T::kernels().losses.cross_entropy.rows)(level, *self, rows, scratch);
    }
}

struct WithMargin<T> {
    margin: Margin,
    cross_entropy: CrossEntropy<T>,
}

impl<T: Compiled> Loss<T> for WithMargin<T> {
    const TAKES: Takes = Takes::Labels;

    fn rows(&self, level: Level, rows: Rows<'_, T>, scratch: &mut Vec<T>) {
        let Rows { n, x, targets, .. } = rows;
        let RowTargets::Labels(labels) = targets else {
            return; // refused at the door
        };
        scratch.clear();
        scratch.extend_from_slice(x);
        for (x, &label) in scratch.chunks_exact_mut(n).zip(labels) {
            x[label] = self.margin.apply(x[label]).0;
        }
        let Rows {
            first,
            mut gradient,
            values,
            ..
        } = rows;
        let changed = Rows {
            first,
            n,
            x: scratch,
            targets,
            gradient: gradient.as_deref_mut(),
            values,
        };
        let kernel = &mut Vec::new();
        (T::kernels().losses.cross_entropy.rows)(level, self.cross_entropy, changed, kernel);
        if let Some(gradient) = gradient {
            let rows = gradient.chunks_exact_mut(n).zip(x.chunks_exact(n));
            for ((gradient, x), &label) in rows.zip(labels) {
                gradient[label] *= self.margin.apply(x[label]).1;
            }
        }
    }
}

/// What the derivative by an angle is divided by at least: float16 then holds the gradient at a scale of 64.
const LEAST_SINE: f64 = 1.0 / 1024.0;

impl Margin {
    /// What a cosine becomes, and the derivative.
    fn apply<T: Real>(self, cosine: T) -> (T, T) {
        if !cosine.is_finite() {
            return (cosine, T::ONE);
        }
        let value = cosine.to_f64();
        let c = value.clamp(-1.0, 1.0);
        let (value, slope) = match self {
            Margin::Additive(m) => (value - m, 1.0),
            Margin::Angular(m) => {
                let (sin_m, cos_m) = libm::sincos(m);
                if c < -cos_m {
                    (c - m * sin_m, 1.0)
                } else {
                    let sine = ((1.0 - c) * (1.0 + c)).sqrt();
                    (
                        c * cos_m - sine * sin_m,
                        cos_m + c * sin_m / sine.max(LEAST_SINE),
                    )
                }
            }
            Margin::Sphere(m) => {
                // cos mθ and sin mθ / sin θ are Chebyshev's polynomials in c.
                let (mut t, mut next_t) = (1.0, c);
                let (mut u, mut next_u) = (0.0, 1.0);
                for _ in 0..m {
                    (t, next_t) = (next_t, 2.0 * c * next_t - t);
                    (u, next_u) = (next_u, 2.0 * c * next_u - u);
                }
                let m = f64::from(m);
                let k = (m * libm::acos(c) / std::f64::consts::PI)
                    .floor()
                    .min(m - 1.0);
                let sign = if k % 2.0 == 0.0 { 1.0 } else { -1.0 };
                (sign * t - 2.0 * k, sign * m * u)
            }
        };
        (T::from_f64(value), T::from_f64(slope))
    }
}

/// The kernels for values of type T.
pub(super) struct Kernels<T> {
    /// The vector is the kernel's scratch.
    rows: fn(Level, CrossEntropy<T>, Rows<'_, T>, &mut Vec<T>),
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        rows: |level, loss, rows, kernel| {
            dispatch!(level, simd => loss.all(simd, rows, kernel));
        },
    };
}

/// Rows of at most this many scores go a lane each.
const TILED: usize = 64;

/// A label.
const LABEL: u8 = 0;
/// A label, smoothed.
const SMOOTH: u8 = 1;
/// A distribution, smoothed by 0 or more.
const DENSE: u8 = 2;

/// The target of a row.
#[derive(Clone, Copy)]
struct Target<'a, T> {
    label: usize,
    y: &'a [T],
}

/// [`Sums`] in each lane, of a few stripes.
struct Terms<T: Real, S: Simd> {
    y: T::Stripe<S>,
    dot: T::Stripe<S>,
    z: T::Stripe<S>,
    count: T::Stripe<S>,
    /// y where z is -∞.
    impossible: T::Stripe<S>,
    /// How many z are -∞ though the score is not.
    far: T::Stripe<S>,
}

impl<T: Real, S: Simd> Terms<T, S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        Self {
            y: zero,
            dot: zero,
            z: zero,
            count: zero,
            impossible: zero,
            far: zero,
        }
    }

    #[inline(always)]
    fn add(&mut self, z: T::Stripe<S>, x: T::Stripe<S>, y: T::Stripe<S>) {
        let zero = T::Stripe::<S>::splat(z.token(), T::ZERO);
        let one = T::Stripe::<S>::splat(z.token(), T::ONE);
        let counts = x.simd_gt(T::NEG_INFINITY);
        let infinite = z.simd_eq(T::NEG_INFINITY); // a NaN is for the sums
        self.y += y;
        self.dot += infinite.select(zero, y * z);
        self.z += infinite.select(zero, z);
        self.count += counts.select(one, zero);
        self.impossible += infinite.select(y, zero);
        self.far += (infinite & counts).select(one, zero);
    }
}

/// The sums of [`Terms`]. What is infinite is kept apart: a compensated sum would make NaN of it.
struct Totals<T: Real, S: Simd> {
    y: Sum<T, S>,
    dot: Sum<T, S>,
    z: Sum<T, S>,
    rest: Terms<T, S>,
}

impl<T: Real, S: Simd> Totals<T, S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        Self {
            y: Sum::new(simd),
            dot: Sum::new(simd),
            z: Sum::new(simd),
            rest: Terms::new(simd),
        }
    }

    #[inline(always)]
    fn add(&mut self, terms: &Terms<T, S>) {
        self.y.add(terms.y);
        self.dot.add(terms.dot);
        self.z.add(terms.z);
        self.rest.count += terms.count;
        self.rest.impossible += terms.impossible;
        self.rest.far += terms.far;
    }

    #[inline(always)]
    fn sums(self) -> Sums {
        Sums {
            y: self.y.total().to_f64(),
            dot: or_infinite(T::fold_sum(self.rest.impossible), self.dot.total()),
            z: or_infinite(T::fold_sum(self.rest.far), self.z.total()),
            count: T::fold_sum(self.rest.count).to_f64(),
        }
    }
}

/// A sum, or -∞ if there is a part of it that is infinite.
fn or_infinite<T: Real>(infinite: T, sum: T) -> f64 {
    if infinite > T::ZERO {
        f64::NEG_INFINITY
    } else {
        sum.to_f64()
    }
}

/// Sums over a row.
struct Sums {
    /// Σ y.
    y: f64,
    /// ⟨y, z⟩; -∞ where some of y is at -∞.
    dot: f64,
    /// Σ z of the scores above -∞.
    z: f64,
    /// How many scores are above -∞.
    count: f64,
}

impl<T: Real> CrossEntropy<T> {
    #[simd]
    fn all<S: Simd>(self, simd: S, rows: Rows<'_, T>, kernel: &mut Vec<T>) {
        let smooth = self.smoothing != 0.0;
        match (rows.targets, rows.gradient.is_some()) {
            (RowTargets::Labels(labels), false) if !smooth && rows.n <= TILED => {
                self.tiles::<S, false>(simd, rows, labels, kernel);
            }
            (RowTargets::Labels(labels), true) if !smooth && rows.n <= TILED => {
                self.tiles::<S, true>(simd, rows, labels, kernel);
            }
            (RowTargets::Labels(_), false) if !smooth => self.each::<S, LABEL, false>(simd, rows),
            (RowTargets::Labels(_), true) if !smooth => self.each::<S, LABEL, true>(simd, rows),
            (RowTargets::Labels(_), false) => self.each::<S, SMOOTH, false>(simd, rows),
            (RowTargets::Labels(_), true) => self.each::<S, SMOOTH, true>(simd, rows),
            (RowTargets::Dense(_), false) => self.each::<S, DENSE, false>(simd, rows),
            (RowTargets::Dense(_), true) => self.each::<S, DENSE, true>(simd, rows),
        }
    }

    /// Narrow rows with labels, a lane each.
    #[inline(always)]
    fn tiles<S: Simd, const GRADIENT: bool>(
        self,
        simd: S,
        rows: Rows<'_, T>,
        labels: &[usize],
        kernel: &mut Vec<T>,
    ) {
        let Rows {
            n,
            x,
            gradient,
            values,
            ..
        } = rows;
        let gradient = gradient.unwrap_or(&mut []);
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let tile = tile::len::<T>(n);
        kernel.resize(tile + tile::spare::<T>(n), T::ZERO);
        let (columns, spare) = kernel.split_at_mut(tile);
        for first in (0..values.len()).step_by(T::LANES) {
            let count_of_rows = T::LANES.min(values.len() - first);
            let (x, labels) = (&x[first * n..], &labels[first..first + count_of_rows]);
            tile::load::<T, S>(simd, x, count_of_rows, n, columns, spare);
            let max = tile::max::<T, S>(simd, columns);
            let mut own = zero;
            for (lane, &label) in labels.iter().enumerate() {
                own[lane] = x[lane * n + label];
            }
            let own = (own - max) * self.inverse;
            let (mut sum, mut count) = (Sum::<T, S>::new(simd), zero);
            for group in columns.chunks_mut(Sum::<T, S>::GROUP * T::LANES) {
                let mut partial = zero;
                for column in group.chunks_exact_mut(T::LANES) {
                    let z = (T::Stripe::<S>::from_slice(simd, column) - max) * self.inverse;
                    let e = exp_lifted::<T, S>(z);
                    let top = z.simd_eq(T::ZERO);
                    partial += top.select(zero, e);
                    count += top.select(one, zero);
                    if GRADIENT {
                        e.store_slice(column);
                    }
                }
                sum.add(partial);
            }
            let rest = sum.lanes();
            let others = (count - one) + rest / T::LIFT_FACTOR;
            let log = ln_1p::<T, S>(others);
            let well = max.abs().simd_lt(T::INFINITY) & rest.simd_eq(rest); // no NaN among the scores
            let mut slopes = zero;
            if GRADIENT {
                let lifted = count * T::LIFT_FACTOR + rest;
                let norm = T::Stripe::<S>::splat(simd, self.inverse) / lifted;
                for column in columns.chunks_exact_mut(T::LANES) {
                    (T::Stripe::<S>::from_slice(simd, column) * norm).store_slice(column);
                }
                let to = &mut gradient[first * n..];
                tile::store::<T, S>(simd, columns, count_of_rows, n, to, spare);
                let below = (lifted - exp_lifted::<T, S>(own)) / lifted;
                let at_top = others / (others + T::ONE);
                slopes = own.simd_eq(T::ZERO).select(at_top, below) * -self.inverse;
            }
            for (lane, &label) in labels.iter().enumerate() {
                let at = (first + lane) * n..(first + lane + 1) * n;
                if well.test(lane) {
                    values[first + lane] = log[lane].to_f64() - own[lane].to_f64();
                    if GRADIENT {
                        gradient[at][label] = slopes[lane];
                    }
                } else {
                    let to: &mut [T] = if GRADIENT { &mut gradient[at] } else { &mut [] };
                    let target = Target { label, y: &[] };
                    let x = &x[lane * n..(lane + 1) * n];
                    let max = if x.iter().any(|x| x.is_nan()) {
                        T::NAN
                    } else {
                        max[lane]
                    };
                    values[first + lane] = self.at_infinity::<LABEL>(max, x, target, to);
                }
            }
        }
    }

    #[inline(always)]
    fn each<S: Simd, const KIND: u8, const GRADIENT: bool>(self, simd: S, rows: Rows<'_, T>) {
        let Rows {
            n,
            x,
            targets,
            gradient,
            values,
            ..
        } = rows;
        let gradient = gradient.unwrap_or(&mut []);
        for (row, (x, value)) in x.chunks_exact(n).zip(values).enumerate() {
            let own = row * n..(row + 1) * n;
            let target = match targets {
                RowTargets::Labels(labels) => Target {
                    label: labels[row],
                    y: &[],
                },
                RowTargets::Dense(y) => Target {
                    label: 0,
                    y: &y[own.clone()],
                },
            };
            let to: &mut [T] = if GRADIENT {
                &mut gradient[own]
            } else {
                &mut []
            };
            *value = self.row::<S, KIND, GRADIENT>(simd, x, target, to);
        }
    }

    #[inline(always)]
    fn row<S: Simd, const KIND: u8, const GRADIENT: bool>(
        self,
        simd: S,
        x: &[T],
        target: Target<'_, T>,
        to: &mut [T],
    ) -> f64 {
        let Target { label, y } = target;
        let mass = Mass::of::<S, true, GRADIENT>(simd, x, self.inverse, to);
        if !mass.max.is_finite() {
            return self.at_infinity::<KIND>(mass.max, x, target, to);
        }
        let at_label = if KIND == DENSE {
            T::ZERO
        } else {
            (x[label] - mass.max) * self.inverse
        };
        if KIND == LABEL {
            if GRADIENT {
                multiply(simd, to, self.inverse / mass.lifted());
                to[label] = -mass.beside(simd, at_label) * self.inverse;
            }
            return mass.log() - at_label.to_f64();
        }
        let mut sums = self.sums::<S, KIND>(simd, mass.max, x, y);
        if KIND == SMOOTH {
            (sums.y, sums.dot) = (1.0, at_label.to_f64());
        }
        let (own, share) = (1.0 - self.smoothing, self.smoothing / sums.count);
        let total = own * sums.y + self.smoothing;
        if GRADIENT {
            let smooth = Smooth {
                norm: T::from_f64(total) / mass.lifted(),
                own: T::from_f64(own),
                share: T::from_f64(share),
                inverse: self.inverse,
            };
            smooth.write::<S, KIND>(simd, x, y, to);
            if KIND == SMOOTH {
                to[label] -= T::from_f64(own) * self.inverse;
            }
        }
        total * mass.log() - product(own, sums.dot) - product(share, sums.z)
    }

    #[inline(always)]
    fn sums<S: Simd, const KIND: u8>(self, simd: S, max: T, x: &[T], y: &[T]) -> Sums {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let mut totals = Totals::<T, S>::new(simd);
        let (stripes, x_rest) = whole_stripes(x);
        let group = Sum::<T, S>::GROUP * T::LANES;
        for (k, x) in stripes.chunks(group).enumerate() {
            let mut partial = Terms::<T, S>::new(simd);
            for (j, x) in x.chunks_exact(T::LANES).enumerate() {
                let x = T::Stripe::<S>::from_slice(simd, x);
                let y = if KIND == DENSE {
                    T::Stripe::<S>::from_slice(simd, &y[k * group + j * T::LANES..][..T::LANES])
                } else {
                    zero
                };
                partial.add((x - max) * self.inverse, x, y);
            }
            totals.add(&partial);
        }
        if !x_rest.is_empty() {
            let mut partial = Terms::<T, S>::new(simd);
            let x = load_padded::<T, S>(simd, x_rest, T::NEG_INFINITY);
            let y = if KIND == DENSE {
                load_padded::<T, S>(simd, &y[stripes.len()..], T::ZERO)
            } else {
                zero
            };
            partial.add((x - max) * self.inverse, x, y);
            totals.add(&partial);
        }
        totals.sums()
    }

    /// A row without a finite maximum: scores of +∞ share the mass; with a NaN, or nothing above -∞, all is NaN.
    #[cold]
    fn at_infinity<const KIND: u8>(
        self,
        max: T,
        x: &[T],
        target: Target<'_, T>,
        to: &mut [T],
    ) -> f64 {
        if max != T::INFINITY || x.iter().any(|x| x.is_nan()) {
            to.fill(T::NAN);
            return f64::NAN;
        }
        let tops = x.iter().filter(|&&x| x == T::INFINITY).count() as f64;
        let count = x.iter().filter(|&&x| x > T::NEG_INFINITY).count() as f64;
        let y = |k: usize| {
            let own = match KIND {
                DENSE => target.y[k].to_f64(),
                _ => f64::from(u8::from(k == target.label)),
            };
            let takes_part = x[k] > T::NEG_INFINITY;
            let share = if takes_part {
                self.smoothing / count
            } else {
                0.0
            };
            own * (1.0 - self.smoothing) + share
        };
        let total: f64 = (0..x.len()).map(y).sum();
        for (k, to) in to.iter_mut().enumerate() {
            let p = if x[k] == T::INFINITY { 1.0 / tops } else { 0.0 };
            *to = T::from_f64(p * total - y(k)) * self.inverse;
        }
        let elsewhere = (0..x.len()).any(|k| x[k] < T::INFINITY && y(k) > 0.0);
        if elsewhere {
            f64::INFINITY
        } else {
            total * libm::log(tops)
        }
    }
}

/// What makes the gradient of exponentials and targets.
#[derive(Clone, Copy)]
struct Smooth<T> {
    norm: T,
    own: T,
    share: T,
    inverse: T,
}

impl<T: Real> Smooth<T> {
    #[inline(always)]
    fn write<S: Simd, const KIND: u8>(self, simd: S, x: &[T], y: &[T], to: &mut [T]) {
        let (stripes, x_rest) = whole_stripes(x);
        let (to_stripes, to_rest) = whole_stripes_mut(to);
        let both = stripes
            .chunks_exact(T::LANES)
            .zip(to_stripes.chunks_exact_mut(T::LANES));
        for (k, (x, to)) in both.enumerate() {
            let y = if KIND == DENSE {
                T::Stripe::<S>::from_slice(simd, &y[k * T::LANES..][..T::LANES])
            } else {
                T::Stripe::<S>::splat(simd, T::ZERO)
            };
            let (x, e) = (
                T::Stripe::<S>::from_slice(simd, x),
                T::Stripe::<S>::from_slice(simd, to),
            );
            self.slope::<S>(x, y, e).store_slice(to);
        }
        if !x_rest.is_empty() {
            let y = if KIND == DENSE {
                load_padded::<T, S>(simd, &y[stripes.len()..], T::ZERO)
            } else {
                T::Stripe::<S>::splat(simd, T::ZERO)
            };
            let x = load_padded::<T, S>(simd, x_rest, T::NEG_INFINITY);
            let e = load_padded::<T, S>(simd, to_rest, T::ZERO);
            store_part::<T, S>(self.slope::<S>(x, y, e), to_rest);
        }
    }

    #[inline(always)]
    fn slope<S: Simd>(self, x: T::Stripe<S>, y: T::Stripe<S>, e: T::Stripe<S>) -> T::Stripe<S> {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let share = T::Stripe::<S>::splat(x.token(), self.share);
        let share = x.simd_gt(T::NEG_INFINITY).select(share, zero);
        (e * self.norm - y * self.own - share) * self.inverse
    }
}

/// A product in which 0 wins.
fn product(factor: f64, value: f64) -> f64 {
    if factor == 0.0 { 0.0 } else { factor * value }
}
