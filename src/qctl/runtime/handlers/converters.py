"""Converters: from JSON values to what a handler's annotation describes.

A converter takes a value and its path (``data.user.age``), and returns what the annotation
describes, or raises ``NoFitError``. Converters are made once, when a handler is registered.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import partial
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

from qctl.errors import UsageError

Converter = Callable[[Any, str], Any]

_MISSING = object()
# A list, dict or pydantic model gives at most this many reasons, even for a million wrong items.
_MAX_REASONS = 5
# JSON's own types, and the words for them in a reason. A bool is not an int here.
_PLAIN: dict[Any, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
# Types whose values are strings in JSON: for each, the parser and the words in a reason.
_FROM_TEXT: dict[Any, tuple[Callable[[str], Any], str]] = {
    datetime: (datetime.fromisoformat, "a date and time such as 2026-01-31T12:00:00Z"),
    date: (date.fromisoformat, "a date such as 2026-01-31"),
    time: (time.fromisoformat, "a time such as 12:00:00"),
    UUID: (UUID, "a UUID"),
    Decimal: (Decimal, "a decimal number as text"),
}


class NoFitError(Exception):
    """The value does not fit; each argument is one reason, which begins with the path."""


def is_record(annotation: Any) -> bool:
    return isinstance(annotation, type) and (
        dataclasses.is_dataclass(annotation)
        or _is_typed_dict(annotation)
        or _is_pydantic(annotation)
    )


def _is_typed_dict(annotation: Any) -> bool:
    # Checked by attributes, because the TypedDict may be that of ``typing_extensions``.
    return hasattr(annotation, "__required_keys__") and hasattr(annotation, "__total__")


def _is_pydantic(annotation: Any) -> bool:
    pydantic = sys.modules.get("pydantic")
    return (
        pydantic is not None
        and isinstance(annotation, type)
        and issubclass(annotation, pydantic.BaseModel)
    )


class Converters:
    """Makes the converters of one handler.

    Args:
        names: local names that annotations may use.
        title: the handler's name, for errors.
    """

    def __init__(self, names: Mapping[str, Any], title: str) -> None:
        self._names = dict(names)
        self._title = title
        # The records made so far. Kept, because a record may contain itself.
        self._records: dict[Any, _Record] = {}
        self._makers: dict[Any, Callable[[Sequence[Any]], Converter]] = {
            Any: lambda _: _as_it_is,
            object: lambda _: _as_it_is,
            None: lambda _: _plain(type(None)),
            Union: self._union,
            types.UnionType: self._union,
            Literal: _one_of,
            list: partial(self._list, list),
            Sequence: partial(self._list, list),
            tuple: self._tuple,
            dict: self._dict,
            Mapping: self._dict,
        }

    def make(self, annotation: Any) -> Converter:
        """Make the converter of an annotation.

        Raises:
            UsageError: qctl has no converter for the annotation.
        """
        origin, args = get_origin(annotation), get_args(annotation)
        if origin is typing.Annotated:
            return self.make(args[0])
        if hasattr(annotation, "__supertype__"):  # a NewType
            return self.make(annotation.__supertype__)
        make = self._makers.get(origin or annotation)
        if make is not None:
            return make(args)
        if isinstance(annotation, type):
            return self._of_class(annotation)
        raise self._refusal(annotation)

    def _of_class(self, annotation: type) -> Converter:
        if annotation in _PLAIN:
            return _plain(annotation)
        if annotation in _FROM_TEXT:
            return _from_text(*_FROM_TEXT[annotation])
        if issubclass(annotation, Enum):
            return _enum(annotation)
        if _is_pydantic(annotation):
            if not hasattr(annotation, "model_validate"):
                raise self._refusal(annotation, "qctl needs pydantic 2")
            return _model(annotation)
        if dataclasses.is_dataclass(annotation) or _is_typed_dict(annotation):
            if annotation not in self._records:
                # Stored before its fields are made, because a field may contain the same record.
                record = self._records[annotation] = _Record(annotation)
                record.fields = self._fields(annotation)
            return self._records[annotation].convert
        raise self._refusal(annotation)

    def _fields(self, annotation: Any) -> dict[str, tuple[Converter, bool]]:
        """The fields of a dataclass or TypedDict: converter, and whether a value is required."""
        try:
            hints = typing.get_type_hints(annotation, localns=self._names, include_extras=True)
        except Exception as error:
            raise self._refusal(annotation, f"{type(error).__name__}: {error}") from None
        if _is_typed_dict(annotation):
            return {name: self._key(annotation, name, hint) for name, hint in hints.items()}
        return {
            field.name: (
                self.make(hints[field.name]),
                field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING,
            )
            for field in dataclasses.fields(annotation)
            if field.init
        }

    def _key(self, annotation: Any, name: str, hint: Any) -> tuple[Converter, bool]:
        origin = get_origin(hint)
        if origin in {typing.Required, typing.NotRequired}:
            # ``__required_keys__`` is wrong if the annotations are strings.
            return self.make(get_args(hint)[0]), origin is typing.Required
        return self.make(hint), name in annotation.__required_keys__

    def _union(self, args: Sequence[Any]) -> Converter:
        rest = [each for each in args if each is not type(None)]
        choices = [self.make(each) for each in rest]
        may_be_none = len(rest) < len(args)

        def convert(value: Any, path: str) -> Any:
            if value is None and may_be_none:
                return None
            reasons: list[str] = []
            for choice in choices:
                try:
                    return choice(value, path)
                except NoFitError as error:
                    reasons += error.args
            raise NoFitError(*(reasons if len(choices) == 1 else [" or ".join(reasons)]))

        return convert

    def _list(self, make: Callable[[Any], Any], args: Sequence[Any]) -> Converter:
        item = self.make(args[0]) if args else _as_it_is

        def convert(value: Any, path: str) -> Any:
            _check(isinstance(value, list), value, path, "a list")
            return make(_each((f"{path}[{i}]", item, each) for i, each in enumerate(value)))

        return convert

    def _tuple(self, args: Sequence[Any]) -> Converter:
        if not args or args[-1] is Ellipsis:
            return self._list(tuple, args[:1])
        items = [self.make(each) for each in args]

        def convert(value: Any, path: str) -> Any:
            fits = isinstance(value, list) and len(value) == len(items)
            _check(fits, value, path, f"a list of {len(items)}")
            pairs = enumerate(zip(items, value, strict=True))
            return tuple(_each((f"{path}[{i}]", item, each) for i, (item, each) in pairs))

        return convert

    def _dict(self, args: Sequence[Any]) -> Converter:
        if args and args[0] not in {str, Any}:
            raise self._refusal(dict, "the keys of a JSON object are strings")
        item = self.make(args[1]) if args else _as_it_is

        def convert(value: Any, path: str) -> Any:
            _check(isinstance(value, dict), value, path, "an object")
            items = _each((f"{path}.{key}", item, each) for key, each in value.items())
            return dict(zip(value, items, strict=True))

        return convert

    def _refusal(self, annotation: Any, why: str = "") -> UsageError:
        name = getattr(annotation, "__name__", None) if isinstance(annotation, type) else None
        return UsageError(
            f"the task {self._title} cannot have data of the type {name or annotation}",
            why=why
            or "qctl reads dataclasses, TypedDicts and pydantic models; str, int, float, bool, "
            "None, list, tuple, dict, Literal, Enum, Optional and unions; and, from JSON strings, "
            "datetime, date, time, UUID and Decimal",
        )


class _Record:
    """Converts JSON objects to a dataclass or a TypedDict; ignores unknown keys.

    Attributes:
        fields: for each field its converter, and whether a value is required.
    """

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self.fields: dict[str, tuple[Converter, bool]] = {}

    def convert(self, value: Any, path: str) -> Any:
        _check(isinstance(value, dict), value, path, "an object")
        reasons: list[str] = []
        found: dict[str, Any] = {}
        for name, (convert, is_required) in self.fields.items():
            item = value.get(name, _MISSING)
            if item is not _MISSING:
                try:
                    found[name] = convert(item, f"{path}.{name}")
                except NoFitError as error:
                    reasons += error.args
            elif is_required:
                reasons.append(f"{path}.{name} is missing")
        if reasons:
            raise NoFitError(*reasons)
        try:
            return self._kind(**found)
        except ValueError as error:  # from ``__post_init__``
            raise NoFitError(*_reasons(error, path)) from None


def _each(items: Iterable[tuple[str, Converter, Any]]) -> list[Any]:
    """Convert each (path, converter, value). If some do not fit, raise one error for all."""
    reasons: list[str] = []
    found: list[Any] = []
    for path, convert, value in items:
        try:
            found.append(convert(value, path))
        except NoFitError as error:
            reasons += error.args
    if reasons:
        raise NoFitError(*reasons[:_MAX_REASONS])
    return found


def _check(fits: bool, value: Any, path: str, expected: str) -> None:
    if not fits:
        raise NoFitError(f"{path} must be {expected}, not {_short(value)}")


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _as_it_is(value: Any, _: str) -> Any:
    return value


def _plain(kind: Any) -> Converter:
    allowed = (int, float) if kind is float else kind
    expected = _PLAIN[kind]

    def convert(value: Any, path: str) -> Any:
        # A bool is an int in Python.
        fits = isinstance(value, allowed) and (kind is bool or not isinstance(value, bool))
        _check(fits, value, path, expected)
        return float(value) if kind is float else value

    return convert


def _from_text(parse: Callable[[str], Any], expected: str) -> Converter:
    def convert(value: Any, path: str) -> Any:
        try:
            if isinstance(value, str):
                return parse(value)
        except (ValueError, InvalidOperation):
            pass
        raise NoFitError(f"{path} must be {expected}, not {_short(value)}")

    return convert


def _one_of(values: Sequence[Any]) -> Converter:
    expected = " or ".join(map(repr, values))

    def convert(value: Any, path: str) -> Any:
        # 1 and True are equal.
        fits = any(type(value) is type(each) and value == each for each in values)
        _check(fits, value, path, expected)
        return value

    return convert


def _enum(kind: type[Enum]) -> Converter:
    check = _one_of([each.value for each in kind])
    return lambda value, path: kind(check(value, path))


def _model(kind: Any) -> Converter:
    def convert(value: Any, path: str) -> Any:
        try:
            return kind.model_validate(value)
        except ValueError as error:
            raise NoFitError(*_reasons(error, path)) from None

    return convert


def _reasons(error: ValueError, path: str) -> list[str]:
    """Why a class refused a value: one reason, or from pydantic a reason for each problem."""
    if not hasattr(error, "errors"):
        return [f"{path}: {error}"]
    found = error.errors()[:_MAX_REASONS]
    return [f"{_path(path, each['loc'])}: {each['msg']}" for each in found]


def _path(path: str, loc: Sequence[Any]) -> str:
    return path + "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in loc)
