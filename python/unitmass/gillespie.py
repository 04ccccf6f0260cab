"""Exact stochastic simulation of reaction networks."""

from __future__ import annotations

import gc
import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitmass import _bionetgen, _core, _sbml
from unitmass._arguments import Rng, finite, room, seed_of, whole_number
from unitmass._ensemble import Ensemble, Events, Moments, Passages, Rule
from unitmass._expressions import WORDS, Instruction, Syntax, compiled, monomial, unknown
from unitmass._progress import Progress, Tell, shown
from unitmass._workers import resolve

__all__ = ["Ensemble", "Events", "Moments", "Passages", "ReactionNetwork"]

T = TypeVar("T")
Method: TypeAlias = Literal["auto", "lockstep", "sparse", "next_reaction"]

_NAME = re.compile(r"[^\W\d]\w*")
_TERM = re.compile(r"(?:(\d+)\s*\*?\s*)?([^\W\d]\w*)")
_MOST = 2**31 - 1
_MOST_COMBINED = 20
"""Its factorial is the last that 64 bits hold."""
_NOTHING = {"", "0", "∅"}
_PRODUCT = re.compile(r"(?:\b[\d.]+[eE][-+]\d+|[\w.*/ ]|\(\))+")
"""A rate that needs no brackets in a product."""
_DEFINITION = re.compile(r"\s*(?P<name>[^\W\d]\w*)\s*(?P<zero>\(\s*0\s*\)\s*)?(?P<sign>:?=)\s*(?P<value>.*)")


@dataclass(frozen=True)
class _Reaction:
    """A reaction as it was read: sides by species and multiplicity; a rate constant or the text of a propensity."""

    reactants: dict[str, int]
    products: dict[str, int]
    rate: str | float | None
    propensity: str | None
    ops: tuple[Instruction, ...] = ()
    factor: float = 1.0

    def __post_init__(self) -> None:
        for name, times in (*self.reactants.items(), *self.products.items()):
            if times > _MOST:
                raise ValueError(f"{name}: a multiplicity must be at most {_MOST}, found {times}")
        for name, times in self.reactants.items():
            if self.propensity is None and times > _MOST_COMBINED:
                raise ValueError(f"{name}: mass action takes at most {_MOST_COMBINED} of a species, found {times}")

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

        Other lines may define what the reactions need: ``k = 0.5`` a parameter, ``A(0) = 100`` a count at time 0, and
        ``total := A + 2*A2`` a rule, as `add_rule` does.
    params : mapping of str to float, optional
        The parameters and their values, in place of those in the text.
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
    a minus: -2^2 is -4), comparisons, which cannot be chained, ``and``, ``or``, ``not``, and the functions ``exp log
    log10 sqrt abs min max floor ceil pow if(c, a, b)`` and ``hill(x, K, n)``, which is x^n / (K^n + x^n).

    References
    ----------
    Gillespie, D. T. (1977). Exact stochastic simulation of coupled chemical reactions. J. Phys. Chem. 81.

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
        self._fixed: set[str] = set()
        self._rules: dict[str, tuple[str, list[Instruction]]] = {}
        self._events: list[_sbml.Event] = []
        self._reactions: list[_Reaction] = []
        self._places: dict[str, int] = {}
        given = _named(params, "params")
        for name, value in given.items():
            self._params[_free(name, "params")] = finite(value, f"params: {name}")
        self._core: tuple[_core.Network, list[tuple[str | None, float]], set[str]] | None = None
        lines = [line.partition("#")[0].rstrip() for line in text.splitlines()]
        definitions = [match for line in lines if "->" not in line and (match := _DEFINITION.fullmatch(line))]
        defining = {match.string for match in definitions}
        read = [_Line(line) for line in lines if line.strip() and line not in defining]
        for line in read:
            for side in (line.reactants, line.products):
                self._declare(side, line)
        for match in sorted(definitions, key=lambda match: match["sign"] == ":="):  # rules last: they use the others
            self._define(match, given)
        for line in read:
            self._reactions += line.reactions(self)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is compiled."""
        return {**self.__dict__, "_core": None}

    @classmethod
    def from_text(
        cls,
        path: str | os.PathLike[str],
        *,
        params: Mapping[str, float] | None = None,
        mass_action: Literal["combinations", "falling"] = "combinations",
    ) -> ReactionNetwork:
        """Read a network from a file of text.

        Parameters
        ----------
        path : str or path
            The file, in UTF-8: reactions, parameters, counts at time 0 and rules, as in `ReactionNetwork`.
        params : mapping of str to float, optional
            Parameters and their values, in place of those in the file.
        mass_action : {"combinations", "falling"}, default "combinations"
            As in `ReactionNetwork`.

        Returns
        -------
        ReactionNetwork
            The network.

        Raises
        ------
        ValueError
            If a line cannot be read; the message shows it, with a mark where reading failed.
        OSError
            If the file cannot be read.

        Examples
        --------
        >>> import unitmass as um
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> text = '''
        ... k = 0.5                # a parameter
        ... A(0) = 100             # a count at time 0
        ... 2 A <-> A2  @ k, 1
        ... total := A + 2*A2      # a rule
        ... '''
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "dimer.txt"
        ...     _ = path.write_text(text)
        ...     net = um.ReactionNetwork.from_text(path)
        >>> net.simulate(t=[0, 1], rng=1)["total"]
        array([[100., 100.]])
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{os.fspath(path)}: is not text in UTF-8: {error}") from None
        try:
            return cls(text, params=params, mass_action=mass_action)
        except ValueError as error:
            error.args = (f"{os.fspath(path)}: {error}",)
            raise

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
        if takes.ndim != 2:
            raise ValueError(f"reactants: expected two dimensions, found {takes.ndim}")
        if takes.shape != makes.shape:
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
            The network, with the file's names and initial counts; its groups and functions are rules, which an ensemble
            knows by name. A parameter that the file derives from others keeps its value when these are changed. The
            rates of a file are for ordered pairs: ``mass_action="falling"``. Species marked with $ are fixed.

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
        network = cls(mass_action="falling")
        network._params = net.params
        network._species = {name: i for i, name in enumerate(net.species)}
        network._initial, network._fixed = net.species, net.fixed
        network._rules = net.rules
        species = list(net.species)
        form: tuple[str | float | None, str | None, tuple[Instruction, ...], float]
        for reaction in net.reactions:
            takes, makes = (
                {species[i]: times for i, times in side.items()} for side in (reaction.reactants, reaction.products)
            )
            if reaction.ops:
                text = network._formula(reaction.text, takes)
                form = None, text, (*reaction.ops, *network._combinations(takes)), 1.0
            elif reaction.rate is None:
                form = reaction.factor, None, (), 1.0
            else:
                form = reaction.rate, None, (), reaction.factor
            try:
                network._reactions.append(_Reaction(takes, makes, *form))
            except ValueError as error:
                raise ValueError(f"{os.fspath(path)}: in reactions: {error}") from None
        return network

    @classmethod
    def from_sbml(cls, path: str | os.PathLike[str]) -> ReactionNetwork:
        """Read a network in SBML, of any level.

        Parameters
        ----------
        path : str or path
            The file; it may be compressed (.gz, .bz2, .zip).

        Returns
        -------
        ReactionNetwork
            The network, with the file's ids. Species are amounts, also those that are concentrations in the file's
            maths, where they are divided by the size of their compartment, as ``repr`` shows. Compartments and local
            parameters (``reaction_parameter``) are parameters. Assignment rules are rules, which an ensemble knows by
            name; those of species give amounts, too.

        Raises
        ------
        ImportError
            Without python-libsbml, which the extra ``sbml`` brings.
        ValueError
            If the file is not valid, or uses what is not supported; the message names the element.
        OSError
            If the file cannot be read.

        Notes
        -----
        A kinetic law is the propensity, as it is; of a reversible reaction it must not become negative. An initial
        amount must be a whole number, 0 if there is none; a compartment without a size has size 1. What the file
        assigns at time 0 keeps its value when parameters that it depends on are changed.

        Supported are function definitions, local parameters, initial assignments, assignment rules, compartments
        (events may change their sizes), boundary and constant species, events with priorities, and in maths piecewise,
        relations, logic, time in rates and triggers, and the functions of `ReactionNetwork`.

        Refused are delays, algebraic and rate rules, fast reactions, reactions without a kinetic law, stoichiometries
        that are not plain whole numbers, conversion factors, trigonometry, required packages such as comp, and triggers
        that compare time with what depends on time. Constraints and units are not looked at.

        References
        ----------
        Hucka, M. et al. The Systems Biology Markup Language (SBML): language specification for level 3 version 2 core.
        J. Integr. Bioinform. 15, 2018.

        Examples
        --------
        >>> import unitmass as um
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> text = '''<?xml version="1.0" encoding="UTF-8"?>
        ... <sbml xmlns="http://www.sbml.org/sbml/level2/version4" level="2" version="4"><model>
        ...   <listOfCompartments><compartment id="cell" size="2"/></listOfCompartments>
        ...   <listOfSpecies><species id="A" compartment="cell" initialAmount="30"/></listOfSpecies>
        ...   <listOfReactions><reaction id="decay" reversible="false">
        ...     <listOfReactants><speciesReference species="A"/></listOfReactants>
        ...     <kineticLaw>
        ...       <math xmlns="http://www.w3.org/1998/Math/MathML"><apply><times/><ci>k</ci><ci>A</ci></apply></math>
        ...       <listOfParameters><parameter id="k" value="0.1"/></listOfParameters>
        ...     </kineticLaw>
        ...   </reaction></listOfReactions>
        ... </model></sbml>
        ... '''
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "decay.xml"
        ...     _ = path.write_text(text)
        ...     um.ReactionNetwork.from_sbml(path)
        ReactionNetwork of 1 species and 1 reaction
          A -> ∅  : decay_k * (A / cell)
          decay_k = 0.1, cell = 2
        """
        sbml = _sbml.read(os.fspath(path))
        network = cls()
        network._params = sbml.params
        network._species = {name: i for i, name in enumerate(sbml.species)}
        network._initial, network._fixed = sbml.species, sbml.fixed
        network._rules = sbml.rules
        network._events = sbml.events
        for reaction in sbml.reactions:
            sides = reaction.reactants, reaction.products
            network._reactions.append(_Reaction(*sides, None, reaction.text, tuple(reaction.ops)))
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
        if isinstance(rate, str):
            if rate not in self._params:
                raise ValueError(f"rate: {unknown('parameter', rate, self._params)}")
        elif rate is not None:
            rate = _rate(rate, "rate")
        there = len(self._species)
        try:
            for species in (*takes, *makes):
                self._name(species)
            ops = [] if propensity is None else self._compiled(_text(propensity, "propensity"), 0)
            self._reactions.append(_Reaction(takes, makes, rate, propensity, tuple(ops)))
        except (TypeError, ValueError):
            for species in list(self._species)[there:]:
                del self._species[species]
            raise
        self._core = None

    def add_species(self, name: str, initial: int | None = None, *, fixed: bool | None = None) -> None:
        """Add a species, or say more of one that is there.

        Parameters
        ----------
        name : str
            Its name.
        initial : int, optional
            Its count at time 0, where a run gives none; by default what it was, at first 0.
        fixed : bool, optional
            Whether reactions leave its count as it is: a species of unlimited supply, or one that is not followed. By
            default what it was, at first not.

        Raises
        ------
        ValueError
            If the name is that of a parameter or rule, or the count is negative or not whole.

        Examples
        --------
        >>> import unitmass as um
        >>> net = um.ReactionNetwork("Food + A -> 2 A @ 0.1")
        >>> net.add_species("Food", 5, fixed=True)
        >>> net.simulate({"A": 1}, t=[10], rng=1)["Food"]
        array([[5]])
        """
        count = self._initial.get(name, 0.0) if initial is None else float(_whole(initial, "initial"))
        self._name(name)
        self._initial[name] = count
        if fixed is not None:
            (self._fixed.add if fixed else self._fixed.discard)(name)
        self._core = None

    def add_rule(self, name: str, expression: str) -> None:
        """Give a name to an expression, for other expressions and for the results of `simulate`.

        Parameters
        ----------
        name : str
            Its name.
        expression : str
            An expression of what the network knows so far.

        Raises
        ------
        ValueError
            If the name is taken, or the expression cannot be read.

        Examples
        --------
        >>> import unitmass as um
        >>> net = um.ReactionNetwork("2 A <-> A2 @ 0.1, 1")
        >>> net.add_rule("total", "A + 2*A2")
        >>> net.simulate({"A": 7}, t=[0, 1, 2], rng=1)["total"]
        array([[7., 7., 7.]])
        """
        if _free(name, "rule") in self._rules or name in self._params or name in self._species:
            raise ValueError(f"rule: {name!r} is the name of a species, parameter or rule")
        self._rules[name] = expression, self._compiled(_text(expression, "expression"), 0)

    def add_event(
        self,
        trigger: str,
        assignments: Mapping[str, str | float],
        *,
        priority: str | float | None = None,
        initial_value: bool = True,
        persistent: bool = True,
        values_when_triggered: bool = True,
    ) -> None:
        """Add what happens at a time, or whenever a state is entered: an event as SBML defines it, without delay.

        Parameters
        ----------
        trigger : str
            The condition, such as ``"t >= 22.5"`` or ``"A > 30"``. Time can be compared with what does not depend on
            it. The event is triggered whenever the condition comes true, and again when it has been false in between.
        assignments : mapping of str to str or float
            Species and parameters, and the expressions whose values they get.
        priority : str or float, optional
            Of events that are triggered at the same time, the highest comes first, then those without one; those of
            equal priority come in random order.
        initial_value : bool, default True
            What the trigger was before time 0: with False, a trigger that is true at time 0 has come true then.
        persistent : bool, default True
            Whether the event comes although others, at the same time, have made the trigger false again.
        values_when_triggered : bool, default True
            Whether values are those of when it was triggered, and not those that other events at the same time have
            left.

        Raises
        ------
        ValueError
            If an expression cannot be read, or a name is unknown.

        Examples
        --------
        >>> import unitmass as um
        >>> net = um.ReactionNetwork("A -> @ 0.1")
        >>> net.add_event("t >= 22.5", {"A": 50})
        >>> net.simulate({"A": 10}, t=[22.5], rng=1)["A"]
        array([[50]])
        """
        ops = {}
        for name, value in assignments.items():
            if name not in self._species and name not in self._params:
                raise ValueError(f"assignments: {unknown('name', name, [*self._species, *self._params])}")
            ops[name] = self._compiled(str(value), 0)
        text = f"at ({trigger}): " + ", ".join(f"{name} = {value}" for name, value in assignments.items())
        event = _sbml.Event(
            self._compiled(_text(trigger, "trigger"), 0),
            ops,
            None if priority is None else self._compiled(str(priority), 0),
            initial_value,
            persistent,
            values_when_triggered,
            text,
        )
        self._events.append(event)
        self._core = None
        try:
            self._network()  # which refuses triggers that compare time in other ways
        except ValueError:
            self._events.pop()
            raise

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

    @property
    def initial(self) -> dict[str, int]:
        """The counts at time 0, where a run gives none.

        Returns
        -------
        dict of str to int
            By species.
        """
        return {name: int(self._initial.get(name, 0)) for name in self._species}

    @property
    def rules(self) -> dict[str, str]:
        """The rules: names of expressions.

        Returns
        -------
        dict of str to str
            Names and expressions.
        """
        return {name: text for name, (text, _) in self._rules.items()}

    def __repr__(self) -> str:
        """Show every propensity as it is evaluated."""
        s, r = len(self._species), len(self._reactions)
        lines = [f"ReactionNetwork of {s} species and {r} reaction{'' if r == 1 else 's'}"]
        width = max(map(len, self.reactions), default=0)
        for reaction in self._reactions:
            lines.append(f"  {reaction!s:{width}}  : {reaction.propensity or self._mass_action_of(reaction)}")
        lines += [f"  {name} = {text}" for name, text in self.rules.items()]
        lines += [f"  {event.text}" for event in self._events]
        if self._fixed:
            lines.append("  fixed: " + ", ".join(name for name in self._species if name in self._fixed))
        if self._params:
            lines.append("  " + ", ".join(f"{name} = {value:g}" for name, value in self._params.items()))
        return "\n".join(lines)

    def _mass_action_of(self, reaction: _Reaction) -> str:
        rate = reaction.rate if isinstance(reaction.rate, str) else f"{reaction.rate:g}"
        return self._formula(rate if reaction.factor == 1 else f"{reaction.factor:g}*{rate}", reaction.reactants)

    def _formula(self, rate: str, reactants: Mapping[str, int]) -> str:
        """Show the propensity of mass action."""
        factors = [f"({rate})" if reactants and not _PRODUCT.fullmatch(rate) else rate]
        for name, times in reactants.items():
            factors += [name, *(f"({name}-{taken})" for taken in range(1, times))]
        ways = self._orderings(reactants)
        return "*".join(factors) + (f"/{ways}" if ways > 1 else "")

    def _orderings(self, reactants: Mapping[str, int]) -> int:
        if self._mass_action == "falling":
            return 1
        return math.prod(map(math.factorial, reactants.values()))

    # --- reading ------------------------------------------------------------------------------------------------------

    def _name(self, name: str) -> None:
        _free(name, "species")
        for kind, taken in (("parameter", self._params), ("rule", self._rules)):
            if name in taken:
                raise ValueError(f"species: {name!r} is the name of a {kind}")
        self._species.setdefault(name, len(self._species))

    def _declare(self, side: Mapping[str, int], line: _Line) -> None:
        for name in side:
            at = next(match.start() for match in _NAME.finditer(line.text) if match[0] == name)
            if name in self._params:
                raise Syntax(f"{name!r} is a parameter and cannot be a species", line.text, at)
            _marked(line.text, at, self._name, name)

    def _define(self, match: re.Match[str], params: Mapping[str, float]) -> None:
        """Take a parameter, unless it is among `params`, a count or a rule from a line."""
        line, name, at = match.string, match["name"], match.start("name")
        _marked(line, at, _free, name, "name")
        if match["zero"] and name not in self._species:
            raise Syntax(unknown("species", name, self._species), line, at)
        if not match["zero"] and name in self._species:
            raise Syntax(f"{name!r} is a species: its count at time 0 is '{name}(0) = {match['value']}'", line, at)
        if name in self._rules or name in (self._initial if match["zero"] else self._params.keys() - params.keys()):
            raise Syntax(f"{name!r} is defined before", line, at)
        if match["sign"] == ":=":
            if match["zero"] or name in self._params:
                raise Syntax(f"{name!r} cannot be a rule", line, at)
            self._rules[name] = match["value"], self._compiled(line, match.start("value"))
            return
        try:
            number = finite(match["value"], name)
            if match["zero"]:
                self._initial[name] = float(_whole(number, name))
            else:
                self._params.setdefault(name, number)
        except ValueError:
            wanted = "a whole number that is not negative" if match["zero"] else "a number"
            raise Syntax(f"expected {wanted}", line, match.start("value")) from None

    def _compiled(self, text: str, start: int) -> list[Instruction]:
        return compiled(text, start, self._named, [*self._species, *self._params, *self._rules, "t"])

    def _named(self, name: str) -> list[Instruction] | None:
        if name in self._species:
            return [("species", self._species[name])]
        if name in self._params:
            if len(self._places) != len(self._params):  # parameters are added and never taken away
                self._places = {name: i for i, name in enumerate(self._params)}
            return [("constant", self._places[name])]
        if name in self._rules:
            return self._rules[name][1]
        return [("time", 0.0)] if name == "t" else None

    def _combinations(self, reactants: Mapping[str, int]) -> list[Instruction]:
        """Multiply what is on the stack by the counts of mass action."""
        ops: list[Instruction] = []
        for name, times in reactants.items():
            for taken in range(times):
                ops += [("species", float(self._species[name])), ("number", float(taken)), ("sub", 0.0), ("mul", 0.0)]
        return ops

    @property
    def _variables(self) -> list[str]:
        """The parameters that events change: to the kernel, species of any value."""
        assigned = {name for event in self._events for name in event.assignments}
        return [name for name in self._params if name in assigned]

    def _placed(self) -> Callable[[Iterable[Instruction]], list[Instruction]]:
        """Make what reads the parameters that events change from where they are."""
        variables = self._variables
        if not variables:
            return list
        numbers = {name: i for i, name in enumerate(self._params)}
        moved: dict[Instruction, Instruction] = {
            ("constant", numbers[name]): ("species", float(place))
            for place, name in enumerate(variables, len(self._species))
        }
        return lambda ops: [moved.get(op, op) for op in ops]

    def _network(self) -> tuple[_core.Network, list[tuple[str | None, float]], set[str]]:
        """Compile.

        Beside the network: parameters and factors that make its constants, the parameters themselves first; and the
        parameters that are rates of mass action.
        """
        if self._core is None:
            with _uncollected():
                self._core = self._built()
        return self._core

    def _built(self) -> tuple[_core.Network, list[tuple[str | None, float]], set[str]]:
        slots: dict[tuple[str | None, float], int] = {(name, 1.0): i for i, name in enumerate(self._params)}
        places = {name: len(self._species) + i for i, name in enumerate(self._variables)}
        rows: list[Any] = []
        rates: set[str] = set()
        names, placed, species = list(self._params), self._placed(), self._species
        for reaction in self._reactions:
            moved = self._moved(reaction)
            rate, factor = reaction.rate, reaction.factor / self._orderings(reaction.reactants)
            taken = {species[name]: times for name, times in reaction.reactants.items()}
            ops = placed(reaction.ops)
            found = None if rate is not None else monomial(ops)
            if found and all(-by <= found[2].get(at, 0) for at, by in moved):
                factor, constant, taken = found
                rate = 1.0 if constant is None else names[constant]
            form: Any
            if rate is None:
                form = ops
            elif rate in places:
                form = [("species", float(places[str(rate)])), ("number", factor), ("mul", 0.0)]
                form += self._combinations(reaction.reactants)
            else:
                slot = (rate, factor) if isinstance(rate, str) else (None, float(rate) * factor)
                rates.update([rate] if isinstance(rate, str) else [])
                form = (slots.setdefault(slot, len(slots)), list(taken.items()))
            rows.append((form, moved))
        events = [
            (
                placed(event.trigger),
                event.initial_value,
                event.persistent,
                event.values_when_triggered,
                None if event.priority is None else placed(event.priority),
                [
                    (self._species.get(name, places.get(name, 0)), placed(ops))
                    for name, ops in event.assignments.items()
                ],
            )
            for event in self._events
        ]
        width = len(self._species) + len(places)
        return _core.Network(width, len(places), len(slots), rows, events), list(slots), rates

    def _moved(self, reaction: _Reaction) -> list[tuple[int, int]]:
        """Find the species whose counts a reaction changes, and by how much."""
        changes = {name: -times for name, times in reaction.reactants.items()}
        for name, times in reaction.products.items():
            changes[name] = changes.get(name, 0) + times
        return [(self._species[name], by) for name, by in changes.items() if by and name not in self._fixed]

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
        method: Method = "auto",
        workers: int | None = None,
        progress: Progress = False,
        max_events: int | None = None,
    ) -> Ensemble:
        r"""Simulate trajectories and record them at given times.

        Parameters
        ----------
        x0 : mapping of str to int, or array_like, optional
            Counts at time 0, by name, or for all species in their order. Species that are left out start at the
            network's own count. A value may be an array of shape (n,), one for each trajectory. A pandas Series is a
            mapping, and so is a DataFrame, by its columns.
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
        method : {"auto", "lockstep", "sparse", "next_reaction"}, default "auto"
            The engine: all propensities, many trajectories at a time; rejection from bounds, for large networks; a
            clock for each reaction, the only one for time in rates and for events. The choice depends on the network
            alone. Engines agree in law; as a rule, a seed gives other trajectories in each.
        workers : int, optional
            Threads to use; all available ones by default, negative numbers count back from all.
        progress : bool or callable, default False
            True draws a bar on a terminal; a callable receives how many trajectories are done, and their number.
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
            If the result is larger than the memory that is free.

        See Also
        --------
        ReactionNetwork.moments

        Notes
        -----
        All engines are exact: they draw from the law of Gillespie's direct method. "auto" takes the lockstep engine as
        long as evaluating all reactions for an event is faster than the fixed cost of an event in the sparse one; the
        page on benchmarks has the measurements.

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
        times, n, first = _times(t), whole_number(n, "n", 0), whole_number(first, "first", 0)
        recorded, seed = self._recorded(species), seed_of(rng)
        engine = self._method(method)
        with shown(progress, n) as tell:
            ran = self._run(x0, times, n, first, seed, params, recorded, engine, workers, max_events, tell)
        observables = self._snapshot(_named(params, "params"))
        return Ensemble(times, ran.counts, recorded, seed, first, ran.n_events, engine, observables)

    def events(
        self,
        x0: Mapping[str, ArrayLike] | ArrayLike | None = None,
        t_max: float = math.inf,
        n: int = 1,
        rng: Rng = None,
        *,
        first: int = 0,
        params: Mapping[str, ArrayLike] | None = None,
        method: Method = "auto",
        workers: int | None = None,
        max_events: int | None = None,
    ) -> Events:
        r"""Simulate trajectories and record every event.

        Parameters
        ----------
        x0 : mapping of str to int, or array_like, optional
            Counts at time 0, as in `simulate`.
        t_max : float
            Until when, that time included; a finite number.
        n : int, default 1
            The number of trajectories.
        rng : int or Generator, optional
            The seed, or what draws it.
        first : int, default 0
            The index of the first; the trajectories are those of `simulate`.
        params : mapping of str to float or array_like, optional
            Values in the place of the network's.
        method : {"auto", "lockstep", "sparse", "next_reaction"}, default "auto"
            The engine; see `simulate`.
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
        times, n, first = _times([t_max], "t_max"), whole_number(n, "n", 0), whole_number(first, "first", 0)
        seed, width = seed_of(rng), len(self._species)
        engine = self._method(method)
        ran = self._run(x0, times, n, first, seed, params, (), engine, workers, max_events, None, log=True)
        changes = np.zeros((len(self._reactions), width), np.int64)
        for j, reaction in enumerate(self._reactions):
            for species, by in self._moved(reaction):
                changes[j, species] = by
        offsets = np.concatenate([[0], np.cumsum(ran.n_events)])
        by_reaction = ran.reaction < len(self._reactions)
        state = changes[np.where(by_reaction, ran.reaction, 0)] if len(changes) else np.zeros((len(by_reaction), width))
        state = state.astype(np.int64)
        state[~by_reaction] = ran.jumps.reshape(-1, width + len(self._variables))[:, :width]
        state = np.cumsum(state, axis=0)
        before = np.concatenate([np.zeros((1, width), np.int64), state])[offsets[:-1]]
        state += np.repeat(self._start(x0, n).astype(np.int64) - before, ran.n_events, axis=0)
        return Events(offsets, ran.time, ran.reaction, state, self.species, seed, first, engine)

    def first_passage(
        self,
        condition: str,
        x0: Mapping[str, ArrayLike] | ArrayLike | None = None,
        t_max: float = math.inf,
        n: int = 1,
        rng: Rng = None,
        *,
        first: int = 0,
        params: Mapping[str, ArrayLike] | None = None,
        method: Method = "auto",
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
        rng : int or Generator, optional
            The seed, or what draws it.
        first : int, default 0
            The index of the first; the trajectories are those of `simulate`.
        params : mapping of str to float or array_like, optional
            Values in the place of the network's.
        method : {"auto", "lockstep", "sparse", "next_reaction"}, default "auto"
            The engine; see `simulate`.
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
        times, n, first = _times([t_max], "t_max"), whole_number(n, "n", 0), whole_number(first, "first", 0)
        seed, until = seed_of(rng), self._placed()(self._compiled(_text(condition, "condition"), 0))
        engine = self._method(method, until)
        ran = self._run(x0, times, n, first, seed, params, self.species, engine, workers, max_events, None, until=until)
        return Passages(ran.stopped, ran.counts[:, 0], self.species, seed, first, engine)

    def _run(
        self,
        x0: Mapping[str, ArrayLike] | ArrayLike | None,
        times: NDArray[np.float64],
        n: int,
        first: int,
        seed: int,
        params: Mapping[str, ArrayLike] | None,
        recorded: tuple[str, ...],
        method: str,
        workers: int | None,
        max_events: int | None,
        tell: Tell,
        *,
        until: list[Instruction] | None = None,
        log: bool = False,
    ) -> _Run:
        network, slots, rates = self._network()
        start, constants = self._with_variables(self._start(x0, n), params, n), self._constants(slots, rates, params, n)
        counts = room((n, times.size, len(recorded)), "counts", "`moments` needs no room for trajectories")
        events = np.zeros(n, np.uint64)
        stopped = np.empty(0 if until is None else n)
        limit = None if max_events is None else whole_number(max_events, "max_events", 0)
        failed, logged = network.simulate(
            method,
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
            tell,
        )
        if failed is not None:
            raise self._failure(*failed)
        time, reaction, jumps = logged or (np.empty(0), np.empty(0, np.int64), np.empty(0))
        return _Run(counts, events.astype(np.int64), stopped, time, reaction, jumps)

    def moments(
        self,
        x0: Mapping[str, ArrayLike] | ArrayLike | None = None,
        t: ArrayLike = (),
        n: int = 0,
        rng: Rng = None,
        *,
        first: int = 0,
        params: Mapping[str, float] | None = None,
        species: Sequence[str] | None = None,
        method: Method = "auto",
        workers: int | None = None,
        progress: Progress = False,
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
        rng : int or Generator, optional
            The seed, or what draws it.
        first : int, default 0
            The index of the first.
        params : mapping of str to float, optional
            Values in the place of the network's.
        species : sequence of str, optional
            Of which; all by default.
        method : {"auto", "lockstep", "sparse", "next_reaction"}, default "auto"
            The engine; see `simulate`.
        workers : int, optional
            Threads to use; all available ones by default.
        progress : bool or callable, default False
            As in `simulate`.
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
        times, n, first = _times(t), whole_number(n, "n", 2), whole_number(first, "first", 0)
        seed, names = seed_of(rng), self._recorded(species)
        total = np.zeros((times.size, len(names)))
        products = room((times.size, len(names), len(names)), "cov", "choose fewer with `species`").view(np.float64)
        products[:] = 0
        origin: NDArray[np.float64] | None = None
        events = 0
        for part in self._parts(x0, times, n, first, seed, params, names, method, workers, max_events, progress):
            # Sums about the means of the first part: squares of counts would lose the variance.
            counts = part.counts.astype(np.float64)
            if origin is None:
                origin = counts.mean(axis=0).round()
            counts -= origin
            total += counts.sum(axis=0)
            events += int(part.n_events.sum())
            for k in range(times.size):
                products[k] += counts[:, k].T @ counts[:, k]
        assert origin is not None
        mean = total / n
        cov = (products - n * mean[:, :, None] * mean[:, None, :]) / (n - 1)
        return Moments(times, mean + origin, cov, names, seed, n, first, events, self._method(method))

    def histogram(
        self,
        species: str,
        x0: Mapping[str, ArrayLike] | ArrayLike | None = None,
        t: ArrayLike = (),
        n: int = 0,
        rng: Rng = None,
        *,
        first: int = 0,
        params: Mapping[str, float] | None = None,
        method: Method = "auto",
        workers: int | None = None,
        progress: Progress = False,
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
            The number of trajectories, at least 1.
        rng : int or Generator, optional
            The seed, or what draws it.
        first : int, default 0
            The index of the first.
        params : mapping of str to float, optional
            Values in the place of the network's.
        method : {"auto", "lockstep", "sparse", "next_reaction"}, default "auto"
            The engine; see `simulate`.
        workers : int, optional
            Threads to use; all available ones by default.
        progress : bool or callable, default False
            As in `simulate`.
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
        times, n, first = _times(t), whole_number(n, "n", 1), whole_number(first, "first", 0)
        names, seed = self._recorded([species]), seed_of(rng)
        found = np.zeros((times.size, 1), np.int64)
        for part in self._parts(x0, times, n, first, seed, params, names, method, workers, max_events, progress):
            size = max(int(part.counts.max(initial=0)) + 1, found.shape[1])
            if size > found.shape[1]:
                hint = f"{species} comes to {size - 1}: `simulate` and `moments` take less"
                wider = room((times.size + 1, size), "histogram", hint)[:-1]  # a row more, for what is added
                wider[:, : found.shape[1]], wider[:, found.shape[1] :] = found, 0
                found = wider
            for k in range(times.size):
                found[k] += np.bincount(part.counts[:, k, 0], minlength=size)
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
        method: str,
        workers: int | None,
        max_events: int | None,
        progress: Progress,
    ) -> Iterator[_Run]:
        """Simulate so many trajectories at a time that their counts are few; what is cut does not depend on workers."""
        x0 = _by_name(x0)
        for name, value in _named(params, "params").items():
            if np.ndim(value):
                raise ValueError(
                    f"params: {name}: expected a number for all trajectories, found shape {np.shape(value)}"
                )
        if (isinstance(x0, Mapping) and any(map(np.ndim, x0.values()))) or self._start(x0, n).ndim > 1:
            raise ValueError("x0: expected counts that are the same for all trajectories")
        size = max(64, _PART_BYTES // (8 * max(1, times.size * len(names))))
        method, events = self._method(method), 0
        with shown(progress, n) as tell:
            for begin in range(0, n, size):
                count = min(size, n - begin)
                here = None if tell is None else partial(_tell_more, tell, begin, events)
                ran = self._run(x0, times, count, first + begin, seed, params, names, method, workers, max_events, here)
                events += int(ran.n_events.sum())
                yield ran

    def _snapshot(self, params: Mapping[str, ArrayLike]) -> dict[str, Rule]:
        """Copy the rules, and all that they need."""
        if not self._rules:
            return {}
        values = tuple(np.array(params.get(name, value), np.float64) for name, value in self._params.items())
        known = self.species, tuple(self._params), values, frozenset(self._variables)
        return {name: Rule(tuple(ops), *known) for name, (_, ops) in self._rules.items()}

    def _method(self, method: str, until: list[Instruction] | None = None) -> str:
        if method == "auto":
            return self._network()[0].fastest(until)
        if method not in get_args(Method):
            raise ValueError(f"method: expected one of {', '.join(get_args(Method))}, found {method!r}")
        return method

    # --- what callers pass --------------------------------------------------------------------------------------------

    def _recorded(self, species: Sequence[str] | None) -> tuple[str, ...]:
        if isinstance(species, str):
            raise TypeError(f"species: expected a sequence of names, found the string {species!r}")
        if species is not None and not isinstance(species, Iterable):
            raise TypeError(f"species: expected a sequence of names, found {species!r}")
        if species is None:
            return self.species
        names = tuple(_text(name, "species", "a name") for name in species)
        for name in names:
            if name not in self._species:
                raise ValueError(f"species: {unknown('species', name, self._species)}")
            if names.count(name) > 1:
                raise ValueError(f"species: {name!r} is named twice")
        return names

    def _start(self, x0: Mapping[str, ArrayLike] | ArrayLike | None, n: int) -> NDArray[np.float64]:
        width = len(self._species)
        initial = np.array([self._initial.get(name, 0.0) for name in self._species])
        x0 = _by_name(x0)
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

    def _with_variables(
        self, start: NDArray[np.float64], params: Mapping[str, ArrayLike] | None, n: int
    ) -> NDArray[np.float64]:
        """Append the parameters that events change."""
        names = self._variables
        if not names:
            return start
        given = _named(params, "params")
        columns = {i: _finite_array(given[name], f"params: {name}") for i, name in enumerate(names) if name in given}
        values = _per_trajectory(columns, np.array([self._params[name] for name in names]), n, "params")
        if start.ndim == values.ndim == 1:
            return np.concatenate([start, values])
        each = [np.broadcast_to(part, (n, part.shape[-1])) for part in (start, values)]
        return np.ascontiguousarray(np.concatenate(each, axis=1))

    def _constants(
        self,
        slots: Iterable[tuple[str | None, float]],
        rates: Iterable[str],
        params: Mapping[str, ArrayLike] | None,
        n: int,
    ) -> NDArray[np.float64]:
        given = {}
        for name, value in _named(params, "params").items():
            if name not in self._params:
                raise ValueError(f"params: {unknown('parameter', name, self._params)}")
            given[name] = _finite_array(value, f"params: {name}")
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
        names = [*self._species, *self._variables]
        shown = list(range(len(names)))
        if len(names) > _SHOWN:
            mine = {index} if kind == "count" else set()
            if kind == "propensity":
                reaction = self._reactions[index]
                mine = {self._species[name] for name in reaction.reactants | reaction.products}
            shown = [*sorted(mine), *(i for i in shown if i not in mine and state[i])]
        where = ", ".join(f"{names[i]} = {state[i]:g}" for i in shown[:_SHOWN])
        if len(shown) > _SHOWN:
            where += f" and {len(shown) - _SHOWN} more"
        where = f"at t = {time:g} in trajectory {trajectory}, where {where}"
        if kind == "propensity":
            return ValueError(f"reaction {index} ({self.reactions[index]}): the propensity is {value:g} {where}")
        if kind == "count":
            return ValueError(f"species {names[index]}: the count is {value:g} {where}")
        if kind == "endless":
            return ValueError(f"events: they trigger one another without end {where}")
        return ValueError(f"max_events: there are more {where}")


class _Line:
    """A line of the text: sides, an arrow, and rates or a propensity."""

    def __init__(self, text: str) -> None:
        self.text = text
        arrow = re.search(r"<->|->", text)
        if arrow is None:
            message = "expected '->' or '<->' (or 'name = number', 'species(0) = count', 'name := expression')"
            raise Syntax(message, text, len(text))
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
            times = int((term[1] or "1")[:20])
            if not 1 <= times <= _MOST:
                message = f"{term[2]}: a multiplicity must be from 1 to {_MOST}, found {times}"
                raise Syntax(message, self.text, at + len(part) - len(part.lstrip()))
            terms[term[2]] = terms.get(term[2], 0) + times
            at += len(part) + 1
        return terms

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
        sides = self.reactants, self.products
        forward = _marked(self.text, 0, _Reaction, *sides, rates[0], None)
        return [forward, *(_marked(self.text, 0, _Reaction, *sides[::-1], rate, None) for rate in rates[1:])]

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
class _Run:
    """What the kernel found."""

    counts: NDArray[np.int64]
    n_events: NDArray[np.int64]
    stopped: NDArray[np.float64]
    time: NDArray[np.float64]
    reaction: NDArray[np.int64]
    jumps: NDArray[np.float64]


_SHOWN = 12
"""The counts of more species would hide what is wrong."""
_PART_BYTES = 1 << 24
"""The size of the counts that `moments` and `histogram` hold at a time."""


def _tell_more(tell: Callable[[int, int], object], trajectories: int, events: int, done: int, more: int) -> None:
    tell(trajectories + done, events + more)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from looking through what many small objects make: most of the time, else."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _by_name(values: Any) -> Any:
    """Make a mapping of what is like one: a Series, or a table whose columns have names."""
    return {name: values[name] for name in values.keys()} if hasattr(values, "keys") else values  # noqa: SIM118


def _named(values: Any, argument: str) -> dict[str, Any]:
    found = _by_name({} if values is None else values)
    if not isinstance(found, dict):
        raise TypeError(f"{argument}: expected a mapping from names to values, found {values!r}")
    return found


def _text(value: Any, argument: str, wanted: str = "an expression") -> str:
    if not isinstance(value, str):
        raise TypeError(f"{argument}: expected {wanted}, a string, found {value!r}")
    return value


def _marked(text: str, at: int, make: Callable[..., T], *args: Any) -> T:
    """Show the place in a text of what is refused."""
    try:
        return make(*args)
    except Syntax:
        raise
    except ValueError as error:
        raise Syntax(str(error), text, at) from None


def _free(name: str, argument: str) -> str:
    if not _NAME.fullmatch(_text(name, argument, "a name")):
        raise ValueError(f"{argument}: {name!r} is not a name")
    if name == "t":
        raise ValueError(f"{argument}: 't' is the time")
    if name in WORDS:
        raise ValueError(f"{argument}: {name!r} is an operator")
    return name


def _side_of(terms: Mapping[str, int], name: str) -> dict[str, int]:
    side = {}
    for species, times in _named(terms, name).items():
        try:
            side[species] = operator.index(times)
        except TypeError:
            raise TypeError(f"{name}: {species} must be an integer, found {times!r}") from None
        if times < 0:
            raise ValueError(f"{name}: {species} must not be negative, found {times}")
    return {species: times for species, times in side.items() if times}


def _times(t: ArrayLike, name: str = "t") -> NDArray[np.float64]:
    times = np.ascontiguousarray(np.atleast_1d(_finite_array(t, name)))
    if times.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, found {times.ndim}")
    if times.size and (times[0] < 0 or (np.diff(times) < 0).any()):
        raise ValueError(f"{name}: must begin at 0 or later and never fall, found {times}")
    return times


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
    rate = finite(value, name)
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
