"""Long lists: an id is found wherever it stands, and no single command looks through all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from qctl.connection.address import Arg, Client
from qctl.errors import ReplyError
from qctl.wire.read import lists
from qctl.wire.read.lists import locate
from tests.labs.build import Q, put
from tests.ops.jobs.test_listing import Spy


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a list of eight were long."""
    monkeypatch.setattr(lists, "SEARCHED", 3)
    monkeypatch.setattr(lists, "_SENT", 4)
    monkeypatch.setattr(lists, "_OVERLAP", 1)


@pytest.mark.parametrize("length", [1, 6, 7, 8, 12, 23])
@pytest.mark.parametrize("place", ["wait", "paused", "active"])
def test_an_id_is_found_wherever_it_stands(store: Client, place: str, length: int) -> None:
    ids = [f"j{number}" for number in range(length)]
    store.call("RPUSH", Q(place), *ids)
    state = "active" if place == "active" else "waiting"
    assert [locate(store, Q, job_id).state for job_id in ids] == [state] * length
    assert locate(store, Q, "j99").state is None


def test_an_id_is_found_although_others_are_deleted_before_it(fake: Client) -> None:
    class Deleting(Spy):
        def call(self, *command: Arg, timeout_s: float = 0.0) -> Any:
            found = super().call(*command, timeout_s=timeout_s)
            if command[0] == "LRANGE":
                fake.call("LPOP", Q("wait"))
            return found

    for number in range(30):
        fake.call("DEL", Q("wait"))
        fake.call("RPUSH", Q("wait"), *(f"j{n}" for n in range(30)))
        assert locate(Deleting(fake), Q, f"j{number}").state == "waiting", number


def test_no_command_looks_through_a_whole_list(fake: Client) -> None:
    fake.call("RPUSH", Q("wait"), *(f"j{number}" for number in range(30)))
    put(fake, "odd", "")
    spy = Spy(fake)
    locate(spy, Q, "odd")
    searches = [command for command in spy.sent if command[0] == "LPOS"]
    assert searches
    assert all(command[-2:] == ("MAXLEN", 3) for command in searches)
    windows = [command for command in spy.sent if command[0] == "LRANGE"]
    assert windows
    assert all(int(command[3]) - int(command[2]) < 4 for command in windows)


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
