"""bench/chaos.py runs, and what it checks can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.chaos.driver.hits import Hit
from tests.chaos.driver.proof import check_starts

BENCH = Path(__file__).parents[2] / "bench"


def test_fixed_rounds_end_without_a_violation(node_modules: str) -> None:
    words = ("--seed", "1", "--faults", "kill-qctl,kill-worker", "--rounds", "2")
    done = subprocess.run(
        [sys.executable, str(BENCH / "chaos.py"), *words],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-3:]
    assert last[0].startswith("2 rounds, ")
    assert last[0].endswith(" 0 violations")
    assert "kill-qctl" in last[1]
    assert "kill-worker" in last[1]


def rows(*events: tuple[str, float, int]) -> list[dict[str, Any]]:
    return [
        {"ev": ev, "at": at, "pid": pid, "worker": "", "name": "plain"} for ev, at, pid in events
    ]


def test_a_second_start_needs_a_fault() -> None:
    twice = {"1": rows(("start", 1.0, 7), ("start", 5.0, 8), ("end", 6.0, 8))}

    def unexplained(*hits: Any) -> int:
        return len(list(check_starts(twice, list(hits))))

    assert unexplained() == 1
    assert unexplained(Hit("kill-worker", 1.5, 1.5, frozenset({7}))) == 0
    # Of another process, before the first start, and after the second.
    assert unexplained(Hit("kill-worker", 1.5, 1.5, frozenset({9}))) == 1
    assert unexplained(Hit("kill-worker", 0.5, 0.5, frozenset({7}))) == 1
    assert unexplained(Hit("kill-worker", 5.5, 5.5, frozenset({7}))) == 1
