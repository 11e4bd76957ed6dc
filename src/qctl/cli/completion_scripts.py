"""The shell side of completion: three scripts with places for the tables that are generated.

Each reads the words before the cursor, finds the command and what is expected next, and looks that
up in the table. A table entry ``@KIND`` stands for names that ``qctl __complete KIND`` knows. Those
names are never evaluated: they are read line by line, compared, and quoted by the shell.

The connection options already on the line are handed on in the environment, where a password in a
URL is not shown to other users as an argument would be.
"""

BASH = r"""# bash completion for qctl. Made by `qctl completion bash`; changes here will be lost.

_qctl_table() {
  _qctl_found=()
  case $1 in
@@TABLE@@
    *) return 1 ;;
  esac
}

_qctl_takes_value() {
  case $1 in
    @@VALUES@@) return 0 ;;
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
"""

ZSH = r"""#compdef qctl
# zsh completion for qctl. Made by `qctl completion zsh`; changes here will be lost.

_qctl_table() {
  _qctl_found=()
  case $1 in
@@TABLE@@
    (*) return 1 ;;
  esac
}

_qctl_takes_value() {
  case $1 in
    (@@VALUES@@) return 0 ;;
  esac
  return 1
}

_qctl_setting() {
  # A value that the shell would still expand is not known yet.
  [[ $2 == *[\$\`]* ]] && return
  case $1 in
    (--redis) _qctl_redis=${(Q)2} ;;
    (--prefix) _qctl_prefix=${(Q)2} ;;
    (--context) _qctl_context=${(Q)2} ;;
  esac
}

_qctl_names() {
  [[ -n $_qctl_redis ]] && local -x QCTL_REDIS_URL=$_qctl_redis
  [[ -n $_qctl_prefix ]] && local -x QCTL_PREFIX=$_qctl_prefix
  [[ -n $_qctl_context ]] && local -x QCTL_CONTEXT=$_qctl_context
  command "$1" __complete "$2" '' 2>/dev/null </dev/null
}

_qctl() {
  local where='' option='' key word ended='' i
  local -i count=0
  local _qctl_redis='' _qctl_prefix='' _qctl_context=''
  local -a _qctl_found names

  for ((i = 2; i < CURRENT; i++)); do
    word=${(Q)words[i]}
    if [[ -z $ended && $word == -- ]]; then
      ended=1
    elif [[ -z $ended && $word == --*=* ]]; then
      _qctl_setting "${words[i]%%=*}" "${words[i]#*=}"
    elif [[ -z $ended && $word == -?* ]]; then
      if _qctl_takes_value "$word"; then
        ((i++))
        if ((i == CURRENT)); then
          option=$word
        else
          _qctl_setting "$word" "${words[i]}"
        fi
      fi
    elif ((count == 0)) && _qctl_table "commands:${where:+$where }$word"; then
      where="${where:+$where }$word"
    else
      ((count++))
    fi
  done

  if [[ -z $option && -z $ended && $PREFIX == --*=* ]]; then
    option=${PREFIX%%=*}
    compset -P '*='
  fi
  if [[ -n $option ]]; then
    key="value:$where $option"
  elif [[ -z $ended && $PREFIX == -* ]]; then
    key="options:$where"
  else
    key="argument:$where $count"
    _qctl_table "$key" || key="argument:$where +"
  fi
  _qctl_table "$key" || return
  if [[ $_qctl_found[1] == @* ]]; then
    names=("${(@f)$(_qctl_names "${(Q)words[1]}" "${_qctl_found[1]#@}")}")
    names=("${(@)names:#}")
    compadd -a names
  elif [[ $key == options:* ]]; then
    _describe -o option _qctl_found
  else
    _describe "${${key%%:*}/argument/command}" _qctl_found
  fi
}

# Loaded by compinit from $fpath it completes at once; otherwise it is registered.
if [[ $funcstack[1] == _qctl ]]; then
  _qctl "$@"
else
  compdef _qctl qctl
fi
"""

FISH = r"""# fish completion for qctl. Made by `qctl completion fish`; changes here will be lost.

function __qctl_table
    switch $argv[1]
@@TABLE@@
        case '*'
            return 1
    end
end

function __qctl_takes_value
    contains -- $argv[1] @@VALUES@@
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
"""
