"""A round of the chaos driver: work under load, faults, repair, proof."""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from tests.chaos.driver.faults import FAULTS
from tests.chaos.driver.producers import QUEUE
from tests.chaos.driver.proof import Ran, check_round
from tests.chaos.driver.stage import Stage, open_stage
from tests.labs.drains import Running
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until

STEPS = ("plan", "paused", "waiting", "drained", "restarting", "ready", "resumed")
BULK = (
    ("jobs", "retry-failed", QUEUE, "--yes", "--json"),
    ("jobs", "promote", QUEUE, "--yes", "--json"),
    ("purge", QUEUE, "--state", "failed", "--yes", "--json"),
)
COMMAND_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Planned:
    """A fault of a round.

    Args:
        step: of the command during which it happens.
        delay_s: after that step.
    """

    kind: str
    step: str
    delay_s: float


@dataclass
class Tally:
    """What has happened so far."""

    rounds: int = 0
    jobs: int = 0
    commands: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


def plan_faults(seed: int, number: int, faults: Sequence[str], chance: Random) -> list[Planned]:
    """The faults of a round: one in its turn, so that none comes rarely, and perhaps others."""
    turn, place = divmod(number - 1, len(faults))
    order = Random(f"{seed}:{turn}").sample(list(faults), len(faults))
    kinds = [order[place], *chance.choices(faults, k=chance.choice([0, 0, 1, 2]))]
    planned = [Planned(kind, chance.choice(STEPS), chance.uniform(0, 0.4)) for kind in kinds]
    return sorted(planned, key=lambda each: STEPS.index(each.step))


def run_round(
    pm2: Pm2, server: RedisServer, folder: Path, seed: int, number: int,
    faults: Sequence[str], tally: Tally,
) -> list[str]:  # fmt: skip
    """One round; its violations."""
    chance = Random(f"{seed}-{number}")
    planned = plan_faults(seed, number, faults, chance)
    began = time.monotonic()
    words = " ".join(f"{each.kind}@{each.step}" for each in planned)
    print(f"round {number}: {words}", flush=True)
    try:
        with open_stage(pm2, server, folder, chance, 6, 1) as stage:
            jobs, ran, violations = play(stage, planned, chance)
    except (Exception, pytest.fail.Exception):
        # What the round waits for in vain is a violation until somebody has understood it.
        return [f"the round did not end: {traceback.format_exc()}"]
    tally.rounds += 1
    tally.jobs += jobs
    tally.faults.update(hit.kind for hit in [*stage.hits, *stage.standstills])
    tally.commands.update(each.words[0] for each in ran)
    codes = " ".join(f"{each.words[0]}:{each.code}" for each in ran)
    print(f"  {jobs} jobs, {codes}, {time.monotonic() - began:.1f} s", flush=True)
    return violations


def play(
    stage: Stage, planned: Sequence[Planned], chance: Random
) -> tuple[int, list[Ran], list[str]]:
    """How many jobs there were, the commands, and the violations."""
    drain = ("drain", QUEUE, "--then-restart", "--target", "pm2:app", "--yes",
             "--timeout", "20s", "--output", "ndjson")  # fmt: skip
    ran = list(run_disturbed(stage, drain, planned, chance))
    stage.heal()
    lease = stage.lab.keys(QUEUE).lease
    wait_until(lambda: not stage.lab.client.call("EXISTS", lease), "the lease to end", timeout_s=30)
    if not {"qctl", "watchdog"} <= {hit.kind.partition("-")[2] for hit in stage.hits}:
        wait_until(lambda: stage.lab.is_resumed(QUEUE), "qctl to undo what was killed")
    # If its watchdog died too, this drain takes over the pause.
    last = stage.qctl(*drain)
    ran.append(Ran(drain, last, wait_end(last), False))
    acknowledged, unsure = stage.acknowledged()
    wait_until(stage.is_idle, "all jobs to end", timeout_s=60, every_s=0.1)
    wait_until(lambda: not stage.lab.traces(), "qctl to remove its keys", timeout_s=20)
    return len(acknowledged), ran, list(check_round(stage, acknowledged, unsure, ran))


def run_disturbed(
    stage: Stage, words: tuple[str, ...], planned: Sequence[Planned], chance: Random
) -> Iterator[Ran]:
    """Run a command and its faults, and perhaps a bulk command at the same time."""
    running = stage.qctl(*words)
    bulk_words = chance.choice(BULK)
    bulk = stage.qctl(*bulk_words)
    for each in planned:
        reach(running, each.step)
        time.sleep(each.delay_s)
        hit = FAULTS[each.kind](stage, running, chance)
        if hit is not None:
            stage.hits.append(dataclasses.replace(hit, kind=each.kind))
    yield Ran(words, running, wait_end(running), bool(planned))
    yield Ran(bulk_words, bulk, wait_end(bulk), bool(planned))


def reach(running: Running, step: str) -> None:
    """Wait until a drain is at a step, or over."""
    wait_until(
        lambda: running.is_over or any(each["step"] == step for each in running.steps()),
        f"the step {step}",
        timeout_s=COMMAND_TIMEOUT_S,
    )


def wait_end(running: Running) -> int:
    return running.finish().code
