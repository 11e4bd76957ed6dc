"""``command:NAME`` where ``status`` names no process: only the config says what the app serves."""

from __future__ import annotations

from tests.labs.drains import Lab, is_alive
from tests.labs.managed_by_command import CommandApp, write_config
from tests.labs.servers import wait_until


def test_without_pids_the_queues_are_named_and_redis_proves_the_restart(lab: Lab) -> None:
    app = CommandApp(lab)
    app.start(QUEUES="q,other")
    config = (lab.folder / "qctl" / "config.toml").read_text()
    hidden = config.replace('"sh", "', '"sh", "-c", "sh $0 $1 >&2", "', 1)
    write_config(lab.folder, hidden)
    assert app.start_qctl("restart", app.target).finish().code == 2
    drain = ("drain", "q", "--then-restart", "--target", app.target, "--output", "ndjson")
    # Nothing but the connections shows that the app also serves another queue.
    refused = app.start_qctl(*drain).finish()
    assert refused.code == 5
    assert "other" in refused.report["error"]
    write_config(
        lab.folder, f'{hidden}[targets.app]\nprocess = "{app.target}"\nqueues = ["q", "other"]\n'
    )
    roll = app.start_qctl("restart", app.target, "--strategy", "roll", "--json").finish()
    assert roll.code == 5
    assert "all of its processes are replaced together" in roll.err
    status = app.start_qctl("status", "--json").finish().json
    (row,) = [row for row in status["processes"] if row["target"] == app.target]
    assert (row["status"], row["pid"], row["restarts"]) == ("online", None, None)
    (old,) = app.pids()
    done = app.start_qctl("restart", app.target, "--json").finish()
    assert done.code == 0, done.err
    assert sorted(done.report["queues"]) == ["other", "q"]
    assert [(each["before"], each["new"]) for each in done.report["workers"]] == [(1, 1), (1, 1)]
    assert not is_alive(old)


def test_the_restart_is_not_proved_until_status_says_that_it_runs(lab: Lab) -> None:
    app = CommandApp(lab)
    app.start()
    config = (lab.folder / "qctl" / "config.toml").read_text()
    flag, asked = lab.folder / "down", lab.folder / "asked"
    status = f'"sh", "-c", "echo >>{asked}; [ -e {flag} ] && exit 3; sh $0 $1", "'
    write_config(lab.folder, config.replace('"sh", "', status, 1))
    drain = app.start_qctl("restart", app.target, "--output", "ndjson")
    drain.await_step("command")
    (old,) = app.pids()
    flag.touch()
    wait_until(lambda: old not in app.pids(), "the restart")
    lab.wait_workers()
    before = asked.stat().st_size
    # The workers stay up for longer than the proof of their connections needs.
    wait_until(lambda: asked.stat().st_size > before + 3, "qctl to ask again and again")
    assert "command_done" not in drain.said
    flag.unlink()
    assert drain.finish().code == 0
