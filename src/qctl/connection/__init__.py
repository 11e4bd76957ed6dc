"""From a URL to a client: TCP, TLS, unix sockets, Sentinel, clusters, and a Redis of qctl's own."""
