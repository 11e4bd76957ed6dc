"""What a round plays on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scene:
    """What a round plays on.

    Args:
        manager: of the Node workers, a key of ``managers.MANAGERS``.
        redis: a key of ``stage.REDIS``.
        version: of BullMQ, 5 or 6.
        instances: of the Node app.
    """

    manager: str
    redis: str
    version: int
    instances: int

    def __str__(self) -> str:
        return f"{self.manager} x{self.instances}, BullMQ {self.version}, Redis {self.redis}"
