//! The products of the Jacobians with rows.

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::bounds::{Bounds, Caps, Own, Same, with_bounds};
use crate::{
    batch::{of_chunks, write_chunks},
    error::Error,
    parallel::Run,
    scalar::Real,
    simd::{Sum, add_up, load_padded, store_part},
};

/// w: 1, or p with `WEIGHTED`, where p lies between its bounds; a NaN stays.
#[inline(always)]
fn weight<T: Real, S: Simd, const WEIGHTED: bool>(
    p: T::Stripe<S>,
    u: T::Stripe<S>,
) -> T::Stripe<S> {
    let zero = T::Stripe::<S>::splat(p.token(), T::ZERO);
    let one = T::Stripe::<S>::splat(p.token(), T::ONE);
    let w = if WEIGHTED {
        p
    } else {
        p.simd_gt(zero).select(one, p)
    };
    (p.simd_le(zero) | p.simd_ge(u)).select(zero, w)
}

/// `(Σ w g, Σ w)`.
#[simd]
fn vjp_sums<S: Simd, T: Real, B: Bounds<T>, const WEIGHTED: bool>(
    simd: S,
    bounds: B,
    p: &[T],
    g: &[T],
) -> (T, T) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let (mut sum, mut weights) = (Sum::<T, S>::new(simd), Sum::<T, S>::new(simd));
    for (i, (p, g)) in p.chunks(T::LANES).zip(g.chunks(T::LANES)).enumerate() {
        let p = load_padded::<T, S>(simd, p, T::ZERO);
        let g = load_padded::<T, S>(simd, g, T::ZERO);
        let w = weight::<T, S, WEIGHTED>(p, bounds.stripe(simd, i * T::LANES));
        sum.add(w.simd_eq(zero).select(zero, w * g));
        weights.add(w);
    }
    (sum.total(), weights.total())
}

#[simd]
fn vjp_write<S: Simd, T: Real, B: Bounds<T>, const WEIGHTED: bool>(
    simd: S,
    bounds: B,
    (mean, inverse): (T, T),
    p: &[T],
    g: &[T],
    y: &mut [T],
) {
    let zero = T::Stripe::<S>::splat(simd, T::ZERO);
    let pairs = p.chunks(T::LANES).zip(g.chunks(T::LANES));
    for (i, ((p, g), y)) in pairs.zip(y.chunks_mut(T::LANES)).enumerate() {
        let p = load_padded::<T, S>(simd, p, T::ZERO);
        let g = load_padded::<T, S>(simd, g, T::ZERO);
        let w = weight::<T, S, WEIGHTED>(p, bounds.stripe(simd, i * T::LANES));
        let value = w * (g - mean) * inverse;
        store_part::<T, S>(w.simd_eq(zero).select(zero, value), y);
    }
}

pub(super) fn vjp_row<T: Real, const WEIGHTED: bool>(
    level: Level,
    (caps, inverse): (Caps<'_, T>, T),
    p: &[T],
    g: &[T],
    y: &mut [T],
) {
    with_bounds!(caps, T::INFINITY, |bounds| {
        let (sum, weights) =
            dispatch!(level, simd => vjp_sums::<_, T, _, WEIGHTED>(simd, bounds, p, g));
        let mean = sum / weights;
        dispatch!(level, simd => vjp_write::<_, T, _, WEIGHTED>(simd, bounds, (mean, inverse), p, g, y));
    });
}

pub(super) fn vjp_long_row<T: Real, const WEIGHTED: bool>(
    run: &mut Run<'_>,
    (caps, inverse): (Caps<'_, T>, T),
    p: &[T],
    g: &[T],
    y: &mut [T],
) -> Result<(), Error> {
    let level = run.level;
    with_bounds!(caps, T::INFINITY, |bounds| {
        let sums = of_chunks(run, p.len(), |at| {
            let bounds = bounds.part(at.clone());
            let (p, g) = (&p[at.clone()], &g[at]);
            dispatch!(level, simd => vjp_sums::<_, T, _, WEIGHTED>(simd, bounds, p, g))
        })?;
        let sum = dispatch!(level, simd => add_up(simd, sums.iter().map(|sums| sums.0)));
        let weights = dispatch!(level, simd => add_up(simd, sums.iter().map(|sums| sums.1)));
        let mean = sum / weights;
        write_chunks(run, y, |at, y| {
            let bounds = bounds.part(at.clone());
            let (p, g) = (&p[at.clone()], &g[at]);
            dispatch!(level, simd => vjp_write::<_, T, _, WEIGHTED>(simd, bounds, (mean, inverse), p, g, y));
        })
    })
}
