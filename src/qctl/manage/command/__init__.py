"""Apps under any other manager: commands in the config show whether they run, and restart them."""
