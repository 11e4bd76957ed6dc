"""How the Lua transitions are loaded."""

from __future__ import annotations

from importlib.resources import files

import pytest

from qctl.connection.address import Client
from qctl.errors import ReplyError
from qctl.wire import scripts
from qctl.wire.write.transitions import promote
from tests.labs.build import Q, put
from tests.labs.servers import limited_user

NAMES = sorted(
    item.name.removesuffix(".lua")
    for item in (files("qctl.wire") / "lua").iterdir()
    if item.name.endswith(".lua")
)


def test_there_are_scripts() -> None:
    assert {"pause", "resume", "retry_stalled", "retry_finished"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_script_compiles_and_says_what_it_does(name: str, client: Client) -> None:
    text = scripts.source(name)
    assert "@include" not in text
    assert client.call("SCRIPT", "LOAD", text)
    header = text.split("\n\n", 1)[0]
    assert header.startswith("-- ")
    assert "KEYS[1]" in header
    assert "Answers" in header


def test_a_script_is_sent_once(client: Client) -> None:
    client.call("CONFIG", "RESETSTAT")
    for _ in range(3):
        scripts.run(client, "disown", ["lease"], ["me"])
    stats = client.call("INFO", "commandstats")
    calls = {
        line.split(":")[0].removeprefix("cmdstat_"): line for line in stats.splitlines()[1:] if line
    }
    assert "calls=1," in calls["eval"]
    assert "calls=3," in calls["evalsha"]


def test_it_survives_a_script_flush(store: Client) -> None:
    scripts.run(store, "disown", ["lease"], ["me"])
    store.call("SCRIPT", "FLUSH")
    assert scripts.run(store, "disown", ["lease"], ["me"]) == 0


def test_a_failing_script_is_an_error(store: Client) -> None:
    store.call("LPUSH", "events", "x")
    keys = ["", "meta", "note"]
    with pytest.raises(ReplyError) as caught:
        scripts.run(store, "pause", keys, ["{}", "", "", "", 1])
    assert "WRONGTYPE" in caught.value.message
    assert not store.call("EXISTS", "meta", "note")


def test_redis_tells_how_long_it_worked(store: Client) -> None:
    put(store, "a", "delayed")
    answer, took_s = scripts.run_timed(store, "promote", [Q("")], ["", "a", "never"])
    assert answer == ["promoted", "missing"]
    assert 0 <= took_s < 5


def test_without_the_right_to_ask_for_the_time_jobs_are_changed_all_the_same(
    redis_url: str, client: Client
) -> None:
    put(client, "a", "delayed")
    with limited_user(client, redis_url, "~*", "+@all", "-time") as (_, timeless):
        assert promote(timeless, Q, ["a"]) == {"a": "promoted"}
        _, took_s = scripts.run_timed(timeless, "promote", [Q("")], ["", "a"])
        assert took_s > 0
