"""Run an app's handlers: async, in threads, in child processes."""
