"""Breaks things while qctl drains, restarts and changes jobs, and proves that nothing was lost.

    python bench/chaos.py --minutes 2                    # a seed of its own; prints it
    python bench/chaos.py --seed 7 --minutes 60
    python bench/chaos.py --seed 7 --round 12            # one round again
    python bench/chaos.py --faults kill-qctl,kill-worker --rounds 3

Each round starts on an empty Redis: producers in Python and Node, BullMQ's workers under a process
manager, and qctl's own under ``qctl worker``, all on one queue. A few commands run one after the
other under this load, with faults at moments that the seed chooses. After each command, everything
is repaired as systemd or an operator would. A last drain runs without faults, the producers stop,
and the round is checked by Redis and by a file in which each handler notes the start and the end of
each run. The parts are in tests/chaos/driver.

Several rounds run at the same time, each as a process of its own (``--round``).

The seed decides what happens in a round and at which step. How the processes interleave is up to
the machine, so a rare violation may need several repetitions.

Exit code 1 after a violation. Needs what the tests need: ``pip install -e '.[dev]'``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.chaos.driver.faults import FAULTS
from tests.chaos.driver.plans import plan_round
from tests.chaos.driver.rounds import play_round
from tests.labs.node import install_node_modules

# How often each kind should happen before a result says something about it.
ENOUGH = 20
ROUND_TIMEOUT_S = 600.0


def main() -> int:
    options = parse()
    faults = options.faults.split(",") if options.faults else list(FAULTS)
    if unknown := set(faults) - FAULTS.keys():
        print(f"unknown faults: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
        return 2
    seed = Random().randrange(2**32) if options.seed is None else options.seed
    if options.round:
        return play_one(seed, options.round, faults, options.json)
    print(f"seed {seed}", flush=True)
    install_node_modules()
    tally = play_many(seed, options)
    print_tally(tally, faults)
    return 1 if tally["violations"] else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--minutes", type=float, default=2.0, help="start no round after that")
    parser.add_argument("--rounds", type=int, default=0, help="so many rounds, however long")
    parser.add_argument("--round", type=int, default=0, help="only the round with this number")
    parser.add_argument("--lanes", type=int, default=4, help="rounds at the same time")
    parser.add_argument("--faults", default="", help=f"some of {','.join(FAULTS)}")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def play_one(seed: int, number: int, faults: list[str], as_json: bool) -> int:
    """Play a round in this process; its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("the round took too long"))
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    install_node_modules()
    plan = plan_round(seed, number, faults)
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
        outcome = vars(play_round(plan, Path(folder), f"{seed}-{number}"))
    outcome["scene"] = str(plan.scene)
    print(json.dumps(outcome) if as_json else describe(number, outcome), flush=True)
    return 1 if outcome["violations"] else 0


def play_many(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Play rounds, several at the same time, and print each when it is over; their sum."""
    over = time.monotonic() + 60 * options.minutes
    numbers = iter(range(1, options.rounds + 1) if options.rounds else count(1))
    tally: dict[str, Any] = {"rounds": 0, "jobs": 0, "faults": Counter(), "commands": Counter(),
                             "scenes": Counter(), "violations": 0}  # fmt: skip

    def lane() -> None:
        for number in numbers:
            if not options.rounds and time.monotonic() > over:
                return
            outcome = play_apart(seed, number, options.faults)
            tally["rounds"] += 1
            tally["jobs"] += outcome["jobs"]
            tally["scenes"][outcome["scene"]] += 1
            tally["violations"] += len(outcome["violations"])
            for name in ("faults", "commands"):
                tally[name].update(outcome[name])
            print(describe(number, outcome), flush=True)
            if outcome["violations"]:
                again = f"python bench/chaos.py --seed {seed} --round {number}"
                faults = f" --faults {options.faults}" if options.faults else ""
                print(f"  to repeat it: {again}{faults}", flush=True)

    with ThreadPoolExecutor(options.lanes) as pool:
        for future in [pool.submit(lane) for _ in range(options.lanes)]:
            future.result()
    return tally


def play_apart(seed: int, number: int, faults: str) -> dict[str, Any]:
    """Play a round in a process of its own."""
    words = ["--seed", str(seed), "--round", str(number), "--faults", faults, "--json"]
    process = subprocess.Popen(
        [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True
    )
    try:
        said, _ = process.communicate(timeout=ROUND_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        # It then ends its processes.
        process.terminate()
        said, _ = process.communicate()
    if said.startswith("{"):
        outcome: dict[str, Any] = json.loads(said.splitlines()[-1])
        return outcome
    return {
        "scene": "unknown", "jobs": 0, "took_s": 0, "faults": {}, "commands": {}, "log": [],
        "violations": [f"the round ended with exit code {process.returncode}: {said}"],
    }  # fmt: skip


def describe(number: int, outcome: dict[str, Any]) -> str:
    return "\n".join(lines(number, outcome))


def lines(number: int, outcome: dict[str, Any]) -> Iterator[str]:
    faults = sum(outcome["faults"].values())
    yield (
        f"round {number}: {outcome['scene']}; {outcome['jobs']} jobs, {faults} faults, "
        f"{outcome['took_s']:.0f} s"
    )
    for line in outcome["log"]:
        yield f"  {line}"
    for text in outcome["violations"]:
        yield f"  VIOLATION: {text}"


def print_tally(tally: dict[str, Any], faults: list[str]) -> None:
    print(
        f"{tally['rounds']:,} rounds, {tally['jobs']:,} jobs, "
        f"{sum(tally['faults'].values()):,} faults, {tally['violations']:,} violations"
    )
    for title in ("faults", "commands", "scenes"):
        print(f"{title}: {'; '.join(f'{key} {n:,}' for key, n in sorted(tally[title].items()))}")
    rare = [kind for kind in faults if tally["faults"][kind] < ENOUGH]
    print(f"less than {ENOUGH} times: {', '.join(rare) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
