"""``qctl demo``: a worker under load is killed once and restarted once; what each cost."""
