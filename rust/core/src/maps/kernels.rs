//! The kernels of the maps, compiled once, in this crate.
//!
//! A generic function is compiled again in every crate that calls it, and a kernel at every SIMD level: minutes and
//! gigabytes each time. A function that is not generic is compiled where it stands, with what it points to. So the
//! functions of the public interface, generic over the storage and light, call the kernels through a table for f32 and
//! one for f64.

use fearless_simd::{Level, dispatch};

use super::{
    entmax::{self, Method},
    gradient,
    softmax::{softmax_long_row, softmax_rows},
};
use crate::{error::Error, parallel::Run, scalar::Real};

/// A type that the kernels are compiled for: f32 and f64.
pub trait Compiled: Real {
    /// Its kernels. Never inlined: that would be the caller's crate, and all of them compiled again there.
    fn kernels() -> &'static Kernels<Self>;
}

impl Compiled for f32 {
    #[inline(never)]
    fn kernels() -> &'static Kernels<f32> {
        &Kernels::AT_ANY_LEVEL
    }
}

impl Compiled for f64 {
    #[inline(never)]
    fn kernels() -> &'static Kernels<f64> {
        &Kernels::AT_ANY_LEVEL
    }
}

/// The kernels for values of type T.
pub struct Kernels<T> {
    pub(super) softmax: Map<T, T>,
    pub(super) log_softmax: Map<T, T>,
    pub(super) project: Map<T, f64>,
    pub(super) entmax: Map<T, (f64, Method)>,
    pub(super) threshold: Threshold<T>,
    pub(super) softmax_vjp: Vjp<T, T>,
    pub(super) log_softmax_vjp: Vjp<T, T>,
    pub(super) entmax_vjp: Vjp<T, f64>,
    pub(super) alpha_slope: AlphaSlope<T>,
}

/// A map with its parameter P: 1/T, a total, or α and the method.
pub(super) struct Map<T, P> {
    pub(super) rows: Rows<T, P>,
    pub(super) long_row: LongRow<T, P>,
}

/// Maps contiguous rows of n values, at most [`super::batch::LONG`]; the vector is the kernel's scratch.
type Rows<T, P> = fn(Level, P, usize, &[T], &mut [T], &mut Vec<T>);
/// Maps one longer row.
type LongRow<T, P> = fn(&mut Run<'_>, P, &[T], &mut [T]) -> Result<(), Error>;
/// τ of a row and the size of its support, by α; the vector is the kernel's scratch.
type Threshold<T> = fn(Level, f64, &[T], &mut Vec<T>) -> (T, usize);
/// The product of a map's Jacobian at the row p with the row g.
type Vjp<T, P> = fn(Level, P, &[T], &[T], &mut [T]);
/// ⟨g, dp/dα⟩ of a row, by α.
type AlphaSlope<T> = fn(Level, f64, &[T], &[T]) -> f64;

impl<T: Real> Kernels<T> {
    const AT_ANY_LEVEL: Self = Self {
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
        threshold: entmax::threshold_of_row,
        softmax_vjp: |level, inverse, p, g, y| {
            dispatch!(level, simd => gradient::softmax_row(simd, inverse, p, g, y));
        },
        log_softmax_vjp: |level, inverse, log_p, g, y| {
            dispatch!(level, simd => gradient::log_softmax_row(simd, inverse, log_p, g, y));
        },
        entmax_vjp: gradient::entmax_row,
        alpha_slope: |level, alpha, p, g| dispatch!(level, simd => gradient::alpha_slope(simd, alpha, p, g)),
    };
}
