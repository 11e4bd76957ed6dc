"""Imports apps, and finds their workers by ``module:attribute``."""

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
    """Import the apps, with the working folder in the module path; return each worker once.

    Args:
        specs: ``module:attribute`` each; the attribute is a ``Worker`` or a list of workers.

    Raises:
        UsageError: a spec is malformed, or does not name a worker.
        Exception: an error of the app during its import.
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
        # Hide the traceback if the app is missing, but not if the app imports a missing module.
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"there is no module {error.name!r} for {spec}",
                why=f"looked in: {Path.cwd()} and the installed packages",
                hint="run the command in the folder that has the module, or set PYTHONPATH",
            ) from None
        raise
    for name in attributes.split("."):
        if not hasattr(found, name):
            names = [key for key, value in vars(found).items() if isinstance(value, Worker)]
            raise UsageError(
                f"{spec} does not exist",
                why=f"{module_name} has these workers: {', '.join(names) or 'none'}",
                hint="name the variable that has the worker",
            )
        found = getattr(found, name)
    workers = list(found) if isinstance(found, list | tuple) else [found]
    if not workers or not all(isinstance(worker, Worker) for worker in workers):
        raise UsageError(
            f"{spec} is neither a worker nor a list of workers",
            why=f"its type is {type(found).__name__}",
            hint="name the variable that has the result of `qctl.Worker(…)`",
        )
    return workers
