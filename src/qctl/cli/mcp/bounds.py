"""Cuts results to a size that an agent can take in, and says what was cut."""

from __future__ import annotations

from itertools import islice
from typing import Any

from qctl.output.json import dumps
from qctl.plurals import counted

# The maximum for a result, in characters of JSON. This is about 25,000 tokens.
MAX_CHARACTERS = 100_000
# Deeper levels are not shown.
MAX_DEPTH = 40
# If a result is too large, these limits are tried one after another, until the result is small
# enough. A limit is the maximum number of items in each list and object. For a text, the maximum
# number of characters is the limit multiplied by ``_CHARACTERS_PER_ITEM``.
_ITEMS = (1000, 300, 100, 30, 10, 3)
_CHARACTERS_PER_ITEM = 20
# How many remarks on cuts are shown, and how many characters of a cut value's name.
_MAX_REMARKS = 10
_MAX_PLACE = 100


def bounded(result: Any) -> tuple[Any, list[str]]:
    """The result, cut if it is too large or too deep, and remarks that say what was cut."""
    for items in (None, *_ITEMS):
        cut = _Cut(items)
        smaller = cut.of(result, "result", 0)
        if len(dumps(smaller)) <= MAX_CHARACTERS:
            remarks = [*dict.fromkeys(cut.remarks)]
            if more := remarks[_MAX_REMARKS:]:
                remarks[_MAX_REMARKS:] = [f"{counted(len(more), 'more place')} cut"]
            return smaller, remarks
    return None, ["the result is too large to be shown: ask for less, or use the command line"]


class _Cut:
    """One attempt to make a result small enough.

    Args:
        items: how many items of a list or an object are kept; None to cut neither items nor texts.
    """

    def __init__(self, items: int | None) -> None:
        self._items = items
        self._characters = None if items is None else items * _CHARACTERS_PER_ITEM
        self.remarks: list[str] = []

    def of(self, value: Any, place: str, depth: int) -> Any:
        """The value, cut; ``place`` is its name in remarks."""
        if isinstance(value, list | dict) and depth > MAX_DEPTH:
            self._remark(place, f"levels below {MAX_DEPTH} are not shown")
            return None
        if isinstance(value, list):
            self._count(place, len(value), "item")
            kept = value[: self._items]
            return [self.of(item, f"{place}[]", depth + 1) for item in kept]
        if isinstance(value, dict):
            self._count(place, len(value), "field")
            pairs = islice(value.items(), self._items)
            return {
                _encodable(key): self.of(item, f"{place}.{_encodable(key)}", depth + 1)
                for key, item in pairs
            }
        return self._of_text(value, place) if isinstance(value, str) else value

    def _of_text(self, text: str, place: str) -> str:
        text = _encodable(text)
        if self._characters is None or len(text) <= self._characters:
            return text
        self._remark(place, f"texts are cut after {self._characters:,} characters")
        return text[: self._characters] + "…"

    def _count(self, place: str, count: int, noun: str) -> None:
        if self._items is not None and count > self._items:
            self._remark(place, f"the first {self._items} of {counted(count, noun)}")

    def _remark(self, place: str, text: str) -> None:
        self.remarks.append(f"cut: {place[:_MAX_PLACE]}: {text}")


def _encodable(text: str) -> str:
    """The text with lone surrogates (bytes that are not UTF-8) as escapes, for the protocol."""
    return text.encode(errors="backslashreplace").decode()
