"""A small evaluator of expr-lang, the language of `{{= … }}`, `depends` and `retryStrategy.expression`.

Left out: closures (`all`, `filter`, …), pipes, slices, ranges, `let`, most of sprig.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from argo_simulator.errors import ExpressionError

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>\d+\.\d+|\d+(?![A-Za-z_]))
  | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)
  | (?P<name>[A-Za-z_$][A-Za-z0-9_$]*)
  | (?P<operator>\?\?|\?\.|\*\*|&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])
)""",
    re.VERBOSE,
)
_WORDS = {"and": "&&", "or": "||"}
_COMPARISONS = {"==", "!=", "<", "<=", ">", ">=", "in", "contains", "startsWith", "endsWith", "matches"}
# Binding powers, as expr-lang has them: the higher binds tighter.
_POWER = {"||": 10, "&&": 15, **dict.fromkeys(_COMPARISONS, 20), "+": 30, "-": 30, "*": 60, "/": 60, "%": 60, "??": 500}
_LITERALS = {"true": True, "false": False, "nil": None}
_RESERVED = {"in", "not", "contains", "startsWith", "endsWith", "matches", "let", "if", "else", *_WORDS, *_LITERALS}


@dataclass(frozen=True)
class Token:
    kind: str
    text: str


@dataclass(frozen=True)
class Literal:
    value: Any


@dataclass(frozen=True)
class Name:
    name: str


@dataclass(frozen=True)
class Member:
    base: Any
    key: Any
    optional: bool = False


@dataclass(frozen=True)
class Call:
    function: Any
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Unary:
    operator: str
    operand: Any


@dataclass(frozen=True)
class Binary:
    operator: str
    left: Any
    right: Any


@dataclass(frozen=True)
class Ternary:
    condition: Any
    yes: Any
    no: Any


@dataclass(frozen=True)
class Sequence:
    items: tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    items: tuple[tuple[Any, Any], ...]


def tokens_of(text: str) -> list[Token]:
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"unexpected {text[at : at + 20]!r} in the expression {text!r}")
        kind = match.lastgroup or ""
        found.append(Token(kind, match.group(kind)))
        at = match.end()
    return found


class Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens_of(text)
        self._at = 0

    def parse(self) -> Any:
        tree = self._ternary()
        if self._at < len(self._tokens):
            self._fail()
        return tree

    def _fail(self) -> None:
        token = self._tokens[self._at].text if self._at < len(self._tokens) else "the end"
        raise ExpressionError(f"unexpected {token} in the expression {self._text!r}")

    def _peek(self) -> str:
        """The next operator or word; a string or number is never one."""
        if self._at >= len(self._tokens):
            return ""
        token = self._tokens[self._at]
        return _WORDS.get(token.text, token.text) if token.kind in ("operator", "name") else ""

    def _take(self, text: str) -> bool:
        if self._peek() == text:
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            self._fail()

    def _ternary(self) -> Any:
        condition = self._binary(0)
        if not self._take("?"):
            return condition
        yes = self._ternary()
        self._expect(":")
        return Ternary(condition, yes, self._ternary())

    def _binary(self, power: int) -> Any:
        left = self._unary()
        while True:
            operator, negated = self._peek(), False
            if operator == "not" and self._at + 1 < len(self._tokens):
                operator, negated = self._tokens[self._at + 1].text, True
            if operator not in _POWER or _POWER[operator] <= power or (negated and operator not in _COMPARISONS):
                return left
            self._at += 2 if negated else 1
            left = Binary(operator, left, self._binary(_POWER[operator]))
            left = Unary("!", left) if negated else left

    def _unary(self) -> Any:
        if self._take("not") or self._take("!"):
            return Unary("!", self._binary(50))  # tighter than a comparison: `!a == b` is `(!a) == b`
        for operator in ("-", "+"):
            if self._take(operator):
                return Unary(operator, self._binary(90))
        return self._postfix(self._primary())

    def _postfix(self, tree: Any) -> Any:
        while True:
            if self._take("."):
                tree = Member(tree, Literal(self._property()))
            elif self._take("?."):
                if self._take("["):
                    tree = Member(tree, self._ternary(), optional=True)
                    self._expect("]")
                else:
                    tree = Member(tree, Literal(self._property()), optional=True)
            elif self._take("["):
                tree = Member(tree, self._ternary())
                self._expect("]")
            elif self._take("("):
                tree = Call(tree, self._items(")"))
            else:
                return tree

    def _property(self) -> str:
        if self._at >= len(self._tokens) or self._tokens[self._at].kind != "name":
            self._fail()
        self._at += 1
        return self._tokens[self._at - 1].text

    def _items(self, end: str) -> tuple[Any, ...]:
        found: list[Any] = []
        while not self._take(end):
            if found:
                self._expect(",")
                if self._take(end):
                    break
            found.append(self._ternary())
        return tuple(found)

    def _primary(self) -> Any:
        if self._take("("):
            tree = self._ternary()
            self._expect(")")
            return tree
        if self._take("["):
            return Sequence(self._items("]"))
        if self._take("{"):
            return self._table()
        if self._at >= len(self._tokens):
            self._fail()
        token = self._tokens[self._at]
        self._at += 1
        if token.kind == "number":
            return Literal(float(token.text) if "." in token.text else int(token.text))
        if token.kind == "string":
            return Literal(_unquoted(token.text))
        if token.kind == "name" and token.text in _LITERALS:
            return Literal(_LITERALS[token.text])
        if token.kind != "name" or token.text in _RESERVED:
            self._at -= 1
            self._fail()
        return Name(token.text)

    def _table(self) -> Any:
        items: list[tuple[Any, Any]] = []
        while not self._take("}"):
            if items:
                self._expect(",")
            token = self._tokens[self._at] if self._at < len(self._tokens) else Token("", "")
            if token.kind not in ("name", "string"):
                self._fail()
            self._at += 1
            key = token.text if token.kind == "name" else _unquoted(token.text)
            self._expect(":")
            items.append((Literal(key), self._ternary()))
        return Table(tuple(items))


def _unquoted(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]
    escapes = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda match: escapes.get(match.group(1), match.group(1)), text[1:-1])


def parse(text: str) -> Any:
    if not text.strip():
        raise ExpressionError("the expression is empty")
    return Parser(text).parse()


def evaluate(text: str, env: Mapping[str, Any]) -> Any:
    """Evaluate an expression; a top name that `env` lacks is an error, a missing key of a mapping is nil."""
    tree = parse(text)
    for name in _names(tree):
        # Found when expr compiles, so even in a branch that is not taken.
        if name not in env and name not in FUNCTIONS:
            raise ExpressionError(f"unknown name {name} in the expression {text!r}")
    return _value(tree, env)


def evaluate_bool(text: str, env: Mapping[str, Any]) -> bool:
    value = evaluate(text, env)
    if not isinstance(value, bool):
        raise ExpressionError(f"the expression {text!r} gives {value!r}, neither true nor false")
    return value


def identifiers(text: str) -> set[str]:
    """Return the variables that an expression names, with every dotted path that it reads by constant keys."""
    found: set[str] = set()
    for tree in _walk(parse(text)):
        if isinstance(tree, Name) and tree.name not in FUNCTIONS:
            found.add(tree.name)
        if isinstance(tree, Member) and (path := _path(tree)):
            found.add(path)
    return found


def _path(tree: Any) -> str:
    if isinstance(tree, Name):
        return tree.name
    if isinstance(tree, Member) and isinstance(tree.key, Literal) and isinstance(tree.key.value, str):
        base = _path(tree.base)
        return f"{base}.{tree.key.value}" if base else ""
    return ""


def _walk(tree: Any) -> list[Any]:
    children = {
        Member: lambda: [tree.base, tree.key],
        Call: lambda: [tree.function, *tree.arguments],
        Unary: lambda: [tree.operand],
        Binary: lambda: [tree.left, tree.right],
        Ternary: lambda: [tree.condition, tree.yes, tree.no],
        Sequence: lambda: list(tree.items),
        Table: lambda: [each for _, each in tree.items],
    }.get(type(tree), list)()
    return [tree, *(each for child in children for each in _walk(child))]


def _names(tree: Any) -> set[str]:
    return {each.name for each in _walk(tree) if isinstance(each, Name)}


def _value(tree: Any, env: Mapping[str, Any]) -> Any:
    match tree:
        case Literal(value):
            return value
        case Name(name):
            return env[name] if name in env else FUNCTIONS[name]
        case Sequence(items):
            return [_value(each, env) for each in items]
        case Table(items):
            return {_value(key, env): _value(value, env) for key, value in items}
        case Ternary(condition, yes, no):
            return _value(yes if _boolean(_value(condition, env), "?") else no, env)
        case Member(base, key, optional):
            return _member(_value(base, env), _value(key, env), optional)
        case Call(function, arguments):
            return _call(_value(function, env), [_value(each, env) for each in arguments])
        case Unary(operator, operand):
            return _unary(operator, _value(operand, env))
        case Binary(operator, left, right):
            return _binary(operator, left, right, env)
    raise ExpressionError(f"cannot evaluate {tree!r}")


def _call(function: Any, arguments: list[Any]) -> Any:
    if not callable(function):
        raise ExpressionError(f"{function!r} is not callable")
    try:
        return function(*arguments)
    except (TypeError, ValueError) as error:
        raise ExpressionError(str(error)) from error


def _member(base: Any, key: Any, optional: bool) -> Any:
    if base is None and optional:
        return None
    if isinstance(base, Mapping):
        return base.get(key)
    if isinstance(base, list) and isinstance(key, int) and -len(base) <= key < len(base):
        return base[key]
    raise ExpressionError(f"cannot fetch {key} from {'nil' if base is None else type(base).__name__}")


def _boolean(value: Any, operator: str) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError(f"{operator} needs true or false, not {value!r}")
    return value


def _unary(operator: str, value: Any) -> Any:
    if operator == "!":
        return not _boolean(value, "!")
    if not _number(value):
        raise ExpressionError(f"{operator} needs a number, not {value!r}")
    return -value if operator == "-" else value


def _binary(operator: str, left: Any, right: Any, env: Mapping[str, Any]) -> Any:
    first = _value(left, env)
    if operator == "&&":
        return _boolean(first, "&&") and _boolean(_value(right, env), "&&")
    if operator == "||":
        return _boolean(first, "||") or _boolean(_value(right, env), "||")
    if operator == "??":
        return _value(right, env) if first is None else first
    return _OPERATIONS[operator](first, _value(right, env))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(first: Any, second: Any) -> bool:
    # True == 1 in Python, not in expr.
    if isinstance(first, bool) != isinstance(second, bool):
        return False
    return bool(first == second)


def _of_two(operator: str, action: Callable[[Any, Any], Any], *, strings: bool, numbers: bool) -> Callable[..., Any]:
    def apply(first: Any, second: Any) -> Any:
        both_strings = isinstance(first, str) and isinstance(second, str)
        both_times = isinstance(first, datetime) and isinstance(second, datetime) and operator in _COMPARISONS
        if both_times or (strings and both_strings) or (numbers and _number(first) and _number(second)):
            try:
                return action(first, second)
            except ZeroDivisionError as error:
                raise ExpressionError(str(error)) from error
        raise ExpressionError(f"invalid operation: {first!r} {operator} {second!r}")

    return apply


def _contained(first: Any, second: Any) -> bool:
    if second is None:
        return False
    if isinstance(second, Mapping):
        return first in second
    if isinstance(second, list):
        return any(_equal(first, each) for each in second)
    raise ExpressionError(f"operator in is not defined on {type(second).__name__}")


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": _equal,
    "!=": lambda first, second: not _equal(first, second),
    "in": _contained,
    "<": _of_two("<", lambda a, b: a < b, strings=True, numbers=True),
    "<=": _of_two("<=", lambda a, b: a <= b, strings=True, numbers=True),
    ">": _of_two(">", lambda a, b: a > b, strings=True, numbers=True),
    ">=": _of_two(">=", lambda a, b: a >= b, strings=True, numbers=True),
    "+": _of_two("+", lambda a, b: a + b, strings=True, numbers=True),
    "-": _of_two("-", lambda a, b: a - b, strings=False, numbers=True),
    "*": _of_two("*", lambda a, b: a * b, strings=False, numbers=True),
    "/": _of_two("/", lambda a, b: a / b, strings=False, numbers=True),
    "%": _of_two("%", lambda a, b: a % b, strings=False, numbers=True),
    "contains": _of_two("contains", lambda a, b: b in a, strings=True, numbers=False),
    "startsWith": _of_two("startsWith", lambda a, b: a.startswith(b), strings=True, numbers=False),
    "endsWith": _of_two("endsWith", lambda a, b: a.endswith(b), strings=True, numbers=False),
    "matches": _of_two("matches", lambda a, b: re.search(b, a) is not None, strings=True, numbers=False),
}


def as_text(value: Any) -> str:
    """Format a value as Go's `%v` or its JSON does."""
    if value is None:
        return "nil"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _get(value: Any, key: Any, default: Any = None) -> Any:
    try:
        found = _member(value, key, optional=True)
    except ExpressionError:
        return default
    return default if found is None else found


def go_json(value: Any, *, is_map: bool = True) -> str:
    """Write JSON as Go's json.Marshal does: a map's keys sorted, `<`, `>`, `&` and the line separators escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=is_map)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode(errors="replace").decode()


SPRIG: dict[str, Callable[..., Any]] = {
    "b64enc": lambda text: base64.b64encode(text.encode()).decode(),
    "b64dec": lambda text: base64.b64decode(text).decode(),
    "regexReplaceAll": lambda pattern, text, new: re.sub(pattern, new, text),
    "regexFind": lambda pattern, text: found.group() if (found := re.search(pattern, text)) else "",
    "omit": lambda table, *keys: {key: value for key, value in table.items() if key not in keys},
    "pick": lambda table, *keys: {key: value for key, value in table.items() if key in keys},
}

FUNCTIONS: dict[str, Any] = {
    "sprig": SPRIG,
    "asInt": int,
    "asFloat": float,
    "int": lambda value: int(float(value)) if isinstance(value, float) else int(value),
    "float": float,
    "string": as_text,
    "len": len,
    "toJson": go_json,
    "toJSON": lambda value: json.dumps(value, separators=(",", ":")),
    "fromJSON": json.loads,
    "get": _get,
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "trim": lambda text: text.strip(),
    "split": lambda text, separator: text.split(separator),
    "join": lambda items, separator="": separator.join(items),
    "concat": lambda *lists: [each for one in lists for each in one],
    "keys": lambda table: sorted(table),
    "values": lambda table: list(table.values()),
    "min": min,
    "max": max,
    "abs": abs,
}
