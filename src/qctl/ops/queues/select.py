"""Finds the queues that words of a command line stand for: ``NAME``, or ``NAME@PREFIX``.

``NAME`` is a queue under the prefixes in force; ``NAME@PREFIX`` is a queue under PREFIX, whatever
prefixes are in force. A queue's name may contain ``@``, so a word can be read in several ways. The
word stands for the queue that exists; if several do, for the one with the longest name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from qctl.config.prefixes import Prefixes
from qctl.connection.address import Client
from qctl.errors import NotFoundError, ReplyError, UsageError
from qctl.ops.queues.missing import no_such_queue
from qctl.wire.keys import QueueKeys
from qctl.wire.read.discovery import survey
from qctl.wire.read.snapshot import QueueSnapshot, read_snapshots

Find = Callable[[], Collection[QueueKeys]]
_MAX_CANDIDATES = 10


def select_queues(
    client: Client, prefixes: Prefixes, words: Sequence[str], find: Find | None = None
) -> list[QueueKeys]:
    """The queues that these words name, in this order, without duplicates.

    A name that exists under several of the prefixes stands for all of these queues. With one
    prefix, and no ``@`` in any word, nothing is looked up, so the queues may not exist.

    Args:
        find: returns all queues of the prefixes; called if only a scan can find them. Default: a
            scan of Redis.

    Raises:
        NotFoundError: a word names no queue.
    """
    if prefixes.single is not None and not any("@" in word for word in words):
        # No look-up: the caller reads these queues anyway, and finds out whether they exist.
        return [QueueKeys(prefixes.single, word) for word in dict.fromkeys(words)]
    chosen = choose_queues(client, prefixes, words, find)
    return list(dict.fromkeys(keys for word in words for keys in chosen[word]))


def select_one(
    client: Client, prefixes: Prefixes, word: str, *, may_create: bool = False
) -> QueueKeys:
    """The one queue that a word names.

    Args:
        may_create: if no queue is found, return the queue that the word would create.

    Raises:
        NotFoundError: the word names no queue.
        UsageError: the word names several queues, or the prefix of the new queue is not clear.
    """
    try:
        found = [*choose_queues(client, prefixes, [word])[word]]
    except NotFoundError:
        if not may_create:
            raise
        return _new_queue(prefixes, word)
    if len(found) == 1:
        return found[0]
    shown = [keys.full_name for keys in found[:_MAX_CANDIDATES]]
    shown += ["…"] * (len(found) > _MAX_CANDIDATES)
    raise UsageError(
        f"{len(found)} queues are called {word!r}",
        why=", ".join(shown),
        hint="name one of them in this form, or choose one prefix with --prefix",
    )


def choose_queues(
    client: Client, prefixes: Prefixes, words: Sequence[str], find: Find | None = None
) -> dict[str, dict[QueueKeys, QueueSnapshot | ReplyError]]:
    """Word → the queues that the word names, and what ``read_snapshots`` returns for each queue.

    Arguments and errors are as for ``select_queues``.
    """
    found: Collection[QueueKeys] = ()
    if prefixes.needs_scan:
        found = find() if find is not None else survey(client, prefixes).queues
    readings = {word: [*_readings(prefixes, word, found)] for word in dict.fromkeys(words)}
    possible = list({keys: None for each in readings.values() for some in each for keys in some})
    snapshots = read_snapshots(client, possible) if possible else []
    existing = {k: s for k, s in zip(possible, snapshots, strict=True) if s is not None}
    chosen = {}
    for word, each in readings.items():
        matches = ({keys: existing[keys] for keys in some if keys in existing} for some in each)
        chosen[word] = next(filter(None, matches), {})
    if missing := [word for word, queues in chosen.items() if not queues]:
        raise no_such_queue(client, prefixes, missing)
    return chosen


def _readings(
    prefixes: Prefixes, word: str, found: Collection[QueueKeys]
) -> Iterator[list[QueueKeys]]:
    """For each way to read the word, the queues that it can mean; the longest name first."""
    of_word = [QueueKeys(prefix, word) for prefix in prefixes.of_queue(word)]
    yield list(dict.fromkeys([*of_word, *(keys for keys in found if keys.name == word)]))
    at = word.rfind("@")
    while at > 0:
        if at < len(word) - 1:
            yield [QueueKeys(word[at + 1 :], word[:at])]
        at = word.rfind("@", 0, at)


def _new_queue(prefixes: Prefixes, word: str) -> QueueKeys:
    """The queue that a word creates. The word is NAME@PREFIX unless just one prefix is possible."""
    possible = [] if prefixes.needs_scan else prefixes.of_queue(word)
    if len(possible) == 1:
        return QueueKeys(possible[0], word)
    name, _, prefix = word.rpartition("@")
    if name and prefix:
        return QueueKeys(prefix, name)
    raise UsageError(
        f"the new queue {word!r} needs one key prefix, not {str(prefixes)!r}",
        hint=f"{word}@PREFIX, or choose one prefix with --prefix",
    )
