"""A master in the background: ``python -m qctl.runtime.processes.background NAME``.

The master's options are in its environment. Other commands find the master by its folder
(``manage/qctl/state.py``).
"""

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
from qctl.errors import QctlError
from qctl.manage.host import read_birth_s
from qctl.manage.qctl.state import MasterFolder, MasterState
from qctl.private import open_file
from qctl.runtime import logs
from qctl.runtime.processes import control
from qctl.runtime.processes.master import Master
from qctl.runtime.processes.messages import MasterOptions

_OPTIONS_VARIABLE = "QCTL_WORKER_MASTER"
MAX_LOG_BYTES = 10_000_000
_CHECK_LOG_EVERY_S = 2.0


def launch(
    folder: MasterFolder, options: MasterOptions, environ: Mapping[str, str], lock: int
) -> subprocess.Popen[bytes]:
    """Start a master that outlives this process.

    Args:
        environ: the whole environment of the master, with the URL and prefix of Redis.
        lock: descriptor of the folder's lock, which the master keeps until it ends.
    """
    descriptor = open_file(folder.log, os.O_APPEND | os.O_WRONLY)
    with contextlib.closing(os.fdopen(descriptor, "ab")) as log:
        return subprocess.Popen(
            # -P: the master imports no modules from the app's folder.
            [sys.executable, "-P", "-m", "qctl.runtime.processes.background", folder.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={
                **environ,
                _OPTIONS_VARIABLE: json.dumps(asdict(options)),
                "PYTHONUNBUFFERED": "1",
            },
            pass_fds=(lock,),
            start_new_session=True,
        )


def main() -> None:
    """Run a master with the options in the environment, until it stops."""
    options = MasterOptions(**json.loads(os.environ.pop(_OPTIONS_VARIABLE)))
    logs.configure(options.log_format, options.log_level)
    folder = MasterFolder(state_home(os.environ), options.name)
    try:
        asyncio.run(_run(folder, options))
    except QctlError as error:
        print(*error.lines, sep="\n", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_status)
    finally:
        folder.socket.unlink(missing_ok=True)


async def _run(folder: MasterFolder, options: MasterOptions) -> None:
    master = Master(options, os.environ)
    folder.write(
        MasterState(
            name=options.name,
            pid=os.getpid(),
            birth_s=read_birth_s(os.getpid()) or 0.0,
            started_at_s=time.time(),
            apps=tuple(options.apps),
            cwd=str(Path.cwd()),
            processes=options.processes,
            grace_s=options.grace_s,
        )
    )
    server = await control.serve(master, folder.socket)
    trimming = asyncio.create_task(_trim_log(folder.log))
    try:
        await master.run()
    finally:
        trimming.cancel()
        server.close()


async def _trim_log(log: Path) -> None:
    """When the log is above its limit, copy it over ``log.1`` and empty it.

    The log is not renamed, since many processes have it open to append.
    """
    while True:
        await asyncio.sleep(_CHECK_LOG_EVERY_S)
        with contextlib.suppress(OSError):
            if log.stat().st_size > MAX_LOG_BYTES:
                older = log.with_name("log.1")
                os.close(open_file(older, os.O_WRONLY))
                shutil.copyfile(log, older)
                os.truncate(log, 0)


if __name__ == "__main__":
    main()
