"""Adding jobs and flows (wire format 5.1-5.5); compared with BullMQ itself in tests/interop."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qctl.connection.address import Client
from qctl.errors import NotFoundError, PartialError, RefusedError, UsageError
from qctl.wire import scripts
from qctl.wire.encoding import encode_data, option_set, parse_backoff
from qctl.wire.options import Backoff, Dedup, JobKeywords, JobOptions, Keep, OnFailure, Parent
from qctl.wire.write import adding
from qctl.wire.write.adding import AddedJob, FlowJob, NewJob
from tests.labs.build import CLASS, Q, events, exponents, job, put, row, scores

NOW = 1_700_000_000_000


def add(client: Client, *jobs: NewJob, now: int = NOW) -> list[str]:
    answers = [
        scripts.run(client, call.name, call.keys, call.args)
        for call in adding.add_calls(Q, jobs, now)
    ]
    return adding.added_ids(jobs, answers)


def add_flow(client: Client, root: FlowJob) -> AddedJob:
    nodes = adding.flow_nodes(root)
    call = adding.flow_call("bull", nodes, NOW)
    return adding.added_flow(nodes, scripts.run(client, call.name, call.keys, call.args))


def names(client: Client) -> list[tuple[str, str]]:
    return [(event["event"], event["jobId"]) for event in events(client)]


def opts(**options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(option_set(JobOptions(**options), "bull").opts)
    return found


# One job


def test_a_plain_job(store: Client) -> None:
    assert add(store, NewJob("hello", {"a": [1, "ä"]})) == ["1"]
    assert job(store, "1") == {
        "name": "hello",
        "data": '{"a":[1,"ä"]}',
        "opts": '{"attempts":0}',
        "timestamp": str(NOW),
        "delay": "0",
        "priority": "0",
    }
    assert row(store, "wait") == ["1"]
    assert scores(store, "marker") == {"0": "0"}
    assert store.call("HGETALL", Q("meta")) == ["opts.maxLenEvents", "10000"]
    assert events(store) == [
        {"event": "added", "jobId": "1", "name": "hello"},
        {"event": "waiting", "jobId": "1"},
    ]


def test_delayed_jobs_keep_their_order_within_a_millisecond(store: Client) -> None:
    add(store, *(NewJob("later", delay=1.5) for _ in range(3)))
    first = (NOW + 1500) * 4096
    assert list(scores(store, "delayed").values()) == [str(first + n) for n in range(3)]
    assert job(store, "2")["delay"] == "1500"
    assert events(store)[1] == {"event": "delayed", "jobId": "1", "delay": str(NOW + 1500)}
    assert store.call("EXISTS", Q("wait")) == 0
    assert float(scores(store, "marker")["1"]) == NOW + 1500
    assert exponents(store) == []


def test_priorities_lifo_and_a_time_of_its_own(store: Client) -> None:
    add(
        store,
        NewJob("p", priority=7),
        NewJob("a"),
        NewJob("next", lifo=True),
        NewJob("old", timestamp_ms=5, delay=2),
    )
    assert scores(store, "prioritized") == {"1": str(7 * CLASS + 1)}
    assert row(store, "wait") == ["2", "3"]
    assert scores(store, "delayed") == {"4": str(2005 * 4096)}
    assert job(store, "4")["timestamp"] == "5"


def test_no_marker_while_paused_or_at_the_limit(store: Client) -> None:
    store.call("HSET", Q("meta"), "paused", 1)
    add(store, NewJob("a"), NewJob("b", priority=1))
    assert store.call("EXISTS", Q("marker")) == 0
    assert row(store, "paused") == ["1"]


def test_jobs_that_bullmq_5_paused_get_company(store: Client) -> None:
    put(store, "old", "paused")
    store.call("HSET", Q("meta"), "paused", 1)
    add(store, NewJob("a"))
    assert row(store, "paused") == ["1", "old"]


@pytest.mark.parametrize(
    ("version", "place"),
    [
        ("bullmq:5.81.5", "paused"),
        ("bullmq:6.7.0", "wait"),
        ("bullmq:12.0", "wait"),
        ("bullmq-pro:7.0.0", "paused"),
        ("", "paused"),
    ],
)
def test_a_queue_that_was_empty_when_it_was_paused(version: str, place: str, store: Client) -> None:
    store.call("HSET", Q("meta"), "paused", 1, "version", version)
    add(store, NewJob("a"), NewJob("b"))
    assert row(store, place) == ["2", "1"]


def test_the_stream_is_capped_as_the_queue_says(client: Client) -> None:
    client.call("HSET", Q("meta"), "opts.maxLenEvents", "100")
    add(client, *(NewJob("a") for _ in range(400)))
    # What a call says is cut by the next call, when it has been heard.
    add(client, NewJob("b"))
    assert client.call("XLEN", Q("events")) < 300


# Ids and parents


def test_an_id_is_taken_once_and_uses_a_number(store: Client) -> None:
    jobs = NewJob("a", {"n": 1}, job_id="x"), NewJob("b", {"n": 2}, job_id="x"), NewJob("c")
    assert add(store, *jobs) == ["x", "x", "3"]
    assert job(store, "x")["name"] == "a"
    assert row(store, "wait") == ["3", "x"]
    assert ("duplicated", "x") in names(store)


@pytest.mark.parametrize("job_id", ["7", "0", "-5", "0:1", "a:b", "meta", "wait", "stalled-check"])
def test_ids_that_no_job_can_have(job_id: str) -> None:
    with pytest.raises(UsageError):
        option_set(JobOptions(job_id=job_id), "bull")


@pytest.mark.parametrize("job_id", ["007", "a", "repeat:x:7", "9" * 30, "+5", "1e5"])
def test_ids_that_look_odd_and_are_fine(job_id: str) -> None:
    assert opts(job_id=job_id)["jobId"] == job_id


def test_a_child_is_a_dependency_of_its_parent(store: Client) -> None:
    put(store, "p", "active")
    parent = Parent("p", "q")
    add(store, NewJob("c", parent=parent, on_failure="ignore_dependency"))
    assert store.call("SMEMBERS", Q("p:dependencies")) == [Q("1")]
    fields = job(store, "1")
    assert fields["parentKey"] == Q("p")
    assert json.loads(fields["parent"]) == {"id": "p", "queueKey": "bull:q", "idof": True}
    assert json.loads(fields["opts"]) == {
        "attempts": 0,
        "idof": True,
        "parent": {"id": "p", "queue": "bull:q"},
    }


def test_without_its_parent_nothing_is_written(store: Client) -> None:
    with pytest.raises(NotFoundError, match="not added"):
        add(store, NewJob("c", parent=Parent("ghost", "q")))
    assert store.call("KEYS", "*") == []


def test_an_existing_job_gets_a_parent_but_not_a_second_one(store: Client) -> None:
    for parent in ("p", "other"):
        put(store, parent, "waiting-children")
    add(store, NewJob("c", job_id="c"))
    assert add(store, NewJob("c", job_id="c", parent=Parent("p", "q"))) == ["c"]
    assert store.call("SMEMBERS", Q("p:dependencies")) == [Q("c")]
    with pytest.raises(RefusedError, match="new parent"):
        add(store, NewJob("c", job_id="c", parent=Parent("other", "q")))
    assert store.call("EXISTS", Q("other:dependencies")) == 0
    # A parent that is gone holds nobody.
    store.call("DEL", Q("p"))
    add(store, NewJob("c", job_id="c", parent=Parent("other", "q")))
    assert job(store, "c")["parentKey"] == Q("other")


def test_a_completed_child_releases_its_new_parent(store: Client) -> None:
    put(store, "p", "waiting-children", priority=3)
    put(store, "c", "completed", returnvalue='{"x":1}')
    add(store, NewJob("c", job_id="c", parent=Parent("p", "q")))
    assert store.call("HGETALL", Q("p:processed")) == [Q("c"), '{"x":1}']
    assert scores(store, "prioritized") == {"p": str(3 * CLASS + 1)}


def test_some_of_many_were_not_added(store: Client) -> None:
    jobs = NewJob("a"), NewJob("b", parent=Parent("ghost", "q")), NewJob("c")
    with pytest.raises(PartialError, match="1 of 3") as caught:
        add(store, *jobs)
    assert "ghost" in caught.value.why
    assert row(store, "wait") == ["2", "1"]


# Many jobs


def test_many_jobs_are_as_many_single_ones(store: Client) -> None:
    kinds = [
        NewJob("a", {"n": 1}), NewJob("a", {"n": 2}), NewJob("l", lifo=True), NewJob("a"),
        NewJob("d", delay=1), NewJob("p", priority=2), NewJob("c", job_id="c"),
        NewJob("x", dedup=Dedup("x")), NewJob("x", dedup=Dedup("x")), NewJob("a", attempts=3),
    ]  # fmt: skip
    jobs = kinds * 45
    together = add(store, *jobs)
    left = {key: store.call("DUMP", key) for key in (Q("wait"), Q("id"), Q("pc"))}
    seen, lists = events(store), (row(store, "wait"), scores(store, "delayed"))
    store.call("FLUSHALL")
    assert [add(store, one)[0] for one in jobs] == together
    assert {key: store.call("DUMP", key) for key in left} == left
    assert (row(store, "wait"), scores(store, "delayed")) == lists
    assert events(store) == seen


def test_a_wrong_one_among_many_leaves_nothing_behind(store: Client) -> None:
    jobs = [*(NewJob("a") for _ in range(500)), NewJob("b", {"bad": {1, 2}})]
    with pytest.raises(UsageError, match="not JSON"):
        add(store, *jobs)
    assert store.call("KEYS", "*") == []


def test_calls_are_bounded_by_number_and_by_size() -> None:
    def sizes(*jobs: NewJob) -> list[int]:
        # Three arguments a job, eight before the first for one set of options.
        return [(len(call.args) - 8) // 3 for call in adding.add_calls(Q, jobs, NOW)]

    assert sizes() == []
    assert sizes(*[NewJob("a")] * (2 * adding.MAX_CALL_JOBS)) == [adding.MAX_CALL_JOBS] * 2
    assert sizes(*[NewJob("a")] * (adding.MAX_CALL_JOBS + 1)) == [adding.MAX_CALL_JOBS, 1]
    assert sizes(*[NewJob("a", "x" * adding.MAX_CALL_CHARS)] * 3) == [1, 1, 1]


# Deduplication


def deduplicated(store: Client) -> list[dict[str, str]]:
    return [event for event in events(store) if event["event"] == "deduplicated"]


def test_dedup_stands_until_its_job_ends(store: Client) -> None:
    first = NewJob("a", dedup=Dedup("x"))
    assert add(store, first, first) == ["1", "1"]
    assert job(store, "1")["deid"] == "x"
    assert deduplicated(store) == [
        {"event": "deduplicated", "jobId": "1", "deduplicationId": "x", "deduplicatedJobId": "2"}
    ]
    assert store.call("PTTL", Q("de:x")) == -1
    # Vanished without a trace: the id must not block for ever.
    store.call("DEL", Q("1"))
    assert add(store, first) == ["3"]


def test_dedup_for_a_time(store: Client) -> None:
    throttle = NewJob("a", dedup=Dedup("x", ttl_s=60))
    assert add(store, throttle, throttle) == ["1", "1"]
    store.call("PEXPIRE", Q("de:x"), 1000)
    add(store, throttle)
    assert store.call("PTTL", Q("de:x")) <= 1000
    add(store, NewJob("a", dedup=Dedup("x", ttl_s=60, extend=True)))
    assert store.call("PTTL", Q("de:x")) > 1000
    assert store.call("GET", Q("de:x")) == "1"


def test_dedup_replaces_a_delayed_job_and_no_other(store: Client) -> None:
    debounce = NewJob("a", delay=5, dedup=Dedup("x", replace=True))
    assert add(store, debounce, debounce) == ["1", "2"]
    assert store.call("EXISTS", Q("1")) == 0
    assert list(scores(store, "delayed")) == ["2"]
    assert deduplicated(store)[0]["jobId"] == "2"
    store.call("ZREM", Q("delayed"), "2")
    store.call("LPUSH", Q("wait"), "2")
    count = len(events(store))
    assert add(store, debounce) == ["2"]
    assert len(events(store)) == count


def test_dedup_keeps_the_last_while_one_runs(store: Client) -> None:
    last = Dedup("x", keep_last_if_active=True)
    add(store, NewJob("a", dedup=last))
    store.call("LREM", Q("wait"), 1, "1")
    store.call("LPUSH", Q("active"), "1")
    assert add(store, NewJob("b", {"n": 1}, dedup=last), NewJob("c", {"n": 2}, dedup=last)) == [
        "1",
        "1",
    ]
    kept = job(store, "dn:x")
    assert (kept["name"], kept["data"], kept["jid"]) == ("c", '{"n":2}', "3")


def test_what_replaces_a_job_takes_its_place_in_every_way(store: Client) -> None:
    replace = Dedup("x", ttl_s=60, replace=True)
    add(store, NewJob("a", delay=5, dedup=replace))
    store.call("PEXPIRE", Q("de:x"), 1000)
    # What was kept for the one that goes belongs to nobody now.
    store.call("HSET", Q("dn:x"), "name", "old")
    assert add(store, NewJob("a", delay=5, dedup=replace)) == ["2"]
    assert store.call("GET", Q("de:x")) == "2"
    assert 0 < store.call("PTTL", Q("de:x")) <= 1000
    assert store.call("EXISTS", Q("dn:x")) == 0
    add(store, NewJob("a", delay=5, dedup=Dedup("x", ttl_s=60, replace=True, extend=True)))
    assert store.call("PTTL", Q("de:x")) > 1000


def test_what_is_kept_outlives_the_time_of_the_id(store: Client) -> None:
    add(store, NewJob("a", dedup=Dedup("x", ttl_s=60)))
    store.call("RPOPLPUSH", Q("wait"), Q("active"))
    add(store, NewJob("a", dedup=Dedup("x", ttl_s=60, keep_last_if_active=True)))
    assert store.call("PTTL", Q("de:x")) == -1


def test_dedup_gives_a_delayed_job_its_new_time(store: Client) -> None:
    add(store, NewJob("a", delay=5, dedup=Dedup("x")))
    add(store, NewJob("a", delay=60, dedup=Dedup("x", reschedule=True)), now=NOW + 1000)
    assert scores(store, "delayed") == {"1": str((NOW + 61_000) * 4096)}
    assert job(store, "1")["delay"] == "60000"


# Flows


def test_a_flow(store: Client) -> None:
    tree = FlowJob(
        "root", "q", {"r": 1}, priority=2, children=[
            FlowJob("left", "other", children=[FlowJob("leaf", "q")]),
            FlowJob("right", "other", job_id="right", on_failure=OnFailure.FAIL_PARENT),
        ],
    )  # fmt: skip
    added = add_flow(store, tree)
    left, right = added.children
    (leaf,) = left.children
    assert [node.name for node in (added, left, right, leaf)] == ["root", "left", "right", "leaf"]
    assert all(len(node.id) == 36 for node in (added, left, leaf))
    assert right.id == "right"
    assert list(scores(store, "waiting-children")) == [added.id]
    assert sorted(store.call("SMEMBERS", Q(f"{added.id}:dependencies"))) == sorted(
        [f"bull:other:{left.id}", "bull:other:right"]
    )
    assert store.call("LRANGE", "bull:other:wait", 0, -1) == ["right"]
    assert row(store, "wait") == [leaf.id]
    assert json.loads(store.call("HGET", "bull:other:right", "parent"))["fpof"] is True
    assert "jobId" not in json.loads(job(store, added.id)["opts"])


def test_completed_children_release_the_parent_only_when_the_flow_is_there(store: Client) -> None:
    put(store, "c", "completed", returnvalue="7")
    children = [FlowJob("c", "q", job_id="c"), FlowJob("d", "q", job_id="d")]
    add_flow(store, FlowJob("p", "q", job_id="p", children=children))
    assert list(scores(store, "waiting-children")) == ["p"]
    add_flow(store, FlowJob("p2", "q", job_id="p2", children=[]))
    put(store, "e", "completed", returnvalue="8")
    add_flow(store, FlowJob("p3", "q", job_id="p3", children=[FlowJob("e", "q", job_id="e")]))
    assert row(store, "wait")[-1] == "p3"
    assert store.call("HGETALL", Q("p3:processed")) == [Q("e"), "8"]


def test_a_child_of_another_parent_is_told(store: Client) -> None:
    child = FlowJob("c", "q", job_id="c")
    add_flow(store, FlowJob("p", "q", job_id="p", children=[child]))
    added = add_flow(store, FlowJob("p2", "q", job_id="p2", children=[child]))
    assert [node.attached for node in (added, *added.children)] == [True, False]
    assert "flowAttachmentFailed" not in job(store, "p2")
    assert set(scores(store, "waiting-children")) == {"p", "p2"}


@pytest.mark.parametrize(
    "tree",
    [
        FlowJob("p", "q", dedup=Dedup("x"), children=[FlowJob("c", "q")]),
        FlowJob("p", "q", children=[FlowJob("c", "q", dedup=Dedup("x"))]),
        FlowJob("p", "q", children=[FlowJob("c", "q", parent=Parent("x", "q"))]),
        FlowJob("p", "q", children=[FlowJob("c", "a:b")]),
        FlowJob("p", "q", children=[FlowJob("c", "")]),
        FlowJob("p", "q", children=[FlowJob("c", "q", job_id="7")]),
    ],
)
def test_flows_that_cannot_be(tree: FlowJob, fake: Client) -> None:
    with pytest.raises(UsageError):
        add_flow(fake, tree)
    assert fake.call("KEYS", "*") == []


# What is stored


def test_options_as_bullmq_names_them() -> None:
    assert opts(
        delay=1.5,
        priority=3,
        attempts=4,
        backoff="exponential:1m",
        lifo=True,
        remove_on_complete=True,
        remove_on_fail=Keep(count=3, age_s=60),
        keep_logs=5,
        stack_trace_limit=0,
        timestamp_ms=7,
        extra={"sizeLimit": 9},
    ) == {
        "attempts": 4,
        "delay": 1500,
        "priority": 3,
        "backoff": {"type": "exponential", "delay": 60_000},
        "lifo": True,
        "removeOnComplete": True,
        "removeOnFail": {"count": 3, "age": 60},
        "kl": 5,
        "stackTraceLimit": 0,
        "timestamp": 7,
        "sizeLimit": 9,
    }


def test_equal_options_that_mean_different_things_are_kept_apart() -> None:
    assert opts(remove_on_complete=True)["removeOnComplete"] is True
    assert opts(remove_on_complete=1)["removeOnComplete"] == 1
    assert opts(remove_on_complete=1)["removeOnComplete"] is not True
    assert option_set(JobOptions(), "bull") is option_set(NewJob("x"), "bull")


@pytest.mark.parametrize(
    "options",
    [
        {"priority": -1},
        {"priority": 2**21},
        {"priority": 1.5},
        {"delay": -1},
        {"delay": float("nan")},
        {"attempts": -1},
        {"attempts": 0},
        {"attempts": True},
        {"backoff": "exponental:5s"},
        {"backoff": "Fixed:5s"},
        {"backoff": Backoff("exponential")},
        {"backoff": Backoff("", 5)},
        {"backoff": "soon"},
        {"backoff": Backoff("fixed", 1, jitter=2)},
        {"on_failure": "explode"},
        {"dedup": Dedup("")},
        {"dedup": {"id": "x"}},
        {"parent": {"id": "x", "queue": "q"}},
        {"backoff": 5},
        {"backoff": {"type": "fixed", "delay": 5}},
        {"remove_on_complete": "100"},
        {"remove_on_complete": {"cuont": 5}},
        {"remove_on_complete": [5]},
        {"priority": [1]},
        {"on_failure": {}},
        {"dedup": Dedup("x"), "parent": Parent("p", "q")},
        {"extra": {"delay": 5}},
        {"extra": {"x": object()}},
    ],
)
def test_options_that_are_wrong(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        option_set(JobOptions(**options), "bull")


def test_a_custom_backoff_may_have_almost_any_name() -> None:
    for kind in ("fixed2", "exponential-slow", "jittered", "fixedly"):
        assert opts(backoff=f"{kind}:5s")["backoff"] == {"type": kind, "delay": 5000}
    assert opts(backoff=Backoff("patient"))["backoff"] == {"type": "patient"}


@pytest.mark.parametrize(
    ("text", "backoff"),
    [("fixed:500ms", Backoff("fixed", 0.5)), ("mine:1d", Backoff("mine", 86_400.0))],
)
def test_backoff_as_text(text: str, backoff: Backoff) -> None:
    assert parse_backoff(text) == backoff


def test_data_is_json_or_nothing_is_done() -> None:
    assert encode_data(None) == "{}"
    assert encode_data("ä\ud800") == '"ä\\ud800"'
    for bad in (float("nan"), {1, 2}, b"x", {"a": object()}):
        with pytest.raises(UsageError, match="data"):
            encode_data(bad)


def test_keywords_are_the_options() -> None:
    assert set(JobKeywords.__annotations__) == set(JobOptions.__dataclass_fields__)


def test_a_keep_rule_may_have_bullmqs_form() -> None:
    rule = {"age": 60, "count": 1}
    found = option_set(JobOptions(remove_on_complete=rule), "bull")  # type: ignore[arg-type]
    assert json.loads(found.opts)["removeOnComplete"] == rule
