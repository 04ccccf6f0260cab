"""What questions about sectors return."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unitmass import _core
from unitmass._arguments import finite

__all__ = ["SectorEstimate", "plain"]

Interval: TypeAlias = Literal["wilson", "clopper-pearson", "jeffreys"]


@dataclass(frozen=True, eq=False)
class SectorEstimate:
    """A probability, and how it was found.

    Attributes
    ----------
    estimate : float or ndarray
        The probability, in the shape of the angles.
    standard_error : float or ndarray
        Its standard error; 0 if it is exact.
    hits : int or ndarray or None
        In how many trials it happened; None unless `method` is ``"mc"``.
    trials : int
        How many trials there were; 0 if it is exact.
    exact : float or ndarray or None
        The exact probability, NaN where none is known; None if it is known nowhere.
    method : {"exact", "mc", "karp-luby"}
        How it was found.
    seed : int or None
        With the arguments of the call, it gives the same trials again: pass it as `rng`.
    bias : float
        At most so much is the estimate off for what points are rounded to.
    stopped : {"trials", "rel_se", "max_seconds"} or None
        What ended the trials. After ``"max_seconds"`` the seed alone does not give the same again.
    blocks : int or None
        Of how many blocks the whole run is made; None if its trials are not counted beforehand.
    counts : ndarray or None
        For ``"karp-luby"``, how often 1, 2, … points had all others within theta clockwise.
    bound : float or None
        For ``"karp-luby"``, n (θ/2π)^(n-1): how many such points are expected, and the most that the estimate can be.
    """

    estimate: Any
    standard_error: Any
    hits: Any
    trials: int
    exact: Any
    method: Literal["exact", "mc", "karp-luby"]
    seed: int | None
    bias: float = 0.0
    stopped: Literal["trials", "rel_se", "max_seconds"] | None = None
    blocks: int | None = None
    counts: NDArray[np.uint64] | None = None
    bound: float | None = None

    def __repr__(self) -> str:
        if self.method == "exact":
            return f"SectorEstimate({self.estimate!r}, method='exact')"
        parts = {"exact": self.exact, "z_score": self.z_score, "hits": self.hits}
        shown = [f"{name}={value!r}" for name, value in parts.items() if value is not None]
        shown += [f"trials={self.trials}", f"method={self.method!r}", f"seed={self.seed}"]
        error = f"{self.standard_error:.2g}" if np.ndim(self.standard_error) == 0 else repr(self.standard_error)
        return f"SectorEstimate({self.estimate!r} ± {error}, {', '.join(shown)})"

    @property
    def reproducible(self) -> bool:
        """Whether the seed gives the same again."""
        return self.stopped != "max_seconds"

    @property
    def z_score(self) -> Any:
        """How many standard errors the estimate is off; None if no exact value is known.

        The error is that which the exact value gives the share of hits, else the estimated one.
        """
        if self.exact is None or self.method == "exact":
            return None
        if self.trials == 0:
            return plain(np.nan * np.asarray(self.exact))
        off = np.subtract(self.estimate, self.exact)
        if self.method == "mc" and self.stopped != "rel_se":
            error = np.sqrt(np.multiply(self.exact, np.subtract(1, self.exact)) / self.trials)
        else:
            error = np.asarray(self.standard_error)
        # Where nothing varies, nothing can be off but for rounding; weighed trials just may not have varied.
        beyond = np.copysign(np.inf, off) if self.method == "mc" else np.full(np.shape(off), np.nan)
        z = np.where(np.abs(off) <= 1e-9 * np.abs(self.exact), 0.0, beyond)
        np.divide(off, error, out=z, where=error > 0)
        z[np.isnan(off)] = np.nan
        return plain(z)

    def ci(self, level: float = 0.95, method: Interval = "wilson") -> tuple[Any, Any]:
        """Give the ends of a confidence interval.

        Parameters
        ----------
        level : float, default 0.95
            The probability that such intervals hold the true value; above 0, at most 1 - 1e-12.
        method : {"wilson", "clopper-pearson", "jeffreys"}, default "wilson"
            Of hits in trials: by the score test, by both tails of the binomial law (never below `level`), or by
            Jeffreys's prior. It does not matter for the other methods.

        Returns
        -------
        low, high : float or ndarray
            In the shape of `estimate`.

        Raises
        ------
        ValueError
            If `level` is not above 0 and at most 1 - 1e-12, or `method` is none of these.

        Notes
        -----
        Without any hit, the intervals of Wilson and Jeffreys are from 0 to ``1 - (1 - level)**(1/trials)``, the
        one-sided bound; and likewise where every trial is a hit. That of Clopper and Pearson stays at both tails.

        For ``"karp-luby"``, whose trials are means of 1/N for N from 1 to K, it is the estimate and its standard error
        times the normal quantile, within the bounds that are certain. While fewer than 30 trials differ from the rest,
        it is that of Clopper and Pearson for the share (1 - 1/N)/(1 - 1/K), which varies less than hits do.

        References
        ----------
        Brown, L. D., Cai, T. T. and DasGupta, A. (2001). Interval estimation for a binomial proportion. Statistical
        Science 16.

        Examples
        --------
        >>> import unitmass as um
        >>> ducks = um.common_sector(4, 3.0, trials=10_000, rng=1)
        >>> low, high = ducks.ci()
        >>> low < ducks.estimate < high
        True
        """
        level = _level(level)
        if method not in ("wilson", "clopper-pearson", "jeffreys"):
            raise ValueError(f"method: expected 'wilson', 'clopper-pearson' or 'jeffreys', found {method!r}")
        if self.method == "exact":
            return plain(np.array(self.estimate)), plain(np.array(self.estimate))
        if self.trials == 0:
            return plain(np.zeros(np.shape(self.estimate))), plain(np.ones(np.shape(self.estimate)))
        if self.method == "karp-luby":
            return self._of_leaders(level)
        hits = np.asarray(self.hits, np.float64)
        low, high = _INTERVALS[method](hits, float(self.trials), level)
        alone = -np.expm1(np.log1p(-level if method != "clopper-pearson" else -(1 + level) / 2) / self.trials)
        low = np.where(hits == 0, 0.0, np.where(hits == self.trials, 1 - alone, low))
        high = np.where(hits == 0, alone, np.where(hits == self.trials, 1.0, high))
        return plain(low), plain(high)

    def band(self, level: float = 0.95) -> tuple[Any, Any]:
        """Give the ends of a band that holds the true values of all angles together.

        Parameters
        ----------
        level : float, default 0.95
            The probability that such bands hold all true values; above 0, at most 1 - 1e-12.

        Returns
        -------
        low, high : float or ndarray
            In the shape of `estimate`.

        Raises
        ------
        ValueError
            If `level` is not above 0 and at most 1 - 1e-12, or the estimate is not one of hits.

        Notes
        -----
        The estimates are those of a distribution function, by one run of T trials: all are within sqrt(ln(2/a) / 2T),
        with probability 1 - a at least.

        References
        ----------
        Massart, P. (1990). The tight constant in the Dvoretzky-Kiefer-Wolfowitz inequality. Annals of Probability 18.

        Examples
        --------
        >>> import numpy as np
        >>> import unitmass as um
        >>> found = um.common_sector(4, np.linspace(0, 6, 50), trials=10_000, rng=1)
        >>> low, high = found.band()
        >>> bool(((low <= found.exact) & (found.exact <= high)).all())
        True
        """
        level = _level(level)
        if self.hits is None or not self.trials or self.stopped == "rel_se":
            found = "rel_se" if self.stopped == "rel_se" else f"method {self.method!r}, {self.trials} trials"
            raise ValueError(f"band: needs hits in a fixed number of trials, found {found}")
        reach = np.sqrt(np.log(2 / (1 - level)) / (2 * self.trials))
        values = np.asarray(self.estimate)
        return plain(np.maximum(values - reach, 0)), plain(np.minimum(values + reach, 1))

    def _of_leaders(self, level: float) -> tuple[float, float]:
        assert self.counts is not None
        assert self.bound is not None
        most = self.counts.size
        if self.trials - self.counts.max() >= 30 or most == 1:
            reach = NormalDist().inv_cdf((1 + level) / 2) * self.standard_error
            low, high = self.estimate - reach, self.estimate + reach
        else:
            weights = (1 - 1 / np.arange(1, most + 1)) / (1 - 1 / most)
            low, high = _clopper_pearson(np.asarray(self.counts @ weights), float(self.trials), level)
            # Without any, or with nothing else, one of the quantiles is not defined.
            low, high = (0.0 if low <= 0 else float(low)), (1.0 if high <= 0 else float(high))
            low, high = (self.bound * (1 - (1 - 1 / most) * share) for share in (high, low))
        return max(low, self.bound / most), min(high, self.bound, 1.0)


def _level(level: float) -> float:
    level = finite(level, "level")
    if not 0 < level <= 1 - 1e-12:
        raise ValueError(f"level: must be above 0 and at most 1 - 1e-12, found {level}")
    return level


def plain(values: Any) -> Any:
    """Give a number for an array without dimensions."""
    return values.item() if values.ndim == 0 else values


def _wilson(hits: NDArray[np.float64], trials: float, level: float) -> tuple[Any, Any]:
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = hits / trials
    reach = np.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2)))
    middle = share + z2 / (2 * trials)
    return (middle - reach) / (1 + z2 / trials), (middle + reach) / (1 + z2 / trials)


def _clopper_pearson(hits: NDArray[np.float64], trials: float, level: float) -> tuple[Any, Any]:
    return _quantiles(hits, trials - hits + 1, hits + 1, trials - hits, level)


def _jeffreys(hits: NDArray[np.float64], trials: float, level: float) -> tuple[Any, Any]:
    return _quantiles(hits + 0.5, trials - hits + 0.5, hits + 0.5, trials - hits + 0.5, level)


def _quantiles(a_low: Any, b_low: Any, a_high: Any, b_high: Any, level: float) -> tuple[Any, Any]:
    # Where there is no hit, or nothing else, a bound takes the place of the quantile.
    def quantile(a: Any, b: Any, p: float) -> NDArray[np.float64]:
        found = [_core.beta_quantile(a, b, p) if a > 0 and b > 0 else 0.0 for a, b in zip(a.flat, b.flat, strict=True)]
        return np.array(found).reshape(a.shape)

    return quantile(a_low, b_low, (1 - level) / 2), quantile(a_high, b_high, (1 + level) / 2)


_INTERVALS = {"wilson": _wilson, "clopper-pearson": _clopper_pearson, "jeffreys": _jeffreys}
