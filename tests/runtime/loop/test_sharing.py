"""What a worker keeps of its places where the queue's concurrency is limited."""

from __future__ import annotations

import pytest

from qctl.runtime.loop.sharing import JOBS_PER_OFFER, MIN_OFFER_PAUSE_S, Places


def test_the_place_of_one_job_in_a_few_is_given_up() -> None:
    places = Places()
    kept = [places.to_keep(1, 3, n * MIN_OFFER_PAUSE_S) for n in range(1, 2 * JOBS_PER_OFFER + 1)]
    assert kept == 2 * [*[1] * (JOBS_PER_OFFER - 1), 0]


def test_not_more_often_than_the_pause() -> None:
    places = Places()
    assert sum(places.to_keep(1, 3, 1.0) for _ in range(100)) == 99


@pytest.mark.parametrize(("ended", "held", "kept"), [(20, 20, 15), (5, 5, 4), (4, 4, 3), (1, 1, 1)])
def test_never_the_last_place(ended: int, held: int, kept: int) -> None:
    places = Places()
    for _ in range(JOBS_PER_OFFER - 1):
        places.to_keep(1, 3, 0.0)
    assert places.to_keep(ended, held, 1.0) == kept
