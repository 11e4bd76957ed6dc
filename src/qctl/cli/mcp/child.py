"""One command of qctl in a process of its own, which ends when standard input closes.

The server holds the other end of the pipe. The pipe closes when the client cancels the call, when
the client goes away, and when the server is killed, even with SIGKILL. The command then gets
SIGTERM, as if the operator had stopped it: a drain puts everything back.
"""

from __future__ import annotations

import os
import signal
import threading


def main() -> None:
    """Run the command whose words are the arguments of this process."""
    pipe = os.dup(0)
    # The programs that the command starts must not read from the pipe.
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    threading.Thread(target=_end_after, args=(pipe,), daemon=True).start()

    from qctl.cli.main import main as run  # noqa: PLC0415 - the pipe may close during the import

    run()


def _end_after(pipe: int) -> None:
    while os.read(pipe, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
