"""``qctl metrics``."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from qctl.cli.environment import Environment
from qctl.cli.frame import App
from qctl.cli.options import parse_endpoint
from qctl.errors import FailedError
from qctl.extras import install_command

app = App()


@app.command("metrics")
def metrics(
    env: Environment,
    serve: Annotated[
        str | None,
        typer.Option("--serve", metavar="ADDR", help="Serve /metrics at ADDR, e.g. :9120"),
    ] = None,
    max_queues: Annotated[
        int,
        typer.Option(
            "--max-queues", metavar="N", min=1, help="After N queues, sum all others as (other)"
        ),
    ] = 1000,
) -> None:
    """Metrics of queues and workers for Prometheus.

    Prints the metrics once. With --serve, an HTTP server serves them until SIGTERM, and also counts
    finished jobs and their durations from the queues' events.
    """
    endpoint = None if serve is None else parse_endpoint(serve, "--serve")
    needs_package = endpoint is not None or env.output == "table"
    if needs_package and find_spec("prometheus_client") is None:
        raise FailedError(
            "the package prometheus_client is not installed",
            why="the Prometheus format needs this package; --json works without it",
            hint=install_command("metrics"),
        )
    if endpoint is not None:
        _serve(env, endpoint, max_queues)
    else:
        _print(env, max_queues)


def _print(env: Environment, max_queues: int) -> None:
    from qctl.ops.metrics.reading import QueueLabels, read_metrics  # noqa: PLC0415

    address, client = env.redis()
    reading = read_metrics(client, address, env.settings, QueueLabels(max_queues))
    if env.output != "table":
        env.emit_json(reading)
    else:
        from qctl.output.prometheus import Scrape, text_of  # noqa: PLC0415 - 125 ms

        env.streams.stdout.write(text_of(Scrape(reading)))
    env.note(*reading.remarks)


def _serve(env: Environment, endpoint: tuple[str, int], max_queues: int) -> None:
    from qctl.cli.signals import stop_on_signals  # noqa: PLC0415
    from qctl.connection.connect import connect  # noqa: PLC0415
    from qctl.ops.metrics.finished import FinishedJobs  # noqa: PLC0415
    from qctl.ops.metrics.reading import QueueLabels, read_metrics  # noqa: PLC0415
    from qctl.ops.metrics.scrape import SharedReadings  # noqa: PLC0415
    from qctl.output.prometheus import Scrape, serve  # noqa: PLC0415

    address, client = env.redis()
    # A second connection, so that scrapes and events do not wait for each other.
    _, events = connect(address.url)
    labels = QueueLabels(max_queues)
    readings = SharedReadings(lambda: read_metrics(client, address, env.settings, labels))
    finished = FinishedJobs(events, labels)
    # A signal is the normal end, so there is no message.
    with stop_on_signals(lambda _: None) as stop:
        stop_serving = serve(
            *endpoint, lambda: Scrape(readings.reading(), finished.figures(), readings.errors())
        )
        host, port = endpoint
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
        try:
            env.show({"serving": url}, [f"serving {url}"])
            env.streams.stdout.flush()
            # The first reading finds the queues whose events are followed.
            readings.reading()
            finished.run(lambda: list(labels.labels), stop, lambda: readings.count_error("events"))
        finally:
            stop_serving()
            events.close()
