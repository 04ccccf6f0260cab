"""Reading networks in SBML, the Systems Biology Markup Language."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from types import ModuleType
from typing import Any, Generic, TypeVar

from unitmass import _core
from unitmass._expressions import Instruction, evaluated

__all__ = ["Event", "Sbml", "SbmlReaction", "read"]

T = TypeVar("T")
Ops = list[Instruction]

_NUMBERS = {
    "CONSTANT_PI": math.pi,
    "CONSTANT_E": math.e,
    "CONSTANT_TRUE": 1.0,
    "CONSTANT_FALSE": 0.0,
    "NAME_AVOGADRO": 6.02214179e23,  # SBML's own, of CODATA 2006
}
# Of any number of operands: the instruction between two, and the value of none.
_FOLDED = {
    "PLUS": ("add", 0.0),
    "TIMES": ("mul", 1.0),
    "LOGICAL_AND": ("and", 1.0),
    "LOGICAL_OR": ("or", 0.0),
    "FUNCTION_MIN": ("min", math.inf),
    "FUNCTION_MAX": ("max", -math.inf),
}
# a < b < c is a < b and b < c: the instruction, and whether its operands change places.
_COMPARED = {
    "RELATIONAL_LT": ("lt", False),
    "RELATIONAL_LEQ": ("le", False),
    "RELATIONAL_GT": ("lt", True),
    "RELATIONAL_GEQ": ("le", True),
    "RELATIONAL_EQ": ("eq", False),
    "RELATIONAL_NEQ": ("ne", False),
}
_PLAIN = {
    "MINUS": "sub",
    "DIVIDE": "div",
    "POWER": "pow",
    "FUNCTION_POWER": "pow",
    "FUNCTION_EXP": "exp",
    "FUNCTION_LN": "log",
    "FUNCTION_ABS": "abs",
    "FUNCTION_FLOOR": "floor",
    "FUNCTION_CEILING": "ceil",
    "LOGICAL_NOT": "not",
}
_KNOWN = {"l3v2extendedmath"}
"""Packages: the maths of version 2."""
_HARMLESS = {21121}
"""Errors: a species in a kinetic law that takes no part in the reaction."""
_NEARLY_WHOLE = 1e-9
"""A count may be this far from a whole number, relative to it."""


@dataclass(frozen=True)
class SbmlReaction:
    """Species with their multiplicities, and the propensity."""

    reactants: dict[str, int]
    products: dict[str, int]
    text: str
    ops: Ops


@dataclass(frozen=True)
class Event:
    """What is assigned, amounts and parameters, when a trigger comes true."""

    trigger: Ops
    assignments: dict[str, Ops]
    priority: Ops | None
    initial_value: bool
    persistent: bool
    values_when_triggered: bool
    text: str


@dataclass
class Sbml:
    """What a file holds; instructions have the indices of `species` and `params`."""

    params: dict[str, float] = field(default_factory=dict)
    species: dict[str, float] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)
    rules: dict[str, tuple[str, Ops]] = field(default_factory=dict)
    reactions: list[SbmlReaction] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def read(path: str | bytes) -> Sbml:
    """Read a file; an error names what is wrong in it."""
    libsbml = _libsbml()
    with open(path, "rb"):  # libsbml would not say why it cannot
        document = libsbml.readSBMLFromFile(os.fsdecode(path))
    with _naming(os.fsdecode(path)):
        _check(libsbml, document)
        return _Reader(libsbml, document.getModel()).read()


def _libsbml() -> ModuleType:
    try:
        import libsbml
    except ImportError:
        raise ImportError('python-libsbml is needed for this: pip install "unitmass[sbml]"') from None
    module: ModuleType = libsbml
    return module


@contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _check(libsbml: ModuleType, document: Any) -> None:
    """Refuse what is not valid, and make local parameters global ones."""
    for index in range(document.getNumPlugins()):
        package = document.getPlugin(index).getPackageName()
        if document.getLevel() > 2 and document.getPackageRequired(package) and package not in _KNOWN:
            raise ValueError(f"the package {package} is not supported")
    for category in ("UNITS_CONSISTENCY", "SBO_CONSISTENCY", "MODELING_PRACTICE"):
        document.setConsistencyChecks(getattr(libsbml, f"LIBSBML_CAT_{category}"), False)
    found = [document.getError(i) for i in range(document.getNumErrors())]
    if all(error.getSeverity() < libsbml.LIBSBML_SEV_ERROR for error in found):
        document.checkConsistency()
        found = [document.getError(i) for i in range(document.getNumErrors())]
    for error in found:
        if error.getSeverity() >= libsbml.LIBSBML_SEV_ERROR and error.getErrorId() not in _HARMLESS:
            *_, details = error.getMessage().strip().splitlines()  # before them, the rule of the specification
            raise ValueError(f"line {error.getLine()}: {error.getShortMessage()}: {details.strip()}")
    if document.getModel() is None:
        raise ValueError("there is no model")
    promoting = libsbml.ConversionProperties()
    promoting.addOption("promoteLocalParameters", True)
    if document.convert(promoting) != libsbml.LIBSBML_OPERATION_SUCCESS:
        raise ValueError("libsbml cannot make local parameters global ones")


class _Found(dict[str, T], Generic[T]):
    """What belongs to names, found when it is first asked for."""

    def __init__(self, find: Callable[[str], T]) -> None:
        self.find = find
        self.sought: set[str] = set()

    def __missing__(self, name: str) -> T:
        if name in self.sought:
            raise ValueError(f"{name} depends on itself")
        self.sought.add(name)
        self[name] = self.find(name)
        return self[name]


class _Reader:
    """A name in maths stands for a concentration, where its species has one; the network knows amounts."""

    def __init__(self, libsbml: ModuleType, model: Any) -> None:
        self.libsbml, self.model = libsbml, model
        self.kinds = {getattr(libsbml, name): name[4:] for name in dir(libsbml) if name.startswith("AST_")}
        self.functions = _by_id(model.getListOfFunctionDefinitions())
        self.species = _by_id(model.getListOfSpecies())
        self.compartments = _by_id(model.getListOfCompartments())
        self.parameters = _by_id(model.getListOfParameters())
        self.reactions = _by_id(model.getListOfReactions())
        self.stoichiometries = {
            ref.getId(): ref
            for reaction in self.reactions.values()
            for ref in (*reaction.getListOfReactants(), *reaction.getListOfProducts())
        }
        self.refuse()
        self.rules = {rule.getVariable(): rule for rule in model.getListOfRules()}
        self.assigned = {each.getSymbol(): each for each in model.getListOfInitialAssignments()}
        # Their values at time 0, and the instructions for their values at any time.
        self.value = _Found(self.find_value)
        self.symbol = _Found(self.find_symbol)
        has_value = (name for name, each in self.parameters.items() if each.isSetValue() or name in self.assigned)
        self.params = _indices(name for name in (*has_value, *self.compartments) if name not in self.rules)
        self.states = _indices(name for name in self.species if name not in self.rules)

    def refuse(self) -> None:
        """Refuse what is valid and not supported."""
        model = self.model
        changed = [each.getSymbol() for each in model.getListOfInitialAssignments()]
        for rule in model.getListOfRules():
            if rule.isAlgebraic():
                raise ValueError(
                    f"the algebraic rule {self.libsbml.formulaToL3String(rule.getMath())} is not supported"
                )
            if rule.isRate():
                raise ValueError(f"the rate rule of {rule.getVariable()} is not supported")
            changed.append(rule.getVariable())
        for name, event in self.events():
            if event.isSetDelay():
                raise ValueError(f"event {name}: delays are not supported")
            changed += [each.getVariable() for each in event.getListOfEventAssignments()]
        for name in changed:
            if name in self.stoichiometries:
                raise ValueError(f"{name}: a stoichiometry that is not a plain number is not supported")
        for kind, each in (("model", model), *(("species", each) for each in self.species.values())):
            if each.isSetConversionFactor():
                raise ValueError(f"{kind} {each.getId()}: conversion factors are not supported")
        for name, reaction in self.reactions.items():
            if reaction.getFast():
                raise ValueError(f"reaction {name}: fast reactions are not supported")
            if not reaction.isSetKineticLaw():
                raise ValueError(f"reaction {name}: there is no kinetic law")

    def read(self) -> Sbml:
        sbml = Sbml()
        for name in self.params:
            kind = "compartment" if name in self.compartments else "parameter"
            with _naming(f"{kind} {name}"):
                sbml.params[name] = self.value[name]
        for name in self.states:
            species = self.species[name]
            with _naming(f"species {name}"):
                sbml.species[name] = self.count(name)
            if species.getBoundaryCondition() or species.getConstant():
                sbml.fixed.add(name)
        for name, rule in self.rules.items():
            ops, text = self.amount(name, self.symbol[name], self.text(rule))
            sbml.rules[name] = text, ops
        for name, reaction in self.reactions.items():
            with _naming(f"reaction {name}"):
                sides = self.side(reaction.getListOfReactants()), self.side(reaction.getListOfProducts())
            ops = self.symbol[name]
            with _naming(f"reaction {name}"):
                self.compile(reactions=[(ops, [])])
            sbml.reactions.append(SbmlReaction(*sides, self.text(reaction.getKineticLaw()), ops))
        for name, event in self.events():
            with _naming(f"event {name}"):
                sbml.events.append(self.event(event))
        return sbml

    def compile(self, reactions: list[Any] | None = None, events: list[Any] | None = None) -> None:
        """Let the kernel refuse what it cannot do with time."""
        _core.Network(len(self.states), 0, len(self.params), reactions or [], events or [])

    def events(self) -> Iterator[tuple[str, Any]]:
        """Name the events, which need not have an id."""
        for index, event in enumerate(self.model.getListOfEvents()):
            yield event.getId() or str(index), event

    def event(self, event: Any) -> Event:
        trigger = event.getTrigger()
        if trigger is None:
            raise ValueError("there is no trigger")
        condition = self.maths(trigger)
        self.compile(events=[(condition, True, True, True, None, [])])
        priority = event.getPriority()
        assignments = {each.getVariable(): each for each in event.getListOfEventAssignments()}
        values, texts = {}, []
        for name, assignment in assignments.items():
            ops, text = self.maths(assignment), self.text(assignment)
            if self.has_concentration(name):
                # The concentration is the one after the event, which may change the size, too.
                compartment = self.species[name].getCompartment()
                resized = assignments.get(compartment)
                size = self.symbol[compartment] if resized is None else self.maths(resized)
                ops, text = self.amount(name, ops, text, size)
            elif name not in self.species and name not in self.params:
                raise ValueError(f"{name} has no value")
            values[name] = ops
            texts.append(f"{name} = {text}")
        return Event(
            condition,
            values,
            None if priority is None else self.maths(priority),
            trigger.getInitialValue(),
            trigger.getPersistent(),
            event.getUseValuesFromTriggerTime(),
            f"at ({self.text(trigger)}): {', '.join(texts)}",
        )

    def side(self, references: Any) -> dict[str, int]:
        side: dict[str, int] = {}
        for reference in references:
            name, times = reference.getSpecies(), _stoichiometry(reference)
            if not times.is_integer() or times < 0:
                raise ValueError(f"the stoichiometry of {name} must be a whole number, found {times:g}")
            if times and name in self.states:  # a rule is not changed by reactions
                side[name] = side.get(name, 0) + round(times)
        return side

    # --- species ------------------------------------------------------------------------------------------------------

    def has_concentration(self, name: str) -> bool:
        return name in self.species and not self.species[name].getHasOnlySubstanceUnits()

    def amount(self, name: str, ops: Ops, text: str, size: Ops | None = None) -> tuple[Ops, str]:
        """Turn the value of a name into what the network knows."""
        if not self.has_concentration(name):
            return ops, text
        compartment = self.species[name].getCompartment()
        size = self.symbol[compartment] if size is None else size
        return [*ops, *size, ("mul", 0.0)], f"({text}) * {compartment}"

    def size(self, name: str) -> float:
        """Find the size, at time 0, of a species' compartment."""
        compartment = self.species[name].getCompartment()
        size = self.value[compartment]
        if size <= 0:
            raise ValueError(f"the size of {compartment} must be positive, found {size:g}")
        return size

    def count(self, name: str) -> float:
        """Find how many there are at time 0."""
        amount = self.value[name]
        if self.has_concentration(name):
            amount *= self.size(name)
        whole = round(amount)
        if not 0 <= whole <= 2**53 or abs(amount - whole) > _NEARLY_WHOLE * max(1.0, amount):
            raise ValueError(f"the initial amount must be a whole number from 0 to 2**53, found {amount:g}")
        return float(whole)

    # --- names --------------------------------------------------------------------------------------------------------

    def find_value(self, name: str) -> float:
        value = self.first_value(name)
        if not math.isfinite(value):
            raise ValueError(f"the value of {name} at time 0 must be finite, found {value}")
        return value

    def first_value(self, name: str) -> float:
        source = self.assigned.get(name) or self.rules.get(name)
        if name in self.reactions:
            source = self.reactions[name].getKineticLaw()
        if source is not None:
            with _naming(f"the value of {name}"):
                ops = self.maths(source, lambda name: [("number", self.value[name])])
            return float(evaluated(ops, ()))
        if name in self.species:
            species, has_concentration = self.species[name], self.has_concentration(name)
            if species.isSetInitialConcentration():
                concentration = float(species.getInitialConcentration())
                return concentration if has_concentration else concentration * self.size(name)
            amount = float(species.getInitialAmount()) if species.isSetInitialAmount() else 0.0
            return amount / self.size(name) if has_concentration else amount
        if name in self.compartments:
            compartment = self.compartments[name]
            return float(compartment.getSize()) if compartment.isSetSize() else 1.0
        if name in self.stoichiometries:
            return _stoichiometry(self.stoichiometries[name])
        if name in self.params:
            return float(self.parameters[name].getValue())
        raise ValueError(f"{name} has no value")

    def find_symbol(self, name: str) -> Ops:
        if name in self.rules:
            with _naming(f"the rule of {name}"):
                return self.maths(self.rules[name])
        if name in self.reactions:
            with _naming(f"reaction {name}"):
                return self.maths(self.reactions[name].getKineticLaw())
        if name in self.species:
            ops: Ops = [("species", float(self.states[name]))]
            if self.has_concentration(name):
                ops += [*self.symbol[self.species[name].getCompartment()], ("div", 0.0)]
            return ops
        if name in self.params:
            return [("constant", float(self.params[name]))]
        return [("number", self.value[name])]

    # --- maths --------------------------------------------------------------------------------------------------------

    def text(self, element: Any) -> str:
        """Show an element's maths, with functions and concentrations as they are evaluated."""
        tree = element.getMath().deepCopy()
        if self.calls(tree):  # the replacement is slow
            self.libsbml.SBMLTransforms.replaceFD(tree, self.model.getListOfFunctionDefinitions())
        whole = self.shown(tree)
        nodes = [tree] if whole is tree else []  # in a quotient, the name is done
        while nodes:
            node = nodes.pop()
            for index, child in enumerate(_children(node)):
                quotient = self.shown(child)
                if quotient is child:
                    nodes.append(child)
                else:
                    node.replaceChild(index, quotient)
        return str(self.libsbml.formulaToL3String(whole))

    def calls(self, tree: Any) -> bool:
        nodes = [tree]
        while nodes:
            node = nodes.pop()
            if self.kinds[node.getType()] == "FUNCTION":
                return True
            nodes += _children(node)
        return False

    def shown(self, node: Any) -> Any:
        """Make a quotient of the name of a concentration."""
        name = node.getName()
        if self.kinds[node.getType()] != "NAME" or not self.has_concentration(name):
            return node
        return self.libsbml.parseL3Formula(f"{name} / {self.species[name].getCompartment()}")

    def maths(self, element: Any, symbol: Callable[[str], Ops] | None = None) -> Ops:
        """Compile an element's maths; names are those at any time, unless `symbol` says otherwise."""
        node = element.getMath()
        if node is None:
            raise ValueError("there is no maths")
        return self.ops(node, symbol or self.symbol.__getitem__)

    def ops(self, node: Any, symbol: Callable[[str], Ops]) -> Ops:
        kind = self.kinds[node.getType()]
        if kind == "NAME":
            return symbol(node.getName())
        if kind == "NAME_TIME":
            return [("time", 0.0)]
        if kind in _NUMBERS:
            return [("number", _NUMBERS[kind])]
        if node.isNumber():
            return [("number", _number(node, kind))]
        if kind == "FUNCTION_FACTORIAL":
            return [("number", _factorial(node.getChild(0)))]
        parts = [self.ops(each, symbol) for each in _operands(node, kind in _FOLDED)]
        if kind in _FOLDED:
            name, value = _FOLDED[kind]
            return _folded(parts, name) if parts else [("number", value)]
        if kind in _COMPARED:
            name, swapped = _COMPARED[kind]
            return _folded([_both(b, a, name) if swapped else _both(a, b, name) for a, b in pairwise(parts)], "and")
        if kind == "MINUS" and len(parts) == 1:
            return [*parts[0], ("neg", 0.0)]
        if kind in _PLAIN:
            return [*(op for part in parts for op in part), (_PLAIN[kind], 0.0)]
        if kind in _OTHER:
            return _OTHER[kind](parts)
        if node.getName() in self.functions:
            definition = self.functions[node.getName()]
            names = (definition.getArgument(i).getName() for i in range(definition.getNumArguments()))
            return self.ops(definition.getBody(), dict(zip(names, parts, strict=True)).__getitem__)
        raise ValueError(f"{node.getName()} is not supported")


def _by_id(elements: Any) -> dict[str, Any]:
    return {element.getId(): element for element in elements}


def _indices(names: Iterable[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def _stoichiometry(reference: Any) -> float:
    if reference.isSetStoichiometryMath():
        raise ValueError(f"the stoichiometry of {reference.getSpecies()} is not a plain number")
    return float(reference.getStoichiometry() / reference.getDenominator())


def _number(node: Any, kind: str) -> float:
    if kind == "REAL_E":  # libsbml would multiply
        return float(Decimal(repr(node.getMantissa())).scaleb(node.getExponent()))
    return float(node.getValue())


def _factorial(node: Any) -> float:
    number = float(node.getValue()) if node.isNumber() else math.nan
    if not 0 <= number <= 170 or number != int(number):
        raise ValueError("factorial is not supported but of a whole number from 0 to 170")
    return float(math.factorial(int(number)))


def _children(node: Any) -> list[Any]:
    return [node.getChild(index) for index in range(node.getNumChildren())]


def _operands(node: Any, is_folded: bool) -> list[Any]:
    """List the children; of sums and the like also those of the first child, which libsbml nests without end."""
    rest: list[Any] = []
    while is_folded and node.getNumChildren() > 1 and node.getChild(0).getType() == node.getType():
        node, *others = _children(node)
        rest = others + rest
    return _children(node) + rest


def _both(a: Ops, b: Ops, name: str) -> Ops:
    return [*a, *b, (name, 0.0)]


def _folded(parts: list[Ops], name: str) -> Ops:
    ops = list(parts[0])
    for part in parts[1:]:
        ops += [*part, (name, 0.0)]
    return ops


def _quotient(parts: list[Ops]) -> Ops:
    """Cut off what comes after the point."""
    ratio = _both(parts[0], parts[1], "div")
    zero: Ops = [("number", 0.0)]
    return [*_both(ratio, zero, "lt"), *ratio, ("ceil", 0.0), *ratio, ("floor", 0.0), ("if", 0.0)]


def _remainder(parts: list[Ops]) -> Ops:
    return _both(parts[0], _both(parts[1], _quotient(parts), "mul"), "sub")


def _root(parts: list[Ops]) -> Ops:
    degree, of = parts
    return (
        [*of, ("sqrt", 0.0)]
        if degree == [("number", 2.0)]
        else _both(of, [("number", 1.0), *degree, ("div", 0.0)], "pow")
    )


def _logarithm(parts: list[Ops]) -> Ops:
    base, of = parts
    if base == [("number", 10.0)]:
        return [*of, ("log10", 0.0)]
    return _both([*of, ("log", 0.0)], [*base, ("log", 0.0)], "div")


def _odd(parts: list[Ops]) -> Ops:
    """Tell whether an odd number of them hold; without a comparison, for in one of time the kernel takes no other."""
    held = _folded([[("number", 0.0)], *([*part, ("not", 0.0), ("not", 0.0)] for part in parts)], "add")
    halves: Ops = [*held, ("number", 2.0), ("div", 0.0), ("floor", 0.0)]
    return _both(held, [*halves, ("number", 2.0), ("mul", 0.0)], "sub")


def _piecewise(parts: list[Ops]) -> Ops:
    otherwise: Ops = parts[-1] if len(parts) % 2 else [("number", math.nan)]
    for value, condition in reversed(list(zip(parts[0::2], parts[1::2], strict=False))):
        otherwise = [*condition, *value, *otherwise, ("if", 0.0)]
    return otherwise


_OTHER: dict[str, Callable[[list[Ops]], Ops]] = {
    "FUNCTION_ROOT": _root,
    "FUNCTION_LOG": _logarithm,
    "FUNCTION_QUOTIENT": _quotient,
    "FUNCTION_REM": _remainder,
    "FUNCTION_PIECEWISE": _piecewise,
    "LOGICAL_XOR": _odd,
    "LOGICAL_IMPLIES": lambda parts: _both([*parts[0], ("not", 0.0)], parts[1], "or"),
}
