"""What ``qctl metrics`` counts of jobs that BullMQ itself runs."""

from __future__ import annotations

from qctl.connection.address import Client
from qctl.ops.metrics.finished import FinishedJobs
from qctl.ops.metrics.reading import QueueLabels
from qctl.wire.keys import QueueKeys
from qctl.wire.read.finished import FinishedCounts, read_finished_counts
from tests.labs.node import NodeBull
from tests.labs.servers import wait_until

Q = QueueKeys("bull", "q")


def test_finished_jobs_are_counted_as_bullmq_counts_them(client: Client, bullmq: NodeBull) -> None:
    finished = FinishedJobs(client, QueueLabels())
    finished.begin()
    assert read_finished_counts(client, [Q]) == [FinishedCounts(None, None)]
    for ms in (1, 1, 700):
        bullmq.add("q", {"ms": ms})
    bullmq.add("q", {"fail_times": 1}, attempts=2)
    bullmq.add("q", {"fail_times": 9})
    # Nothing is left of these jobs but their events.
    bullmq.start_worker(
        "q",
        concurrency=5,
        metrics={"maxDataPoints": 100},
        removeOnComplete={"count": 0},
        removeOnFail={"count": 0},
    )

    def counts() -> FinishedCounts:
        return read_finished_counts(client, [Q])[0]

    wait_until(lambda: counts() == FinishedCounts(4, 1), "the jobs to finish")
    finished.poll([Q])
    (row,) = finished.figures()
    assert (row.completed, row.failed, row.stalls, row.gaps) == (4, 1, 0, 0)
    # Of the job that was retried only the second attempt is one; one job took longer than 0.5 s.
    assert sum(row.buckets) == 5
    assert sum(row.buckets[2:]) == 1
    assert 0.7 <= row.duration_sum_s < 20
