"""Settings and where each comes from: flags, environment, config files, defaults."""
