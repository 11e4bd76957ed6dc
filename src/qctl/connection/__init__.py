"""Makes a client for a URL: TCP, TLS, unix sockets, Sentinel, clusters, embedded servers."""
