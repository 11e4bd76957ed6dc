"""Whether commands of Redis are long, or the machine makes them so, for ``scale.py``.

Redis' clock for a command goes on while Redis waits: for a processor or for memory that somebody
else uses, here or, on a virtual machine, at its host. A script of constant work is held up by that
as often as any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qctl.connection.address import Client

# Redis' time of a single command that other clients do not notice.
LIMIT_US = 5_000
# What the script takes: as much as qctl's long commands.
_WORK_US = 1_000
_CALLS = 500
# Looks at keys all over the memory, as those commands do.
_SCRIPT = """
local at, keys = tonumber(ARGV[2]), tonumber(ARGV[3])
for i = 1, ARGV[1] do
  redis.call('EXISTS', KEYS[1] .. (at + i * 7919) % keys)
end
"""


@dataclass(slots=True)
class _Seen:
    """How many took longer than the limit, and the longest of all."""

    over: int = 0
    longest_us: int = 0

    def add(self, over: int, longest_us: int) -> None:
        self.over += over
        self.longest_us = max(self.longest_us, longest_us)

    def __str__(self) -> str:
        return f"{self.over}, the longest took {self.longest_us / 1000:.2f} ms"


class Control:
    """Counts commands over the limit, and calls of the script that are.

    Args:
        base: what the names of very many keys begin with.
        keys: how many; their names end in 0, 1, …
    """

    def __init__(self, client: Client, base: str, keys: int) -> None:
        self._client = client
        self._base, self._keys = base, keys
        self._at = 0
        self._looks = 500
        taken = sorted(self._call(200))
        self._looks = max(1, self._looks * _WORK_US // taken[len(taken) // 2])
        self._repeated, self._compared, self._script = _Seen(), _Seen(), _Seen()
        self._calls = 0
        self._seconds = self._script_s = 0.0

    def note_repeated(self, over: int, longest_us: int) -> None:
        """Take note of what was so long each time that it was done."""
        self._repeated.add(over, longest_us)

    def compare(self, over: int, longest_us: int, seconds: float) -> None:
        """Take note of what was long, in so much of Redis' time; run the script for as long."""
        self._compared.add(over, longest_us)
        self._seconds += seconds
        while self._script_s < self._seconds:
            taken = self._call(_CALLS)
            self._calls += len(taken)
            self._script.add(sum(micros >= LIMIT_US for micros in taken), max(taken))
            self._script_s += sum(taken) / 1e6

    def _call(self, times: int) -> list[int]:
        """What each of so many calls took, in microseconds."""
        self._client.call("SLOWLOG", "RESET")
        for _ in range(times):
            self._at += 104_729
            self._client.call("EVAL", _SCRIPT, 1, self._base, self._looks, self._at, self._keys)
        entries = self._client.call("SLOWLOG", "GET", -1)
        return [micros for _, _, micros, command, *_ in entries if command[0] == "EVAL"]

    def verdict(self) -> str:
        """What was seen, and whether the limit holds.

        The numbers that are compared are counts of rare events: each may be off by its square root.
        """
        lines = [
            f"longer than {LIMIT_US / 1000:g} ms",
            f"  each time that it was repeated: {self._repeated}",
            f"  of what cannot be repeated:     {self._compared}, in {self._seconds:.0f} s "
            "of Redis' time",
            f"  of a script of constant work:   {self._script}, in {self._script_s:.0f} s, "
            f"{self._calls:,} calls, each {_WORK_US / 1000:g} ms usually",
        ]
        over, by_script = self._compared.over, self._script.over
        if self._repeated.over:
            holds = "BROKEN"
        elif not over:
            holds = "holds"
        elif over - by_script <= 2 * math.sqrt(over + by_script):
            holds = "holds, but for what the machine does to the script as well"
        else:
            holds = "BROKEN: more than the machine does to the script"
        return "\n".join([*lines, f"no command of more than {LIMIT_US / 1000:g} ms: {holds}"])
