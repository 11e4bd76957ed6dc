"""Examples of every command: what to type, and what it does, in a line each.

The first is what most people came for. A test parses each of them, and holds that every command
has some.
"""

from __future__ import annotations

from collections.abc import Mapping

# Key: the command without ``qctl``; "" is the program itself.
EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("qctl demo", "a restart under load, explained"),
        ("qctl status", "queues, pauses, workers, processes"),
        ("qctl restart pm2:worker", "restart it without interrupting a job"),
        ("qctl jobs list emails --state failed", "what failed last, and why"),
    ),
    "status": (
        ("qctl status", "every queue"),
        ("qctl status emails --watch", "one queue, again every 2 seconds"),
        ("qctl status --json --prefix prod", "for scripts, another prefix"),
    ),
    "queues": (
        ("qctl queues", "names, one a line"),
        ("qctl queues --json", "for scripts"),
    ),
    "workers": (
        ("qctl workers", "of every queue"),
        ("qctl workers emails", "who works on one"),
    ),
    "jobs": (
        ("qctl jobs list emails --state failed", "what failed last, and why"),
        ("qctl jobs show emails 4711", "one job in full"),
        ("qctl jobs retry-stalled emails", "put back what lost its worker"),
    ),
    "jobs list": (
        ("qctl jobs list emails --state failed", "the newest 50"),
        ("qctl jobs list emails --state active", "what runs now, and where"),
        (
            "qctl jobs list emails --state failed --since 1h --where 'error ~ timeout'",
            "of the last hour, by the reason",
        ),
        (
            "qctl jobs list emails --state waiting --limit 1000 --output ndjson",
            "a line of JSON for each",
        ),
    ),
    "jobs show": (
        ("qctl jobs show emails 4711", "data, attempts, lock, stack traces"),
        ("qctl jobs show emails 4711 --json", "nothing cut"),
    ),
    "jobs logs": (
        ("qctl jobs logs emails 4711", "what it has logged"),
        ("qctl jobs logs emails 4711 --follow", "until it has finished"),
    ),
    "jobs retry-stalled": (
        ("qctl jobs retry-stalled emails --dry-run", "what would be put back"),
        ("qctl jobs retry-stalled emails", "put it back now"),
        ("qctl jobs retry-stalled emails --wait", "also what still has the lock of a dead worker"),
    ),
    "pause": (
        ("qctl pause emails", "no new job starts; running ones go on"),
        ("qctl pause emails reports --dry-run", "what it would do"),
    ),
    "resume": (
        ("qctl resume emails", "workers take jobs again"),
        ("qctl resume emails --force", "although a drain is at work on it"),
    ),
    "drain": (
        ("qctl drain emails", "pause it, wait for the running jobs"),
        ("qctl drain emails --then-restart --target pm2:worker", "and restart the worker"),
        ("qctl drain emails --timeout 2m --keep-paused", "leave it paused whatever happens"),
        ("qctl drain emails --then-restart --dry-run", "the plan"),
    ),
    "restart": (
        ("qctl restart pm2:worker", "drain what it serves, restart, resume"),
        ("qctl restart pm2:worker --dry-run", "the plan"),
        (
            "qctl restart pm2:worker --timeout 5m --on-timeout restart",
            "after 5 minutes interrupt what still runs, and bring it back",
        ),
        ("qctl restart qctl:emails", "one process after another, no pause"),
    ),
    "worker": (
        ("qctl worker run app:worker", "in front, until Ctrl-C"),
        ("qctl worker start emails app:worker", "in the background, as qctl:emails"),
        ("qctl restart qctl:emails", "new code, without a gap"),
    ),
    "worker run": (
        ("qctl worker run app:worker", "until SIGTERM or Ctrl-C"),
        ("qctl worker run app:worker --reload", "while developing"),
        ("qctl worker run app:worker --processes 4 --grace 2m", "in production"),
    ),
    "worker start": (
        ("qctl worker start emails app:worker", "as the target qctl:emails"),
        ("qctl worker start emails app:worker --processes 4", "four processes"),
        ("qctl worker start emails app:worker --max-rss 500MB", "replaced when they grow"),
    ),
    "worker stop": (
        ("qctl worker stop emails", "when the running jobs have finished"),
        ("qctl worker stop emails --now", "give them back"),
    ),
    "worker restart": (
        ("qctl worker restart emails", "with the code as it now is"),
        ("qctl worker restart emails --timeout 1m", "complain after a minute"),
    ),
    "worker list": (
        ("qctl worker list", "running and stopped ones"),
        ("qctl worker list --json", "for scripts"),
    ),
    "worker logs": (
        ("qctl worker logs emails", "the last 100 lines"),
        ("qctl worker logs emails --follow", "and what comes"),
    ),
    "demo": (
        ("qctl demo", "a quarter of a minute"),
        ("qctl demo --keep", "leave it running, to explore"),
    ),
    "completion": (
        ("qctl completion bash > ~/.local/share/bash-completion/completions/qctl", "bash"),
        ('qctl completion zsh > "${fpath[1]}/_qctl"', "zsh"),
        ("qctl completion fish > ~/.config/fish/completions/qctl.fish", "fish"),
    ),
}
