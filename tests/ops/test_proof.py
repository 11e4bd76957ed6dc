"""Where the jobs of a drain are at its end, where the event stream does not say."""

from __future__ import annotations

import pytest

from qctl.connect import Client
from qctl.ops import proof
from qctl.ops.ledger import Ledger
from qctl.ops.proof import settle, vanished
from qctl.wire.events import Event
from tests.ops.test_ledger import active, ledger, results
from tests.wire.build import Q, put


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "LOOK_AGAIN_S", 0.001)


@pytest.mark.parametrize(
    ("where", "lock", "expected"),
    [
        ("active", "t", "running"),
        ("active", "", "orphaned"),
        ("wait", "", "retried"),
        ("paused", "", "retried"),
        ("delayed", "", "retried"),
        ("prioritized", "", "retried"),
        ("completed", "", "completed"),
        ("failed", "", "failed"),
        ("waiting-children", "", "waiting-children"),
        ("", "", "lost"),
    ],
)
def test_every_state_settles_a_job(store: Client, where: str, lock: str, expected: str) -> None:
    put(store, "1", where, lock=lock)
    told = ledger(active("1"))
    settle(store, told)
    assert results(told) == {"1": expected}


def test_what_the_stream_has_told_is_not_looked_up_again(fake: Client) -> None:
    told = ledger(active("1"))
    told.follow([(Q, Event("1001-0", "completed", {"jobId": "1", "prev": "active"}))])
    settle(fake, told)
    assert results(told) == {"1": "completed"}


def test_a_job_that_was_put_back_and_is_nowhere_has_vanished(store: Client) -> None:
    put(store, "here")
    put(store, "gone", "")
    told = ledger(active("here", lock=None), active("gone", lock=None))
    told.recover([(Q, "here"), (Q, "gone")])
    looks = []
    assert vanished(store, told, lambda: looks.append(1)) == [(Q, "gone")]
    assert looks == [1]


def test_a_job_that_ran_again_and_was_removed_has_not_vanished(store: Client) -> None:
    told = ledger(active("1", lock=None))
    told.recover([(Q, "1")])

    def follow() -> None:
        told.follow([(Q, Event("1001-0", "completed", {"jobId": "1", "prev": "active"}))])

    assert vanished(store, told, follow) == []


def test_nothing_was_put_back(fake: Client) -> None:
    assert vanished(fake, Ledger(), lambda: pytest.fail("no need to look")) == []
