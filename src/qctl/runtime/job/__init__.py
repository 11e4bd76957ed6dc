"""A job that a worker runs, and what its options say about its end."""
