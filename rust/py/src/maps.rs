//! The door to the maps. Python settles types, order and shapes (`python/unitmass/_arrays.py`), or tries scores as they
//! come.

use numpy::{Element, IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArrayDyn, PyUntypedArray};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
};
use unitmass_core::maps::{self, Keep, Method, Scores, Sparse, Storage, Table, Upper};

use crate::{
    array::{Parameter, borrowed, borrowed_mut, by_dtype, empty_like, plain_shape, shape},
    error::Refused,
    run::detached,
};

type Array<'a, 'py> = &'a Bound<'py, PyUntypedArray>;
type Triple<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// Calls a map of scores to `out`, or to a new array: borrow, detach, done. Without x the scores lie in `out`.
///
/// `None` if the scores are not plain: they are tried as they come, for a small call is soon done.
macro_rules! map_scores {
    ($py:ident, $x:ident, $mask:ident, $out:ident, $axis:ident, $workers:ident,
     $(bounds: $bounds:ident = $upper:ident,)? |$run:ident, $scores:ident, $to:ident| $call:expr) => {{
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
            $(let $bounds = <E as Storage>::Compute::bounds(&$upper, shape.n)?;)?
            detached($py, $workers, |$run| $call)?;
            Ok(Some(out))
        })
    }};
}

/// An upper bound for all entries, or an array of them in the type of the computation: one for each value of the axis, or
/// one for each entry, row by row.
#[derive(FromPyObject)]
pub(crate) enum UpperBound<'py> {
    Single(PyReadonlyArrayDyn<'py, f32>),
    Double(PyReadonlyArrayDyn<'py, f64>),
    All(f64), // last, for an array of one value would pass for a number
}

/// A type that bounds come in.
trait Bounded: Sized + Element {
    /// The bounds of rows of `n`.
    fn bounds<'a>(upper: &'a UpperBound<'_>, n: usize) -> PyResult<Upper<'a, Self>> {
        let values = match (upper, Self::slice(upper)?) {
            (UpperBound::All(bound), _) => return Ok(Upper::All(*bound)),
            (_, Some(values)) => values,
            (_, None) => {
                return Err(PyTypeError::new_err(
                    "upper: expected the type of the scores",
                ));
            }
        };
        Ok(if values.len() == n {
            Upper::Row(values)
        } else {
            Upper::Each(values)
        })
    }

    /// The values, if they are of this type.
    fn slice<'a>(upper: &'a UpperBound<'_>) -> PyResult<Option<&'a [Self]>>;
}

impl Bounded for f32 {
    fn slice<'a>(upper: &'a UpperBound<'_>) -> PyResult<Option<&'a [f32]>> {
        match upper {
            UpperBound::Single(values) => Ok(Some(values.as_slice()?)),
            _ => Ok(None),
        }
    }
}

impl Bounded for f64 {
    fn slice<'a>(upper: &'a UpperBound<'_>) -> PyResult<Option<&'a [f64]>> {
        match upper {
            UpperBound::Double(values) => Ok(Some(values.as_slice()?)),
            _ => Ok(None),
        }
    }
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
    temperature: f64,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    let alpha = alpha.per_row()?;
    map_scores!(py, x, mask, out, axis, workers, |run, scores, to| {
        maps::entmax(run, &scores, alpha, method(n_iter), temperature, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn topk_softmax<'py>(
    py: Python<'py>,
    x: Option<Array<'_, 'py>>,
    mask: Option<Array<'_, 'py>>,
    out: Option<Array<'_, 'py>>,
    axis: isize,
    temperature: f64,
    k: Option<usize>,
    top_p: Option<f64>,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    let keep = match (k, top_p) {
        (Some(k), None) => Keep::Count(k),
        (None, Some(mass)) => Keep::Mass(mass),
        _ => return Err(PyTypeError::new_err("expected one of k and top_p")),
    };
    map_scores!(py, x, mask, out, axis, workers, |run, scores, to| {
        maps::topk_softmax(run, &scores, keep, temperature, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn taylor_softmax<'py>(
    py: Python<'py>,
    x: Option<Array<'_, 'py>>,
    mask: Option<Array<'_, 'py>>,
    out: Option<Array<'_, 'py>>,
    axis: isize,
    temperature: f64,
    order: usize,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    map_scores!(py, x, mask, out, axis, workers, |run, scores, to| {
        maps::taylor_softmax(run, &scores, order, temperature, to)
    })
}

#[pyfunction]
pub(crate) fn ev_softmax<'py>(
    py: Python<'py>,
    x: Option<Array<'_, 'py>>,
    mask: Option<Array<'_, 'py>>,
    out: Option<Array<'_, 'py>>,
    axis: isize,
    temperature: f64,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    map_scores!(py, x, mask, out, axis, workers, |run, scores, to| {
        maps::ev_softmax(run, &scores, temperature, to)
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
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn entmax_sparse<'py>(
    py: Python<'py>,
    x: Array<'_, 'py>,
    mask: Option<Array<'_, '_>>,
    axis: isize,
    alpha: Parameter<'_>,
    n_iter: Option<u32>,
    temperature: f64,
    workers: usize,
) -> PyResult<Triple<'py>> {
    let alpha = alpha.per_row()?;
    map_sparse!(py, x, mask, axis, workers, |run, scores| {
        maps::entmax_sparse(run, &scores, alpha, method(n_iter), temperature)
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
     $(bounds: $bounds:ident = $upper:ident, $shape:ident,)? |$run:ident, $pair:ident, $to:ident| $call:expr) => {
        by_dtype!($out, E => {
            $(let $bounds = <E as Storage>::Compute::bounds(&$upper, $shape.n)?;)?
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
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn entmax_vjp(
    py: Python<'_>,
    p: Array<'_, '_>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    axis: isize,
    alpha: Parameter<'_>,
    temperature: f64,
    workers: usize,
) -> PyResult<()> {
    let alpha = alpha.per_row()?;
    let shape = shape(p, axis)?;
    map_pair!(py, p, g, out, workers, |run, pair, to| {
        maps::entmax_vjp(run, shape, pair, alpha, temperature, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn taylor_softmax_vjp(
    py: Python<'_>,
    x: Array<'_, '_>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    axis: isize,
    order: usize,
    temperature: f64,
    workers: usize,
) -> PyResult<()> {
    let shape = shape(x, axis)?;
    map_pair!(py, x, g, out, workers, |run, pair, to| {
        maps::taylor_softmax_vjp(run, shape, pair, order, temperature, to)
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
    temperature: f64,
    workers: usize,
) -> PyResult<()> {
    let alpha = alpha.per_row()?;
    let (columns, starts) = (columns.as_slice()?, starts.as_slice()?);
    map_pair!(py, p, g, out, workers, |run, pair, to| {
        let (p, g) = pair;
        let entries = (p, columns, starts);
        maps::entmax_vjp_sparse(run, n, entries, g, alpha, temperature, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn capped_simplex<'py>(
    py: Python<'py>,
    x: Option<Array<'_, 'py>>,
    mask: Option<Array<'_, 'py>>,
    out: Option<Array<'_, 'py>>,
    axis: isize,
    total: Parameter<'_>,
    upper: UpperBound<'_>,
    temperature: f64,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    let total = total.per_row()?;
    map_scores!(py, x, mask, out, axis, workers, bounds: bounds = upper, |run, scores, to| {
        maps::capped_simplex(run, &scores, bounds, total, temperature, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn csoftmax<'py>(
    py: Python<'py>,
    x: Option<Array<'_, 'py>>,
    mask: Option<Array<'_, 'py>>,
    out: Option<Array<'_, 'py>>,
    axis: isize,
    temperature: f64,
    upper: UpperBound<'_>,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    map_scores!(py, x, mask, out, axis, workers, bounds: bounds = upper, |run, scores, to| {
        maps::csoftmax(run, &scores, bounds, temperature, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn normmax<'py>(
    py: Python<'py>,
    x: Option<Array<'_, 'py>>,
    mask: Option<Array<'_, 'py>>,
    out: Option<Array<'_, 'py>>,
    axis: isize,
    alpha: Parameter<'_>,
    temperature: f64,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    let alpha = alpha.per_row()?;
    map_scores!(py, x, mask, out, axis, workers, |run, scores, to| {
        maps::normmax(run, &scores, alpha, temperature, to)
    })
}

#[pyfunction]
pub(crate) fn project_l1_ball<'py>(
    py: Python<'py>,
    x: Option<Array<'_, 'py>>,
    mask: Option<Array<'_, 'py>>,
    out: Option<Array<'_, 'py>>,
    axis: isize,
    radius: Parameter<'_>,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    let radius = radius.per_row()?;
    map_scores!(py, x, mask, out, axis, workers, |run, scores, to| {
        maps::project_l1_ball(run, &scores, radius, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn noisy_argmax<'py>(
    py: Python<'py>,
    x: Option<Array<'_, 'py>>,
    mask: Option<Array<'_, 'py>>,
    out: Option<Array<'_, 'py>>,
    axis: isize,
    scale: f64,
    noise: &Noise,
    workers: usize,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    map_scores!(py, x, mask, out, axis, workers, |run, scores, to| {
        maps::noisy_argmax(run, &scores, &noise.0, scale, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn capped_simplex_vjp(
    py: Python<'_>,
    p: Array<'_, '_>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    axis: isize,
    upper: UpperBound<'_>,
    temperature: f64,
    workers: usize,
) -> PyResult<()> {
    let shape = shape(p, axis)?;
    map_pair!(py, p, g, out, workers, bounds: bounds = upper, shape, |run, pair, to| {
        maps::capped_simplex_vjp(run, shape, pair, bounds, temperature, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn csoftmax_vjp(
    py: Python<'_>,
    p: Array<'_, '_>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    axis: isize,
    upper: UpperBound<'_>,
    temperature: f64,
    workers: usize,
) -> PyResult<()> {
    let shape = shape(p, axis)?;
    map_pair!(py, p, g, out, workers, bounds: bounds = upper, shape, |run, pair, to| {
        maps::csoftmax_vjp(run, shape, pair, bounds, temperature, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn normmax_vjp(
    py: Python<'_>,
    p: Array<'_, '_>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    axis: isize,
    alpha: Parameter<'_>,
    temperature: f64,
    workers: usize,
) -> PyResult<()> {
    let alpha = alpha.per_row()?;
    let shape = shape(p, axis)?;
    map_pair!(py, p, g, out, workers, |run, pair, to| {
        maps::normmax_vjp(run, shape, pair, alpha, temperature, to)
    })
}

#[pyfunction]
pub(crate) fn project_l1_ball_vjp(
    py: Python<'_>,
    p: Array<'_, '_>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    axis: isize,
    radius: Parameter<'_>,
    workers: usize,
) -> PyResult<()> {
    let radius = radius.per_row()?;
    let shape = shape(p, axis)?;
    map_pair!(py, p, g, out, workers, |run, pair, to| {
        maps::project_l1_ball_vjp(run, shape, pair, radius, to)
    })
}

#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn noisy_argmax_vjp(
    py: Python<'_>,
    x: Array<'_, '_>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    axis: isize,
    noise: &Noise,
    scale: f64,
    workers: usize,
) -> PyResult<()> {
    let shape = shape(x, axis)?;
    map_pair!(py, x, g, out, workers, |run, pair, to| {
        maps::noisy_argmax_vjp(run, shape, pair, &noise.0, scale, to)
    })
}

/// A density of noise.
#[pyclass(frozen, module = "unitmass._core")]
pub(crate) struct Noise(maps::Noise);

#[pymethods]
impl Noise {
    #[new]
    fn new(name: &str) -> PyResult<Self> {
        let noise = match name {
            "gumbel" => maps::Noise::Gumbel,
            "normal" => maps::Noise::Normal,
            "exponential" => maps::Noise::Exponential,
            "uniform" => maps::Noise::Uniform,
            "logistic" => maps::Noise::Logistic,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "noise: expected 'gumbel', 'normal', 'exponential', 'uniform' or 'logistic', found {name:?}"
                )));
            }
        };
        Ok(Self(noise))
    }

    /// A density by its values, and those of its distribution function, on a grid.
    #[staticmethod]
    fn table(
        grid: PyReadonlyArray1<'_, f64>,
        pdf: PyReadonlyArray1<'_, f64>,
        cdf: PyReadonlyArray1<'_, f64>,
    ) -> PyResult<Self> {
        let table = Table::new(grid.as_slice()?, pdf.as_slice()?, cdf.as_slice()?);
        Ok(Self(maps::Noise::Table(table.map_err(Refused)?)))
    }
}

/// So many indices for each row, draw by draw.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "they are Python's")]
pub(crate) fn noisy_sample<'py>(
    py: Python<'py>,
    x: Array<'_, 'py>,
    mask: Option<Array<'_, 'py>>,
    axis: isize,
    noise: &Noise,
    scale: f64,
    size: usize,
    seed: u64,
    workers: usize,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    with_scores!(x, mask, axis, |scores: E| {
        let draws = scores.shape.count().checked_mul(size);
        let draws =
            draws.ok_or_else(|| PyValueError::new_err(format!("size: {size} is too large")))?;
        let mut out = vec![0; draws];
        detached(py, workers, |run| {
            maps::noisy_sample(run, &scores, &noise.0, scale, size, seed, &mut out)
        })?;
        Ok(out.into_pyarray(py))
    })
}
