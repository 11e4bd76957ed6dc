"""Log lines of qctl and of the app: a message and its fields, as text or as JSON.

qctl's lines go through Python's ``logging`` (loggers ``qctl.worker`` and ``qctl.master``).
``qctl worker run`` calls ``configure`` before the app's import, and ``share_with_app`` after it.
``Worker.run`` calls both, unless the app has set up logging. An app's own set-up stays as it is.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from qctl.runtime.job.current import current_job

FORMATS = ("text", "json")
# A log record of qctl's own has these attributes: its fields, and its message without the fields.
_FIELDS = "qctl_fields"
_MESSAGE = "qctl_message"
# The attributes that every record has. Any other one is the app's ``extra``.
_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


@dataclass(frozen=True, slots=True)
class LogSetup:
    """The form of the lines, one of ``FORMATS``, and their lowest level, such as ``info``."""

    style: str = "text"
    level: str = "info"


_setup: LogSetup | None = None


class Log:
    """The logger ``qctl.<area>``, with the same fields added to every line."""

    def __init__(self, area: str, **fields: Any) -> None:
        self._logger = logging.getLogger(f"qctl.{area}")
        self._fields = fields

    @property
    def has_debug(self) -> bool:
        """Whether lines of the level debug are written."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def debug(self, message: str, **fields: Any) -> None:
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self._write(logging.ERROR, message, fields)

    def with_traceback(
        self, level: int, message: str, error: BaseException | None, /, **fields: Any
    ) -> None:
        """Log a message at a level, with the traceback of ``error`` unless ``error`` is None."""
        self._write(level, message, fields, error)

    def _write(
        self, level: int, message: str, fields: dict[str, Any], error: BaseException | None = None
    ) -> None:
        if self._logger.isEnabledFor(level):
            all_fields = {**self._fields, **fields}
            extra = {_FIELDS: all_fields, _MESSAGE: message}
            text = _with_fields(message, all_fields)
            self._logger.log(level, "%s", text, exc_info=error, extra=extra, stacklevel=3)


class JobFields(logging.Filter):
    """Adds the current job to log records, for an app with a logging set-up of its own.

    Add it to a handler. Formats can then use ``%(job_id)s``, ``%(job_name)s``, ``%(job_queue)s``
    and ``%(job_attempt)s``, which are "" outside of a job.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes to the record; let every record through."""
        job = current_job()
        record.job_id = job.id if job else ""
        record.job_name = job.name if job else ""
        record.job_queue = job.queue if job else ""
        record.job_attempt = job.attempts_made + 1 if job else ""
        return True


class TextFormatter(logging.Formatter):
    """``12:00:01 WARNING stalled jobs brought back queue=emails jobs=1,2``

    A line of the app has its logger's name: ``12:00:02 INFO shop.mail: sent queue=emails job=7 …``
    """

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        text = record.getMessage()
        if not _is_own(record):
            text = _with_fields(f"{record.name}: {text}", _job_fields())
        line = f"{clock} {record.levelname} {one_line(text)}"
        # Indented, so that a line of an error's text cannot pass for a log line.
        return "\n    ".join([line, *map(one_line, _traceback(self, record).splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``at``, ``level``, ``logger``, ``message`` and the fields.

    A line of the app has the fields of its job (``queue``, ``job``, ``name``, ``attempt``), and
    those of its ``extra``.
    """

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        row = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": getattr(record, _MESSAGE, None) or record.getMessage(),
        }
        if _is_own(record):
            row |= getattr(record, _FIELDS)
        else:
            row |= _job_fields()
            row |= {k: v for k, v in vars(record).items() if k not in _USUAL and k not in row}
        if trace := _traceback(self, record):
            row["traceback"] = trace
        return json.dumps(row, default=str)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes qctl's lines, and the lines of the app's loggers that have no handler of their own."""

    def __init__(self, style: str, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
        self.addFilter(_has_no_handler)


def configure(style: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Send qctl's own lines to ``stream`` (None: stderr), until ``share_with_app``."""
    global _setup  # noqa: PLW0603 - logging is one per process
    _setup = LogSetup(style, level)
    logger = logging.getLogger("qctl")
    logger.handlers[:] = [_Handler(style, stream or sys.stderr)]
    logger.setLevel(level.upper())
    logger.propagate = False


def share_with_app() -> None:
    """Let the app and qctl write through the same handlers. Call this after the app's import.

    If the app has given the root logger a handler, qctl's lines go to the app's handlers.
    Otherwise the app's lines go to qctl's handler, if they have at least the level that was given
    to ``configure``.
    """
    own, root = logging.getLogger("qctl"), logging.getLogger()
    ours = next((each for each in own.handlers if isinstance(each, _Handler)), None)
    if ours is None:
        # ``configure`` was not called, or the app has given this logger a handler.
        return
    own.removeHandler(ours)
    own.propagate = True
    if not _has_handler(root):
        root.addHandler(ours)
        if root.level == logging.WARNING:  # the default
            root.setLevel(own.level)


def current_setup() -> LogSetup | None:
    """The set-up that ``configure`` was called with, or None. Child processes get the same one."""
    return _setup


def one_line(text: str) -> str:
    """Escape the control characters of untrusted text, so that the text stays one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _is_own(record: logging.LogRecord) -> bool:
    return hasattr(record, _FIELDS)


def _job_fields() -> dict[str, Any]:
    """The fields of the current job, named as in qctl's own lines; empty outside of a job."""
    job = current_job()
    if job is None:
        return {}
    return {"queue": job.queue, "job": job.id, "name": job.name, "attempt": job.attempts_made + 1}


def _has_handler(logger: logging.Logger) -> bool:
    # Libraries give their loggers a NullHandler, which writes nothing.
    return any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers)


def _has_no_handler(record: logging.LogRecord) -> bool:
    """Whether the record's logger and its parents below the root have no handler of the app."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        if any(not isinstance(each, logging.NullHandler | _Handler) for each in logger.handlers):
            return False
        logger = logger.parent
    return True


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""


def _with_fields(message: str, fields: dict[str, Any]) -> str:
    """The message and ``key=value`` for each field."""
    return " ".join([one_line(message), *(f"{k}={_quoted(v)}" for k, v in fields.items())])


def _quoted(value: Any) -> str:
    text = one_line(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text
