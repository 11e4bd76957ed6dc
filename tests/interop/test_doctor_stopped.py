"""Doctor on apps of a real PM2 that are stopped, or given up, while jobs wait for them."""

from __future__ import annotations

from pathlib import Path

from tests.labs.drains import Lab, write_config
from tests.labs.servers import wait_until

TARGETS = '[targets.app]\nprocess = "pm2:app"\nqueues = ["q"]\n'


def findings(lab: Lab, check: str) -> list[dict[str, object]]:
    """What one check finds; the others are left out."""
    found = lab.qctl("doctor", "q", "--json").json["findings"]
    return [finding for finding in found if finding["check"] == check]


def test_a_stopped_app_that_serves_a_queue_with_a_backlog(lab: Lab, tmp_path: Path) -> None:
    write_config(tmp_path, TARGETS)
    lab.app(instances=2)
    added = lab.add(*[10] * 20)
    lab.wait_completed(added)
    assert findings(lab, "stopped-apps") == []
    lab.pm2.run("stop", "app")
    lab.wait_workers(count=0)
    added += lab.add(*[10] * 5)
    (finding,) = findings(lab, "stopped-apps")
    assert (finding["severity"], finding["subject"]) == (
        "warning",
        {"kind": "process", "name": "pm2:app"},
    )
    evidence = finding["evidence"]
    assert isinstance(evidence, dict)
    assert evidence == {
        "status": "stopped",
        "processes": 2,
        "down": 2,
        "queues": ["q"],
        "waiting": 5,
        "serves_them": True,
    }
    # What it says to type puts an end to it.
    keys = [str(row.pm_id) for row in lab.pm2.rows("app")]
    assert finding["commands"] == [f"pm2 start {key}" for key in keys]
    for key in keys:
        lab.pm2.run("start", key)
    lab.prove(added)
    assert findings(lab, "stopped-apps") == []


def test_an_app_that_pm2_gave_up(lab: Lab, tmp_path: Path) -> None:
    """Without [targets] nobody knows what it served."""
    crash = tmp_path / "crash"
    lab.app(CRASH_MS=1, CRASH_IF=crash, options={"max_restarts": 1, "min_uptime": 10_000})
    added = lab.add(10)
    lab.wait_completed(added)
    crash.touch()
    lab.pm2.run("restart", "app")
    wait_until(lambda: lab.pm2.rows("app")[0].status == "errored", "PM2 to give the app up")
    lab.wait_workers(count=0)
    added += lab.add(*[10] * 3)
    (finding,) = findings(lab, "stopped-apps")
    assert finding["severity"] == "warning"
    evidence = finding["evidence"]
    assert isinstance(evidence, dict)
    assert (evidence["status"], evidence["waiting"]) == ("errored", 3)
    assert evidence["serves_them"] is None
    crash.unlink()
    key = str(lab.pm2.rows("app")[0].pm_id)
    assert finding["commands"] == [f"pm2 logs {key}", f"pm2 restart {key}"]
    lab.pm2.run("restart", key)
    lab.prove(added)
