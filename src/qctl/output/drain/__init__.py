"""A drain on the screen: plain lines for pipes, and a picture that changes for terminals."""
