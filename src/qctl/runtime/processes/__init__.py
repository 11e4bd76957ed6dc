"""Worker processes: the master, its children, signals, health, logs."""
