"""Breaks things while qctl drains, restarts and changes jobs, and proves that nothing was lost.

    python bench/chaos.py --minutes 2                    # a seed of its own; prints it
    python bench/chaos.py --seed 7 --minutes 60
    python bench/chaos.py --seed 7 --round 12            # one round again
    python bench/chaos.py --faults kill-qctl,kill-worker --rounds 3

Each round starts on an empty Redis (AOF, fsync always): producers in Python and Node, BullMQ's
workers under a process manager, and qctl's own under ``qctl worker``, all on one queue. A few
commands run one after the other under this load, with faults at moments that the seed chooses.
Then everything is repaired as systemd or an operator would, a last drain runs without faults, the
producers stop, and the round is checked by Redis and by a file in which each handler notes the
start and the end of each run. The parts are in tests/chaos/driver.

The seed decides what happens in a round and at which step. How the processes interleave is up to
the machine, so a rare violation may need several repetitions.

Exit code 1 after a violation. Needs what the tests need: ``pip install -e '.[dev]'``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.chaos.driver.faults import FAULTS
from tests.chaos.driver.rounds import Tally, run_round
from tests.chaos.driver.stage import REDIS
from tests.labs.node import install_node_modules
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer


def main() -> int:
    options = parse()
    faults = options.faults.split(",") if options.faults else list(FAULTS)
    if unknown := set(faults) - FAULTS.keys():
        print(f"unknown faults: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
        return 2
    seed = Random().randrange(2**32) if options.seed is None else options.seed
    numbers = [options.round] if options.round else range(1, (options.rounds or 10**9) + 1)
    print(f"seed {seed}", flush=True)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    install_node_modules()
    tally = Tally()
    over = time.monotonic() + 60 * options.minutes
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        server = RedisServer(folder / "redis", *REDIS).start()
        stack.callback(server.stop)
        pm2 = Pm2()
        stack.callback(pm2.kill)
        for number in numbers:
            if time.monotonic() > over and not (options.rounds or options.round):
                break
            violations = run_round(pm2, server, folder / f"{number}", seed, number, faults, tally)
            for text in violations:
                print(f"  VIOLATION: {text}", flush=True)
                tally.violations.append(text)
            if violations:
                again = f"python bench/chaos.py --seed {seed} --round {number}"
                print(f"  to repeat it: {again}{repeat_faults(options.faults)}", flush=True)
    print_tally(tally)
    return 1 if tally.violations else 0


def repeat_faults(faults: str) -> str:
    return f" --faults {faults}" if faults else ""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--minutes", type=float, default=2.0, help="start no round after that")
    parser.add_argument("--rounds", type=int, default=0, help="so many rounds, however long")
    parser.add_argument("--round", type=int, default=0, help="only the round with this number")
    parser.add_argument("--faults", default="", help=f"some of {','.join(FAULTS)}")
    return parser.parse_args()


def print_tally(tally: Tally) -> None:
    print(f"{tally.rounds:,} rounds, {tally.jobs:,} jobs, {len(tally.violations):,} violations")
    for title, counts in (("faults", tally.faults), ("commands", tally.commands)):
        print(f"{title}: {', '.join(f'{key} {n:,}' for key, n in sorted(counts.items()))}")


if __name__ == "__main__":
    sys.exit(main())
