"""A drain over queues that have a key prefix each, served by one app."""

from __future__ import annotations

import shlex

import pytest

from qctl.wire.drain_record import RESULTS, read_drain_records
from tests.labs.drains import PUT_RIGHT_S, Lab, write_config
from tests.labs.node import MODULES, node
from tests.labs.servers import wait_until

QUEUES = ("emails", "videos")
BOTH = ("emails@{emails}", "videos@{videos}")
EACH_ITS_OWN = ("--prefix", "{$QUEUE}")


@pytest.fixture
def own(lab: Lab) -> Lab:
    """The app serves two queues, each under a prefix of its own."""
    lab.prefix = "{$QUEUE}"
    lab.app("app", ",".join(QUEUES))
    return lab


@pytest.mark.parametrize("version", [5, 6])
def test_a_restart_under_load(lab: Lab, version: int) -> None:
    lab.prefix = "{$QUEUE}"
    lab.app("app", ",".join(QUEUES), version=version, concurrency=2)
    producers = {q: lab.producer(q, version=version, EVERY_MS=80, JOB_MS=40) for q in QUEUES}
    for producer in producers.values():
        producer.wait_ids(5)
    held = {queue: lab.hold(queue=queue, version=version) for queue in QUEUES}
    old = lab.pm2.pid("app")
    drain = lab.steps("drain", *QUEUES, "--then-restart", "--target", "pm2:app", *EACH_ITS_OWN)
    drain.await_step("waiting")
    for queue in QUEUES:
        lab.release(queue)
    done = drain.finish()
    assert done.code == 0, done.err
    report = done.report
    assert report["active_at_start"] >= len(QUEUES)
    assert (report["outcome"], report["interrupted"], report["lost"]) == ("restarted", 0, 0)
    assert (report["queues"], report["prefix"]) == ([*BOTH], None)
    assert {job["queue"] for job in report["jobs"]} == {*BOTH}
    assert (report["old_pids"], report["new_pids"]) == ([old], [lab.pm2.pid("app")])
    assert (report["unserved"], report["still_paused"]) == ([], [])
    # The sums of the two records are those of the drain.
    records = read_drain_records(lab.client, [lab.keys(queue).prefix for queue in QUEUES])
    for name in RESULTS:
        assert sum(record.jobs[name] for record in records) == report[name]
    assert all(record.jobs["completed"] for record in records)
    for queue, producer in producers.items():
        lab.prove([*held[queue], *producer.stop()], queue)


def test_a_killed_drain_resumes_the_queues_of_all_prefixes(own: Lab) -> None:
    held = {queue: own.hold(queue=queue) for queue in QUEUES}
    drain = own.steps("restart", "pm2:app", *EACH_ITS_OWN)
    drain.await_step("waiting")
    assert all(map(own.is_paused, QUEUES))
    watchdog = drain.watchdog_pid
    drain.kill()
    wait_until(
        lambda: own.put_right(watchdog, *QUEUES), "the watchdog to resume", timeout_s=PUT_RIGHT_S
    )
    for queue in QUEUES:
        own.release(queue)
        own.prove(held[queue], queue)


def test_queues_of_other_prefixes_need_a_decision(own: Lab) -> None:
    own.add(0, queue="emails")
    own.add(0, queue="videos")
    words = ("drain", "emails@{emails}", "--then-restart", "--target", "pm2:app", "--json")
    done = own.qctl(*words)
    assert done.code == 5
    assert "also serves videos@{videos}" in done.err
    assert "only for queues" not in done.err
    assert own.qctl(*words, "--include-others", "--dry-run").json["queues"] == [*BOTH]
    done = own.qctl(*words, "--ignore-others")
    assert done.code == 0, done.err
    assert (done.report["queues"], done.report["prefix"]) == (["emails"], "{emails}")
    assert done.report["interrupted"] is None
    assert any("of videos@{videos}" in note for note in done.report["notes"])
    own.prove_tidy(*QUEUES)


def test_the_prefixes_in_force_choose_the_queues_of_a_target(own: Lab) -> None:
    for queue in QUEUES:
        own.add(0, queue=queue)
    done = own.qctl("restart", "pm2:app")
    assert done.code == 2
    assert "emails@{emails}, videos@{videos}" in done.err
    done = own.qctl("restart", "pm2:app", "--prefix", "{emails}")
    assert done.code == 5
    assert "also serves videos@{videos}" in done.err
    # The doctor's choice is the same.
    doctor = ("doctor", "--target", "pm2:app", "--json")
    done = own.qctl(*doctor)
    assert (done.code, done.out) == (2, "")
    assert "emails@{emails}, videos@{videos}" in done.err
    examined = own.qctl(*doctor, "--prefix", "{emails}").json["examined"]
    assert (examined["queues"], examined["left_out"]) == (1, ["videos@{videos}"])
    for words in (EACH_ITS_OWN, ("--all-prefixes",)):
        examined = own.qctl(*doctor, *words).json["examined"]
        assert examined == {"queues": 2, "workers": 2, "processes": 1, "left_out": []}
    # What the config says about a target names queues as a command line does.
    write_config(
        own.folder,
        '[targets.app]\nprocess = "pm2:app"\nqueues = ["emails@{emails}", "videos@{videos}"]\n',
    )
    assert own.qctl("restart", "app", "--dry-run", "--json").json["queues"] == [*BOTH]


def test_a_command_restarts_the_workers_of_several_prefixes(own: Lab) -> None:
    for queue in QUEUES:
        own.add(0, queue=queue)
    pm2 = shlex.join([*node(), str(MODULES / "pm2/bin/pm2"), "restart", "app"])
    script = f'{pm2} && printf "%s" "$QCTL_QUEUES" >queues'
    done = own.qctl("drain", *BOTH, "--json", "--", "sh", "-c", script)
    assert done.code == 0, done.err
    assert (own.folder / "queues").read_text().split("\n") == [*BOTH]
    for queue, workers in zip(BOTH, done.report["workers"], strict=True):
        assert workers == {"queue": queue, "before": 1, "left": 0, "new": 1, "expected": 1}
    own.prove_tidy(*QUEUES)


def test_a_drain_and_a_resume_of_several_prefixes(own: Lab) -> None:
    for queue in QUEUES:
        own.add(0, queue=queue)
    done = own.qctl("drain", *QUEUES, *EACH_ITS_OWN)
    assert done.code == 0, done.err
    assert "qctl resume emails@{emails} videos@{videos}" in done.out.replace("'", "")
    assert all(map(own.is_paused, QUEUES))
    done = own.qctl("resume", *BOTH)
    assert done.code == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()] == [*BOTH]
    own.prove_tidy(*QUEUES)
