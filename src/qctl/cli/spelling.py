"""The name that a mistyped word probably means.

Suggestions are often typed without much thought, so only names a typing error away are suggested:
nobody who types ``version`` means ``drain``.
"""

from __future__ import annotations

from collections.abc import Iterable

# From this length on, a word may have one slip, or two.
_ONE_SLIP, _TWO_SLIPS = 3, 6


def nearest(word: str, names: Iterable[str]) -> str:
    """The name that is fewest slips away from ``word``; "" if none is close.

    A slip is a letter too many, too few, wrong, or swapped with its neighbour; case does not
    count. A word of three to five letters may have one, a longer one two, a shorter one none.
    """
    allowed = 2 if len(word) >= _TWO_SLIPS else 1 if len(word) >= _ONE_SLIP else 0
    slips = [(distance(word.casefold(), name.casefold()), name) for name in names]
    return next((name for number, name in sorted(slips) if number <= allowed), "")


def nearest_flag(word: str, flags: Iterable[str]) -> str:
    """The same for a flag, which may also be cut short: ``--dry`` for ``--dry-run``."""
    longer = [flag for flag in flags if flag.startswith(word)]
    return longer[0] if len(longer) == 1 and len(word) >= _ONE_SLIP else nearest(word, flags)


def distance(one: str, two: str) -> int:
    """How many slips lead from one word to the other (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(two) + 1))
    for row, letter in enumerate(one, 1):
        now = [row]
        for column, other in enumerate(two, 1):
            best = min(last[column] + 1, now[-1] + 1, last[column - 1] + (letter != other))
            swapped = row > 1 and column > 1 and (letter, other) == (two[column - 2], one[row - 2])
            now.append(min(best, before[column - 2] + 1) if swapped else best)
        before, last = last, now
    return last[-1]
