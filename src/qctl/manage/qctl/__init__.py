"""qctl's own masters in the background: their state folders, and a manager of their processes."""
