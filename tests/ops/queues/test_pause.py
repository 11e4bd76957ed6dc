"""Pause and resume by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qctl.config.prefixes import only, parse_prefixes
from qctl.config.settings import Settings, TargetConfig
from qctl.connection.address import Address, Client
from qctl.errors import NotFoundError, RefusedError
from qctl.manage.protocol import ManagedProcess
from qctl.ops.drain.plan import make_plan
from qctl.ops.queues import pause as ops
from qctl.ops.queues import versions
from qctl.wire.keys import QueueKeys
from qctl.wire.notes import parse_holder
from qctl.wire.write.pausing import hold_lease, pause
from tests.labs.build import Q, holder, is_paused, put, row
from tests.labs.doctor import APP

OTHER = QueueKeys("bull", "other")
HOST = Settings(pm2_home=Path("/nonexistent"))


def resume_queues(client: Client, prefix: str, names: Sequence[str], **options: Any) -> Any:
    return ops.resume_queues(client, only(prefix), names, **options)


def pause_queues(client: Client, prefix: str, names: Sequence[str], **options: Any) -> Any:
    settings = options.pop("settings", HOST).under(prefix)
    return ops.pause_queues(client, settings, names, db=0, **options)


@pytest.fixture
def two(store: Client) -> Client:
    put(store, "1", "active", lock="t")
    put(store, "2", keys=OTHER)
    return store


def test_pause_and_resume(two: Client) -> None:
    first, second = pause_queues(two, "bull", ["q", "other"])
    assert (first.name, first.paused, first.changed, first.active) == ("q", True, True, 1)
    assert (second.name, second.active) == ("other", 0)
    assert is_paused(two)
    assert is_paused(two, OTHER)
    note = parse_holder(two.call("GET", Q.pause_note))
    assert note is not None
    assert note.verb == "pause"
    for result in resume_queues(two, "bull", ["q", "other"]):
        assert (result.paused, result.changed) == (False, True)
    assert not is_paused(two)
    assert two.call("KEYS", "qctl:*") == []


def test_twice_is_as_good_as_once(two: Client) -> None:
    pause_queues(two, "bull", ["q"])
    note = two.call("GET", Q.pause_note)
    (again,) = pause_queues(two, "bull", ["q", "q"])
    assert (again.paused, again.changed) == (True, False)
    assert two.call("GET", Q.pause_note) == note
    resume_queues(two, "bull", ["q"])
    (again,) = resume_queues(two, "bull", ["q"])
    assert (again.paused, again.changed) == (False, False)


def test_a_dry_run_writes_nothing(two: Client) -> None:
    before = {key: two.call("DUMP", key) for key in two.call("KEYS", "*")}
    (told,) = pause_queues(two, "bull", ["q"], dry_run=True)
    assert (told.paused, told.changed) == (True, True)
    (told,) = resume_queues(two, "bull", ["q"], dry_run=True)
    assert (told.paused, told.changed) == (False, False)
    assert {key: two.call("DUMP", key) for key in two.call("KEYS", "*")} == before


def test_one_wrong_name_and_none_is_touched(two: Client) -> None:
    for act in (pause_queues, resume_queues):
        with pytest.raises(NotFoundError, match="'nosuch'"):
            act(two, "bull", ["q", "nosuch"])
    assert not is_paused(two)


def test_one_of_bull_4_and_none_is_touched(two: Client) -> None:
    two.call("SET", "bull:old:id", "7")
    for act in (pause_queues, resume_queues):
        with pytest.raises(RefusedError, match="Bull 3 or 4"):
            act(two, "bull", ["q", "old"])
    assert not is_paused(two)


def test_a_resume_brings_back_what_bullmq_5_set_aside(two: Client) -> None:
    two.call("HSET", Q("meta"), "paused", "1")
    put(two, "8", "paused")
    (told,) = resume_queues(two, "bull", ["q"], dry_run=True)
    assert told.moved == 1
    (done,) = resume_queues(two, "bull", ["q"])
    assert done.moved == 1
    assert row(two, "wait") == ["8"]


def test_a_resume_keeps_off_a_drain_unless_forced(two: Client) -> None:
    them = holder("them", "drain")
    hold_lease(two, Q, them)
    pause(two, Q, them)
    with pytest.raises(RefusedError, match="being drained") as caught:
        resume_queues(two, "bull", ["other", "q"])
    assert "pid 42" in caught.value.why
    assert "--force" in caught.value.hint
    assert is_paused(two)
    resume_queues(two, "bull", ["q"], force=True)
    assert not is_paused(two)


def test_a_pause_takes_a_drains_pause_over(two: Client) -> None:
    pause(two, Q, holder("them", "drain"))
    (done,) = pause_queues(two, "bull", ["q"])
    assert done.paused
    note = parse_holder(two.call("GET", Q.pause_note))
    assert note is not None
    assert note.verb == "pause"


@pytest.mark.parametrize("version", ["bullmq:5.81.5", "bullmq:6.7.0", None])
def test_no_warning_where_one_line_of_bullmq_is_at_work(two: Client, version: str | None) -> None:
    two.call("HDEL", Q("meta"), "version")
    if version:
        two.call("HSET", Q("meta"), "version", version)
    put(two, "9", keys=OTHER)
    (done,) = pause_queues(two, "bull", ["q"])
    assert done.changed
    assert done.warnings == ()


def test_a_queue_of_both_lines_of_bullmq_is_refused_unless_that_is_accepted(two: Client) -> None:
    put(two, "9")
    two.call("XADD", Q("events"), "*", "event", "debounced", "jobId", "1")
    for dry_run in (True, False):
        with pytest.raises(RefusedError, match=r"BullMQ 5 .* and BullMQ 6 ") as caught:
            pause_queues(two, "bull", ["other", "q"], dry_run=dry_run)
    assert "--mixed-versions" in caught.value.hint
    assert not is_paused(two)
    assert not is_paused(two, OTHER)
    first, second = pause_queues(two, "bull", ["other", "q"], mixed_versions=True)
    assert first.warnings == ()
    assert "qctl resume q" in second.warnings[0]
    # Where BullMQ 5 looks when it resumes the queue.
    assert (row(two, "wait"), row(two, "paused")) == ([], ["9"])
    # Pausing it once more can only bring jobs together.
    put(two, "10")
    assert not pause_queues(two, "bull", ["q"])[0].changed
    assert row(two, "paused") == ["10", "9"]


@pytest.fixture
def both(two: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A host on which two apps serve ``q``, one with BullMQ 5 and one with BullMQ 6."""
    apps = [app_with(tmp_path / version, version) for version in ("5.81.5", "6.7.0")]
    monkeypatch.setattr(versions, "managed_processes", lambda *_: (apps, ()))
    targets = tuple(TargetConfig(app.name, app.target, ("q",)) for app in apps)
    return replace(HOST, targets=targets)


def app_with(folder: Path, version: str) -> ManagedProcess:
    package = folder / "node_modules/bullmq/package.json"
    package.parent.mkdir(parents=True)
    package.write_text(f'{{"version": "{version}"}}')
    return replace(APP, target=f"pm2:{version}", name=version, cwd=str(folder))


@pytest.mark.parametrize("version", ["bullmq:5.81.5", "bullmq:6.7.0", None])
def test_what_processes_have_installed_counts_whichever_was_there_last(
    two: Client, both: Settings, version: str | None
) -> None:
    two.call("HDEL", Q("meta"), "version")
    if version:
        two.call("HSET", Q("meta"), "version", version)
    with pytest.raises(RefusedError, match=r"pm2:5.81.5 has 5.81.5.*pm2:6.7.0 has 6.7.0"):
        pause_queues(two, "bull", ["other", "q"], settings=both)
    assert not is_paused(two, OTHER)
    with pytest.raises(RefusedError, match=r"pm2:5.81.5 has 5.81.5.*pm2:6.7.0 has 6.7.0"):
        make_plan(two, Address(), both, ["q"], target=None, then_restart=False)
    (done,) = pause_queues(two, "bull", ["q"], settings=both, mixed_versions=True)
    assert len(done.warnings) == 1
    # One that is paused already is not refused.
    assert pause_queues(two, "bull", ["q"], settings=both)[0].warnings == ()


def test_processes_that_cannot_be_seen_do_not_keep_a_pause_from_being_made(
    two: Client, both: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(versions, "holders", deny)
    assert pause_queues(two, "bull", ["q"], settings=both)[0].changed


def test_bullmq_pro_counts_its_versions_itself(two: Client) -> None:
    put(two, "9")
    two.call("HSET", Q("meta"), "version", "bullmq-pro:7.1.0")
    two.call("XADD", Q("events"), "*", "event", "debounced", "jobId", "1")
    pause_queues(two, "bull", ["q"])
    assert row(two, "paused") == ["9"]


def test_queues_of_several_prefixes(client: Client) -> None:
    queues = [QueueKeys("{mail}", "mail"), QueueKeys("{video}", "video")]
    for keys in queues:
        put(client, "1", keys=keys)
    prefixes = parse_prefixes(["{$QUEUE}"])
    settings = replace(HOST, prefixes=prefixes)
    done = ops.pause_queues(client, settings, ["video@{video}", "mail"], db=0)
    assert [(each.name, each.prefix, each.changed) for each in done] == [
        ("video", "{video}", True),
        ("mail", "{mail}", True),
    ]
    assert all(is_paused(client, keys) for keys in queues)
    assert all(each.changed for each in ops.resume_queues(client, prefixes, ["mail", "video"]))
    assert not any(is_paused(client, keys) for keys in queues)
