"""Reads queues without changing them."""
