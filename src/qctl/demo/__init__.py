"""``qctl demo``: kill a busy worker process, restart the worker with qctl, compare the costs."""
