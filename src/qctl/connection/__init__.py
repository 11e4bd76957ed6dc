"""Redis clients for every kind of URL: TCP, TLS, unix socket, Sentinel, cluster, embedded."""
