//! The kernels of this family, as [`crate::kernels`] holds them.

use std::f64::consts::PI;

use fearless_simd::{Level, Simd, dispatch, prelude::*};
use fearless_simd_macros::simd;

use super::{
    Function, Kernel, Smoothed,
    curves::{Absolute, Curve, Pieces, Ramp, Root, Step, normal},
    means::{Maximum, MeanKernels, Power},
    stairs::{GAUSSIAN_SERIES, LOGISTIC_SERIES, Periodic, Series, Steps, UNIFORM_PERIODIC},
    tails::{Density, Gaussian, Logistic, Uniform},
};
use crate::{
    scalar::Real,
    simd::{load_padded, store_part, whole_stripes, whole_stripes_mut},
};

/// The kernels for values of type T.
pub(crate) struct Kernels<T> {
    pub(super) write: Write<T>,
    pub(super) maximum: MeanKernels<T, Maximum<T>>,
    pub(super) power: MeanKernels<T, Power<T>>,
}

/// Writes the values of a smoothed function, and its slopes.
type Write<T> = fn(Level, Smoothed<'_>, &[T], &mut [T], Option<&mut [T]>);

impl<T: Real> Kernels<T> {
    pub(crate) const AT_ANY_LEVEL: Self = Self {
        write: write::<T>,
        maximum: Maximum::KERNELS,
        power: Power::KERNELS,
    };
}

fn write<T: Real>(
    level: Level,
    what: Smoothed<'_>,
    x: &[T],
    y: &mut [T],
    slopes: Option<&mut [T]>,
) {
    let (function, kernel, width) = match what {
        Smoothed::Absolute(width) => {
            let absolute = Absolute {
                width: normal::<T>(width),
            };
            return write_curve(level, &absolute, x, y, slopes);
        }
        Smoothed::Root(least) => {
            let root = Root {
                least: normal::<T>(least),
            };
            return write_curve(level, &root, x, y, slopes);
        }
        Smoothed::Function(function, kernel, width) => (function, kernel, width),
    };
    let by = match kernel {
        Kernel::Logistic => write_function::<T, Logistic>,
        Kernel::Gaussian => write_function::<T, Gaussian>,
        Kernel::Uniform => write_function::<T, Uniform>,
    };
    by(level, function, kernel, width, x, y, slopes);
}

fn write_function<T: Real, D: Density>(
    level: Level,
    function: Function<'_>,
    kernel: Kernel,
    width: f64,
    x: &[T],
    y: &mut [T],
    slopes: Option<&mut [T]>,
) {
    match function {
        Function::Ramp(slope) => {
            write_curve(level, &Ramp::<T, D>::new(slope, width, false), x, y, slopes);
        }
        Function::Gate(slope) => {
            write_curve(level, &Ramp::<T, D>::new(slope, width, true), x, y, slopes);
        }
        Function::Step => write_curve(level, &Step::<T, D>::new(width, false), x, y, slopes),
        Function::Sign => write_curve(level, &Step::<T, D>::new(width, true), x, y, slopes),
        Function::Pieces(pieces) => {
            write_curve(level, &Pieces::<T, D>::new(&pieces, width), x, y, slopes);
        }
        Function::Floor => write_stairs(level, kernel, width, false, x, y, slopes),
        Function::Round => write_stairs(level, kernel, width, true, x, y, slopes),
    }
}

fn write_stairs<T: Real>(
    level: Level,
    kernel: Kernel,
    width: f64,
    round: bool,
    x: &[T],
    y: &mut [T],
    slopes: Option<&mut [T]>,
) {
    match kernel {
        Kernel::Logistic if width < LOGISTIC_SERIES => {
            let steps = Steps::<T, Logistic>::new(width, round, |n| n / width);
            write_curve(level, &steps, x, y, slopes);
        }
        Kernel::Logistic => {
            let series = Series::<T>::new(round, |t| logistic_characteristic(width * t));
            write_curve(level, &series, x, y, slopes);
        }
        Kernel::Gaussian if width < GAUSSIAN_SERIES => {
            let negligible = |n: f64| n * n / (2.0 * width * width);
            let steps = Steps::<T, Gaussian>::new(width, round, negligible);
            write_curve(level, &steps, x, y, slopes);
        }
        Kernel::Gaussian => {
            let series = Series::<T>::new(round, |t| libm::exp(-0.5 * (t * width) * (t * width)));
            write_curve(level, &series, x, y, slopes);
        }
        Kernel::Uniform if width < UNIFORM_PERIODIC => {
            let steps = Steps::<T, Uniform>::new(width, round, |_| f64::INFINITY);
            write_curve(level, &steps, x, y, slopes);
        }
        Kernel::Uniform => write_curve(level, &Periodic::<T>::new(width, round), x, y, slopes),
    }
}

/// The characteristic function of the logistic kernel of width 1.
fn logistic_characteristic(t: f64) -> f64 {
    let t = PI * t;
    if t < 700.0 { t / libm::sinh(t) } else { 0.0 }
}

fn write_curve<T: Real, C: Curve<T>>(
    level: Level,
    curve: &C,
    x: &[T],
    y: &mut [T],
    slopes: Option<&mut [T]>,
) {
    match slopes {
        None => dispatch!(level, simd => write_values(simd, curve, x, y)),
        Some(slopes) => {
            dispatch!(level, simd => write_values_and_slopes(simd, curve, x, y, slopes));
        }
    }
}

#[simd]
fn write_values<S: Simd, T: Real, C: Curve<T>>(simd: S, curve: &C, x: &[T], y: &mut [T]) {
    let (stripes, rest) = whole_stripes(x);
    let (y_stripes, y_rest) = whole_stripes_mut(y);
    for (x, y) in stripes
        .chunks_exact(T::LANES)
        .zip(y_stripes.chunks_exact_mut(T::LANES))
    {
        let x = T::Stripe::<S>::from_slice(simd, x);
        at::<S, T, C>(curve, x).0.store_slice(y);
    }
    if !rest.is_empty() {
        let x = load_padded::<T, S>(simd, rest, T::ZERO);
        store_part::<T, S>(at::<S, T, C>(curve, x).0, y_rest);
    }
}

#[simd]
fn write_values_and_slopes<S: Simd, T: Real, C: Curve<T>>(
    simd: S,
    curve: &C,
    x: &[T],
    y: &mut [T],
    slopes: &mut [T],
) {
    let (stripes, rest) = whole_stripes(x);
    let (y_stripes, y_rest) = whole_stripes_mut(y);
    let (slope_stripes, slope_rest) = whole_stripes_mut(slopes);
    for ((x, y), slopes) in stripes
        .chunks_exact(T::LANES)
        .zip(y_stripes.chunks_exact_mut(T::LANES))
        .zip(slope_stripes.chunks_exact_mut(T::LANES))
    {
        let x = T::Stripe::<S>::from_slice(simd, x);
        let (value, slope) = at::<S, T, C>(curve, x);
        value.store_slice(y);
        slope.store_slice(slopes);
    }
    if !rest.is_empty() {
        let x = load_padded::<T, S>(simd, rest, T::ZERO);
        let (value, slope) = at::<S, T, C>(curve, x);
        store_part::<T, S>(value, y_rest);
        store_part::<T, S>(slope, slope_rest);
    }
}

/// [`Curve::at`]; NaN stays.
#[inline(always)]
fn at<S: Simd, T: Real, C: Curve<T>>(curve: &C, x: T::Stripe<S>) -> (T::Stripe<S>, T::Stripe<S>) {
    let (value, slope) = curve.at(x);
    let number = x.simd_eq(x);
    (number.select(value, x), number.select(slope, x))
}
