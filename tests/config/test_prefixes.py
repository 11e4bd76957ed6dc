"""Which key prefixes the words of an operator choose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qctl.config.prefixes import escaped, only, parse_prefixes, split_list
from qctl.config.settings import load_settings
from qctl.errors import UsageError

TEXT = st.lists(st.sampled_from([*"ab:*?$Q,\\{}[]^", "$QUEUE"]), min_size=1, max_size=8).map(
    "".join
)


@given(TEXT, TEXT)
def test_an_escaped_prefix_matches_only_itself(prefix: str, other: str) -> None:
    chosen = parse_prefixes([escaped(prefix)])
    assert chosen == only(prefix)
    assert chosen.single == prefix
    assert chosen.of_queue("q") == [prefix]
    assert chosen.include(other, "q") == (other == prefix)


@given(st.lists(TEXT, min_size=1, max_size=4, unique=True))
def test_prefixes_survive_the_environment(words: list[str]) -> None:
    chosen = parse_prefixes(words)
    assert parse_prefixes(split_list(str(chosen))) == chosen


@pytest.mark.parametrize(
    ("pattern", "included", "excluded"),
    [
        ("bull*", ["bull", "bulls", "bull:a"], ["bul", "a:bull"]),
        ("{*}", ["{}", "{q}"], ["q", "{q}:"]),
        ("b?l", ["bul", "b:l"], ["bl", "bull"]),
        ("{bull}", ["{bull}"], ["bull"]),
        ("{$QUEUE}", ["{q}"], ["{r}", "{$QUEUE}"]),
        ("h:*:$QUEUE", ["h:queue:q"], ["h:queue:r"]),
        ("[ab]", ["[ab]"], ["a"]),
        ("b\\*", ["b*"], ["bull"]),
        ("\\$QUEUE", ["$QUEUE"], ["q"]),
        ("c:\\n", ["c:\\n"], ["c:n"]),
    ],
)
def test_patterns(pattern: str, included: list[str], excluded: list[str]) -> None:
    chosen = parse_prefixes([pattern])
    for prefix in included:
        assert chosen.include(prefix, "q"), prefix
    for prefix in excluded:
        assert not chosen.include(prefix, "q"), prefix


def test_what_a_scan_is_needed_for() -> None:
    assert parse_prefixes(["bull"]).single == "bull"
    several = parse_prefixes(["bull", "{$QUEUE}", "bull"])
    assert several.single is None
    assert not several.needs_scan
    assert several.of_queue("q") == ["bull", "{q}"]
    assert parse_prefixes(["bull", "x*"]).needs_scan


def test_the_prefix_of_a_new_queue() -> None:
    settings = load_settings(environ={"QCTL_PREFIX": "{$QUEUE}"})
    assert settings.prefix_of("q") == "{q}"
    with pytest.raises(UsageError):
        assert settings.prefix
    assert settings.under("a*").prefix == "a*"
    for several in ("a,b", "*", "{$QUEUE},x*"):
        with pytest.raises(UsageError):
            load_settings(environ={"QCTL_PREFIX": several}).prefix_of("q")


def test_the_list_of_a_variable() -> None:
    assert split_list("bull,{x}, y") == ["bull", "{x}", " y"]
    assert split_list("a\\,b,c") == ["a\\,b", "c"]
    assert split_list(",a,") == ["a"]
    with pytest.raises(UsageError):
        parse_prefixes([])
