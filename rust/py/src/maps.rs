//! The door to the maps. Python has settled the types, the order and the shapes; see `python/unitmass/_arrays.py`.

use numpy::{IntoPyArray, PyReadonlyArray1};
use pyo3::prelude::*;
use unitmass_core::maps::{self, Method, Scores, Sparse};

use crate::{
    array::{Dimensions, Parameter, borrowed, borrowed_mut, by_dtype, shape},
    run::detached,
};

type Any<'a, 'py> = &'a Bound<'py, PyAny>;
type Triple<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// Calls a map of scores to `out`: borrow, detach, done.
macro_rules! map_scores {
    ($py:ident, $x:ident, $mask:ident, $out:ident, $dimensions:ident, $workers:ident,
     |$run:ident, $scores:ident, $to:ident| $call:expr) => {
        by_dtype!($out, E => {
            let x = $x.map(borrowed::<E>).transpose()?;
            let mask = $mask.map(borrowed::<bool>).transpose()?;
            let mut out = borrowed_mut::<E>($out)?;
            let $to = out.as_slice_mut()?;
            let $scores = Scores {
                shape: shape($dimensions),
                x: x.as_ref().map(|x| x.as_slice()).transpose()?,
                mask: mask.as_ref().map(|mask| mask.as_slice()).transpose()?,
            };
            detached($py, $workers, |$run| $call)
        })
    };
}

#[pyfunction]
pub(crate) fn softmax(
    py: Python<'_>,
    x: Option<Any<'_, '_>>,
    mask: Option<Any<'_, '_>>,
    out: Any<'_, '_>,
    dimensions: Dimensions,
    temperature: f64,
    workers: usize,
) -> PyResult<()> {
    map_scores!(py, x, mask, out, dimensions, workers, |run, scores, to| {
        maps::softmax(run, &scores, temperature, to)
    })
}

#[pyfunction]
pub(crate) fn log_softmax(
    py: Python<'_>,
    x: Option<Any<'_, '_>>,
    mask: Option<Any<'_, '_>>,
    out: Any<'_, '_>,
    dimensions: Dimensions,
    temperature: f64,
    workers: usize,
) -> PyResult<()> {
    map_scores!(py, x, mask, out, dimensions, workers, |run, scores, to| {
        maps::log_softmax(run, &scores, temperature, to)
    })
}

#[pyfunction]
pub(crate) fn project_simplex(
    py: Python<'_>,
    x: Option<Any<'_, '_>>,
    mask: Option<Any<'_, '_>>,
    out: Any<'_, '_>,
    dimensions: Dimensions,
    total: Parameter<'_>,
    workers: usize,
) -> PyResult<()> {
    let total = total.per_row()?;
    map_scores!(py, x, mask, out, dimensions, workers, |run, scores, to| {
        maps::project_simplex(run, &scores, total, to)
    })
}

fn method(n_iter: Option<u32>) -> Method {
    n_iter.map_or(Method::Auto, Method::Bisect)
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn entmax(
    py: Python<'_>,
    x: Option<Any<'_, '_>>,
    mask: Option<Any<'_, '_>>,
    out: Any<'_, '_>,
    dimensions: Dimensions,
    alpha: Parameter<'_>,
    n_iter: Option<u32>,
    workers: usize,
) -> PyResult<()> {
    let alpha = alpha.per_row()?;
    map_scores!(py, x, mask, out, dimensions, workers, |run, scores, to| {
        maps::entmax(run, &scores, alpha, method(n_iter), to)
    })
}

/// Calls a map of scores to a sparse result.
macro_rules! map_sparse {
    ($py:ident, $x:ident, $mask:ident, $dimensions:ident, $workers:ident,
     |$run:ident, $scores:ident| $call:expr) => {
        by_dtype!($x, E => {
            let x = borrowed::<E>($x)?;
            let mask = $mask.map(borrowed::<bool>).transpose()?;
            let $scores = Scores {
                shape: shape($dimensions),
                x: Some(x.as_slice()?),
                mask: mask.as_ref().map(|mask| mask.as_slice()).transpose()?,
            };
            let Sparse { data, columns, starts } = detached($py, $workers, |$run| $call)?;
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
    x: Any<'_, 'py>,
    mask: Option<Any<'_, '_>>,
    dimensions: Dimensions,
    total: Parameter<'_>,
    workers: usize,
) -> PyResult<Triple<'py>> {
    let total = total.per_row()?;
    map_sparse!(py, x, mask, dimensions, workers, |run, scores| {
        maps::project_simplex_sparse(run, &scores, total)
    })
}

#[pyfunction]
pub(crate) fn entmax_sparse<'py>(
    py: Python<'py>,
    x: Any<'_, 'py>,
    mask: Option<Any<'_, '_>>,
    dimensions: Dimensions,
    alpha: Parameter<'_>,
    n_iter: Option<u32>,
    workers: usize,
) -> PyResult<Triple<'py>> {
    let alpha = alpha.per_row()?;
    map_sparse!(py, x, mask, dimensions, workers, |run, scores| {
        maps::entmax_sparse(run, &scores, alpha, method(n_iter))
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn threshold(
    py: Python<'_>,
    x: Any<'_, '_>,
    mask: Option<Any<'_, '_>>,
    tau: Any<'_, '_>,
    support: Any<'_, '_>,
    dimensions: Dimensions,
    alpha: Parameter<'_>,
    workers: usize,
) -> PyResult<()> {
    let alpha = alpha.per_row()?;
    let mut support = borrowed_mut::<i64>(support)?;
    let support = support.as_slice_mut()?;
    let x = Some(x);
    map_scores!(py, x, mask, tau, dimensions, workers, |run, scores, to| {
        maps::threshold(run, &scores, alpha, to, support)
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
    p: Any<'_, '_>,
    g: Any<'_, '_>,
    out: Any<'_, '_>,
    dimensions: Dimensions,
    temperature: f64,
    workers: usize,
) -> PyResult<()> {
    map_pair!(py, p, g, out, workers, |run, pair, to| {
        maps::softmax_vjp(run, shape(dimensions), pair, temperature, to)
    })
}

#[pyfunction]
pub(crate) fn log_softmax_vjp(
    py: Python<'_>,
    log_p: Any<'_, '_>,
    g: Any<'_, '_>,
    out: Any<'_, '_>,
    dimensions: Dimensions,
    temperature: f64,
    workers: usize,
) -> PyResult<()> {
    map_pair!(py, log_p, g, out, workers, |run, pair, to| {
        maps::log_softmax_vjp(run, shape(dimensions), pair, temperature, to)
    })
}

#[pyfunction]
pub(crate) fn entmax_vjp(
    py: Python<'_>,
    p: Any<'_, '_>,
    g: Any<'_, '_>,
    out: Any<'_, '_>,
    dimensions: Dimensions,
    alpha: Parameter<'_>,
    workers: usize,
) -> PyResult<()> {
    let alpha = alpha.per_row()?;
    map_pair!(py, p, g, out, workers, |run, pair, to| {
        maps::entmax_vjp(run, shape(dimensions), pair, alpha, to)
    })
}

#[pyfunction]
pub(crate) fn entmax_alpha_grad(
    py: Python<'_>,
    p: Any<'_, '_>,
    g: Any<'_, '_>,
    out: Any<'_, '_>,
    dimensions: Dimensions,
    alpha: Parameter<'_>,
    workers: usize,
) -> PyResult<()> {
    let alpha = alpha.per_row()?;
    map_pair!(py, p, g, out, workers, |run, pair, to| {
        maps::entmax_alpha_grad(run, shape(dimensions), pair, alpha, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn entmax_vjp_sparse(
    py: Python<'_>,
    p: Any<'_, '_>,
    columns: PyReadonlyArray1<'_, usize>,
    starts: PyReadonlyArray1<'_, usize>,
    g: Any<'_, '_>,
    out: Any<'_, '_>,
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
