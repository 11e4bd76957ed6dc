"""``jobs tree`` and the relatives in ``jobs show``, as typed."""

from __future__ import annotations

import json
from pathlib import Path

from qctl.connection.address import Client
from qctl.ops.jobs.flows import read_tree
from qctl.output.flows import tree_remarks, tree_text
from qctl.wire.keys import QueueKeys
from tests.labs import screens
from tests.labs.build import Q
from tests.labs.bulk import child, top
from tests.labs.cli import qctl

IMAGES, FAR = QueueKeys("bull", "images"), QueueKeys("staging", "mail")


def flow(client: Client) -> None:
    parent = top(client)
    child(client, (IMAGES, "2"), parent, "active", lock="t", name="resize")
    group = child(client, (IMAGES, "10"), parent, "waiting-children", name="a long name " * 9)
    child(client, (FAR, "1"), group, "failed", name="send\x1b[31m", failedReason="no route to host")
    child(client, (Q, "3"), group, "completed", ended="processed", name="log")
    gone = child(client, (Q, "4"), group, "completed", ended="processed")
    client.call("DEL", Q(gone[1]))
    client.call("ZREM", Q("completed"), gone[1])
    for n in range(5, 9):
        child(client, (Q, str(n)), group, "delayed", name="remind")


def test_the_tree_on_a_terminal(client: Client) -> None:
    flow(client)
    tree = read_tree(client, (FAR, "1"), max_nodes=8)
    screens.compare(
        Path(__file__).with_name("tree.txt"),
        lambda width, _, colour: tree_text(tree, width=width, colour=colour).splitlines(),
    )
    (cut,) = tree_remarks(tree)
    assert cut.startswith("8 jobs shown, not the whole flow")


def test_the_tree_in_a_pipe_and_as_json(redis_url: str, client: Client) -> None:
    flow(client)
    ran = qctl(redis_url, "jobs", "tree", "images", "10")
    first, second, third, *_ = ran.out.splitlines()
    assert (ran.code, ran.err, first) == (0, "", "q top  waiting-children  job")
    assert second == "├─ images 2  active  resize"
    assert third.startswith("└─ images 10  waiting-children  a long name")
    assert third.endswith("← this job")
    assert "   └─ q 4  completed, but gone now" in ran.out
    result = json.loads(qctl(redis_url, "jobs", "tree", "images", "10", "--json").out)
    assert (result["queue"], result["id"], result["nodes"]) == ("images", "10", 10)
    (group,) = [node for node in result["root"]["children"] if node["children"]]
    far = next(node for node in group["children"] if node["prefix"] == "staging")
    assert (far["queue"], far["id"], far["state"]) == ("mail", "1", "failed")
    assert qctl(redis_url, "jobs", "tree", "images", "nosuch").code == 3
    assert qctl(redis_url, "jobs", "tree", "nosuch", "1").code == 3


def test_jobs_show_names_parent_and_children_with_their_states(
    redis_url: str, client: Client
) -> None:
    flow(client)
    lines = [
        line.split("  ") for line in qctl(redis_url, "jobs", "show", "q", "top").out.splitlines()
    ]
    told = [" ".join(part.strip() for part in line if part) for line in lines]
    assert "child images 2 active" in told
    assert "child images 10 waiting-children" in told
    ran = qctl(redis_url, "jobs", "show", "mail", "1", "--prefix", "staging")
    assert "parent    images@bull 10  waiting-children" in ran.out
    result = json.loads(qctl(redis_url, "jobs", "show", "q", "top", "--json").out)
    assert result["children"]["pending"] == 2
    assert [job["state"] for job in result["children"]["jobs"]] == ["active", "waiting-children"]
