"""Process managers behind one small protocol, and other facts about processes. No Redis."""
