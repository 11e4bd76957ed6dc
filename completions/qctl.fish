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
                'jobs	Look at jobs; bring stalled ones back' \
                'pause	Stop workers from taking jobs; running ones go on' \
                'resume	Let workers take jobs again' \
                'drain	Let the running jobs finish, then restart the workers if wanted' \
                'restart	Restart a process without interrupting its jobs' \
                'worker	Run workers in Python, in front or in the background' \
                'demo	Watch a restart under load, and the proof that nothing was lost' \
                'completion	Completion of commands and queue names for your shell'
        case 'commands:status'
            true
        case 'options:status'
            printf '%s\n' \
                '--watch	Look again every 2 (or SECONDS) seconds until Ctrl-C' \
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
                'retry-stalled	Put stalled jobs back to run next, now instead of after the stalled checks'
        case 'commands:jobs list'
            true
        case 'options:jobs list'
            printf '%s\n' \
                '--state	Which jobs' \
                '--name	Only jobs of this name' \
                '--where	Only jobs for which this holds, e.g. \'attempts_made > 2 and data.user.id = 42\'' \
                '--since	Only jobs finished (completed, failed) or added since: 30s, 10m, 2h, 3d, a time' \
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
        case 'commands:pause'
            true
        case 'options:pause'
            printf '%s\n' \
                '--dry-run	Say what would be done, write nothing' \
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
                '--target	Process to restart, for example pm2:worker' \
                '--timeout	Longest wait for running jobs: 30s, 10m, 2h' \
                '--on-timeout	Then: put everything back, or restart anyway and bring interrupted jobs back' \
                '--strategy	How: pause the queues meanwhile, or roll: one process after another, no pause. Default: roll for qctl: targets, else pause' \
                '--include-others	Queues the process serves that were not named: drain them too, or let their jobs be interrupted. Without either: refuse' \
                '--ignore-others	Queues the process serves that were not named: drain them too, or let their jobs be interrupted. Without either: refuse' \
                '--keep-paused	Leave the queues paused at the end' \
                '--yes	Do not ask' \
                '--dry-run	Show the plan and write nothing' \
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
                '--timeout	Longest wait for running jobs: 30s, 10m, 2h' \
                '--on-timeout	Then: put everything back, or restart anyway and bring interrupted jobs back' \
                '--strategy	How: pause the queues meanwhile, or roll: one process after another, no pause. Default: roll for qctl: targets, else pause' \
                '--include-others	Queues the process serves that were not named: drain them too, or let their jobs be interrupted. Without either: refuse' \
                '--ignore-others	Queues the process serves that were not named: drain them too, or let their jobs be interrupted. Without either: refuse' \
                '--keep-paused	Leave the queues paused at the end' \
                '--yes	Do not ask' \
                '--dry-run	Show the plan and write nothing' \
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
    contains -- $argv[1] --context --grace --limit --lines --log-format --max-jobs --max-rss --name --on-timeout --output --prefix --processes --redis --since --state --strategy --target --timeout --where
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
