"""Somebody else pauses, resumes or drains the same queue."""

from __future__ import annotations

import pytest

from tests.labs.drains import Lab
from tests.labs.servers import wait_until

DRAIN = ("drain", "q", "--then-restart", "--target", "pm2:app")


# BullMQ 6 writes the same as qctl, but for its note, which BullMQ 5 does not write either.
@pytest.mark.parametrize("who", ["qctl", 5])
def test_a_queue_that_was_paused_before_stays_paused(lab: Lab, who: str | int) -> None:
    version = who if isinstance(who, int) else 6
    lab.app(version=version)
    first = lab.hold(version=version)
    if who == "qctl":
        assert lab.qctl("pause", "q").code == 0
    else:
        lab.bull(version).pause("q")
    # BullMQ 5 adds to another list while it is paused.
    added = [*first, *lab.add(10, 10, version=version)]
    by = lab.qctl("status", "q", "--json").json["queues"][0]["paused_by"]
    traces = lab.traces()

    done = lab.drain_held(*DRAIN)
    assert done.code == 0, done.err
    assert done.steps[0]["already_paused"] == ["q"]
    assert any("stays paused" in text for text in done.steps[0]["warnings"])
    assert "resumed" not in done.step_names
    assert (done.report["outcome"], done.report["resumed"]) == ("restarted", False)
    assert done.report["lost"] == 0
    assert lab.is_paused()
    assert lab.traces() == traces
    after = lab.qctl("status", "q", "--json").json["queues"][0]
    assert (after["paused"], after["paused_by"]) == (True, by)
    assert lab.rows(added[1]) == []
    assert lab.qctl("resume", "q").code == 0
    lab.prove(added)


# BullMQ 6 writes the same as qctl, but for its note, which BullMQ 5 does not write either.
@pytest.mark.parametrize("who", ["qctl", 5])
def test_a_queue_paused_by_another_during_the_drain_stays_paused(lab: Lab, who: str | int) -> None:
    version = who if isinstance(who, int) else 6
    lab.app(version=version)
    added = [*lab.hold(version=version), *lab.add(10, version=version)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    if who == "qctl":
        assert lab.qctl("pause", "q").code == 0
    else:
        lab.bull(version).pause("q")
    lab.release()
    done = drain.finish()
    assert done.code == 0, done.err
    assert (done.report["outcome"], done.report["resumed"]) == ("restarted", False)
    assert any("paused by somebody else" in note for note in done.report["notes"])
    assert lab.is_paused()
    assert lab.traces() == (["qctl:paused:bull:q"] if who == "qctl" else [])
    assert lab.qctl("resume", "q").code == 0
    lab.prove(added)


def test_qctl_resume_keeps_off_unless_forced(lab: Lab) -> None:
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    refused = lab.qctl("resume", "q")
    assert refused.code == 5
    assert f"pid {drain.pid}" in refused.err
    assert "--force" in refused.err
    assert lab.is_paused()
    assert lab.qctl("resume", "q", "--force").code == 0
    done = drain.finish()
    assert (done.code, done.report["outcome"]) == (1, "aborted")
    lab.release()
    lab.prove(added)


@pytest.mark.parametrize("who", ["before", "qctl", 6])
def test_a_forced_resume_stops_the_drain_whoever_has_paused_the_queue(
    lab: Lab, who: str | int
) -> None:
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    pid = lab.pm2.pid("app")
    if who == "before":
        assert lab.qctl("pause", "q").code == 0
    drain = lab.steps(*DRAIN)
    drain.await_step("waiting")
    if who == "qctl":
        paused = lab.qctl("pause", "q")
        assert f"pid {drain.pid}) is at work on q" in paused.err
        assert "stays paused" in paused.err
    elif who == 6:
        lab.bull().pause("q")
        # The drain has seen it when its note is gone.
        wait_until(lambda: lab.traces() == ["qctl:lease:bull:q"], "the drain to disown its pause")
    assert lab.qctl("resume", "q", "--force").code == 0
    done = drain.finish()
    assert (done.code, done.report["outcome"]) == (1, "aborted")
    assert "resumed with qctl resume --force" in done.report["error"]
    assert (done.report["old_pids"], lab.pm2.pid("app")) == ([], pid)
    lab.release()
    lab.prove(added)


def test_a_second_drain_keeps_off(lab: Lab) -> None:
    lab.app()
    added = [*lab.hold(), *lab.add(10)]
    first = lab.steps(*DRAIN)
    first.await_step("waiting")
    second = lab.qctl(*DRAIN, "--json")
    assert second.code == 5
    assert second.json["outcome"] == "refused"
    assert f"pid {first.pid}" in second.err
    restart = lab.qctl("restart", "pm2:app")
    assert restart.code == 5
    assert f"pid {first.pid}" in restart.err
    assert lab.is_paused()
    lab.release()
    done = first.finish()
    assert done.code == 0, done.err
    assert (done.report["outcome"], done.report["resumed"]) == ("restarted", True)
    lab.prove(added)


def test_two_queues_of_one_process_are_drained_together(lab: Lab) -> None:
    lab.app(queues="a,b")
    a = [*lab.hold(queue="a"), *lab.add(10, queue="a")]
    b = [*lab.hold(queue="b"), *lab.add(10, queue="b")]
    drain = lab.steps("drain", "a", "--then-restart", "--target", "pm2:app", "--include-others")
    drain.await_step("waiting")
    lab.release("a")
    lab.release("b")
    done = drain.finish()
    assert done.code == 0, done.err
    assert done.report["queues"] == ["a", "b"]
    results = {(job["queue"], job["id"]): job["result"] for job in done.report["jobs"]}
    assert results == {("a", a[0]): "completed", ("b", b[0]): "completed"}
    lab.prove(a, "a")
    lab.prove(b, "b")


def test_ignoring_the_other_queue_drains_one_alone(lab: Lab) -> None:
    lab.app(queues="a,b")
    b = lab.add(10, queue="b")
    lab.wait_completed(b, queue="b")
    a = [*lab.hold(queue="a"), *lab.add(10, queue="a")]
    drain = lab.steps("drain", "a", "--then-restart", "--target", "pm2:app", "--ignore-others")
    drain.await_step("paused", queue="a")
    assert not lab.is_paused("b")
    lab.hold(queue="b")
    lab.release("a")
    done = drain.finish()
    assert done.code == 0, done.err
    assert done.report["queues"] == ["a"]
    # Nobody has followed the jobs of the other queue, so nobody says that they are unharmed.
    assert done.report["interrupted"] is None
    assert any(note.startswith("1 job of b that ran") for note in done.report["notes"])
    (warning,) = done.steps[0]["warnings"]
    assert warning.startswith("jobs of b that run at the restart")
    lab.prove(a, "a")
    lab.prove(b, "b")


def test_apps_of_both_lines_on_one_queue(lab: Lab) -> None:
    """Whichever of them has opened the queue last, and whichever is to be restarted."""
    for version, installed in ((5, "5.81.5"), (6, "6.7.0")):
        package = lab.folder / f"v{version}/node_modules/bullmq/package.json"
        package.parent.mkdir(parents=True)
        package.write_text(f'{{"version": "{installed}"}}')
        folder = {"cwd": str(lab.folder / f"v{version}")}
        lab.app(f"app{version}", version=version, options=folder)
    for version in (5, 6):
        lab.add(0, version=version)
        meta = lab.client.call("HGET", lab.keys()("meta"), "version")
        assert meta.startswith(f"bullmq:{version}.")
        for words in (("pause", "q"), ("restart", "pm2:app5"), ("restart", "pm2:app6")):
            done = lab.qctl(*words)
            assert done.code == 5, done
            assert "pm2:app5 has 5.81.5" in done.err
            assert "pm2:app6 has 6.7.0" in done.err
    assert not lab.is_paused()
    assert lab.qctl("pause", "q", "--mixed-versions").code == 0
