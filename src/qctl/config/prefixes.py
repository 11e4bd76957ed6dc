"""The key prefixes that a command works on, given as names or patterns.

``*`` matches any characters, and ``?`` matches one character. ``$QUEUE`` stands for the queue's
name. After a backslash, each of ``* ? $ , \\`` is an ordinary character. Braces are ordinary
characters: ``{bull}`` is a hash tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from qctl.errors import UsageError

DEFAULT_PREFIX = "bull"
QUEUE_WORD = "$QUEUE"
_TOKENS = re.compile(r"\\(?P<plain>[*?$,\\])|(?P<special>\$QUEUE|[*?])|(?P<char>.)", re.DOTALL)
_SPECIAL = re.compile(r"[*?$,\\]")


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefixes that a command works on.

    Args:
        patterns: at least one, without duplicates. A special character that is meant literally has
            a backslash before it, as ``escaped`` writes it.
    """

    patterns: tuple[str, ...] = (DEFAULT_PREFIX,)

    @property
    def single(self) -> str | None:
        """The prefix, if there is exactly one and it is no pattern; else None."""
        return _literal(self.patterns[0]) if len(self.patterns) == 1 else None

    @property
    def needs_scan(self) -> bool:
        """Whether a pattern has ``*`` or ``?``, so only a scan finds all queues of a given name."""
        return any(_has_glob(pattern) for pattern in self.patterns)

    def of_queue(self, name: str) -> list[str]:
        """The prefixes that patterns without ``*`` and ``?`` give for the queue ``name``."""
        known = (_with_queue(pattern, name) for pattern in self.patterns if not _has_glob(pattern))
        return list(dict.fromkeys(known))

    def include(self, prefix: str, name: str) -> bool:
        """Whether a pattern allows this prefix for a queue called ``name``."""
        return prefix in self.of_queue(name) or any(
            _regex(pattern, name).fullmatch(prefix)
            for pattern in self.patterns
            if _has_glob(pattern)
        )

    def __str__(self) -> str:
        """The patterns as in ``QCTL_PREFIX``."""
        return ",".join(self.patterns)


EVERY_PREFIX = Prefixes(("*",))


def only(prefix: str) -> Prefixes:
    """This one prefix, in which no character is special."""
    return Prefixes((escaped(prefix),))


def parse_prefixes(words: Iterable[str]) -> Prefixes:
    """The prefixes that ``words`` stand for. Each word is a prefix or a pattern.

    Raises:
        UsageError: there is no word, or a word is empty.
    """
    patterns = tuple(dict.fromkeys(map(_canonical, words)))
    if not patterns or "" in patterns:
        raise UsageError(
            "a key prefix is empty", hint=f"leave out the prefix to use {DEFAULT_PREFIX!r}"
        )
    return Prefixes(patterns)


def split_list(text: str) -> list[str]:
    """The words of a list with commas, as in ``QCTL_PREFIX``; empty words are left out."""
    return [word for word in re.findall(r"(?:\\.|[^,\\]|\\$)+", text, re.DOTALL) if word]


def escaped(prefix: str) -> str:
    """The pattern that matches only this prefix."""
    return _SPECIAL.sub(r"\\\g<0>", prefix)


def _canonical(pattern: str) -> str:
    """The same pattern, with a backslash wherever ``escaped`` would write one."""
    return "".join(text if special else escaped(text) for text, special in tokens(pattern))


@cache
def tokens(pattern: str) -> tuple[tuple[str, bool], ...]:
    """The parts of a pattern, and whether each is special: ``*``, ``?`` or ``$QUEUE``."""
    return tuple(
        (match["special"], True) if match["special"] else (match["plain"] or match["char"], False)
        for match in _TOKENS.finditer(pattern)
    )


def _has_glob(pattern: str) -> bool:
    return any(special and text in "*?" for text, special in tokens(pattern))


def _literal(pattern: str) -> str | None:
    parts = tokens(pattern)
    return None if any(special for _, special in parts) else "".join(text for text, _ in parts)


def _with_queue(pattern: str, name: str) -> str:
    return "".join(name if special else text for text, special in tokens(pattern))


def _regex(pattern: str, name: str) -> re.Pattern[str]:
    """Matches each prefix that the pattern allows for a queue called ``name``."""
    special_parts = {"?": ".", QUEUE_WORD: re.escape(name)}
    parts = [""]
    for text, special in tokens(pattern):
        if special and text == "*":
            parts.append("")
        else:
            parts[-1] += special_parts[text] if special else re.escape(text)
    first, *others = parts
    # The text between two stars is matched at the first place where it fits, because a later place
    # is never better. The atomic groups keep that place. Without them, a pattern with several stars
    # would try all combinations of places.
    found = [first, *(f"(?>.*?{part})" for part in others[:-1]), *(f".*{p}" for p in others[-1:])]
    return re.compile("".join(found), re.DOTALL)
