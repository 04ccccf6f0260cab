//! The k-subset softmax: sets of k scores have probabilities proportional to the exponential of their sums, so that the
//! loss of a set S is `log Z_k - Σ_S sᵢ`, Z_k the elementary symmetric polynomial of degree k of all e^s. The gradient
//! is the probability of each score to be in the set, less 1 for those in S.
//!
//! * **Targets.** 0 and 1, or lists of labels; k is their number in each row. The loss is 0 for none and for all.
//! * **Domain.** -∞ is in no set: the loss of a set that has it is +∞. Scores of +∞ are in every set, or if there are
//!   more than k, all sets of k among them are equally probable. A NaN makes the row NaN.
//! * **Precision.** f64 inside. All terms of every sum are positive, and no logarithm is taken on the way; a
//!   probability and its complement both keep their digits.
//! * **Determinism.** The same bits at every SIMD level.
//! * **Cost.** O(n min(k, n - k)) time, O(√n k) memory.
//!
//! A tilt c makes this the law of independent draws, each with the probability `qᵢ = sigmoid(sᵢ - c)`, given that k
//! succeed: `p(S) = Π_S qᵢ Π_rest (1 - qᵢ) / f(k)`, f(k) the probability of k successes. Near its mean, f is never
//! small.
//!
//! ```text
//! c ← a root of Σ sigmoid(sᵢ - c) = k, roughly
//! fᵢ(j) ← fᵢ₋₁(j) (1 - qᵢ) + fᵢ₋₁(j-1) qᵢ            j successes before draw i + 1
//! gᵢ(j) ← gᵢ₊₁(j) (1 - qᵢ) + gᵢ₊₁(j+1) qᵢ            k - j successes from draw i on
//! loss ← Σ_S -log qᵢ + Σ_rest -log(1 - qᵢ) + log f(k)
//! in ← qᵢ Σⱼ fᵢ₋₁(j) gᵢ₊₁(j+1);  out ← (1 - qᵢ) Σⱼ fᵢ₋₁(j) gᵢ₊₁(j);  pᵢ ← in / (in + out)
//! ```
//!
//! 1. Of k and n - k, the smaller is counted: successes or failures.
//! 2. Every √n-th f is kept, and those between are computed again on the way back.

use fearless_simd::{Level, Simd, dispatch, f64x8, prelude::*};
use fearless_simd_macros::simd;

use super::rows::{Batch, Loss, RowTargets, Rows, Takes, each_row};
use crate::{
    batch::Storage,
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{Sum, exp, ln_1p, load_padded, store_part},
};

/// The loss of the k-subset softmax of every row. Returns the reduction.
///
/// # Errors
/// [`Error::Domain`] for targets other than 0 and 1, a label that no score has, or a weight below 0;
/// [`Error::Unsupported`] for one label a row; [`Error::Empty`] and [`Error::Length`] if the shapes do not fit;
/// [`Error::Interrupted`].
pub fn subset_softmax_loss<E: Storage>(
    run: &mut Run<'_>,
    batch: &Batch<'_, E>,
    values: &mut [f64],
    gradient: Option<&mut [E]>,
) -> Result<f64, Error> {
    each_row(run, batch, &SubsetSoftmax, values, gradient)
}

struct SubsetSoftmax;

impl<T: Compiled> Loss<T> for SubsetSoftmax {
    const TAKES: Takes = Takes::Sets;

    fn rows(&self, level: Level, rows: Rows<'_, T>, _: &mut Vec<T>) {
        (T::kernels().losses.subset.rows)(level, rows);
    }
}

/// The kernels of the k-subset softmax.
pub(crate) struct Kernels<T> {
    rows: fn(Level, Rows<'_, T>),
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        rows: |level, rows| dispatch!(level, simd => subset_rows(simd, rows)),
    };
}

#[simd]
fn subset_rows<S: Simd, T: Real>(simd: S, rows: Rows<'_, T>) {
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
    let mut draws = Draws::default();
    for (i, value) in values.iter_mut().enumerate() {
        let at = i * n..(i + 1) * n;
        let (x, t) = (&x[at.clone()], &targets[at.clone()]);
        let gradient = gradient.as_deref_mut().map(|all| &mut all[at]);
        *value = subset_row(simd, x, t, &mut draws, gradient);
    }
}

/// What is left to chance in a row, and room to compute it.
#[derive(Default)]
struct Draws {
    /// Where they are in the row.
    index: Vec<usize>,
    /// The scores, and then those less the tilt.
    u: Vec<f64>,
    /// Those in S have 1, the others -1.
    sign: Vec<f64>,
    /// The probabilities of success and of failure.
    q: Vec<f64>,
    failure: Vec<f64>,
    /// Every so many f, the f of a block, and one g.
    kept: Vec<f64>,
    block: Vec<f64>,
    back: Vec<f64>,
}

#[inline(always)]
fn subset_row<S: Simd, T: Real>(
    simd: S,
    x: &[T],
    t: &[T],
    draws: &mut Draws,
    mut gradient: Option<&mut [T]>,
) -> f64 {
    if x.iter().any(|x| x.is_nan()) {
        if let Some(gradient) = gradient {
            gradient.fill(T::NAN);
        }
        return f64::NAN;
    }
    let in_set = |i: usize| t[i] != T::ZERO;
    let size = (0..x.len()).filter(|&i| in_set(i)).count();
    let infinite = x.iter().filter(|&&x| x == T::INFINITY).count();
    // Of too many +∞, some are drawn; else they are certain, and the others are drawn.
    let certain = if infinite > size { 0 } else { infinite };
    let drawn = |x: T| {
        if infinite > size {
            x == T::INFINITY
        } else {
            x.is_finite()
        }
    };
    draws.index.clear();
    draws.index.extend((0..x.len()).filter(|&i| drawn(x[i])));
    let mut possible = true;
    for (i, &x) in x.iter().enumerate() {
        let certain = x == T::INFINITY && infinite <= size;
        if !drawn(x) {
            possible &= certain == in_set(i);
            if let Some(gradient) = &mut gradient {
                let p = if certain { T::ONE } else { T::ZERO };
                gradient[i] = p - t[i];
            }
        }
    }
    let (n, k) = (draws.index.len(), size - certain);
    if k == 0 || k >= n {
        if let Some(gradient) = gradient {
            let p = if k == 0 { T::ZERO } else { T::ONE };
            for &i in &draws.index {
                gradient[i] = p - t[i];
            }
        }
        return if possible { 0.0 } else { f64::INFINITY };
    }
    // A set of failures is a set of successes with the scores negated.
    let (k, flip) = if k > n - k { (n - k, -1.0) } else { (k, 1.0) };
    draws.u.clear();
    draws.sign.clear();
    for &i in &draws.index {
        let score = if infinite > size { 0.0 } else { x[i].to_f64() };
        draws.u.push(flip * score);
        draws.sign.push(if in_set(i) { flip } else { -flip });
    }
    let log = draws.tilt(simd, k);
    let probability = draws.forward(simd, k);
    if let Some(gradient) = gradient {
        draws.backward(simd, k);
        for (j, &i) in draws.index.iter().enumerate() {
            gradient[i] = T::from_f64(flip * draws.u[j]);
        }
    }
    if possible {
        // Where S is all but certain, rounding could take this below 0.
        (log + libm::log(probability)).max(0.0)
    } else {
        f64::INFINITY
    }
}

/// f64 in a stripe.
const LANES: usize = <f64 as Real>::LANES;

/// Room for counts from 0 to k and one more, in whole stripes.
fn width(k: usize) -> usize {
    (k + 2).next_multiple_of(LANES)
}

/// Draws between two f that are kept.
fn block(n: usize) -> usize {
    n.isqrt().max(1)
}

impl Draws {
    /// Finds the tilt, and with it the probabilities; returns `Σ_S -log q + Σ_rest -log(1 - q)`.
    #[inline(always)]
    fn tilt<S: Simd>(&mut self, simd: S, k: usize) -> f64 {
        // The k-th largest score as the origin: of the scores at it, however large, none needs more than a tilt of log
        // n.
        self.q.clear();
        self.q.extend_from_slice(&self.u);
        let (_, &mut origin, _) = self.q.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        for u in &mut self.u {
            *u -= origin;
        }
        let wanted = k as f64;
        let reach = libm::log(2.0 * self.u.len() as f64);
        let (mut low, mut high, mut tilt) = (-reach, reach, 0.0);
        loop {
            let (mean, variance) = self.moments(simd, tilt);
            // The mean need not be exact: two standard deviations off, f is still a hundredth or so.
            let excess = mean - wanted;
            if excess.abs() <= 0.5 || excess * excess <= 4.0 * variance {
                break;
            }
            if excess > 0.0 {
                low = tilt;
            } else {
                high = tilt;
            }
            let middle = 0.5 * (low + high);
            let newton = tilt + excess / variance;
            let next = if low < newton && newton < high {
                newton
            } else {
                middle
            };
            if next == tilt {
                break;
            }
            tilt = next;
        }
        self.q.resize(self.u.len(), 0.0);
        self.failure.resize(self.u.len(), 0.0);
        let mut log = Sum::<f64, S>::new(simd);
        let signs = self.sign.chunks(LANES).zip(self.u.chunks(LANES));
        let room = self.q.chunks_mut(LANES).zip(self.failure.chunks_mut(LANES));
        for ((sign, u), (q, failure)) in signs.zip(room) {
            // Past the end, failures that are certain.
            let u = load_padded::<f64, S>(simd, u, f64::NEG_INFINITY) - tilt;
            let sign = load_padded::<f64, S>(simd, sign, -1.0);
            let (e, success, fail) = logistic::<S>(u);
            store_part::<f64, S>(success, q);
            store_part::<f64, S>(fail, failure);
            let other_way = -(sign * u);
            let zero = f64x8::splat(simd, 0.0);
            log.add(other_way.simd_gt(zero).select(other_way, zero) + ln_1p::<f64, S>(e));
        }
        log.total()
    }

    /// The mean and the variance of the number of successes.
    #[inline(always)]
    fn moments<S: Simd>(&self, simd: S, tilt: f64) -> (f64, f64) {
        let (mut mean, mut variance) = (Sum::<f64, S>::new(simd), Sum::<f64, S>::new(simd));
        for u in self.u.chunks(LANES) {
            let u = load_padded::<f64, S>(simd, u, f64::NEG_INFINITY);
            let (_, success, fail) = logistic::<S>(u - tilt);
            mean.add(success);
            variance.add(success * fail);
        }
        (mean.total(), variance.total())
    }

    /// The probability of k successes. Keeps every so many f.
    #[inline(always)]
    fn forward<S: Simd>(&mut self, simd: S, k: usize) -> f64 {
        let (n, width) = (self.u.len(), width(k));
        let block = block(n);
        // One value in front, 0, is the count before 0.
        self.kept.clear();
        self.kept.resize(n.div_ceil(block) * width, 0.0);
        self.back.clear();
        self.back.resize(1 + width, 0.0);
        self.back[1] = 1.0;
        for i in 0..n {
            if i % block == 0 {
                let at = i / block * width;
                self.kept[at..at + width].copy_from_slice(&self.back[1..]);
            }
            step_in_place(simd, self.q[i], self.failure[i], &mut self.back);
        }
        self.back[1 + k]
    }

    /// Puts the gradients where the scores were.
    #[inline(always)]
    fn backward<S: Simd>(&mut self, simd: S, k: usize) {
        let (n, width) = (self.u.len(), width(k));
        let block = block(n);
        self.back.clear();
        self.back.resize(width + 1, 0.0);
        self.back[k] = 1.0;
        self.block.clear();
        self.block.resize(block * (1 + width), 0.0);
        for (number, kept) in self.kept.chunks_exact(width).enumerate().rev() {
            let at = number * block..n.min((number + 1) * block);
            self.block[1..=width].copy_from_slice(kept);
            for (row, i) in at.clone().skip(1).enumerate() {
                let (from, to) = self.block[row * (1 + width)..].split_at_mut(1 + width);
                step(
                    simd,
                    self.q[i - 1],
                    self.failure[i - 1],
                    from,
                    &mut to[1..=width],
                );
            }
            for (row, i) in at.enumerate().rev() {
                let f = &self.block[row * (1 + width)..][1..=width];
                let (q, failure) = (self.q[i], self.failure[i]);
                let (with, without) = meet(simd, q, failure, f, &mut self.back);
                let sum = with + without;
                self.u[i] = if self.sign[i] > 0.0 {
                    -without / sum
                } else {
                    with / sum
                };
            }
        }
    }
}

/// `e^-|u|` and the sigmoids of u and -u.
#[inline(always)]
fn logistic<S: Simd>(u: f64x8<S>) -> (f64x8<S>, f64x8<S>, f64x8<S>) {
    let e = exp::<f64, S>(-u.abs());
    let large = 1.0 / (e + 1.0);
    let small = e * large;
    let up = u.simd_gt(0.0);
    (e, up.select(large, small), up.select(small, large))
}

/// One more draw: f from the one before, each behind the count before 0.
#[inline(always)]
fn step<S: Simd>(simd: S, q: f64, failure: f64, from: &[f64], to: &mut [f64]) {
    let stripes = from[1..].chunks_exact(LANES).zip(from.chunks_exact(LANES));
    for ((same, before), to) in stripes.zip(to.chunks_exact_mut(LANES)) {
        let same = f64x8::from_slice(simd, same);
        let before = f64x8::from_slice(simd, before);
        (same * failure + before * q).store_slice(to);
    }
}

/// [`step`] where f lies.
#[inline(always)]
fn step_in_place<S: Simd>(simd: S, q: f64, failure: f64, f: &mut [f64]) {
    // From the end, so that what a stripe takes from the one before it is still old.
    let mut at = f.len() - LANES;
    loop {
        let same = f64x8::from_slice(simd, &f[at..at + LANES]);
        let before = f64x8::from_slice(simd, &f[at - 1..at - 1 + LANES]);
        (same * failure + before * q).store_slice(&mut f[at..at + LANES]);
        if at < LANES {
            return;
        }
        at -= LANES;
    }
}

/// The probabilities of k successes with and without one at this draw; g becomes that from this draw on.
#[inline(always)]
fn meet<S: Simd>(simd: S, q: f64, failure: f64, f: &[f64], g: &mut [f64]) -> (f64, f64) {
    let mut with = f64x8::splat(simd, 0.0);
    let mut without = with;
    for (stripe, f) in f.chunks_exact(LANES).enumerate() {
        let f = f64x8::from_slice(simd, f);
        let at = stripe * LANES;
        let same = f64x8::from_slice(simd, &g[at..at + LANES]) * failure;
        let next = f64x8::from_slice(simd, &g[at + 1..at + 1 + LANES]) * q;
        with += f * next;
        without += f * same;
        (same + next).store_slice(&mut g[at..at + LANES]);
    }
    (f64::fold_sum(with), f64::fold_sum(without))
}
