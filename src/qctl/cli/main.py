"""The console script: small, because TAB in a shell runs it too and must not wait for Typer."""

from __future__ import annotations

import sys


def main() -> None:
    """``qctl``: everything it does with the words after its name."""
    if sys.argv[1:2] == ["__complete"]:
        from qctl.cli.complete import main as complete  # noqa: PLC0415

        complete(sys.argv[2:])
        return
    import signal  # noqa: PLC0415 - 5 ms that a TAB need not wait for

    # The same as Ctrl-C wherever nothing more careful is in force. What was ignored from the start
    # stays ignored: that is what `nohup` is for.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        from qctl.cli.program import run  # noqa: PLC0415
        from qctl.cli.streams import Streams  # noqa: PLC0415

        code = run(sys.argv[1:], Streams.standard())
    except KeyboardInterrupt:
        # While it was still being imported, which takes its time on a busy machine.
        sys.stderr.write("\ninterrupted\n")
        code = 130
    sys.exit(code)
