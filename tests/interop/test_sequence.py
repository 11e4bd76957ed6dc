"""Several targets in one command, with two real apps under PM2."""

from __future__ import annotations

import pytest

from tests.labs.drains import Lab, is_alive
from tests.labs.managed_by_command import write_config


@pytest.fixture
def pids(lab: Lab) -> dict[str, int]:
    """The pids of the apps a, which serves emails, and b, which serves orders."""
    lab.app("a", "emails")
    lab.app("b", "orders")
    return {row.name: row.pid for row in lab.pm2.rows()}


def test_two_targets_one_after_another(lab: Lab, pids: dict[str, int]) -> None:
    emails, orders = lab.hold(queue="emails"), lab.hold(queue="orders")
    run = lab.steps("restart", "pm2:a", "pm2:b")
    run.await_step("waiting", target="pm2:a")
    # The second target works on until its turn.
    assert not lab.is_paused("orders")
    lab.release("emails")
    run.await_step("waiting", target="pm2:b")
    assert not lab.is_paused("emails")
    assert not is_alive(pids["a"])
    assert is_alive(pids["b"])
    lab.release("orders")
    done = run.finish()
    assert done.code == 0, done.err
    report = done.report
    assert (report["step"], report["outcome"], report["resume_from"]) == (
        "summary", "restarted", None,
    )  # fmt: skip
    assert [each["target"] for each in report["targets"]] == ["pm2:a", "pm2:b"]
    assert [each["lost"] for each in report["targets"]] == [0, 0]
    assert not is_alive(pids["b"])
    begins = [step["target"] for step in done.steps if step["step"] == "target"]
    assert begins == ["pm2:a", "pm2:b"]
    assert all("target" in step for step in done.steps[:-1])
    lab.prove(emails, queue="emails")
    lab.prove(orders, queue="orders")


def test_the_apps_of_the_named_queues_are_found(lab: Lab, pids: dict[str, int]) -> None:
    words = ("drain", "emails", "orders", "--then-restart")
    # It found them itself, so it asks.
    asked = lab.qctl(*words)
    assert asked.code == 2
    assert "pm2:a (emails), pm2:b (orders)" in asked.err
    plans = lab.qctl(*words, "--dry-run", "--json").json["targets"]
    assert [(each["target"], each["queues"]) for each in plans] == [
        ("pm2:a", ["emails"]), ("pm2:b", ["orders"]),
    ]  # fmt: skip
    assert all(map(is_alive, pids.values()))
    done = lab.qctl(*words, "--yes", "--json")
    assert done.code == 0, done.err
    assert [each["queues"] for each in done.json["targets"]] == [["emails"], ["orders"]]
    assert not any(map(is_alive, pids.values()))


def test_a_group_that_stops_and_is_resumed(lab: Lab, pids: dict[str, int]) -> None:
    write_config(lab.folder, '[groups.workers]\ntargets = ["pm2:a", "pm2:b"]\n')
    lab.hold(queue="orders")
    stopped = lab.qctl("restart", "workers", "--timeout", "100ms")
    assert stopped.code == 4
    *_, first, second, hint = stopped.out.splitlines()
    assert first == "pm2:a  restarted; queues: emails"
    assert second == "pm2:b  timeout; queues: orders"
    assert hint == "to continue: the same command with --resume-from pm2:b"
    assert (is_alive(pids["a"]), is_alive(pids["b"])) == (False, True)
    (new,) = [row.pid for row in lab.pm2.rows("a")]
    lab.release("orders")
    done = lab.qctl("restart", "workers", "--resume-from", "pm2:b", "--json")
    assert done.code == 0, done.err
    assert [each["target"] for each in done.json["targets"]] == ["pm2:b"]
    assert is_alive(new)
    assert not is_alive(pids["b"])
    # What takes one target names those of the group.
    one = lab.qctl("impact", "--target", "workers")
    assert one.code == 2
    assert "pm2:a, pm2:b" in one.err


def test_nothing_begins_if_one_plan_does_not_hold(lab: Lab, pids: dict[str, int]) -> None:
    unknown = lab.qctl("restart", "pm2:a", "pm2:x", "--json")
    assert unknown.code == 3
    refused = lab.qctl("restart", "pm2:a", "pm2:0", "--json")
    assert refused.code == 5
    assert refused.json["outcome"] == "refused"
    (report,) = refused.json["targets"]
    assert report["target"] is None
    assert "in common" in report["error"]
    assert all(map(is_alive, pids.values()))


def test_both_serve_both_queues(lab: Lab) -> None:
    """The turn of each app drains both queues, so no job of the other app is in the way."""
    lab.app("a", "emails,orders")
    lab.app("b", "emails,orders", concurrency=2)
    held = lab.hold(3, queue="emails")
    run = lab.steps("drain", "emails", "orders", "--then-restart", "--yes")
    run.await_step("waiting", target="pm2:a")
    assert lab.is_paused("emails")
    assert lab.is_paused("orders")
    lab.release("emails")
    done = run.finish()
    assert done.code == 0, done.err
    assert [each["queues"] for each in done.report["targets"]] == [["emails", "orders"]] * 2
    lab.prove(held, queue="emails")
