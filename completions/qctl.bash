# bash completion for qctl. Made by `qctl completion bash`; changes here will be lost.

_qctl_table() {
  _qctl_found=()
  case $1 in
    'commands:') _qctl_found=() ;;
    'options:') _qctl_found=('--version' '--help') ;;
    'argument: 0') _qctl_found=('status' 'queues' 'workers' 'jobs' 'pause' 'resume' 'drain' 'restart' 'impact' 'doctor' 'schedules' 'events' 'wait' 'purge' 'top' 'metrics' 'worker' 'demo' 'config' 'contexts' 'completion') ;;
    'commands:status') _qctl_found=() ;;
    'options:status') _qctl_found=('--watch' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:status +') _qctl_found=('@queues') ;;
    'value:status --context') _qctl_found=('@contexts') ;;
    'value:status --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:queues') _qctl_found=() ;;
    'options:queues') _qctl_found=('--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'value:queues --context') _qctl_found=('@contexts') ;;
    'value:queues --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:workers') _qctl_found=() ;;
    'options:workers') _qctl_found=('--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:workers +') _qctl_found=('@queues') ;;
    'value:workers --context') _qctl_found=('@contexts') ;;
    'value:workers --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:jobs') _qctl_found=() ;;
    'options:jobs') _qctl_found=('--help') ;;
    'argument:jobs 0') _qctl_found=('list' 'show' 'logs' 'retry-stalled' 'retry' 'retry-failed' 'promote' 'remove' 'add') ;;
    'commands:jobs list') _qctl_found=() ;;
    'options:jobs list') _qctl_found=('--state' '--name' '--id' '--where' '--since' '--until' '--limit' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:jobs list 0') _qctl_found=('@queues') ;;
    'value:jobs list --state') _qctl_found=('waiting' 'active' 'stalled' 'delayed' 'prioritized' 'waiting-children' 'completed' 'failed') ;;
    'value:jobs list --context') _qctl_found=('@contexts') ;;
    'value:jobs list --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:jobs show') _qctl_found=() ;;
    'options:jobs show') _qctl_found=('--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:jobs show 0') _qctl_found=('@queues') ;;
    'value:jobs show --context') _qctl_found=('@contexts') ;;
    'value:jobs show --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:jobs logs') _qctl_found=() ;;
    'options:jobs logs') _qctl_found=('--follow' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:jobs logs 0') _qctl_found=('@queues') ;;
    'value:jobs logs --context') _qctl_found=('@contexts') ;;
    'value:jobs logs --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:jobs retry-stalled') _qctl_found=() ;;
    'options:jobs retry-stalled') _qctl_found=('--failed' '--wait' '--count-stall' '--yes' '--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:jobs retry-stalled +') _qctl_found=('@queues') ;;
    'value:jobs retry-stalled --context') _qctl_found=('@contexts') ;;
    'value:jobs retry-stalled --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:jobs retry') _qctl_found=() ;;
    'options:jobs retry') _qctl_found=('--reset-attempts' '--yes' '--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:jobs retry 0') _qctl_found=('@queues') ;;
    'value:jobs retry --context') _qctl_found=('@contexts') ;;
    'value:jobs retry --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:jobs retry-failed') _qctl_found=() ;;
    'options:jobs retry-failed') _qctl_found=('--name' '--id' '--where' '--since' '--until' '--limit' '--rate' '--reset-attempts' '--yes' '--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:jobs retry-failed 0') _qctl_found=('@queues') ;;
    'value:jobs retry-failed --context') _qctl_found=('@contexts') ;;
    'value:jobs retry-failed --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:jobs promote') _qctl_found=() ;;
    'options:jobs promote') _qctl_found=('--name' '--where' '--since' '--until' '--limit' '--rate' '--yes' '--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:jobs promote 0') _qctl_found=('@queues') ;;
    'value:jobs promote --context') _qctl_found=('@contexts') ;;
    'value:jobs promote --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:jobs remove') _qctl_found=() ;;
    'options:jobs remove') _qctl_found=('--state' '--name' '--where' '--since' '--until' '--limit' '--rate' '--with-children' '--yes' '--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:jobs remove 0') _qctl_found=('@queues') ;;
    'value:jobs remove --state') _qctl_found=('waiting' 'stalled' 'delayed' 'prioritized' 'waiting-children' 'completed' 'failed') ;;
    'value:jobs remove --context') _qctl_found=('@contexts') ;;
    'value:jobs remove --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:jobs add') _qctl_found=() ;;
    'options:jobs add') _qctl_found=('--data' '--delay' '--priority' '--attempts' '--backoff' '--id' '--lifo' '--remove-on-complete' '--remove-on-fail' '--dedup' '--create' '--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:jobs add 0') _qctl_found=('@queues') ;;
    'value:jobs add --context') _qctl_found=('@contexts') ;;
    'value:jobs add --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:pause') _qctl_found=() ;;
    'options:pause') _qctl_found=('--mixed-versions' '--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:pause +') _qctl_found=('@queues') ;;
    'value:pause --context') _qctl_found=('@contexts') ;;
    'value:pause --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:resume') _qctl_found=() ;;
    'options:resume') _qctl_found=('--force' '--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:resume +') _qctl_found=('@queues') ;;
    'value:resume --context') _qctl_found=('@contexts') ;;
    'value:resume --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:drain') _qctl_found=() ;;
    'options:drain') _qctl_found=('--then-restart' '--target' '--timeout' '--on-timeout' '--strategy' '--include-others' '--ignore-others' '--keep-paused' '--mixed-versions' '--yes' '--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:drain +') _qctl_found=('@queues') ;;
    'value:drain --target') _qctl_found=('@targets') ;;
    'value:drain --on-timeout') _qctl_found=('abort' 'restart') ;;
    'value:drain --strategy') _qctl_found=('pause' 'roll') ;;
    'value:drain --context') _qctl_found=('@contexts') ;;
    'value:drain --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:restart') _qctl_found=() ;;
    'options:restart') _qctl_found=('--timeout' '--on-timeout' '--strategy' '--include-others' '--ignore-others' '--keep-paused' '--mixed-versions' '--yes' '--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:restart 0') _qctl_found=('@targets') ;;
    'value:restart --on-timeout') _qctl_found=('abort' 'restart') ;;
    'value:restart --strategy') _qctl_found=('pause' 'roll') ;;
    'value:restart --context') _qctl_found=('@contexts') ;;
    'value:restart --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:impact') _qctl_found=() ;;
    'options:impact') _qctl_found=('--target' '--away' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:impact +') _qctl_found=('@queues') ;;
    'value:impact --target') _qctl_found=('@targets') ;;
    'value:impact --context') _qctl_found=('@contexts') ;;
    'value:impact --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:doctor') _qctl_found=() ;;
    'options:doctor') _qctl_found=('--target' '--full' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:doctor +') _qctl_found=('@queues') ;;
    'value:doctor --target') _qctl_found=('@targets') ;;
    'value:doctor --context') _qctl_found=('@contexts') ;;
    'value:doctor --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:schedules') _qctl_found=() ;;
    'options:schedules') _qctl_found=('--help') ;;
    'argument:schedules 0') _qctl_found=('list' 'show' 'remove' 'run') ;;
    'commands:schedules list') _qctl_found=() ;;
    'options:schedules list') _qctl_found=('--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:schedules list +') _qctl_found=('@queues') ;;
    'value:schedules list --context') _qctl_found=('@contexts') ;;
    'value:schedules list --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:schedules show') _qctl_found=() ;;
    'options:schedules show') _qctl_found=('--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:schedules show 0') _qctl_found=('@queues') ;;
    'value:schedules show --context') _qctl_found=('@contexts') ;;
    'value:schedules show --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:schedules remove') _qctl_found=() ;;
    'options:schedules remove') _qctl_found=('--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:schedules remove 0') _qctl_found=('@queues') ;;
    'value:schedules remove --context') _qctl_found=('@contexts') ;;
    'value:schedules remove --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:schedules run') _qctl_found=() ;;
    'options:schedules run') _qctl_found=('--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:schedules run 0') _qctl_found=('@queues') ;;
    'value:schedules run --context') _qctl_found=('@contexts') ;;
    'value:schedules run --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:events') _qctl_found=() ;;
    'options:events') _qctl_found=('--follow' '--since' '--event' '--id' '--limit' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:events 0') _qctl_found=('@queues') ;;
    'value:events --context') _qctl_found=('@contexts') ;;
    'value:events --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:wait') _qctl_found=() ;;
    'options:wait') _qctl_found=('--for' '--timeout' '--include-delayed' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:wait 0') _qctl_found=('@queues') ;;
    'value:wait --context') _qctl_found=('@contexts') ;;
    'value:wait --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:purge') _qctl_found=() ;;
    'options:purge') _qctl_found=('--state' '--name' '--id' '--where' '--since' '--until' '--limit' '--rate' '--yes' '--dry-run' '--confirm' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:purge 0') _qctl_found=('@queues') ;;
    'value:purge --state') _qctl_found=('waiting' 'stalled' 'delayed' 'prioritized' 'waiting-children' 'completed' 'failed') ;;
    'value:purge --context') _qctl_found=('@contexts') ;;
    'value:purge --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:top') _qctl_found=() ;;
    'options:top') _qctl_found=('--interval' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'argument:top +') _qctl_found=('@queues') ;;
    'value:top --context') _qctl_found=('@contexts') ;;
    'value:top --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:metrics') _qctl_found=() ;;
    'options:metrics') _qctl_found=('--serve' '--max-queues' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'value:metrics --context') _qctl_found=('@contexts') ;;
    'value:metrics --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:worker') _qctl_found=() ;;
    'options:worker') _qctl_found=('--help') ;;
    'argument:worker 0') _qctl_found=('run' 'start' 'stop' 'restart' 'list' 'logs') ;;
    'commands:worker run') _qctl_found=() ;;
    'options:worker run') _qctl_found=('--processes' '--grace' '--max-jobs' '--max-rss' '--reload' '--health-port' '--log-format' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'value:worker run --log-format') _qctl_found=('text' 'json') ;;
    'value:worker run --context') _qctl_found=('@contexts') ;;
    'value:worker run --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:worker start') _qctl_found=() ;;
    'options:worker start') _qctl_found=('--processes' '--grace' '--max-jobs' '--max-rss' '--reload' '--health-port' '--log-format' '--timeout' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'value:worker start --log-format') _qctl_found=('text' 'json') ;;
    'value:worker start --context') _qctl_found=('@contexts') ;;
    'value:worker start --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:worker stop') _qctl_found=() ;;
    'options:worker stop') _qctl_found=('--timeout' '--now' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'value:worker stop --context') _qctl_found=('@contexts') ;;
    'value:worker stop --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:worker restart') _qctl_found=() ;;
    'options:worker restart') _qctl_found=('--timeout' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'value:worker restart --context') _qctl_found=('@contexts') ;;
    'value:worker restart --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:worker list') _qctl_found=() ;;
    'options:worker list') _qctl_found=('--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'value:worker list --context') _qctl_found=('@contexts') ;;
    'value:worker list --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:worker logs') _qctl_found=() ;;
    'options:worker logs') _qctl_found=('--lines' '--follow' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'value:worker logs --context') _qctl_found=('@contexts') ;;
    'value:worker logs --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:demo') _qctl_found=() ;;
    'options:demo') _qctl_found=('--keep' '--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'value:demo --context') _qctl_found=('@contexts') ;;
    'value:demo --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:config') _qctl_found=() ;;
    'options:config') _qctl_found=('--help') ;;
    'argument:config 0') _qctl_found=('view' 'path') ;;
    'commands:config view') _qctl_found=() ;;
    'options:config view') _qctl_found=('--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'value:config view --context') _qctl_found=('@contexts') ;;
    'value:config view --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:config path') _qctl_found=() ;;
    'options:config path') _qctl_found=('--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'value:config path --context') _qctl_found=('@contexts') ;;
    'value:config path --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:contexts') _qctl_found=() ;;
    'options:contexts') _qctl_found=('--redis' '--prefix' '--context' '--output' '--json' '--no-color' '--debug' '--help') ;;
    'value:contexts --context') _qctl_found=('@contexts') ;;
    'value:contexts --output') _qctl_found=('table' 'json' 'ndjson') ;;
    'commands:completion') _qctl_found=() ;;
    'options:completion') _qctl_found=('--help') ;;
    'argument:completion 0') _qctl_found=('bash' 'zsh' 'fish') ;;
    *) return 1 ;;
  esac
}

_qctl_takes_value() {
  case $1 in
    --attempts | --away | --backoff | --confirm | --context | --data | --dedup | --delay | --event | --for | --grace | --id | --interval | --limit | --lines | --log-format | --max-jobs | --max-queues | --max-rss | --name | --on-timeout | --output | --prefix | --priority | --processes | --rate | --redis | --remove-on-complete | --remove-on-fail | --serve | --since | --state | --strategy | --target | --timeout | --until | --where) return 0 ;;
  esac
  return 1
}

# Remembers a connection option that is typed already, if it needs no expansion by the shell.
_qctl_setting() {
  local value=$2
  case $value in
    \"*\" | \'*\') value=${value:1:${#value}-2} ;;
  esac
  case $value in
    *[\$\`\\\"\']*) return ;;
  esac
  case $1 in
    --redis) _qctl_redis=$value ;;
    --prefix) _qctl_prefix=$value ;;
    --context) _qctl_context=$value ;;
  esac
}

_qctl_names() {
  [[ -n $_qctl_redis ]] && local -x QCTL_REDIS_URL=$_qctl_redis
  [[ -n $_qctl_prefix ]] && local -x QCTL_PREFIX=$_qctl_prefix
  [[ -n $_qctl_context ]] && local -x QCTL_CONTEXT=$_qctl_context
  command "$1" __complete "$2" "$3" 2>/dev/null </dev/null
}

# Adds a candidate, quoted for where the cursor is.
_qctl_add() {
  local item=$1
  [[ $item == "$cur"* ]] || return
  case $quote in
    \') [[ $item == *\'* ]] && return ;;
    \") [[ $item == *[\"\$\`\\!]* ]] && return ;;
    *)
      # Readline replaces only what stands behind the last of its word breaks.
      item=${item#"$head"}
      printf -v item %q "$item"
      item=$lead$item
      ;;
  esac
  COMPREPLY+=("$item")
}

_qctl() {
  local IFS=$' \t\n' rest=${COMP_LINE:0:COMP_POINT} cur='' quote='' head='' lead='' option=''
  local key='' where='' breaks='' gap word item i count=0 n=0 ended=''
  local _qctl_redis='' _qctl_prefix='' _qctl_context=''
  local -a words=() _qctl_found=()
  COMPREPLY=()

  # Bash splits words at :, = and @ too; join what is not separated by a space.
  for ((i = 0; i <= COMP_CWORD; i++)); do
    gap=${rest%%[![:space:]]*}
    rest=${rest#"$gap"}
    word=${COMP_WORDS[i]}
    ((i == COMP_CWORD)) && word=$rest
    rest=${rest#"$word"}
    if [[ $i == 0 || -n $gap ]]; then
      words[n]=$word
      n=$((n + 1))
    else
      words[n - 1]+=$word
    fi
  done
  cur=${words[n - 1]}

  for ((i = 1; i < n - 1; i++)); do
    word=${words[i]}
    if [[ -z $ended && $word == -- ]]; then
      ended=1
    elif [[ -z $ended && $word == --*=* ]]; then
      _qctl_setting "${word%%=*}" "${word#*=}"
    elif [[ -z $ended && $word == -?* ]]; then
      if _qctl_takes_value "$word"; then
        i=$((i + 1))
        if ((i == n - 1)); then
          option=$word
        else
          _qctl_setting "$word" "${words[i]}"
        fi
      fi
    elif ((count == 0)) && _qctl_table "commands:${where:+$where }$word"; then
      where="${where:+$where }$word"
    else
      count=$((count + 1))
    fi
  done

  if [[ -z $option && -z $ended && $cur == --*=* ]]; then
    option=${cur%%=*}
    cur=${cur#*=}
    [[ $COMP_WORDBREAKS == *=* ]] || lead="$option="
  fi
  case $cur in
    \'*) quote=\' cur=${cur:1} ;;
    \"*) quote=\" cur=${cur:1} ;;
    *) cur=${cur//\\/} ;;
  esac
  if [[ -n $option ]]; then
    key="value:$where $option"
  elif [[ -z $ended && -z $quote && $cur == -* ]]; then
    key="options:$where"
  else
    key="argument:$where $count"
    _qctl_table "$key" || key="argument:$where +"
  fi
  for item in : =; do
    [[ $COMP_WORDBREAKS == *$item* ]] && breaks+=$item
  done
  [[ -n $breaks ]] && head=${cur%"${cur##*[$breaks]}"}
  # An @ belongs to what is replaced.
  word=${cur#"$head"}
  [[ $COMP_WORDBREAKS == *@* && $word == *@* ]] && head+=${word%@*}
  _qctl_table "$key"
  local -a found=("${_qctl_found[@]}")
  for word in "${found[@]}"; do
    if [[ $word == @* ]]; then
      while IFS= read -r item; do
        _qctl_add "$item"
      done < <(_qctl_names "${words[0]}" "${word:1}" "$cur")
    else
      _qctl_add "$word"
    fi
  done
}

complete -F _qctl qctl
