//! csoftmax: `p = min(u, s e^{x/T})`, `Σ p = total`.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    BoundedRow, Upper, again,
    bounds::{Bounds, Caps, Own, OwnRows, Same, with_bounds},
    capped::{TILED, bits},
    each_row, less_rounding,
};
use crate::{
    batch::{of_chunks, of_written_chunks, write_chunks},
    error::Error,
    maps::{softmax::exponentials, threshold::max_of_long_row, tile},
    parallel::Run,
    scalar::Real,
    simd::{Sum, add_up, exp_lifted, load_padded, max, store_part},
};

/// `p = min(u, s e^x)`, `Σ p = total`.
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

/// The exponentials of a row, and who works on them.
trait Exponentials<T: Real> {
    fn reached(&mut self, scale: T) -> Result<Reached<T>, Error>;
    /// The largest score whose entry has not reached its bound.
    fn largest(&mut self, scale: T) -> Result<T, Error>;
    /// Takes the exponentials anew, relative to a score; those that have reached their bounds become infinite.
    fn renew(&mut self, scale: T, max: T) -> Result<(), Error>;
}

impl<T: Real> Exponential<T> {
    /// The scale of the exponentials, of which there are n with this sum; nothing if the bounds cannot hold the total.
    fn settle(self, n: usize, sum: T, row: &mut impl Exponentials<T>) -> Result<Option<T>, Error> {
        let larger = |a: T, b: T| if a > b { a } else { b };
        let mut scale = self.total / sum;
        let mut count = T::ZERO;
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
            let max = row.largest(scale)?;
            if max == T::NEG_INFINITY {
                let holds = now.bounds >= less_rounding(self.total, n);
                return Ok(holds.then_some(scale));
            }
            row.renew(scale, max)?;
            let others = row.reached(T::MIN_POSITIVE)?.others;
            scale = larger(rest / others, T::MIN_POSITIVE);
            count = -T::ONE;
        }
    }

    #[simd]
    fn reached<S: Simd, B: Bounds<T>>(self, simd: S, bounds: B, scale: T, e: &[T]) -> Reached<T> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let mut others = Sum::<T, S>::new(simd);
        let mut full = Sum::<T, S>::new(simd);
        let mut count = zero;
        let group = Sum::<T, S>::GROUP * T::LANES;
        for (g, group) in e.chunks(group).enumerate() {
            let (mut full_partial, mut partial) = (zero, zero);
            for (i, stripe) in group.chunks(T::LANES).enumerate() {
                let e = load_padded::<T, S>(simd, stripe, T::ZERO);
                let u = bounds.stripe(simd, (g * Sum::<T, S>::GROUP + i) * T::LANES);
                let reached = (e * scale).simd_ge(u);
                partial += reached.select(zero, e);
                full_partial += reached.select(u, zero);
                count += reached.select(one, zero);
            }
            others.add(partial);
            full.add(full_partial);
        }
        Reached {
            bounds: full.total(),
            count: T::fold_sum(count),
            others: others.total(),
        }
    }

    #[simd]
    fn largest<S: Simd, B: Bounds<T>>(self, simd: S, bounds: B, scale: T, x: &[T], e: &[T]) -> T {
        let mut largest = T::Stripe::<S>::splat(simd, T::NEG_INFINITY);
        for (i, (x, e)) in x.chunks(T::LANES).zip(e.chunks(T::LANES)).enumerate() {
            let x = load_padded::<T, S>(simd, x, T::NEG_INFINITY);
            let e = load_padded::<T, S>(simd, e, T::ZERO);
            let reached = (e * scale).simd_ge(bounds.stripe(simd, i * T::LANES));
            let none = T::Stripe::<S>::splat(simd, T::NEG_INFINITY);
            largest = largest.max(reached.select(none, x));
        }
        T::fold_max(largest)
    }

    #[simd]
    fn renew<S: Simd, B: Bounds<T>>(
        self,
        simd: S,
        bounds: B,
        (scale, max): (T, T),
        x: &[T],
        e: &mut [T],
    ) {
        let infinity = T::Stripe::<S>::splat(simd, T::INFINITY);
        for (i, (x, to)) in x.chunks(T::LANES).zip(e.chunks_mut(T::LANES)).enumerate() {
            let x = load_padded::<T, S>(simd, x, T::NEG_INFINITY);
            let e = load_padded::<T, S>(simd, to, T::ZERO);
            let reached = (e * scale).simd_ge(bounds.stripe(simd, i * T::LANES));
            let e = exp_lifted::<T, S>((x - max) * self.inverse);
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
    fn largest(&mut self, scale: T) -> Result<T, Error> {
        let Self { map, bounds, .. } = *self;
        Ok(dispatch!(self.level, simd => map.largest(simd, bounds, scale, self.x, self.e)))
    }
    fn renew(&mut self, scale: T, max: T) -> Result<(), Error> {
        let Self { map, bounds, .. } = *self;
        dispatch!(self.level, simd => map.renew(simd, bounds, (scale, max), self.x, self.e));
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
    fn largest(&mut self, scale: T) -> Result<T, Error> {
        let (map, bounds, level) = (self.map, self.bounds, self.run.level);
        let (x, e) = (self.x, &*self.e);
        let chunks = of_chunks(self.run, x.len(), |at| {
            let bounds = bounds.part(at.clone());
            let (x, e) = (&x[at.clone()], &e[at]);
            dispatch!(level, simd => map.largest(simd, bounds, scale, x, e))
        })?;
        Ok(dispatch!(level, simd => max::<T, _>(simd, &chunks)))
    }
    fn renew(&mut self, scale: T, max: T) -> Result<(), Error> {
        let (map, bounds, level, x) = (self.map, self.bounds, self.run.level, self.x);
        write_chunks(self.run, self.e, |at, e| {
            let bounds = bounds.part(at.clone());
            dispatch!(level, simd => map.renew(simd, bounds, (scale, max), &x[at], e));
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
        let scale = self.settle(x.len(), sum, &mut row).ok().flatten()?;
        dispatch!(level, simd => self.finish(simd, bounds, scale, y));
        Some(())
    }
}

pub(super) fn csoftmax_rows<T: Real>(
    level: Level,
    (upper, total, inverse): (Upper<'_, T>, f64, T),
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    let total = T::from_f64(total);
    let map = Exponential { total, inverse };
    if n > TILED {
        return each_row(level, map, upper, n, x, y, kernel);
    }
    let group = n * T::LANES;
    for (index, (x, y)) in x.chunks(group).zip(y.chunks_mut(group)).enumerate() {
        let upper = upper.rows_from(index * T::LANES, n);
        kernel.resize(2 * group + tile::spare::<T>(n), T::ZERO);
        let well = with_bounds!(upper.of_row(0, n), total, |bounds| {
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
        let (mut others, mut full) = (Sum::<T, S>::new(simd), Sum::<T, S>::new(simd));
        let mut now = zero;
        for (k, column) in columns.chunks_exact(T::LANES).enumerate() {
            let e = T::Stripe::<S>::from_slice(simd, column);
            let u = bounds.stripe(simd, k * T::LANES);
            let reached = (e * scale).simd_ge(u);
            others.add(reached.select(zero, e));
            full.add(reached.select(u, zero));
            now += reached.select(one, zero);
        }
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
    bits::<T, S>(well)
}

pub(super) fn csoftmax_long_row<T: Real>(
    run: &mut Run<'_>,
    (caps, total, inverse): (Caps<'_, T>, f64, T),
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let total = T::from_f64(total);
    let map = Exponential { total, inverse };
    with_bounds!(caps, total, |bounds| {
        if map.long_row(run, bounds, x, y)?.is_none() {
            map.extreme_row(run.level, bounds, x, y, &mut Vec::new());
        }
        Ok(())
    })
}

impl<T: Real> Exponential<T> {
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
        let Some(scale) = self.settle(x.len(), sum, &mut row)? else {
            return Ok(None);
        };
        write_chunks(run, y, |at, y| {
            let bounds = bounds.part(at);
            dispatch!(level, simd => self.finish(simd, bounds, scale, y));
        })?;
        Ok(Some(()))
    }
}
