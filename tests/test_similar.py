"""Names that were probably meant by one that does not exist."""

from __future__ import annotations

import pytest

from qctl.similar import similar_names


@pytest.mark.parametrize(
    ("word", "names", "near"),
    [
        ("P6", ["r6", "p6", "m6"], ["p6", "r6", "m6"]),
        ("EMAILS", ["details", "emails"], ["emails", "details"]),
        ("emials", ["Reports", "Emails"], ["Emails"]),
        ("q", ["Q", "reports"], ["Q"]),
        ("a1", ["A1", "a2"], ["A1", "a2"]),
        ("reports", ["x"], []),
        ("reports", [], []),
    ],
)
def test_a_name_that_differs_in_case_alone_comes_first(
    word: str, names: list[str], near: list[str]
) -> None:
    told = similar_names(word, names, max_names=3, cutoff=0.5)
    assert (told[:1], sorted(told)) == (near[:1], sorted(near))
    assert similar_names(word, names, cutoff=0.5) == near[:1]
