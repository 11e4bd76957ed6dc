"""Structured log lines: a message and its fields, as ``key=value`` or as JSON.

The lines go through Python's ``logging`` (loggers ``qctl.worker`` and ``qctl.master``), so an app's
``logging`` configuration applies. An app's formatter gets the fields in the message and in
``record.qctl_fields``. ``qctl worker run`` and apps without a configuration use ``configure``.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

FORMATS = ("text", "json")
_FIELDS = "qctl_fields"
_MESSAGE = "qctl_message"


class Log:
    """The logger ``qctl.<area>``, with the same fields added to every line."""

    def __init__(self, area: str, **fields: Any) -> None:
        self._logger = logging.getLogger(f"qctl.{area}")
        self._fields = fields

    def info(self, message: str, **fields: Any) -> None:
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        self._write(logging.ERROR, message, fields)

    def _write(self, level: int, message: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            all_fields = {**self._fields, **fields}
            words = [one_line(message), *(f"{k}={_quoted(v)}" for k, v in all_fields.items())]
            extra = {_FIELDS: all_fields, _MESSAGE: message}
            self._logger.log(level, "%s", " ".join(words), extra=extra)


class TextFormatter(logging.Formatter):
    """``12:00:01 WARNING stalled jobs brought back queue=emails jobs=1,2``"""

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        line = f"{clock} {record.levelname} {one_line(record.getMessage())}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``at``, ``level``, ``logger``, ``message`` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        row = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": getattr(record, _MESSAGE, record.getMessage()),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return json.dumps(row, default=str)


def configure(style: str = "text", level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send qctl's log lines of at least ``level`` to ``stream`` (None: stderr), as text or json."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logger = logging.getLogger("qctl")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def one_line(text: str) -> str:
    """Escape the control characters of untrusted text, so that the text stays one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _quoted(value: Any) -> str:
    text = one_line(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text
