//! Temperature for maps that a shift of the scores does not change: they map `(x - max)/T` instead of x.
//!
//! At T = 1 the inner map gets the scores themselves. Otherwise they are staged, a task or a long row at a time. A row
//! whose maximum is not finite goes as it is: what it becomes does not depend on T.

use std::mem;

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{kernels::Map, softmax::inverse_temperature, threshold::max_of_long_row};
use crate::{
    batch::{RowMap, write_chunks},
    error::Error,
    kernels::Compiled,
    parallel::Run,
    scalar::Real,
    simd::{load_padded, max, store_part, whole_stripes, whole_stripes_mut},
};

/// A map at a temperature.
pub(super) struct Tempered<M, T> {
    map: M,
    inverse: T,
}

impl<M, T: Real> Tempered<M, T> {
    pub(super) fn new(map: M, temperature: f64) -> Result<Self, Error> {
        let inverse = inverse_temperature(temperature)?;
        Ok(Self { map, inverse })
    }
}

impl<T: Compiled, M: RowMap<T>> RowMap<T> for Tempered<M, T> {
    const ABSENT: T = M::ABSENT;
    const EXCLUDED: T = M::EXCLUDED;

    fn rows(
        &self,
        level: Level,
        first: usize,
        n: usize,
        x: &[T],
        y: &mut [T],
        kernel: &mut Vec<T>,
    ) {
        if self.inverse == T::ONE {
            return self.map.rows(level, first, n, x, y, kernel);
        }
        let mut z = mem::take(kernel);
        z.resize(x.len(), T::ZERO);
        (T::kernels().maps.tempered.stage.rows)(level, self.inverse, n, x, &mut z, kernel);
        self.map.rows(level, first, n, &z, y, kernel);
        *kernel = z;
    }

    fn long_row(&self, run: &mut Run<'_>, index: usize, x: &[T], y: &mut [T]) -> Result<(), Error> {
        if self.inverse == T::ONE {
            return self.map.long_row(run, index, x, y);
        }
        let mut z = vec![T::ZERO; x.len()];
        (T::kernels().maps.tempered.stage.long_row)(run, self.inverse, x, &mut z)?;
        self.map.long_row(run, index, &z, y)
    }
}

/// The kernels for values of type T.
pub(super) struct Kernels<T> {
    /// Writes the scores of the inner map, by 1/T.
    pub(super) stage: Map<T, T>,
}

impl<T: Real> Kernels<T> {
    pub(super) const AT_ANY_LEVEL: Self = Self {
        stage: Map {
            rows: |level, inverse, n, x, z, _| {
                dispatch!(level, simd => stage_rows(simd, inverse, n, x, z));
            },
            long_row: stage_long_row,
        },
    };
}

#[simd]
fn stage_rows<S: Simd, T: Real>(simd: S, inverse: T, n: usize, x: &[T], z: &mut [T]) {
    for (x, z) in x.chunks_exact(n).zip(z.chunks_exact_mut(n)) {
        let max = max::<T, S>(simd, x);
        if max.is_finite() {
            stage(simd, x, z, max, inverse);
        } else {
            z.copy_from_slice(x);
        }
    }
}

fn stage_long_row<T: Real>(
    run: &mut Run<'_>,
    inverse: T,
    x: &[T],
    z: &mut [T],
) -> Result<(), Error> {
    let level = run.level;
    let max = max_of_long_row(run, x)?;
    if !max.is_finite() {
        return write_chunks(run, z, |at, z| z.copy_from_slice(&x[at]));
    }
    write_chunks(
        run,
        z,
        |at, z| dispatch!(level, simd => stage(simd, &x[at], z, max, inverse)),
    )
}

/// Writes `(x - m)/T`.
#[simd]
fn stage<S: Simd, T: Real>(simd: S, x: &[T], z: &mut [T], m: T, inverse: T) {
    let (stripes, rest) = whole_stripes(x);
    let (z_stripes, z_rest) = whole_stripes_mut(z);
    for (x, z) in stripes
        .chunks_exact(T::LANES)
        .zip(z_stripes.chunks_exact_mut(T::LANES))
    {
        ((T::Stripe::<S>::from_slice(simd, x) - m) * inverse).store_slice(z);
    }
    if !rest.is_empty() {
        let x = load_padded::<T, S>(simd, rest, T::ZERO);
        store_part::<T, S>((x - m) * inverse, z_rest);
    }
}
