"""``qctl demo``: kill a busy worker, restart it with qctl, and show what each has cost."""
