//! softmax over the largest scores of rows, 0 elsewhere: over k of them, or over as few as have a given mass.
//!
//! * **Domain.** As [`super::softmax()`]. Of scores that tie at the border, those with the lowest index are kept. Of +∞
//!   entries the first k share the mass equally, or the smallest number of them that has the mass.
//! * **Precision.** As [`super::softmax()`] of what is kept. Which k are kept is exact; masses, within a few ulp.
//! * **Order.** x ≤ y implies p(x) ≤ p(y) within a row, but for ties at the border.
//! * **Determinism.** The same bits at every SIMD level, batch split and number of workers.
//! * **Cost.** By count: three passes over a row, one of them to find the maxima of its parts, and a search in the few
//!   candidates that this leaves. By mass: the passes of softmax, and a search.
//!
//! ```text
//! keys: x, each of measure 1 (by count); e = exp((x - max)/T), each of measure e (by mass)
//! c ← the keys above a bound that the border cannot lie below
//! repeat: split c at a pivot; keep the side on which the measure reaches k, or the mass
//! until all that is left is equal
//! p ← softmax of what lies at or above it
//! ```
//!
//! 1. The bound by count: of the maxima of disjoint parts of the row, the kth largest. By mass: scores with less than
//!    `(1 - mass) Σe / n` each have less than `(1 - mass) Σe` together.
//! 2. Pivots come from interpolation, which is fast, and now and then from halving the interval of bit patterns, which
//!    ends.
//! 3. Narrow rows go a lane each ([`super::tile`]), and every pair of scores is compared: a score is kept if what is
//!    ahead of it measures less than k, or the mass.
//! 4. Of a long row, the candidates are found and written in chunks, and searched in one piece.

use std::cmp::Ordering;

use fearless_simd::{Level, Simd, SimdFloatElement, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    infinite::infinities,
    kernels::Map,
    softmax::{exponentials, inverse_temperature},
    threshold::{
        expand, expand_chunk, filter, filter_long_row, max_of_long_row, pad, store_maxima,
    },
    tile::{self, InLanes},
};
use crate::{
    batch::{
        CHUNK, RowMap, Scores, Storage, chunk, map_rows, of_chunks, of_written_chunks, write_chunks,
    },
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{
        Sum, add_up, exp_lifted, load_padded, max, store_part, whole_stripes, whole_stripes_mut,
    },
};

/// What [`topk_softmax`] keeps of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keep {
    /// This many scores, the largest.
    Count(usize),
    /// The fewest that have at least this mass of the whole softmax, the largest.
    Mass(f64),
}

impl Keep {
    fn check(self) -> Result<(), Error> {
        match self {
            Keep::Count(0) => Err(Error::Domain {
                argument: "k",
                domain: "at least 1",
                value: 0.0,
            }),
            Keep::Mass(mass) if !(mass > 0.0 && mass <= 1.0) => Err(Error::Domain {
                argument: "top_p",
                domain: "more than 0 and at most 1",
                value: mass,
            }),
            _ => Ok(()),
        }
    }

    /// Whether nothing is left out of a row of n values.
    fn keeps_all(self, n: usize) -> bool {
        match self {
            Keep::Count(k) => k >= n,
            Keep::Mass(mass) => mass >= 1.0,
        }
    }

    /// How many of equal scores are kept, which have all the mass.
    fn of_equals(self, count: usize) -> usize {
        match self {
            Keep::Count(k) => k.min(count),
            Keep::Mass(mass) => ((mass * count as f64).ceil() as usize).clamp(1, count),
        }
    }
}

/// `softmax(x / temperature)` of every row, over its largest scores only, and 0 elsewhere.
///
/// # Errors
/// [`Error::Domain`] unless the count is at least 1, or the mass more than 0 and at most 1; else as
/// [`super::softmax()`].
pub fn topk_softmax<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    keep: Keep,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    keep.check()?;
    let inverse = inverse_temperature(temperature)?;
    map_rows(run, scores, out, &Top::<E::Compute> { inverse, keep })
}

#[derive(Clone, Copy)]
struct Top<T> {
    inverse: T,
    keep: Keep,
}

impl<T: Compiled> RowMap<T> for Top<T> {
    const EXCLUDED: T = T::ZERO;

    fn rows(&self, level: Level, _: usize, n: usize, x: &[T], y: &mut [T], kernel: &mut Vec<T>) {
        let kernels = &T::kernels().maps;
        if self.keep.keeps_all(n) {
            return (kernels.softmax.rows)(level, self.inverse, n, x, y, kernel);
        }
        (kernels.top.map.rows)(level, (self.inverse, self.keep), n, x, y, kernel);
    }

    fn long_row(&self, run: &mut Run<'_>, _: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let kernels = &T::kernels().maps;
        if self.keep.keeps_all(x.len()) {
            return (kernels.softmax.long_row)(run, self.inverse, x, y);
        }
        (kernels.top.map.long_row)(run, (self.inverse, self.keep), x, y)
    }
}

/// The kernels for values of type T.
pub(crate) struct Kernels<T> {
    /// By 1/T and what is kept, which is not all.
    pub(crate) map: Map<T, (T, Keep)>,
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        map: Map {
            rows: |level, (inverse, keep), n, x, y, kernel| {
                dispatch!(level, simd => top_rows(simd, inverse, keep, n, x, y, kernel));
            },
            long_row: |run, (inverse, keep), x, y| match keep {
                Keep::Count(k) => top_of_long_row_by_count(run, inverse, k, x, y),
                Keep::Mass(mass) => top_of_long_row_by_mass(run, inverse, mass, x, y),
            },
        },
    };
}

/// Rows of at most this many values go a lane each.
const TILED: usize = 32;

#[simd]
fn top_rows<S: Simd, T: Real>(
    simd: S,
    inverse: T,
    keep: Keep,
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    if n <= TILED {
        return tile::map_rows(simd, Top { inverse, keep }, n, x, y, kernel);
    }
    let room = n.next_multiple_of(T::LANES) + T::LANES; // the filter writes whole registers
    kernel.resize(2 * room, T::ZERO);
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        let done = match keep {
            Keep::Count(k) => {
                let (candidates, open) = kernel.split_at_mut(room);
                by_count(simd, inverse, k, x, y, candidates, open)
            }
            Keep::Mass(mass) => by_mass(simd, inverse, mass, x, y, kernel),
        };
        if done.is_none() {
            share(keep, x, y);
        }
    }
}

impl<T: Real> InLanes<T> for Top<T> {
    const ROOM: usize = 2;

    #[inline(always)]
    fn tile<S: Simd>(self, simd: S, columns: &mut [T], room: &mut [T]) -> T::Stripe<S> {
        let (terms, ahead) = room.split_at_mut(columns.len());
        let max = tile::max(simd, columns);
        for (x, e) in columns
            .chunks_exact(T::LANES)
            .zip(terms.chunks_exact_mut(T::LANES))
        {
            let z = (T::Stripe::<S>::from_slice(simd, x) - max) * self.inverse;
            exp_lifted::<T, S>(z).store_slice(e);
        }
        let all = tile::sum::<T, S>(simd, terms);
        match self.keep {
            Keep::Count(k) => {
                let target = T::Stripe::<S>::splat(simd, T::from_f64(k as f64));
                choose::<T, S, false>(simd, columns, terms, ahead, target);
            }
            Keep::Mass(mass) => {
                let target = (all * T::from_f64(mass)).max(T::MIN_POSITIVE);
                choose::<T, S, true>(simd, columns, terms, ahead, target);
            }
        }
        let sum = tile::sum::<T, S>(simd, columns);
        let scale = T::Stripe::<S>::splat(simd, T::ONE) / sum;
        tile::multiply(simd, columns, scale);
        sum + all * T::ZERO // which is NaN where there is one, kept or not
    }

    #[inline(always)]
    fn row<S: Simd>(self, _: S, x: &[T], y: &mut [T]) {
        share(self.keep, x, y);
    }
}

/// Puts their terms in place of the scores of which those ahead measure less than the target, and 0 in place of others.
#[inline(always)]
fn choose<T: Real, S: Simd, const MASS: bool>(
    simd: S,
    columns: &mut [T],
    terms: &[T],
    ahead: &mut [T],
    target: T::Stripe<S>,
) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let one = T::Stripe::<S>::splat(simd, T::ONE);
    ahead.fill(T::ZERO);
    for start in (0..columns.len()).step_by(T::LANES) {
        let (column, others) = columns[start..].split_at_mut(T::LANES);
        let (own_term, other_terms) = terms[start..].split_at(T::LANES);
        let (own_ahead, others_ahead) = ahead[start..].split_at_mut(T::LANES);
        let x = T::Stripe::<S>::from_slice(simd, column);
        let e = T::Stripe::<S>::from_slice(simd, own_term);
        let mut own = T::Stripe::<S>::from_slice(simd, own_ahead);
        for ((other, term), ahead) in others
            .chunks_exact(T::LANES)
            .zip(other_terms.chunks_exact(T::LANES))
            .zip(others_ahead.chunks_exact_mut(T::LANES))
        {
            let first = x.simd_ge(T::Stripe::<S>::from_slice(simd, other));
            let (measure, term) = if MASS {
                (e, T::Stripe::<S>::from_slice(simd, term))
            } else {
                (one, one)
            };
            let there = T::Stripe::<S>::from_slice(simd, ahead);
            (there + first.select(measure, zero)).store_slice(ahead);
            own += first.select(zero, term);
        }
        own.simd_lt(target).select(e, zero).store_slice(column);
    }
}

/// Maps a row; nothing if its maximum is not finite, or a NaN is among the scores.
#[inline(always)]
fn by_count<S: Simd, T: Real>(
    simd: S,
    inverse: T,
    k: usize,
    x: &[T],
    y: &mut [T],
    candidates: &mut [T],
    open: &mut [T],
) -> Option<()> {
    let (max, bound) = max_and_bound(simd, k, x, open);
    if !max.is_finite() {
        return None;
    }
    let count = filter::<T, S>(simd, x, bound, candidates);
    let len = pad(candidates, count);
    let candidates = &mut candidates[..len + T::LANES];
    let mut least = T::NEG_INFINITY;
    if count > k {
        open[..len].copy_from_slice(&candidates[..len]);
        let border = search::<T, S, false>(simd, open, count, max, k as f64, 0.0);
        least = border.map_or(least, |border| border.drop_ties(&mut candidates[..count]));
    }
    let sum = replace_by_terms(simd, &mut candidates[..len], least, max, inverse);
    if sum.is_nan() {
        return None;
    }
    expand::<T, S>(simd, x, bound, candidates, T::ONE / sum, y);
    Some(())
}

/// The maximum of a row, and a value below the kth largest; if there is a NaN, nothing is promised.
#[inline(always)]
fn max_and_bound<S: Simd, T: Real>(simd: S, k: usize, x: &[T], maxima: &mut [T]) -> (T, T) {
    let parts = 4 * T::LANES;
    // Twice as many maxima as are wanted, of four values or more.
    let chunks = (2 * k).div_ceil(parts);
    if x.len() < 4 * parts * chunks {
        return (max::<T, S>(simd, x), T::NEG_INFINITY);
    }
    let len = x.len().div_ceil(chunks);
    let maxima = &mut maxima[..x.len().div_ceil(len) * parts];
    for (x, maxima) in x.chunks(len).zip(maxima.chunks_exact_mut(parts)) {
        store_maxima(simd, x, maxima);
    }
    bound_of_maxima(simd, k, maxima)
}

/// [`max_and_bound`] by the maxima of parts, in whole stripes.
#[inline(always)]
fn bound_of_maxima<S: Simd, T: Real>(simd: S, k: usize, maxima: &mut [T]) -> (T, T) {
    let max = max::<T, S>(simd, maxima);
    if !max.is_finite() {
        return (max, max);
    }
    let k = k as f64;
    let border = search::<T, S, false>(simd, maxima, maxima.len(), max, k, k / 8.0);
    // Below the border, so that scores equal to it are above the bound.
    let bound = border.map_or(T::NEG_INFINITY, |border| {
        border.least - border.least.abs() * T::EPSILON - T::MIN_POSITIVE
    });
    (max, bound)
}

/// Maps a row; as [`by_count`].
#[inline(always)]
fn by_mass<S: Simd, T: Real>(
    simd: S,
    inverse: T,
    mass: f64,
    x: &[T],
    y: &mut [T],
    open: &mut [T],
) -> Option<()> {
    let max = max::<T, S>(simd, x);
    if !max.is_finite() {
        return None;
    }
    let sum = exponentials(simd, x, y, max, inverse);
    if sum.is_nan() {
        return None;
    }
    let count = filter::<T, S>(simd, y, bound_by_mass(mass, sum, y.len()), open);
    let target = mass * sum.to_f64();
    if let Some(border) = search::<T, S, true>(simd, open, count, T::LIFT_FACTOR, target, 0.0) {
        border.drop_ties_of_equal_terms(x, y);
        let scale = T::ONE / sum_from(simd, y, border.least);
        scale_from(simd, y, border.least, scale);
    } else {
        scale_from(simd, y, T::ZERO, T::ONE / sum);
    }
    Some(())
}

/// Terms at or below this have less than what may be left out, together.
fn bound_by_mass<T: Real>(mass: f64, sum: T, n: usize) -> T {
    const ROUNDING: f64 = 1.0 - 1e-3;
    T::from_f64((1.0 - mass) * ROUNDING * (sum.to_f64() / n as f64))
}

/// A row whose maximum is not finite.
#[cold]
fn share<T: Real>(keep: Keep, x: &[T], y: &mut [T]) {
    let Some(count @ 1..) = infinities(x) else {
        return y.fill(T::NAN);
    };
    let mut left = keep.of_equals(count);
    let share = T::ONE / T::from_f64(left as f64);
    for (x, y) in x.iter().zip(y) {
        *y = T::ZERO;
        if *x == T::INFINITY && left > 0 {
            *y = share;
            left -= 1;
        }
    }
}

/// Where what is kept ends.
#[derive(Clone, Copy)]
struct Border<T> {
    /// The least key that is kept.
    least: T,
    /// How many of the keys that equal it are kept, if that is not all of them.
    ties: Option<usize>,
}

impl<T: Real> Border<T> {
    /// Takes out the later candidates that tie; returns the least that is kept.
    fn drop_ties(self, candidates: &mut [T]) -> T {
        if let Some(mut left) = self.ties {
            for tie in candidates.iter_mut().filter(|key| **key == self.least) {
                if left == 0 {
                    *tie = T::NEG_INFINITY;
                } else {
                    left -= 1;
                }
            }
        }
        self.least
    }

    /// Takes out terms that tie: those of the smallest scores, for rounding makes terms equal, and the later of equals.
    fn drop_ties_of_equal_terms(self, x: &[T], y: &mut [T]) {
        let Some(kept) = self.ties else {
            return;
        };
        let mut tied: Vec<usize> = (0..y.len()).filter(|&k| y[k] == self.least).collect();
        tied.sort_by(|&a, &b| x[b].partial_cmp(&x[a]).unwrap_or(Ordering::Equal)); // 0 and -0 tie
        for &k in &tied[kept.min(tied.len())..] {
            y[k] = T::ZERO;
        }
    }
}

/// Steps of which every fourth halves an interval of float64.
const MOST_STEPS: usize = 4 * 64;

/// Stripes of keys that are not worth moving.
const FEW: usize = 16;

/// The border above which keys have the measure `target`, or at most `slack` more; nothing if all have less. A key counts
/// 1, or itself (`MASS`).
///
/// `keys` holds `count` keys of at most `high`, and room to fill up the last stripe; they are overwritten. -∞ and NaN
/// count nothing.
#[inline(always)]
fn search<T: Real, S: Simd, const MASS: bool>(
    simd: S,
    keys: &mut [T],
    count: usize,
    mut high: T,
    target: f64,
    slack: f64,
) -> Option<Border<T>> {
    let mut len = pad(keys, count);
    let all = Split::at::<S, MASS>(simd, &keys[..len], T::NEG_INFINITY);
    if all.above < target {
        return None;
    }
    let mut low = all.least;
    // The measure down to the low end, up from the high end, and of what was taken out.
    let (mut down_to_low, mut above_high, mut out) = (all.above, 0.0, 0.0);
    for step in 0..MOST_STEPS {
        if low >= high {
            break;
        }
        let mut pivot = if step % 4 < 3 {
            let aim = target + 0.5 * slack + if MASS { 0.0 } else { 0.5 }; // counts: between the last kept and the next
            let part = (down_to_low - aim) / (down_to_low - above_high);
            low + (high - low) * T::from_f64(part)
        } else {
            T::from_f64(middle(low.to_f64(), high.to_f64()))
        };
        if !(pivot >= low && pivot < high) {
            pivot = low;
        }
        let split = Split::at::<S, MASS>(simd, &keys[..len], pivot);
        let above = out + split.above;
        if (target..=target + slack).contains(&above) {
            return Some(Border {
                least: split.least,
                ties: None,
            });
        }
        let upper = above > target;
        if upper {
            (low, down_to_low) = (split.least, above);
        } else {
            (high, above_high) = (split.most, above);
        }
        let left = if upper {
            split.count
        } else {
            len - split.count
        };
        // Where most would stay, they would be loaded just after a store that overlaps, which takes long.
        if len > FEW * T::LANES && left <= len / 2 {
            let count = if upper {
                narrow::<T, S, true>(simd, &mut keys[..len], pivot)
            } else {
                out = above;
                narrow::<T, S, false>(simd, &mut keys[..len], pivot)
            };
            len = pad(keys, count);
        }
    }
    let equal = keys[..len].iter().filter(|key| **key == low).count();
    let missing = target - above_high;
    let kept = if MASS {
        (missing / low.to_f64()).ceil()
    } else {
        missing
    } as usize;
    Some(Border {
        least: low,
        ties: (kept < equal).then_some(kept.max(1)),
    })
}

/// Keys on both sides of a pivot.
struct Split<T> {
    /// The measure of those above.
    above: f64,
    /// The number of those above.
    count: usize,
    /// The least of those above.
    least: T,
    /// The largest of the others.
    most: T,
}

impl<T: Real> Split<T> {
    #[inline(always)]
    fn at<S: Simd, const MASS: bool>(simd: S, keys: &[T], pivot: T) -> Self {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let infinity = T::Stripe::<S>::splat(simd, T::INFINITY);
        let (mut least, mut most) = (infinity, -infinity);
        let (mut mass, mut count) = (Sum::<T, S>::new(simd), 0);
        for group in keys.chunks(Sum::<T, S>::GROUP * T::LANES) {
            let mut partial = zero;
            for keys in group.chunks_exact(T::LANES) {
                let key = T::Stripe::<S>::from_slice(simd, keys);
                let above = key.simd_gt(pivot);
                count += above.to_bitmask().count_ones() as usize;
                if MASS {
                    partial += above.select(key, zero);
                }
                least = least.min(above.select(key, infinity));
                most = most.max(key.simd_le(pivot).select(key, -infinity));
            }
            if MASS {
                mass.add(partial);
            }
        }
        Self {
            above: if MASS {
                mass.total().to_f64()
            } else {
                count as f64
            },
            count,
            least: -T::fold_max(-least),
            most: T::fold_max(most),
        }
    }
}

/// Moves the keys above the pivot to the front, or the others; returns how many.
#[inline(always)]
fn narrow<T: Real, S: Simd, const UPPER: bool>(simd: S, keys: &mut [T], pivot: T) -> usize {
    let width = <T as SimdFloatElement>::Native::<S>::LEN;
    let mut count = 0;
    for start in (0..keys.len()).step_by(width) {
        let v = <T as SimdFloatElement>::Native::<S>::from_slice(simd, &keys[start..start + width]);
        let keep = if UPPER {
            v.simd_gt(pivot)
        } else {
            v.simd_le(pivot)
        };
        v.compress(keep)
            .store_slice(&mut keys[count..count + width]);
        count += keep.to_bitmask().count_ones() as usize;
    }
    count
}

/// The number in the middle of the bit patterns from one to the other.
fn middle(low: f64, high: f64) -> f64 {
    /// Numbers in their order, as integers; its own inverse.
    fn ordered(bits: i64) -> i64 {
        if bits < 0 { bits ^ i64::MAX } else { bits }
    }
    let low = ordered(low.to_bits() as i64);
    let high = ordered(high.to_bits() as i64);
    f64::from_bits(ordered((low & high) + ((low ^ high) >> 1)) as u64)
}

/// Puts `2^LIFT exp((x - max)/T)` in place of the scores from `least` up, 0 in place of the others; returns the sum.
#[inline(always)]
fn replace_by_terms<S: Simd, T: Real>(
    simd: S,
    candidates: &mut [T],
    least: T,
    max: T,
    inverse: T,
) -> T {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let mut sum = Sum::<T, S>::new(simd);
    for group in candidates.chunks_mut(Sum::<T, S>::GROUP * T::LANES) {
        let mut partial = zero;
        for candidates in group.chunks_exact_mut(T::LANES) {
            let x = T::Stripe::<S>::from_slice(simd, candidates);
            let e = exp_lifted::<T, S>((x - max) * inverse);
            let e = x.simd_lt(least).select(zero, e); // a NaN stays
            e.store_slice(candidates);
            partial += e;
        }
        sum.add(partial);
    }
    sum.total()
}

/// The sum of the values from `least` up.
#[inline(always)]
fn sum_from<S: Simd, T: Real>(simd: S, y: &[T], least: T) -> T {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let (stripes, rest) = whole_stripes(y);
    let mut sum = Sum::<T, S>::new(simd);
    for group in stripes.chunks(Sum::<T, S>::GROUP * T::LANES) {
        let mut partial = zero;
        for y in group.chunks_exact(T::LANES) {
            let y = T::Stripe::<S>::from_slice(simd, y);
            partial += y.simd_ge(least).select(y, zero);
        }
        sum.add(partial);
    }
    if !rest.is_empty() {
        let y = load_padded::<T, S>(simd, rest, T::ZERO);
        sum.add(y.simd_ge(least).select(y, zero));
    }
    sum.total()
}

/// Scales the values from `least` up; the others become 0.
#[inline(always)]
fn scale_from<S: Simd, T: Real>(simd: S, y: &mut [T], least: T, scale: T) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let (stripes, rest) = whole_stripes_mut(y);
    for y in stripes.chunks_exact_mut(T::LANES) {
        let term = T::Stripe::<S>::from_slice(simd, y);
        term.simd_ge(least)
            .select(term * scale, zero)
            .store_slice(y);
    }
    if !rest.is_empty() {
        let term = load_padded::<T, S>(simd, rest, T::ZERO);
        store_part::<T, S>(term.simd_ge(least).select(term * scale, zero), rest);
    }
}

fn top_of_long_row_by_count<T: Real>(
    run: &mut Run<'_>,
    inverse: T,
    k: usize,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let level = run.level;
    let parts = 4 * T::LANES;
    let mut maxima = vec![T::ZERO; x.len().div_ceil(CHUNK) * parts];
    run.each_chunk(
        &mut maxima,
        parts,
        || (),
        |(), index, maxima| {
            let x = &x[chunk(x.len(), index)];
            dispatch!(level, simd => store_maxima(simd, x, maxima));
        },
    )?;
    let (max, bound) = dispatch!(level, simd => bound_of_chunks(simd, k, &mut maxima));
    if !max.is_finite() {
        share(Keep::Count(k), x, y);
        return Ok(());
    }
    let mut kept = filter_long_row(run, x, bound)?;
    let count = kept.candidates().len();
    let mut least = T::NEG_INFINITY;
    if count > k {
        let mut open = kept.values.clone();
        let border = dispatch!(level, simd => search_in::<_, T, false>(simd, &mut open, count, max, k as f64));
        let candidates = &mut kept.values[..count];
        least = border.map_or(least, |border| border.drop_ties(candidates));
    }
    let sums = of_written_chunks(
        run,
        kept.padded(),
        |_, candidates| dispatch!(level, simd => replace_chunk(simd, candidates, least, max, inverse)),
    )?;
    let sum = dispatch!(level, simd => add_up(simd, sums.into_iter()));
    if sum.is_nan() {
        share(Keep::Count(k), x, y);
        return Ok(());
    }
    let scale = T::ONE / sum;
    write_chunks(run, y, |at, y| {
        let terms = &kept.values[kept.starts[at.start / CHUNK]..];
        dispatch!(level, simd => expand_chunk(simd, &x[at], bound, terms, scale, y));
    })
}

fn top_of_long_row_by_mass<T: Real>(
    run: &mut Run<'_>,
    inverse: T,
    mass: f64,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let level = run.level;
    let max = max_of_long_row(run, x)?;
    if !max.is_finite() {
        share(Keep::Mass(mass), x, y);
        return Ok(());
    }
    let sums = of_written_chunks(
        run,
        y,
        |at, y| dispatch!(level, simd => exponentials(simd, &x[at], y, max, inverse)),
    )?;
    let sum = dispatch!(level, simd => add_up(simd, sums.into_iter()));
    if sum.is_nan() {
        share(Keep::Mass(mass), x, y);
        return Ok(());
    }
    let mut kept = filter_long_row(run, y, bound_by_mass(mass, sum, y.len()))?;
    let (count, target) = (kept.candidates().len(), mass * sum.to_f64());
    let open = &mut kept.values;
    let border = dispatch!(level, simd => search_in::<_, T, true>(simd, open, count, T::LIFT_FACTOR, target));
    let (least, sum) = match border {
        None => (T::ZERO, sum),
        Some(border) => {
            border.drop_ties_of_equal_terms(x, y);
            let sums = of_chunks(
                run,
                y.len(),
                |at| dispatch!(level, simd => sum_of_chunk(simd, &y[at], border.least)),
            )?;
            let sum = dispatch!(level, simd => add_up(simd, sums.into_iter()));
            (border.least, sum)
        }
    };
    write_chunks(
        run,
        y,
        |_, y| dispatch!(level, simd => scale_chunk(simd, y, least, T::ONE / sum)),
    )
}

#[simd]
fn bound_of_chunks<S: Simd, T: Real>(simd: S, k: usize, maxima: &mut [T]) -> (T, T) {
    bound_of_maxima(simd, k, maxima)
}

#[simd]
fn search_in<S: Simd, T: Real, const MASS: bool>(
    simd: S,
    keys: &mut [T],
    count: usize,
    high: T,
    target: f64,
) -> Option<Border<T>> {
    search::<T, S, MASS>(simd, keys, count, high, target, 0.0)
}

#[simd]
fn replace_chunk<S: Simd, T: Real>(
    simd: S,
    candidates: &mut [T],
    least: T,
    max: T,
    inverse: T,
) -> T {
    replace_by_terms(simd, candidates, least, max, inverse)
}

#[simd]
fn sum_of_chunk<S: Simd, T: Real>(simd: S, y: &[T], least: T) -> T {
    sum_from(simd, y, least)
}

#[simd]
fn scale_chunk<S: Simd, T: Real>(simd: S, y: &mut [T], least: T, scale: T) {
    scale_from(simd, y, least, scale);
}
