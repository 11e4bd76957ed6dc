"""Process managers behind one small protocol. Knows processes, never Redis."""
