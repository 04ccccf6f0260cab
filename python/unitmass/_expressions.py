"""Arithmetic expressions: from text to instructions for the stack machine of the kernels."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["WORDS", "Instruction", "Syntax", "compiled", "evaluated", "monomial", "unknown"]

Instruction = tuple[str, float]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)"
    r"|(?P<sign>\*\*|<=|>=|==|!=|&&|\|\||[-+*/^<>!(),]))"
)
_FUNCTIONS = {name: (name, 1) for name in ("exp", "log", "log10", "sqrt", "abs", "floor", "ceil")} | {
    "ln": ("log", 1),
    "pow": ("pow", 2),
    "if": ("if", 3),
    "hill": ("hill", 3),
    "min": ("min", 0),
    "max": ("max", 0),
}
"""The instruction and the number of arguments; 0 is any number from two on."""

# How tightly an operator binds, its instruction, and whether its operands change places.
_BINARY = {
    "or": (1, "or", False),
    "||": (1, "or", False),
    "and": (2, "and", False),
    "&&": (2, "and", False),
    "<": (4, "lt", False),
    "<=": (4, "le", False),
    ">": (4, "lt", True),
    ">=": (4, "le", True),
    "==": (4, "eq", False),
    "!=": (4, "ne", False),
    "+": (5, "add", False),
    "-": (5, "sub", False),
    "*": (6, "mul", False),
    "/": (6, "div", False),
    "^": (8, "pow", False),
    "**": (8, "pow", False),
}
_NOT, _COMPARISON, _MINUS, _POWER = 3, 4, 7, 8
_DEPTH = 100
"""Deeper nesting would come near the end of Python's own stack."""
WORDS = ("and", "or", "not")
"""Names that are operators."""


class Syntax(ValueError):
    """What is wrong with a text, and at which of its characters."""

    def __init__(self, message: str, text: str, at: int) -> None:
        super().__init__(f"{message}\n    {text}\n    {' ' * at}^")


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Say that a name is unknown, and which was perhaps meant."""
    spelled = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(str(name).lower(), list(spelled), 1)
    return f"unknown {kind} {name!r}" + (f", did you mean {spelled[near[0]]!r}?" if near else "")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def compiled(
    text: str, start: int, name: Callable[[str], list[Instruction] | None], names: Iterable[str]
) -> list[Instruction]:
    """Compile the expression that begins at a character of a text and goes to its end.

    `name` turns a name, or the call of one without arguments ("f()"), into instructions, or returns None for one that
    it does not know; `names` are those it knows.
    """
    parser = _Parser(text, start, name, names)
    ops = parser.expression(0)
    if parser.token.kind != "end":
        raise Syntax(f"expected an operator, found {parser.token.text!r}", text, parser.token.at)
    return ops


def evaluated(
    ops: Iterable[Instruction],
    constants: Sequence[Any],
    species: Callable[[int], Any] | None = None,
    time: Any = 0.0,
) -> Any:
    """Evaluate an expression, whose names may stand for numbers or arrays."""
    stack: list[Any] = []
    for name, value in ops:
        if name == "number":
            stack.append(value)
        elif name == "constant":
            stack.append(constants[int(value)])
        elif name == "species" and species is not None:
            stack.append(species(int(value)))
        elif name == "time":
            stack.append(time)
        else:
            count, function = _MEANING[name]
            stack, operands = stack[: len(stack) - count], stack[len(stack) - count :]
            with np.errstate(all="ignore"):
                stack.append(function(*operands) * 1.0)
    return stack[0]


def monomial(ops: Iterable[Instruction]) -> tuple[float, int | None, dict[int, int]] | None:
    """Recognise mass action, such as c k x (x - 1): factor, constant (or none), how many of each species take part."""
    stack: list[tuple[float, int | None, dict[int, list[float]]]] = []  # for each species what is subtracted from it
    for name, value in ops:
        if name == "number":
            stack.append((value, None, {}))
        elif name == "constant":
            stack.append((1.0, int(value), {}))
        elif name == "species":
            stack.append((1.0, None, {int(value): [0.0]}))
        elif name in ("mul", "div", "sub"):
            (b, b_constant, b_taken), (a, a_constant, a_taken) = stack.pop(), stack.pop()
            is_number = b_constant is None and not b_taken
            if name == "mul" and None in (a_constant, b_constant):
                constant = a_constant if b_constant is None else b_constant
                species = {**a_taken, **b_taken}
                stack.append((a * b, constant, {i: a_taken.get(i, []) + b_taken.get(i, []) for i in species}))
            elif name == "div" and is_number and b:
                stack.append((a / b, a_constant, a_taken))
            elif name == "sub" and is_number and (a, a_constant, list(a_taken.values())) == (1.0, None, [[0.0]]):
                stack.append((1.0, None, {i: [b] for i in a_taken}))
            else:
                return None
        else:
            return None
    factor, constant, taken = stack[0]
    if factor < 0 or any(sorted(subtracted) != list(range(len(subtracted))) for subtracted in taken.values()):
        return None
    return factor, constant, {i: len(subtracted) for i, subtracted in taken.items()}


_MEANING: dict[str, tuple[int, Callable[..., Any]]] = {
    "neg": (1, np.negative),
    "add": (2, np.add),
    "sub": (2, np.subtract),
    "mul": (2, np.multiply),
    "div": (2, np.divide),
    "pow": (2, np.float_power),
    "lt": (2, np.less),
    "le": (2, np.less_equal),
    "eq": (2, np.equal),
    "ne": (2, np.not_equal),
    "and": (2, np.logical_and),
    "or": (2, np.logical_or),
    "not": (1, np.logical_not),
    "if": (3, np.where),
    "exp": (1, np.exp),
    "log": (1, np.log),
    "log10": (1, np.log10),
    "sqrt": (1, np.sqrt),
    "abs": (1, np.abs),
    "min": (2, np.minimum),
    "max": (2, np.maximum),
    "floor": (1, np.floor),
    "ceil": (1, np.ceil),
}


class _Parser:
    """Precedence climbing (Pratt, 1973)."""

    def __init__(
        self, text: str, start: int, name: Callable[[str], list[Instruction] | None], names: Iterable[str]
    ) -> None:
        self.text, self.name, self.names = text, name, names
        self.tokens = self.scan(start)
        self.index = self.depth = 0

    def scan(self, at: int) -> list[_Token]:
        tokens = []
        end = len(self.text.rstrip())
        while at < end:
            match = _TOKEN.match(self.text, at)
            if match is None:
                at += len(self.text[at:]) - len(self.text[at:].lstrip())
                raise Syntax(f"unexpected {self.text[at]!r}", self.text, at)
            kind = str(match.lastgroup)
            tokens.append(_Token(kind, match[kind], match.start(kind)))
            at = match.end()
        return [*tokens, _Token("end", "the end", max(end, at))]

    @property
    def token(self) -> _Token:
        return self.tokens[self.index]

    def take(self) -> _Token:
        token = self.token
        self.index += 1
        return token

    def expect(self, sign: str) -> None:
        if self.token.text != sign:
            raise Syntax(f"expected {sign!r}, found {self.token.text!r}", self.text, self.token.at)
        self.index += 1

    def expression(self, tightness: int) -> list[Instruction]:
        self.depth += 1
        if self.depth > _DEPTH:
            raise Syntax("this is nested too deeply", self.text, self.token.at)
        begins, compared = self.token.at, None
        left = self.operand()
        while self.token.text in _BINARY and _BINARY[self.token.text][0] > tightness:
            sign = self.take()
            binds, instruction, swapped = _BINARY[sign.text]
            # A power binds to the right: a^b^c is a^(b^c).
            right = self.expression(binds - 1 if binds == _POWER else binds)
            if binds == _COMPARISON:
                if compared is not None:
                    raise self.chained(begins, compared, sign)
                compared = sign
            left = [*right, *left] if swapped else [*left, *right]
            left.append((instruction, 0.0))
        self.depth -= 1
        return left

    def chained(self, begins: int, first: _Token, second: _Token) -> Syntax:
        left = self.text[begins : first.at].strip()
        middle = self.text[first.at + len(first.text) : second.at].strip()
        right = self.text[second.at + len(second.text) : self.token.at].strip()
        hint = f"write {left} {first.text} {middle} and {middle} {second.text} {right}"
        return Syntax(f"comparisons cannot be chained: {hint}", self.text, second.at)

    def operand(self) -> list[Instruction]:
        token = self.take()
        if token.kind == "number":
            return [("number", float(token.text))]
        if token.text == "-":
            return [*self.expression(_MINUS), ("neg", 0.0)]
        if token.text == "+":
            return self.expression(_MINUS)
        if token.text in ("!", "not"):
            return [*self.expression(_MINUS if token.text == "!" else _NOT), ("not", 0.0)]
        if token.text == "(":
            inner = self.expression(0)
            self.expect(")")
            return inner
        if token.kind != "name" or token.text in _BINARY:
            raise Syntax(f"expected a number, a name or '(', found {token.text!r}", self.text, token.at)
        return self.call(token) if self.token.text == "(" else self.named(token)

    def named(self, token: _Token) -> list[Instruction]:
        instructions = self.name(token.text)
        if instructions is None:
            raise Syntax(unknown("name", token.text, self.names), self.text, token.at)
        return instructions

    def call(self, token: _Token) -> list[Instruction]:
        if self.tokens[self.index + 1].text == ")":
            instructions = self.name(f"{token.text}()")
            if instructions is not None:
                self.index += 2
                return instructions
        if token.text not in _FUNCTIONS:
            raise Syntax(unknown("function", token.text, _FUNCTIONS), self.text, token.at)
        instruction, count = _FUNCTIONS[token.text]
        self.expect("(")
        arguments = [self.expression(0)]
        while self.token.text == ",":
            self.index += 1
            arguments.append(self.expression(0))
        self.expect(")")
        if len(arguments) != count if count else len(arguments) < 2:
            wanted = str(count) if count else "at least 2"
            raise Syntax(f"{token.text}: expected {wanted} arguments, found {len(arguments)}", self.text, token.at)
        if instruction == "hill":  # x^n / (K^n + x^n)
            x, k, n = arguments
            power = [*x, *n, ("pow", 0.0)]
            return [*power, *k, *n, ("pow", 0.0), *power, ("add", 0.0), ("div", 0.0)]
        if count:
            return [*(op for argument in arguments for op in argument), (instruction, 0.0)]
        ops = arguments[0]
        for argument in arguments[1:]:
            ops = [*ops, *argument, (instruction, 0.0)]
        return ops
