"""Retry, promote or delete many jobs."""
