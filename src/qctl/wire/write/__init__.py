"""Changes queues. Each change of a job's state is made by a Lua script."""
