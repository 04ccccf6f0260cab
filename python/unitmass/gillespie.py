"""Exact stochastic simulation of reaction networks."""

from __future__ import annotations

import math
import operator
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitmass import _bionetgen, _core
from unitmass._expressions import Instruction, Syntax, compiled, unknown
from unitmass._workers import resolve

__all__ = ["Ensemble", "Events", "Moments", "Passages", "ReactionNetwork"]

Rng: TypeAlias = "np.random.Generator | int | None"

_NAME = re.compile(r"[^\W\d]\w*")
_TERM = re.compile(r"(?:(\d+)\s*\*?\s*)?([^\W\d]\w*)")
_NOTHING = {"", "0", "∅"}


@dataclass(frozen=True)
class _Reaction:
    """A reaction as it was read: sides by species and multiplicity; a rate constant or the text of a propensity."""

    reactants: dict[str, int]
    products: dict[str, int]
    rate: str | float | None
    propensity: str | None
    ops: tuple[Instruction, ...] = ()
    factor: float = 1.0

    def __str__(self) -> str:
        return f"{_side(self.reactants)} -> {_side(self.products)}"


def _side(terms: Mapping[str, int]) -> str:
    return " + ".join(name if times == 1 else f"{times} {name}" for name, times in terms.items()) or "∅"


class ReactionNetwork:
    """A network of reactions between species that come in whole numbers.

    Parameters
    ----------
    text : str, optional
        A reaction a line: ``A + B -> C @ k`` has the rate constant k (a number or the name of a parameter) and the
        propensity of mass action; ``-> P : v * A / (K + A)`` has any expression as its propensity. ``A <-> B @ k1, k2``
        stands for two reactions. Nothing, ``0`` or ``∅`` stands for no species; ``#`` begins a comment.
    params : mapping of str to float, optional
        The parameters and their values.
    mass_action : {"combinations", "falling"}, default "combinations"
        The propensity of ``2 A -> B @ k``: the rate times the number of pairs, k n(n-1)/2 (Gillespie 1977), or times
        the number of ordered pairs, k n(n-1). ``repr`` shows every propensity as it is evaluated.

    Raises
    ------
    ValueError
        If a line cannot be read; the message shows it, with a mark where reading failed.

    See Also
    --------
    ReactionNetwork.simulate

    Notes
    -----
    Expressions are made of numbers, parameters, species, ``+ - * / ^`` (or ``**``; powers bind to the right and before
    a minus: -2^2 is -4), comparisons, ``and``, ``or``, ``not``, and the functions ``exp log log10 sqrt abs min max
    floor ceil pow if(c, a, b)`` and ``hill(x, K, n)``, which is x^n / (K^n + x^n).

    References
    ----------
    D. T. Gillespie. Exact stochastic simulation of coupled chemical reactions. J. Phys. Chem. 81, 1977.

    Examples
    --------
    >>> import unitmass as um
    >>> um.ReactionNetwork('''
    ...     S + I -> 2 I   @ beta
    ...     I -> R         @ gamma
    ... ''', params={"beta": 1e-4, "gamma": 0.01})
    ReactionNetwork of 3 species and 2 reactions
      S + I -> 2 I  : beta*S*I
      I -> R        : gamma*I
      beta = 0.0001, gamma = 0.01
    """

    def __init__(
        self,
        text: str = "",
        *,
        params: Mapping[str, float] | None = None,
        mass_action: Literal["combinations", "falling"] = "combinations",
    ) -> None:
        if mass_action not in ("combinations", "falling"):
            raise ValueError(f"mass_action: expected 'combinations' or 'falling', found {mass_action!r}")
        self._mass_action = mass_action
        self._species: dict[str, int] = {}
        self._params: dict[str, float] = {}
        self._initial: dict[str, float] = {}
        self._reactions: list[_Reaction] = []
        for name, value in (params or {}).items():
            if not _NAME.fullmatch(name):
                raise ValueError(f"params: {name!r} is not a name")
            self._params[name] = _finite(value, f"params: {name}")
        self._core: tuple[_core.Network, list[tuple[str | None, float]]] | None = None
        lines = [line.partition("#")[0].rstrip() for line in text.splitlines()]
        read = [_Line(line) for line in lines if line.strip()]
        for line in read:
            for side in (line.reactants, line.products):
                self._declare(side, line)
        for line in read:
            self._reactions += line.reactions(self)

    @classmethod
    def from_matrices(
        cls,
        reactants: ArrayLike,
        products: ArrayLike,
        rates: Sequence[float],
        *,
        species: Sequence[str] | None = None,
        mass_action: Literal["combinations", "falling"] = "combinations",
    ) -> ReactionNetwork:
        """Make a network of mass action from matrices of whole numbers.

        Parameters
        ----------
        reactants, products : array_like of int, shape (reactions, species)
            How many of each species a reaction takes, and makes.
        rates : sequence of float
            The rate constants.
        species : sequence of str, optional
            Their names; X0, X1, … by default.
        mass_action : {"combinations", "falling"}, default "combinations"
            As in `ReactionNetwork`.

        Returns
        -------
        ReactionNetwork
            The network.

        Raises
        ------
        ValueError
            If the shapes do not fit, or a number is negative or not whole.

        Examples
        --------
        >>> import unitmass as um
        >>> um.ReactionNetwork.from_matrices([[2, 0]], [[0, 1]], [0.5], species=["A", "B"])
        ReactionNetwork of 2 species and 1 reaction
          2 A -> B  : 0.5*A*(A-1)/2
        """
        takes, makes = _whole(reactants, "reactants"), _whole(products, "products")
        if takes.ndim != 2 or takes.shape != makes.shape:
            raise ValueError(f"products: expected the shape of reactants, {takes.shape}, found {makes.shape}")
        count, width = takes.shape
        names = [f"X{i}" for i in range(width)] if species is None else list(species)
        if len(names) != width or len(set(names)) != width:
            raise ValueError(f"species: expected {width} different names, found {names}")
        if len(rates) != count:
            raise ValueError(f"rates: expected {count} numbers, found {len(rates)}")
        network = cls(mass_action=mass_action)
        for name in names:
            network._name(name)
        for j in range(count):
            sides = ({n: int(k) for n, k in zip(names, side[j], strict=True) if k} for side in (takes, makes))
            network.add_reaction(*sides, rate=rates[j])
        return network

    @classmethod
    def from_bionetgen(cls, path: str | os.PathLike[str]) -> ReactionNetwork:
        """Read a network in BioNetGen's .net form.

        Parameters
        ----------
        path : str or path
            The file.

        Returns
        -------
        ReactionNetwork
            The network, with the file's names and initial counts. A parameter that the file derives from others keeps
            its value when these are changed. The rates of a file are for ordered pairs: ``mass_action="falling"``.

        Raises
        ------
        ValueError
            If a line cannot be read, or uses what is not supported; the message shows it.
        OSError
            If the file cannot be read.

        Examples
        --------
        >>> import unitmass as um
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> text = '''
        ... begin parameters
        ...   1 k 0.5
        ... end parameters
        ... begin species
        ...   1 A(b) 100
        ...   2 A(b!1).A(b!1) 0
        ... end species
        ... begin reactions
        ...   1 1,1 2 0.5*k
        ... end reactions
        ... '''
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "dimer.net"
        ...     _ = path.write_text(text)
        ...     um.ReactionNetwork.from_bionetgen(path)
        ReactionNetwork of 2 species and 1 reaction
          2 A(b) -> A(b!1).A(b!1)  : 0.5*k*A(b)*(A(b)-1)
          k = 0.5
        """
        net = _bionetgen.read(os.fspath(path))
        network = cls(params=net.params, mass_action="falling")
        network._species = {name: i for i, name in enumerate(net.species)}
        network._initial = dict(zip(net.species, net.counts, strict=True))
        functions: dict[str, list[Instruction]] = {}
        place = {name: i for i, name in enumerate(net.params)}
        for name, text in net.functions.items():
            functions[name] = _inlined(text, place, net.groups, functions)
        for reaction in net.reactions:
            takes, makes = (
                {net.species[i]: times for i, times in side.items()} for side in (reaction.reactants, reaction.products)
            )
            for i in net.fixed:  # as many come back as go
                fixed = net.species[i]
                if takes.get(fixed, 0) != makes.get(fixed, 0):
                    raise ValueError(f"{path}: the fixed species {fixed} would change")
            if reaction.rate in functions:
                ops = [*functions[reaction.rate], ("number", reaction.factor), ("mul", 0.0)]
                for i, times in reaction.reactants.items():
                    for taken in range(times):
                        ops += [("species", float(i)), ("number", float(taken)), ("sub", 0.0), ("mul", 0.0)]
                text = f"{reaction.factor:g}*{reaction.rate}()"
                network._reactions.append(_Reaction(takes, makes, None, text, tuple(ops)))
            elif reaction.rate is None:
                network._reactions.append(_Reaction(takes, makes, _rate(reaction.factor, "rate"), None))
            else:
                network._reactions.append(_Reaction(takes, makes, reaction.rate, None, (), reaction.factor))
        return network

    def add_reaction(
        self,
        reactants: Mapping[str, int],
        products: Mapping[str, int],
        *,
        rate: str | float | None = None,
        propensity: str | None = None,
    ) -> None:
        """Add a reaction.

        Parameters
        ----------
        reactants, products : mapping of str to int
            Species and how many of each there are on the two sides.
        rate : float or str, optional
            A rate constant or the name of a parameter, for a propensity of mass action.
        propensity : str, optional
            Or the whole propensity, an expression.

        Raises
        ------
        ValueError
            Unless one of `rate` and `propensity` is given; if a number is negative, or a name is unknown.

        Examples
        --------
        >>> import unitmass as um
        >>> net = um.ReactionNetwork(params={"k": 0.1})
        >>> net.add_reaction({"A": 2}, {"B": 1}, rate="k")
        >>> net.reactions
        ('2 A -> B',)
        """
        if (rate is None) == (propensity is None):
            raise ValueError("rate: expected either rate or propensity")
        takes, makes = _side_of(reactants, "reactants"), _side_of(products, "products")
        for species in (*takes, *makes):
            self._name(species)
        if propensity is not None:
            ops = self._compiled(propensity, 0)
        else:
            ops = []
            if isinstance(rate, str):
                if rate not in self._params:
                    raise ValueError(f"rate: {unknown('parameter', rate, self._params)}")
            else:
                rate = _rate(rate, "rate")
        self._reactions.append(_Reaction(takes, makes, rate, propensity, tuple(ops)))
        self._core = None

    @property
    def species(self) -> tuple[str, ...]:
        """The names of the species.

        Returns
        -------
        tuple of str
            In their order.
        """
        return tuple(self._species)

    @property
    def params(self) -> dict[str, float]:
        """The parameters and their values.

        Returns
        -------
        dict of str to float
            A copy.
        """
        return dict(self._params)

    @property
    def reactions(self) -> tuple[str, ...]:
        """The reactions, without their rates.

        Returns
        -------
        tuple of str
            In their order.
        """
        return tuple(map(str, self._reactions))

    def __repr__(self) -> str:
        """Show every propensity as it is evaluated."""
        s, r = len(self._species), len(self._reactions)
        lines = [f"ReactionNetwork of {s} species and {r} reaction{'' if r == 1 else 's'}"]
        width = max(map(len, self.reactions), default=0)
        for reaction in self._reactions:
            lines.append(f"  {reaction!s:{width}}  : {reaction.propensity or self._formula(reaction)}")
        if self._params:
            lines.append("  " + ", ".join(f"{name} = {value:g}" for name, value in self._params.items()))
        return "\n".join(lines)

    def _formula(self, reaction: _Reaction) -> str:
        rate = reaction.rate if isinstance(reaction.rate, str) else f"{reaction.rate:g}"
        factors = [rate] if reaction.factor == 1 else [f"{reaction.factor:g}", rate]
        for name, times in reaction.reactants.items():
            factors += [name, *(f"({name}-{taken})" for taken in range(1, times))]
        ways = self._orderings(reaction)
        return "*".join(factors) + (f"/{ways}" if ways > 1 else "")

    def _orderings(self, reaction: _Reaction) -> int:
        if self._mass_action == "falling":
            return 1
        return math.prod(math.factorial(times) for times in reaction.reactants.values())

    # --- reading ------------------------------------------------------------------------------------------------------

    def _name(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"species: {name!r} is not a name")
        if name in self._params:
            raise ValueError(f"species: {name!r} is the name of a parameter")
        self._species.setdefault(name, len(self._species))

    def _declare(self, side: Mapping[str, int], line: _Line) -> None:
        for name in side:
            if name in self._params:
                raise Syntax(f"{name!r} is a parameter and cannot be a species", line.text, line.text.index(name))
            self._name(name)

    def _compiled(self, text: str, start: int) -> list[Instruction]:
        def name(name: str) -> Instruction | None:
            if name in self._species:
                return "species", self._species[name]
            if name in self._params:
                return "constant", list(self._params).index(name)
            return None

        return compiled(text, start, name, [*self._species, *self._params])

    def _network(self) -> tuple[_core.Network, list[tuple[str | None, float]]]:
        """Compile: the parameters come first among the constants, then a constant for each rate that is not one."""
        if self._core is None:
            slots: dict[tuple[str | None, float], int] = {(name, 1.0): i for i, name in enumerate(self._params)}
            rows: list[Any] = []
            for reaction in self._reactions:
                changes = {name: -times for name, times in reaction.reactants.items()}
                for name, times in reaction.products.items():
                    changes[name] = changes.get(name, 0) + times
                form: Any = list(reaction.ops)
                if reaction.rate is not None:
                    share = reaction.factor / self._orderings(reaction)
                    named = isinstance(reaction.rate, str)
                    slot = (str(reaction.rate), share) if named else (None, float(reaction.rate) * share)
                    at = slots.setdefault(slot, len(slots))
                    form = (at, [(self._species[name], times) for name, times in reaction.reactants.items()])
                rows.append((form, [(self._species[name], by) for name, by in changes.items() if by]))
            self._core = _core.Network(len(self._species), len(slots), rows), list(slots)
        return self._core

    # --- running ------------------------------------------------------------------------------------------------------

    def simulate(
        self,
        x0: Mapping[str, ArrayLike] | ArrayLike | None = None,
        *,
        t: ArrayLike,
        n: int = 1,
        first: int = 0,
        rng: Rng = None,
        params: Mapping[str, ArrayLike] | None = None,
        species: Sequence[str] | None = None,
        workers: int | None = None,
        max_events: int | None = None,
    ) -> Ensemble:
        r"""Simulate trajectories and record them at given times.

        Parameters
        ----------
        x0 : mapping of str to int, or array_like, optional
            Counts at time 0, by name, or for all species in their order. Species that are left out start at 0. A value
            may be an array of shape (n,), one for each trajectory.
        t : array_like, shape (times,)
            When to record: not negative, and never falling.
        n : int, default 1
            The number of trajectories.
        first : int, default 0
            The index of the first: trajectory i depends on the seed and i alone, so that runs with `first` and `n` are
            slices of one ensemble.
        rng : int or Generator, optional
            The seed, from 0 to 2**64 - 1, or what draws it; by default the system does.
        params : mapping of str to float or array_like, optional
            Values in the place of the network's; an array of shape (n,) has one for each trajectory.
        species : sequence of str, optional
            What to record; all by default.
        workers : int, optional
            Threads to use; all available ones by default, negative numbers count back from all.
        max_events : int, optional
            A trajectory with more events is an error.

        Returns
        -------
        Ensemble
            The counts, right-continuous: the state at a time includes the events at that very time.

        Raises
        ------
        ValueError
            If a count is negative or not whole, a rate is negative, a name is unknown, or a shape does not fit. During
            the run, if a propensity is negative, infinite or NaN, or a count falls below 0: the message names the
            reaction, the time, the state and the trajectory.
        MemoryError
            If the result is larger than the memory of the machine.

        See Also
        --------
        ReactionNetwork.moments

        Notes
        -----
        Gillespie's direct method: exact, with one SIMD lane a trajectory.

        Examples
        --------
        >>> import unitmass as um
        >>> net = um.ReactionNetwork("A -> B @ 1.5")
        >>> ens = net.simulate({"A": 100}, t=[0, 1, 2], n=1000, rng=7)
        >>> ens.counts.shape
        (1000, 3, 2)
        >>> bool(abs(ens.mean()[1, 0] - 100 * 2.718281828**-1.5) < 1)
        True
        """
        times, n, first = _times(t), _count(n, "n", 0), _count(first, "first", 0)
        recorded, seed = self._recorded(species), _seed(rng)
        ran = self._run(x0, times, n, first, seed, params, recorded, workers, max_events)
        return Ensemble(times, ran.counts, recorded, seed, first, ran.n_events, "lockstep")

    def events(
        self,
        x0: Mapping[str, ArrayLike] | ArrayLike | None = None,
        *,
        t_max: float,
        n: int = 1,
        first: int = 0,
        rng: Rng = None,
        params: Mapping[str, ArrayLike] | None = None,
        workers: int | None = None,
        max_events: int | None = None,
    ) -> Events:
        r"""Simulate trajectories and record every event.

        Parameters
        ----------
        x0 : mapping of str to int, or array_like, optional
            Counts at time 0, as in `simulate`.
        t_max : float
            Until when, that time included.
        n : int, default 1
            The number of trajectories.
        first : int, default 0
            The index of the first; the trajectories are those of `simulate`.
        rng : int or Generator, optional
            The seed, or what draws it.
        params : mapping of str to float or array_like, optional
            Values in the place of the network's.
        workers : int, optional
            Threads to use; all available ones by default.
        max_events : int, optional
            A trajectory with more events is an error.

        Returns
        -------
        Events
            Times, reactions and states.

        Raises
        ------
        ValueError
            As `simulate`.

        Examples
        --------
        >>> import unitmass as um
        >>> events = um.ReactionNetwork("A -> B @ 1").events({"A": 3}, t_max=100, rng=1)
        >>> events.reaction
        array([0, 0, 0])
        >>> events.state
        array([[2, 1],
               [1, 2],
               [0, 3]])
        """
        times, n, first = _times([t_max]), _count(n, "n", 0), _count(first, "first", 0)
        seed = _seed(rng)
        ran = self._run(x0, times, n, first, seed, params, (), workers, max_events, log=True)
        changes = np.zeros((len(self._reactions), len(self._species)), np.int64)
        for j, reaction in enumerate(self._reactions):
            for sign, side in ((-1, reaction.reactants), (1, reaction.products)):
                for name, times_taken in side.items():
                    changes[j, self._species[name]] += sign * times_taken
        offsets = np.concatenate([[0], np.cumsum(ran.n_events)])
        state = np.cumsum(changes[ran.reaction], axis=0)
        before = np.concatenate([np.zeros((1, len(self._species)), np.int64), state])[offsets[:-1]]
        state += np.repeat(self._start(x0, n).astype(np.int64) - before, ran.n_events, axis=0)
        return Events(offsets, ran.time, ran.reaction, state, self.species, seed, first)

    def first_passage(
        self,
        condition: str,
        x0: Mapping[str, ArrayLike] | ArrayLike | None = None,
        *,
        t_max: float,
        n: int = 1,
        first: int = 0,
        rng: Rng = None,
        params: Mapping[str, ArrayLike] | None = None,
        workers: int | None = None,
        max_events: int | None = None,
    ) -> Passages:
        r"""Simulate trajectories until a condition holds.

        Parameters
        ----------
        condition : str
            An expression of species and parameters, such as ``"I == 0"``; it holds where it is not 0.
        x0 : mapping of str to int, or array_like, optional
            Counts at time 0, as in `simulate`.
        t_max : float
            When to give up; a finite number.
        n : int, default 1
            The number of trajectories.
        first : int, default 0
            The index of the first; the trajectories are those of `simulate`.
        rng : int or Generator, optional
            The seed, or what draws it.
        params : mapping of str to float or array_like, optional
            Values in the place of the network's.
        workers : int, optional
            Threads to use; all available ones by default.
        max_events : int, optional
            A trajectory with more events is an error.

        Returns
        -------
        Passages
            Times, infinite where the condition did not come to hold, and the states there.

        Raises
        ------
        ValueError
            If the condition cannot be read; and as `simulate`.

        Examples
        --------
        >>> import unitmass as um
        >>> net = um.ReactionNetwork("A -> @ 1")
        >>> passages = net.first_passage("A < 3", {"A": 10}, t_max=100, n=5, rng=1)
        >>> passages.state.ravel()
        array([2, 2, 2, 2, 2])
        """
        times, n, first = _times([t_max]), _count(n, "n", 0), _count(first, "first", 0)
        seed, until = _seed(rng), self._compiled(condition, 0)
        ran = self._run(x0, times, n, first, seed, params, self.species, workers, max_events, until=until)
        return Passages(ran.stopped, ran.counts[:, 0], self.species, seed, first)

    def _run(
        self,
        x0: Mapping[str, ArrayLike] | ArrayLike | None,
        times: NDArray[np.float64],
        n: int,
        first: int,
        seed: int,
        params: Mapping[str, ArrayLike] | None,
        recorded: tuple[str, ...],
        workers: int | None,
        max_events: int | None,
        *,
        until: list[Instruction] | None = None,
        log: bool = False,
    ) -> _Run:
        network, slots = self._network()
        start, constants = self._start(x0, n), self._constants(slots, params, n)
        counts = _room((n, times.size, len(recorded)))
        events = np.zeros(n, np.uint64)
        stopped = np.empty(0 if until is None else n)
        limit = None if max_events is None else _count(max_events, "max_events", 0)
        failed, logged = network.simulate(
            start,
            constants,
            times,
            [self._species[name] for name in recorded],
            seed,
            first,
            limit,
            until,
            counts,
            events,
            stopped,
            log,
            resolve(workers),
        )
        if failed is not None:
            raise self._failure(*failed)
        time, reaction = logged or (np.empty(0), np.empty(0, np.int64))
        return _Run(counts, events.astype(np.int64), stopped, time, reaction)

    def moments(
        self,
        x0: Mapping[str, ArrayLike] | ArrayLike | None = None,
        *,
        t: ArrayLike,
        n: int,
        first: int = 0,
        rng: Rng = None,
        params: Mapping[str, float] | None = None,
        species: Sequence[str] | None = None,
        workers: int | None = None,
        max_events: int | None = None,
    ) -> Moments:
        r"""Estimate means and covariances, in memory that does not grow with the number of trajectories.

        Parameters
        ----------
        x0 : mapping of str to int, or array_like, optional
            Counts at time 0, the same for all trajectories; as in `simulate`.
        t : array_like, shape (times,)
            When: not negative, and never falling.
        n : int
            The number of trajectories, at least 2.
        first : int, default 0
            The index of the first.
        rng : int or Generator, optional
            The seed, or what draws it.
        params : mapping of str to float, optional
            Values in the place of the network's.
        species : sequence of str, optional
            Of which; all by default.
        workers : int, optional
            Threads to use; all available ones by default.
        max_events : int, optional
            A trajectory with more events is an error.

        Returns
        -------
        Moments
            Means, covariances and standard errors of the means.

        Raises
        ------
        ValueError
            As `simulate`.

        Examples
        --------
        >>> import unitmass as um
        >>> net = um.ReactionNetwork("-> m @ 20 \n m -> @ 1")
        >>> m = net.moments(t=[10.0], n=20_000, rng=1)
        >>> bool(abs(m.mean[0, 0] - 20) < 5 * m.standard_error[0, 0])
        True
        """
        times, n, first = _times(t), _count(n, "n", 2), _count(first, "first", 0)
        seed, names = _seed(rng), self._recorded(species)
        total = np.zeros((times.size, len(names)))
        products = np.zeros((times.size, len(names), len(names)))
        origin: NDArray[np.float64] | None = None
        for part in self._parts(x0, times, n, first, seed, params, names, workers, max_events):
            # Sums about the means of the first part: squares of counts would lose the variance.
            counts = part.astype(np.float64)
            if origin is None:
                origin = counts.mean(axis=0).round()
            counts -= origin
            total += counts.sum(axis=0)
            for k in range(times.size):
                products[k] += counts[:, k].T @ counts[:, k]
        assert origin is not None
        mean = total / n
        cov = (products - n * mean[:, :, None] * mean[:, None, :]) / (n - 1)
        return Moments(times, mean + origin, cov, names, seed, n)

    def histogram(
        self,
        species: str,
        x0: Mapping[str, ArrayLike] | ArrayLike | None = None,
        *,
        t: ArrayLike,
        n: int,
        first: int = 0,
        rng: Rng = None,
        params: Mapping[str, float] | None = None,
        workers: int | None = None,
        max_events: int | None = None,
    ) -> NDArray[np.int64]:
        r"""Count in how many trajectories a species has each count, in memory that does not grow with their number.

        Parameters
        ----------
        species : str
            Which.
        x0 : mapping of str to int, or array_like, optional
            Counts at time 0, the same for all trajectories; as in `simulate`.
        t : array_like, shape (times,)
            When: not negative, and never falling.
        n : int
            The number of trajectories.
        first : int, default 0
            The index of the first.
        rng : int or Generator, optional
            The seed, or what draws it.
        params : mapping of str to float, optional
            Values in the place of the network's.
        workers : int, optional
            Threads to use; all available ones by default.
        max_events : int, optional
            A trajectory with more events is an error.

        Returns
        -------
        ndarray of int64, shape (times, most + 1)
            In entry (k, m), how many trajectories have m at time k; most is the largest count there is.

        Raises
        ------
        ValueError
            As `simulate`.

        Examples
        --------
        >>> import unitmass as um
        >>> um.ReactionNetwork("A -> @ 1").histogram("A", {"A": 2}, t=[0, 100], n=10, rng=1)
        array([[ 0,  0, 10],
               [10,  0,  0]])
        """
        times, n, first = _times(t), _count(n, "n", 0), _count(first, "first", 0)
        names, seed = self._recorded([species]), _seed(rng)
        found = np.zeros((times.size, 1), np.int64)
        for part in self._parts(x0, times, n, first, seed, params, names, workers, max_events):
            size = max(int(part.max(initial=0)) + 1, found.shape[1])
            found = np.pad(found, ((0, 0), (0, size - found.shape[1])))
            for k in range(times.size):
                found[k] += np.bincount(part[:, k, 0], minlength=size)
        return found

    def _parts(
        self,
        x0: Mapping[str, ArrayLike] | ArrayLike | None,
        times: NDArray[np.float64],
        n: int,
        first: int,
        seed: int,
        params: Mapping[str, ArrayLike] | None,
        names: tuple[str, ...],
        workers: int | None,
        max_events: int | None,
    ) -> Iterator[NDArray[np.int64]]:
        """Simulate so many trajectories at a time that their counts are few; what is cut does not depend on workers."""
        size = max(64, _PART_BYTES // (8 * max(1, times.size * len(names))))
        for begin in range(0, n, size):
            count = min(size, n - begin)
            yield self._run(x0, times, count, first + begin, seed, params, names, workers, max_events).counts

    # --- what callers pass --------------------------------------------------------------------------------------------

    def _recorded(self, species: Sequence[str] | None) -> tuple[str, ...]:
        names = tuple(self._species) if species is None else tuple(species)
        for name in names:
            if name not in self._species:
                raise ValueError(f"species: {unknown('species', name, self._species)}")
        return names

    def _start(self, x0: Mapping[str, ArrayLike] | ArrayLike | None, n: int) -> NDArray[np.float64]:
        width = len(self._species)
        initial = np.array([self._initial.get(name, 0.0) for name in self._species])
        if x0 is None:
            return initial
        if not isinstance(x0, Mapping):
            values = _whole(x0, "x0")
            if values.shape not in ((width,), (n, width)):
                raise ValueError(f"x0: expected the shape ({width},) or ({n}, {width}), found {values.shape}")
            return np.ascontiguousarray(values, np.float64)
        for name in x0:
            if name not in self._species:
                raise ValueError(f"x0: {unknown('species', name, self._species)}")
        columns = {self._species[name]: _whole(value, f"x0: {name}") for name, value in x0.items()}
        return _per_trajectory(columns, initial, n, "x0")

    def _constants(
        self, slots: Iterable[tuple[str | None, float]], params: Mapping[str, ArrayLike] | None, n: int
    ) -> NDArray[np.float64]:
        given = {}
        for name, value in (params or {}).items():
            if name not in self._params:
                raise ValueError(f"params: {unknown('parameter', name, self._params)}")
            given[name] = _finite_array(value, f"params: {name}")
        rates = {reaction.rate for reaction in self._reactions if isinstance(reaction.rate, str)}
        for rate in rates:
            _refuse_negative(given.get(rate, self._params[rate]), f"params: {rate}")
        base, columns = [], {}
        for index, (parameter, factor) in enumerate(slots):
            base.append(factor if parameter is None else self._params[parameter] * factor)
            if parameter in given:
                columns[index] = given[parameter] * factor
        return _per_trajectory(columns, np.array(base, np.float64), n, "params")

    def _failure(
        self, kind: str, index: int, value: float, trajectory: int, time: float, state: Sequence[float]
    ) -> ValueError:
        where = ", ".join(f"{name} = {count:g}" for name, count in zip(self._species, state, strict=True))
        where = f"at t = {time:g} in trajectory {trajectory}, where {where}"
        if kind == "propensity":
            return ValueError(f"reaction {index} ({self.reactions[index]}): the propensity is {value:g} {where}")
        if kind == "negative":
            return ValueError(f"species {self.species[index]}: the count is {value:g} {where}")
        return ValueError(f"max_events: there are more {where}")


class _Line:
    """A line of the text: sides, an arrow, and rates or a propensity."""

    def __init__(self, text: str) -> None:
        self.text = text
        arrow = re.search(r"<->|->", text)
        if arrow is None:
            raise Syntax("expected '->' or '<->'", text, len(text))
        self.reversible = arrow[0] == "<->"
        mark = re.compile(r"[@:]").search(text, arrow.end())
        if mark is None:
            raise Syntax("expected '@' and a rate constant, or ':' and a propensity", text, len(text))
        self.kind, self.after = mark[0], mark.end()
        self.reactants = self.side(0, arrow.start())
        self.products = self.side(arrow.end(), mark.start())

    def side(self, start: int, end: int) -> dict[str, int]:
        terms: dict[str, int] = {}
        if self.text[start:end].strip() in _NOTHING:
            return terms
        at = start
        for part in self.text[start:end].split("+"):
            term = _TERM.fullmatch(part.strip())
            if term is None:
                blank = len(part) - len(part.lstrip())
                raise Syntax(f"expected a species, found {part.strip()!r}", self.text, at + blank)
            terms[term[2]] = terms.get(term[2], 0) + int(term[1] or 1)
            at += len(part) + 1
        return {name: times for name, times in terms.items() if times}

    def reactions(self, network: ReactionNetwork) -> list[_Reaction]:
        if self.kind == ":":
            if self.reversible:
                raise Syntax("'<->' takes two rate constants after '@'", self.text, self.after - 1)
            ops = network._compiled(self.text, self.after)
            return [_Reaction(self.reactants, self.products, None, self.text[self.after :].strip(), tuple(ops))]
        rates = [self.rate(match, network) for match in re.finditer(r"[^,]+", self.text[self.after :])]
        if len(rates) != 1 + self.reversible:
            wanted = "two rate constants" if self.reversible else "one rate constant"
            raise Syntax(f"expected {wanted}, found {len(rates)}", self.text, self.after)
        forward = _Reaction(self.reactants, self.products, rates[0], None)
        return [forward, *(_Reaction(self.products, self.reactants, rate, None) for rate in rates[1:])]

    def rate(self, match: re.Match[str], network: ReactionNetwork) -> str | float:
        text = match[0].strip()
        at = self.after + match.start() + len(match[0]) - len(match[0].lstrip())
        if text in network._params:
            return text
        if _NAME.fullmatch(text):
            raise Syntax(unknown("parameter", text, network._params), self.text, at)
        try:
            return _rate(text, "rate")
        except ValueError:
            message = "expected a rate constant: a number that is not negative, or a parameter (':' takes expressions)"
            raise Syntax(message, self.text, at) from None


@dataclass(frozen=True)
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

    def __getitem__(self, name: str) -> NDArray[np.int64]:
        """Return the counts of a species, of shape (n, times)."""
        if name not in self.species:
            raise KeyError(unknown("species", name, self.species))
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
        """
        return np.asarray(self.counts.mean(axis=0), np.float64)

    def var(self) -> NDArray[np.float64]:
        """Find the variances over the trajectories, those of a sample (over n - 1).

        Returns
        -------
        ndarray, shape (times, species)
            The variances.
        """
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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class _Run:
    """What the kernel found."""

    counts: NDArray[np.int64]
    n_events: NDArray[np.int64]
    stopped: NDArray[np.float64]
    time: NDArray[np.float64]
    reaction: NDArray[np.int64]


_PART_BYTES = 1 << 24
"""The size of the counts that `moments` and `histogram` hold at a time."""


def _inlined(
    text: str,
    params: Mapping[str, int],
    groups: Mapping[str, Mapping[int, float]],
    functions: Mapping[str, list[Instruction]],
) -> list[Instruction]:
    """Compile a function of parameters, observables and the functions before it."""
    bodies: list[list[Instruction]] = []

    def name(name: str) -> Instruction | None:
        if name in params:
            return "constant", params[name]
        if name in groups:
            body: list[Instruction] = [("number", 0.0)]
            for index, weight in groups[name].items():
                body += [("species", float(index)), ("number", weight), ("mul", 0.0), ("add", 0.0)]
        elif name in functions:
            body = functions[name]
        else:
            return None
        bodies.append(body)
        return "body", len(bodies) - 1.0

    ops = compiled(text, 0, name, [*params, *groups, *functions])
    return [op for outer in ops for op in (bodies[int(outer[1])] if outer[0] == "body" else [outer])]


def _side_of(terms: Mapping[str, int], name: str) -> dict[str, int]:
    side = {species: operator.index(times) for species, times in terms.items()}
    for species, times in side.items():
        if times < 0:
            raise ValueError(f"{name}: {species} must not be negative, found {times}")
    return {species: times for species, times in side.items() if times}


def _times(t: ArrayLike) -> NDArray[np.float64]:
    times = np.ascontiguousarray(np.atleast_1d(_finite_array(t, "t")))
    if times.ndim != 1:
        raise ValueError(f"t: expected one dimension, found {times.ndim}")
    if times.size and (times[0] < 0 or (np.diff(times) < 0).any()):
        raise ValueError(f"t: must begin at 0 or later and never fall, found {times}")
    return times


def _count(value: Any, name: str, least: int) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, found {value!r}") from None
    if not least <= count < 2**63:
        raise ValueError(f"{name}: must be at least {least}, found {count}")
    return count


def _seed(rng: Rng) -> int:
    if rng is None:
        return secrets.randbits(64)
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**64, dtype=np.uint64, endpoint=False))
    seed = operator.index(rng)
    if not 0 <= seed < 2**64:
        raise ValueError(f"rng: a seed must be from 0 to 2**64 - 1, found {seed}")
    return seed


def _finite(value: Any, name: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name}: must be finite, found {number}")
    return number


def _finite_array(value: ArrayLike, name: str) -> NDArray[np.float64]:
    values = np.asarray(value)
    if values.dtype.kind not in "iufb":
        raise TypeError(f"{name}: expected real numbers, found dtype {values.dtype}")
    values = values.astype(np.float64)
    bad = values[~np.isfinite(values)]
    if bad.size:
        raise ValueError(f"{name}: must be finite, found {bad.flat[0]}")
    return values


def _refuse_negative(value: ArrayLike, name: str) -> None:
    if np.any(np.asarray(value) < 0):
        raise ValueError(f"{name}: a rate must not be negative, found {np.min(value)}")


def _rate(value: Any, name: str) -> float:
    rate = _finite(value, name)
    _refuse_negative(rate, name)
    return rate


def _whole(value: ArrayLike, name: str) -> NDArray[np.float64]:
    values = _finite_array(value, name)
    bad = values[(values < 0) | (values != np.floor(values)) | (values > 2**53)]
    if bad.size:
        raise ValueError(f"{name}: must be whole numbers from 0 to 2**53, found {bad.flat[0]:g}")
    return values


def _per_trajectory(
    columns: Mapping[int, NDArray[np.float64]], base: NDArray[np.float64], n: int, name: str
) -> NDArray[np.float64]:
    """Put values in their columns; in n rows if one of them has a value for each trajectory."""
    for values in columns.values():
        if values.shape not in ((), (n,)):
            raise ValueError(f"{name}: expected a number or an array of shape ({n},), found shape {values.shape}")
    table = base
    if any(values.ndim for values in columns.values()):
        table = np.tile(base, (n, 1))
    for index, values in columns.items():
        table[..., index] = values
    return table


def _room(shape: tuple[int, int, int]) -> NDArray[np.int64]:
    size = 8 * math.prod(shape)
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else size
    message = f"counts: {size / 2**30:.3g} GiB do not fit; `moments` needs no room for trajectories"
    if size > here:
        raise MemoryError(message)
    try:
        return np.empty(shape, np.int64)
    except (MemoryError, ValueError):
        raise MemoryError(message) from None
