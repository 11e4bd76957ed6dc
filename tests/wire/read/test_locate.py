"""An id is found wherever it stands in a long list; its ends are searched first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError
from qctl.wire.read import locate as locating
from qctl.wire.read.locate import locate
from tests.labs.build import Q
from tests.labs.clients import Spy


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a list of eight were long."""
    monkeypatch.setattr(locating, "_END", 3)
    monkeypatch.setattr(locating, "_WINDOW", 4)


@pytest.mark.parametrize("length", [1, 6, 7, 8, 12, 23])
@pytest.mark.parametrize("place", ["wait", "paused", "active"])
def test_an_id_is_found_wherever_it_stands(store: Client, place: str, length: int) -> None:
    ids = [f"j{number}" for number in range(length)]
    store.call("RPUSH", Q(place), *ids)
    state = "active" if place == "active" else "waiting"
    assert [locate(store, Q, job_id).state for job_id in ids] == [state] * length
    assert locate(store, Q, "j99").state is None


@pytest.mark.parametrize(("number", "searches"), [(0, 6), (29, 6), (15, 9)])
def test_only_an_id_in_the_middle_takes_a_search_of_the_whole_list(
    fake: Client, number: int, searches: int
) -> None:
    fake.call("RPUSH", Q("wait"), *(f"j{n}" for n in range(30)))
    spy = Spy(fake)
    assert locate(spy, Q, f"j{number}").state == "waiting"
    assert [command[0] for command in spy.sent].count("LPOS") == searches


def test_a_redis_without_lpos_will_do(fake: Client) -> None:
    class Old(Spy):
        def pipeline(self, commands: Sequence[Sequence[Arg]]) -> list[Any]:
            return [
                ReplyError("ERR unknown command 'LPOS'", command="LPOS")
                if command[0] == "LPOS"
                else reply
                for command, reply in zip(commands, super().pipeline(commands), strict=True)
            ]

    fake.call("RPUSH", Q("paused"), *(f"j{number}" for number in range(9)))
    old = Old(fake)
    assert [locate(old, Q, f"j{number}").state for number in range(10)] == [*["waiting"] * 9, None]
