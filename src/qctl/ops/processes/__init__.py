"""Managed processes: targets, which worker runs where, and proven restarts."""
