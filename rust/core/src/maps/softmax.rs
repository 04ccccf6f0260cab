//! softmax and log_softmax of rows: `p = exp((x - max)/T) / Σ exp((x - max)/T)`, and its logarithm.
//!
//! * **Domain.** Any values. A NaN makes its row NaN; -∞ gets exactly 0 (-∞ in logs), a row of only -∞ is NaN; +∞
//!   entries share the mass equally.
//! * **Precision.** p: (x - m)/T is rounded once or twice, and then at most 3 ulp; the sum is within 2 ulp of 1 for up to
//!   10⁶ values. log p: the entry at the maximum keeps its digits, by log1p over the rest.
//! * **Order.** x ≤ y implies p(x) ≤ p(y) within a row (f32: checked on every value of exp).
//! * **Determinism.** The same bits at every SIMD level, batch split and number of workers.
//! * **Cost.** Three passes over a row while it lies in cache. A long row is read once and written twice; read twice and
//!   written once for the logarithm; and where departure 2 has to begin again, both.
//!
//! ```text
//! m ← max x;  eᵢ ← exp((xᵢ - m)/T);  s ← Σ eᵢ;  pᵢ ← eᵢ / s
//! ```
//!
//! 1. Narrow rows go a lane each ([`super::tile`]), so nothing is ever folded across lanes.
//! 2. Long rows are cut into chunks. Any m near the maximum will do, and that of the first chunk mostly is near: then one
//!    pass finds the sum and the maximum. Where it is not, and for the logarithm, each chunk has a maximum of its own:
//!    `s = Σ s_c exp((m_c - m)/T)`, and the exponentials are computed twice.
//! 3. exp is lifted by a power of two that the division removes: subnormal p are right, and cost nothing.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    infinite::{Shares, infinities, infinities_of_long_row, share_infinities},
    kernels::Map,
    mass::Mass,
    tile,
};
use crate::{
    batch::{CHUNK, RowMap, Scores, Storage, map_rows, of_written_chunks, write_chunks},
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{
        Sum, add_up, exp_lifted, ln_1p, load_padded, max, store_part, whole_stripes,
        whole_stripes_mut,
    },
};

/// Rows of at most this many values go a lane each.
const TILED: usize = 64;

/// `softmax(x / temperature)` of every row.
///
/// # Errors
/// [`Error::Domain`] unless the temperature is finite and positive; [`Error::Empty`] and [`Error::Length`] if the
/// shapes do not fit; [`Error::Interrupted`].
pub fn softmax<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    let inverse = inverse_temperature(temperature)?;
    map_rows(run, scores, out, &Softmax::<E::Compute, false> { inverse })
}

/// The logarithm of [`softmax`], to full precision where p is near 1.
///
/// # Errors
/// As [`softmax`].
pub fn log_softmax<E: Storage>(
    run: &mut Run<'_>,
    scores: &Scores<'_, E>,
    temperature: f64,
    out: &mut [E],
) -> Result<(), Error> {
    let inverse = inverse_temperature(temperature)?;
    map_rows(run, scores, out, &Softmax::<E::Compute, true> { inverse })
}

/// 1/T, kept where a product with it neither overflows at 0 nor loses its digits.
pub(crate) fn inverse_temperature<T: Real>(temperature: f64) -> Result<T, Error> {
    if !(temperature > 0.0 && temperature < f64::INFINITY) {
        return Err(Error::Domain {
            argument: "temperature",
            domain: "finite and positive",
            value: temperature,
        });
    }
    let inverse = T::from_f64(temperature.recip());
    Ok(if inverse > T::MAX {
        T::MAX
    } else if inverse < T::MIN_POSITIVE {
        T::MIN_POSITIVE
    } else {
        inverse
    })
}

/// softmax, or its logarithm.
struct Softmax<T, const LOG: bool> {
    inverse: T,
}

impl<T: Compiled, const LOG: bool> Softmax<T, LOG> {
    fn kernel() -> &'static Map<T, T> {
        let kernels = &T::kernels().maps;
        if LOG {
            &kernels.log_softmax
        } else {
            &kernels.softmax
        }
    }
}

impl<T: Compiled, const LOG: bool> RowMap<T> for Softmax<T, LOG> {
    const EXCLUDED: T = if LOG { T::NEG_INFINITY } else { T::ZERO };

    fn rows(&self, level: Level, _: usize, n: usize, x: &[T], y: &mut [T], kernel: &mut Vec<T>) {
        (Self::kernel().rows)(level, self.inverse, n, x, y, kernel);
    }

    fn long_row(&self, run: &mut Run<'_>, _: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        (Self::kernel().long_row)(run, self.inverse, x, y)
    }
}

/// Maps one long row.
pub(super) fn softmax_long_row<T: Real, const LOG: bool>(
    run: &mut Run<'_>,
    inverse: T,
    x: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    if !LOG && softmax_by_first_chunk(run, inverse, x, y)? {
        return Ok(());
    }
    let level = run.level;
    let mass = Mass::of_long_row::<LOG>(run, x, inverse)?;
    if !mass.max.is_finite() {
        let infinities = infinities_of_long_row(run, x)?;
        let shares = dispatch!(level, simd => shares::<_, T, LOG>(simd, infinities));
        return shares.write_long_row(run, x, y);
    }
    let norm = if LOG {
        dispatch!(level, simd => mass.log_in_lanes(simd))
    } else {
        T::ONE / mass.lifted()
    };
    write_chunks(run, y, |at, y| {
        dispatch!(level, simd => write_row::<_, T, LOG>(simd, &x[at], y, mass.max, inverse, norm));
    })
}

/// How far, in exponents, the maximum may lie above that of the first chunk: what the digits of x - m hardly show.
const NEAR: f64 = 4.0;

/// Maps a long row by the maximum of its first chunk; says whether that was near enough.
fn softmax_by_first_chunk<T: Real>(
    run: &mut Run<'_>,
    inverse: T,
    x: &[T],
    y: &mut [T],
) -> Result<bool, Error> {
    let level = run.level;
    let first = dispatch!(level, simd => max::<T, _>(simd, &x[..CHUNK]));
    if !first.is_finite() {
        return Ok(false);
    }
    let found = of_written_chunks(run, y, |at, y| {
        let x = &x[at];
        dispatch!(level, simd => (max::<T, _>(simd, x), exponentials(simd, x, y, first, inverse)))
    })?;
    let near = |max: T| (max - first) * inverse <= T::from_f64(NEAR);
    if !found.iter().all(|&(max, _)| near(max)) {
        return Ok(false);
    }
    let sums = found.iter().map(|&(_, sum)| sum);
    let scale = T::ONE / dispatch!(level, simd => add_up(simd, sums));
    write_chunks(
        run,
        y,
        |_, y| dispatch!(level, simd => multiply(simd, y, scale)),
    )?;
    Ok(true)
}

/// Maps contiguous rows of at most `LONG` values.
#[simd]
pub(super) fn softmax_rows<S: Simd, T: Real, const LOG: bool>(
    simd: S,
    inverse: T,
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    if n > TILED {
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            softmax_row::<S, T, LOG>(simd, inverse, x, y);
        }
        return;
    }
    let tile = tile::len::<T>(n);
    kernel.resize(tile + tile::spare::<T>(n), T::ZERO);
    let (columns, spare) = kernel.split_at_mut(tile);
    for start in (0..x.len()).step_by(tile) {
        let (x, y) = (&x[start..], &mut y[start..]);
        let rows = T::LANES.min(x.len() / n);
        tile::load(simd, x, rows, n, columns, spare);
        let (max, sum) = softmax_tile::<S, T, LOG>(simd, inverse, columns);
        tile::store(simd, columns, rows, n, y, spare);
        let well = max.abs().simd_lt(T::INFINITY) & sum.simd_eq(sum); // no NaN among the scores
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
                shares::<S, T, LOG>(simd, infinities(x)).write(x, y);
            }
        }
    }
}

/// Maps the row in every lane; returns the maxima and the sums. A lane where one is not finite is left to the caller.
#[inline(always)]
fn softmax_tile<S: Simd, T: Real, const LOG: bool>(
    simd: S,
    inverse: T,
    columns: &mut [T],
) -> (T::Stripe<S>, T::Stripe<S>) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let one = T::Stripe::<S>::splat(simd, T::ONE);
    let max = tile::max(simd, columns);
    let mut sum = Sum::<T, S>::new(simd);
    let mut count = zero;
    for group in columns.chunks_mut(Sum::<T, S>::GROUP * T::LANES) {
        let mut partial = zero;
        for column in group.chunks_exact_mut(T::LANES) {
            let z = (T::Stripe::<S>::from_slice(simd, column) - max) * inverse;
            let e = exp_lifted::<T, S>(z);
            if LOG {
                let top = z.simd_eq(T::ZERO);
                partial += top.select(zero, e);
                count += top.select(one, zero);
                z.store_slice(column);
            } else {
                partial += e;
                e.store_slice(column);
            }
        }
        sum.add(partial);
    }
    let lanes = sum.lanes();
    if LOG {
        let log_sum = ln_1p::<T, S>((count - one) + lanes / T::LIFT_FACTOR);
        for column in columns.chunks_exact_mut(T::LANES) {
            (T::Stripe::<S>::from_slice(simd, column) - log_sum).store_slice(column);
        }
    } else {
        let scale = one / lanes;
        for column in columns.chunks_exact_mut(T::LANES) {
            (T::Stripe::<S>::from_slice(simd, column) * scale).store_slice(column);
        }
    }
    (max, lanes)
}

#[inline(always)]
fn softmax_row<S: Simd, T: Real, const LOG: bool>(simd: S, inverse: T, x: &[T], y: &mut [T]) {
    if LOG {
        let mass = Mass::of::<S, true, false>(simd, x, inverse, &mut []);
        if mass.max.is_finite() {
            write_row::<S, T, true>(simd, x, y, mass.max, inverse, mass.log_in_lanes(simd));
        } else {
            shares::<S, T, true>(simd, infinities(x)).write(x, y);
        }
        return;
    }
    let max = max::<T, S>(simd, x);
    if !max.is_finite() {
        return share_infinities(x, y, T::ONE);
    }
    let sum = exponentials(simd, x, y, max, inverse);
    multiply(simd, y, T::ONE / sum);
}

/// Writes `2^LIFT exp((x - m)/T)` and returns the sum.
#[simd]
pub(super) fn exponentials<S: Simd, T: Real>(simd: S, x: &[T], y: &mut [T], m: T, inverse: T) -> T {
    let (stripes, rest) = whole_stripes(x);
    let (y_stripes, y_rest) = whole_stripes_mut(y);
    let mut sum = Sum::<T, S>::new(simd);
    let group = Sum::<T, S>::GROUP * T::LANES;
    for (x, y) in stripes.chunks(group).zip(y_stripes.chunks_mut(group)) {
        let mut partial = T::Stripe::<S>::splat(simd, T::ZERO);
        for (x, y) in x.chunks_exact(T::LANES).zip(y.chunks_exact_mut(T::LANES)) {
            let e = exp_lifted::<T, S>((T::Stripe::<S>::from_slice(simd, x) - m) * inverse);
            e.store_slice(y);
            partial += e;
        }
        sum.add(partial);
    }
    if !rest.is_empty() {
        let x = load_padded::<T, S>(simd, rest, T::NEG_INFINITY);
        let e = exp_lifted::<T, S>((x - m) * inverse);
        store_part::<T, S>(e, y_rest);
        sum.add(e);
    }
    sum.total()
}

#[simd]
pub(crate) fn multiply<S: Simd, T: Real>(simd: S, y: &mut [T], scale: T) {
    let (y_stripes, y_rest) = whole_stripes_mut(y);
    for y in y_stripes.chunks_exact_mut(T::LANES) {
        (T::Stripe::<S>::from_slice(simd, y) * scale).store_slice(y);
    }
    for y in y_rest {
        *y *= scale;
    }
}

/// Writes the row, its maximum and norm being known.
#[simd]
fn write_row<S: Simd, T: Real, const LOG: bool>(
    simd: S,
    x: &[T],
    y: &mut [T],
    max: T,
    inverse: T,
    norm: T,
) {
    let (stripes, rest) = whole_stripes(x);
    let (y_stripes, y_rest) = whole_stripes_mut(y);
    for (x, y) in stripes
        .chunks_exact(T::LANES)
        .zip(y_stripes.chunks_exact_mut(T::LANES))
    {
        let x = T::Stripe::<S>::from_slice(simd, x);
        normalized::<T, S, LOG>(x, max, inverse, norm).store_slice(y);
    }
    if !rest.is_empty() {
        let x = load_padded::<T, S>(simd, rest, T::ZERO);
        store_part::<T, S>(normalized::<T, S, LOG>(x, max, inverse, norm), y_rest);
    }
}

#[inline(always)]
fn normalized<T: Real, S: Simd, const LOG: bool>(
    x: T::Stripe<S>,
    max: T,
    inverse: T,
    norm: T,
) -> T::Stripe<S> {
    let z = (x - max) * inverse;
    if LOG {
        z - norm
    } else {
        exp_lifted::<T, S>(z) * norm
    }
}

/// What the scores of a row get whose maximum is not finite.
#[cold]
fn shares<S: Simd, T: Real, const LOG: bool>(simd: S, infinities: Option<usize>) -> Shares<T> {
    if LOG {
        Shares::logarithms(simd, infinities)
    } else {
        Shares::among(infinities, T::ONE)
    }
}
