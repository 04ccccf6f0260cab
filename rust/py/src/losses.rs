//! The door to the losses. Python settles types, order and shapes (`python/unitmass/_arrays.py`).

use numpy::{IntoPyArray, PyArray1, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::{exceptions::PyValueError, prelude::*};
use unitmass_core::{
    losses::{self, Batch, Margin, Reduction, Targets},
    maps::Scores,
};

use crate::{
    array::{Parameter, borrowed, borrowed_mut, by_dtype, empty_like, shape},
    run::detached,
};

type Array<'a, 'py> = &'a Bound<'py, PyUntypedArray>;

/// A number for each row, in their order.
type Values<'py> = Bound<'py, PyArray1<f64>>;

/// An array like the scores, if it was asked for.
type Gradient<'py> = Option<Bound<'py, PyUntypedArray>>;

/// The values, the gradient, and the reduction.
type Loss<'py> = (Values<'py>, Gradient<'py>, f64);

fn reduction(name: &str) -> PyResult<Reduction> {
    match name {
        "none" => Ok(Reduction::None),
        "sum" => Ok(Reduction::Sum),
        "mean" => Ok(Reduction::Mean),
        _ => Err(PyValueError::new_err(format!(
            "reduction: must be 'none', 'sum' or 'mean', found {name:?}"
        ))),
    }
}

/// What every loss takes: scores, targets, mask, axis, weights, the label to ignore, reduction, whether the gradient is
/// wanted, workers. Targets of int64 are labels, or lists of labels if they have as many dimensions as the scores;
/// others are dense.
#[derive(FromPyObject)]
pub(crate) struct Request<'py>(
    Bound<'py, PyUntypedArray>,
    Bound<'py, PyUntypedArray>,
    Option<Bound<'py, PyUntypedArray>>,
    isize,
    Parameter<'py>,
    Option<i64>,
    String,
    bool,
    usize,
);

/// Calls a loss: borrow, detach, done.
macro_rules! loss {
    ($py:ident, $request:ident,
     |$run:ident, $batch:ident, $values:ident, $gradient:ident| $call:expr) => {{
        let Request(scores, targets, mask, axis, weights, ignore, by, with_gradient, workers) = &$request;
        let shape = shape(scores, *axis)?;
        let (weights, reduction) = (weights.per_row()?, reduction(by)?);
        let labels = borrowed::<i64>(targets).ok();
        let mask = mask.as_ref().map(borrowed::<bool>).transpose()?;
        let mut values = vec![0.0; shape.count()];
        by_dtype!(scores, E => {
            let x = borrowed::<E>(scores)?;
            let dense;
            let targets = match &labels {
                Some(labels) if labels.ndim() == scores.ndim() => Targets::Lists {
                    indices: labels.as_slice()?,
                    each: labels.shape().last().copied().unwrap_or(0),
                },
                Some(labels) => Targets::Labels(labels.as_slice()?),
                None => {
                    dense = borrowed::<E>(targets)?;
                    Targets::Dense(dense.as_slice()?)
                }
            };
            let $batch = Batch {
                scores: Scores {
                    shape,
                    x: Some(x.as_slice()?),
                    mask: mask.as_ref().map(|mask| mask.as_slice()).transpose()?,
                },
                targets,
                weights,
                ignore: *ignore,
                reduction,
            };
            let gradient = with_gradient.then(|| empty_like::<E>(scores));
            let mut to = gradient.as_ref().map(borrowed_mut::<E>).transpose()?;
            let $gradient = to.as_mut().map(|to| to.as_slice_mut()).transpose()?;
            let $values = &mut values[..];
            let reduced = detached($py, *workers, |$run| $call)?;
            drop(to);
            PyResult::Ok((values.into_pyarray($py), gradient, reduced))
        })
    }};
}

#[pyfunction]
pub(crate) fn cross_entropy<'py>(
    py: Python<'py>,
    request: Request<'py>,
    temperature: f64,
    label_smoothing: f64,
) -> PyResult<Loss<'py>> {
    loss!(py, request, |run, batch, values, gradient| {
        losses::cross_entropy(run, &batch, temperature, label_smoothing, values, gradient)
    })
}

/// The kind is additive, angular or sphere.
#[pyfunction]
pub(crate) fn margin_softmax<'py>(
    py: Python<'py>,
    request: Request<'py>,
    kind: &str,
    margin: f64,
    scale: f64,
) -> PyResult<Loss<'py>> {
    let margin = match kind {
        "additive" => Margin::Additive(margin),
        "angular" => Margin::Angular(margin),
        "sphere" => Margin::Sphere(margin as u32),
        _ => {
            return Err(PyValueError::new_err(format!(
                "kind: must be 'additive', 'angular' or 'sphere', found {kind:?}"
            )));
        }
    };
    loss!(py, request, |run, batch, values, gradient| {
        losses::margin_softmax(run, &batch, margin, scale, values, gradient)
    })
}

/// As a loss, and the derivative of each row in its α if that was asked for.
#[pyfunction]
pub(crate) fn entmax_loss<'py>(
    py: Python<'py>,
    request: Request<'py>,
    alpha: Parameter<'_>,
    with_alpha_slopes: bool,
) -> PyResult<(Values<'py>, Gradient<'py>, f64, Option<Values<'py>>)> {
    let alpha = alpha.per_row()?;
    let rows = shape(&request.0, request.3)?.count();
    let mut slopes = with_alpha_slopes.then(|| vec![0.0; rows]);
    let to = slopes.as_deref_mut();
    let (values, gradient, reduced) = loss!(py, request, |run, batch, values, gradient| {
        losses::entmax_loss(run, &batch, alpha, values, gradient, to)
    })?;
    let slopes = slopes.map(|slopes| slopes.into_pyarray(py));
    Ok((values, gradient, reduced, slopes))
}

#[pyfunction]
pub(crate) fn normmax_loss<'py>(
    py: Python<'py>,
    request: Request<'py>,
    alpha: Parameter<'_>,
) -> PyResult<Loss<'py>> {
    let alpha = alpha.per_row()?;
    loss!(py, request, |run, batch, values, gradient| {
        losses::normmax_loss(run, &batch, alpha, values, gradient)
    })
}

#[pyfunction]
pub(crate) fn topk_cross_entropy<'py>(
    py: Python<'py>,
    request: Request<'py>,
    k: usize,
) -> PyResult<Loss<'py>> {
    loss!(py, request, |run, batch, values, gradient| {
        losses::topk_cross_entropy(run, &batch, k, values, gradient)
    })
}

#[pyfunction]
pub(crate) fn smooth_accuracy<'py>(
    py: Python<'py>,
    request: Request<'py>,
    temperature: f64,
) -> PyResult<Loss<'py>> {
    loss!(py, request, |run, batch, values, gradient| {
        losses::smooth_accuracy(run, &batch, temperature, values, gradient)
    })
}

#[pyfunction]
pub(crate) fn smooth_f1<'py>(
    py: Python<'py>,
    request: Request<'py>,
    temperature: f64,
) -> PyResult<Loss<'py>> {
    loss!(py, request, |run, batch, values, gradient| {
        losses::smooth_f1(run, &batch, temperature, values, gradient)
    })
}

#[pyfunction]
pub(crate) fn exact_accuracy_loss<'py>(
    py: Python<'py>,
    request: Request<'py>,
    temperature: f64,
    margin: Option<f64>,
    normalize: bool,
) -> PyResult<Loss<'py>> {
    loss!(py, request, |run, batch, values, gradient| {
        losses::exact_accuracy_loss(
            run,
            &batch,
            temperature,
            margin,
            normalize,
            values,
            gradient,
        )
    })
}

/// The mean positions, and the gradient.
#[pyfunction]
pub(crate) fn soft_argmax<'py>(
    py: Python<'py>,
    scores: Array<'_, 'py>,
    mask: Option<Array<'_, 'py>>,
    axis: isize,
    with_gradient: bool,
    temperature: f64,
    workers: usize,
) -> PyResult<(Values<'py>, Gradient<'py>)> {
    let shape = shape(scores, axis)?;
    let mask = mask.map(borrowed::<bool>).transpose()?;
    let mut values = vec![0.0; shape.count()];
    by_dtype!(scores, E => {
        let x = borrowed::<E>(scores)?;
        let all = Scores {
            shape,
            x: Some(x.as_slice()?),
            mask: mask.as_ref().map(|mask| mask.as_slice()).transpose()?,
        };
        let gradient = with_gradient.then(|| empty_like::<E>(scores));
        let mut to = gradient.as_ref().map(borrowed_mut::<E>).transpose()?;
        let room = to.as_mut().map(|to| to.as_slice_mut()).transpose()?;
        detached(py, workers, |run| {
            losses::soft_argmax(run, &all, temperature, &mut values, room)
        })?;
        drop(to);
        Ok((values.into_pyarray(py), gradient))
    })
}

#[pyfunction]
pub(crate) fn soft_top_k(
    py: Python<'_>,
    scores: Array<'_, '_>,
    mask: Option<Array<'_, '_>>,
    out: Array<'_, '_>,
    axis: isize,
    k: usize,
    workers: usize,
) -> PyResult<()> {
    let shape = shape(scores, axis)?;
    let mask = mask.map(borrowed::<bool>).transpose()?;
    by_dtype!(scores, E => {
        let x = borrowed::<E>(scores)?;
        let mut out = borrowed_mut::<E>(out)?;
        let to = out.as_slice_mut()?;
        let all = Scores {
            shape,
            x: Some(x.as_slice()?),
            mask: mask.as_ref().map(|mask| mask.as_slice()).transpose()?,
        };
        detached(py, workers, |run| losses::soft_top_k(run, &all, k, to))
    })
}

#[pyfunction]
pub(crate) fn soft_top_k_vjp(
    py: Python<'_>,
    scores: Array<'_, '_>,
    g: Array<'_, '_>,
    out: Array<'_, '_>,
    axis: isize,
    k: usize,
    workers: usize,
) -> PyResult<()> {
    let shape = shape(scores, axis)?;
    by_dtype!(scores, E => {
        let (x, g) = (borrowed::<E>(scores)?, borrowed::<E>(g)?);
        let mut out = borrowed_mut::<E>(out)?;
        let to = out.as_slice_mut()?;
        let pair = (x.as_slice()?, g.as_slice()?);
        detached(py, workers, |run| {
            losses::soft_top_k_vjp(run, shape, pair, k, to)
        })
    })
}

#[pyfunction]
pub(crate) fn zlpr<'py>(
    py: Python<'py>,
    request: Request<'py>,
    threshold: Parameter<'_>,
    margin: Option<f64>,
    scale: f64,
) -> PyResult<Loss<'py>> {
    let threshold = threshold.per_row()?;
    let margin = margin.map(|margin| (margin, scale));
    loss!(py, request, |run, batch, values, gradient| losses::zlpr(
        run, &batch, threshold, margin, values, gradient
    ))
}

#[pyfunction]
pub(crate) fn subset_softmax_loss<'py>(
    py: Python<'py>,
    request: Request<'py>,
) -> PyResult<Loss<'py>> {
    loss!(py, request, |run, batch, values, gradient| {
        losses::subset_softmax_loss(run, &batch, values, gradient)
    })
}

#[pyfunction]
pub(crate) fn group_zlpr<'py>(
    py: Python<'py>,
    request: Request<'py>,
    m: usize,
    centred: bool,
) -> PyResult<Loss<'py>> {
    loss!(py, request, |run, batch, values, gradient| {
        losses::group_zlpr(run, &batch, m, centred, values, gradient)
    })
}

#[pyfunction]
pub(crate) fn cosent<'py>(
    py: Python<'py>,
    request: Request<'py>,
    scale: f64,
) -> PyResult<Loss<'py>> {
    loss!(py, request, |run, batch, values, gradient| losses::cosent(
        run, &batch, scale, values, gradient
    ))
}
