"""``qctl mcp`` with real workers: a drain, a restart, and calls that end in the middle."""

from __future__ import annotations

import asyncio

import pytest

from qctl.wire.drain_record import read_drain_records
from tests.labs.agent import Agent, until, with_agent
from tests.labs.drains import Lab

DRAIN = {"queues": ["q"], "then_restart": True, "target": "pm2:app"}


def work_in(lab: Lab, work: object, mode: str = "auto") -> None:
    env = {**lab.env, "QCTL_WATCH": "1s"}
    with_agent(work, "--allow-writes", env=env, folder=lab.folder, mode=mode)  # type: ignore[arg-type]


def undone_by_the_drain(lab: Lab) -> int:
    """How many drains put everything back; a drain that its watchdog undid is not recorded."""
    (record,) = read_drain_records(lab.client, ["bull"])
    return record.drains["aborted"]


def test_a_drain_and_a_restart(lab: Lab) -> None:
    lab.app()
    held = lab.hold()
    old = lab.pm2.pid("app")

    async def work(agent: Agent) -> None:
        plan = await agent.call("drain", **DRAIN)
        assert plan["dry_run"]
        assert plan["result"]["active"][0]["id"] == held[0]
        call = asyncio.create_task(agent.call("drain", confirm=True, **DRAIN))
        await until(lab.is_paused, "the drain to pause")
        # Other calls are answered while it waits.
        status = await agent.call("status", queues=["q"])
        assert status["result"]["queues"][0]["paused"]
        lab.release()
        report = (await call)["result"]
        assert (report["outcome"], report["completed"], report["lost"]) == ("restarted", 1, 0)
        assert report["old_pids"] == [old]
        restarted = await agent.carry_out("restart", targets=["pm2:app"])
        assert restarted["result"]["old_pids"] == report["new_pids"]

    work_in(lab, work)
    lab.prove(held)
    lab.prove_tidy("q")


def test_a_call_that_is_cancelled(lab: Lab) -> None:
    lab.app()
    held = lab.hold()

    async def work(agent: Agent) -> None:
        await agent.call("drain", **DRAIN)
        call = asyncio.create_task(agent.call("drain", confirm=True, **DRAIN))
        await until(lab.is_paused, "the drain to pause")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: not lab.is_paused(), "the queue to be resumed")
        # The server goes on.
        assert (await agent.call("queues"))["result"]["queues"] == ["q"]

    # Most clients speak the protocol of 2025.
    work_in(lab, work, "legacy")
    lab.prove_tidy("q")
    assert undone_by_the_drain(lab) == 1
    lab.release()
    lab.wait_completed(held)
