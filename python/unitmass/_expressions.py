"""Arithmetic expressions: from text to instructions for the stack machine of the kernels."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Instruction", "Syntax", "compiled", "evaluated", "unknown"]

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
_NOT, _MINUS, _POWER = 3, 7, 8


class Syntax(ValueError):
    """What is wrong with a text, and at which of its characters."""

    def __init__(self, message: str, text: str, at: int) -> None:
        super().__init__(f"{message}\n    {text}\n    {' ' * at}^")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, and which was perhaps meant."""
    spelled = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(spelled), 1)
    return f"unknown {kind} {name!r}" + (f", did you mean {spelled[near[0]]!r}?" if near else "")


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def compiled(
    text: str, start: int, name: Callable[[str], Instruction | None], names: Iterable[str]
) -> list[Instruction]:
    """Compile the expression that begins at a character of a text and goes to its end.

    `name` turns a name into an instruction, or returns None for one that it does not know; `names` are those it knows.
    """
    parser = _Parser(text, start, name, names)
    ops = parser.expression(0)
    if parser.token.kind != "end":
        raise Syntax(f"expected an operator, found {parser.token.text!r}", text, parser.token.at)
    return ops


def evaluated(ops: Iterable[Instruction], constants: Sequence[float]) -> float:
    """Evaluate an expression of numbers and constants."""
    stack: list[float] = []
    for name, value in ops:
        if name == "number":
            stack.append(value)
        elif name == "constant":
            stack.append(constants[int(value)])
        else:
            count, function = _MEANING[name]
            stack, operands = stack[: len(stack) - count], stack[len(stack) - count :]
            stack.append(float(function(*operands)))
    return stack[0]


_MEANING: dict[str, tuple[int, Callable[..., Any]]] = {
    "neg": (1, operator.neg),
    "add": (2, operator.add),
    "sub": (2, operator.sub),
    "mul": (2, operator.mul),
    "div": (2, operator.truediv),
    "pow": (2, math.pow),
    "lt": (2, operator.lt),
    "le": (2, operator.le),
    "eq": (2, operator.eq),
    "ne": (2, operator.ne),
    "and": (2, lambda a, b: bool(a) and bool(b)),
    "or": (2, lambda a, b: bool(a) or bool(b)),
    "not": (1, operator.not_),
    "if": (3, lambda a, b, c: b if a else c),
    "exp": (1, math.exp),
    "log": (1, math.log),
    "log10": (1, math.log10),
    "sqrt": (1, math.sqrt),
    "abs": (1, abs),
    "min": (2, min),
    "max": (2, max),
    "floor": (1, math.floor),
    "ceil": (1, math.ceil),
}


class _Parser:
    """Precedence climbing (Pratt, 1973)."""

    def __init__(self, text: str, start: int, name: Callable[[str], Instruction | None], names: Iterable[str]) -> None:
        self.text, self.name, self.names = text, name, names
        self.tokens = self.scan(start)
        self.index = 0

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
        left = self.operand()
        while self.token.text in _BINARY and _BINARY[self.token.text][0] > tightness:
            binds, instruction, swapped = _BINARY[self.take().text]
            # A power binds to the right: a^b^c is a^(b^c).
            right = self.expression(binds - 1 if binds == _POWER else binds)
            left = [*right, *left] if swapped else [*left, *right]
            left.append((instruction, 0.0))
        return left

    def operand(self) -> list[Instruction]:
        token = self.take()
        if token.kind == "number":
            return [("number", float(token.text))]
        if token.text == "-":
            return [*self.expression(_MINUS), ("neg", 0.0)]
        if token.text == "+":
            return self.expression(_MINUS)
        if token.text in ("!", "not"):
            return [*self.expression(_NOT), ("not", 0.0)]
        if token.text == "(":
            inner = self.expression(0)
            self.expect(")")
            return inner
        if token.kind != "name" or token.text in _BINARY:
            raise Syntax(f"expected a number, a name or '(', found {token.text!r}", self.text, token.at)
        return self.call(token) if self.token.text == "(" else self.named(token)

    def named(self, token: _Token) -> list[Instruction]:
        instruction = self.name(token.text)
        if instruction is None:
            raise Syntax(unknown("name", token.text, self.names), self.text, token.at)
        return [instruction]

    def call(self, token: _Token) -> list[Instruction]:
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
