"""Redis servers that qctl starts: private to one command, or shared in a folder."""
