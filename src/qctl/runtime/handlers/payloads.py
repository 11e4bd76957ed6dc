"""Handlers that state what their data is: the worker checks the data before it calls them.

    async def welcome(job: Job[Welcome]) -> None: ...          # job.data is a Welcome
    async def welcome(job: Job, data: Welcome) -> None: ...
    async def welcome(data: Welcome) -> None: ...

``job_handler`` reads a handler's parameters once, when it is registered. A handler that states
nothing is used as it is.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, get_args, get_origin

from qctl.errors import UsageError
from qctl.runtime.handlers.converters import Converter, Converters, NoFitError, is_record
from qctl.runtime.handlers.tasks import Handler
from qctl.runtime.job.job import Job, SyncJob
from qctl.runtime.job.outcomes import InvalidDataError

_EXAMPLE = "async def welcome(job: Job[Welcome]), or async def welcome(job: Job, data: Welcome)"
_UNKNOWN = inspect.Parameter.empty
_REST = inspect.Parameter.VAR_POSITIONAL
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def job_handler(handler: Handler, names: Mapping[str, Any] | None = None) -> Handler:
    """Wrap a handler in a function that takes the job, converts its data, and calls the handler.

    Args:
        names: names that the handler's annotations may use, besides those of its module.

    Returns:
        the handler itself if it takes only the job, and states no type of the data.

    Raises:
        UsageError: the parameters are not those of a handler, an annotation cannot be read, or qctl
            cannot convert data to the annotated type.
    """
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return handler  # a built-in function without a signature
    title = getattr(handler, "__name__", repr(handler))
    required = _required(signature, title)
    annotations = [_annotation(each, handler, names or {}, title) for each in required]
    takes_job = not (len(annotations) == 1 and is_record(annotations[0]))
    stated = annotations[1:] if takes_job else annotations
    if takes_job and annotations:
        if is_record(annotations[0]):
            raise _wrong(title, f"{required[0].name} is the job; the data comes second")
        if get_origin(annotations[0]) in {Job, SyncJob}:
            stated = [*stated, get_args(annotations[0])[0]]
    types_of_data = [each for each in stated if each not in {_UNKNOWN, Any, object}]
    if len(types_of_data) == 2 and types_of_data[0] != types_of_data[1]:
        raise _wrong(title, "the types of the job's data and of the second parameter differ")
    convert = None
    if types_of_data:
        convert = partial(_convert, Converters(names or {}, title).make(types_of_data[0]))
    elif takes_job and len(required) < 2:
        return handler

    def call(job: Any) -> Any:
        if convert is not None:
            job.convert_data(convert)
        if not takes_job:
            return handler(job.data)
        return handler(job, job.data) if len(required) == 2 else handler(job)

    return call


def names_of_caller() -> Mapping[str, Any]:
    """The local names of the code that called qctl, because annotations may use them."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith("qctl."):
        frame = frame.f_back
    return frame.f_locals


def _convert(convert: Converter, data: Any) -> Any:
    try:
        return convert(data, "data")
    except NoFitError as error:
        raise InvalidDataError(f"invalid data: {'; '.join(error.args)}") from None


# A handler's parameters


def _required(signature: inspect.Signature, title: str) -> list[inspect.Parameter]:
    """The positional parameters without a default: the job, the data, both, or none."""
    parameters = signature.parameters.values()
    needed = [each for each in parameters if each.default is _UNKNOWN]
    required = [each for each in needed if each.kind in _POSITIONAL]
    wants_keywords = any(each.kind is inspect.Parameter.KEYWORD_ONLY for each in needed)
    takes_one = any(each.kind in {*_POSITIONAL, _REST} for each in parameters)
    if len(required) > 2 or wants_keywords or not takes_one:
        raise _wrong(title, f"its parameters are {signature}")
    return required


def _annotation(
    parameter: inspect.Parameter, handler: Handler, names: Mapping[str, Any], title: str
) -> Any:
    text = parameter.annotation
    if not isinstance(text, str):
        return text
    function: Any = inspect.unwrap(getattr(handler, "func", handler))
    try:
        # ``typing.get_type_hints`` would fail if the annotation of any parameter cannot be read.
        return eval(text, getattr(function, "__globals__", {}), dict(names))  # noqa: S307
    except Exception as error:
        if text in {"Job", "SyncJob", "qctl.Job", "qctl.SyncJob"}:
            return _UNKNOWN  # imported for type checkers only
        raise UsageError(
            f"the annotation {text} of the task {title} cannot be read",
            why=f"{type(error).__name__}: {error}",
            hint="import its names where the worker runs too, not under TYPE_CHECKING",
        ) from None


def _wrong(title: str, why: str) -> UsageError:
    return UsageError(f"{title} cannot be a task", why=why, hint=_EXAMPLE)
