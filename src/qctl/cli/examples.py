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
    "jobs add": (
        ('qctl jobs add emails send --data \'{"to": "ada"}\'', "prints its id"),
        ("qctl jobs add emails send --data @job.json --delay 10m", "from a file, to run later"),
        ("qctl jobs add emails send --attempts 5 --backoff exponential:1m", "with retries"),
    ),
    "jobs retry": (
        ("qctl jobs retry emails 4711", "a finished job runs again"),
        ("qctl jobs retry emails 4711 4712 --dry-run", "what it would do"),
    ),
    "jobs retry-failed": (
        ("qctl jobs retry-failed emails --dry-run", "how many, and a few of them"),
        ("qctl jobs retry-failed emails --where 'error ~ \"timeout\"'", "those alone"),
        ("qctl jobs retry-failed emails --since 2h --rate 100", "100 a second"),
    ),
    "jobs promote": (
        ("qctl jobs promote emails 4711", "a delayed job, now"),
        ("qctl jobs promote emails --name send --dry-run", "all of a name: how many"),
    ),
    "jobs remove": (
        ("qctl jobs remove emails 4711", "delete one"),
        ("qctl jobs remove emails --state failed --until 30d --dry-run", "old ones: how many"),
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
        ("qctl drain emails --timeout 2m", "if jobs run longer: resume it, exit code 4"),
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
    "impact": (
        ("qctl impact --target pm2:worker", "what restarting it would do, and when to do it"),
        ("qctl impact emails", "the same for those that serve a queue"),
        ("qctl impact emails --away 30m", "if no worker is there for half an hour"),
    ),
    "doctor": (
        ("qctl doctor", "everything"),
        ("qctl doctor emails --full", "one queue, every job of it"),
        ("qctl doctor --target pm2:worker", "one process and what it serves"),
    ),
    "schedules": (
        ("qctl schedules list", "of every queue, the next one first"),
        ("qctl schedules run emails nightly", "one job of it, now"),
        ("qctl schedules remove emails nightly --dry-run", "what would be removed"),
    ),
    "schedules list": (
        ("qctl schedules list", "of every queue, the next one first"),
        ("qctl schedules list emails --json", "of one, for scripts"),
    ),
    "schedules show": (
        ("qctl schedules show emails nightly", "in full, and when it is due"),
        ("qctl schedules show emails nightly --json", "for scripts"),
    ),
    "schedules remove": (
        ("qctl schedules remove emails nightly --dry-run", "what would be removed"),
        ("qctl schedules remove emails nightly", "and its next job"),
    ),
    "schedules run": (
        ("qctl schedules run emails nightly", "one job of it, now"),
        ("qctl schedules run emails nightly --dry-run", "what would be added"),
    ),
    "events": (
        ("qctl events emails --follow", "what happens, as it happens"),
        ("qctl events emails --since 10m --event failed", "failures of the last 10 minutes"),
        ("qctl events emails --id 4711", "what happened to one job"),
    ),
    "wait": (
        ("qctl wait emails --for idle", "until nothing runs"),
        ("qctl wait emails --for empty --timeout 10m", "until all is done, or exit code 4"),
        ("qctl wait emails --for job=4711", "until it is completed; exit code 1 if it fails"),
    ),
    "purge": (
        ("qctl purge emails --state completed --dry-run", "how many it would delete"),
        ("qctl purge emails --state completed", "asks for the queue's name first"),
    ),
    "top": (
        ("qctl top", "every queue"),
        ("qctl top emails", "one queue"),
    ),
    "metrics": (
        ("qctl metrics", "once, as text"),
        ("qctl metrics --serve 127.0.0.1:9464", "for Prometheus to scrape"),
    ),
    "config": (
        ("qctl config view", "every setting, and where it comes from"),
        ("qctl config path", "the files that are read"),
    ),
    "config view": (
        ("qctl config view", "every setting, and where it comes from"),
        ("qctl config view --context prod", "as they are in a context"),
    ),
    "config path": (
        ("qctl config path", "the files that are read"),
        ("qctl config path --json", "for scripts"),
    ),
    "contexts": (
        ("qctl contexts", "their names"),
        ("qctl contexts --json", "for scripts"),
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
