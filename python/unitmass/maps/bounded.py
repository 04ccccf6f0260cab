"""Maps with an upper bound on every entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unitmass import _core
from unitmass._arrays import Array, Rows, map_pair, map_scores, number, pair, per_row, real_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "budget",
    "budget_vjp",
    "capped_simplex",
    "capped_simplex_vjp",
    "csoftmax",
    "csoftmax_vjp",
    "csparsemax",
    "csparsemax_vjp",
]


def capped_simplex(
    x: ArrayLike,
    /,
    upper: ArrayLike,
    total: ArrayLike = 1.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Project scores onto the simplex with an upper bound on every entry.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    upper : float or array_like
        The most that an entry can get, at least 0; +inf is no bound. Broadcast to the shape of `x`.
    total : float or array_like, default 1.0
        The sum, finite and positive in the type of the result, and such that the computation can add up a row: not
        subnormal, and at most the largest number over 4 n. Or one for each row, broadcast to the shape of `x` without
        `axis`.
    axis : int, default -1
        The axis of the scores.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `x`. Excluded ones get 0, also in a row
        without any others.
    out : ndarray, optional
        Where to put the result; shape of `x`, and a type that its type casts to. May be `x` itself.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        Parts of `total`, none above its bound.

    Raises
    ------
    ValueError
        If `upper` is negative or NaN, the bounds of a row cannot hold its sum, or `total` is out of its range; `axis`
        is empty or does not exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    project_simplex, csparsemax, budget, capped_simplex_vjp

    Notes
    -----
    :math:`\operatorname{argmin}_{0 \le p \le u, \sum p = s} \lVert p - x \rVert^2 = \min([x - \tau]_+, u)`. The
    threshold is solved to the last place of the sum. Of two scores with the same bound the larger never gets the
    smaller part, and adding a constant to the scores changes nothing but their own rounding.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0. A row becomes NaN if what
    is left of it, without those and the excluded ones, cannot hold `total` within the bounds. Scores of +inf get as
    much as their bounds allow, in equal parts where these do not bind, and the others get the rest.

    Examples
    --------
    >>> import unitmass as um
    >>> um.capped_simplex([0.5, 2.0, 1.0], 0.75)
    array([0.  , 0.75, 0.25])
    >>> um.capped_simplex([0.5, 2.0, 1.0], [1.0, 0.25, 0.5], total=1.5)
    array([0.75, 0.25, 0.5 ])
    """
    scores, bound = _bounded(x, upper, axis, out)
    return map_scores(
        _core.capped_simplex, scores, axis, total, bound, 1.0, name="total", where=where, out=out, workers=workers
    )


def csparsemax(
    x: ArrayLike,
    /,
    upper: ArrayLike,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Map scores to sparse probabilities with an upper bound on each: constrained sparsemax.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    upper : float or array_like
        The most that an entry can get, at least 0; +inf is no bound. Broadcast to the shape of `x`.
    temperature : float, default 1.0
        Divides the scores; finite and positive, and at most the largest number of the computation over 4 n.
    axis : int, default -1
        The axis of the scores.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `x`. Excluded ones get 0, also in a row
        without any others.
    out : ndarray, optional
        Where to put the result; shape of `x`, and a type that its type casts to. May be `x` itself.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        Probabilities, none above its bound, exactly 0 off the support.

    Raises
    ------
    ValueError
        If `upper` is negative or NaN, the bounds of a row cannot hold its sum, or `temperature` is out of its
        range; `axis` is empty or does not exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    sparsemax, csoftmax, capped_simplex, csparsemax_vjp

    Notes
    -----
    :math:`p = \min([x / T - \tau]_+, u)` with :math:`\sum p = 1` [1]_: `capped_simplex` with total 1. Sums are within 4
    ulp of 1. Of two scores with the same bound the larger never gets the smaller probability, and adding a constant to
    the scores changes nothing but their own rounding.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0. A row becomes NaN if what
    is left of it, without those and the excluded ones, cannot hold a sum of 1 within the bounds. Scores of +inf get as
    much as their bounds allow, in equal parts where these do not bind, and the others get the rest.

    References
    ----------
    .. [1] C. Malaviya, P. Ferreira and A. Martins, "Sparse and constrained attention for neural machine translation",
       ACL 2018.

    Examples
    --------
    >>> import unitmass as um
    >>> um.csparsemax([-2.0, 0.0, 0.5], 0.5)
    array([0. , 0.5, 0.5])
    """
    scores, bound = _bounded(x, upper, axis, out)
    t = number(temperature, "temperature")
    return map_scores(
        _core.capped_simplex, scores, axis, 1.0, bound, t, name="total", where=where, out=out, workers=workers
    )


def csoftmax(
    x: ArrayLike,
    /,
    upper: ArrayLike,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Map scores to probabilities with an upper bound on each: constrained softmax.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    upper : float or array_like
        The most that an entry can get, at least 0; +inf is no bound. Broadcast to the shape of `x`.
    temperature : float, default 1.0
        Divides the scores; finite and positive.
    axis : int, default -1
        The axis of the scores.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `x`. Excluded ones get 0, also in a row
        without any others.
    out : ndarray, optional
        Where to put the result; shape of `x`, and a type that its type casts to. May be `x` itself.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        Probabilities, none above its bound.

    Raises
    ------
    ValueError
        If `upper` is negative or NaN, the bounds of a row cannot hold its sum, or `temperature` is not finite and
        positive; `axis` is empty or does not exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    softmax, csparsemax, csoftmax_vjp

    Notes
    -----
    :math:`p_i = \min(u_i, \exp(x_i / T) / Z)` with Z such that :math:`\sum p = 1` [1]_: of all distributions within the
    bounds the one nearest to softmax in the sense of Kullback and Leibler. Sums are within 4 ulp of 1. Of two scores
    with the same bound the larger never gets the smaller probability, and adding a constant to the scores changes
    nothing but their own rounding.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0. A row becomes NaN if what
    is left of it, without those and the excluded ones, cannot hold a sum of 1 within the bounds. Scores of +inf get as
    much as their bounds allow, in equal parts where these do not bind, and the others get the rest.

    References
    ----------
    .. [1] A. Martins and J. Kreutzer, "Learning what's easy: fully differentiable neural easy-first taggers",
       EMNLP 2017.

    Examples
    --------
    >>> import unitmass as um
    >>> um.csoftmax([-2.0, 0.0, 0.5], 0.5).round(4)  # the rest in the ratio of softmax
    array([0.0596, 0.4404, 0.5   ])
    """
    scores, bound = _bounded(x, upper, axis, out)
    t = number(temperature, "temperature")
    return map_scores(_core.csoftmax, scores, axis, t, bound, name="temperature", where=where, out=out, workers=workers)


def budget(
    x: ArrayLike,
    /,
    k: ArrayLike,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Map scores to the shares of a budget of k whole entries: k-subsets, relaxed.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    k : float or array_like
        The sum, positive and at most n, not necessarily whole; or one for each row, broadcast to the shape of `x`
        without `axis`.
    temperature : float, default 1.0
        Divides the scores; finite and positive, and `k` times it at most the largest number of the computation over
        4 n.
    axis : int, default -1
        The axis of the scores.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `x`. Excluded ones get 0, also in a row
        without any others.
    out : ndarray, optional
        Where to put the result; shape of `x`, and a type that its type casts to. May be `x` itself.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        Entries from 0 to 1 with sum k.

    Raises
    ------
    ValueError
        If `k` is not positive or more than n, or `temperature` is out of its range; `axis` is empty or does not exist;
        if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    capped_simplex, topk_softmax, budget_vjp

    Notes
    -----
    :math:`\operatorname{argmin}_{0 \le p \le 1, \sum p = k} \lVert p - x / T \rVert^2 = \min([x / T - \tau]_+, 1)`, the
    point of the hypersimplex that lies nearest to the scores [1]_. Sums are within 4 ulp of k, a larger score never
    gets a smaller share, and adding a constant to the scores changes nothing but their own rounding. As the temperature
    falls, the k largest scores get 1.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0. A row becomes NaN if what
    is left of it, without those and the excluded ones, cannot hold `k` within the bounds. Scores of +inf get 1 each, or
    equal shares if there are more than k of them, and the others get the rest.

    References
    ----------
    .. [1] M. Blondel, "Structured prediction with projection oracles", NeurIPS 2019.

    Examples
    --------
    >>> import unitmass as um
    >>> um.budget([-2.0, 0.0, 0.5], 2)
    array([0., 1., 1.])
    >>> um.budget([0.0, 0.25, 0.5, 2.0], 2)
    array([0.0833, 0.3333, 0.5833, 1.    ])
    """
    rows = Rows.of(x, axis, "x")
    n, sums = rows.values.shape[rows.axis], np.atleast_1d(per_row(k, rows, "k"))
    possible = (sums > 0) & np.isfinite(sums)
    if not possible.all():
        raise ValueError(f"k: must be finite and positive, found {sums[~possible][0]}")
    if rows.values.size and sums.max() > n:  # as with the bounds, rows that are not there hold any sum
        raise ValueError(f"k: must be at most {n}, the number of scores, found {sums.max()}")
    t = number(temperature, "temperature")
    return map_scores(_core.capped_simplex, rows, axis, k, 1.0, t, name="k", where=where, out=out, workers=workers)


def _bounded(x: ArrayLike, upper: Any, axis: int, out: Array | None) -> tuple[ArrayLike | Rows, float | Array]:
    """Take the scores, as rows only if the bounds must be fitted to them, and the bounds."""
    if isinstance(upper, (float, int)):
        return x, number(upper, "upper")
    rows = Rows.of(x, axis, "x")
    bound = _bound(upper, rows, "x")
    if out is not None and isinstance(bound, np.ndarray) and np.may_share_memory(bound, out):
        bound = bound.copy()
    return rows, bound


def _bound(upper: Any, rows: Rows, of: str) -> float | Array:
    """Take bounds as the kernels do: one, n that are the same for every row, or n for each, the axis moved last."""
    if isinstance(upper, (float, int)):
        return number(upper, "upper")
    values = real_numbers(upper, "upper")
    if values.ndim == 0:
        return float(values)
    shape, axis = rows.values.shape, rows.axis
    try:
        each = np.broadcast_to(values, shape)
    except ValueError:
        raise ValueError(f"upper: shape {values.shape} does not broadcast to the shape {shape} of {of}") from None
    lengths = (1,) * (len(shape) - values.ndim) + values.shape
    if all(length == 1 for i, length in enumerate(lengths) if i != axis):
        each = np.broadcast_to(values.reshape(-1), shape[axis])
    else:
        each = np.moveaxis(each, axis, -1)
    with np.errstate(over="ignore"):  # to +inf, which is no bound either
        return np.ascontiguousarray(each, _computed(rows)).reshape(-1)


def _stored(upper: Any, rows: Rows) -> float | Array:
    """Take bounds as an entry that has reached them is stored: in bfloat16, of which the kernel does not know."""
    with np.errstate(over="ignore"):
        stored = np.asarray(_bound(upper, rows, "p")).astype(rows.dtype).astype(_computed(rows))
    return stored if stored.ndim else float(stored)


def _computed(rows: Rows) -> np.dtype[Any]:
    return np.dtype(np.float32) if rows.values.dtype == np.float16 else rows.values.dtype


def capped_simplex_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    upper: ArrayLike,
    *,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `capped_simplex`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `capped_simplex`.
    g : array_like, shape of `p`
        Gradient with respect to the projection; taken in the type of `p`.
    upper : float or array_like
        The one of the forward call.
    axis : int, default -1
        The axis of the scores.
    out : ndarray, optional
        Where to put the result; shape of `p`. May be `p` or `g`.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `p`
        Gradient with respect to the scores.

    Raises
    ------
    ValueError
        If `upper` is negative or NaN; `axis` is empty or does not exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    capped_simplex

    Notes
    -----
    :math:`J = \operatorname{diag}(w) - w w^T / \sum w`, w = 1 strictly inside the bounds and 0 on them. The
    Jacobian is symmetric. Where a score ties with a bound, its entry counts as on it: one element of the generalised
    Jacobian.

    Examples
    --------
    >>> import unitmass as um
    >>> um.capped_simplex_vjp([0.0, 0.75, 0.5, 0.25], [1.0, 2.0, 3.0, 5.0], 0.75)
    array([ 0.,  0., -1.,  1.])
    """
    return csparsemax_vjp(p, g, upper, axis=axis, out=out, workers=workers)


def csparsemax_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    upper: ArrayLike,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `csparsemax`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `csparsemax`.
    g : array_like, shape of `p`
        Gradient with respect to the probabilities; taken in the type of `p`.
    upper : float or array_like
        The one of the forward call.
    temperature : float, default 1.0
        The one that the scores were divided by.
    axis : int, default -1
        The axis of the scores.
    out : ndarray, optional
        Where to put the result; shape of `p`. May be `p` or `g`.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `p`
        Gradient with respect to the scores.

    Raises
    ------
    ValueError
        If `upper` is negative or NaN, or `temperature` is not finite and positive; `axis` is empty or does not exist;
        if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    csparsemax

    Notes
    -----
    :math:`J = (\operatorname{diag}(w) - w w^T / \sum w) / T`, w = 1 strictly inside the bounds and 0 on them. The
    Jacobian is symmetric. Where a score ties with a bound, its entry counts as on it: one element of the generalised
    Jacobian.

    Examples
    --------
    >>> import unitmass as um
    >>> um.csparsemax_vjp([0.0, 0.5, 0.125, 0.375], [1.0, 2.0, 3.0, 5.0], 0.5)
    array([ 0.,  0., -1.,  1.])
    """
    rows, vector = pair(p, g, axis)
    bound, t = _stored(upper, rows), number(temperature, "temperature")
    return map_pair(_core.capped_simplex_vjp, rows, vector, bound, t, shape=rows.values.shape, out=out, workers=workers)


def csoftmax_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    upper: ArrayLike,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `csoftmax`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `csoftmax`.
    g : array_like, shape of `p`
        Gradient with respect to the probabilities; taken in the type of `p`.
    upper : float or array_like
        The one of the forward call.
    temperature : float, default 1.0
        The one that the scores were divided by.
    axis : int, default -1
        The axis of the scores.
    out : ndarray, optional
        Where to put the result; shape of `p`. May be `p` or `g`.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `p`
        Gradient with respect to the scores.

    Raises
    ------
    ValueError
        If `upper` is negative or NaN, or `temperature` is not finite and positive; `axis` is empty or does not exist;
        if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    csoftmax

    Notes
    -----
    :math:`J = (\operatorname{diag}(w) - w w^T / \sum w) / T`, w = p below the bounds and 0 on them. The Jacobian is
    symmetric. Where a score ties with its bound, its entry counts as on it: one element of the generalised Jacobian.

    Examples
    --------
    >>> import unitmass as um
    >>> um.csoftmax_vjp(um.csoftmax([0.0, 0.0, 3.0], 0.5), [1.0, 0.0, 7.0], 0.5)
    array([ 0.125, -0.125,  0.   ])
    """
    rows, vector = pair(p, g, axis)
    bound, t = _stored(upper, rows), number(temperature, "temperature")
    return map_pair(_core.csoftmax_vjp, rows, vector, bound, t, shape=rows.values.shape, out=out, workers=workers)


def budget_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `budget`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `budget`.
    g : array_like, shape of `p`
        Gradient with respect to the probabilities; taken in the type of `p`.
    temperature : float, default 1.0
        The one that the scores were divided by.
    axis : int, default -1
        The axis of the scores.
    out : ndarray, optional
        Where to put the result; shape of `p`. May be `p` or `g`.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `p`
        Gradient with respect to the scores.

    Raises
    ------
    ValueError
        If `temperature` is not finite and positive; `axis` is empty or does not exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    budget

    Notes
    -----
    :math:`J = (\operatorname{diag}(w) - w w^T / \sum w) / T`, w = 1 strictly between 0 and 1 and 0 there. The
    Jacobian is symmetric. Where a score ties with a bound, its entry counts as on it: one element of the generalised
    Jacobian.

    Examples
    --------
    >>> import unitmass as um
    >>> um.budget_vjp([0.0, 1.0, 0.25, 0.75], [1.0, 2.0, 3.0, 5.0])
    array([ 0.,  0., -1.,  1.])
    """
    return csparsemax_vjp(p, g, 1.0, temperature=temperature, axis=axis, out=out, workers=workers)
