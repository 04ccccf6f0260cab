//! The kernels of the maps, as [`crate::kernels`] holds them.

use fearless_simd::{Level, dispatch};

use super::{
    bounded,
    entmax::{self, Method},
    evidence, gradient, l1_ball, noise, normmax,
    softmax::{softmax_long_row, softmax_rows},
    taylor, tempered, top,
};
use crate::{error::Error, parallel::Run, scalar::Real};

/// The kernels for values of type T.
pub(crate) struct Kernels<T> {
    pub(super) softmax: Map<T, T>,
    pub(super) log_softmax: Map<T, T>,
    pub(super) project: Map<T, f64>,
    pub(crate) entmax: Map<T, (f64, Method)>,
    pub(super) threshold: Threshold<T>,
    pub(super) softmax_vjp: Vjp<T, T>,
    pub(super) log_softmax_vjp: Vjp<T, T>,
    pub(super) entmax_vjp: Vjp<T, (f64, T)>,
    pub(super) alpha_slope: AlphaSlope<T>,
    pub(super) tempered: tempered::Kernels<T>,
    pub(super) bounded: bounded::Kernels<T>,
    pub(super) evidence: evidence::Kernels<T>,
    pub(super) l1_ball: l1_ball::Kernels<T>,
    pub(super) noise: noise::Kernels<T>,
    pub(crate) normmax: normmax::Kernels<T>,
    pub(super) taylor: taylor::Kernels<T>,
    pub(crate) top: top::Kernels<T>,
}

/// A map with its parameter P: 1/T, a total, or α and the method.
pub(crate) struct Map<T, P> {
    pub(crate) rows: Rows<T, P>,
    pub(super) long_row: LongRow<T, P>,
}

/// Maps contiguous rows of n values, at most [`crate::batch::LONG`]; the vector is the kernel's scratch.
type Rows<T, P> = fn(Level, P, usize, &[T], &mut [T], &mut Vec<T>);

/// Maps one longer row.
type LongRow<T, P> = fn(&mut Run<'_>, P, &[T], &mut [T]) -> Result<(), Error>;

/// The product of a map's Jacobian at the row p with the row g; P as in [`Map`], the method left out.
pub(super) struct Vjp<T, P> {
    pub(super) row: VjpRow<T, P>,
    pub(super) long_row: VjpLongRow<T, P>,
}

type VjpRow<T, P> = fn(Level, P, &[T], &[T], &mut [T]);
type VjpLongRow<T, P> = fn(&mut Run<'_>, P, &[T], &[T], &mut [T]) -> Result<(), Error>;

/// τ of a row and the size of its support, by α; the vector is the kernel's scratch.
pub(super) struct Threshold<T> {
    pub(super) row: ThresholdRow<T>,
    pub(super) long_row: ThresholdLongRow<T>,
}

type ThresholdRow<T> = fn(Level, f64, &[T], &mut Vec<T>) -> (T, usize);
type ThresholdLongRow<T> = fn(&mut Run<'_>, f64, &[T]) -> Result<(T, usize), Error>;

/// ⟨g, dp/dα⟩ of a row, by α.
pub(super) struct AlphaSlope<T> {
    pub(super) row: AlphaSlopeRow<T>,
    pub(super) long_row: AlphaSlopeLongRow<T>,
}

type AlphaSlopeRow<T> = fn(Level, f64, &[T], &[T]) -> f64;
type AlphaSlopeLongRow<T> = fn(&mut Run<'_>, f64, &[T], &[T]) -> Result<f64, Error>;

impl<T: Real> Kernels<T> {
    pub(crate) const AT_ANY_LEVEL: Self = Self {
        softmax: Map {
            rows: |level, inverse, n, x, y, kernel| {
                dispatch!(level, simd => softmax_rows::<_, T, false>(simd, inverse, n, x, y, kernel));
            },
            long_row: softmax_long_row::<T, false>,
        },
        log_softmax: Map {
            rows: |level, inverse, n, x, y, kernel| {
                dispatch!(level, simd => softmax_rows::<_, T, true>(simd, inverse, n, x, y, kernel));
            },
            long_row: softmax_long_row::<T, true>,
        },
        project: Map {
            rows: entmax::project_rows,
            long_row: entmax::project_long_row,
        },
        entmax: Map {
            rows: entmax::entmax_rows,
            long_row: entmax::entmax_long_row,
        },
        threshold: Threshold {
            row: entmax::threshold_of_row,
            long_row: entmax::threshold_of_long_row,
        },
        softmax_vjp: Vjp {
            row: gradient::pull_row::<T, gradient::Softmax<T>>,
            long_row: gradient::pull_long_row::<T, gradient::Softmax<T>>,
        },
        log_softmax_vjp: Vjp {
            row: gradient::pull_row::<T, gradient::LogSoftmax<T>>,
            long_row: gradient::pull_long_row::<T, gradient::LogSoftmax<T>>,
        },
        entmax_vjp: Vjp {
            row: gradient::entmax_row,
            long_row: gradient::entmax_long_row,
        },
        alpha_slope: AlphaSlope {
            row: gradient::alpha_slope,
            long_row: gradient::alpha_slope_of_long_row,
        },
        tempered: tempered::Kernels::AT_ANY_LEVEL,
        bounded: bounded::Kernels::AT_ANY_LEVEL,
        evidence: evidence::Kernels::AT_ANY_LEVEL,
        l1_ball: l1_ball::Kernels::AT_ANY_LEVEL,
        noise: noise::Kernels::AT_ANY_LEVEL,
        normmax: normmax::Kernels::AT_ANY_LEVEL,
        taylor: taylor::Kernels::AT_ANY_LEVEL,
        top: top::Kernels::AT_ANY_LEVEL,
    };
}
