//! Threshold maps of rows, 1 < α ≤ 2: `p = [(α-1) x - τ]₊^{1/(α-1)}`, τ such that `Σ p = 1`; and the projection onto
//! the simplex, which is α = 2 with any total.
//!
//! * **Domain.** Any values; NaN, infinities and empty rows as in [`super::softmax()`].
//! * **Precision.** The threshold is carried in two parts and solved to the last place of Σ p: every p is as if the
//!   threshold were off by an ulp of 1 over the size of the support, and `|Σ p - 1| ≤ 4` ulp for up to 10⁶ values.
//! * **Order.** x ≤ y implies p(x) ≤ p(y) within a row.
//! * **Determinism.** The same bits at every SIMD level, batch split and number of workers.
//! * **Cost.** Three passes over a row, and Newton steps over the few values that a first bound leaves.
//!
//! ```text
//! t ← Newton on the maxima of interleaved parts of the row              # a subset: at or below the solution
//! c ← the scores above t                                                # all of the support is among them
//! repeat: (q, s) ← sums of the terms of c at t; t ← t + step(q, s)      # rises monotonically: q is convex
//! until |q - 1| ≤ 1 ulp
//! p ← terms of x at t
//! ```
//!
//! 1. A step waits for one sum, one division and one comparison after the other. So rows are taken `LANES` at a time,
//!    a lane each ([`super::tile`]): rows of at most [`WHOLE`] values whole, rows of at most [`GROUPED`] values once
//!    little but their candidates is left of them; longer rows are worth the wait.
//! 2. Newton's first steps only have to come near ([`Approach`]): their terms are rough and cost half.
//! 3. Long rows are cut into chunks that filter in parallel; their candidates are joined in order.

use fearless_simd::{Simd, SimdFloatElement, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    infinite::{share_infinities, share_infinities_of_long_row},
    power::{Pair, Plain, Power, Solved},
    tile,
};
use crate::{
    batch::{CHUNK, chunk, gather, of_chunks, of_written_chunks, write_chunks},
    error::Error,
    parallel::Run,
    scalar::Real,
    simd::{
        Sum, add_up, load_padded, max, max_of_each_quarter, store_part, whole_stripes,
        whole_stripes_mut,
    },
};

/// Rows of at most this many values go a lane each, whole.
const WHOLE: usize = 32;

/// Rows of at most this many values go a lane each, once they are filtered.
pub(super) const GROUPED: usize = 512;

/// Parts of a row in a group, each of which gives its maximum.
const PARTS: usize = 16;

/// Newton needs 3 to 8 steps; this only bounds a cycle among rounding errors.
pub(super) const MOST_STEPS: usize = 60;

/// Steps before the sums have to be exact.
const ROUGH_STEPS: usize = 8;

/// How far q may be from its aim, relatively, before the last rough step.
const ROUGH: f64 = 1.0 / 128.0;

/// Newton's method by rough sums, in every lane at once, from below the solution to near it.
pub(super) struct Approach<T: Real, S: Simd, P> {
    power: P,
    /// Not brought into its normal form: `high` stays where it began, so that a step is a single addition.
    pub(super) at: Pair<T, S>,
    /// What a lane's steps are multiplied by: 0 once it is near, or what is beside it in the batch would show.
    open: T::Stripe<S>,
}

impl<T: Real, S: Simd, P: Solved<T>> Approach<T, S, P> {
    #[inline(always)]
    pub(super) fn new(power: P, at: Pair<T, S>) -> Self {
        let open = T::Stripe::<S>::splat(at.high.token(), T::ONE);
        Self { power, at, open }
    }

    /// Takes the sums at the position; steps, and says whether any lane has to go on.
    #[inline(always)]
    fn step(&mut self, (q, s): (T::Stripe<S>, T::Stripe<S>)) -> bool {
        let total = self.power.total();
        self.at.low += self.power.step(q, s) * self.open;
        let zero = T::Stripe::<S>::splat(q.token(), T::ZERO);
        let far = (q - total).abs().simd_gt(total * T::from_f64(ROUGH));
        self.open = far.select(self.open, zero);
        self.open.simd_gt(T::ZERO).any_true()
    }

    /// Steps until every lane is near.
    #[inline(always)]
    pub(super) fn run<const FOLD: bool>(&mut self, simd: S, stripes: &[T]) {
        for _ in 0..ROUGH_STEPS {
            let cut = self.power.cut(self.at);
            if !self.step(sums::<T, S, P, true, FOLD>(simd, self.power, &cut, stripes)) {
                break;
            }
        }
    }
}

/// Newton's method in every lane at once; a lane that has converged stays as it is.
pub(super) struct Newton<T: Real, S: Simd, P> {
    power: P,
    pub(super) at: Pair<T, S>,
    /// The last distance of q from its aim; NaN if there is a NaN among the scores.
    pub(super) off: T::Stripe<S>,
}

impl<T: Real, S: Simd, P: Solved<T>> Newton<T, S, P> {
    #[inline(always)]
    fn new(power: P, at: Pair<T, S>) -> Self {
        let off = T::Stripe::<S>::splat(at.high.token(), T::INFINITY);
        Self { power, at, off }
    }

    /// Takes the sums at the position; steps, and says whether any lane has to go on.
    #[inline(always)]
    fn step(&mut self, (q, s): (T::Stripe<S>, T::Stripe<S>)) -> bool {
        let total = self.power.total();
        let off = (q - total).abs();
        let open = off.simd_gt(T::TWO * T::EPSILON * total) & off.simd_lt(self.off);
        let next = self.at.add(self.power.step(q, s));
        self.at.high = open.select(next.high, self.at.high);
        self.at.low = open.select(next.low, self.at.low);
        let last = off.simd_le(self.power.settles() * total);
        self.off = last.select(T::Stripe::<S>::splat(off.token(), T::ZERO), off);
        // From above the solution, where rounding may have put a bound, a step goes too far down: q may rise once.
        let above = q.simd_lt(total) & off.simd_gt(T::EPSILON * T::from_f64(16.0) * total);
        let infinity = T::Stripe::<S>::splat(off.token(), T::INFINITY);
        self.off = (above & !last).select(infinity, self.off);
        (open & !last).any_true()
    }
}

/// `(Σ uᵉ, Σ uᵉ⁻¹)` over columns of a tile, or over stripes of one row, which are then folded.
#[inline(always)]
fn sums<T: Real, S: Simd, P: Power<T>, const ROUGH: bool, const FOLD: bool>(
    simd: S,
    power: P,
    cut: &P::Cut<S>,
    stripes: &[T],
) -> (T::Stripe<S>, T::Stripe<S>) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let mut q = Sum::<T, S>::new(simd);
    let mut s = zero;
    let group = if ROUGH {
        stripes.len().max(1)
    } else {
        Sum::<T, S>::GROUP * T::LANES
    };
    for group in stripes.chunks(group) {
        let mut partial = zero;
        for stripe in group.chunks_exact(T::LANES) {
            let x = T::Stripe::<S>::from_slice(simd, stripe);
            let (q, slope) = if ROUGH {
                power.rough_terms(cut, x)
            } else {
                power.terms(cut, x)
            };
            partial += q;
            s += slope;
        }
        q.add(partial);
    }
    if FOLD {
        splat_both(simd, (q.total(), T::fold_sum(s)))
    } else {
        (q.lanes(), s)
    }
}

#[inline(always)]
fn splat_both<T: Real, S: Simd>(simd: S, (q, s): (T, T)) -> (T::Stripe<S>, T::Stripe<S>) {
    (
        T::Stripe::<S>::splat(simd, q),
        T::Stripe::<S>::splat(simd, s),
    )
}

/// The solution in every lane, or of one row, from a position near it.
#[inline(always)]
pub(super) fn solve<T: Real, S: Simd, P: Solved<T>, const FOLD: bool>(
    simd: S,
    power: P,
    max: T::Stripe<S>,
    near: Pair<T, S>,
    stripes: &[T],
) -> Newton<T, S, P> {
    let mut newton = Newton::new(power, Pair::new(near.high).add(near.low));
    for _ in 0..MOST_STEPS {
        let cut = newton.power.cut(newton.at);
        if !newton.step(sums::<T, S, P, false, FOLD>(
            simd,
            newton.power,
            &cut,
            stripes,
        )) {
            break;
        }
    }
    newton.at = not_below_start(power, max, newton.at);
    newton
}

/// What rounding has put below [`start`], where no solution is, goes there: then the largest score has all the mass, and
/// one that lies just at the threshold has none, however steep the power.
#[inline(always)]
fn not_below_start<T: Real, S: Simd, P: Power<T>>(
    power: P,
    max: T::Stripe<S>,
    at: Pair<T, S>,
) -> Pair<T, S> {
    let start = start::<T, S, P>(power, max);
    let start = Pair::<T, S>::new(start.high).add(start.low);
    let below =
        at.high.simd_lt(start.high) | (at.high.simd_eq(start.high) & at.low.simd_lt(start.low));
    Pair {
        high: below.select(start.high, at.high),
        low: below.select(start.low, at.low),
    }
}

/// Where the largest score alone would have all the mass: at or below the solution.
#[inline(always)]
pub(super) fn start<T: Real, S: Simd, P: Power<T>>(power: P, max: T::Stripe<S>) -> Pair<T, S> {
    let low = T::Stripe::<S>::splat(max.token(), -power.reach());
    Pair { high: max, low }
}

/// A value at or below the threshold that belongs to a position, whatever rounding and rough sums have done to it.
#[inline(always)]
fn bound<T: Real, S: Simd, P: Power<T>>(
    power: P,
    at: Pair<T, S>,
    max: T::Stripe<S>,
) -> T::Stripe<S> {
    let threshold = power.threshold(&power.cut(at));
    let threshold = threshold.high + threshold.low;
    let rounding = threshold.abs() * (T::EPSILON * T::from_f64(4.0));
    threshold - (max - threshold) * T::from_f64(ROUGH) - rounding
}

/// Appends the values that are above the bound, or NaN; returns how many. `to` has room for a register more.
#[inline(always)]
pub(super) fn filter<T: Real, S: Simd>(simd: S, x: &[T], bound: T, to: &mut [T]) -> usize {
    let width = <T as SimdFloatElement>::Native::<S>::LEN;
    let mut count = 0;
    let chunks = x.chunks_exact(width);
    let rest = chunks.remainder();
    for chunk in chunks {
        let v = <T as SimdFloatElement>::Native::<S>::from_slice(simd, chunk);
        let keep = !v.simd_le(bound);
        v.compress(keep).store_slice(&mut to[count..count + width]);
        count += keep.to_bitmask().count_ones() as usize;
    }
    for &v in rest {
        to[count] = v;
        count += usize::from(v > bound || v.is_nan());
    }
    count
}

/// Fills up the last stripe of `count` candidates with what never counts; returns the length of all stripes.
#[inline(always)]
pub(super) fn pad<T: Real>(candidates: &mut [T], count: usize) -> usize {
    let len = count.next_multiple_of(T::LANES);
    candidates[count..len].fill(T::NEG_INFINITY);
    len
}

/// Maps contiguous rows of at most `LONG` values.
#[simd]
pub(super) fn threshold_rows<S: Simd, T: Real, P: Solved<T>>(
    simd: S,
    power: P,
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    if n > GROUPED {
        kernel.resize(room::<T>(n), T::ZERO);
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            threshold_row(simd, power, x, y, kernel);
        }
        return;
    }
    let tile = tile::len::<T>(n);
    let spare = if n > WHOLE {
        group_room::<T>(n)
    } else {
        tile::spare::<T>(n)
    };
    kernel.resize(tile + spare, T::ZERO);
    let (columns, spare) = kernel.split_at_mut(tile);
    for start in (0..x.len()).step_by(tile) {
        let (x, y) = (&x[start..], &mut y[start..]);
        let rows = T::LANES.min(x.len() / n);
        let (max, off) = if n > WHOLE {
            let (x, y) = (&x[..rows * n], &mut y[..rows * n]);
            threshold_group(simd, power, n, x, y, columns, spare)
        } else {
            tile::load(simd, x, rows, n, columns, spare);
            let found = threshold_tile(simd, power, columns);
            tile::store(simd, columns, rows, n, y, spare);
            found
        };
        let well = max.abs().simd_lt(T::INFINITY) & off.simd_eq(off); // no NaN among the scores
        if well.all_true() {
            continue;
        }
        for (lane, (x, y)) in x
            .chunks_exact(n)
            .zip(y.chunks_exact_mut(n))
            .enumerate()
            .take(rows)
        {
            if !well.test(lane) {
                share_infinities(x, y, power.total());
            }
        }
    }
}

/// Maps the row in every lane; returns the maxima and what Newton's method left.
#[inline(always)]
fn threshold_tile<S: Simd, T: Real, P: Solved<T>>(
    simd: S,
    power: P,
    columns: &mut [T],
) -> (T::Stripe<S>, T::Stripe<S>) {
    let max = tile::max::<T, S>(simd, columns);
    let mut approach = Approach::new(power, start(power, max));
    approach.run::<false>(simd, columns);
    let newton = solve::<T, S, P, false>(simd, power, max, approach.at, columns);
    let sum = replace_by_terms(simd, power, &power.cut(newton.at), columns);
    if P::ROUNDED {
        let scale = T::Stripe::<S>::splat(simd, power.total()) / sum.lanes();
        for column in columns.chunks_exact_mut(T::LANES) {
            (T::Stripe::<S>::from_slice(simd, column) * scale).store_slice(column);
        }
    }
    (max, newton.off)
}

/// Room that [`threshold_group`] needs beside the columns.
fn group_room<T: Real>(n: usize) -> usize {
    T::LANES * (n + T::LANES)
}

/// Maps at most `LANES` rows, of which only the candidates are turned into columns; returns as [`threshold_tile`].
#[inline(always)]
fn threshold_group<S: Simd, T: Real, P: Solved<T>>(
    simd: S,
    power: P,
    n: usize,
    x: &[T],
    y: &mut [T],
    columns: &mut [T],
    candidates: &mut [T],
) -> (T::Stripe<S>, T::Stripe<S>) {
    for (x, maxima) in x.chunks_exact(n).zip(candidates.chunks_exact_mut(PARTS)) {
        store_maxima_of_parts::<T, S>(simd, x, maxima);
    }
    tile::gather::<T, S>(simd, candidates, PARTS, PARTS, columns);
    let maxima = &columns[..PARTS * T::LANES];
    let max = tile::max::<T, S>(simd, maxima);
    let mut approach = Approach::new(power, start(power, max));
    approach.run::<false>(simd, maxima);
    let bounds = bound(power, approach.at, max);

    let stride = n + T::LANES; // the filter writes whole registers
    let mut counts = [0; tile::MOST];
    for (lane, x) in x.chunks_exact(n).enumerate() {
        counts[lane] = filter::<T, S>(simd, x, bounds[lane], &mut candidates[lane * stride..]);
    }
    let width = counts.into_iter().max().unwrap_or(0).max(1);
    for (lane, &count) in counts.iter().enumerate().take(T::LANES) {
        candidates[lane * stride..][count..width].fill(T::NEG_INFINITY);
    }
    let columns = &mut columns[..width * T::LANES];
    tile::gather::<T, S>(simd, candidates, stride, width, columns);
    approach = Approach::new(power, approach.at);
    approach.run::<false>(simd, columns);
    let newton = solve::<T, S, P, false>(simd, power, max, approach.at, columns);
    let rows = x.chunks_exact(n).zip(y.chunks_exact_mut(n));
    let cut = power.cut(newton.at);
    if P::CHEAP {
        let scales = if P::ROUNDED {
            let sum = sums::<T, S, P, false, false>(simd, power, &cut, columns).0;
            T::Stripe::<S>::splat(simd, power.total()) / sum
        } else {
            T::Stripe::<S>::splat(simd, T::ONE)
        };
        for (lane, (x, y)) in rows.enumerate() {
            let position = Position::of_lane(newton.at, lane);
            write_row_inline(simd, power, position, scales[lane], x, y);
        }
    } else {
        let sum = replace_by_terms(simd, power, &cut, columns).lanes();
        let scales = T::Stripe::<S>::splat(simd, power.total()) / sum;
        tile::scatter::<T, S>(simd, columns, stride, width, candidates);
        for (lane, (x, y)) in rows.enumerate() {
            let terms = &candidates[lane * stride..];
            expand::<T, S>(simd, x, bounds[lane], terms, scales[lane], y);
        }
    }
    (max, newton.off)
}

/// The maxima of [`PARTS`] interleaved parts of the values.
#[inline(always)]
fn store_maxima_of_parts<T: Real, S: Simd>(simd: S, x: &[T], maxima: &mut [T]) {
    let [a, b, c, d] = max_of_each_quarter::<T, S>(simd, x);
    if PARTS == T::LANES {
        a.max(b).max(c.max(d)).store_slice(maxima);
    } else {
        let (first, second) = maxima.split_at_mut(T::LANES);
        a.max(b).store_slice(first);
        c.max(d).store_slice(second);
    }
}

/// Puts their terms in place of the scores, and returns the sum: what is left of Σ p, which is rounding, is divided out
/// where terms have roundings.
#[inline(always)]
pub(super) fn replace_by_terms<S: Simd, T: Real, P: Power<T>>(
    simd: S,
    power: P,
    cut: &P::Cut<S>,
    columns: &mut [T],
) -> Sum<T, S> {
    let mut sum = Sum::<T, S>::new(simd);
    for group in columns.chunks_mut(Sum::<T, S>::GROUP * T::LANES) {
        let mut partial = T::Stripe::<S>::splat(simd, T::ZERO);
        for column in group.chunks_exact_mut(T::LANES) {
            let p = power.terms(cut, T::Stripe::<S>::from_slice(simd, column)).0;
            p.store_slice(column);
            partial += p;
        }
        sum.add(partial);
    }
    sum
}

#[inline(always)]
fn threshold_row<S: Simd, T: Real, P: Solved<T>>(
    simd: S,
    power: P,
    x: &[T],
    y: &mut [T],
    kernel: &mut [T],
) {
    let Some(found) = locate(simd, power, x, kernel) else {
        return share_infinities(x, y, power.total());
    };
    let candidates = &mut kernel[4 * T::LANES..];
    let len = found.count.next_multiple_of(T::LANES);
    if P::CHEAP {
        let scale = if P::ROUNDED {
            power.total()
                / sums_at::<S, T, _, false>(simd, power, found.position, &candidates[..len]).0
        } else {
            T::ONE
        };
        write_row(simd, power, found.position, scale, x, y);
    } else {
        let cut = power.cut(found.position.splat(simd));
        let sum = replace_by_terms(simd, power, &cut, &mut candidates[..len]).total();
        let scale = power.total() / sum;
        expand::<T, S>(simd, x, found.bound, candidates, scale, y);
    }
}

/// Undoes [`filter`]: the terms of what it kept go back to their places, scaled, and 0 to the others. `terms` has room
/// for a register more.
#[inline(always)]
pub(super) fn expand<T: Real, S: Simd>(
    simd: S,
    x: &[T],
    bound: T,
    terms: &[T],
    scale: T,
    y: &mut [T],
) {
    let width = <T as SimdFloatElement>::Native::<S>::LEN;
    let mut count = 0;
    let (x, rest) = x.split_at(x.len() / width * width);
    let (y, y_rest) = y.split_at_mut(x.len());
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let keep = !<T as SimdFloatElement>::Native::<S>::from_slice(simd, x).simd_le(bound);
        let p =
            <T as SimdFloatElement>::Native::<S>::from_slice(simd, &terms[count..count + width]);
        (p * scale).expand(keep).store_slice(y);
        count += keep.to_bitmask().count_ones() as usize;
    }
    for (x, y) in rest.iter().zip(y_rest) {
        *y = T::ZERO;
        if *x > bound {
            *y = terms[count] * scale;
            count += 1;
        }
    }
}

/// A position on the axis of the scores, in two parts.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Position<T> {
    pub(super) high: T,
    pub(super) low: T,
}

impl<T: Real> Position<T> {
    #[inline(always)]
    pub(super) fn of<S: Simd>(at: Pair<T, S>) -> Self {
        Self::of_lane(at, 0)
    }

    #[inline(always)]
    pub(super) fn of_lane<S: Simd>(at: Pair<T, S>, lane: usize) -> Self {
        Self {
            high: at.high[lane],
            low: at.low[lane],
        }
    }

    #[inline(always)]
    pub(super) fn splat<S: Simd>(self, simd: S) -> Pair<T, S> {
        Pair {
            high: T::Stripe::<S>::splat(simd, self.high),
            low: T::Stripe::<S>::splat(simd, self.low),
        }
    }
}

/// What [`locate`] found: the solution, and the candidates it left behind [`room`]'s first four stripes.
#[derive(Clone, Copy)]
pub(super) struct Found<T> {
    pub(super) position: Position<T>,
    pub(super) bound: T,
    pub(super) count: usize,
}

/// Room that [`locate`] and [`bisect_row`] need for a row of n values.
pub(super) fn room<T: Real>(n: usize) -> usize {
    n + 5 * T::LANES
}

/// The solution of a row; nothing if its maximum is not finite, or a NaN is among the scores.
#[simd]
pub(super) fn locate<S: Simd, T: Real, P: Solved<T>>(
    simd: S,
    power: P,
    x: &[T],
    kernel: &mut [T],
) -> Option<Found<T>> {
    let (parts, candidates) = kernel.split_at_mut(4 * T::LANES);
    let quarters = max_of_each_quarter::<T, S>(simd, x);
    for (part, max) in parts.chunks_exact_mut(T::LANES).zip(quarters) {
        max.store_slice(part);
    }
    let [a, b, c, d] = quarters;
    let max = T::fold_max(a.max(b).max(c.max(d)));
    if !max.is_finite() {
        return None;
    }
    let max = T::Stripe::<S>::splat(simd, max);
    let mut approach = Approach::new(power, start(power, max));
    approach.run::<true>(simd, parts);
    let bound = bound(power, approach.at, max)[0];
    let count = filter::<T, S>(simd, x, bound, candidates);
    let len = pad(candidates, count);
    approach = Approach::new(power, approach.at);
    approach.run::<true>(simd, &candidates[..len]);
    let newton = solve::<T, S, P, true>(simd, power, max, approach.at, &candidates[..len]);
    if newton.off[0].is_nan() {
        return None;
    }
    Some(Found {
        position: Position::of(newton.at),
        bound,
        count,
    })
}

/// Writes the row, its solution being known.
#[simd]
pub(super) fn write_row<S: Simd, T: Real, P: Power<T>>(
    simd: S,
    power: P,
    position: Position<T>,
    scale: T,
    x: &[T],
    y: &mut [T],
) {
    write_row_inline(simd, power, position, scale, x, y);
}

#[inline(always)]
fn write_row_inline<S: Simd, T: Real, P: Power<T>>(
    simd: S,
    power: P,
    position: Position<T>,
    scale: T,
    x: &[T],
    y: &mut [T],
) {
    let cut = power.cut(position.splat(simd));
    let (stripes, rest) = whole_stripes(x);
    let (y_stripes, y_rest) = whole_stripes_mut(y);
    for (x, y) in stripes
        .chunks_exact(T::LANES)
        .zip(y_stripes.chunks_exact_mut(T::LANES))
    {
        let x = T::Stripe::<S>::from_slice(simd, x);
        (power.terms(&cut, x).0 * scale).store_slice(y);
    }
    if !rest.is_empty() {
        let x = load_padded::<T, S>(simd, rest, T::NEG_INFINITY);
        store_part::<T, S>(power.terms(&cut, x).0 * scale, y_rest);
    }
}

/// τ and the number of scores above it, in the convention `p = [(α-1) x - τ]₊^{1/(α-1)}`.
#[simd]
pub(super) fn threshold_and_support<S: Simd, T: Real, P: Solved<T>>(
    simd: S,
    power: P,
    position: Position<T>,
    x: &[T],
) -> (T, usize) {
    let cut = power.cut(position.splat(simd));
    let mut support = 0;
    for x in x.chunks(T::LANES) {
        let p = power
            .terms(&cut, load_padded::<T, S>(simd, x, T::NEG_INFINITY))
            .0;
        support += p.simd_gt(T::ZERO).to_bitmask().count_ones() as usize;
    }
    let threshold = power.threshold(&cut);
    (
        ((threshold.high + threshold.low) * power.delta())[0],
        support,
    )
}

/// Maps one long row.
pub(super) fn threshold_long_row<T: Real, P: Solved<T>>(
    run: &mut Run<'_>,
    power: P,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let Some(FoundInLongRow {
        position,
        bound,
        mut kept,
    }) = locate_long_row(run, power, x)?
    else {
        return share_infinities_of_long_row(run, x, y, power.total());
    };
    if P::CHEAP {
        let scale = if P::ROUNDED {
            let candidates = kept.candidates();
            power.total() / sums_of_long_row::<_, _, false>(run, power, position, candidates)?.0
        } else {
            T::ONE
        };
        return write_long_row(run, power, position, scale, x, y);
    }
    let level = run.level;
    let sums = of_written_chunks(
        run,
        kept.padded(),
        |_, candidates| dispatch!(level, simd => replace_chunk(simd, power, position, candidates)),
    )?;
    let scale = power.total() / dispatch!(level, simd => add_up(simd, sums.into_iter()));
    write_chunks(run, y, |at, y| {
        let terms = &kept.values[kept.starts[at.start / CHUNK]..];
        dispatch!(level, simd => expand_chunk(simd, &x[at], bound, terms, scale, y));
    })
}

#[simd]
pub(super) fn replace_chunk<S: Simd, T: Real, P: Power<T>>(
    simd: S,
    power: P,
    position: Position<T>,
    candidates: &mut [T],
) -> T {
    let cut = power.cut(position.splat(simd));
    replace_by_terms(simd, power, &cut, candidates).total()
}

#[simd]
pub(super) fn expand_chunk<S: Simd, T: Real>(
    simd: S,
    x: &[T],
    bound: T,
    terms: &[T],
    scale: T,
    y: &mut [T],
) {
    expand::<T, S>(simd, x, bound, terms, scale, y);
}

/// [`threshold_and_support`] of a long row; nothing if its maximum is not finite, or a NaN is among the scores.
pub(super) fn threshold_and_support_of_long_row<T: Real, P: Solved<T>>(
    run: &mut Run<'_>,
    power: P,
    x: &[T],
) -> Result<Option<(T, usize)>, Error> {
    let level = run.level;
    let Some(FoundInLongRow { position, .. }) = locate_long_row(run, power, x)? else {
        return Ok(None);
    };
    let found = of_chunks(
        run,
        x.len(),
        |at| dispatch!(level, simd => threshold_and_support(simd, power, position, &x[at])),
    )?;
    let support = found.iter().map(|(_, support)| support).sum();
    Ok(Some((found[0].0, support)))
}

/// What [`locate_long_row`] found.
pub(super) struct FoundInLongRow<T> {
    pub(super) position: Position<T>,
    pub(super) bound: T,
    pub(super) kept: Kept<T>,
}

/// [`locate`], shared out.
pub(super) fn locate_long_row<T: Real, P: Solved<T>>(
    run: &mut Run<'_>,
    power: P,
    x: &[T],
) -> Result<Option<FoundInLongRow<T>>, Error> {
    let level = run.level;
    let mut maxima = vec![T::ZERO; x.len().div_ceil(CHUNK) * 4 * T::LANES];
    run.each_chunk(
        &mut maxima,
        4 * T::LANES,
        || (),
        |(), index, maxima| {
            let x = &x[chunk(x.len(), index)];
            dispatch!(level, simd => store_maxima(simd, x, maxima));
        },
    )?;
    let max = dispatch!(level, simd => max::<T, _>(simd, &maxima));
    if !max.is_finite() {
        return Ok(None);
    }
    let (near, bound) = dispatch!(level, simd => near_and_bound(simd, power, max, &maxima));
    let kept = filter_long_row(run, x, bound)?;
    let position = solve_long_row(run, power, max, near, kept.candidates())?;
    Ok(position.map(|position| FoundInLongRow {
        position,
        bound,
        kept,
    }))
}

/// [`write_row`], shared out.
fn write_long_row<T: Real, P: Power<T>>(
    run: &mut Run<'_>,
    power: P,
    position: Position<T>,
    scale: T,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let level = run.level;
    write_chunks(run, y, |at, y| {
        dispatch!(level, simd => write_row(simd, power, position, scale, &x[at], y));
    })
}

#[simd]
pub(super) fn store_maxima<S: Simd, T: Real>(simd: S, x: &[T], maxima: &mut [T]) {
    let quarters = max_of_each_quarter::<T, S>(simd, x);
    for (maxima, quarter) in maxima.chunks_exact_mut(T::LANES).zip(quarters) {
        quarter.store_slice(maxima);
    }
}

#[simd]
fn near_and_bound<S: Simd, T: Real, P: Solved<T>>(
    simd: S,
    power: P,
    max: T,
    maxima: &[T],
) -> (Position<T>, T) {
    let max = T::Stripe::<S>::splat(simd, max);
    let mut approach = Approach::new(power, start(power, max));
    approach.run::<true>(simd, maxima);
    (Position::of(approach.at), bound(power, approach.at, max)[0])
}

/// What [`filter`] keeps of a long row.
pub(super) struct Kept<T> {
    /// The values in order, and a stripe of what never counts.
    pub(super) values: Vec<T>,
    /// Where those of each chunk begin.
    pub(super) starts: Vec<usize>,
}

impl<T: Real> Kept<T> {
    fn count(&self) -> usize {
        self.values.len() - T::LANES
    }

    pub(super) fn candidates(&self) -> &[T] {
        &self.values[..self.count()]
    }

    /// The candidates in whole stripes.
    pub(super) fn padded(&mut self) -> &mut [T] {
        let len = self.count().next_multiple_of(T::LANES);
        &mut self.values[..len]
    }
}

/// [`filter`], shared out.
pub(super) fn filter_long_row<T: Real>(
    run: &mut Run<'_>,
    x: &[T],
    bound: T,
) -> Result<Kept<T>, Error> {
    let level = run.level;
    let mut kept = vec![Vec::new(); x.len().div_ceil(CHUNK)];
    let room = || vec![T::ZERO; CHUNK + T::LANES];
    run.each_chunk(&mut kept, 1, room, |room, index, kept| {
        let x = &x[chunk(x.len(), index)];
        let count = dispatch!(level, simd => filter_chunk(simd, x, bound, room));
        kept[0] = room[..count].to_vec();
    })?;
    let starts = kept.iter().scan(0, |end, chunk: &Vec<T>| {
        let start = *end;
        *end += chunk.len();
        Some(start)
    });
    let starts = starts.collect();
    let mut values = gather(run, kept, T::LANES)?;
    let count = values.len() - T::LANES;
    values[count..].fill(T::NEG_INFINITY);
    Ok(Kept { values, starts })
}

/// The largest value of a long row; if there is a NaN, nothing is promised.
pub(super) fn max_of_long_row<T: Real>(run: &mut Run<'_>, x: &[T]) -> Result<T, Error> {
    let level = run.level;
    let maxima = of_chunks(
        run,
        x.len(),
        |at| dispatch!(level, simd => max::<T, _>(simd, &x[at])),
    )?;
    Ok(dispatch!(level, simd => max::<T, _>(simd, &maxima)))
}

#[simd]
fn filter_chunk<S: Simd, T: Real>(simd: S, x: &[T], bound: T, to: &mut [T]) -> usize {
    filter::<T, S>(simd, x, bound, to)
}

/// [`solve`] with sums that are shared out; `None` if there is a NaN among the candidates.
fn solve_long_row<T: Real, P: Solved<T>>(
    run: &mut Run<'_>,
    power: P,
    max: T,
    near: Position<T>,
    candidates: &[T],
) -> Result<Option<Position<T>>, Error> {
    let level = run.level;
    let mut position = near;
    for _ in 0..ROUGH_STEPS {
        let sums = sums_of_long_row::<T, P, true>(run, power, position, candidates)?;
        let open;
        (open, position) = dispatch!(level, simd => approach_long_row(simd, power, position, sums));
        if !open {
            break;
        }
    }
    position = dispatch!(level, simd => normalized(simd, position));
    let mut off = T::INFINITY;
    for _ in 0..MOST_STEPS {
        let sums = sums_of_long_row::<T, P, false>(run, power, position, candidates)?;
        let open;
        (open, position, off) =
            dispatch!(level, simd => step_long_row(simd, power, position, off, sums));
        if !open {
            break;
        }
    }
    position = dispatch!(level, simd => position_not_below_start(simd, power, max, position));
    Ok((!off.is_nan()).then_some(position))
}

/// [`sums`] at a position, shared out in chunks and joined in their order.
fn sums_of_long_row<T: Real, P: Power<T>, const ROUGH: bool>(
    run: &mut Run<'_>,
    power: P,
    position: Position<T>,
    candidates: &[T],
) -> Result<(T, T), Error> {
    let level = run.level;
    let sums = of_chunks(
        run,
        candidates.len(),
        |at| dispatch!(level, simd => sums_at::<_, T, P, ROUGH>(simd, power, position, &candidates[at])),
    )?;
    let q = dispatch!(level, simd => add_up(simd, sums.iter().map(|&(q, _)| q)));
    let s = sums.into_iter().fold(T::ZERO, |sum, (_, s)| sum + s);
    Ok((q, s))
}

#[simd]
fn sums_at<S: Simd, T: Real, P: Power<T>, const ROUGH: bool>(
    simd: S,
    power: P,
    position: Position<T>,
    x: &[T],
) -> (T, T) {
    let cut = power.cut(position.splat(simd));
    let (stripes, rest) = whole_stripes(x);
    let (q, s) = sums::<T, S, P, ROUGH, true>(simd, power, &cut, stripes);
    let (last_q, last_s) = power.terms(&cut, load_padded::<T, S>(simd, rest, T::NEG_INFINITY));
    (q[0] + T::fold_sum(last_q), s[0] + T::fold_sum(last_s))
}

#[simd]
fn approach_long_row<S: Simd, T: Real, P: Solved<T>>(
    simd: S,
    power: P,
    position: Position<T>,
    sums: (T, T),
) -> (bool, Position<T>) {
    let mut approach = Approach::new(power, position.splat(simd));
    let open = approach.step(splat_both(simd, sums));
    (open, Position::of(approach.at))
}

#[simd]
fn normalized<S: Simd, T: Real>(simd: S, position: Position<T>) -> Position<T> {
    let at = position.splat(simd);
    Position::of(Pair::new(at.high).add(at.low))
}

#[simd]
fn position_not_below_start<S: Simd, T: Real, P: Power<T>>(
    simd: S,
    power: P,
    max: T,
    position: Position<T>,
) -> Position<T> {
    let max = T::Stripe::<S>::splat(simd, max);
    Position::of(not_below_start(power, max, position.splat(simd)))
}

#[simd]
fn step_long_row<S: Simd, T: Real, P: Solved<T>>(
    simd: S,
    power: P,
    position: Position<T>,
    off: T,
    sums: (T, T),
) -> (bool, Position<T>, T) {
    let mut newton = Newton::new(power, position.splat(simd));
    newton.off = T::Stripe::<S>::splat(simd, off);
    let open = newton.step(splat_both(simd, sums));
    (open, Position::of(newton.at), newton.off[0])
}

/// Maps a row by `steps` halvings of the interval that holds the solution; what is left of Σ p is divided out.
#[simd]
pub(super) fn bisect_row<S: Simd, T: Real>(
    simd: S,
    power: Plain<T>,
    steps: u32,
    x: &[T],
    y: &mut [T],
    kernel: &mut [T],
) {
    let max = max::<T, S>(simd, x);
    if !max.is_finite() {
        return share_infinities(x, y, T::ONE);
    }
    let (mut at, mut width, bound) = bisection(simd, power, max, x.len());
    let count = filter::<T, S>(simd, x, bound, kernel);
    let len = pad(kernel, count);
    let candidates = &kernel[..len];
    for _ in 0..steps {
        width *= T::HALF;
        let middle = shifted(simd, at, width);
        if middle == at {
            break; // nothing is left to halve
        }
        if sums_at::<S, T, _, false>(simd, power, middle, candidates).0 >= T::ONE {
            at = middle;
        }
    }
    let scale = T::ONE / sums_at::<S, T, _, false>(simd, power, at, candidates).0; // NaN if there is one
    write_row(simd, power, at, scale, x, y);
}

/// [`bisect_row`] of a long row.
pub(super) fn bisect_long_row<T: Real>(
    run: &mut Run<'_>,
    power: Plain<T>,
    steps: u32,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let level = run.level;
    let max = max_of_long_row(run, x)?;
    if !max.is_finite() {
        return share_infinities_of_long_row(run, x, y, T::ONE);
    }
    let (mut at, mut width, bound) = dispatch!(level, simd => bisection(simd, power, max, x.len()));
    let kept = filter_long_row(run, x, bound)?;
    let candidates = kept.candidates();
    for _ in 0..steps {
        width *= T::HALF;
        let middle = dispatch!(level, simd => shifted(simd, at, width));
        if middle == at {
            break; // nothing is left to halve
        }
        if sums_of_long_row::<_, _, false>(run, power, middle, candidates)?.0 >= T::ONE {
            at = middle;
        }
    }
    let scale = T::ONE / sums_of_long_row::<_, _, false>(run, power, at, candidates)?.0;
    write_long_row(run, power, at, scale, x, y)
}

/// The lower end of the interval that holds the solution, its width, and a bound of the candidates.
///
/// One score has all the mass at the lower end; n equal scores share it at the upper end.
#[simd]
fn bisection<S: Simd, T: Real>(simd: S, power: Plain<T>, max: T, n: usize) -> (Position<T>, T, T) {
    let max = T::Stripe::<S>::splat(simd, max);
    let at = start(power, max);
    let bound = bound(power, at, max)[0];
    (Position::of(at), power.width(simd, n), bound)
}

#[simd]
fn shifted<S: Simd, T: Real>(simd: S, at: Position<T>, by: T) -> Position<T> {
    Position::of(at.splat(simd).add(T::Stripe::<S>::splat(simd, by)))
}
