"""Start, list, restart and stop masters, and read their logs.

A master is a background process that runs and replaces worker processes (docs/worker.md).
"""
