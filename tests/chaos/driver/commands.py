"""The commands of a round."""

from __future__ import annotations

from random import Random

from tests.chaos.driver.managers import App
from tests.chaos.driver.producers import QUEUE

Words = tuple[str, ...]
_DRAIN: Words = ("--yes", "--timeout", "20s", "--output", "ndjson")
BULK: tuple[Words, ...] = (
    ("jobs", "retry-failed", QUEUE, "--yes", "--json"),
    ("jobs", "promote", QUEUE, "--yes", "--json"),
    ("jobs", "retry-stalled", QUEUE, "--yes", "--json"),
    ("jobs", "remove", QUEUE, "--state", "failed", "--yes", "--json"),
    ("purge", QUEUE, "--state", "failed", "--yes", "--json"),
)
RESUME: Words = ("resume", QUEUE)
MASTER = "qctl:w"


def drain(target: str, *more: str) -> Words:
    """Drain the queue and restart a target."""
    return ("drain", QUEUE, "--then-restart", "--target", target, *more, *_DRAIN)


def leaves_paused(words: Words) -> bool:
    """Whether a command, if it succeeds, leaves the queue paused."""
    return words[0] == "drain" and "--then-restart" not in words


def choose(app: App, instances: int, chance: Random) -> Words:
    """What an operator may do to this app."""
    found = [
        drain(app.target),
        drain(app.target, "--on-timeout", "restart"),
        ("restart", app.target, *_DRAIN),
        ("restart", MASTER, *_DRAIN),
        drain(MASTER, "--strategy", "pause"),
        ("drain", QUEUE, *_DRAIN),
    ]
    if instances > 1:
        found.append(drain(app.target, "--max-unavailable", "2") if app.target != "command:app"
                     else drain(app.target))  # fmt: skip
        if app.can_roll:
            found.append(drain(app.target, "--strategy", "roll"))
    return chance.choice(found)
