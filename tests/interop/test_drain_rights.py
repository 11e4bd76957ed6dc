"""A whole drain by a Redis user with exactly the rights that are checked before it."""

from __future__ import annotations

from qctl.wire.read.rights import DRAIN, required_commands
from tests.labs.drains import Lab
from tests.labs.servers import limited_user, wait_until

COMMAND = ("drain", "q", "--then-restart", "--target", "pm2:app", "--json")


def test_they_are_enough(lab: Lab) -> None:
    lab.app()
    # One that lost its worker, which is put back at the end.
    stalled = lab.bull().add_bulk("q", [{"name": "job", "data": {"ms": 5}, "opts": {"delay": 1e7}}])
    lab.client.call("ZREM", lab.keys()("delayed"), *stalled)
    lab.client.call("LPUSH", lab.keys()("active"), *stalled)
    added = [*lab.hold(), *lab.add(10)]
    lab.release()
    # With the list of clients, by which workers are found, and what replicas are asked by.
    commands = {command.partition(" ")[0] for command in required_commands(DRAIN)}
    rules = [f"+{name.lower()}" for name in commands]
    rules += ["+eval", "+evalsha", "+client|list", "+info", "+wait"]
    with limited_user(lab.client, lab.url, "~*", "-@all", *rules) as (url, _):
        done = lab.qctl(*COMMAND, env={"QCTL_REDIS_URL": url})
    assert done.code == 0, done.err
    assert (done.json["outcome"], done.json["resumed"]) == ("restarted", True)
    assert (done.json["recovered"], done.json["lost"]) == (1, 0)
    lab.prove([*added, *stalled])


def test_without_one_nothing_is_begun(lab: Lab) -> None:
    lab.app()
    # The app's own first write.
    wait_until(lambda: lab.client.call("EXISTS", "bull:q:meta"), "the app writes")
    before = lab.dump()
    with limited_user(lab.client, lab.url, "~*", "+@all", "-hdel", "-xadd") as (url, _):
        done = lab.qctl(*COMMAND, env={"QCTL_REDIS_URL": url})
        paused = lab.qctl("pause", "q", env={"QCTL_REDIS_URL": url})
    for refused in (done, paused):
        assert refused.code == 5
        assert "hdel, xadd" in refused.err
        assert "+hdel +xadd" in refused.err
    assert done.json["outcome"] == "refused"
    assert lab.dump() == before
