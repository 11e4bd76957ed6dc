"""The console script ``qctl``."""

from __future__ import annotations

import gc
import os
import signal
import sys


def main() -> None:
    """Run the typed command, or print completions for a shell."""
    # Objects that imports create are not garbage. With the default threshold of 700, the garbage
    # collector would search them during the start, which takes 5 ms.
    gc.set_threshold(20_000)
    # SIGTERM and SIGHUP act like Ctrl-C, unless a command handles signals itself. A signal that was
    # ignored at the start stays ignored, as `nohup` needs.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        if instruction := os.environ.get("_QCTL_COMPLETE"):
            from qctl.cli.completion import complete  # noqa: PLC0415 - only for completion

            complete(instruction)
        from qctl.cli.program import run  # noqa: PLC0415 - a signal may arrive during the import
        from qctl.cli.streams import Streams  # noqa: PLC0415

        code = run(sys.argv[1:], Streams.standard())
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        code = 130  # ExitStatus.INTERRUPTED, which may not be imported yet
    sys.exit(code)
