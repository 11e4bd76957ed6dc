"""Names that were probably meant by one that does not exist."""

from __future__ import annotations

from collections.abc import Iterable


def similar_names(word: str, names: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The ``names`` most like ``word``, the best first; those that differ only in case come first.

    Args:
        most: how many at most.
        cutoff: how alike they must be, from 0 to 1 (the same but for case).
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only for a name that is wrong

    by_folded: dict[str, list[str]] = {}
    for name in names:
        by_folded.setdefault(name.casefold(), []).append(name)
    near = get_close_matches(word.casefold(), by_folded, most, cutoff)
    return [name for folded in near for name in by_folded[folded]][:most]
