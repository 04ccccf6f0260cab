"""Noisy argmax: probabilities that a score is the largest after noise, their gradient, and draws."""

from __future__ import annotations

import math
import reprlib
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from unitmass import _core
from unitmass._arguments import Rng, real, room, seed_of, whole_number
from unitmass._arrays import Array, Rows, map_pair, map_scores, mask_like, number, pair
from unitmass._workers import resolve

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["noisy_argmax", "noisy_argmax_vjp", "sample"]

Noise: TypeAlias = "str | tuple[ArrayLike, ArrayLike, ArrayLike]"


def noisy_argmax(
    x: ArrayLike,
    /,
    noise: Noise = "gumbel",
    scale: float = 1.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Map scores to the probabilities that they are the largest after noise has been added.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`. float16, float32, float64 and bfloat16 keep their type; integers and booleans
        become float64.
    noise : str or tuple, default "gumbel"
        The law of the noise: "gumbel", "normal", "exponential", "uniform" (on [0, 1]) or "logistic", each in its
        standard form; or any other as a triple ``(grid, pdf, cdf)`` of rising points, and the density and the
        distribution function at them.
    scale : float, default 1.0
        Multiplies the noise; finite and positive.
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
        If `noise` has an unknown name or is no law, or `scale` is not finite and positive; `axis` is empty or does not
        exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `noise` is not a name or three arrays of numbers, `where` is not
        boolean, or `out` cannot hold the result.

    See Also
    --------
    noisy_argmax_vjp, maps.sample, softmax

    Notes
    -----
    :math:`p_i = P[\operatorname{argmax}_j (x_j + s \epsilon_j) = i]` for independent :math:`\epsilon_j` with density f
    and distribution function F [1]_, computed as

    .. math:: p_i = \int f(u - x_i / s) \prod_{j \ne i} F(u - x_j / s) \, du

    in one pass over nodes that all entries share. Gumbel noise gives softmax at temperature s. Exponential noise gives
    permute-and-flip [2]_. Sums are within 4 ulp of 1, a larger score never gets a smaller probability, and adding a
    constant to the scores changes nothing but their own rounding. It is the gradient of
    :math:`E \max_j (x_j + s \epsilon_j)`.

    The cost is O(n) a node. Uniform noise alone takes O(m²) for m different scores that lie so near to the largest that
    each may win: 50,000 scores within s / 1000 of it take seconds, and their gradient three times as long.

    A row with a NaN becomes NaN, even if the NaN is excluded. Scores of -inf get exactly 0; a row of nothing else
    becomes NaN. Scores of +inf share the mass equally and the others get exactly 0.

    References
    ----------
    .. [1] Q. Berthet, M. Blondel, O. Teboul, M. Cuturi, J.-P. Vert and F. Bach, "Learning with differentiable perturbed
       optimizers", NeurIPS 2020.
    .. [2] R. McKenna and D. Sheldon, "Permute-and-flip: a new mechanism for differentially private selection",
       NeurIPS 2020.

    Examples
    --------
    >>> import unitmass as um
    >>> um.noisy_argmax([-2.0, 0.0, 0.5], "normal").round(4)
    array([0.0136, 0.3561, 0.6303])
    >>> um.noisy_argmax([0.0, 0.5], "uniform").round(3)
    array([0.125, 0.875])
    """
    law = _law(noise)
    s = number(scale, "scale")
    return map_scores(_core.noisy_argmax, x, axis, s, law, name="scale", where=where, out=out, workers=workers)


def noisy_argmax_vjp(
    x: ArrayLike,
    g: ArrayLike,
    /,
    noise: Noise = "gumbel",
    scale: float = 1.0,
    *,
    axis: int = -1,
    out: Array | None = None,
    workers: int | None = None,
) -> Array:
    r"""Multiply a vector with the Jacobian of `noisy_argmax`.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        The scores that `noisy_argmax` was given.
    g : array_like, shape of `x`
        Gradient with respect to the probabilities; taken in the type of `x`.
    noise : str or tuple, default "gumbel"
        The one of the forward call.
    scale : float, default 1.0
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
        If `noise` has an unknown name or is no law, or `scale` is not finite and positive; `axis` is empty or does not
        exist; if a shape does not fit.
    TypeError
        If an array is complex, masked or not numeric, `noise` is not a name or three arrays of numbers, or `out` cannot
        hold the result.

    See Also
    --------
    noisy_argmax

    Notes
    -----
    The Jacobian is symmetric. In the notation of `noisy_argmax`, with h = f / F and :math:`G = \prod_j F(u - x_j / s)`,

    .. math:: (J^T g)_j = \frac{1}{s} \int G h_j \Big(g_j \sum_i h_i - \langle h, g \rangle\Big) \, du.

    It takes the scores, not the probabilities. Scores of -inf have gradient 0; they stand for excluded ones, too.

    Examples
    --------
    >>> import unitmass as um
    >>> um.noisy_argmax_vjp([0.0, 0.0], [1.0, 0.0]).round(4)
    array([ 0.25, -0.25])
    """
    law = _law(noise)
    rows, vector = pair(x, g, axis, "x")
    s = number(scale, "scale")
    return map_pair(_core.noisy_argmax_vjp, rows, vector, law, s, shape=rows.values.shape, out=out, workers=workers)


def sample(
    x: ArrayLike,
    /,
    noise: Noise = "gumbel",
    rng: Rng = None,
    size: int | tuple[int, ...] | None = None,
    *,
    scale: float = 1.0,
    axis: int = -1,
    where: ArrayLike | None = None,
    workers: int | None = None,
) -> NDArray[np.int64]:
    r"""Draw indices of scores that are the largest after noise has been added.

    Parameters
    ----------
    x : array_like, shape (..., n, ...)
        Scores, n of them along `axis`.
    noise : str or tuple, default "gumbel"
        The law of the noise: "gumbel", "normal", "exponential", "uniform" (on [0, 1]) or "logistic", each in its
        standard form; or any other as a triple ``(grid, pdf, cdf)`` of rising points, and the density and the
        distribution function at them.
    rng : numpy.random.Generator or int, optional
        Where the seed comes from, or the seed itself; a fresh one by default.
    size : int or tuple of int, optional
        How many draws of every row, as a shape; one by default.
    scale : float, default 1.0
        Multiplies the noise; finite and positive.
    axis : int, default -1
        The axis of the scores.
    where : array_like of bool, optional
        Scores that take part; broadcast to the shape of `x`.
    workers : int, optional
        Threads to use; all available ones by default, negative numbers count back from all.

    Returns
    -------
    ndarray of int64, shape `size` + the shape of `x` without `axis`
        Indices along `axis`; -1 for a row without a possible score: one with a NaN, of only -inf, or excluded whole.

    Raises
    ------
    ValueError
        If `noise` has an unknown name or is no law, or `scale` is not finite and positive; `rng` or `size` is negative;
        `axis` is empty or does not exist; if `x` is a scalar; if a shape does not fit.
    TypeError
        If `x` is complex, masked or not numeric, `noise` is not a name or three arrays of numbers, `where` is not
        boolean, or `rng` or `size` are of another type.
    MemoryError
        If there is no room for the draws.

    See Also
    --------
    noisy_argmax

    Notes
    -----
    Index i comes with the probability ``noisy_argmax(x, noise, scale)[i]``: a draw adds noise to every score and takes
    the largest (perturb-and-argmax [1]_), so it costs O(n). With Gumbel noise these are draws from softmax. Scores of
    +inf are drawn with equal probabilities and the others never.

    A draw depends on the seed and its place in the result alone: the same seed gives the same draws at any number of
    workers.

    References
    ----------
    .. [1] G. Papandreou and A. Yuille, "Perturb-and-MAP random fields", ICCV 2011.

    Examples
    --------
    >>> import unitmass as um
    >>> um.maps.sample([[0.0, 0.0, 100.0], [0.0, 100.0, 0.0]], rng=1, size=3)
    array([[2, 1],
           [2, 1],
           [2, 1]])
    """
    law = _law(noise)
    s = number(scale, "scale")
    seed = seed_of(rng)
    draws = (
        ()
        if size is None
        else tuple(whole_number(n, "size", 0) for n in (size if isinstance(size, tuple) else (size,)))
    )
    rows = Rows.of(x, axis, "x")
    mask = mask_like(rows, where)
    shape = draws + rows.batch
    room(shape, "size", "draw fewer at a time")  # the kernel would find no memory, too, but it could not say so
    indices = _core.noisy_sample(rows.values, mask, rows.axis, law, s, math.prod(draws), seed, resolve(workers))
    return indices.reshape(shape)


def _law(noise: Any) -> _core.Noise:
    """Take a law of noise: its name, or a table of it."""
    if isinstance(noise, str):
        return _core.Noise(noise)
    if not isinstance(noise, (tuple, list)) or len(noise) != 3:
        raise TypeError(f"noise: expected a name or a triple (grid, pdf, cdf), found {reprlib.repr(noise)}")
    grid, pdf, cdf = (real(part, f"noise: {name}") for name, part in zip(("grid", "pdf", "cdf"), noise, strict=True))
    if grid.ndim != 1 or not grid.shape == pdf.shape == cdf.shape:
        raise ValueError(
            "noise: grid, pdf and cdf must be three vectors of one length, "
            f"found shapes {grid.shape}, {pdf.shape} and {cdf.shape}"
        )
    return _core.Noise.table(grid, pdf, cdf)
