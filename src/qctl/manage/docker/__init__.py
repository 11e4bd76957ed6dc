"""Docker: containers and Compose services."""
