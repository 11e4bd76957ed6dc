"""From ``module:attribute`` on the command line to the workers of an app."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from qctl.errors import UsageError
from qctl.runtime.api.worker import Worker
from qctl.runtime.processes.messages import check_app


def load_workers(specs: Sequence[str]) -> list[Worker]:
    """Import the apps; the working folder is looked in first. Each worker comes once.

    Raises:
        UsageError: an app is not named in the right form, or what it names is no worker.
        Exception: whatever the app raises.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    workers: dict[int, Worker] = {}
    for spec in specs:
        check_app(spec)
        for worker in _workers_of(spec):
            workers[id(worker)] = worker
    return list(workers.values())


def _workers_of(spec: str) -> Sequence[Worker]:
    module_name, _, attributes = spec.partition(":")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        # The app's own missing imports are for its author, with a traceback.
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"there is no module {error.name!r} to take {spec} from",
                why=f"looked in: {Path.cwd()} and the installed packages",
                hint="run it in the folder where the module is, or set PYTHONPATH",
            ) from None
        raise
    for name in attributes.split("."):
        if not hasattr(found, name):
            raise UsageError(
                f"{spec} does not exist",
                why=f"{module_name} has these workers: {_listed(found)}",
                hint="name the attribute that holds the worker",
            )
        found = getattr(found, name)
    workers = list(found) if isinstance(found, list | tuple) else [found]
    if not workers or not all(isinstance(worker, Worker) for worker in workers):
        raise UsageError(
            f"{spec} is no worker, and no list of workers",
            why=f"it is of the type {type(found).__name__}",
            hint="name what `qctl.Worker(…)` returned",
        )
    return workers


def _listed(module: Any) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Worker)]
    return ", ".join(names) if names else "none"
