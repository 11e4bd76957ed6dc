"""Doctor: processes, as a manager might tell of them; the real PM2 is in tests/interop."""

from __future__ import annotations

import base64
import contextlib
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qctl.config.files import Origin
from qctl.config.prefixes import parse_prefixes
from qctl.config.settings import TargetConfig
from qctl.connection.address import Client, parse_url
from qctl.connection.connect import connect
from qctl.errors import UsageError
from qctl.manage.pm2.manager import Pm2
from qctl.manage.protocol import ManagedProcess
from qctl.ops.doctor import examination
from qctl.ops.doctor import run as doctor
from qctl.ops.doctor.findings import Diagnosis
from qctl.ops.processes.suggest import commands_like
from qctl.ops.processes.targets import Connections, Target
from qctl.output.doctor import diagnosis_text
from qctl.wire.keys import QueueKeys
from qctl.wire.read.clients import WorkerClient, Workers
from tests.labs.build import Q, put
from tests.labs.doctor import APP, SETTINGS, diagnose, of, result
from tests.labs.servers import limited_user

SERVING = replace(
    SETTINGS, targets=tuple(TargetConfig(t, f"{t}:app", ("q",)) for t in ("pm2", "qctl"))
)
Run = Callable[..., Diagnosis]


@pytest.fixture
def run(client: Client, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The doctor on a host that runs these processes; ``pm2:app`` serves ``q``."""
    put(client, "0", "wait")

    def run(*processes: ManagedProcess, remarks: Sequence[str] = ()) -> Diagnosis:
        monkeypatch.setattr(
            examination, "managed_processes", lambda *_: (processes, tuple(remarks))
        )
        return diagnose(client, redis_url, settings=SERVING)

    return run


def test_a_stop_signal_that_does_not_arrive(run: Run) -> None:
    assert of(run(APP), "signal-path") == []
    trouble = "its command is npm, which may not pass SIGTERM on"
    others = [replace(APP, key=str(key), signal_trouble=trouble) for key in (1, 2)]
    (finding,) = of(run(APP, *others), "signal-path")
    assert (finding.severity, finding.what) == (
        "warning",
        f"{trouble}: a plain restart may interrupt its jobs",
    )
    assert finding.evidence["processes"] == ["1", "2"]
    assert finding.commands == ("qctl restart pm2:app",)


def completed(client: Client, *runtimes_ms: int, name: str = "job", keys: QueueKeys = Q) -> None:
    for number, runtime_ms in enumerate(runtimes_ms):
        put(
            client, f"{name}{number}", "completed", keys=keys, score=number,
            name=name, processedOn=1_000_000, finishedOn=1_000_000 + runtime_ms,
        )  # fmt: skip


def test_a_kill_timeout_that_is_too_short(client: Client, run: Run) -> None:
    completed(client, *[10] * 30)
    completed(client, 5000, 5000, 4000, 3000, name="rare")
    diagnosis = run(APP)
    assert (of(diagnosis, "kill-timeout"), result(diagnosis, "kill-timeout").why) == ([], "")
    completed(client, *[100] * 10, *[2500] * 10, name="slow")
    (finding,) = of(run(APP, replace(APP, key="1", kill_timeout_ms=9000)), "kill-timeout")
    assert finding.severity == "warning"
    assert finding.subject.name == "pm2:app"
    assert finding.what == (
        "it is killed 1.6 s after SIGINT, and one in twenty 'slow' jobs of q runs 2.5 s or longer"
    )
    assert finding.evidence["jobs_looked_at"] == 20
    assert "set kill_timeout to 4000 ms or more" in finding.remedy
    assert of(run(replace(APP, kill_timeout_ms=2500)), "kill-timeout") == []


def test_an_unknown_kill_timeout(client: Client, run: Run) -> None:
    completed(client, *[2500] * 20)
    unknown = replace(APP, key="1", kill_timeout_ms=None)
    diagnosis = run(unknown)
    assert of(diagnosis, "kill-timeout") == []
    why = result(diagnosis, "kill-timeout").why
    assert why == "it is unknown how soon after the stop signal pm2:app is killed"
    (finding,) = of(run(APP, unknown), "kill-timeout")
    assert finding.evidence["kill_timeout_ms"] == 1600


def test_durations_that_are_not_kept_are_unknown(client: Client, run: Run) -> None:
    put(client, "0", "paused")
    completed(client, 5000, 4000)
    diagnosis = run(APP)
    assert of(diagnosis, "kill-timeout") == []
    why = result(diagnosis, "kill-timeout").why
    assert "jobs of pm2:app take: too few are kept" in why


def test_a_target_whose_queues_cannot_be_told(
    client: Client, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(client, "0", "paused")
    found = Target("pm2:app", Pm2(Path("/nonexistent")), (APP,), ())
    monkeypatch.setattr(doctor, "open_target", lambda *_: found)
    with limited_user(client, redis_url, "~*", "+@all", "-client|list") as (url, lowly):
        diagnosis = doctor.examine(lowly, parse_url(url), SETTINGS, target="pm2:app")
    assert result(diagnosis, "no-workers").status == "failed"
    assert len(of(diagnosis, "legacy-paused")) == 1


def test_a_target_under_several_prefixes(
    client: Client, redis_url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(trouble := replace(APP, signal_trouble="its command is npm"))
    queues = [QueueKeys(prefix, "q") for prefix in ("a", "b", "c")]
    for keys in queues:
        completed(client, *[4000] * 5, keys=keys)
    put(client, "0", "paused", keys=queues[1])
    workers = [WorkerClient(keys, None, n, f"10.0.0.1:{n}", 9, 1) for n, keys in enumerate(queues)]
    found = Target("pm2:app", Pm2(Path("/nonexistent")), (trouble,), ())
    monkeypatch.setattr(doctor, "open_target", lambda *_: found)
    known = Connections(Workers(workers), {trouble.identity: workers}, {})
    monkeypatch.setattr(doctor, "read_connections", lambda *_: known)
    words = ("q@a", "q@b", "q@c")
    config = replace(SETTINGS, targets=(TargetConfig("app", "pm2:app", words),))

    def examine(*words: str) -> Diagnosis:
        settings = replace(config, prefixes=parse_prefixes(words))
        with commands_like(replace(settings, origins={"redis.prefix": Origin("flag")})):
            return doctor.examine(
                client, parse_url(redis_url), settings, target="pm2:app", sleep=lambda _: None
            )

    diagnosis = examine("a", "b")
    assert (diagnosis.examined.queues, diagnosis.examined.left_out) == (2, ("q@c",))
    (paused,) = of(diagnosis, "legacy-paused")
    assert (paused.subject.name, paused.commands) == ("q@b", ("qctl resume q --prefix b",))
    # One finding about the process, and its restart drains the queues of both prefixes.
    (path,) = of(diagnosis, "signal-path")
    assert path.commands == ("qctl restart pm2:app --prefix a --prefix b",)
    assert {f.evidence["queue"] for f in of(diagnosis, "kill-timeout")} == {"q@a", "q@b"}
    assert "not examined: q@c" in diagnosis_text(diagnosis, width=80, colour=False)
    alone = examine("a")
    assert (alone.examined.queues, alone.examined.left_out) == (1, ("q@b", "q@c"))
    assert [f.evidence["queue"] for f in of(alone, "kill-timeout")] == ["q"]
    with pytest.raises(UsageError, match="no queue under the key prefixes"):
        examine("d")


HOUR_MS = 3_600_000


def stalled(client: Client, job_id: str, ago_ms: int, event: str = "stalled") -> None:
    stamp = f"{int(time.time() * 1000) - ago_ms}-0"
    client.call("XADD", Q("events"), stamp, "event", event, "jobId", job_id)


def test_what_the_last_restart_interrupted(client: Client, run: Run) -> None:
    app = replace(APP, started_at_ms=int(time.time() * 1000) - HOUR_MS)
    stalled(client, "before", HOUR_MS + 100_000)
    stalled(client, "hit", HOUR_MS - 60_000)
    stalled(client, "later", HOUR_MS - 200_000)
    # Its second instance was started just then, too: one job is not two.
    (finding,) = of(run(app, replace(app, key="1")), "stop-signal")
    assert finding.severity == "warning"
    assert finding.evidence["interrupted"] == 1
    assert finding.evidence["jobs"] == [{"queue": "q", "id": "hit"}]
    assert "the app ignores the signal, or its jobs take longer" in finding.what
    ours = replace(app, target="qctl:app", kill_timeout_ms=86_400_000)
    assert of(run(ours), "stop-signal") == []
    # One that was never restarted has interrupted nothing.
    assert of(run(replace(app, restarts=0)), "stop-signal") == []
    completed(client, *[10] * 30)
    (finding,) = of(run(replace(app, stop_signal="message")), "stop-signal")
    assert "its jobs usually end sooner, so the app ignores the signal" in finding.what
    assert "sends the message 'shutdown'" in finding.what


def test_a_job_that_began_after_the_restart_is_not_held_against_it(
    client: Client, run: Run
) -> None:
    app = replace(APP, started_at_ms=int(time.time() * 1000) - HOUR_MS)
    stalled(client, "old", HOUR_MS + 100_000, "added")
    stalled(client, "new", HOUR_MS - 10_000, "active")
    stalled(client, "new", HOUR_MS - 60_000)
    # One that had stalled once, long ago, and was retried then.
    put(
        client, "retried", "completed", score=app.started_at_ms + 50_000,
        stc=1, processedOn=app.started_at_ms + 40_000, finishedOn=app.started_at_ms + 50_000,
    )  # fmt: skip
    assert of(run(app), "stop-signal") == []
    # Where the events are gone, such a job is all that there is to go by.
    client.call("DEL", Q("events"))
    diagnosis = run(app)
    (finding,) = of(diagnosis, "stop-signal")
    assert [row["id"] for row in finding.evidence["jobs"]] == ["retried"]
    assert "events no longer reach back to 1 restart" in result(diagnosis, "stop-signal").why


def test_where_others_serve_the_queue_too_nobody_is_accused(
    client: Client, redis_url: str, run: Run
) -> None:
    app = replace(APP, started_at_ms=int(time.time() * 1000) - HOUR_MS)
    stalled(client, "before", HOUR_MS + 100_000)
    stalled(client, "hit", HOUR_MS - 60_000)
    (finding,) = of(run(app, replace(app, target="qctl:app", name="w")), "stop-signal")
    assert finding.severity == "info"
    assert finding.what.startswith("1 job stalled soon after its last start; other apps ")
    assert finding.evidence["shared_queues"] == ["q"]
    assert of(run(app), "stop-signal")[0].severity == "warning"
    # A worker of its own process, and then one of another.
    with contextlib.closing(connect(redis_url)[1]) as stranger:
        stranger.call("CLIENT", "SETNAME", f"bull:{base64.b64encode(b'q').decode()}")
        assert of(run(app), "stop-signal")[0].severity == "warning"
        with subprocess.Popen(["sleep", "60"]) as other:
            elsewhere = replace(app, pid=other.pid)
            severities = [each.severity for each in of(run(elsewhere), "stop-signal")]
            other.kill()
        assert severities == ["info"]


def test_forgotten_events_are_said(client: Client, run: Run) -> None:
    client.call("XADD", Q("events"), "*", "event", "completed", "jobId", "1")
    why = result(run(APP), "stop-signal").why
    assert why.startswith("the queues' events no longer reach back to 1 restart: of the jobs ")


def test_treekill(run: Run) -> None:
    assert of(run(APP), "treekill") == []
    (finding,) = of(run(replace(APP, tree_kill=False)), "treekill")
    assert "if its processors are sandboxed" in finding.what


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"namespace": "app", "name": "web", "target": "pm2:web"}, "it is also a namespace"),
        ({"script": "/srv/other.js"}, "2 different apps have this name"),
        ({}, None),
        ({"name": "web", "target": "pm2:web"}, None),
    ],
)
def test_names_that_mean_several_apps(run: Run, other: dict[str, str], reason: str | None) -> None:
    findings = of(run(APP, replace(APP, key="1", **other)), "process-names")  # type: ignore[arg-type]
    assert [finding.what.rpartition(": ")[2] for finding in findings] == ([reason] * bool(reason))


def test_a_name_that_is_another_apps_id(run: Run) -> None:
    odd = replace(APP, key="3", name="0", target="pm2:0", namespace="x")
    (finding,) = of(run(APP, odd), "process-names")
    assert finding.what.endswith("restarts more than one app, also pm2:app: it is also a pm_id")


def test_a_manager_that_does_not_answer_is_a_finding(run: Run) -> None:
    diagnosis = run(remarks=["no PM2 processes shown: PM2 does not answer"])
    for check in ("kill-timeout", "stop-signal", "treekill", "process-names"):
        assert result(diagnosis, check).status == "failed"
    assert diagnosis.examined.processes is None


def test_without_processes_there_is_nothing_to_check(run: Run) -> None:
    diagnosis = run()
    assert result(diagnosis, "kill-timeout").status == "skipped"
    assert diagnosis.examined.processes == 0


def install(folder: Path, text: str) -> None:
    package = folder / "node_modules/bullmq/package.json"
    package.parent.mkdir(parents=True)
    package.write_text(text)


def test_the_bullmq_that_a_process_has_installed(client: Client, run: Run, tmp_path: Path) -> None:
    install(tmp_path, '{"version": "5.81.5"}')
    old = replace(APP, script=str(tmp_path / "dist/src/app.js"))
    npm = replace(APP, script="/usr/bin/npm", cwd=str(tmp_path / "deep"))
    for process in (old, npm):
        (finding,) = of(run(process), "mixed-versions")
        assert finding.evidence == {
            "bullmq_5": ["pm2:app has 5.81.5"],
            "bullmq_6": ["its last Queue object was created with 6.7.0"],
        }
    client.call("HSET", Q("meta"), "version", "bullmq:5.80.0")
    assert of(run(old), "mixed-versions") == []
    install(tmp_path / "dist", '{"version": "6.7.0"}')
    assert len(of(run(old), "mixed-versions")) == 1


@pytest.mark.parametrize("text", ["", "[]", '{"version": 6}', "[" * 100_000, "\x00"])
def test_packages_that_cannot_be_read_are_none(run: Run, tmp_path: Path, text: str) -> None:
    install(tmp_path, text)
    assert of(run(replace(APP, cwd=str(tmp_path))), "mixed-versions") == []


STOPPED = replace(APP, status="stopped", pid=None, started_at_ms=None)


def test_a_stopped_app_that_serves_a_queue_with_a_backlog(client: Client, run: Run) -> None:
    assert of(run(APP), "stopped-apps") == []
    (finding,) = of(run(STOPPED), "stopped-apps")
    assert (finding.severity, finding.subject.name) == ("warning", "pm2:app")
    assert "1 job waits in q without a worker" in finding.what
    assert "[targets]" in finding.what
    assert finding.commands == ("pm2 start 0",)
    put(client, "0", "wait")
    (finding,) = of(run(STOPPED, replace(STOPPED, key="1")), "stopped-apps")
    assert finding.commands == ("pm2 start 0", "pm2 start 1")
    # Another instance runs.
    assert of(run(STOPPED, replace(APP, key="1")), "stopped-apps") == []
    # Nothing waits.
    client.call("DEL", Q("wait"))
    assert of(run(STOPPED), "stopped-apps") == []
    assert result(run(), "stopped-apps").status == "skipped"


def test_a_stopped_app_of_which_nobody_says_what_it_serves(run: Run) -> None:
    other = replace(STOPPED, key="7", name="web", target="pm2:web")
    (finding,) = of(run(other), "stopped-apps")
    assert finding.severity == "info"
    assert finding.what.endswith("unknown whether it served q")
    assert finding.evidence["serves_them"] is None
    assert "[targets]" in finding.remedy


def test_an_app_that_pm2_gave_up_is_found_in_any_case(client: Client, run: Run) -> None:
    client.call("DEL", Q("wait"))
    (finding,) = of(run(replace(STOPPED, status="errored")), "stopped-apps")
    assert (finding.severity, finding.what) == ("warning", "PM2 has given it up (errored)")
    assert finding.commands == ("pm2 logs 0", "pm2 restart 0")
    (finding,) = of(run(replace(STOPPED, status="errored"), replace(APP, key="1")), "stopped-apps")
    assert finding.what == "1 of its 2 processes does not run: PM2 has given it up (errored)"
    (finding,) = of(run(STOPPED, replace(STOPPED, key="1", status="errored")), "stopped-apps")
    assert finding.commands == ("pm2 logs 1", "pm2 restart 1")


def test_an_app_that_may_crash_again_and_again(run: Run) -> None:
    now_ms = round(time.time() * 1000)
    looping = replace(APP, restarts=31, came_back=True, last_start_ms=now_ms - 4000)
    others = [
        replace(looping, key="1", came_back=False),
        replace(looping, key="2", restarts=9),
        replace(looping, key="3", restarts=None),
        replace(looping, key="4", last_start_ms=now_ms - 61_000),
        replace(looping, key="5", last_start_ms=None),
        replace(looping, key="6", status="stopped", pid=None, started_at_ms=None),
    ]
    assert of(run(*others), "crash-loops") == []
    (finding,) = of(run(*others, looping), "crash-loops")
    assert (finding.severity, finding.subject.name) == ("warning", "pm2:app")
    assert "31 times: it may crash again" in finding.what
    assert finding.evidence["processes"] == ["0"]
    assert finding.commands == ("pm2 logs 0",)
    between = replace(looping, status="waiting restart", pid=None, started_at_ms=None)
    assert len(of(run(between), "crash-loops")) == 1
    assert result(run(), "crash-loops").status == "skipped"


def test_where_workers_cannot_be_listed_nobody_says_that_there_is_none(
    client: Client, redis_url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(STOPPED)
    with limited_user(client, redis_url, "~*", "+@all", "-client|list") as (_, lowly):
        diagnosis = doctor.examine(lowly, parse_url(redis_url), SERVING)
    assert result(diagnosis, "stopped-apps").status == "failed"
