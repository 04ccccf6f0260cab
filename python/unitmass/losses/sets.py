"""Losses of any number of labels in each row, and of orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

import numpy as np

from unitmass import _core
from unitmass._arrays import Array, Rows, dense_like, mask_like, number, numbers_like, per_row
from unitmass.losses._call import Options, Reduction, evaluate, index_of, labels_or_dense, loss, sets

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["cosent", "group_zlpr", "subset_softmax_loss", "zlpr"]


@overload
def zlpr(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    sparse_labels: bool = ...,
    threshold: ArrayLike = ...,
    margin: float | None = ...,
    scale: float = ...,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def zlpr(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    sparse_labels: bool = ...,
    threshold: ArrayLike = ...,
    margin: float | None = ...,
    scale: float = ...,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def zlpr(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    sparse_labels: bool = False,
    threshold: ArrayLike = 0.0,
    margin: float | None = None,
    scale: float = 1.0,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the softmax cross entropy of any number of labels (ZLPR).

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    targets : array_like, shape of `scores`
        What is right of each score, from 0 to 1. With ``sparse_labels=True`` integers: lists of indices, as many as
        there are along `axis`.
    sparse_labels : bool, default False
        Take `targets` for lists of indices, filled up with `ignore_index`.
    threshold : float or array_like, default 0.0
        The score between wrong and right, finite. Or one for each row, broadcast to the shape of `scores` without
        `axis`.
    margin : float, optional
        Compare pairs of a wrong and a right score in place of each with the threshold: right ones shall lead by this;
        finite.
    scale : float, default 1.0
        Multiplies the differences of pairs; finite and positive. Belongs to `margin`.
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
        The loss of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have 0, and a
        mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to the scores,
        in their shape and type.

    Raises
    ------
    ValueError
        If `threshold` or `margin` is not finite; `scale` is not finite and positive; `threshold` is given with a
        `margin` or `scale` without; a target is out of range; a weight is negative or not finite; `reduction` is
        unknown; `axis` is empty or does not exist; if `scores` is a scalar; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `where` is not boolean.

    See Also
    --------
    subset_softmax_loss, group_zlpr

    Notes
    -----
    :math:`L = \log\bigl(e^{s_0} + \sum_i (1 - t_i) e^{s_i}\bigr) + \log\bigl(e^{-s_0} + \sum_i t_i e^{-s_i}\bigr)`,
    to predict the labels with scores above :math:`s_0` [1]_ [2]_. Of soft labels it is least where :math:`t_i` is
    the sigmoid of :math:`2 (s_i - s_0)`, at :math:`2 \log(1 + \sum_i \sqrt{t_i (1 - t_i)})`.

    With a margin m and a scale g, :math:`L = \log\bigl(1 + \sum_i (1 - t_i) e^{g (s_i + m)} \sum_j t_j e^{-g
    s_j}\bigr)`.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf stand for the impossible: they take no
    part, and a target above 0 on one of them makes the loss +inf (with a margin, where any score could count against
    it).

    References
    ----------
    .. [1] J. Su, "Extending softmax and cross entropy to multi-label classification" (2020), kexue.fm/archives/7359.
    .. [2] J. Su et al., "ZLPR: a novel loss for multi-label classification" (2022), arXiv:2208.02955.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.zlpr([2.0, -1.0, 0.5, -3.0], [1, 0, 1, 0]).round(8)
    np.float64(0.90396914)
    >>> um.losses.zlpr([2.0, -1.0, 0.5, -3.0], [0, 2, -1], sparse_labels=True).round(8)
    np.float64(0.90396914)
    >>> um.losses.zlpr([1.098612, -0.693147, 0.0], [0.9, 0.2, 0.5]).round(8)
    np.float64(1.57691472)
    """
    rows = Rows.of(scores, axis, "scores")
    thresholds = per_row(threshold, rows, "threshold")
    factor = number(scale, "scale")
    if margin is None and factor != 1:
        raise ValueError(f"scale: belongs to the form with a margin (margin=0.0 is one), found {factor}")
    if margin is not None and np.any(thresholds != 0):
        raise ValueError("threshold: has no part in the form with a margin")
    wanted, ignore = sets(rows, targets, sparse_labels, ignore_index)
    return loss(
        _core.zlpr,
        rows,
        wanted,
        thresholds,
        None if margin is None else number(margin, "margin"),
        factor,
        where=where,
        weights=weights,
        ignore=ignore,
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )


@overload
def subset_softmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    sparse_labels: bool = ...,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def subset_softmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    sparse_labels: bool = ...,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def subset_softmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
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
    r"""Compute the cross entropy of the softmax over subsets of a size.

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    targets : array_like, shape of `scores`
        1 for each right score and 0 for others. With ``sparse_labels=True`` integers: lists of indices, as many as
        there are along `axis`.
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
        The loss of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have 0, and a
        mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to the scores,
        in their shape and type.

    Raises
    ------
    ValueError
        If a target is out of range; a weight is negative or not finite; `reduction` is unknown; `axis` is empty or
        does not exist; if `scores` is a scalar; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `where` is not boolean.

    See Also
    --------
    zlpr, topk_cross_entropy, unitmass.budget

    Notes
    -----
    :math:`L = \log Z_k - \langle t, s \rangle`, where k is the number of right scores in the row and :math:`Z_k`
    the elementary symmetric polynomial of degree k in :math:`e^{s_i}`: the sum over all subsets of k scores. The
    gradient is the marginals, the probability that a subset has the score, minus the targets [1]_. One right score
    makes it the cross entropy. It takes O(n min(k, n - k)) time, in float64.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf stand for the impossible: they take no
    part, and a target on one of them makes the loss +inf.

    References
    ----------
    .. [1] K. Swersky et al., "Probabilistic n-choose-k models for classification and ranking", NIPS 2012.

    Examples
    --------
    >>> import unitmass as um
    >>> import numpy as np
    >>> value, gradient = um.losses.subset_softmax_loss(np.log([1.0, 2.0, 3.0]), [0, 1, 1], value_and_grad=True)
    >>> np.exp(value).round(6)  # 11 / 6
    np.float64(1.833333)
    """
    rows = Rows.of(scores, axis, "scores")
    wanted, ignore = sets(rows, targets, sparse_labels, ignore_index)
    return loss(
        _core.subset_softmax_loss,
        rows,
        wanted,
        where=where,
        weights=weights,
        ignore=ignore,
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )


@overload
def group_zlpr(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    centred: bool = ...,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def group_zlpr(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    centred: bool = ...,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def group_zlpr(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    centred: bool = False,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the zlpr loss of groups of classes, one right in each.

    Parameters
    ----------
    scores : array_like, shape (..., n, m, ...)
        Scores of n groups with m classes each: classes along `axis`, and groups along the axis before it. float16,
        float32, float64 and bfloat16 keep their type; integers and booleans become float64.
    targets : array_like
        Integers in the shape of `scores` without `axis`: the right class of each group. Or numbers in the shape of
        `scores`, from 0 to 1.
    centred : bool, default False
        Compare the right scores with the means of their groups.
    axis : int, default -1
        The axis of the scores.
    reduction : {"none", "sum", "mean"}, default "none"
        What becomes of the values: nothing, their sum, or that divided by the sum of the weights of those that take
        part.
    weights : float or array_like, optional
        What the value of n groups is multiplied by, finite and not negative; broadcast to the shape of the result.
        Groups with weight 0 take no part.
    ignore_index : int, optional
        The label of groups that take no part. Belongs to integer targets.
    value_and_grad : bool, default False
        Return the gradient too.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `scores`. Others count as -inf. n groups without any take
        no part.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `scores` without `axis` and the axis before it
        The loss of each n groups in the type of the scores, or a scalar by `reduction`. Groups that take no part have
        0, and a mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to
        the scores, in their shape and type.

    Raises
    ------
    ValueError
        If a target is out of range; a weight is negative or not finite; `reduction` is unknown; `axis` is empty or
        does not exist; if `scores` is a scalar; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, labels are not integers, or `where` is not boolean.

    See Also
    --------
    zlpr, cross_entropy

    Notes
    -----
    n classifications in m classes as one [1]_: :math:`L = \sum_j \log\bigl(1 + \sum_i \sum_{k \ne j} t_{ij}
    e^{s_{ik} - s_{ij}}\bigr)`, and centred :math:`L = \sum_j \log\bigl(1 + \sum_i t_{ij} e^{\bar s_i -
    s_{ij}}\bigr)`. With two classes it is `zlpr` of :math:`s_1 - s_2`. A block of n m scores is a row: it has one
    value and one weight. Experimental: the definition may change.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf stand for the impossible: they take no
    part, and a target on one of them makes the loss +inf.

    References
    ----------
    .. [1] J. Su, "An unsuccessful attempt: extending the multi-label cross entropy to n m-way classifications" (2022),
       kexue.fm/archives/9158.

    Examples
    --------
    >>> import unitmass as um
    >>> scores = [[1.0, 0.0, -1.0], [0.0, 2.0, 1.0]]
    >>> um.losses.group_zlpr(scores, [0, 1]).round(8)
    np.float64(0.81521193)
    >>> um.losses.group_zlpr(scores, [0, 1], centred=True).round(8)
    np.float64(0.62652337)
    """
    blocks = Rows.of(scores, axis, "scores")
    last = blocks.axis
    if last == 0:
        raise ValueError(f"axis: the groups have the axis before it, which axis {axis} of {blocks.values.ndim} has not")
    groups, classes = blocks.values.shape[last - 1 : last + 1]
    if groups == 0:
        raise ValueError(f"scores: there are no groups (axis {last - 1} of shape {blocks.values.shape})")
    wanted = labels_or_dense(blocks, targets, ignore_index)
    mask = mask_like(blocks, where, "scores")
    ignore = None
    if wanted.dtype == np.int64:
        wanted, counts = _places(np.moveaxis(wanted, last - 1, -1), classes, index_of(ignore_index))
        if counts is not None:
            counts = np.expand_dims(np.moveaxis(counts, -1, last - 1), last)
            mask = mask_like(blocks, counts if mask is None else mask & counts)
        ignore = -1
    else:
        wanted = _blocks(wanted, last)
    moved = _blocks(blocks.values, last)
    value, gradient = evaluate(
        _core.group_zlpr,
        Rows(moved, moved.ndim - 1, blocks.dtype),
        wanted,
        classes,
        bool(centred),
        where=None if mask is None else _blocks(mask, last),
        weights=weights,
        ignore=ignore,
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )
    if gradient is not None:
        shape = (*moved.shape[:-1], groups, classes)
        gradient = np.ascontiguousarray(np.moveaxis(gradient.reshape(shape), (-2, -1), (last - 1, last)))
    result: tuple[Array, Array] = value, gradient
    return result if value_and_grad else result[0]


def _blocks(array: NDArray[Any], last: int) -> NDArray[Any]:
    """Move the axes of groups and of classes to the end, as one."""
    moved = np.moveaxis(array, (last - 1, last), (-2, -1))
    return np.ascontiguousarray(moved).reshape(*moved.shape[:-2], moved.shape[-2] * moved.shape[-1])


def _places(
    labels: NDArray[np.int64], classes: int, ignore: int | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Find the places of the labels in a block, -1 for those to ignore; and which count, if not all."""
    counts = None if ignore is None else labels != ignore
    outside = (labels < 0) | (labels >= classes)
    if counts is not None:
        outside &= counts
    if outside.any():
        raise ValueError(
            f"targets: must be the index of a score along the axis, or ignore_index, found {labels[outside][0]}"
        )
    places = labels + np.arange(labels.shape[-1]) * classes
    return np.ascontiguousarray(places if counts is None else np.where(counts, places, -1)), counts


@overload
def cosent(
    scores: ArrayLike,
    labels: ArrayLike,
    scale: float = ...,
    *,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def cosent(
    scores: ArrayLike,
    labels: ArrayLike,
    scale: float = ...,
    *,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def cosent(
    scores: ArrayLike,
    labels: ArrayLike,
    scale: float = 20.0,
    *,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the loss of scores that are to be ordered as their labels (CoSENT).

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Scores, such as the cosine similarities of n pairs of sentences, along `axis`: one batch of pairs is a row.
        float16, float32, float64 and bfloat16 keep their type; integers and booleans become float64.
    labels : array_like, shape of `scores`
        Numbers of which only the order counts.
    scale : float, default 20.0
        Multiplies the differences of scores; finite and positive.
    axis : int, default -1
        The axis of the scores.
    reduction : {"none", "sum", "mean"}, default "none"
        What becomes of the values: nothing, their sum, or that divided by the sum of the weights of the rows that take
        part.
    weights : float or array_like, optional
        What the value of a row is multiplied by, finite and not negative; broadcast to the shape of `scores` without
        `axis`. A row with weight 0 takes no part.
    ignore_index : int, optional
        The label of pairs that take no part.
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
        The loss of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have 0, and a
        mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to the scores,
        in their shape and type.

    Raises
    ------
    ValueError
        If `scale` is not finite and positive; a weight is negative or not finite; `reduction` is unknown; `axis` is
        empty or does not exist; if `scores` is a scalar; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `where` is not boolean.

    See Also
    --------
    zlpr

    Notes
    -----
    :math:`L = \log\bigl(1 + \sum_{y_i < y_j} e^{\lambda (f_i - f_j)}\bigr)` over all pairs of different labels
    [1]_: pairs whose order is right by far cost nothing. The sum takes O(n log n) time and O(n) memory, by sorting.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf take no part.

    References
    ----------
    .. [1] J. Su, "CoSENT: a more effective sentence embedding scheme than Sentence-BERT" (2022),
       kexue.fm/archives/8847.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.cosent([0.9, 0.8, 0.3, -0.1, 0.5], [1, 0, 1, 0, 2]).round(8)
    np.float64(10.14297704)
    """
    rows = Rows.of(scores, axis, "scores")
    given = numbers_like(labels, rows, "labels")
    mask = mask_like(rows, where, "scores")
    if ignore_index is not None:
        counts = given != index_of(ignore_index)
        mask = counts if mask is None else mask & counts
    rows, wanted = _ordered(rows, given)
    return loss(
        _core.cosent,
        rows,
        wanted,
        number(scale, "scale"),
        where=mask,
        weights=weights,
        ignore=None,
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )


def _ordered(rows: Rows, labels: NDArray[Any]) -> tuple[Rows, Array]:
    """Take labels of which the order counts, in a type of the scores that tells them all apart."""
    wide = rows if rows.values.dtype == np.float64 else Rows(rows.values.astype(np.float64), rows.axis, rows.dtype)
    for computed in (rows, wide):
        wanted = dense_like(labels, computed, "labels")
        if labels.dtype.kind in "iu":
            most = 2 ** (np.finfo(wanted.dtype).nmant + 1)
            exact = not labels.size or -most <= int(labels.min()) <= int(labels.max()) <= most
        else:
            exact = bool(((wanted == labels) | (wanted != wanted)).all())
        if exact:
            return computed, wanted
    return wide, np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.float64)
