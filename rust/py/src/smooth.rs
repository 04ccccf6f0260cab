//! The door to the smooth functions. Python settles types, order and shapes (`python/unitmass/_arrays.py`).

use numpy::{PyReadonlyArray1, PyUntypedArray};
use pyo3::{exceptions::PyValueError, prelude::*};
use unitmass_core::smooth::{self, Absolute, Function, Kernel, PiecewiseLinear, Scores, Values};

use crate::{
    array::{borrowed, borrowed_mut, by_dtype, shape},
    run::detached,
};

type Array<'a, 'py> = &'a Bound<'py, PyUntypedArray>;

/// Calls a function of values to `out`, and to `slopes` if they are asked for. Without x the values lie in `out`.
macro_rules! map_values {
    ($py:ident, $x:ident, $out:ident, $slopes:ident, $workers:ident,
     |$run:ident, $values:ident| $call:expr) => {
        by_dtype!($out, E => {
            let x = $x.map(borrowed::<E>).transpose()?;
            let mut out = borrowed_mut::<E>($out)?;
            let mut slopes = $slopes.map(borrowed_mut::<E>).transpose()?;
            let $values = Values {
                x: x.as_ref().map(|x| x.as_slice()).transpose()?,
                out: out.as_slice_mut()?,
                slopes: slopes.as_mut().map(|slopes| slopes.as_slice_mut()).transpose()?,
            };
            detached($py, $workers, |$run| $call)
        })
    };
}

fn unknown(argument: &str, found: &str) -> PyErr {
    PyValueError::new_err(format!("{argument}: unknown, found {found:?}"))
}

fn kernel_of(name: &str) -> PyResult<Kernel> {
    match name {
        "logistic" => Ok(Kernel::Logistic),
        "gaussian" => Ok(Kernel::Gaussian),
        "uniform" => Ok(Kernel::Uniform),
        _ => Err(unknown("kernel", name)),
    }
}

/// A function by its name; the ramps take their slope below 0.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn smooth_function(
    py: Python<'_>,
    x: Option<Array<'_, '_>>,
    out: Array<'_, '_>,
    slopes: Option<Array<'_, '_>>,
    function: &str,
    slope: f64,
    width: f64,
    kernel: &str,
    workers: usize,
) -> PyResult<()> {
    let function = match function {
        "ramp" => Function::Ramp(slope),
        "gate" => Function::Gate(slope),
        "step" => Function::Step,
        "sign" => Function::Sign,
        "floor" => Function::Floor,
        "round" => Function::Round,
        _ => return Err(unknown("function", function)),
    };
    let kernel = kernel_of(kernel)?;
    map_values!(py, x, out, slopes, workers, |run, values| {
        smooth::smooth(run, function, kernel, width, values)
    })
}

/// Lines: breaks, slopes, jumps, and the value at the first break from the left.
type Pieces<'py> = (
    PyReadonlyArray1<'py, f64>,
    PyReadonlyArray1<'py, f64>,
    PyReadonlyArray1<'py, f64>,
    f64,
);

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn smooth_pieces(
    py: Python<'_>,
    x: Option<Array<'_, '_>>,
    out: Array<'_, '_>,
    slopes: Option<Array<'_, '_>>,
    pieces: Pieces<'_>,
    width: f64,
    kernel: &str,
    workers: usize,
) -> PyResult<()> {
    let pieces = PiecewiseLinear {
        breaks: pieces.0.as_slice()?,
        slopes: pieces.1.as_slice()?,
        jumps: pieces.2.as_slice()?,
        value: pieces.3,
    };
    let kernel = kernel_of(kernel)?;
    map_values!(py, x, out, slopes, workers, |run, values| {
        smooth::smooth(run, Function::Pieces(pieces), kernel, width, values)
    })
}

#[pyfunction]
pub(crate) fn smooth_abs(
    py: Python<'_>,
    x: Option<Array<'_, '_>>,
    out: Array<'_, '_>,
    slopes: Option<Array<'_, '_>>,
    k: f64,
    form: &str,
    workers: usize,
) -> PyResult<()> {
    let form = match form {
        "maximum" => Absolute::Maximum,
        "root" => Absolute::Root,
        _ => return Err(unknown("form", form)),
    };
    map_values!(py, x, out, slopes, workers, |run, values| {
        smooth::smooth_abs(run, form, k, values)
    })
}

/// Calls a mean of rows: values to `out`, and the gradient if it is asked for.
macro_rules! map_means {
    ($py:ident, $x:ident, $mask:ident, $out:ident, $gradient:ident, $axis:ident, $workers:ident,
     |$run:ident, $scores:ident, $values:ident, $to:ident| $call:expr) => {
        by_dtype!($x, E => {
            let x = borrowed::<E>($x)?;
            let mask = $mask.map(borrowed::<bool>).transpose()?;
            let mut out = borrowed_mut::<E>($out)?;
            let mut gradient = $gradient.map(borrowed_mut::<E>).transpose()?;
            let $scores = Scores {
                shape: shape($x, $axis)?,
                x: Some(x.as_slice()?),
                mask: mask.as_ref().map(|mask| mask.as_slice()).transpose()?,
            };
            let $values = out.as_slice_mut()?;
            let $to = gradient.as_mut().map(|g| g.as_slice_mut()).transpose()?;
            detached($py, $workers, |$run| $call)
        })
    };
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn smooth_max(
    py: Python<'_>,
    x: Array<'_, '_>,
    mask: Option<Array<'_, '_>>,
    out: Array<'_, '_>,
    gradient: Option<Array<'_, '_>>,
    axis: isize,
    k: f64,
    workers: usize,
) -> PyResult<()> {
    map_means!(
        py,
        x,
        mask,
        out,
        gradient,
        axis,
        workers,
        |run, scores, values, to| { smooth::smooth_max(run, &scores, k, values, to) }
    )
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn power_mean(
    py: Python<'_>,
    x: Array<'_, '_>,
    mask: Option<Array<'_, '_>>,
    out: Array<'_, '_>,
    gradient: Option<Array<'_, '_>>,
    axis: isize,
    p: f64,
    workers: usize,
) -> PyResult<()> {
    map_means!(
        py,
        x,
        mask,
        out,
        gradient,
        axis,
        workers,
        |run, scores, values, to| { smooth::power_mean(run, &scores, p, values, to) }
    )
}
