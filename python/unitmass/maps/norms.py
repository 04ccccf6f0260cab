"""Maps that a norm shapes: the one that it regularises, and the projection onto its ball."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from unitmass import _core
from unitmass._arrays import Array, Rows, map_pair, map_scores, number, pair, per_row

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["normmax", "normmax_vjp", "project_l1_ball", "project_l1_ball_vjp"]


def normmax(
    x: ArrayLike,
    /,
    alpha: ArrayLike = 2.0,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Map scores to sparse probabilities that a norm keeps from the corners.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    alpha : float or array_like, default 2.0
        More than 1 and finite; or one for each row, broadcast to the shape of `x` without `axis`. The larger, the more
        alike are the probabilities of the support.
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
        Probabilities, exactly 0 off the support.

    Raises
    ------
    ValueError
        If `alpha` is not above 1 and finite, or `temperature` is not finite and positive; `axis` is empty or does not
        exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    entmax, normmax_vjp

    Notes
    -----
    :math:`\operatorname{argmax}_{p \ge 0, \sum p = 1} \langle x / T, p \rangle - \lVert p \rVert_\alpha` [1]_, which is
    :math:`p \propto [x / T - \tau]_+^{1/(\alpha - 1)}` with :math:`\sum [x / T - \tau]_+^{\alpha/(\alpha - 1)} = 1`.
    Sums are within 4 ulp of 1, a larger score never gets a smaller probability, and adding a constant to the scores
    changes nothing but their own rounding. Scores that lie T or more below the largest get exactly 0; unless T is a
    power of two, that distance is rounded first.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0; a row of nothing else
    becomes NaN. Scores of +inf share the mass equally and the others get exactly 0.

    References
    ----------
    .. [1] M. Blondel, A. Martins and V. Niculae, "Learning with Fenchel-Young losses", J. Mach. Learn. Res. 21 (2020).

    Examples
    --------
    >>> import unitmass as um
    >>> um.normmax([-2.0, 0.0, 0.5]).round(4)
    array([0.   , 0.311, 0.689])
    >>> um.normmax([-2.0, 0.0, 0.5], 1000.0).round(4)
    array([0.    , 0.4997, 0.5003])
    """
    t = number(temperature, "temperature")
    return map_scores(_core.normmax, x, axis, alpha, t, name="alpha", where=where, out=out, workers=workers)


def project_l1_ball(
    x: ArrayLike,
    /,
    radius: ArrayLike = 1.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Project points onto the l1 ball: the nearest vector whose absolute values have at most a given sum.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    radius : float or array_like, default 1.0
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
        The projections; points of the ball stay as they are.

    Raises
    ------
    ValueError
        If `radius` is out of its range; `axis` is empty or does not exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `where` is not boolean, or `out` cannot hold the result.

    See Also
    --------
    project_simplex, project_l1_ball_vjp

    Notes
    -----
    :math:`\operatorname{argmin}_{\lVert p \rVert_1 \le r} \lVert p - x \rVert^2`, which is
    :math:`\operatorname{sign}(x) [|x| - \tau]_+`: :math:`\tau` is 0 inside the ball, and outside it makes the sum of
    the absolute values r, within 4 ulp [1]_. A larger coordinate never gets a smaller value, and no sign changes.

    A row with a NaN becomes NaN, even if the NaN is excluded. Infinite coordinates share the radius equally, each with
    its sign, and the others get exactly 0.

    References
    ----------
    .. [1] J. Duchi, S. Shalev-Shwartz, Y. Singer and T. Chandra, "Efficient projections onto the l1-ball for learning
       in high dimensions", ICML 2008.

    Examples
    --------
    >>> import unitmass as um
    >>> um.project_l1_ball([-2.0, 0.0, 1.5])
    array([-0.75,  0.  ,  0.25])
    """
    return map_scores(_core.project_l1_ball, x, axis, radius, name="radius", where=where, out=out, workers=workers)


def normmax_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    alpha: ArrayLike = 2.0,
    *,
    temperature: float = 1.0,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `normmax`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `normmax`.
    g : array_like, shape of `p`
        Gradient with respect to the probabilities; taken in the type of `p`.
    alpha : float or array_like, default 2.0
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
        If `alpha` is not above 1 and finite, or `temperature` is not finite and positive; `axis` is empty or does not
        exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    normmax

    Notes
    -----
    :math:`J = \lVert p \rVert_\alpha^{\alpha - 1} (\operatorname{diag}(b) - p b^T - b p^T + p p^T \sum b) /
    ((\alpha - 1) T)`, :math:`b = p^{2 - \alpha}` on the support and 0 off it. The Jacobian is symmetric. Where a score
    ties with the threshold, its entry counts as off the support: one element of the generalised Jacobian.

    Examples
    --------
    >>> import unitmass as um
    >>> um.normmax_vjp(um.normmax([0.0, 0.0]), [1.0, 0.0]).round(4)
    array([ 0.3536, -0.3536])
    """
    rows, vector = pair(p, g, axis)
    alphas = per_row(alpha, rows, "alpha")
    t = number(temperature, "temperature")
    return map_pair(_core.normmax_vjp, rows, vector, alphas, t, shape=rows.values.shape, out=out, workers=workers)


def project_l1_ball_vjp(
    p: ArrayLike,
    g: ArrayLike,
    /,
    radius: ArrayLike = 1.0,
    *,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `project_l1_ball`.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        The result of `project_l1_ball`.
    g : array_like, shape of `p`
        Gradient with respect to the projections; taken in the type of `p`.
    radius : float or array_like, default 1.0
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
        If `radius` is out of its range; `axis` is empty or does not exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, or `out` cannot hold the result.

    See Also
    --------
    project_l1_ball

    Notes
    -----
    Inside the ball, J is the identity. On its surface, that is where :math:`\sum |p|` is r but for rounding,
    :math:`J = \operatorname{diag}(s^2) - s s^T / \sum s^2` with s the signs of p. The Jacobian is symmetric. Where a
    coordinate ties with the threshold, its entry counts as 0: one element of the generalised Jacobian.

    Examples
    --------
    >>> import unitmass as um
    >>> um.project_l1_ball_vjp(um.project_l1_ball([-2.0, 0.0, 1.5]), [1.0, 2.0, 4.0])
    array([2.5, 0. , 2.5])
    >>> um.project_l1_ball_vjp([0.25, -0.25, 0.0], [1.0, 2.0, 4.0])  # inside
    array([1., 2., 4.])
    """
    rows, vector = pair(p, g, axis)
    radii = _stored(per_row(radius, rows, "radius"), rows)
    return map_pair(_core.project_l1_ball_vjp, rows, vector, radii, shape=rows.values.shape, out=out, workers=workers)


def _stored(radii: float | NDArray[np.float64], rows: Rows) -> float | NDArray[np.float64]:
    """Take radii as the least norms of rows on the sphere, where rounding to the type of `rows` can take much of them.

    The kernel allows for the rounding of numbers in its own types that are not subnormal.
    """
    if rows.dtype == np.float16:  # half of the least number above 0 for each entry
        least = np.maximum(radii - rows.values.shape[rows.axis] * 2.0**-25, 2.0**-24)
    elif rows.dtype.name == "bfloat16":  # of 8 bits, and of the range of float32
        least = np.multiply(radii, 1 - 2.0**-7)
    else:
        return radii
    return np.where(np.greater(radii, 0), least, radii)[()]  # what is no radius is left for the kernel to name
