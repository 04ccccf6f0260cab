"""The laws of the gaps between uniform points on a circle, with the methods that SciPy's distributions have."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitmass import _core
from unitmass._arguments import Rng, real, room, seed_of
from unitmass._estimate import plain
from unitmass._workers import resolve

__all__ = ["MOST_POINTS", "TURN", "CommonSector", "MaxGap", "MinGap", "law", "points"]

TURN = 2 * np.pi

MOST_POINTS = 2**22
"""So many points may a trial have."""


def points(n: Any, name: str = "n") -> NDArray[np.uint64]:
    """Take numbers of points."""
    try:
        values = np.asarray(n)
    except ValueError as error:  # ragged
        raise ValueError(f"{name}: {error}") from None
    if values.size == 0:
        return values.astype(np.uint64)
    if values.dtype.kind == "O" and all(isinstance(value, int) for value in values.flat):
        raise ValueError(f"{name}: must be from 1 to 2**53, found {max(values.flat)}")
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, found {n!r}")
    bad = values[(values < 1) | (values > 2**53)]
    if bad.size:
        raise ValueError(f"{name}: must be from 1 to 2**53, found {bad.flat[0]}")
    return values.astype(np.uint64)


def law(name: str, quantity: str, n: ArrayLike, value: ArrayLike, workers: int | None = None) -> Any:
    """Evaluate a quantity of a law, for n and values that broadcast; a scalar for scalars."""
    values = real(value, quantity)
    try:
        counts, values = np.broadcast_arrays(np.asarray(n, np.uint64), values)
    except ValueError:
        raise ValueError(
            f"{quantity}: values of shape {values.shape} do not broadcast with n of shape {np.shape(n)}"
        ) from None
    flat = _core.gap_law(
        name,
        quantity,
        np.ascontiguousarray(counts).reshape(-1),
        np.ascontiguousarray(values).reshape(-1),
        resolve(workers),
    )
    return plain(flat.reshape(values.shape))


class _Law:
    """A law with a method for each quantity that SciPy's distributions have."""

    _name: str

    def __init__(self, n: ArrayLike) -> None:
        self._n = points(n)

    @property
    def n(self) -> Any:
        """How many points there are."""
        return plain(self._n.astype(np.int64))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._n.tolist()})"

    def cdf(self, x: ArrayLike) -> Any:
        """Return the probability of at most `x`, an angle in radians."""
        return law(self._name, "cdf", self._n, x)

    def sf(self, x: ArrayLike) -> Any:
        """Return the probability of more than `x`, exact to the last digits where it is small."""
        return law(self._name, "sf", self._n, x)

    def logcdf(self, x: ArrayLike) -> Any:
        """Return the logarithm of `cdf`, finite where that rounds to 0."""
        return law(self._name, "logcdf", self._n, x)

    def logsf(self, x: ArrayLike) -> Any:
        """Return the logarithm of `sf`, finite where that rounds to 0."""
        return law(self._name, "logsf", self._n, x)

    def pdf(self, x: ArrayLike) -> Any:
        """Return the density at `x`, per radian."""
        return law(self._name, "pdf", self._n, x)

    def ppf(self, q: ArrayLike) -> Any:
        """Return the angle below which a share `q` of the probability lies; NaN for `q` outside [0, 1]."""
        return law(self._name, "ppf", self._n, q)

    def isf(self, q: ArrayLike) -> Any:
        """Return the angle above which a share `q` of the probability lies; NaN for `q` outside [0, 1]."""
        return law(self._name, "isf", self._n, q)

    def _moments(self) -> tuple[Any, Any]:
        both = np.array([_core.gap_moments(self._name, int(n)) for n in self._n.flat]).reshape(*self._n.shape, 2)
        return plain(both[..., 0]), plain(both[..., 1])

    def mean(self) -> Any:
        """Return the mean, in radians."""
        return self._moments()[0]

    def var(self) -> Any:
        """Return the variance, in square radians."""
        return self._moments()[1]

    def std(self) -> Any:
        """Return the standard deviation, in radians."""
        return plain(np.sqrt(np.asarray(self.var())))

    def rvs(self, size: int | tuple[int, ...] | None = None, rng: Rng = None, workers: int | None = None) -> Any:
        """Draw from the law, by points on a circle.

        Parameters
        ----------
        size : int or tuple of int, optional
            The shape of what is drawn; n must broadcast to it. None stands for the shape of n.
        rng : Generator, int or None
            What seeds the draws.
        workers : int, optional
            Threads to use; the draws do not depend on it.

        Returns
        -------
        float or ndarray
            Angles in radians.
        """
        shape = self._n.shape if size is None else _shape(size)
        try:
            counts = np.broadcast_to(self._n, shape)
        except ValueError:
            raise ValueError(f"size: n of shape {self._n.shape} does not broadcast to {shape}") from None
        if self._n.size and self._n.max() > MOST_POINTS:
            raise ValueError(f"n: must be at most 2**22 for trials, found {self._n.max()}")
        seed = seed_of(rng)
        drawn = room(shape, "size", "draw fewer at a time").view(np.float64)
        for n in np.unique(self._n) if drawn.size else ():
            places = counts == n
            numbers = np.empty(np.count_nonzero(places))
            # A seed for each n, which other n do not change.
            (mixed,) = np.random.SeedSequence([seed, int(n)]).generate_state(1, np.uint64)
            self._draw(int(n)).sample(numbers, int(mixed), resolve(workers), None)
            drawn[places] = self._angle(numbers)
        return plain(drawn)

    def _draw(self, n: int) -> _core.Experiment:
        return _core.Experiment.arc(n, n)

    @staticmethod
    def _angle(arc: NDArray[np.float64]) -> NDArray[np.float64]:
        return arc * TURN


class MaxGap(_Law):
    """The largest gap between neighbours among n uniform points on a circle.

    Parameters
    ----------
    n : int or array_like of int
        How many points; arrays broadcast with the arguments of the methods.

    Raises
    ------
    TypeError, ValueError
        If `n` is not made of integers from 1 to 2**53.

    See Also
    --------
    CommonSector : 2π less the largest gap.
    MinGap, gap_means, gap_counts

    Notes
    -----
    P(gap >= 2πx) is a sum of terms C(n, k) (1 - kx)^(n-1) whose signs alternate (Fisher 1929, Stevens 1939), which
    loses all digits where n is large. Here it is summed only where it does not cancel. Elsewhere the probability of the
    complement, (n-1)! x^(n-1) M(1/x) with the density M of a sum of n uniform numbers, is computed from positive terms:
    by a recursion for few points, by an integral through its saddle point for many. Both tails, and their logarithms,
    keep a relative accuracy of 1e-11 for any n; up to 1,000 points, it is 1e-12.

    References
    ----------
    Stevens, W. L. (1939). Solution to a geometrical problem in probability. Annals of Eugenics 9.

    Examples
    --------
    >>> import numpy as np
    >>> import unitmass as um
    >>> um.MaxGap(4).sf(np.pi)  # four ducks in a semicircle leave a gap of half a turn
    0.5
    >>> um.MaxGap([10, 1000]).mean().round(4)
    array([1.8403, 0.047 ])
    >>> um.MaxGap(1000).logcdf(0.004 * 2 * np.pi)
    -22.2164
    """

    _name = "max_gap"

    @staticmethod
    def _angle(arc: NDArray[np.float64]) -> NDArray[np.float64]:
        return (1 - arc) * TURN


class MinGap(_Law):
    """The smallest gap between neighbours among n uniform points on a circle.

    Parameters
    ----------
    n : int or array_like of int
        How many points; arrays broadcast with the arguments of the methods.

    Raises
    ------
    TypeError, ValueError
        If `n` is not made of integers from 1 to 2**53.

    See Also
    --------
    MaxGap : The largest gap.

    Notes
    -----
    P(gap > 2πx) = (1 - nx)^(n-1).

    Examples
    --------
    >>> import numpy as np
    >>> import unitmass as um
    >>> um.MinGap(23).cdf(2 * np.pi / 365)  # birthdays within a day, on a round year
    0.7611
    """

    _name = "min_gap"

    def _draw(self, n: int) -> _core.Experiment:
        # A single point has all of the circle for its gap: the arc that holds it, once around.
        return _core.Experiment.arc(n, min(n, 2))

    def rvs(self, size: int | tuple[int, ...] | None = None, rng: Rng = None, workers: int | None = None) -> Any:
        drawn = super().rvs(size, rng, workers)
        return plain(np.where(np.broadcast_to(self._n == 1, np.shape(drawn)), TURN, drawn))


class CommonSector(_Law):
    """The smallest sector that holds n uniform points on a circle, or in a disk.

    Parameters
    ----------
    n : int or array_like of int
        How many points; arrays broadcast with the arguments of the methods.

    Raises
    ------
    TypeError, ValueError
        If `n` is not made of integers from 1 to 2**53.

    See Also
    --------
    common_sector : Other laws of points, and Monte Carlo.
    MaxGap : What the sector leaves.

    Notes
    -----
    A sector is 2π less a gap: ``CommonSector(n).cdf(theta)`` is ``MaxGap(n).sf(2π - theta)``, and the accuracy is that
    of `MaxGap`.

    Examples
    --------
    >>> import numpy as np
    >>> import unitmass as um
    >>> um.CommonSector(4).cdf([np.pi / 2, np.pi, 3 * np.pi / 2]).round(4)
    array([0.0625, 0.5   , 1.    ])
    >>> (um.CommonSector([3, 6, 12]).ppf(0.5) / np.pi).round(4)  # sectors that hold all points every other time
    array([0.8165, 1.2205, 1.5083])
    """

    _name = "sector"


def _shape(size: Any) -> tuple[int, ...]:
    try:
        shape = tuple(map(operator.index, size if isinstance(size, (tuple, list)) else (size,)))
    except TypeError:
        raise TypeError(f"size: expected integers, found {size!r}") from None
    if min(shape, default=0) < 0 or math.prod(shape) >= 2**62:
        raise ValueError(f"size: must be a shape, found {size!r}")
    return shape
