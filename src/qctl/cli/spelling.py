"""The name that a mistyped word probably means.

Users often run a suggestion without a closer look, so a name is suggested only if a typing error
explains the difference. ``qctl.similar`` is more generous, for names of queues and jobs.
"""

from __future__ import annotations

from collections.abc import Iterable

# The shortest word that may contain one slip, and the shortest that may contain two.
_MIN_FOR_ONE_SLIP, _MIN_FOR_TWO_SLIPS = 3, 6


def nearest(word: str, names: Iterable[str]) -> str:
    """The name nearest to ``word``, counted in slips; "" if no name is near.

    A slip is an extra, missing or wrong letter, or two swapped neighbours; case does not matter. A
    word of 3 to 5 letters may contain one slip, a longer word two, a shorter word none.
    """
    is_long = len(word) >= _MIN_FOR_TWO_SLIPS
    max_slips = 2 if is_long else 1 if len(word) >= _MIN_FOR_ONE_SLIP else 0
    slips = [(distance(word.casefold(), name.casefold()), name) for name in names]
    return next((name for number, name in sorted(slips) if number <= max_slips), "")


def nearest_flag(word: str, flags: Iterable[str]) -> str:
    """``nearest`` for flags, given without the leading ``--``; a unique prefix is enough."""
    longer = [flag for flag in flags if flag.startswith(word)]
    is_clear = len(longer) == 1 and len(word) >= _MIN_FOR_ONE_SLIP
    return longer[0] if is_clear else nearest(word, flags)


def distance(one: str, two: str) -> int:
    """How many slips lead from one word to the other (optimal string alignment)."""
    # A row lists how far a prefix of ``one`` is from each prefix of ``two``. Three rows are kept:
    # ``now`` is being filled, ``last`` is the row above ``now``, and ``before`` is above ``last``.
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
