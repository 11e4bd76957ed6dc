"""Drains without a process manager, in this process, and the ledger of one."""

from __future__ import annotations

from qctl.config.settings import load_settings
from qctl.connection.address import Client, parse_url
from qctl.ops.drain.context import DrainOptions
from qctl.ops.drain.ledger import Ledger
from qctl.ops.drain.plan import make_plan
from qctl.ops.drain.run import drain
from qctl.ops.drain.steps import DrainReport
from qctl.wire import scripts


def results(of: Ledger) -> dict[str, str]:
    return {job.id: job.result for job in of.outcomes()}


def run_drain(client: Client, admin: Client, url: str, *, stop: bool = False) -> DrainReport:
    """A drain of ``Q`` over ``client``; with ``stop`` it is interrupted as soon as it waits."""
    settings = load_settings(environ={})
    address = parse_url(url)
    plan = make_plan(admin, address, settings, ["q"], target=None, then_restart=False)
    # So that every script is known, and is called by its name.
    for name in ("pause", "resume", "hold_lease", "disown"):
        admin.call("SCRIPT", "LOAD", scripts.source(name))
    waits = False
    report = None
    steps = drain(
        client, address, settings, plan, DrainOptions(timeout_s=5), lambda: stop and waits
    )
    for step in steps:
        waits = waits or step.step == "paused"
        report = step
    assert isinstance(report, DrainReport)
    return report
