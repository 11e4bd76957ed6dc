"""Changes queues: every write is a call of one Lua transition."""
