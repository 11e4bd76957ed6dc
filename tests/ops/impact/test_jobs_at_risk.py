"""Which active jobs a plain restart interrupts; whose they are."""

from __future__ import annotations

import math
from dataclasses import replace

import psutil
import pytest

from qctl.connection.address import Client
from qctl.ops.impact.jobs_at_risk import Holders, JobAtRisk, jobs_at_risk
from qctl.ops.processes.targets import Connections
from qctl.wire.keys import QueueKeys
from qctl.wire.read.active import ActiveJob, read_active
from qctl.wire.read.clients import WorkerClient, Workers
from tests.labs.build import Q, put
from tests.labs.impact import BEAT, NOW, PROCESS


def worker(number: int, name: str | None = None, queue: str = "q") -> WorkerClient:
    return WorkerClient(QueueKeys("bull", queue), name, number, f"127.0.0.1:{number}", 1, 1)


def connections(own: list[WorkerClient], *others: WorkerClient) -> Connections:
    return Connections(Workers([*own, *others]), {PROCESS.identity: tuple(own)}, {})


def job(name: str | None = None, token: str | None = "uuid:1") -> ActiveJob:  # noqa: S107
    return ActiveJob(Q, "1", "mail", NOW - 4000, name, 0, None, token, 20_000)


@pytest.mark.parametrize(
    ("own", "others", "by", "expected"),
    [
        (["a"], ["b"], "a", "target"),
        (["a"], ["b"], "b", "other"),
        (["a"], ["a"], "a", "unknown"),
        # It has left the list: it is closing, and nobody knows where.
        (["a"], ["b"], "gone", "unknown"),
        ([None], [], None, "target"),
        ([None], ["b"], None, "target"),
        # Of an earlier try; a worker without a name leaves it there.
        ([None], ["b"], "b", "unknown"),
        (["a"], [None], None, "other"),
        ([None], [None], None, "unknown"),
        ([], [], "a", "unknown"),
        # The target's own is behind a proxy, or is closing: the name may be its, too.
        ([], ["a"], "a", "unknown"),
        ([], [None], None, "unknown"),
    ],
)
def test_whose_a_job_is(
    own: list[str | None], others: list[str | None], by: str | None, expected: str
) -> None:
    workers = [worker(index, name) for index, name in enumerate([*own, *others])]
    known = connections(workers[: len(own)], *workers[len(own) :])
    assert Holders([PROCESS], known, {}).holder_of(job(by)) == expected


def test_a_name_proves_nothing_while_one_process_shows_no_worker_of_the_queue() -> None:
    second = replace(PROCESS, key="1", pid=4712)
    others = worker(2, "b")
    for hidden in ([], [worker(3, "a", queue="elsewhere")]):
        mine = worker(1, "a")
        owned = {PROCESS.identity: (mine,), second.identity: tuple(hidden)}
        known = Connections(Workers([mine, *hidden, others]), owned, {})
        assert Holders([PROCESS], known, {}).holder_of(job("b")) == "other"
        assert Holders([PROCESS, second], known, {}).holder_of(job("b")) == "unknown"
        # Its own name is enough for the worst case.
        assert Holders([PROCESS, second], known, {}).holder_of(job("a")) == "target"


def test_a_worker_of_another_queue_has_no_job_of_this_one() -> None:
    known = connections([worker(1)], worker(2, queue="elsewhere"))
    assert Holders([PROCESS], known, {}).holder_of(job()) == "target"


def test_without_client_list_nothing_is_known() -> None:
    assert Holders([PROCESS], None, {}).holder_of(job("a")) == "unknown"


def test_all_workers_means_every_job_that_somebody_has() -> None:
    holders = Holders(None, connections([], worker(1)), {})
    assert holders.holder_of(job("whoever")) == "target"
    assert holders.holder_of(job(token=None)) == "nobody"


def test_qctls_own_workers_tell_by_their_locks() -> None:
    known = connections([worker(1, "ours")], worker(2, "theirs"))
    holders = Holders([PROCESS], known, {"own-1": BEAT, "own-2": replace(BEAT, name="theirs")})
    # Whatever name the job bears: the lock counts.
    assert holders.holder_of(job("theirs", "own-1:3")) == "target"
    assert holders.holder_of(job("ours", "own-2:3")) == "other"
    # One that is leaving is not in the list, but its process is the target's.
    leaving = {"own-3": replace(BEAT, name="gone", pid=4711)}
    assert Holders([PROCESS], known, leaving).holder_of(job(None, "own-3:1")) == "target"
    elsewhere = {"own-3": replace(BEAT, name="gone", pid=4711, host="far")}
    assert Holders([PROCESS], known, elsewhere).holder_of(job(None, "own-3:1")) == "unknown"


def test_a_process_that_beats_on_this_host_proves_what_a_name_does_not() -> None:
    # Nothing of the target is seen, and the others' worker is closing.
    known, own = connections([]), psutil.Process()
    beat = replace(BEAT, pid=own.pid, started_ms=round(own.create_time() * 1000) + 400)
    by = "own-1:3"
    assert Holders([PROCESS], known, {"own-1": beat}).holder_of(job("ours", by)) == "other"
    # A shell or npm is what the manager started; the worker is below it.
    above = replace(PROCESS, pid=own.ppid())
    assert Holders([above], known, {"own-1": beat}).holder_of(job("ours", by)) == "target"
    # A pid of some container that has the host's name; one that has just died.
    for other in (replace(beat, started_ms=0), replace(beat, pid=2**30)):
        assert Holders([PROCESS], known, {"own-1": other}).holder_of(job("ours", by)) == "unknown"


def test_only_of_qctls_own_it_is_known_that_they_finish_their_jobs() -> None:
    ours, node = worker(1, "ours"), worker(2, "node")
    beats = {"own-1": BEAT}
    assert Holders([PROCESS], connections([ours]), beats).handles_signal(PROCESS) is True
    assert Holders([PROCESS], connections([node]), beats).handles_signal(PROCESS) is None
    assert Holders([PROCESS], connections([ours, node]), beats).handles_signal(PROCESS) is None
    assert Holders([PROCESS], connections([]), beats).handles_signal(PROCESS) is None
    assert Holders([PROCESS], None, beats).handles_signal(PROCESS) is None
    own = replace(PROCESS, target="qctl:emails")
    assert Holders([own], None, {}).handles_signal(own) is True


def at_risk(
    client: Client, runs: list[float], kill_after_s: float | None, limit: int = 1
) -> dict[str, JobAtRisk]:
    jobs = read_active(client, [Q])
    holders = Holders([PROCESS], connections([worker(1)]), {})
    found = jobs_at_risk(
        client, jobs, holders, {Q: {"mail": runs}},
        kill_after_s=kill_after_s, max_stalled_count=limit, now_ms=NOW, prefix="bull",
    )  # fmt: skip
    return {each.id: each for each in found}


def test_the_best_case_is_what_runs_longer_than_it_is_given(client: Client) -> None:
    put(client, "1", "active", lock="t", name="mail", processedOn=NOW - 4000)
    put(client, "2", "active", lock="t", name="film", processedOn=NOW - 4000)
    for kill_after_s, expected in ((1.6, True), (5.9, True), (6.1, False), (None, None)):
        told = at_risk(client, [1.0, 10.0, 30.0, 10.0, 10.0], kill_after_s)
        assert told["1"].interrupted
        assert told["1"].interrupted_if_handled is expected
    # Those of 1 s are out: this one has run for longer already.
    assert (told["1"].remaining_p50_s, told["1"].remaining_p95_s) == (6.0, 26.0)
    # What is not known to end in time does not.
    assert at_risk(client, [10.0], 3600)["2"].interrupted_if_handled is True
    assert at_risk(client, [10.0], math.inf)["2"].interrupted_if_handled is False


def test_one_more_stall_than_allowed_is_for_good(client: Client) -> None:
    put(client, "1", "active", lock="t", name="mail", processedOn=NOW - 4000)
    put(client, "2", "active", lock="t", name="mail", stc=1)
    # Scheduler jobs are exempt, for as long as the scheduler is there.
    put(client, "3", "active", lock="t", name="mail", stc=1, rjk="nightly")
    put(client, "4", "active", lock="t", name="mail", stc=1, rjk="removed")
    client.call("ZADD", Q("repeat"), NOW, "nightly")
    # Nobody has it: a restart does nothing to it, but the next check does.
    put(client, "5", "active", name="mail", stc=1)
    told = at_risk(client, [], 1.6)
    assert [i for i, risk in told.items() if risk.fails_for_good] == ["2", "4", "5"]
    assert [i for i, risk in told.items() if risk.is_exempt] == ["3"]
    assert [i for i, risk in told.items() if risk.interrupted] == ["1", "2", "3", "4"]
    assert told["5"].held_by == "nobody"
    by_no_limit = at_risk(client, [], 1.6, limit=0)
    assert [i for i, risk in by_no_limit.items() if risk.fails_for_good] == ["1", "2", "4", "5"]
    assert not any(risk.fails_for_good for risk in at_risk(client, [], 1.6, limit=2).values())


def test_a_job_whose_record_is_gone_cannot_fail(client: Client) -> None:
    client.call("LPUSH", Q("active"), "ghost")
    client.call("SET", Q.lock("ghost"), "t", "PX", 9000)
    (told,) = at_risk(client, [], 1.6, limit=0).values()
    assert (told.name, told.runtime_s, told.interrupted) == (None, None, True)
    assert not told.fails_for_good
