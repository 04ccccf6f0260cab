"""Softmax, and the maps that are a softmax of some scores or of another function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unitmass import _core
from unitmass._arguments import whole_number
from unitmass._arrays import Array, map_pair, map_scores, number, pair

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = [
    "ev_softmax",
    "ev_softmax_vjp",
    "log_softmax",
    "log_softmax_vjp",
    "softmax",
    "softmax_vjp",
    "taylor_softmax",
    "taylor_softmax_vjp",
    "topk_softmax",
    "topk_softmax_vjp",
]


def softmax(
    x: ArrayLike,
    /,
    temperature: float = 1.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Map scores to probabilities by the softmax.

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

    Returns
    -------
    ndarray, shape of `x`
        Probabilities, positive where they do not underflow.

    Raises
    ------
    ValueError
        If `temperature` is not finite and positive; `axis` is empty or does not exist; if `x` is a scalar; if a shape
        does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    log_softmax, softmax_vjp

    Notes
    -----
    :math:`p_i = \exp(x_i / T) / \sum_j \exp(x_j / T)`, computed after subtracting the maximum. Sums are within 4 ulp of
    1 and a larger score never gets a smaller probability.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0; a row of nothing else
    becomes NaN. Scores of +inf share the mass equally and the others get exactly 0.

    The inverse of the temperature is kept within the normal numbers: in float32 a temperature acts as if it were at
    least 2.9e-39 and at most 8.5e37, in float64 at least 5.6e-309 and at most 4.5e307. A difference between scores that
    is beyond the largest number of the type counts as infinite.

    Examples
    --------
    >>> import unitmass as um
    >>> um.softmax([-2.0, 0.0, 0.5]).round(4)
    array([0.0486, 0.3592, 0.5922])
    """
    t = number(temperature, "temperature")
    return map_scores(_core.softmax, x, axis, t, name="temperature", where=where, out=out, workers=workers)


def log_softmax(
    x: ArrayLike,
    /,
    temperature: float = 1.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Map scores to the logarithms of their softmax.

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
        Scores that take part; broadcast to the shape of `x`. Excluded ones get -inf, also
        in a row without any others.
    out : ndarray, optional
        Where to put the result; shape of `x`, and a type that its type casts to. May be `x` itself.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `x`
        Logarithms of probabilities.

    Raises
    ------
    ValueError
        If `temperature` is not finite and positive; `axis` is empty or does not exist; if `x` is a scalar; if a shape
        does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    softmax, log_softmax_vjp

    Notes
    -----
    :math:`\log p_i = x_i / T - \log \sum_j \exp(x_j / T)`. The largest entry keeps all its digits, because the sum of
    the others goes through log1p: where a probability is 1 - 4e-8, its logarithm is -4e-8, not 0.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get -inf; a row of nothing else becomes
    NaN. Scores of +inf share the mass equally and the others get -inf.

    The inverse of the temperature is kept within the normal numbers: in float32 a temperature acts as if it were at
    least 2.9e-39 and at most 8.5e37, in float64 at least 5.6e-309 and at most 4.5e307. A difference between scores that
    is beyond the largest number of the type counts as infinite.

    Examples
    --------
    >>> import unitmass as um
    >>> import numpy as np
    >>> um.log_softmax(np.array([17, 0], np.float32))
    array([-4.1399378e-08, -1.7000000e+01], dtype=float32)
    """
    t = number(temperature, "temperature")
    return map_scores(_core.log_softmax, x, axis, t, name="temperature", where=where, out=out, workers=workers)


def taylor_softmax(
    x: ArrayLike,
    /,
    order: int = 2,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Map scores to probabilities by the Taylor polynomial of the exponential function.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    order : int, default 2
        Degree of the polynomial; even, for then it is positive, from 2 to 16.
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
        Probabilities.

    Raises
    ------
    ValueError
        If `order` is odd or not from 2 to 16, or `temperature` is not finite and positive; `axis` is empty or does not
        exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `order` is not an integer, `where` is not boolean, or `out` cannot
        hold the result.

    See Also
    --------
    softmax, taylor_softmax_vjp

    Notes
    -----
    :math:`p_i = f(x_i / T) / \sum_j f(x_j / T)`, :math:`f(u) = \sum_{m \le k} u^m / m!` with k the order [1]_. Sums are
    within 4 ulp of 1.

    The scores count as they are: a constant added to a row changes the result, and left of its minimum, which is at -1
    for order 2 and lower for higher ones, f falls, so that a very low score gets more than a low one.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0; a row of nothing else
    becomes NaN. Scores of +inf share the mass equally and the others get exactly 0.

    References
    ----------
    .. [1] A. de Brébisson and P. Vincent, "An exploration of softmax alternatives belonging to the spherical loss
       family", ICLR 2016.

    Examples
    --------
    >>> import unitmass as um
    >>> um.taylor_softmax([-2.0, 0.0, 0.5]).round(4)
    array([0.2759, 0.2759, 0.4483])
    >>> um.taylor_softmax([-3.0, 0.0]).round(3)  # -3 is low enough to rise again
    array([0.714, 0.286])
    """
    degree = whole_number(order, "order", 2)
    t = number(temperature, "temperature")
    return map_scores(
        _core.taylor_softmax, x, axis, t, degree, name="temperature", where=where, out=out, workers=workers
    )


def topk_softmax(
    x: ArrayLike,
    /,
    k: int | None = None,
    *,
    top_p: float | None = None,
    temperature: float = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Map scores to the softmax of the largest of them, and 0 elsewhere.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    k : int, optional
        How many scores to keep; all, if it is n or more.
    top_p : float, optional
        Keep the fewest scores whose softmax has at least this mass, in place of `k`; more than 0 and at most 1.
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
        Probabilities, exactly 0 off the chosen scores.

    Raises
    ------
    ValueError
        If not exactly one of `k` and `top_p` is given; `k` is below 1, `top_p` not in (0, 1], or `temperature` is not
        finite and positive; `axis` is empty or does not exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `k` is not an integer, `where` is not boolean, or `out` cannot hold
        the result.

    See Also
    --------
    softmax, topk_softmax_vjp

    Notes
    -----
    :math:`p_i = \exp(x_i / T) / \sum_{j \in S} \exp(x_j / T)` on the set S of the chosen scores. Of equal scores the
    first along the axis are chosen. Sums are within 4 ulp of 1, and of two different scores the larger never gets the
    smaller probability. With `top_p`, S is the nucleus of [1]_.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0; a row of nothing else
    becomes NaN. Scores of +inf that are chosen share the mass equally and the others get exactly 0.

    References
    ----------
    .. [1] A. Holtzman, J. Buys, L. Du, M. Forbes and Y. Choi, "The curious case of neural text degeneration",
       ICLR 2020.

    Examples
    --------
    >>> import unitmass as um
    >>> um.topk_softmax([-2.0, 0.0, 0.5], 2).round(4)
    array([0.    , 0.3775, 0.6225])
    >>> um.topk_softmax([-2.0, 0.0, 0.5], top_p=0.5)  # softmax gives .5922 to the last
    array([0., 0., 1.])
    """
    if (k is None) == (top_p is None):
        raise ValueError(f"k, top_p: give one of the two, found k={k!r} and top_p={top_p!r}")
    count = None if k is None else whole_number(k, "k", 1)
    mass = None if top_p is None else number(top_p, "top_p")
    t = number(temperature, "temperature")
    return map_scores(
        _core.topk_softmax, x, axis, t, count, mass, name="temperature", where=where, out=out, workers=workers
    )


def ev_softmax(
    x: ArrayLike,
    /,
    temperature: float = 1.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Map scores to the softmax of those that are not below their mean, and 0 elsewhere.

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

    Returns
    -------
    ndarray, shape of `x`
        Probabilities, exactly 0 below the mean.

    Raises
    ------
    ValueError
        If `temperature` is not finite and positive; `axis` is empty or does not exist; if `x` is a scalar; if a shape
        does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    softmax, topk_softmax, ev_softmax_vjp

    Notes
    -----
    :math:`p_i \propto [x_i \ge \bar{x}] \exp(x_i / T)`, :math:`\bar{x}` the mean of the scores that take part [1]_.
    Sums are within 4 ulp of 1, a larger score never gets a smaller probability, and adding a constant to the scores
    changes nothing but their own rounding.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0 and are left
    out of the mean; a row of nothing else becomes NaN. Scores of +inf share the mass equally and the others get exactly
    0.

    References
    ----------
    .. [1] P. Chen, M. Itkina, R. Senanayake and M. Kochenderfer, "Evidential softmax for sparse multimodal
       distributions in deep generative models", NeurIPS 2021.

    Examples
    --------
    >>> import unitmass as um
    >>> um.ev_softmax([-2.0, 0.0, 0.5]).round(4)  # the mean is -.5
    array([0.    , 0.3775, 0.6225])
    """
    t = number(temperature, "temperature")
    return map_scores(_core.ev_softmax, x, axis, t, name="temperature", where=where, out=out, workers=workers)


def softmax_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    temperature: float = 1.0,
    *,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `softmax`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `softmax`.
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
    softmax

    Notes
    -----
    :math:`J^T g = p (g - \langle p, g \rangle) / T`. The Jacobian is symmetric, so this is also the product J g. An
    entry of exactly 0 has gradient 0 whatever `g` is there. Extreme temperatures act as they do in `softmax`.

    Examples
    --------
    >>> import unitmass as um
    >>> um.softmax_vjp(um.softmax([0.0, 0.0]), [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    rows, vector = pair(p, g, axis)
    t = number(temperature, "temperature")
    return map_pair(_core.softmax_vjp, rows, vector, t, shape=rows.values.shape, out=out, workers=workers)


def log_softmax_vjp(
    logp: ArrayLike,
    g: ArrayLike,
    /,
    temperature: float = 1.0,
    *,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `log_softmax`.

    Parameters
    ----------
    logp : array_like, shape (..., n, ...)
        The result of `log_softmax`.
    g : array_like, shape of `logp`
        Gradient with respect to the logarithms; taken in the type of `logp`.
    temperature : float, default 1.0
        The one that the scores were divided by.
    axis : int, default -1
        The axis of the scores.
    out : ndarray, optional
        Where to put the result; shape of `logp`. May be `logp` or `g`.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray, shape of `logp`
        Gradient with respect to the scores.

    Raises
    ------
    ValueError
        If `temperature` is not finite and positive; `axis` is empty or does not exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    log_softmax

    Notes
    -----
    :math:`J^T g = (g - p \sum g) / T`. Extreme temperatures act as they do in `log_softmax`.

    Examples
    --------
    >>> import unitmass as um
    >>> um.log_softmax_vjp(um.log_softmax([0.0, 0.0]), [1.0, 0.0])
    array([ 0.5, -0.5])
    """
    rows, vector = pair(logp, g, axis, "logp")
    t = number(temperature, "temperature")
    return map_pair(_core.log_softmax_vjp, rows, vector, t, shape=rows.values.shape, out=out, workers=workers)


def taylor_softmax_vjp(
    x: ArrayLike,
    g: ArrayLike,
    /,
    order: int = 2,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `taylor_softmax`.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        The scores that `taylor_softmax` was given.
    g : array_like, shape of `x`
        Gradient with respect to the probabilities; taken in the type of `x`.
    order : int, default 2
        The one of the forward call.
    temperature : float, default 1.0
        The one that the scores were divided by.
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
        If `order` is odd or not from 2 to 16, or `temperature` is not finite and positive; `axis` is empty or does not
        exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, `order` is not an integer, or `out` cannot hold the result.

    See Also
    --------
    taylor_softmax

    Notes
    -----
    :math:`J^T g = f'(x / T) (g - \langle p, g \rangle) / (T \sum f(x / T))`. It takes the scores, not the
    probabilities: two scores may have the same probability and different slopes. Scores of -inf have gradient 0; they
    stand for excluded ones, too.

    Examples
    --------
    >>> import unitmass as um
    >>> um.taylor_softmax_vjp([0.0, 0.0], [1.0, 0.0])
    array([ 0.25, -0.25])
    """
    degree = whole_number(order, "order", 2)
    rows, vector = pair(x, g, axis, "x")
    t = number(temperature, "temperature")
    shape = rows.values.shape
    return map_pair(_core.taylor_softmax_vjp, rows, vector, degree, t, shape=shape, out=out, workers=workers)


def topk_softmax_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    temperature: float = 1.0,
    *,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `topk_softmax`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `topk_softmax`.
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
    topk_softmax

    Notes
    -----
    :math:`J^T g = p (g - \langle p, g \rangle) / T`: that of softmax on the chosen scores, whose choice counts as
    fixed. It is constant but where scores tie.

    Examples
    --------
    >>> import unitmass as um
    >>> um.topk_softmax_vjp(um.topk_softmax([-2.0, 0.0, 0.0], 2), [4.0, 1.0, 0.0])
    array([ 0.  ,  0.25, -0.25])
    """
    return softmax_vjp(p, g, temperature, axis=axis, out=out, workers=workers)


def ev_softmax_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    temperature: float = 1.0,
    *,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `ev_softmax`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `ev_softmax`.
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
    ev_softmax

    Notes
    -----
    :math:`J^T g = p (g - \langle p, g \rangle) / T`: that of softmax on the scores above the mean. It is the gradient
    wherever no score equals the mean.

    Examples
    --------
    >>> import unitmass as um
    >>> um.ev_softmax_vjp(um.ev_softmax([-2.0, 0.0, 0.0]), [4.0, 1.0, 0.0])
    array([ 0.  ,  0.25, -0.25])
    """
    return softmax_vjp(p, g, temperature, axis=axis, out=out, workers=workers)
