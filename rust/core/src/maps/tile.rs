//! Tiles: narrow rows side by side, one in each lane, so that a reduction along a row is an addition of stripes.
//!
//! A tile of `LANES` rows of n values is turned into n columns, computed on, and turned back. Blocks of
//! `LANES × LANES` are transposed in registers: log₂ LANES rounds of interleaving stripe i with stripe i + LANES/2.

use fearless_simd::{Simd, prelude::*};

use crate::{scalar::Real, simd::Sum};

/// The most rows of a tile: `f32::LANES`.
pub(super) const MOST: usize = 16;

/// The values of a tile of n columns.
pub(crate) fn len<T: Real>(n: usize) -> usize {
    n * T::LANES
}

/// What [`load`] and [`store`] need beside a tile, for rows that nothing follows.
pub(crate) fn spare<T: Real>(n: usize) -> usize {
    reach::<T>(n, n)
}

/// How far whole stripes reach, from the first of `LANES` rows that lie `stride` apart.
fn reach<T: Real>(stride: usize, n: usize) -> usize {
    (T::LANES - 1) * stride + n.max(T::LANES)
}

/// Turns `rows` rows of `n` values, at most `LANES`, into `n` columns; lanes without a row become zero.
///
/// `x` begins with the tile; what follows it may be read.
#[inline(always)]
pub(crate) fn load<T: Real, S: Simd>(
    simd: S,
    x: &[T],
    rows: usize,
    n: usize,
    columns: &mut [T],
    spare: &mut [T],
) {
    if rows == T::LANES && x.len() >= reach::<T>(n, n) {
        return gather::<T, S>(simd, x, n, n, columns);
    }
    let (used, unused) = spare.split_at_mut(rows * n);
    used.copy_from_slice(&x[..rows * n]);
    unused.fill(T::ZERO);
    gather::<T, S>(simd, spare, n, n, columns);
}

/// Turns `LANES` rows of `n` values that lie `stride` apart into `n` columns; what follows them may be read.
#[inline(always)]
pub(super) fn gather<T: Real, S: Simd>(
    simd: S,
    x: &[T],
    stride: usize,
    n: usize,
    columns: &mut [T],
) {
    assert!(x.len() >= reach::<T>(stride, n));
    for first in blocks::<T>(n) {
        let mut block = [T::Stripe::<S>::splat(simd, T::ZERO); MOST];
        for (lane, loaded) in block.iter_mut().enumerate().take(T::LANES) {
            let start = lane * stride + first;
            // SAFETY: `x` reaches a whole stripe beyond the start of each row, and first + LANES ≤ max(n, LANES).
            let row = unsafe { x.get_unchecked(start..start + T::LANES) };
            *loaded = T::Stripe::<S>::from_slice(simd, row);
        }
        let block = transposed::<T, S>(block);
        let width = T::LANES.min(n - first);
        let to = &mut columns[first * T::LANES..][..width * T::LANES];
        for k in 0..T::LANES {
            if k < width {
                block[k].store_slice(&mut to[k * T::LANES..][..T::LANES]);
            }
        }
    }
}

/// Turns columns back into `rows` rows.
///
/// `y` begins with the tile; what follows it may be overwritten with anything, if there is room.
#[inline(always)]
pub(crate) fn store<T: Real, S: Simd>(
    simd: S,
    columns: &[T],
    rows: usize,
    n: usize,
    y: &mut [T],
    spare: &mut [T],
) {
    if rows == T::LANES && y.len() >= reach::<T>(n, n) {
        return scatter::<T, S>(simd, columns, n, n, y);
    }
    scatter::<T, S>(simd, columns, n, n, spare);
    y[..rows * n].copy_from_slice(&spare[..rows * n]);
}

/// Undoes [`gather`]; what follows the rows is overwritten.
#[inline(always)]
pub(super) fn scatter<T: Real, S: Simd>(
    simd: S,
    columns: &[T],
    stride: usize,
    n: usize,
    y: &mut [T],
) {
    assert!(y.len() >= reach::<T>(stride, n));
    for first in blocks::<T>(n) {
        let width = T::LANES.min(n - first);
        let from = &columns[first * T::LANES..][..width * T::LANES];
        let mut block = [T::Stripe::<S>::splat(simd, T::ZERO); MOST];
        for k in 0..T::LANES {
            if k < width {
                block[k] = T::Stripe::<S>::from_slice(simd, &from[k * T::LANES..][..T::LANES]);
            }
        }
        let block = transposed::<T, S>(block);
        for (lane, row) in block.into_iter().enumerate().take(T::LANES) {
            let start = lane * stride + first;
            // A row narrower than a stripe is stored with what follows it; the next row then overwrites that.
            // SAFETY: as for `gather`.
            row.store_slice(unsafe { y.get_unchecked_mut(start..start + T::LANES) });
        }
    }
}

/// The first column of each block; the last block of a wide row overlaps the one before it.
#[inline(always)]
fn blocks<T: Real>(n: usize) -> impl Iterator<Item = usize> {
    let last = n.saturating_sub(T::LANES);
    (0..n).step_by(T::LANES).map(move |first| first.min(last))
}

#[inline(always)]
fn transposed<T: Real, S: Simd>(mut block: [T::Stripe<S>; MOST]) -> [T::Stripe<S>; MOST] {
    let half = T::LANES / 2;
    for _ in 0..T::LANES.trailing_zeros() {
        let from = block;
        for i in 0..half {
            (block[2 * i], block[2 * i + 1]) = from[i].interleave(from[i + half]);
        }
    }
    block
}

/// The largest value in every lane; of a lane with a NaN, nothing is promised.
#[inline(always)]
pub(crate) fn max<T: Real, S: Simd>(simd: S, columns: &[T]) -> T::Stripe<S> {
    let mut max = T::Stripe::<S>::splat(simd, T::NEG_INFINITY);
    for column in columns.chunks_exact(T::LANES) {
        max = max.max(T::Stripe::<S>::from_slice(simd, column));
    }
    max
}

/// A map of narrow rows, a lane each.
pub(super) trait InLanes<T: Real>: Copy {
    /// Tiles of room that [`InLanes::tile`] needs.
    const ROOM: usize = 0;

    /// Maps the row in every lane, in place. Returns the sums of its terms: a lane where that is not finite and
    /// positive is mapped again, by [`InLanes::row`].
    fn tile<S: Simd>(self, simd: S, columns: &mut [T], room: &mut [T]) -> T::Stripe<S>;

    /// Maps a row that has no such sum in a tile.
    fn row<S: Simd>(self, simd: S, x: &[T], y: &mut [T]);
}

/// Maps contiguous rows of few values.
#[inline(always)]
pub(super) fn map_rows<T: Real, S: Simd, M: InLanes<T>>(
    simd: S,
    map: M,
    n: usize,
    x: &[T],
    y: &mut [T],
    kernel: &mut Vec<T>,
) {
    let tile = len::<T>(n);
    kernel.resize((1 + M::ROOM) * tile + spare::<T>(n), T::ZERO);
    let (columns, rest) = kernel.split_at_mut(tile);
    let (room, spare) = rest.split_at_mut(M::ROOM * tile);
    for start in (0..x.len()).step_by(tile) {
        let (x, y) = (&x[start..], &mut y[start..]);
        let rows = T::LANES.min(x.len() / n);
        load(simd, x, rows, n, columns, spare);
        let sum = map.tile(simd, columns, room);
        store(simd, columns, rows, n, y, spare);
        let well = sum.simd_gt(T::ZERO) & sum.simd_lt(T::INFINITY);
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
                map.row(simd, x, y);
            }
        }
    }
}

/// Adds up the columns.
#[inline(always)]
pub(super) fn sum<T: Real, S: Simd>(simd: S, columns: &[T]) -> T::Stripe<S> {
    let mut sum = Sum::<T, S>::new(simd);
    for group in columns.chunks(Sum::<T, S>::GROUP * T::LANES) {
        let mut partial = T::Stripe::<S>::splat(simd, T::ZERO);
        for column in group.chunks_exact(T::LANES) {
            partial += T::Stripe::<S>::from_slice(simd, column);
        }
        sum.add(partial);
    }
    sum.lanes()
}

/// Multiplies the columns.
#[inline(always)]
pub(super) fn multiply<T: Real, S: Simd>(simd: S, columns: &mut [T], scale: T::Stripe<S>) {
    for column in columns.chunks_exact_mut(T::LANES) {
        (T::Stripe::<S>::from_slice(simd, column) * scale).store_slice(column);
    }
}
