"""How often the machine alone makes a command of Redis long, for ``scale.py``.

A script of constant work takes the same time whenever it is called, but for what Redis waits: for
a processor that somebody else has, here or, on a virtual machine, at its host.
"""

from __future__ import annotations

import math

from qctl.connect import Client

# Redis' time of a single command that other clients do not notice.
LIMIT_US = 5_000
# What the script takes: about as much as qctl's long commands.
_WORK_US = 1_000
# A row's control ends there, however long the row took.
_MOST_S = 30.0
_CALLS = 500
_SCRIPT = "for i = 1, ARGV[1] do redis.call('EXISTS', KEYS[1]) end"


class Control:
    """Runs the script, and counts how often it took longer than the limit."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._rounds = 1_000
        taken = sorted(self._call(20))
        self._rounds = max(1, self._rounds * _WORK_US // taken[len(taken) // 2])
        self._calls = self._over = self._longest_us = 0
        self._took_s = 0.0

    def run(self, seconds: float) -> None:
        """Let Redis work for so long, 30 s at most."""
        until = self._took_s + min(seconds, _MOST_S)
        while self._took_s < until:
            taken = self._call(_CALLS)
            self._calls += len(taken)
            self._over += sum(micros >= LIMIT_US for micros in taken)
            self._longest_us = max(self._longest_us, *taken)
            self._took_s += sum(taken) / 1e6

    def _call(self, times: int) -> list[int]:
        """What each of so many calls took, in microseconds."""
        self._client.call("SLOWLOG", "RESET")
        for _ in range(times):
            self._client.call("EVAL", _SCRIPT, 1, "control", self._rounds)
        entries = self._client.call("SLOWLOG", "GET", -1)
        return [micros for _, _, micros, command, *_ in entries if command[0] == "EVAL"]

    def told(self) -> str:
        """What was seen, for a reader."""
        return (
            f"a script of constant work, {_WORK_US / 1000:g} ms: {self._over} of {self._calls:,} "
            f"calls in {self._took_s:.0f} s, the longest {self._longest_us / 1000:.2f} ms"
        )

    def verdict(self, over: int, seconds: float) -> str:
        """Whether so many long commands in so much of Redis' time are more than the machine makes.

        Both numbers are counts of rare events: either may be off by its square root.
        """
        expected = self._over / self._took_s * seconds if self._took_s else 0.0
        spread = math.sqrt(over + self._over * (seconds / self._took_s) ** 2) if over else 0.0
        if over <= expected + 2 * spread and self._over:
            return f"no more of them than of the script's calls ({expected:.0f} in as much time)"
        return f"BROKEN: the script's calls would be {expected:.0f} in as much time"
