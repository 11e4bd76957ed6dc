"""How many processes ``--max-unavailable`` means, and where it is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from qctl.errors import RefusedError, UsageError
from qctl.manage.command.manager import Command
from qctl.manage.kubernetes.manager import Kubernetes
from qctl.ops.drain.unavailable import MaxUnavailable, batches
from qctl.ops.processes.targets import Connections, Target
from qctl.wire.read.clients import WorkerClient, Workers
from tests.labs.build import Q


def of(text: str, count: int, manager: Any = None, *, is_matched: bool = True) -> int:
    """What the option means for a target of ``count`` processes."""
    processes: Any = tuple(
        SimpleNamespace(identity=("pm2", str(number))) for number in range(count)
    )
    target = Target("any:app", manager or SimpleNamespace(kind="pm2"), processes, ())
    worker = WorkerClient(Q, None, 9, "127.0.0.1:9", 1, 1)
    owned = {("pm2", "0"): (worker,)} if is_matched else {}
    parsed = MaxUnavailable.parse(text)
    assert parsed is not None
    return parsed.of(target, Connections(Workers([worker]), owned, {}))


@pytest.mark.parametrize(
    ("text", "count", "means"),
    [
        ("1", 4, 1),
        ("2", 4, 2),
        ("9", 4, 4),
        ("25%", 4, 1),
        ("50%", 5, 2),
        ("1%", 4, 1),
        ("100%", 4, 4),
    ],
)
def test_a_number_or_a_percentage(text: str, count: int, means: int) -> None:
    assert of(text, count) == means


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-1", "two", "1.5", "", "2 %", "٢"])
def test_what_is_no_number_of_processes(text: str) -> None:
    with pytest.raises(UsageError, match="is not a number of processes"):
        MaxUnavailable.parse(text)


@pytest.mark.parametrize(
    ("manager", "hint"),
    [
        (Kubernetes(), "spec.strategy.rollingUpdate.maxUnavailable"),
        (Command(()), "[commands.NAME]"),
    ],
    ids=["kubernetes", "command"],
)
def test_a_manager_that_decides_itself(manager: Any, hint: str) -> None:
    with pytest.raises(UsageError, match="does not apply to any:app") as caught:
        of("1", 4, manager)
    assert hint in caught.value.hint


def test_workers_that_no_address_shows_are_restarted_one_by_one() -> None:
    with pytest.raises(RefusedError, match="2 processes at a time"):
        of("2", 4, is_matched=False)
    assert of("1", 4, is_matched=False) == 1


def test_the_last_batch_may_be_smaller() -> None:
    processes: Any = list("abcde")
    assert list(batches(processes, 2)) == [("a", "b"), ("c", "d"), ("e",)]
