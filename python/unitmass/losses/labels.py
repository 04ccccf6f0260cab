"""Losses of one label in each row, or of a distribution over the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Unpack, overload

from unitmass import _core
from unitmass._arguments import whole_number
from unitmass._arrays import Array, Rows, labels_like, number, per_row
from unitmass.losses._call import Options, Reduction, evaluate, in_type, index_of, labels_or_dense, loss

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "am_softmax",
    "arcface",
    "cross_entropy",
    "entmax_loss",
    "exact_accuracy_loss",
    "normmax_loss",
    "sphereface",
    "topk_cross_entropy",
]


@overload
def cross_entropy(
    scores: ArrayLike,
    targets: ArrayLike,
    temperature: float = ...,
    *,
    label_smoothing: float = ...,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def cross_entropy(
    scores: ArrayLike,
    targets: ArrayLike,
    temperature: float = ...,
    *,
    label_smoothing: float = ...,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def cross_entropy(
    scores: ArrayLike,
    targets: ArrayLike,
    temperature: float = 1.0,
    *,
    label_smoothing: float = 0.0,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the cross entropy of the softmax of scores.

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
    label_smoothing : float, default 0.0
        The part of each target, from 0 to 1, that is spread evenly over the scores that take part.
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
        The loss of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have 0, and a
        mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to the scores,
        in their shape and type.

    Raises
    ------
    ValueError
        If `temperature` is not finite and positive; `label_smoothing` is not from 0 to 1; a target is out of range;
        a weight is negative or not finite; `reduction` is unknown; `axis` is empty or does not exist; if `scores`
        is a scalar; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, labels are not integers, or `where` is not boolean.

    See Also
    --------
    entmax_loss, topk_cross_entropy, unitmass.log_softmax

    Notes
    -----
    :math:`L = \log \sum_j e^{x_j / T} - \langle y, x \rangle / T` with the gradient :math:`(p - y) / T`, where p is
    the softmax. The value of a small loss keeps its digits: the sum of the other scores goes through log1p. No
    probabilities are written when only the value is asked for.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf stand for the impossible: they take no
    part, and a target on one of them makes the loss +inf.

    References
    ----------
    .. [1] C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016 (label smoothing).

    Examples
    --------
    >>> import unitmass as um
    >>> x = [[-2.0, 0.0, 0.5], [3.0, 0.0, 0.0]]
    >>> um.losses.cross_entropy(x, [2, 0]).round(4)
    array([0.5239, 0.0949])
    >>> value, gradient = um.losses.cross_entropy(x, [2, 0], reduction="mean", value_and_grad=True)
    >>> gradient.round(4)
    array([[ 0.0243,  0.1796, -0.2039],
           [-0.0453,  0.0226,  0.0226]])
    """
    rows = Rows.of(scores, axis, "scores")
    return loss(
        _core.cross_entropy,
        rows,
        labels_or_dense(rows, targets, ignore_index),
        number(temperature, "temperature"),
        number(label_smoothing, "label_smoothing"),
        where=where,
        weights=weights,
        ignore=index_of(ignore_index),
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )


@overload
def entmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    alpha: ArrayLike = ...,
    *,
    alpha_grad: Literal[False] = ...,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def entmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    alpha: ArrayLike = ...,
    *,
    alpha_grad: Literal[False] = ...,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
@overload
def entmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    alpha: ArrayLike = ...,
    *,
    alpha_grad: Literal[True],
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
@overload
def entmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    alpha: ArrayLike = ...,
    *,
    alpha_grad: Literal[True],
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array, Array]: ...
def entmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    alpha: ArrayLike = 1.5,
    *,
    alpha_grad: bool = False,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, ...]:
    r"""Compute the Fenchel-Young loss of entmax.

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    targets : array_like
        Integers in the shape of `scores` without `axis`: the index of the right score in each row. Or numbers in the
        shape of `scores`: probabilities, which add up to 1 in each row, or to within 0.01 of it.
    alpha : float or array_like, default 1.5
        1 is the cross entropy of the softmax, 2 the sparsemax loss; at least 1 and finite. Or one for each row,
        broadcast to the shape of `scores` without `axis`.
    alpha_grad : bool, default False
        Return the derivative with respect to the alpha of each row too.
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
        The loss of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have 0, and a
        mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to the scores,
        in their shape and type; with ``alpha_grad=True`` followed by its derivative with respect to the alpha of each
        row, in the shape of `scores` without `axis`.

    Raises
    ------
    ValueError
        If `alpha` is below 1 or not finite; a target is out of range; a weight is negative or not finite;
        `reduction` is unknown; `axis` is empty or does not exist; if `scores` is a scalar; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, labels are not integers, or `where` is not boolean.

    See Also
    --------
    cross_entropy, normmax_loss, unitmass.entmax

    Notes
    -----
    A Fenchel-Young loss [1]_: :math:`L = \Omega^*(x) + \Omega(y) - \langle x, y \rangle`, never negative, with the
    gradient :math:`p - y`, where p is the `entmax` of the scores and :math:`\Omega(p) = \sum_i (p_i^\alpha - p_i) /
    (\alpha (\alpha - 1))`; at alpha 1 it is :math:`\sum_i p_i \log p_i`. The loss is exactly 0 once the right score
    is :math:`1 / (\alpha - 1)` above the others. The derivative in alpha is :math:`\partial_\alpha \Omega(y) -
    \partial_\alpha \Omega(p)`, computed so that nothing cancels near alpha 1. Its sum is the derivative with
    respect to an alpha that all rows share.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf stand for the impossible: they take no
    part, and a target on one of them makes the loss +inf.

    References
    ----------
    .. [1] M. Blondel, A. Martins and V. Niculae, "Learning with Fenchel-Young losses", JMLR 21 (2020).
    .. [2] G. Correia, V. Niculae and A. Martins, "Adaptively sparse transformers", EMNLP 2019.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.entmax_loss([-2.0, 0.0, 0.5], 2).round(8)
    np.float64(0.18437138)
    >>> um.losses.entmax_loss([[-2.0, 0.0, 0.5]] * 3, [0, 1, 2], alpha=2)
    array([2.5625, 0.5625, 0.0625])
    """
    rows = Rows.of(scores, axis, "scores")
    value, gradient, slopes = evaluate(
        _core.entmax_loss,
        rows,
        labels_or_dense(rows, targets, ignore_index),
        per_row(alpha, rows, "alpha"),
        bool(alpha_grad),
        where=where,
        weights=weights,
        ignore=index_of(ignore_index),
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )
    if not alpha_grad:
        return (value, gradient) if value_and_grad else value
    slopes = in_type(slopes.reshape(rows.batch), rows)
    return (value, gradient, slopes) if value_and_grad else (value, slopes)


@overload
def normmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    alpha: ArrayLike = ...,
    *,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def normmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    alpha: ArrayLike = ...,
    *,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def normmax_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    alpha: ArrayLike = 2.0,
    *,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the Fenchel-Young loss of normmax.

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    targets : array_like
        Integers in the shape of `scores` without `axis`: the index of the right score in each row. Or numbers in the
        shape of `scores`: probabilities, which add up to 1 in each row, or to within 0.01 of it.
    alpha : float or array_like, default 2.0
        The exponent of the norm, above 1 and finite. Or one for each row, broadcast to the shape of `scores` without
        `axis`.
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
        The loss of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have 0, and a
        mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to the scores,
        in their shape and type.

    Raises
    ------
    ValueError
        If `alpha` is not above 1 and finite; a target is out of range; a weight is negative or not finite;
        `reduction` is unknown; `axis` is empty or does not exist; if `scores` is a scalar; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, labels are not integers, or `where` is not boolean.

    See Also
    --------
    entmax_loss, unitmass.normmax

    Notes
    -----
    A Fenchel-Young loss [1]_: :math:`L = \Omega^*(x) + \Omega(y) - \langle x, y \rangle`, never negative, with the
    gradient :math:`p - y`, where p is the `normmax` of the scores and :math:`\Omega(p) = \lVert p \rVert_\alpha -
    1`: the largest score shares its mass evenly with those that come close, the more evenly the larger alpha is.
    The loss is exactly 0 once the right score is 1 above the others.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf stand for the impossible: they take no
    part, and a target on one of them makes the loss +inf.

    References
    ----------
    .. [1] M. Blondel, A. Martins and V. Niculae, "Learning with Fenchel-Young losses", JMLR 21 (2020).

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.normmax_loss([[-2.0, 0.0, 0.5]] * 3, [0, 1, 2]).round(4)
    array([2.5886, 0.5886, 0.0886])
    """
    rows = Rows.of(scores, axis, "scores")
    return loss(
        _core.normmax_loss,
        rows,
        labels_or_dense(rows, targets, ignore_index),
        per_row(alpha, rows, "alpha"),
        where=where,
        weights=weights,
        ignore=index_of(ignore_index),
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )


@overload
def topk_cross_entropy(
    scores: ArrayLike,
    targets: ArrayLike,
    k: int,
    *,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def topk_cross_entropy(
    scores: ArrayLike,
    targets: ArrayLike,
    k: int,
    *,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def topk_cross_entropy(
    scores: ArrayLike,
    targets: ArrayLike,
    k: int,
    *,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the cross entropy over the largest scores.

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    targets : array_like
        Integers in the shape of `scores` without `axis`: the index of the right score in each row. Or numbers in the
        shape of `scores`: probabilities, which add up to 1 in each row, or to within 0.01 of it.
    k : int
        How many scores are summed, at least 1.
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
        The loss of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have 0, and a
        mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to the scores,
        in their shape and type.

    Raises
    ------
    ValueError
        If `k` is below 1; a target is out of range; a weight is negative or not finite; `reduction` is unknown;
        `axis` is empty or does not exist; if `scores` is a scalar; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, labels are not integers, or `where` is not boolean.

    See Also
    --------
    cross_entropy, unitmass.topk_softmax

    Notes
    -----
    :math:`L = \log \sum_{j \in K} e^{x_j} - \langle y, x \rangle`, where K holds the k largest scores; of equal
    ones the first. The gradient is :math:`p - y`, where p is the softmax over K and 0 elsewhere [1]_. Scores that
    are neither among the k largest nor targets are let alone, so a long tail of wrong classes costs nothing.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf stand for the impossible: they take no
    part, and a target on one of them makes the loss +inf.

    References
    ----------
    .. [1] S. Sun et al., "Sparse-softmax: a simpler and faster alternative softmax transformation" (2021),
       arXiv:2112.12433.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.topk_cross_entropy([-2.0, 0.0, 0.5], 2, k=2).round(6)
    np.float64(0.474077)
    """
    rows = Rows.of(scores, axis, "scores")
    return loss(
        _core.topk_cross_entropy,
        rows,
        labels_or_dense(rows, targets, ignore_index),
        whole_number(k, "k", 1),
        where=where,
        weights=weights,
        ignore=index_of(ignore_index),
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )


@overload
def am_softmax(
    scores: ArrayLike,
    targets: ArrayLike,
    margin: float = ...,
    scale: float = ...,
    *,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def am_softmax(
    scores: ArrayLike,
    targets: ArrayLike,
    margin: float = ...,
    scale: float = ...,
    *,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def am_softmax(
    scores: ArrayLike,
    targets: ArrayLike,
    margin: float = 0.35,
    scale: float = 30.0,
    *,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the cross entropy of cosines with an additive margin (CosFace).

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Cosines of the angles to the n classes along `axis`. float16, float32, float64 and bfloat16 keep their type;
        integers and booleans become float64.
    targets : array_like of int, shape of `scores` without `axis`
        The index of the right score in each row.
    margin : float, default 0.35
        What is taken off the cosine of the right class; finite.
    scale : float, default 30.0
        Multiplies the cosines; finite and positive.
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
        The loss of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have 0, and a
        mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to the scores,
        in their shape and type.

    Raises
    ------
    ValueError
        If `margin` is not finite; `scale` is not finite and positive; a target is out of range; a weight is
        negative or not finite; `reduction` is unknown; `axis` is empty or does not exist; if `scores` is a scalar;
        if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, labels are not integers, or `where` is not boolean.

    See Also
    --------
    arcface, sphereface, cross_entropy

    Notes
    -----
    The cross entropy of :math:`s z`, where z are the cosines but for that of the right class, which becomes
    :math:`\cos\theta_y - m` [1]_ [2]_.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf stand for the impossible: they take no
    part, and a target on one of them makes the loss +inf.

    References
    ----------
    .. [1] F. Wang, J. Cheng, W. Liu and H. Liu, "Additive margin softmax for face verification", IEEE Signal Process.
       Lett. 25 (2018).
    .. [2] H. Wang et al., "CosFace: large margin cosine loss for deep face recognition", CVPR 2018.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.am_softmax([0.2, 0.9, 0.4], 1).round(6)
    np.float64(0.011075)
    """
    rows = Rows.of(scores, axis, "scores")
    return loss(
        _core.margin_softmax,
        rows,
        labels_like(targets, rows.batch, "targets"),
        "additive",
        number(margin, "margin"),
        number(scale, "scale"),
        where=where,
        weights=weights,
        ignore=index_of(ignore_index),
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )


@overload
def arcface(
    scores: ArrayLike,
    targets: ArrayLike,
    margin: float = ...,
    scale: float = ...,
    *,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def arcface(
    scores: ArrayLike,
    targets: ArrayLike,
    margin: float = ...,
    scale: float = ...,
    *,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def arcface(
    scores: ArrayLike,
    targets: ArrayLike,
    margin: float = 0.5,
    scale: float = 64.0,
    *,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the cross entropy of cosines with an additive margin of the angle (ArcFace).

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Cosines of the angles to the n classes along `axis`. float16, float32, float64 and bfloat16 keep their type;
        integers and booleans become float64.
    targets : array_like of int, shape of `scores` without `axis`
        The index of the right score in each row.
    margin : float, default 0.5
        What is added to the angle of the right class, in radians; from 0 to pi/2.
    scale : float, default 64.0
        Multiplies the cosines; finite and positive.
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
        The loss of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have 0, and a
        mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to the scores,
        in their shape and type.

    Raises
    ------
    ValueError
        If `margin` is not from 0 to pi/2; `scale` is not finite and positive; a target is out of range; a weight is
        negative or not finite; `reduction` is unknown; `axis` is empty or does not exist; if `scores` is a scalar;
        if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, labels are not integers, or `where` is not boolean.

    See Also
    --------
    am_softmax, sphereface, cross_entropy

    Notes
    -----
    The cross entropy of :math:`s z`, where z are the cosines but for that of the right class, which becomes
    :math:`\cos(\theta_y + m)` [1]_, or :math:`\cos\theta_y - m \sin m` where the sum is above :math:`\pi` and the
    cosine would rise again. A target's cosine beyond 1 or -1, as rounding makes it, counts as 1 or -1; the derivative
    of the angle, which grows without end there, is taken to be at most 1024.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf stand for the impossible: they take no
    part, and a target on one of them makes the loss +inf.

    References
    ----------
    .. [1] J. Deng, J. Guo, N. Xue and S. Zafeiriou, "ArcFace: additive angular margin loss for deep face recognition",
       CVPR 2019.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.arcface([0.2, 0.7, 0.4], 1).round(6)
    np.float64(8.196792)
    """
    rows = Rows.of(scores, axis, "scores")
    return loss(
        _core.margin_softmax,
        rows,
        labels_like(targets, rows.batch, "targets"),
        "angular",
        number(margin, "margin"),
        number(scale, "scale"),
        where=where,
        weights=weights,
        ignore=index_of(ignore_index),
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )


@overload
def sphereface(
    scores: ArrayLike,
    targets: ArrayLike,
    margin: int = ...,
    scale: float = ...,
    *,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def sphereface(
    scores: ArrayLike,
    targets: ArrayLike,
    margin: int = ...,
    scale: float = ...,
    *,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def sphereface(
    scores: ArrayLike,
    targets: ArrayLike,
    margin: int = 4,
    scale: float = 30.0,
    *,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the cross entropy of cosines with a multiple of the angle (SphereFace).

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Cosines of the angles to the n classes along `axis`. float16, float32, float64 and bfloat16 keep their type;
        integers and booleans become float64.
    targets : array_like of int, shape of `scores` without `axis`
        The index of the right score in each row.
    margin : int, default 4
        What the angle of the right class is multiplied by, from 1 to 64.
    scale : float, default 30.0
        Multiplies the cosines; finite and positive.
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
        The loss of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have 0, and a
        mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to the scores,
        in their shape and type.

    Raises
    ------
    ValueError
        If `margin` is not from 1 to 64; `scale` is not finite and positive; a target is out of range; a weight is
        negative or not finite; `reduction` is unknown; `axis` is empty or does not exist; if `scores` is a scalar;
        if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, labels are not integers, or `where` is not boolean.

    See Also
    --------
    am_softmax, arcface, cross_entropy

    Notes
    -----
    The cross entropy of :math:`s z`, where z are the cosines but for that of the right class, which becomes
    :math:`(-1)^k \cos(m\theta_y) - 2k`, which falls with the angle all the way, :math:`k = \lfloor m \theta_y / \pi
    \rfloor` [1]_. A target's cosine beyond 1 or -1, as rounding makes it, counts as 1 or -1.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf stand for the impossible: they take no
    part, and a target on one of them makes the loss +inf.

    References
    ----------
    .. [1] W. Liu et al., "SphereFace: deep hypersphere embedding for face recognition", CVPR 2017.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.sphereface([0.2, 0.9, 0.4], 1).round(6)
    np.float64(18.938476)
    """
    rows = Rows.of(scores, axis, "scores")
    return loss(
        _core.margin_softmax,
        rows,
        labels_like(targets, rows.batch, "targets"),
        "sphere",
        float(whole_number(margin, "margin", 1)),
        number(scale, "scale"),
        where=where,
        weights=weights,
        ignore=index_of(ignore_index),
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )


@overload
def exact_accuracy_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    temperature: float = ...,
    *,
    margin: float | None = ...,
    normalize: bool = ...,
    value_and_grad: Literal[False] = ...,
    **options: Unpack[Options],
) -> Array: ...
@overload
def exact_accuracy_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    temperature: float = ...,
    *,
    margin: float | None = ...,
    normalize: bool = ...,
    value_and_grad: Literal[True],
    **options: Unpack[Options],
) -> tuple[Array, Array]: ...
def exact_accuracy_loss(
    scores: ArrayLike,
    targets: ArrayLike,
    temperature: float = 1.0,
    *,
    margin: float | None = None,
    normalize: bool = False,
    axis: int = -1,
    reduction: Reduction = "none",
    weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    value_and_grad: bool = False,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> Array | tuple[Array, Array]:
    r"""Compute the expected accuracy under normal noise, with the sign of a loss (EXACT).

    Parameters
    ----------
    scores : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    targets : array_like of int, shape of `scores` without `axis`
        The index of the right score in each row.
    temperature : float, default 1.0
        The standard deviation of the noise; finite and positive.
    margin : float, optional
        Count a lead of the right score over another beyond this as this, so that those beaten by far get no gradient;
        finite and at least 0.
    normalize : bool, default False
        Subtract the mean of each row first, and divide by its standard deviation.
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
        The loss of each row in the type of the scores, or a scalar by `reduction`. Rows that take no part have 0, and a
        mean over none is NaN. With ``value_and_grad=True`` a tuple of this and its gradient with respect to the scores,
        in their shape and type.

    Raises
    ------
    ValueError
        If `temperature` is not finite and positive, or `margin` not finite and at least 0; a target is out of range; a
        weight is negative or not finite; `reduction` is unknown; `axis` is empty or does not exist; if `scores` is a
        scalar; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, labels are not integers, or `where` is not boolean.

    See Also
    --------
    smooth_accuracy, cross_entropy, unitmass.noisy_argmax

    Notes
    -----
    :math:`L = -P(\operatorname{argmax}_i (x_i + \sigma \varepsilon_i) = y)` for independent standard normal
    :math:`\varepsilon` [1]_, which is between -1 and 0: minus its mean is the accuracy that is expected of the
    scores under noise. It is one integral, :math:`\int \varphi(u) \prod_{j \ne y} \Phi(u + \min(x_y - x_j, m) /
    \sigma)\, du`, computed without sampling, as is the gradient.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf stand for the impossible: they take no
    part, and a target on one of them is never right.

    References
    ----------
    .. [1] I. Karpukhin, S. Dereka and S. Kolesnikov, "EXACT: how to train your accuracy", Pattern Recognit. Lett. 185
       (2024), arXiv:2205.09615.

    Examples
    --------
    >>> import unitmass as um
    >>> um.losses.exact_accuracy_loss([[0.0, 0.125]], [1], temperature=0.05).round(6)
    array([-0.96145])
    """
    rows = Rows.of(scores, axis, "scores")
    return loss(
        _core.exact_accuracy_loss,
        rows,
        labels_like(targets, rows.batch, "targets"),
        number(temperature, "temperature"),
        None if margin is None else number(margin, "margin"),
        bool(normalize),
        where=where,
        weights=weights,
        ignore=index_of(ignore_index),
        reduction=reduction,
        value_and_grad=value_and_grad,
        workers=workers,
    )
