"""Reading networks in BioNetGen's .net form."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from unitmass._expressions import Instruction, Syntax, compiled, evaluated, unknown

__all__ = ["Net", "NetReaction", "read"]

_SECTION = re.compile(r"(begin|end)\s+(\w+)")
_FACTOR = re.compile(r"(?:(.+)\*)?\s*([^\W\d]\w*)(?:\(\))?")
_KNOWN = {"parameters", "functions", "species", "reactions", "groups"}


@dataclass(frozen=True)
class NetReaction:
    """Indices of species with their multiplicities; the rate is a factor times a parameter or a function."""

    reactants: dict[int, int]
    products: dict[int, int]
    factor: float
    rate: str | None


@dataclass
class Net:
    """What a file holds."""

    params: dict[str, float] = field(default_factory=dict)
    species: list[str] = field(default_factory=list)
    counts: list[float] = field(default_factory=list)
    fixed: set[int] = field(default_factory=set)
    groups: dict[str, dict[int, float]] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    reactions: list[NetReaction] = field(default_factory=list)

    def name(self, name: str) -> Instruction | None:
        """Turn a parameter into an instruction."""
        return ("constant", list(self.params).index(name)) if name in self.params else None

    def number(self, text: str) -> float:
        """Evaluate an expression of parameters."""
        return evaluated(compiled(text, 0, self.name, self.params), list(self.params.values()))


def read(path: str | Path) -> Net:
    """Read a file; an error shows the line that is wrong."""
    net, section = Net(), ""
    sections: dict[str, list[str]] = {name: [] for name in _KNOWN}
    for line in Path(path).read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        text = line.partition("#")[0].strip()
        mark = _SECTION.fullmatch(text)
        if mark:
            section = mark[2] if mark[1] == "begin" else ""
            if section and section not in _KNOWN:
                raise ValueError(f"{path}: a section {section!r} is not known")
        elif text and section:
            sections[section].append(text)
    readers = (
        ("parameters", _parameter),
        ("species", _species),
        ("groups", _group),
        ("functions", _function),
        ("reactions", _reaction),
    )
    for name, reader in readers:
        for text in sections[name]:
            try:
                reader(net, text.split(maxsplit=1)[1] if text[0].isdigit() else text)
            except (ValueError, IndexError, ArithmeticError) as error:
                raise ValueError(f"{path}: in {name}: {text}: {error}") from None
    return net


def _parameter(net: Net, text: str) -> None:
    name, value = text.split(maxsplit=1)
    net.params[name] = net.number(value)


def _species(net: Net, text: str) -> None:
    name, value = text.rsplit(maxsplit=1)
    if name.startswith("$"):
        name = name[1:]
        net.fixed.add(len(net.species))
    net.species.append(name)
    net.counts.append(float(round(net.number(value))))


def _group(net: Net, text: str) -> None:
    name, *terms = text.split(maxsplit=1)
    group: dict[int, float] = {}
    for term in (terms[0] if terms else "").split(","):
        if term.strip():
            weight, _, index = term.rpartition("*")
            at = _index(net, index)
            group[at] = group.get(at, 0.0) + float(weight or 1)
    net.groups[name] = group


def _function(net: Net, text: str) -> None:
    head, body = re.split(r"\)\s*=?\s*", text, maxsplit=1)
    name, arguments = head.split("(", 1)
    if arguments.strip():
        raise ValueError("a function with arguments is not supported")
    net.functions[name.strip()] = re.sub(r"([^\W\d]\w*)\(\)", r"\1", body)


def _reaction(net: Net, text: str) -> None:
    left, right, rate = text.split(maxsplit=2)
    takes, makes = _side(net, left), _side(net, right)
    match = _FACTOR.fullmatch(rate.strip())
    if match and (match[2] in net.params or match[2] in net.functions):
        net.reactions.append(NetReaction(takes, makes, net.number(match[1] or "1"), match[2]))
        return
    try:
        net.reactions.append(NetReaction(takes, makes, net.number(rate), None))
    except Syntax:
        if match:
            raise ValueError(unknown("rate", match[2], [*net.params, *net.functions])) from None
        raise


def _side(net: Net, text: str) -> dict[int, int]:
    side: dict[int, int] = {}
    for index in text.split(","):
        if index != "0":
            at = _index(net, index)
            side[at] = side.get(at, 0) + 1
    return side


def _index(net: Net, text: str) -> int:
    index = int(text)
    if not 1 <= index <= len(net.species):
        raise ValueError(f"there is no species {index}")
    return index - 1
