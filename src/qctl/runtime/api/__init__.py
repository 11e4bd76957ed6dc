"""``Worker``, ``Queue`` and ``AsyncQueue``: what an app imports."""
