//! Evidential softmax of rows: softmax over the scores that are at least their mean, 0 elsewhere (Chen, Itkina,
//! Senanayake & Kochenderfer 2021).
//!
//! * **Domain.** As [`super::softmax()`]; -∞ has no part in the mean.
//! * **Precision.** As [`super::softmax()`] of what is kept. A score counts as below the mean if it is by more than a
//!   rounding of the distance from the maximum; equal scores are all kept.
//! * **Order.** x ≤ y implies p(x) ≤ p(y) within a row.
//! * **Determinism.** The same bits at every SIMD level, batch split and number of workers.
//! * **Cost.** Four passes over a row while it lies in cache; narrow rows go a lane each ([`super::tile`]).
//!
//! ```text
//! m ← max x;  dᵢ ← xᵢ - m;  s ← Σ dᵢ
//! eᵢ ← exp(dᵢ/T) if n dᵢ ≥ s else 0;  pᵢ ← eᵢ / Σ e
//! ```
//!
//! 1. Where s overflows, a power of two is taken out of every d.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    infinite::{share_infinities, share_infinities_of_long_row},
    kernels::Map,
    softmax::{inverse_temperature, multiply},
    threshold::max_of_long_row,
    tile::{self, InLanes},
};
use crate::{
    batch::{RowMap, Scores, Storage, map_rows, of_chunks, of_written_chunks, write_chunks},
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{
        Sum, add_up, exp_lifted, load_padded, max, store_part, whole_stripes, whole_stripes_mut,
    },
};

/// `softmax(x / temperature)` of every row, over the scores that are at least their mean, and 0 elsewhere.
///
/// # Errors
/// As [`super::softmax()`].
pub fn ev_softmax<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    let inverse = inverse_temperature(temperature)?;
    map_rows(run, scores, out, &Evidential::<E::Compute> { inverse })
}

/// The map, by 1/T.
#[derive(Clone, Copy)]
struct Evidential<T> {
    inverse: T,
}

impl<T: Compiled> RowMap<T> for Evidential<T> {
    const EXCLUDED: T = T::ZERO;

    fn rows(&self, level: Level, _: usize, n: usize, x: &[T], y: &mut [T], kernel: &mut Vec<T>) {
        (T::kernels().maps.evidence.map.rows)(level, self.inverse, n, x, y, kernel);
    }

    fn long_row(&self, run: &mut Run<'_>, _: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        (T::kernels().maps.evidence.map.long_row)(run, self.inverse, x, y)
    }
}

/// The kernels for values of type T, by 1/T.
pub(super) struct Kernels<T> {
    map: Map<T, T>,
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        map: Map {
            rows: |level, inverse, n, x, y, kernel| {
                dispatch!(level, simd => evidential_rows(simd, inverse, n, x, y, kernel));
            },
            long_row: evidential_long_row,
        },
    };
}

/// Rows of at most this many values go a lane each.
const TILED: usize = 64;

#[simd]
fn evidential_rows<S: Simd, T: Real>(
    simd: S,
    inverse: T,
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    let map = Evidential { inverse };
    if n <= TILED {
        return tile::map_rows(simd, map, n, x, y, kernel);
    }
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        map.row(simd, x, y);
    }
}

impl<T: Real> InLanes<T> for Evidential<T> {
    #[inline(always)]
    fn tile<S: Simd>(self, simd: S, columns: &mut [T], _: &mut [T]) -> T::Stripe<S> {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let max = tile::max(simd, columns);
        let (mut mean, mut count) = (Sum::<T, S>::new(simd), zero);
        for group in columns.chunks_mut(Sum::<T, S>::GROUP * T::LANES) {
            let mut partial = zero;
            for column in group.chunks_exact_mut(T::LANES) {
                let x = T::Stripe::<S>::from_slice(simd, column);
                let absent = x.simd_eq(T::NEG_INFINITY);
                let distance = x - max;
                partial += absent.select(zero, distance);
                count += absent.select(zero, one);
                distance.store_slice(column);
            }
            mean.add(partial);
        }
        let mean = mean.lanes();
        for column in columns.chunks_exact_mut(T::LANES) {
            let distance = T::Stripe::<S>::from_slice(simd, column);
            let e = exp_lifted::<T, S>(distance * self.inverse);
            let below = (distance * count).simd_lt(mean); // a NaN stays
            below.select(zero, e).store_slice(column);
        }
        let sum = tile::sum::<T, S>(simd, columns);
        tile::multiply(simd, columns, one / sum);
        sum + mean * T::ZERO // which is NaN where the mean has overflowed
    }

    #[inline(always)]
    fn row<S: Simd>(self, simd: S, x: &[T], y: &mut [T]) {
        if evidential_row(simd, self.inverse, x, y).is_none() {
            share_infinities(x, y, T::ONE);
        }
    }
}

/// Maps a row; nothing if its maximum is not finite, or a NaN is among the scores.
#[inline(always)]
fn evidential_row<S: Simd, T: Real>(simd: S, inverse: T, x: &[T], y: &mut [T]) -> Option<()> {
    let max = max::<T, S>(simd, x);
    if !max.is_finite() {
        return None;
    }
    let mut mean = Mean::of(simd, x, max, T::ONE);
    if !mean.sum.is_finite() {
        mean = Mean::of(simd, x, max, small_unit(x.len()));
    }
    if mean.sum.is_nan() {
        return None;
    }
    let sum = mean.exponentials(simd, inverse, x, y);
    multiply(simd, y, T::ONE / sum);
    Some(())
}

/// A power of two of which n times the distance between two numbers does not overflow.
fn small_unit<T: Real>(n: usize) -> T {
    T::from_f64(0.25 / n.next_power_of_two() as f64)
}

/// The mean of the scores that count, as the sum of their distances from the maximum, in a unit.
#[derive(Clone, Copy)]
struct Mean<T> {
    max: T,
    unit: T,
    sum: T,
    count: T,
}

impl<T: Real> Mean<T> {
    #[simd]
    fn of<S: Simd>(simd: S, x: &[T], max: T, unit: T) -> Self {
        let zero = T::Stripe::<S>::splat(simd, T::ZERO);
        let one = T::Stripe::<S>::splat(simd, T::ONE);
        let (mut sum, mut count) = (Sum::<T, S>::new(simd), zero);
        let (stripes, rest) = whole_stripes(x);
        for group in stripes.chunks(Sum::<T, S>::GROUP * T::LANES) {
            let mut partial = zero;
            for x in group.chunks_exact(T::LANES) {
                let x = T::Stripe::<S>::from_slice(simd, x);
                let absent = x.simd_eq(T::NEG_INFINITY);
                partial += absent.select(zero, distance::<T, S>(x, max, unit));
                count += absent.select(zero, one);
            }
            sum.add(partial);
        }
        if !rest.is_empty() {
            let x = load_padded::<T, S>(simd, rest, T::NEG_INFINITY);
            let absent = x.simd_eq(T::NEG_INFINITY);
            sum.add(absent.select(zero, distance::<T, S>(x, max, unit)));
            count += absent.select(zero, one);
        }
        Self {
            max,
            unit,
            sum: sum.total(),
            count: T::fold_sum(count),
        }
    }

    /// Writes `2^LIFT exp((x - max)/T)` where x is at least the mean, else 0; returns the sum.
    #[simd]
    fn exponentials<S: Simd>(self, simd: S, inverse: T, x: &[T], y: &mut [T]) -> T {
        let (stripes, rest) = whole_stripes(x);
        let (y_stripes, y_rest) = whole_stripes_mut(y);
        let mut sum = Sum::<T, S>::new(simd);
        let group = Sum::<T, S>::GROUP * T::LANES;
        for (x, y) in stripes.chunks(group).zip(y_stripes.chunks_mut(group)) {
            let mut partial = T::Stripe::<S>::splat(simd, T::ZERO);
            for (x, y) in x.chunks_exact(T::LANES).zip(y.chunks_exact_mut(T::LANES)) {
                let e = self.term::<S>(inverse, T::Stripe::<S>::from_slice(simd, x));
                e.store_slice(y);
                partial += e;
            }
            sum.add(partial);
        }
        if !rest.is_empty() {
            let x = load_padded::<T, S>(simd, rest, T::NEG_INFINITY);
            let e = self.term::<S>(inverse, x);
            store_part::<T, S>(e, y_rest);
            sum.add(e);
        }
        sum.total()
    }

    #[inline(always)]
    fn term<S: Simd>(&self, inverse: T, x: T::Stripe<S>) -> T::Stripe<S> {
        let zero = T::Stripe::<S>::splat(x.token(), T::ZERO);
        let e = exp_lifted::<T, S>((x - self.max) * inverse);
        // Not the quotient of the sum, whose rounding might put the mean above a score that equals it.
        let kept = (distance::<T, S>(x, self.max, self.unit) * self.count).simd_ge(self.sum);
        kept.select(e, zero)
    }
}

#[inline(always)]
fn distance<T: Real, S: Simd>(x: T::Stripe<S>, max: T, unit: T) -> T::Stripe<S> {
    x * unit - max * unit
}

fn evidential_long_row<T: Real>(
    run: &mut Run<'_>,
    inverse: T,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let level = run.level;
    let max = max_of_long_row(run, x)?;
    if !max.is_finite() {
        return share_infinities_of_long_row(run, x, y, T::ONE);
    }
    let mut mean = mean_of_long_row(run, x, max, T::ONE)?;
    if !mean.sum.is_finite() {
        mean = mean_of_long_row(run, x, max, small_unit(x.len()))?;
    }
    if mean.sum.is_nan() {
        return share_infinities_of_long_row(run, x, y, T::ONE);
    }
    let sums = of_written_chunks(
        run,
        y,
        |at, y| dispatch!(level, simd => mean.exponentials(simd, inverse, &x[at], y)),
    )?;
    let scale = T::ONE / dispatch!(level, simd => add_up(simd, sums.into_iter()));
    write_chunks(
        run,
        y,
        |_, y| dispatch!(level, simd => multiply(simd, y, scale)),
    )
}

fn mean_of_long_row<T: Real>(
    run: &mut Run<'_>,
    x: &[T],
    max: T,
    unit: T,
) -> Result<Mean<T>, Error> {
    let level = run.level;
    let means = of_chunks(
        run,
        x.len(),
        |at| dispatch!(level, simd => Mean::of(simd, &x[at], max, unit)),
    )?;
    let count: f64 = means.iter().map(|mean| mean.count.to_f64()).sum();
    Ok(Mean {
        max,
        unit,
        sum: dispatch!(level, simd => add_up(simd, means.iter().map(|mean| mean.sum))),
        count: T::from_f64(count),
    })
}
