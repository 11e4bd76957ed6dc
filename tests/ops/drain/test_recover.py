"""Jobs that ran when their process was restarted, on a queue that others serve as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qctl.connection.address import Client
from qctl.ops.drain.recover import recover_others
from qctl.ops.drain.restart import Restarted
from qctl.ops.drain.steps import Recovered, Step
from qctl.wire.read.active import ActiveJob, read_active
from tests.labs.build import Q, put
from tests.labs.drain_context import context_of


def recover(client: Client, in_the_way: Sequence[ActiveJob]) -> list[Step]:
    """Put back jobs of ``Q`` that were interrupted on a queue that others serve as well."""
    context = context_of(client, (Q,))
    restarted = Restarted(in_the_way=tuple(in_the_way))
    return list(recover_others(context, restarted))


def test_a_last_renewal_by_the_old_process_is_no_sign_of_life(client: Client) -> None:
    put(client, "1", "active")
    client.call("SET", Q.lock("1"), "old:1", "PX", 500)
    (job,) = read_active(client, [Q])
    # Before the restart it had less left: its process renewed it once more while it was stopped.
    assert recover(client, [replace(job, lock_ttl_ms=100)]) == [Recovered("q", ("1",))]
    assert client.call("LRANGE", Q("wait"), 0, -1) == ["1"]


def test_a_job_that_left_meanwhile_is_left_alone(client: Client) -> None:
    put(client, "1", "active")
    client.call("SET", Q.lock("1"), "old:1", "PX", 500)
    jobs = read_active(client, [Q])
    client.call("DEL", Q("active"))
    assert recover(client, jobs) == []
    assert client.call("LLEN", Q("wait")) == 0
