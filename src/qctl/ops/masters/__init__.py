"""Manages masters, the background processes that run worker processes (docs/worker.md)."""
