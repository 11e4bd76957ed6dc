"""Start a master in the background: ``python -m qctl.runtime.processes.background NAME``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from qctl.config.settings import state_home
from qctl.errors import ExitStatus, FailedError, QctlError, TimedOutError, UnreachableError
from qctl.manage.last_words import error_first, read_tail
from qctl.manage.sockets import started_at
from qctl.manage.state import Folder, MasterState
from qctl.runtime import logs
from qctl.runtime.processes import control
from qctl.runtime.processes.master import Master, MasterOptions

_VARIABLE = "QCTL_WORKER_MASTER"
MOST_LOG_BYTES = 10_000_000
_LOOK_AT_LOG_S = 2.0
_POLL_S = 0.03


def run_in_background(
    folder: Folder,
    options: MasterOptions,
    environ: Mapping[str, str],
    lock: int,
    timeout_s: float,
) -> tuple[int, list[int]]:
    """Start a master that outlives us, and wait until its processes take jobs.

    Args:
        folder: made already.
        environ: the whole environment of the master; the URL and prefix of Redis are in it.
        lock: the folder's, which the master then holds.
        timeout_s: how long to wait; then it is stopped again.

    Returns:
        its pid, and those of its processes.

    Raises:
        FailedError: it did not start; its last words are told.
        UnreachableError: the same, because of Redis.
        TimedOutError: it did not get ready.
    """
    before = folder.log.stat().st_size if folder.log.exists() else 0
    known = folder.raw_state()
    master = _launch(folder, options, environ, lock)
    deadline = time.monotonic() + timeout_s
    pids: list[int] | None = None
    try:
        while (pids := _pids_if_ready(folder, master.pid)) is None and master.poll() is None:
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
    finally:
        timed_out = not pids and master.poll() is None
        if timed_out:
            # What was not there before is not left behind half started.
            master.terminate()
            master.wait()
    if pids:
        return master.pid, pids
    # What did not start is not listed, and not known instead of what ran before.
    folder.restore(known)
    words = "\n".join(f"    {row}" for row in error_first(read_tail(folder.log, before)))
    if timed_out:
        raise TimedOutError(
            f"qctl:{folder.name} was not ready within {timeout_s:g} s",
            why=f"it was stopped again; its last words:\n{words}",
            hint=f"qctl worker logs {folder.name}",
        )
    if master.returncode == ExitStatus.UNREACHABLE:
        raise UnreachableError(
            f"qctl:{folder.name} did not start: it cannot work with Redis",
            why=f"its last words:\n{words}",
            hint="check that Redis runs, and the URL in --redis or QCTL_REDIS_URL",
        )
    raise FailedError(
        f"qctl:{folder.name} did not start",
        why=f"its last words:\n{words}",
        hint="fix the app; `qctl worker run` tries it in front",
    )


def _pids_if_ready(folder: Folder, pid: int) -> list[int] | None:
    try:
        answer = folder.ask({"do": "state"})
    except QctlError:
        return None
    is_it = answer["pid"] == pid and answer["ready"]
    return [row["pid"] for row in answer["slots"]] if is_it else None


def _launch(
    folder: Folder, options: MasterOptions, environ: Mapping[str, str], lock: int
) -> subprocess.Popen[bytes]:
    descriptor = os.open(folder.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    with contextlib.closing(os.fdopen(descriptor, "ab")) as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "qctl.runtime.processes.background", folder.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environ, _VARIABLE: json.dumps(asdict(options)), "PYTHONUNBUFFERED": "1"},
            pass_fds=(lock,),
            start_new_session=True,
        )


def main() -> None:
    """Be the master that the environment describes."""
    row = json.loads(os.environ.pop(_VARIABLE))
    health = tuple(row["health"]) if row["health"] else None
    options = MasterOptions(**{**row, "apps": tuple(row["apps"]), "health": health})
    logs.configure(options.log_format)
    folder = Folder(state_home(os.environ), options.name)
    try:
        asyncio.run(_run(folder, options))
    except QctlError as error:
        print(f"error: {error.what}", *filter(None, (error.why,)), sep="\n", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_status)
    finally:
        folder.socket.unlink(missing_ok=True)


async def _run(folder: Folder, options: MasterOptions) -> None:
    master = Master(options, os.environ)
    folder.write(
        MasterState(
            name=options.name,
            pid=os.getpid(),
            birth_s=started_at(os.getpid()) or 0.0,
            started_at_s=time.time(),
            apps=options.apps,
            cwd=str(Path.cwd()),
            processes=options.processes,
            grace_s=options.grace_s,
        )
    )
    server = await control.serve(master, folder.socket)
    trimming = asyncio.create_task(_trim(folder.log))
    try:
        await master.run()
    finally:
        trimming.cancel()
        server.close()


async def _trim(log: Path) -> None:
    """Keep the log below a size, and one older log.

    It is copied and cut, not renamed: many processes have it open, all of them to append.
    """
    while True:
        await asyncio.sleep(_LOOK_AT_LOG_S)
        with contextlib.suppress(OSError):
            if log.stat().st_size > MOST_LOG_BYTES:
                older = log.with_name("log.1")
                older.touch(mode=0o600)
                shutil.copyfile(log, older)
                os.truncate(log, 0)


if __name__ == "__main__":
    main()
