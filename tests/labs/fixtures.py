"""Real BullMQ, PM2, Docker and systemd; every test may ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qctl.wire.read.clients import list_workers
from tests.labs.docker_engine import Engine
from tests.labs.drains import Lab, open_lab
from tests.labs.kubernetes_stub import Cluster, open_cluster
from tests.labs.node import NodeBull, install_node_modules
from tests.labs.pm2 import Pm2
from tests.labs.servers import RedisServer, wait_until
from tests.labs.systemd_container import Machine


@pytest.fixture(scope="session")
def node_modules() -> str:
    """The folder with the pinned npm packages, installed when it is missing or stale."""
    return str(install_node_modules())


@pytest.fixture(scope="session")
def idle_bulls() -> Iterator[dict[tuple[int, int], NodeBull]]:
    """BullMQ clients that earlier tests left in a clean state; starting one takes 0.4 s."""
    idle: dict[tuple[int, int], NodeBull] = {}
    yield idle
    for bull in idle.values():
        bull.kill()


@pytest.fixture
def node_bull(
    node_modules: str,
    redis_server: RedisServer,
    redis_url: str,
    idle_bulls: dict[tuple[int, int], NodeBull],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., NodeBull]]:
    """Returns BullMQ clients: ``node_bull(5)``; one a version, unless ``fresh=True``.

    ``port=`` points it at another Redis than the shared one.
    """
    fresh_ones: list[NodeBull] = []
    shared: dict[tuple[int, int], NodeBull] = {}

    def start(version: int, *, fresh: bool = False, port: int = 0) -> NodeBull:
        where = (version, port or redis_server.port)
        if where in shared and not fresh:
            return shared[where]
        bull = None if fresh else idle_bulls.pop(where, None)
        if bull is None:
            bull = NodeBull(*where, tmp_path_factory.mktemp("bull") / "stderr.log")
        if fresh:
            fresh_ones.append(bull)
        else:
            shared[where] = bull
        return bull

    yield start
    for where, bull in shared.items():
        if where[1] == redis_server.port and bull.reset():
            idle_bulls[where] = bull
        else:
            bull.kill()
    for bull in fresh_ones:
        bull.kill()


@pytest.fixture(params=[5, 6], ids=["v5", "v6"])
def bullmq(request: pytest.FixtureRequest, node_bull: Callable[..., NodeBull]) -> NodeBull:
    """A client of BullMQ 5 and then of BullMQ 6."""
    return node_bull(request.param)


@pytest.fixture
def pm2(node_modules: str) -> Iterator[Pm2]:
    """A PM2 daemon for one test; it and all its processes end with the test."""
    manager = Pm2()
    try:
        yield manager
    finally:
        manager.kill()


@pytest.fixture(scope="session")
def lab_pm2(node_modules: str) -> Iterator[Pm2]:
    """The PM2 daemon of all labs; each lab removes its apps."""
    manager = Pm2()
    try:
        yield manager
    finally:
        manager.kill()


@pytest.fixture(scope="session")
def lab_engine(node_modules: str) -> Iterator[Engine]:
    """The Docker engine of all tests in this process. Use ``engine``, which has no containers."""
    engine = Engine()
    try:
        yield engine
    finally:
        engine.close()


@pytest.fixture
def engine(lab_engine: Engine) -> Iterator[Engine]:
    """A Docker engine without containers; what the test starts in it ends with the test."""
    lab_engine.remove_all()
    yield lab_engine
    lab_engine.remove_all()


@pytest.fixture(scope="session")
def lab_machine(lab_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The systemd of all tests in this process; use ``machine``. It sees every ``tmp_path``."""
    machine = Machine(lab_engine, folders=[tmp_path_factory.getbasetemp()])
    lab_engine.kept.add(machine.name)
    return machine


@pytest.fixture
def machine(lab_machine: Machine) -> Iterator[Machine]:
    """A systemd without units of tests; those that the test starts end with it."""
    yield lab_machine
    lab_machine.reset()


@pytest.fixture
def kubernetes(node_modules: str) -> Iterator[Cluster]:
    """A stub of Kubernetes without workloads, for the real ``kubectl``."""
    with open_cluster() as cluster:
        yield cluster


@pytest.fixture
def lab(
    lab_pm2: Pm2,
    redis_server: RedisServer,
    redis_url: str,
    idle_bulls: dict[tuple[int, int], NodeBull],
    tmp_path: Path,
) -> Iterator[Lab]:
    """A lab on the shared Redis."""
    with open_lab(lab_pm2, redis_server, tmp_path, idle_bulls=idle_bulls) as lab:
        # Redis may not have noticed yet that the last test's workers are gone.
        wait_until(lambda: not list_workers(lab.client, "bull"), "the last workers to be gone")
        yield lab


@pytest.fixture(scope="module")
def shared_lab(
    lab_pm2: Pm2, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    """One lab for all tests of a module; each must leave it as it was."""
    with open_lab(lab_pm2, redis_server, tmp_path_factory.mktemp("lab")) as lab:
        lab.client.call("FLUSHALL")
        yield lab
