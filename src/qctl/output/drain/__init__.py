"""A drain on the screen: plain lines for pipes, and blocks that are redrawn for terminals."""
