"""Flows: states of all jobs, limits, and keys that can be read in several ways."""

from __future__ import annotations

import pytest

from qctl.connection.address import Client
from qctl.errors import NotFoundError
from qctl.ops.jobs.flows import FlowTree, read_tree
from qctl.ops.jobs.listing import MAX_CHILDREN, show_job
from qctl.ops.jobs.model import FlowNode
from qctl.wire.keys import QueueKeys
from qctl.wire.read import locate
from tests.labs.build import Q, put
from tests.labs.bulk import child, top
from tests.labs.clients import Spy

A, ELSEWHERE = QueueKeys("bull", "a"), QueueKeys("other:pfx", "b")


def flat(node: FlowNode) -> list[FlowNode]:
    return [node, *(below for one in node.children for below in flat(one))]


def states(tree: FlowTree) -> dict[str | None, str | None]:
    return {node.id: node.state for node in flat(tree.root)}


def test_every_job_has_its_state(client: Client) -> None:
    parent = top(client)
    for place in ("wait", "paused", "active", "delayed", "prioritized", "completed", "failed"):
        child(client, (A, f"in {place}"), parent, place)
    child(client, (A, "locked"), parent, "active", lock="token")
    child(client, (A, "nowhere"), parent, "")
    middle = child(client, (Q, "middle"), parent, "waiting-children")
    child(client, (A, "leaf"), middle)
    tree = read_tree(client, (A, "leaf"))
    assert (tree.root.id, tree.nodes, tree.is_cut, tree.above) == ("top", 12, False, None)
    assert states(tree) == {
        "top": "waiting-children", "middle": "waiting-children", "leaf": "waiting",
        "in wait": "waiting", "in paused": "waiting", "in active": "stalled", "locked": "active",
        "in delayed": "delayed", "in prioritized": "prioritized", "in completed": "completed",
        "in failed": "failed", "nowhere": None,
    }  # fmt: skip
    assert not any(node.missing for node in flat(tree.root))


def test_a_job_that_is_gone_has_the_state_that_its_parent_noted(client: Client) -> None:
    parent = top(client)
    for ended in ("processed", "failed", "unsuccessful", ""):
        job = child(client, (A, f"x{ended}"), parent, "", ended=ended)
        client.call("DEL", A(job[1]))
    child(client, (A, "taken"), parent, "wait", ended="processed")
    client.call("HSET", A("taken"), "parentKey", "bull:q:another")
    tree = read_tree(client, parent)
    assert {node.id: (node.state, node.missing) for node in tree.root.children} == {
        "xprocessed": ("completed", True),
        "xfailed": ("failed", True),
        "xunsuccessful": ("failed", True),
        "x": (None, True),
        "taken": ("completed", True),
    }


def test_a_child_under_another_prefix_is_found_by_the_queue_that_exists(client: Client) -> None:
    parent = top(client)
    child(client, (ELSEWHERE, "1:2"), parent)
    client.call("SADD", Q("top:dependencies"), "no:such:queue:9", "just-one:x")
    nodes = {node.key: node for node in read_tree(client, parent).root.children}
    found = nodes["other:pfx:b:1:2"]
    assert (found.prefix, found.queue, found.id) == ("other:pfx", "b", "1:2")
    assert (found.state, found.missing) == ("waiting", False)
    unknown = nodes["no:such:queue:9"]
    assert (unknown.prefix, unknown.queue, unknown.id, unknown.state) == (None,) * 4
    up = read_tree(client, (ELSEWHERE, "1:2"))
    assert (up.root.prefix, up.root.queue, up.root.id) == ("bull", "q", "top")
    shown = show_job(client, ELSEWHERE, "1:2").parent
    assert shown is not None
    assert (shown.queue, shown.prefix, shown.id, shown.state) == (
        "q", "bull", "top", "waiting-children",
    )  # fmt: skip


def test_the_job_in_question_is_shown_whatever_the_limit(client: Client) -> None:
    parent = top(client)
    for n in range(30):
        one = child(client, (A, f"m{n}"), parent, "waiting-children")
        for m in range(3):
            child(client, (A, f"l{n}-{m}"), one)
    for wanted in ("m7", "l7-2", "l29-0"):
        tree = read_tree(client, (A, wanted), max_nodes=5)
        assert wanted in states(tree)
        assert tree.nodes <= 5 + 2
        assert tree.is_cut
        assert tree.root.more == 30 - len(tree.root.children)
    assert read_tree(client, parent, max_nodes=121).is_cut is False


def test_a_deep_flow_is_cut_above_and_below(client: Client) -> None:
    job = top(client, "j0")
    for n in range(1, 12):
        job = child(client, (Q, f"j{n}"), job, "waiting-children")
    tree = read_tree(client, (Q, "j8"), max_depth=4)
    assert [node.id for node in flat(tree.root)] == ["j5", "j6", "j7", "j8"]
    assert (tree.above, tree.is_cut) == (Q("j4"), True)
    tree = read_tree(client, (Q, "j0"), max_depth=4)
    assert [node.id for node in flat(tree.root)] == ["j0", "j1", "j2", "j3"]
    assert (tree.above, tree.is_cut) == (None, True)
    client.call("DEL", Q("j5"))
    client.call("ZREM", Q("waiting-children"), "j5")
    tree = read_tree(client, (Q, "j8"))
    assert (tree.root.id, tree.above) == ("j6", Q("j5"))


def test_a_circle_ends(client: Client) -> None:
    parent = top(client)
    one = child(client, (A, "one"), parent, "waiting-children")
    client.call("HSET", Q("top"), "parentKey", A("one"))
    client.call("SADD", A("one:dependencies"), Q("top"))
    tree = read_tree(client, one)
    assert sorted(node.id or "" for node in flat(tree.root)) == ["one", "top"]
    assert tree.above is not None


def test_long_lists_are_searched_for_a_few_jobs_only(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate, "_END", 3)
    monkeypatch.setattr("qctl.wire.read.flows._MAX_SEARCHES", 4)
    parent = top(client)
    for n in range(20):
        child(client, (A, f"c{n:02}"), parent)
    spy = Spy(client)
    tree = read_tree(spy, parent)
    found = [node.state for node in tree.root.children]
    # Six at the ends of the list, and four in its middle.
    assert (found.count("waiting"), found.count(None)) == (10, 10)
    whole = [words for words in spy.sent if words[0] == "LPOS" and "MAXLEN" not in words]
    # The three lists of a queue; of the parent, no list is searched as a whole but once a read.
    assert len([words for words in whole if words[1] == A("wait")]) == 4


def test_a_parent_names_some_of_its_children(client: Client) -> None:
    parent = top(client)
    for n in range(MAX_CHILDREN + 5):
        child(client, (A, str(n)), parent, "completed", ended="processed")
    child(client, (A, "bad"), parent, "failed", failedReason="boom")
    found = show_job(client, *parent).children
    assert found is not None
    assert (found.pending, found.processed, found.more) == (1, MAX_CHILDREN + 5, 6)
    assert len(found.jobs) == MAX_CHILDREN
    first = found.jobs[0]
    assert (first.id, first.state, first.failed_reason) == ("bad", "failed", "boom")
    assert {node.state for node in found.jobs[1:]} == {"completed"}


def test_no_such_job(client: Client) -> None:
    put(client, "1")
    with pytest.raises(NotFoundError, match="no job 'nosuch'"):
        read_tree(client, (Q, "nosuch"))
