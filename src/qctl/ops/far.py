"""Jobs deep in a long list are deleted in steps none of which holds Redis up.

A list can be changed quickly at its ends only. So such jobs are first moved towards the head,
where jobs are added, a few hundred places a step; all others keep their order. If that is
interrupted they have lost their turn, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from qctl.ops.means import Means
from qctl.wire.far import draw, positions
from qctl.wire.keys import QueueKeys

# What is among so many entries from the head, or a few more, a script finds.
_NEAR = 1_500
# Moved together.
_GROUP = 50
# Adds during a step, by which those it moved are further in than it knows.
_SLACK = 100
# How often jobs are looked for that more adds have left behind.
_TRIES = 3
_LISTS = {"waiting": ("paused", "wait"), "stalled": ("active",), "": ("wait", "paused", "active")}


def remove_far_too(
    means: Means,
    keys: QueueKeys,
    ids: Sequence[str],
    remove: Callable[[Sequence[str]], Mapping[str, str]],
    state: str = "",
) -> dict[str, str]:
    """Delete jobs, those that the script finds too ``deep`` as well.

    Args:
        remove: the call of the script: ids → its words.
        state: where the jobs must be.
    """
    answers = dict(remove(ids))
    far = [job_id for job_id, answer in answers.items() if answer == "deep"]
    for start in range(0, len(far), _GROUP):
        group = far[start : start + _GROUP]
        for name in _LISTS.get(state, ()):
            found = _remove_from(means, keys(name), group, remove)
            answers |= found
            group = [job_id for job_id in group if job_id not in found]
    return answers


def _remove_from(
    means: Means,
    key: str,
    ids: Sequence[str],
    remove: Callable[[Sequence[str]], Mapping[str, str]],
) -> dict[str, str]:
    """Delete those of the ids that are in a list."""
    answers: dict[str, str] = {}
    left: Sequence[str] = ids
    for _ in range(_TRIES):
        found = _bring_near(means, key, left)
        if means.dry_run:
            return dict.fromkeys(found, "removed")
        answers |= remove(found) if found else {}
        left = [job_id for job_id in found if answers[job_id] == "deep"]
        if not left:
            break
    return answers


def _bring_near(means: Means, key: str, ids: Sequence[str]) -> list[str]:
    """Those of the ids that are in the list, near to its head now."""
    found: dict[str, int] = {}
    for some in positions(means.client, key, ids):
        means.check_stop()
        found |= some
    if not means.dry_run and found:
        _sweep(means, key, list(found), max(found.values()) + 1)
    return list(found)


def _sweep(means: Means, key: str, ids: Sequence[str], end: int) -> None:
    """Take along all that is come by, from ``end`` on towards the head."""
    while end > _NEAR:
        means.check_stop()
        steps = means.hops.size
        end += _SLACK
        start = max(end - _SLACK - len(ids) - steps, 0)
        moved = means.hops.timed(steps, partial(draw, means.client, key, ids, start, end))
        if not moved:
            # Others took them, or have added more than the slack.
            return
        end = start + moved
