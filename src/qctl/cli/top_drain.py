"""The flags of a drain in ``qctl top``, and the keys that change them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from qctl.durations import parse_duration_s
from qctl.ops.drain.context import DrainOptions

_TIMEOUTS = ("10m", "1h", "1m")


@dataclass(frozen=True, slots=True)
class DrainChoice:
    """What the operator has chosen for a drain; the fields are those of ``qctl drain``.

    Args:
        target: the process to restart; None for none.
    """

    target: str | None
    timeout: str = _TIMEOUTS[0]
    on_timeout: str = "abort"
    strategy: str | None = None
    include_others: bool | None = None
    keep_paused: bool = False
    mixed_versions: bool = False

    @property
    def options(self) -> DrainOptions:
        return DrainOptions(
            timeout_s=parse_duration_s(self.timeout, "--timeout"),
            restart_on_timeout=self.on_timeout == "restart",
            keep_paused=self.keep_paused,
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that differ from the defaults."""
        others = {None: "", True: "--include-others", False: "--ignore-others"}
        chosen = {
            f"--timeout {self.timeout}": self.timeout != _TIMEOUTS[0],
            f"--on-timeout {self.on_timeout}": self.on_timeout != "abort",
            f"--strategy {self.strategy}": self.strategy is not None,
            others[self.include_others]: self.include_others is not None,
            "--keep-paused": self.keep_paused,
            "--mixed-versions": self.mixed_versions,
        }
        return tuple(flag for flag, is_chosen in chosen.items() if is_chosen)

    def changes(self, strategy: str) -> Iterator[tuple[str, str, DrainChoice]]:
        """Each key that changes a planned drain, with its flag and the resulting choice.

        Args:
            strategy: the strategy of the plan: ``pause`` or ``roll``.
        """
        timeout = _TIMEOUTS[(_TIMEOUTS.index(self.timeout) + 1) % len(_TIMEOUTS)]
        yield "t", f"--timeout {timeout}", replace(self, timeout=timeout)
        if self.target is None:
            return
        if strategy == "pause":
            on_timeout = "abort" if self.on_timeout == "restart" else "restart"
            yield "w", f"--on-timeout {on_timeout}", replace(self, on_timeout=on_timeout)
            label = "no --keep-paused" if self.keep_paused else "--keep-paused"
            yield "p", label, replace(self, keep_paused=not self.keep_paused)
        other = "pause" if strategy == "roll" else "roll"
        yield "s", f"--strategy {other}", self._with_strategy(other)

    def overrides(self) -> Iterator[tuple[str, str, DrainChoice]]:
        """Like ``changes``, but the flags that the hint of a refused drain may name."""
        yield "i", "--include-others", replace(self, include_others=True)
        yield "g", "--ignore-others", replace(self, include_others=False)
        yield "m", "--mixed-versions", replace(self, mixed_versions=True)
        yield "s", "--strategy pause", self._with_strategy("pause")

    def _with_strategy(self, strategy: str) -> DrainChoice:
        # A roll pauses no queue and kills no process, so these flags do not apply to it.
        return replace(self, strategy=strategy, on_timeout="abort", keep_paused=False)
