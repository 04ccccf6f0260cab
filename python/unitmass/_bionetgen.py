"""Reading networks in BioNetGen's .net form."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from unitmass._expressions import WORDS, Instruction, compiled, evaluated, monomial, unknown

__all__ = ["Net", "NetReaction", "read"]

Ops = list[Instruction]

_MARK = re.compile(r"(begin|end)\s+(.*)")
_NAME = re.compile(r"[^\W\d]\w*")
_CALL = re.compile(r"([^\W\d]\w*)\(\)")


@dataclass(frozen=True)
class NetReaction:
    """Indices of species with their multiplicities; the rate is a factor times a parameter, or an expression."""

    reactants: dict[int, int]
    products: dict[int, int]
    factor: float
    rate: str | None
    text: str = ""
    ops: Ops = field(default_factory=list)


@dataclass
class Net:
    """What a file holds; instructions have the indices of `species` and `params`."""

    params: dict[str, float] = field(default_factory=dict)
    species: dict[str, float] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)
    rules: dict[str, tuple[str, Ops]] = field(default_factory=dict)
    reactions: list[NetReaction] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    indices: dict[str, int] = field(default_factory=dict)
    """Of the parameters, when all are read."""
    functions: dict[str, str] = field(default_factory=dict)
    """What is not compiled yet: a function may use those that come after it."""
    rates: dict[str, tuple[float, str | None, str, Ops]] = field(default_factory=dict)
    """Those that have been read, by their text."""

    def number(self, text: str) -> float:
        """Evaluate an expression of parameters."""

        def name(name: str) -> Ops | None:
            return [("number", self.params[name])] if name in self.params else None

        number = float(evaluated(compiled(text, 0, name, self.params), ()))
        if not math.isfinite(number):
            raise ValueError(f"must be finite, found {number}")
        return number

    def compiled(self, text: str) -> Ops:
        """Compile an expression of parameters, groups and functions."""
        return compiled(text, 0, self.named, [*self.params, *self.rules, *self.functions])

    def named(self, name: str) -> Ops | None:
        if name == "time()":
            return [("time", 0.0)]
        name = name.removesuffix("()")
        if name in self.functions:
            self.define(name)
        if name in self.rules:
            return self.rules[name][1]
        return [("constant", float(self.indices[name]))] if name in self.params else None

    def define(self, name: str) -> None:
        """Compile a function, and before it those that it uses."""
        text = self.functions.pop(name)
        if not text:
            raise ValueError(f"{name} depends on itself")
        self.functions[name] = ""
        ops = self.compiled(text)
        del self.functions[name]
        self.rules[name] = text, ops

    def add(self, name: str) -> None:
        """Refuse a name that is taken."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a name")
        if name in WORDS:
            raise ValueError(f"{name!r} is an operator")
        taken: dict[str, Container[str]] = {
            "parameter": self.params,
            "species": self.species,
            "group": self.rules,
            "function": self.functions,
        }
        for kind, names in taken.items():
            if name in names:
                raise ValueError(f"{name!r} is already the name of a {kind}")


def read(path: str | Path) -> Net:
    """Read a file; an error shows the line that is wrong."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not text in UTF-8: {error}") from None
    try:
        sections = _sections(text.replace("\\\n", " ").splitlines())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    net = Net()
    for name, reader in _READERS.items():
        for position, line in enumerate(sections[name], 1):
            try:
                reader(net, _entry(line, position))
            except (ValueError, ArithmeticError) as error:
                raise ValueError(f"{path}: in {name}: {line}: {error}") from None
        if name == "parameters":
            net.names, net.values = list(net.params), list(net.params.values())
            net.indices = {parameter: i for i, parameter in enumerate(net.names)}
        if name == "functions":
            order = [*net.rules, *net.functions]
            while net.functions:
                function = next(iter(net.functions))
                try:
                    net.define(function)
                except ValueError as error:
                    raise ValueError(f"{path}: in functions: {function}: {error}") from None
            net.rules = {rule: net.rules[rule] for rule in order}
    return net


def _sections(lines: Iterable[str]) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {name: [] for name in _READERS}
    section = ""
    for line in lines:
        text = line.partition("#")[0].strip()
        mark = _MARK.fullmatch(text)
        if mark and mark[1] == "begin":
            if section:
                raise ValueError(f"the section {section!r} has no end")
            section = mark[2].strip()
            if section not in sections:
                raise ValueError(f"a section {section!r} is not known")
        elif mark:
            if mark[2].strip() != section:
                raise ValueError(f"'end {mark[2].strip()}' ends no section")
            section = ""
        elif text and section:
            sections[section].append(text)
    if section:
        raise ValueError(f"the section {section!r} has no end")
    if not sections["species"]:
        raise ValueError("there are no species")
    return sections


def _entry(line: str, position: int) -> str:
    """Take away the index, which must be the position."""
    index, *rest = line.split(maxsplit=1)
    if not index.isdecimal():
        return line
    if int(index) != position:
        raise ValueError(f"expected the index {position}, found {index}")
    return rest[0] if rest else ""


def _parameter(net: Net, text: str) -> None:
    name, value = _words(text, 2, "a name and a value")
    net.add(name)
    net.params[name] = net.number(value)


def _species(net: Net, text: str) -> None:
    name, _, value = text.replace("\t", " ").rpartition(" ")
    is_fixed, name = name.startswith("$"), name.strip().removeprefix("$")
    if not name:
        raise ValueError("expected a species and its count")
    if name in net.species:
        raise ValueError(f"{name!r} is there twice")
    count = float(round(net.number(value)))
    if count < 0:
        raise ValueError(f"a count must not be negative, found {count:g}")
    if is_fixed:
        net.fixed.add(name)
    net.species[name] = count


def _group(net: Net, text: str) -> None:
    name, *terms = text.split(maxsplit=1) or [""]
    net.add(name)
    group: dict[int, float] = {}
    for term in (terms[0] if terms else "").split(","):
        if term.strip():
            weight, _, index = term.rpartition("*")
            at = _index(net, index)
            group[at] = group.get(at, 0.0) + (net.number(weight) if weight else 1.0)
    species = list(net.species)
    ops: Ops = [("number", 0.0)]
    for i, weighs in group.items():
        ops += [("species", float(i)), ("number", weighs), ("mul", 0.0), ("add", 0.0)]
    shown = (f"{'' if weighs == 1 else f'{weighs:g}*'}{species[i]}" for i, weighs in group.items())
    net.rules[name] = " + ".join(shown) or "0", ops


def _function(net: Net, text: str) -> None:
    head, mark, body = text.partition(")")
    name, bracket, arguments = head.partition("(")
    if not mark or not bracket:
        raise ValueError("expected a function: name() and an expression")
    if arguments.strip():
        raise ValueError("a function with arguments is not supported")
    net.add(name.strip())
    net.functions[name.strip()] = body.strip().removeprefix("=").strip() or " "


def _reaction(net: Net, text: str) -> None:
    left, right, rate = _words(text, 3, "reactants, products and a rate")
    takes, makes = _side(net, left), _side(net, right)
    if rate not in net.rates:
        net.rates[rate] = _rate(net, rate)
    net.reactions.append(NetReaction(takes, makes, *net.rates[rate]))


def _rate(net: Net, text: str) -> tuple[float, str | None, str, Ops]:
    """Find a factor and a parameter, or else an expression as it is shown and its instructions."""
    last = text.rpartition("*")[2].strip()
    name = last.removesuffix("()")
    if _NAME.fullmatch(name) and last != "time()" and name not in net.params and name not in net.rules:
        raise ValueError(unknown("rate", name, [*net.params, *net.rules]))
    ops = net.compiled(text)
    kinds = {kind for kind, _ in ops}
    if not kinds & {"species", "time"}:
        value = float(evaluated(ops, net.values))
        if not 0 <= value < math.inf:
            raise ValueError(f"a rate must be finite and not negative, found {value:g}")
        if "constant" not in kinds:
            return value, None, "", []
    found = monomial(ops)
    if found and found[1] is not None and not found[2]:
        return found[0], net.names[found[1]], "", []
    return 1.0, None, _CALL.sub(lambda call: call[0] if call[1] == "time" else call[1], text), ops


def _words(text: str, count: int, wanted: str) -> list[str]:
    words = text.split(maxsplit=count - 1)
    if len(words) != count:
        raise ValueError(f"expected {wanted}, found {text!r}")
    return words


def _side(net: Net, text: str) -> dict[int, int]:
    side: dict[int, int] = {}
    for index in text.split(","):
        if index != "0":
            at = _index(net, index)
            side[at] = side.get(at, 0) + 1
    return side


def _index(net: Net, text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"expected the index of a species, found {text!r}")
    index = int(text)
    if not 1 <= index <= len(net.species):
        raise ValueError(f"there is no species {index}")
    return index - 1


_READERS = {
    "parameters": _parameter,
    "species": _species,
    "groups": _group,
    "functions": _function,
    "reactions": _reaction,
}
