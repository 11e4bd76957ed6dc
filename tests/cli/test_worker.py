"""``qctl worker`` as an operator types it: start, list, restart, logs, stop."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import psutil
import pytest

from qctl.cli.options import parse_endpoint
from qctl.cli.worker import parse_size
from qctl.errors import UsageError
from qctl.runtime.processes.background import MAX_LOG_BYTES
from tests.labs import masters as labs
from tests.labs.masters import QCTL, MasterLab
from tests.labs.servers import free_port, wait_until

master_lab = labs.master_lab


def folder(lab: MasterLab, name: str) -> Path:
    return lab.state_home / "qctl" / "workers" / name


def test_a_life_in_the_background(master_lab: MasterLab) -> None:
    lab = master_lab
    # A file of the app that has the name of a module that qctl imports.
    (lab.folder / "queue.py").write_text("raise AssertionError\n")
    started = lab.qctl(
        "worker", "start", "w", "app:worker", "--processes", "2", "--log-level", "debug", "--json"
    )
    assert started.returncode == 0, started.stderr
    first = json.loads(started.stdout)
    assert len(first["pids"]) == 2
    assert stat.S_IMODE(folder(lab, "w").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder(lab, "w") / "log").stat().st_mode) == 0o600

    again = lab.qctl("worker", "start", "w", "app:worker")
    assert (again.returncode, "qctl:w runs already" in again.stderr) == (1, True)

    (long,) = lab.add(1, held=True)
    lab.wait_started(long)
    (listed,) = json.loads(lab.qctl("worker", "list", "--json").stdout)["workers"]
    assert (listed["name"], listed["status"], listed["pid"]) == ("w", "online", first["pid"])
    assert [row["pid"] for row in listed["processes"]] == first["pids"]
    assert [row["queues"] for row in listed["processes"]] == [["q"], ["q"]]

    # Who has the job is told exactly.
    workers = json.loads(lab.qctl("workers", "--json").stdout)["workers"]
    (busy,) = [row for row in workers if row["jobs"]]
    assert (busy["jobs"], busy["pid"]) == ([long], dict(lab.starts())[long])
    assert (busy["process"], busy["quiet"], busy["jobs_done"]) == ("qctl:w", False, 0)
    assert busy["rss_bytes"] > 1_000_000
    shown = json.loads(lab.qctl("jobs", "show", "q", long, "--json").stdout)
    assert shown["held_by"]["pid"] == busy["pid"]
    assert shown["held_by"]["process"] == "qctl:w"

    restarted = lab.qctl("worker", "restart", "w", "--json")
    assert restarted.returncode == 0, restarted.stderr
    rows = json.loads(restarted.stdout)["replaced"]
    assert [row["old_pid"] for row in rows] == first["pids"]
    new = [row["new_pid"] for row in rows]
    # The one with the job is still there, and shown as leaving.
    assert json.loads(lab.qctl("worker", "list", "--json").stdout)["workers"][0]["leaving"]
    wait_until(lambda: "(leaving)" in lab.qctl("workers").stdout, "the leaving one to be shown")
    lab.release()
    lab.wait_completed([long])
    assert lab.counts()[long] == 1
    assert f"qctl:w/1  online  {new[1]}" in lab.qctl("worker", "list").stdout

    log = lab.qctl("worker", "logs", "w").stdout
    assert "worker started" in log
    assert f"DEBUG job done queue=q job={long}" in log
    assert len(lab.qctl("worker", "logs", "w", "--lines", "2").stdout.splitlines()) == 2

    stopped = lab.qctl("worker", "stop", "w")
    assert stopped.stdout == f"stopped qctl:w (pid {first['pid']})\n"
    assert all(map(labs.is_gone, [first["pid"], *new]))
    assert lab.qctl("worker", "stop", "w").stdout == "qctl:w was not running\n"
    (listed,) = json.loads(lab.qctl("worker", "list", "--json").stdout)["workers"]
    assert (listed["status"], listed["pid"], listed["processes"]) == ("stopped", None, [])
    gone = lab.qctl("worker", "restart", "w")
    assert (gone.returncode, "qctl worker start w app:worker" in gone.stderr) == (3, True)


def test_code_that_does_not_start(master_lab: MasterLab) -> None:
    lab = master_lab
    lab.write("raise RuntimeError('no database today')\n")
    failed = lab.qctl("worker", "start", "w", "app:worker")
    assert failed.returncode == 1
    assert "qctl:w did not start" in failed.stderr
    assert "RuntimeError: no database today" in failed.stderr

    lab.write(labs.APP)
    assert lab.qctl("worker", "start", "w", "app:worker").returncode == 0
    lab.write("raise RuntimeError('no database today')\n")
    refused = lab.qctl("worker", "restart", "w")
    assert refused.returncode == 1
    assert "no database today" in refused.stderr
    assert "not yet replaced" in refused.stderr
    lab.wait_completed(lab.add(3))
    assert lab.qctl("worker", "stop", "w").returncode == 0


def test_without_redis_nothing_starts_and_the_exit_code_says_so(master_lab: MasterLab) -> None:
    lab = master_lab
    nowhere = {"QCTL_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    for words in (("run", "app:worker"), ("start", "w", "app:worker")):
        done = lab.qctl("worker", *words, **nowhere)
        assert done.returncode == 6, done.stderr
        assert "cannot be reached" in done.stderr
        assert "putting a process's jobs back" not in done.stderr
        assert "not yet put back" not in done.stderr
    assert "check that Redis runs" in done.stderr


def test_what_did_not_start_leaves_no_trace(master_lab: MasterLab) -> None:
    lab = master_lab
    failed = lab.qctl("worker", "start", "w", "nosuch:worker", "--processes", "2")
    # The first process says why no process can start; no other one is tried.
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: qctl:w did not start\nthere is no module 'nosuch'")
    assert "in a row" not in failed.stderr
    assert json.loads(lab.qctl("worker", "list", "--json").stdout) == {"workers": []}
    assert lab.qctl("worker", "start", "w", "app:worker", "--processes", "2").returncode == 0
    assert lab.qctl("worker", "stop", "w").returncode == 0
    assert lab.qctl("worker", "start", "w", "nosuch:worker").returncode == 2
    hint = lab.qctl("worker", "restart", "w").stderr
    assert "qctl worker start w app:worker --processes 2\n" in hint


def test_a_state_that_cannot_be_read_hides_no_other(master_lab: MasterLab) -> None:
    lab = master_lab
    assert lab.qctl("worker", "start", "w", "app:worker").returncode == 0
    broken = folder(lab, "zz")
    broken.mkdir()
    (broken / "state.json").touch()
    done = lab.qctl("worker", "list", "--json")
    rows = json.loads(done.stdout)["workers"]
    assert [(row["name"], row["status"]) for row in rows] == [("w", "online"), ("zz", "unknown")]
    assert "qctl:zz" in lab.qctl("worker", "list").stdout
    assert lab.qctl("worker", "stop", "w").returncode == 0


def test_one_that_is_stopping_says_so(master_lab: MasterLab) -> None:
    lab = master_lab
    assert lab.qctl("worker", "start", "w", "app:worker").returncode == 0
    (job_id,) = lab.add(1, s=60)
    lab.wait_started(job_id)
    assert lab.qctl("worker", "stop", "w", "--timeout", "50ms").returncode == 4
    again = lab.qctl("worker", "start", "w", "app:worker")
    assert "qctl:w is still stopping" in again.stderr
    assert "pm2" not in (restarted := lab.qctl("restart", "qctl:w")).stderr
    assert "qctl:w is stopping" in restarted.stderr
    assert "last words" not in (replaced := lab.qctl("worker", "restart", "w")).stderr
    assert "the master is stopping" in replaced.stderr
    assert lab.qctl("worker", "stop", "w", "--now").returncode == 0


def test_a_stop_that_takes_too_long_can_be_hurried(master_lab: MasterLab) -> None:
    lab = master_lab
    assert lab.qctl("worker", "start", "w", "app:worker", "--grace", "0").returncode == 0
    (job_id,) = lab.add(1, s=60)
    lab.wait_started(job_id)
    late = lab.qctl("worker", "stop", "w", "--timeout", "0.2s")
    assert late.returncode == 4
    assert "qctl worker stop w --now" in late.stderr
    assert "stopping" in lab.qctl("worker", "list").stdout
    assert lab.qctl("worker", "stop", "w", "--now").returncode == 0
    assert (lab.ids("wait"), lab.ids("active")) == ([job_id], [])


def test_logs_are_followed_and_cut(master_lab: MasterLab) -> None:
    lab = master_lab
    assert lab.qctl("worker", "start", "w", "app:worker").returncode == 0
    follower = subprocess.Popen(
        [*QCTL, "worker", "logs", "w", "--lines", "1", "--follow"],
        cwd=lab.folder,
        env=lab.environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    try:
        log = folder(lab, "w") / "log"
        assert "INFO" in follower.stdout.readline()
        with log.open("ab") as file:
            file.write(b"x\x1b[31m\n")
        assert follower.stdout.readline() == "x\\x1b[31m\n"
        # As large as it may become; the master looks every few seconds.
        with log.open("ab") as file:
            file.truncate(MAX_LOG_BYTES + 1)
        wait_until(lambda: log.stat().st_size < 1000, "the log to be cut")
        assert (folder(lab, "w") / "log.1").stat().st_size > MAX_LOG_BYTES
    finally:
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=20)
    assert lab.qctl("worker", "stop", "w").returncode == 0
    assert "master stopped" in log.read_text(errors="replace")


def test_a_master_that_was_killed_is_stopped_and_starts_anew(master_lab: MasterLab) -> None:
    lab = master_lab
    first = json.loads(lab.qctl("worker", "start", "w", "app:worker", "--json").stdout)
    os.kill(first["pid"], signal.SIGKILL)
    wait_until(lambda: labs.is_gone(first["pid"]), "the master to end")
    assert "stopped" in lab.qctl("worker", "list").stdout
    assert lab.qctl("worker", "start", "w", "app:worker").returncode == 0
    assert lab.qctl("worker", "stop", "w").returncode == 0


def test_the_password_stays_out_of_sight(master_lab: MasterLab) -> None:
    lab = master_lab
    url = lab.redis_url.replace("redis://", "redis://default:s3cret@")
    lab.client.call("CONFIG", "SET", "requirepass", "s3cret")
    try:
        started = lab.qctl("worker", "start", "w", "app:worker", "--json", QCTL_REDIS_URL=url)
        assert started.returncode == 0, started.stderr
        first = json.loads(started.stdout)
        for pid in [first["pid"], *first["pids"]]:
            assert "s3cret" not in " ".join(psutil.Process(pid).cmdline())
        assert lab.qctl("worker", "stop", "w").returncode == 0
    finally:
        lab.client.call("CONFIG", "SET", "requirepass", "")
    for path in folder(lab, "w").iterdir():
        assert b"s3cret" not in path.read_bytes()


@pytest.mark.parametrize("words", [("stop",), ("restart",), ("logs",)])
def test_unknown_names(master_lab: MasterLab, words: tuple[str, ...]) -> None:
    ran = master_lab.qctl("worker", *words, "nope")
    assert ran.returncode == 3
    assert "there is no worker qctl:nope" in ran.stderr


def test_what_cannot_be_started(master_lab: MasterLab) -> None:
    for words, why in (
        (("start", "../w", "app:worker"), "cannot be the name of a worker"),
        (("start", "w", "app:"), "does not name an app"),
        (("run", "app.py:worker"), "try: type app:worker\n"),
        (("start", "w", "app:worker", "--redis", "embedded:"), "embedded:PATH"),
        (("run", "app:worker", "--max-rss", "much"), "is not a size"),
        (("run", "app:worker", "--grace", "soon"), "--grace 'soon' is not a duration"),
        (("run", "app:worker", "--health-port", "http"), "is not [HOST:]PORT"),
    ):
        ran = master_lab.qctl("worker", *words)
        assert (ran.returncode, why in ran.stderr) == (2, True), ran.stderr


def test_sizes() -> None:
    assert [parse_size(text) for text in ("500MB", "1.5 GiB", "1024", "2k")] == [
        *(500_000_000, 1_610_612_736, 1024, 2000),
    ]
    for text in ("0", "-1", "MB", "5 TB", ""):
        with pytest.raises(UsageError):
            parse_size(text)


def test_endpoints() -> None:
    assert parse_endpoint("8080") == ("127.0.0.1", 8080)
    assert parse_endpoint("0.0.0.0:80") == ("0.0.0.0", 80)  # noqa: S104
    assert parse_endpoint("[::]:80") == ("::", 80)
    for text in ("", "host", "0", "70000", "h:"):
        with pytest.raises(UsageError):
            parse_endpoint(text)
