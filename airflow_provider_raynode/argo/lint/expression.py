"""The syntax of the expressions in `{{= … }}` and in expression fields (expr-lang), and what they refer to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from airflow_provider_raynode.argo.lint.naming import RESERVED
from airflow_provider_raynode.config._values import shown

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<number>0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|(?:\d[\d_]*(?:\.(?!\.)\d*)?|\.\d+)(?:[eE][-+]?\d+)?)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
    |(?P<name>[A-Za-z_$][\w$]*)
    |(?P<sign>\?\.|\?\?|\.\.|\*\*|==|!=|<=|>=|&&|\|\||[-+*/%^<>!?:.,()\[\]{}|\#;=])""",
    re.VERBOSE | re.DOTALL,
)
_BINARY_WORDS = frozenset({"and", "or", "in", "matches", "contains", "startsWith", "endsWith"})
_BINARY = _BINARY_WORDS | frozenset(
    ["||", "&&", "==", "!=", "<", ">", "<=", ">=", "..", "+", "-", "*", "/", "%", "**", "^", "??", "|"]
)
_CONSTANTS = frozenset({"true", "false", "nil"})
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Reference:
    """A name that an expression uses, with what is taken of it: `tasks['a'].status` is `("tasks", "a", "status")`.

    :param whole: whether all of it is known; not when an index is computed.
    :param called: whether it is a function.
    :param in_closure: whether it is inside of a predicate such as `{# > 1}`, where names may be fields.
    """

    parts: tuple[str, ...]
    whole: bool = True
    called: bool = False
    in_closure: bool = False


@dataclass(frozen=True)
class Expression:
    """What is known of an expression: what it refers to, or why it is none."""

    references: tuple[Reference, ...] = ()
    problem: str | None = None


class _SyntaxError(Exception):
    pass


@lru_cache(maxsize=4096)
def expression(text: str) -> Expression:
    """Read an expression.

    >>> expression("tasks['a'].status == 'Succeeded'").references
    (Reference(parts=('tasks', 'a', 'status'), whole=True, called=False, in_closure=False),)
    >>> expression("(1 + 2").problem
    "'(' is not closed"
    """
    try:
        parser = _Parser(_tokens(text))
        parser.whole()
    except _SyntaxError as error:
        return Expression(problem=str(error))
    except RecursionError:
        return Expression(problem="it is nested too deep")
    return Expression(tuple(parser.references))


Token = tuple[str, str]


def _tokens(text: str) -> list[Token]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            if text[at] in "\"'`":
                raise _SyntaxError(f"the quote before {shown(text[at + 1 : at + 20])} is not closed")
            raise _SyntaxError(f"{text[at]!r} has no meaning in an expression")
        if match.lastgroup != "space":
            found.append((str(match.lastgroup), match[0]))
        at = match.end()
    return found


class _Parser:
    """Reads operands and operators one after the other: which binds more does not matter here."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = [*tokens, ("end", "")]
        self._at = 0
        self._closures = 0
        self._own: set[str] = set()
        self.references: list[Reference] = []

    def whole(self) -> None:
        if self._tokens[0][0] == "end":
            raise _SyntaxError("it is empty")
        self._sequence()
        if self._kind != "end":
            word = self._word
            if word in _CLOSING.values():
                raise _SyntaxError(f"{word!r} closes nothing")
            raise _SyntaxError(f"{shown(word)} is not expected: an operator is missing before it")

    @property
    def _kind(self) -> str:
        return self._tokens[self._at][0]

    @property
    def _word(self) -> str:
        return self._tokens[self._at][1]

    def _next(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _is(self, *words: str) -> bool:
        return self._kind in ("sign", "name") and self._word in words

    def _take(self, word: str) -> bool:
        found = self._is(word)
        if found:
            self._at += 1
        return found

    def _need(self, word: str, opened: str = "") -> None:
        if not self._take(word):
            if self._kind == "end" and opened:
                raise _SyntaxError(f"{opened!r} is not closed")
            raise _SyntaxError(f"{word!r} is missing before {shown(self._word) if self._word else 'the end'}")

    def _sequence(self) -> None:
        while self._take("let"):
            _, name = self._next()
            self._need("=")
            self._expression()
            self._own.add(name)
            self._need(";")
        self._expression()
        while self._take(";"):
            self._expression()

    def _expression(self) -> None:
        self._operand()
        while True:
            if self._take("?"):
                if not self._take(":"):
                    self._expression()
                    self._need(":")
                self._expression()
            elif self._is("not") and self._tokens[self._at + 1][1] in ("in", "matches", "contains"):
                self._at += 2
                self._operand()
            elif self._is(*_BINARY):
                self._at += 1
                self._operand()
            else:
                return

    def _operand(self) -> None:
        while self._is("!", "not", "-", "+"):
            self._at += 1
        kind, word = self._next()
        if kind == "end":
            raise _SyntaxError("it ends where a value is expected")
        if kind in ("number", "text"):
            self._rest(None)
        elif kind == "name":
            self._name(word)
        elif word == "(":
            self._sequence()
            self._need(")", "(")
            self._rest(None)
        elif word == "[":
            self._list("]", "[")
            self._rest(None)
        elif word == "{":
            self._map()
            self._rest(None)
        elif word == "#":
            if self._kind == "name" and not self._is(*_BINARY, "not"):
                self._at += 1
            self._rest(None)
        elif word == "." and self._closures and self._kind == "name":
            self._at += 1
            self._rest(None)
        else:
            raise _SyntaxError(f"{word!r} stands where a value is expected")

    def _name(self, word: str) -> None:
        if word == "if":
            self._choice()
        elif word in _CONSTANTS:
            self._rest(None)
        elif word in RESERVED:
            raise _SyntaxError(f"{word!r} stands where a value is expected")
        else:
            self._rest([word])

    def _choice(self) -> None:
        self._expression()
        self._block()
        self._need("else")
        if self._take("if"):
            self._choice()
        else:
            self._block()

    def _block(self) -> None:
        self._need("{")
        self._sequence()
        self._need("}", "{")

    def _rest(self, parts: list[str] | None) -> None:
        """Read what follows an operand: members, indexes, calls. `parts` is the name that it follows."""
        whole, called = True, False
        while True:
            if self._is(".", "?."):
                self._at += 1
                kind, word = self._next()
                if kind != "name":
                    raise _SyntaxError(f"after '.' comes a name, not {shown(word) if word else 'the end'}")
                if parts and whole and not called:
                    parts.append(word)
            elif self._take("["):
                key = self._index()
                if key is None:
                    whole = False
                elif parts and whole and not called:
                    parts.append(key)
            elif self._take("("):
                called = True
                self._list(")", "(")
            else:
                break
        if parts and parts[0] not in self._own:
            self.references.append(Reference(tuple(parts), whole, called, self._closures > 0))

    def _index(self) -> str | None:
        """Read an index up to its bracket; return it when it is a text, None when it is anything else."""
        token = self._tokens[self._at]
        if token[0] == "text" and self._tokens[self._at + 1] == ("sign", "]"):
            self._at += 2
            return re.sub(r"\\(.)", r"\1", token[1][1:-1])
        if not self._is(":"):
            self._expression()
        if self._take(":") and not self._is("]"):
            self._expression()
        self._need("]", "[")
        return None

    def _list(self, closing: str, opened: str) -> None:
        while not self._take(closing):
            if closing == ")" and self._is("{") and self._starts_closure():
                self._at += 1
                self._closures += 1
                self._sequence()
                self._closures -= 1
                self._need("}", "{")
            else:
                self._expression()
            if not self._take(","):
                self._need(closing, opened)
                return

    def _starts_closure(self) -> bool:
        first, second = self._tokens[self._at + 1], self._tokens[min(self._at + 2, len(self._tokens) - 1)]
        return first != ("sign", "}") and second != ("sign", ":")

    def _map(self) -> None:
        while not self._take("}"):
            kind, word = self._next()
            if word == "(":
                self._expression()
                self._need(")", "(")
            elif kind not in ("name", "text", "number"):
                raise _SyntaxError("'{' is not closed" if kind == "end" else f"{word!r} is no key of a map")
            self._need(":", "{")
            self._expression()
            if not self._take(","):
                self._need("}", "{")
                return
