"""The service files of docs/worker.md, parsed; nothing is started."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from qctl.runtime.api.worker import GRACE_S

PAGE = (Path(__file__).parents[3] / "docs/worker.md").read_text()
# What a stop may take after the grace.
REST_S = 8


def file_of(place: str) -> str:
    """The file of the page whose first line names the place."""
    (found,) = re.findall(rf"```ini\n[#;] ({re.escape(place)}.*?)```", PAGE, re.DOTALL)
    return found.split("\n", 1)[1]


def values(text: str, section: str) -> dict[str, str]:
    parser = RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return dict(parser[section])


def test_the_unit_of_systemd(tmp_path: Path) -> None:
    text = file_of("/etc/systemd/system/emails.service")
    service = values(text, "Service")
    assert (service["Type"], service["KillMode"]) == ("notify", "mixed")
    assert int(service["TimeoutStopSec"]) >= GRACE_S + REST_S
    if shutil.which("systemd-analyze"):
        unit = tmp_path / "emails.service"
        unit.write_text(text.replace("/srv/app/venv/bin/qctl", sys.executable))
        done = subprocess.run(
            ("systemd-analyze", "verify", "--man=no", str(unit)),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "Unknown" not in done.stderr
        assert done.returncode == 0, done.stderr


def test_the_program_of_supervisord(tmp_path: Path) -> None:
    text = file_of("/etc/supervisor/conf.d/emails.conf")
    program = values(text, "program:emails")
    assert int(program["stopwaitsecs"]) >= GRACE_S + REST_S
    options = pytest.importorskip("supervisor.options").ServerOptions()
    config = tmp_path / "supervisord.conf"
    config.write_text(
        "[supervisord]\n" + text.replace("/srv/app", str(tmp_path)).replace("user=shop\n", "")
    )
    options.configfile = str(config)
    options.realize(args=[])
    (group,) = options.process_group_configs
    (process,) = group.process_configs
    assert (process.name, process.stopwaitsecs, process.startsecs) == ("emails", 40, 3)
    assert (process.stopasgroup, process.killasgroup) == (False, False)
    assert process.environment == {"QCTL_REDIS_URL": "redis://10.0.0.5:6379/0"}


def test_every_limit_for_the_default_grace_is_long_enough() -> None:
    (table,) = re.findall(r"\n\| platform \|.*?\n\n", PAGE, re.DOTALL)
    rows = [line.split("|")[1:-1] for line in table.strip().splitlines()[2:]]
    assert len(rows) == 6
    for platform, _, default, limit, grace in rows:
        found = re.search(r"`(\d+)s?`", limit)
        assert found, platform
        limit_s = int(found[1]) / (1000 if platform.strip() == "PM2" else 1)
        assert limit_s >= GRACE_S + REST_S, platform
        if fits := re.search(r"`(\d+)s`", grace):
            assert int(fits[1]) + REST_S <= int(default.strip().removesuffix(" s")), platform
