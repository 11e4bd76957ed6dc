"""Which queues of a target a command works on: those under the prefixes in force."""

from __future__ import annotations

from collections.abc import Collection

from qctl.config.prefixes import Prefixes
from qctl.connection.address import Client
from qctl.errors import UsageError
from qctl.ops.processes.targets import Target
from qctl.ops.queues.select import select_queues
from qctl.wire.keys import QueueKeys


def select_served(
    client: Client, prefixes: Prefixes, target: Target, serves: Collection[QueueKeys]
) -> tuple[set[QueueKeys], set[QueueKeys]]:
    """The target's queues under these prefixes, and those under others.

    Args:
        serves: the queues to which the target's workers are connected. This function adds the
            queues that the config lists for the target.

    Raises:
        NotFoundError: the config names a queue that does not exist.
    """
    by_config: list[QueueKeys] = []
    if target.configured:
        by_config = select_queues(client, prefixes, target.configured)
    selected = {keys for keys in serves if prefixes.include(keys.prefix, keys.name)}
    selected.update(by_config)
    return selected, set(serves) - selected


def under_other_prefixes(target: Target, serves: Collection[QueueKeys]) -> UsageError:
    """The error for a target that serves only these queues, which are under other prefixes."""
    return UsageError(
        f"{target.label} serves no queue under the key prefixes in force",
        why=f"it serves {', '.join(keys.full_name for keys in sorted(serves))}",
        hint="choose their prefixes with --prefix, which may be a pattern, or name each queue "
        "as NAME@PREFIX",
    )
