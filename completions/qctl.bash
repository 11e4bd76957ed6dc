# bash completion for qctl, printed by `qctl completion bash`.
_qctl_completion() {
    local candidate
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <(_QCTL_COMPLETE=complete_bash _QCTL_LINE="${COMP_LINE:0:COMP_POINT}" \
        _QCTL_BREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null </dev/null)
}
complete -F _qctl_completion qctl
