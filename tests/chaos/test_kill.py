"""kill -9 at every step of a drain: its watchdog puts everything back within seconds."""

from __future__ import annotations

import pytest

from tests.labs.drains import PUT_RIGHT_S, Lab, is_alive, kill
from tests.labs.servers import wait_until

DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app")


@pytest.mark.parametrize(
    ("step", "version"),
    [
        ("paused", 6),
        ("waiting", 5),
        ("drained", 6),
        ("restarting", 6),
        ("ready", 6),
        ("resumed", 5),
    ],
)
def test_a_killed_drain_is_undone(lab: Lab, step: str, version: int) -> None:
    lab.app(version=version)
    first = lab.hold(version=version)
    producer = lab.producer(version=version, EVERY_MS=60, JOB_MS=30)
    drain = lab.steps(*DRAIN)
    drain.await_step("paused")
    watchdog = drain.watchdog_pid
    if step not in {"paused", "waiting"}:
        lab.release()

    drain.await_step(step)
    drain.kill()
    lab.release()
    wait_until(
        lambda: lab.put_right(watchdog, "q"),
        f"the drain to be undone: {lab.traces()}",
        timeout_s=PUT_RIGHT_S,
    )

    # A restart that was under way goes on without us; the next drain waits for its end.
    lab.pm2.wait_online("app")
    lab.wait_workers()
    again = lab.qctl(*DRAIN, "--json")
    added = [*first, *producer.stop()]
    assert again.code == 0, again.err
    assert (again.json["interrupted"], again.json["lost"]) == (0, 0)
    lab.prove(added)


def test_a_killed_plain_drain_is_undone_too(lab: Lab) -> None:
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    drain = lab.steps("drain", "q")
    drain.await_step("waiting")
    watchdog = drain.watchdog_pid
    drain.kill()
    wait_until(lambda: lab.put_right(watchdog, "q"), "the pause to go", timeout_s=PUT_RIGHT_S)
    lab.release()
    lab.prove(added)


def test_a_killed_watchdog_is_replaced(lab: Lab) -> None:
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    first = drain.watchdog_pid
    kill(first)
    second = wait_until(
        lambda: drain.watchdog_pid if drain.watchdog_pid != first else 0, "another watchdog"
    )
    # And the new one is as good as the old one.
    drain.kill()
    wait_until(lambda: lab.put_right(second, "q"), "the pause to go", timeout_s=PUT_RIGHT_S)
    lab.release()
    lab.prove(added)


def test_a_drain_whose_watchdog_was_killed_ends_well(lab: Lab) -> None:
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    kill(drain.watchdog_pid)
    lab.release()
    done = drain.finish()
    assert done.code == 0, done.err
    assert done.report["outcome"] == "restarted"
    lab.prove(added)


def test_when_both_are_killed_status_tells_who_it_was_and_resume_cures(lab: Lab) -> None:
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    watchdog = drain.watchdog_pid
    # Not the other way round, in which the watchdog may have time to undo the drain.
    kill(watchdog)
    pid = drain.pid
    drain.kill()
    assert lab.is_paused()
    lab.release()

    # The lease runs out by itself; here it is helped along.
    lease = lab.keys().lease
    left_ms = lab.client.call("PTTL", lease)
    assert 0 < left_ms <= 15_000
    held = lab.qctl("drain", "q")
    assert held.code == 5
    assert str(pid) in held.err
    lab.client.call("PEXPIRE", lease, 1)
    wait_until(lambda: not lab.client.call("EXISTS", lease), "the lease to run out")

    status = lab.qctl("status", "q", "--json").json["queues"][0]
    assert status["paused"] is True
    assert str(pid) in status["paused_by"]
    told = lab.qctl("status", "q")
    assert "left paused" in told.out + told.err
    assert "qctl resume q" in told.out + told.err
    assert lab.qctl("resume", "q").code == 0
    lab.prove(added)


@pytest.mark.parametrize("strategy", ["pause", "roll"])
def test_when_both_are_killed_the_next_drain_takes_over(lab: Lab, strategy: str) -> None:
    lab.app(instances=2, HANDLE_SIGINT=1)
    added = [*lab.hold(2), *lab.add(10)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    kill(drain.watchdog_pid)
    pid = drain.pid
    drain.kill()
    lab.release()
    lab.wait_completed(added[:2])
    assert lab.is_paused()
    lab.client.call("DEL", lab.keys().lease)

    again = lab.qctl(*DRAIN, "--strategy", strategy, "--json")
    assert again.code == 0, again.err
    report = again.json
    assert (report["outcome"], report["resumed"], report["lost"]) == ("restarted", True, 0)
    assert any("left paused" in note and f"pid {pid}" in note for note in report["notes"])
    lab.prove(added)


def test_after_both_are_killed_a_pause_by_bullmq_is_not_taken_over(lab: Lab) -> None:
    lab.app()
    added = lab.hold()
    drain = lab.steps("drain", "q")
    drain.await_step("waiting")
    kill(drain.watchdog_pid)
    drain.kill()
    lab.client.call("DEL", lab.keys().lease)
    lab.release()
    lab.wait_completed(added)
    lab.bull().resume("q")
    lab.bull().pause("q")
    status = lab.qctl("status", "q", "--json").json["queues"][0]
    assert (status["paused"], status["paused_by"]) == (True, None)
    report = lab.qctl(*DRAIN, "--json").json
    assert (report["outcome"], report["resumed"]) == ("restarted", False)
    assert any("q was paused before and stays paused" in note for note in report["notes"])
    assert lab.is_paused()


def test_the_watchdog_lets_a_process_end_that_is_being_stopped(lab: Lab) -> None:
    """Resumed too early, the queue would lose one more job to the process that PM2 is stopping."""
    # It ignores SIGINT while it closes, which takes the whole kill timeout: its job never ends.
    lab.app(HANDLE_SIGINT=1, options={"kill_timeout": 2500}, concurrency=2)
    stuck = lab.add(60_000)
    lab.wait_started(*stuck)
    old = lab.pm2.pid("app")
    drain = lab.steps(*DRAIN, "--timeout", "1s", "--on-timeout", "restart")
    drain.await_step("paused")
    watchdog = drain.watchdog_pid
    added = lab.add(10, 10)
    drain.await_step("restarting")
    # Killed before it has said so to PM2, nothing would be stopped.
    wait_until(lambda: lab.pm2.rows("app")[0].status == "stopping", "PM2 to stop the old process")
    drain.kill()
    while is_alive(old):
        was_paused = lab.is_paused()
        # It may have ended, and the queue been resumed, between the two looks.
        assert was_paused or not is_alive(old)
    wait_until(lambda: lab.put_right(watchdog, "q"), "the pause to go", timeout_s=PUT_RIGHT_S)
    lab.wait_completed(added)
    assert {row["pid"] for job in added for row in lab.rows(job)} == {lab.pm2.pid("app")}
