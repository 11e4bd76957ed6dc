"""``qctl demo``: a worker under load that is killed once and restarted once, and what it cost."""
