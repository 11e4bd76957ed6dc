"""qctl's own background masters: their state folders, and their processes as a ``Manager``."""
