//! group_zlpr (Su 2022): n classifications with m classes each as one loss, so that all are right together:
//! `Σⱼ log(1 + Σᵢ tᵢⱼ Σ_{k≠j} e^{sᵢₖ - sᵢⱼ})`, or centred `Σⱼ log(1 + Σᵢ tᵢⱼ e^{meanᵢ - sᵢⱼ})`, i over the groups and j
//! over the classes. With m = 2, it is zlpr of sᵢ₁ - sᵢ₂.
//!
//! * **Targets.** Numbers from 0 to 1, mostly a single 1 in each group; a term with the factor 0 is absent.
//! * **Domain.** A score of -∞ takes no part, also in the mean of its group; as a target, it makes the loss +∞, and the
//!   gradient is that of a softmax whose mass such targets share. +∞ has all of its group's mass. A NaN makes the row
//!   NaN.
//! * **Precision.** f64 inside, shifted by the largest terms; a sum over the others is never made by subtracting the
//!   largest, so a score that has nearly all of its group's mass keeps the digits of the rest.
//! * **Determinism.** The same bits at every SIMD level.
//!
//! ```text
//! of each group: M ← max s;  eₖ ← e^{sₖ - M};  dⱼ ← M - sⱼ;  wⱼ ← Σ_{k≠j} eₖ          centred: dⱼ ← mean - sⱼ;  wⱼ ← 1
//! of each class: B ← max(0, dᵢⱼ with tᵢⱼ > 0);  vᵢⱼ ← tᵢⱼ e^{dᵢⱼ - B};  N ← e^{-B} + Σᵢ vᵢⱼ wᵢⱼ
//! loss ← Σⱼ B + log N
//! ∂sᵢⱼ ← eⱼ Σ_{k≠j} vₖ/Nₖ - wⱼ vⱼ/Nⱼ                                                  centred: Σₖ vₖ/Nₖ / m - vⱼ/Nⱼ
//! ```

use fearless_simd::{Level, Simd, dispatch};
use fearless_simd_macros::simd;

use super::rows::{Batch, Loss, RowTargets, Rows, Takes, each_row};
use crate::{
    batch::Storage,
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{exp, load_padded, store_part},
};

/// The loss of every row of groups of m scores. Returns the reduction.
///
/// # Errors
/// [`Error::Domain`] if m is 0, for targets outside [0, 1], a label that no score has, or a weight below 0;
/// [`Error::Length`] unless the scores of a row are whole groups; [`Error::Unsupported`] for one label a row;
/// [`Error::Empty`] and [`Error::Length`] if the shapes do not fit; [`Error::Interrupted`].
pub fn group_zlpr<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    m: usize,
    centred: bool,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<f64, Error> {
    let n = batch.scores.shape.n;
    if m == 0 {
        return Err(Error::Domain {
            argument: "m",
            domain: "at least 1",
            value: 0.0,
        });
    }
    if !n.is_multiple_of(m) {
        return Err(Error::Length {
            argument: "scores",
            expected: n.next_multiple_of(m),
            found: n,
        });
    }
    each_row(run, batch, &GroupZlpr { m, centred }, values, gradient)
}

struct GroupZlpr {
    m: usize,
    centred: bool,
}

impl<T: Compiled> Loss<T> for GroupZlpr {
    const TAKES: Takes = Takes::Fractions;

    fn rows(&self, level: Level, rows: Rows<'_, T>, _: &mut Vec<T>) {
        (T::kernels().losses.group.rows)(level, self.m, self.centred, rows);
    }
}

/// The kernels of group_zlpr.
pub(crate) struct Kernels<T> {
    rows: fn(Level, usize, bool, Rows<'_, T>),
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        rows: |level, m, centred, rows| dispatch!(level, simd => group_rows(simd, m, centred, rows)),
    };
}

#[simd]
fn group_rows<S: Simd, T: Real>(simd: S, m: usize, centred: bool, rows: Rows<'_, T>) {
    let Rows {
        n,
        x,
        targets,
        mut gradient,
        values,
        ..
    } = rows;
    let RowTargets::Dense(targets) = targets else {
        return; // refused at the door
    };
    let mut terms = Terms::new(n, m);
    for (i, value) in values.iter_mut().enumerate() {
        let at = i * n..(i + 1) * n;
        let (x, t) = (&x[at.clone()], &targets[at.clone()]);
        *value = terms.value(simd, x, t, centred);
        let Some(gradient) = gradient.as_deref_mut().map(|all| &mut all[at]) else {
            continue;
        };
        if value.is_nan() {
            gradient.fill(T::NAN);
        } else if centred {
            terms.centred_gradient(x, gradient);
        } else {
            terms.gradient(gradient);
        }
    }
}

/// The terms of a row, group by group.
struct Terms {
    /// `e^{s - M}`.
    e: Vec<f64>,
    /// What each v counts for.
    w: Vec<f64>,
    /// `d` where there is a target, else -∞; then v.
    v: Vec<f64>,
    /// B and N of each class.
    shift: Vec<f64>,
    norm: Vec<f64>,
}

impl Terms {
    fn new(n: usize, m: usize) -> Self {
        Self {
            e: vec![0.0; n],
            w: vec![0.0; n],
            v: vec![0.0; n],
            shift: vec![0.0; m],
            norm: vec![0.0; m],
        }
    }

    #[inline(always)]
    fn value<S: Simd, T: Real>(&mut self, simd: S, x: &[T], t: &[T], centred: bool) -> f64 {
        let m = self.shift.len();
        let mut nan = false;
        for (x, t) in x.iter().zip(t) {
            nan |= x.is_nan() | t.is_nan();
        }
        if nan {
            return f64::NAN;
        }
        if centred {
            self.centre(x);
        } else {
            self.compare(simd, x);
        }
        self.shift.fill(0.0);
        for (d, t) in self.v.chunks_exact_mut(m).zip(t.chunks_exact(m)) {
            for ((d, &t), shift) in d.iter_mut().zip(t).zip(&mut self.shift) {
                if t == T::ZERO {
                    *d = f64::NEG_INFINITY;
                } else if *d > *shift {
                    *shift = *d;
                }
            }
        }
        for d in self.v.chunks_exact_mut(m) {
            for (d, &shift) in d.iter_mut().zip(&self.shift) {
                *d = less(*d, shift);
            }
        }
        exponentials(simd, &mut self.v);
        self.norm.fill(0.0);
        for ((v, w), t) in self
            .v
            .chunks_exact_mut(m)
            .zip(self.w.chunks_exact(m))
            .zip(t.chunks_exact(m))
        {
            for (((v, &w), &t), norm) in v.iter_mut().zip(w).zip(t).zip(&mut self.norm) {
                *v *= t.to_f64();
                *norm += *v * w;
            }
        }
        let mut value = 0.0;
        for (norm, &shift) in self.norm.iter_mut().zip(&self.shift) {
            if shift == 0.0 {
                value += libm::log1p(*norm);
                *norm += 1.0;
            } else {
                *norm += libm::exp(-shift);
                value += shift + libm::log(*norm);
            }
        }
        value
    }

    /// Every e, d (where v will be) and w.
    #[inline(always)]
    fn compare<S: Simd, T: Real>(&mut self, simd: S, x: &[T]) {
        let m = self.shift.len();
        let groups = self.e.chunks_exact_mut(m).zip(self.v.chunks_exact_mut(m));
        for ((z, d), x) in groups.zip(x.chunks_exact(m)) {
            let top = x[largest(x)].to_f64();
            for ((z, d), x) in z.iter_mut().zip(d).zip(x) {
                *z = less(x.to_f64(), top);
                *d = -*z;
                if top == f64::NEG_INFINITY {
                    (*z, *d) = (top, f64::INFINITY); // no score of the group takes part
                }
            }
        }
        exponentials(simd, &mut self.e);
        for (e, w) in self.e.chunks_exact(m).zip(self.w.chunks_exact_mut(m)) {
            without_each(e, w);
            if e[0] == 0.0 && w[0] == 0.0 {
                w.fill(1.0); // as for any target that takes no part
            }
        }
    }

    /// The d (where v will be) and w of the centred form.
    #[inline(always)]
    fn centre<T: Real>(&mut self, x: &[T]) {
        let m = self.shift.len();
        self.w.fill(1.0);
        for (d, x) in self.v.chunks_exact_mut(m).zip(x.chunks_exact(m)) {
            let top = x[largest(x)].to_f64();
            let (mut sum, mut count) = (0.0, 0.0);
            for (d, &x) in d.iter_mut().zip(x) {
                *d = less(x.to_f64(), top);
                if x > T::NEG_INFINITY {
                    sum += *d;
                    count += 1.0;
                }
            }
            for (d, &x) in d.iter_mut().zip(x) {
                *d = if sum == f64::NEG_INFINITY && x == T::INFINITY {
                    sum // infinitely far above the mean
                } else if sum == f64::NEG_INFINITY && x > T::NEG_INFINITY {
                    f64::INFINITY
                } else if x > T::NEG_INFINITY {
                    less(sum / count, *d)
                } else {
                    f64::INFINITY
                };
            }
        }
    }

    #[inline(always)]
    fn gradient<T: Real>(&mut self, gradient: &mut [T]) {
        let m = self.shift.len();
        let shares = self.shift.as_mut_slice(); // no longer needed
        let groups = self.e.chunks_exact(m).zip(self.w.chunks_exact(m));
        for ((to, v), (e, w)) in gradient
            .chunks_exact_mut(m)
            .zip(self.v.chunks_exact_mut(m))
            .zip(groups)
        {
            for (v, &norm) in v.iter_mut().zip(&self.norm) {
                *v /= norm;
            }
            without_each(v, shares);
            for ((((to, &v), &e), &w), &others) in
                to.iter_mut().zip(&*v).zip(e).zip(w).zip(&*shares)
            {
                *to = T::from_f64(e * others - w * v);
            }
        }
    }

    #[inline(always)]
    fn centred_gradient<T: Real>(&mut self, x: &[T], gradient: &mut [T]) {
        let m = self.shift.len();
        for ((to, v), x) in gradient
            .chunks_exact_mut(m)
            .zip(self.v.chunks_exact_mut(m))
            .zip(x.chunks_exact(m))
        {
            let (mut sum, mut count) = (0.0, 0.0);
            for ((v, &norm), &x) in v.iter_mut().zip(&self.norm).zip(x) {
                *v /= norm;
                sum += *v;
                count += if x > T::NEG_INFINITY { 1.0 } else { 0.0 };
            }
            for ((to, &v), &x) in to.iter_mut().zip(&*v).zip(x) {
                let mean = if x > T::NEG_INFINITY {
                    sum / count
                } else {
                    0.0
                };
                *to = T::from_f64(mean - v);
            }
        }
    }
}

/// The index of the largest value.
#[inline(always)]
fn largest<T: PartialOrd + Copy>(x: &[T]) -> usize {
    let mut top = 0;
    for (i, &value) in x.iter().enumerate() {
        if value > x[top] {
            top = i;
        }
    }
    top
}

/// `a - b`, 0 also where both are infinite.
#[inline(always)]
fn less(a: f64, b: f64) -> f64 {
    if a == b { 0.0 } else { a - b }
}

/// For each value that is not below 0, the sum of the others.
#[inline(always)]
fn without_each(values: &[f64], sums: &mut [f64]) {
    let top = largest(values);
    let (below, above) = (&values[..top], &values[top + 1..]);
    let rest = below.iter().sum::<f64>() + above.iter().sum::<f64>();
    for (sum, &value) in sums.iter_mut().zip(values) {
        // No other value is larger than the top, so that it cancels no more than half.
        *sum = values[top] + (rest - value);
    }
    sums[top] = rest;
}

#[inline(always)]
fn exponentials<S: Simd>(simd: S, x: &mut [f64]) {
    for x in x.chunks_mut(<f64 as Real>::LANES) {
        let z = load_padded::<f64, S>(simd, x, 0.0);
        store_part::<f64, S>(exp::<f64, S>(z), x);
    }
}
