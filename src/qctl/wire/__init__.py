"""The BullMQ format: key names, job records, transitions, events. Nothing else composes a key."""
