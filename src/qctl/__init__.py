"""qctl: operate Redis-backed job queues in BullMQ's format."""

__version__ = "0.1.0"
