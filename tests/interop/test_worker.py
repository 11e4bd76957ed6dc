"""Node adds, a qctl worker runs: what Node sees is what a Node worker would have shown it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from qctl import Job
from qctl.connection.address import Client
from qctl.wire.keys import QueueKeys
from tests.interop import py_worker as py
from tests.labs.build import Q
from tests.labs.build import job as fields_of
from tests.labs.node import NodeBull, NodeError, await_event, event_names, ids_of, runs, wait_ended
from tests.labs.servers import wait_until

py_worker = py.py_worker


# Results


@pytest.mark.parametrize(
    "value",
    [None, 7, "text", "", {"a": [1, None, "ü"]}, [], False, 1.5, "\U0001f600 \u2028"],
    ids=str,
)
def test_wait_until_finished_gives_the_result(
    bullmq: NodeBull, py_worker: py.Starter, value: Any
) -> None:
    py_worker()
    job_id = bullmq.add("q", {"returns": value})
    assert bullmq.wait_finished("q", job_id) == value
    assert bullmq.get_job("q", job_id)["returnvalue"] == value


def test_wait_until_finished_gives_the_reason(bullmq: NodeBull, py_worker: py.Starter) -> None:
    py_worker()
    job_id = bullmq.add("q", {"fail_times": 1, "message": "no such user: ü"})
    with pytest.raises(NodeError, match=r"^no such user: ü$"):
        bullmq.wait_finished("q", job_id)
    job = bullmq.get_job("q", job_id)
    assert job["failedReason"] == "no such user: ü"
    assert (job["attemptsMade"], job["attemptsStarted"]) == (1, 1)
    assert job["stacktrace"][0].endswith("RuntimeError: no such user: ü")
    assert job["finishedOn"] >= job["processedOn"] >= job["timestamp"]


SEQUENCES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "returns": ({"returns": {"ok": True}}, {}, 1),
    "progress": ({"steps": [["progress", 10], ["progress", {"at": "end"}]]}, {}, 1),
    "fails": ({"fail_times": 1}, {}, 1),
    "retries now": ({"fail_times": 1}, {"attempts": 3}, 1),
    "retries later": ({"fail_times": 2}, {"attempts": 3, "backoff": 1}, 1),
    "retries to the end": ({"fail_times": 3}, {"attempts": 3}, 1),
    "unrecoverable": ({"steps": [["unrecoverable", "never"]]}, {"attempts": 3}, 1),
    "delayed": ({}, {"delay": 20}, 1),
    "prioritised": ({}, {"priority": 3}, 1),
    "removed when complete": ({}, {"removeOnComplete": True}, 0),
    "removed when failed": ({"fail_times": 1}, {"removeOnFail": True}, 0),
}


@pytest.mark.parametrize("case", SEQUENCES)
def test_events_are_those_of_a_node_worker(
    bullmq: NodeBull, py_worker: py.Starter, client: Client, case: str
) -> None:
    data, options, kept = SEQUENCES[case]
    seen = {}
    for who in ("node", "qctl"):
        bullmq.listen(who)
        if who == "qctl":
            py_worker(queue=who)
        else:
            bullmq.start_worker(who)
        bullmq.add(who, data, **options)
        await_event(bullmq, "drained", who)
        keys = QueueKeys("bull", who)
        wait_ended(client, kept, keys)
        seen[who] = [
            # "drained" comes with its id in the stream instead; a delay is a point in time.
            (name, {key: args[key] for key in args if key != "delay"} if name != "drained" else 0)
            for name, args in bullmq.events(who)
        ]
    assert seen["qctl"] == seen["node"]
    assert len(seen["qctl"]) >= 4


# What handlers say


def test_progress_logs_and_data(bullmq: NodeBull, py_worker: py.Starter) -> None:
    py_worker()
    steps = [["progress", 40], ["log", "first"], ["log", "second"], ["log", "third"]]
    steps += [["data", {"new": [1]}]]
    job_id = bullmq.add("q", {"steps": steps}, keepLogs=2)
    bullmq.wait_finished("q", job_id)
    job = bullmq.get_job("q", job_id)
    assert (job["progress"], job["data"]) == (40, {"new": [1]})
    logs = bullmq.queue("q", "getJobLogs", job_id)
    assert logs == {"logs": ["second", "third"], "count": 2}


def test_a_job_that_was_removed_cannot_be_updated(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    errors: list[str] = []

    async def handler(job: Job) -> None:
        client.call("DEL", Q(job.id))
        try:
            await job.update_progress(1)
        except LookupError as error:
            errors.append(str(error))
            raise

    py_worker(handler)
    job_id = bullmq.add("q")
    wait_until(lambda: errors, "the update to fail")
    assert errors == [f"job {job_id} of q no longer exists"]


def test_who_processed_it_and_the_workers_list(bullmq: NodeBull, py_worker: py.Starter) -> None:
    py_worker(name="python-1", queue="q ü")
    job_id = bullmq.add("q ü")
    bullmq.wait_finished("q ü", job_id)
    assert bullmq.get_job("q ü", job_id)["processedBy"] == "python-1"
    (worker,) = bullmq.workers("q ü")
    assert (worker["name"], worker["rawname"]) == ("q ü", "bull:cSDDvA==:w:python-1")
    assert bullmq.queue("q ü", "getWorkersCount") == 1


def test_default_names_are_unique(bullmq: NodeBull, py_worker: py.Starter) -> None:
    py_worker()
    py_worker()
    found = {worker["rawname"] for worker in bullmq.workers("q")}
    assert len(found) == 2


# Order


def test_order_of_waiting_lifo_and_prioritised_jobs(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    low = bullmq.add("q", priority=5)
    first, second = bullmq.add("q"), bullmq.add("q")
    high, high_too = bullmq.add("q", priority=1), bullmq.add("q", priority=1)
    last = bullmq.add("q", lifo=True)
    py_worker()
    wait_ended(client, 6)
    assert ids_of(runs(client, "q")) == [last, first, second, high, high_too, low]


def test_delayed_jobs_run_in_time_and_order(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    py_worker(drain_delay_s=60)
    late, soon = bullmq.add("q", delay=150), bullmq.add("q", delay=50)
    wait_ended(client, 2, timeout_s=5)
    rows = [row for row in runs(client, "q") if row["ev"] == "start"]
    assert [row["id"] for row in rows] == [soon, late]
    for row in rows:
        job = bullmq.get_job("q", row["id"])
        assert row["at"] >= job["timestamp"] + job["opts"]["delay"]
        assert job["delay"] == 0


# Retries


def test_backoff_delays(bullmq: NodeBull, py_worker: py.Starter, client: Client) -> None:
    py_worker(drain_delay_s=60)
    fixed = bullmq.add("q", {"fail_times": 2}, attempts=3, backoff={"type": "fixed", "delay": 60})
    growing = bullmq.add(
        "q", {"fail_times": 2}, attempts=3, backoff={"type": "exponential", "delay": 50}
    )
    for job_id, gaps in {fixed: [60, 60], growing: [50, 100]}.items():
        bullmq.wait_finished("q", job_id)
        at = [r["at"] for r in runs(client, "q") if r["id"] == job_id and r["ev"] == "start"]
        assert len(at) == 3
        assert all(b - a >= gap for a, b, gap in zip(at, at[1:], gaps, strict=False))
        job = bullmq.get_job("q", job_id)
        assert (job["attemptsMade"], job["attemptsStarted"], len(job["stacktrace"])) == (3, 3, 2)


def test_a_custom_backoff(bullmq: NodeBull, py_worker: py.Starter) -> None:
    asked: list[tuple[int, str]] = []

    def backoff(attempts: int, error: BaseException) -> float:
        asked.append((attempts, str(error)))
        return 0.01 if attempts == 1 else -1

    py_worker(backoffs={"mine": backoff})
    job_id = bullmq.add("q", {"fail_times": 9}, attempts=9, backoff={"type": "mine"})
    with pytest.raises(NodeError, match="attempt 2"):
        bullmq.wait_finished("q", job_id)
    assert [attempts for attempts, _ in asked] == [1, 2]


@pytest.mark.parametrize("answer", [None, float("nan"), float("inf"), "soon"], ids=str)
def test_a_backoff_function_that_is_wrong_fails_the_job(
    node_bull: Any, py_worker: py.Starter, answer: Any
) -> None:
    bull = node_bull(6)
    py_worker(backoffs={"mine": lambda *_: answer})
    job_id = bull.add("q", {"fail_times": 9}, attempts=9, backoff={"type": "mine"})
    with pytest.raises(NodeError, match=r"attempt 1 failed on purpose \(no retry: "):
        bull.wait_finished("q", job_id)


def test_an_unknown_backoff_fails_the_job_and_says_so(
    bullmq: NodeBull, py_worker: py.Starter
) -> None:
    py_worker()
    job_id = bullmq.add("q", {"fail_times": 9}, attempts=9, backoff={"type": "theirs"})
    with pytest.raises(NodeError, match="no retry: unknown backoff 'theirs'"):
        bullmq.wait_finished("q", job_id)


def test_stack_traces_have_their_limit(bullmq: NodeBull, py_worker: py.Starter) -> None:
    py_worker()
    limits = {2: 2, 0: 0, None: 4}
    for limit, kept in limits.items():
        options = {} if limit is None else {"stackTraceLimit": limit}
        job_id = bullmq.add("q", {"fail_times": 9}, attempts=4, **options)
        with pytest.raises(NodeError):
            bullmq.wait_finished("q", job_id)
        traces = bullmq.get_job("q", job_id)["stacktrace"]
        assert len(traces) == kept
        if kept:
            assert "attempt 4" in traces[-1]


def test_retry_later_is_counted_only_when_asked(bullmq: NodeBull, py_worker: py.Starter) -> None:
    py_worker()
    for counted, delay_s in ((False, 0.02), (False, 0), (True, 0.02), (True, 0)):
        step = ["later", {"delay_s": delay_s, "counted": counted}]
        job_id = bullmq.add("q", {"steps": [step], "returns": 1}, attempts=2)
        assert bullmq.wait_finished("q", job_id) == 1
        job = bullmq.get_job("q", job_id)
        assert (job["attemptsMade"], job["attemptsStarted"]) == (2 if counted else 1, 2)


def test_a_counted_retry_later_may_be_the_last(bullmq: NodeBull, py_worker: py.Starter) -> None:
    py_worker()
    job_id = bullmq.add("q", {"steps": [["later", {"delay_s": 0.5, "counted": True}]]}, attempts=1)
    with pytest.raises(NodeError, match=r"again in 0\.5 s"):
        bullmq.wait_finished("q", job_id)


def test_retries_exhausted_names_the_attempts(bullmq: NodeBull, py_worker: py.Starter) -> None:
    py_worker()
    bullmq.listen("q")
    bullmq.add("q", {"fail_times": 9}, attempts=2)
    await_event(bullmq, "retries-exhausted")
    (args,) = [args for name, args in bullmq.events("q") if name == "retries-exhausted"]
    assert args["attemptsMade"] == "2"


def test_max_started_attempts(bullmq: NodeBull, py_worker: py.Starter, client: Client) -> None:
    py_worker(max_started_attempts=2)
    job_id = bullmq.add("q", {"fail_times": 9}, attempts=9)
    with pytest.raises(NodeError, match="attempt 2"):
        bullmq.wait_finished("q", job_id)
    # One that was started too often elsewhere is not run.
    bullmq.pause("q")
    other = bullmq.add("q")
    client.call("HSET", Q(other), "ats", 2)
    bullmq.resume("q")
    with pytest.raises(NodeError, match="job started more than allowable limit"):
        bullmq.wait_finished("q", other)
    assert other not in ids_of(runs(client, "q"), "start")


def test_a_deferred_failure_fails_without_a_run(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    bullmq.pause("q")
    job_id = bullmq.add("q", attempts=5)
    client.call("HSET", Q(job_id), "defa", "child x failed")
    bullmq.resume("q")
    py_worker()
    with pytest.raises(NodeError, match="child x failed"):
        bullmq.wait_finished("q", job_id)
    assert runs(client, "q") == []
    assert "defa" not in fields_of(client, job_id)


# What is kept


@pytest.mark.parametrize("outcome", ["completed", "failed"])
@pytest.mark.parametrize("where", ["job", "worker"])
def test_finished_jobs_are_kept_by_count(
    bullmq: NodeBull, py_worker: py.Starter, client: Client, where: str, outcome: str
) -> None:
    worker_options: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if where == "job":
        options = {"removeOnComplete": 2, "removeOnFail": {"count": 2}}
    else:
        worker_options = {"remove_on_complete": 2, "remove_on_fail": {"count": 2}}
    data = {"fail_times": 1, "ms": 2} if outcome == "failed" else {"ms": 2}
    ids = [bullmq.add("q", data, **options) for _ in range(5)]
    bullmq.listen("q")
    py_worker(**worker_options)
    await_event(bullmq, outcome, count=5)
    assert client.call("ZRANGE", Q(outcome), 0, -1) == ids[3:]
    assert [job_id for job_id in ids if fields_of(client, job_id)] == ids[3:]


def test_finished_jobs_are_kept_by_age_with_a_limit(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    old = [bullmq.add("q") for _ in range(4)]
    worker = py_worker()
    wait_ended(client, 4)
    for position, job_id in enumerate(old):
        client.call("ZADD", Q("completed"), 1000 + position, job_id)
    worker.stop()
    py_worker(remove_on_complete={"age": 60, "limit": 3})
    bullmq.wait_finished("q", newer := bullmq.add("q"))
    # The limit leaves the oldest ones for later.
    assert client.call("ZRANGE", Q("completed"), 0, -1) == [old[0], newer]
    bullmq.wait_finished("q", newest := bullmq.add("q"))
    assert client.call("ZRANGE", Q("completed"), 0, -1) == [newer, newest]


def test_metrics(bullmq: NodeBull, py_worker: py.Starter, client: Client) -> None:
    py_worker(metrics_minutes=60, concurrency=10)
    bullmq.add_bulk("q", [{"name": "j", "data": {"fail_times": i % 2}} for i in range(20)])
    wait_ended(client, 20)
    for kind in ("completed", "failed"):
        assert bullmq.queue("q", "getMetrics", kind)["meta"]["count"] == 10


# Deduplication


def test_a_dedup_id_is_free_when_its_job_has_ended(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    first = bullmq.add("q", deduplication={"id": "d"})
    assert bullmq.add("q", deduplication={"id": "d"}) == first
    py_worker()
    bullmq.wait_finished("q", first)
    second = bullmq.add("q", {"fail_times": 1}, deduplication={"id": "d"})
    assert second != first
    with pytest.raises(NodeError):
        bullmq.wait_finished("q", second)
    assert client.call("EXISTS", Q("de:d")) == 0


def test_the_last_of_keep_last_if_active_runs_next(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    py_worker()
    dedup = {"id": "d", "keepLastIfActive": True}
    first = bullmq.add("q", {"ms": 300}, deduplication=dedup)
    wait_until(lambda: ids_of(runs(client, "q"), "start") == [first], "the first to start")
    for turn in range(3):
        bullmq.add("q", {"returns": turn}, job=f"turn {turn}", deduplication=dedup)
    wait_ended(client, 2)
    started = [row for row in runs(client, "q") if row["ev"] == "start"]
    assert [row["name"] for row in started] == ["job", "turn 2"]
    assert bullmq.get_job("q", started[1]["id"])["returnvalue"] == 2
    assert client.call("EXISTS", Q("de:d"), Q("dn:d")) == 0


# Odd jobs


def test_payloads_that_node_never_wrote(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    seen: list[Any] = []

    async def handler(job: Job) -> None:
        seen.append((job.data, dict(job.opts), job.attempts_max))

    py_worker(handler)
    for data, opts in (("not json", "nor this"), ("[1]", "[]"), ('"s"', '{"attempts":"3"}')):
        bullmq.pause("q")
        job_id = bullmq.add("q")
        client.call("HSET", Q(job_id), "data", data, "opts", opts)
        bullmq.resume("q")
        wait_until(lambda job_id=job_id: client.call("ZSCORE", Q("completed"), job_id), "the job")
    assert seen == [("not json", {}, 1), ([1], {}, 1), ("s", {"attempts": "3"}, 3)]


def test_an_id_without_a_job_delays_no_other(
    bullmq: NodeBull, py_worker: py.Starter, client: Client
) -> None:
    bullmq.pause("q")
    real = bullmq.add("q")
    client.call("RPUSH", Q("wait"), "ghost", "0:0")
    bullmq.resume("q")
    py_worker()
    bullmq.wait_finished("q", real)
    wait_ended(client, 1)
    assert client.call("EXISTS", Q("ghost")) == 0
    assert Counter(row["ev"] for row in runs(client, "q")) == {"start": 1, "end": 1}


def test_failed_reasons_of_any_kind_reach_node(bullmq: NodeBull, py_worker: py.Starter) -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    errors: dict[str, tuple[BaseException, str]] = {
        "unprintable": (UnprintableError(), "UnprintableError"),
        "empty": (ValueError(), "ValueError"),
        "key": (KeyError("user"), "KeyError: 'user'"),
        "lines": (RuntimeError("two\nlines"), "two\nlines"),
        "half": (RuntimeError("half \ud83d"), "half \ufffd"),
        "raw": (RuntimeError("byte \udcff"), "byte \ufffd"),
        "nul": (RuntimeError("a\x00b"), "a\x00b"),
    }

    async def handler(job: Job) -> None:
        raise errors[job.data][0]

    py_worker(handler)
    bullmq.listen("q")
    for name, (_, reason) in errors.items():
        job_id = bullmq.add("q", name)
        with pytest.raises(NodeError) as caught:
            bullmq.wait_finished("q", job_id)
        assert str(caught.value).startswith(reason)
        json.dumps(bullmq.get_job("q", job_id))
    assert event_names(bullmq).count("failed") == len(errors)
