# fish completion for qctl, printed by `qctl completion fish`.
function __qctl_complete
    set -lx _QCTL_COMPLETE complete_fish
    set -lx _QCTL_LINE (commandline -cp)
    set -l words (commandline -opc)
    command $words[1] 2>/dev/null </dev/null
end
complete -c qctl -f -a '(__qctl_complete)'
