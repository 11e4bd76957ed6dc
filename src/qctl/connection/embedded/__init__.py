"""A Redis of qctl's own: a private one for one command, or one that stays in a folder."""
