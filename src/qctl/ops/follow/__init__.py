"""Follow a queue's events, and wait for a queue or a job."""
