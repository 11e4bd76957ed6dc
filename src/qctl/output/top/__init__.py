"""The live full-screen view. Everything here but ``tables`` and ``actions`` imports Textual."""
