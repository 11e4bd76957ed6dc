"""Text for people: untrusted text made visible, passwords masked, durations, counts, sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from qctl.durations import duration, short_duration

__all__ = [
    "ELLIPSIS",
    "cells",
    "count",
    "duration",
    "duration_range",
    "folded",
    "listed",
    "short_count",
    "short_duration",
    "shortened",
    "size",
    "visible",
    "without_passwords",
    "wrapped",
]

# Python calls these printable, but terminals show nothing: fillers, joiners, variation selectors.
_INVISIBLE = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"
    + "".join(map(chr, range(0xFE00, 0xFE10)))
    + "".join(map(chr, range(0xE0100, 0xE01F0)))
)
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# A word with a password, up to the last @ of the word: a password may contain @ itself. The pattern
# looks at each word once, because a text may have megabytes.
_PASSWORD = re.compile(r"(?<!\S)((?>\S*?://[^\s:/@]*:))\S+@")
_PARAMETER = re.compile(r"([?&]\w*password=)[^&\s]+")
# A space where a line may end: not between a number and its unit.
_BREAK = re.compile(r"(?<!\d) | (?!(?:ms|s|min|h|d|%|[KMGT]?i?B)(?!\w))")
ELLIPSIS = "…"


def visible(text: str, max_width: int | None = None) -> str:
    """``text`` on one line. Characters that a terminal would obey or hide are written out.

    Control and escape characters, line ends, bidirectional marks, zero-width and unassigned
    characters, unusual spaces and lone surrogates appear as ``\\n``, ``\\x1b``, ``\\u202e``. A
    backslash stays as it is, because paths and patterns are more common than forged escapes.

    Args:
        max_width: in terminal cells; a longer text is cut in the middle, because names often
            differ only at the end.
    """
    if not text.isprintable() or not (text.isascii() or _INVISIBLE.isdisjoint(text)):
        text = "".join(map(_spelled, text))
    return text if max_width is None else shortened(text, max_width, keep_end=True)


def _spelled(char: str) -> str:
    if char.isprintable() and char not in _INVISIBLE:
        return char
    code = ord(char)
    if char in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def without_passwords(text: str) -> str:
    """``text``, with each password in a URL replaced by ``***``."""
    return _PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def shortened(text: str, max_width: int, *, keep_end: bool = False) -> str:
    """``text`` cut to ``max_width`` cells, with an ellipsis in place of the part that was cut.

    Args:
        keep_end: cut in the middle, for names that differ only at their end.
    """
    if cells(text) <= max_width:
        return text
    if max_width < 1:
        return ""
    tail = _fitting(text[::-1], (max_width - 1) // 2)[::-1] if keep_end else ""
    return _fitting(text, max_width - 1 - cells(tail)) + ELLIPSIS + tail


def _fitting(text: str, max_width: int) -> str:
    """The longest beginning of ``text`` that takes at most ``max_width`` cells."""
    if text.isascii():
        return text[:max_width]
    left = max_width
    for index, char in enumerate(text):
        left -= cells(char)
        if left < 0:
            return text[:index]
    return text


def wrapped(text: str, width: int, *, cut: bool = True) -> Iterator[str]:
    """The text in lines of at most ``width`` cells. A number keeps its unit beside it.

    Args:
        cut: True to shorten words that are longer than a line; False to put such a word on its own
            line, which is then wider than ``width``.
    """
    line = ""
    for word in _BREAK.split(text):
        shown = shortened(word, width, keep_end=True) if cut else word
        if line and cells(line) + 1 + cells(shown) > width:
            yield line
            line = shown
        else:
            line = f"{line} {shown}" if line else shown
    yield line


def folded(text: str, width: int, *, keep_indent: bool = False) -> Iterator[str]:
    """The whole text in lines of at most ``width`` cells; longer words go on in the next line.

    Args:
        width: with fewer than 4 cells, a wide character may not fit.
        keep_indent: begin each line with the spaces that ``text`` begins with, but with at most
            ``width // 2`` of them.
    """
    indent = ""
    if keep_indent:
        indent = " " * min(len(text) - len(text.lstrip(" ")), width // 2)
        text = text.lstrip(" ")
    width -= len(indent)
    for line in wrapped(text, width, cut=False):
        rest = line
        while cells(rest) > width:
            # A character of two cells does not fit into one.
            part = _fitting(rest, width) or rest[:1]
            yield indent + part
            rest = rest[len(part) :]
        if rest or not line:
            yield indent + rest


def cells(text: str) -> int:
    """The width of ``text`` in terminal cells; the text must come from ``visible``."""
    if text.isascii():
        return len(text)
    import unicodedata  # noqa: PLC0415 - most names are ASCII

    width = 0
    for char in text:
        if unicodedata.category(char) in {"Mn", "Me"}:
            continue
        width += 2 if unicodedata.east_asian_width(char) in {"W", "F"} else 1
    return width


def listed(names: Sequence[str], most: int = 5, *, total: int | None = None) -> str:
    """``a, b and 3 more``: the first ``most`` names, each visible and cut to 40 cells.

    Args:
        total: the number of all names, if ``names`` holds only a part of them.
    """
    shown = [visible(name, 40) for name in names[:most]]
    more = (len(names) if total is None else total) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")


def count(number: int) -> str:
    """A number with thousands separated: ``12,345``."""
    return f"{number:,}"


def short_count(number: int) -> str:
    """A count in at most five cells: ``9,999``, ``12.3k``, ``123k``, ``1.2M``."""
    if abs(number) < 10_000:
        return f"{number:,}"
    value = float(number)
    for unit in "kMGT":
        value /= 1000
        if abs(value) < 99.95:
            return f"{value:.1f}{unit}"
        if abs(value) < 999.5:
            return f"{value:.0f}{unit}"
    return f"{value:.0f}T"


def size(number: int) -> str:
    """Bytes in binary units: ``512 B``, ``1.5 KiB``, ``93 MiB``."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            digits = 1 if 0 < abs(value) < 10 and unit != "B" else 0
            return f"{value:.{digits}f} {unit}"
        value /= 1024
    raise AssertionError("TiB is the last unit")


def duration_range(low_s: float, high_s: float) -> str:
    """``1.5 to 4.0 s`` or ``30 to 92 s``; if ``high_s`` is 120 or more, ``40 s to 2 min 5 s``."""
    low, high = duration(low_s), duration(high_s)
    if low == high:
        return high
    if high_s < 120:
        low, high = f"{low_s:.1f}", f"{high_s:.1f}"
        # From 10 s on, no decimal is shown. 9.95 counts as 10, because it would be rounded to 10.0.
        if high_s >= 9.95:
            low, high = f"{low_s:.0f}", f"{high_s:.0f}"
        return f"{low} to {high} s"
    return f"{low} to {high}"
