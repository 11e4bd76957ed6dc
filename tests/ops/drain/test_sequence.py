"""A sequence of drains: which targets, in which order, and where it stops."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from qctl.config.settings import Settings
from qctl.errors import FailedError, RefusedError, UsageError
from qctl.ops.drain.plan import DrainPlan
from qctl.ops.drain.sequence import (
    SequenceReport,
    Turn,
    TurnBegins,
    expand,
    plan_turns,
    run_turns,
    starting_at,
)
from qctl.ops.drain.steps import DrainReport, Resumed
from qctl.wire.keys import QueueKeys


def keys_of(*names: str) -> list[QueueKeys]:
    return [QueueKeys("bull", name) for name in names]


def plan(target: str, *queues: str, keys: tuple[str, ...] = ("0",)) -> DrainPlan:
    processes = [SimpleNamespace(identity=(target, key), key=key) for key in keys]
    found = SimpleNamespace(label=target, processes=processes)
    return cast(
        DrainPlan,
        SimpleNamespace(queues=keys_of(*queues), labels=queues, target=found, strategy="pause"),
    )


def carry_out(drained: DrainPlan) -> Iterator[Any]:
    label = cast(Any, drained).target.label
    yield Resumed("q", 0)
    failed = label == "bad"
    outcome = "timeout" if failed else "restarted"
    yield DrainReport(outcome, ("q",), label, exit_status=4 if failed else 0)


def run(*targets: str, make: Any = plan, stop: Any = lambda: False) -> list[Any]:
    turns = [Turn(target, plan(target, "q")) for target in targets]
    return [*run_turns(turns, make, cast(Any, carry_out), stop)]


def test_a_group_stands_for_its_targets() -> None:
    settings = Settings(groups={"workers": ("pm2:a", "docker:b")})
    assert expand(settings, ["pm2:c", "workers", "pm2:a"]) == ("pm2:c", "pm2:a", "docker:b")
    assert expand(Settings(), []) == ()


def test_where_to_begin() -> None:
    assert starting_at(["a", "b", "c"], None) == ["a", "b", "c"]
    assert starting_at(["a", "b", "c"], "b") == ["b", "c"]
    with pytest.raises(UsageError, match="not one of the targets"):
        starting_at(["a"], "x")


def test_all_targets_in_order() -> None:
    *steps, report = run("a", "b")
    assert [s.target for s in steps if isinstance(s, TurnBegins)] == ["a", "b"]
    assert isinstance(report, SequenceReport)
    assert (report.outcome, report.resume_from, report.exit_status) == ("restarted", None, 0)
    assert [each.target for each in report.targets] == ["a", "b"]


def test_the_first_failure_ends_it() -> None:
    *steps, report = run("a", "bad", "c")
    assert [s.target for s in steps if isinstance(s, TurnBegins)] == ["a", "bad"]
    assert (report.outcome, report.resume_from, report.exit_status) == ("timeout", "bad", 4)


@pytest.mark.parametrize(
    ("error", "outcome", "status"),
    [(RefusedError("another drain"), "refused", 5), (FailedError("it is stopped"), "aborted", 1)],
)
def test_a_plan_that_no_longer_holds(error: Exception, outcome: str, status: int) -> None:
    def make(target: str) -> DrainPlan:
        if target == "b":
            raise error
        return plan(target, "q")

    *_, last, report = run("a", "b", "c", make=make)
    assert isinstance(last, DrainReport)
    assert (last.outcome, last.target, last.exit_status) == (outcome, "b", status)
    assert str(error) in (last.error or "")
    assert (report.outcome, report.resume_from, report.exit_status) == (outcome, "b", status)


def test_a_signal_between_two_targets() -> None:
    stops = iter([False, True])
    *_, report = run("a", "b", stop=lambda: next(stops))
    assert (report.outcome, report.resume_from, report.exit_status) == ("aborted", "b", 130)


def test_no_process_is_restarted_twice() -> None:
    same = {"a": plan("pm2", "q", keys=("0", "1")), "b": plan("pm2", "q", keys=("1",))}
    with pytest.raises(RefusedError, match="a and b have a process in common"):
        plan_turns(same.__getitem__, ["a", "b"])


def test_every_named_queue_belongs_to_a_target() -> None:
    turns = plan_turns(lambda name: plan(name, name), ["a", "b"], keys_of("a", "b"))
    assert [turn.target for turn in turns] == ["a", "b"]
    with pytest.raises(RefusedError, match="serves c"):
        plan_turns(lambda name: plan(name, name), ["a", "b"], keys_of("a", "c"))
