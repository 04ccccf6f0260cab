"""Smooth stand-ins for accuracy, F1, argmax and top-k."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack, overload

import numpy as np

from unitmass import _core
from unitmass._arguments import whole_number
from unitmass._arrays import Array, Rows, deliver, map_pair, mask_like, number, pair, room
from unitmass._workers import resolve
from unitmass.losses._call import Options, Reduction, in_type, index_of, labels_or_dense, loss, sets

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["smooth_accuracy", "smooth_f1", "soft_argmax", "soft_top_k", "soft_top_k_vjp"]


@overload
def smooth_accuracy(
    scores: ArrayLike,
    targets: ArrayLike,
    temperature: float = ...,
    *,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def smooth_accuracy(
    scores: ArrayLike,
    targets: ArrayLike,
    temperature: float = ...,
    *,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def smooth_accuracy(
    scores: ArrayLike,
    targets: ArrayLike,
    temperature: float = 1.0,
    *,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the probability of the target: accuracy made smooth.

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    targets : array_like
        Integers in the shape of `scores` without `axis`: the index of the right score in each row. Or numbers in the
        shape of `scores`: probabilities, which add up to 1 in each row, or to within 0.01 of it.
    temperature : float, default 1.0
        Divides the scores; finite and positive.
    axis : int, default -1
        The axis of the scores.
    reduction : {"none", "sum", "mean"}, default "none"
        What becomes of the values: nothing, their sum, or that divided by the sum of the weights of the rows that take
        part.
    weights : float or array_like, optional
        What the value of a row is multiplied by, finite and not negative; broadcast to the shape of `scores` without
        `axis`. A row with weight 0 takes no part.
    ignore_index : int, optional
        The label of rows that take no part.
    value_and_grad : bool, default False
        Return the gradient too.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `scores`. Others count as -inf. A row without any takes no
        part.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `scores` without `axis`
        The probability of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have
        0, and a mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to
        the scores, in their shape and type.

    Raises
    ------
    ValueError
        If `temperature` is not finite and positive; a target is out of range; a weight is negative or not finite;
        `reduction` is unknown; `axis` is empty or does not exist; if `scores` is a scalar; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, labels are not integers, or `where` is not boolean.

    See Also
    --------
    exact_accuracy_loss, smooth_f1, unitmass.softmax

    Notes
    -----
    :math:`\langle y, p \rangle` for the softmax p of the scores [1]_. As the temperature falls, the mean over rows
    becomes the accuracy. A metric: the more, the better.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf have probability 0.

    References
    ----------
    .. [1] J. Su, "Smoothing functions: differentiable approximations" (2019), kexue.fm/archives/6620.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.smooth_accuracy([[-2.0, 0.0, 0.5], [3.0, 0.0, 0.0]], [2, 0], reduction="mean").round(4)
    np.float64(0.7508)
    """
    rows = Rows.of(scores, axis, "scores")
    return loss(
        _core.smooth_accuracy,
        rows,
        labels_or_dense(rows, targets, ignore_index),
        number(temperature, "temperature"),
        where=where,
        weights=weights,
        ignore=index_of(ignore_index),
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )


@overload
def smooth_f1(
    scores: ArrayLike,
    targets: ArrayLike,
    temperature: float = ...,
    *,
    sparse_labels: bool = ...,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def smooth_f1(
    scores: ArrayLike,
    targets: ArrayLike,
    temperature: float = ...,
    *,
    sparse_labels: bool = ...,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def smooth_f1(
    scores: ArrayLike,
    targets: ArrayLike,
    temperature: float = 1.0,
    *,
    sparse_labels: bool = False,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the F1 score of probabilities in place of decisions.

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    targets : array_like, shape of `scores`
        What is right of each score, from 0 to 1. With ``sparse_labels=True`` integers: lists of indices, as many as
        there are along `axis`.
    temperature : float, default 1.0
        Divides the scores; finite and positive.
    sparse_labels : bool, default False
        Take `targets` for lists of indices, filled up with `ignore_index`.
    axis : int, default -1
        The axis of the scores.
    reduction : {"none", "sum", "mean"}, default "none"
        What becomes of the values: nothing, their sum, or that divided by the sum of the weights of the rows that take
        part.
    weights : float or array_like, optional
        What the value of a row is multiplied by, finite and not negative; broadcast to the shape of `scores` without
        `axis`. A row with weight 0 takes no part.
    ignore_index : int, optional
        What fills up the lists of labels, -1 by default. Belongs to ``sparse_labels=True``.
    value_and_grad : bool, default False
        Return the gradient too.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `scores`. Others count as -inf. A row without any takes no
        part.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `scores` without `axis`
        The score of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have 0, and
        a mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to the
        scores, in their shape and type.

    Raises
    ------
    ValueError
        If `temperature` is not finite and positive; a target is out of range; a weight is negative or not finite;
        `reduction` is unknown; `axis` is empty or does not exist; if `scores` is a scalar; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `where` is not boolean.

    See Also
    --------
    zlpr, smooth_accuracy

    Notes
    -----
    :math:`2 \sum_i t_i p_i / \sum_i (t_i + p_i)` with :math:`p_i`, the sigmoid of :math:`s_i / T` [1]_. As the
    temperature falls, it becomes the F1 score of the labels with scores above 0. A metric: the more, the better. To
    take it over a whole table in place of each row, reshape the table to one row.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf take no part, nor do their targets. A row
    without positives, wanted or predicted, is 0.

    References
    ----------
    .. [1] J. Su, "Smoothing functions: differentiable approximations" (2019), kexue.fm/archives/6620.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.smooth_f1([4.0, -3.0, 2.0, -1.0], [1, 0, 1, 0]).round(4)
    np.float64(0.8915)
    """
    rows = Rows.of(scores, axis, "scores")
    wanted, ignore = sets(rows, targets, sparse_labels, ignore_index)
    return loss(
        _core.smooth_f1,
        rows,
        wanted,
        number(temperature, "temperature"),
        where=where,
        weights=weights,
        ignore=ignore,
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )


@overload
def soft_argmax(
    scores: ArrayLike,
    temperature: float = ...,
    *,
    start: float = ...,
    axis: int = ...,
    value_and_grad: Literal[False] = ...,
    where: ArrayLike | None = ...,
    workers: int | None = ...,
) -> Array: ...
@overload
def soft_argmax(
    scores: ArrayLike,
    temperature: float = ...,
    *,
    start: float = ...,
    axis: int = ...,
    value_and_grad: Literal[True],
    where: ArrayLike | None = ...,
    workers: int | None = ...,
) -> tuple[Array, Array]: ...
def soft_argmax(
    scores: ArrayLike,
    temperature: float = 1.0,
    *,
    start: float = 0,
    axis: int = -1,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the mean index under the softmax.

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    temperature : float, default 1.0
        Divides the scores; finite and positive.
    start : float, default 0
        The index of the first score.
    axis : int, default -1
        The axis of the scores.
    value_and_grad : bool, default False
        Return the gradient too.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `scores`. A row without any gets 0.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `scores` without `axis`
        The mean index of each row in the type of the scores. With ``value_and_grad=True`` a tuple of this and its
        gradient with respect to the scores, in their shape and type.

    Raises
    ------
    ValueError
        If `temperature` is not finite and positive, or `start` not finite; `axis` is empty or does not exist; if
        `scores` is a scalar; if a shape does not fit.
    TypeError
        If `scores` is complex, masked or not numeric, or `where` is not boolean.

    See Also
    --------
    soft_top_k, unitmass.softmax

    Notes
    -----
    :math:`\sum_i i\, p_i` for the softmax p of the scores [1]_. As the temperature falls, it becomes the argmax, or the
    mean of those that tie. float16 has whole numbers up to 2048 only.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf take no part; a row of nothing else
    becomes NaN.

    References
    ----------
    .. [1] J. Su, "Smoothing functions: differentiable approximations" (2019), kexue.fm/archives/6620.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.soft_argmax([2.0, 1.0, 4.0, 5.0, 3.0], start=1).round(8)
    np.float64(3.73363966)
    """
    rows = Rows.of(scores, axis, "scores")
    first = number(start, "start")
    if not np.isfinite(first):
        raise ValueError(f"start: must be finite, found {first}")
    mask = mask_like(rows, where, "scores")
    values, gradient = _core.soft_argmax(
        rows.values, mask, rows.axis, bool(value_and_grad), number(temperature, "temperature"), resolve(workers)
    )
    values = values.reshape(rows.batch)
    value = in_type(values + first if mask is None else np.where(mask.any(rows.axis), values + first, values), rows)
    if gradient is None:
        return value
    return value, rows.finish(gradient)


def soft_top_k(
    x: ArrayLike,
    /,
    k: int,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Map scores to soft membership of the k largest.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    k : int
        How many, from 1 to n.
    axis : int, default -1
        The axis of the scores.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `x`. Excluded ones get 0.
    out : ndarray, optional
        Where to put the result; shape of `x`, and a type that its type casts to. May be `x` itself.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        Numbers that add up to k; they are positive where they do not underflow, and may exceed 1.

    Raises
    ------
    ValueError
        If `k` is not from 1 to n; `axis` is empty or does not exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    soft_top_k_vjp, soft_argmax, unitmass.topk_softmax, unitmass.budget

    Notes
    -----
    From :math:`p = 0` and the scores less their minimum, k times
    :math:`p \leftarrow p + \operatorname{softmax}((1 - p) x)`: what has been taken counts less in the next turn [1]_.
    `unitmass.budget` is the map that keeps every entry below 1.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0; a row of nothing else
    becomes NaN.

    References
    ----------
    .. [1] J. Su, "Softmax, continued: smooth approximations of top-k" (2024), kexue.fm/archives/10373.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.soft_top_k([2.0, 1.0, 4.0, 5.0, 3.0], 2).round(4)
    array([0.141 , 0.0532, 0.6473, 0.8142, 0.3444])
    """
    count = whole_number(k, "k", 1)
    rows = Rows.of(x, axis, "x")
    mask = mask_like(rows, where)
    result = room(out, rows.values.shape, rows, mask)
    _core.soft_top_k(rows.values, mask, result, rows.axis, count, resolve(workers))
    return deliver(result, out, rows)


def soft_top_k_vjp(
    x: ArrayLike,
    g: ArrayLike,
    /,
    k: int,
    *,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the transposed Jacobian of `soft_top_k`.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        The scores of the forward call.
    g : array_like, shape of `x`
        Gradient with respect to the result of `soft_top_k`; taken in the type of `x`.
    k : int
        The one of the forward call.
    axis : int, default -1
        The axis of the scores.
    out : ndarray, optional
        Where to put the result; shape of `x`. May be `x` or `g`.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        Gradient with respect to the scores.

    Raises
    ------
    ValueError
        If `k` is not from 1 to n; `axis` is empty or does not exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    soft_top_k

    Notes
    -----
    Unlike the gradients of the maps it takes the scores: the result alone does not tell the k turns. Where `soft_top_k`
    had a `where`, pass scores of -inf for what it excluded. The minimum of the scores, which is subtracted first, has
    its part in the gradient; of equal ones the first.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.soft_top_k_vjp([2.0, 1.0, 4.0, 5.0, 3.0], [1.0, 1.0, 1.0, 1.0, 1.0], 2).round(4) + 0.0
    array([0., 0., 0., 0., 0.])
    """
    count = whole_number(k, "k", 1)
    rows, vector = pair(x, g, axis, "x")
    return map_pair(_core.soft_top_k_vjp, rows, vector, count, shape=rows.values.shape, out=out, workers=workers)
