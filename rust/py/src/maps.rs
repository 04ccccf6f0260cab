//! The door to the maps. Python settles types, order and shapes (`python/unitmass/_arrays.py`), or tries scores as they
//! come.

use numpy::{IntoPyArray, PyReadonlyArray1, PyUntypedArray};
use pyo3::{exceptions::PyTypeError, prelude::*};
use unitmass_core::maps::{self, Method, Scores, Sparse};

use crate::{
    array::{Parameter, borrowed, borrowed_mut, by_dtype, empty_like, plain_shape, shape},
    run::detached,
};

type Array<'a, 'py> = &'a Bound<'py, PyUntypedArray>;
type Triple<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// Calls a map of scores to `out`, or to a new array: borrow, detach, done. Without x the scores lie in `out`.
///
/// `None` if the scores are not plain: they are tried as they come, for a small call is soon done.
macro_rules! map_scores {
    ($py:ident, $x:ident, $mask:ident, $out:ident, $axis:ident, $workers:ident,
     |$run:ident, $scores:ident, $to:ident| $call:expr) => {{
        let array = $x.or($out);
        let array = array.ok_or_else(|| PyTypeError::new_err("expected x or out"))?;
        let Some(shape) = plain_shape(array, $axis) else {
            return Ok(None);
        };
        by_dtype!(array, E => {
            let x = $x.map(borrowed::<E>).transpose()?;
            let mask = $mask.map(borrowed::<bool>).transpose()?;
            let out = match $out {
                Some(out) => out.clone(),
                None => empty_like::<E>(array),
            };
            let mut to = borrowed_mut::<E>(&out)?;
            let $to = to.as_slice_mut()?;
            let $scores = Scores {
                shape,
                x: x.as_ref().map(|x| x.as_slice()).transpose()?,
                mask: mask.as_ref().map(|mask| mask.as_slice()).transpose()?,
            };
            detached($py, $workers, |$run| $call)?;
            Ok(Some(out))
        })
    }};
}

#[pyfunction]
pub(crate) fn softmax<'py>(
    py: Python<'py>,
    x: Option<Array<'_, 'py>>,
    mask: Option<Array<'_, 'py>>,
    out: Option<Array<'_, 'py>>,
    axis: isize,
    temperature: f64,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    map_scores!(py, x, mask, out, axis, workers, |run, scores, to| {
        maps::softmax(run, &scores, temperature, to)
    })
}

#[pyfunction]
pub(crate) fn log_softmax<'py>(
    py: Python<'py>,
    x: Option<Array<'_, 'py>>,
    mask: Option<Array<'_, 'py>>,
    out: Option<Array<'_, 'py>>,
    axis: isize,
    temperature: f64,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    map_scores!(py, x, mask, out, axis, workers, |run, scores, to| {
        maps::log_softmax(run, &scores, temperature, to)
    })
}

#[pyfunction]
pub(crate) fn project_simplex<'py>(
    py: Python<'py>,
    x: Option<Array<'_, 'py>>,
    mask: Option<Array<'_, 'py>>,
    out: Option<Array<'_, 'py>>,
    axis: isize,
    total: Parameter<'_>,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    let total = total.per_row()?;
    map_scores!(py, x, mask, out, axis, workers, |run, scores, to| {
        maps::project_simplex(run, &scores, total, to)
    })
}

fn method(n_iter: Option<u32>) -> Method {
    n_iter.map_or(Method::Auto, Method::Bisect)
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn entmax<'py>(
    py: Python<'py>,
    x: Option<Array<'_, 'py>>,
    mask: Option<Array<'_, 'py>>,
    out: Option<Array<'_, 'py>>,
    axis: isize,
    alpha: Parameter<'_>,
    n_iter: Option<u32>,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    let alpha = alpha.per_row()?;
    map_scores!(py, x, mask, out, axis, workers, |run, scores, to| {
        maps::entmax(run, &scores, alpha, method(n_iter), to)
    })
}

/// Borrows scores that Python has made plain, of element type `$E`.
macro_rules! with_scores {
    ($x:ident, $mask:ident, $axis:ident, |$scores:ident: $E:ident| $body:expr) => {
        by_dtype!($x, $E => {
            let x = borrowed::<$E>($x)?;
            let mask = $mask.map(borrowed::<bool>).transpose()?;
            let $scores = Scores {
                shape: shape($x, $axis)?,
                x: Some(x.as_slice()?),
                mask: mask.as_ref().map(|mask| mask.as_slice()).transpose()?,
            };
            $body
        })
    };
}

/// Calls a map of scores to a sparse result.
macro_rules! map_sparse {
    ($py:ident, $x:ident, $mask:ident, $axis:ident, $workers:ident,
     |$run:ident, $scores:ident| $call:expr) => {
        with_scores!($x, $mask, $axis, |$scores: E| {
            let Sparse {
                data,
                columns,
                starts,
            } = detached($py, $workers, |$run| $call)?;
            Ok((
                data.into_pyarray($py).into_any(),
                columns.into_pyarray($py).into_any(),
                starts.into_pyarray($py).into_any(),
            ))
        })
    };
}

#[pyfunction]
pub(crate) fn project_simplex_sparse<'py>(
    py: Python<'py>,
    x: Array<'_, 'py>,
    mask: Option<Array<'_, '_>>,
    axis: isize,
    total: Parameter<'_>,
    workers: usize,
) -> PyResult<Triple<'py>> {
    let total = total.per_row()?;
    map_sparse!(py, x, mask, axis, workers, |run, scores| {
        maps::project_simplex_sparse(run, &scores, total)
    })
}

#[pyfunction]
pub(crate) fn entmax_sparse<'py>(
    py: Python<'py>,
    x: Array<'_, 'py>,
    mask: Option<Array<'_, '_>>,
    axis: isize,
    alpha: Parameter<'_>,
    n_iter: Option<u32>,
    workers: usize,
) -> PyResult<Triple<'py>> {
    let alpha = alpha.per_row()?;
    map_sparse!(py, x, mask, axis, workers, |run, scores| {
        maps::entmax_sparse(run, &scores, alpha, method(n_iter))
    })
}

/// τ and the sizes of the supports, of an array without its axis.
#[pyfunction]
pub(crate) fn threshold<'py>(
    py: Python<'py>,
    x: Array<'_, 'py>,
    mask: Option<Array<'_, 'py>>,
    axis: isize,
    alpha: Parameter<'_>,
    workers: usize,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let alpha = alpha.per_row()?;
    with_scores!(x, mask, axis, |scores: E| {
        let rows = scores.shape.count();
        let (mut tau, mut support) = (vec![E::default(); rows], vec![0; rows]);
        detached(py, workers, |run| {
            maps::threshold(run, &scores, alpha, &mut tau, &mut support)
        })?;
        Ok((
            tau.into_pyarray(py).into_any(),
            support.into_pyarray(py).into_any(),
        ))
    })
}

/// Calls a gradient: p and g to `out`.
macro_rules! map_pair {
    ($py:ident, $p:ident, $g:ident, $out:ident, $workers:ident,
     |$run:ident, $pair:ident, $to:ident| $call:expr) => {
        by_dtype!($out, E => {
            let (p, g) = (borrowed::<E>($p)?, borrowed::<E>($g)?);
            let mut out = borrowed_mut::<E>($out)?;
            let $to = out.as_slice_mut()?;
            let $pair = (p.as_slice()?, g.as_slice()?);
            detached($py, $workers, |$run| $call)
        })
    };
}

#[pyfunction]
pub(crate) fn softmax_vjp(
    py: Python<'_>,
    p: Array<'_, '_>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    axis: isize,
    temperature: f64,
    workers: usize,
) -> PyResult<()> {
    let shape = shape(p, axis)?;
    map_pair!(py, p, g, out, workers, |run, pair, to| {
        maps::softmax_vjp(run, shape, pair, temperature, to)
    })
}

#[pyfunction]
pub(crate) fn log_softmax_vjp(
    py: Python<'_>,
    log_p: Array<'_, '_>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    axis: isize,
    temperature: f64,
    workers: usize,
) -> PyResult<()> {
    let shape = shape(log_p, axis)?;
    map_pair!(py, log_p, g, out, workers, |run, pair, to| {
        maps::log_softmax_vjp(run, shape, pair, temperature, to)
    })
}

#[pyfunction]
pub(crate) fn entmax_vjp(
    py: Python<'_>,
    p: Array<'_, '_>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    axis: isize,
    alpha: Parameter<'_>,
    workers: usize,
) -> PyResult<()> {
    let alpha = alpha.per_row()?;
    let shape = shape(p, axis)?;
    map_pair!(py, p, g, out, workers, |run, pair, to| {
        maps::entmax_vjp(run, shape, pair, alpha, to)
    })
}

#[pyfunction]
pub(crate) fn entmax_alpha_grad(
    py: Python<'_>,
    p: Array<'_, '_>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    axis: isize,
    alpha: Parameter<'_>,
    workers: usize,
) -> PyResult<()> {
    let alpha = alpha.per_row()?;
    let shape = shape(p, axis)?;
    map_pair!(py, p, g, out, workers, |run, pair, to| {
        maps::entmax_alpha_grad(run, shape, pair, alpha, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn entmax_vjp_sparse(
    py: Python<'_>,
    p: Array<'_, '_>,
    columns: PyReadonlyArray1<'_, usize>,
    starts: PyReadonlyArray1<'_, usize>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    n: usize,
    alpha: Parameter<'_>,
    workers: usize,
) -> PyResult<()> {
    let alpha = alpha.per_row()?;
    let (columns, starts) = (columns.as_slice()?, starts.as_slice()?);
    map_pair!(py, p, g, out, workers, |run, pair, to| {
        let (p, g) = pair;
        maps::entmax_vjp_sparse(run, n, (p, columns, starts), g, alpha, to)
    })
}
