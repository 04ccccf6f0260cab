//! entmax of rows for α > 2: `p = u^{1/a}`, a = α - 1 > 1, u = a (x - τ').
//!
//! Here the slope of p in the threshold is infinite where p reaches 0, and the threshold can lie closer below a score
//! than any number: entmax₂₀([.01, 0]) is about [.916, .084], from a distance of 1e-21. So the unknown is not the
//! threshold but the smallest positive entry v of p, which stands at a score A, the anchor:
//!
//! ```text
//! A ← the smallest score with S(A) = Σ_{x > A} (a (x - A))^{1/a} < 1       # a search among the scores
//! v ← the root of F(v) = Σ_{x > A} (a (x - A) + vᵃ)^{1/a} + m v = 1          # m scores are equal to A
//! p ← (a (x - A) + vᵃ)^{1/a} above A, v at A, 0 below
//! ```
//!
//! Each summand of F is the a-norm of (c, v) for a constant c, so F is convex and rises: Newton's method from
//! `v = (1 - S(A))/m`, which lies above the root, falls to it monotonically. What rounding leaves of Σ p is divided out.
//! Bases are held times 2^LIFT: steep powers are of tiny numbers (139 equal scores at α = 20 have vᵃ = 2e-41), and a
//! difference of two scores that is not 0 is normal once it is lifted.
//!
//! * **Precision, determinism.** As [`super::threshold`].
//! * **Cost.** About 2 log₂ c + 6 sums over the c scores within 1/a of the largest.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    infinite::{share_infinities, share_infinities_of_long_row},
    threshold::{MOST_STEPS, filter, filter_long_row, max_of_long_row},
};
use crate::{
    batch::{gather, of_chunks, write_chunks},
    error::Error,
    parallel::Run,
    scalar::Real,
    simd::{
        Sum, exp2, load_padded, log2, log2_of_lifted, max, store_part, whole_stripes,
        whole_stripes_mut,
    },
};

/// The power 1/a.
#[derive(Clone, Copy)]
pub(super) struct Root<T> {
    a: T,
    inverse: T,
}

/// Where a row's mass ends: the anchor, p there, and pᵃ, lifted; and what makes Σ p = 1 of what rounding left.
#[derive(Clone, Copy)]
pub(super) struct Anchor<T> {
    score: T,
    p: T,
    lifted_power: T,
    scale: T,
}

/// Sums over the scores above an anchor, and how many are equal to it.
#[derive(Clone, Copy)]
struct Sums<T> {
    mass: T,
    slope: T,
    equal: T,
}

impl<T: Real> Root<T> {
    pub(super) fn new(alpha: f64) -> Self {
        let a = (alpha - 1.0).min(T::MAX.to_f64()); // beyond, 1/a would be 0
        Self {
            a: T::from_f64(a),
            inverse: T::from_f64(1.0 / a),
        }
    }

    /// `(Σ p, Σ dp/dv)` over the scores above the anchor, and the number of scores at it.
    #[simd]
    fn sums<S: Simd>(self, simd: S, anchor: Anchor<T>, x: &[T]) -> Sums<T> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let slope_at_one = if anchor.p > T::ZERO {
            anchor.lifted_power / anchor.p
        } else {
            T::ZERO
        };
        let (mut mass, mut slope, mut equal) = (Sum::<T, S>::new(simd), zero, zero);
        for group in x.chunks(Sum::<T, S>::GROUP * T::LANES) {
            let mut partial = zero;
            for stripe in group.chunks(T::LANES) {
                let x = load_padded::<T, S>(simd, stripe, T::NEG_INFINITY);
                let (p, base) = self.above::<S>(anchor, x);
                partial += p;
                slope += p / base * slope_at_one;
                equal += x.simd_eq(anchor.score).select(one, zero);
            }
            mass.add(partial);
        }
        Sums {
            mass: mass.total(),
            slope: T::fold_sum(slope),
            equal: T::fold_sum(equal),
        }
    }

    /// p of the scores above the anchor, 0 at and below it; and the lifted base that was raised, 1 where it does not
    /// count.
    #[inline(always)]
    fn above<S: Simd>(self, anchor: Anchor<T>, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
        let simd = x.token();
        let above = x.simd_gt(anchor.score);
        let base = (x - anchor.score) * T::LIFT_FACTOR * self.a + anchor.lifted_power;
        let base = above.select(base, T::Stripe::<S>::splat(simd, T::ONE));
        let p = exp2::<T, S>(log2_of_lifted::<T, S>(base) * self.inverse);
        // Rounding must not put a score below one that is smaller.
        let p = p.max(T::Stripe::<S>::splat(simd, anchor.p));
        (above.select(p, T::Stripe::<S>::splat(simd, T::ZERO)), base)
    }

    #[simd]
    fn write<S: Simd>(self, simd: S, anchor: Anchor<T>, x: &[T], y: &mut [T]) {
        let (stripes, rest) = whole_stripes(x);
        let (y_stripes, y_rest) = whole_stripes_mut(y);
        for (x, y) in stripes
            .chunks_exact(T::LANES)
            .zip(y_stripes.chunks_exact_mut(T::LANES))
        {
            self.p::<S>(anchor, T::Stripe::<S>::from_slice(simd, x))
                .store_slice(y);
        }
        if !rest.is_empty() {
            let x = load_padded::<T, S>(simd, rest, T::NEG_INFINITY);
            store_part::<T, S>(self.p::<S>(anchor, x), y_rest);
        }
    }

    #[inline(always)]
    fn p<S: Simd>(self, anchor: Anchor<T>, x: T::Stripe<S>) -> T::Stripe<S> {
        let at = T::Stripe::<S>::splat(x.token(), anchor.p);
        let p = x
            .simd_eq(anchor.score)
            .select(at, self.above::<S>(anchor, x).0);
        p * anchor.scale
    }

    /// `2^LIFT pᵃ`.
    #[simd]
    fn lifted_power<S: Simd>(self, simd: S, p: T) -> T {
        let log = log2::<T, S>(T::Stripe::<S>::splat(simd, p)) * self.a;
        if log[0] < -T::LIFT {
            exp2::<T, S>(log + T::LIFT)[0]
        } else {
            // The sum would cost digits here.
            exp2::<T, S>(log)[0] * T::LIFT_FACTOR
        }
    }

    /// The anchor of the candidates, all of them above -∞ and none NaN; `open` are those below their maximum.
    fn anchor(
        self,
        level: Level,
        max: T,
        mut open: Vec<T>,
        candidates: &mut impl Candidates<T>,
    ) -> Result<Anchor<T>, Error> {
        let at = |score| Anchor {
            score,
            p: T::ZERO,
            lifted_power: T::ZERO,
            scale: T::ONE,
        };
        let mut anchor = at(max);
        while !open.is_empty() {
            let pivot = middling(&open);
            if candidates.sums(at(pivot))?.mass < T::ONE {
                anchor = at(pivot);
                candidates.retain(&mut open, |x| x < pivot)?;
            } else {
                candidates.retain(&mut open, |x| x > pivot)?;
            }
        }
        let own = candidates.sums(anchor)?;
        anchor.p = (T::ONE - own.mass) / own.equal;
        let mut last = T::INFINITY;
        for _ in 0..MOST_STEPS {
            anchor.lifted_power = dispatch!(level, simd => self.lifted_power(simd, anchor.p));
            let now = candidates.sums(anchor)?;
            let sum = now.mass + now.equal * anchor.p;
            anchor.scale = T::ONE / sum;
            let off = sum - T::ONE;
            if off.abs() <= T::EPSILON || off.abs() >= last {
                break;
            }
            last = off.abs();
            let lower = anchor.p - off / (now.slope + now.equal);
            anchor.p = if lower > T::ZERO { lower } else { T::ZERO };
        }
        Ok(anchor)
    }

    /// The anchor of a row; nothing where the maximum is not finite, or a NaN is within its reach.
    fn locate(self, level: Level, x: &[T], kernel: &mut Vec<T>) -> Option<Anchor<T>> {
        kernel.resize(x.len() + T::LANES, T::ZERO);
        let (max, count) = dispatch!(level, simd => self.candidates(simd, x, kernel));
        let candidates = &kernel[..count];
        if !max.is_finite() || candidates.iter().any(|x| x.is_nan()) {
            return None;
        }
        let open = candidates.iter().copied().filter(|&x| x < max).collect();
        let anchor = self.anchor(level, max, open, &mut Here(self, level, candidates));
        Some(anchor.expect("nothing interrupts it"))
    }

    /// [`Root::locate`], shared out.
    fn locate_long_row(self, run: &mut Run<'_>, x: &[T]) -> Result<Option<Anchor<T>>, Error> {
        let level = run.level;
        let max = max_of_long_row(run, x)?;
        let kept = filter_long_row(run, x, self.bound(max))?;
        let candidates = kept.candidates();
        let nan = of_chunks(run, candidates.len(), |at| {
            candidates[at].iter().any(|x| x.is_nan())
        })?;
        if !max.is_finite() || nan.contains(&true) {
            return Ok(None);
        }
        let open = retained(run, candidates, |x| x < max)?;
        self.anchor(level, max, open, &mut SharedOut(self, run, candidates))
            .map(Some)
    }

    /// τ in the convention of [`super::entmax()`].
    fn threshold(self, anchor: Anchor<T>) -> T {
        self.a * anchor.score - anchor.lifted_power / T::LIFT_FACTOR
    }

    /// The maximum, and how many scores are within reach of it, a NaN being in everything's reach.
    #[simd]
    fn candidates<S: Simd>(self, simd: S, x: &[T], to: &mut [T]) -> (T, usize) {
        let max = max::<T, S>(simd, x);
        (max, filter::<T, S>(simd, x, self.bound(max), to))
    }

    /// Scores at or below this have no mass; lower than it should be by the rounding.
    #[inline(always)]
    fn bound(self, max: T) -> T {
        let bound = max - self.inverse;
        bound - bound.abs() * T::EPSILON
    }
}

/// The candidates of a row, and who works on them.
trait Candidates<T: Real> {
    /// [`Root::sums`] over them.
    fn sums(&mut self, anchor: Anchor<T>) -> Result<Sums<T>, Error>;
    /// `Vec::retain`.
    fn retain(&mut self, open: &mut Vec<T>, keep: impl Fn(T) -> bool + Sync) -> Result<(), Error>;
}

/// The calling thread works on the candidates of a row.
struct Here<'a, T>(Root<T>, Level, &'a [T]);

impl<T: Real> Candidates<T> for Here<'_, T> {
    fn sums(&mut self, anchor: Anchor<T>) -> Result<Sums<T>, Error> {
        let Self(root, level, candidates) = *self;
        Ok(dispatch!(level, simd => root.sums(simd, anchor, candidates)))
    }
    fn retain(&mut self, open: &mut Vec<T>, keep: impl Fn(T) -> bool + Sync) -> Result<(), Error> {
        open.retain(|&x| keep(x));
        Ok(())
    }
}

/// The candidates of a long row are shared out in chunks.
struct SharedOut<'a, 'r, T>(Root<T>, &'a mut Run<'r>, &'a [T]);

impl<T: Real> Candidates<T> for SharedOut<'_, '_, T> {
    fn sums(&mut self, anchor: Anchor<T>) -> Result<Sums<T>, Error> {
        let Self(root, run, candidates) = self;
        let level = run.level;
        let sums = of_chunks(
            run,
            candidates.len(),
            |at| dispatch!(level, simd => root.sums(simd, anchor, &candidates[at])),
        )?;
        Ok(dispatch!(level, simd => Sums::combine(simd, &sums)))
    }
    fn retain(&mut self, open: &mut Vec<T>, keep: impl Fn(T) -> bool + Sync) -> Result<(), Error> {
        *open = retained(self.1, open, keep)?;
        Ok(())
    }
}

/// The values to keep, in order.
fn retained<T: Real>(
    run: &mut Run<'_>,
    values: &[T],
    keep: impl Fn(T) -> bool + Sync,
) -> Result<Vec<T>, Error> {
    let kept = of_chunks(run, values.len(), |at| {
        values[at].iter().copied().filter(|&x| keep(x)).collect()
    })?;
    gather(run, kept, 0)
}

/// The median of a sample: rows in any order, rising or V-shaped, are cut in good parts.
fn middling<T: Real>(values: &[T]) -> T {
    const SAMPLE: usize = 15;
    let mut sample: Vec<T> = (0..SAMPLE)
        .map(|i| values[(2 * i + 1) * values.len() / (2 * SAMPLE)])
        .collect();
    sample.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sample[SAMPLE / 2]
}

/// Maps one row.
pub(super) fn anchored_row<T: Real>(
    level: Level,
    root: Root<T>,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    match root.locate(level, x, kernel) {
        Some(anchor) => dispatch!(level, simd => root.write(simd, anchor, x, y)),
        None => share_infinities(x, y, T::ONE),
    }
}

/// As [`super::threshold::threshold_and_support`].
pub(super) fn threshold_and_support<T: Real>(
    level: Level,
    root: Root<T>,
    x: &[T],
    kernel: &mut Vec<T>,
) -> Option<(T, usize)> {
    let anchor = root.locate(level, x, kernel)?;
    Some((root.threshold(anchor), anchor.support(x)))
}

/// [`threshold_and_support`] of a long row.
pub(super) fn threshold_and_support_of_long_row<T: Real>(
    run: &mut Run<'_>,
    root: Root<T>,
    x: &[T],
) -> Result<Option<(T, usize)>, Error> {
    let Some(anchor) = root.locate_long_row(run, x)? else {
        return Ok(None);
    };
    let support = of_chunks(run, x.len(), |at| anchor.support(&x[at]))?;
    Ok(Some((root.threshold(anchor), support.into_iter().sum())))
}

/// Maps one long row.
pub(super) fn anchored_long_row<T: Real>(
    run: &mut Run<'_>,
    root: Root<T>,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let level = run.level;
    let Some(anchor) = root.locate_long_row(run, x)? else {
        return share_infinities_of_long_row(run, x, y, T::ONE);
    };
    write_chunks(run, y, |at, y| {
        dispatch!(level, simd => root.write(simd, anchor, &x[at], y));
    })
}

impl<T: Real> Anchor<T> {
    /// How many scores have a positive p; an anchor may have none.
    fn support(self, x: &[T]) -> usize {
        let counts = |x: T| x > self.score || (x == self.score && self.p > T::ZERO);
        x.iter().filter(|&&x| counts(x)).count()
    }
}

impl<T: Real> Sums<T> {
    #[simd]
    fn combine<S: Simd>(simd: S, parts: &[Self]) -> Self {
        let mut whole = Self {
            mass: T::ZERO,
            slope: T::ZERO,
            equal: T::ZERO,
        };
        let mut mass = Sum::<T, S>::new(simd);
        for part in parts {
            mass.add_one(part.mass);
            whole.slope += part.slope;
            whole.equal += part.equal;
        }
        whole.mass = mass.total();
        whole
    }
}
