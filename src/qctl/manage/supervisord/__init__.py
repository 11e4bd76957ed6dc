"""supervisord: its processes, over XML-RPC on a unix socket or an HTTP port."""
