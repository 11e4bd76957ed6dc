"""PM2: its processes, over the daemon's own socket or the ``pm2`` command."""
