# fish completion for qctl. Made by `qctl completion fish`; changes here will be lost.

function __qctl_table
    switch $argv[1]
        case 'commands:'
            true
        case 'options:'
            printf '%s\n' \
                '--version	Print the version' \
                '--help	Show this message and exit'
        case 'argument: 0'
            printf '%s\n' \
                'status	Queues at a glance: jobs by state, pauses, workers, processes' \
                'queues	Names of the queues that exist' \
                'workers	Workers that are connected, and the processes they run in' \
                'jobs	Look at jobs; add them, run them again, delete them' \
                'pause	Stop workers from taking jobs; running ones go on' \
                'resume	Let workers take jobs again' \
                'drain	Let the running jobs finish, then restart the workers if wanted' \
                'restart	Restart a process without interrupting its jobs' \
                'impact	What a restart now would do to the jobs, and when to do it' \
                'doctor	Hazards of queues, workers and Redis, each with its remedy' \
                'schedules	Job schedulers: list, show, remove, run now' \
                'events	What happens in a queue, as it happens' \
                'wait	Wait until a queue is idle or empty, or a job is finished' \
                'purge	Delete the jobs of a state' \
                'top	Queues, workers and jobs, live on the whole screen' \
                'metrics	Figures of queues and workers for Prometheus' \
                'worker	Run workers in Python, in front or in the background' \
                'demo	Watch a restart under load, and the proof that nothing was lost' \
                'config	The settings in force, and where each comes from' \
                'contexts	Names of the contexts that the config files define' \
                'completion	Completion of commands and queue names for your shell'
        case 'commands:status'
            true
        case 'options:status'
            printf '%s\n' \
                '--watch	Read again every 2 s (or D, such as 1m) until Ctrl-C' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:status +'
            printf '%s\n' \
                '@queues'
        case 'value:status --context'
            printf '%s\n' \
                '@contexts'
        case 'value:status --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:queues'
            true
        case 'options:queues'
            printf '%s\n' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'value:queues --context'
            printf '%s\n' \
                '@contexts'
        case 'value:queues --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:workers'
            true
        case 'options:workers'
            printf '%s\n' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:workers +'
            printf '%s\n' \
                '@queues'
        case 'value:workers --context'
            printf '%s\n' \
                '@contexts'
        case 'value:workers --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:jobs'
            true
        case 'options:jobs'
            printf '%s\n' \
                '--help	Show this message and exit'
        case 'argument:jobs 0'
            printf '%s\n' \
                'list	Jobs of one state, the next to run or the newest result first' \
                'show	One job in full' \
                'logs	The rows that a job has logged' \
                'retry-stalled	Put stalled jobs back to run next, now instead of after the stalled checks' \
                'retry	Run finished jobs again, failed or completed ones, and put lost ones back' \
                'retry-failed	Run failed jobs again, those that failed first first' \
                'promote	Run delayed jobs now, those due first first' \
                'remove	Delete jobs, by id or those of a state' \
                'add	Add a job, and print its id'
        case 'commands:jobs list'
            true
        case 'options:jobs list'
            printf '%s\n' \
                '--state	Which jobs' \
                '--name	Only jobs of this name' \
                '--id	Only this job; may be repeated' \
                '--where	Only if this holds, e.g. \'error ~ "timeout"\'' \
                '--since	Only those finished or added since: 2h, a time' \
                '--until	Only those finished or added before' \
                '--limit	How many at most' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:jobs list 0'
            printf '%s\n' \
                '@queues'
        case 'value:jobs list --state'
            printf '%s\n' \
                'waiting' \
                'active' \
                'stalled' \
                'delayed' \
                'prioritized' \
                'waiting-children' \
                'completed' \
                'failed'
        case 'value:jobs list --context'
            printf '%s\n' \
                '@contexts'
        case 'value:jobs list --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:jobs show'
            true
        case 'options:jobs show'
            printf '%s\n' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:jobs show 0'
            printf '%s\n' \
                '@queues'
        case 'value:jobs show --context'
            printf '%s\n' \
                '@contexts'
        case 'value:jobs show --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:jobs logs'
            true
        case 'options:jobs logs'
            printf '%s\n' \
                '--follow	Go on with new rows until the job has finished' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:jobs logs 0'
            printf '%s\n' \
                '@queues'
        case 'value:jobs logs --context'
            printf '%s\n' \
                '@contexts'
        case 'value:jobs logs --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:jobs retry-stalled'
            true
        case 'options:jobs retry-stalled'
            printf '%s\n' \
                '--failed	Also jobs that failed for stalling too often' \
                '--wait	Wait for the locks of jobs whose worker is gone' \
                '--count-stall	Count a stall as BullMQ would; without it stalls are forgotten' \
                '--yes	Do not ask' \
                '--dry-run	Say what would be done, write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:jobs retry-stalled +'
            printf '%s\n' \
                '@queues'
        case 'value:jobs retry-stalled --context'
            printf '%s\n' \
                '@contexts'
        case 'value:jobs retry-stalled --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:jobs retry'
            true
        case 'options:jobs retry'
            printf '%s\n' \
                '--reset-attempts	Forget attempts and stalls; else they get one more run' \
                '--yes	Do not ask' \
                '--dry-run	Say what would be done, write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:jobs retry 0'
            printf '%s\n' \
                '@queues'
        case 'value:jobs retry --context'
            printf '%s\n' \
                '@contexts'
        case 'value:jobs retry --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:jobs retry-failed'
            true
        case 'options:jobs retry-failed'
            printf '%s\n' \
                '--name	Only jobs of this name' \
                '--id	Only this job; may be repeated' \
                '--where	Only if this holds, e.g. \'error ~ "timeout"\'' \
                '--since	Only those finished or added since: 2h, a time' \
                '--until	Only those finished or added before' \
                '--limit	How many at most' \
                '--rate	How many a second at most' \
                '--reset-attempts	Forget attempts and stalls; else they get one more run' \
                '--yes	Do not ask' \
                '--dry-run	Say what would be done, write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:jobs retry-failed 0'
            printf '%s\n' \
                '@queues'
        case 'value:jobs retry-failed --context'
            printf '%s\n' \
                '@contexts'
        case 'value:jobs retry-failed --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:jobs promote'
            true
        case 'options:jobs promote'
            printf '%s\n' \
                '--name	Only jobs of this name' \
                '--where	Only if this holds, e.g. \'error ~ "timeout"\'' \
                '--since	Only those finished or added since: 2h, a time' \
                '--until	Only those finished or added before' \
                '--limit	How many at most' \
                '--rate	How many a second at most' \
                '--yes	Do not ask' \
                '--dry-run	Say what would be done, write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:jobs promote 0'
            printf '%s\n' \
                '@queues'
        case 'value:jobs promote --context'
            printf '%s\n' \
                '@contexts'
        case 'value:jobs promote --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:jobs remove'
            true
        case 'options:jobs remove'
            printf '%s\n' \
                '--state	Which jobs' \
                '--name	Only jobs of this name' \
                '--where	Only if this holds, e.g. \'error ~ "timeout"\'' \
                '--since	Only those finished or added since: 2h, a time' \
                '--until	Only those finished or added before' \
                '--limit	How many at most' \
                '--rate	How many a second at most' \
                '--with-children	Also all jobs below them in their flows' \
                '--yes	Do not ask' \
                '--dry-run	Say what would be done, write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:jobs remove 0'
            printf '%s\n' \
                '@queues'
        case 'value:jobs remove --state'
            printf '%s\n' \
                'waiting' \
                'stalled' \
                'delayed' \
                'prioritized' \
                'waiting-children' \
                'completed' \
                'failed'
        case 'value:jobs remove --context'
            printf '%s\n' \
                '@contexts'
        case 'value:jobs remove --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:jobs add'
            true
        case 'options:jobs add'
            printf '%s\n' \
                '--data	Its payload; @FILE, or - for stdin' \
                '--delay	Run it no sooner than after 30s, 2h, or seconds' \
                '--priority	1 (most urgent) to 2097151; 0 before all' \
                '--attempts	Runs allowed through failures' \
                '--backoff	Before a retry: exponential:60s' \
                '--id	Instead of a number' \
                '--lifo	Run it before those that wait' \
                '--remove-on-complete	true: at once, false: never, N: keep so many, 24h: keep so long, N,24h' \
                '--remove-on-fail	The same for a failure' \
                '--dedup	Not while a job of this id is there: user-7:5s' \
                '--create	Make the queue if it does not exist' \
                '--dry-run	Say what would be done, write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:jobs add 0'
            printf '%s\n' \
                '@queues'
        case 'value:jobs add --context'
            printf '%s\n' \
                '@contexts'
        case 'value:jobs add --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:pause'
            true
        case 'options:pause'
            printf '%s\n' \
                '--mixed-versions	Also a queue on which BullMQ 5 and BullMQ 6 both work, where a pause can lose jobs' \
                '--dry-run	Say what would be done, write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:pause +'
            printf '%s\n' \
                '@queues'
        case 'value:pause --context'
            printf '%s\n' \
                '@contexts'
        case 'value:pause --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:resume'
            true
        case 'options:resume'
            printf '%s\n' \
                '--force	Also a queue that a drain is at work on' \
                '--dry-run	Say what would be done, write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:resume +'
            printf '%s\n' \
                '@queues'
        case 'value:resume --context'
            printf '%s\n' \
                '@contexts'
        case 'value:resume --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:drain'
            true
        case 'options:drain'
            printf '%s\n' \
                '--then-restart	Restart the process once nothing is running' \
                '--target	Process to restart with --then-restart, for example pm2:worker. Without it nothing is restarted: the target names the queues to drain when none is named' \
                '--timeout	Longest wait for running jobs: 30s, 10m, 2h, or seconds' \
                '--on-timeout	Then: put everything back, or restart anyway and bring interrupted jobs back' \
                '--strategy	How: pause the queues meanwhile, or roll: one process after another, no pause. Default: roll for qctl: targets, else pause' \
                '--include-others	Queues the process serves that were not named: drain them too, or let their jobs be interrupted. Without either: refuse' \
                '--ignore-others	Queues the process serves that were not named: drain them too, or let their jobs be interrupted. Without either: refuse' \
                '--keep-paused	Leave the queues paused at the end, if all went well; after a timeout, Ctrl-C or a failure they are resumed' \
                '--mixed-versions	Also a queue on which BullMQ 5 and BullMQ 6 both work, where a pause can lose jobs' \
                '--yes	Do not ask about a target or queues that were guessed' \
                '--dry-run	Show the plan and write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:drain +'
            printf '%s\n' \
                '@queues'
        case 'value:drain --target'
            printf '%s\n' \
                '@targets'
        case 'value:drain --on-timeout'
            printf '%s\n' \
                'abort' \
                'restart'
        case 'value:drain --strategy'
            printf '%s\n' \
                'pause' \
                'roll'
        case 'value:drain --context'
            printf '%s\n' \
                '@contexts'
        case 'value:drain --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:restart'
            true
        case 'options:restart'
            printf '%s\n' \
                '--timeout	Longest wait for running jobs: 30s, 10m, 2h, or seconds' \
                '--on-timeout	Then: put everything back, or restart anyway and bring interrupted jobs back' \
                '--strategy	How: pause the queues meanwhile, or roll: one process after another, no pause. Default: roll for qctl: targets, else pause' \
                '--include-others	Queues the process serves that were not named: drain them too, or let their jobs be interrupted. Without either: refuse' \
                '--ignore-others	Queues the process serves that were not named: drain them too, or let their jobs be interrupted. Without either: refuse' \
                '--keep-paused	Leave the queues paused at the end, if all went well; after a timeout, Ctrl-C or a failure they are resumed' \
                '--mixed-versions	Also a queue on which BullMQ 5 and BullMQ 6 both work, where a pause can lose jobs' \
                '--yes	No effect: a named target is not asked about' \
                '--dry-run	Show the plan and write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:restart 0'
            printf '%s\n' \
                '@targets'
        case 'value:restart --on-timeout'
            printf '%s\n' \
                'abort' \
                'restart'
        case 'value:restart --strategy'
            printf '%s\n' \
                'pause' \
                'roll'
        case 'value:restart --context'
            printf '%s\n' \
                '@contexts'
        case 'value:restart --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:impact'
            true
        case 'options:impact'
            printf '%s\n' \
                '--target	What would be restarted, for example pm2:worker. Default: the one app that serves the queues, else all their workers' \
                '--away	How long no worker will be there, for what is scheduled. Default: as long as a plain restart takes' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:impact +'
            printf '%s\n' \
                '@queues'
        case 'value:impact --target'
            printf '%s\n' \
                '@targets'
        case 'value:impact --context'
            printf '%s\n' \
                '@contexts'
        case 'value:impact --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:doctor'
            true
        case 'options:doctor'
            printf '%s\n' \
                '--target	Only this process and the queues that it serves, for example pm2:worker' \
                '--full	Look at every job and key instead of samples' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:doctor +'
            printf '%s\n' \
                '@queues'
        case 'value:doctor --target'
            printf '%s\n' \
                '@targets'
        case 'value:doctor --context'
            printf '%s\n' \
                '@contexts'
        case 'value:doctor --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:schedules'
            true
        case 'options:schedules'
            printf '%s\n' \
                '--help	Show this message and exit'
        case 'argument:schedules 0'
            printf '%s\n' \
                'list	Schedulers and when they are due, the next one first' \
                'show	One scheduler in full, and its next due times' \
                'remove	Remove a scheduler, and its next job if that is not yet due' \
                'run	Add one job as the scheduler would make it, now'
        case 'commands:schedules list'
            true
        case 'options:schedules list'
            printf '%s\n' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:schedules list +'
            printf '%s\n' \
                '@queues'
        case 'value:schedules list --context'
            printf '%s\n' \
                '@contexts'
        case 'value:schedules list --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:schedules show'
            true
        case 'options:schedules show'
            printf '%s\n' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:schedules show 0'
            printf '%s\n' \
                '@queues'
        case 'value:schedules show --context'
            printf '%s\n' \
                '@contexts'
        case 'value:schedules show --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:schedules remove'
            true
        case 'options:schedules remove'
            printf '%s\n' \
                '--dry-run	Say what would be done, write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:schedules remove 0'
            printf '%s\n' \
                '@queues'
        case 'value:schedules remove --context'
            printf '%s\n' \
                '@contexts'
        case 'value:schedules remove --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:schedules run'
            true
        case 'options:schedules run'
            printf '%s\n' \
                '--dry-run	Say what would be done, write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:schedules run 0'
            printf '%s\n' \
                '@queues'
        case 'value:schedules run --context'
            printf '%s\n' \
                '@contexts'
        case 'value:schedules run --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:events'
            true
        case 'options:events'
            printf '%s\n' \
                '--follow	Go on with new ones until Ctrl-C' \
                '--since	Only after this: 30s, 10m, 2h, a time, an event\'s id' \
                '--event	Only this kind; may be repeated' \
                '--id	Only those about this job' \
                '--limit	The last N, 50 by default; with --follow, leave after N' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:events 0'
            printf '%s\n' \
                '@queues'
        case 'value:events --context'
            printf '%s\n' \
                '@contexts'
        case 'value:events --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:wait'
            true
        case 'options:wait'
            printf '%s\n' \
                '--for	What to wait for' \
                '--timeout	Give up after 30s, 10m, 2h, or seconds (exit 4)' \
                '--include-delayed	empty: also nothing delayed (but by schedulers) or waiting for children' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:wait 0'
            printf '%s\n' \
                '@queues'
        case 'value:wait --context'
            printf '%s\n' \
                '@contexts'
        case 'value:wait --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:purge'
            true
        case 'options:purge'
            printf '%s\n' \
                '--state	Which jobs' \
                '--name	Only jobs of this name' \
                '--id	Only this job; may be repeated' \
                '--where	Only if this holds, e.g. \'error ~ "timeout"\'' \
                '--since	Only those finished or added since: 2h, a time' \
                '--until	Only those finished or added before' \
                '--limit	How many at most' \
                '--rate	How many a second at most' \
                '--yes	Do not ask' \
                '--dry-run	Say what would be done, write nothing' \
                '--confirm	The context\'s name, where it is asked for' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:purge 0'
            printf '%s\n' \
                '@queues'
        case 'value:purge --state'
            printf '%s\n' \
                'waiting' \
                'stalled' \
                'delayed' \
                'prioritized' \
                'waiting-children' \
                'completed' \
                'failed'
        case 'value:purge --context'
            printf '%s\n' \
                '@contexts'
        case 'value:purge --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:top'
            true
        case 'options:top'
            printf '%s\n' \
                '--interval	Time between two readings: 2s, 1m' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'argument:top +'
            printf '%s\n' \
                '@queues'
        case 'value:top --context'
            printf '%s\n' \
                '@contexts'
        case 'value:top --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:metrics'
            true
        case 'options:metrics'
            printf '%s\n' \
                '--serve	Serve them at http://ADDR/metrics until SIGTERM: :9120, 0.0.0.0:9120' \
                '--max-queues	The rest is summed as (other)' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'value:metrics --context'
            printf '%s\n' \
                '@contexts'
        case 'value:metrics --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:worker'
            true
        case 'options:worker'
            printf '%s\n' \
                '--help	Show this message and exit'
        case 'argument:worker 0'
            printf '%s\n' \
                'run	Run workers until SIGTERM or Ctrl-C' \
                'start	Run workers in the background, as the target qctl:NAME' \
                'stop	Let running jobs finish, then end the workers' \
                'restart	Replace its processes without a gap: with new code, for example' \
                'list	Workers in the background, running and stopped' \
                'logs	What a worker in the background and its processes have printed'
        case 'commands:worker run'
            true
        case 'options:worker run'
            printf '%s\n' \
                '--processes	How many to run' \
                '--grace	How long running jobs may take at a stop; 0 for ever' \
                '--max-jobs	Replace a process after so many jobs' \
                '--max-rss	Replace a process that uses more: 500MB' \
                '--reload	Replace when files of the app change (for development)' \
                '--health-port	Serve /livez and /readyz; on 127.0.0.1 unless a host is named' \
                '--log-format	Form of the log lines' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'value:worker run --log-format'
            printf '%s\n' \
                'text' \
                'json'
        case 'value:worker run --context'
            printf '%s\n' \
                '@contexts'
        case 'value:worker run --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:worker start'
            true
        case 'options:worker start'
            printf '%s\n' \
                '--processes	How many to run' \
                '--grace	How long running jobs may take at a stop; 0 for ever' \
                '--max-jobs	Replace a process after so many jobs' \
                '--max-rss	Replace a process that uses more: 500MB' \
                '--reload	Replace when files of the app change (for development)' \
                '--health-port	Serve /livez and /readyz; on 127.0.0.1 unless a host is named' \
                '--log-format	Form of the log lines' \
                '--timeout	Longest wait until it is ready' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'value:worker start --log-format'
            printf '%s\n' \
                'text' \
                'json'
        case 'value:worker start --context'
            printf '%s\n' \
                '@contexts'
        case 'value:worker start --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:worker stop'
            true
        case 'options:worker stop'
            printf '%s\n' \
                '--timeout	Longest wait; default: its grace and 20 s' \
                '--now	Give running jobs back instead of letting them finish' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'value:worker stop --context'
            printf '%s\n' \
                '@contexts'
        case 'value:worker stop --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:worker restart'
            true
        case 'options:worker restart'
            printf '%s\n' \
                '--timeout	Longest wait for the new processes' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'value:worker restart --context'
            printf '%s\n' \
                '@contexts'
        case 'value:worker restart --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:worker list'
            true
        case 'options:worker list'
            printf '%s\n' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'value:worker list --context'
            printf '%s\n' \
                '@contexts'
        case 'value:worker list --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:worker logs'
            true
        case 'options:worker logs'
            printf '%s\n' \
                '--lines	How many of the last ones' \
                '--follow	Go on with new lines until Ctrl-C' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'value:worker logs --context'
            printf '%s\n' \
                '@contexts'
        case 'value:worker logs --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:demo'
            true
        case 'options:demo'
            printf '%s\n' \
                '--keep	Leave it running, and tell how to explore and how to end it' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'value:demo --context'
            printf '%s\n' \
                '@contexts'
        case 'value:demo --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:config'
            true
        case 'options:config'
            printf '%s\n' \
                '--help	Show this message and exit'
        case 'argument:config 0'
            printf '%s\n' \
                'view	The settings in force, and where each comes from' \
                'path	The config files, the one that wins first'
        case 'commands:config view'
            true
        case 'options:config view'
            printf '%s\n' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'value:config view --context'
            printf '%s\n' \
                '@contexts'
        case 'value:config view --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:config path'
            true
        case 'options:config path'
            printf '%s\n' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'value:config path --context'
            printf '%s\n' \
                '@contexts'
        case 'value:config path --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:contexts'
            true
        case 'options:contexts'
            printf '%s\n' \
                '--redis	Redis' \
                '--prefix	BullMQ\'s key prefix' \
                '--context	[contexts.NAME] of the config' \
                '--output	Form of the result' \
                '--json	The same as --output json' \
                '--no-color	Without colours' \
                '--debug	Tracebacks on errors' \
                '--help	Show this message and exit'
        case 'value:contexts --context'
            printf '%s\n' \
                '@contexts'
        case 'value:contexts --output'
            printf '%s\n' \
                'table' \
                'json' \
                'ndjson'
        case 'commands:completion'
            true
        case 'options:completion'
            printf '%s\n' \
                '--help	Show this message and exit'
        case 'argument:completion 0'
            printf '%s\n' \
                'bash' \
                'zsh' \
                'fish'
        case '*'
            return 1
    end
end

function __qctl_takes_value
    contains -- $argv[1] --attempts --away --backoff --confirm --context --data --dedup --delay --event --for --grace --id --interval --limit --lines --log-format --max-jobs --max-queues --max-rss --name --on-timeout --output --prefix --priority --processes --rate --redis --remove-on-complete --remove-on-fail --serve --since --state --strategy --target --timeout --until --where
end

function __qctl_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l where ''
    set -l option ''
    set -l head ''
    set -l ended ''
    set -l count 0
    set -l i 2
    while test $i -le (count $words)
        set -l word $words[$i]
        set -l name ''
        set -l value ''
        if test -z "$ended"; and test "$word" = --
            set ended 1
        else if test -z "$ended"; and string match -q -- '--*=*' "$word"
            set name (string replace -r -- '=.*' '' "$word")
            set value (string replace -r -- '^[^=]*=' '' "$word")
        else if test -z "$ended"; and string match -q -- '-?*' "$word"
            if __qctl_takes_value "$word"
                set i (math $i + 1)
                set name $word
                if test $i -le (count $words)
                    set value $words[$i]
                else
                    set option $word
                end
            end
        else if test $count -eq 0; and __qctl_table "commands:"(string trim -- "$where $word")
            set where (string trim -- "$where $word")
        else
            set count (math $count + 1)
        end
        # Local to this function, and seen by what it starts.
        if test -n "$value"; and not string match -q -- '*$*' "$value"
            switch $name
                case --redis
                    set -fx QCTL_REDIS_URL $value
                case --prefix
                    set -fx QCTL_PREFIX $value
                case --context
                    set -fx QCTL_CONTEXT $value
            end
        end
        set i (math $i + 1)
    end

    if test -z "$option"; and test -z "$ended"; and string match -q -- '--*=*' "$current"
        set option (string replace -r -- '=.*' '' "$current")
        set head "$option="
    end
    set -l found
    if test -n "$option"
        set found (__qctl_table "value:$where $option")
    else if test -z "$ended"; and string match -q -- '-*' "$current"
        set found (__qctl_table "options:$where")
    else
        set found (__qctl_table "argument:$where $count"; or __qctl_table "argument:$where +")
    end
    for item in $found
        if string match -q -- '@*' "$item"
            set -l kind (string sub -s 2 -- "$item")
            set -l names (command $words[1] __complete $kind '' 2>/dev/null </dev/null)
            for name in $names
                printf '%s%s\n' "$head" "$name"
            end
        else
            printf '%s%s\n' "$head" "$item"
        end
    end
end

complete -c qctl -f -a '(__qctl_complete)'
