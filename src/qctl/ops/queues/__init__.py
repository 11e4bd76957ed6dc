"""Queues as a whole: find, show, pause and resume them."""
