"""Replace the processes of a target one at a time, while the queues keep working."""
