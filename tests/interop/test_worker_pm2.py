"""qctl's own workers under a real PM2: it waits until they are ready, and they finish jobs."""

from __future__ import annotations

import sys

from tests.labs import masters as labs
from tests.labs.masters import MasterLab
from tests.labs.pm2 import Pm2

master_lab = labs.master_lab


def test_a_plain_pm2_restart_interrupts_nothing(master_lab: MasterLab, pm2: Pm2) -> None:
    (first,) = pm2.start(
        "emails",
        sys.executable,
        {"QCTL_REDIS_URL": master_lab.redis_url},
        args=["-m", "qctl", "worker", "run", "app:worker", "--processes", "2"],
        cwd=str(master_lab.folder),
        interpreter="none",
        wait_ready=True,
        # Longer than any wait for it may take; without "ready" this would be waited for in full.
        listen_timeout=120_000,
        kill_timeout=35_000,
    )
    assert "ready pids=" in pm2.log("emails")
    ids = master_lab.add(4, s=1)
    master_lab.wait_started(*ids)
    # SIGINT to the whole tree of processes, then another that counts as one.
    pm2.run("restart", "emails")
    (second,) = pm2.rows("emails")
    assert (second.pid != first.pid, second.status) == (True, "online")
    assert sorted(master_lab.ids("completed")) == sorted(ids)
    assert set(master_lab.counts().values()) == {1}
    assert pm2.log("emails").count("ready pids=") == 2
    assert "giving jobs back" not in pm2.log("emails")
