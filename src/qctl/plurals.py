"""Numbers with their nouns, in every message: ``1 job``, ``1,200 jobs``."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """``1 job``, ``3 jobs``; with a verb ``1 job waits``, ``3 jobs wait``.

    Args:
        one: the words after the number 1.
        many: the words after any other number; if empty, ``one`` and an s.
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
