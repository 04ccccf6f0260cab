//! Tiles: narrow rows side by side, one in each lane, so that a reduction along a row is an addition of stripes.
//!
//! A tile of `LANES` rows of n values is turned into n columns, computed on, and turned back. Blocks of
//! `LANES × LANES` are transposed in registers: log₂ LANES rounds of interleaving stripe i with stripe i + LANES/2.

use fearless_simd::{Simd, prelude::*};

use crate::{
    scalar::Real,
    simd::{load_padded, store_part},
};

/// Stripes in the largest block: `f32::LANES`.
const MOST: usize = 16;

/// The values of a tile of n columns.
pub(super) fn len<T: Real>(n: usize) -> usize {
    n * T::LANES
}

/// Turns `rows` rows of `n` values, at most `LANES`, into `n` columns; lanes without a row become zero.
///
/// `x` begins with the tile; what follows it may be read, which spares its last rows a slow path.
#[inline(always)]
pub(super) fn load<T: Real, S: Simd>(simd: S, x: &[T], rows: usize, n: usize, columns: &mut [T]) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    for first in blocks::<T>(n) {
        let mut block = [zero; MOST];
        if rows == T::LANES && (rows - 1) * n + first + T::LANES <= x.len() {
            for lane in 0..T::LANES {
                block[lane] = T::Stripe::<S>::from_slice(simd, &x[lane * n + first..][..T::LANES]);
            }
        } else {
            for lane in 0..rows {
                block[lane] = load_padded::<T, S>(simd, &x[lane * n + first..], T::ZERO);
            }
        }
        transpose::<T, S>(&mut block);
        let to = &mut columns[first * T::LANES..][..T::LANES.min(n - first) * T::LANES];
        for (stripe, column) in block.iter().zip(to.chunks_exact_mut(T::LANES)) {
            stripe.store_slice(column);
        }
    }
}

/// Turns columns back into `rows` rows.
///
/// `y` begins with the tile; what follows it may be overwritten with anything, if there is room.
#[inline(always)]
pub(super) fn store<T: Real, S: Simd>(simd: S, columns: &[T], rows: usize, n: usize, y: &mut [T]) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    for first in blocks::<T>(n) {
        let mut block = [zero; MOST];
        let from = &columns[first * T::LANES..][..T::LANES.min(n - first) * T::LANES];
        for (stripe, column) in block.iter_mut().zip(from.chunks_exact(T::LANES)) {
            *stripe = T::Stripe::<S>::from_slice(simd, column);
        }
        transpose::<T, S>(&mut block);
        // A row narrower than a stripe is stored with what follows it; the next row then overwrites that.
        if rows == T::LANES && (rows - 1) * n + first + T::LANES <= y.len() {
            for lane in 0..T::LANES {
                block[lane].store_slice(&mut y[lane * n + first..][..T::LANES]);
            }
        } else {
            for lane in 0..rows {
                store_part::<T, S>(block[lane], &mut y[lane * n + first..]);
            }
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
fn transpose<T: Real, S: Simd>(block: &mut [T::Stripe<S>; MOST]) {
    let half = T::LANES / 2;
    for _ in 0..T::LANES.trailing_zeros() {
        let mut shuffled = *block;
        for i in 0..half {
            (shuffled[2 * i], shuffled[2 * i + 1]) = block[i].interleave(block[i + half]);
        }
        *block = shuffled;
    }
}

/// The largest value in every lane; of a lane with a NaN, nothing is promised.
#[inline(always)]
pub(super) fn max<T: Real, S: Simd>(simd: S, columns: &[T]) -> T::Stripe<S> {
    let mut max = T::Stripe::<S>::splat(simd, T::NEG_INFINITY);
    for column in columns.chunks_exact(T::LANES) {
        max = max.max(T::Stripe::<S>::from_slice(simd, column));
    }
    max
}
