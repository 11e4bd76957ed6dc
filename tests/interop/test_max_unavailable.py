"""Several instances of a PM2 app are replaced at the same time: ``--max-unavailable``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qctl.connection.connect import connect
from qctl.wire.read.clients import list_workers
from tests.labs.drains import PUT_RIGHT_S, Lab, is_alive
from tests.labs.node import runs
from tests.labs.servers import wait_until

RESTART = ("restart", "pm2:app", "--max-unavailable", "2")


def pids(lab: Lab) -> list[int]:
    """The pids of the instances, in the order of their ids."""
    return [row.pid for row in lab.pm2.rows("app")]


def test_a_batch_of_two_under_load(lab: Lab) -> None:
    lab.app(instances=4, concurrency=2)
    before = pids(lab)
    producer = lab.producer(EVERY_MS=40, JOB_MS=100)
    producer.wait_ids(10)
    done = lab.qctl(*RESTART, "--strategy", "pause", "--output", "ndjson")
    assert done.code == 0, done.err
    added = producer.stop()
    report = done.report
    assert (report["interrupted"], report["lost"], report["outcome"]) == (0, 0, "restarted")
    assert done.steps[0]["max_unavailable"] == 2
    turns = [step for step in done.step_names if step in {"restarting", "ready"}]
    assert turns == ["restarting", "restarting", "ready", "ready"] * 2
    after = pids(lab)
    assert (report["old_pids"], report["new_pids"]) == (before, after)
    assert not any(map(is_alive, before))
    assert [(p["result"], p["old_pid"], p["new_pid"]) for p in report["processes"]] == [
        ("new", *each) for each in zip(before, after, strict=True)
    ]
    lab.prove(added)


def test_one_that_crashes_ends_the_restart_with_its_batch(lab: Lab) -> None:
    """The other process of the batch, which takes longer, is waited for."""
    lab.app(
        instances=4,
        CRASH_MS=1,
        CRASH_IF=lab.folder / "crash-$INSTANCE",
        BOOT_MS=2500,
        BOOT_IF=lab.folder / "slow-$INSTANCE",
        options={"restart_delay": 50},
    )
    added = lab.add(50, 50)
    lab.wait_completed(added)
    before = pids(lab)
    (lab.folder / "slow-0").touch()
    (lab.folder / "crash-1").touch()
    done = lab.qctl(*RESTART, "--json")
    assert done.code == 1
    report = done.json
    assert (report["outcome"], report["resumed"], report["lost"]) == ("aborted", True, 0)
    assert "pm2:app (id 1) keeps crashing" in report["error"]
    after = pids(lab)
    assert [(p["key"], p["result"], p["old_pid"], p["new_pid"]) for p in report["processes"]] == [
        ("0", "new", before[0], after[0]),
        ("1", "failed", before[1], None),
        ("2", "untouched", None, None),
        ("3", "untouched", None, None),
    ]
    assert after[0] != before[0]
    assert after[2:] == before[2:]
    assert report["processes"][1]["error"] == report["error"]
    assert (
        f"pid {before[1]} was asked to stop; the new process has not been confirmed up"
        in (report["notes"])
    )
    assert "not restarted: pm2:app id 2, pm2:app id 3" in report["notes"]
    lab.prove([*added, *lab.add(10, 10)])


def test_qctl_is_killed_in_the_middle_of_a_batch(lab: Lab) -> None:
    # The jobs never end, so each process runs until PM2 kills it, and the queue stays paused.
    lab.app(instances=4, HANDLE_SIGINT=1, options={"kill_timeout": 2500}, concurrency=2)
    stuck = lab.hold(8)
    before = pids(lab)
    drain = lab.steps(*RESTART, "--timeout", "0", "--on-timeout", "restart")
    drain.await_step("paused")
    watchdog = drain.watchdog_pid
    added = lab.add(10, 10)
    asked = [step["pid"] for step in drain.await_steps(2, "restarting")]
    assert asked == before[:2]
    wait_until(
        lambda: [row.status for row in lab.pm2.rows("app")].count("stopping") == 2,
        "PM2 to stop both processes",
    )
    drain.kill()
    while any(map(is_alive, asked)):
        was_paused = lab.is_paused()
        # Both may have ended, and the queue been resumed, between the two readings.
        assert was_paused or not any(map(is_alive, asked))
    wait_until(lambda: lab.put_right(watchdog, "q"), "the pause to go", timeout_s=PUT_RIGHT_S)
    lab.pm2.wait_online("app", 4)
    lab.wait_workers(count=4)
    assert pids(lab)[2:] == before[2:]
    assert not set(pids(lab)) & set(asked)
    # The two new processes have free slots.
    lab.wait_completed(added)
    lab.release()
    survivors = [job for job in stuck if lab.rows(job)[0]["pid"] in before[2:]]
    lab.wait_completed(survivors)
    assert len(survivors) == 4


def test_a_roll_of_two_at_a_time_leaves_two_serving(lab: Lab) -> None:
    lab.app(instances=4, HANDLE_SIGINT=1, concurrency=4)
    before = pids(lab)
    producer = lab.producer(EVERY_MS=40, JOB_MS=100)
    producer.wait_ids(10)
    held = lab.hold(4)
    with fewest_workers(lab) as fewest:
        roll = lab.steps(*RESTART, "--strategy", "roll")
        asked = [step["pid"] for step in roll.await_steps(2, "restarting")]
        wait_until(lambda: min(fewest) == 2, "two to close")
        # The rest goes on with the jobs that are added.
        count = len(producer.ids)
        producer.wait_ids(count + 10)
        lab.wait_completed(producer.ids[: count + 5])
        lab.release()
        done = roll.finish()
    assert done.code == 0, done.err
    added = [*held, *producer.stop()]
    report = done.report
    assert (report["interrupted"], report["lost"], report["recovered"]) == (0, 0, 0)
    assert (report["paused_s"], asked) == (0, before[:2])
    assert report["idle_s"] < 1
    assert (report["old_pids"], report["new_pids"]) == (before, pids(lab))
    assert min(fewest) == 2
    lab.prove(added)
    assert {row["pid"] for row in runs(lab.client, "q")} <= {*before, *pids(lab)}


@contextmanager
def fewest_workers(lab: Lab) -> Iterator[list[int]]:
    """While the block runs, counts the connected workers; a worker disconnects to close."""
    seen = [lab.count_workers()]
    over = threading.Event()

    def watch() -> None:
        client = connect(lab.url)[1]
        while not over.is_set():
            seen.append(sum(worker.queue == "q" for worker in list_workers(client, "bull") or ()))
        client.close()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
