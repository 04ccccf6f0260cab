//! csoftmax: `p = min(u, s e^{x/T})`, `Σ p = total`.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    BoundedRow, Upper, again,
    bounds::{Bounds, Caps, Own, OwnRows, Same, with_bounds},
    less_rounding,
};
use crate::{
    batch::{of_chunks, of_written_chunks, write_chunks},
    error::Error,
    maps::{softmax::exponentials, threshold::max_of_long_row, tile},
    parallel::Run,
    scalar::Real,
    simd::{Sum, add_up, exp_lifted, load_padded, max, store_part},
};

/// Rows of at most this many values go a lane each.
const TILED: usize = 64;

/// `p = min(u, s e^{x/T})`, `Σ p = total`, by 1/T.
#[derive(Clone, Copy)]
struct Exponential<T> {
    total: T,
    inverse: T,
}

/// Sums of a row at a scale: the bounds of those that have reached them and their number, and the others' exponentials.
#[derive(Clone, Copy)]
struct Reached<T> {
    bounds: T,
    count: T,
    others: T,
}

/// How much s may grow before the exponentials are taken anew, so that none is lost that counts.
const MOST_GROWTH: f64 = 1024.0;

/// How often they are taken anew before it is sought what to take them relative to.
const MOST_RENEWALS: usize = 4;

/// The exponentials of a row, and who works on them.
trait Exponentials<T: Real> {
    fn reached(&mut self, scale: T) -> Result<Reached<T>, Error>;
    /// The largest score whose entry has not reached its bound, and the smallest above -∞.
    fn extremes(&mut self, scale: T) -> Result<(T, T), Error>;
    /// Takes the exponentials anew, relative to a score, at most 1; those that have reached their bounds become infinite.
    fn renew(&mut self, scale: T, from: T) -> Result<(), Error>;
}

impl<T: Real> Exponential<T> {
    fn new(inverse: T) -> Self {
        let total = T::ONE;
        Self { total, inverse }
    }

    /// [`BoundedRow::row`], shared out.
    fn long_row<B: Bounds<T>>(
        self,
        run: &mut Run<'_>,
        bounds: B,
        x: &[T],
        y: &mut [T],
    ) -> Result<Option<()>, Error> {
        let level = run.level;
        let max = max_of_long_row(run, x)?;
        if !max.is_finite() {
            return Ok(None);
        }
        let sums = of_written_chunks(
            run,
            y,
            |at, y| dispatch!(level, simd => exponentials(simd, &x[at], y, max, self.inverse)),
        )?;
        let sum = dispatch!(level, simd => add_up(simd, sums.into_iter()));
        if sum.is_nan() {
            return Ok(None);
        }
        let mut row = SharedOut {
            map: self,
            run,
            bounds,
            x,
            e: y,
        };
        let Some(scale) = self.settle(sum, &mut row)? else {
            return Ok(None);
        };
        write_chunks(run, y, |at, y| {
            let bounds = bounds.part(at);
            dispatch!(level, simd => self.finish(simd, bounds, scale, y));
        })?;
        Ok(Some(()))
    }

    /// The scale of the exponentials, whose sum this is; nothing if the bounds cannot hold the total.
    fn settle(self, sum: T, row: &mut impl Exponentials<T>) -> Result<Option<T>, Error> {
        let larger = |a: T, b: T| if a > b { a } else { b };
        let mut scale = self.total / sum;
        let mut count = T::ZERO;
        let mut renewals = 0;
        loop {
            let now = row.reached(scale)?;
            if now.count == count {
                return Ok(Some(scale)); // it is the scale of these
            }
            count = now.count;
            let rest = self.total - now.bounds;
            if rest <= T::ZERO {
                return Ok(Some(scale)); // what the others have is lost in rounding
            }
            let next = rest / now.others;
            if now.others > T::ZERO && next * T::LIFT_FACTOR <= T::from_f64(MOST_GROWTH) {
                scale = larger(scale, next);
                continue;
            }
            let (max, min) = row.extremes(scale)?;
            if max == T::NEG_INFINITY {
                let holds = now.bounds >= less_rounding(self.total);
                return Ok(holds.then_some(scale));
            }
            row.renew(scale, max)?;
            let others = row.reached(T::MIN_POSITIVE)?.others;
            scale = larger(rest / others, T::MIN_POSITIVE);
            count = -T::ONE;
            renewals += 1;
            if renewals > MOST_RENEWALS && self.approach(max, min, row)? {
                scale = T::ONE / T::LIFT_FACTOR;
            }
        }
    }

    /// Takes the exponentials relative to a score from `max`, which they are relative to, down to `min`, so that their
    /// own size is not too large as p, and hardly too small; says whether that can be, else leaves them as they are.
    fn approach(self, max: T, min: T, row: &mut impl Exponentials<T>) -> Result<bool, Error> {
        // As 1 is not less than any bound, all have reached theirs relative to the smallest score.
        let (mut low, mut high) = (min, max);
        if !self.fits(row)? {
            return Ok(false);
        }
        while (high - low) * self.inverse > T::ONE {
            let middle = low * T::HALF + high * T::HALF;
            if middle <= low || middle >= high {
                break;
            }
            row.renew(T::ZERO, middle)?;
            if self.fits(row)? {
                high = middle;
            } else {
                low = middle;
            }
        }
        row.renew(T::ZERO, high)?;
        Ok(true)
    }

    /// Whether the exponentials, within their bounds, are not more than the total in sum.
    fn fits(self, row: &mut impl Exponentials<T>) -> Result<bool, Error> {
        let now = row.reached(T::ONE / T::LIFT_FACTOR)?;
        let rest = self.total - now.bounds;
        Ok(rest > T::ZERO && now.others <= rest * T::LIFT_FACTOR)
    }

    #[simd]
    fn reached<S: Simd, B: Bounds<T>>(self, simd: S, bounds: B, scale: T, e: &[T]) -> Reached<T> {
        let scale = T::Stripe::<S>::splat(simd, scale);
        let (full, count, others) = sums::<T, S, B, true>(simd, bounds, scale, e);
        Reached {
            bounds: full.total(),
            count: T::fold_sum(count),
            others: others.total(),
        }
    }

    #[simd]
    fn extremes<S: Simd, B: Bounds<T>>(
        self,
        simd: S,
        bounds: B,
        scale: T,
        x: &[T],
        e: &[T],
    ) -> (T, T) {
        let infinity = T::Stripe::<S>::splat(simd, T::INFINITY);
        let (mut max, mut min) = (-infinity, infinity);
        for (i, (x, e)) in x.chunks(T::LANES).zip(e.chunks(T::LANES)).enumerate() {
            let x = load_padded::<T, S>(simd, x, T::NEG_INFINITY);
            let e = load_padded::<T, S>(simd, e, T::ZERO);
            let reached = (e * scale).simd_ge(bounds.stripe(simd, i * T::LANES));
            max = max.max(reached.select(-infinity, x));
            min = min.min(x.simd_eq(T::NEG_INFINITY).select(infinity, x));
        }
        (T::fold_max(max), -T::fold_max(-min))
    }

    #[simd]
    fn renew<S: Simd, B: Bounds<T>>(
        self,
        simd: S,
        bounds: B,
        (scale, from): (T, T),
        x: &[T],
        e: &mut [T],
    ) {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let infinity = T::Stripe::<S>::splat(simd, T::INFINITY);
        for (i, (x, to)) in x.chunks(T::LANES).zip(e.chunks_mut(T::LANES)).enumerate() {
            let x = load_padded::<T, S>(simd, x, T::NEG_INFINITY);
            let e = load_padded::<T, S>(simd, to, T::ZERO);
            let reached = (e * scale).simd_ge(bounds.stripe(simd, i * T::LANES));
            let e = exp_lifted::<T, S>(((x - from) * self.inverse).min(zero));
            store_part::<T, S>(reached.select(infinity, e), to);
        }
    }

    #[simd]
    fn finish<S: Simd, B: Bounds<T>>(self, simd: S, bounds: B, scale: T, y: &mut [T]) {
        for (i, to) in y.chunks_mut(T::LANES).enumerate() {
            let p = load_padded::<T, S>(simd, to, T::ZERO) * scale;
            let u = bounds.stripe(simd, i * T::LANES);
            store_part::<T, S>(p.simd_ge(u).select(u, p), to);
        }
    }
}

/// What [`Reached`] holds, in every lane of a tile, or of stripes of one row, which are then folded.
#[inline(always)]
fn sums<T: Real, S: Simd, B: Bounds<T>, const FOLD: bool>(
    simd: S,
    bounds: B,
    scale: T::Stripe<S>,
    e: &[T],
) -> (Sum<T, S>, T::Stripe<S>, Sum<T, S>) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let one = T::Stripe::<S>::splat(simd, T::ONE);
    let (mut full, mut others) = (Sum::<T, S>::new(simd), Sum::<T, S>::new(simd));
    let mut count = zero;
    let group = if FOLD { Sum::<T, S>::GROUP } else { 1 };
    for (g, stripes) in e.chunks(group * T::LANES).enumerate() {
        let (mut full_partial, mut partial) = (zero, zero);
        for (i, stripe) in stripes.chunks(T::LANES).enumerate() {
            let e = load_padded::<T, S>(simd, stripe, T::ZERO);
            let u = bounds.stripe(simd, (g * group + i) * T::LANES);
            let reached = (e * scale).simd_ge(u);
            partial += reached.select(zero, e);
            full_partial += reached.select(u, zero);
            count += reached.select(one, zero);
        }
        others.add(partial);
        full.add(full_partial);
    }
    (full, count, others)
}

/// The calling thread works on a row.
struct Here<'a, T, B> {
    map: Exponential<T>,
    level: Level,
    bounds: B,
    x: &'a [T],
    e: &'a mut [T],
}

impl<T: Real, B: Bounds<T>> Exponentials<T> for Here<'_, T, B> {
    fn reached(&mut self, scale: T) -> Result<Reached<T>, Error> {
        let Self { map, bounds, e, .. } = self;
        Ok(dispatch!(self.level, simd => map.reached(simd, *bounds, scale, e)))
    }
    fn extremes(&mut self, scale: T) -> Result<(T, T), Error> {
        let Self { map, bounds, .. } = *self;
        Ok(dispatch!(self.level, simd => map.extremes(simd, bounds, scale, self.x, self.e)))
    }
    fn renew(&mut self, scale: T, from: T) -> Result<(), Error> {
        let Self { map, bounds, .. } = *self;
        dispatch!(self.level, simd => map.renew(simd, bounds, (scale, from), self.x, self.e));
        Ok(())
    }
}

/// A long row is shared out in chunks.
struct SharedOut<'a, 'r, T, B> {
    map: Exponential<T>,
    run: &'a mut Run<'r>,
    bounds: B,
    x: &'a [T],
    e: &'a mut [T],
}

impl<T: Real, B: Bounds<T>> Exponentials<T> for SharedOut<'_, '_, T, B> {
    fn reached(&mut self, scale: T) -> Result<Reached<T>, Error> {
        let (map, bounds, level, e) = (self.map, self.bounds, self.run.level, &*self.e);
        let chunks = of_chunks(self.run, e.len(), |at| {
            let bounds = bounds.part(at.clone());
            dispatch!(level, simd => map.reached(simd, bounds, scale, &e[at]))
        })?;
        Ok(dispatch!(level, simd => Reached::combine(simd, &chunks)))
    }
    fn extremes(&mut self, scale: T) -> Result<(T, T), Error> {
        let (map, bounds, level) = (self.map, self.bounds, self.run.level);
        let (x, e) = (self.x, &*self.e);
        let chunks = of_chunks(self.run, x.len(), |at| {
            let bounds = bounds.part(at.clone());
            let (x, e) = (&x[at.clone()], &e[at]);
            dispatch!(level, simd => map.extremes(simd, bounds, scale, x, e))
        })?;
        let nothing = (T::NEG_INFINITY, T::INFINITY);
        Ok(chunks.into_iter().fold(nothing, |a, b| {
            (
                if a.0 > b.0 { a.0 } else { b.0 },
                if a.1 < b.1 { a.1 } else { b.1 },
            )
        }))
    }
    fn renew(&mut self, scale: T, from: T) -> Result<(), Error> {
        let (map, bounds, level, x) = (self.map, self.bounds, self.run.level, self.x);
        write_chunks(self.run, self.e, |at, e| {
            let bounds = bounds.part(at.clone());
            dispatch!(level, simd => map.renew(simd, bounds, (scale, from), &x[at], e));
        })
    }
}

impl<T: Real> Reached<T> {
    /// Adds up the sums of the chunks of a row.
    #[simd]
    fn combine<S: Simd>(simd: S, chunks: &[Self]) -> Self {
        Self {
            bounds: add_up(simd, chunks.iter().map(|chunk| chunk.bounds)),
            count: add_up(simd, chunks.iter().map(|chunk| chunk.count)),
            others: add_up(simd, chunks.iter().map(|chunk| chunk.others)),
        }
    }
}

impl<T: Real> BoundedRow<T> for Exponential<T> {
    fn total(self) -> T {
        self.total
    }

    fn with_total(self, total: T) -> Self {
        Self { total, ..self }
    }

    fn row<B: Bounds<T>>(
        self,
        level: Level,
        bounds: B,
        x: &[T],
        y: &mut [T],
        _: &mut Vec<T>,
    ) -> Option<()> {
        let max = dispatch!(level, simd => max::<T, _>(simd, x));
        if !max.is_finite() {
            return None;
        }
        let sum = dispatch!(level, simd => exponentials(simd, x, y, max, self.inverse));
        if sum.is_nan() {
            return None;
        }
        let mut row = Here {
            map: self,
            level,
            bounds,
            x,
            e: y,
        };
        let scale = self.settle(sum, &mut row).ok().flatten()?;
        dispatch!(level, simd => self.finish(simd, bounds, scale, y));
        Some(())
    }
}

pub(super) fn csoftmax_rows<T: Real>(
    level: Level,
    (upper, inverse): (Upper<'_, T>, T),
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    let map = Exponential::new(inverse);
    let group = n * T::LANES;
    for (index, (x, y)) in x.chunks(group).zip(y.chunks_mut(group)).enumerate() {
        let upper = upper.rows_from(index * T::LANES, n);
        let well = with_bounds!(upper.of_row(0, n), map.total, |bounds| if n > TILED {
            0
        } else {
            kernel.resize(2 * group + tile::spare::<T>(n), T::ZERO);
            dispatch!(level, simd => csoftmax_tile(simd, map, (bounds, upper.own(n)), n, x, y, kernel))
        });
        again(level, map, upper, (n, well), x, y, kernel);
    }
}

/// As `capped_tile`. What needs its exponentials taken anew does not go well.
#[simd]
fn csoftmax_tile<S: Simd, T: Real, B: Bounds<T>>(
    simd: S,
    map: Exponential<T>,
    (bounds, own): (B, OwnRows<'_, T>),
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut [T],
) -> u64 {
    let rows = x.len() / n;
    let (columns, rest) = kernel.split_at_mut(n * T::LANES);
    let (caps, spare) = rest.split_at_mut(columns.len());
    own.load(simd, rows, n, caps, spare);
    let bounds = bounds.of(caps);
    tile::load(simd, x, rows, n, columns, spare);

    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let one = T::Stripe::<S>::splat(simd, T::ONE);
    let max = tile::max::<T, S>(simd, columns);
    let mut sum = Sum::<T, S>::new(simd);
    for column in columns.chunks_exact_mut(T::LANES) {
        let z = (T::Stripe::<S>::from_slice(simd, column) - max) * map.inverse;
        let e = exp_lifted::<T, S>(z);
        e.store_slice(column);
        sum.add(e);
    }
    let sum = sum.lanes();
    let mut well = max.abs().simd_lt(T::INFINITY) & sum.simd_eq(sum); // no NaN among the scores
    let mut scale = one * map.total / sum;
    let mut count = zero;
    for _ in 0..=n {
        let (full, now, others) = sums::<T, S, _, false>(simd, bounds, scale, columns);
        let open = well & !now.simd_eq(count);
        if !open.any_true() {
            break;
        }
        count = open.select(now, count);
        let (others, rest) = (others.lanes(), zero.max(one * map.total - full.lanes()));
        let next = rest / others;
        let most = T::from_f64(MOST_GROWTH) / T::LIFT_FACTOR;
        well &= !open | (others.simd_gt(zero) & next.simd_le(most));
        scale = (open & well).select(scale.max(next), scale);
    }
    for (k, column) in columns.chunks_exact_mut(T::LANES).enumerate() {
        let p = T::Stripe::<S>::from_slice(simd, column) * scale;
        let u = bounds.stripe(simd, k * T::LANES);
        p.simd_ge(u).select(u, p).store_slice(column);
    }
    tile::store(simd, columns, rows, n, y, spare);
    well.to_bitmask()
}

pub(super) fn csoftmax_long_row<T: Real>(
    run: &mut Run<'_>,
    (caps, inverse): (Caps<'_, T>, T),
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let map = Exponential::new(inverse);
    with_bounds!(caps, map.total, |bounds| {
        if map.long_row(run, bounds, x, y)?.is_none() {
            map.extreme_row(run.level, bounds, x, y, &mut Vec::new());
        }
        Ok(())
    })
}
