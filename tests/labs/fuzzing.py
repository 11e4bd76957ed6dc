"""Random tests of what qctl reads: a few examples in the suite, or minutes of them by hand.

``QCTL_FUZZ_S=600`` runs each of these tests for that many seconds, with new examples all the time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import signal
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from qctl.output.json import dumps
from tests.labs.hostile import DEEP, NUMBERS

# How long each fuzzer runs; 0 for a few examples only.
FUZZ_S = float(os.environ.get("QCTL_FUZZ_S") or 0)
_EXAMPLES, _EXAMPLES_BY_HAND = 12, 2000
# No example needs more than a few milliseconds and megabytes.
_MAX_CPU_S = 2.0
_MAX_MEMORY = 512 * 2**20

# Any text, also what is no Unicode, and what a terminal would obey.
TEXT = st.one_of(
    st.text(st.characters(codec=None), max_size=20),
    st.text("\x1b[31m;:=,|/\\\"'{}()<>-_. \t\n\r\x00\x9b\u202e\udcff01aAeE%#@?*$", max_size=30),
    st.sampled_from(
        (*NUMBERS, DEEP, "9" * 5000, "-0", "1e308", "null", "true", "[]", "{}", "\x85")
    ),
)
# Long texts of a few characters find patterns that take quadratic time.
LONG = st.builds(
    lambda start, piece, times, end: start + piece * times + end,
    st.text(max_size=4),
    st.text("ab01:;./\\\"'@-_,=*?#[]{}()<> \t\n~^|+", min_size=1, max_size=6),
    st.sampled_from((10, 1000, 20_000)),
    st.text(max_size=4),
)
ANY_TEXT = TEXT | LONG
# What ``json.loads`` returns.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXT
    | st.sampled_from((10**400, -(10**400), 2**53 + 1, float("inf"), float("nan"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def mixed(good: st.SearchStrategy[Any], bad: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly good values: what is behind the first broken field must be reached, too."""
    return st.integers(0, 3).flatmap(lambda number: good if number else bad)


def encoded(values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    """The JSON of values, with NaN and infinity as Python writes them."""
    return values.map(json.dumps)


def broken_rows(good: dict[str, Any], bad: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A good row of fields, in which some are missing and some have bad values."""
    names = st.sampled_from(sorted(good))
    return st.builds(
        lambda gone, changed: {k: v for k, v in (good | changed).items() if k not in gone},
        st.sets(names, max_size=2),
        st.dictionaries(names, bad, max_size=3),
    )


def fuzz(**strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """A test with random arguments, in which each example is limited in CPU time and memory."""

    def decorate(test: Callable[..., None]) -> Callable[[], None]:
        count = 0

        @functools.wraps(test)
        def example(**arguments: Any) -> None:
            nonlocal count
            count += 1
            with _limited():
                test(**arguments)

        most = _EXAMPLES_BY_HAND if FUZZ_S else _EXAMPLES
        run = settings(max_examples=most)(given(**strategies)(example))

        # Without the signature of ``test``, whose arguments pytest would take for fixtures.
        def repeat() -> None:
            end = time.monotonic() + FUZZ_S
            run()
            while time.monotonic() < end:
                run()
            if FUZZ_S:
                print(f"\n{test.__module__}.{test.__name__}: {count:,} examples")  # noqa: T201

        repeat.__name__, repeat.__doc__ = test.__name__, test.__doc__
        repeat.__module__ = test.__module__
        return repeat

    return decorate


class _TooSlowError(BaseException):
    """Not an Exception, which the code under test might catch."""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """End the test if it takes too much CPU time or memory."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooSlowError

    before = signal.signal(signal.SIGVTALRM, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + _MAX_MEMORY, hard))
        signal.setitimer(signal.ITIMER_VIRTUAL, _MAX_CPU_S)
        yield
    except _TooSlowError:
        raise AssertionError(f"not done after {_MAX_CPU_S:g} s of CPU time") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, before)


def assert_json(result: Any) -> Any:
    """The JSON of a result, read again: it is valid, and all on one line of printable ASCII."""
    text = dumps(result)
    assert text.isascii()
    assert text.isprintable()
    return json.loads(text, parse_constant=_refused)


def assert_clean(*texts: str) -> None:
    """No text has anything that a terminal would obey or hide, except line ends."""
    for text in texts:
        foul = {
            char
            for char in set(text) - {"\n"}
            if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        }
        assert not foul, sorted(map(ascii, foul))


def _refused(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
