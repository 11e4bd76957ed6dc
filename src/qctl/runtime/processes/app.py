"""Imports apps, and finds their workers by ``module`` or ``module:attribute``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from qctl.errors import UsageError
from qctl.runtime.api.worker import Worker
from qctl.runtime.places import place_in_app
from qctl.runtime.processes.messages import check_app


def load_workers(specs: Sequence[str]) -> list[Worker]:
    """Import the apps, with the working folder in the module path; return each worker once.

    In the module path, the working folder comes after the standard library, so that a file of the
    app does not replace a standard module of the same name. It comes before installed packages.
    Processes of isolated jobs get the same module path.

    Args:
        specs: each is ``module:attribute``, where the attribute is a ``Worker`` or a list of
            workers, or only ``module``, if the module has exactly one worker.

    Raises:
        UsageError: a spec is malformed, or does not name a worker; or the app made one of qctl's
            objects with a wrong argument.
        Exception: another error of the app during its import.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        library = str(Path(os.__file__).parent)
        places = [
            place
            for place, folder in enumerate(sys.path)
            if folder.startswith(library) and "site-packages" not in folder
        ]
        sys.path.insert(max(places, default=-1) + 1, here)
    workers: dict[int, Worker] = {}
    for spec in specs:
        check_app(spec)
        for worker in _workers_of(spec):
            workers[id(worker)] = worker
    return list(workers.values())


def _workers_of(spec: str) -> Sequence[Worker]:
    module_name, separator, attributes = spec.partition(":")
    module = _import(module_name, spec)
    if not separator:
        return [_only_worker(module)]
    found: Any = module
    for name in attributes.split("."):
        if not hasattr(found, name):
            raise UsageError(
                f"{spec} does not exist",
                why=f"{module_name} has these workers: {', '.join(_names(module)) or 'none'}",
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


def _import(name: str, spec: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        # Hide the traceback if the app is missing, but not if the app imports a missing module.
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise UsageError(
                f"there is no module {error.name!r} for {spec}",
                why=f"looked in: {Path.cwd()} and the installed packages",
                hint="run the command in the folder that has the module, or set PYTHONPATH",
            ) from None
        raise
    except UsageError as error:
        at = place_in_app(error)
        why = "\n".join(filter(None, (error.why, f"in {at}" if at else "")))
        raise UsageError(error.what, why=why, hint=error.hint) from error


def _only_worker(module: ModuleType) -> Worker:
    names = _names(module)
    if len(names) != 1:
        found = f"these workers: {', '.join(names)}" if names else "no variable with a Worker"
        raise UsageError(
            f"{module.__name__} does not say which worker to run",
            why=f"the module has {found}",
            hint=f"type {' '.join(f'{module.__name__}:{name}' for name in names)}"
            if names
            else f"add `worker = Worker(…)` to it, or name the variable: {module.__name__}:NAME",
        )
    worker: Worker = getattr(module, names[0])
    return worker


def _names(module: ModuleType) -> list[str]:
    """One name for each worker of the module: the first, if the worker has several names."""
    names: dict[int, str] = {}
    for name, value in vars(module).items():
        if isinstance(value, Worker):
            names.setdefault(id(value), name)
    return list(names.values())
