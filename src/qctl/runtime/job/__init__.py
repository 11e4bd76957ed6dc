"""A job that a worker runs, its options, and how a handler decides its outcome."""
