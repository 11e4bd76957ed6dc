"""The program in the binary that ``scripts/build-binary`` builds: qctl, or a module of qctl.

qctl starts its helpers, such as the watchdog of a drain, as ``sys.executable [-P] -m MODULE``.
In the binary, ``sys.executable`` is the binary itself, so it understands these words, too.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys


def module_of(arguments: list[str]) -> str:
    """The module of qctl that the arguments name as Python's do; "" for a command of qctl."""
    words = arguments[1:] if arguments[:1] == ["-P"] else arguments
    if words[:1] == ["-m"] and words[1:] and words[1].split(".")[0] == "qctl":
        return words[1]
    return ""


def restore_library_path(environ: dict[str, str] | os._Environ[str]) -> None:
    """Undo what PyInstaller's loader sets, or Redis, Node and PM2 would load our libraries."""
    original = environ.pop("LD_LIBRARY_PATH_ORIG", None)
    environ.pop("LD_LIBRARY_PATH", None)
    if original is not None:
        environ["LD_LIBRARY_PATH"] = original


def main() -> None:
    """Run what the arguments name."""
    restore_library_path(os.environ)
    # Ends here in the processes that multiprocessing starts, for isolated handlers.
    multiprocessing.freeze_support()
    arguments = sys.argv[1:]
    module = module_of(arguments)
    if not module:
        from qctl.cli.main import main as run_qctl  # noqa: PLC0415 - slow; not for helpers

        run_qctl()
        return
    isolated = arguments[0] == "-P"
    sys.argv = sys.argv[:1] + arguments[3 if isolated else 2 :]
    if not isolated:
        # As Python: the modules of an app are found in the working folder.
        sys.path.insert(0, str(os.getcwd()))  # noqa: PTH109
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
