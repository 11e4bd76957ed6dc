"""Spans of OpenTelemetry in the memory of a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Row:
    """A span: its ids in hex, as they are in a ``traceparent``."""

    name: str
    kind: str
    trace: str
    span: str
    parent: str | None
    error: str | None
    attributes: Mapping[str, Any]


class Spans:
    """A ``Tracing`` whose spans stay in memory. Without OpenTelemetry's SDK, skips the test."""

    def __init__(self) -> None:
        pytest.importorskip("opentelemetry.sdk")
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import (  # noqa: PLC0415
            InMemorySpanExporter,
        )

        from qctl.otel import Tracing  # noqa: PLC0415

        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider)

    def rows(self, name: str) -> list[Row]:
        """The ended spans of a name, in the order in which they began.

        They may end in another order: a job that adds a job may go on beside that job.
        """
        found = []
        ended = self._exporter.get_finished_spans()
        for span in sorted(ended, key=lambda span: span.start_time or 0):
            context = span.get_span_context()
            if span.name == name and context is not None:
                found.append(
                    Row(
                        name=name,
                        kind=span.kind.name,
                        trace=f"{context.trace_id:032x}",
                        span=f"{context.span_id:016x}",
                        parent=f"{span.parent.span_id:016x}" if span.parent else None,
                        error=None if span.status.is_ok else span.status.description or "",
                        attributes=dict(span.attributes or {}),
                    )
                )
        return found
