"""Drain queues, restart their processes, and prove what became of every job."""
