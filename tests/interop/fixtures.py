"""Real BullMQ and PM2; every test may ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.interop.node import NodeBull, install_node_modules
from tests.interop.pm2 import Pm2
from tests.servers import RedisServer


@pytest.fixture(scope="session")
def node_modules() -> str:
    """The folder with the pinned npm packages, installed when it is missing or stale."""
    return str(install_node_modules())


@pytest.fixture
def node_bull(
    node_modules: str,
    redis_server: RedisServer,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., NodeBull]]:
    """Starts BullMQ clients: ``node_bull(5)``; one a version, unless ``fresh=True``.

    ``port=`` points it at another Redis than the shared one.
    """
    started: list[NodeBull] = []
    shared: dict[tuple[int, int], NodeBull] = {}
    folder = tmp_path_factory.mktemp("bull")

    def start(version: int, *, fresh: bool = False, port: int = 0) -> NodeBull:
        where = (version, port or redis_server.port)
        if fresh or where not in shared:
            bull = NodeBull(*where, folder / f"{len(started)}.log")
            started.append(bull)
            if fresh:
                return bull
            shared[where] = bull
        return shared[where]

    yield start
    for bull in started:
        bull.close()


@pytest.fixture(params=[5, 6], ids=["v5", "v6"])
def bullmq(request: pytest.FixtureRequest, node_bull: Callable[..., NodeBull]) -> NodeBull:
    """A client of BullMQ 5 and then of BullMQ 6."""
    return node_bull(request.param)


@pytest.fixture
def pm2(node_modules: str) -> Iterator[Pm2]:
    """A PM2 daemon of the test's own, gone with all its processes afterwards."""
    manager = Pm2()
    try:
        yield manager
    finally:
        manager.kill()
