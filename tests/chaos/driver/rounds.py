"""A round of the chaos driver: work under load, faults, repair, proof."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from qctl.errors import QctlError
from tests.chaos.driver import commands
from tests.chaos.driver.commands import Words
from tests.chaos.driver.faults import FAULTS
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.plans import Plan
from tests.chaos.driver.producers import QUEUE
from tests.chaos.driver.proof import Ran, check_round
from tests.chaos.driver.stage import Stage, open_stage
from tests.labs.drains import Running
from tests.labs.servers import wait_until

# Faults that hit nothing are tried again with the next command, up to this many.
MAX_COMMANDS = 10
COMMAND_TIMEOUT_S = 90.0
# Longer than qctl waits: 60 s for new workers, and 240 s for the end of an old process of a
# ``qctl:`` target. Its report then says what was missing.
LONGEST_S = 330.0
# qctl may not notice the death of its watchdog in this time before its report.
NOTICED_S = 2.0


@dataclass(frozen=True)
class Planned:
    """A fault of a command.

    Args:
        step: of the command during which it happens.
        delay_s: after that step.
        seed: of what the fault itself leaves to chance.
    """

    kind: str
    step: str
    delay_s: float
    seed: int


@dataclass
class Outcome:
    """What happened in a round."""

    jobs: int = 0
    took_s: float = 0.0
    commands: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def play_round(plan: Plan, folder: Path, seed: str) -> Outcome:
    """Play one round."""
    chance = Random(seed)
    began = time.monotonic()
    outcome = Outcome()
    hits: list[Hit] = []
    try:
        with open_stage(plan.scene, folder, chance) as stage:
            try:
                _play(stage, plan.kinds, chance, outcome)
            finally:
                hits += [*stage.hits, *stage.standstills]
                outcome.faults.update(hit.kind for hit in hits)
    except (Exception, pytest.fail.Exception):
        # What the round waits for in vain is a violation until somebody has understood it.
        outcome.violations.append(f"the round did not end: {traceback.format_exc()}")
    if outcome.violations:
        outcome.log += (
            f"{hit.began:.3f} to {hit.over:.3f}: {hit.kind} {sorted(hit.pids)}" for hit in hits
        )
    outcome.took_s = time.monotonic() - began
    return outcome


def _play(stage: Stage, kinds: Sequence[str], chance: Random, outcome: Outcome) -> None:
    ran: list[Ran] = []
    left = list(kinds)
    began = time.monotonic()

    def say(text: str) -> None:
        outcome.log.append(f"{time.monotonic() - began:5.1f} s  {text.replace(chr(10), ' / ')}")

    for _ in range(MAX_COMMANDS):
        if not left:
            break
        count = chance.choice([1, 1, 2, 3, 4])
        planned, left = [_plan(kind, chance) for kind in left[:count]], left[count:]
        words = commands.choose(stage.app, stage.scene.instances, chance)
        before = len(stage.hits)
        missed = _disturb(stage, words, planned, chance, ran, say)
        left += missed
        _settle(stage, stage.hits[before:], ran)
    last = commands.drain(stage.app.target)
    say(" ".join(last))
    running = stage.qctl(*last)
    ran.append(Ran(last, running, running.finish(LONGEST_S).code, False))
    acknowledged, unsure = stage.acknowledged()
    wait_until(stage.is_idle, "all jobs to end", timeout_s=60, every_s=0.1)
    wait_until(lambda: not stage.lab.traces(), "qctl to remove its keys", timeout_s=20)
    say("all jobs have ended")
    stage.read_events()
    outcome.jobs = len(acknowledged)
    outcome.commands.update(f"{each.words[0]}:{each.code}" for each in ran)
    outcome.violations += check_round(stage, acknowledged, unsure, ran)


def _plan(kind: str, chance: Random) -> Planned:
    step = chance.choice(FAULTS[kind].steps)
    return Planned(kind, step, chance.uniform(0, 0.4), chance.randrange(2**32))


def _disturb(
    stage: Stage, words: Words, planned: Sequence[Planned], chance: Random, ran: list[Ran],
    say: Callable[[str], None],
) -> list[str]:  # fmt: skip
    """Run a command and its faults, and perhaps a bulk command at the same time.

    Returns:
        the kinds that hit nothing.
    """
    say(f"{' '.join(words)}: {' '.join(f'{each.kind}@{each.step}' for each in planned)}")
    before = len(stage.hits)
    running = stage.qctl(*words)
    bulk_words = chance.choice(commands.BULK)
    bulk = stage.qctl(*bulk_words)
    missed: list[str] = []
    failed: list[BaseException] = []

    def happen(each: Planned) -> None:
        try:
            _reach(running, each.step)
            time.sleep(each.delay_s)
            hit = FAULTS[each.kind].inject(stage, running, Random(each.seed))
        except QctlError:
            # Another fault keeps it from Redis or from the manager.
            hit = None
        except (Exception, pytest.fail.Exception) as error:
            failed.append(error)
            return
        if hit is None:
            missed.append(each.kind)
        else:
            stage.hits.append(dataclasses.replace(hit, kind=each.kind))

    threads = [threading.Thread(target=happen, args=(each,), daemon=True) for each in planned]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(5)
            # A failover may take so long that BullMQ trims events.
            with contextlib.suppress(QctlError):
                stage.read_events()
    if failed:
        raise failed[0]
    for each_words, each_running in ((words, running), (bulk_words, bulk)):
        code = each_running.finish(LONGEST_S).code
        ran.append(Ran(each_words, each_running, code, len(stage.hits) > before))
        if code > 0:
            steps = each_running.steps() if "ndjson" in each_words else []
            why = steps[-1].get("error") if steps else each_running.remarks.strip()
            say(f"{each_words[0]}: exit code {code}: {why}")
    say(f"exit codes {ran[-2].code} and {ran[-1].code}; missed: {' '.join(missed) or 'none'}")
    return missed


def _reach(running: Running, step: str) -> None:
    """Wait until a drain is at a step, or over."""
    wait_until(
        lambda: running.is_over or any(each["step"] == step for each in running.steps()),
        f"the step {step}",
        timeout_s=COMMAND_TIMEOUT_S,
    )


def _settle(stage: Stage, hits: Sequence[Hit], ran: list[Ran]) -> None:
    """Repair what the faults of a command left behind, and wait until qctl has put it right."""
    kinds = {hit.kind for hit in hits}
    stage.heal()
    stage.read_events()
    lease = stage.lab.keys(QUEUE).lease
    wait_until(lambda: not stage.lab.client.call("EXISTS", lease), "the lease to end", timeout_s=30)
    if _is_paused_on_purpose(ran[-2]) or _others_may_pause(kinds):
        running = stage.qctl(*commands.RESUME, "--force")
        ran.append(Ran((*commands.RESUME, "--force"), running, running.finish().code, False))
    elif not _left_nobody(hits, ran[-2]):
        wait_until(lambda: stage.lab.is_resumed(QUEUE), "qctl to undo what was killed")
    # Otherwise, the next drain takes over the pause.


def _is_paused_on_purpose(ran: Ran) -> bool:
    """Whether a drain without a restart has left the queue paused, as it should.

    It may have been killed after it had dismissed its watchdog, and before its end.
    """
    was_done = any(step["step"] == "drained" for step in ran.running.steps())
    return commands.leaves_paused(ran.words) and (ran.code == 0 or (ran.code == -9 and was_done))


def _others_may_pause(kinds: set[str]) -> bool:
    """Whether another operator may have paused the queue last, or was refused to resume it."""
    return any(kind.startswith(("other-", "second-")) for kind in kinds)


def _left_nobody(hits: Sequence[Hit], ran: Ran) -> bool:
    """Whether the watchdog of a drain died with qctl, or too late for qctl to start another.

    After a SIGTERM it hurries: it does not stay for what Redis may forget.
    """
    roles = {hit.kind.partition("-")[2] for hit in hits}
    kinds = {hit.kind for hit in hits}
    late = (ran.running.arrivals or [0.0])[-1] - NOTICED_S
    return (
        {"qctl", "watchdog"} <= roles
        or any(hit.kind == "kill-watchdog" and hit.over > late for hit in hits)
        or (bool({"term-watchdog", "hup-watchdog"} & kinds) and any(hit.forgets for hit in hits))
    )
