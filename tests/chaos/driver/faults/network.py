"""The network between Redis and qctl with its workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random

from tests.chaos.driver.faults.base import Fault, Inject
from tests.chaos.driver.hits import Hit
from tests.chaos.driver.stage import Stage
from tests.labs.drains import Running
from tests.labs.unsteady_proxy import UnsteadyProxy, Way


def _with_proxy(happen: Callable[[UnsteadyProxy, Random], bool]) -> Inject:
    """Something happens in the proxy. It is over before a lock runs out, so no job runs again."""

    def inject(stage: Stage, _: Running, chance: Random) -> Hit | None:
        began = time.time()
        assert stage.proxy is not None, "the scene has no proxy"
        return Hit(began, time.time()) if happen(stage.proxy, chance) else None

    return inject


def _cut(proxy: UnsteadyProxy, _: Random) -> bool:
    return proxy.cut() > 0


def _half_close(proxy: UnsteadyProxy, _: Random) -> bool:
    return proxy.half_close() > 0


def _delay(proxy: UnsteadyProxy, chance: Random) -> bool:
    with proxy.delayed(chance.uniform(0.01, 0.3)):
        time.sleep(chance.uniform(0.5, 2))
    return True


def _swallow(way: Way) -> Callable[[UnsteadyProxy, Random], bool]:
    def swallow(proxy: UnsteadyProxy, chance: Random) -> bool:
        return proxy.swallow(way, patience_s=1, silence_s=chance.uniform(0, 1.2))

    return swallow


_PROXIED = frozenset({"proxied"})

FAULTS: dict[str, Fault] = {
    "net-cut": Fault(_with_proxy(_cut), redis=_PROXIED),
    "net-half-close": Fault(_with_proxy(_half_close), redis=_PROXIED),
    "net-delay": Fault(_with_proxy(_delay), redis=_PROXIED),
    "net-no-reply": Fault(_with_proxy(_swallow("replies")), redis=_PROXIED),
    "net-no-request": Fault(_with_proxy(_swallow("requests")), redis=_PROXIED),
}
