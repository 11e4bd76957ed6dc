"""Apps under any other manager: the config has a command for their status and their restart."""
