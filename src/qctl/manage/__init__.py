"""Process managers, behind one small protocol. This room knows processes and never Redis."""
