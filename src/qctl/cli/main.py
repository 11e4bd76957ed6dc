"""The console script ``qctl``."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command on the command line, or answer a shell that completes one."""
    # The same as Ctrl-C, until a command handles signals itself. What was ignored from the start
    # stays ignored: that is what `nohup` is for.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        if instruction := os.environ.get("_QCTL_COMPLETE"):
            from qctl.cli.completion import complete  # noqa: PLC0415 - only for completion

            complete(instruction)
        from qctl.cli.program import run  # noqa: PLC0415 - a signal may come while this loads
        from qctl.cli.streams import Streams  # noqa: PLC0415

        code = run(sys.argv[1:], Streams.standard())
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        code = 130
    sys.exit(code)
