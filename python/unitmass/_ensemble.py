"""What simulations of reaction networks return."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitmass._expressions import Instruction, evaluated, unknown

if TYPE_CHECKING:
    import pandas
    import xarray
    from matplotlib.axes import Axes

__all__ = ["Ensemble", "Events", "Moments", "Passages", "Rule", "extra"]

_DRAWN = 8
"""More species in one picture cannot be told apart."""


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule as it was when an ensemble was simulated: the network and the parameters may change after that."""

    ops: tuple[Instruction, ...]
    species: tuple[str, ...]
    params: tuple[str, ...]
    values: tuple[NDArray[np.float64], ...]
    """Of the parameters: a number, or one for each trajectory."""
    variables: frozenset[str]
    """The parameters that events change."""

    def __call__(self, ensemble: Ensemble) -> NDArray[np.float64]:
        """Evaluate it in the states of an ensemble."""

        def species(index: int) -> NDArray[np.int64]:
            if self.species[index] not in ensemble.species:
                raise KeyError(f"the species {self.species[index]!r}, on which it depends, was not recorded")
            return ensemble.counts[:, :, ensemble.species.index(self.species[index])]

        used = {self.params[int(index)] for kind, index in self.ops if kind == "constant"}
        if used & self.variables:
            raise KeyError(f"the parameter {min(used & self.variables)!r}, on which it depends, is changed by events")
        constants = [value[:, None] if value.ndim else value for value in self.values]
        values = evaluated(self.ops, constants, species, ensemble.t)
        return np.ascontiguousarray(np.broadcast_to(np.asarray(values, np.float64), ensemble.counts.shape[:2]))


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Simulated trajectories.

    Attributes
    ----------
    t : ndarray, shape (times,)
        When the counts were recorded.
    counts : ndarray of int64, shape (n, times, species)
        The counts.
    species : tuple of str
        The names along the last axis.
    seed : int
        Reproduces the ensemble, as `rng`.
    first : int
        The index of the first trajectory.
    n_events : ndarray of int64, shape (n,)
        Events up to the last time.
    method : str
        The engine.
    observables : mapping of str to function
        What makes the values of the network's rules and groups; ``ensemble[name]`` calls it.

    See Also
    --------
    ReactionNetwork.simulate

    Examples
    --------
    >>> import unitmass as um
    >>> ens = um.ReactionNetwork("A -> @ 1").simulate({"A": 5}, t=[0, 100], n=2, rng=1)
    >>> ens["A"]
    array([[5, 0],
           [5, 0]])
    """

    t: NDArray[np.float64]
    counts: NDArray[np.int64]
    species: tuple[str, ...]
    seed: int
    first: int
    n_events: NDArray[np.int64]
    method: str
    observables: Mapping[str, Callable[[Ensemble], NDArray[Any]]] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return the counts of a species, or the values of a rule or group, of shape (n, times)."""
        if name in self.observables:
            return self.observables[name](self)
        if name not in self.species:
            raise KeyError(unknown("species", name, [*self.species, *self.observables]))
        return self.counts[:, :, self.species.index(name)]

    def __repr__(self) -> str:
        """Name the size."""
        n, times, species = self.counts.shape
        return f"Ensemble of {n} trajectories, {times} times, {species} species (seed {self.seed}, {self.method})"

    def mean(self) -> NDArray[np.float64]:
        """Average over the trajectories.

        Returns
        -------
        ndarray, shape (times, species)
            The means.

        Raises
        ------
        ValueError
            If there are no trajectories.
        """
        if not len(self.counts):
            raise ValueError("mean: needs at least 1 trajectory, found 0")
        return np.asarray(self.counts.mean(axis=0), np.float64)

    def var(self) -> NDArray[np.float64]:
        """Find the variances over the trajectories, those of a sample (over n - 1).

        Returns
        -------
        ndarray, shape (times, species)
            The variances.

        Raises
        ------
        ValueError
            If there are fewer than two trajectories.
        """
        if len(self.counts) < 2:
            raise ValueError(f"var: needs at least 2 trajectories, found {len(self.counts)}")
        return np.asarray(self.counts.var(axis=0, ddof=1), np.float64)

    def quantile(self, q: ArrayLike) -> NDArray[np.float64]:
        """Find quantiles over the trajectories.

        Parameters
        ----------
        q : array_like
            Which, from 0 to 1.

        Returns
        -------
        ndarray, shape (..., times, species)
            The quantiles, after the shape of `q`.
        """
        return np.asarray(np.quantile(self.counts.astype(np.float64), np.asarray(q, np.float64), axis=0))

    def observed(self) -> dict[str, NDArray[np.float64]]:
        """Evaluate the rules and groups.

        Returns
        -------
        dict of str to ndarray, shape (n, times)
            The values by name; those that depend on a species which was not recorded are left out, as are those that
            depend on a parameter which events change.

        Examples
        --------
        >>> import unitmass as um
        >>> net = um.ReactionNetwork("2 A <-> A2 @ 0.1, 1")
        >>> net.add_rule("total", "A + 2*A2")
        >>> net.simulate({"A": 7}, t=[0, 1], rng=1).observed()
        {'total': array([[7., 7.]])}
        """
        found = {}
        for name in self.observables:
            with suppress(KeyError):
                found[name] = self[name]
        return found

    def to_xarray(self) -> xarray.Dataset:
        """Label the counts with trajectories, times and species.

        Returns
        -------
        xarray.Dataset
            ``counts`` by trajectory, time and species, which are not copied; ``n_events`` by trajectory; the
            observables that `observed` gives, by trajectory and time; in the attributes, ``seed`` and ``method``.
            Trajectories count from `first`, so that the parts of an ensemble can be concatenated. An observable whose
            name is taken by another variable gets an underscore after it.

        Raises
        ------
        ImportError
            If xarray is not installed.

        Examples
        --------
        >>> import unitmass as um
        >>> ens = um.ReactionNetwork("A -> B @ 1").simulate({"A": 9}, t=[0, 50], n=3, first=10, rng=1)
        >>> data = ens.to_xarray()
        >>> data["counts"].dims
        ('trajectory', 'time', 'species')
        >>> int(data["counts"].sel(trajectory=12, time=50, species="B"))
        9
        """
        variables: dict[str, Any] = {
            "counts": (("trajectory", "time", "species"), self.counts),
            "n_events": ("trajectory", self.n_events),
        }
        coords = {"trajectory": self._trajectories, "time": self.t, "species": list(self.species)}
        for name, values in self.observed().items():
            while name in variables or name in coords:
                name += "_"
            variables[name] = (("trajectory", "time"), values)
        attributes = {"seed": self.seed, "method": self.method}
        dataset: xarray.Dataset = extra("xarray", "xarray").Dataset(variables, coords, attributes)
        return dataset

    def to_pandas(self) -> pandas.DataFrame:
        """Make a table with a row for each trajectory and time.

        Returns
        -------
        pandas.DataFrame
            A column for each species and for each observable that `observed` gives; the index has the levels
            ``trajectory``, which counts from `first`, and ``time``.

        Raises
        ------
        ImportError
            If pandas is not installed.

        Examples
        --------
        >>> import unitmass as um
        >>> ens = um.ReactionNetwork("A -> B @ 1").simulate({"A": 9}, t=[0, 50], n=2, rng=1)
        >>> ens.to_pandas()
                         A  B
        trajectory time
        0          0.0   9  0
                   50.0  0  9
        1          0.0   9  0
                   50.0  0  9
        """
        pd = extra("pandas", "xarray")
        index = pd.MultiIndex.from_product([self._trajectories, self.t], names=["trajectory", "time"])
        table: pandas.DataFrame = pd.DataFrame(
            self.counts.reshape(len(index), len(self.species)), index, list(self.species)
        )
        observed = {name: values.ravel() for name, values in self.observed().items()}
        if observed:
            table = pd.concat([table, pd.DataFrame(observed, index)], axis=1)
        return table

    def plot(self, species: str | Sequence[str] | None = None, ax: Axes | None = None, trajectories: int = 10) -> Axes:
        """Draw sample paths, means, and bands of a standard deviation on either side of them.

        Parameters
        ----------
        species : str or sequence of str, optional
            Which species, rules or groups; by default the recorded species, or the first eight of more.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default in a new figure of pyplot.
        trajectories : int, default 10
            How many paths to draw, the first ones.

        Returns
        -------
        matplotlib.axes.Axes
            Where it is drawn.

        Raises
        ------
        ValueError
            If there are no trajectories.
        KeyError
            If a name is unknown.
        ImportError
            If matplotlib is not installed.

        Notes
        -----
        Paths are steps between the recorded times. The means are those of all trajectories.

        Examples
        --------
        >>> import unitmass as um
        >>> from matplotlib.figure import Figure
        >>> ens = um.ReactionNetwork("A -> B @ 1").simulate({"A": 90}, t=range(6), n=100, rng=1)
        >>> ax = ens.plot("B", ax=Figure().subplots())
        >>> ax.get_legend_handles_labels()[1]
        ['B']
        """
        n, drawn = len(self.counts), operator.index(trajectories)
        if n == 0 or drawn < 0:
            raise ValueError(f"trajectories: {drawn} cannot be drawn of {n}")
        names = _drawn(species, self.species)
        values = [self[name] for name in names]
        ax = _axes(ax)
        if n == 1:
            for k, (name, here) in enumerate(zip(names, values, strict=True)):
                ax.step(self.t, here[0], where="post", color=f"C{k}", label=name)
        else:
            for k, here in enumerate(values):
                ax.step(self.t, here[:drawn].T, where="post", color=f"C{k}", lw=0.7, alpha=0.45)
            means, sds = [here.mean(axis=0) for here in values], [here.std(axis=0, ddof=1) for here in values]
            _bands(ax, self.t, means, sds, names)
        return _labelled(ax, species, len(self.species))

    @property
    def _trajectories(self) -> NDArray[np.int64]:
        return np.arange(self.first, self.first + len(self.counts))


@dataclass(frozen=True, eq=False)
class Moments:
    """Means and covariances of an ensemble.

    Attributes
    ----------
    t : ndarray, shape (times,)
        When.
    mean : ndarray, shape (times, species)
        The means.
    cov : ndarray, shape (times, species, species)
        The covariances of a sample.
    species : tuple of str
        The names.
    seed : int
        Reproduces the ensemble, as `rng`.
    n : int
        The number of trajectories.
    first : int
        The index of the first trajectory.
    n_events : int
        Events in all trajectories.
    method : str
        The engine.

    See Also
    --------
    ReactionNetwork.moments

    Examples
    --------
    >>> import unitmass as um
    >>> m = um.ReactionNetwork("A -> @ 1").moments({"A": 5}, t=[0.0], n=10, rng=1)
    >>> m.mean, m.cov
    (array([[5.]]), array([[[0.]]]))
    """

    t: NDArray[np.float64]
    mean: NDArray[np.float64]
    cov: NDArray[np.float64]
    species: tuple[str, ...]
    seed: int
    n: int
    first: int
    n_events: int
    method: str

    @property
    def var(self) -> NDArray[np.float64]:
        """The variances.

        Returns
        -------
        ndarray, shape (times, species)
            The diagonals of `cov`.
        """
        return np.diagonal(self.cov, axis1=1, axis2=2)

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """The standard errors of the means.

        Returns
        -------
        ndarray, shape (times, species)
            The roots of the variances over `n`.
        """
        return np.sqrt(self.var / self.n)

    def to_xarray(self) -> xarray.Dataset:
        """Label the moments with times and species.

        Returns
        -------
        xarray.Dataset
            ``mean``, ``sd`` and ``standard_error`` by time and species, and ``cov`` by time, species and ``other``
            species; in the attributes, ``seed``, ``method``, ``n``, ``first`` and ``n_events``.

        Raises
        ------
        ImportError
            If xarray is not installed.

        Examples
        --------
        >>> import unitmass as um
        >>> m = um.ReactionNetwork("A -> B @ 1").moments({"A": 9}, t=[0, 1], n=100, rng=1)
        >>> data = m.to_xarray()
        >>> cov = data["cov"].sel(time=1)
        >>> bool(cov.sel(species="A", other="B") == -cov.sel(species="A", other="A"))
        True
        """
        values = {"mean": self.mean, "sd": np.sqrt(self.var), "standard_error": self.standard_error}
        variables: dict[str, Any] = {name: (("time", "species"), value) for name, value in values.items()}
        variables["cov"] = ("time", "species", "other"), self.cov
        coords = {"time": self.t, "species": list(self.species), "other": list(self.species)}
        attributes = {name: getattr(self, name) for name in ("seed", "method", "n", "first", "n_events")}
        dataset: xarray.Dataset = extra("xarray", "xarray").Dataset(variables, coords, attributes)
        return dataset

    def plot(self, species: str | Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
        """Draw means, and bands of a standard deviation on either side of them.

        Parameters
        ----------
        species : str or sequence of str, optional
            Which; by default those there are, or the first eight of more.
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default in a new figure of pyplot.

        Returns
        -------
        matplotlib.axes.Axes
            Where it is drawn.

        Raises
        ------
        KeyError
            If a name is unknown.
        ImportError
            If matplotlib is not installed.

        Examples
        --------
        >>> import unitmass as um
        >>> from matplotlib.figure import Figure
        >>> m = um.ReactionNetwork("A -> B @ 1").moments({"A": 90}, t=range(6), n=100, rng=1)
        >>> m.plot(ax=Figure().subplots()).get_legend_handles_labels()[1]
        ['A', 'B']
        """
        names = _drawn(species, self.species)
        for name in names:
            if name not in self.species:
                raise KeyError(unknown("species", name, self.species))
        places, sd = [self.species.index(name) for name in names], np.sqrt(self.var)
        ax = _axes(ax)
        _bands(ax, self.t, [self.mean[:, i] for i in places], [sd[:, i] for i in places], names)
        return _labelled(ax, species, len(self.species))


@dataclass(frozen=True, eq=False)
class Events:
    """Every event of simulated trajectories.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        The events of trajectory i are those from offsets[i] up to, but not including, offsets[i + 1].
    time : ndarray, shape (events,)
        When they happened.
    reaction : ndarray of int64, shape (events,)
        The indices of their reactions.
    state : ndarray of int64, shape (events, species)
        The counts right after them.
    species : tuple of str
        The names along the last axis.
    seed : int
        Reproduces the events, as `rng`.
    first : int
        The index of the first trajectory.
    method : str
        The engine.

    See Also
    --------
    ReactionNetwork.events

    Examples
    --------
    >>> import unitmass as um
    >>> um.ReactionNetwork("A -> @ 1").events({"A": 2}, t_max=100, n=3, rng=1).offsets
    array([0, 2, 4, 6])
    """

    offsets: NDArray[np.int64]
    time: NDArray[np.float64]
    reaction: NDArray[np.int64]
    state: NDArray[np.int64]
    species: tuple[str, ...]
    seed: int
    first: int
    method: str


@dataclass(frozen=True, eq=False)
class Passages:
    """When trajectories first met a condition.

    Attributes
    ----------
    time : ndarray, shape (n,)
        When; infinite where they did not.
    state : ndarray of int64, shape (n, species)
        The counts then, or at the end.
    species : tuple of str
        The names along the last axis.
    seed : int
        Reproduces the passages, as `rng`.
    first : int
        The index of the first trajectory.
    method : str
        The engine.

    See Also
    --------
    ReactionNetwork.first_passage

    Examples
    --------
    >>> import unitmass as um
    >>> um.ReactionNetwork("A -> @ 1").first_passage("A == 2", {"A": 2}, t_max=1, rng=1).time
    array([0.])
    """

    time: NDArray[np.float64]
    state: NDArray[np.int64]
    species: tuple[str, ...]
    seed: int
    first: int
    method: str


def extra(module: str, name: str) -> Any:
    """Import a module; an error names the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(f'{module.partition(".")[0]} is needed for this: pip install "unitmass[{name}]"') from None


# --- pictures ---------------------------------------------------------------------------------------------------------


def _drawn(species: str | Sequence[str] | None, recorded: Sequence[str]) -> list[str]:
    if species is None:
        return list(recorded[:_DRAWN])
    return [species] if isinstance(species, str) else list(species)


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    new: Axes = extra("matplotlib.pyplot", "plot").subplots(layout="constrained")[1]
    return new


def _bands(
    ax: Axes,
    t: NDArray[np.float64],
    means: Sequence[NDArray[np.float64]],
    sds: Sequence[NDArray[np.float64]],
    names: Sequence[str],
) -> None:
    for k, (name, mean, sd) in enumerate(zip(names, means, sds, strict=True)):
        ax.fill_between(t, mean - sd, mean + sd, color=f"C{k}", alpha=0.22, lw=0)
        ax.plot(t, mean, color=f"C{k}", lw=2, label=name)


def _labelled(ax: Axes, species: object, there_are: int) -> Axes:
    ax.set_xlabel("time")
    ax.set_ylabel("count")
    some = species is None and there_are > _DRAWN
    # "best" may take seconds to find.
    ax.legend(title=f"the first {_DRAWN} of {there_are} species" if some else None, loc="upper right")
    return ax
