"""Entmax and its relatives: scores above a threshold keep probability, the others have none."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np

from unitmass import _core
from unitmass._arrays import Array, Rows, Triple, map_pair, map_scores, mask_like, number, pair, per_row
from unitmass._workers import resolve

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Index = TypeVar("Index", bound=np.integer[Any])

__all__ = [
    "entmax",
    "entmax_alpha_grad",
    "entmax_vjp",
    "project_simplex",
    "project_simplex_vjp",
    "sparsegen",
    "sparsegen_vjp",
    "sparsemax",
    "sparsemax_vjp",
    "threshold",
]


@overload
def project_simplex(
    x: ArrayLike,
    /,
    total: ArrayLike = ...,
    *,
    axis: int = ...,
    where: ArrayLike | None = ...,
    out: Array | None = ...,
    workers: int | None = ...,
    sparse: Literal[False] = ...,
) -> Array: ...
@overload
def project_simplex(
    x: ArrayLike,
    /,
    total: ArrayLike = ...,
    *,
    axis: int = ...,
    where: ArrayLike | None = ...,
    out: None = ...,
    workers: int | None = ...,
    sparse: Literal[True],
) -> Triple: ...
def project_simplex(
    x: ArrayLike,
    /,
    total: ArrayLike = 1.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
    sparse: bool = False,
) -> Array | Triple:
    r"""Project scores onto the simplex: the nearest vector that is not negative and has a given sum.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
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
    sparse : bool, default False
        Return a CSR triple in place of an array.

    Returns
    -------
    ndarray, shape of `x`
        Probabilities, or parts of `total`, exactly 0 off the support. With ``sparse=True`` a tuple ``(data, indices,
        indptr)`` that ``scipy.sparse.csr_array`` takes as it is: a row for each row of the batch in C order, n columns.

    Raises
    ------
    ValueError
        If `total` is out of its range; `axis` is empty or does not exist; if `x` is a scalar; if a shape does
        not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    sparsemax, project_simplex_vjp, threshold

    Notes
    -----
    :math:`\operatorname{argmin}_{p \ge 0, \sum p = s} \lVert p - x \rVert^2 = [x - \tau]_+`. The threshold is solved to
    the last place of the sum [1]_. A larger score never gets a smaller part.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0; a row of nothing else
    becomes NaN. Scores of +inf share the mass equally and the others get exactly 0.

    References
    ----------
    .. [1] C. Michelot, "A finite algorithm for finding the projection of a point onto the canonical simplex of R^n",
       J. Optim. Theory Appl. 50 (1986).

    Examples
    --------
    >>> import unitmass as um
    >>> um.project_simplex([0.5, 2.0, 1.0], 2.0)
    array([0. , 1.5, 0.5])
    """
    if sparse:
        return _sparse(
            _core.project_simplex_sparse, x, axis, total, name="total", where=where, out=out, workers=workers
        )
    return map_scores(_core.project_simplex, x, axis, total, name="total", where=where, out=out, workers=workers)


@overload
def sparsemax(
    x: ArrayLike,
    /,
    temperature: float = ...,
    *,
    axis: int = ...,
    where: ArrayLike | None = ...,
    out: Array | None = ...,
    workers: int | None = ...,
    sparse: Literal[False] = ...,
) -> Array: ...
@overload
def sparsemax(
    x: ArrayLike,
    /,
    temperature: float = ...,
    *,
    axis: int = ...,
    where: ArrayLike | None = ...,
    out: None = ...,
    workers: int | None = ...,
    sparse: Literal[True],
) -> Triple: ...
def sparsemax(
    x: ArrayLike,
    /,
    temperature: float = 1.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
    sparse: bool = False,
) -> Array | Triple:
    r"""Map scores to sparse probabilities by the projection onto the probability simplex.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
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
    sparse : bool, default False
        Return a CSR triple in place of an array.

    Returns
    -------
    ndarray, shape of `x`
        Probabilities, exactly 0 off the support. With ``sparse=True`` a tuple ``(data, indices, indptr)`` that
        ``scipy.sparse.csr_array`` takes as it is: a row for each row of the batch in C order, n columns.

    Raises
    ------
    ValueError
        If `temperature` is not finite and positive; `axis` is empty or does not exist; if `x` is a scalar; if a shape
        does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    project_simplex, entmax, sparsemax_vjp, threshold

    Notes
    -----
    :math:`p = [x / T - \tau]_+` with :math:`\sum p = 1` [1]_: `entmax` with alpha 2, and at temperature 1
    `project_simplex` with total 1.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0; a row of nothing else
    becomes NaN. Scores of +inf share the mass equally and the others get exactly 0.

    References
    ----------
    .. [1] A. Martins and R. Astudillo, "From softmax to sparsemax", ICML 2016.

    Examples
    --------
    >>> import unitmass as um
    >>> um.sparsemax([-2.0, 0.0, 0.5])
    array([0.  , 0.25, 0.75])
    >>> data, indices, indptr = um.sparsemax([[-2.0, 0.0, 0.5], [9.0, 0.0, 0.0]], sparse=True)
    >>> data, indices, indptr
    (array([0.25, 0.75, 1.  ]), array([1, 2, 0], dtype=int32), array([0, 2, 3], dtype=int32))
    """
    t = number(temperature, "temperature")
    if sparse:
        return _sparse(_core.entmax_sparse, x, axis, 2.0, None, t, name="alpha", where=where, out=out, workers=workers)
    return map_scores(_core.entmax, x, axis, 2.0, None, t, name="alpha", where=where, out=out, workers=workers)


def sparsegen(
    x: ArrayLike,
    /,
    lam: float = 0.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Map scores to probabilities as sparse as wanted: sparsemax with a quadratic reward or penalty.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    lam : float, default 0.0
        Less than 1 and finite. Near 1 all goes to the largest score, at 0 it is sparsemax, far below 0 all get
        the same.
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
        Probabilities, exactly 0 off the support.

    Raises
    ------
    ValueError
        If `lam` is not finite and less than 1; `axis` is empty or does not exist; if `x` is a scalar; if a shape does
        not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    sparsemax, sparsegen_vjp

    Notes
    -----
    :math:`\operatorname{argmin}_{p \ge 0, \sum p = 1} \lVert p - x \rVert^2 - \lambda \lVert p \rVert^2`, which is
    sparsegen-lin of [1]_: sparsemax at temperature :math:`1 - \lambda`. Sums are within 4 ulp of 1, a larger score
    never gets a smaller probability, and adding a constant to the scores changes nothing but their own rounding.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0; a row of nothing else
    becomes NaN. Scores of +inf share the mass equally and the others get exactly 0.

    References
    ----------
    .. [1] A. Laha, S. Chemmengath, P. Agrawal, M. Khapra, K. Sankaranarayanan and H. Ramaswamy, "On controllable
       sparse alternatives to softmax", NeurIPS 2018.

    Examples
    --------
    >>> import unitmass as um
    >>> um.sparsegen([-2.0, 0.0, 0.5], 0.25).round(4)
    array([0.    , 0.1667, 0.8333])
    """
    return sparsemax(x, _heat(lam), axis=axis, where=where, out=out, workers=workers)


def _heat(lam: float) -> float:
    """Turn the lambda of sparsegen into a temperature of sparsemax."""
    value = number(lam, "lam")
    if not -math.inf < value < 1.0:
        raise ValueError(f"lam: must be finite and less than 1, found {value}")
    return 1.0 - value


@overload
def entmax(
    x: ArrayLike,
    /,
    alpha: ArrayLike = ...,
    *,
    temperature: float = ...,
    method: Literal["auto", "bisect"] = ...,
    n_iter: int = ...,
    axis: int = ...,
    where: ArrayLike | None = ...,
    out: Array | None = ...,
    workers: int | None = ...,
    sparse: Literal[False] = ...,
) -> Array: ...
@overload
def entmax(
    x: ArrayLike,
    /,
    alpha: ArrayLike = ...,
    *,
    temperature: float = ...,
    method: Literal["auto", "bisect"] = ...,
    n_iter: int = ...,
    axis: int = ...,
    where: ArrayLike | None = ...,
    out: None = ...,
    workers: int | None = ...,
    sparse: Literal[True],
) -> Triple: ...
def entmax(
    x: ArrayLike,
    /,
    alpha: ArrayLike = 1.5,
    *,
    temperature: float = 1.0,
    method: Literal["auto", "bisect"] = "auto",
    n_iter: int = 50,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
    sparse: bool = False,
) -> Array | Triple:
    r"""Map scores to probabilities between softmax (alpha 1) and sparsemax (alpha 2), and beyond.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    alpha : float or array_like, default 1.5
        At least 1 and finite; or one for each row, broadcast to the shape of `x` without `axis`. The larger, the
        sparser: from 1 on every score has a probability, above it only those near the largest.
    temperature : float, default 1.0
        Divides the scores; finite and positive.
    method : {"auto", "bisect"}, default "auto"
        "auto" solves to the last place. "bisect" halves an interval `n_iter` times and divides by the sum, as other
        packages do.
    n_iter : int, default 50
        Halvings of "bisect".
    axis : int, default -1
        The axis of the scores.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `x`. Excluded ones get 0, also in a row
        without any others.
    out : ndarray, optional
        Where to put the result; shape of `x`, and a type that its type casts to. May be `x` itself.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.
    sparse : bool, default False
        Return a CSR triple in place of an array.

    Returns
    -------
    ndarray, shape of `x`
        Probabilities, exactly 0 off the support. With ``sparse=True`` a tuple ``(data, indices, indptr)`` that
        ``scipy.sparse.csr_array`` takes as it is: a row for each row of the batch in C order, n columns.

    Raises
    ------
    ValueError
        If `alpha` is below 1 or not finite, `temperature` is not finite and positive, `method` is unknown, or `n_iter`
        is below 1; `axis` is empty or does not exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    softmax, sparsemax, entmax_vjp, entmax_alpha_grad, threshold

    Notes
    -----
    :math:`p = [(\alpha - 1) x / T - \tau]_+^{1/(\alpha - 1)}` with :math:`\sum p = 1` [1]_. Sums are within 4 ulp of 1,
    a larger score never gets a smaller probability, and adding a constant to the scores changes nothing but their own
    rounding. The result is continuous at alpha 1: also 1 + 1e-12 is computed without loss.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0; a row of nothing else
    becomes NaN. Scores of +inf share the mass equally and the others get exactly 0.

    References
    ----------
    .. [1] B. Peters, V. Niculae and A. Martins, "Sparse sequence-to-sequence models", ACL 2019.

    Examples
    --------
    >>> import unitmass as um
    >>> um.entmax([-2.0, 0.0, 0.5]).round(4)
    array([0.   , 0.326, 0.674])
    >>> um.entmax([[-2.0, 0.0, 0.5], [-2.0, 0.0, 0.5]], alpha=[1.0, 3.0]).round(4)
    array([[0.0486, 0.3592, 0.5922],
           [0.    , 0.    , 1.    ]])
    """
    steps = _bisections(method, n_iter)
    t = number(temperature, "temperature")
    if sparse:
        return _sparse(
            _core.entmax_sparse, x, axis, alpha, steps, t, name="alpha", where=where, out=out, workers=workers
        )
    return map_scores(_core.entmax, x, axis, alpha, steps, t, name="alpha", where=where, out=out, workers=workers)


def _bisections(method: str, n_iter: int) -> int | None:
    if method not in ("auto", "bisect"):
        raise ValueError(f"method: expected 'auto' or 'bisect', found {method!r}")
    try:
        steps = operator.index(n_iter)
    except TypeError:
        raise TypeError(f"n_iter: expected an integer, found {n_iter!r}") from None
    if not 1 <= steps < 2**32:
        raise ValueError(f"n_iter: expected a number from 1 to 4294967295, found {steps}")
    return steps if method == "bisect" else None


def _sparse(
    kernel: Any,
    x: ArrayLike,
    axis: int,
    parameter: Any,
    *options: object,
    name: str,
    where: ArrayLike | None,
    out: Array | None,
    workers: int | None,
) -> Triple:
    """Run a map from scores to a CSR triple; the arguments are those of `map_scores`."""
    if out is not None:
        raise ValueError("out: a sparse result takes none")
    rows = Rows.of(x, axis, "x")
    each = per_row(parameter, rows, name)
    triple = kernel(rows.values, mask_like(rows, where), rows.axis, each, *options, resolve(workers))
    data, columns, starts = triple
    fits = max(data.size, rows.values.shape[rows.axis]) <= np.iinfo(np.int32).max
    index: type[np.signedinteger[Any]] = np.int32 if fits else np.int64
    return rows.finish(data), _converted(columns, index), _converted(starts, index)


def _converted(values: NDArray[np.integer[Any]], dtype: type[Index]) -> NDArray[Index]:
    """Convert in parts, for an interrupt is heard only between them."""
    if values.dtype == dtype:
        return np.ascontiguousarray(values, dtype)
    result = np.empty(values.size, dtype)
    for start in range(0, values.size, _PART):
        result[start : start + _PART] = values[start : start + _PART]
    return result


_PART = 1 << 22


def threshold(
    x: ArrayLike,
    /,
    alpha: ArrayLike = 2.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> tuple[Array, NDArray[np.int64]]:
    r"""Compute the threshold of entmax, and how many scores are above it.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    alpha : float or array_like, default 2.0
        More than 1 and finite; or one for each row, broadcast to the shape of `x` without `axis`.
    axis : int, default -1
        The axis of the scores.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `x`. Excluded ones are never above
        the threshold.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    tau : ndarray, shape of `x` without `axis`
        The threshold in :math:`p = [(\alpha - 1) x - \tau]_+^{1/(\alpha - 1)}`, in the type of p.
    support : ndarray of int64, same shape
        The number of positive probabilities. float16 and bfloat16 are computed in float32 and counted there, so those
        count, too, that round to 0 in the narrow type.

    Raises
    ------
    ValueError
        If `alpha` is not above 1 and finite; `axis` is empty or does not exist; if `x` is a scalar; if a shape does not
        fit.
    TypeError
        If `x` is complex, masked or not numeric, or `where` is not boolean.

    See Also
    --------
    entmax, sparsemax

    Notes
    -----
    Where probabilities are undefined, tau is NaN and the support 0: rows with a NaN, of only -inf, or excluded whole.
    With scores of +inf, tau is +inf and the support is their number.

    Examples
    --------
    >>> import unitmass as um
    >>> tau, support = um.threshold([[-2.0, 0.0, 0.5], [9.0, 0.0, 0.0]])
    >>> tau, support
    (array([-0.25,  8.  ]), array([2, 1]))
    """
    rows = Rows.of(x, axis, "x")
    alphas = per_row(alpha, rows, "alpha")
    tau, support = _core.threshold(rows.values, mask_like(rows, where), rows.axis, alphas, resolve(workers))
    return rows.finish(tau.reshape(rows.batch)), support.reshape(rows.batch)


@overload
def project_simplex_vjp(
    p: Triple,
    g: ArrayLike,
    /,
    *,
    axis: int = ...,
    out: None = ...,
    workers: int | None = ...,
) -> Triple: ...
@overload
def project_simplex_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    *,
    axis: int = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
def project_simplex_vjp(
    p: ArrayLike | Triple,
    g: ArrayLike,
    /,
    *,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array | Triple:
    r"""Multiply a vector with the Jacobian of `project_simplex`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `project_simplex`; or its CSR triple, `g` then being an array of shape (rows, n).
    g : array_like, shape of `p`
        Gradient with respect to the projection; taken in the type of `p`.
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
        For a CSR triple, one with the same indices.

    Raises
    ------
    ValueError
        If `axis` is empty or does not exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    project_simplex

    Notes
    -----
    :math:`J = \operatorname{diag}(w) - w w^T / \sum w`, w = 1 on the support and 0 off it. The Jacobian is symmetric.
    Where a score ties with the threshold, its entry counts as off the support: one element of the generalised Jacobian.

    Examples
    --------
    >>> import unitmass as um
    >>> um.project_simplex_vjp(um.project_simplex([-2.0, 0.0, 0.5]), [1.0, 2.0, 4.0])
    array([ 0., -1.,  1.])
    """
    return entmax_vjp(p, g, 2.0, axis=axis, out=out, workers=workers)


@overload
def sparsemax_vjp(
    p: Triple,
    g: ArrayLike,
    /,
    temperature: float = ...,
    *,
    axis: int = ...,
    out: None = ...,
    workers: int | None = ...,
) -> Triple: ...
@overload
def sparsemax_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    temperature: float = ...,
    *,
    axis: int = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
def sparsemax_vjp(
    p: ArrayLike | Triple,
    g: ArrayLike,
    /,
    temperature: float = 1.0,
    *,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array | Triple:
    r"""Multiply a vector with the Jacobian of `sparsemax`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `sparsemax`; or its CSR triple, `g` then being an array of shape (rows, n).
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
        For a CSR triple, one with the same indices.

    Raises
    ------
    ValueError
        If `temperature` is not finite and positive; `axis` is empty or does not exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    sparsemax

    Notes
    -----
    :math:`J = (\operatorname{diag}(w) - w w^T / \sum w) / T`, w = 1 on the support and 0 off it. The Jacobian is
    symmetric. Where a score ties with the threshold, its entry counts as off the support: one element of the
    generalised Jacobian.

    Examples
    --------
    >>> import unitmass as um
    >>> um.sparsemax_vjp(um.sparsemax([-2.0, 0.0, 0.5]), [1.0, 2.0, 4.0])
    array([ 0., -1.,  1.])
    """
    return entmax_vjp(p, g, 2.0, temperature=temperature, axis=axis, out=out, workers=workers)


def sparsegen_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    lam: float = 0.0,
    *,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `sparsegen`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `sparsegen`.
    g : array_like, shape of `p`
        Gradient with respect to the probabilities; taken in the type of `p`.
    lam : float, default 0.0
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
        If `lam` is not finite and less than 1; `axis` is empty or does not exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    sparsegen

    Notes
    -----
    :math:`J = (\operatorname{diag}(w) - w w^T / \sum w) / (1 - \lambda)`, w = 1 on the support and 0 off it. The
    Jacobian is symmetric. Where a score ties with the threshold, its entry counts as off the support: one element of
    the generalised Jacobian.

    Examples
    --------
    >>> import unitmass as um
    >>> um.sparsegen_vjp(um.sparsegen([-2.0, 0.0, 0.5], 0.25), [1.0, 2.0, 3.5], 0.25)
    array([ 0., -1.,  1.])
    """
    return sparsemax_vjp(p, g, _heat(lam), axis=axis, out=out, workers=workers)


@overload
def entmax_vjp(
    p: Triple,
    g: ArrayLike,
    /,
    alpha: ArrayLike = ...,
    *,
    temperature: float = ...,
    axis: int = ...,
    out: None = ...,
    workers: int | None = ...,
) -> Triple: ...
@overload
def entmax_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    alpha: ArrayLike = ...,
    *,
    temperature: float = ...,
    axis: int = ...,
    out: Array | None = ...,
    workers: int | None = ...,
) -> Array: ...
def entmax_vjp(
    p: ArrayLike | Triple,
    g: ArrayLike,
    /,
    alpha: ArrayLike = 1.5,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array | Triple:
    r"""Multiply a vector with the Jacobian of `entmax`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `entmax`; or its CSR triple, `g` then being an array of shape (rows, n).
    g : array_like, shape of `p`
        Gradient with respect to the probabilities; taken in the type of `p`.
    alpha : float or array_like, default 1.5
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
        For a CSR triple, one with the same indices.

    Raises
    ------
    ValueError
        If `alpha` is below 1 or not finite, or `temperature` is not finite and positive; `axis` is empty or does not
        exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    entmax

    Notes
    -----
    :math:`J = (\operatorname{diag}(w) - w w^T / \sum w) / T`, :math:`w = p^{2 - \alpha}` on the support and 0 off it
    [1]_. The Jacobian is symmetric. Where a score ties with the threshold, its entry counts as off the support: one
    element of the generalised Jacobian.

    References
    ----------
    .. [1] B. Peters, V. Niculae and A. Martins, "Sparse sequence-to-sequence models", ACL 2019.

    Examples
    --------
    >>> import unitmass as um
    >>> um.entmax_vjp(um.entmax([0.0, 0.0]), [1.0, 0.0]).round(4)
    array([ 0.3536, -0.3536])
    """
    t = number(temperature, "temperature")
    if isinstance(p, tuple):
        return _entmax_vjp_sparse(p, g, alpha, t, axis, out, workers)
    rows, vector = pair(p, g, axis)
    alphas = per_row(alpha, rows, "alpha")
    return map_pair(_core.entmax_vjp, rows, vector, alphas, t, shape=rows.values.shape, out=out, workers=workers)


def _entmax_vjp_sparse(
    p: tuple[Any, ...],
    g: ArrayLike,
    alpha: ArrayLike,
    temperature: float,
    axis: int,
    out: Array | None,
    workers: int | None,
) -> Triple:
    if axis != -1:
        raise ValueError(f"axis: the rows of a CSR triple run along the last axis of g, leave out axis={axis!r}")
    if out is not None:
        raise ValueError("out: a sparse result takes none")
    if len(p) != 3:
        raise ValueError(f"p: expected an array or a triple (data, indices, indptr), found a tuple of length {len(p)}")
    data, indices, indptr = (np.asarray(part) for part in p)
    rows = Rows.of(g, -1, "g")
    _check_csr(data, indices, indptr, rows.values.shape)
    n = rows.values.shape[1]
    entries = _entries(data)
    vector = np.require(rows.values, entries.dtype, "C")
    result = np.empty_like(entries)
    alphas = per_row(alpha, rows, "alpha")
    columns, starts = (_converted(part, np.uintp) for part in (indices, indptr))
    _core.entmax_vjp_sparse(entries, columns, starts, vector, result, n, alphas, temperature, resolve(workers))
    return result.astype(data.dtype, copy=False), p[1], p[2]


def _check_csr(data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse a triple that is not a matrix of the shape of g: the kernel trusts it."""
    for name, part in (("indices", indices), ("indptr", indptr)):
        if part.dtype.kind not in "iu":
            raise TypeError(f"p: {name} must be integers, found dtype {part.dtype}")
    if data.ndim != 1 or indices.shape != data.shape:
        raise ValueError(
            f"p: data and indices must be two vectors of one length, found shapes {data.shape} and {indices.shape}"
        )
    if (
        indptr.ndim != 1
        or not indptr.size
        or indptr[0] != 0
        or indptr[-1] != data.size
        or np.any(indptr[1:] < indptr[:-1])
    ):
        raise ValueError(f"p: indptr must rise from 0 to {data.size}, the number of entries, found {indptr}")
    if len(shape) != 2 or shape[0] != indptr.size - 1:
        raise ValueError(f"g: expected shape ({indptr.size - 1}, n), a row for each of p, found {shape}")
    if indices.size and not 0 <= indices.min() <= indices.max() < shape[1]:
        outside = indices[(indices < 0) | (indices >= shape[1])]
        raise ValueError(f"p: indices must lie below the {shape[1]} columns of g and not below 0, found {outside[0]}")


def _entries(data: NDArray[Any]) -> Array:
    """Take the data of a CSR triple, which may be empty, as arrays of scores are taken."""
    return Rows.of(data, 0, "p").values if data.size else np.empty(0, np.float64)


def entmax_alpha_grad(
    p: ArrayLike,
    g: ArrayLike,
    /,
    alpha: ArrayLike = 1.5,
    *,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Compute the gradient of entmax with respect to alpha.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `entmax`.
    g : array_like, shape of `p`
        Gradient with respect to the probabilities; taken in the type of `p`.
    alpha : float or array_like, default 1.5
        The one of the forward call.
    axis : int, default -1
        The axis of the scores.
    out : ndarray, optional
        Where to put the result; shape of `p` without `axis`.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `p` without `axis`
        :math:`\langle g, dp/d\alpha \rangle` of every row.

    Raises
    ------
    ValueError
        If `alpha` is below 1 or not finite; `axis` is empty or does not exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    entmax, entmax_vjp

    Notes
    -----
    :math:`dp/d\alpha = (p - s)/(\alpha - 1)^2 - (p \log p - s \sum p \log p)/(\alpha - 1)`, :math:`s = w / \sum w`,
    :math:`w = p^{2 - \alpha}` on the support [1]_, rearranged so that nothing cancels near alpha 1, where the limit is
    :math:`p (\sum p \log^2 p - \log^2 p) / 2`. Computed in float64.

    References
    ----------
    .. [1] G. Correia, V. Niculae and A. Martins, "Adaptively sparse transformers", EMNLP 2019.

    Examples
    --------
    >>> import unitmass as um
    >>> um.entmax_alpha_grad(um.entmax([1.0, 0.0]), [1.0, 0.0]).round(4)
    np.float64(0.2485)
    """
    rows, vector = pair(p, g, axis)
    alphas = per_row(alpha, rows, "alpha")
    return map_pair(_core.entmax_alpha_grad, rows, vector, alphas, shape=rows.batch, out=out, workers=workers)
