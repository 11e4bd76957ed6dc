"""Examples of every command: what to type, and what it does.

The first example is the one to begin with. A test parses all examples.
"""

from __future__ import annotations

from collections.abc import Mapping

# Key: the command without ``qctl``; "" is the program itself.
EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("qctl demo", "a restart under load, explained"),
        ("qctl status", "queues, pauses, workers, processes"),
        ("qctl restart pm2:worker", "restart a process without interrupting a job"),
        ("qctl jobs list emails --state failed", "the latest failures, and why"),
    ),
    "status": (
        ("qctl status", "every queue"),
        ("qctl status --problems", "only queues with a problem"),
        ("qctl status emails --watch", "one queue, refreshed every 2 seconds"),
        ("qctl status --json --prefix prod", "for scripts, with another prefix"),
    ),
    "queues": (
        ("qctl queues", "the names, one per line"),
        ("qctl queues --json", "for scripts"),
        ("qctl queues set emails --concurrency 10", "at most 10 jobs at once, over all workers"),
        ("qctl queues delete old-emails --dry-run", "what a queue has, before it is deleted"),
    ),
    "queues set": (
        ("qctl queues set emails --concurrency 10", "at most 10 jobs at once, over all workers"),
        ("qctl queues set emails --rate-limit 100/1m", "at most 100 jobs start in a minute"),
        ("qctl queues set emails --concurrency none --rate-limit none", "no limits"),
    ),
    "queues delete": (
        ("qctl queues delete old-emails --dry-run", "count its keys"),
        ("qctl queues delete old-emails", "delete it, after asking for its name"),
    ),
    "workers": (
        ("qctl workers", "workers of all queues"),
        ("qctl workers emails", "workers of one queue"),
    ),
    "jobs": (
        ("qctl jobs list emails --state failed", "the latest failures, and why"),
        ("qctl jobs show emails 4711", "one job in full"),
        ("qctl jobs retry-stalled emails", "put back jobs without a lock"),
    ),
    "jobs list": (
        ("qctl jobs list emails --state failed", "the newest 50"),
        ("qctl jobs list emails --state active", "the running jobs, and where they run"),
        (
            "qctl jobs list emails --state failed --since 1h --where 'error ~ timeout'",
            "failures of the last hour with this reason",
        ),
        (
            "qctl jobs list emails --state waiting --limit 1000 --output ndjson",
            "one line of JSON per job",
        ),
    ),
    "jobs show": (
        ("qctl jobs show emails 4711", "data, attempts, lock, stack traces"),
        ("qctl jobs show emails 4711 --json", "the same for scripts"),
    ),
    "jobs tree": (
        ("qctl jobs tree reports 12", "the flow of this job, from its root"),
        ("qctl jobs tree reports 12 --limit 1000 --json", "more jobs, for scripts"),
    ),
    "jobs failures": (
        ("qctl jobs failures emails", "by reason, and how to retry each group"),
        ("qctl jobs failures emails --since 2h --by name", "of the last two hours, by job name"),
        ("qctl jobs failures emails --by data.tenant", "which customers are affected"),
    ),
    "jobs logs": (
        ("qctl jobs logs emails 4711", "the log rows of one job"),
        ("qctl jobs logs emails 4711 --follow", "and new rows until the job has finished"),
    ),
    "jobs add": (
        ('qctl jobs add emails send --data \'{"to": "ada"}\'', "add a job and print its id"),
        (
            "qctl jobs add emails send --data @job.json --delay 10m",
            "payload from a file, run in 10 minutes",
        ),
        ("qctl jobs add emails send --attempts 5 --backoff exponential:1m", "with retries"),
    ),
    "jobs retry": (
        ("qctl jobs retry emails 4711", "run a finished job again"),
        ("qctl jobs retry emails 4711 4712 --dry-run", "show which jobs would run again"),
    ),
    "jobs retry-failed": (
        ("qctl jobs retry-failed emails --dry-run", "how many jobs, and some of them"),
        ("qctl jobs retry-failed emails --where 'error ~ \"timeout\"'", "only matching failures"),
        ("qctl jobs retry-failed emails --since 2h --rate 100", "at most 100 per second"),
        (
            "qctl jobs retry-failed --all-queues --name send",
            "failed jobs with this name, in all queues",
        ),
    ),
    "jobs promote": (
        ("qctl jobs promote emails 4711", "run a delayed job now"),
        ("qctl jobs promote emails --name send --dry-run", "how many delayed jobs have this name"),
        ("qctl jobs promote --queue emails --queue mails", "all delayed jobs of two queues"),
    ),
    "jobs remove": (
        ("qctl jobs remove emails 4711", "delete one job"),
        (
            "qctl jobs remove emails --state failed --until 30d --dry-run",
            "how many failures are older than 30 days",
        ),
    ),
    "jobs cancel": (
        ("qctl jobs cancel emails 4711", "interrupt the job, or delete it if it waits"),
        ("qctl jobs cancel emails 4711 4712 --dry-run", "show which jobs would be cancelled"),
    ),
    "jobs retry-stalled": (
        ("qctl jobs retry-stalled emails --dry-run", "which jobs would be put back"),
        ("qctl jobs retry-stalled emails", "put the jobs back now"),
        ("qctl jobs retry-stalled emails --wait", "also wait for the locks of dead workers"),
    ),
    "pause": (
        ("qctl pause emails", "no job starts; active jobs continue"),
        ("qctl pause emails reports --dry-run", "show what would change"),
    ),
    "resume": (
        ("qctl resume emails", "workers take jobs again"),
        ("qctl resume emails --force", "even if a drain has paused the queue"),
    ),
    "drain": (
        ("qctl drain emails", "pause the queue, wait for its active jobs"),
        ("qctl drain emails --then-restart --target pm2:worker", "then restart the worker, resume"),
        ("qctl drain emails -- docker compose up -d worker", "a command restarts the workers"),
        ("qctl drain emails --then-restart --dry-run", "show the plan"),
    ),
    "restart": (
        ("qctl restart pm2:worker", "drain its queues, restart, resume"),
        ("qctl restart pm2:emails pm2:images --dry-run", "show the plan for two apps"),
        (
            "qctl restart pm2:worker --timeout 5m --on-timeout restart",
            "after 5 minutes, restart anyway and recover the interrupted jobs",
        ),
        ("qctl restart qctl:emails", "one process after another, no pause"),
    ),
    "impact": (
        ("qctl impact --target pm2:worker", "what a restart would do, and when to restart"),
        ("qctl impact emails", "the same for the workers of a queue"),
        ("qctl impact emails --grace 10s --signal TERM", "if qctl cannot ask the platform"),
        ("qctl impact emails --away 30m", "what if no worker runs for half an hour"),
    ),
    "doctor": (
        ("qctl doctor", "check everything"),
        ("qctl doctor emails --full", "check every job of one queue"),
        ("qctl doctor --target pm2:worker", "one process and its queues"),
    ),
    "schedules": (
        ("qctl schedules list", "schedulers of all queues, next due first"),
        ("qctl schedules run emails nightly", "add one job of a scheduler now"),
        ("qctl schedules migrate emails --dry-run", "what becomes of old repeatables"),
    ),
    "schedules list": (
        ("qctl schedules list", "schedulers of all queues, next due first"),
        ("qctl schedules list emails --json", "schedulers of one queue, for scripts"),
    ),
    "schedules show": (
        ("qctl schedules show emails nightly", "one scheduler, and its next due times"),
        ("qctl schedules show emails nightly --json", "for scripts"),
    ),
    "schedules set": (
        (
            "qctl schedules set emails nightly --cron '0 3 * * *' --tz UTC",
            "make it, or change its times",
        ),
        ("qctl schedules set emails poll --every 30s --dry-run", "what would change"),
    ),
    "schedules migrate": (
        ("qctl schedules migrate emails --dry-run", "what would become of each repeatable"),
        ("qctl schedules migrate emails --yes", "replace them without a question"),
    ),
    "schedules remove": (
        ("qctl schedules remove emails nightly --dry-run", "what would be removed"),
        ("qctl schedules remove emails nightly", "remove the scheduler and its next job"),
    ),
    "schedules run": (
        ("qctl schedules run emails nightly", "add one job of the scheduler now"),
        ("qctl schedules run emails nightly --dry-run", "what would be added"),
    ),
    "events": (
        ("qctl events emails --follow", "events as they happen"),
        ("qctl events emails --since 10m --event failed", "failures of the last 10 minutes"),
        ("qctl events emails --id 4711", "what happened to one job"),
    ),
    "wait": (
        ("qctl wait emails --for idle", "until no job is active"),
        ("qctl wait emails --for empty --timeout 10m", "until no job waits or runs"),
        ("qctl wait emails --for job=4711", "until the job completes; exit code 1 if it fails"),
    ),
    "purge": (
        ("qctl purge emails --state completed --dry-run", "how many jobs would be deleted"),
        ("qctl purge emails --state completed", "delete them, after asking for the queue's name"),
    ),
    "top": (
        ("qctl top", "every queue"),
        ("qctl top emails", "one queue"),
    ),
    "metrics": (
        ("qctl metrics", "print the metrics once"),
        ("qctl metrics --serve 127.0.0.1:9464", "serve them for Prometheus to scrape"),
    ),
    "mcp": (
        ("qctl mcp", "the command for the agent's configuration; its tools only read"),
        ("qctl mcp --context prod", "the same tools for one context, with its guards"),
        ("qctl mcp --allow-writes", "also pause, drain, restart and retry, each after its plan"),
    ),
    "config": (
        ("qctl config view", "every setting, and where it comes from"),
        ("qctl config path", "the config files"),
    ),
    "config view": (
        ("qctl config view", "every setting, and where it comes from"),
        ("qctl config view --context prod", "the settings with a context"),
    ),
    "config path": (
        ("qctl config path", "the config files"),
        ("qctl config path --json", "for scripts"),
    ),
    "acl": (
        ("qctl acl", "the roles, and the ACL rule of the role read"),
        ("qctl acl drain", "for a user that drains"),
        ("qctl acl status jobs list --prefix prod", "for several commands, and your prefix"),
        (
            "qctl acl worker | sed s/CHANGE_ME/PASSWORD/ | redis-cli",
            "make the user of the workers",
        ),
    ),
    "contexts": (
        ("qctl contexts", "the names of all contexts"),
        ("qctl contexts --json", "for scripts"),
    ),
    "worker": (
        ("qctl worker run app:worker", "in the foreground, until Ctrl-C"),
        ("qctl worker start emails app:worker", "in the background, as qctl:emails"),
        ("qctl restart qctl:emails", "load new code while taking jobs"),
    ),
    "worker run": (
        ("qctl worker run app:worker", "until SIGTERM or Ctrl-C"),
        ("qctl worker run app:worker --reload", "for development"),
        ("qctl worker run app:worker --processes 4 --grace 2m", "for production"),
    ),
    "worker start": (
        ("qctl worker start emails app:worker", "as the target qctl:emails"),
        ("qctl worker start emails app:worker --processes 4", "four processes"),
        ("qctl worker start emails app:worker --max-rss 500MB", "replace processes above 500 MB"),
    ),
    "worker stop": (
        ("qctl worker stop emails", "when the active jobs have finished"),
        ("qctl worker stop emails --now", "put active jobs back at once"),
    ),
    "worker restart": (
        ("qctl worker restart emails", "load new code while taking jobs"),
        ("qctl worker restart emails --timeout 1m", "give up after a minute"),
    ),
    "worker list": (
        ("qctl worker list", "running and stopped"),
        ("qctl worker list --json", "for scripts"),
    ),
    "worker logs": (
        ("qctl worker logs emails", "the last 100 lines"),
        ("qctl worker logs emails --follow", "and new lines"),
    ),
    "demo": (
        ("qctl demo", "a restart under load, in 15 seconds"),
        ("qctl demo --keep", "leave the worker running, to explore"),
    ),
    "completion": (
        ("qctl completion bash > ~/.local/share/bash-completion/completions/qctl", "bash"),
        ('qctl completion zsh > "${fpath[1]}/_qctl"', "zsh"),
        ("qctl completion fish > ~/.config/fish/completions/qctl.fish", "fish"),
    ),
    "help": (
        ("qctl help", "the pages, with a line each"),
        ("qctl help drain", "how a drain works, and what is left when something dies"),
        ("qctl help configuration | less", "the page as Markdown"),
    ),
}
