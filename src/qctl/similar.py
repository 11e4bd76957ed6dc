"""Suggestions for a misspelt name."""

from __future__ import annotations

from collections.abc import Iterable


def similar_names(
    word: str, names: Iterable[str], max_names: int = 1, cutoff: float = 0.6
) -> list[str]:
    """The ``names`` most similar to ``word``, best first; case does not matter.

    Args:
        max_names: how many to return at most.
        cutoff: how similar a name must be, from 0 (not at all) to 1 (equal except for case).
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only for a wrong name

    by_folded: dict[str, list[str]] = {}
    for name in names:
        by_folded.setdefault(name.casefold(), []).append(name)
    near = get_close_matches(word.casefold(), by_folded, max_names, cutoff)
    return [name for folded in near for name in by_folded[folded]][:max_names]
