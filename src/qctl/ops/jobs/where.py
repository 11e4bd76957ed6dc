"""Chooses jobs by an expression: the language of ``--where``.

.. code-block:: text

    expression  = and-part { "or" and-part }
    and-part    = not-part { "and" not-part }
    not-part    = "not" not-part | "(" expression ")" | field op value
    op          = "=" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "~"   (~: contains, any case)
    value       = number | true | false | null | "text" | 'text' | bareword

    data.user.id = 42 and (error ~ timeout or attempts_made >= 3)

``shape`` is the failure reason without the parts that differ from job to job (``ops.jobs.shape``).
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from qctl.errors import UsageError
from qctl.ops.jobs.model import Job, Predicate
from qctl.ops.jobs.shape import shape_of
from qctl.similar import similar_names
from qctl.wire.states import FINISHED

# How a field can be compared. A text field is compared with the value as it was typed. A number
# field can only be compared with a number or null. ``progress`` may be any JSON.
_KINDS = {
    **dict.fromkeys(("id", "name", "state"), "text"),
    **dict.fromkeys(("attempts_made", "attempts_started", "attempts_max"), "number"),
    **dict.fromkeys(("stalled_count", "priority"), "number"),
    **{"worker": "text", "runtime_s": "number", "progress": "any", "error": "text"},
    "shape": "text",
}
FIELDS = tuple(_KINDS)
# Fields that contain JSON; a path such as ``data.user.id`` names a part of the JSON.
_NESTED = ("data", "opts", "progress")
_MAX_DEPTH = 50
_OPERATORS = ("!=", "<=", ">=", "==", "=", "<", ">", "~")
_ORDERINGS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_KEYWORDS = frozenset({"and", "or", "not"})
_TOKEN = re.compile(
    r"""(?:
      (?P<op>!=|<=|>=|==|=|<|>|~)
    | (?P<paren>[()])
    | (?P<text>"(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+')
    | (?P<unclosed>["'].*)  # The rest, so that it is not searched again at each quotation mark.
    | (?P<word>[^\s()"'=!<>~]+)
    | (?P<bad>\S)
    )""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


@dataclass(frozen=True, slots=True)
class _Value:
    """A literal: its value, and its text as it was typed."""

    value: str | int | float | bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Where:
    """The test of an expression; ``fields`` are the fields of a job that the test reads."""

    test: Predicate
    fields: frozenset[str]

    def __call__(self, job: Job) -> bool:
        return self.test(job)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Chooses jobs of a state: those that meet every given condition.

    Args:
        since, until: bounds for ``finished_at`` of a finished job, or ``added_at`` of another job.
        where: a test made by ``parse_where``, or any function.
    """

    ids: frozenset[str] = frozenset()
    name: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    where: Predicate | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is any condition."""
        return self != Filter()

    def matches(self, job: Job) -> bool:
        """Whether all conditions hold for a job."""
        at = job.finished_at if job.state in FINISHED else job.added_at
        # A job without this time is outside all bounds.
        if self.since is not None and (at is None or at < self.since):
            return False
        if self.until is not None and (at is None or at > self.until):
            return False
        if self.ids and job.id not in self.ids:
            return False
        is_named = self.name is None or job.name == self.name
        return is_named and (self.where is None or self.where(job))

    @property
    def since_ms(self) -> float | None:
        """The lowest possible score (epoch ms) of a job that finished at ``since`` or later."""
        # 1 ms less, because a float is not exact.
        return None if self.since is None else self.since.timestamp() * 1000 - 1


def parse_where(text: str) -> Where:
    """The test that an expression describes.

    A field that a job does not have equals only ``null``. A number in the expression equals the
    same number in a job. The number equals text in a job only if both are written in the same way:
    ``id = 1`` matches the id ``1``, but not ``01``. If ``<`` or ``>`` compares a number with text
    in a job, and the text is a number, the text counts as that number.

    Raises:
        UsageError: the text is not an expression; the message points at the place.
    """
    parser = _Parser(text)
    return Where(parser.parse(), frozenset(parser.fields))


def field_reader(field: str) -> Callable[[Job], Any] | None:
    """A function that reads a field, such as ``data.user.id``; None if there is no such field."""
    name, *path = field.split(".")
    if name in _NESTED and (name == "progress" or path) and all(path):
        return lambda job: _follow(getattr(job, name), path)
    if name not in FIELDS or path:
        return None
    if name == "shape":
        return lambda job: shape_of(job.failed_reason)
    attribute = "failed_reason" if name == "error" else name
    return lambda job: getattr(job, attribute)


def equality(field: str, value: Any) -> str | None:
    """The expression that matches exactly the jobs whose ``field`` equals ``value``.

    Values that the language does not distinguish have the same expression: the numbers 42 and 42.0,
    and the text ``42``. None for an array, an object, infinity or NaN, because no expression can
    name these values.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        number = _literal(value)
        # Other text, such as 007, is quoted below: unquoted, it would also match the number 7.
        if _number_text(number) == value:
            return f"{field} = {value}"
    if value is None or isinstance(value, bool):
        return f"{field} = {json.dumps(value)}"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'{field} = "{escaped}"'
    text = _number_text(value)
    return None if text is None else f"{field} = {text}"


def _number_text(value: Any) -> str | None:
    """How ``equality`` writes a number, such as 42 for 42.0; None if not a finite number."""
    if not _is_number(value) or not math.isfinite(value):
        return None
    return json.dumps(int(value) if value == int(value) else value)


class _Parser:
    """Recursive descent: ``_or``, ``_and``, ``_not`` and ``_value`` each read one grammar rule."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._tokens = [
            _Token(str(match.lastgroup), match[str(match.lastgroup)], match.start(match.lastindex))
            for match in _TOKEN.finditer(source)
            if match.lastindex
        ]
        self._next = 0
        self._depth = 0
        self.fields: set[str] = set()

    def parse(self) -> Predicate:
        test = self._or()
        token = self._peek()
        if token.kind == "paren":
            raise self._error("there is no '(' for this ')'", token)
        if token.kind != "end":
            raise self._error(
                "expected 'and' or 'or' here; put a value with spaces in quotation marks", token
            )
        return test

    def _peek(self) -> _Token:
        if self._next < len(self._tokens):
            return self._tokens[self._next]
        return _Token("end", "", len(self._source.rstrip()))

    def _take(self) -> _Token:
        token = self._peek()
        self._next += 1
        return token

    def _take_if(self, kind: str, text: str) -> bool:
        token = self._peek()
        if token.kind == kind and token.text.lower() == text:
            self._next += 1
            return True
        return False

    def _or(self) -> Predicate:
        parts = self._parts(self._and, "or")
        return parts[0] if len(parts) == 1 else lambda job: any(part(job) for part in parts)

    def _and(self) -> Predicate:
        parts = self._parts(self._not, "and")
        return parts[0] if len(parts) == 1 else lambda job: all(part(job) for part in parts)

    def _parts(self, rule: Callable[[], Predicate], separator: str) -> list[Predicate]:
        parts = [rule()]
        while self._take_if("word", separator):
            parts.append(rule())
        return parts

    def _not(self) -> Predicate:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error(f"nested more than {_MAX_DEPTH} deep", self._peek())
        try:
            if self._take_if("word", "not"):
                inner = self._not()
                return lambda job: not inner(job)
            opening = self._peek()
            if not self._take_if("paren", "("):
                return self._comparison()
            test = self._or()
            if not self._take_if("paren", ")"):
                if self._peek().kind == "end":
                    raise self._error("this '(' is not closed", opening)
                raise self._error("expected 'and', 'or' or ')' here", self._peek())
            return test
        finally:
            self._depth -= 1

    def _comparison(self) -> Predicate:
        field = self._take()
        if field.kind != "word" or field.text.lower() in _KEYWORDS:
            raise self._error("expected a field here", field)
        read = self._reader(field)
        op = self._take()
        if op.kind != "op":
            raise self._error(f"expected one of {' '.join(_OPERATORS)} here", op)
        at = self._peek()
        value = self._value(op)
        is_number = value.value is None or _is_number(value.value)
        kind = _KINDS.get(field.text)
        if kind == "number" and op.text != "~" and not is_number:
            raise self._error(f"{field.text} can only be compared with a number or null", at)
        if kind == "text" and isinstance(value.value, bool):
            value = _Value(value.text, value.text)
        return _compare(read, "=" if op.text == "==" else op.text, value)

    def _reader(self, token: _Token) -> Callable[[Job], Any]:
        name, *path = token.text.split(".")
        self.fields.add(name)
        if "[" in token.text:
            hint = "an element of an array is named by its index alone, such as data.items.0.id"
            raise self._error(hint, token)
        if (read := field_reader(token.text)) is not None:
            return read
        if name in ("data", "opts") and not path:
            raise self._error(f"name a part of {name}, such as {name}.user.id", token)
        close = similar_names(token.text, FIELDS)
        raise self._error(
            f"there is no such field; did you mean {close[0]}?" if close else "no such field",
            token,
            more=f"\nfields: {', '.join(FIELDS)}, data.PATH, opts.PATH",
        )

    def _value(self, op: _Token) -> _Value:
        token = self._take()
        if token.kind == "text":
            text = re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
            return _Value(text, text)
        if token.kind != "word" or token.text.lower() in _KEYWORDS:
            if token.kind == "unclosed":
                raise self._error("this quotation mark is not closed", token)
            raise self._error("expected a value here", token)
        value = _literal(token.text)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error("this number is too large; put text in quotation marks", token)
        if isinstance(value, bool | None) and op.text in _ORDERINGS:
            raise self._error(f"{op.text} needs a number or text, not {token.text}", token)
        return _Value(value, token.text)

    def _error(self, problem: str, token: _Token, *, more: str = "") -> UsageError:
        # Each character takes one column, so that the caret is below the right character.
        line = "".join(c if c.isprintable() else "?" for c in self._source)
        start = max(0, token.column - 50)
        return UsageError(
            f"--where, column {token.column + 1}: {problem}",
            why=f"{line[start : start + 76]}\n{' ' * (token.column - start)}^{more}",
            hint="--where 'attempts_made > 2 and data.user.id = 42'",
        )


def _literal(text: str) -> str | int | float | bool | None:
    if text in _WORDS:
        return _WORDS[text]
    if not _NUMBER.fullmatch(text):
        return text
    try:
        return int(text)
    except ValueError:
        return float(text)


def _follow(value: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and len(part) < 10:
            value = value[int(part)] if int(part) < len(value) else None
        else:
            return None
    return value


def _compare(read: Callable[[Job], Any], op: str, wanted: _Value) -> Predicate:
    if op == "~":
        needle = wanted.text.casefold()
        return lambda job: needle in _as_text(read(job)).casefold()
    if op in ("=", "!="):
        return lambda job: _equals(read(job), wanted) == (op == "=")
    return lambda job: _ordered(read(job), op, wanted)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equals(actual: Any, wanted: _Value) -> bool:
    if isinstance(actual, str) and wanted.value is not None:
        return not isinstance(wanted.value, bool) and actual == wanted.text
    if _is_number(wanted.value):
        return _is_number(actual) and bool(actual == wanted.value)
    return type(actual) is type(wanted.value) and bool(actual == wanted.value)


def _ordered(actual: Any, op: str, wanted: _Value) -> bool:
    value: Any = wanted.value
    if _is_number(value):
        if isinstance(actual, str):
            actual = _literal(actual)
        if not _is_number(actual):
            return False
    elif not isinstance(actual, str):
        return False
    return bool(_ORDERINGS[op](actual, value))
